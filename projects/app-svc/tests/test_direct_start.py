"""A start answers the same with FastAPI's layers and without them."""

import json
from typing import Any

import httpx
import pytest

from app_svc.app import rest_app
from app_svc.runs import RunRoutes

ORDER = {"sku": "pen", "quantity": 1}
START = {"workflow": "order", "input": ORDER, "delay_seconds": 3600}  # both ways find it as it was made
JSON = {"content-type": "application/json"}

ASKED: dict[str, tuple[dict[str, str], bytes]] = {
    "a run": (JSON, json.dumps(START | {"id": "one"}).encode()),
    "a run with everything": (
        JSON | {"prefer": "respond-async"},
        json.dumps(START | {"id": "all", "tags": {"a": "b"}, "priority": 3, "on_conflict": "existing"}).encode(),
    ),
    "an idempotency key": (JSON | {"idempotency-key": "k"}, json.dumps(START).encode()),
    "a wait": (JSON | {"prefer": "wait=20"}, json.dumps(START | {"id": "waited", "delay_seconds": 0}).encode()),
    "an id that means something else": (JSON, json.dumps(START | {"id": "one", "input": 1}).encode()),
    "no body": (JSON, b""),
    "null": (JSON, b"null"),
    "a list": (JSON, b"[]"),
    "a text": (JSON, b'"order"'),
    "no JSON": (JSON, b"{workflow}"),
    "not a number": (JSON, b'{"workflow": "order", "input": NaN}'),
    "not UTF-8": (JSON, b'{"workflow": "\xff"}'),
    "half a character": (JSON, rb'{"workflow": "order", "input": "\ud800"}'),
    "no workflow": (JSON, b"{}"),
    "an unknown workflow": (JSON, b'{"workflow": "none"}'),
    "an unknown field": (JSON, b'{"workflow": "order", "nonsense": 1}'),
    "several faults": (JSON | {"idempotency-key": "k" * 300}, b'{"workflow": 1, "priority": "high", "tags": {"": 1}}'),
    "a header too long": (JSON | {"prefer": "x" * 501}, json.dumps(START).encode()),
    "an empty header": (JSON | {"idempotency-key": ""}, json.dumps(START).encode()),
    "a wrong input": (JSON, b'{"workflow": "order", "input": {"sku": 1}}'),
    "a form": ({"content-type": "application/x-www-form-urlencoded"}, b"workflow=order"),
    "no media type": ({}, json.dumps(START).encode()),
    "another JSON type": ({"content-type": "application/problem+json"}, json.dumps(START).encode()),
    "a charset": ({"content-type": "application/json; charset=utf-8"}, json.dumps(START | {"id": "charset"}).encode()),
}


def told(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """What an answer says of the request; its own id and the run's moment are other ones each time."""
    body = answer.json()
    for name in ("instance", "updated_at", "started_at"):
        body.pop(name, None)
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("date", "server", "x-request-id", "content-length")
    }
    return answer.status_code, body, headers


@pytest.mark.parametrize("name", ASKED)
async def test_a_start_answers_as_the_described_route_does(name: str, app: Any) -> None:
    headers, content = ASKED[name]
    headers |= {"authorization": f"Bearer {app.client().token}"}
    long_way = httpx.ASGITransport(rest_app(app.service, RunRoutes(app.service)))
    if name == "an id that means something else":
        await app.client().post("/v1/runs", START | {"id": "one"})
    direct = await app.http.post("/v1/runs", headers=headers, content=content)
    async with httpx.AsyncClient(transport=long_way, base_url=app.url) as http:
        described = await http.post("/v1/runs", headers=headers, content=content)
    assert told(direct) == told(described)


@pytest.mark.parametrize("token", ["", "Bearer nonsense"])
async def test_nobody_starts_without_a_token(token: str, app: Any) -> None:
    answer = await app.http.post("/v1/runs", headers={"authorization": token} if token else {}, json=START)
    assert answer.status_code == 401
    assert "resource_metadata" in answer.headers["www-authenticate"]


async def test_who_may_not_run_anything_starts_nothing(app: Any) -> None:
    answer = await app.client(scope="workflows:read").post("/v1/runs", START)
    assert answer.status_code == 403
    assert answer.json()["scope"] == "workflows:run"
