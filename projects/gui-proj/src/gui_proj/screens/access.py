"""Asking for a role: the AuthService keeps the question, a workflow brings it to whoever may decide."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, csrf_field, notice, pill
from gui_proj.icons import icon
from gui_proj.moments import ago
from gui_proj.page import heading
from gui_proj.visit import Visit

ROLE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
LONGEST_REASON: Final = 1000


async def show(visit: Visit) -> Response:
    return await _page(visit, "", "", "")


async def ask(visit: Visit) -> Response:
    role, reason = visit.field("role"), visit.field("reason")
    if problem := _problem(role, reason):
        return await _page(visit, role, reason, problem, status=422)
    try:
        await visit.gui.app.ask_issuer(visit.session, "POST", _address(visit), {"role": role, "reason": reason})
    except AppServiceRefused as error:
        if error.status not in {400, 403, 409, 422, 429}:
            raise
        return await _page(visit, role, reason, f"{error.title}. {error.detail}", status=error.status)
    visit.say(f"You have asked for the role {role}. Someone who may decide will see it; it reaches you by itself.")
    return visit.redirect("/access")


def _address(visit: Visit) -> str:
    return f"{visit.gui.settings.auth_url}/v1/access-requests"


def _requests(requests: Sequence[Mapping[str, Any]]) -> h.Element:
    return h.ul(".rows", id="requests", data_live="access")[
        (
            h.li(id=f"request-{each['id']}")[
                h.div(".setting")[h.b[each["role"]], pill(each["status"])],
                h.div(".sub")[each["reason"], " · ", ago(each["created_at"]), each["why"] and f" · {each['why']}"],
            ]
            for each in requests
        )
    ]


def _problem(role: str, reason: str) -> str:
    if not ROLE.fullmatch(role):
        return "A role is made of lower-case letters, digits, - and _."
    if not reason:
        return "Say in a sentence what you need the role for: somebody has to decide on it."
    if len(reason) > LONGEST_REASON:
        return f"The reason must be at most {LONGEST_REASON} characters, got {len(reason)}."
    return ""


async def _page(visit: Visit, role: str, reason: str, problem: str, *, status: int = 200) -> Response:
    asked = await visit.gui.app.ask_issuer(visit.session, "GET", _address(visit))
    return await visit.page(
        "Ask for a role",
        heading(
            "Ask for a role",
            above=h.a(href="/account")["Account"],
            below=h.p(".muted")["A role says what you may do. Somebody who may decide gets your question."],
        ),
        card(
            h.form(".start", method="post", action="/access")[
                csrf_field(visit.csrf),
                problem and notice(problem, tone="bad"),
                h.div(".field")[
                    h.label(for_="role")["Role"],
                    h.p(".hint", id="role-hint")["For example ", h.code["operator"], ": sees everybody's runs."],
                    h.input(
                        id="role",
                        name="role",
                        value=role or "operator",
                        list="roles",
                        required=True,
                        aria_describedby="role-hint",
                        autocomplete="off",
                    ),
                    h.datalist("#roles")[h.option(value="operator")],
                ],
                h.div(".field")[
                    h.label(for_="reason")["Reason"],
                    h.textarea(id="reason", name="reason", rows="3", required=True, maxlength=str(LONGEST_REASON))[
                        "\n" + reason
                    ],
                ],
                h.div(".form-foot")[h.button(".primary", type="submit")[icon("key"), "Ask"]],
            ],
            style="narrow",
        ),
        card(_requests(asked["items"]), title="What you asked for", style="narrow") if asked["items"] else None,
        status=status,
    )
