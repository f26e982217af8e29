"""The proofs that were used, as rows: none counts twice, whichever process of a service it comes to."""

import time
from collections.abc import Callable

from sqlalchemy import Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from lib_auth import tables
from lib_auth.dpop import KEPT_SECONDS
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop
from lib_events.prepared import Prepared

MICROS = 1_000_000
COLUMNS = ("digest", "expires_at")
PAUSE_SECONDS = 600.0
BATCH = 500  # a transaction must stay short: others wait for it

type Take = Callable[[Connection, bytes, int], bool]


def taking(table: Table) -> Take:
    """Return the transaction function that takes a digest until a moment; False when `table` has it already."""
    prepared = {
        "sqlite": Prepared(sqlite.insert(table).inline().on_conflict_do_nothing(), columns=COLUMNS),
        "postgresql": Prepared(postgresql.insert(table).inline().on_conflict_do_nothing(), columns=COLUMNS),
    }

    def take(connection: Connection, digest: bytes, expires_at: int) -> bool:
        return bool(connection.change(prepared[connection.dialect_name], digest=digest, expires_at=expires_at))

    return take


take_proof = taking(tables.used_proofs)


class UsedProofs:
    """A `ReplayMemory` that the processes of a service share, and that outlives them: a row for each bound request."""

    def __init__(self, database: Database, take: Take = take_proof) -> None:
        self._database = database
        self._take = take

    async def take(self, digest: bytes, now: float) -> bool:
        """Take a proof; False when it was taken before, here or by another process."""
        return await self._database.transact(self._take, digest, int((now + KEPT_SECONDS) * MICROS))


class ProofPruner(Loop):
    """Lets the rows go whose proofs could not come again, every ten minutes."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(name="proof pruner")
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Prune until nothing is left, then pause."""
        while True:
            while await self._database.transact(prune, int(self._clock() * MICROS)) == BATCH:
                pass
            await self.pause(PAUSE_SECONDS)


def prune(connection: Connection, now: int) -> int:
    """Delete up to `BATCH` rows whose time is over; returns how many."""
    proofs = tables.used_proofs
    over = select(proofs.c.digest).where(proofs.c.expires_at < now).limit(BATCH)
    return connection.execute(delete(proofs).where(proofs.c.digest.in_(over))).rowcount
