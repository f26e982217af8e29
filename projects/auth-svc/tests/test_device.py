"""The device grant: a code on a screen, a person who compares and decides, a device that waits its turn."""

import asyncio

import httpx
import pytest
from sqlalchemy import update

from auth_svc.grants.device import DEVICE_SECONDS
from auth_svc.people import accounts, sessions
from auth_svc.protocol import device_codes as device_codes_module
from auth_svc.tables import device_codes
from lib_auth.client import DEVICE_GRANT
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"


async def start(provider, **form):
    answer = await provider.post(
        "/oauth2/device_authorization", {"client_id": "evs-cli", "scope": "openid workflows:run"} | form
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def poll(provider, device, **changes):
    form = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"], "client_id": "evs-cli"} | changes
    return await provider.token(None, **form)


async def enter(provider, device, decision, username="ada"):
    browser = await provider.browser()
    await browser.open(device["verification_uri_complete"])
    await browser.submit(username=username, password=PASSWORD)
    page = await browser.submit()
    assert device["user_code"] in page.text
    assert "evs command line" in page.text
    assert "Start workflows" in page.text
    return await browser.submit(decision=decision)


async def change(provider, **values):
    await provider.service.database.transact(
        lambda connection: connection.execute(update(device_codes).values(values)) and None
    )


async def test_a_device_signs_in_once_the_person_has_confirmed(provider_on_both):
    provider = provider_on_both
    device = await start(provider)
    assert device["expires_in"] == DEVICE_SECONDS
    assert device["interval"] == 5
    assert (await poll(provider, device)).json()["error"] == "authorization_pending"
    assert "Connected" in (await enter(provider, device, "allow")).text
    await provider.add_user("mallory")
    stranger = await provider.browser()
    await stranger.sign_in("mallory", at=device["verification_uri_complete"])
    for decision in ("allow", "deny"):
        assert (await stranger.submit(decision=decision)).status_code == 409, "it was decided"
        await stranger.open(device["verification_uri_complete"])
    answer = await poll(provider, device)
    assert answer.status_code == 200, answer.text
    told = await provider.introspect(answer.json()["access_token"])
    assert told["username"] == "ada"
    assert told["scope"] == "openid workflows:run"
    assert {"refresh_token", "id_token"} <= answer.json().keys()
    refreshed = await provider.token(
        None, grant_type="refresh_token", client_id="evs-cli", refresh_token=answer.json()["refresh_token"]
    )
    assert refreshed.status_code == 200
    given = (await wait_until(lambda: provider.events("evs.grant.given")))[0]
    assert (given.data["client"], given.data["scopes"]) == ("evs-cli", ["openid", "workflows:run"])


async def test_a_device_code_is_used_once(provider_on_both):
    provider = provider_on_both
    device = await start(provider)
    await enter(provider, device, "allow")
    answers = await asyncio.gather(*(poll(provider, device) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert (await poll(provider, device)).json()["error"] == "invalid_grant"


async def test_a_refusal_ends_the_wait(provider):
    device = await start(provider)
    assert "Refused" in (await enter(provider, device, "deny")).text
    assert (await poll(provider, device)).json()["error"] == "access_denied"


async def test_a_code_runs_out(provider):
    device = await start(provider)
    await change(provider, expires_at=1)
    assert (await poll(provider, device)).json()["error"] == "expired_token"
    browser = await provider.browser()
    await browser.open(device["verification_uri_complete"])
    await browser.submit(username="ada", password=PASSWORD)
    assert "No device is waiting" in (await browser.submit()).text


async def test_a_device_that_polls_too_fast_is_slowed_down(provider_on_both):
    provider = provider_on_both
    device = await start(provider)
    assert (await poll(provider, device)).json()["error"] == "authorization_pending"
    assert (await poll(provider, device)).json()["error"] == "slow_down"
    now = provider.service.clock.micros()
    await change(provider, polled_at=now - 7_000_000)  # seven seconds are not enough any more: it is ten now
    assert (await poll(provider, device)).json()["error"] == "slow_down"
    await change(provider, polled_at=now - 60_000_000)
    assert (await poll(provider, device)).json()["error"] == "authorization_pending"


async def test_a_device_code_belongs_to_its_client_and_to_this_issuer(provider):
    device = await start(provider)
    other = await provider.add_client(id="other", name="Other", grant_types=(DEVICE_GRANT,))
    form = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"]}
    assert (await provider.token(other, **form)).json()["error"] == "invalid_grant"
    assert (await poll(provider, device, device_code="made-up")).json()["error"] == "invalid_grant"


async def test_nothing_is_allowed_without_the_explicit_confirmation(provider):
    device = await start(provider)
    browser = await provider.browser()
    await browser.open(device["verification_uri_complete"])
    await browser.submit(username="ada", password=PASSWORD)
    await browser.submit()  # the code is entered, the question is shown
    assert (await poll(provider, device)).json()["error"] == "authorization_pending"


async def test_the_page_says_who_stands_behind_a_client_that_nobody_here_has_made(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as provider:
        metadata = {"client_name": "evs command line", "grant_types": [DEVICE_GRANT], "scope": "openid"}
        metadata |= {"token_endpoint_auth_method": "none", "id_token_signed_response_alg": "ES256"}
        client = (await provider.http.post("/oauth2/register", json=metadata)).json()
        await provider.add_user("ada")
        for client_id, warned in ((client["client_id"], True), ("evs-cli", False)):
            device = await start(provider, client_id=client_id, scope="openid")
            browser = await provider.browser()
            await browser.open(device["verification_uri_complete"])
            await browser.submit(username="ada", password=PASSWORD)
            page = await browser.submit()
            assert "evs command line" in page.text
            assert ("nobody here has checked" in page.text) == warned


async def test_the_page_says_when_and_from_where_the_device_asked(provider_on_both, subtests):
    """RFC 8628 section 5.4: somebody who sends others a code chooses neither."""
    provider = provider_on_both
    for address, told in (
        ("203.0.113.9", "another network than the one that you are on"),
        ("127.0.0.1", "the network that you are on"),
        (None, "an address that nobody noted"),
    ):
        with subtests.test(address=address):
            transport = httpx.ASGITransport(app=provider.app, client=(address or "x", 50_000))
            async with httpx.AsyncClient(transport=transport, base_url=provider.settings.auth_url) as elsewhere:
                form = {"client_id": "evs-cli", "scope": "openid workflows:run"}
                device = (await elsewhere.post("/oauth2/device_authorization", data=form)).json()
            seconds_left = DEVICE_SECONDS - 3 * 60 - 5
            await change(provider, expires_at=provider.service.clock.micros() + seconds_left * 1_000_000)
            await change(provider, **({} if address else {"address": None}), interval_seconds=5)
            browser = await provider.browser()
            await browser.sign_in("ada", at=device["verification_uri_complete"])
            page = await browser.submit()
            assert "3 minutes ago" in page.text
            assert (f"<strong>{address}</strong>, {told}" if address else told) in page.text
            assert "would act for you" in page.text


async def test_behind_a_proxy_that_nobody_named_no_device_seems_to_be_near(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, auth_url="https://auth.example.org") as provider:
        await provider.add_user("ada")
        device, browser = await start(provider), await provider.browser()
        await browser.sign_in("ada", at=device["verification_uri_complete"])
        page = await browser.submit()
        assert "an address that nobody noted" in page.text
        assert "the network that you are on" not in page.text


async def test_half_a_code_is_shown_as_it_was_typed(provider):
    browser = await provider.browser()
    await browser.open("/device")
    await browser.submit(username="ada", password=PASSWORD)
    assert 'value="BBBB"' in (await browser.submit(user_code="bbbb")).text


@pytest.mark.parametrize("spelling", ["{0}", "{0}  ", "{1}", "{2}"])
async def test_people_type_codes_in_many_ways(provider, spelling):
    device = await start(provider)
    code = device["user_code"]
    typed = spelling.format(code, code.replace("-", " ").lower(), code.replace("-", ""))
    browser = await provider.browser()
    await browser.open("/device")
    await browser.submit(username="ada", password=PASSWORD)
    assert "Is this your device?" in (await browser.submit(user_code=typed)).text


@pytest.mark.parametrize(("decision", "status"), [("", 404), ("allow", 409), ("deny", 409)])
async def test_guessing_codes_is_slowed_down_whatever_is_to_be_done_with_them(provider, decision, status):
    browser = await provider.browser()
    await browser.open("/device")
    await browser.submit(username="ada", password=PASSWORD)
    for _ in range(20):
        await browser.open("/device")
        assert (await browser.submit(user_code="BBBB-BBBB", decision=decision)).status_code == status
    await browser.open("/device")
    refused = await browser.submit(user_code="BBBB-BBBB", decision=decision)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0


async def test_a_device_waits_on_when_the_person_was_signed_out_meanwhile(provider_on_both):
    provider = provider_on_both
    device = await start(provider)
    browser = await provider.browser()
    await browser.sign_in("ada")
    database, now = provider.service.database, provider.service.clock.micros()
    ada = await database.read(accounts.find_by_username, "ada")
    (session,) = await database.read(sessions.alive_of_user, ada.id, now)
    await database.transact(sessions.end, session.id, "test", now)
    approved = await database.transact(device_codes_module.approve, device["user_code"], ada, session, provider.actor())
    assert not approved
    assert (await poll(provider, device)).json()["error"] == "authorization_pending"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"client_id": "nobody"}, "invalid_client"),
        ({"client_id": "evs-gui"}, "invalid_client"),
        ({"scope": "bogus"}, "invalid_scope"),
        ({"resource": "https://elsewhere.test"}, "invalid_target"),
    ],
)
async def test_a_wrong_device_request_is_told_why(provider, form, error):
    answer = await provider.post("/oauth2/device_authorization", {"client_id": "evs-cli"} | form)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
