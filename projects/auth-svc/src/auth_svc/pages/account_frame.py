"""The frame of the pages on which people look after their account: one page per section."""

from collections.abc import Callable
from typing import Final

import htpy as h

from auth_svc.pages.layout import page

SECTIONS: Final[tuple[tuple[str, str], ...]] = (
    ("/account", "Profile"),
    ("/account/security", "Security"),
    ("/account/sessions", "Devices"),
    ("/account/apps", "Connected apps"),
    ("/account/data", "Your data"),
)


def account_section(title: str, path: str, *content: h.Node) -> h.Element:
    """One section; `path` is its own, so that people see where they are."""
    return page(title, h.nav(".sections", aria_label="Your account")[map(_link(path), SECTIONS)], content, wide=True)


def _link(current: str) -> Callable[[tuple[str, str]], h.Element]:
    def link(section: tuple[str, str]) -> h.Element:
        path, name = section
        return h.a(href=path, aria_current="page" if path == current else None)[name]

    return link
