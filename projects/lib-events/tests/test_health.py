import asyncio

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette

from lib_events.http import health
from lib_events.http.health import health_routes


def client_of(app):
    return AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://testserver")


async def fine() -> None:
    return None


async def away() -> str:
    return "away"


async def broken() -> str | None:
    raise OSError("postgresql://user:geheim@db")


async def stuck() -> str | None:
    await asyncio.Event().wait()
    return None


async def test_a_live_process_answers_whatever_its_checks_say():
    client = client_of(Starlette(routes=health_routes({"broker": away})))
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_it_is_ready_when_every_check_passes():
    response = await client_of(Starlette(routes=health_routes({"database": fine}))).get("/readyz")
    assert (response.status_code, response.json()["checks"]) == (200, {"database": "ok"})


async def test_it_is_not_ready_when_one_check_is_not_and_says_which(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.05)
    checks = {"fine": fine, "broker": away, "database": broken, "keys": stuck}
    response = await client_of(Starlette(routes=health_routes(checks))).get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"] == {
        "fine": "ok",
        "broker": "away",
        "database": "failed",
        "keys": "no answer within 0.05 s",
    }
