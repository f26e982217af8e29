"""The same product on PostgreSQL: own schema and role per service, several workers, and one of them killed."""

import json
import os
import signal
import subprocess
import uuid

import asyncpg
import pytest
import pytest_asyncio

from .conftest import EVS, running_product, wait_for

pytestmark = pytest.mark.postgresql


@pytest_asyncio.fixture
async def installation(postgresql_server):
    """The URL of a database of its own."""
    name = f"e2e_{uuid.uuid4().hex[:12]}"
    administrator = await asyncpg.connect(postgresql_server)
    await administrator.execute(f"CREATE DATABASE {name}")
    yield postgresql_server.replace("/postgres?", f"/{name}?")
    await administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in ("evs_auth", "evs_app"):
        await administrator.execute(f"DROP ROLE IF EXISTS {role}")
    await administrator.close()


def test_runs_survive_the_death_of_the_process_that_drives_them(installation, tmp_path):
    with running_product(tmp_path, "--workers", "1", EVS_DATABASE_URL=installation, EVS_LEASE_SECONDS="1") as product:
        started = [
            product.evs_json("run", "start", "order", "-p", "hold_seconds=2", "--id", f"order-{number}")
            for number in range(3)
        ]

        def all_hold():
            runs = product.evs_json("run", "list")
            return [run["status"] for run in runs if run["workflow"] == "order"] == ["waiting"] * 3

        wait_for(all_hold)
        for process in [product.pid(service) for service in ("app-svc", "worker-1")]:
            os.kill(process, signal.SIGKILL)
        for run in started:
            ended = wait_for(lambda run=run: ended_run(product, run["id"]), seconds=60)
            assert ended["status"] == "completed", ended


def ended_run(product, run_id):
    result = product.evs("run", "show", run_id, "-o", "json", check=False)
    if result.returncode:  # the AppService is on its way back
        return None
    run = json.loads(result.stdout)
    return run if run["ended_at"] else None


def test_sqlite_refuses_more_workers_and_says_why(tmp_path):
    result = subprocess.run(
        [EVS, "up", "--data", tmp_path / "evs", "--workers", "2"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "needs PostgreSQL" in result.stderr
