"""The keys that sign tokens: published before they are used, kept until their last token has expired, sealed at rest.

A key's times say all: from `active_from` it signs, until a newer one does; when the last token it signed has expired it
is retired, and no longer published. Every process reads the same rows, so they agree without asking one another.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64encode
from pydantic_core import to_json
from sqlalchemy import Row, insert, select, update

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS, MICROS
from auth_svc.tables import signing_keys
from lib_auth.events import KeyChangedData, KeyPublished, KeyRetired, KeyRevoked
from lib_auth.jwks import ALGORITHM, CURVE, RSA
from lib_events.database import Connection
from lib_events.event import Event, EventType
from lib_events.sealed import SealingKey

TOPIC: Final = "signing-keys"
RSA_BITS = 2_048
NOBODYS = 0  # when no key was made: one that is there at all is younger
LEAD_SECONDS = 3_600  # how long a key is published before it is used: who caches our keys has fetched it by then
REST_SECONDS = LONGEST_ACCESS_SECONDS + 60  # after the next one took over, the last token has expired

type PrivateKey = ECKey | RSAKey


class KeyUnknown(Exception):
    """There is no such key, or it is not in use any more."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key."""

    id: str  # the RFC 7638 thumbprint
    algorithm: str
    public: PrivateKey
    private: PrivateKey | None = field(repr=False)
    created_at: int
    active_from: int
    retired_at: int | None
    revoked_at: int | None

    def header(self, token_type: str) -> bytes:
        """Return the first part of a compact JWS that this key signs (RFC 7515 section 7.1)."""
        return _header(self.algorithm, token_type, self.id)

    def sign(self, signed: bytes) -> bytes:
        """Return the signature of what comes before it."""
        assert self.private is not None  # noqa: S101 - what is active has it
        signature: bytes = jws.JWSRegistry.algorithms[self.algorithm].sign(signed, self.private)
        return signature

    @property
    def is_published(self) -> bool:
        """Whether the JWK set has it."""
        return self.retired_at is None and self.revoked_at is None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made."""

    algorithm: str
    private: PrivateKey = field(repr=False)

    @property
    def id(self) -> str:
        """Its thumbprint."""
        return str(self.private.kid)


@lru_cache(64)
def _header(algorithm: str, token_type: str, key_id: str) -> bytes:
    return urlsafe_b64encode(to_json({"alg": algorithm, "typ": token_type, "kid": key_id}))


_algorithm = attrgetter("algorithm")


class SigningKeys:
    """What this process knows of the keys; `know` brings it up to date."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys: Sequence[SigningKey] = ()
        self._published: Mapping[str, SigningKey] = {}
        self._signing: Mapping[str, Sequence[SigningKey]] = {}  # by algorithm

    def know(self, keys: Sequence[SigningKey]) -> None:
        """Take in what the rows say, oldest first."""
        self._keys = keys
        self._published = {key.id: key for key in keys if key.is_published}
        signing = sorted((key for key in self._published.values() if key.private), key=_algorithm)
        self._signing = {algorithm: tuple(mine) for algorithm, mine in groupby(signing, _algorithm)}

    def active(self, algorithm: str = ALGORITHM) -> SigningKey:
        """Return the key that signs now: the newest whose time has come; raises `KeyUnknown`.

        Of none has it come where the clock is behind the one that the first was made by: that one signs all the same,
        until the hour of the next one has passed.
        """
        if not (mine := self._signing.get(algorithm)):
            raise KeyUnknown(f"there is no key for {algorithm} yet")
        now = self._clock() * MICROS
        if (come := next((key for key in reversed(mine) if key.active_from <= now), None)) is not None:
            return come
        return next((key for key in mine if key.created_at >= now + LEAD_SECONDS * MICROS), mine[0])

    def sign(self, claims: Mapping[str, Any], *, token_type: str, algorithm: str = ALGORITHM) -> str:
        """Return a compact JWS that names its key."""
        key = self.active(algorithm)
        signed = key.header(token_type) + b"." + urlsafe_b64encode(to_json(claims))
        return (signed + b"." + urlsafe_b64encode(key.sign(signed))).decode()

    async def find(self, key_id: str) -> PrivateKey | None:
        """The service's own `KeySource`."""
        key = self._published.get(key_id)
        return key.public if key is not None else None

    def known(self, key_id: str) -> SigningKey | None:
        """Return a key that signed once, published or not, unless it was revoked."""
        return next((key for key in self._keys if key.id == key_id and key.revoked_at is None), None)

    def newest(self, algorithm: str) -> SigningKey | None:
        """Return the youngest key that is published, in use or not."""
        mine = [key for key in self._keys if key.algorithm == algorithm and key.is_published]
        return mine[-1] if mine else None

    def last_made(self, algorithm: str, until: int) -> int:
        """When the last key was made, whatever became of it; `NOBODYS` where none was.

        What is said to be made after `until` was made by a clock that was ahead, nobody knows when.
        """
        made = [key.created_at for key in self._keys if key.algorithm == algorithm and key.created_at < until]
        return max(made, default=NOBODYS)

    def document(self) -> dict[str, Any]:
        """The JWK set (RFC 7517)."""
        return {
            "keys": [
                key.public.as_dict(private=False) | {"kid": key.id, "use": "sig", "alg": key.algorithm}
                for key in self._published.values()
            ]
        }


def new_key(algorithm: str) -> NewKey:
    """Make a key; an RSA key takes its time."""
    private: PrivateKey = (
        RSAKey.generate_key(RSA_BITS, private=True) if algorithm == RSA else ECKey.generate_key(CURVE, private=True)
    )
    private.ensure_kid()
    return NewKey(algorithm, private)


def load(connection: Connection, sealing: SealingKey) -> list[SigningKey]:
    """Return every key, oldest first; raises `SecretUnreadable` when they were sealed with another key."""
    query = select(signing_keys).order_by(signing_keys.c.active_from, signing_keys.c.id)
    return [_key(row, sealing) for row in connection.execute(query)]


def publish(connection: Connection, new: NewKey, sealing: SealingKey, actor: Actor, *, active_from: int) -> None:
    """Publish a key that signs from `active_from` on."""
    secret = new.private.as_pem(private=True).decode()
    connection.execute(
        insert(signing_keys).values(
            id=new.id,
            algorithm=new.algorithm,
            public_key=json.dumps(new.private.as_dict(private=False)),
            sealed_key=sealing.seal(secret, purpose=purpose_of(new.id)),
            created_at=actor.at,
            active_from=active_from,
        )
    )
    _tell(connection, KeyPublished, new.id, new.algorithm, active_from, actor)


def retire(connection: Connection, now: int) -> bool:
    """Retire the keys whose last token has expired; returns whether there were any."""
    query = select(signing_keys).where(signing_keys.c.retired_at.is_(None) & signing_keys.c.revoked_at.is_(None))
    rows = connection.execute(query.order_by(signing_keys.c.active_from).with_for_update()).all()
    over = [row for row in rows if (taken := _taken_over_at(row, rows)) and taken + REST_SECONDS * MICROS < now]
    for row in over:
        values = {"retired_at": now, "sealed_key": None}
        connection.execute(update(signing_keys).where(signing_keys.c.id == row.id).values(values))
        _tell(connection, KeyRetired, row.id, row.algorithm, row.active_from, Actor(now))
    if over:
        connection.notify(TOPIC)
    return bool(over)


def revoke(connection: Connection, key_id: str, successor: NewKey, sealing: SealingKey, actor: Actor) -> None:
    """Refuse at once whatever the key has signed, and let `successor` sign from now on; raises `KeyUnknown`."""
    in_use = (signing_keys.c.id == key_id) & signing_keys.c.retired_at.is_(None) & signing_keys.c.revoked_at.is_(None)
    values = {"revoked_at": actor.at, "sealed_key": None}
    row = connection.execute(select(signing_keys).where(in_use).with_for_update()).one_or_none()
    if row is None:
        raise KeyUnknown(f"there is no key {key_id!r} in use; list them with: evs admin key list")
    connection.execute(update(signing_keys).where(signing_keys.c.id == key_id).values(values))
    _tell(connection, KeyRevoked, key_id, row.algorithm, row.active_from, actor)
    publish(connection, successor, sealing, actor, active_from=actor.at)


def _taken_over_at(row: Row[Any], rows: Sequence[Row[Any]]) -> int | None:
    """When the next key of the same algorithm began to sign."""
    later = [other.active_from for other in rows if other.algorithm == row.algorithm and _is_later(other, row)]
    return min(later) if later else None


def _is_later(one: Row[Any], other: Row[Any]) -> bool:
    return (one.active_from, one.id) > (other.active_from, other.id)


def _tell(  # noqa: PLR0917 - what one key's event says
    connection: Connection,
    event_type: EventType[KeyChangedData],
    key_id: str,
    algorithm: str,
    active_from: int,
    actor: Actor,
) -> None:
    payload = KeyChangedData(key=key_id, algorithm=algorithm, active_from=active_from // MICROS, by=actor.who)
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=key_id))
    audit.record(connection, actor, event_type.name.removeprefix("evs."), about=key_id, algorithm=algorithm)
    connection.notify(TOPIC)


def _key(row: Row[Any], sealing: SealingKey) -> SigningKey:
    kind = RSAKey if row.algorithm == RSA else ECKey
    private = None
    if row.sealed_key is not None:
        private = kind.import_key(sealing.unseal(row.sealed_key, purpose=purpose_of(row.id)))
    return SigningKey(
        id=row.id,
        algorithm=row.algorithm,
        public=kind.import_key(json.loads(row.public_key)),
        private=private,
        created_at=row.created_at,
        active_from=row.active_from,
        retired_at=row.retired_at,
        revoked_at=row.revoked_at,
    )


def purpose_of(key_id: str) -> str:
    """What a key is sealed for: another row's does not fit in its place."""
    return f"signing key {key_id}"
