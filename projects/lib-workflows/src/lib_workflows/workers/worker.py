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
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, delete, exists, literal, or_, select, text, true, update

from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop
from lib_events.statement import Fence
from lib_workflows.errors import DefinitionError
from lib_workflows.runs.commands import RUNS_TOPIC
from lib_workflows.tables import runs, workers
from lib_workflows.values.codec import encode_json
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
        self.declares: Sequence[int] = ()  # the numbers of what its code declares
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
        await self._database.transact(_register, self)
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
        self._ahead: dict[Lease, float] = {}  # leases that end too late, and since when they are seen

    async def run(self) -> None:
        """Look, again and again."""
        while True:
            for lease in self._over(await self._database.read(doubtful_leases)):
                if await self._database.transact(take_over, *lease[:2], lease.until_at if lease.is_ahead else None):
                    logger.warning("worker %s is gone: its runs go on elsewhere", lease.worker)
                    self._on_found()
            await self.pause(self._pause_seconds)

    def _over(self, found: Sequence["Lease"]) -> list["Lease"]:
        """Those that are over. One that ends too late was given before the clock was set back: it is over where it is
        not renewed for as long as it is."""
        now = asyncio.get_running_loop().time()
        self._ahead = {lease: self._ahead.get(lease, now) for lease in found if lease.is_ahead}
        unrenewed = [lease for lease, since in self._ahead.items() if now - since > (lease.micros or 0) / 1e6]
        return [lease for lease in found if not lease.is_ahead] + unrenewed


def _register(connection: Connection, worker: Worker) -> None:
    now, micros = int(connection.scalar(DATABASE_MICROS)), int(worker.lease_seconds * 1e6)
    connection.execute(delete(workers).where(workers.c.id == worker.id))
    times = {"lease_until_at": now + micros, "started_at": now, "lease_micros": micros}
    declares = encode_json(list(worker.declares))
    connection.execute(workers.insert().values(id=worker.id, epoch=worker.epoch, declares=declares, **times))


class Lease(NamedTuple):
    """The lease of a life that may be over."""

    worker: str
    epoch: int
    until_at: int
    micros: int | None
    is_ahead: bool  # it ends later than one that begins now


def doubtful_leases(connection: Connection) -> list[Lease]:
    """The leases that have run out, and those that end later than can be."""
    now, until_at = int(connection.scalar(DATABASE_MICROS)), workers.c.lease_until_at
    columns = (workers.c.id, workers.c.epoch, until_at, workers.c.lease_micros, (until_at >= now).label("is_ahead"))
    doubtful = or_(until_at < now, until_at > now + workers.c.lease_micros)
    return [Lease(*tuple(row)) for row in connection.execute(select(*columns).where(doubtful))]


def take_over(connection: Connection, worker_id: str, epoch: int, unrenewed: int | None = None) -> bool:
    """End a life from outside; False when it lives after all, or somebody was faster.

    `unrenewed`: until when its lease is that ends too late and has not been renewed.
    """
    now, until_at = int(connection.scalar(DATABASE_MICROS)), workers.c.lease_until_at
    return _end_life(connection, worker_id, epoch, or_(until_at < now, until_at == unrenewed))


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
