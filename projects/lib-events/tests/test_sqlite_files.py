"""SQLite files that others lock, or that are damaged: what is wrong is said with what to do, and nothing is lost."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import text

from lib_events.adapters import sqlite
from lib_events.database import CommitFailed, DatabaseError, DatabaseInUse, DatabaseUnavailable, open_database
from lib_events.event_log import SCHEMA
from lib_events.testing import wait_until


async def opened(url):
    return await open_database(url, service="test-svc", schemas=[SCHEMA])


@pytest.fixture
def other_program(tmp_path):
    """A connection of another program: what it begins locks the file for ours."""
    connection = sqlite3.connect(tmp_path / "test.db", autocommit=True, check_same_thread=False)
    yield connection
    connection.close()


def move_cursor(connection):
    connection.execute(text("INSERT INTO subscription_cursors VALUES ('mine', 1, 0)"))


def cursors(connection):
    return len(connection.execute(text("SELECT * FROM subscription_cursors")).all())


async def test_a_file_has_one_writer_whatever_names_lead_to_it(sqlite_url, tmp_path):
    database = await opened(sqlite_url)
    (tmp_path / "other.db").symlink_to(tmp_path / "test.db")
    with pytest.raises(DatabaseInUse, match="is in use by process"):
        await opened(f"sqlite:///{tmp_path}/other.db")
    await database.close()


@pytest.mark.parametrize("path", ["", ":memory:", "file:x?mode=memory"])
async def test_what_names_no_file_is_refused_instead_of_becoming_one(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatabaseUnavailable, match="a SQLite database must be a file, given by its path, got"):
        await opened(f"sqlite:///{path}")
    assert list(tmp_path.iterdir()) == []


FORKS = """
import asyncio, os, sys, time
from lib_events.database import open_database
from lib_events.event_log import SCHEMA

async def main():
    database = await open_database(sys.argv[1], service="test-svc", schemas=[SCHEMA])
    if (child := os.fork()) == 0:
        os.write(1, b"forked\\n")  # each of the two in one piece
        os.close(1)  # which the test reads to its end
        time.sleep(60)
        os._exit(0)
    os.write(1, f"{child}\\n".encode())
    time.sleep(60)

asyncio.run(main())
"""


async def test_a_process_that_was_forked_does_not_keep_the_file_of_one_that_was_killed(sqlite_url):
    """As a step's `multiprocessing` does it."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FORKS, sqlite_url, stdout=subprocess.PIPE)
    told = {(await asyncio.wait_for(process.stdout.readline(), 30)).strip() for _ in range(2)}
    process.kill()
    await process.wait()
    try:
        await (await opened(sqlite_url)).close()
    finally:
        os.kill(int((told - {b"forked"}).pop()), signal.SIGKILL)


@pytest.mark.parametrize("happens", ["moved", "removed", "replaced"])
async def test_nothing_is_saved_in_a_file_that_nobody_finds_any_more(sqlite_url, tmp_path, happens):
    database, file = await opened(sqlite_url), tmp_path / "test.db"
    await database.transact(move_cursor)
    if happens == "removed":
        file.unlink()
    else:
        file.rename(tmp_path / "moved.db")
    if happens == "replaced":
        file.touch()
    with pytest.raises(CommitFailed, match=r"moved, replaced or removed while it was in use; put it back"):
        await database.transact(lambda connection: connection.execute(text("DELETE FROM subscription_cursors")))
    if happens != "removed":
        (tmp_path / "moved.db").rename(file)
        assert await database.read(cursors) == 1
        await database.transact(lambda connection: connection.execute(text("DELETE FROM subscription_cursors")))
    await database.close()


async def test_a_log_without_its_file_is_not_thrown_away(sqlite_url, tmp_path):
    """Somebody has moved the file alone, after a crash say: SQLite would begin an empty one."""
    log = tmp_path / "test.db-wal"
    log.write_bytes(b"what was committed last")
    with pytest.raises(DatabaseUnavailable, match=r"test.db is missing, and test.db-wal beside it holds what was"):
        await opened(sqlite_url)
    assert log.read_bytes() == b"what was committed last"
    log.unlink()
    await (await opened(sqlite_url)).close()


async def test_a_lock_of_another_program_is_waited_for_and_the_loop_goes_on(sqlite_url, other_program):
    database = await opened(sqlite_url)
    other_program.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(database.transact(move_cursor))
    longest, before, end = 0.0, time.monotonic(), time.monotonic() + 0.3
    while time.monotonic() < end:
        await asyncio.sleep(0)
        longest, before = max(longest, time.monotonic() - before), time.monotonic()
    assert not writing.done()
    assert longest < 0.2
    assert await database.read(cursors) == 0  # reading goes on
    other_program.execute("ROLLBACK")
    await asyncio.wait_for(writing, 5)
    assert await database.read(cursors) == 1
    await database.close()


async def test_a_lock_that_is_not_given_back_is_told_of(sqlite_url, other_program, monkeypatch):
    monkeypatch.setattr(sqlite, "LOCKED_SECONDS", 0.05)
    database = await opened(sqlite_url)
    other_program.execute("BEGIN IMMEDIATE")
    with pytest.raises(CommitFailed, match=r"the database: database is locked; end what has it open") as caught:
        await database.transact(move_cursor)
    assert "test.db" not in str(caught.value)  # clients read it; the log has the note
    assert caught.value.__notes__ == [f"the database is {database.path}"]
    other_program.execute("ROLLBACK")
    await database.transact(move_cursor)
    await database.close()


async def test_a_file_that_another_program_locks_is_refused_at_the_start(sqlite_url, other_program, monkeypatch):
    monkeypatch.setattr(sqlite, "OPEN_LOCKED_SECONDS", 0.05)
    await (await opened(sqlite_url)).close()
    other_program.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseInUse, match="must not be locked by another program; end what has it open"):
        await opened(sqlite_url)
    other_program.execute("ROLLBACK")
    await (await opened(sqlite_url)).close()


async def test_a_damaged_file_is_refused_at_the_start(sqlite_url, tmp_path, subtests):
    await (await opened(sqlite_url)).close()
    whole = (tmp_path / "test.db").read_bytes()
    noise = random.Random(1).randbytes(len(whole))
    for damage, content in {
        "its header": noise[:100] + whole[100:],
        "its schema": whole[:100] + noise[100:4096] + whole[4096:],
        "its end is gone": whole[: len(whole) // 2],
        "everything but its schema": whole[:4096] + noise[4096:],
    }.items():
        with subtests.test(damage=damage):
            (tmp_path / "test.db").write_bytes(content)
            with pytest.raises(DatabaseError, match="restore a backup"):
                await opened(sqlite_url)


async def test_damage_that_is_met_later_is_told_of_too(sqlite_url, tmp_path):
    database = await opened(sqlite_url)
    await database.transact(move_cursor)
    await database.close()
    with sqlite3.connect(tmp_path / "test.db") as raw:
        page = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'subscription_cursors'").fetchone()[0]
        size = raw.execute("PRAGMA page_size").fetchone()[0]
    raw.close()
    content = bytearray((tmp_path / "test.db").read_bytes())
    content[(page - 1) * size : page * size] = random.Random(1).randbytes(size)
    (tmp_path / "test.db").write_bytes(content)
    database = await opened(sqlite_url)
    with pytest.raises(DatabaseError, match=r"cannot be read: .* the file is damaged: stop, and restore a backup"):
        await database.read(cursors)
    with pytest.raises(DatabaseError, match=r"nothing was saved .* the file is damaged: stop, and restore a backup"):
        await database.transact(move_cursor)
    await database.close()


class Handover:
    """Readers of whom each ends only when the next one has begun, or no other comes."""

    def __init__(self):
        self._turn = threading.Condition()
        self._begun = 0

    def read(self, connection):
        """Read, and hand over."""
        cursors(connection)
        with self._turn:
            self._begun += 1
            mine = self._begun
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._begun > mine, timeout=0.05)


async def test_readers_that_overlap_for_ever_do_not_make_the_log_grow_for_ever(sqlite_url, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "LOG_BYTES", 1024 * 1024)
    database = await opened(sqlite_url)
    handover, written = Handover(), asyncio.Event()

    async def read_on():
        while not written.is_set():
            await database.read(handover.read)

    def write(connection, number):
        connection.execute(text("INSERT INTO subscription_cursors VALUES (:d, 1, 0)"), {"d": f"{number}" * 100_000})

    readers = [asyncio.create_task(read_on()) for _ in range(3)]
    for number in range(100, 200):
        await database.transact(write, number)
    longest = (tmp_path / "test.db-wal").stat().st_size
    written.set()
    await asyncio.gather(*readers)
    assert await database.read(cursors) == 100
    assert longest < 10 * 1024 * 1024
    await database.close()


async def test_who_reads_for_long_holds_up_commits_for_a_moment_only(sqlite_url, monkeypatch):
    monkeypatch.setattr(sqlite, "LOG_BYTES", 1)
    monkeypatch.setattr(sqlite, "READERS_END_SECONDS", 0.01)
    database = await opened(sqlite_url)
    reads, go_on = threading.Event(), threading.Event()

    def read(connection):
        before = cursors(connection)
        reads.set()
        go_on.wait(30)
        return before, cursors(connection)

    reading = asyncio.create_task(database.read(read))
    await wait_until(reads.is_set)
    await asyncio.wait_for(database.transact(move_cursor), 10)
    assert await database.read(cursors) == 1
    go_on.set()
    assert await reading == (0, 0)
    await database.close()
