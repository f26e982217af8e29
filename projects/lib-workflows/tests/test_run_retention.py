"""Runs that have ended go when they are old enough, whole, in small pieces, and never one that somebody needs."""

import asyncio
import json
import logging
import time
from datetime import timedelta
from threading import Thread

import asyncpg
import flows
import pytest
from flows import address_changed, doubling, everything, forever
from scenarios import play_everything
from sqlalchemy import func, insert, select, text, update

from lib_events.clock import SystemClock
from lib_events.testing import FakeClock, wait_until
from lib_workflows import Context, Engine, RetentionPolicy, workflow
from lib_workflows.errors import RunNotFound, UpdateNotFound
from lib_workflows.keeping import pruning
from lib_workflows.keeping.archive import FolderArchive
from lib_workflows.keeping.retention import RunRetention
from lib_workflows.keeping.sizes import workflow_sizes
from lib_workflows.reading import queries
from lib_workflows.runs import commands, results, rewind
from lib_workflows.tables import batches, gathered, metadata, pruned_runs, runs
from lib_workflows.testing import CrashingDatabase, replay_history

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@workflow(name="parent")
async def parent(ctx: Context, numbers: list[int]) -> int:
    """Double numbers by children, then wait to be released."""
    doubled = await ctx.gather(*(ctx.child(doubling, number) for number in numbers))
    await ctx.wait_signal(address_changed)
    return sum(doubled)


@workflow(name="failing")
async def failing(ctx: Context) -> None:
    """Fail."""
    raise ValueError("as told")


@workflow(name="chatty")
async def chatty(ctx: Context, shape: tuple[int, int]) -> int:
    """Leave many rows, each of some size; fail when they have none."""
    count, size = shape
    for number in range(count):
        await ctx.set_view(f"view-{number}", "x" * size)
    if not size:
        raise ValueError("as told")
    return count


WORKFLOWS = [doubling, everything, forever, parent, failing, chatty]


@pytest.fixture
async def engine(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.database.transact(flows.make_stock)
        yield engine


@pytest.fixture
def clock():
    return FakeClock(SystemClock().micros())


async def ended(engine, flow, *args, **options):
    handle = await engine.start(flow, *args, **options)
    await asyncio.wait_for(engine.results.wait(handle.id), 30)
    return handle.id


async def kept(engine):
    return sorted(await engine.database.read(queries.list_run_ids, None, 1_000))


async def rows_left(engine, run_id):
    """How many rows of each table still speak of a run."""

    def count(connection):
        found = {}
        for table in metadata.sorted_tables:
            column = table.c.id if table is runs else table.c.get("run")
            if column is not None:
                found[table.name] = connection.scalar(select(func.count()).where(column == run_id))
        return {name: number for name, number in found.items() if number}

    return await engine.database.read(count)


class Watched(CrashingDatabase):
    """A database that says how many rows each transaction of retention takes, and may die at one."""

    def __init__(self, inner, *, crash_at=None, after=False):
        super().__init__(inner, crash_at=crash_at, after=after)
        self.pieces = []

    async def transact(self, function, *args, fence=None):
        value = await super().transact(function, *args, fence=fence)
        if isinstance(value, pruning.Piece):
            self.pieces.append(value)
        return value


async def test_a_run_goes_with_everything_under_it_when_it_is_old_enough(engine, clock):
    await play_everything(engine)
    retention = RunRetention(engine.database, RetentionPolicy(age=30 * DAY), clock=clock)
    clock.advance(30 * DAY - HOUR)
    assert await retention.prune() == 0
    before = await rows_left(engine, "the-run")
    assert {"runs", "history", "approvals", "views"} <= set(before)
    clock.advance(2 * HOUR)
    assert await retention.prune() == 4  # its children, too
    assert await rows_left(engine, "the-run") == {}
    assert await engine.database.read(queries.get_run, "the-run") is None
    with pytest.raises(RunNotFound):
        await engine.database.transact(rewind.retry, "the-run")


async def test_what_is_remembered_of_a_result_is_forgotten_before_its_id_is_free_again(engine, clock, monkeypatch):
    assert pruning.YOUNGEST.total_seconds() > results.REMEMBERED_SECONDS
    passed = []
    monkeypatch.setattr(results, "monotonic", lambda: time.monotonic() + sum(passed))
    assert await (await engine.start(doubling, 1, id="again")).result(10) == 2
    clock.advance(31 * DAY)
    passed.append(pruning.YOUNGEST.total_seconds())
    assert await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune() == 1
    handle = await engine.start(doubling, 2, id="again", delay=HOUR)
    with pytest.raises(TimeoutError):
        await handle.result(0.1)


async def test_no_table_that_speaks_of_runs_is_forgotten(engine, clock):
    run_id = await ended(engine, doubling, 1)
    parts = [table for table, _, _ in pruning.PARTS]
    others = (pruned_runs, batches, gathered)  # what gathers is for a run that is to come
    assert [table for table in metadata.sorted_tables if "run" in table.c and table not in others] == sorted(
        parts, key=metadata.sorted_tables.index
    )

    def leave_a_row_in_each(connection):
        for table in parts:
            made = {column.name: column.type.python_type(7) for column in table.columns if not column.nullable}
            connection.execute(insert(table).values(made | {"run": run_id}))

    await engine.database.transact(leave_a_row_in_each)
    clock.advance(31 * DAY)
    assert len(await rows_left(engine, run_id)) == 1 + len(parts)
    assert await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune() == 1
    assert await rows_left(engine, run_id) == {}


async def test_what_has_not_ended_stays_however_old_it_is(engine, clock):
    resting = (await engine.start(forever)).id
    queued = (await engine.start(doubling, 1, delay=timedelta(days=900))).id
    parked = await ended(engine, doubling, 1)

    def park(connection):
        connection.execute(update(runs).where(runs.c.id == parked).values(status="nondeterministic", ended_at=None))

    await engine.database.transact(park)
    gone = await ended(engine, doubling, 2)
    clock.advance(800 * DAY)
    assert await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune() == 1
    assert await kept(engine) == sorted([resting, queued, parked])
    assert gone not in await kept(engine)


async def test_children_stay_until_their_parent_has_ended_and_go_before_it(engine, clock):
    handle = await engine.start(parent, [1, 2, 3])

    async def children_ended():
        found = await engine.database.read(queries.count_runs, queries.RunFilter(parent=handle.id))
        return found == {"completed": 3}

    await wait_until(children_ended)
    retention = RunRetention(engine.database, RetentionPolicy(), clock=clock)
    clock.advance(31 * DAY)
    assert await retention.prune() == 0
    await handle.signal(address_changed, "now")
    assert await handle.result(30) == 12
    assert await retention.prune() == 4
    assert await kept(engine) == []


async def test_a_parent_stays_while_a_child_runs_again(engine, clock):
    parent_id = await ended(engine, doubling, 1)
    child_id = await ended(engine, failing)
    await engine.database.transact(
        lambda c: c.execute(update(runs).where(runs.c.id == child_id).values(parent=parent_id))
    )
    clock.advance(31 * DAY)
    await engine.database.transact(
        lambda c: c.execute(update(runs).where(runs.c.id == child_id).values(status="waiting", ended_at=None))
    )
    assert await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune() == 0
    assert await kept(engine) == sorted([parent_id, child_id])


async def test_failed_runs_may_be_kept_longer(engine, clock):
    failed = await ended(engine, failing)
    await ended(engine, doubling, 1)
    retention = RunRetention(engine.database, RetentionPolicy(age=DAY, failed_age=10 * DAY), clock=clock)
    clock.advance(2 * DAY)
    assert await retention.prune() == 1
    assert await kept(engine) == [failed]
    clock.advance(9 * DAY)
    assert await retention.prune() == 1


async def test_at_most_so_many_are_kept_and_always_those_of_the_last_hour(engine, clock):
    ids = [await ended(engine, doubling, number) for number in range(6)]
    failed = await ended(engine, failing)
    retention = RunRetention(engine.database, RetentionPolicy(runs=3), clock=clock)
    assert await retention.prune() == 0
    clock.advance(2 * HOUR)
    assert await retention.prune() == 4
    assert await kept(engine) == sorted([*ids[4:], failed])


async def test_each_transaction_takes_a_bounded_piece(engine, clock, monkeypatch):
    monkeypatch.setattr(pruning, "PIECE_ROWS", 7)
    monkeypatch.setattr(pruning, "PIECE_BYTES", 1_000)
    monkeypatch.setattr(pruning, "LOOK_RUNS", 2)
    small = [await ended(engine, doubling, number) for number in range(5)]
    large = await ended(engine, chatty, (10, 400))
    clock.advance(31 * DAY)
    watched = Watched(engine.database)
    assert await RunRetention(watched, RetentionPolicy(), clock=clock).prune() == 6
    assert all(0 < piece.rows <= 7 for piece in watched.pieces)
    # Ten views of 400 bytes, and ten rows of history that name them: no more than three fit into one piece.
    assert len(watched.pieces) >= 2 * 10 / 3
    for run_id in [*small, large]:
        assert await rows_left(engine, run_id) == {}
    assert await engine.database.read(lambda c: c.scalar(select(func.count()).select_from(pruned_runs))) == 0


async def test_a_run_of_which_a_part_is_gone_hears_no_command_and_its_id_is_not_free(engine, clock, monkeypatch):
    monkeypatch.setattr(pruning, "PIECE_ROWS", 2)
    run_id = await ended(engine, chatty, (5, 0), id="long")
    clock.advance(31 * DAY)
    assert await engine.database.transact(pruning.mark, [run_id], clock.micros()) == 1
    piece = await engine.database.read(pruning.next_piece)
    assert (piece.rows, list(piece.runs)) == (2, [])
    await engine.database.transact(pruning.take_away, piece)
    for command in (rewind.retry, rewind.fork, commands.cancel):
        with pytest.raises(RunNotFound):
            await engine.database.transact(command, run_id)
    assert (await engine.start(chatty, (5, 0), id="long")).id == run_id  # still the same run
    assert await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune() == 1
    assert await rows_left(engine, run_id) == {}
    assert await ended(engine, chatty, (1, 1), id="long") == run_id  # and now another one
    assert (await engine.database.read(queries.get_run, run_id)).output == 1


async def test_a_leader_that_slept_takes_nothing_from_a_new_run_of_the_same_id(engine, clock):
    run_id = await ended(engine, chatty, (5, 1), id="twice")
    clock.advance(31 * DAY)
    await engine.database.transact(pruning.mark, [run_id], clock.micros())
    stale = await engine.database.read(pruning.next_piece)
    assert stale.runs == [run_id]
    await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune()
    await ended(engine, chatty, (5, 1), id="twice")
    before = await rows_left(engine, run_id)
    assert (await engine.database.transact(pruning.take_away, stale)).rows == 0
    assert await rows_left(engine, run_id) == before


async def test_a_run_that_was_given_a_new_life_meanwhile_is_not_marked(engine, clock):
    run_id = await ended(engine, failing)
    clock.advance(31 * DAY)
    until = clock.micros() - 30 * DAY // timedelta(microseconds=1)
    (found,) = await engine.database.read(pruning.look, "failed", until, (-1, ""))
    assert found.is_free
    await engine.database.transact(rewind.retry, run_id)
    assert await engine.database.transact(pruning.mark, [run_id], until) == 0


@pytest.mark.postgresql
@pytest.mark.parametrize("named", [{"id": "again"}, {"idempotency_key": "again"}], ids=["by its id", "by its key"])
async def test_a_start_that_meets_a_run_in_the_moment_it_goes_is_a_new_run(postgresql_url, clock, monkeypatch, named):
    server, _, schema = postgresql_url.rpartition("schema=")
    find, pruned = commands._existing, []

    async def take_away():
        connection = await asyncpg.connect(server.rstrip("?&"))
        pruned.append(await connection.execute(f'DELETE FROM "{schema}".runs'))
        await connection.close()

    def find_once_it_has_gone(*args):
        if not pruned:  # whoever starts stands still meanwhile: the other connection has a thread of its own
            thread = Thread(target=asyncio.run, args=[take_away()])
            thread.start()
            thread.join()
        return find(*args)

    async with Engine.open(postgresql_url, WORKFLOWS, clock=clock) as engine:
        first = await engine.start(doubling, 1, **named)
        assert await first.result(10) == 2
        monkeypatch.setattr(commands, "_existing", find_once_it_has_gone)
        again = await engine.start(doubling, 2, **named)
        run = await engine.database.read(queries.get_run, again.id)
        assert run.input == 2
    assert pruned == ["DELETE 1"]


@pytest.mark.postgresql
async def test_a_run_that_somebody_holds_is_passed_by(postgresql_url, clock):
    async with Engine.open(postgresql_url, WORKFLOWS) as engine:
        run_id = await ended(engine, failing)
        async with engine.database._pool.lend() as borrowed, borrowed.raw.transaction():
            await borrowed.raw.execute("SELECT 1 FROM runs WHERE id = $1 FOR UPDATE", run_id)
            marking = engine.database.transact(pruning.mark, [run_id], clock.micros() * 2)
            assert await asyncio.wait_for(marking, 10) == 0
        assert await engine.database.transact(pruning.mark, [run_id], clock.micros() * 2) == 1


async def test_an_engine_at_work_is_not_disturbed(engine, monkeypatch):
    monkeypatch.setattr(pruning, "PIECE_ROWS", 20)
    old = [handle.id for handle in await engine.start_many(doubling, range(100))]
    await asyncio.gather(*(engine.results.wait(run_id) for run_id in old))
    earlier = {"ended_at": runs.c.ended_at - 31 * DAY // timedelta(microseconds=1)}
    await engine.database.transact(lambda connection: connection.execute(update(runs).values(earlier)))
    watched = Watched(engine.database)
    pruning_them = asyncio.ensure_future(RunRetention(watched, RetentionPolicy()).prune())
    new = []
    while not pruning_them.done():
        handles = await engine.start_many(doubling, range(5))
        assert [await handle.result(30) for handle in handles] == [2 * number for number in range(5)]
        new += [handle.id for handle in handles]
    assert await pruning_them == 100
    assert len(watched.pieces) >= 200 / 20  # each run has two rows or more
    assert max(piece.rows for piece in watched.pieces) <= 20
    assert await kept(engine) == sorted(new)


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_anywhere_archives_at_least_once_and_leaves_nothing_behind(
    database_url, tmp_path, clock, monkeypatch, after
):
    monkeypatch.setattr(pruning, "PIECE_ROWS", 3)
    async with Engine.open(database_url, WORKFLOWS) as engine:
        crash_at, crashed = 0, True
        clock.advance(31 * DAY)
        while crashed:
            crash_at += 1
            ids = [await ended(engine, doubling, 1, id=f"{crash_at}-{n}") for n in range(2)]
            archive = FolderArchive(tmp_path / f"{crash_at}")
            policy = RetentionPolicy(archive=archive)
            dying = Watched(engine.database, crash_at=crash_at, after=after)
            pruning_them = asyncio.ensure_future(RunRetention(dying, policy, clock=clock).prune())
            dead = asyncio.ensure_future(dying.crashed.wait())
            await asyncio.wait([pruning_them, dead], return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
            crashed = dying.crashed.is_set()
            pruning_them.cancel()
            await asyncio.wait([pruning_them])
            await RunRetention(engine.database, policy, clock=clock).prune()
            assert await kept(engine) == []
            assert set(archived(tmp_path / f"{crash_at}")) == set(ids)
    assert crash_at > 3


def archived(folder):
    """The runs of an archive by id, as whoever reads one should: the last line counts, and one that is cut does not."""
    found = {}
    for path in sorted(folder.glob("runs-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                run = json.loads(line)
            except ValueError:
                continue
            found[run["run"]["id"]] = run
    return found


async def test_an_archived_run_is_whole_and_can_be_replayed(engine, tmp_path, clock):
    await play_everything(engine)
    clock.advance(31 * DAY)
    archive = FolderArchive(tmp_path / "archive", clock=clock)
    assert await RunRetention(engine.database, RetentionPolicy(archive=archive), clock=clock).prune() == 4
    run = archived(tmp_path / "archive")["the-run"]
    assert run["ended_at"] is not None
    assert run["views"]
    assert [approval["status"] for approval in run["approvals"]] == ["approved"]
    assert replay_history(everything, {"run": run["run"], "history": run["history"]})
    (path,) = (tmp_path / "archive").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_what_a_crash_cut_off_in_the_archive_does_not_spoil_the_next_line(tmp_path):
    archive = FolderArchive(tmp_path)
    await archive.keep([{"run": {"id": "first"}}])
    (path,) = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('{"run": {"id": "cu')
    await archive.keep([{"run": {"id": "second"}}])
    assert list(archived(tmp_path)) == ["first", "second"]


async def test_nothing_is_deleted_that_could_not_be_archived(engine, clock):
    class Full:
        async def keep(self, exported):
            raise OSError(28, "No space left on device")

    run_id = await ended(engine, doubling, 1)
    clock.advance(31 * DAY)
    with pytest.raises(OSError, match="No space"):
        await RunRetention(engine.database, RetentionPolicy(archive=Full()), clock=clock).prune()
    assert await kept(engine) == [run_id]


@pytest.mark.postgresql
async def test_of_two_workers_one_prunes(postgresql_url, clock, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="lib_workflows.keeping.retention")
    async with Engine.open(postgresql_url, WORKFLOWS) as engine:
        ids = [await ended(engine, doubling, number) for number in range(3)]
    clock.advance(31 * DAY)
    policy = RetentionPolicy(archive=FolderArchive(tmp_path))
    async with (
        Engine.open(postgresql_url, WORKFLOWS, clock=clock, retention=policy) as first,
        Engine.open(postgresql_url, WORKFLOWS, clock=clock, retention=policy),
    ):

        async def all_gone():
            return await kept(first) == []

        await wait_until(all_gone)
    (path,) = tmp_path.iterdir()
    lines = [json.loads(line)["run"]["id"] for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(ids)  # each once


async def test_an_engine_with_a_policy_prunes_by_itself(database_url, clock):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await ended(engine, doubling, 1)
    clock.advance(31 * DAY)
    async with Engine.open(database_url, WORKFLOWS, clock=clock, retention=RetentionPolicy()) as engine:

        async def all_gone():
            return await kept(engine) == []

        await wait_until(all_gone)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"age": timedelta(minutes=5)}, "an hour"), ({"failed_age": timedelta()}, "an hour"), ({"runs": 0}, "1 or more")],
)
def test_a_policy_that_would_take_results_away_from_who_waits_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RetentionPolicy(**options)


async def test_the_size_of_each_workflow_is_counted_on_demand(engine):
    await ended(engine, chatty, (3, 1_000))
    await ended(engine, chatty, (1, 1))
    await ended(engine, failing)
    await engine.start(forever)
    found = {size.workflow: size for size in await engine.database.read(workflow_sizes)}
    assert found["chatty"].runs == {"completed": 2}
    assert found["chatty"].rows == 2 + 4 + 4  # runs, histories, views
    assert 2 * 3_000 < found["chatty"].bytes < 2 * 3_000 + 1_500  # a view is also in the history
    assert found["failing"].runs == {"failed": 1}
    assert await engine.database.read(workflow_sizes, "failing") == [found["failing"]]
    assert await engine.database.read(workflow_sizes, "absent") == []


@pytest.mark.postgresql
async def test_autovacuum_comes_early_to_the_tables_that_are_pruned(postgresql_url):
    query = text("SELECT reloptions FROM pg_class WHERE oid = CAST(:name AS regclass)")
    async with Engine.open(postgresql_url, [doubling]) as engine:
        for name in ("runs", "history", "views"):
            options = await engine.database.read(
                lambda connection, name: connection.scalar(query, {"name": name}), name
            )
            assert options == ["autovacuum_vacuum_scale_factor=0.02"]


async def test_an_order_that_was_pruned_may_be_placed_again(engine, clock):
    first = await ended(engine, doubling, 1, idempotency_key="once")
    assert (await engine.start(doubling, 1, idempotency_key="once")).id == first
    clock.advance(31 * DAY)
    await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune()
    assert (await engine.start(doubling, 1, idempotency_key="once")).id != first


async def test_who_waits_for_an_answer_is_told_when_the_run_has_gone_with_it(engine, clock):
    handle = await engine.start(forever)
    await engine.database.transact(
        lambda c: commands.send_update(c, handle.id, "unheard", "1", update_id="gone-with-its-run")
    )
    waiting = asyncio.ensure_future(engine.results.wait_update("gone-with-its-run"))
    await asyncio.sleep(0)
    await handle.cancel()
    assert await waiting == ("rejected", "the run has cancelled")
    clock.advance(31 * DAY)
    assert await RunRetention(engine.database, RetentionPolicy(), clock=clock).prune() == 1
    for update_id in ("gone-with-its-run", "never-sent"):
        with pytest.raises(UpdateNotFound, match=update_id):
            await engine.results.wait_update(update_id)
