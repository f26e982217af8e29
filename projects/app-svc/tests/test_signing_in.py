"""Who is let in: every kind of bad token, missing scopes and roles, revocations, and an issuer that falls silent."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from app_svc.app import rest_app
from app_svc.permissions import BY_TOOL, PUBLIC, RULES, SIGNED
from app_svc.runs import RunRoutes
from lib_auth.proof_key import ProofKey
from lib_events.testing import wait_until
from lib_events.testing.ports import free_ports


async def test_without_a_token_the_answer_says_where_to_sign_in(app: Any) -> None:
    answer = await app.http.get("/v1/runs")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    # RFC 9728 section 5.1
    assert f'resource_metadata="{app.url}/.well-known/oauth-protected-resource"' in answer.headers["www-authenticate"]
    metadata = (await app.http.get("/.well-known/oauth-protected-resource")).json()
    assert metadata["resource"] == app.url
    assert metadata["authorization_servers"] == [app.issuer.url]
    assert "workflows:run" in metadata["scopes_supported"]


async def test_every_route_is_guarded_by_a_rule_or_is_named_public(app: Any) -> None:
    routes: Any = rest_app(app.service, RunRoutes(app.service)).routes
    guarded = {
        (method, path)
        for route in routes
        for method in route.methods
        for path in [route.path]
        if hasattr(route, "rules")
    }
    assert guarded == set(RULES)
    others = {(method, route.path) for route in routes if not hasattr(route, "rules") for method in route.methods}
    assert {path for _, path in others - SIGNED - BY_TOOL} == PUBLIC
    assert others >= SIGNED | BY_TOOL
    for path in PUBLIC:
        assert (await app.http.get(path)).status_code == 200, path


async def test_no_route_answers_without_a_token_even_when_the_body_is_broken(app: Any) -> None:
    for method, path in [*RULES, *BY_TOOL]:
        real = (
            path.replace("{run_id}", "r")
            .replace("{webhook_id}", "w")
            .replace("{name}", "n")
            .replace("{approval_id}", "a")
        )
        answer = await app.http.request(method, real, content=b"{not json")
        assert answer.status_code == 401, (method, path)


def bad_tokens(issuer: Any) -> dict[str, str]:
    good = issuer.token()
    head, body, signature = good.split(".")
    stranger = ECKey.generate_key("P-256", {"kid": "first", "alg": "ES256"}, private=True)
    import base64
    import json

    none_header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "at+jwt", "kid": "first"}).encode())
    public = OctKey.import_key(json.dumps(issuer.key.as_dict(private=False)))
    claims = {"iss": issuer.url, "aud": issuer.audience, "sub": "alice", "exp": int(time.time()) + 60}
    hmac_header = {"alg": "HS256", "typ": "at+jwt", "kid": "first"}
    return {
        "expired": issuer.token(seconds=-1),
        "garbled": good[:-6] + "AAAAAA",
        "not a token": "abc",
        "three parts of nothing": "..",
        "foreign key": issuer.token(key=stranger),
        "unknown key": issuer.token(header={"kid": "other"}),
        "no algorithm": f"{none_header.rstrip(b'=').decode()}.{body}.",
        "public key as a secret": jwt.encode(hmac_header, claims, public, algorithms=["HS256"]),
        "another audience": issuer.token(aud="http://elsewhere"),
        "audience list": issuer.token(aud=[issuer.audience]),
        "another issuer": issuer.token(iss="http://elsewhere"),
        "an id token": issuer.token(header={"typ": "JWT"}),
        "no subject": issuer.token(sub=""),
        "from tomorrow": issuer.token(iat=int(time.time()) + 86_400),
        "too long": good + "A" * 10_000,
        "swapped body": f"{head}.{issuer.token('mallory').split('.')[1]}.{signature}",
    }


async def test_no_kind_of_bad_token_is_let_in(app: Any) -> None:
    for name, token in bad_tokens(app.issuer).items():
        answer = await app.http.get("/v1/workflows", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401, name
        assert 'error="invalid_token"' in answer.headers["www-authenticate"], name
        assert answer.json()["type"] == "urn:evs:problem:not-signed-in", name


async def test_a_token_in_the_url_or_twice_is_not_looked_at(app: Any) -> None:
    token = app.issuer.token()
    assert (await app.http.get(f"/v1/workflows?access_token={token}")).status_code == 401
    twice = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
    assert (await app.http.get("/v1/workflows", headers=twice)).status_code == 401


async def test_a_missing_scope_is_named(app: Any) -> None:
    reader = app.client(scope="workflows:read")
    assert (await reader.get("/v1/workflows")).status_code == 200
    answer = await reader.post("/v1/runs", {"workflow": "order", "input": {}})
    assert (answer.status_code, answer.json()["scope"]) == (403, "workflows:run")
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/runs:cancel", {"filter": {}}),
        ("POST", "/v1/runs:retry", {"filter": {}}),
        ("GET", "/v1/dead-letters", None),
    ],
)
async def test_what_concerns_everybody_takes_an_operator(app: Any, method: str, path: str, body: Any) -> None:
    answer = await app.client().request(method, path, json=body)
    assert (answer.status_code, answer.json()["role"]) == (403, "operator")
    weak = app.client("olga", roles=("operator",), scope="workflows:read workflows:run")
    assert (await weak.request(method, path, json=body)).json()["scope"] == "workflows:manage"
    assert (await app.operator().request(method, path, json=body)).status_code == 200


async def test_a_person_without_the_role_member_is_let_in_nowhere(app: Any) -> None:
    assert (await app.client(roles=()).get("/v1/workflows")).status_code == 403


async def test_somebody_elses_run_is_as_if_it_did_not_exist(app: Any) -> None:
    alice, bob, operator = app.client("alice"), app.client("bob"), app.operator()
    run = await alice.run("order", {}, id="mine-1")
    commands = ("cancel", "retry", "fork", "signals/x", "updates/x")
    for path in ("", "/history", "/events", "/views/stage"):
        assert (await bob.get(f"/v1/runs/mine-1{path}")).status_code == 404, path
    for command in commands:
        assert (await bob.post(f"/v1/runs/mine-1/{command}", {})).status_code == 404, command
    taken = await bob.post("/v1/runs", {"workflow": "order", "input": {}, "id": "mine-1"})
    assert taken.status_code == 409
    assert "tracking" not in taken.text
    assert (await bob.get("/v1/runs")).json()["items"] == []
    assert [item["id"] for item in (await operator.get("/v1/runs")).json()["items"]] == [run["id"]]
    assert (await operator.get("/v1/runs", params={"mine": "true"})).json()["items"] == []
    without = app.client("olga", roles=("operator",), scope="workflows:read")
    assert (await without.get("/v1/runs")).json()["items"] == []


async def test_a_revoked_token_is_refused_within_a_second(app: Any) -> None:
    token = app.issuer.token(jti="gone")
    headers = {"authorization": f"Bearer {token}"}
    assert (await app.http.get("/v1/workflows", headers=headers)).status_code == 200
    app.issuer.revoke(token="gone")

    async def is_refused() -> bool:
        return (await app.http.get("/v1/workflows", headers=headers)).status_code == 401

    await wait_until(is_refused, timeout=1)


@pytest.mark.parametrize(
    ("path", "body", "media_type"),
    [
        ("/v1/runs", {"workflow": "order", "input": {}}, "application/json"),
        ("/v1/queues/default/pause", {}, "application/json"),
        (
            "/v1/events",
            {"specversion": "1.0", "id": "1", "source": "/held", "type": "held.back", "data": {}},
            "application/cloudevents+json",
        ),
    ],
)
async def test_a_token_that_is_revoked_while_the_body_is_held_back_does_nothing(
    app: Any, path: str, body: Any, media_type: str
) -> None:
    """Or whoever is put out would keep requests in hand, begun while they were still somebody."""
    token = app.issuer.token("olga", roles=("operator",), jti="held")
    headers = {"authorization": f"Bearer {token}", "content-type": media_type}

    async def is_refused() -> bool:
        return (await app.http.get("/v1/workflows", headers=headers)).status_code == 401

    async def held_back() -> AsyncIterator[bytes]:
        yield b" "
        app.issuer.revoke(token="held")
        await wait_until(is_refused)
        yield json.dumps(body).encode()

    answer = await app.http.post(path, content=held_back(), headers=headers)
    assert answer.status_code == 401, answer.text
    assert answer.json()["type"].endswith("not-signed-in")


async def test_a_user_who_is_disabled_is_refused_and_others_are_not(app: Any) -> None:
    app.issuer.revoke(user="alice")

    async def is_refused() -> bool:
        return (await app.client("alice").get("/v1/workflows")).status_code == 401

    await wait_until(is_refused)
    assert (await app.client("bob").get("/v1/workflows")).status_code == 200


async def test_a_stream_ends_with_its_token(app: Any) -> None:
    short = app.client(seconds=2)
    async with asyncio.timeout(30):
        async with short.stream("/v1/events") as messages:
            async for _ in messages:
                pass


async def test_a_stream_ends_when_its_token_is_revoked(app: Any) -> None:
    alice = app.client(jti="streaming")
    async with asyncio.timeout(30):
        async with alice.stream("/v1/events") as messages:
            app.issuer.revoke(token="streaming")
            async for _ in messages:
                pass


async def test_before_the_revocations_are_heard_the_service_is_not_ready_and_lets_nobody_in(
    make_settings: Any, issuer: Any
) -> None:
    import httpx

    from app_svc.serving import serving

    issuer.silent = True
    async with serving(make_settings()) as server, httpx.AsyncClient(base_url=server.url) as http:
        issuer.audience = server.url
        headers = {"authorization": f"Bearer {issuer.token()}"}
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["revocations"]) == (503, "revocations have not been heard of")
        assert (await http.get("/healthz")).status_code == 200
        refused = await http.get("/v1/workflows", headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        issuer.silent = False

        async def is_let_in() -> bool:
            return (await http.get("/v1/workflows", headers=headers)).status_code == 200

        await wait_until(is_let_in, timeout=15)


def bound_to(key: ProofKey, issuer: Any) -> str:
    """A token that only the holder of the key may use."""
    return issuer.token(cnf={"jkt": key.thumbprint})


async def test_the_appservice_takes_a_proof_once_whichever_process_it_comes_to(
    run_app: Any, make_settings: Any, issuer: Any, postgresql_url: str
) -> None:
    """RFC 9449 section 11.1: who got hold of a token and a proof finds no other process to use them at."""
    (port,) = free_ports(1)
    url, key = f"http://127.0.0.1:{port}", ProofKey.generate()
    settings = make_settings(postgresql_url, app_url=url)
    async with (
        run_app(settings.model_copy(update={"app_port": port}), issuer) as one,
        run_app(settings, issuer) as two,
    ):
        places = [url, f"http://127.0.0.1:{two.service.settings.app_port}"]
        await wait_until(lambda: two.service.revocations.is_up_to_date)
        token, path = bound_to(key, issuer), "/v1/workflows"

        async def ask(place: str, headers: dict[str, str]) -> int:
            return (await one.http.get(place + path, headers=headers | {"host": f"127.0.0.1:{port}"})).status_code

        headers = key.headers("GET", url + path, token)
        statuses = await asyncio.gather(*(ask(place, headers) for place in places for _ in range(10)))
        assert sorted(statuses) == [200] + [401] * 19
        assert [await ask(place, key.headers("GET", url + path, token)) for place in places] == [200, 200]


async def test_the_appservice_takes_no_proof_that_was_used_before_a_restart(
    run_app: Any, make_settings: Any, issuer: Any
) -> None:
    (port,) = free_ports(1)
    url, key = f"http://127.0.0.1:{port}", ProofKey.generate()
    settings = make_settings(app_url=url).model_copy(update={"app_port": port})
    statuses, headers = [], None
    for _ in range(2):
        async with run_app(settings, issuer) as app:
            headers = headers or key.headers("GET", f"{url}/v1/workflows", bound_to(key, issuer))
            statuses.append((await app.http.get("/v1/workflows", headers=headers)).status_code)
    assert statuses == [200, 401]
