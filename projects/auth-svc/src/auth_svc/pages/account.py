"""The page on which people see their account and where they are signed in."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import htpy as h

from auth_svc.pages.layout import button, field, form, hidden, notice, page


def account_page(
    *,
    csrf: str,
    username: str,
    email: str | None,
    roles: Iterable[str],
    sessions: Iterable[Mapping[str, object]],
    shortest: int,
    done: str | None = None,
    error: str | None = None,
) -> h.Element:
    """Who you are, where you are signed in, and a new password."""
    return page(
        "Your account",
        notice(done, kind="done"),
        h.dl(".facts")[
            h.dt["User name"],
            h.dd[username],
            email and [h.dt["E-mail"], h.dd[email]],
            h.dt["Roles"],
            h.dd[(h.span(".role")[role] for role in sorted(roles))],
        ],
        h.h2["Signed in"],
        h.ul(".sessions")[(_session(csrf, session) for session in sessions)],
        h.h2["Password"],
        notice(error),
        form(
            "/account/password",
            csrf,
            h.input(type="text", name="username", value=username, autocomplete="username", readonly=True, hidden=True),
            field(
                "Current password",
                "current_password",
                type="password",
                autocomplete="current-password",
                required=True,
            ),
            field(
                "New password",
                "new_password",
                type="password",
                autocomplete="new-password",
                minlength=str(shortest),
                required=True,
                hint=f"At least {shortest} characters. You are signed out everywhere else.",
            ),
            button("Change the password"),
        ),
        h.hr,
        form("/account/sign-out", csrf, button("Sign out", kind="secondary")),
        wide=True,
    )


def _session(csrf: str, session: Mapping[str, object]) -> h.Element:
    since = session["since"]
    assert isinstance(since, datetime)  # noqa: S101 - made by our endpoint
    return h.li[
        h.div[
            h.strong[str(session["browser"])],
            bool(session["current"]) and h.span(".role")["this browser"],
            h.p(".hint")[
                f"{session['address']}, since ",
                h.time(datetime=since.isoformat())[since.strftime("%d %b %Y, %H:%M UTC")],
            ],
        ],
        not session["current"]
        and form(
            "/account/end-session",
            csrf,
            hidden("session", str(session["id"])),
            button("End", kind="secondary small"),
        ),
    ]
