"""The section of the account on which people see and change who they are."""

from collections.abc import Mapping

import htpy as h

from auth_svc.pages.account_frame import account_section
from auth_svc.pages.layout import button, field, form, notice
from auth_svc.people.accounts import Account


def profile_page(
    *,
    csrf: str,
    account: Account,
    waiting: str | None,
    shortest: int,
    done: str | None,
    errors: Mapping[str, str],
) -> h.Element:
    """Who one is, and forms to change it."""
    return account_section(
        "Your account",
        "/account",
        notice(done, kind="done"),
        notice(None if account.password_hash else errors.get("password")),
        _facts(account, waiting),
        _name_form(csrf, account, errors),
        _email_form(csrf, account, waiting, errors),
        _password_form(csrf, account, shortest, errors),
        h.hr,
        form("/account/sign-out", csrf, button("Sign out", kind="secondary")),
    )


def _facts(account: Account, waiting: str | None) -> h.Element:
    proven = h.span(".role")["confirmed"] if account.email_verified else h.span(".role.open")["not confirmed"]
    return h.dl(".facts")[
        h.dt["User name"],
        h.dd[account.username],
        account.name and [h.dt["Name"], h.dd[account.name]],
        h.dt["E-mail"],
        h.dd[[account.email, " ", proven] if account.email else "none"],
        waiting and waiting != account.email and [h.dt["To confirm"], h.dd[waiting]],
        h.dt["Roles"],
        h.dd[(h.span(".role")[role] for role in sorted(account.roles))],
    ]


def _name_form(csrf: str, account: Account, errors: Mapping[str, str]) -> h.Element:
    return _folded(
        "Change your name",
        form(
            "/account/name",
            csrf,
            field(
                "Name",
                "name",
                type="text",
                value=account.name or "",
                autocomplete="name",
                maxlength="80",
                hint="How others see you. Empty: your user name.",
                error=errors.get("name"),
            ),
            button("Save the name"),
        ),
        opened="name" in errors,
    )


def _email_form(csrf: str, account: Account, waiting: str | None, errors: Mapping[str, str]) -> h.Element:
    unproven = account.email is not None and not account.email_verified
    return _folded(
        "Confirm your e-mail address" if unproven else "Change your e-mail address",
        form(
            "/account/email",
            csrf,
            field(
                "E-mail",
                "email",
                type="email",
                value=waiting or (account.email if unproven else None) or "",
                autocomplete="email",
                required=True,
                hint="It becomes yours when you follow the link that is sent there.",
                error=errors.get("email"),
            ),
            account.password_hash
            and field(
                "Your password",
                "password",
                type="password",
                autocomplete="current-password",
                required=True,
                error=errors.get("password"),
            ),
            button("Send the link"),
        ),
        opened="email" in errors or "password" in errors,
    )


def _password_form(csrf: str, account: Account, shortest: int, errors: Mapping[str, str]) -> h.Element:
    return _folded(
        "Change your password" if account.password_hash else "Choose a password",
        form(
            "/account/password",
            csrf,
            h.input(
                type="text",
                name="username",
                value=account.username,
                autocomplete="username",
                readonly=True,
                hidden=True,
            ),
            account.password_hash
            and field(
                "Current password",
                "current_password",
                type="password",
                autocomplete="current-password",
                required=True,
                error=errors.get("current_password"),
            ),
            field(
                "New password",
                "new_password",
                type="password",
                autocomplete="new-password",
                minlength=str(shortest),
                required=True,
                hint=f"At least {shortest} characters; a few words in a row are fine. "
                "You are signed out everywhere else.",
                error=errors.get("new_password"),
            ),
            button("Change the password"),
        ),
        opened="current_password" in errors or "new_password" in errors,
    )


def _folded(title: str, content: h.Node, *, opened: bool) -> h.Element:
    """A form that is out of the way until it is wanted."""
    return h.details(".change", open=opened)[h.summary[h.h2[title]], content]
