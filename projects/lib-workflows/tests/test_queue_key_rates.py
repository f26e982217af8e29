"""Rates of keys: how fast runs of each key of a queue begin, whatever else limits them and whoever else waits."""

import asyncio
from collections import Counter
from datetime import timedelta
from fractions import Fraction
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queued_flows import Mail, fails, go_on, until, waits
from sqlalchemy import func, select

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Queue, QueueLimits, Rate, workflow
from lib_workflows.queueing import turns
from lib_workflows.tables import key_buckets, queues, runs
from lib_workflows.testing import environment
from lib_workflows.workers import arrivals
from lib_workflows.workers.claims import claim, look

MINUTE = timedelta(minutes=1)
TWO_A_MINUTE = Rate(2, MINUTE)
SECOND = 1_000_000  # in microseconds

begun: list[tuple[str, int, float]] = []  # key, number, and when: seconds since the first one


@pytest.fixture(autouse=True)
def nothing_begun():
    begun.clear()


def keyed(rate_per_key=TWO_A_MINUTE, **limits):
    @workflow(name="send", queue=Queue("post", key="to", rate_per_key=rate_per_key, **limits))
    async def send(ctx: Context, mail: Mail) -> None:
        begun.append((mail.to, mail.number, ctx.now().timestamp()))

    return send


def since_the_first(key=None):
    first = begun[0][2]
    return [round(at - first) for to, _, at in begun if key is None or to == key]


def mails(to, size):
    return [Mail(to=to, number=number) for number in range(size)]


async def play(env, send, sent):
    handles = await env.engine.start_many(send, sent)
    for handle in handles:
        await env.result(handle)


async def buckets(engine):
    return await engine.database.read(lambda c: c.scalar(select(func.count()).select_from(key_buckets)))


async def test_runs_of_each_key_begin_no_faster_than_its_rate_lets_them(database_url):
    send = keyed()
    async with environment(database_url, [send]) as env:
        await play(env, send, [*mails("ada", 5), *mails("bob", 2), *mails("eve", 1)])
        assert since_the_first("ada") == [0, 0, 30, 60, 90], "two at once, then one in 30 s"
        assert since_the_first("bob") == [0, 0]
        assert since_the_first("eve") == [0]
        begun.clear()
        await env.skip(timedelta(hours=1))
        await play(env, send, mails("ada", 3))
        assert since_the_first() == [0, 0, 30], "a rest fills the bucket, and no more than that"


async def test_a_rate_of_the_queue_and_its_slots_count_beside_that_of_the_key(database_url):
    send = keyed(rate=Rate(3, MINUTE), concurrency=5, per_key=5)
    async with environment(database_url, [send]) as env:
        await play(env, send, [*mails("ada", 3), *mails("bob", 3)])
        assert since_the_first() == [0, 0, 0, 20, 40, 60]
        assert since_the_first("ada")[2] >= 30
        assert since_the_first("bob")[2] >= 30


async def test_the_most_urgent_run_of_a_key_has_the_next_token(database_url):
    send = keyed(Rate(1, MINUTE))
    async with environment(database_url, [send]) as env:
        await env.result(await env.engine.start(send, Mail(to="ada", number=0)))
        late = await env.engine.start(send, Mail(to="ada", number=1))
        urgent = await env.engine.start(send, Mail(to="ada", number=2), priority=5)
        await env.result(urgent)
        await env.result(late)
        assert [number for _, number, _ in begun] == [0, 2, 1]


async def test_what_waits_for_a_token_outlives_crashes_and_a_pause_gives_none_back(database_url):
    send = keyed(Rate(1, timedelta(hours=1)))
    for _ in range(3):
        async with Engine.open(database_url, [send, waits], lease_seconds=0.5) as engine:
            first = await engine.start(send, Mail(to="ada", number=1), id="first")
            second = await engine.start(send, Mail(to="ada", number=2), id="second")
            await until(engine, [first, second], "completed", "queued")
            await engine.queues.pause("post")
            await engine.queues.resume("post")
            other = await engine.start(send, Mail(to="bob", number=1), id="other")
            await until(engine, [other, second], "completed", "queued")
            await engine.abandon()
    assert len(begun) == 2


async def test_a_run_that_is_retried_waits_for_a_token_like_a_new_one(database_url):
    @workflow(name="fails", queue=Queue("post", key="to", rate_per_key=Rate(1, timedelta(hours=1))))
    async def failing(ctx: Context, mail: Mail) -> None:
        await ctx.step(fails, mail.to)

    async with Engine.open(database_url, [failing]) as engine:
        failed = await engine.start(failing, Mail(to="ada", number=1))
        await until(engine, [failed], "failed")
        await failed.retry()
        other = await engine.start(failing, Mail(to="bob", number=1))
        await until(engine, [other, failed], "failed", "queued")


async def test_a_clock_that_is_set_back_does_not_stop_a_key(database_url):
    send = keyed(Rate(2, MINUTE))
    async with environment(database_url, [send]) as env:
        await env.skip(timedelta(days=1))  # the clock was wrong by a day …
        await play(env, send, mails("ada", 2))
        env.clock._micros -= 86_400 * SECOND  # … and is set right while the bucket is empty
        begun.clear()
        await play(env, send, mails("ada", 3))
        assert since_the_first() == [0, 30, 60]


async def test_keys_that_begin_nothing_any_more_leave_no_rows(database_url):
    send = keyed(Rate(1, MINUTE))
    async with environment(database_url, [send]) as env:
        await play(env, send, [Mail(to=f"n{number}", number=1) for number in range(120)])
        assert await buckets(env.engine) == 120
        await env.skip(timedelta(hours=1))
        await play(env, send, mails("ada", 1))
        assert await buckets(env.engine) == 1


async def test_another_rate_begins_with_full_buckets_and_the_same_one_goes_on(database_url):
    async with Engine.open(database_url, [waits]) as engine:
        hourly = Rate(1, timedelta(hours=1))
        await engine.queues.limit("narrow", QueueLimits(key="to", rate_per_key=hourly))
        first, second, third = [await engine.start(waits, queue_key="ada") for _ in range(3)]
        await until(engine, [first, second, third], "waiting", "queued", "queued")
        await engine.queues.limit("narrow", QueueLimits(key="to", rate_per_key=hourly, concurrency=9))
        assert await buckets(engine) == 1
        await engine.queues.limit("narrow", QueueLimits(key="to", rate_per_key=Rate(1, timedelta(hours=2))))
        await until(engine, [first, second, third], "waiting", "waiting", "queued")
        await engine.queues.limit("narrow", QueueLimits(key="to"))
        await until(engine, [first, second, third], "waiting", "waiting", "waiting")
        assert await buckets(engine) == 0


async def test_runs_without_the_key_have_a_bucket_of_their_own(database_url):
    async with Engine.open(database_url, [waits]) as engine:
        await engine.queues.limit("narrow", QueueLimits(key="to", rate_per_key=Rate(1, timedelta(hours=1))))
        first, second = await engine.start(waits), await engine.start(waits)
        other = await engine.start(waits, queue_key="=")
        await until(engine, [first, other, second], "waiting", "waiting", "queued")


async def test_a_run_that_ends_lets_the_next_of_its_queue_begin_once_that_has_a_token(database_url, monkeypatch):
    """Nothing but the end of the one before wakes anybody: when the next token comes has to be found out then."""
    monkeypatch.setattr(arrivals, "POLL_SECONDS", 60.0)

    @workflow(name="holds", queue=Queue("post", key="to", concurrency=1, rate_per_key=Rate(1, timedelta(seconds=2))))
    async def holds(ctx: Context, mail: Mail) -> str:
        return await ctx.wait_signal(go_on)

    async with Engine.open(database_url, [holds]) as engine:
        first = await engine.start(holds, Mail(to="ada", number=1))
        await until(engine, [first], "waiting")
        second = await engine.start(holds, Mail(to="ada", number=2))
        await wait_until(lambda: engine.residence.arrivals.is_pausing)
        await first.signal(go_on, "")
        await until(engine, [first, second], "completed", "waiting")


async def test_keys_without_a_token_keep_nobody_out_and_ask_nothing(database_url, monkeypatch):
    """However many they are: of the keys behind them each has its turn, and then nothing is asked for any more."""
    monkeypatch.setattr(turns, "MOST_PASSED", 150)
    send = keyed(Rate(1, timedelta(hours=1)))
    async with Engine.open(database_url, [send, waits]) as engine:
        many = [Mail(to=f"a{number:04}", number=turn) for turn in range(2) for number in range(400)]
        await engine.start_many(send, many)
        await wait_until(lambda: len(begun) == 400, timeout=30)
        last = await engine.start(send, Mail(to="zoe", number=1))
        await engine.start(waits)
        await last.result(20)
        assert Counter(to for to, _, _ in begun).most_common(1)[0][1] == 1


async def test_a_queue_whose_keys_have_no_token_is_left_alone(database_url, monkeypatch):
    claims = []
    monkeypatch.setattr(arrivals, "claim", lambda *a, **kw: claims.append(1) or claim(*a, **kw))
    send = keyed(Rate(1, timedelta(hours=1)))
    async with Engine.open(database_url, [send, waits]) as engine:
        await engine.start_many(send, [Mail(to=f"a{number}", number=turn) for turn in (1, 2) for number in range(120)])
        await wait_until(lambda: len(begun) == 120, timeout=30)
        await wait_until(lambda: engine.residence.arrivals.is_pausing)
        claims.clear()
        for _ in range(5):
            engine.residence.arrivals.wake()
            await wait_until(lambda: engine.residence.arrivals.is_pausing)
        assert not claims
        now = engine.clock.micros()
        due = await engine.database.read(look, "x", engine.residence.arrivals.capability, now)
        assert not due.free
        assert 3_500 * SECOND < due.next_at - now <= 3_600 * SECOND


async def test_more_keys_without_a_token_than_one_claim_looks_at_are_looked_at_by_the_next_ones(
    database_url, monkeypatch
):
    monkeypatch.setattr(turns, "MOST_PASSED", 10)
    async with Engine.open(database_url, [waits], works=False) as engine:
        await engine.queues.limit("narrow", QueueLimits(key="to", rate_per_key=Rate(1, timedelta(hours=1))))
        for number in range(35):
            await engine.start(waits, queue_key=f"k{number:02}")
            await engine.start(waits, queue_key=f"k{number:02}")
        now = engine.clock.micros()
        assert len(await take(engine, now, limit=100)) == 35
        await engine.start(waits, queue_key="k20x")
        now = engine.clock.micros()
        due = await engine.database.read(look, "x", engine.residence.arrivals.capability, now)
        assert due.free
        assert due.next_at == now + turns.REST_MICROS, "nobody asks again at once"
        found = [await take(engine, now, limit=100) for _ in range(5)]
        assert sum(map(len, found)) == 1


async def take(engine, now, limit):
    capability = engine.residence.arrivals.capability
    return (await engine.database.transact(lambda c: claim(c, "x", capability, now=now, limit=limit))).runs


class Ideal:
    """A token bucket for each key as books have it."""

    def __init__(self, rate):
        self.rate, self.left, self.waiting = rate, {}, Counter()

    def advance(self, micros):
        fresh = Fraction(micros * self.rate.runs, self.rate.per_micros)
        self.left = {key: min(Fraction(self.rate.runs), left + fresh) for key, left in self.left.items()}

    def tokens(self, key):
        return self.left.get(key, Fraction(self.rate.runs))

    def begin(self):
        began = {key: min(size, int(self.tokens(key))) for key, size in self.waiting.items()}
        for key, size in began.items():
            self.left[key] = self.tokens(key) - size
            self.waiting[key] -= size
        return {key: size for key, size in began.items() if size}

    def next_in(self):
        """Microseconds to the next token of a key that waits."""
        missing = [1 - self.tokens(key) for key, size in self.waiting.items() if size]
        return max(0, min(missing) * self.rate.per_micros / self.rate.runs) if missing else None


KEYS = st.sampled_from([None, "a", "b", "c", "d"])
STARTS = st.tuples(st.just("start"), KEYS, st.integers(1, 4))
WAITS = st.tuples(st.just("wait"), st.none(), st.integers(1, 90))
CLAIMS = st.tuples(st.just("claim"), st.none(), st.just(0))
numbers = count()


def test_what_begins_is_what_ideal_buckets_would_let_begin(database_url):
    rate = Rate(3, MINUTE)
    with asyncio.Runner() as runner:
        opening = Engine.open(database_url, [waits], works=False)
        engine = runner.run(opening.__aenter__())

        @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(st.one_of(STARTS, WAITS, CLAIMS), max_size=14))
        def as_ideal(acts):
            runner.run(compare(engine, f"q{next(numbers)}", rate, [*acts, ("claim", None, 0)]))

        try:
            as_ideal()
        finally:
            runner.run(opening.__aexit__(None, None, None))


async def compare(engine, queue, rate, acts):
    ideal, now = Ideal(rate), engine.clock.micros() + 3_600 * SECOND
    await engine.queues.limit(queue, QueueLimits(key="to", rate_per_key=rate))
    for act, key, size in acts:
        match act:
            case "start":
                for _ in range(size):
                    await engine.start(waits, queue=queue, queue_key=key)
                ideal.waiting[key] += size
            case "wait":
                now += size * SECOND
                ideal.advance(size * SECOND)
            case "claim":
                taken = await take(engine, now, limit=100)
                keys = select(runs.c.queue_key, func.count()).where(runs.c.id.in_(taken)).group_by(runs.c.queue_key)
                found = await engine.database.read(lambda c, keys=keys: c.execute(keys).all())
                assert dict(map(tuple, found)) == ideal.begin()
                due = await engine.database.read(look, "x", engine.residence.arrivals.capability, now)
                expected = ideal.next_in()
                assert (None if due.next_at is None else due.next_at - now) == expected
                assert not due.free
    await engine.database.transact(lambda c: c.execute(runs.delete().where(runs.c.queue == queue)))
    await engine.database.transact(lambda c: c.execute(queues.delete().where(queues.c.name == queue)))
