"""What groups and roles give or take is told of whoever holds them: of many a few at a time, and once."""

import pytest
from rights_api import Api, claims, crowd
from sqlalchemy import insert, select

from auth_svc.people import accounts
from auth_svc.rights import groups, role_news
from auth_svc.tables import roles_to_tell
from lib_events.event_log import read_after
from lib_events.testing import wait_until


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


@pytest.mark.parametrize("way", ["gives less", "is deleted"])
async def test_a_large_group_takes_at_once_and_tells_of_each_a_few_at_a_time(api_on_both, way):
    api, provider = api_on_both, api_on_both.provider
    many = groups.FEW + role_news.BATCH + 100
    group = await api.call("POST", "/groups", {"name": "Support", "roles": ["operator"]})
    await provider.service.database.transact(crowd, many, '["member"]', group["id"])
    await api.call("PUT", "/groups/Support/members/ada")
    await provider.add_user("eve", "operator")
    await provider.add_user("bob")
    ada, eve, bob = [await provider.tokens(name) for name in ("ada", "eve", "bob")]
    if way == "gives less":
        await api.call("PATCH", "/groups/Support", {"roles": []})
    else:
        await api.call("DELETE", "/groups/Support")
    assert [(await claims(provider, tokens))["active"] for tokens in (ada, eve, bob)] == [False, False, True]
    for tokens, roles in ((ada, ["member"]), (eve, ["member", "operator"])):  # who has it otherwise goes on with it
        fresh = (await provider.refresh(tokens["refresh_token"])).json()
        assert (await claims(provider, fresh))["roles"] == roles

    async def told():
        found = []
        while page := await provider.service.database.read(roles_changed, found[-1].position if found else 0):
            found += page
        last = {placed.event.data["user"]: placed.event.data for placed in found}
        return last if len(last) == many + 1 and all(data["roles"] == ["member"] for data in last.values()) else None

    told_of = await wait_until(told)
    admin = await provider.service.database.read(accounts.find_by_username, "admin")
    assert {data["by"] for data in told_of.values()} == {admin.id}
    left = await provider.service.database.read(lambda connection: connection.execute(select(roles_to_tell)).all())
    assert left == []


def roles_changed(connection, after):
    return read_after(connection, after, types=["evs.user.roles-changed"], limit=500).events


async def test_what_a_role_comes_to_include_or_not_is_told_of_whoever_holds_it(api_on_both):
    """Who acts on without a token, as webhooks and schedules do, would keep what was taken from their owner."""
    api, provider = api_on_both, api_on_both.provider
    await api.call("POST", "/roles", {"name": "chief", "includes": ["admin"]})
    await api.call("POST", "/roles", {"name": "head", "includes": ["chief"]})
    await api.call("POST", "/groups", {"name": "Heads", "roles": ["head"]})
    eve, bob = [await provider.add_user(name, *roles) for name, roles in (("eve", ["chief"]), ("bob", []))]
    await api.call("PUT", "/groups/Heads/members/ada")
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    await provider.add_client(id="robot", name="Robot", grant_types=("client_credentials",), roles={"head"})
    all_of_it = ["admin", "chief", "head", "member", "operator"]
    assert await wait_until(lambda: last_told(provider, {ada.id: all_of_it}))
    await api.call("PATCH", "/roles/chief", {"includes": []})
    left = {ada.id: ["chief", "head", "member"], eve.id: ["chief", "member"], "robot": ["chief", "head"]}
    assert await wait_until(lambda: last_told(provider, left))
    assert bob.id not in {event.data["user"] for event in await provider.events("evs.user.roles-changed")}


async def last_told(provider, wanted):
    events = await provider.events("evs.user.roles-changed", "evs.client.changed")
    told = {event.subject: event.data["roles"] for event in events}
    return {subject: told.get(subject) for subject in wanted} == wanted


async def test_what_a_crash_left_untold_is_told_at_the_next_start(run_provider, tmp_path, database_url):
    async with run_provider(tmp_path, database_url) as stopped:
        ada = await stopped.add_user("ada", "operator")
        left = insert(roles_to_tell).values(user_id=ada.id, by="admin")
        await stopped.service.database.transact(lambda connection: connection.execute(left))
    async with run_provider(tmp_path, database_url) as running:
        (told,) = await wait_until(lambda: running.events("evs.user.roles-changed"))
    assert (told.data["user"], told.data["by"], told.data["roles"]) == (ada.id, "admin", ["member", "operator"])


async def test_a_piece_that_fails_is_told_whole_later(provider_on_both):
    provider = provider_on_both
    database, now = provider.service.database, provider.actor().at

    def fail(connection):
        crowd(connection, 3)
        connection.execute(insert(roles_to_tell), [{"user_id": f"clerk-{each}", "by": None} for each in range(3)])

    def torn(connection):
        role_news.tell(connection, now)
        raise ZeroDivisionError

    await database.transact(fail)
    with pytest.raises(ZeroDivisionError):
        await database.transact(torn)
    assert await database.transact(role_news.tell, now) == 3
    assert await database.transact(role_news.tell, now) == 0
    assert len(await wait_until(lambda: provider.events("evs.user.roles-changed"))) == 3
