"""Arrivals that wait: an account here has the address of who came from elsewhere, and they have to show it is theirs.

An address alone links nothing: who has it there need not be who has it here, and whoever made an account here with
somebody else's address would keep a way into it. So the arrival is kept for some minutes, known to its browser alone,
until the account that has the address is signed in to in the ways it always is.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select

from auth_svc.opaque import digest
from auth_svc.people import addresses
from auth_svc.people.accounts import Account
from auth_svc.tables import upstream_arrivals
from auth_svc.upstreams import providers
from auth_svc.upstreams.providers import Arrival, Upstream
from lib_events.database import Connection

LIFETIME_SECONDS = 600
MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class WaitingArrival:
    """Somebody who came from an upstream, and where they were going."""

    upstream: Upstream
    arrival: Arrival
    way_on: str

    @property
    def email(self) -> str:
        """The address, which the upstream has verified."""
        return self.arrival.email or ""


def owner_id(connection: Connection, arrival: Arrival) -> str | None:
    """Return whose address it is here; one that somebody claims and has not proven is nobody's."""
    owner = addresses.owner_of(connection, arrival.email) if arrival.email is not None else None
    return owner.id if owner is not None else None


def keep(connection: Connection, waiting: WaitingArrival, cookie: str, now: int) -> None:
    """Let an arrival wait for its browser to prove more."""
    arrival = waiting.arrival
    connection.execute(
        insert(upstream_arrivals).values(
            digest=digest(cookie),
            upstream_id=waiting.upstream.id,
            issuer=arrival.issuer,
            subject=arrival.subject,
            username=arrival.username,
            email=waiting.email,
            authenticated_at=arrival.authenticated_at,
            way_on=waiting.way_on,
            expires_at=now + LIFETIME_SECONDS * MICROS,
        )
    )


def find(connection: Connection, cookie: str, now: int) -> WaitingArrival | None:
    """Return the arrival that a browser's cookie names, while it waits."""
    rows = upstream_arrivals.c
    query = select(upstream_arrivals).where((rows.digest == digest(cookie)) & (rows.expires_at > now))
    row = connection.execute(query).one_or_none()
    upstream = providers.find(connection, row.upstream_id) if row is not None else None
    return _waiting(row, upstream) if row is not None and upstream is not None else None


def take(connection: Connection, cookie: str, now: int) -> WaitingArrival | None:
    """Use an arrival up; of two who try at once, one gets it."""
    waiting = find(connection, cookie, now)
    gone = connection.execute(delete(upstream_arrivals).where(upstream_arrivals.c.digest == digest(cookie))).rowcount
    return waiting if gone else None


def belongs_to(connection: Connection, waiting: WaitingArrival, account: Account) -> bool:
    """Whether the account is the one with the address: signing in to any other must connect nothing."""
    return owner_id(connection, waiting.arrival) == account.id


def _waiting(row: Row[Any], upstream: Upstream) -> WaitingArrival:
    arrival = Arrival(row.issuer, row.subject, row.username, row.email, row.authenticated_at)
    return WaitingArrival(upstream, arrival, row.way_on)
