"""Twenty at once for what exactly one may have: on both databases, a few times over.

`benchmarks/races.py` runs the same races a thousand times.
"""

import asyncio
import secrets
from urllib.parse import urlencode

from sqlalchemy import func, select

from auth_svc.tables import consents
from lib_auth.client import DEVICE_GRANT

PASSWORD = "correct horse battery staple"
CALLBACK = "http://127.0.0.1:8000/callback"
RACERS = 20
REPEATS = 3
ADDRESS = "127.0.0.1"


def count(answers, status=200, *, losers=(400,)):
    """How many won; nobody may get anything but what winners and losers get."""
    assert {answer.status_code for answer in answers} <= {status, *losers}, [answer.text for answer in answers]
    return sum(answer.status_code == status for answer in answers)


def codes_of(answers):
    """How many of the answers brought a code."""
    return sum("code=" in answer.headers.get("location", "") for answer in answers)


async def for_a_code(provider, browser):
    code = provider.answer(await provider.authorize(browser))["code"]
    return count(await asyncio.gather(*(provider.redeem(code) for _ in range(RACERS))))


async def for_a_refresh_token(provider, browser):
    """Without a grace."""
    code = provider.answer(await provider.authorize(browser))["code"]
    token = (await provider.redeem(code)).json()["refresh_token"]
    return count(await asyncio.gather(*(provider.refresh(token) for _ in range(RACERS))))


async def for_a_successor(provider, browser):
    """With a grace all tabs are told the same successor: how many different ones there are."""
    code = provider.answer(await provider.authorize(browser))["code"]
    token = (await provider.redeem(code)).json()["refresh_token"]
    answers = await asyncio.gather(*(provider.refresh(token) for _ in range(RACERS)))
    assert count(answers) == RACERS
    return len({answer.json()["refresh_token"] for answer in answers})


async def waiting_device(provider, browser):
    """A device that waits, and the page on which its person decides."""
    provider.service.limits.devices.forget(ADDRESS)
    asked = {"client_id": "evs-cli", "scope": "openid"}
    device = (await provider.post("/oauth2/device_authorization", asked)).json()
    await browser.open(device["verification_uri_complete"])
    await browser.submit()
    return device


async def for_a_device_code(provider, browser):
    device = await waiting_device(provider, browser)
    assert "Connected" in (await browser.submit(decision="allow")).text
    form = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"], "client_id": "evs-cli"}
    return count(await asyncio.gather(*(provider.token(None, **form) for _ in range(RACERS))))


async def for_a_device(provider, browser):
    """Half of the answers allow, half refuse: one of them counts."""
    await waiting_device(provider, browser)
    page = browser.page

    async def decide(number):
        mine = type(browser)(browser.http)
        mine.page = page
        return await mine.submit(decision="allow" if number % 2 else "deny")

    return count(await asyncio.gather(*map(decide, range(RACERS))), losers=(409, 429))


async def for_a_consent(provider, browser):
    """Two browsers with ten tabs each allow the same: all go on, and one consent is remembered."""
    client, other = f"client-{secrets.token_hex(4)}", await provider.browser()
    await other.sign_in("racer")
    values = {"redirect_uris": ("https://other.test/cb",), "scopes": frozenset(("openid",))}
    await provider.add_client(id=client, name=client, **values)
    for each in (browser, other):
        await provider.authorize(each, client_id=client, redirect_uri="https://other.test/cb", scope="openid")

    async def allow(number):
        shown = (browser, other)[number % 2]
        mine = type(browser)(shown.http)
        mine.page = shown.page
        return await mine.submit(decision="allow")

    assert codes_of(await asyncio.gather(*map(allow, range(RACERS)))) == RACERS
    kept = select(func.count(consents.c.user_id)).where(consents.c.client_id == client)
    return await provider.service.database.read(lambda connection: connection.scalar(kept))


async def for_a_pushed_request(provider, browser):
    pushed = await provider.post("/oauth2/par", provider.request(), provider.gui())
    query = urlencode({"client_id": "evs-gui", "request_uri": pushed.json()["request_uri"]})
    return codes_of(await asyncio.gather(*(browser.http.get(f"/oauth2/authorize?{query}") for _ in range(RACERS))))


RACES = (for_a_code, for_a_successor, for_a_device_code, for_a_device, for_a_consent, for_a_pushed_request)
STRICT = (for_a_refresh_token,)


async def run(provider, races, repeats):
    """How often each race had exactly one winner."""
    browser = await provider.browser()
    account = await provider.add_user("racer")
    await browser.sign_in("racer")
    won = dict.fromkeys((race.__name__ for race in races), 0)
    for race in races:
        for _ in range(repeats):
            provider.service.limits.user_codes.forget(account.id)
            won[race.__name__] += await race(provider, browser) == 1
    return won


async def test_of_twenty_at_once_exactly_one_wins(provider_on_both):
    won = await run(provider_on_both, RACES, REPEATS)
    assert won == {race.__name__: REPEATS for race in RACES}


async def test_without_a_grace_a_refresh_token_has_one_winner(run_provider, tmp_path, database_url):
    async with run_provider(tmp_path, database_url, refresh_grace_seconds=0) as provider:
        assert await run(provider, STRICT, REPEATS) == {race.__name__: REPEATS for race in STRICT}


async def test_of_twenty_who_revoke_one_token_all_are_told_that_it_is_done(provider_on_both):
    """RFC 7009 section 2.2: revoked is revoked, whoever was first."""
    provider, auth = provider_on_both, ("evs-local", provider_on_both.secret_of("evs-local"))
    for _ in range(REPEATS):
        token = (await provider.token(auth, grant_type="client_credentials")).json()["access_token"]
        sent = [provider.post("/oauth2/revoke", {"token": token}, auth) for _ in range(RACERS)]
        assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}
        assert (await provider.post("/oauth2/introspect", {"token": token}, auth)).json() == {"active": False}
