"""What groups and roles give or take is told of whoever holds them: of many a few at a time, and once."""

import asyncio
from dataclasses import replace

import pytest
from rights_api import Api, claims, crowd, gather_crowd
from sqlalchemy import insert, select

from auth_svc.clients import clients
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
    await gather_crowd(provider.service.database, many, '["member"]', group["id"])
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
        crowd(connection, range(3))
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


def take_all(connection, ids, actor):
    accounts.set_roles(connection, ids["eve"], frozenset(), actor)


def give_to_group(connection, ids, actor):
    groups.change(connection, ids["group"], {"roles": frozenset(("operator",))}, actor)


def put_into_group(connection, ids, actor):
    groups.add_member(connection, ids["heads"], ids["eve"], actor)


def give_to_robot(connection, _ids, actor):
    clients.change(connection, "robot", lambda client: replace(client, roles=frozenset(("head",))), actor)


def take_from_role(connection, _ids, actor):
    role_news.change_role(connection, "head", {"includes": frozenset()}, actor)


def tell(connection, _ids, actor):
    role_news.tell(connection, actor.at)


@pytest.mark.parametrize(
    ("table", "first", "second", "about", "so"),
    [
        ("roles_to_tell", tell, take_all, "eve", ["member"]),
        ("events", give_to_group, take_all, "eve", ["member", "operator"]),
        ("events", put_into_group, take_from_role, "eve", ["chief", "head", "member"]),
        ("events", give_to_robot, take_from_role, "robot", ["head"]),
    ],
)
async def test_what_is_told_last_is_what_is_so(  # noqa: PLR0917 - what meets, and the fixtures that let it
    provider_on_postgresql, as_stranger, wait_for_locks, table, first, second, about, so
):
    """Webhooks read what their owner was last told to be: who was told by an older reading would read on for good."""
    provider = provider_on_postgresql
    api, database = Api(provider, await provider.admin_token()), provider.service.database
    await api.call("POST", "/roles", {"name": "head", "includes": ["operator"]})
    await api.call("POST", "/roles", {"name": "chief"})
    made = [await api.call("POST", "/groups", {"name": name, "roles": roles}) for name, roles in GROUPS]
    eve = await provider.add_user("eve", "chief")
    await provider.add_client(id="robot", name="Robot", grant_types=("client_credentials",))
    ids = {"eve": eve.id, "robot": "robot", "group": made[0]["id"], "heads": made[1]["id"]}
    if first is give_to_group:
        await api.call("PUT", "/groups/Support/members/eve")
    if first is tell:
        left = insert(roles_to_tell).values(user_id=eve.id, by="admin")
        await database.transact(lambda connection: connection.execute(left))
    async with as_stranger() as stranger:
        async with stranger.transaction():
            await stranger.execute(f"LOCK TABLE {table} IN SHARE MODE")
            earlier = asyncio.create_task(database.transact(first, ids, provider.actor()))
            await wait_for_locks(1)
            later = asyncio.create_task(database.transact(second, ids, provider.actor()))
            waiting = asyncio.create_task(wait_for_locks(2))
            await asyncio.wait((later, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        await asyncio.gather(earlier, later)
    assert await wait_until(lambda: last_told(provider, {ids[about]: so}))


GROUPS = (("Support", []), ("Heads", ["head"]))
