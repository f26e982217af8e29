"""Groups, roles and permissions: what somebody may do follows from rows, and what is taken away ends at once."""

import time
from dataclasses import replace
from functools import partial

import pytest
from rights_api import Api, claims, gather_crowd

from auth_svc.clients import clients
from auth_svc.people import accounts
from lib_events.testing import wait_until

APP = "http://127.0.0.1:8002"


@pytest.fixture
async def api(provider):
    return Api(provider, await provider.admin_token())


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


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
    shown = await api.call("PUT", "/users/ada/roles", {"roles": ["chief"]}, status=200)
    assert (shown["roles"], shown["effective_roles"]) == (["chief", "member"], ["chief", "clerk", "member"])
    await provider.add_user("eve")
    auth = await provider.add_client(
        id="robot", name="Robot", grant_types=("client_credentials",), roles=frozenset(("clerk",))
    )
    await gather_crowd(provider.service.database, 20_000)

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
