"""Administrators find people, change them, see what they are signed in to, and delete them with all that is theirs."""

import asyncio
from itertools import batched

import pytest
from sqlalchemy import insert, update

from auth_svc import tables
from auth_svc.people import account_changes, accounts, administrators, delegations, own_data, sessions
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"


@pytest.fixture
async def call(provider_on_both):
    headers = {"authorization": f"Bearer {await provider_on_both.admin_token()}"}

    async def request(method, path, body=None, status=200):
        answer = await provider_on_both.http.request(method, f"/v1/admin{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    return request


async def test_people_are_found_by_text_role_group_and_state(provider_on_both, call, subtests):
    await provider_on_both.add_user("bea", "operator")
    await provider_on_both.add_user("cy_rus")
    await call("POST", "/users", {"username": "cleo", "email": "Cleo@Navy.test", "password": PASSWORD}, 201)
    await call("POST", "/groups", {"name": "Support", "roles": ["operator"]}, 201)
    await call("PUT", "/groups/Support/members/cleo", status=204)
    await call("POST", "/users/bea/disable")
    await call("POST", "/roles", {"name": "chief", "includes": ["operator"]}, 201)
    await call("POST", "/users", {"username": "dora", "roles": ["chief"], "password": PASSWORD}, 201)
    for query, names in (
        ("q=BE", ["bea"]),
        ("q=navy", ["cleo"]),
        ("q=_", ["cy_rus"]),
        ("q=%25", []),
        ("role=chief", ["dora"]),
        ("role=operator", ["admin", "bea", "cleo", "dora"]),  # who is one by what their role includes, too
        ("role=operator&state=enabled", ["admin", "cleo", "dora"]),
        ("role=admin", ["admin"]),
        ("state=disabled", ["bea"]),
        ("group=Support", ["cleo"]),
        ("group=nobody", []),
        ("role=oper", []),
    ):
        with subtests.test(query):
            items = (await call("GET", f"/users?{query}"))["items"]
            assert [user["username"] for user in items] == names


async def test_a_user_is_called_and_reached_otherwise_and_signs_in_with_the_new_name(provider_on_both, call):
    changed = await call("PATCH", "/users/ada", {"username": "Ada.L", "email": "ada@example.org"})
    assert (changed["username"], changed["email"]) == ("Ada.L", "ada@example.org")
    assert "Your account" in (await (await provider_on_both.browser()).sign_in("ada.l")).text
    assert (await call("PATCH", "/users/ada.l", {"email": None}))["username"] == "Ada.L"
    assert (await call("GET", "/users/ada.l"))["email"] is None

    async def told():
        events = await provider_on_both.events("evs.user.profile-changed")
        return events if len(events) == 2 else None

    events = await wait_until(told)
    assert [event.data["changed"] for event in events] == [["username", "email"], ["email"]]
    for body, pointer in (({"username": "admin"}, "/username"), ({"email": "x"}, "/email"), ({"roles": []}, "/roles")):
        refused = await call("PATCH", "/users/ada.l", body, 422)
        assert refused["errors"][0]["pointer"] == pointer


async def test_a_deleted_user_is_gone_with_their_tokens_and_the_name_is_free(provider_on_both, call):
    tokens = await provider_on_both.tokens("ada")
    ada = (await call("GET", "/users/ada"))["id"]
    await call("POST", "/groups", {"name": "g"}, 201)
    await call("PUT", "/groups/g/members/ada", status=204)
    await call("DELETE", "/users/ada", status=204)
    assert not (await provider_on_both.introspect(tokens["access_token"]))["active"]
    assert (await provider_on_both.refresh(tokens["refresh_token"])).status_code == 400
    assert (await (await provider_on_both.browser()).sign_in("ada")).status_code == 401
    await call("GET", "/users/ada", status=404)
    assert (await call("GET", "/groups/g"))["members"] == 0
    assert (await call("GET", f"/audit?about={ada}"))["items"][0]["what"] == "user.deleted"
    feed_auth = ("evs-app", provider_on_both.secret_of("evs-app"))

    async def refused_everywhere():
        page = (await provider_on_both.http.get("/v1/revocations", auth=feed_auth)).json()
        return any((item["kind"], item["value"]) == ("user", ada) for item in page["items"])

    await wait_until(refused_everywhere)
    await call("POST", "/users", {"username": "ada", "password": PASSWORD}, 201)


async def test_sessions_are_listed_and_ended_one_by_one_and_all(provider_on_both, call):
    first, second = await provider_on_both.browser(), await provider_on_both.browser()
    await first.sign_in("ada")
    await second.sign_in("ada")
    sessions = (await call("GET", "/users/ada/sessions"))["items"]
    assert [session["address"] for session in sessions] == ["127.0.0.1", "127.0.0.1"]
    await call("DELETE", f"/users/ada/sessions/{sessions[0]['id']}", status=204)
    await call("DELETE", f"/users/ada/sessions/{sessions[0]['id']}", status=404)
    await call("DELETE", f"/users/admin/sessions/{sessions[1]['id']}", status=404)
    assert "Your account" not in (await second.open("/account")).text
    assert "Your account" in (await first.open("/account")).text
    await call("DELETE", "/users/ada/sessions", status=204)
    assert "Your account" not in (await first.open("/account")).text
    assert (await call("GET", "/users/ada/sessions"))["items"] == []


async def test_a_consent_is_listed_and_withdrawn_with_what_came_of_it(provider_on_both, call):
    provider, redirect = provider_on_both, "https://shop.example.org/cb"
    client = {"id": "shop", "name": "Shop", "redirect_uris": [redirect]}
    secret = (await call("POST", "/clients", client, 201))["secret"]
    browser = await provider.browser()
    await provider.authorize(browser, client_id="shop", redirect_uri=redirect, scope="openid profile")
    await browser.submit(username="ada", password=PASSWORD)
    code = provider.answer(await browser.submit(decision="allow"))["code"]
    form = {"code": code, "redirect_uri": redirect, "code_verifier": provider.verifier}
    tokens = (await provider.token(("shop", secret), grant_type="authorization_code", **form)).json()
    consents = (await call("GET", "/users/ada/consents"))["items"]
    assert consents == [{"client": "shop", "scopes": ["openid", "profile"], "resources": ["http://127.0.0.1:8002"]}]
    await call("DELETE", "/users/ada/consents/shop", status=204)
    await call("DELETE", "/users/ada/consents/shop", status=404)
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await call("GET", "/users/ada/consents"))["items"] == []


async def test_nobody_is_called_as_somebodys_id(provider_on_both, call, subtests):
    ada = (await call("GET", "/users/ada"))["id"]
    refused = await call("POST", "/users", {"username": ada, "password": PASSWORD}, 422)
    assert refused["errors"][0]["pointer"] == "/username"
    await call("POST", "/users", {"username": "bea", "password": PASSWORD}, 201)
    assert (await call("PATCH", "/users/bea", {"username": ada}, 422))["errors"][0]["pointer"] == "/username"
    document = {"format": "evs-auth", "version": 1, "users": [{"username": "cleo", "id": "bea", "email": None}]}
    report = await call("POST", "/import", document)
    assert [item["outcome"] for item in report["items"]] == ["created"]
    assert (await call("GET", "/users/bea"))["username"] == "bea"
    assert (await call("GET", "/users/cleo"))["id"] != "bea"


async def test_people_are_found_by_an_address_whatever_its_letters(call):
    await call("POST", "/users", {"username": "jose", "email": "Jos\u00c9@Navy.test", "password": PASSWORD}, 201)
    for query in ("jos\u00e9@", "JOS\u00c9"):
        items = (await call("GET", f"/users?q={query}"))["items"]
        assert [user["username"] for user in items] == ["jose"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/disable", None), ("PUT", "/roles", {"roles": ["member"]}), ("DELETE", "", None)],
)
async def test_of_two_administrators_who_put_each_other_out_at_once_one_stays(provider_on_both, method, path, body):
    provider = provider_on_both
    await provider.add_user("bea", "admin")
    tokens = {"admin": await provider.admin_token()}
    values = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
    tokens["bea"] = (await provider.tokens("bea", **values))["access_token"]
    answers = await asyncio.gather(
        *(
            provider.http.request(
                method, f"/v1/admin/users/{other}{path}", json=body, headers={"authorization": f"Bearer {tokens[one]}"}
            )
            for one, other in (("admin", "bea"), ("bea", "admin"))
        )
    )
    assert [answer.is_success for answer in answers].count(True) == 1, [answer.text for answer in answers]
    left = await provider.service.database.transact(administrators.lock)
    assert len(left) == 1


def revoke_every_key(connection, _who, actor):
    """Theirs may be a token that somebody else has signed."""
    connection.execute(update(tables.signing_keys).values(revoked_at=actor.at))


PUT_OUT = {
    "disabled": accounts.disable,
    "deleted": own_data.delete_account,
    "signed out": account_changes.end_sessions,
    "administers no more": lambda connection, who, actor: accounts.set_roles(connection, who, frozenset(), actor),
    "has a new password": lambda connection, who, actor: accounts.set_password(connection, who, "hash", actor),
    "has a token of a stolen key": revoke_every_key,
}


@pytest.mark.parametrize("put_out", PUT_OUT.values(), ids=PUT_OUT)
async def test_who_is_put_out_while_a_password_is_hashed_changes_nothing(provider_on_both, monkeypatch, put_out):
    provider = provider_on_both
    bea = await provider.add_user("bea", "admin")
    values = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
    headers = {"authorization": f"Bearer {(await provider.tokens('bea', **values))['access_token']}"}
    hash_at_once = provider.service.passwords.hash

    async def hash_slowly(*password, **context):
        await provider.service.database.transact(put_out, bea.id, provider.actor())
        return await hash_at_once(*password, **context)

    monkeypatch.setattr(provider.service.passwords, "hash", hash_slowly)
    body = {"username": "trap", "roles": ["admin"], "password": PASSWORD}
    refused = await provider.http.post("/v1/admin/users", json=body, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:evs:problem:administers-no-more")
    assert await provider.service.database.read(accounts.find_by_username, "trap") is None


async def test_who_is_put_out_while_the_database_lets_a_change_wait_changes_nothing(provider_on_both, monkeypatch):
    provider = provider_on_both
    bea = await provider.add_user("bea", "admin")
    values = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
    headers = {"authorization": f"Bearer {(await provider.tokens('bea', **values))['access_token']}"}
    edit = account_changes.edit

    def edit_later(connection, user_id, changes, actor):
        """What another transaction commits while this one waits for a row is seen from then on."""
        accounts.set_roles(connection, bea.id, frozenset(), provider.actor())
        return edit(connection, user_id, changes, actor)

    monkeypatch.setattr(account_changes, "edit", edit_later)
    refused = await provider.http.patch("/v1/admin/users/ada", json={"name": "Trap"}, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:evs:problem:administers-no-more")
    assert (await provider.service.database.read(accounts.find_by_username, "ada")).name is None


async def test_an_administrator_may_reset_and_sign_out_themselves(provider_on_both, call):
    await call("DELETE", "/users/admin/sessions", status=204)
    assert (await provider_on_both.http.get("/v1/admin/users")).status_code == 401


async def test_whoever_has_hundreds_of_sessions_and_delegations_is_put_out_at_once(provider_on_both, call):
    """One by one they took longer than a transaction may: whoever had signed in often enough could not be put out."""
    database, many = provider_on_both.service.database, range(600)  # three times as many as one may have by now
    ada = await database.read(accounts.find_by_username, "ada")
    of_ada = {"user_id": ada.id, "authenticated_at": 1}
    family = of_ada | {"client_id": "evs-app", "scope": "offline_access", "resources": "[]", "created_at": 1}
    rows = {
        tables.sessions: {"id": "s{0}", "digest": b"{0}", "expires_at": 2**62, "methods": "[]", **of_ada},
        tables.families: {"id": "f{0}", "methods": "[]", **family},
        tables.delegations: {"id": "d{0}", "family_id": "f{0}", "purpose": "Run {0}", "expires_at": 2**62},
    }

    def filled(value, number):
        if isinstance(value, bytes):
            return value.replace(b"{0}", str(number).encode())
        return value.replace("{0}", str(number)) if isinstance(value, str) else value

    def make(connection, table, numbers):
        values = [{name: filled(value, number) for name, value in rows[table].items()} for number in numbers]
        connection.execute(insert(table), values)

    for table in rows:
        for some in batched(many, 300, strict=True):  # all at once could take longer than a transaction may
            await database.transact(make, table, some)
    assert (await call("POST", "/users/ada/disable"))["enabled"] is False
    now = provider_on_both.actor().at
    assert await database.read(sessions.alive_of_user, ada.id, now) == []
    assert await database.read(delegations.alive_of_user, ada.id, now) == []
    lines = (await call("GET", "/audit?what=tokens.revoked&limit=500"))["items"]
    assert {line["about"][0] for line in lines} == {"f"}
