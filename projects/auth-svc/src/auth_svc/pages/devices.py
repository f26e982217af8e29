"""The section of the account on which people see where they are signed in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import htpy as h

from auth_svc.pages.account_frame import account_section, rows
from auth_svc.pages.layout import button, form, hidden, icon, moment


@dataclass(frozen=True, slots=True)
class Device:
    """A browser that is signed in."""

    id: str
    name: str
    address: str
    since: datetime
    last_seen: datetime
    current: bool


def devices_page(*, csrf: str, devices: Sequence[Device]) -> h.Element:
    """Where one is signed in, and the end of it."""
    others = any(not device.current for device in devices)
    return account_section(
        "Devices",
        "/account/sessions",
        h.p(".lead")["You are signed in with these browsers. End what you do not know, and change your password then."],
        rows(devices, lambda device: _row(csrf, device), rest="They end with those that are, all at once."),
        others
        and form(
            "/account/end-other-sessions",
            csrf,
            button("Sign out everywhere else", kind="secondary"),
        ),
    )


def _row(csrf: str, device: Device) -> h.Element:
    return h.li[
        h.span(".row-icon")[icon("device")],
        h.div(".row-text")[
            h.strong[device.name],
            device.current and h.span(".role")["this browser"],
            h.p(".hint")[device.address],
            h.p(".hint")["Since ", moment(device.since), " · last seen ", moment(device.last_seen)],
        ],
        not device.current
        and form(
            "/account/end-session",
            csrf,
            hidden("session", device.id),
            button("End", kind="secondary small", aria_label=f"End {device.name}, {device.address}"),
        ),
    ]
