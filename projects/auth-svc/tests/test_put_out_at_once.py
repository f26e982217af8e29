"""Whoever lets in more and more of theirs can be put out in a moment: there is a bound to what is alive of them."""

import json
import secrets
from urllib.parse import urlencode

from sqlalchemy import func, select

from auth_svc.people import accounts, sessions
from auth_svc.protocol import families
from auth_svc.tables import audit
from auth_svc.tables import families as family_table
from auth_svc.tables import sessions as session_table


async def alive(provider, table, over):
    query = select(func.count()).select_from(table).where(over.is_(None))
    return await provider.service.database.read(lambda connection: connection.scalar(query))


async def test_of_what_a_person_allows_one_client_the_oldest_ends(provider_on_both):
    """Each code is for something that is alive from then on: a loop over one link made it more than could be ended."""
    provider, browser = provider_on_both, await provider_on_both.browser()
    first = await provider.tokens(browser=browser, scope="openid offline_access")
    link = f"/oauth2/authorize?{urlencode(provider.request())}"
    for _ in range(families.MOST_ALIVE - 1):
        assert (await browser.http.get(link)).status_code == 303
    assert (await provider.introspect(first["access_token"]))["active"]
    newest = provider.answer(await browser.http.get(link))["code"]
    assert await alive(provider, family_table, family_table.c.revoked_at) == families.MOST_ALIVE
    assert await provider.introspect(first["access_token"]) == {"active": False}
    assert (await provider.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await provider.redeem(newest)).status_code == 200


async def test_of_the_sign_ins_of_a_person_the_oldest_ends(provider_on_both):
    provider, browser = provider_on_both, await provider_on_both.browser()
    await browser.sign_in("ada")
    ada = await provider.service.database.read(accounts.find_by_username, "ada")

    def sign_in_often(connection, times):
        for _ in range(times):
            sessions.start(connection, secrets.token_hex(), ada.id, provider.actor(), "a browser")

    await provider.service.database.transact(sign_in_often, sessions.MOST_ALIVE - 1)
    assert (await browser.open("/account")).url.path == "/account"
    await provider.service.database.transact(sign_in_often, 1)
    assert await alive(provider, session_table, session_table.c.ended_at) == sessions.MOST_ALIVE
    assert (await browser.open("/account")).url.path == "/login"
    lines = select(audit.c.who, audit.c.detail).where(audit.c.what == "session.ended")
    (line,) = await provider.service.database.read(lambda connection: connection.execute(lines).all())
    assert (line.who, json.loads(line.detail)) == ("test", {"user": ada.id})
