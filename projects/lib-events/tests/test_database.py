"""The database port: one conformance suite that both adapters pass."""

import asyncio
import contextlib
import gc
import time
from dataclasses import replace

import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from lib_events.adapters import sqlite
from lib_events.database import (
    CommitFailed,
    DatabaseInUse,
    DatabaseUnavailable,
    Fenced,
    SchemaTooNew,
    StatementRefused,
    TransactionBroken,
    TransactionTooLong,
    is_database_failure,
    open_database,
)
from lib_events.event import Cause, Event, EventType, current_cause
from lib_events.event_log import SCHEMA, append_writes, place, read_after
from lib_events.handling.place import Place
from lib_events.statement import Fence, compose_postgresql
from lib_events.tables import SEGMENT_TYPE, events, subscription_cursors


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)
Ticked = EventType("test.ticked", Note, packed=True)


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="test-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


def note(connection, number):
    connection.execute(insert(subscription_cursors).values(durable=f"d{number}", position=number, updated_at=0))
    connection.publish(Event.of(Noted, Note(number=number), source=connection.source))
    return number


def count(connection, table=subscription_cursors):
    return connection.scalar(select(func.count()).select_from(table))


async def test_state_and_its_events_are_committed_together(database):
    assert await database.transact(note, 7) == 7
    assert await database.read(count) == 1
    assert await database.read(count, events) == 1


async def test_a_failing_function_undoes_only_itself(database):
    def fail(connection):
        note(connection, 99)
        raise LookupError("no")

    results = await asyncio.gather(
        database.transact(note, 1), database.transact(fail), database.transact(note, 2), return_exceptions=True
    )
    assert [type(result) for result in results] == [int, LookupError, int]
    assert await database.read(count) == 2
    assert await database.read(count, events) == 2


@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError, BaseException])
async def test_a_function_that_raises_what_is_no_error_undoes_only_itself_too(database, kind):
    def fail(connection):
        note(connection, 1)
        raise kind

    results = await asyncio.gather(
        *(database.transact(*each) for each in [(note, 2), (fail,), (note, 3)]), return_exceptions=True
    )
    assert [type(result) for result in results] == [int, kind, int]
    assert await database.transact(note, 4) == 4
    assert await database.read(count) == 3


async def test_events_of_functions_committed_together_carry_each_callers_cause(database):
    async def act(number):
        current_cause.set(Cause(principal=f"user:{number}"))
        await database.transact(note, number)

    await asyncio.gather(*(act(number) for number in range(10)))
    await database.transact(place)
    stored = [placed.event for placed in (await database.read(read_after, 0)).events]
    principals = {event.data["number"]: event.cause.principal for event in stored}
    assert principals == {number: f"user:{number}" for number in range(10)}


async def test_a_broken_constraint_is_told_to_whoever_broke_it(database):
    results = await asyncio.gather(
        database.transact(note, 1), database.transact(note, 1), database.transact(note, 2), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["IntegrityError", "int", "int"]
    assert any(isinstance(result, IntegrityError) for result in results)


async def test_a_bad_row_in_a_group_fails_only_its_owner(database):
    good = [Event.of(Noted, Note(number=number), source="/test-svc") for number in range(4)]
    await database.write(events=good[:1])
    results = await asyncio.gather(*(database.write(events=[event]) for event in good), return_exceptions=True)
    assert [result is None for result in results] == [False, True, True, True]
    assert await database.read(count, events) == 4


async def test_a_value_that_fits_no_column_fails_only_its_owner(database):
    bad, good = (append_writes([Event.of(Noted, Note(number=n), source="/x")]) for n in range(2))
    bad[0] = bad[0]._replace(row=(object(), *bad[0].row[1:]))
    bad_write, good_write = database.write(*bad), database.write(*good)
    with pytest.raises(Exception, match=r"object|bind"):
        await bad_write
    await good_write
    assert await database.read(count, events) == 1


async def test_what_was_decided_upon_what_was_refused_is_not_saved_either(database):
    one, two, three, other = (Event.of(Noted, Note(number=number), source="/test-svc") for number in range(4))
    await database.write(events=[one])
    refused = database.write(events=[one])  # once more
    baseless = database.write(events=[two], after=[refused])
    beside = database.write(events=[other])
    results = await asyncio.gather(refused, baseless, beside, return_exceptions=True)
    assert [type(result).__name__ for result in results][1:] == ["CommitFailed", "NoneType"]
    with pytest.raises(CommitFailed, match="decided upon"):
        await database.write(events=[three], after=[baseless])
    assert await database.read(count, events) == 2
    await database.write(events=[two], after=[beside])
    assert await database.read(count, events) == 3


@pytest.mark.parametrize("odd", ["data", "subject"])
async def test_an_event_that_cannot_be_written_fails_only_its_owner(database, odd):
    """Half a character is refused by the driver, or as JSON is made, and neither is an error of SQLite."""
    bad = replace(Event.of(EventType("test.said", str), "x", source="/test-svc"), **{odd: "\ud83d"})
    good = [Event.of(Noted, Note(number=number), source="/test-svc") for number in range(4)]
    results = await asyncio.gather(
        *(database.write(events=[event]) for event in (*good[:2], bad, *good[2:])), return_exceptions=True
    )
    assert [result is None for result in results] == [True, True, False, True, True]
    assert await database.read(count, events) == 4


async def test_rows_queued_behind_a_lost_group_are_lost_with_it(database):
    committer = database._committer
    commit, behind = committer._commit, []

    async def lost(group):
        committer._commit = commit
        behind.append(database.write(*append_writes([Event.of(Noted, Note(number=1), source="/x")])))
        behind.append(asyncio.ensure_future(database.transact(note, 2)))
        await asyncio.sleep(0)
        raise CommitFailed("the disk is full")

    committer._commit = lost
    for refused in (database.write(events=[Event.of(Noted, Note(number=0), source="/x")]), None):
        with pytest.raises(CommitFailed):
            await (refused or behind[0])
    await behind[1]
    assert await database.read(count, events) == 1


async def test_packed_events_of_a_transaction_share_one_row(database):
    def tick(connection):
        connection.publish(*(Event.of(Ticked, Note(number=n), source=connection.source) for n in range(5)))

    await database.transact(tick)
    assert await database.read(lambda c: c.execute(select(events.c.type, events.c.count)).all()) == [(SEGMENT_TYPE, 5)]


async def test_hot_rows_are_visible_to_a_function_queued_after_them(database):
    event = Event.of(Noted, Note(number=1), source="/test-svc")
    written = database.write(events=[event])
    if database.dialect_name == "postgresql":  # there a function runs in a transaction of its own
        await written
    assert await database.transact(count, events) == 1
    await written


async def test_listeners_hear_of_commits_with_events_and_of_named_topics(database):
    heard = []
    stop = database.on_notify("events", lambda: heard.append("events"))
    database.on_notify("runs", lambda: heard.append("runs"))

    def wake(connection):
        connection.notify("runs")

    await database.transact(note, 1)
    await database.transact(wake)
    assert heard == ["events", "runs"]
    stop()
    await database.transact(note, 2)
    assert heard == ["events", "runs"]


async def test_a_function_gets_no_way_to_commit_or_roll_back(database):
    def look(connection):
        return [name for name in ("commit", "rollback", "close", "begin") if hasattr(connection, name)]

    assert await database.transact(look) == []


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT", "/* now */ commit", "-- now\nEND", "ROLLBACK", "rollback work", "BEGIN", "ABORT",
        "SET synchronous_commit = off", "set search_path to elsewhere", "SET SESSION ROLE nobody", "RESET ALL",
        "SELECT set_config('app.tenant', '7', false)", "SELECT set_config('app.tenant', :tenant, :is_local)",
        "WITH a AS (SELECT Set_Config('a.b', lower('X'), false)) SELECT 1", "LISTEN elsewhere", "PREPARE q AS SELECT 1",
        "CREATE TEMP TABLE t (n INTEGER)", "create local temporary table t (n integer)",
        "SELECT pg_advisory_lock(1)", "SELECT pg_try_advisory_lock_shared(1)", "PREPARE TRANSACTION 'x'",
    ],
)  # fmt: skip
async def test_a_function_cannot_say_so_in_sql_either(database, statement):
    """On SQLite a COMMIT would make durable what the group has not decided yet; a setting would stay with the pool."""

    def end_it(connection):
        note(connection, 7)
        connection.execute(text(statement))

    with pytest.raises(StatementRefused, match="must leave its transaction") as refused:
        await database.transact(end_it)
    assert not is_database_failure(refused.value)
    assert await database.read(count) == 0


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT set_config('app.tenant', 'a, (b)', true)", "SELECT set_config('app.tenant', lower('X'), TRUE)",
        "CREATE TEMP TABLE t (n INTEGER) ON COMMIT DROP", "SELECT pg_advisory_xact_lock(1)",
        "SET LOCAL app.tenant = 'x'",
    ],
)  # fmt: skip
async def test_a_function_may_say_what_ends_with_its_transaction(postgresql_url, statement):
    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    for _ in range(2):
        await database.transact(lambda connection: connection.execute(text(statement)))
    assert not await database.read(lambda c: c.scalar(text("SELECT current_setting('app.tenant', true)")))
    await database.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_function_that_keeps_its_connection_can_do_nothing_with_it(database, fails):
    """On SQLite it would write into somebody else's group, and what it publishes would be gone without a word."""
    kept = []

    def keep(connection):
        kept.append(connection)
        if fails:
            raise LookupError("no")

    with contextlib.suppress(LookupError):
        await database.transact(keep)

    def use(_connection):
        for attempt in (
            lambda: note(kept[0], 1),
            lambda: kept[0].publish(Event.of(Noted, Note(number=1), source="/x")),
        ):
            with pytest.raises(StatementRefused, match="must not keep"):
                attempt()

    await database.transact(use)
    assert await database.read(count) == await database.read(count, events) == 0


async def test_a_function_may_have_savepoints_of_its_own(database):
    def try_twice(connection):
        for number in (1, 1, 2):
            connection.execute(text("SAVEPOINT mine"))
            try:
                note(connection, number)
            except IntegrityError:
                connection.execute(text("ROLLBACK TO SAVEPOINT mine"))

    await database.transact(note, 1)
    await database.transact(try_twice)
    assert await database.read(count) == 2


@pytest.mark.postgresql
@pytest.mark.parametrize("publishes", [False, True])
async def test_what_postgresql_has_given_up_is_not_told_as_saved(postgresql_url, publishes):
    """It answers the COMMIT of a transaction with a failed statement with ROLLBACK, and calls that no error."""

    def goes_on(connection):
        connection.execute(insert(subscription_cursors).values(durable="mine", position=1, updated_at=0))
        try:
            connection.execute(insert(subscription_cursors).values(durable="mine", position=2, updated_at=0))
        except IntegrityError:
            if publishes:
                connection.publish(Event.of(Noted, Note(number=1), source=connection.source))
        return "saved"

    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    try:
        with pytest.raises(TransactionBroken, match="must not go on") as broken:
            await database.transact(goes_on)
        assert not is_database_failure(broken.value)
        assert await database.transact(note, 1) == 1
        assert await database.read(count) == 1
    finally:
        await database.close()


async def test_what_sqlite_rolled_back_under_a_function_that_goes_on_leaves_nothing_behind(sqlite_url):
    """As a full disk does: the rows and events of the function would have been saved without what they tell of."""

    def goes_on(connection):
        note(connection, 1)
        with contextlib.suppress(IntegrityError):
            connection.execute(text("INSERT OR ROLLBACK INTO subscription_cursors VALUES ('d1', 1, 1)"))

    database = await open_database(sqlite_url, service="test-svc", schemas=[SCHEMA])
    try:
        results = await asyncio.gather(
            *(database.transact(each) for each in (lambda c: note(c, 2), goes_on, lambda c: note(c, 3))),
            return_exceptions=True,
        )
        assert results[::2] == [2, 3]
        assert isinstance(results[1], CommitFailed)
        assert await database.read(count) == 2
        assert await database.read(count, events) == 2
    finally:
        await database.close()


async def test_reading_cannot_write(database):
    with pytest.raises(DBAPIError):
        await database.read(note, 1)


async def test_a_reader_sees_one_moment(database):
    def twice(connection):
        return count(connection), count(connection)

    results = await asyncio.gather(*(database.transact(note, n) for n in range(50)), database.read(twice))
    assert results[-1][0] == results[-1][1]


async def test_migrating_again_changes_nothing(database_url):
    for _ in range(2):
        database = await open_database(database_url, service="test-svc", schemas=[SCHEMA])
        await database.close()
        await database.close()


async def test_a_database_of_a_newer_release_is_refused(database, database_url):
    await database.transact(lambda c: c.execute(text("UPDATE alembic_version_lib_events SET version_num = '9999'")))
    await database.close()
    with pytest.raises(SchemaTooNew, match="newer release"):
        await open_database(database_url, service="test-svc", schemas=[SCHEMA])


async def test_a_url_of_neither_kind_is_refused():
    with pytest.raises(DatabaseUnavailable, match="must start with"):
        await open_database("mysql://somewhere", service="test-svc", schemas=[])


async def test_a_second_process_on_the_same_sqlite_file_is_refused(sqlite_url):
    first = await open_database(sqlite_url, service="test-svc", schemas=[SCHEMA])
    with pytest.raises(DatabaseInUse, match="in use by process"):
        await open_database(sqlite_url, service="test-svc", schemas=[SCHEMA])
    await first.close()


async def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    (tmp_path / "bad.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(DatabaseUnavailable, match="restore a backup"):
        await open_database(f"sqlite:///{tmp_path}/bad.db", service="test-svc", schemas=[SCHEMA])


async def test_a_function_is_not_to_blame_for_a_machine_that_stood_still(sqlite_url):
    database = await open_database(sqlite_url, service="test-svc", schemas=[SCHEMA])
    numbers = text(
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 20000) SELECT count(*) FROM r"
    )

    def stalls(connection):
        time.sleep(1.5 * sqlite.FUNCTION_LIMIT_SECONDS)  # the machine, standing still
        return connection.scalar(numbers)  # enough for SQLite to ask whether to go on

    assert await database.transact(stalls) == 20_000
    await database.close()


async def test_a_function_is_not_to_blame_for_the_garbage_collector(sqlite_url):
    database = await open_database(sqlite_url, service="test-svc", schemas=[SCHEMA])
    numbers = text(
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 20000) SELECT count(*) FROM r"
    )
    much = [[number] for number in range(500_000)]

    def collects(connection):
        began = time.thread_time()
        while time.thread_time() - began < 1.5 * sqlite.FUNCTION_LIMIT_SECONDS:
            gc.collect()
        return connection.scalar(numbers)

    assert await database.transact(collects) == 20_000
    del much
    await database.close()


async def test_a_function_that_holds_sqlite_too_long_fails_alone_even_when_it_takes_the_group_down(sqlite_url):
    database = await open_database(sqlite_url, service="test-svc", schemas=[SCHEMA])
    endless = text(
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1000000000) "
        "INSERT INTO subscription_cursors SELECT 'x' || n, n, 0 FROM r"
    )
    results = await asyncio.gather(
        database.transact(note, 1),
        database.transact(lambda c: c.execute(endless)),
        database.transact(note, 2),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [int, TransactionTooLong, int]
    assert await database.read(count) == 2
    await database.close()


async def test_a_full_disk_fails_the_commit_and_nothing_of_it_stays(sqlite_url):
    database = await open_database(sqlite_url, service="test-svc", schemas=[SCHEMA])
    pages = database._raw.execute("PRAGMA page_count").fetchone()[0]
    database._raw.execute(f"PRAGMA max_page_count = {pages}")
    big = [Event.of(Noted, Note(number=n), source="/test-svc") for n in range(2000)]
    with pytest.raises(CommitFailed, match="full"):
        await database.write(events=big)
    assert await database.read(count, events) == 0

    def fill(connection):
        for number in range(10_000):
            note(connection, number)

    with pytest.raises(CommitFailed, match="full"):  # also where the function itself meets it
        await database.transact(fill)
    database._raw.execute("PRAGMA max_page_count = 1000000")
    await database.transact(note, 1)
    assert await database.read(count) == 1
    await database.close()


@pytest.mark.postgresql
async def test_a_lost_fence_refuses_the_commit(postgresql_url):
    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    await database.transact(note, 1)
    fence = Fence("SELECT 1 FROM subscription_cursors WHERE durable = $1 AND position = $2 FOR KEY SHARE", ("d1", 1))
    event = Event.of(Noted, Note(number=5), source="/test-svc")
    await database.write(events=[event], fence=fence)
    await database.transact(note, 2, fence=fence)
    await database.transact(
        lambda c: c.execute(
            update(subscription_cursors).where(subscription_cursors.c.durable == "d1").values(position=2)
        )
    )
    with pytest.raises(Fenced):
        await database.write(events=[Event.of(Noted, Note(number=6), source="/test-svc")], fence=fence)
    with pytest.raises(Fenced):
        await database.transact(note, 3, fence=fence)
    assert await database.read(count) == 2
    await database.close()


@pytest.mark.postgresql
async def test_another_process_is_woken_by_a_commit(postgresql_url):
    first = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    second = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    heard = asyncio.Event()
    second.on_notify("events", heard.set)
    async with asyncio.timeout(5):
        number = 0
        while not heard.is_set():  # its listener may still be connecting
            await first.transact(note, number)
            number += 1
    await first.close()
    await second.close()


def test_packed_events_come_before_the_event_that_ends_their_story():
    ticked = Event.of(Ticked, Note(number=1), source="/test-svc")
    ended = Event.of(Noted, Note(number=2), source="/test-svc")
    types = [write.row[2] for write in append_writes([ticked, ended])]
    assert types == [SEGMENT_TYPE, "test.noted"]


def test_appending_nothing_writes_nothing():
    assert append_writes([]) == []


async def test_a_cancelled_caller_leaves_the_database_usable(database):
    for pauses in range(60):
        task = asyncio.create_task(database.transact(note, 1000 + pauses))
        for _ in range(pauses % 20):  # each cancels at another await inside
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await database.read(lambda connection: count(connection) == count(connection, events))
    assert await database.transact(note, 1) == 1


async def test_positions_are_dense_whatever_fails_in_a_group(database):
    """On both databases, and on SQLite within one commit: a member that fails takes its positions back."""
    taken = Event.of(Noted, Note(number=-1), source="/test-svc")
    await database.write(events=[taken])

    def fail(connection):
        connection.publish(Event.of(Noted, Note(number=99), source="/test-svc"))
        raise ValueError("no")

    def publish(connection, number):
        connection.publish(Event.of(Noted, Note(number=number), source="/test-svc"))

    members = []
    for number in range(20):
        members.append(database.write(events=[Event.of(Noted, Note(number=number), source="/test-svc")]))
        members.append(database.transact(fail))
        members.append(database.write(events=[taken]))  # its id is taken
        members.append(database.transact(publish, 100 + number))
    results = await asyncio.gather(*members, return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, True, False] * 20
    await database.transact(place)
    page = await database.read(read_after, 0)
    assert [placed.position for placed in page.events] == list(range(1, 42))
    assert page.head.position == 41


def test_the_statement_of_a_group_is_one_whatever_came_first():
    """On PostgreSQL each is prepared and kept: for a dozen statements there would be millions."""
    event = Event.of(Noted, Note(number=1), source="/test-svc")
    mark = Place("mine", "now").marks([1])
    first, *_ = compose_postgresql([*mark, *append_writes([event])], None)
    assert first == compose_postgresql([*append_writes([event]), *mark], None)[0]
