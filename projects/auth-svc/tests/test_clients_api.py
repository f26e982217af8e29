"""`/v1/admin/clients`: made, changed, disabled, removed; what is taken away ends at once."""

from dataclasses import replace

import pytest

from auth_svc import opaque
from auth_svc.clients import clients
from auth_svc.clients.client import Client
from lib_events.testing import wait_until

SCOPES = ["events:read", "workflows:read"]
BODY = {"id": "shop", "name": "Shop", "grant_types": ["client_credentials"], "scopes": SCOPES}


@pytest.fixture
async def admin(provider):
    """Administers clients."""
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}

    async def ask(method, path="", **sent):
        return await provider.http.request(method, f"/v1/admin/clients{path}", headers=headers, **sent)

    return ask


async def token(provider, secret):
    return await provider.token(("shop", secret), grant_type="client_credentials")


async def active(provider, answer):
    return (await provider.introspect(answer.json()["access_token"]))["active"]


async def test_a_client_lives_and_ends(provider, admin):
    made = (await admin("POST", json=BODY)).json()
    held = await token(provider, made["secret"])
    assert await active(provider, held)
    shown = (await admin("GET", "/shop")).json()
    assert (shown["secret"], shown["enabled"], shown["origin"]) == (None, True, "administrator")
    changed = (await admin("PATCH", "/shop", json={"name": "Big shop", "scopes": ["events:read"]})).json()
    assert (changed["name"], changed["scopes"]) == ("Big shop", ["events:read"])
    assert changed["grant_types"] == ["client_credentials"]
    rotated = (await admin("POST", "/shop/rotate-secret")).json()
    assert (await token(provider, made["secret"])).status_code == 401
    held = await token(provider, rotated["secret"])
    assert held.json()["scope"] == "events:read"
    assert (await admin("POST", "/shop/disable")).json()["enabled"] is False
    assert (await token(provider, rotated["secret"])).status_code == 401
    assert not await active(provider, held)
    assert (await admin("POST", "/shop/enable")).json()["enabled"] is True
    assert await active(provider, await token(provider, rotated["secret"]))
    assert not await active(provider, held), "a client that is enabled again has none of its old tokens"
    assert (await admin("DELETE", "/shop")).status_code == 204
    assert (await admin("GET", "/shop")).status_code == 404
    wanted = ["registered", "changed", "secret-rotated", "disabled", "enabled", "removed"]

    async def told():
        events = await provider.events(*(f"evs.client.{name}" for name in wanted))
        return [event.type.rpartition(".")[2] for event in events] == wanted

    await wait_until(told)


async def test_one_that_comes_again_under_the_same_id_has_no_old_tokens(provider, admin):
    held = await token(provider, (await admin("POST", json=BODY)).json()["secret"])
    await admin("DELETE", "/shop")
    again = Client(id="shop", name="Shop", grant_types=("client_credentials",), secret_digest=opaque.digest("other"))
    later = replace(provider.actor(), at=provider.actor().at + 2_000_000)
    await provider.service.database.transact(clients.register, again, later)
    assert not await active(provider, held)


async def test_what_is_taken_from_a_client_is_refused_in_the_tokens_it_holds(provider, admin):
    secret = (await admin("POST", json=BODY)).json()["secret"]
    held = await token(provider, secret)
    told = (await provider.http.get("/v1/revocations", auth=("evs-app", provider.secret_of("evs-app")))).json()
    assert not [item for item in told["items"] if item["kind"] == "client"]
    await admin("PATCH", "/shop", json={"scopes": []})

    async def refused():
        page = await provider.http.get("/v1/revocations", auth=("evs-app", provider.secret_of("evs-app")))
        return ("client", "shop") in {(item["kind"], item["value"]) for item in page.json()["items"]}

    await wait_until(refused)
    assert not await active(provider, held)
    assert await active(provider, await token(provider, secret)), "what it gets in the very same second is good"


async def test_our_own_clients_are_not_changed(admin, subtests):
    for method, path, sent in (
        ("PATCH", "/evs-gui", {"json": {"name": "Mine"}}),
        ("DELETE", "/evs-gui", {}),
        ("POST", "/evs-gui/disable", {}),
        ("POST", "/evs-gui/rotate-secret", {}),
    ):
        with subtests.test(f"{method} {path}"):
            assert (await admin(method, path, **sent)).status_code == 409


async def test_an_unknown_client_is_named(admin, subtests):
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/disable"), ("POST", "/rotate-secret")):
        with subtests.test(f"{method} {path}"):
            sent = {"json": {"name": "x"}} if method == "PATCH" else {}
            answer = await admin(method, f"/nobody{path}", **sent)
            assert answer.status_code == 404
            assert "nobody" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"redirect_uris": ["http://shop.example/"]}, "redirect_uris"),
        ({"scopes": ["unknown"]}, "scopes"),
        ({"grant_types": ["password"]}, "grant_types"),
        ({"public": True}, "grant_types"),
        ({"auth_method": "private_key_jwt"}, "jwks"),
        ({"auth_method": "private_key_jwt", "jwks": {"keys": []}}, "jwks"),
        ({"jwks": {"keys": 5}}, "jwks"),
        ({"logout_uri": "http://10.0.0.1/"}, "logout_uri"),
        ({"id_token_algorithm": "none"}, "id_token_algorithm"),
        ({"unknown": 1}, "unknown"),
    ],
    ids=str,
)
async def test_a_wrong_client_is_refused_by_its_field(admin, changes, field):
    answer = await admin("POST", json=BODY | changes)
    assert answer.status_code == 422
    assert field in answer.json()["detail"] or any(field in error["pointer"] for error in answer.json()["errors"])


async def test_a_public_client_has_no_secret_to_rotate(admin):
    public = {"id": "spa", "name": "Spa", "public": True, "redirect_uris": ["https://spa.example/"]}
    assert (await admin("POST", json=public)).json()["secret"] is None
    assert (await admin("POST", "/spa/rotate-secret")).status_code == 409
