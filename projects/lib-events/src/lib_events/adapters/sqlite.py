"""The SQLite adapter: one writer process per file, statements on the loop's thread, only COMMIT off it.

A writer thread that runs statements would convoy on the GIL (each sqlite3_step gives it up and waits to get
it back), so the loop's thread runs them itself and a helper thread only waits for the disk. While a COMMIT
is under way nobody touches the writer's connection: the next group gathers meanwhile. A small group on a quick disk is
committed at once: waking the helper would take as long as the disk, and there is nothing to gather for.
"""

import asyncio
import contextlib
import contextvars
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal
from weakref import WeakSet

from sqlalchemy import Connection as CoreConnection
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from lib_events.adapters.committer import BASELESS, GroupCommitter, Member, fail, resolve
from lib_events.adapters.migrate import migrate
from lib_events.adapters.sqlite_errors import (
    is_locked,
    is_of_the_file,
    name_of,
    not_opened,
    not_read,
    not_saved,
    sqlite_error,
)
from lib_events.adapters.sqlite_looks import Looks, raw_of
from lib_events.adapters.sqlite_positions import Positions
from lib_events.database import (
    EVENTS_TOPIC,
    REWRITTEN_TOPIC,
    CommitFailed,
    Connection,
    Database,
    DatabaseInUse,
    DatabaseReadOnly,
    DatabaseUnavailable,
    Schema,
    TransactionTooLong,
)
from lib_events.event import Recordable
from lib_events.event_log import APPEND_EVENTS, IMPORT_EVENTS, PLACE_LIMIT, PLACED_TOPIC, append_writes, place
from lib_events.memory import CpuBudget
from lib_events.prepared import Values
from lib_events.statement import Fence, Write, by_statement

logger = logging.getLogger(__name__)

READERS = 4
READER_CACHE_KIB = 200  # every commit empties a reader's cache, and the kernel has the pages
WRITER_CACHE_KIB = 2_000
LOCKED_SECONDS = 5.0  # another program may hold the file's write lock for so long
LOCKED_PAUSE_SECONDS = 0.01  # between two tries: SQLite tells nobody when a lock is free
OPEN_LOCKED_SECONDS = 5.0  # the same as we open it
FUNCTION_LIMIT_SECONDS = 0.25  # of its thread's CPU: that the machine stood still is not the function's fault
TOO_LONG = (
    f"a transaction function may use the CPU for {FUNCTION_LIMIT_SECONDS} s; read before it, or split it into several"
)
FEW_MEMBERS = 4  # so few wait for a group that nothing would gather behind it …
QUICK_SECONDS = 0.001  # … and for so long the loop may wait for the disk itself
PROGRESS_OPCODES = 10_000  # how often SQLite asks whether the limit has passed
LOG_BYTES = 64 * 1024 * 1024  # of the write-ahead log: where readers overlap for ever, SQLite never begins it again
READERS_END_SECONDS = 0.25  # so long commits and new readers wait for those under way, once it is that long


# The locks of this process. A process that is forked from it, by a step with `multiprocessing` say, must not have them:
# it may live on when this one is killed, and whoever begins anew would be refused.
_locks: WeakSet[IO[str]] = WeakSet()


def _leave_locks() -> None:
    for lock in list(_locks):
        lock.close()


os.register_at_fork(after_in_child=_leave_locks)


class _GroupLost(Exception):
    """SQLite rolled the whole transaction back under us; `culprit` did it."""

    def __init__(self, culprit: Member) -> None:
        super().__init__()
        self.culprit = culprit


class _Driver:
    """See `Driver`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def fetch(self, text: str, values: Values) -> Sequence[Values]:
        """See `Driver.fetch`."""
        return self._raw.execute(text, values).fetchall()

    def change(self, text: str, values: Values) -> int:
        """See `Driver.change`."""
        return self._raw.execute(text, values).rowcount


class SqliteDatabase(Database):
    """A SQLite file in WAL mode with `synchronous=FULL`."""

    dialect_name: Literal["sqlite"] = "sqlite"
    places_in_commit = True

    def __init__(self, path: Path, raw: sqlite3.Connection, lock: IO[str], *, service: str) -> None:
        super().__init__(service=service)
        self.path = path
        self._inode = path.stat().st_ino
        self._lock = lock
        self._raw = raw
        self._driver = _Driver(raw)
        self._positions = Positions(raw)
        self._writer = create_engine("sqlite://", creator=lambda: self._raw, poolclass=StaticPool).connect()
        self._reader: Engine = create_engine(
            "sqlite://",
            creator=lambda: _connect(path, query_only=True),
            poolclass=QueuePool,
            pool_size=READERS + 1,
        )
        self._looks = Looks(self._reader)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="sqlite-commit")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-read")
        self._committer = GroupCommitter(self._commit)
        self._closed = False
        self._log = path.with_name(path.name + "-wal")
        self._log_limit = LOG_BYTES
        self._reading = 0  # how many readers are under way beside the loop …
        self._may_read, self._nobody_reads = asyncio.Event(), asyncio.Event()  # … and whether others may begin
        self._may_read.set()
        self._save_seconds = 1.0  # how long a COMMIT took lately; unknown yet

    @classmethod
    async def open(cls, path: str, *, service: str, schemas: Sequence[Schema]) -> "SqliteDatabase":
        """Lock, open and migrate the file. Raises `DatabaseInUse`, `DatabaseReadOnly`, `DatabaseUnavailable`."""
        file = Path(path).resolve()  # one lock for one file, whatever names lead to it
        lock = _lock(file)
        try:
            _check_whole(file)
            raw = _connect(file)
        except DatabaseUnavailable:
            lock.close()
            raise
        except sqlite3.Error as error:
            lock.close()
            raise not_opened(error, file) from error
        database = cls(file, raw, lock, service=service)
        try:
            database._migrate(schemas)
        except BaseException as error:
            await database.close()
            cause = sqlite_error(error)
            if cause is not None:
                raise not_opened(cause, file) from error
            raise
        raw.execute("PRAGMA busy_timeout = 0")  # from here on we wait beside the loop
        return database

    def _migrate(self, schemas: Sequence[Schema]) -> None:
        self._raw.execute("BEGIN IMMEDIATE")
        try:
            migrate(self._writer, schemas)
        except BaseException:
            self._raw.execute("ROLLBACK")
            raise
        self._raw.execute("COMMIT")

    async def transact[*A, R](
        self,
        function: Callable[[Connection, *A], R],
        *args: *A,
        fence: Fence | None = None,  # noqa: ARG002 - the file lock is the fence
    ) -> R:
        """See `Database.transact`."""
        self.check_loop()
        context = contextvars.copy_context()  # the group is committed by a task of another caller
        value: R = await self._committer.submit(function=lambda connection: context.run(function, connection, *args))
        return value

    def write(
        self,
        *writes: Write,
        events: Sequence[Recordable] = (),
        fence: Fence | None = None,  # noqa: ARG002
        topics: Sequence[str] = (),
        after: Sequence[asyncio.Future[Any]] = (),
    ) -> asyncio.Future[None]:
        """See `Database.write`."""
        self.check_loop()
        return self._committer.submit(writes=writes, events=events, topics=topics, after=after)

    async def read[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        """See `Database.read`."""
        self.check_loop()
        await self._may_read.wait()
        self._reading += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._readers, self._read_beside, function, *args)
        finally:
            self._reading -= 1
            if self._reading == 0:
                self._nobody_reads.set()

    async def look[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        """See `Database.look`: on the loop itself, which a writer never keeps waiting (WAL)."""
        self.check_loop()
        try:
            return self._ask(*self._looks.begin(), function, *args)
        except BaseException:
            self._looks.end()  # whatever is wrong, nobody else has it
            raise

    def _read_beside[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        with self._reader.connect() as core:
            raw = raw_of(core)
            raw.execute("BEGIN")  # one snapshot for everything `function` reads
            try:
                return self._ask(core, raw, function, *args)
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")

    def _ask[*A, R](
        self, core: CoreConnection, raw: sqlite3.Connection, function: Callable[[Connection, *A], R], *args: *A
    ) -> R:
        try:
            return function(Connection(core, _Driver(raw), source=self.source), *args)
        except (DBAPIError, sqlite3.Error) as error:
            cause = sqlite_error(error)
            if cause is None or not is_of_the_file(cause) or "READONLY" in name_of(cause):  # it may not write
                raise
            raise not_read(cause, self.path) from error

    async def close(self) -> None:
        """See `Database.close`."""
        if self._closed:
            return
        self._closed = True
        await self._committer.finish()
        self._disk.shutdown()
        self._readers.shutdown()
        self._looks.close()
        self._reader.dispose()
        self._writer.close()
        self._raw.close()
        self._lock.close()

    async def _commit(self, group: Sequence[Member]) -> None:
        try:
            await self._begin()
            topics = self._apply(group)
            if len(group) <= FEW_MEMBERS and self._save_seconds < QUICK_SECONDS:
                self._save()
            else:
                await asyncio.get_running_loop().run_in_executor(self._disk, self._save)
        except sqlite3.Error as error:
            self._rollback()
            raise not_saved(error, self.path) from error
        self._looks.end()
        self._extend_tail(topics)
        for member in group:
            if member.error is None:
                resolve(member)
            else:
                fail([member], member.error)
        self._wake(topics)
        if self._log_bytes() > self._log_limit:
            await self._begin_log_again()

    def _truncate_log(self) -> None:
        self._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # it is under way until it is fetched

    def _log_bytes(self) -> int:
        with contextlib.suppress(OSError):
            return self._log.stat().st_size
        return 0

    async def _begin_log_again(self) -> None:
        """Give SQLite a moment without readers, which it needs for that."""
        self._may_read.clear()
        self._nobody_reads.clear()
        try:
            if self._reading:
                async with asyncio.timeout(READERS_END_SECONDS):
                    await self._nobody_reads.wait()
            await asyncio.get_running_loop().run_in_executor(self._disk, self._truncate_log)
        except (TimeoutError, sqlite3.Error) as error:
            logger.warning("the log of %s cannot begin again yet: %s", self.path, str(error) or "somebody reads on")
        finally:
            self._may_read.set()
        self._log_limit = self._log_bytes() + LOG_BYTES  # not at once again, if it did not come about

    def _save(self) -> None:
        began = time.perf_counter()
        self._raw.execute("COMMIT")
        # One slow commit is remembered for some dozens of quick ones.
        self._save_seconds = max(time.perf_counter() - began, 0.9 * self._save_seconds)

    async def _begin(self) -> None:
        """Begin the group's transaction; while another program holds the file's write lock, the loop goes on."""
        self._check_place()
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                self._raw.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_locked(error) or time.monotonic() > deadline:
                    raise
            else:
                return
            await asyncio.sleep(LOCKED_PAUSE_SECONDS)

    def _check_place(self) -> None:
        """What is committed to a file that nobody finds any more is lost, although SQLite goes on with it."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:
                return
        error = CommitFailed(
            "nothing was saved in the database: its file was moved, replaced or removed while it was in use; "
            "put it back, or start again"
        )
        error.add_note(f"the database is {self.path}")
        raise error

    def _extend_tail(self, topics: set[str]) -> None:
        """Hand over what is on disk now, if the group knows all that was placed in it."""
        rows = self._positions.rows
        if REWRITTEN_TOPIC in topics or (PLACED_TOPIC in topics and not rows):
            self.tail.clear()
        elif rows:
            self.tail.extend(self._positions.epoch, rows)

    def _apply(self, group: Sequence[Member]) -> set[str]:
        """Run the group's statements in its transaction; start over in another without whoever broke it."""
        remaining = list(group)
        while True:
            if not self._raw.in_transaction:
                self._raw.execute("BEGIN IMMEDIATE")
            self._positions.begin()
            try:
                return self._apply_members(remaining)
            except _GroupLost as lost:
                remaining.remove(lost.culprit)
                self._rollback()
            except BaseException:
                self._rollback()
                raise

    def _apply_members(self, members: Sequence[Member]) -> set[str]:
        topics: set[str] = set()
        rows: list[Member] = []  # gathered until a function wants to see them
        refused: set[asyncio.Future[Any]] = set()
        for member in members:
            if member.function is None:
                rows.append(member)
                continue
            self._write_rows(rows, topics, refused)
            rows = []
            self._call(member, member.function, topics)
        self._write_rows(rows, topics, refused)
        if self._positions.given or EVENTS_TOPIC in topics:
            self._place(topics)
        return topics

    def _place(self, topics: set[str]) -> None:
        """See to it that every event of the group has its position."""
        if self._positions.finish():
            self._positions.rows = []  # more was placed than these
            connection = Connection(self._writer, self._driver, source=self.source)
            while place(connection) >= PLACE_LIMIT:
                pass
        topics.add(PLACED_TOPIC)

    def _call(self, member: Member, function: Callable[[Connection], Any], topics: set[str]) -> None:
        """Run one transaction function under its savepoint."""
        hand_over = self._positions.hand_over
        connection = Connection(self._writer, self._driver, source=self.source, hand_over=hand_over)
        self._raw.execute("SAVEPOINT member")
        savepoint = self._positions.savepoint()
        member.error = None  # it may have run before, in a transaction that another one broke
        try:
            with CpuBudget(FUNCTION_LIMIT_SECONDS) as budget:
                self._raw.set_progress_handler(lambda: budget.is_spent, PROGRESS_OPCODES)
                member.value = function(connection)
                self._check_goes_on(budget)
                self._execute_writes([*connection.written, *append_writes(connection.published)])
        except BaseException as error:  # what is no `Exception`, too, is its caller's alone: the others go on
            member.error = _named(error, self.path)
            if not self._raw.in_transaction:
                raise _GroupLost(member) from error
            self._raw.set_progress_handler(None, 0)
            self._raw.execute("ROLLBACK TO member")
            self._positions.roll_back(savepoint)
        else:
            topics |= connection.topics
        finally:
            connection.retire()
            self._raw.set_progress_handler(None, 0)
        self._raw.execute("RELEASE member")

    def _check_goes_on(self, budget: CpuBudget) -> None:
        """Raise where a function went on although SQLite had rolled everything back, as it does when a disk is full."""
        if self._raw.in_transaction:
            return
        if budget.is_spent:
            raise TransactionTooLong(TOO_LONG)
        raise CommitFailed(
            "nothing was saved in the database: it rolled the transaction back, and the function went on; "
            "let it raise what the database raised, see to the disk, then try again"
        )

    def _write_rows(self, members: Sequence[Member], topics: set[str], refused: set[asyncio.Future[Any]]) -> None:
        """Write the rows of all members at once; if one is bad, each by itself so that only it fails, and what was
        decided upon it."""
        if not members:
            return
        error = None if refused else self._try_rows(members)
        is_for_all = not refused and (error is None or len(members) == 1)
        for member in members:
            member.error = error if is_for_all else self._try_alone(member, refused)
            if member.error is not None:
                refused.add(member.future)
                continue
            topics.update(member.topics)
            if member.events:
                topics.add(EVENTS_TOPIC)

    def _try_alone(self, member: Member, refused: set[asyncio.Future[Any]]) -> Exception | None:
        return CommitFailed(BASELESS) if not refused.isdisjoint(member.after) else self._try_rows([member])

    def _try_rows(self, members: Sequence[Member]) -> Exception | None:
        writes = [write for member in members for write in member.writes]
        events = [event for member in members for event in member.events]
        self._raw.execute("SAVEPOINT rows_of_members")
        savepoint = self._positions.savepoint()
        try:
            self._execute_writes([*writes, *append_writes(events)])
        except Exception as error:
            if not self._raw.in_transaction:
                raise
            self._raw.execute("ROLLBACK TO rows_of_members")
            self._positions.roll_back(savepoint)
            self._raw.execute("RELEASE rows_of_members")
            return error
        self._raw.execute("RELEASE rows_of_members")
        return None

    def _execute_writes(self, writes: Sequence[Write]) -> None:
        for statement, rows in by_statement(writes).items():
            if statement is APPEND_EVENTS:
                self._positions.append(rows)
            elif statement is IMPORT_EVENTS:
                self._positions.append_new(rows)
            else:
                self._raw.executemany(statement.sqlite, rows)

    def _rollback(self) -> None:
        if self._raw.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")


def _check_whole(path: Path) -> None:
    """Raise where SQLite would begin an empty file, and throw away what its log holds."""
    log = path.with_name(path.name + "-wal")
    if not path.exists() and log.exists() and log.stat().st_size:
        raise DatabaseUnavailable(
            f"{path} is missing, and {log.name} beside it holds what was committed last; put the file back, or remove "
            "that one, too"
        )


def _connect(path: Path, *, query_only: bool = False) -> sqlite3.Connection:
    raw = sqlite3.connect(path, check_same_thread=False, autocommit=True, cached_statements=512)
    pragmas = (
        f"busy_timeout = {round(OPEN_LOCKED_SECONDS * 1000)}",
        "journal_mode = WAL",
        "synchronous = FULL",  # acknowledged means on disk
        "foreign_keys = ON",
        f"query_only = {'ON' if query_only else 'OFF'}",
        f"cache_size = -{READER_CACHE_KIB if query_only else WRITER_CACHE_KIB}",
    )
    try:
        for pragma in pragmas:
            raw.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        raw.close()
        raise
    return raw


def _lock(path: Path) -> IO[str]:
    """Take the file's writer lock; the kernel gives it back when the process ends, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("a+")
    except PermissionError as error:
        raise DatabaseReadOnly(f"{path.parent} must be writable; choose another folder with EVS_DATA") from error
    except OSError as error:
        raise DatabaseUnavailable(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise DatabaseInUse(
            f"{path} is in use by process {holder}; stop it (evs down), choose another EVS_DATA, "
            "or use PostgreSQL for more than one process"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    _locks.add(lock)
    return lock


def _named(error: BaseException, path: Path) -> BaseException:
    """Give an interrupted statement its name, and one that the disk refused."""
    cause = sqlite_error(error)
    if cause is None:
        return error
    if name_of(cause) == "SQLITE_INTERRUPT":
        return TransactionTooLong(TOO_LONG)
    return not_saved(cause, path) if is_of_the_file(cause) else error
