"""All runs one may see: filtered by status and workflow, searched, page by page; every view has an address."""

import asyncio
from collections.abc import Sequence
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


async def show(visit: Visit) -> Response:
    chosen = [status for status in visit.request.query_params.getlist("status") if status in STATUSES]
    workflow, text, cursor = visit.query("workflow"), visit.query("q"), visit.query("cursor")
    listing, catalogue = await asyncio.gather(
        visit.get("/v1/runs", status=chosen, workflow=workflow, q=text, cursor=cursor, limit=PAGE_SIZE),
        visit.get("/v1/workflows", limit=200),
    )
    filtered = bool(chosen or workflow or text)
    return await visit.page(
        "Runs",
        heading("Runs", beside=h.a(".button.primary", href="/workflows")[icon("play"), "Start a workflow"]),
        _filters(chosen, workflow, text, catalogue["items"]),
        h.div("#runs", data_live="runs")[
            card(
                runs_table(listing["items"], caption="Runs") if listing["items"] else _nothing(filtered=filtered),
                _pages(listing, chosen, workflow, text, cursor),
            )
        ],
    )


def _filters(chosen: list[str], workflow: str, text: str, catalogue: Sequence[Workflow]) -> h.Element:
    return h.form(".filters", method="get", action="/runs", role="search")[
        h.div(".chips", role="group", aria_label="Status")[
            chip("All", query("/runs", workflow=workflow, q=text), chosen=not chosen),
            (_status_chip(status, chosen, workflow, text) for status in STATUSES),
        ],
        (h.input(type="hidden", name="status", value=status) for status in chosen),
        h.div(".search")[
            h.select(name="workflow", aria_label="Workflow")[
                h.option(value="")["Every workflow"],
                (h.option(value=each["name"], selected=each["name"] == workflow)[each["name"]] for each in catalogue),
            ],
            h.input(type="search", name="q", value=text, placeholder="Search id, input, tag…", aria_label="Search"),
            h.button(type="submit", title="Search")[icon("search"), h.span(".hidden")["Search"]],
        ],
    ]


def _status_chip(status: str, chosen: list[str], workflow: str, text: str) -> h.Element:
    """Pressing a chip adds its status, pressing it again takes it away."""
    others = [each for each in chosen if each != status]
    wanted = others if status in chosen else [*chosen, status]
    address = query("/runs", status=wanted, workflow=workflow, q=text)
    return chip([icon(STATUS_ICONS[status]), status], address, chosen=status in chosen)


def _nothing(*, filtered: bool) -> h.Element:
    if filtered:
        return empty("search", "No run fits", h.a(href="/runs")["Show all runs"], ".")
    return empty("runs", "Nothing has run yet", h.a(href="/workflows")["Start your first workflow"], ".")


def _pages(listing: Listing[Run], chosen: list[str], workflow: str, text: str, cursor: str) -> h.Node:
    following = listing["next_cursor"]
    if not cursor and not following:
        return None
    return h.nav(".pages", aria_label="Pages")[
        cursor and h.a(".button.small", href=query("/runs", status=chosen, workflow=workflow, q=text))["Newest"],
        following
        and h.a(".button.small", href=query("/runs", status=chosen, workflow=workflow, q=text, cursor=following))[
            "Older"
        ],
    ]
