"""The frame of the pages on which people look after their account: one page per section."""

from collections.abc import Callable, Sequence
from typing import Final

import htpy as h

from auth_svc.pages.layout import page

SECTIONS: Final[tuple[tuple[str, str], ...]] = (
    ("/account", "Profile"),
    ("/account/security", "Security"),
    ("/account/sessions", "Devices"),
    ("/account/apps", "Apps"),
    ("/account/data", "Your data"),
)


MOST_ROWS = 100  # a page of thousands would keep everybody waiting while it is made


def account_section(title: str, path: str, *content: h.Node) -> h.Element:
    """One section; `path` is its own, so that people see where they are."""
    return page(title, h.nav(".sections", aria_label="Your account")[map(_link(path), SECTIONS)], content, wide=True)


def rows[Item](found: Sequence[Item], row: Callable[[Item], h.Node], *, rest: str) -> h.Node:
    """The first of what was found, each by `row`; `rest` says what to do about those that are not shown."""
    more = len(found) - MOST_ROWS
    return [
        h.ul(".rows")[(row(each) for each in found[:MOST_ROWS])],
        more > 0 and h.p(".hint")[f"{more} more are not shown here. {rest}"],
    ]


def _link(current: str) -> Callable[[tuple[str, str]], h.Element]:
    def link(section: tuple[str, str]) -> h.Element:
        path, name = section
        return h.a(href=path, aria_current="page" if path == current else None)[name]

    return link
