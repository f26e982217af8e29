"""All runs one may see: filtered by status and workflow, searched, page by page; every view has an address."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import htpy as h
from starlette.responses import Response

from gui_proj.components import STATUS_ICONS, card, chip, empty, query, runs_table
from gui_proj.icons import icon
from gui_proj.page import heading
from gui_proj.resources import Listing, Run, Workflow
from gui_proj.visit import Visit

STATUSES: Final = ("running", "waiting", "queued", "completed", "failed", "cancelled", "nondeterministic")
PAGE_SIZE: Final = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs to show; every choice has an address."""

    status: list[str]
    workflow: str
    tag: str
    q: str

    @property
    def filters(self) -> dict[str, str | list[str]]:
        return {"status": self.status, "workflow": self.workflow, "tag": self.tag, "q": self.q}

    def address(self, **changes: str | list[str]) -> str:
        return query("/runs", **(self.filters | changes))


async def show(visit: Visit) -> Response:
    statuses = [status for status in visit.request.query_params.getlist("status") if status in STATUSES]
    wanted = Wanted(statuses, visit.query("workflow"), visit.query("tag"), visit.query("q"))
    cursor = visit.query("cursor")
    listing, catalogue = await asyncio.gather(
        visit.get("/v1/runs", **wanted.filters, cursor=cursor, limit=PAGE_SIZE),
        visit.get("/v1/workflows", limit=200),
    )
    return await visit.page(
        "Runs",
        heading("Runs", beside=h.a(".button.primary", href="/workflows")[icon("play"), "Start a workflow"]),
        _filters(wanted, catalogue["items"]),
        h.div("#runs", data_live="runs")[
            card(
                runs_table(listing["items"], caption="Runs") if listing["items"] else _nothing(wanted),
                _pages(listing, wanted, cursor),
            )
        ],
    )


def _filters(wanted: Wanted, catalogue: Sequence[Workflow]) -> h.Element:
    return h.form(".filters", method="get", action="/runs", role="search")[
        h.div(".chips", role="group", aria_label="Status")[
            chip("All", wanted.address(status=[]), chosen=not wanted.status),
            (_status_chip(status, wanted) for status in STATUSES),
            wanted.tag
            and chip(["tag ", wanted.tag.replace(":", "=", 1), icon("cross")], wanted.address(tag=""), chosen=True),
        ],
        (h.input(type="hidden", name="status", value=status) for status in wanted.status),
        wanted.tag and h.input(type="hidden", name="tag", value=wanted.tag),
        h.div(".search")[
            h.select(name="workflow", aria_label="Workflow")[
                h.option(value="")["Every workflow"],
                (
                    h.option(value=each["name"], selected=each["name"] == wanted.workflow)[each["name"]]
                    for each in catalogue
                ),
            ],
            h.input(
                type="search", name="q", value=wanted.q, placeholder="Search id, person, error…", aria_label="Search"
            ),
            h.button(type="submit", title="Search")[icon("search"), h.span(".hidden")["Search"]],
        ],
    ]


def _status_chip(status: str, wanted: Wanted) -> h.Element:
    """Pressing a chip adds its status, pressing it again takes it away."""
    others = [each for each in wanted.status if each != status]
    chosen = status in wanted.status
    return chip(
        [icon(STATUS_ICONS[status]), status],
        wanted.address(status=others if chosen else [*others, status]),
        chosen=chosen,
    )


def _nothing(wanted: Wanted) -> h.Element:
    if any(wanted.filters.values()):
        return empty("search", "No run fits", h.a(href="/runs")["Show all runs"], ".")
    return empty("runs", "Nothing has run yet", h.a(href="/workflows")["Start your first workflow"], ".")


def _pages(listing: Listing[Run], wanted: Wanted, cursor: str) -> h.Node:
    following = listing["next_cursor"]
    if not cursor and not following:
        return None
    return h.nav(".pages", aria_label="Pages")[
        cursor and h.a(".button.small", href=wanted.address())["Newest"],
        following and h.a(".button.small", href=wanted.address(cursor=following))["Older"],
    ]
