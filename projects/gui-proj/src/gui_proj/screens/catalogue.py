"""The catalogue: every workflow that can be started, and what starts it."""

from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.components import empty, prose, query, type_badge
from gui_proj.icons import icon
from gui_proj.page import heading
from gui_proj.resources import Workflow, starts_by_event_alone
from gui_proj.triggers import triggers
from gui_proj.visit import Visit


async def show(visit: Visit) -> Response:
    listing = await visit.get("/v1/workflows", limit=200)
    workflows: list[Workflow] = listing["items"]
    return await visit.page(
        "Workflows",
        heading("Workflows", below=h.p(".muted")["What this installation can do. Start one and watch it run."]),
        h.ul(".catalogue")[(_entry(each) for each in workflows)] if workflows else _nothing(),
    )


def _nothing() -> h.Element:
    return empty("workflows", "No workflows", "Load some with ", h.code["evs up --workflows my_flows.py"], ".")


def _entry(workflow: Workflow) -> h.Element:
    address = f"/workflows/{quote(workflow['name'], safe='')}"
    return h.li(".card.entry")[
        h.div(".entry-head")[h.h2[h.a(href=address)[workflow["name"]]], type_badge(workflow["type"])],
        h.p(".entry-text")[
            prose(_first_paragraph(workflow["description"]))
            if workflow["description"]
            else h.span(".muted")["No description."]
        ],
        triggers(workflow),
        h.div(".entry-foot")[
            h.span(".muted")[f"v{workflow['version']} · queue {workflow['queue']}"],
            h.a(href=query("/runs", workflow=workflow["name"]), aria_label=f"Runs of {workflow['name']}")["Runs"],
            not starts_by_event_alone(workflow)
            and h.a(".button.small", href=address, aria_label=f"Start {workflow['name']}")[icon("play"), "Start"],
        ],
    ]


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())
