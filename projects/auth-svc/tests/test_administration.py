"""The admin API: users, clients, the audit; and that nobody else gets in."""

import pytest

from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"


@pytest.fixture
async def admin(provider):
    return {"authorization": f"Bearer {await provider.admin_token()}"}


async def test_a_user_is_made_and_told_and_can_sign_in(provider_on_both):
    provider = provider_on_both
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    body = {"username": "Grace", "email": "grace@navy.test", "password": PASSWORD, "roles": ["operator"]}
    made = await provider.http.post("/v1/admin/users", json=body, headers=admin)
    assert made.status_code == 201, made.text
    assert made.json()["roles"] == ["member", "operator"]
    assert made.json()["password"] is None
    assert made.headers["cache-control"] == "no-store"
    assert "Your account" in (await (await provider.browser()).sign_in("grace")).text

    async def told():
        return [event for event in await provider.events("evs.user.registered") if event.subject == made.json()["id"]]

    event = (await wait_until(told))[0]
    assert event.data == {"user": made.json()["id"], "username": "Grace", "email": "grace@navy.test"}
    assert event.extensions["principal"]


async def test_a_generated_password_is_shown_once(provider, admin):
    made = (await provider.http.post("/v1/admin/users", json={"username": "grace"}, headers=admin)).json()
    assert "Your account" in (await (await provider.browser()).sign_in("grace", made["password"])).text
    shown = (await provider.http.get("/v1/admin/users/grace", headers=admin)).json()
    assert shown["password"] is None


async def test_a_wrong_user_is_refused_by_field(provider, admin, subtests):
    for body, pointer in (
        ({"username": "ada"}, "/username"),
        ({"username": "ADA"}, "/username"),
        ({"username": "no spaces"}, "/username"),
        ({"username": "grace", "password": "short"}, "/password"),
        ({"username": "grace", "email": "nonsense"}, "/email"),
        ({"username": "grace", "roles": ["No Role"]}, "/roles"),
        ({"username": "grace", "surprise": 1}, "/surprise"),
        ({}, "/username"),
    ):
        with subtests.test(body=body, pointer=pointer):
            refused = await provider.http.post("/v1/admin/users", json=body, headers=admin)
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["pointer"] == pointer
            assert "short" not in refused.text


async def test_users_come_in_pages(provider, admin):
    for name in ("bea", "cleo", "dora"):
        await provider.add_user(name)
    first = (await provider.http.get("/v1/admin/users?limit=3", headers=admin)).json()
    assert [user["username"] for user in first["items"]] == ["ada", "admin", "bea"]
    cursor = first["next_cursor"]
    rest = (await provider.http.get(f"/v1/admin/users?limit=3&cursor={cursor}", headers=admin)).json()
    assert [user["username"] for user in rest["items"]] == ["cleo", "dora"]
    assert rest["next_cursor"] is None


async def test_resetting_a_password_ends_what_was_signed_in(provider_on_both):
    provider = provider_on_both
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    tokens = await provider.tokens()
    fresh = (await provider.http.post("/v1/admin/users/ada/reset-password", json={}, headers=admin)).json()
    assert (await (await provider.browser()).sign_in("ada")).status_code == 401
    assert "Your account" in (await (await provider.browser()).sign_in("ada", fresh["password"])).text
    assert not (await provider.introspect(tokens["access_token"]))["active"]


async def test_an_administrator_cannot_lock_themselves_out(provider, admin):
    assert (await provider.http.post("/v1/admin/users/admin/disable", headers=admin)).status_code == 409
    refused = await provider.http.put("/v1/admin/users/admin/roles", json={"roles": []}, headers=admin)
    assert refused.status_code == 409


async def test_only_scope_role_and_audience_together_let_in(provider):
    url, users = "http://127.0.0.1:8001/v1/admin", "/v1/admin/users"
    ada = await provider.tokens("ada", scope="openid admin", resource=url)
    for token, status in (
        (ada["access_token"], 403),  # the scope without the role
        ((await provider.tokens("admin", scope="openid", resource=url))["access_token"], 403),
        ((await provider.tokens("admin", scope="openid admin"))["access_token"], 401),  # for the AppService
        ("garbled", 401),
    ):
        answer = await provider.http.get(users, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_client_is_made_with_a_secret_that_is_shown_once(provider, admin):
    body = {
        "id": "report",
        "name": "Report",
        "grant_types": ["client_credentials"],
        "scopes": ["workflows:read"],
        "roles": ["operator"],
    }
    made = (await provider.http.post("/v1/admin/clients", json=body, headers=admin)).json()
    answer = await provider.token(("report", made["secret"]), grant_type="client_credentials")
    assert answer.json()["scope"] == "workflows:read"
    listed = (await provider.http.get("/v1/admin/clients", headers=admin)).json()["items"]
    assert {client["id"] for client in listed} == {"evs-app", "evs-cli", "evs-gui", "evs-local", "report"}
    assert all(client["secret"] is None for client in listed)


async def test_a_wrong_client_is_refused_by_field(provider, admin, subtests):
    for changes, pointer in (
        ({"id": "evs-gui"}, "/id"),
        ({"redirect_uris": ["http://evil.test/cb"]}, "/redirect_uris"),
        ({"redirect_uris": ["https://ok.test/cb#x"]}, "/redirect_uris"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "/redirect_uris"),
        ({"redirect_uris": ["http://[::1/cb"]}, "/redirect_uris"),
        ({"redirect_uris": ["https://ok.test:99999/cb"]}, "/redirect_uris"),
        ({"redirect_uris": ["https://user@ok.test/cb"]}, "/redirect_uris"),
        ({"redirect_uris": ["https://ok.test; script-src 'unsafe-inline'/cb"]}, "/redirect_uris"),
        ({"post_logout_redirect_uris": ["http://evil.test/"]}, "/post_logout_redirect_uris"),
        ({"scopes": ["everything"]}, "/scopes"),
        ({"grant_types": ["password"]}, "/grant_types"),
        ({"public": True, "grant_types": ["client_credentials"]}, "/grant_types"),
    ):
        with subtests.test(changes=changes, pointer=pointer):
            body = {"id": "new", "name": "New"} | changes
            refused = await provider.http.post("/v1/admin/clients", json=body, headers=admin)
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["pointer"] == pointer


async def test_the_audit_says_who_did_what_when_and_from_where(provider, admin):
    await provider.http.put("/v1/admin/users/ada/roles", json={"roles": ["operator"]}, headers=admin)
    await (await provider.browser()).sign_in("ada", "wrong password")
    lines = (await provider.http.get("/v1/admin/audit", headers=admin)).json()["items"]
    refused, changed = lines[0], next(line for line in lines if line["what"] == "user.roles-changed")
    assert refused["what"] == "session.refused"
    assert refused["address"] == "127.0.0.1"
    assert changed["detail"] == {"roles": ["member", "operator"]}
    assert changed["who"] == (await provider.http.get("/v1/admin/users/admin", headers=admin)).json()["id"]
    assert "wrong password" not in str(lines)
