"""Events as they happen: the newest first, by type and subject, each whole when opened."""

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


async def show(visit: Visit) -> Response:
    types, subject = visit.query("types"), visit.query("subject")
    try:
        listing = await visit.get(
            "/v1/events", types=types, subject=subject, order="desc", limit=PAGE_SIZE, after=visit.query("after")
        )
        refused = None
    except AppServiceRefused as error:
        if error.status not in {400, 422}:
            raise
        listing, refused = {"items": []}, error
    return await visit.page(
        "Events",
        heading(
            "Events",
            below=h.p(".muted")["Everything that happened and that you may see; new ones appear by themselves."],
        ),
        _filters(types, subject),
        h.div("#events", data_live="events")[
            card(
                h.p(".pad.bad-text")[refused.detail or refused.title] if refused else None,
                h.ul(".events")[(_event(each) for each in listing["items"])]
                if listing["items"]
                else empty("events", "No events", "None fits, or nothing has happened yet."),
            )
        ],
    )


def _filters(types: str, subject: str) -> h.Element:
    return h.form(".filters", method="get", action="/events", role="search")[
        h.div(".search")[
            h.input(name="types", value=types, placeholder="Type, e.g. evs.run.completed", aria_label="Type"),
            h.input(name="subject", value=subject, placeholder="Subject, e.g. a run", aria_label="Subject"),
            h.button(type="submit", title="Search")[icon("search"), h.span(".hidden")["Search"]],
        ]
    ]


def _event(event: dict[str, Any]) -> h.Element:
    subject = str(event.get("subject") or "")
    position = str(event.get("position") or event["id"])
    return h.li(".event", id=f"event-{position.replace('.', '-')}")[
        h.details(data_keep=True)[
            h.summary[
                h.span(".event-type")[event["type"]],
                h.span(".event-data.muted")[one_line(event.get("data"), longest=110)],
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
