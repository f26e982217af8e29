"""What a password is checked against that belongs to nobody: the time it takes must not say whether a user exists.

While people who came from elsewhere have yet to sign in for the first time, a check of theirs takes more or less time
than one of ours. So names that are nobody's are spread over the same costs, in the same proportion: each always has
the same cost, as a person's name has. As people sign in, their share shrinks, and that of nobody's names with it.
"""

import hashlib
import hmac
from bisect import bisect
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate

from sqlalchemy import ColumnElement, func, literal_column, select

from auth_svc.people import password_hashes, passwords
from auth_svc.people.password_hashes import HashRejected
from auth_svc.people.user_names import folded
from auth_svc.tables import users
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop

IMPORTED_TOPIC = "imported"  # people came from elsewhere
LOOK_SECONDS = 60.0
SAMPLE = 1_000  # of the hashes that others made: their costs are few
BITS = 64


class Decoys(Loop):
    """Chooses what to check a password against for a name that is nobody's, or whose person has none."""

    def __init__(self, database: Database, key: str) -> None:
        super().__init__(name="decoys")
        self._database = database
        self._key = key.encode()
        self._take({})

    async def run(self) -> None:
        """Look what hashes there are whenever people came, and now and then as they sign in."""
        unsubscribe = self._database.on_notify(IMPORTED_TOPIC, self.wake)
        try:
            while True:
                await self.refresh()
                await self.pause(LOOK_SECONDS)
        finally:
            unsubscribe()

    async def refresh(self) -> None:
        """Look now."""
        self._take(await self._database.read(shares))

    def choose(self, username: str) -> str:
        """Return a hash that nobody's password has; whoever has not the key cannot tell which of them it is."""
        digest = hmac.digest(self._key, b"decoy of " + folded(username).encode(), hashlib.sha256)
        place = int.from_bytes(digest[: BITS // 8]) / 2**BITS
        return self._hashes[bisect(self._bounds, place)]

    def _take(self, found: Mapping[str, float]) -> None:
        self._bounds = list(accumulate(found[kept] for kept in sorted(found)))
        # The rest is ours, as most are.
        self._hashes = [*sorted(found), passwords.DUMMY_HASH]


def shares(connection: Connection) -> Mapping[str, float]:
    """Return which part of all people has a hash of each cost that is not today's, as a decoy of that cost."""
    others = made_elsewhere()
    sampled = connection.scalars(select(users.c.password_hash).where(others).limit(SAMPLE)).all()
    if not sampled:
        return {}
    everybody = connection.scalar(select(func.count()).where(users.c.password_hash.is_not(None))) or 1
    part = (connection.scalar(select(func.count()).where(others)) or 0) / everybody / len(sampled)
    return {decoy: number * part for decoy, number in Counter(map(_decoy, sampled)).items()}


def made_elsewhere() -> ColumnElement[bool]:
    """Whether a user's hash is not today's: as a literal, so that the index of just those is used."""
    return users.c.password_hash.not_like(literal_column(f"'{passwords.todays_parameters()}%'"))


def _decoy(kept: str) -> str:
    try:
        return password_hashes.of_equal_cost(kept)
    except HashRejected:  # it cannot be checked, which costs nothing
        return kept[:1]
