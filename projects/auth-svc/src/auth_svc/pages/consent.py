"""The pages on which people allow a program to act for them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import htpy as h

from auth_svc.listed import scope_text
from auth_svc.pages.layout import button, field, form, hidden, icon, moment, notice, page
from auth_svc.rights.resources import DESCRIPTIONS


@dataclass(frozen=True, slots=True)
class Asked:
    """When a device asked, and from where."""

    at: datetime
    minutes: int  # ago
    address: str | None
    is_here: bool  # on the network of whoever reads this


def consent_page(
    *,
    csrf: str,
    query: str,
    client: str,
    username: str,
    scopes: Collection[str],
    descriptions: Mapping[str, str] = DESCRIPTIONS,
    services: Iterable[str] = (),
    origin: str | None = None,
) -> h.Element:
    """Ask whether a client may have what it wants; `origin` is the host that vouches for one we have not made.

    `services` are those it is let in to with all that the person may do there.
    """
    return page(
        "Allow access?",
        h.p(".lead")[h.strong[client], " wants to act for you, ", h.strong[username], "."],
        origin and _note("Run by ", h.strong[origin], ", not by us."),
        scope_list(scopes, descriptions, services),
        form(
            "/consent",
            csrf,
            hidden("request", query),
            hidden("scope", scope_text(scopes)),  # what is read here, and no more, is allowed
            h.div(".buttons")[
                button("Allow", name="decision", value="allow"),
                button("Cancel", kind="secondary", name="decision", value="deny"),
            ],
        ),
        h.p(".aside")["Allow this only if you have just started it yourself."],
    )


def device_code_page(*, csrf: str, user_code: str = "", error: str | None = None) -> h.Element:
    """Ask for the code that the device shows (RFC 8628 section 3.3)."""
    return page(
        "Connect a device",
        h.p(".lead")["Enter the code that your terminal or device shows."],
        notice(error),
        form(
            "/device",
            csrf,
            field(
                "Code",
                "user_code",
                type="text",
                value=user_code,
                autocomplete="off",
                autocapitalize="characters",
                spellcheck="false",
                placeholder="XXXX-XXXX",
                maxlength="20",
                required=True,
                autofocus=True,
                class_="code",
            ),
            button("Continue"),
        ),
    )


def device_confirmation_page(
    *,
    csrf: str,
    user_code: str,
    client: str,
    username: str,
    asked: Asked,
    scopes: Iterable[str],
    descriptions: Mapping[str, str] = DESCRIPTIONS,
    services: Iterable[str] = (),
    origin: str | None = None,
    is_registered: bool = False,
) -> h.Element:
    """Ask whether this is the device that the person holds (RFC 8628 section 5.4).

    `origin` is the host that vouches for a client; for one that registered itself nobody does, and names are free.
    """
    return page(
        "Is this your device?",
        h.p(".lead")[h.strong[client], " wants to act for you, ", h.strong[username], "."],
        origin and _note("Run by ", h.strong[origin], ", not by us."),
        is_registered and _note("It has registered itself: nobody here has checked who it is, or its name."),
        h.p(".device-code", aria_label=f"Code {user_code}")[icon("device"), user_code],
        h.p["Go on only if your device shows exactly this code now, and you have just started this there yourself."],
        h.p["Whoever sent you this code, or a link to it, would act for you."],
        _facts(asked),
        scope_list(scopes, descriptions, services),
        form(
            "/device",
            csrf,
            hidden("user_code", user_code),
            h.div(".buttons")[
                button("It is, allow", name="decision", value="allow"),
                button("Refuse", kind="secondary", name="decision", value="deny"),
            ],
        ),
    )


def _facts(asked: Asked) -> h.Element:
    """What whoever sends others a code cannot choose: it need not be where, or when, the person holds a device."""
    ago = {0: "less than a minute ago", 1: "a minute ago"}.get(asked.minutes, f"{asked.minutes} minutes ago")
    where = "the network that you are on" if asked.is_here else "another network than the one that you are on"
    return h.dl(".facts")[
        h.dt["Asked for"],
        h.dd[ago, ", ", moment(asked.at)],
        h.dt["From"],
        h.dd[h.strong[asked.address], ", ", where] if asked.address else h.dd["an address that nobody noted"],
    ]


def _note(*words: h.Node) -> h.Element:
    return h.p(".notice", role="note")[icon("alert"), h.span[words]]


def scope_list(
    scopes: Iterable[str], descriptions: Mapping[str, str] = DESCRIPTIONS, services: Iterable[str] = ()
) -> h.Element:
    """What is asked for, in words."""
    wanted = frozenset(scopes)
    asked = [text for scope, text in descriptions.items() if scope in wanted]
    asked += [f"Do at {name} whatever you may do there" for name in services]
    return h.ul(".scopes")[(h.li[icon("check"), text] for text in asked)]
