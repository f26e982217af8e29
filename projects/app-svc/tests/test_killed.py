"""`kill -9` of the whole service in the middle of runs: after a restart each ends right, and nothing is doubled."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from standardwebhooks import Webhook as Verifier

from app_svc.service import SCHEMAS
from app_svc.tables import payments, shipments, stock, stock_reservations
from lib_events.database import open_database
from lib_events.event import Event
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_events.testing_receiver import Received, receiving, status
from lib_workflows.tables import runs

ROWS = 20_000
BATCH_ROWS = 250


class Process:
    """`app-svc` as a process of its own, that can be killed and started again on the same data."""

    def __init__(self, settings: Any, issuer: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        issuer.audience = self.url
        self.issuer = issuer
        self.settings = settings
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await self.spawn("serve")
        await wait_until(self._is_ready, timeout=30)

    async def spawn(self, command: str) -> asyncio.subprocess.Process:
        settings = self.settings
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
        environment = clean | {
            "EVS_DATA": str(settings.data),
            "EVS_AUTH_URL": settings.auth_url,
            "EVS_APP_PORT": str(self.port),
            "EVS_APP_DATABASE_URL": settings.database,
            "EVS_LEASE_SECONDS": "1",
            "EVS_WEBHOOK_ALLOW_PRIVATE": ",".join(settings.webhook_allow_private),
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app_svc", command, env=environment, stderr=asyncio.subprocess.DEVNULL
        )

    async def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, "app-svc ended by itself"
        with contextlib.suppress(httpx.HTTPError):
            return (await self.http.get("/readyz")).status_code == 200
        return False

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), 30) == 0

    async def send(self, method: str, path: str, json: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.issuer.token()}"}
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
    if process.process is not None and process.process.returncode is None:
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
    run_id = (await killable.send("POST", "/v1/runs", {"workflow": "import-table", "input": table}))["id"]
    killed_in_the_middle = 0
    for target in (10, 40):
        await wait_until(lambda target=target: reaches(killable, run_id, target), timeout=60)
        killed_in_the_middle += (await killable.send("GET", f"/v1/runs/{run_id}"))["ended_at"] is None
        await killable.kill()
        await killable.start()
    run = await killable.until_ended(run_id)
    assert killed_in_the_middle  # a quick machine may be through before the second kill
    assert run["status"] == "completed", run["error"]
    assert (run["output"]["accepted"], run["output"]["rejected"]) == (ROWS, 0)
    await killable.stop()
    (stored,) = await read_all(killable.settings, events)
    batches = [Event.from_json(row["body"]) for row in stored if row["type"] == "table.rows.accepted"]
    assert Counter(event.data["batch"] for event in batches) == dict.fromkeys(range(1, ROWS // BATCH_ROWS + 1), 1)
    assert len({event.id for event in batches}) == len(batches)
    identifiers = sorted(row[0] for event in batches for row in event.data["rows"])
    assert identifiers == list(range(ROWS))


async def reaches(killable: Process, run_id: str, batches: int) -> bool:
    page = await killable.send("GET", f"/v1/events?types=table.rows.accepted&subject={run_id}&limit=200")
    return len(page["items"]) >= batches


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


@pytest.mark.parametrize("hold_after", ["stock", "payment", "shipment"])
async def test_an_order_that_is_killed_while_it_holds_goes_through_once(killable: Process, hold_after: str) -> None:
    await killable.start()
    value = {"sku": "kettle", "quantity": 2, "hold_seconds": 1, "hold_after": hold_after}
    run_id = (await killable.send("POST", "/v1/runs", {"workflow": "order", "input": value}))["id"]
    await wait_until(lambda: is_held(killable, run_id))
    await killable.kill()
    await killable.start()
    run = await killable.until_ended(run_id)
    assert run["status"] == "completed", run["error"]
    await killable.stop()
    await assert_consistent(killable.settings, completed={run_id})


async def is_held(killable: Process, run_id: str) -> bool:
    return (await killable.send("GET", f"/v1/runs/{run_id}"))["status"] == "waiting"


async def test_an_order_that_is_cancelled_and_killed_at_once_is_undone_once(killable: Process) -> None:
    await killable.start()
    value = {"sku": "kettle", "quantity": 2, "hold_seconds": 600, "hold_after": "shipment"}
    run_id = (await killable.send("POST", "/v1/runs", {"workflow": "order", "input": value}))["id"]
    await wait_until(lambda: is_held(killable, run_id))
    await killable.send("POST", f"/v1/runs/{run_id}/cancel", {})
    await killable.kill()
    await killable.start()
    run = await killable.until_ended(run_id)
    assert run["status"] == "cancelled"
    await killable.stop()
    await assert_consistent(killable.settings, completed=set())


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
        "failed" if order["input"]["card"] == "4000000000000002" else "completed" for order in orders
    ]
    await killable.stop()
    await assert_consistent(killable.settings, completed={run["id"] for run in runs if run["status"] == "completed"})


def an_order(run_id: str, chance: random.Random) -> dict[str, Any]:
    card = chance.choice(["4242424242424242", "4242424242424242", "4000000000000002"])
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
    value = {"sku": "kettle", "hold_seconds": 1}
    run_id = (await killable.send("POST", "/v1/runs", {"workflow": "order", "input": value}))["id"]
    await wait_until(lambda: is_held(killable, run_id))
    await killable.kill()
    await killable.http.aclose()
    worker = await killable.spawn("worker")
    database = await open_database(postgresql_url, service="app-svc", schemas=SCHEMAS)

    async def is_completed() -> bool:
        query = select(runs.c.status).where(runs.c.id == run_id)
        return await database.read(lambda connection: connection.scalar(query)) == "completed"

    await wait_until(is_completed, timeout=40)
    await database.close()
    worker.terminate()
    assert await asyncio.wait_for(worker.wait(), 30) == 0
    await assert_consistent(killable.settings, completed={run_id})


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
