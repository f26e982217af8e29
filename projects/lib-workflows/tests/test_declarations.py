"""While a release is deployed it lives beside the one before: what starts workflows is as the newer one declares it."""

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel
from sqlalchemy import func, select

from lib_events.event import Event, EventType
from lib_events.testing import wait_until
from lib_workflows import Context, Cron, Engine, Queue, Rate, Registry, workflow
from lib_workflows import declarations as module
from lib_workflows.authoring.timing import Between
from lib_workflows.tables import declarations, runs, workers

pytestmark = pytest.mark.postgresql

LEASE_SECONDS = 2.0


class Placed(BaseModel):
    """An order."""

    order: str


PLACED = EventType("shop.order.placed", Placed)


@workflow(name="ship", queue="parcels")
async def old_ship(ctx: Context, placed: Placed) -> str:
    """Ship what somebody asks for."""
    return f"old {placed.order}"


@workflow(name="ship", version=2, on=PLACED, queue=Queue("parcels", concurrency=3))
async def new_ship(ctx: Context, placed: Placed) -> str:
    """Ship whatever is ordered."""
    return f"new {placed.order}"


@workflow(name="count", schedule=Cron("0 6 * * *"))
async def old_count(ctx: Context) -> None:
    """Count at six."""


@workflow(name="count", schedule=Cron("0 7 * * *"))
async def new_count(ctx: Context) -> None:
    """Count at seven."""


OLD, NEW = [old_ship, old_count], [new_ship, old_ship, new_count]


def release(url, workflows, **options):
    return Engine.open(url, workflows, lease_seconds=LEASE_SECONDS, **options)


async def publish(engine, order):
    event = Event.of(PLACED, Placed(order=order), source=engine.database.source)
    await engine.database.transact(lambda connection: connection.publish(event))


async def outputs(engine):
    ended = select(runs.c.output).where(runs.c.workflow == "ship").order_by(runs.c.output)
    return await engine.database.read(lambda connection: list(connection.scalars(ended)))


async def declared(engine):
    """When it counts, and how many parcels go at once."""
    timing = (await engine.schedules.get("count")).plan.timing
    return timing.expression, (await engine.queues.get("parcels")).limits.concurrency


async def lives(engine):
    return await engine.database.read(lambda connection: connection.scalar(select(func.count()).select_from(workers)))


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)


@pytest.mark.parametrize("works", [True, False])
async def test_a_worker_of_the_older_release_that_starts_takes_nothing_back(postgresql_url, works):
    """Its trigger was gone until a newer one started: what was published meanwhile started nothing."""
    old, again = release(postgresql_url, OLD), release(postgresql_url, OLD, works=works)
    async with old, release(postgresql_url, NEW) as new, again:
        await publish(new, "a")
        assert await declared(new) == ("0 7 * * *", 3)
        await wait_until(lambda: has(new, ['"new a"']))


async def has(engine, expected):
    return await outputs(engine) == expected


async def test_what_the_newer_release_declares_holds_while_it_only_starts_again(postgresql_url):
    async with release(postgresql_url, OLD) as old:
        async with release(postgresql_url, NEW):
            pass
        await wait_until(lambda: old._declarations.is_pausing)
        await publish(old, "a")
        await wait_until(lambda: has(old, [None]))  # the old one starts it, and holds no such version
        async with release(postgresql_url, NEW) as new:
            await wait_until(lambda: has(new, ['"new a"']))


async def test_what_the_older_release_declares_holds_again_once_the_newer_one_has_left_for_good(
    postgresql_url, impatient, caplog
):
    async with release(postgresql_url, OLD) as old:
        async with release(postgresql_url, NEW):
            assert await declared(old) == ("0 7 * * *", 3)

        async def is_as_it_was():
            return await declared(old) == ("0 6 * * *", None)

        await wait_until(is_as_it_was)
        await publish(old, "a")
        assert "no worker lives of the release that declared ['queue parcels'" in caplog.text
        await wait_until(lambda: old.residence.arrivals.is_pausing)
        assert await outputs(old) == []


async def test_the_older_release_takes_back_what_starts_its_workflows_as_it_starts_alone(postgresql_url):
    async with release(postgresql_url, NEW):
        pass
    async with release(postgresql_url, OLD) as old:
        assert await declared(old) == ("0 6 * * *", None)
    async with release(postgresql_url, NEW) as new:
        assert await declared(new) == ("0 7 * * *", 3)


async def test_a_release_is_known_by_what_it_declares_however_often_it_starts(database_url):
    for workflows in (OLD, NEW, OLD, NEW):
        async with Engine.open(database_url, workflows) as engine:
            found = await engine.database.read(known)
    assert found == sorted(2 * ["queue parcels", "workflow count", "workflow ship"] + ["queue default"])


def known(connection):
    return list(connection.scalars(select(declarations.c.subject).order_by(declarations.c.subject)))


async def test_an_engine_that_cannot_begin_leaves_no_life_behind(postgresql_url, monkeypatch):
    async with release(postgresql_url, OLD) as old:
        monkeypatch.setattr("lib_workflows.declarations.declare_limits", fails)
        with pytest.raises(ZeroDivisionError):
            async with release(postgresql_url, NEW):
                pass
        assert await lives(old) == 1


def fails(*_told):
    raise ZeroDivisionError


async def test_a_declared_schedule_whose_last_time_has_passed_rests_and_its_release_starts(database_url, caplog):
    past = Between(Cron("0 6 * * *"), until=datetime(2020, 1, 1, tzinfo=UTC))

    @workflow(name="count", schedule=past)
    async def late(ctx: Context) -> None:
        """Count when it is too late."""

    for begun in ([late], OLD, [late]):  # as new, and in the place of one that had times left
        async with Engine.open(database_url, begun) as engine:
            found = await engine.schedules.get("count")
            assert (found.next_at is None) == (begun != OLD)
    assert caplog.text.count("schedule count, which the code declares, rests") == 2


def test_a_rate_of_keys_is_another_declaration_of_the_queue():
    """A process that knows no such rate declares something older, and does not take it back."""

    def digest(**limits):
        @workflow(name="mail", queue=Queue("mail", key="to", **limits))
        async def mail(ctx: Context) -> None: ...

        return module.Declared.by(Registry.of([mail])).digests()["queue mail"]

    assert len({digest(), digest(rate_per_key=Rate(1)), digest(rate_per_key=Rate(2)), digest(rate=Rate(1))}) == 4
