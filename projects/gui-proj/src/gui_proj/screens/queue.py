"""One queue: whether its runs begin, how much of it is taken, what waits, and the limits that decide it."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, csrf_field, notice, query
from gui_proj.controls import Controls, Unreadable
from gui_proj.icons import icon
from gui_proj.limits_draft import LimitsDraft
from gui_proj.page import heading
from gui_proj.queue_words import is_full, limit_words, link_to_queue, load, state_pill, taken_words, waits
from gui_proj.refusals import Refusal, refusal_notice
from gui_proj.resources import Queue
from gui_proj.screens.queues import HERE, actions, refresh_seconds
from gui_proj.visit import Visit

ANSWERED: Final = frozenset({400, 403, 409, 422})


async def show(visit: Visit) -> Response:
    queue = await _find(visit)
    return await _page(visit, queue, LimitsDraft.of(queue))


async def _find(visit: Visit) -> Queue:
    found: Queue = await visit.get(f"/v1{link_to_queue(visit.path('name'))}")
    return found


async def _page(
    visit: Visit, queue: Queue, draft: LimitsDraft, refusal: Refusal | None = None, *, status: int = 200
) -> Response:
    live = "queues runs"
    return await visit.page(
        queue["name"],
        h.div("#queue-head", data_live=live, data_every=refresh_seconds(queue))[_head(visit, queue)],
        h.div(".halves")[
            h.div("#queue-body", data_live=live)[_facts_card(queue)],
            _limits_card(visit, queue, draft, refusal or Refusal()),
        ],
        status=status,
    )


def _head(visit: Visit, queue: Queue) -> h.Node:
    return [
        heading(
            queue["name"],
            above=h.a(href="/queues")["Queues"],
            below=h.div(".under")[state_pill(queue), h.span(".muted")[limit_words(queue)]],
            beside=actions(visit, queue),
        ),
        _why_nothing_begins(queue),
    ]


def _why_nothing_begins(queue: Queue) -> h.Node:
    if queue["paused"]:
        return notice([h.b["Paused"], f": {queue['note']}" if queue["note"] else ". None of its runs begins."])
    if is_full(queue) and queue["due"]:
        return notice([h.b["Full"], ": ", taken_words(queue), ". The next run begins when one of them has ended."])
    return None


def _facts_card(queue: Queue) -> h.Element:
    return card(h.dl(".facts")[((h.dt[name], h.dd[value]) for name, value in _facts(queue))], title="Now")


def _facts(queue: Queue) -> Iterator[tuple[str, h.Node]]:
    yield "Under way", load(queue)
    yield "Waiting", waits(queue)
    if queue["workflows"]:
        yield "Workflows", h.ul[(h.li[_workflow(each)] for each in queue["workflows"])]
    else:
        yield "Workflows", h.span(".muted")["none here: a run, a schedule or another process may name it"]


def _workflow(name: str) -> h.Node:
    runs = query("/runs", workflow=name, status=["queued", "running", "waiting"])
    return [
        h.a(href=f"/workflows/{quote(name, safe='')}")[name],
        " ",
        h.a(".muted", href=runs)["its runs", h.span(".hidden")[f" ({name})"]],
    ]


def _limits_card(visit: Visit, queue: Queue, draft: LimitsDraft, refusal: Refusal) -> h.Element:
    wrong = refusal_notice(visit, refusal, has_errors=bool(draft.errors))
    if queue["declared"]:
        words = "They are declared in code, beside the workflow, and are changed there. The queue can be paused here."
        return card(h.div(".pad.stack")[wrong, h.p[words]], title="Limits")
    return card(
        h.form(".start", method="post", action=link_to_queue(queue["name"]))[
            csrf_field(visit.csrf),
            wrong,
            _controls(Controls(draft)),
            h.div(".form-foot")[h.button(".primary", type="submit")[icon("check"), "Keep the limits"]],
        ],
        title="Limits",
        action=h.span(".muted")["empty: no limit"],
    )


def _controls(controls: Controls) -> h.Node:
    numeric: dict[str, Any] = {"style": "number", "inputmode": "numeric"}
    return [
        controls.text(
            "concurrency",
            "Under way at most",
            hint="Runs, from their beginning to their end, also while they wait. Those under way count already.",
            **numeric,
        ),
        h.fieldset(".group")[
            h.legend["How fast they begin"],
            controls.text(
                "rate_runs", "Begin at most", hint="Runs: so many at once after a rest, and then steadily.", **numeric
            ),
            controls.duration("rate_seconds", "In"),
        ],
        h.fieldset(".group")[
            h.legend["Of each key"],
            controls.text(
                "key", "Key", hint="What runs take turns by, such as customer: the queue key of their start."
            ),
            controls.text("per_key", "Each under way at most", hint="Runs of each key.", **numeric),
            controls.text("rate_per_key_runs", "Each begins at most", hint="Runs of each key.", **numeric),
            controls.duration("rate_per_key_seconds", "Each in"),
        ],
    ]


async def limit(visit: Visit) -> Response:
    """Gives the queue the limits of the form, or shows it again with what is wrong."""
    draft, address = LimitsDraft.read(visit.field), link_to_queue(visit.path("name"))
    try:
        await visit.put(f"/v1{address}", draft.body())
    except Unreadable as error:
        wrong = LimitsDraft(draft.texts, {error.control: str(error)})
        return await _page(visit, await _find(visit), wrong, status=422)
    except AppServiceRefused as error:
        if error.status not in ANSWERED - {403}:
            raise
        wrong = draft.with_errors(error.field_errors)
        stray = [words for name, words in wrong.errors.items() if name not in wrong.texts]
        refusal = Refusal.of(error, stray=stray, at_fields=bool(wrong.errors))
        return await _page(visit, await _find(visit), wrong, refusal, status=error.status)
    visit.say("The queue has these limits now.")
    return visit.redirect(address)


async def pause(visit: Visit) -> Response:
    return await _command(visit, "pause", "None of its runs begins.", {"note": visit.field("note")})


async def resume(visit: Visit) -> Response:
    return await _command(visit, "resume", "Its runs begin again.")


async def _command(visit: Visit, verb: str, done: str, body: Any = None) -> Response:
    """Sends a command; what came of it is said on the page that it was sent from."""
    name = visit.path("name")
    try:
        await visit.post(f"/v1{link_to_queue(name)}/{verb}", body)
    except AppServiceRefused as error:
        if error.status not in ANSWERED:
            raise
        visit.say(f"{error.title}. {error.detail}", tone="bad")
    else:
        visit.say(f"{name}: {done}")
    return visit.redirect("/queues" if visit.field("from") == HERE else link_to_queue(name))
