"""The frame around every screen: document, navigation, notices; and the fragment that refreshes a screen in place."""

from dataclasses import dataclass
from typing import Final

import htpy as h

from gui_proj.assets import Assets
from gui_proj.components import csrf_field, notice
from gui_proj.icons import icon, logo
from gui_proj.session import Session

NAVIGATION: Final = (
    ("/", "home", "Home"),
    ("/workflows", "workflows", "Workflows"),
    ("/runs", "runs", "Runs"),
    ("/schedules", "calendar", "Schedules"),
    ("/queues", "queues", "Queues"),
    ("/approvals", "approvals", "Approvals"),
    ("/events", "events", "Events"),
    ("/account", "account", "Account"),
)
BELOW: Final = {"/webhooks": "/events"}  # screens without an entry of their own, and whose they are
FOR_OPERATORS: Final = frozenset({"/schedules", "/queues"})
THEMES: Final = (("light", "sun", "Light"), ("system", "screen", "Like the system"), ("dark", "moon", "Dark"))


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame knows of one request."""

    title: str
    path: str
    theme: str
    assets: Assets
    session: Session | None = None
    waiting_approvals: int = 0
    notice: tuple[str, str] | None = None
    retry_seconds: int | None = None


def document(frame: Frame, *content: h.Node) -> h.Element:
    """A whole page."""
    session = frame.session
    return h.html(lang="en", data_theme=frame.theme)[
        h.head[
            h.meta(charset="utf-8"),
            h.meta(name="viewport", content="width=device-width, initial-scale=1"),
            h.meta(name="color-scheme", content="light dark"),
            h.meta(http_equiv="refresh", content=str(frame.retry_seconds)) if frame.retry_seconds else None,
            h.title[f"{frame.title} · event-based-svcs"],
            h.link(rel="icon", type="image/svg+xml", href=frame.assets.url("icon.svg")),
            h.link(rel="stylesheet", href=frame.assets.url("style.css")),
            h.script(type="module", src=frame.assets.url("live.js")) if session else None,
        ],
        h.body(class_={"alone": session is None}, data_session=session.public_key if session else None)[
            h.a(".skip", href="#main")["Skip to the content"],
            _header(frame, session) if session else _alone_header(),
            h.main("#main", tabindex="-1")[
                frame.notice and notice(frame.notice[1], tone=frame.notice[0]),
                content,
            ],
            h.div("#connection", role="status", hidden=True)[icon("cloud-off"), "Connection lost. Reconnecting…"]
            if session
            else None,
        ],
    ]


def fragment(frame: Frame, *content: h.Node) -> h.Fragment:
    """Only what changes: the screen and the badge of the navigation."""
    return h.fragment[content, _badge(frame)]


def _alone_header() -> h.Element:
    return h.header(".top")[h.a(".brand", href="/")[logo(), h.span["event-based-svcs"]]]


def _header(frame: Frame, session: Session) -> h.Element:
    return h.header(".side")[
        h.a(".brand", href="/")[logo(), h.span["event-based-svcs"]],
        h.nav(aria_label="Main")[
            h.ul[
                (
                    h.li[
                        h.a(href=href, aria_current="page" if _is_here(frame.path, href) else None)[
                            icon(drawing), h.span[label], _badge(frame) if href == "/approvals" else None
                        ]
                    ]
                    for href, drawing, label in NAVIGATION
                    if session.may_manage or href not in FOR_OPERATORS
                )
            ]
        ],
        _foot(frame, session),
    ]


def _is_here(path: str, href: str) -> bool:
    path = next((above + path for below, above in BELOW.items() if path.startswith(below)), path)
    return path == href or (href != "/" and path.startswith(href + "/"))


def _badge(frame: Frame) -> h.Element:
    """How many approvals wait; present even when none does, so that it can be refreshed in place."""
    count = frame.waiting_approvals
    return h.span("#waiting-approvals.count", data_live="approvals", hidden=not count)[
        str(count) if count < 20 else "20+", h.span(".hidden")[" waiting"]
    ]


def _foot(frame: Frame, session: Session) -> h.Element:
    return h.div(".foot")[
        theme_switch(frame.theme, session),
        h.div(".me")[
            h.span(".who", title=session.person.username)[session.person.username],
            sign_out_button(session),
        ],
    ]


def theme_switch(theme: str, session: Session) -> h.Element:
    return h.form(".themes", method="post", action="/theme")[
        csrf_field(session.csrf_token()),
        (
            h.button(
                name="theme",
                value=value,
                title=label,
                aria_label=f"Theme: {label}",
                aria_pressed="true" if value == theme else "false",
            )[icon(drawing)]
            for value, drawing, label in THEMES
        ),
    ]


def sign_out_button(session: Session) -> h.Element:
    return h.form(method="post", action="/sign-out")[
        csrf_field(session.csrf_token()),
        h.button(".quiet.icon-button", title="Sign out")[icon("leave"), h.span(".hidden")["Sign out"]],
    ]


def heading(title: h.Node, *, above: h.Node = None, beside: h.Node = None, below: h.Node = None) -> h.Element:
    """The head of a screen: where one is, its name, what one can do."""
    return h.div(".page-head")[
        h.div(".page-title")[above and h.p(".crumbs")[above], h.h1[title], below],
        beside and h.div(".actions")[beside],
    ]
