"""The pages on which people look after the ways they sign in."""

from collections.abc import Sequence
from datetime import datetime

import htpy as h
import segno
from markupsafe import Markup

from auth_svc.factors.held import Factors
from auth_svc.factors.passkeys import Passkey
from auth_svc.pages.account_frame import account_section
from auth_svc.pages.layout import button, field, form, hidden, notice, page
from auth_svc.pages.passkeys import passkey_form
from auth_svc.pages.upstream import upstream_section
from auth_svc.upstreams.providers import Upstream
from lib_events.clock import to_datetime

PATH = "/account/security"
WITHOUT_NAME = (
    "Passkeys are not offered here: browsers make them for a host name, and this service is reached by an address. "
    "On this machine, the name localhost will do."
)


def security_page(
    *,
    csrf: str,
    factors: Factors,
    passkeys: Sequence[Passkey],
    passkey_options: str | None,
    upstreams: Sequence[Upstream] = (),
    linked: frozenset[str] = frozenset(),
    way_on: str | None = None,
    done: str | None = None,
    error: str | None = None,
) -> h.Element:
    """What protects the account, and what could."""
    return account_section(
        "Security",
        PATH,
        notice(done, kind="done"),
        notice(error),
        _why(factors, way_on),
        _passkeys(csrf, passkeys, passkey_options, way_on),
        _app(csrf, factors, way_on),
        factors.any and _recovery(csrf, factors),
        upstream_section(csrf, upstreams, linked),
    )


def app_page(*, csrf: str, uri: str, secret: str, way_on: str | None = None, error: str | None = None) -> h.Element:
    """Show the secret to scan or to type, and ask for a first code."""
    drawing = segno.make(uri, error="m").svg_inline(omitsize=True, border=2, svgclass=None, lineclass=None)
    return page(
        "Set up an authenticator app",
        h.p["Scan this with the app, or type the key into it."],
        h.div(".qr", role="img", aria_label="QR code for the authenticator app")[Markup(drawing)],  # noqa: S704 - segno's
        h.p(".secret")[h.code[" ".join(secret[start : start + 4] for start in range(0, len(secret), 4))]],
        notice(error),
        form(
            f"{PATH}/app/confirm",
            csrf,
            hidden("next", way_on),
            field(
                "The code that the app shows now",
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
            button("Confirm"),
        ),
        h.p(".aside")[h.a(href=PATH)["Not now"]],
    )


def recovery_codes_page(*, codes: Sequence[str], done: str | None = None, way_on: str | None = None) -> h.Element:
    """Show recovery codes, for the only time."""
    return page(
        "Keep these recovery codes",
        notice(done, kind="done"),
        h.p["Each lets you in once when you have lost everything else. They are shown now and never again."],
        h.ul(".recovery-codes")[(h.li[h.code[code]] for code in codes)],
        h.p(".hint")["Print them, or keep them in a password manager, but not on your phone alone."],
        h.p(".aside")[h.a(href=way_on or PATH)["I have kept them"]],
        wide=True,
    )


def _why(factors: Factors, way_on: str | None) -> h.Node:
    """Tell who was sent here on their way why, and let them go on once nothing is missing."""
    if way_on is None:
        return None
    if factors.any:
        return h.p[h.a(href=way_on)["Go on to where you were going"]]
    return notice("Your role takes more than a password. Set up a passkey or an authenticator app to go on.")


def _passkeys(csrf: str, passkeys: Sequence[Passkey], options: str | None, way_on: str | None) -> h.Node:
    return [
        h.h2["Passkeys"],
        h.p(".hint")["Sign in with your fingerprint, face or device PIN; no page that looks like ours can take it."],
        bool(passkeys) and h.ul(".sessions")[(_passkey(csrf, passkey) for passkey in passkeys)],
        _new_passkey(csrf, options, way_on) if options else h.p(".hint")[WITHOUT_NAME],
    ]


def _new_passkey(csrf: str, options: str, way_on: str | None) -> h.Node:
    named = field(
        "Name of the passkey", "name", type="text", autocomplete="off", maxlength="60", placeholder="My phone"
    )
    return passkey_form(f"{PATH}/passkeys", csrf, options, "Add a passkey", hidden("next", way_on), named)


def _passkey(csrf: str, passkey: Passkey) -> h.Element:
    added = to_datetime(passkey.created_at)
    used = to_datetime(passkey.used_at) if passkey.used_at else None
    return h.li[
        h.div[
            h.strong[passkey.name],
            passkey.synced and h.span(".role")["synced"],
            h.p(".hint")["Added ", _day(added), [", last used ", _day(used)] if used else ", not used yet"],
        ],
        form(
            f"{PATH}/passkeys/remove",
            csrf,
            hidden("passkey", passkey.id),
            button("Remove", kind="secondary small", aria_label=f"Remove {passkey.name}"),
        ),
    ]


def _day(moment: datetime) -> h.Element:
    return h.time(datetime=moment.isoformat())[moment.strftime("%d %b %Y")]


def _app(csrf: str, factors: Factors, way_on: str | None) -> h.Node:
    text, path, way = ("Remove", "/remove", None) if factors.app else ("Set up", "", way_on)
    press = button(text, kind="secondary small", aria_label=f"{text} the authenticator app")
    what = form(f"{PATH}/app{path}", csrf, hidden("next", way), press)
    return [
        h.h2["Authenticator app"],
        h.div(".factor")[
            h.p[
                "Codes from your app are asked for when you sign in."
                if factors.app
                else "An app on your phone makes a new code every 30 seconds."
            ],
            what,
        ],
    ]


def _recovery(csrf: str, factors: Factors) -> h.Node:
    left = factors.recovery_codes
    return [
        h.h2["Recovery codes"],
        notice("Few recovery codes are left. Make new ones.") if left < 3 else None,
        h.div(".factor")[
            h.p[f"{left} of 10 left." if left != 1 else "One of 10 left."],
            form(f"{PATH}/recovery-codes", csrf, button("Make new codes", kind="secondary small")),
        ],
    ]
