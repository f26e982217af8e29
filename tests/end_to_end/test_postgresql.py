"""The same product on PostgreSQL: own schema and role per service, several workers, and one of them killed."""

import os
import signal
import subprocess
import uuid

import asyncpg
import httpx
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


def test_runs_survive_the_death_of_the_processes_that_drive_them(installation, tmp_path):
    with running_product(tmp_path, "--workers", "1", EVS_DATABASE_URL=installation, EVS_LEASE_SECONDS="1") as product:
        drivers = [product.pid(service) for service in ("app-svc", "worker-1")]
        with httpx.Client(base_url=product.app_url, timeout=30) as http:
            http.headers["Authorization"] = f"Bearer {product.evs('auth', 'token').stdout.strip()}"
            order = {"workflow": "order", "input": {"hold_seconds": 3}}
            started = [http.post("/v1/runs", json=order).json()["id"] for _ in range(6)]
            wait_for(lambda: all(read_run(http, run)["status"] == "waiting" for run in started))
            for process in drivers:
                os.kill(process, signal.SIGKILL)
            for run in started:
                assert wait_for(lambda run=run: ended(http, run), seconds=60)["status"] == "completed"


def read_run(http, run_id):
    """The run, or None while the AppService is on its way back."""
    try:
        answer = http.get(f"/v1/runs/{run_id}")
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def ended(http, run_id):
    run = read_run(http, run_id)
    return run if run and run["ended_at"] else None


def test_sqlite_refuses_more_workers_and_says_why(tmp_path):
    result = subprocess.run(
        [EVS, "up", "--data", tmp_path / "evs", "--workers", "2"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "needs PostgreSQL" in result.stderr
