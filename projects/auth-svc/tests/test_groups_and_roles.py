"""Groups, roles and permissions: what somebody may do follows from rows, and what is taken away ends at once."""

import asyncio
import time
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import insert, select

from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.people import accounts, administrators, own_data
from auth_svc.rights import groups, role_news
from auth_svc.rights.changes import ChangeConflicts
from auth_svc.rights.groups import Group
from auth_svc.rights.roles import remove as remove_role
from auth_svc.tables import group_members, roles_to_tell, users
from lib_events.event_log import read_after
from lib_events.testing import wait_until

ADMIN = "/v1/admin"
APP = "http://127.0.0.1:8002"


class Api:
    """The admin API as an administrator."""

    def __init__(self, provider, token):
        self.provider = provider
        self.headers = {"authorization": f"Bearer {token}"}

    async def call(self, method, path, body=None, status=None):
        answer = await self.provider.http.request(method, ADMIN + path, json=body, headers=self.headers)
        assert answer.status_code == (status or {"POST": 201, "PUT": 204, "DELETE": 204}.get(method, 200)), answer.text
        return answer.json() if answer.content else None


@pytest.fixture
async def api(provider):
    return Api(provider, await provider.admin_token())


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


async def claims(provider, tokens):
    """What an access token says to the AppService, as the introspection tells it."""
    return await provider.introspect(tokens["access_token"])


async def is_told(told, wanted):
    return await told() == wanted


async def test_a_group_gives_its_roles_to_whoever_is_in_it_and_takes_them_away_at_once(api_on_both):
    api, provider = api_on_both, api_on_both.provider
    group = await api.call("POST", "/groups", {"name": "Support", "roles": ["operator"]})
    await api.call("PUT", "/groups/Support/members/ada")
    tokens = await provider.tokens("ada")
    assert (await claims(provider, tokens))["roles"] == ["member", "operator"]
    shown = await api.call("GET", "/users/ada")
    assert (shown["roles"], shown["effective_roles"], shown["groups"]) == (
        ["member"],
        ["member", "operator"],
        ["Support"],
    )
    assert [member["username"] for member in (await api.call("GET", f"/groups/{group['id']}/members"))["items"]] == [
        "ada"
    ]
    await api.call("DELETE", "/groups/Support/members/ada")

    async def told():
        return [event.data["roles"] for event in await provider.events("evs.user.roles-changed")]

    # Other services that keep what somebody may do hear of both.
    assert await wait_until(lambda: is_told(told, [["member", "operator"], ["member"]]))
    assert not (await claims(provider, tokens))["active"]
    fresh = (await provider.refresh(tokens["refresh_token"])).json()
    assert (await claims(provider, fresh))["roles"] == ["member"]


async def test_every_way_to_take_a_role_away_refuses_the_tokens_that_say_it(api, subtests):
    provider = api.provider
    await api.call("POST", "/roles", {"name": "auditor", "includes": ["operator"]})
    await api.call("POST", "/groups", {"name": "g", "roles": ["auditor"]})
    await api.call("PUT", "/groups/g/members/ada")
    for what, method, path, body in (
        ("the role includes less", "PATCH", "/roles/auditor", {"includes": []}),
        ("the group gives less", "PATCH", "/groups/g", {"roles": []}),
        ("the group is deleted", "DELETE", "/groups/g", None),
    ):
        with subtests.test(what):
            tokens = await provider.tokens("ada")
            assert (await claims(provider, tokens))["active"]
            await api.call(method, path, body)
            active = (await claims(provider, tokens))["active"]
            # The last one finds nothing left to take.
            assert active == (what == "the group is deleted")


async def test_a_role_that_shrinks_refuses_the_tokens_of_clients_that_hold_it(api_on_both):
    api, provider = api_on_both, api_on_both.provider
    await api.call("POST", "/roles", {"name": "auditor", "includes": ["operator"]})
    robot = {"id": "robot", "name": "Robot", "grant_types": ["client_credentials"], "scopes": ["events:read"]}
    secret = (await api.call("POST", "/clients", robot | {"roles": ["auditor"]}))["secret"]

    async def token():
        return (await provider.token(("robot", secret), grant_type="client_credentials")).json()

    held = await token()
    assert (await claims(provider, held))["roles"] == ["auditor", "member", "operator"]
    await api.call("PATCH", "/roles/auditor", {"includes": []})
    assert not (await claims(provider, held))["active"]
    assert (await claims(provider, await token()))["roles"] == ["auditor"]


async def test_what_changes_nothing_for_anybody_leaves_their_tokens_alone(api):
    provider = api.provider
    await api.call("POST", "/groups", {"name": "g", "roles": ["member"]})
    await api.call("PUT", "/groups/g/members/ada")
    tokens = await provider.tokens("ada")
    await api.call("PATCH", "/groups/g", {"name": "h", "description": "renamed"})
    await api.call("PATCH", "/groups/h", {"roles": ["operator"]})
    await api.call("PUT", "/groups/h/members/ada")
    assert (await claims(provider, tokens))["active"]


async def test_the_claim_groups_is_for_whoever_may_see_it(api):
    provider = api.provider
    await api.call("POST", "/groups", {"name": "Support"})
    await api.call("PUT", "/groups/Support/members/ada")
    with_scope = await provider.tokens("ada", scope="openid groups")
    headers = {"authorization": f"Bearer {with_scope['access_token']}"}
    assert (await provider.http.get("/oauth2/userinfo", headers=headers)).json()["groups"] == ["Support"]
    without = await provider.tokens("ada", scope="openid")
    headers = {"authorization": f"Bearer {without['access_token']}"}
    assert "groups" not in (await provider.http.get("/oauth2/userinfo", headers=headers)).json()


async def test_permissions_are_in_tokens_for_their_resource_alone(api_on_both):
    api, provider = api_on_both, api_on_both.provider
    made = await api.call(
        "POST",
        "/resources",
        {
            "id": "orders",
            "identifier": "https://orders.example.org/",
            "name": "Orders",
            "scopes": {"orders": "Work with your orders"},
            "permissions": {"orders:refund": "Give money back", "orders:ship": "Send things"},
            "access_token_seconds": 60,
        },
    )
    assert made["identifier"] == "https://orders.example.org"
    await api.call("POST", "/roles", {"name": "clerk", "permissions": ["orders:refund"]})
    await api.call("PUT", "/users/ada/roles", {"roles": ["clerk"]}, status=200)
    redirect = "https://shop.example.org/cb"
    client = {"id": "shop", "name": "Shop", "redirect_uris": [redirect], "scopes": ["openid", "orders"]}
    secret = (await api.call("POST", "/clients", client))["secret"]

    async def shop(**more):
        browser = await provider.browser()
        asked = {"client_id": "shop", "redirect_uri": redirect, "scope": "openid orders"} | more
        page = await provider.authorize(browser, **asked)
        page = await browser.submit(username="ada", password="correct horse battery staple")
        assert "Work with your orders" in page.text
        code = provider.answer(await browser.submit(decision="allow"))["code"]
        form = {"code": code, "redirect_uri": redirect, "code_verifier": provider.verifier}
        return (await provider.token(("shop", secret), grant_type="authorization_code", **form)).json()

    tokens = await shop(resource=made["identifier"])
    assert (tokens["scope"], tokens["expires_in"]) == ("openid orders", 60)
    asked = await provider.post("/oauth2/introspect", {"token": tokens["access_token"]}, ("orders", made["secret"]))
    assert asked.json()["permissions"] == ["orders:refund"]
    feed = await provider.http.get("/v1/revocations", auth=("orders", made["secret"]))
    assert feed.status_code == 200
    rotated = await api.call("POST", "/resources/orders/rotate-secret", status=200)
    assert (await provider.http.get("/v1/revocations", auth=("orders", made["secret"]))).status_code in (400, 401)
    assert (await provider.http.get("/v1/revocations", auth=("orders", rotated["secret"]))).status_code == 200
    await api.call("PATCH", "/roles/clerk", {"permissions": []})
    assert not (
        await provider.post("/oauth2/introspect", {"token": tokens["access_token"]}, ("orders", rotated["secret"]))
    ).json()["active"]
    await api.call("DELETE", "/resources/orders")
    refreshed = await provider.token(
        ("shop", secret), grant_type="refresh_token", refresh_token=tokens["refresh_token"]
    )
    assert refreshed.json()["error"] == "invalid_target"


async def test_what_is_taken_from_a_role_is_taken_from_any_number_of_people_at_once(api_on_both):
    api, provider = api_on_both, api_on_both.provider
    await api.call("PATCH", "/resources/app", {"permissions": {"orders:refund": "", "orders:ship": ""}})
    await api.call("POST", "/roles", {"name": "clerk", "permissions": ["orders:refund", "orders:ship"]})
    await api.call("POST", "/roles", {"name": "chief", "includes": ["clerk"]})
    await api.call("PUT", "/users/ada/roles", {"roles": ["chief"]}, status=200)
    await provider.add_user("eve")
    auth = await provider.add_client(
        id="robot", name="Robot", grant_types=("client_credentials",), roles=frozenset(("clerk",))
    )
    await provider.service.database.transact(crowd, 20_000)

    async def tokens():
        robot = (await provider.token(auth, grant_type="client_credentials")).json()
        return [(await provider.tokens("ada"))["access_token"], robot["access_token"]]

    async def active(*given):
        return [(await provider.introspect(token))["active"] for token in given]

    eve = (await provider.tokens("eve"))["access_token"]
    before = await tokens()
    for left in (["orders:ship"], []):  # twice within a second, most likely: each time what was issued until then goes
        assert await active(*before, eve) == [True, True, True]
        await api.call("PATCH", "/roles/clerk", {"permissions": left})
        assert await active(*before, eve) == [False, False, True]
        before = await tokens()
        assert (await provider.introspect(before[0])).get("permissions", []) == left
    assert await active(*before) == [True, True]
    told = [event.data for event in await wait_until(lambda: provider.events("evs.token.revoked"))]
    assert [(data["role"], data["user"]) for data in told if data["role"]] == [("clerk", None)] * 2
    feed = await provider.http.get("/v1/revocations", auth=("evs-app", provider.secret_of("evs-app")))
    assert ("role", "clerk") in {(item["kind"], item["value"]) for item in feed.json()["items"]}


@pytest.mark.parametrize("first", ["client", "person"])
async def test_what_is_taken_is_refused_although_something_else_of_the_token_was_taken_a_moment_ago(
    provider_on_both, first
):
    """A token of the second in which its client, or its person, was marked says the next one: the other's mark has to
    reach that."""
    provider, back, both = provider_on_both, "https://shop.example/back", frozenset(("openid", "workflows:read"))
    eve = await provider.add_user("eve", "operator", "auditor")
    values = {"consent": "never", "redirect_uris": (back,), "scopes": both | {"workflows:run"}}
    auth = await provider.add_client(id="shop", name="Shop", **values)
    code = await provider.sign_in_for_code("eve", client_id="shop", redirect_uri=back, scope=" ".join(sorted(both)))
    form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    tokens = (await provider.token(auth, grant_type="authorization_code", **form)).json()

    async def take_from_client(scopes):
        await provider.service.database.transact(
            clients.change, "shop", partial(replace, scopes=scopes), provider.actor()
        )

    async def take_from_person(*roles):
        await provider.service.database.transact(accounts.set_roles, eve.id, frozenset(roles), provider.actor())

    await wait_until(lambda: time.time() % 1 < 0.3)  # what follows is to be of one second
    await (take_from_client(both) if first == "client" else take_from_person("operator"))
    form = {"refresh_token": tokens["refresh_token"]}
    tokens = (await provider.token(auth, grant_type="refresh_token", **form)).json()
    assert (await claims(provider, tokens))["active"]
    await (take_from_person("member") if first == "client" else take_from_client(frozenset(("openid",))))
    assert await claims(provider, tokens) == {"active": False}


async def test_a_process_that_has_not_heard_what_a_role_lost_gives_no_token_that_says_it(
    run_provider, tmp_path, postgresql_url
):
    async with (
        run_provider(tmp_path, postgresql_url) as provider,
        run_provider(tmp_path, postgresql_url) as other,
    ):
        api = Api(provider, await provider.admin_token())
        await api.call("POST", "/roles", {"name": "auditor", "includes": ["operator"]})
        values = {"id": "robot", "name": "Robot", "grant_types": ("client_credentials",)}
        auth = await provider.add_client(**values, roles=frozenset(("auditor",)))

        async def held():
            return await claims(other, (await other.token(auth, grant_type="client_credentials")).json())

        async def heard():
            return "operator" in (await held())["roles"]

        await wait_until(heard)
        await other.service.definitions.stop()  # it is late: others hold it up
        await api.call("PATCH", "/roles/auditor", {"includes": []})
        taken = time.time()
        await wait_until(lambda: time.time() > taken + 2)  # tokens say whole seconds
        assert (await held())["roles"] == ["auditor"]


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


def crowd(connection, number, roles='["clerk","member"]', group=None):
    """Many people who hold a role, or are in a group."""
    columns = ("id", "username", "username_key")
    common = {"roles": roles, "created_at": 1, "password_changed_at": 1, "tokens_valid_after": 0}
    rows = [dict.fromkeys(columns, f"clerk-{each}") | common for each in range(number)]
    for first in range(0, number, 1_000):
        connection.execute(insert(users), rows[first : first + 1_000])
    if group is not None:
        connection.execute(
            insert(group_members), [{"group_id": group, "user_id": row["id"], "added_at": 1} for row in rows]
        )


async def test_discovery_follows_the_resources_in_every_process(provider_on_both, api_on_both, tmp_path, run_provider):
    provider, api = provider_on_both, api_on_both

    async def scopes(http):
        return (await http.get("/.well-known/openid-configuration")).json()["scopes_supported"]

    resource = {"id": "maps", "identifier": "urn:maps", "name": "Maps", "scopes": {"maps": "See maps"}}
    url = provider.settings.auth_database_url
    if url.startswith("sqlite"):  # one process has the file
        await api.call("POST", "/resources", resource)
        assert "maps" in await scopes(provider.http)
        return
    async with run_provider(tmp_path, url) as other:
        await api.call("POST", "/resources", resource)
        assert "maps" in await scopes(provider.http)

        async def told():
            return "maps" in await scopes(other.http)

        await wait_until(told)


async def test_too_many_permissions_for_a_token_are_told_by_introspection(api):
    provider = api.provider
    many = {f"p{number:03}": "" for number in range(101)}
    await api.call("PATCH", "/resources/app", {"permissions": many})
    await api.call("POST", "/roles", {"name": "everything", "permissions": sorted(many)})
    await api.call("PUT", "/users/ada/roles", {"roles": ["everything"]}, status=200)
    tokens = await provider.tokens("ada")
    assert len(tokens["access_token"]) < 1_500
    assert (await claims(provider, tokens))["permissions"] == sorted(many)


async def test_what_is_built_in_or_in_use_stays(api, subtests):
    await api.call("PATCH", "/resources/app", {"permissions": {"orders:refund": ""}})
    await api.call("POST", "/roles", {"name": "clerk", "permissions": ["orders:refund"]})
    await api.call("POST", "/roles", {"name": "chief", "includes": ["clerk"]})
    await api.call("PUT", "/users/ada/roles", {"roles": ["chief"]}, status=200)
    for method, path, body in (
        ("DELETE", "/roles/member", None),
        ("DELETE", "/roles/clerk", None),  # included
        ("DELETE", "/roles/chief", None),  # held
        ("PATCH", "/roles/operator", {"includes": []}),
        ("DELETE", "/resources/app", None),
        ("DELETE", "/resources/admin", None),
        ("PATCH", "/resources/app", {"scopes": {}}),
        ("PATCH", "/resources/app", {"permissions": {}}),  # carried by a role
        ("POST", "/resources/app/rotate-secret", None),
        ("PUT", "/users/admin/roles", {"roles": ["member"]}),
        ("DELETE", "/users/admin", None),
    ):
        with subtests.test(path=path, body=body):
            await api.call(method, path, body, status=409)
    await api.call("PUT", "/users/ada/roles", {"roles": []}, status=200)
    await api.call("DELETE", "/roles/chief")
    await api.call("DELETE", "/roles/clerk")


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
    assert "admin" in ada.effective_roles


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


async def test_wrong_definitions_are_refused_by_field(api, subtests):
    await api.call("POST", "/roles", {"name": "a"})
    await api.call("POST", "/roles", {"name": "b", "includes": ["a"]})
    await api.call("POST", "/groups", {"name": "g"})
    resource = {"id": "maps", "identifier": "urn:maps", "name": "Maps"}
    for method, path, body, pointer in (
        ("POST", "/roles", {"name": "No Role"}, "/name"),
        ("POST", "/roles", {"name": "member"}, "/name"),
        ("POST", "/roles", {"name": "c", "includes": ["nobody"]}, "/includes"),
        ("POST", "/roles", {"name": "c", "permissions": ["nothing"]}, "/permissions"),
        ("PATCH", "/roles/a", {"includes": ["b"]}, "/includes"),
        ("PATCH", "/roles/a", {"includes": ["a"]}, "/includes"),
        ("POST", "/groups", {"name": "g"}, "/name"),
        ("POST", "/groups", {"name": " h"}, "/name"),
        ("POST", "/groups", {"name": "h", "roles": ["nobody"]}, "/roles"),
        ("PUT", "/users/ada/roles", {"roles": ["nobody"]}, "/roles"),
        ("POST", "/users", {"username": "eve", "roles": ["nobody"]}, "/roles"),
        ("POST", "/resources", resource | {"id": "evs-gui"}, "/id"),
        ("POST", "/resources", resource | {"id": "Not It"}, "/id"),
        ("POST", "/resources", resource | {"identifier": APP}, "/identifier"),
        ("POST", "/resources", resource | {"identifier": "maps"}, "/identifier"),
        ("POST", "/resources", resource | {"identifier": "https://maps.test/#a"}, "/identifier"),
        ("POST", "/resources", resource | {"scopes": {"openid": ""}}, "/scopes"),
        ("POST", "/resources", resource | {"scopes": {"admin": ""}}, "/scopes"),
        ("POST", "/resources", resource | {"scopes": {"a b": ""}}, "/scopes"),
        ("POST", "/resources", resource | {"access_token_seconds": 3601}, "/access_token_seconds"),
    ):
        with subtests.test(path=path, body=body):
            refused = await api.call(method, path, body, status=422)
            assert refused["errors"][0]["pointer"] == pointer
    assert (await api.provider.browser()) is not None
    for path in ("/groups/none", "/roles/none", "/resources/none", "/groups/none/members", "/users/none"):
        await api.call("GET", path, status=404)


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


async def test_every_change_is_told_and_written_down(api_on_both):
    api, provider = api_on_both, api_on_both.provider
    group = await api.call("POST", "/groups", {"name": "g", "roles": ["operator"]})
    await api.call("PUT", "/groups/g/members/ada")
    await api.call("PATCH", "/groups/g", {"name": "h"})
    await api.call("DELETE", "/groups/h/members/ada")
    await api.call("DELETE", "/groups/h")
    await api.call("POST", "/roles", {"name": "r"})
    await api.call("PATCH", "/roles/r", {"description": "of no use"})
    await api.call("DELETE", "/roles/r")
    await api.call("POST", "/resources", {"id": "maps", "identifier": "urn:maps", "name": "Maps"})
    await api.call("PATCH", "/resources/maps", {"name": "All maps"})
    await api.call("DELETE", "/resources/maps")
    wanted = ["evs.group.*", "evs.role.*", "evs.resource.*"]
    expected = [
        *("evs.group.created", "evs.group.member-added", "evs.group.changed", "evs.group.member-removed"),
        *("evs.group.deleted", "evs.role.created", "evs.role.changed", "evs.role.deleted"),
        *("evs.resource.created", "evs.resource.changed", "evs.resource.deleted"),
    ]

    async def told():
        events = await provider.events(*expected)
        return events if len(events) == len(expected) else None

    events = await wait_until(told)
    assert sorted(event.type for event in events) == sorted(expected), wanted
    assert all(event.data["by"] for event in events)
    lines = (await api.call("GET", f"/audit?about={group['id']}"))["items"]
    assert [line["what"] for line in reversed(lines)] == [
        name.removeprefix("evs.") for name in expected if ".group." in name
    ]


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
