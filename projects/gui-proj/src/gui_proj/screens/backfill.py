"""Filling a past range of a schedule: which times have no run is said first, then somebody confirms it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, counted, csrf_field, empty, notice
from gui_proj.form_input import with_zone
from gui_proj.icons import icon
from gui_proj.moments import utc_words
from gui_proj.page import heading
from gui_proj.resources import Schedule
from gui_proj.screens.schedule import find_schedule
from gui_proj.screens.schedules import crumbs, link_to_schedule
from gui_proj.visit import Visit

LABELS: Final = {"since": "From (UTC)", "until": "To (UTC)"}
MOST_SHOWN: Final = 20
SUGGESTED: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Range:
    """What is asked for, what is wrong with it, and which of its times have no run; None before anybody asked."""

    texts: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    times: Sequence[str] | None = None

    def body(self, *, dry_run: bool) -> dict[str, str | bool]:
        return {name: with_zone(text) for name, text in self.texts.items()} | {"dry_run": dry_run}


async def show(visit: Visit) -> Response:
    """The range to choose; with one in the address, what it lacks."""
    schedule = await find_schedule(visit)
    texts = {name: visit.query(name) for name in LABELS}
    if not any(texts.values()):
        now = datetime.now(UTC).replace(second=0, microsecond=0, tzinfo=None)
        texts = {"since": (now - SUGGESTED).isoformat(), "until": now.isoformat()}
        return await _page(visit, schedule, Range(texts))
    return await _ask(visit, schedule, texts, dry_run=True)


async def submit(visit: Visit) -> Response:
    schedule = await find_schedule(visit)
    return await _ask(visit, schedule, {name: visit.field(name) for name in LABELS}, dry_run=False)


async def _ask(visit: Visit, schedule: Schedule, texts: Mapping[str, str], *, dry_run: bool) -> Response:
    wanted, address = Range(texts), link_to_schedule(schedule["name"])
    try:
        answer = await visit.post(f"/v1{address}/backfill", wanted.body(dry_run=dry_run))
    except AppServiceRefused as error:
        if error.status not in {400, 409, 422}:
            raise
        found = {pointer.removeprefix("/"): words for pointer, words in error.field_errors.items()}
        problem = "" if found.keys() <= LABELS.keys() and found else f"{error.title}. {error.detail}"
        return await _page(visit, schedule, Range(texts, found, problem), status=error.status)
    if dry_run:
        return await _page(visit, schedule, Range(texts, times=answer["times"]))
    visit.say(f"{counted(len(answer['runs']), 'run')} started.")
    return visit.redirect(address)


async def _page(visit: Visit, schedule: Schedule, wanted: Range, *, status: int = 200) -> Response:
    return await visit.page(
        f"Backfill {schedule['name']}",
        heading(
            f"Backfill {schedule['name']}",
            above=crumbs(schedule),
            below=h.p(".muted")["A run for each past time that has none, in your name, all at once."],
        ),
        card(_range_form(schedule, wanted), style="narrow"),
        None if wanted.times is None else card(_answer(visit, schedule, wanted, wanted.times), style="narrow"),
        status=status,
    )


def _range_form(schedule: Schedule, wanted: Range) -> h.Element:
    return h.form(".start", method="get", action=f"{link_to_schedule(schedule['name'])}/backfill")[
        wanted.problem and notice(wanted.problem, tone="bad"),
        (_moment(name, label, wanted) for name, label in LABELS.items()),
        h.p(".hint")["The first time counts, the last one does not."],
        h.div(".form-foot")[h.button(class_=None if wanted.times else "primary", type="submit")["How many runs?"]],
    ]


def _moment(name: str, label: str, wanted: Range) -> h.Element:
    error = wanted.errors.get(name)
    return h.div(class_=["field", {"wrong": bool(error)}])[
        h.label(for_=name)[label],
        h.input(
            id=name,
            name=name,
            type="datetime-local",
            step="any",
            value=wanted.texts[name].removesuffix("Z"),
            required=True,
            aria_invalid="true" if error else None,
            aria_describedby=f"{name}-error" if error else None,
        ),
        error and h.p(".error", id=f"{name}-error")[error],
    ]


def _answer(visit: Visit, schedule: Schedule, wanted: Range, times: Sequence[str]) -> h.Element:
    if not times:
        return empty("check", "Nothing is missing", "Every time in this range has its run.")
    more = len(times) - MOST_SHOWN
    return h.form(".start", method="post", action=f"{link_to_schedule(schedule['name'])}/backfill")[
        csrf_field(visit.csrf),
        (h.input(type="hidden", name=name, value=text) for name, text in wanted.texts.items()),
        h.h2[f"This starts {counted(len(times), 'run')} of {schedule['workflow']}"],
        h.ul(".muted.plain")[(h.li[utc_words(each), " UTC"] for each in times[:MOST_SHOWN])],
        more > 0 and h.p(".muted")[f"… and {more:,} more, the last one for {utc_words(times[-1])} UTC"],
        h.div(".form-foot")[
            h.button(".primary", type="submit")[icon("play"), f"Start {counted(len(times), 'run')}"],
            h.a(".button", href=link_to_schedule(schedule["name"]))["Start none"],
        ],
    ]
