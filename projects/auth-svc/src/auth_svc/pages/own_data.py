"""The section of the account on which people take along or delete what we keep of them."""

import htpy as h

from auth_svc.pages.account_frame import account_section
from auth_svc.pages.layout import button, field, form, notice


def own_data_page(
    *, csrf: str, username: str, has_password: bool, error: str | None, password_error: str | None
) -> h.Element:
    """Everything as a file, or nothing any more."""
    return account_section(
        "Your data",
        "/account/data",
        notice(error),
        h.h2["Take it along"],
        h.p["Your profile, how and where you sign in, connected apps and what was recorded about you, as a JSON file."],
        # Named by the answer, and not here: a browser that is asked for a second factor first would keep that page.
        h.p[h.a(".button.secondary", href="/account/data/export")["Download my data"]],
        h.hr,
        h.h2["Delete the account"],
        h.p[
            "You are signed out everywhere, and your user name, name and e-mail address are erased. "
            "What you did stays in the audit under a number that means nobody. This cannot be undone."
        ],
        form(
            "/account/delete",
            csrf,
            h.input(type="text", name="username", value=username, autocomplete="username", readonly=True, hidden=True),
            has_password
            and field(
                "Your password",
                "password",
                type="password",
                autocomplete="current-password",
                required=True,
                error=password_error,
            ),
            not has_password and notice(password_error),
            button("Delete my account", kind="danger"),
        ),
    )
