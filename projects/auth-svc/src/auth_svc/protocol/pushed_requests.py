"""Pushed authorization requests (RFC 9126): kept until a browser comes for them, answered with a code once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from sqlalchemy import insert, select, update

from auth_svc import opaque
from auth_svc.protocol.families import MICROS
from auth_svc.tables import pushed_requests
from lib_events.database import Connection

PREFIX: Final = "urn:ietf:params:oauth:request_uri:"
UNTIL_BEGUN_SECONDS = 90
UNTIL_DONE_SECONDS = 600  # people need time to sign in

type Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class PushedRequest:
    """A request that its client has proven to be its own."""

    digest: bytes
    client_id: str
    pairs: Pairs
    expires_at: int
    begun_at: int | None
    used_at: int | None

    def is_good(self, client_id: str | None, now: int) -> bool:
        """Whether `client_id` may still be answered (sections 2.2 and 4)."""
        return self.client_id == client_id and self.used_at is None and now < self.expires_at


def keep(connection: Connection, client_id: str, pairs: Pairs, now: int) -> str:
    """Keep a request and return its `request_uri`, which nobody can guess."""
    reference = opaque.new_secret()
    connection.execute(
        insert(pushed_requests).values(
            digest=opaque.digest(reference),
            client_id=client_id,
            parameters=urlencode(pairs),
            expires_at=now + UNTIL_BEGUN_SECONDS * MICROS,
        )
    )
    return PREFIX + reference


def find(connection: Connection, request_uri: str) -> PushedRequest | None:
    """Return what was pushed."""
    wanted = pushed_requests.c.digest == opaque.digest(request_uri.removeprefix(PREFIX))
    row = connection.execute(select(pushed_requests).where(wanted)).one_or_none()
    if row is None:
        return None
    pairs = parse_qsl(row.parameters)
    return PushedRequest(row.digest, row.client_id, pairs, row.expires_at, row.begun_at, row.used_at)


def begin(connection: Connection, digest: bytes, now: int) -> None:
    """A browser came in time: from now on the person has some minutes."""
    waiting = (
        (pushed_requests.c.digest == digest)
        & pushed_requests.c.begun_at.is_(None)
        & (pushed_requests.c.expires_at > now)
    )
    values = {"begun_at": now, "expires_at": now + UNTIL_DONE_SECONDS * MICROS}
    connection.execute(update(pushed_requests).where(waiting).values(values))
