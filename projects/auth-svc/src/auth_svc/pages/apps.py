"""The section of the account on which people see what acts for them."""

from collections.abc import Mapping, Sequence

import htpy as h

from auth_svc.pages.account_frame import account_section, rows
from auth_svc.pages.delegations import delegation_rows
from auth_svc.pages.layout import button, form, hidden, icon, moment
from auth_svc.people.connected_apps import ConnectedApp
from auth_svc.people.delegations import Delegation
from auth_svc.rights.resources import DESCRIPTIONS
from lib_events.clock import to_datetime


def apps_page(
    *,
    csrf: str,
    apps: Sequence[ConnectedApp],
    delegations: Sequence[Delegation] = (),
    descriptions: Mapping[str, str] = DESCRIPTIONS,
) -> h.Element:
    """Which programs may act for one, what each may do, and what does so while one is away."""
    return account_section(
        "Connected apps",
        "/account/apps",
        h.p(".lead")["These programs may act for you. Withdraw what you no longer use: it is signed out at once."],
        rows(apps, lambda app: _row(csrf, app, descriptions), rest="Withdraw some of these to see them.")
        if apps
        else h.p(".empty")["Nothing acts for you."],
        delegation_rows(csrf, delegations, descriptions),
    )


def _row(csrf: str, app: ConnectedApp, descriptions: Mapping[str, str]) -> h.Element:
    words = [text for scope, text in descriptions.items() if scope in app.scopes]
    return h.li[
        h.span(".row-icon")[icon("key")],
        h.div(".row-text")[
            h.strong[app.name],
            h.p(".hint")[
                "Since ",
                moment(to_datetime(app.since)),
                app.last_used_at is not None and [" · last used ", moment(to_datetime(app.last_used_at))],
            ],
            h.details[
                h.summary["What it may do"],
                h.ul(".words")[(h.li[text] for text in words)],
            ],
        ],
        form(
            "/account/apps/withdraw",
            csrf,
            hidden("client", app.client_id),
            button("Withdraw", kind="secondary small", aria_label=f"Withdraw {app.name}"),
        ),
    ]
