"""What must be true once a marathon is over, asked of its database; and how much whoever is idle asks of it."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from marathon_flows import AT_ONCE, WORKFLOWS, child, expected_effects, flow_of, run_id, status_of
from sqlalchemy import bindparam, text

from lib_events.adapters import sqlite as sqlite_adapter
from lib_events.database import Connection, Database
from lib_workflows import Engine

STATISTICS_SECONDS = 11.0  # so late a connection that is idle hands in what it counted
SHOWN = 5  # examples of what is wrong
ENDED_EVENTS = ("evs.run.completed", "evs.run.failed", "evs.run.cancelled")
# What must not be: each counts rows that nobody needs any more, or that are there twice.
LEFT_OVER = {
    "runs that have not ended": "SELECT count(*) FROM runs WHERE ended_at IS NULL",
    "ended runs that somebody holds": "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL AND owner IS NOT NULL",
    "ended runs that are due": "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL AND wake_at IS NOT NULL",
    "waits for events": "SELECT count(*) FROM event_waits",
    "failed attempts": "SELECT count(*) FROM attempts",
    "pending approvals": "SELECT count(*) FROM approvals WHERE status = 'pending'",
    "pending updates": "SELECT count(*) FROM updates WHERE status = 'pending'",
    "operations that ended twice": """
        SELECT count(*) FROM (SELECT 1 FROM history WHERE voided = 0 GROUP BY run, operation HAVING count(*) > 1) AS t
    """,
}
ENDED_TWICE = text("""
    SELECT subject FROM events WHERE type IN :types GROUP BY subject HAVING count(*) > 1
""").bindparams(bindparam("types", ENDED_EVENTS, expanding=True))


def look(connection: Connection, number_of_runs: int, workers: int | None) -> dict[str, Any]:
    """Find everything that is wrong; `workers` is how many live (None: nobody says)."""
    wrong: dict[str, Any] = {}
    for what, query in LEFT_OVER.items():
        if count := connection.scalar(text(query)):
            wrong[what] = count
    if twice := list(connection.scalars(ENDED_TWICE)):
        wrong["runs that ended twice"] = twice[:SHOWN]
    known = connection.scalar(text("SELECT count(*) FROM workers"))
    if workers is not None and known != workers:
        wrong["workers"] = f"{known} are known, {workers} live"
    wrong |= _wrong_runs(connection, number_of_runs) | _wrong_effects(connection, number_of_runs)
    if (at_once := _most_under_way(connection, child.name)) > AT_ONCE:
        wrong["children under way at once"] = at_once
    statuses = connection.execute(text("SELECT status, count(*) FROM runs GROUP BY status")).all()
    effects = connection.scalar(text("SELECT count(*) FROM effects"))
    return {"wrong": wrong, "all runs": dict(map(tuple, statuses)), "effects, each once": effects}


def _wrong_runs(connection: Connection, number_of_runs: int) -> dict[str, Any]:
    rows = connection.execute(text("SELECT id, status FROM runs WHERE id LIKE 'marathon-%'"))
    found = dict(map(tuple, rows))
    wrong = [
        f"{run_id(number)} ({flow_of(number).name}): {found.get(run_id(number), 'is not there')}"
        for number in range(number_of_runs)
        if found.get(run_id(number)) != status_of(number)
    ]
    return {f"{len(wrong)} runs that ended otherwise": wrong[:SHOWN]} if wrong else {}


def _most_under_way(connection: Connection, workflow: str) -> int:
    """How many runs of a workflow were at work at once, at most: an end is told before its slot is free.

    From their first operation on: a claim says that they began as it was asked for, before it waited for others'.
    """
    query = text("""
        SELECT (SELECT min(history.started_at) FROM history WHERE history.run = runs.id) AS began_at, ended_at
        FROM runs WHERE workflow = :workflow AND ended_at IS NOT NULL
    """)
    changes: list[tuple[int, int]] = []
    for row in connection.execute(query, {"workflow": workflow}):
        if row.began_at is not None:
            changes += [(row.began_at, 1), (row.ended_at, -1)]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def _wrong_effects(connection: Connection, number_of_runs: int) -> dict[str, Any]:
    rows = connection.execute(text("SELECT run, what, count(*) AS number FROM effects GROUP BY run, what"))
    found = Counter({(row.run, row.what): row.number for row in rows})
    expected: Counter[tuple[str, str]] = Counter()
    for number in range(number_of_runs):
        expected.update(expected_effects(number, found))  # `|=` would look through all of them each time
    missing, doubled = expected - found, found - expected
    wrong = {"effects that are missing": missing, "effects that are too many": doubled}
    return {f"{len(which)} {what}": list(which.items())[:SHOWN] for what, which in wrong.items() if which}


async def statements_of_idle_workers(database: Database, seconds: float) -> float:
    """Transactions a second that PostgreSQL counts while nothing happens."""
    query = text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
    await asyncio.sleep(STATISTICS_SECONDS)
    before = await database.read(lambda connection: connection.scalar(query))
    await asyncio.sleep(seconds)
    after = await database.read(lambda connection: connection.scalar(query))
    return float(after - before) / seconds


async def statements_of_an_idle_engine(url: str, seconds: float) -> float:
    """Statements a second on all connections of an engine to which nothing happens (SQLite)."""
    with counted_statements() as counted:
        async with Engine.open(url, WORKFLOWS):
            await asyncio.sleep(1.0)  # it has begun
            counted.clear()
            await asyncio.sleep(seconds)
            return len(counted) / seconds


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Every statement on SQLite connections that are made meanwhile."""
    statements: list[str] = []
    connect = sqlite_adapter._connect

    def counting(*args: Any, **options: Any) -> sqlite3.Connection:
        raw = connect(*args, **options)
        raw.set_trace_callback(statements.append)
        return raw

    sqlite_adapter._connect = counting
    try:
        yield statements
    finally:
        sqlite_adapter._connect = connect
