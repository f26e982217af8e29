"""What people see of delegations: the question whether a program may act for them later, and what does so now."""

from collections.abc import Mapping, Sequence

import htpy as h

from auth_svc.pages.account_frame import rows
from auth_svc.pages.consent import scope_list
from auth_svc.pages.layout import button, form, hidden, icon, moment, page
from auth_svc.people.delegations import Delegation
from auth_svc.rights.resources import Resource
from lib_events.clock import to_datetime


def allow_page(
    *, csrf: str, query: str, client: str, username: str, wanted: Sequence[tuple[Resource, frozenset[str]]]
) -> h.Element:
    """Ask whether `client` may act for a person at these resources, also when they are away."""
    return page(
        "Allow this also when you are away?",
        h.p(".lead")[h.strong[client], " wants to act for you, ", h.strong[username], ", in what you start there."],
        (_wish(resource, scopes) for resource, scopes in wanted),
        form(
            "/account/apps/allow",
            csrf,
            hidden("request", query),
            h.div(".buttons")[
                button("Allow", name="decision", value="allow"),
                button("Cancel", kind="secondary", name="decision", value="deny"),
            ],
        ),
        h.p(".aside")["You see what acts for you under Apps, and can take it back there at any time."],
    )


def allowed_page(client: str) -> h.Element:
    """Say that it is allowed, where nobody waits for the person."""
    return page(
        "Allowed",
        h.p(".lead")[h.strong[client], " may now act for you in what you start. Go back and start it."],
        h.p[h.a(href="/account/apps")["See what acts for you"]],
    )


def delegation_rows(csrf: str, found: Sequence[Delegation], descriptions: Mapping[str, str]) -> h.Node:
    """What acts for a person now, each with the way to stop it."""
    if not found:
        return None
    return [
        h.h2["Acting for you now"],
        h.p(".hint")["Each ends by itself when its work is done. Stop one, and what it wanted to do for you fails."],
        rows(
            found,
            lambda delegation: _row(csrf, delegation, descriptions),
            rest="Withdraw a program above, and everything that it does for you stops.",
        ),
    ]


def _row(csrf: str, delegation: Delegation, descriptions: Mapping[str, str]) -> h.Element:
    family = delegation.family
    words = [descriptions.get(scope, scope) for scope in sorted(family.scopes)]
    return h.li[
        h.span(".row-icon")[icon("key")],
        h.div(".row-text")[
            h.strong[delegation.purpose],
            h.p(".hint")[
                delegation.client_name,
                " at ",
                ", ".join(family.resources),
                " · until ",
                moment(to_datetime(delegation.expires_at)),
                " · used" if delegation.used_at is not None else " · not used yet",
            ],
            h.details[h.summary["What it may do"], h.ul(".words")[(h.li[text] for text in words)]],
        ],
        form(
            "/account/apps/end-delegation",
            csrf,
            hidden("delegation", delegation.id),
            button("Stop", kind="secondary small", aria_label=f"Stop {delegation.purpose}"),
        ),
    ]


def _wish(resource: Resource, scopes: frozenset[str]) -> h.Node:
    where = h.p["At ", h.strong[resource.name], " (", h.code[resource.identifier], ") it could:"]
    return [where, scope_list(scopes, resource.scopes)]
