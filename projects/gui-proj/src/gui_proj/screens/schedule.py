"""One schedule: when it is due next, what it did last, and what one can do about it."""

import uuid
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, counted, csrf_field, empty, link_to_run, notice, pill, query, short_id
from gui_proj.icons import icon
from gui_proj.json_view import json_view
from gui_proj.moments import ago, interval_words, utc_words
from gui_proj.page import heading
from gui_proj.queue_words import link_to_queue
from gui_proj.resources import Schedule, ScheduledRun
from gui_proj.schedule_words import (
    CATCH_UPS,
    KINDS,
    OVERLAPS,
    next_times_card,
    owner_of,
    state_pill,
    timing_words,
)
from gui_proj.screens.schedules import crumbs, link_to_schedule
from gui_proj.visit import Visit

ANSWERED: Final = frozenset({400, 403, 409, 422})


async def show(visit: Visit) -> Response:
    schedule = await find_schedule(visit)
    live = f"schedule:{schedule['name']} runs"
    return await visit.page(
        schedule["name"],
        h.div("#schedule-head", data_live=live)[_head(visit, schedule)],
        h.div("#schedule-body", data_live=live)[
            h.div(".columns")[next_times_card(schedule), _facts_card(schedule)],
            _runs_card(schedule),
            card(
                h.p(".muted.pad")["None."] if schedule["input"] is None else json_view(schedule["input"]), title="Input"
            ),
        ],
    )


async def find_schedule(visit: Visit) -> Schedule:
    """The schedule of the address."""
    found: Schedule = await visit.get(f"/v1{link_to_schedule(visit.path('name'))}")
    return found


def _head(visit: Visit, schedule: Schedule) -> h.Node:
    return [
        heading(
            schedule["name"],
            above=h.a(href="/schedules")["Schedules"],
            below=h.div(".under")[
                state_pill(schedule),
                h.span(".muted")[
                    "starts ",
                    h.a(href=f"/workflows/{quote(schedule['workflow'], safe='')}")[schedule["workflow"]],
                    " · ",
                    timing_words(schedule),
                ],
            ],
            beside=_actions(visit, schedule),
        ),
        _why_nothing_starts(schedule),
    ]


def _why_nothing_starts(schedule: Schedule) -> h.Node:
    if schedule["paused"]:
        return notice([h.b["Paused"], f": {schedule['note']}" if schedule["note"] else ". Nothing starts."])
    if schedule["waiting_since"]:
        return notice(["A time has come and waits for a run to end, since ", ago(schedule["waiting_since"]), "."])
    return None


def _actions(visit: Visit, schedule: Schedule) -> h.Node:
    address = link_to_schedule(schedule["name"])
    key = h.input(type="hidden", name="_key", value=uuid.uuid4().hex)
    is_own = not schedule["declared"]  # what is declared in code is changed there
    return [
        _action(visit, f"{address}/trigger", "Trigger now", "bolt", key),
        _action(visit, f"{address}/resume", "Resume", "play", style="primary")
        if schedule["paused"]
        else _pause(visit, f"{address}/pause"),
        h.a(".button", href=f"{address}/backfill")[icon("undo"), "Backfill"],
        is_own and h.a(".button", href=f"{address}/edit")[icon("copy"), "Change"],
        is_own and h.a(".button.danger", href=f"{address}/delete")[icon("cross"), "Delete"],
    ]


def _action(visit: Visit, address: str, label: str, drawing: str, *more: h.Node, style: str = "") -> h.Element:
    return h.form(method="post", action=address)[
        csrf_field(visit.csrf), more, h.button(class_=style or None, type="submit")[icon(drawing), label]
    ]


def _pause(visit: Visit, address: str) -> h.Element:
    return h.details("#pause.drop", data_keep=True)[
        h.summary(".button")[icon("pause"), "Pause"],
        h.form(".card", method="post", action=address)[
            csrf_field(visit.csrf),
            h.div(".field")[
                h.label(for_="note")["Why", h.span(".optional")["optional"]],
                h.input("#note", name="note", maxlength="1000", autocomplete="off"),
            ],
            h.p(".hint")["What comes meanwhile is not made up for: that is what backfill is for."],
            h.button(".primary", type="submit")[icon("pause"), "Pause it"],
        ],
    ]


def _facts_card(schedule: Schedule) -> h.Element:
    return card(
        h.dl(".facts")[((h.dt[name], h.dd[value]) for name, value in _facts(schedule) if value)], title="Details"
    )


def _facts(schedule: Schedule) -> Sequence[tuple[str, h.Node]]:
    bounds = [
        [words, utc_words(moment), " UTC "]
        for words, moment in (("from ", schedule["since"]), ("until ", schedule["until"]))
        if moment
    ]
    jitter, until = schedule["jitter_seconds"], schedule["acts_until"]
    return [
        ("When", [timing_words(schedule), bounds and [" ", bounds]]),
        ("Overlap", f"while a run is under way: {OVERLAPS[schedule['overlap']]}"),
        ("Catch-up", f"of missed times {CATCH_UPS[schedule['catch_up']]}"),
        ("At most", f"{interval_words(schedule['catch_up_window_seconds'])} late"),
        ("Jitter", f"up to {interval_words(jitter)}" if jitter else None),
        ("Queue", schedule["queue"] and h.a(href=link_to_queue(schedule["queue"]))[schedule["queue"]]),
        ("Tags", [h.span(".badge")[f"{name}={value}" if value else name] for name, value in schedule["tags"].items()]),
        ("Owner", owner_of(schedule)),
        ("Acts for", until and [owner_of(schedule), f", until {utc_words(until)} UTC"]),
        ("So far", f"{counted(schedule['fired'], 'run')} started, {counted(schedule['skipped'], 'time')} skipped"),
        ("Made", ago(schedule["created_at"])),
    ]


def _runs_card(schedule: Schedule) -> h.Element:
    runs = schedule["last_runs"]
    everything = h.a(href=query("/runs", tag=f"schedule:{schedule['name']}"))["All its runs"]
    return card(
        _runs_table(runs) if runs else empty("runs", "Nothing has run yet", "A run appears here when it starts."),
        title="Last runs",
        action=runs and everything,
    )


def _runs_table(runs: Sequence[ScheduledRun]) -> h.Element:
    return h.div(".scroll")[
        h.table(".schedules")[
            h.caption(".hidden")["Last runs"],
            h.thead[h.tr[(h.th(scope="col")[name] for name in ("Time (UTC)", "Status", "Why", "Started"))]],
            h.tbody[(_run_row(run) for run in runs)],
        ]
    ]


def _run_row(run: ScheduledRun) -> h.Element:
    return h.tr(id=f"row-{run['id']}")[
        h.td[h.a(".row-link", href=link_to_run(run["id"]), title=run["id"])[utc_words(run["due_at"])]]
        if run["status"]
        else h.td[utc_words(run["due_at"]), h.div(".sub.mono")[short_id(run["id"])]],
        h.td[pill(run["status"]) if run["status"] else h.span(".muted")["not kept any more"]],
        h.td[KINDS.get(run["kind"], run["kind"])],
        h.td(".nowrap")[ago(run["started_at"])],
    ]


async def trigger(visit: Visit) -> Response:
    return await _command(visit, "trigger", "A run has been started.", headers={"Idempotency-Key": visit.key})


async def pause(visit: Visit) -> Response:
    return await _command(visit, "pause", "It is paused.", {"note": visit.field("note")})


async def resume(visit: Visit) -> Response:
    return await _command(visit, "resume", "It goes on with the next time.")


async def _command(visit: Visit, verb: str, done: str, body: Any = None, **options: Any) -> Response:
    """Sends a command; a refusal that the person can understand is said on the schedule's own page."""
    address = link_to_schedule(visit.path("name"))
    try:
        await visit.post(f"/v1{address}/{verb}", body, **options)
    except AppServiceRefused as error:
        if error.status not in ANSWERED:
            raise
        visit.say(f"{error.title}. {error.detail}", tone="bad")
    else:
        visit.say(done)
    return visit.redirect(address)


async def ask_to_delete(visit: Visit) -> Response:
    schedule = await find_schedule(visit)
    address = link_to_schedule(schedule["name"])
    return await visit.page(
        f"Delete {schedule['name']}",
        heading(f"Delete {schedule['name']}?", above=crumbs(schedule)),
        card(
            h.form(".start", method="post", action=f"{address}/delete")[
                csrf_field(visit.csrf),
                h.p["It starts nothing any more. The runs it has started stay."],
                h.div(".form-foot")[
                    h.button(".danger", type="submit")[icon("cross"), "Delete it"],
                    h.a(".button", href=address)["Keep it"],
                ],
            ],
            style="narrow",
        ),
    )


async def delete(visit: Visit) -> Response:
    address = link_to_schedule(visit.path("name"))
    try:
        await visit.delete(f"/v1{address}")
    except AppServiceRefused as error:
        if error.status not in ANSWERED:
            raise
        visit.say(f"{error.title}. {error.detail}", tone="bad")
        return visit.redirect(address)
    visit.say(f"The schedule {visit.path('name')} is deleted.")
    return visit.redirect("/schedules")
