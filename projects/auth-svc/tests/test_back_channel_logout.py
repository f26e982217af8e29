"""Back-Channel Logout 1.0: clients hear that a session is over, until they have."""

import asyncio
import json
from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from joserfc import jws, jwt
from joserfc.jwk import KeySet
from sqlalchemy import insert, select, update

from auth_svc import outcome
from auth_svc.clients import clients, logout_notices
from auth_svc.clients.client import CODE, REFRESH
from auth_svc.clients.logout_notices import Delivery
from auth_svc.pruner import prune
from auth_svc.tables import logout_deliveries
from lib_events.database import DatabaseUnavailable
from lib_events.testing import wait_until
from lib_events.testing.receiver import Receiver, receiving, status

PASSWORD = "correct horse battery staple"
TIMES = ("next_at", "created_at")
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
async def hearer():
    """A client's endpoint that hears of logouts."""
    async with receiving() as receiver:
        yield receiver


async def signed_in(provider, hearer: Receiver, grant_types=(CODE, REFRESH), **values):
    """Sign ada in to a client that wants to hear of logouts; returns her browser and the client's tokens."""
    back = "https://hearing.example/back"
    auth = await provider.add_client(
        id="hearing",
        name="Hearing",
        redirect_uris=(back,),
        scopes=frozenset(("openid", "offline_access", "workflows:read")),
        consent="never",
        logout_uri=hearer.url,
        grant_types=grant_types,
    )
    browser = await provider.browser()
    request = {"client_id": "hearing", "redirect_uri": back, "scope": "openid workflows:read"} | values
    await provider.authorize(browser, **request)
    code = provider.answer(await browser.submit(username="ada", password=PASSWORD))["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    return browser, (await provider.token(auth, **form)).json()


async def sign_out(browser):
    await browser.open("/account")
    await browser.submit(form=-1)


async def left(provider):
    return await provider.service.database.read(lambda connection: connection.execute(select(logout_deliveries)).all())


async def test_a_client_hears_of_the_logout(provider_on_both, hearer):
    provider = provider_on_both
    browser, tokens = await signed_in(provider, hearer)
    await sign_out(browser)
    await wait_until(lambda: hearer.received)
    (received,) = hearer.received
    assert received.headers["content-type"] == "application/x-www-form-urlencoded"
    (token,) = parse_qs(received.body.decode())["logout_token"]
    assert jws.extract_compact(token.encode()).headers()["typ"] == "logout+jwt"
    keys = KeySet.import_key_set((await provider.http.get("/oauth2/jwks")).json())
    claims = jwt.decode(token, keys, algorithms=["ES256"]).claims
    id_claims = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"]).claims
    assert claims["events"] == {EVENT: {}}
    assert (claims["sub"], claims["sid"], claims["aud"]) == (id_claims["sub"], id_claims["sid"], "hearing")
    assert "nonce" not in claims
    assert claims["exp"] - claims["iat"] <= 120
    await wait_until(lambda: none_left(provider))


async def test_a_client_hears_of_nobody_who_did_not_sign_in_to_it(provider_on_both, hearer):
    """A logout token says who somebody is, and when they leave: that is no other client's business."""
    provider, back = provider_on_both, "https://other.example/back"
    other = {"scopes": frozenset(("openid",)), "consent": "never", "logout_uri": hearer.url}
    await provider.add_client(id="other", name="Other", redirect_uris=(back,), **other)
    await provider.add_user("bob")
    await provider.sign_in_for_code("bob", client_id="other", redirect_uri=back, scope="openid")
    browser, _ = await signed_in(provider, hearer)
    await sign_out(browser)
    await wait_until(lambda: hearer.received)
    await wait_until(lambda: none_left(provider))
    told = [parse_qs(each.body.decode())["logout_token"][0] for each in hearer.received]
    assert [json.loads(jws.extract_compact(token.encode()).payload)["aud"] for token in told] == ["hearing"]


async def none_left(provider):
    return not await left(provider)


async def test_a_client_with_offline_access_hears_too_and_keeps_its_tokens(provider, hearer):
    browser, tokens = await signed_in(provider, hearer, scope="openid offline_access workflows:read")
    await sign_out(browser)
    await wait_until(lambda: hearer.received)
    assert (await provider.introspect(tokens["access_token"]))["active"]
    keys = KeySet.import_key_set((await provider.http.get("/oauth2/jwks")).json())
    (heard,) = parse_qs(hearer.received[0].body.decode())["logout_token"]
    told, id_claims = (jwt.decode(token, keys, algorithms=["ES256"]).claims for token in (heard, tokens["id_token"]))
    assert told["sid"] == id_claims["sid"], "or the client could not tell which of its sessions it is"


async def test_a_client_that_does_not_answer_is_told_again(provider, hearer):
    hearer.answer = status(503)
    browser, _ = await signed_in(provider, hearer)
    await sign_out(browser)

    async def failed():
        return [row.attempts for row in await left(provider)] == [1]

    await wait_until(failed)
    hearer.answer = status(204)

    def now_due(connection):
        connection.execute(update(logout_deliveries).values(next_at=0))
        connection.notify("logout-deliveries")

    await provider.service.database.transact(now_due)
    await wait_until(lambda: none_left(provider))
    assert len(hearer.received) == 2


async def test_a_delivery_is_given_up_after_a_day_and_said_so(provider, hearer):
    hearer.answer = status(400)
    browser, _ = await signed_in(provider, hearer)
    await sign_out(browser)
    await wait_until(lambda: left(provider))

    def of_yesterday(connection):
        connection.execute(update(logout_deliveries).values(next_at=0, created_at=0))
        connection.notify("logout-deliveries")

    await provider.service.database.transact(of_yesterday)
    await wait_until(lambda: none_left(provider))
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    lines = (await provider.http.get("/v1/admin/audit", headers=headers)).json()["items"]
    assert ("logout.undelivered", "hearing") in {(line["what"], line["about"]) for line in lines}


async def test_a_client_that_wants_to_hear_no_more_is_told_no_more(provider_on_both, hearer):
    """What is due and can never be sent would be looked for again and again, without a pause."""
    provider = provider_on_both
    hearer.answer = status(503)
    browser, _ = await signed_in(provider, hearer)
    await sign_out(browser)
    await wait_until(lambda: left(provider))

    def now_due(connection):
        clients.change(connection, "hearing", lambda client: replace(client, logout_uri=None), provider.actor())
        connection.execute(update(logout_deliveries).values(next_at=0))
        connection.notify("logout-deliveries")

    await provider.service.database.transact(now_due)
    await wait_until(lambda: none_left(provider))


async def test_nobodys_logout_is_told_to_a_private_network(provider, subtests):
    """Back-Channel Logout section 4: a client may name any host; where that leads is looked at when it is told."""
    hosts = ("10.0.0.1", "169.254.169.254", "[fd00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]")
    for number, host in enumerate(hosts):
        await provider.add_client(id=f"inside-{number}", name="Inside", logout_uri=f"https://{host}/hear")

    def long_due(connection):
        for number in range(len(hosts)):
            row = {"id": f"{number}", "client_id": f"inside-{number}", "session_id": "s", "user_id": "u"}
            connection.execute(insert(logout_deliveries).values(row | dict.fromkeys(("attempts", *TIMES), 0)))
        connection.notify("logout-deliveries")

    await provider.service.database.transact(long_due)
    await wait_until(lambda: none_left(provider))
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    lines = (await provider.http.get("/v1/admin/audit", headers=headers)).json()["items"]
    why = {line["about"]: line["detail"]["why"] for line in lines if line["what"] == "logout.undelivered"}
    for number, host in enumerate(hosts):
        with subtests.test(host):
            assert "must have a public address" in why[f"inside-{number}"]


def plan(connection, clients_to_tell, **values):
    """Deliveries that are due, one for each name."""
    for number, client_id in enumerate(clients_to_tell):
        row = {"id": f"{number}-{client_id}", "client_id": client_id, "session_id": f"{number}", "user_id": "u"}
        connection.execute(insert(logout_deliveries).values(row | dict.fromkeys(("attempts", *TIMES), 0) | values))
    connection.notify("logout-deliveries")


async def test_a_client_that_does_not_answer_holds_up_no_other(provider_on_both, hearer):
    provider, never = provider_on_both, asyncio.Event()

    async def hang(_received, _writer):
        await never.wait()

    async with receiving() as silent:
        silent.answer = hang
        for name, url in (("silent", silent.url), ("hearing", hearer.url)):
            await provider.add_client(id=name, name=name, logout_uri=url)
        now = provider.actor().at
        await provider.service.database.transact(
            lambda connection: plan(connection, [*["silent"] * 150, "hearing"], next_at=now, created_at=now)
        )
        await wait_until(lambda: hearer.received)
        assert len(silent.received) < 4 * logout_notices.OF_ONE_CLIENT  # a few more whenever some are left
        never.set()


async def test_a_notice_that_cannot_be_made_holds_up_no_other_and_is_given_up(provider, hearer, caplog):
    """It ended what was under way to everybody else, was the next to be sent again, and so on."""
    for name, algorithm in (("broken", "RS256"), ("hearing", "ES256")):  # for which nobody has made a key
        await provider.add_client(id=name, name=name, logout_uri=hearer.url, id_token_algorithm=algorithm)
    await provider.service.database.transact(lambda connection: plan(connection, ["broken", "hearing"]))
    await wait_until(lambda: none_left(provider))
    assert len(hearer.received) == 1
    assert "a logout's notice to broken failed: an unexpected KeyUnknown" in caplog.text
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    lines = (await provider.http.get("/v1/admin/audit", headers=headers)).json()["items"]
    why = {line["about"]: line["detail"]["why"] for line in lines if line["what"] == "logout.undelivered"}
    assert why["broken"] == "an unexpected KeyUnknown"


async def test_a_notice_that_was_heard_while_the_database_was_away_is_not_sent_again(provider, hearer, monkeypatch):
    monkeypatch.setattr(outcome, "AWAY_SECONDS", 0.01)
    transact, away = provider.service.database.transact, [DatabaseUnavailable("away")] * 2

    async def transact_once_back(function, *args):
        if function is logout_notices._conclude and away:
            raise away.pop()
        return await transact(function, *args)

    monkeypatch.setattr(provider.service.database, "transact", transact_once_back)
    browser, _ = await signed_in(provider, hearer)
    await sign_out(browser)
    await wait_until(lambda: hearer.received)
    await wait_until(lambda: none_left(provider))
    assert (len(hearer.received), away) == (1, [])


async def test_a_notice_that_a_clock_ahead_put_off_is_sent_at_once(provider, hearer):
    await provider.add_client(id="hearing", name="Hearing", logout_uri=hearer.url)
    ahead = provider.actor().at + 24 * 3600 * 1_000_000
    await provider.service.database.transact(
        lambda connection: plan(connection, ["hearing"], next_at=ahead, created_at=ahead)
    )
    await wait_until(lambda: none_left(provider))
    assert len(hearer.received) == 1


async def test_what_another_leader_has_delivered_meanwhile_is_not_called_undelivered(provider):
    delivery = Delivery("1", "hearing", "https://hearing.example/hear", "ES256", "s", "u", 9, 0)
    await provider.service.database.transact(logout_notices._conclude, delivery, "no answer", provider.actor().at)
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    lines = (await provider.http.get("/v1/admin/audit", headers=headers)).json()["items"]
    assert "logout.undelivered" not in {line["what"] for line in lines}


async def test_a_delivery_survives_a_restart(run_provider, tmp_path, sqlite_url, hearer):
    hearer.answer = status(503)
    async with run_provider(tmp_path, sqlite_url) as provider:
        await provider.add_user("ada")
        browser, _ = await signed_in(provider, hearer)
        await sign_out(browser)
        await wait_until(lambda: left(provider))
    hearer.answer, before = status(204), len(hearer.received)
    async with run_provider(tmp_path, sqlite_url) as provider:
        await wait_until(lambda: none_left(provider))
    assert len(hearer.received) > before


async def test_clients_hear_of_logouts_after_the_database_was_away(provider_on_postgresql, hearer):
    """The connection that holds the lead is closed while nothing is due: whoever led waits to lead again."""
    provider = provider_on_postgresql
    browser, _ = await signed_in(provider, hearer)
    leads = provider.service.database._leads
    await wait_until(lambda: leads._connection)
    lost = leads._connection
    lost.terminate()
    await wait_until(lambda: leads._connection is not lost)
    await sign_out(browser)
    await wait_until(lambda: hearer.received, timeout=20)


async def test_a_client_that_only_signs_people_in_hears_hours_later_too(provider_on_both, hearer):
    """It has no refresh token, and its access token is long over; the person is still signed in there."""
    provider = provider_on_both
    browser, tokens = await signed_in(provider, hearer, grant_types=("authorization_code",))
    assert "refresh_token" not in tokens
    hours = 3 * 3600 * 1_000_000
    while await provider.service.database.transact(prune, provider.actor().at + hours):
        pass
    await sign_out(browser)
    await wait_until(lambda: hearer.received)
