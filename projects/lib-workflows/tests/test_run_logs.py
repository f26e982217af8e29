"""What runs log is kept with them: once, in order, without secrets, in bounds, and no run waits for it."""

import asyncio
import logging
import threading
from datetime import timedelta

import pytest
from flows import address_changed
from scenarios import allow_for_the_end

from lib_events.testing import wait_until
from lib_workflows import Backoff, Context, Engine, current_step, run_logs, step, workflow
from lib_workflows.reading import queries
from lib_workflows.runs import rewind
from lib_workflows.tables import run_logs as table
from lib_workflows.testing import crashing_engine

logger = logging.getLogger("shop.orders")
elsewhere = logging.getLogger("elsewhere")


@pytest.fixture(autouse=True)
def what_is_logged_is_let_through():
    for name in (logger.name, elsewhere.name):
        logging.getLogger(name).setLevel(logging.INFO)


@step
async def in_the_loop(number: int) -> int:
    logger.info("in the loop with %d", number)
    await asyncio.create_task(of_its_own(number))
    return number


async def of_its_own(number: int) -> None:
    logger.info("in a task of its own with %d", number)


@step
def in_a_thread(number: int) -> int:
    logger.warning("in a thread with %d", number, extra={"api_key": "geheim", "order": "o-1"})
    return number


@step(retries=1, backoff=Backoff(initial=timedelta(0)))
async def fails_once() -> None:
    attempt = current_step().attempt
    logger.info("attempt %d", attempt)
    if attempt == 1:
        raise ValueError("once")


def in_a_transaction(connection, number: int) -> int:
    logger.info("in a transaction with %d", number)
    return number


async def undo(result: int | None, number: int) -> None:
    logger.info("undone")


@workflow(name="logging")
async def logs(ctx: Context) -> str:
    """Log everywhere, before and after a wait."""
    logger.info("begins")
    await ctx.gather(ctx.step(in_the_loop, 1), ctx.step(in_a_thread, 2))
    await ctx.transaction(in_a_transaction, 3)
    logger.info("waits")
    address = await ctx.wait_signal(address_changed)
    logger.info("goes to %s", address)
    await ctx.step(fails_once)
    logger.info("ends")
    return address


@workflow(name="undoing")
async def undoes(ctx: Context) -> None:
    """Fail after a step, so that it is undone."""
    await ctx.step(in_the_loop, 1, undo=undo)
    try:
        int("password=geheim")
    except ValueError:
        logger.exception("it goes wrong")
        raise


@workflow(name="verbose")
async def verbose(ctx: Context, count: int) -> None:
    """Log so many lines, then one from a step."""
    for number in range(count):
        logger.info("line %d", number)
    await ctx.step(in_the_loop, count)


@workflow(name="saying")
async def says(ctx: Context, text: str) -> None:
    """Log a text."""
    logger.info(text)


WORKFLOWS = [logs, undoes, verbose, says]
OF_THE_WORKFLOW = ["begins", "waits", "goes to Elm Street", "ends"]
BEFORE_THE_SIGNAL = {
    (None, None, "begins"),
    ("1/1/1", 1, "in the loop with 1"),
    ("1/1/1", 1, "in a task of its own with 1"),
    ("1/2/1", 1, "in a thread with 2 api_key=[hidden] order=o-1"),
    ("2", 1, "in a transaction with 3"),
    (None, None, "waits"),
}


@pytest.fixture
async def engine(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        yield engine


async def lines_of(engine, run_id, **options):
    return (await engine.database.read(lambda c: queries.list_logs(c, run_id, **options))).items


async def said(engine, run_id):
    return [(line.operation, line.attempt, line.message) for line in await lines_of(engine, run_id)]


async def until_said(engine, run_id, message):
    async def is_said():
        return message in [line.message for line in await lines_of(engine, run_id)]

    await wait_until(is_said)


async def ended(engine, flow, *args, **options):
    handle = await engine.start(flow, *args, **options)
    await asyncio.wait_for(engine.results.wait(handle.id), 30)
    return handle.id


async def test_each_line_is_kept_with_where_it_was_logged(engine):
    handle = await engine.start(logs)
    await until_said(engine, handle.id, "waits")
    assert set(await said(engine, handle.id)) == BEFORE_THE_SIGNAL
    await handle.signal(address_changed, "Elm Street")
    await handle.result(30)
    # The last line is there when the end is told.
    assert (await said(engine, handle.id))[-4:] == [
        (None, None, "goes to Elm Street"),
        ("4", 1, "attempt 1"),
        ("4", 2, "attempt 2"),
        (None, None, "ends"),
    ]
    lines = await lines_of(engine, handle.id)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert {(line.logger, line.level) for line in lines} == {("shop.orders", "info"), ("shop.orders", "warning")}
    assert len(await lines_of(engine, handle.id, after=len(lines) - 2)) == 2


async def test_nothing_is_logged_twice_when_a_run_is_replayed(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = await engine.start(logs, id="replayed")
        await until_said(engine, handle.id, "waits")
    for _ in range(2):
        async with Engine.open(database_url, WORKFLOWS) as engine:
            assert set(await said(engine, "replayed")) == BEFORE_THE_SIGNAL
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = engine.handle("replayed", logs)
        await handle.signal(address_changed, "Elm Street")
        await handle.result(30)
        messages = [message for _, _, message in await said(engine, "replayed")]
    assert len(messages) == len(set(messages)) == len(BEFORE_THE_SIGNAL) + 4


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_anywhere_leaves_no_line_of_the_workflow_twice(database_url, after, crash_places):
    options = {"after": after, "lease_seconds": 0.5}
    for crash_at in crash_places.of_about(12):
        run_id = f"crashed-{crash_at}"
        async with crashing_engine(database_url, WORKFLOWS, crash_at=crash_at, **options) as (engine, database):
            playing = asyncio.ensure_future(play(engine, run_id))
            dying = asyncio.ensure_future(database.crashed.wait())
            await asyncio.wait([playing, dying], return_when=asyncio.FIRST_COMPLETED)
            crashed = database.crashed.is_set()
            for task in (playing, dying):
                task.cancel()
            await asyncio.wait([playing, dying])
        async with Engine.open(database_url, WORKFLOWS, lease_seconds=0.5) as engine:
            await play(engine, run_id)
            of_the_workflow = [message for operation, _, message in await said(engine, run_id) if operation is None]
            # The last lines before a crash may be lost; what is kept is kept once, and in order.
            assert of_the_workflow == [message for message in OF_THE_WORKFLOW if message in of_the_workflow]
        if not crashed:
            break
    assert crash_at > 5
    assert of_the_workflow == OF_THE_WORKFLOW


async def play(engine, run_id):
    handle = await engine.start(logs, id=run_id)
    run = await engine.database.read(queries.get_run, run_id)
    if run.status != "completed":
        await allow_for_the_end(handle.signal(address_changed, "Elm Street"))
    await handle.result(30)


async def test_what_is_logged_outside_runs_costs_nothing_and_is_not_kept(engine):
    elsewhere.info("before")
    handle = await engine.start(logs)
    elsewhere.info("beside")
    await until_said(engine, handle.id, "waits")
    kept = await engine.database.read(lambda c: list(c.execute(table.select())))
    assert {row.run for row in kept} == {handle.id}
    assert not [row for row in kept if row.logger == elsewhere.name]


async def test_secrets_are_hidden_also_in_exceptions(engine):
    run_id = await ended(engine, undoes)
    lines = await lines_of(engine, run_id)
    (error,) = [line for line in lines if line.level == "error"]
    assert "Traceback" in error.message
    assert "password=[hidden]" in error.message
    assert not [line for line in lines if "geheim" in line.message]
    assert ("1/undo", 1, "undone") in await said(engine, run_id)


async def test_a_run_keeps_so_many_lines_and_says_that_there_were_more(engine, monkeypatch):
    monkeypatch.setattr(run_logs, "LINES_OF_A_RUN", 10)
    within, beyond = await ended(engine, verbose, 8), await ended(engine, verbose, 30)
    assert [message for _, _, message in await said(engine, within)][-1] == "in a task of its own with 8"
    lines = await lines_of(engine, beyond)
    assert [line.message for line in lines[:-1]] == [f"line {number}" for number in range(10)]
    assert lines[-1].message == run_logs.FULL


async def test_a_run_that_comes_back_does_not_get_another_share(database_url, monkeypatch):
    monkeypatch.setattr(run_logs, "LINES_OF_A_RUN", 5)
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = await engine.start(logs, id="full")
        await until_said(engine, handle.id, run_logs.FULL)
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = engine.handle("full", logs)
        await handle.signal(address_changed, "Elm Street")
        await handle.result(30)
        assert len(await lines_of(engine, "full")) == 6


def handled(engine, run_id, message, *args):
    """Give the engine's handler a record as one of its runs would make it, past the handlers of the tests' own."""
    place = run_logs.Place(engine.residence.logs.of_run(run_id, 1), "9", 1)
    with run_logs.logged_at(place):
        return engine.residence.logs.handle(logging.makeLogRecord({"msg": message, "args": args, "name": "odd"}))


@pytest.mark.parametrize(
    ("text", "kept"), [("half \ud800 and \0", "half \\ud800 and \\0"), ("100 %", "100 %"), ("", "")], ids=ascii
)
async def test_any_text_can_be_kept(engine, text, kept):
    run_id = await ended(engine, says, "first")
    assert handled(engine, run_id, text)
    await engine.residence.logs.settle()
    assert [message for _, _, message in await said(engine, run_id)] == ["first", kept]


async def test_a_long_message_is_cut_after_its_secrets_are_hidden(engine):
    run_id = await ended(engine, says, "ä" * (run_logs.MESSAGE_BYTES // 2 - 5) + " Bearer geheim-geheim-geheim")
    ((_, _, message),) = await said(engine, run_id)
    assert len(message.encode()) <= run_logs.MESSAGE_BYTES
    assert message.endswith(run_logs.CUT)
    assert "geheim" not in message


async def test_a_line_that_cannot_be_written_does_not_fail_whoever_logs(engine, capsys):
    run_id = await ended(engine, says, "first")
    assert handled(engine, run_id, "%d is no number", "this")
    await engine.residence.logs.settle()
    assert len(await lines_of(engine, run_id)) == 1
    assert "Logging error" in capsys.readouterr().err  # told as the standard library tells it


async def test_lines_from_many_threads_keep_their_numbers_apart(engine):
    run_id = await ended(engine, says, "first")
    log = engine.residence.logs.of_run(run_id, 1)

    def shout(name):
        with run_logs.logged_at(run_logs.Place(log, "1", 1)):
            for number in range(50):
                logger.info("%s %d", name, number)

    threads = [threading.Thread(target=shout, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await engine.residence.logs.settle()
    found = await lines_of(engine, run_id, limit=1_000)
    assert len(found) == 1 + 8 * 50
    assert len({line.message for line in found}) == len(found)


async def test_more_lines_than_can_be_saved_are_lost_and_that_is_told(engine, monkeypatch, caplog):
    run_id = await ended(engine, says, "first")
    monkeypatch.setattr(run_logs, "UNSAVED_LINES", 20)
    with run_logs.logged_at(run_logs.Place(engine.residence.logs.of_run(run_id, 1))):
        for number in range(50):
            logger.info("line %d", number)
        await engine.residence.logs.settle()  # what it says of this is no line of the run
    assert len(await lines_of(engine, run_id)) == 21
    assert "30 lines that runs logged are lost" in caplog.text


async def test_warnings_of_a_program_without_configured_logging_are_still_written(sqlite_url, monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    async with Engine.open(sqlite_url, []):
        logging.getLogger("somebody").warning("look out")
        assert capsys.readouterr().err == "look out\n"
        logging.getLogger().handlers.append(logging.NullHandler())
        logging.getLogger("somebody").warning("configured")
        assert capsys.readouterr().err == ""


async def test_an_engine_that_is_closed_hears_nothing(database_url):
    before = list(logging.getLogger().handlers)
    async with Engine.open(database_url, WORKFLOWS):
        assert len(logging.getLogger().handlers) == len(before) + 1
    assert logging.getLogger().handlers == before


async def test_pages_of_lines_follow_one_another(engine):
    run_id = await ended(engine, verbose, 7)
    found, cursor = [], None
    while True:
        page = await engine.database.read(queries.list_logs, run_id, cursor, 3)
        found += [line.number for line in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == list(range(1, 10))


async def test_a_retried_run_goes_on_in_the_same_log(engine):
    run_id = await ended(engine, undoes)
    before = len(await lines_of(engine, run_id))
    await engine.database.transact(rewind.retry, run_id)
    await asyncio.wait_for(engine.results.wait(run_id), 30)
    assert len(await lines_of(engine, run_id)) > before
