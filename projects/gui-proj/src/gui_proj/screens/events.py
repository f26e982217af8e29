"""Events as they happen: the newest first, by type and subject, each whole when opened."""

from collections.abc import Mapping
from typing import Any, Final

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, empty, link_to_run
from gui_proj.icons import icon
from gui_proj.json_view import json_view, one_line
from gui_proj.moments import ago
from gui_proj.page import heading
from gui_proj.visit import Visit

PAGE_SIZE: Final = 50
NO_TYPE: Final = "evs.gui.no-such-type"
LOOK_BACK: Final = (PAGE_SIZE + 10, 1_000, 10_000)
MOST_PAGES: Final = 50


async def show(visit: Visit) -> Response:
    types, subject = visit.query("types"), visit.query("subject")
    latest: list[dict[str, Any]] = []
    refused = None
    try:
        latest = await _latest(visit, types, subject)
    except AppServiceRefused as error:
        if error.status not in {400, 403, 422}:
            raise
        refused = error
    return await visit.page(
        "Events",
        heading(
            "Events",
            below=h.p(".muted")["Everything that happened and that you may see; new ones appear by themselves."],
            beside=h.a(".button", href="/webhooks")[icon("publish"), "Webhooks"],
        ),
        _filters(types, subject),
        h.div("#events", data_live="events")[
            card(
                h.p(".pad.bad-text")[refused.detail or refused.title] if refused else None,
                h.ul(".events")[(_event(each) for each in latest)]
                if latest
                else empty("events", "No events", "None fits, or nothing has happened yet."),
            )
        ],
    )


async def _latest(visit: Visit, types: str, subject: str) -> list[dict[str, Any]]:
    """The newest events that fit, newest first.

    The AppService reads its log forwards. A type nobody uses finds its end; from there we look back, in windows
    that grow until a page is full or the log's beginning is reached.
    """
    end = await visit.get("/v1/events", types=NO_TYPE, limit=1)
    epoch, _, position = str(end["cursor"]).partition(".")
    for window in LOOK_BACK:
        begin = max(int(position) - window, 0)
        found = await _read(visit, f"{epoch}.{begin}", types, subject)
        if len(found) >= PAGE_SIZE or begin == 0:
            break
    return found[-PAGE_SIZE:][::-1]


async def _read(visit: Visit, after: str, types: str, subject: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = after
    for _ in range(MOST_PAGES):
        page = await visit.get("/v1/events", types=types, subject=subject, after=cursor, limit=200)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found


def _filters(types: str, subject: str) -> h.Element:
    return h.form(".filters", method="get", action="/events", role="search")[
        h.div(".search")[
            h.input(name="types", value=types, placeholder="Type, e.g. evs.run.completed", aria_label="Type"),
            h.input(name="subject", value=subject, placeholder="Subject, e.g. a run", aria_label="Subject"),
            h.button(type="submit", title="Search")[icon("search"), h.span(".hidden")["Search"]],
        ]
    ]


def event_words(event: Mapping[str, Any]) -> str:
    """What an event says beyond its type, shortly: of our own the words that matter, of others the data."""
    data = event.get("data")
    if str(event["type"]).startswith(("evs.run.", "evs.step.", "evs.approval.")) and isinstance(data, dict):
        error = data.get("error")
        words = [data.get(name) for name in ("workflow", "kind", "name", "text")]
        words.append(f"{error.get('type')}: {error.get('message')}" if isinstance(error, dict) else None)
        return one_line(" · ".join(str(word) for word in words if word), longest=110)
    if isinstance(data, dict):
        return one_line(
            ", ".join(f"{name}: {one_line(value, longest=40)}" for name, value in data.items()), longest=110
        )
    return one_line(data, longest=110)


def _event(event: dict[str, Any]) -> h.Element:
    subject = str(event.get("subject") or "")
    position = str(event.get("position") or event["id"])
    return h.li(".event", id=f"event-{position.replace('.', '-')}")[
        h.details(data_keep=True)[
            h.summary[
                h.span(".event-type")[event["type"]],
                h.span(".event-data.muted")[event_words(event)],
                h.span(".event-time")[ago(event.get("time"))],
            ],
            h.div(".op-body")[
                str(event["type"]).startswith(("evs.run.", "evs.step."))
                and subject
                and h.p[h.a(href=link_to_run(subject))["Open the run"]],
                json_view(event, longest=4000),
            ],
        ]
    ]
