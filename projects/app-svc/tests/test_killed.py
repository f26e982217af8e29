"""`kill -9` of the whole service in the middle of runs: after a restart each ends right, and nothing is doubled."""

import asyncio
import contextlib
import os
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from standardwebhooks import Webhook as Verifier

from app_svc.service import SCHEMAS
from app_svc.tables import payments, shipments, stock, stock_reservations
from app_svc.workflows.import_table import RowsAccepted
from lib_events.database import open_database
from lib_events.event import Event
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_events.testing.collector import collecting
from lib_events.testing.forks import Fork, Forks
from lib_events.testing.ports import free_ports
from lib_events.testing.receiver import Received, receiving, status
from lib_workflows.tables import runs

pytestmark = pytest.mark.opened_elsewhere

ROWS = 20_000
BATCH_ROWS = 100
BATCHES = ROWS // BATCH_ROWS
FORKS = Forks("app_svc.__main__:main", ["app_svc.serving", "lib_events.http.server"])


class Process:
    """`app-svc` as a process of its own, that can be killed and started again on the same data."""

    def __init__(self, settings: Any, issuer: Any) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        issuer.audience = self.url
        self.issuer = issuer
        self.settings = settings
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30, verify=False)
        self.process: Fork | None = None

    async def start(self) -> None:
        await self.spawn()
        await self.until_ready()

    async def spawn(self, command: str = "serve") -> None:
        settings = self.settings
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
        environment = clean | {
            "EVS_DATA": str(settings.data),
            "EVS_AUTH_URL": settings.auth_url,
            "EVS_APP_PORT": str(self.port),
            "EVS_APP_DATABASE_URL": settings.database,
            "EVS_LEASE_SECONDS": "1",
            "EVS_WEBHOOK_ALLOW_PRIVATE": ",".join(settings.webhook_allow_private),
            "EVS_WORKFLOWS": ",".join(settings.workflows),
        }
        self.process = FORKS.start(command, env=environment)

    async def until_ready(self) -> None:
        await wait_until(self._is_ready, timeout=60)

    async def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "app-svc ended by itself"
        with contextlib.suppress(httpx.HTTPError):
            return (await self.http.get("/readyz")).status_code == 200
        return False

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await asyncio.to_thread(self.process.wait, 30)

    async def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert await asyncio.to_thread(self.process.wait, 30) == 0

    async def send(self, method: str, path: str, json: Any = None, **more: str) -> Any:
        headers = {"authorization": f"Bearer {self.issuer.token()}", **more}
        return (await self.http.request(method, path, json=json, headers=headers)).json()

    async def until_ended(self, run_id: str) -> dict[str, Any]:
        async def look() -> Any:
            run = await self.send("GET", f"/v1/runs/{run_id}")
            return run if run.get("ended_at") else None

        return await wait_until(look, timeout=60)


@pytest.fixture
async def killable(make_settings: Any, issuer: Any, database_url: str) -> AsyncIterator[Process]:
    process = Process(make_settings(database_url), issuer)
    yield process
    if process.process is not None and process.process.poll() is None:
        await process.kill()
    await process.http.aclose()


async def read_all(settings: Any, *tables: Any) -> list[list[dict[str, Any]]]:
    database = await open_database(settings.database, service="app-svc", schemas=SCHEMAS)
    try:
        return [
            [dict(row) for row in await database.read(lambda c, t=table: c.execute(select(t)).mappings().all())]
            for table in tables
        ]
    finally:
        await database.close()


def a_table() -> str:
    lines = (f"{number},name {number},{number / 7:.3f}" for number in range(ROWS))
    return "id,name,share\n" + "\n".join(lines) + "\n"


async def test_an_import_that_is_killed_again_and_again_publishes_every_batch_once(killable: Process) -> None:
    await killable.start()
    table = {"name": "big", "data": a_table(), "chunk_rows": BATCH_ROWS}
    start = {"workflow": "import-table", "input": table, "id": "big"}
    sending = asyncio.create_task(killable.send("POST", "/v1/runs", start))
    killed_in_the_middle = stored = 0
    async with counting_batches(killable.settings) as count:
        for _ in range(2):
            await wait_until(lambda before=stored: reaches(count, before + 10), timeout=60)
            await killable.kill()
            stored = await count()
            killed_in_the_middle += stored < BATCHES
            await killable.spawn()
    assert killed_in_the_middle == 2
    await asyncio.gather(sending, return_exceptions=True)
    await killable.until_ready()
    run = await killable.until_ended("big")
    assert run["status"] == "completed", run["error"]
    assert (run["output"]["accepted"], run["output"]["rejected"]) == (ROWS, 0)
    await killable.stop()
    (told,) = await read_all(killable.settings, events)
    batches = [Event.from_json(row["body"]) for row in told if row["type"] == RowsAccepted.name]
    assert Counter(event.data["batch"] for event in batches) == dict.fromkeys(range(1, BATCHES + 1), 1)
    assert len({event.id for event in batches}) == len(batches)
    identifiers = sorted(row[0] for event in batches for row in event.data["rows"])
    assert identifiers == list(range(ROWS))


@contextlib.asynccontextmanager
async def counting_batches(settings: Any) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Yield the count of batches on disk: the database knows it also while the service is only starting."""
    query = f"SELECT count(*) FROM events WHERE type = '{RowsAccepted.name}'"
    if settings.database.startswith("sqlite:"):
        # The service has the file's lock; a plain reader needs none.
        with contextlib.closing(sqlite3.connect(settings.database.removeprefix("sqlite:///"))) as reader:

            async def count() -> int:
                return int(reader.execute(query).fetchone()[0])

            yield count
    else:
        database = await open_database(settings.database, service="app-svc", schemas=SCHEMAS)
        yield lambda: database.read(lambda connection: connection.execute(text(query)).scalar_one())
        await database.close()


async def reaches(count: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await count() >= wanted


async def test_webhooks_that_are_killed_again_and_again_lose_no_event(
    make_settings: Any, issuer: Any, database_url: str
) -> None:
    killable = Process(make_settings(database_url, webhook_allow_private=["127.0.0.0/8"]), issuer)
    await killable.start()
    async with receiving() as receiver:
        chance = random.Random(11)

        async def answer(received: Received, writer: Any) -> None:
            await asyncio.sleep(chance.choice([0, 0.002, 0.02]))
            await status(204)(received, writer)

        receiver.answer = answer
        webhook = await killable.send("POST", "/v1/webhooks", {"url": receiver.url, "types": ["order.*"]})
        orders = [an_order(f"order-{number}", chance) for number in range(30)]
        sending = asyncio.create_task(killable.send("POST", "/v1/runs:batch", {"runs": orders}))
        for delivered in (3, 25, 60):
            await wait_until(lambda delivered=delivered: len(receiver.received) >= delivered, timeout=60)
            await killable.kill()
            await killable.start()
        await asyncio.gather(sending, return_exceptions=True)
        for order in orders:
            await killable.until_ended(order["id"])
        page = await killable.send("GET", "/v1/events?types=order.*&limit=200")
        expected = {event["id"] for event in page["items"]}
        assert len(expected) >= 60
        await wait_until(lambda: expected <= set(receiver.event_ids), timeout=60)
        assert set(receiver.event_ids) == expected
        for received in receiver.received:
            Verifier(webhook["secret"]).verify(received.body, dict(received.headers))
    await killable.stop()
    await killable.http.aclose()


async def test_orders_that_are_killed_at_every_stage_end_right_once(killable: Process) -> None:
    await killable.start()
    stages = ("stock", "payment", "shipment")
    held = [await hold(killable, stage, seconds=3) for stage in stages]
    cancelled = await hold(killable, "shipment", seconds=600)
    for run_id in (*held, cancelled):
        await wait_until(lambda run_id=run_id: is_held(killable, run_id))
    await killable.send("POST", f"/v1/runs/{cancelled}/cancel", {})
    await killable.kill()
    await killable.start()
    ended = [await killable.until_ended(run_id) for run_id in (*held, cancelled)]
    assert [run["status"] for run in ended] == ["completed"] * len(stages) + ["cancelled"]
    await killable.stop()
    await assert_consistent(killable.settings, completed=set(held))


async def hold(killable: Process, stage: str, *, seconds: float) -> str:
    """Order something that waits after `stage`, and return the run's id."""
    value = {"sku": "kettle", "quantity": 2, "hold_seconds": seconds, "hold_after": stage}
    run: dict[str, str] = await killable.send("POST", "/v1/runs", {"workflow": "order", "input": value})
    return run["id"]


async def is_held(killable: Process, run_id: str) -> bool:
    return (await killable.send("GET", f"/v1/runs/{run_id}"))["status"] == "waiting"


async def test_orders_that_are_killed_at_any_moment_end_right_and_money_and_stock_agree(killable: Process) -> None:
    await killable.start()
    chance = random.Random(7)
    orders = [an_order(f"order-{number}", chance) for number in range(40)]
    for told in (5, 60):
        sending = asyncio.create_task(killable.send("POST", "/v1/runs:batch", {"runs": orders}))
        await wait_until(lambda told=told: has_told(killable, told), timeout=60)
        await killable.kill()
        await asyncio.gather(sending, return_exceptions=True)
        await killable.start()
    # The same ids, workflows and inputs mean the same runs, so asking once more is safe.
    started = await killable.send("POST", "/v1/runs:batch", {"runs": orders})
    runs = [await killable.until_ended(run["id"]) for run in started["items"]]
    assert [run["status"] for run in runs] == [
        "failed" if order["input"]["card"] == "tok_declined" else "completed" for order in orders
    ]
    await killable.stop()
    await assert_consistent(killable.settings, completed={run["id"] for run in runs if run["status"] == "completed"})


def an_order(run_id: str, chance: random.Random) -> dict[str, Any]:
    card = chance.choice(["tok_visa", "tok_visa", "tok_declined"])
    value = {"sku": "mug-white", "quantity": chance.randint(1, 3), "card": card, "hold_seconds": chance.choice([0, 1])}
    return {"workflow": "order", "input": value, "id": run_id}


async def has_told(killable: Process, count: int) -> bool:
    return len((await killable.send("GET", "/v1/events?types=order.*&limit=200"))["items"]) >= count


@pytest.mark.postgresql
async def test_a_worker_finishes_what_a_killed_service_began(
    make_settings: Any, issuer: Any, postgresql_url: str
) -> None:
    killable = Process(make_settings(postgresql_url), issuer)
    await killable.start()
    run_id = await hold(killable, "payment", seconds=1)
    await wait_until(lambda: is_held(killable, run_id))
    await killable.kill()
    await killable.http.aclose()
    await killable.spawn("worker")
    database = await open_database(postgresql_url, service="app-svc", schemas=SCHEMAS)

    async def is_completed() -> bool:
        query = select(runs.c.status).where(runs.c.id == run_id)
        return await database.read(lambda connection: connection.scalar(query)) == "completed"

    await wait_until(is_completed, timeout=40)
    await database.close()
    await killable.stop()
    await assert_consistent(killable.settings, completed={run_id})


PARCELS = """
from lib_workflows import Context, Signal, step, workflow

go_on = Signal("go-on", str)


@step
async def weigh(order: str) -> int:
    return len(order)


@workflow(name="parcel")
async def parcel(ctx: Context, order: str) -> int:
    await ctx.wait_signal(go_on)
    return await ctx.step(weigh, order)


@workflow(name="send")
async def send(ctx: Context, order: str) -> int:
    await ctx.step(weigh, order)
    return await ctx.child(parcel, order)
"""


async def test_a_service_that_is_killed_while_the_collector_is_away_tells_one_whole_trace(
    make_settings: Any, issuer: Any, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parcels.py").write_text(PARCELS)
    killable = Process(make_settings(database_url, workflows=[str(tmp_path / "parcels.py")]), issuer)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    trace_id, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        await killable.start()
        start = {"workflow": "send", "input": "books", "id": "traced"}
        await killable.send("POST", "/v1/runs", start, traceparent=f"00-{trace_id}-{caller}-01")
        await asyncio.to_thread(collector.wait_for, "POST /v1/runs", "step weigh")
        (parcel,) = await wait_until(lambda: runs_of(killable, "parcel"))
        collector.close()
        await killable.kill()
        await killable.start()
        await killable.send("POST", f"/v1/runs/{parcel['id']}/signals/go-on", "now")
        assert (await killable.until_ended("traced"))["status"] == "completed"
        collector.open_again()
        await asyncio.to_thread(collector.wait_for, "run send")
        await killable.stop()
        await killable.http.aclose()

    ours = [span for span in collector.spans.values() if span.trace_id == trace_id]
    names = {span.span_id: span.name for span in ours} | {caller: "caller"}
    assert sorted((names[span.parent_id], span.name) for span in ours) == [
        ("POST /v1/runs", "run send"),
        ("caller", "POST /v1/runs"),
        ("child parcel", "run parcel"),
        ("run parcel", "step weigh"),
        ("run send", "child parcel"),
        ("run send", "step weigh"),
    ]
    assert {span.service for span in ours} == {"app-svc"}
    assert not any(b"books" in body for body in collector.bodies)


async def runs_of(killable: Process, workflow: str) -> Any:
    return (await killable.send("GET", f"/v1/runs?workflow={workflow}&status=waiting"))["items"]


async def assert_consistent(settings: Any, *, completed: set[str]) -> None:
    """Each completed order has its goods, one payment and one shipment; every other one has nothing."""
    goods, reserved, paid, shipped, stored = await read_all(
        settings, stock, stock_reservations, payments, shipments, events
    )
    assert {row["order_id"] for row in reserved if row["status"] == "reserved"} == completed
    captured = [row["order_id"] for row in paid if row["status"] == "captured"]
    assert (len(captured), set(captured)) == (len(completed), completed)
    assert {row["order_id"] for row in shipped if row["status"] == "shipped"} == completed
    taken = Counter[str]()
    for row in reserved:
        taken[row["sku"]] += row["quantity"] if row["status"] == "reserved" else 0
    first = {"mug-blue": 500, "mug-white": 500, "tea-green": 1_000, "kettle": 50, "lamp": 20}
    assert {row["sku"]: row["available"] for row in goods} == {sku: n - taken[sku] for sku, n in first.items()}
    told = Counter((row["type"], row["subject"]) for row in stored if row["type"].startswith("order."))
    assert set(told.values()) <= {1}
    assert {subject for kind, subject in told if kind == "order.payment.captured"} >= completed
