"""The page for the second step of a sign-in."""

import htpy as h

from auth_svc.factors.held import Factors
from auth_svc.pages.layout import button, field, form, notice, page
from auth_svc.pages.passkeys import passkey_form

ACTION = "/login/second"


def second_factor_page(
    *,
    csrf: str,
    factors: Factors,
    passkey_options: str | None = None,
    client: str | None = None,
    strengthens: bool = False,
    error: str | None = None,
) -> h.Element:
    """Ask for whatever the account has beside its password."""
    return page(
        "One more step",
        h.p(".lead")[_why(client, strengthens)],
        notice(error),
        passkey_options and _passkey(csrf, passkey_options, kind="secondary" if factors.app else "primary"),
        factors.app and _app(csrf),
        factors.recovery_codes > 0 and _recovery(csrf),
        h.p(".aside")[h.a(href="/login")["Begin again"]],
    )


def _why(client: str | None, strengthens: bool) -> h.Node:  # noqa: FBT001
    if not strengthens:
        return "This account is protected by more than a password."
    return [h.strong[client] if client else "What you want to do", " asks you to prove a little more."]


def _passkey(csrf: str, options: str, *, kind: str) -> h.Node:
    return passkey_form(f"{ACTION}/passkey", csrf, options, "Use your passkey", kind=kind)


def _app(csrf: str) -> h.Element:
    return form(
        ACTION,
        csrf,
        field(
            "Code from your authenticator app",
            "code",
            type="text",
            inputmode="numeric",
            autocomplete="one-time-code",
            pattern="[0-9 ]*",
            maxlength="7",
            required=True,
            autofocus=True,
            class_="code",
        ),
        button("Continue"),
    )


def _recovery(csrf: str) -> h.Element:
    return h.details[
        h.summary["Use a recovery code"],
        form(
            ACTION,
            csrf,
            field(
                "Recovery code",
                "recovery_code",
                type="text",
                autocomplete="off",
                autocapitalize="characters",
                spellcheck="false",
                maxlength="40",
                required=True,
                class_="code",
                hint="One of those you kept when you set this up. Each works once.",
            ),
            button("Use it", kind="secondary"),
        ),
    ]
