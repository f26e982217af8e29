"""The pieces of pages about other providers."""

from collections.abc import Sequence
from urllib.parse import quote

import htpy as h

from auth_svc.pages.layout import button, form, hidden, page
from auth_svc.upstreams.providers import Upstream

PATH = "/account/security"


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


def _line(csrf: str, upstream: Upstream, linked: bool) -> h.Element:  # noqa: FBT001
    action = (
        form(
            f"{PATH}/upstreams/disconnect",
            csrf,
            hidden("issuer", upstream.issuer),
            button("Disconnect", kind="secondary small"),
        )
        if linked
        else form(f"{PATH}/upstreams/{upstream.id}", csrf, button("Connect", kind="secondary small"))
    )
    return h.div(".factor")[h.p[upstream.name, linked and " is connected."], action]
