"""Events that start one run together: so many of a key, or those of a time, each in exactly one run, in their order."""

from datetime import timedelta

import pytest
from flows import Order, PaymentCaptured
from gathering_flows import SECONDS, Paid, Payment, gathering, inputs, paid, publish, settle, settle_by_merchant
from sqlalchemy import select

from lib_events.event import Event
from lib_events.event_log import head
from lib_events.testing import wait_until
from lib_workflows import Batch, Context, Engine, Queue, workflow
from lib_workflows.errors import PayloadInvalid
from lib_workflows.events import gathering as gathering_module
from lib_workflows.events import matcher, matching
from lib_workflows.events.waits import oldest_look_back
from lib_workflows.tables import batches, runs
from lib_workflows.testing import environment
from lib_workflows.values.codec import LIMIT_BYTES, decode_json

SOON = timedelta(seconds=0.5)


async def are(engine, expected, name="settle"):
    return await inputs(engine, name) == expected


async def gather(engine, count):
    async def have():
        return await gathering(engine) == count

    await wait_until(have)


@pytest.fixture
def unpolled(monkeypatch):
    """What happens in time happens because somebody was woken, or had a timer."""
    monkeypatch.setattr(matcher, "POLL_SECONDS", 600.0)


async def rows(engine, *columns):
    found = select(*columns or [runs])
    return await engine.database.read(lambda connection: connection.execute(found).all())


async def test_a_run_starts_with_so_many_events_and_the_rest_when_their_time_has_come(database_url):
    async with environment(database_url, [settle]) as env:
        await publish(env.engine, *(paid(number) for number in range(7)))
        await wait_until(lambda: are(env.engine, [[0, 1, 2], [3, 4, 5]]))
        await env.skip(SECONDS - timedelta(seconds=1))
        assert await are(env.engine, [[0, 1, 2], [3, 4, 5]])
        await env.skip(timedelta(seconds=2))
        assert await are(env.engine, [[0, 1, 2], [3, 4, 5], [6]])
        assert await gathering(env.engine) == 0
        ended = await rows(env.engine, runs.c.status, runs.c.output)
        assert {(row.status, row.output) for row in ended} == {
            ("completed", "[0,1,2]"), ("completed", "[3,4,5]"), ("completed", "[6]")
        }  # fmt: skip


async def test_the_time_counts_from_the_first_event_of_each_batch(database_url):
    async with environment(database_url, [settle]) as env:
        await publish(env.engine, paid(0))
        await env.skip(timedelta(seconds=3))
        await publish(env.engine, paid(1))
        await env.skip(timedelta(seconds=3))
        assert await are(env.engine, [[0, 1]])
        await publish(env.engine, paid(2))
        await env.skip(timedelta(seconds=3))
        assert await are(env.engine, [[0, 1]])
        await env.skip(timedelta(seconds=3))
        assert await are(env.engine, [[0, 1], [2]])


async def test_the_events_of_each_key_gather_for_themselves_in_the_order_of_the_log(database_url):
    merchants = ["a", "b", "", None, "a", "b", "a", "null", "a", "", "b", None]
    async with environment(database_url, [settle_by_merchant]) as env:
        await publish(env.engine, *(paid(number, merchant) for number, merchant in enumerate(merchants)))
        await wait_until(lambda: are(env.engine, [[0, 4, 6], [1, 5, 10]], settle_by_merchant.name))
        await env.skip(SECONDS)
        found = await inputs(env.engine, settle_by_merchant.name)
        assert sorted(found) == [[0, 4, 6], [1, 5, 10], [2, 9], [3, 11], [7], [8]]


async def test_each_workflow_gathers_for_itself_beside_what_every_event_starts(database_url):
    @workflow(name="each", on=Paid)
    async def each(ctx: Context, payment: Payment) -> int:
        return payment.number

    async with environment(database_url, [each, settle, settle_by_merchant]) as env:
        await publish(env.engine, *(paid(number, "ab"[number % 2]) for number in range(6)))
        await wait_until(lambda: are(env.engine, [[0, 1, 2], [3, 4, 5]]))
        await wait_until(lambda: are(env.engine, [[0, 2, 4], [1, 3, 5]], settle_by_merchant.name))
        single = [row.input for row in await rows(env.engine, runs.c.input, runs.c.workflow) if row.workflow == "each"]
        assert sorted(decode_json(text)["number"] for text in single) == list(range(6))


async def test_what_has_gathered_starts_in_time_after_a_restart(database_url, unpolled):
    @workflow(name="settle", on=Paid, batch=Batch(events=100, timeout=SOON))
    async def soon(ctx: Context, payments: list[Payment]) -> None: ...

    async with Engine.open(database_url, [soon]) as engine:
        await publish(engine, paid(0), paid(1))
        await gather(engine, 2)
        await engine.abandon()
    async with Engine.open(database_url, [soon]) as engine:
        await wait_until(lambda: are(engine, [[0, 1]]))


@pytest.mark.postgresql
async def test_what_one_worker_has_gathered_another_one_starts_in_time(postgresql_url, unpolled):
    @workflow(name="settle", on=Paid, batch=Batch(events=100, timeout=2 * SOON))
    async def soon(ctx: Context, payments: list[Payment]) -> None: ...

    first, second = Engine.open(postgresql_url, [soon]), Engine.open(postgresql_url, [soon])
    async with first as dies, second as engine:
        await publish(dies, paid(0))
        await publish(engine, paid(1))
        await gather(engine, 2)
        await dies.abandon()
        await wait_until(lambda: are(engine, [[0, 1]]))


async def test_a_batch_starts_before_it_is_larger_than_an_input_may_be(database_url, monkeypatch):
    monkeypatch.setattr(gathering_module, "LIMIT_BYTES", 64)  # two payloads of 29 bytes and 3 between and around them
    async with environment(database_url, [settle]) as env:
        await publish(env.engine, *(paid(number) for number in range(5)))
        await wait_until(lambda: are(env.engine, [[0, 1], [2, 3]]))
        await publish(env.engine, paid(6, "m" * 100), paid(7, "m" * 100))  # each larger than that
        await wait_until(lambda: are(env.engine, [[0, 1], [2, 3], [4], [6]]))
        await env.skip(SECONDS)
        assert await are(env.engine, [[0, 1], [2, 3], [4], [6], [7]])


async def test_an_input_of_gathered_events_is_never_too_large_to_be_read(database_url):
    text = "ü" * 250_000

    @workflow(name="settle", on=Paid, batch=Batch(events=100, timeout=SECONDS))
    async def measure(ctx: Context, payments: list[Payment]) -> int:
        return sum(len(payment.merchant or "") for payment in payments)

    async with environment(database_url, [measure]) as env:
        await publish(env.engine, *(paid(number, text) for number in range(10)))
        await wait_until(lambda: are(env.engine, [list(range(8))]))
        await env.skip(SECONDS)
        found = await rows(env.engine, runs.c.input, runs.c.output, runs.c.look_back_position)
        assert sorted(int(row.output) for row in found) == [500_000, 2_000_000]
        assert all(len(row.input.encode()) <= LIMIT_BYTES for row in found)


@pytest.mark.parametrize("bound", ["START_BATCHES", "START_EVENTS", "START_BYTES"])
async def test_however_many_batches_are_due_each_transaction_starts_a_few(database_url, monkeypatch, bound):
    monkeypatch.setattr(gathering_module, bound, 2)
    async with environment(database_url, [settle_by_merchant]) as env:
        await publish(env.engine, *(paid(number, f"merchant-{number % 20}") for number in range(40)))
        await gather(env.engine, 40)
        await env.skip(SECONDS)
        found = await inputs(env.engine, settle_by_merchant.name)
        assert sorted(found) == [[number, number + 20] for number in range(20)]


async def test_events_that_are_matched_again_for_others_who_wait_are_gathered_once(database_url, monkeypatch):
    """More runs wait for an event than one transaction serves: the cursor stays, and the same events come again."""
    monkeypatch.setattr(matching, "SENT_LIMIT", 1)

    @workflow(name="waiting")
    async def waiting(ctx: Context) -> int:
        return (await ctx.wait_event(Paid, {"number": 2})).number

    async with Engine.open(database_url, [settle, waiting]) as engine:
        handles = [await engine.start(waiting) for _ in range(3)]
        await wait_until(lambda: all_wait(engine, 3))
        await publish(engine, *(paid(number) for number in range(5)))
        assert [await handle.result(10) for handle in handles] == [2, 2, 2]
        await wait_until(lambda: are(engine, [[0, 1, 2]]))
        await gather(engine, 2)


async def all_wait(engine, count):
    return [row.status for row in await rows(engine, runs.c.status)] == count * ["waiting"]


@pytest.mark.parametrize(
    ("principals", "expected"),
    [("aaa", "a"), ("aab", None), ("aba", None), (("a", "a", None), None), ((None, "a", "a"), None)],
)
async def test_a_run_acts_for_nobody_unless_all_of_its_events_are_of_one_principal(sqlite_url, principals, expected):
    async with Engine.open(sqlite_url, [settle]) as engine:
        for number, principal in enumerate(principals):
            await publish(engine, paid(number, principal=principal))
        await wait_until(lambda: are(engine, [[0, 1, 2]]))
        assert [row.principal for row in await rows(engine, runs.c.principal)] == [expected]


async def test_a_run_goes_on_with_the_story_of_its_first_event_and_looks_back_to_its_last(database_url):
    async with Engine.open(database_url, [settle]) as engine:
        await publish(engine, *(paid(number, correlation=f"story-{number}") for number in range(3)))
        await wait_until(lambda: are(engine, [[0, 1, 2]]))
        [run] = await rows(engine)
        assert (run.correlation_id, run.causation_id, run.look_back_position) == ("story-0", "paid-0", 3)


async def test_the_log_keeps_what_a_run_may_look_back_to_before_it_has_started(database_url):
    async with Engine.open(database_url, [settle]) as engine:
        await publish(engine, paid(0), paid(1))
        await gather(engine, 2)
        await publish(engine, Event.of(PaymentCaptured, Order(id="o", amount=1), source="/shop"))
        assert await engine.database.read(oldest_look_back) == 2
        assert (await engine.database.read(head)).position >= 2


async def test_a_payload_that_is_not_what_the_workflow_takes_fails_the_run_and_is_named(database_url):
    class Marked(Payment):
        mark: str

    @workflow(name="settle", on=Paid, batch=Batch(events=2, timeout=SECONDS))
    async def strict(ctx: Context, payments: list[Marked]) -> None: ...

    async with Engine.open(database_url, [strict]) as engine:
        await publish(engine, paid(0), paid(1))
        await wait_until(lambda: are(engine, [[0, 1]]))
        [run] = await rows(engine)
        with pytest.raises(PayloadInvalid, match=r"input\.0\.mark"):
            await engine.handle(run.id, strict).result(10)


async def test_runs_take_turns_by_the_key_by_which_their_events_gather(sqlite_url):
    def declared(key):
        queue = Queue("settling", key=key, per_key=1)

        @workflow(name=f"by-{key}", on=Paid, queue=queue, batch=Batch(events=2, timeout=SECONDS, key="merchant"))
        async def settling(ctx: Context, payments: list[Payment]) -> None: ...

        return settling

    for key, expected in (("merchant", "a"), ("number", None)):
        flow = declared(key)
        async with Engine.open(sqlite_url, [flow]) as engine:
            await publish(engine, *(paid(f"1{number}{len(key)}", "a") for number in range(2)))
            await wait_until(lambda engine=engine, flow=flow: started(engine, flow))
            found = await rows(engine, runs.c.workflow, runs.c.queue_key)
            assert {row.queue_key for row in found if row.workflow == flow.name} == {expected}


async def started(engine, flow):
    return await inputs(engine, flow.name)


def other(batch, *, version=1, queue="default", single=False):
    if single:

        @workflow(name="settle", version=version, queue=queue, on=Paid)
        async def one(ctx: Context, payment: Payment) -> int:
            return payment.number

        return one

    @workflow(name="settle", version=version, queue=queue, on=Paid if batch else (), batch=batch)
    async def many(ctx: Context, payments: list[Payment]) -> list[int]:
        return [payment.number for payment in payments]

    return many


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([other(Batch(events=2, timeout=SECONDS), version=2, queue="new")], (2, "new")),
        ([other(Batch(events=3, timeout=2 * SECONDS), version=2, queue="new")], (2, "new")),
        ([other(Batch(events=3, timeout=SECONDS, key="merchant"))], (1, "default")),
        ([settle, other(None, version=2, queue="new", single=True)], (1, "default")),
        ([settle, other(None, version=2, queue="new")], (1, "default")),
    ],
    ids=["fewer", "longer", "by key", "one by one", "not at all"],
)
async def test_what_has_gathered_starts_at_once_when_it_would_gather_otherwise(database_url, unpolled, after, expected):
    async with Engine.open(database_url, [settle]) as engine:
        await publish(engine, paid(0), paid(1))
        await gather(engine, 2)
    async with Engine.open(database_url, after) as engine:
        await wait_until(lambda: are(engine, [[0, 1]]))
        [run] = await rows(engine)
        assert (run.version, run.queue) == expected
        assert await rows(engine, batches.c.run) == []


async def test_what_gathers_goes_on_under_the_next_version_and_starts_as_that(database_url):
    same = other(Batch(events=3, timeout=SECONDS), version=2, queue="new")
    async with Engine.open(database_url, [settle]) as engine:
        await publish(engine, paid(0), paid(1))
        await gather(engine, 2)
    async with Engine.open(database_url, [settle, same]) as engine:
        assert await gathering(engine) == 2
        await publish(engine, paid(2))
        await wait_until(lambda: are(engine, [[0, 1, 2]]))
        [run] = await rows(engine)
        assert (run.version, run.queue) == (2, "new")
        assert await engine.handle(run.id, same).result(10) == [0, 1, 2]
