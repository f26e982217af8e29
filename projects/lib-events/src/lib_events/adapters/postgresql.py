"""The PostgreSQL adapter: hot rows of a group in one statement, transaction functions in pooled transactions."""

import asyncio
import contextlib
import hashlib
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from sqlalchemy import Connection as CoreConnection
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from lib_events.adapters.committer import GroupCommitter, Member, fail, refused_as_baseless, resolve
from lib_events.adapters.migrate import migrate
from lib_events.adapters.postgresql_backends import Backend, LostBackends
from lib_events.adapters.postgresql_blockers import Blockers
from lib_events.adapters.postgresql_errors import (
    DRIVER_ERRORS,
    FUNCTION_ERRORS,
    connection_lost,
    is_given_up,
    is_lost,
    is_unable,
    is_unable_to_save,
    may_be_retried,
    not_read,
    not_saved,
)
from lib_events.adapters.postgresql_leads import Leads
from lib_events.adapters.postgresql_looks import SNAPSHOT, Looks
from lib_events.adapters.postgresql_pool import Pool
from lib_events.adapters.postgresql_types import KnowingConnection
from lib_events.database import (
    EVENTS_TOPIC,
    Connection,
    Database,
    DatabaseUnavailable,
    Fenced,
    Schema,
    TransactionBroken,
)
from lib_events.event import Recordable
from lib_events.event_log import append_writes
from lib_events.lifecycle import first_of
from lib_events.prepared import Values
from lib_events.statement import Fence, Write, compose_postgresql

logger = logging.getLogger(__name__)

POOL_SIZE = 20
RELISTEN_SECONDS = 1.0
ATTEMPTS = 5
BROKEN = (
    "a transaction function must not go on after one of its statements has failed, for PostgreSQL gives up the "
    "transaction; let it raise, or try the statement after a SAVEPOINT"
)
NOTIFY = "SELECT pg_notify($1, topic) FROM unnest($2::text[]) AS topic"
SESSION = {
    "synchronous_commit": "on",  # acknowledged means on disk
    "idle_in_transaction_session_timeout": "20s",  # whoever is stopped with a row locked stops those who want it, too
    "timezone": "UTC",
    # A client that is gone, with its machine or behind a proxy, must neither keep its leads for the two hours that TCP
    # waits by itself, nor have a statement of it come true long after it has been given up.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "200ms",
    # A generic plan of a hot statement turns unnest into hash join + sequential scan.
    "plan_cache_mode": "force_custom_plan",
}

KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}


class _Driver:
    """See `Driver`; it waits for the server as SQLAlchemy does, in a greenlet of its own."""

    __slots__ = ("_raw",)

    def __init__(self, raw: asyncpg.Connection) -> None:
        self._raw = raw

    def fetch(self, text: str, values: Values) -> Sequence[Values]:
        """See `Driver.fetch`."""
        rows: Sequence[Values] = await_only(self._raw.fetch(text, *values))
        return rows

    def change(self, text: str, values: Values) -> int:
        """See `Driver.change`: the command's tag ends with the number (PostgreSQL protocol, CommandComplete)."""
        tag: str = await_only(self._raw.execute(text, *values))
        return int(tag.rpartition(" ")[2])


class _SnapshotDriver(_Driver):
    """Asks the same prepared query once: in one snapshot it has one answer, for whoever of a group of looks asks it."""

    __slots__ = ("_answers",)

    def __init__(self, raw: asyncpg.Connection) -> None:
        super().__init__(raw)
        self._answers: dict[tuple[Any, ...], Sequence[Values]] = {}

    def fetch(self, text: str, values: Values) -> Sequence[Values]:
        """See `Driver.fetch`."""
        question = (text, *values)
        answer = self._answers.get(question)
        if answer is None:
            answer = self._answers[question] = super().fetch(text, values)
        return answer


class PostgresqlDatabase(Database):
    """One schema of a PostgreSQL database, reached through asyncpg under SQLAlchemy Core."""

    dialect_name: Literal["postgresql"] = "postgresql"

    def __init__(self, url: str, *, service: str) -> None:
        super().__init__(service=service)
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        self.schema = options.pop("schema", "public")
        self._dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), ""))
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self.connect,
            poolclass=NullPool,  # `Pool` lends them
            isolation_level="AUTOCOMMIT",  # transactions are ours: hot statements share them
        )
        self._lost = LostBackends()
        self._pool = Pool(self._engine, self._lost, limit=POOL_SIZE)
        self._committer = GroupCommitter(self._commit)
        self._looks = Looks(self._pool, self._guard_look)
        self._leads = Leads(self.connect)
        # From the first group of hot rows on.
        self._hot: tuple[asyncpg.Connection, Backend] | None = None
        self._blockers = Blockers(self)
        self._listener: asyncpg.Connection | None = None
        self._channel = f"evs_{self.schema}"
        self._topics: set[str] = set()
        self._notifying: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, *, service: str, schemas: Sequence[Schema]) -> "PostgresqlDatabase":
        """Connect and migrate. Raises `DatabaseUnavailable` and `SchemaTooNew`."""
        database = cls(url, service=service)
        try:
            await database._migrate(schemas)
            closed = await database._begin_listening()  # before anybody looks: what comes afterwards is heard
            database._listening = asyncio.create_task(database._keep_listening(closed), name="postgresql-listener")
        except (DatabaseUnavailable, *DRIVER_ERRORS, DBAPIError) as error:
            await database.close()
            host, reason = urlsplit(url).hostname or "the given socket", error.__cause__ or error
            raise DatabaseUnavailable(
                f"PostgreSQL at {host} cannot be used: {reason}; check EVS_DATABASE_URL"
            ) from error
        except BaseException:
            await database.close()
            raise
        return database

    async def connect(self) -> asyncpg.Connection:
        """Open a connection beside the pool, for whoever must not wait for one; closing it is theirs.

        Raises what is in `DRIVER_ERRORS`.
        """
        settings = SESSION | {"search_path": f'"{self.schema}"', "application_name": self.service}
        try:
            connection = await asyncpg.connect(
                self._dsn, server_settings=settings, timeout=10, connection_class=KnowingConnection
            )
        except asyncpg.PostgresError as error:  # it has no room for another one, say: nothing was asked yet
            raise ConnectionError(str(error)) from error
        _keep_alive(connection._transport.get_extra_info("socket"))
        return connection

    async def _migrate(self, schemas: Sequence[Schema]) -> None:
        """Migrate, on the connection that is lent from now on: connecting costs more than seeing nothing is new."""
        async with self._pool.lend() as borrowed, (raw := borrowed.raw).transaction():
            lock = zlib.crc32(self._channel.encode())  # one migration at a time per schema
            await raw.execute("SELECT pg_advisory_xact_lock($1)", lock)
            if not await raw.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", self.schema):
                await borrowed.core.execute(text(f'CREATE SCHEMA "{self.schema}"'))
            await borrowed.core.run_sync(migrate, schemas)

    async def transact[*A, R](
        self, function: Callable[[Connection, *A], R], *args: *A, fence: Fence | None = None
    ) -> R:
        """See `Database.transact`."""
        self.check_loop()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._transact_once(function, *args, fence=fence)
            except FUNCTION_ERRORS as error:
                if is_lost(error):
                    raise connection_lost(error) from error
                if may_be_retried(error) and attempt < ATTEMPTS:
                    await asyncio.sleep(0.01 * attempt)
                elif is_unable_to_save(error):
                    raise not_saved(error) from error
                else:
                    raise
        raise AssertionError("unreachable")

    async def _transact_once[*A, R](self, function: Callable[[Connection, *A], R], *args: *A, fence: Fence | None) -> R:
        async with self._pool.lend() as borrowed, _transaction(raw := borrowed.raw):
            connection, value = await borrowed.core.run_sync(lambda sync: self._call(sync, raw, function, *args))
            writes = [*connection.written, *append_writes(connection.published)]
            if writes or fence:
                await _execute(raw, writes, fence)
        self._notify(connection.topics)
        connection.retire()
        return value

    def _guard(self, core: CoreConnection, raw: asyncpg.Connection) -> Connection:
        return Connection(core, _Driver(raw), source=self.source)

    def _guard_look(self, core: CoreConnection, raw: asyncpg.Connection) -> Connection:
        return Connection(core, _SnapshotDriver(raw), source=self.source)

    def _call[*A, R](
        self, core: CoreConnection, raw: asyncpg.Connection, function: Callable[[Connection, *A], R], *args: *A
    ) -> tuple[Connection, R]:
        connection = self._guard(core, raw)
        try:
            return connection, function(connection, *args)
        except BaseException:
            connection.retire()
            raise

    async def read[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        """See `Database.read`."""
        self.check_loop()
        try:
            async with self._pool.lend() as borrowed, (raw := borrowed.raw).transaction(**SNAPSHOT):
                _, value = await borrowed.core.run_sync(lambda sync: self._call(sync, raw, function, *args))
                return value
        except FUNCTION_ERRORS as error:
            if is_lost(error) or is_unable(error):
                raise not_read(error) from error
            raise

    async def look[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        """See `Database.look`: together with those that look at the same time."""
        self.check_loop()
        value: R = await self._looks.submit(lambda connection: function(connection, *args))
        return value

    def write(
        self,
        *writes: Write,
        events: Sequence[Recordable] = (),
        fence: Fence | None = None,
        topics: Sequence[str] = (),
        after: Sequence[asyncio.Future[Any]] = (),
    ) -> asyncio.Future[None]:
        """See `Database.write`."""
        self.check_loop()
        return self._committer.submit(writes=writes, events=events, fence=fence, topics=topics, after=after)

    async def _commit(self, group: Sequence[Member]) -> None:
        fences: dict[Fence | None, list[Member]] = {}
        for member in group:
            fences.setdefault(member.fence, []).append(member)
        for fence, members in fences.items():
            await self._commit_fenced(members, fence)

    async def _commit_fenced(self, members: Sequence[Member], fence: Fence | None, attempt: int = 1) -> None:
        """Commit all at once; if one is bad, each by itself so that only it fails."""
        writes = [write for member in members for write in member.writes]
        events = [event for member in members for event in member.events]
        try:
            hot, backend = await self._hot_connection()
            with self._blockers.watched(backend):
                await _execute(hot, [*writes, *append_writes(events)], fence)
        except Fenced as error:
            fail(members, error)
        except Exception as error:
            if is_lost(error):
                self._lose_hot()
                raise connection_lost(error) from error
            if is_unable_to_save(error) and not is_given_up(error):
                raise not_saved(error) from error
            await self._commit_each(members, fence, error, attempt)
        else:
            for member in members:
                resolve(member)
            self._notify(
                {topic for member in members for topic in member.topics} | ({EVENTS_TOPIC} if events else set())
            )

    async def _commit_each(
        self, members: Sequence[Member], fence: Fence | None, error: Exception, attempt: int
    ) -> None:
        """Commit again, each by itself; one that was so fails, unless it was others who kept it from it."""
        if len(members) == 1 and not (is_given_up(error) and attempt < ATTEMPTS):
            fail(members, not_saved(error) if is_given_up(error) else error)
            return
        for member in members:
            if not refused_as_baseless(member):
                await self._commit_fenced([member], fence, attempt + 1)

    async def _hot_connection(self) -> tuple[asyncpg.Connection, Backend]:
        if self._hot is not None and self._hot[0].is_closed():
            self._lose_hot()
        if self._hot is None:
            connection = await self.connect()
            try:
                backend = await Backend.of(connection)
                await self._lost.end(connection)
            except BaseException:
                connection.terminate()
                raise
            self._hot = connection, backend
        return self._hot

    def _lose_hot(self) -> None:
        """Whatever it was asked may still come true: nothing is asked of the database before that is over."""
        if self._hot is not None:
            connection, backend = self._hot
            connection.terminate()
            self._lost.add(backend)
            self._hot = None

    def _notify(self, topics: set[str]) -> None:
        """Wake listeners here now, and those elsewhere by one NOTIFY for all commits of the meantime."""
        if not topics:
            return
        self._wake(topics)
        self._topics |= topics
        if self._notifying is None:
            self._notifying = asyncio.create_task(self._notify_others(), name="postgresql-notify")

    async def _notify_others(self) -> None:
        try:
            while self._topics and self._listener is not None and not self._listener.is_closed():
                topics, self._topics = self._topics, set()
                # A lost notification costs one slow poll, nothing else.
                with contextlib.suppress(*DRIVER_ERRORS):
                    await self._listener.fetch(NOTIFY, self._channel, list(topics))
        finally:
            self._notifying = None

    async def _begin_listening(self) -> asyncio.Event:
        """Listen with a connection of its own; returns what is set when that is closed."""
        listener, closed = await self.connect(), asyncio.Event()
        try:
            listener.add_termination_listener(lambda _: closed.set())
            await listener.add_listener(self._channel, self._heard)
        except BaseException:
            listener.terminate()
            raise
        self._listener = listener
        return closed

    async def _keep_listening(self, closed: asyncio.Event) -> None:
        """Listen again whenever the connection is closed; while it is away everybody polls."""
        while True:
            # The driver does not tell of an end that meets a question which is just being asked.
            while not closed.is_set() and self._listener is not None and not self._listener.is_closed():
                await first_of(closed, seconds=RELISTEN_SECONDS)
            await asyncio.sleep(RELISTEN_SECONDS)
            try:
                closed = await self._begin_listening()
            except DRIVER_ERRORS as error:
                logger.warning("PostgreSQL notifications are away, polling: %s", error)
            else:
                # What was told meanwhile was told to nobody: everybody looks, and hears from now on.
                self._wake(set(self._callbacks))
                self._notify(set(self._topics))

    def _heard(self, _connection: object, pid: int, _channel: str, topic: object) -> None:
        if self._listener is not None and pid != self._listener.get_server_pid():
            self._wake({str(topic)})

    @asynccontextmanager
    async def leading(self, role: str) -> AsyncIterator[None]:
        """See `Database.leading`."""
        # Of 64 bits, as PostgreSQL's locks: of 32, some pair of many thousand webhooks would have the same one.
        name = hashlib.blake2b(f"{self._channel}:{role}".encode(), digest_size=8)
        async with self._leads.hold(int.from_bytes(name.digest(), signed=True)):
            yield

    async def close(self) -> None:
        """See `Database.close`."""
        await self._committer.finish()
        await self._looks.finish()
        for task in (self._listening, self._notifying):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._leads.close()
        self._blockers.close()
        for connection in (self._hot and self._hot[0], self._listener):
            if connection is not None and not connection.is_closed():
                await connection.close(timeout=5)
        await self._pool.close()


def _keep_alive(line: socket.socket) -> None:
    """Notice in half a minute that the machine of the server is gone; TCP by itself waits a quarter of an hour."""
    if line.family == socket.AF_UNIX:
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):  # each system has its own
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@asynccontextmanager
async def _transaction(raw: asyncpg.Connection) -> AsyncIterator[None]:
    """Commit what the block does. PostgreSQL gives up a transaction with its first failed statement, and answers the
    COMMIT of one whose function went on all the same with ROLLBACK, which is no error: raises `TransactionBroken`.
    """
    await raw.execute("BEGIN")
    try:
        yield
    except asyncpg.InFailedSQLTransactionError as error:
        await raw.execute("ROLLBACK")
        raise TransactionBroken(BROKEN) from error
    except BaseException:
        await raw.execute("ROLLBACK")
        raise
    if await raw.execute("COMMIT") != "COMMIT":
        raise TransactionBroken(BROKEN)


async def _execute(raw: asyncpg.Connection, writes: Sequence[Write], fence: Fence | None) -> None:
    query, parameters = compose_postgresql(writes, fence)
    if not await raw.fetch(query, *parameters):
        raise Fenced("the writer's right to write must be current, and somebody took over; stop this worker")
