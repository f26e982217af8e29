"""The approvals inbox: what waits for a person, and what was decided by whom."""

from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import chip, csrf_field, empty, link_to_run, pill, query
from gui_proj.icons import icon
from gui_proj.json_view import json_view
from gui_proj.moments import ago, ahead
from gui_proj.page import heading
from gui_proj.resources import Approval
from gui_proj.schema import humanise
from gui_proj.visit import Visit

STATUSES: Final = ("pending", "approved", "rejected", "expired")


async def show(visit: Visit) -> Response:
    wanted = visit.query("status")
    status = wanted if wanted in STATUSES else "pending"
    listing = await visit.get("/v1/approvals", status=status, cursor=visit.query("cursor"), limit=30)
    approvals: list[Approval] = listing["items"]
    return await visit.page(
        "Approvals",
        heading("Approvals", below=h.p(".muted")["Runs that wait for a person's decision."]),
        h.div(".chips", role="group", aria_label="Status")[
            (chip(each, query("/approvals", status=each), chosen=each == status) for each in STATUSES)
        ],
        h.div("#approvals.stack", data_live="approvals")[
            [_approval(visit, each) for each in approvals] or _nothing(status)
        ],
        listing["next_cursor"]
        and h.nav(".pages", aria_label="Pages")[
            h.a(".button.small", href=query("/approvals", status=status, cursor=listing["next_cursor"]))["Older"]
        ],
    )


def _nothing(status: str) -> h.Element:
    hint = "When a workflow asks for a decision, it appears here by itself." if status == "pending" else ""
    return h.section(".card")[empty("approvals", f"Nothing {status}", hint)]


def _approval(visit: Visit, approval: Approval) -> h.Element:
    return h.article(".card.approval", id=f"approval-{approval['id']}")[
        h.div(".approval-head")[
            h.div[
                h.h2[approval["text"] or approval["name"]],
                h.p(".sub")[
                    h.a(href=link_to_run(approval["run"]))[approval["workflow"]],
                    " · asked ",
                    ago(approval["asked_at"]),
                    " · for ",
                    h.code[approval["to"]],
                    approval["due_at"] and [" · due ", ahead(approval["due_at"])],
                ],
            ],
            pill(approval["status"]),
        ],
        approval["about"]
        and h.details(".about", data_keep=True, open=True, id=f"about-{approval['id']}")[
            h.summary["What it is about"], _about(approval["about"])
        ],
        _decision_form(visit, approval) if approval["status"] == "pending" else _decision(approval),
    ]


def _about(about: Any) -> h.Element:
    """A few plain facts read better as a list; anything deeper is shown as it is."""
    if isinstance(about, dict) and not any(isinstance(value, (dict, list)) for value in about.values()):
        return h.dl(".facts")[((h.dt[humanise(name)], h.dd[str(value)]) for name, value in about.items())]
    return json_view(about)


def _decision_form(visit: Visit, approval: Approval) -> h.Element:
    field = f"comment-{approval['id']}"
    return h.form(".decide", method="post", action=f"/approvals/{quote(approval['id'], safe='')}/decision")[
        csrf_field(visit.csrf),
        h.div(".field")[
            h.label(for_=field)["Comment", h.span(".optional")["optional"]],
            h.textarea(id=field, name="comment", rows="2", data_keep=True, maxlength="2000"),
        ],
        h.div(".decide-buttons")[
            h.button(".good", type="submit", name="decision", value="approve")[icon("check"), "Approve"],
            h.button(".danger", type="submit", name="decision", value="reject")[icon("cross"), "Reject"],
        ],
    ]


def _decision(approval: Approval) -> h.Node:
    by = approval["decided_by"]
    name = (by.get("username") or by.get("subject")) if isinstance(by, dict) else by
    return h.p(".decided")[
        h.b[approval["status"]],
        name and [" by ", name],
        approval["decided_at"] and [" ", ago(approval["decided_at"])],
        approval["comment"] and h.q[approval["comment"]],
    ]


async def decide(visit: Visit) -> Response:
    decision = visit.field("decision")
    if decision not in {"approve", "reject"}:
        raise HTTPException(400, f"A decision must be approve or reject, got “{decision[:40]}”.")
    approved = decision == "approve"
    body = {"approved": approved, "comment": visit.field("comment") or None}
    try:
        await visit.post(f"/v1/approvals/{quote(visit.path('id'), safe='')}/decision", body)
    except AppServiceRefused as error:
        if error.status not in {400, 403, 409, 422}:
            raise
        # Somebody else may have been first, or it is for somebody else to decide.
        visit.say(f"{error.title}. {error.detail}", tone="bad")
    else:
        visit.say("Approved. The run goes on." if approved else "Rejected. The run has been told.")
    return visit.redirect("/approvals")
