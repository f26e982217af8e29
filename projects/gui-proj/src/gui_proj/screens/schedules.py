"""All schedules: when each is due next, what it did last, and which are paused and why."""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.components import STATUS_ICONS, card, empty, link_to_run, query
from gui_proj.icons import icon
from gui_proj.moments import ago, ahead
from gui_proj.page import heading
from gui_proj.resources import Listing, Schedule, ScheduledRun
from gui_proj.schedule_words import state_pill, timing_words
from gui_proj.visit import Visit

PAGE_SIZE: Final = 50


async def show(visit: Visit) -> Response:
    listing: Listing[Schedule] = await visit.get("/v1/schedules", cursor=visit.query("cursor"), limit=PAGE_SIZE)
    return await visit.page(
        "Schedules",
        heading(
            "Schedules",
            below=h.p(".muted")["What starts by the clock: each time once."],
            beside=h.a(".button.primary", href="/schedules/+new")[icon("plus"), "New schedule"],
        ),
        h.div("#schedules", data_live="schedules runs")[
            card(_table(listing["items"]) if listing["items"] else _nothing(visit))
        ],
        listing["next_cursor"]
        and h.nav(".pages", aria_label="Pages")[
            h.a(".button.small", href=query("/schedules", cursor=listing["next_cursor"]))["More"]
        ],
    )


def link_to_schedule(name: str, *more: str) -> str:
    """The address of a schedule, or of something below it."""
    return "/".join(["/schedules", quote(name, safe=""), *more])


def crumbs(schedule: Schedule | None = None) -> h.Node:
    """The way back: from below a schedule, or to all of them."""
    above = h.a(href="/schedules")["Schedules"]
    if schedule is None:
        return above
    return [above, " / ", h.a(href=link_to_schedule(schedule["name"]))[schedule["name"]]]


def _nothing(visit: Visit) -> h.Element:
    if visit.query("cursor"):
        return empty("calendar", "No more schedules", h.a(href="/schedules")["From the start"])
    return empty("calendar", "No schedules", h.a(href="/schedules/+new")["Let a workflow start by the clock"], ".")


def _table(schedules: Sequence[Schedule]) -> h.Element:
    return h.div(".scroll")[
        h.table(".schedules")[
            h.caption(".hidden")["Schedules"],
            h.thead[
                h.tr[
                    h.th(scope="col")["Schedule"],
                    h.th(scope="col")["State"],
                    h.th(scope="col")["Starts"],
                    h.th(scope="col")["Next"],
                    h.th(scope="col")["Last runs"],
                ]
            ],
            h.tbody[(_row(each) for each in schedules)],
        ]
    ]


def _row(schedule: Schedule) -> h.Element:
    return h.tr(id=f"schedule-{schedule['name']}")[
        h.td[
            h.a(".row-link", href=link_to_schedule(schedule["name"]))[schedule["name"]],
            h.div(".sub")[timing_words(schedule)],
        ],
        h.td[state_pill(schedule), schedule["note"] and h.div(".sub", title=schedule["note"])[schedule["note"]]],
        h.td[h.a(href=f"/workflows/{quote(schedule['workflow'], safe='')}")[schedule["workflow"]]],
        h.td(".nowrap")[_next(schedule)],
        h.td[run_strip(schedule["last_runs"])],
    ]


def _next(schedule: Schedule) -> h.Node:
    if schedule["waiting_since"]:
        return ["waiting since ", ago(schedule["waiting_since"])]
    return ahead(schedule["next_at"])


def run_strip(runs: Sequence[ScheduledRun]) -> h.Node:
    """The last runs as one sign each, the oldest first."""
    if not runs:
        return h.span(".muted")["none yet"]
    return h.ol(".run-strip")[(h.li[_sign(run)] for run in reversed(runs))]


def _sign(run: ScheduledRun) -> h.Element:
    status: Any = run["status"]
    if status is None:
        return h.span(".sign.s-queued", title="not kept any more")[icon("dot"), h.span(".hidden")["not kept"]]
    return h.a(class_=["sign", f"s-{status}"], href=link_to_run(run["id"]), title=f"{status} · {run['due_at']}")[
        icon(STATUS_ICONS.get(status, "dot")), h.span(".hidden")[status]
    ]
