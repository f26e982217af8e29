"""The pieces of pages about other providers."""

from collections.abc import Sequence
from urllib.parse import quote

import htpy as h

from auth_svc.pages.layout import button, form, hidden, page
from auth_svc.upstreams.arrivals import WaitingArrival
from auth_svc.upstreams.providers import Upstream

PATH = "/account/security"
CONNECT = "/login/connect"


def upstream_links(upstreams: Sequence[Upstream], way_on: str) -> h.Node:
    """The ways to sign in with an account from elsewhere."""
    if not upstreams:
        return None
    return h.div(".upstreams")[
        (
            h.a(".button.secondary", href=f"/login/upstream/{upstream.id}?next={quote(way_on, safe='')}")[
                f"Sign in with {upstream.name}"
            ]
            for upstream in upstreams
        )
    ]


def upstream_section(csrf: str, upstreams: Sequence[Upstream], linked: frozenset[str]) -> h.Node:
    """The other providers, and which of them this account is connected with."""
    if not upstreams:
        return None
    return [h.h2["Other accounts"], (_line(csrf, upstream, upstream.issuer in linked) for upstream in upstreams)]


def go_on_page(*, name: str, location: str) -> h.Element:
    """Let somebody go to another provider to connect it."""
    return page(
        f"Connect {name}",
        h.p["Sign in there with the account that is to be yours here, too."],
        h.a(".button.primary", href=location)[f"Go on to {name}"],
        h.p(".aside")[h.a(href=PATH)["Not now"]],
    )


def proof_lead(waiting: WaitingArrival) -> h.Element:
    """Why somebody who has signed in elsewhere is asked to sign in here."""
    name = waiting.upstream.name
    return h.p(".lead")[
        "An account here has the address ",
        h.strong[waiting.email],
        f", and so have you at {name}. Prove once that it is yours, and {name} signs you in from then on.",
    ]


def another_form(csrf: str, waiting: WaitingArrival) -> h.Node:
    """The way on for somebody whose account it is not."""
    if not waiting.upstream.makes_accounts:
        return None
    return form(
        f"{CONNECT}/new", csrf, h.p(".aside")["Is it not yours?"], button("Make a new account", kind="secondary")
    )


def connect_page(*, csrf: str, waiting: WaitingArrival, username: str) -> h.Element:
    """Ask for the press that connects."""
    name = waiting.upstream.name
    return page(
        f"Connect {name}?",
        h.p(".lead")[
            f"Whoever signs in at {name} as ",
            h.strong[waiting.email],
            " is then signed in here as ",
            h.strong[username],
            ".",
        ],
        form(CONNECT, csrf, button(f"Connect {name}", autofocus="")),
        h.p(".aside")[h.a(href=waiting.way_on)["Not now"]],
    )


def other_account_page(*, csrf: str, waiting: WaitingArrival, username: str) -> h.Element:
    """Say that somebody is signed in to another account than the one with the address."""
    return page(
        "Another account has that address",
        h.p(".lead")[
            "You are signed in as ", h.strong[username], ", whose address is not ", h.strong[waiting.email], "."
        ],
        h.a(".button.primary", href=f"/login?next={quote(CONNECT, safe='')}")["Sign in to the other account"],
        another_form(csrf, waiting),
        h.p(".aside")[h.a(href=waiting.way_on)["Go on without connecting"]],
    )


def _line(csrf: str, upstream: Upstream, linked: bool) -> h.Element:  # noqa: FBT001
    what, path = ("Disconnect", "disconnect") if linked else ("Connect", upstream.id)
    press = button(what, kind="secondary small", aria_label=f"{what} {upstream.name}")
    action = form(f"{PATH}/upstreams/{path}", csrf, hidden("issuer", upstream.issuer if linked else None), press)
    return h.div(".factor")[h.p[upstream.name, linked and " is connected."], action]
