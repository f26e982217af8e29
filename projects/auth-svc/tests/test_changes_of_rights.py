"""Changes of rights that meet: nobody is left without an administrator, and none is half made."""

import asyncio

import pytest
from rights_api import ADMIN, Api
from sqlalchemy import select

from auth_svc.audit import Actor
from auth_svc.people import accounts, administrators, own_data
from auth_svc.rights import groups
from auth_svc.rights.changes import ChangeConflicts
from auth_svc.rights.groups import Group
from auth_svc.rights.roles import remove as remove_role
from auth_svc.tables import users


@pytest.fixture
async def api(provider):
    return Api(provider, await provider.admin_token())


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


async def test_an_administrator_by_a_group_cannot_take_it_from_themselves(api, subtests):
    provider = api.provider
    await api.call("POST", "/groups", {"name": "admins", "roles": ["admin"]})
    await api.call("PUT", "/groups/admins/members/ada")
    values = {"scope": "openid admin", "resource": "http://127.0.0.1:8001/v1/admin"}
    ada = Api(provider, (await provider.tokens("ada", **values))["access_token"])
    for method, path, body in (
        ("PATCH", "/groups/admins", {"roles": []}),
        ("DELETE", "/groups/admins", None),
        ("DELETE", "/groups/admins/members/ada", None),
    ):
        with subtests.test(path=path):
            await ada.call(method, path, body, status=409)
    await ada.call("GET", "/groups/admins")


@pytest.mark.parametrize("end", ["disable", "delete"])
async def test_whoever_was_put_out_while_they_changed_rights_changes_none(api_on_both, monkeypatch, end):
    """Or of two administrators, of whom one is put out and the other loses the role, none would be left."""
    api, provider = api_on_both, api_on_both.provider
    await api.call("POST", "/groups", {"name": "admins", "roles": ["admin"]})
    await api.call("PUT", "/groups/admins/members/ada")
    admin, ada = [await provider.service.database.read(accounts.find_by_username, name) for name in ("admin", "ada")]
    by_ada = Actor(provider.actor().at, ada.id)
    transact = provider.service.database.transact
    waiting = [{"disable": accounts.disable, "delete": own_data.delete_account}[end]]

    async def transact_once_put_out(function, *args):
        if waiting and groups.remove in args:
            await transact(waiting.pop(), admin.id, by_ada)
        return await transact(function, *args)

    monkeypatch.setattr(provider.service.database, "transact", transact_once_put_out)
    refused = await provider.http.delete(f"{ADMIN}/groups/admins", headers=api.headers)
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (403, "administers-no-more")
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    assert "admin" in ada.granted_roles


async def test_of_two_who_put_out_each_other_by_account_and_by_group_one_stays(api_on_both):
    api, provider = api_on_both, api_on_both.provider
    values = {"scope": "openid admin", "resource": "http://127.0.0.1:8001/v1/admin"}
    await api.call("POST", "/groups", {"name": "admins", "roles": ["admin"]})
    await api.call("PUT", "/groups/admins/members/ada")
    ada = Api(provider, (await provider.tokens("ada", **values))["access_token"])
    answers = await asyncio.gather(
        provider.http.delete(f"{ADMIN}/groups/admins", headers=api.headers),
        provider.http.post(f"{ADMIN}/users/admin/disable", headers=ada.headers),
    )
    assert sorted(answer.is_success for answer in answers) == [False, True], [answer.text for answer in answers]
    assert len(await provider.service.database.transact(administrators.lock)) == 1


async def test_of_two_changes_at_once_that_cannot_both_be_one_is_refused(api_on_both, subtests):
    api = api_on_both
    await api.call("POST", "/roles", {"name": "a"})
    await api.call("POST", "/roles", {"name": "b"})
    resource = {"id": "maps", "identifier": "urn:maps", "name": "Maps"}
    for what, requests in (
        ("two groups of one name", [("POST", "/groups", {"name": "g"})] * 2),
        ("two roles of one name", [("POST", "/roles", {"name": "c"})] * 2),
        ("two users of one name", [("POST", "/users", {"username": "eve"})] * 2),
        ("two resources of one id", [("POST", "/resources", resource)] * 2),
        ("a circle", [("PATCH", "/roles/a", {"includes": ["b"]}), ("PATCH", "/roles/b", {"includes": ["a"]})]),
    ):
        with subtests.test(what):
            answers = await asyncio.gather(
                *(
                    api.provider.http.request(method, ADMIN + path, json=body, headers=api.headers)
                    for method, path, body in requests
                )
            )
            statuses = sorted(answer.status_code for answer in answers)
            assert statuses[0] in (200, 201)
            assert statuses[1] in (409, 422)


async def test_a_role_that_is_being_given_is_not_removed_meanwhile(provider_on_postgresql, as_stranger, wait_for_locks):
    """Whoever holds a role that is not there has whatever one of that name is made to mean later."""
    api = Api(provider_on_postgresql, await provider_on_postgresql.admin_token())
    await api.call("POST", "/roles", {"name": "tester"})
    database, actor = api.provider.service.database, api.provider.actor()

    def give(connection, actor):
        groups.create(connection, Group(name="crew", roles=frozenset(("tester",))), actor)
        connection.execute(select(users.c.id).with_for_update())  # there is a moment before its commit

    async with as_stranger() as stranger:
        async with stranger.transaction():
            await stranger.execute("SELECT * FROM users FOR UPDATE")
            given = asyncio.create_task(database.transact(give, actor))
            await wait_for_locks(1)
            removed = asyncio.create_task(database.transact(remove_role, "tester", actor))
            await wait_for_locks(2)
        await given
        with pytest.raises(ChangeConflicts, match="somebody holds the role tester"):
            await removed


async def test_whoever_is_being_deleted_comes_into_no_group(provider_on_postgresql, as_stranger, wait_for_locks):
    api = Api(provider_on_postgresql, await provider_on_postgresql.admin_token())
    database, actor = api.provider.service.database, api.provider.actor()
    ada = await database.read(accounts.find_by_username, "ada")
    crew = await api.call("POST", "/groups", {"name": "crew"})
    async with as_stranger() as stranger:
        async with stranger.transaction():
            await stranger.execute("SELECT * FROM groups FOR UPDATE")
            added = asyncio.create_task(api.call("PUT", f"/groups/crew/members/{ada.id}", status=404))
            await wait_for_locks(1)
            await database.transact(own_data.delete_account, ada.id, actor)
        await added
    assert await database.read(groups.count_members, [crew["id"]]) == {}
