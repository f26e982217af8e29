"""Keeps the signing keys young: the next one is published in good time, the old one goes when nothing needs it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from joserfc.jwk import ECKey
from sqlalchemy import select, update

from auth_svc.audit import Actor
from auth_svc.protocol import signing_keys
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.signing_keys import LEAD_SECONDS, NOBODYS, TOPIC, NewKey, SigningKey, SigningKeys, new_key
from auth_svc.tables import signing_keys as table
from lib_auth.jwks import ALGORITHM, ALGORITHMS
from lib_events.clock import Clock
from lib_events.database import Connection, Database, DatabaseError
from lib_events.lifecycle import Loop
from lib_events.sealed import SealingKey

logger = logging.getLogger(__name__)

# Lets a function happen in a transaction, with who wants it as its last argument, if they may.
type Commit = Callable[..., Awaitable[None]]
type KeyState = Literal["published", "active", "resting", "retired", "revoked"]

LOOK_SECONDS = 60.0
DAY_SECONDS = 24 * 3600
OLD_KEY_FILE = "signing-key.pem"  # where the first releases kept the one key they had


class KeyRotation(Loop):
    """Brings this process's keys up to date, every minute and whenever somebody changed them."""

    def __init__(self, database: Database, keys: SigningKeys, sealing: SealingKey, *, days: int, clock: Clock) -> None:
        super().__init__(name="key rotation")
        self._database = database
        self._keys = keys
        self._sealing = sealing
        self._age_micros = days * DAY_SECONDS * MICROS
        self._clock = clock
        self._reading = asyncio.Lock()  # an older reading must not come after a newer one: it would bring keys back

    async def begin(self, secrets: Path) -> None:
        """Have a key to sign with before anything is served."""
        await self._take_in_old_key(secrets / OLD_KEY_FILE)
        await self.reload()
        await self.ensure(ALGORITHM)

    async def run(self) -> None:
        """Look after the keys until told to stop."""
        unsubscribe = self._database.on_notify(TOPIC, self.wake)
        try:
            while True:
                await self.pause(LOOK_SECONDS)
                try:
                    await self.look()
                except DatabaseError as error:
                    logger.warning("the signing keys cannot be looked after: %s", error)
        finally:
            unsubscribe()

    async def look(self) -> None:
        """Do what is due."""
        await self.reload()
        now = self._clock.micros()
        for algorithm in ALGORITHMS:
            last = self._keys.last_made(algorithm, now + LEAD_SECONDS * MICROS)
            if self._keys.newest(algorithm) is not None and now - last > self._age_micros:
                await self._publish(await _made(algorithm), Actor(now), now + LEAD_SECONDS * MICROS, last)
        if await self._database.transact(signing_keys.retire, now):
            await self.reload()

    async def reload(self) -> None:
        """Read the rows."""
        async with self._reading:
            self._keys.know(await self._database.read(signing_keys.load, self._sealing))

    async def ensure(self, algorithm: str) -> None:
        """Have a key for `algorithm`, that signs at once when it is the first."""
        if self._keys.newest(algorithm) is None:
            now = self._clock.micros()
            await self._publish(await _made(algorithm), Actor(now), now, NOBODYS)

    async def rotate(self, algorithm: str, commit: Commit) -> None:
        """Publish the next key, which takes over after `LEAD_SECONDS`."""
        await commit(_publish_next, await _made(algorithm), self._sealing)
        await self.reload()

    async def all(self) -> list[SigningKey]:
        """Return every key there ever was, oldest first."""
        return await self._database.read(signing_keys.load, self._sealing)

    def state_of(self, key: SigningKey) -> KeyState:
        """What a key does now."""
        if key.revoked_at is not None:
            return "revoked"
        if key.retired_at is not None:
            return "retired"
        if self._keys.active(key.algorithm).id == key.id:
            return "active"
        return "published" if key.active_from > self._clock.micros() else "resting"

    async def revoke(self, key_id: str, commit: Commit) -> None:
        """Refuse what a key has signed, from now on; raises `KeyUnknown`."""
        await self.reload()  # another process may just have published it, and of its kind there must be another one
        revoked = self._keys.known(key_id)
        successor = await _made(revoked.algorithm if revoked else ALGORITHM)
        await commit(signing_keys.revoke, key_id, successor, self._sealing)
        await self.reload()

    async def _publish(self, new: NewKey, actor: Actor, active_from: int, newer_than: int) -> None:
        await self._database.transact(_publish_unless, new, self._sealing, actor, active_from, newer_than)
        await self.reload()

    async def _take_in_old_key(self, path: Path) -> None:
        """Seal the key that an older release kept in a file, and remove the file."""
        if not path.exists():
            return
        key = ECKey.import_key(path.read_text())
        key.ensure_kid()
        await self._database.transact(_seal_old, NewKey(ALGORITHM, key), self._sealing, Actor(self._clock.micros()))
        path.unlink()


async def _made(algorithm: str) -> NewKey:
    return await asyncio.to_thread(new_key, algorithm)


def _publish_next(connection: Connection, new: NewKey, sealing: SealingKey, actor: Actor) -> None:
    _publish_unless(connection, new, sealing, actor, actor.at + LEAD_SECONDS * MICROS, actor.at)


def _publish_unless(  # noqa: PLR0917 - transaction functions take no keywords
    connection: Connection, new: NewKey, sealing: SealingKey, actor: Actor, active_from: int, newer_than: int
) -> None:
    """Publish a key unless another process was faster."""
    # Whoever comes second waits here and sees what the first made; at any key, for of this kind there may be none yet.
    connection.execute(select(table.c.id).order_by(table.c.id).with_for_update()).all()
    others = [key for key in signing_keys.load(connection, sealing) if key.algorithm == new.algorithm]
    # What a clock made that was further ahead than clocks may be was made before all this.
    newer = range(newer_than + 1, actor.at + LEAD_SECONDS * MICROS)
    if not any(key.is_published and key.created_at in newer for key in others):
        signing_keys.publish(connection, new, sealing, actor, active_from=active_from)


def _seal_old(connection: Connection, old: NewKey, sealing: SealingKey, actor: Actor) -> None:
    known = [key.id for key in signing_keys.load(connection, sealing)]
    if old.id not in known:
        signing_keys.publish(connection, old, sealing, actor, active_from=0)
        return
    sealed = sealing.seal(old.private.as_pem(private=True).decode(), purpose=signing_keys.purpose_of(old.id))
    in_use = (table.c.id == old.id) & table.c.retired_at.is_(None) & table.c.revoked_at.is_(None)
    connection.execute(update(table).where(in_use).values(sealed_key=sealed))
