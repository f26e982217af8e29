"""The pages on which people sign in and make themselves an account."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import htpy as h

from auth_svc.pages.layout import button, drawn_once, field, form, hidden, notice, page
from auth_svc.pages.passkeys import passkey_form
from auth_svc.pages.upstream import another_form, proof_lead, upstream_links
from auth_svc.upstreams.arrivals import WaitingArrival
from auth_svc.upstreams.providers import Upstream


def sign_in_page(
    *,
    csrf: str,
    way_on: str,
    client: str | None = None,
    username: str = "",
    error: str | None = None,
    registration: bool = False,
    passkey_options: str | None = None,
    upstreams: Sequence[Upstream] = (),
    waiting: WaitingArrival | None = None,
) -> h.Element:
    """Ask for user name and password; of somebody whose arrival waits, those of the account with their address."""
    to = (
        proof_lead(waiting)
        if waiting
        else h.p(".lead")["to go on to ", h.strong[client]]
        if client
        else h.p(".lead")["with your account"]
    )
    return page(
        "You have an account here already" if waiting else "Sign in",
        to,
        notice(error),
        form(
            "/login",
            csrf,
            hidden("next", way_on),
            _fields(username, passkeys=passkey_options is not None)
            if username
            else EMPTY_FIELDS[passkey_options is not None],
        ),
        FORGOTTEN,
        passkey_options
        and passkey_form(
            "/login/passkey", csrf, passkey_options, "Sign in with a passkey", hidden("next", way_on), conditional=True
        ),
        upstream_links([one for one in upstreams if not waiting or one.id != waiting.upstream.id], way_on),
        another_form(csrf, waiting) if waiting else None,
        registration
        and not waiting
        and h.p(".aside")["No account yet? ", h.a(href=f"/register?next={quote(way_on, safe='')}")["Make one"]],
    )


def _fields(username: str, *, passkeys: bool) -> h.Node:
    return [
        field(
            "User name",
            "username",
            type="text",
            value=username,
            autocomplete="username webauthn" if passkeys else "username",
            autocapitalize="none",
            spellcheck="false",
            required=True,
            autofocus=not username,
        ),
        field(
            "Password",
            "password",
            type="password",
            autocomplete="current-password",
            required=True,
            autofocus=bool(username),
        ),
        button("Sign in"),
    ]


EMPTY_FIELDS = {passkeys: drawn_once(_fields("", passkeys=passkeys)) for passkeys in (False, True)}
FORGOTTEN = drawn_once(h.p(".aside")[h.a(href="/recover")["Forgot the password?"]])


def registration_page(
    *,
    csrf: str,
    way_on: str,
    typed: Mapping[str, str],
    errors: Mapping[str, str],
    shortest: int,
) -> h.Element:
    """Ask for what an account needs."""
    invitation = typed.get("invitation")
    return page(
        "Make an account",
        invitation and h.p(".lead")["You are invited. Choose how you will sign in."],
        form(
            "/register",
            csrf,
            hidden("next", way_on),
            hidden("invitation", invitation or None),
            field(
                "User name",
                "username",
                type="text",
                value=typed.get("username", ""),
                autocomplete="username",
                autocapitalize="none",
                spellcheck="false",
                required=True,
                error=errors.get("username"),
            ),
            field(
                "Name (optional)",
                "name",
                type="text",
                value=typed.get("name", ""),
                autocomplete="name",
                maxlength="80",
                hint="How others see you.",
                error=errors.get("name"),
            ),
            field(
                "E-mail (optional)",
                "email",
                type="email",
                value=typed.get("email", ""),
                autocomplete="email",
                hint="Needed to get a new password, should you forget yours.",
                error=errors.get("email"),
            ),
            field(
                "Password",
                "password",
                type="password",
                autocomplete="new-password",
                minlength=str(shortest),
                required=True,
                hint=f"At least {shortest} characters; a few words in a row are fine.",
                error=errors.get("password"),
            ),
            button("Make the account"),
        ),
        h.p(".aside")["Already have one? ", h.a(href=f"/login?next={quote(way_on, safe='')}")["Sign in"]],
    )
