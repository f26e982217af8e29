"""Tokens that the steps of a run share: until half their life is over, or something of them is taken back."""

import base64
import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self, cast

import pytest
from acting_installation import FLOWS, Acting, acting_installation

from app_svc.kept_tokens import KeptTokens, Wanted
from app_svc.service import open_engine_only
from lib_auth.access_token import TokenRejected, TokenVerifier
from lib_auth.delegations import Delegations
from lib_auth.jwks import RemoteKeys
from lib_auth.tokens import TokenSet
from lib_events.testing import wait_until
from lib_workflows.authoring.delegation import TokenRequest
from lib_workflows.errors import DelegationRefused, TokensUnavailable


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, to whoever reads it."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def count_exchanges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Remember every token that the AuthService was asked for."""
    exchange, asked = Delegations.token, []

    async def counted(*args: Any, **named: Any) -> Any:
        asked.append(named["resource"])
        return await exchange(*args, **named)

    monkeypatch.setattr(Delegations, "token", counted)
    return asked


async def until_heard(acting: Acting, token: str) -> None:
    """Wait until the AppService has heard that a token was revoked."""
    settings, revocations = acting.service.settings, acting.service.revocations
    keys = RemoteKeys(acting.installation.http, f"{settings.auth_url}/oauth2/jwks")
    verifier = TokenVerifier(issuer=settings.auth_url, audience=acting.orders_url, keys=keys, revocations=revocations)

    async def is_refused() -> bool:
        try:
            await verifier.verify(token)
        except TokenRejected as rejected:
            return rejected.reason == "revoked"
        return False

    await wait_until(is_refused)


def wanted(acting: Acting, run: dict[str, Any], *scope: str) -> TokenRequest:
    return TokenRequest(run_id=run["id"], workflow=run["workflow"], resource=acting.orders_url, scope=scope)


async def test_the_steps_of_a_run_make_one_exchange_until_what_they_have_is_revoked(
    acting_on_both: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting, exchanges = acting_on_both, count_exchanges(monkeypatch)
    acting.watch_tokens(monkeypatch)
    ulla = await acting.allowed()
    run = await acting.start(ulla, "busy", 8)
    await wait_until(lambda: len(acting.tokens_seen) == 9, timeout=20)
    assert (len(set(acting.tokens_seen)), len(exchanges)) == (1, 1)
    (given,) = await acting.delegations()
    await acting.administer("DELETE", f"users/ulla/delegations/{given['id']}")
    await until_heard(acting, acting.tokens_seen[0])
    *before, last = (await acting.let_go_on(ulla, run)).output
    assert before == ["may"] * 9
    assert last.startswith(f"withdrawn: run {run['id']} may not act")
    assert len(exchanges) == 2, "it was asked for again, and refused"


async def test_a_role_that_was_taken_is_in_no_token_that_is_handed_out_again(
    acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = count_exchanges(monkeypatch)
    await acting.administer("PUT", "users/ulla/roles", {"roles": ["member", "operator"]})
    ulla = await acting.allowed("patient")
    run = await acting.start(ulla, "patient")
    tokens = acting.service.engine.residence.tokens
    first = await tokens(wanted(acting, run, "orders"))
    assert await tokens(wanted(acting, run, "orders")) == first
    assert "operator" in claims_of(first)["roles"]
    await acting.administer("PUT", "users/ulla/roles", {"roles": ["member"]})
    await until_heard(acting, first)
    assert claims_of(await tokens(wanted(acting, run, "orders")))["roles"] == ["member"]
    assert len(exchanges) == 2


async def test_no_token_is_shared_where_run_scope_or_service_differ(
    acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = count_exchanges(monkeypatch)
    scopes = {"orders": "See your orders", "orders:pay": "Pay for you"}
    await acting.administer("PATCH", "resources/orders", {"scopes": scopes})
    ulla = await acting.allowed("wide")
    one, two = await acting.start(ulla, "wide"), await acting.start(ulla, "wide")
    tokens = acting.service.engine.residence.tokens
    asked = [
        wanted(acting, one, "orders", "orders:pay"),
        wanted(acting, one, "orders"),
        wanted(acting, one, "orders:pay"),
        wanted(acting, two, "orders"),
    ]
    given = [await tokens(each) for each in asked]
    assert len(set(given)) == len(exchanges) == 4
    assert [claims_of(token)["scope"] for token in given] == ["orders orders:pay", "orders", "orders:pay", "orders"]
    assert [await tokens(each) for each in reversed(asked)] == given[::-1]
    assert await tokens(wanted(acting, one, "orders:pay", "orders")) == given[0], "in whatever order"
    assert len(exchanges) == 4
    tokens._kept._limit = 2
    await tokens(wanted(acting, two, "orders:pay"))
    assert len(tokens._kept._kept) == 2, "the oldest go"
    with pytest.raises(DelegationRefused):  # nobody lets it act there
        await tokens(replace(asked[0], resource=acting.installation.app_url))


async def test_a_token_is_handed_out_again_for_the_first_half_of_its_life(
    acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = count_exchanges(monkeypatch)
    await acting.administer("PATCH", "resources/orders", {"access_token_seconds": 10})
    ulla = await acting.allowed("patient")
    run = await acting.start(ulla, "patient")
    tokens = acting.service.engine.residence.tokens
    first = await tokens(wanted(acting, run, "orders"))
    assert await tokens(wanted(acting, run, "orders")) == first

    async def another() -> str | None:
        token = await tokens(wanted(acting, run, "orders"))
        assert claims_of(token)["exp"] - time.time() > 0.9, "a step can still do something with it"
        return token if token != first else None

    second = await wait_until(another)
    assert time.time() < claims_of(first)["exp"], "before it was over"
    assert claims_of(second)["exp"] > claims_of(first)["exp"]
    assert len(exchanges) == 2


async def test_a_clock_that_is_set_back_keeps_no_token_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the token goes the clock is right, and each attempt of the step would bring the dead one again."""

    class AlwaysGood:
        async def verify(self, token: str) -> None:
            """By the same clock it is."""

    class AnHourAgo(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) - timedelta(hours=1)

    passed, given = [0.0], iter(("first", "second", "third"))
    kept = KeptTokens(cast("Any", AlwaysGood()), clock=lambda: passed[0])

    async def ask() -> TokenSet:
        return TokenSet(next(given), datetime.now(UTC) + timedelta(seconds=300))

    async def get() -> str:
        return await kept.get(Wanted("d", "r", frozenset()), ask)

    assert [await get(), await get()] == ["first", "first"]
    monkeypatch.setattr("lib_auth.tokens.datetime", AnHourAgo)
    passed[0] = 149.0
    assert await get() == "first"
    passed[0] = 151.0
    assert await get() == "second"


async def test_while_nobody_can_say_what_was_revoked_nothing_is_handed_out_again(acting_alone: Acting) -> None:
    acting = acting_alone
    ulla = await acting.allowed("patient")
    run = await acting.start(ulla, "patient")
    tokens = acting.service.engine.residence.tokens
    first = await tokens(wanted(acting, run, "orders"))
    await acting.installation.stop_auth()
    acting.service.revocations._unheard_seconds = 0.0
    with pytest.raises(TokensUnavailable):
        await tokens(wanted(acting, run, "orders"))
    await acting.installation.start_auth()
    assert await tokens(wanted(acting, run, "orders")) != first


@pytest.mark.opened_elsewhere
@pytest.mark.postgresql
async def test_a_worker_beside_the_service_hears_what_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    async with acting_installation(tmp_path / "evs", monkeypatch, postgresql_url, queues=["here"]) as acting:
        exchanges = count_exchanges(monkeypatch)
        acting.watch_tokens(monkeypatch)
        ulla = await acting.allowed()
        run = await acting.start(ulla, "busy", 4, queue="there")
        for path in FLOWS:
            sys.modules.pop(path.stem, None)
        settings = acting.service.settings.model_copy(update={"queues": ["there"]})
        async with open_engine_only(settings) as engine:
            await wait_until(lambda: len(acting.tokens_seen) == 5, timeout=20)
            assert len(exchanges) == 1, "once it has heard of the revocations, and while they were still unheard"
            (given,) = await acting.delegations()
            await acting.administer("DELETE", f"users/ulla/delegations/{given['id']}")

            async def is_refused() -> bool:
                try:
                    await engine.residence.tokens(wanted(acting, run, "orders"))
                except DelegationRefused:
                    return True
                return False

            await wait_until(is_refused)
            ended = await acting.let_go_on(ulla, run)
            assert ended.output[-1].startswith("withdrawn: ")
