"""The frame of every page, and the pieces they share."""

from datetime import datetime
from functools import cache
from typing import Final

import htpy as h
from markupsafe import Markup

BRAND = "event-based-svcs"
STYLE_SHEET = "/static/auth.css"

PATHS: Final[dict[str, str]] = {
    "alert": "M12 4 2.5 20h19zM12 10v4M12 17v.5",
    "check": "M5 12.5 10 17.5 19 7",
    "device": "M4 5h16v11H4zM9 20h6M12 16v4",
    "key": "M8 17a5 5 0 1 0 0-10 5 5 0 0 0 0 10zM13 12h8v4M17 12v3",
    "leave": "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
}


def drawn_once(*content: h.Node) -> Markup:
    """What never changes, as the text it becomes."""
    return Markup(h.fragment[content])  # noqa: S704 - htpy has escaped it


@cache
def icon(name: str) -> Markup:
    """A drawing beside a text; screen readers hear the text only."""
    return drawn_once(_drawing(name))


def _drawing(name: str) -> h.Element:
    return h.svg(".icon", viewBox="0 0 24 24", aria_hidden="true")[h.path(d=PATHS[name])]


def logo() -> h.Element:
    """Three moments on one wave: an event, what it moves, what comes of it."""
    return h.svg(".logo", viewBox="0 0 24 24", aria_hidden="true")[
        h.rect(width="24", height="24", rx="6.5", class_="plate"),
        h.path(d="M5 15.5c3.5 0 3.5-7 7-7s3.5 7 7 7"),
        h.circle(cx="5", cy="15.5", r="1.7"),
        h.circle(cx="12", cy="8.5", r="1.7", class_="now"),
        h.circle(cx="19", cy="15.5", r="1.7"),
    ]


HEAD = drawn_once(
    h.meta(charset="utf-8"),
    h.meta(name="viewport", content="width=device-width, initial-scale=1"),
    h.meta(name="color-scheme", content="light dark"),
    h.link(rel="stylesheet", href=STYLE_SHEET),
    h.link(rel="icon", href="/static/icon.svg", type="image/svg+xml"),
)
HEADER = drawn_once(h.header(".brand")[logo(), h.span[BRAND]])


def page(title: str, *content: h.Node, wide: bool = False) -> h.Element:
    """A whole page with one card."""
    return h.html(lang="en")[
        h.head[HEAD, h.title[f"{title} · {BRAND}"]],
        h.body[
            HEADER,
            h.main(class_="card wide" if wide else "card")[h.h1[title], content],
        ],
    ]


def form(action: str, csrf: str, *content: h.Node, **attributes: str | bool | None) -> h.Element:
    """A form that carries this browser's token."""
    return h.form(method="post", action=action, **attributes)[h.input(type="hidden", name="csrf", value=csrf), content]


def hidden(name: str, value: str | None) -> h.Node:
    """A value the form carries along."""
    return None if value is None else h.input(type="hidden", name=name, value=value)


def field(
    label: str, name: str, *, hint: str | None = None, error: str | None = None, **attributes: str | bool
) -> h.Node:
    """A labelled input; hint and error are read out with it."""
    described = " ".join(f"{name}-{kind}" for kind, text in (("hint", hint), ("error", error)) if text)
    return h.div(".field")[
        h.label(for_=name)[label],
        h.input(
            id=name,
            name=name,
            aria_describedby=described or None,
            aria_invalid="true" if error else None,
            **attributes,
        ),
        hint and h.p(".hint", id=f"{name}-hint")[hint],
        error and h.p(".field-error", id=f"{name}-error")[error],
    ]


def notice(text: str | None, *, kind: str = "error") -> h.Node:
    """Something the person has to know before going on."""
    if not text:
        return None
    drawing = "alert" if kind == "error" else "check"
    return h.p(class_=f"notice {kind}", role="alert" if kind == "error" else "status")[icon(drawing), h.span[text]]


def button(text: str, *, kind: str = "primary", **attributes: str) -> h.Element:
    """A button that sends its form."""
    return h.button(type="submit", class_=f"button {kind}", **attributes)[text]


def moment(at: datetime) -> h.Element:
    """A time, for people and for programs."""
    return h.time(datetime=at.isoformat(timespec="seconds"))[at.strftime("%d %b %Y, %H:%M UTC")]
