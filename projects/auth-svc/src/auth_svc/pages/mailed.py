"""The pages behind the links in our mails, and the one that has a mail sent."""

import htpy as h

from auth_svc.pages.layout import button, field, form, hidden, page


def verification_page(*, csrf: str, secret: str, email: str, username: str) -> h.Element:
    """Ask for the press that proves an address."""
    return page(
        "Is this your address?",
        h.p(".lead")["Confirm that ", h.strong[email], " belongs to your account ", h.strong[username], "."],
        form("/verify-email", csrf, hidden("link", secret), button("Confirm the address", autofocus="")),
        h.p(".aside")["Not your account? Close the page: nothing is changed."],
    )


def recovery_page(*, csrf: str) -> h.Element:
    """Ask whose password is lost."""
    return page(
        "Forgot the password?",
        h.p(".lead")["A mail with a link lets you choose a new one."],
        form(
            "/recover",
            csrf,
            field(
                "User name or e-mail address",
                "wanted",
                type="text",
                autocomplete="username",
                autocapitalize="none",
                spellcheck="false",
                maxlength="254",
                required=True,
                autofocus=True,
            ),
            button("Send the mail"),
        ),
        h.p(".aside")[h.a(href="/login")["Back to the sign-in"]],
    )


def new_password_page(*, csrf: str, secret: str, username: str, shortest: int, error: str | None) -> h.Element:
    """Ask for the new password of an account."""
    return page(
        "Choose a new password",
        h.p(".lead")["for your account ", h.strong[username]],
        form(
            "/recover/new-password",
            csrf,
            hidden("link", secret),
            h.input(type="text", name="username", value=username, autocomplete="username", readonly=True, hidden=True),
            field(
                "New password",
                "new_password",
                type="password",
                autocomplete="new-password",
                minlength=str(shortest),
                required=True,
                autofocus=True,
                hint=f"At least {shortest} characters; a few words in a row are fine. You are signed out everywhere.",
                error=error,
            ),
            button("Set the password"),
        ),
    )
