"""The pages that tell how something ended."""

from collections.abc import Iterable
from typing import Final

import htpy as h

from auth_svc.pages.layout import button, form, hidden, icon, page

SEND_FORM: Final = "/static/send_form.js"


def error_page(title: str, text: str, *, code: str | None = None) -> h.Element:
    """Say what is wrong and what to do; `code` is for the developer of the client."""
    return page(
        title,
        h.p(".big-icon.error")[icon("alert")],
        h.p[text],
        code and h.p(".hint")["Error ", h.code[code]],
        h.p(".aside")[h.a(href="/account")["Go to your account"]],
    )


def done_page(title: str, text: str, *, way_on: tuple[str, str] | None = None) -> h.Element:
    """Say that all is well; `way_on` is where people may go now, and how it is called."""
    link = way_on and h.p(".aside")[h.a(href=way_on[0])[way_on[1]]]
    return page(title, h.p(".big-icon.done")[icon("check")], h.p[text], link)


def signed_out_page() -> h.Element:
    """Say that the person is signed out."""
    return page(
        "You are signed out",
        h.p(".big-icon.done")[icon("leave")],
        h.p["Everything that was signed in with this browser has ended."],
        h.p(".aside")[h.a(href="/login")["Sign in again"]],
    )


def sign_out_page(*, csrf: str, query: str, username: str) -> h.Element:
    """Ask whether the person really wants to leave (RP-Initiated Logout section 2)."""
    return page(
        "Sign out?",
        h.p(".lead")["You are signed in as ", h.strong[username], "."],
        form("/oauth2/logout", csrf, hidden("request", query), button("Sign out")),
        h.p(".aside")[h.a(href="/account")["Stay signed in"]],
    )


def sent_back_page(*, action: str, fields: Iterable[tuple[str, str]]) -> h.Element:
    """Post an answer to the client (OAuth 2.0 Form Post Response Mode): by a script, or a press where there is none."""
    return page(
        "One moment",
        h.p["You go on to the application you came from."],
        h.form(method="post", action=action)[(hidden(name, value) for name, value in fields), button("Go on")],
        h.script(src=SEND_FORM, type="module"),
    )
