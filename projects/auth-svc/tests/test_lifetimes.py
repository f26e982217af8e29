"""How long things live is what the guide says."""

import re
from pathlib import Path

from sqlalchemy import select, update

from auth_svc import tables
from auth_svc.clients.client import ACCESS_TOKEN_SECONDS
from auth_svc.grants.code import CODE_SECONDS
from auth_svc.grants.delegating import DAY_SECONDS, DELEGATION_SECONDS, LONGEST_DELEGATION_SECONDS
from auth_svc.grants.device import DEVICE_SECONDS
from auth_svc.people import sessions
from auth_svc.people.sessions import LIFETIME_SECONDS, MICROS
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS
from auth_svc.protocol.issuer import ID_TOKEN_SECONDS, REFRESH_SECONDS
from auth_svc.protocol.pushed_requests import UNTIL_BEGUN_SECONDS, UNTIL_DONE_SECONDS

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "sign-in.md"
MINUTE, HOUR = 60, 3600
LIVES = {
    "a sign-in in a browser": f"{LIFETIME_SECONDS // HOUR} hours",
    "an authorization code": f"{CODE_SECONDS} seconds",
    "a pushed request": f"{UNTIL_BEGUN_SECONDS} seconds until the browser comes with it, "
    f"then {UNTIL_DONE_SECONDS // MINUTE} minutes",
    "a device's code": f"{DEVICE_SECONDS // MINUTE} minutes",
    "an access token": f"{ACCESS_TOKEN_SECONDS} seconds",
    "an ID token": f"{ID_TOKEN_SECONDS} seconds",
    "a refresh token": f"{REFRESH_SECONDS // DAY_SECONDS} days",
    "a [delegation](acting-for-people.md)": f"{DELEGATION_SECONDS // DAY_SECONDS} days",
}


def test_the_guide_says_how_long_things_live():
    told = GUIDE.read_text()
    for thing, time in LIVES.items():
        assert f"| {thing} | {time}" in told
    assert f"the resource says, {LONGEST_ACCESS_SECONDS} at most" in told
    assert f"says otherwise, {LONGEST_DELEGATION_SECONDS // DAY_SECONDS} at most" in told


async def test_an_operator_says_how_long_sign_ins_and_refresh_tokens_live(run_provider, tmp_path, database_url):
    async with run_provider(tmp_path, database_url, session_minutes=90, refresh_days=2) as provider:
        await provider.add_user("ada")
        browser = await provider.browser()
        await browser.sign_in("ada")
        await provider.redeem(provider.answer(await provider.authorize(browser))["code"])
        database = provider.service.database
        session = await database.read(lambda connection: connection.execute(select(tables.sessions)).one())
        assert session.expires_at - session.started_at == 90 * MINUTE * MICROS
        refresh = await database.read(lambda connection: connection.execute(select(tables.refresh_tokens)).one())
        assert round((refresh.expires_at - refresh.issued_at) / MICROS, -2) == 2 * DAY_SECONDS
        cookie = next(cookie for cookie in browser.http.cookies.jar if re.fullmatch("evs-auth-[0-9]+", cookie.name))
        assert 89 * MINUTE < cookie.expires - session.started_at / MICROS < 91 * MINUTE


async def test_a_sign_in_of_an_earlier_release_says_when_it_began(provider_on_both):
    await (await provider_on_both.browser()).sign_in("ada")
    database = provider_on_both.service.database
    row = await database.read(lambda connection: connection.execute(select(tables.sessions)).one())
    began = row.started_at
    assert row.expires_at - began == LIFETIME_SECONDS * MICROS
    await database.transact(lambda connection: connection.execute(update(tables.sessions).values(started_at=None)))
    assert (await database.read(sessions.find, row.id)).started_at == began
