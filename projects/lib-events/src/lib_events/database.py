"""The database port: transaction functions, hot rows and wake-ups, the same on SQLite and PostgreSQL.

State changes in one way only: a *transaction function*, a plain `def fn(connection, *args)` that never
awaits. It gets a guarded connection, writes state, publishes the events that tell of it, and either all
of that is on disk when `Database.transact` returns, or nothing is. It may be run again when the group it
was committed with had to be rolled back, so it must have no effect but through its connection.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, Never

from sqlalchemy import Connection as CoreConnection
from sqlalchemy import CursorResult, Executable, MetaData, ScalarResult, Table, TextClause
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from lib_events.event import Recordable
from lib_events.prepared import Driver, Prepared
from lib_events.statement import Fence, Write
from lib_events.tail import Tail

type DialectName = Literal["sqlite", "postgresql"]
type TransactionFunction[**P, R] = Callable[Concatenate["Connection", P], R]

EVENTS_TOPIC = "events"
REWRITTEN_TOPIC = "rewritten"  # the log is another one than before: its epoch, or where it begins


class DatabaseError(Exception):
    """Something is wrong with the database; the text says what to do."""


class DatabaseInUse(DatabaseError):
    """Another process has the SQLite file open for writing."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be opened or reached."""


class DatabaseReadOnly(DatabaseError):
    """The database file or its folder must be writable and is not."""


class SchemaTooNew(DatabaseError):
    """A newer release has migrated this database."""


class CommitFailed(DatabaseError):
    """A commit did not reach the disk: nothing of it happened."""


class CommitQueueFull(DatabaseError):
    """More is waiting to be committed than the queue may hold; slow down and try again."""


class Fenced(DatabaseError):
    """The writer no longer has the right to write: somebody took over."""


class LeadLost(DatabaseError):
    """This process leads no more: the connection that held the lead is gone."""


class TransactionTooLong(DatabaseError):
    """A transaction function kept the database's CPU busy longer than allowed and was interrupted."""


class TransactionBroken(DatabaseError):
    """A transaction function went on after the database had given up its transaction: nothing of it was saved."""


class OtherLoop(DatabaseError):
    """A database, and all that is made of it, belongs to the event loop that it was first used on."""

    def __init__(self) -> None:
        super().__init__(
            "a database, or an engine, must be used on the event loop it was opened on, got another one; from another "
            "thread call asyncio.run_coroutine_threadsafe(…, loop)"
        )


class StatementRefused(DatabaseError):
    """A transaction function may not execute that: its transaction, and its connection, are not its own."""


# Not now: nothing was stored, or nobody knows. Their texts are made for clients, too.
UNAVAILABLE = (CommitFailed, CommitQueueFull, DatabaseUnavailable, Fenced)
FUNCTIONS_FAULTS = (TransactionTooLong, TransactionBroken, StatementRefused)

NOT_OWN = re.compile(
    r"""(?:\s | --[^\n]*\n | /\*.*?\*/)*                # what may stand before
    ((?:COMMIT | END | ABORT | BEGIN | START | DISCARD | RESET | LISTEN | UNLISTEN | PREPARE | DEALLOCATE | LOAD)\b
    | CREATE\s+(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b (?!.*\bON\s+COMMIT\s+DROP\b)
    | ROLLBACK\b (?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)  # to a savepoint is one's own affair
    | SET\b (?!\s+(?:LOCAL|CONSTRAINTS|TRANSACTION)\b))""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# What outlives its transaction wherever it stands: a setting that is not said to be local, a lock of the session.
OUTLIVES = re.compile(
    r"""\b(set_config)\s*\( (?! (?:[^()'] | '[^']*' | \([^()]*\))* ,\s*true\s*\) )
    | \b(pg_(?:try_)?advisory_lock(?:_shared)?)\s*\(""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables one member brings: described in `metadata`, made by the Alembic package `migrations`."""

    name: str
    metadata: MetaData
    migrations: str


class _Over:
    """Stands in for whatever belonged to a transaction that is over."""

    def __getattr__(self, name: str) -> Never:
        raise StatementRefused("a transaction function must not keep its connection, whose transaction is over")


class Connection:
    """What a transaction function may use: SQLAlchemy Core without commit, rollback or close."""

    def __init__(
        self, core: CoreConnection, driver: Driver, *, source: str, hand_over: Callable[[], None] | None = None
    ) -> None:
        self._core = core
        self._driver = driver
        self._source = source
        self._hand_over = hand_over
        self.published: list[Recordable] = []  # what the adapter still has to do, once the function returns
        self.written: list[Write] = []
        self.topics: set[str] = set()

    @property
    def dialect_name(self) -> DialectName:
        """Which database this is, for the few statements that differ."""
        return "sqlite" if self._core.dialect.name == "sqlite" else "postgresql"

    @property
    def source(self) -> str:
        """The CloudEvents source of the service that owns this database."""
        return self._source

    def retire(self) -> None:
        """Its transaction is over: whoever has kept it can do nothing with it any more."""
        over: Any = _Over()
        self._core = self._driver = self.published = self.written = self.topics = over

    def execute(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        """Run `statement` and return its result; raises `StatementRefused`."""
        _check_is_own(statement)
        return self._core.execute(statement, parameters)

    def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run `statement` and return the first column of its first row, or None; raises `StatementRefused`."""
        _check_is_own(statement)
        return self._core.scalar(statement, parameters)

    def scalars(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> ScalarResult[Any]:
        """Run `statement` and return the first column of each row; raises `StatementRefused`."""
        _check_is_own(statement)
        return self._core.scalars(statement, parameters)

    def rows(self, query: Prepared, /, **parameters: Any) -> list[Any]:
        """Run a prepared query and return its rows, named tuples."""
        return query.fetch(self._driver, self._core.dialect, parameters)

    def row(self, query: Prepared, /, **parameters: Any) -> Any:
        """Run a prepared query that finds one row at most, and return that or None."""
        found = query.fetch(self._driver, self._core.dialect, parameters)
        return found[0] if found else None

    def change(self, statement: Prepared, /, **parameters: Any) -> int:
        """Run a prepared INSERT, UPDATE or DELETE and return how many rows it changed."""
        return statement.change(self._driver, self._core.dialect, parameters)

    def publish(self, *events: Recordable) -> None:
        """Append `events` to the event log in this transaction, after everything it writes."""
        self.published.extend(events)
        if events:
            self.topics.add(EVENTS_TOPIC)

    def write(self, *writes: Write) -> None:
        """Write hot rows in this transaction, after everything it executes."""
        self.written.extend(writes)

    def take_over_positions(self) -> None:
        """For whoever gives events their positions, before they read the last one: where a commit gives them itself,
        it has given some that the database does not say yet.
        """
        if self._hand_over is not None:
            self._hand_over()

    def notify(self, topic: str) -> None:
        """Wake who listens to `topic`, here and in other processes, once this is committed."""
        self.topics.add(topic)


def _check_is_own(statement: Executable) -> None:
    """Refuse SQL that ends the transaction, or that whoever borrows the connection next would suffer from."""
    if not isinstance(statement, TextClause):
        return
    if (found := NOT_OWN.match(statement.text) or OUTLIVES.search(statement.text)) is not None:
        given = next(filter(None, found.groups())).upper()
        raise StatementRefused(
            f"a transaction function must leave its transaction and its connection to the database, got {given}; "
            "return or raise to end it, change a setting with SET LOCAL, and let tables and locks end with the "
            "transaction (ON COMMIT DROP, pg_advisory_xact_lock)"
        )


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that may say what to do on a conflict, which SQL leaves to each database."""
    return sqlite.insert(table) if connection.dialect_name == "sqlite" else postgresql.insert(table)


class Database(ABC):
    """The port; `SqliteDatabase` and `PostgresqlDatabase` are its two adapters."""

    dialect_name: DialectName
    places_in_commit = False  # whether events have their positions once they are committed

    def __init__(self, *, service: str) -> None:
        self.service = service
        self.source = f"/{service}"
        self.tail = Tail()  # filled where `places_in_commit`, else empty: everybody reads the table
        self._callbacks: dict[str, list[Callable[[], None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def check_loop(self) -> None:
        """Raise `OtherLoop` where two would drive one connection: what the one has acknowledged, the other loses."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise OtherLoop
            self._loop = loop

    @abstractmethod
    async def transact[*A, R](
        self, function: Callable[[Connection, *A], R], *args: *A, fence: Fence | None = None
    ) -> R:
        """Run a transaction function and return its value once everything it did is on disk.

        It runs in the caller's context, so events made in it take the caller's cause.
        Raises what `function` raised (and undoes only that), `CommitFailed`, `Fenced`, `TransactionTooLong`.
        """

    @abstractmethod
    async def read[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        """Run `function` on a query-only snapshot, beside the writer."""

    async def look[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        """Like `read`, for a few rows by their keys: beside a file, a thread would cost more than they do."""
        return await self.read(function, *args)

    @abstractmethod
    def write(
        self,
        *writes: Write,
        events: Sequence[Recordable] = (),
        fence: Fence | None = None,
        topics: Sequence[str] = (),
        after: Sequence[asyncio.Future[Any]] = (),
    ) -> asyncio.Future[None]:
        """Add hot rows and events to the next group commit; the future resolves when they are on disk.

        `topics` are notified then, besides the one of `events`. `after` are earlier writes that these were decided
        upon: if one of them was not saved, nor are these (`CommitFailed`).
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what is in flight and release everything; safe to call twice."""

    @asynccontextmanager
    async def leading(self, role: str) -> AsyncIterator[None]:  # noqa: ARG002 - one process, one leader
        """Wait until this process leads in `role`, then run the block.

        When it leads no more, the block is cancelled, wherever it stands, and `LeadLost` raised.
        """
        yield

    def on_notify(self, topic: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the event loop after each commit that notified `topic`; returns the way to stop."""
        self._callbacks.setdefault(topic, []).append(callback)
        return lambda: self._callbacks[topic].remove(callback)

    def _wake(self, topics: set[str]) -> None:
        for topic in topics:
            for callback in tuple(self._callbacks.get(topic, ())):
                callback()


async def open_database(url: str, *, service: str, schemas: Sequence[Schema]) -> Database:
    """Open, lock and migrate the database at `url` for `service`.

    `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user:password@host/name?schema=evs_app`.
    Raises a `DatabaseError`.
    """
    if url.startswith("sqlite:///"):
        from lib_events.adapters.sqlite import SqliteDatabase  # noqa: PLC0415 - one driver is loaded, not two

        path = url.removeprefix("sqlite:///")
        if path in ("", ":memory:") or path.startswith("file:"):
            raise DatabaseUnavailable(
                f"a SQLite database must be a file, given by its path, got {path!r}; name one, for a test in a folder "
                "that goes with it"
            )
        return await SqliteDatabase.open(path, service=service, schemas=schemas)
    if url.startswith(("postgresql://", "postgres://")):
        from lib_events.adapters.postgresql import PostgresqlDatabase  # noqa: PLC0415

        return await PostgresqlDatabase.open(url, service=service, schemas=schemas)
    raise DatabaseUnavailable(
        f"database URL must start with sqlite:/// or postgresql://, got {url.split(':', 1)[0]!r}; see EVS_DATABASE_URL"
    )


def is_database_failure(error: BaseException) -> bool:
    """Whether the database failed, not the function that used it: what was asked for may well succeed later."""
    if isinstance(error, DBAPIError):
        return bool(error.connection_invalidated)
    return isinstance(error, DatabaseError) and not isinstance(error, FUNCTIONS_FAULTS)
