"""One run: how far it is, what it did and when, what it waits for, and what one can do about it."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from gui_proj.acting import acting_notice, may_be_stopped
from gui_proj.components import (
    LACKED,
    asker,
    card,
    csrf_field,
    link_to_run,
    pill,
    progress_bar,
    query,
    runs_table,
    waiting_words,
)
from gui_proj.held import held_card, queue_of
from gui_proj.icons import icon
from gui_proj.json_view import json_view
from gui_proj.moments import ago, ahead, duration
from gui_proj.page import heading
from gui_proj.queue_words import link_to_queue
from gui_proj.resources import ENDED, Operation, Run
from gui_proj.screens.schedules import link_to_schedule
from gui_proj.timeline import timeline
from gui_proj.undos import undoing_badge, undos_card
from gui_proj.visit import Visit

MOST_OPERATIONS: Final = 150
MOST_LINES: Final = 100
LONGEST_LINE: Final = 400
REFRESH_SECONDS: Final = 2
OF_SCHEDULE: Final = "schedule~"  # ids that only schedules give
MOVING: Final = frozenset({"queued", "running", "cancelling"})  # its bars grow even while nothing is told


async def show(visit: Visit) -> Response:
    path = f"/v1/runs/{quote(visit.path('id'), safe='')}"
    cursor = visit.query("cursor")
    run, listing, log = await asyncio.gather(
        visit.get(path),
        visit.get(f"{path}/history", limit=MOST_OPERATIONS, cursor=cursor),
        visit.get(f"{path}/logs", limit=MOST_LINES),
    )
    children, queue = await asyncio.gather(_children(visit, run, listing["items"]), queue_of(visit, run))
    if run["status"] not in ENDED:
        visit.gui.live.watch_run(visit.session, run["id"])
    operations = listing["items"] + pending(run, listing["items"], visit.gui.live.under_way(visit.session, run["id"]))
    live = f"run:{run['id']} queues"
    every = REFRESH_SECONDS if run["status"] in MOVING or may_be_stopped(run) else None
    return await visit.page(
        f"{run['workflow']} · {run['status']}",
        h.div("#run-head", data_live=live, data_every=every)[_head(visit, run)],
        h.div("#run-body", data_live=live)[
            undos_card(run, listing["items"]),
            held_card(run, queue),
            _waiting(visit, run),
            card(
                timeline(run, operations),
                _pages(run, cursor, listing["next_cursor"]),
                title="Timeline",
                action=h.span(".muted")[_counted(listing["items"], more=bool(listing["next_cursor"]))],
            ),
            h.div(".halves")[_input_card(run), _output_card(run)],
            card(runs_table(children, caption="Child runs"), title="Child runs") if children else None,
            _log_card(run, log["items"], more=bool(log["next_cursor"])),
            _facts_card(visit, run),
        ],
    )


def pending(run: Run, history: Sequence[Operation], under_way: Sequence[Operation]) -> list[Operation]:
    """What the run does now or waits for, in the shape of history it will have: nothing of it has ended."""
    if run["status"] in ENDED:
        return []
    done = {entry["operation"] for entry in history}
    found = [entry for entry in under_way if entry["operation"] not in done]
    since = max((entry["ended_at"] or "" for entry in history), default="") or run["started_at"]
    known = {(entry["kind"], entry["name"]) for entry in found}
    for number, waiting in enumerate(run["waiting_for"]):
        if waiting["kind"] not in LACKED and (waiting["kind"], waiting["name"]) not in known:
            found.append(
                {
                    "position": 0,
                    "operation": f"waiting-{number}",
                    "kind": waiting["kind"],
                    "name": waiting["name"],
                    "status": "waiting",
                    "attempt": 1,
                    "started_at": since,
                    "ended_at": None,
                }
            )
    return found


def _pages(run: Run, cursor: str, following: str | None) -> h.Node:
    """The way through a history too long for one page."""
    if not cursor and not following:
        return None
    address = link_to_run(run["id"])
    return h.nav(".pages", aria_label="Pages of the history")[
        cursor and h.a(".button.small", href=address)["From the start"],
        following and h.a(".button.small", href=query(address, cursor=following))["Later operations"],
    ]


async def _children(visit: Visit, run: Run, history: Sequence[Operation]) -> list[Run]:
    """The runs this one started; only asked for when its history says there are any."""
    if not any(entry["kind"] == "child" for entry in history):
        return []
    listing = await visit.get("/v1/runs", parent=run["id"], limit=200)
    return [each for each in listing["items"] if each.get("parent") == run["id"]]


def _head(visit: Visit, run: Run) -> h.Node:
    took = duration(run["started_at"], run["ended_at"])
    took = took and f" · took {took}" if run["ended_at"] else took and f" · for {took}"
    return [
        heading(
            run["workflow"],
            above=[h.a(href="/runs")["Runs"], " / ", h.span(".mono")[run["id"]]],
            below=h.div(".under")[
                pill(run["status"]),
                undoing_badge(run),
                h.span(".muted")["by ", asker(run), " · ", ago(run["created_at"]), took],
            ],
            beside=_actions(visit, run),
        ),
        progress_bar(run["progress"]) if run["status"] not in ENDED else None,
        _error(run),
        acting_notice(
            run, subject=visit.session.person.subject, apps_url=f"{visit.gui.settings.auth_url}/account/apps"
        ),
    ]


def _error(run: Run) -> h.Node:
    error = run["error"]
    if not error:
        return None
    return h.div(".error-box", role="alert")[
        icon("alert"),
        h.div[h.b[error["type"]], h.p[error["message"]], _stack(error.get("stack"))],
    ]


def _stack(stack: str | None) -> h.Node:
    return stack and h.details("#stack", data_keep=True)[h.summary["Where"], h.pre(tabindex="0")[h.code[stack]]]


def _actions(visit: Visit, run: Run) -> h.Node:
    again = h.a(".button", href=f"/workflows/{quote(run['workflow'], safe='')}?like={quote(run['id'], safe='')}")[
        icon("copy"), "Start one like this"
    ]
    retry = _action(visit, run, "retry", "Retry", "retry", style="primary")
    cancel = _action(visit, run, "cancel", "Cancel", "ban", style="danger")
    if run["status"] in {"failed", "cancelled"}:
        return [again, retry]
    if run["status"] == "nondeterministic":
        return [again, cancel, retry]
    if run["status"] not in ENDED and run["status"] != "cancelling" and not run["undoing_since"]:
        return [cancel]
    return again


def _action(visit: Visit, run: Run, verb: str, label: str, drawing: str, *, style: str) -> h.Element:
    return h.form(method="post", action=f"{link_to_run(run['id'])}/{verb}")[
        csrf_field(visit.csrf), h.button(class_=style, type="submit")[icon(drawing), label]
    ]


def _waiting(visit: Visit, run: Run) -> h.Node:
    """What an unfinished run waits for; where a person can give it, the form to do so."""
    waiting = [each for each in run["waiting_for"] if each["kind"] != "undo"]  # of those the card of undos tells more
    if not waiting or run["status"] in ENDED:
        return None
    signals = dict.fromkeys(each["name"] for each in waiting if each["kind"].removeprefix("wait_") == "signal")
    return card(
        h.div(".pad")[
            h.p[
                h.b["Waiting for ", waiting_words(waiting)],
                [h.span(".muted")[", runs out ", ahead(each["until"])] for each in waiting if each.get("until")],
            ],
            any(each["kind"] == "approval" for each in waiting)
            and h.p[h.a(".button.small", href="/approvals")[icon("approvals"), "Go to the approvals"]],
        ],
        [_signal_form(visit, run, name) for name in signals],
        title=None,
        style="waiting",
    )


def _signal_form(visit: Visit, run: Run, name: str) -> h.Element:
    field = f"signal-{name}"
    return h.form(".pad", method="post", action=f"{link_to_run(run['id'])}/signal")[
        csrf_field(visit.csrf),
        h.input(type="hidden", name="_key", value=uuid.uuid4().hex),
        h.input(type="hidden", name="name", value=name),
        h.div(".field")[
            h.label(for_=field)["Signal ", h.code[name], ", as JSON"],
            h.textarea(".code", id=field, name="payload", rows="3", spellcheck="false", data_keep=True)["\n{}"],
        ],
        h.button(".primary", type="submit")[icon("mail"), "Send the signal"],
    ]


def _input_card(run: Run) -> h.Element:
    return card(_value(run, "input"), title="Input")


def _output_card(run: Run) -> h.Element:
    if run["status"] != "completed" and run["views"]:
        return card(json_view(run["views"]), title="Views")
    return card(
        _value(run, "output")
        if run["status"] == "completed"
        else h.p(".muted.pad")["Nothing yet."]
        if run["status"] not in ENDED
        else h.p(".muted.pad")["It ended without a result."],
        run["views"] and h.details("#views.pad", data_keep=True)[h.summary["Views"], json_view(run["views"])],
        title="Output",
    )


def _value(run: Run, part: str) -> h.Node:
    value: Any = run[part]  # type: ignore[literal-required]
    if value is None:
        return h.p(".muted.pad")["None."]
    return json_view(value, whole=f"{link_to_run(run['id'])}/{part}.json")


def _log_card(run: Run, lines: Sequence[dict[str, Any]], *, more: bool) -> h.Node:
    """What the run logged, oldest first; nothing where it logged nothing."""
    if not lines:
        return None
    text = "\n".join(
        f"{line['at'][11:23]} {line['level']:<7} {line['operation'] or 'workflow'}: {line['message'][:LONGEST_LINE]}"
        for line in lines
    )
    rest = more and h.p(".muted")["There is more: ", h.code[f"evs run logs {run['id']}"]]
    return card(h.div(".json")[h.pre("#log", tabindex="0")[h.code[text]]], rest, title="Log (times in UTC)")


def _facts_card(visit: Visit, run: Run) -> h.Element:
    facts: list[tuple[str, h.Node]] = [
        ("Run", h.span(".mono")[run["id"]]),
        ("Workflow", f"{run['workflow']} v{run['version']}"),
        ("Queue", h.a(href=link_to_queue(run["queue"]))[run["queue"]] if visit.may_manage else run["queue"]),
        ("Created", ago(run["created_at"])),
        ("Started", ago(run["started_at"])),
        ("Ended", ago(run["ended_at"])),
        ("Correlation", h.span(".mono")[run["correlation_id"]]),
    ]
    if run["deadline_at"] and not run["ended_at"]:
        facts.append(("Must end", ahead(run["deadline_at"])))
    if run["parent"]:
        facts.append(("Parent", h.a(".mono", href=link_to_run(run["parent"]))[run["parent"]]))
    if run["forked_from"]:
        facts.append(("Forked from", _origin(run, run["forked_from"])))
    if run["id"].startswith(OF_SCHEDULE) and (schedule := run["tags"].get("schedule")):
        facts.append(("Schedule", h.a(href=link_to_schedule(schedule))[schedule] if visit.may_manage else schedule))
    if tags := run["tags"].items():
        facts.append(("Tags", [_tag(name, value) for name, value in tags]))
    return card(
        h.dl(".facts")[((h.dt[name], h.dd[value]) for name, value in facts)],
        title="Details",
        action=h.a(href=f"/events?subject={quote(run['id'], safe='')}")["Its events"],
    )


def _origin(run: Run, origin: str) -> h.Node:
    """The run that a fork came from, and the way to what became different."""
    return [
        h.a(".mono", href=link_to_run(origin))[origin],
        h.a(".button.small", href=query(f"{link_to_run(run['id'])}/comparison", **{"with": origin}))[
            icon("fork"), "What differs"
        ],
    ]


def _tag(name: str, value: str) -> h.Element:
    """A tag, and the way to every run that has it."""
    return h.a(".badge", href=query("/runs", tag=f"{name}:{value}" if value else name))[
        f"{name}={value}" if value else name
    ]


def _counted(history: Sequence[Operation], *, more: bool) -> str:
    failed = sum(entry["status"] == "failed" for entry in history)
    undone = sum(entry["kind"] == "undo" and entry["status"] == "completed" for entry in history)
    count = sum(entry["kind"] != "undoing" for entry in history)
    words = [f"{count}{'+' if more else ''} operations"]
    words += [f"{failed} failed"] if failed else []
    words += [f"{undone} undone"] if undone else []
    return " · ".join(words)


async def download(visit: Visit) -> Response:
    """The whole input or output, as JSON."""
    part = visit.path("part")
    if part not in {"input", "output"}:
        raise HTTPException(404)
    run = await visit.get(f"/v1/runs/{quote(visit.path('id'), safe='')}")
    return JSONResponse(run[part], headers={"Cache-Control": "no-store"})


async def operation(visit: Visit) -> Response:
    """One entry of the history, whole."""
    run_id, position = visit.path("id"), visit.number("position")
    cursor: str | None = ""
    while cursor is not None:
        listing = await visit.get(f"/v1/runs/{quote(run_id, safe='')}/history", limit=200, cursor=cursor)
        entry = next((each for each in listing["items"] if each["position"] == position), None)
        if entry is not None:
            return JSONResponse(entry, headers={"Cache-Control": "no-store"})
        cursor = listing["next_cursor"]
    raise HTTPException(404)
