"""One life of an engine process: which runs it may hold, and how others notice that it is dead.

On PostgreSQL a life is a row of `workers` with a lease and an epoch. Every commit of the engine is fenced by
that row at that epoch. Whoever finds an expired lease raises the epoch first, which waits for the dead one's
commits in flight, and sets its runs free then. On SQLite the file's lock says that nobody else is there.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from itertools import batched
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Select, and_, case, delete, exists, literal, or_, select, text, true, update

from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop
from lib_events.statement import Fence
from lib_workflows.errors import DefinitionError
from lib_workflows.runs.commands import RUNS_TOPIC
from lib_workflows.tables import runs, workers
from lib_workflows.values.durations import check_seconds

if TYPE_CHECKING:
    from lib_workflows.workers.lease import Renewal

logger = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
SHORTEST_LEASE_SECONDS = 0.1
FENCE = "SELECT 1 FROM workers WHERE id = $1 AND epoch = $2 FOR KEY SHARE"
DATABASE_MICROS = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")
PIECE = 2_000  # runs in one transaction
CHILD_WAIT = '%"kind":"child"%'
AT_WORK = ("running", "cancelling")


class Worker:
    """A life; `owner` is how the runs it holds name it."""

    def __init__(self, database: Database, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.id = uuid.uuid4().hex
        self.epoch = 0
        if check_seconds(lease_seconds, "lease_seconds") < SHORTEST_LEASE_SECONDS:
            raise DefinitionError(f"lease_seconds must be {SHORTEST_LEASE_SECONDS} or more, got {lease_seconds}")
        self.lease_seconds = lease_seconds
        self._database = database
        self._renewal: Renewal | None = None

    @property
    def owner(self) -> str:
        """The name of this life."""
        return f"{self.id}.{self.epoch}"

    @property
    def fence(self) -> Fence | None:
        """What guards its commits."""
        if self._database.dialect_name == "sqlite":
            return None
        return Fence(FENCE, (self.id, self.epoch))

    async def begin(self, on_lost: Callable[[str], None]) -> None:
        """Begin a life; `on_lost(owner)` hears when others have ended it.

        On SQLite everything an earlier process held is set free at once.
        """
        before, self.epoch = self.owner, self.epoch + 1
        if self._database.dialect_name == "sqlite":
            await set_free(self._database, None)
            return
        await self._database.transact(_register, self.id, self.epoch, self.lease_seconds)
        await set_free(self._database, before)
        from lib_workflows.workers.lease import Renewal  # noqa: PLC0415 - brings a driver that SQLite does not need

        self._renewal = Renewal(self._database, self.id, self.epoch, self.lease_seconds, partial(on_lost, self.owner))
        self._renewal.start()

    async def end(self, *, release: bool = True) -> None:
        """End the life and set its runs free for others."""
        if self._renewal is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._renewal.stop)
            self._renewal = None
        if release and self._database.dialect_name == "sqlite":
            await set_free(self._database, self.owner)
        elif release:
            await self._database.transact(lay_down, self.id, self.epoch)


class Undertaker(Loop):
    """Finds workers whose lease has run out and sets their runs free."""

    def __init__(self, database: Database, *, lease_seconds: float, on_found: Callable[[], None]) -> None:
        super().__init__(name="workers' undertaker")
        self._database = database
        self._pause_seconds = lease_seconds / 4
        self._on_found = on_found

    async def run(self) -> None:
        """Look, again and again."""
        while True:
            for worker_id, epoch in await self._database.read(expired_workers):
                if await self._database.transact(take_over, worker_id, epoch):
                    logger.warning("worker %s is gone: its runs go on elsewhere", worker_id)
                    self._on_found()
            await self.pause(self._pause_seconds)


def _register(connection: Connection, worker_id: str, epoch: int, lease_seconds: float) -> None:
    now = int(connection.scalar(DATABASE_MICROS))
    connection.execute(delete(workers).where(workers.c.id == worker_id))
    row = {"epoch": epoch, "lease_until_at": now + int(lease_seconds * 1e6), "started_at": now}
    connection.execute(workers.insert().values(id=worker_id, **row))


def expired_workers(connection: Connection) -> list[tuple[str, int]]:
    """The lives whose lease has run out."""
    now = int(connection.scalar(DATABASE_MICROS))
    rows = connection.execute(select(workers.c.id, workers.c.epoch).where(workers.c.lease_until_at < now))
    return [(row.id, row.epoch) for row in rows]


def take_over(connection: Connection, worker_id: str, epoch: int) -> bool:
    """End a life from outside; False when it lives after all, or somebody was faster."""
    now = int(connection.scalar(DATABASE_MICROS))
    return _end_life(connection, worker_id, epoch, workers.c.lease_until_at < now)


def lay_down(connection: Connection, worker_id: str, epoch: int) -> bool:
    """End a life from within; False when somebody has taken over from it."""
    return _end_life(connection, worker_id, epoch, true())


def _end_life(connection: Connection, worker_id: str, epoch: int, may_end: ColumnElement[bool]) -> bool:
    """Raise the epoch, which waits for the life's commits in flight and refuses those to come; then set its runs free.

    In this order: what is committed after its runs were set free would be owned by a life that nobody looks after.
    """
    mine = and_(workers.c.id == worker_id, workers.c.epoch == epoch, may_end)
    if connection.execute(update(workers).where(mine).values(epoch=epoch + 1)).rowcount == 0:
        return False
    release_runs(connection, f"{worker_id}.{epoch}")
    # Asked for in the same statement: they may be more than one takes parameters.
    wake_runs(connection, waiting_in_vain())
    connection.execute(delete(workers).where(workers.c.id == worker_id))
    return True


async def set_free(database: Database, owner: str | None) -> None:
    """Set free the runs of `owner` (None: of everybody), and wake those that wait for a child which has ended.

    In pieces: on SQLite one transaction must not hold the database for long, however many runs there are.
    """
    while await database.transact(release_runs, owner, PIECE) == PIECE:
        pass
    in_vain = await database.read(lambda connection: connection.scalars(waiting_in_vain()).all())
    for run_ids in batched(in_vain, PIECE, strict=False):
        await database.transact(wake_runs, run_ids)


def release_runs(connection: Connection, owner: str | None, limit: int | None = None) -> int:
    """Set free runs of `owner` (None: of everybody); what was under way is due at once. Returns how many."""
    held = and_(runs.c.owner.is_not(None), runs.c.owner == owner if owner is not None else true())
    found = select(runs.c.id).where(held, runs.c.ended_at.is_(None)).limit(limit)
    due_at = case((runs.c.status.in_(AT_WORK), literal(0)), else_=runs.c.wake_at)
    released = connection.execute(
        update(runs).where(runs.c.id.in_(found)).values(owner=None, wakes=runs.c.wakes + 1, wake_at=due_at)
    )
    connection.notify(RUNS_TOPIC)
    return released.rowcount


def waiting_in_vain() -> Select[tuple[str]]:
    """The runs, whoever holds them, that wait for a child which has ended, or may do so as soon as they rest.

    That may have been told in the memory of a worker only, or it has died before it could wake the parent.
    """
    child = runs.alias()
    a_child_ended = exists().where(child.c.parent == runs.c.id, child.c.ended_at.is_not(None))
    # What a run that is at work waits for beside that, its row does not say.
    may_wait = or_(runs.c.status.in_(AT_WORK), runs.c.waiting_for.like(CHILD_WAIT))
    return select(runs.c.id).where(runs.c.ended_at.is_(None), may_wait, a_child_ended)


def wake_runs(connection: Connection, run_ids: Sequence[str] | Select[tuple[str]]) -> None:
    """Let whoever holds these runs, or will, look what came for them."""
    waking = {"wakes": runs.c.wakes + 1, "wake_at": 0}
    connection.execute(update(runs).where(runs.c.id.in_(run_ids), runs.c.ended_at.is_(None)).values(waking))
    connection.notify(RUNS_TOPIC)


def held_runs(connection: Connection, owner: str) -> list[str]:
    """The runs that a life holds, whether it knows of them or not."""
    return list(connection.scalars(select(runs.c.id).where(runs.c.owner == owner, runs.c.ended_at.is_(None))))
