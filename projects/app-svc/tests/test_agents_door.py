"""The door for agents on the wire: tokens, origins, hosts, sizes, and what is no JSON-RPC."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lib_auth.proof_key import ProofKey
from lib_events.testing import wait_until

ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


async def post(app: Any, token: str | None = None, body: Any = LIST, **headers: str) -> Any:
    bearer = {"authorization": f"Bearer {app.issuer.token() if token is None else token}"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await app.http.post("/mcp", content=content, headers=ACCEPT | bearer | headers)


async def test_a_token_of_rest_is_good_here_and_without_one_the_answer_says_where_to_sign_in(app: Any) -> None:
    assert (await post(app)).json()["result"]["tools"]
    answer = await app.http.post("/mcp", json=LIST, headers=ACCEPT)
    assert answer.status_code == 401
    place = f"{app.url}/.well-known/oauth-protected-resource/mcp"
    assert f'resource_metadata="{place}"' in answer.headers["www-authenticate"]
    metadata = (await app.http.get(place)).json()
    # RFC 9728 section 3.3: what was asked, letter by letter
    assert metadata["resource"] == f"{app.url}/mcp"
    assert metadata["authorization_servers"] == [app.issuer.url]
    assert metadata["scopes_supported"] == ["approvals:decide", "workflows:read", "workflows:run"]


async def test_tokens_of_others_are_refused(app: Any) -> None:
    for name, token in {
        "another audience": app.issuer.token(aud="http://elsewhere"),
        "the path alone": app.issuer.token(aud=f"{app.url}/mcp"),  # the AuthService issues none such
        "expired": app.issuer.token(seconds=-1),
        "an id token": app.issuer.token(header={"typ": "JWT"}),
        "bound to a key, sent as Bearer": app.issuer.token(cnf={"jkt": ProofKey.generate().thumbprint}),
    }.items():
        assert (await post(app, token)).status_code == 401, name


async def test_a_proof_of_possession_is_for_this_path(app: Any) -> None:
    key = ProofKey.generate()
    token = app.issuer.token(cnf={"jkt": key.thumbprint})
    url = f"{app.url}/mcp"
    for place, status in ((f"{app.url}/v1/runs", 401), (url, 200)):
        headers = ACCEPT | key.headers("POST", place, token)
        assert (await app.http.post("/mcp", json=LIST, headers=headers)).status_code == status, place


async def test_a_revoked_token_is_refused_also_while_its_body_is_held_back(app: Any) -> None:
    token = app.issuer.token(jti="held")
    call = {"name": "start_order", "arguments": {"input": {}}}
    bearer = {"authorization": f"Bearer {token}"}

    async def is_refused() -> bool:
        return (await app.http.get("/v1/workflows", headers=bearer)).status_code == 401

    async def held_back() -> AsyncIterator[bytes]:
        yield b" "
        app.issuer.revoke(token="held")
        await wait_until(is_refused)
        yield json.dumps(LIST | {"method": "tools/call", "params": call}).encode()

    answer = await app.http.post("/mcp", content=held_back(), headers=ACCEPT | bearer)
    assert answer.status_code == 401
    assert (await app.operator().get("/v1/runs")).json()["items"] == []


async def test_pages_of_strangers_are_not_let_in_whoever_they_say_they_are(
    run_app: Any, make_settings: Any, issuer: Any
) -> None:
    async with run_app(make_settings(cors_origins=["https://agents.example"]), issuer) as app:
        for origin in ("https://elsewhere.example", "null", "http://localhost:8002", ""):
            answer = await post(app, origin=origin)
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:evs:problem:origin-refused"), origin
        for origin in ("https://agents.example", app.url):
            assert (await post(app, origin=origin)).status_code == 200
        assert (await post(app, host="rebound.example")).status_code == 421
        asked = {"origin": "https://agents.example", "access-control-request-method": "POST"}
        asked["access-control-request-headers"] = "authorization,mcp-protocol-version,mcp-method"
        assert (await app.http.options("/mcp", headers=asked)).status_code == 200


async def test_a_body_that_is_too_large_is_refused(run_app: Any, make_settings: Any, issuer: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b" " * 1024

    async with run_app(make_settings(body_limit_bytes=4096), issuer) as app:
        assert (await post(app, body=b" " * 5000)).status_code == 413
        bearer = {"authorization": f"Bearer {app.issuer.token()}"}
        answer = await app.http.post("/mcp", content=pieces(), headers=ACCEPT | bearer)
        assert answer.status_code == 413
        assert (await post(app)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": NaN}}',
        b"[" * 100_000,
        b"\xff",
    ],
)
async def test_what_is_no_json_is_an_error_of_json_rpc(app: Any, body: bytes) -> None:
    answer = await post(app, body=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32700)


@pytest.mark.parametrize("body", [b"[]", b"1", b"{}", b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', b'"x"'])
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28", "1999-01-01"])
async def test_what_is_no_request_is_refused_in_every_revision(app: Any, body: bytes, version: str) -> None:
    answer = await post(app, body=body, **{"mcp-protocol-version": version})
    assert answer.status_code == 400


async def test_only_post_and_only_json(app: Any) -> None:
    headers = {"authorization": f"Bearer {app.issuer.token()}", "accept": "text/event-stream"}
    for method in ("GET", "DELETE", "PUT"):
        answer = await app.http.request(method, "/mcp", headers=headers)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), method
    assert (await post(app, **{"content-type": "text/plain"})).status_code == 415


async def test_it_can_be_switched_off(run_app: Any, make_settings: Any, issuer: Any) -> None:
    async with run_app(make_settings(mcp=False), issuer) as app:
        assert (await post(app)).status_code == 404
        assert (await app.http.get("/.well-known/oauth-protected-resource/mcp")).status_code == 404
        assert (await app.client().get("/v1/workflows")).status_code == 200
