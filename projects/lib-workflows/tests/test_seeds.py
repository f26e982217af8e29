"""With a seed, a test of a workflow gets the same ids, the same chance and the same pauses each time it runs."""

import contextlib
from datetime import timedelta

import pytest

from lib_events.chance import Seed, current_seed, seeded
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.event_log import read_after
from lib_events.testing import wait_until
from lib_workflows import Context, EventType, Update, step, workflow
from lib_workflows.authoring.retry import Backoff
from lib_workflows.errors import StepFailed
from lib_workflows.testing import crashes, environment, survive

Drawn = EventType("lottery.number.drawn", dict)
bet = Update("bet", int, int)


@step(retries=3, backoff=Backoff(timedelta(seconds=10), jitter=1.0))
async def unlucky(what: str) -> None:
    raise ConnectionError(what)


def tell(connection: Connection, number: int) -> None:
    connection.publish(Event.of(Drawn, {"number": number}, source=connection.source))


@workflow(name="lottery")
async def lottery(ctx: Context) -> list[str]:
    """Draw numbers, in the open."""
    begun, drawn = ctx.now(), [str(ctx.random()), str(ctx.uuid())]
    await ctx.publish(Drawn, {"number": 1})
    await ctx.transaction(tell, 2)
    for colour in ("red", "blue"):
        with contextlib.suppress(StepFailed):
            await ctx.step(unlucky, colour)
        drawn.append(f"{(ctx.now() - begun).total_seconds():.0f} s")
    return drawn


@workflow(name="dice")
async def dice(ctx: Context) -> str:
    """Throw a die, keep it in a view."""
    thrown = str(ctx.uuid())
    await ctx.set_view("thrown", thrown)
    return thrown


@workflow(name="counter")
async def counter(ctx: Context) -> int:
    """Take one bet."""
    call = await ctx.wait_update(bet)
    await call.reply(call.value)
    return call.value


async def play(url, seed):
    """What a test sees of two runs: their ids, what they drew and how long they paused, the ids of all their events."""
    async with environment(url, [lottery, counter], seed=seed) as env:
        runs = [await env.engine.start(lottery) for _ in range(2)]
        results = [await env.result(run) for run in runs]

        async def told():
            page = await env.engine.database.read(lambda c: read_after(c, 0))
            found = [placed.event for placed in page.events]
            return found if sum(event.type == "evs.run.completed" for event in found) == 2 else None

        return [run.id for run in runs], results, {event.id for event in await wait_until(told)}


async def test_the_same_seed_gives_the_same_ids_chance_and_pauses(database_url, tmp_path):
    once = await play(database_url, 7)
    again = await play(f"sqlite:///{tmp_path}/again.db", 7)
    other = await play(f"sqlite:///{tmp_path}/other.db", 8)
    assert once == again
    assert [one != another for one, another in zip(once, other, strict=True)] == [True] * 3
    assert not once[2] & other[2]


async def test_a_second_environment_on_a_database_draws_what_is_new(sqlite_url):
    first = await play(sqlite_url, 7)
    async with environment(sqlite_url, [lottery, counter], seed=7) as env:
        handle = await env.engine.start(lottery)
        assert handle.id not in first[0]
        await env.result(handle)


async def test_without_a_seed_nothing_is_the_same_and_nothing_is_left_of_the_seed_before(sqlite_url, tmp_path):
    await play(sqlite_url, 7)
    assert current_seed.get() is None
    found = [await play(f"sqlite:///{tmp_path}/{n}.db", None) for n in range(2)]
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


@pytest.fixture
async def env(sqlite_url):
    async with environment(sqlite_url, [lottery, counter], seed=42) as env:
        yield env


async def test_a_fixture_may_give_the_environment(env):
    assert (await env.engine.start(counter)).id == Seed("42 0").draw("id").hex()


async def test_updates_have_seeded_ids_too(env):
    handle = await env.engine.start(counter)
    assert await handle.update(bet, 3, timeout=10) == 3
    assert await env.result(handle) == 3
    again = Seed("42 0")
    assert again.draw("update") != again.draw("update")


async def test_crashes_and_what_follows_them_are_the_same(tmp_path):
    async def scenario(engine):
        handle = await engine.start(dice)
        return handle.id, await handle.result(10)

    async def lives(name, seed):
        url = f"sqlite:///{tmp_path}/{name}.db"
        return await survive(url, [dice], scenario, crash_at=crashes(seed, within=3), seed=seed)

    once, again, other = await lives("once", 3), await lives("again", 3), await lives("other", 4)
    assert once == again != other


def test_a_seed_is_of_its_block_alone():
    with seeded(Seed(1)):
        with seeded(None):
            assert current_seed.get() is not None
        drawn = current_seed.get().draw("x")
    assert current_seed.get() is None
    assert Seed(1).draw("x") == drawn != Seed(2).draw("x")
    assert Seed(1).share("x") == Seed(1).share("x") != Seed(1).share("y")
    assert 0 <= Seed(1).share("x") < 1
