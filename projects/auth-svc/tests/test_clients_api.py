"""`/v1/admin/clients`: made, changed, disabled, removed; what is taken away ends at once."""

import time
from dataclasses import replace
from functools import partial

import pytest
from joserfc import jws

from auth_svc import opaque
from auth_svc.api.client_views import ClientBody, ClientPatch, ClientView
from auth_svc.clients import clients
from auth_svc.clients.client import Client
from auth_svc.clients.details import ClientDetails
from auth_svc.clients.metadata import ClientMetadata
from auth_svc.transfer.document import ClientItem
from lib_auth.id_token import verify_id_token
from lib_auth.jwks import RemoteKeys
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


async def test_what_is_issued_while_a_change_waits_for_the_database_is_refused_with_it(provider_on_both):
    """The change was asked for before, and is made after: what it takes is in the token."""
    provider = provider_on_both
    made = {"id": "shop", "name": "Shop", "grant_types": ("client_credentials",), "scopes": frozenset(SCOPES)}
    _, secret = await provider.add_client(**made)
    asked = provider.actor()
    await wait_until(lambda: time.time() > asked.at // 1_000_000 + 1)
    held = await token(provider, secret)
    assert await active(provider, held)
    await provider.service.database.transact(clients.change, "shop", partial(replace, scopes=frozenset()), asked)
    assert not await active(provider, held)


async def test_what_is_taken_from_a_client_is_in_no_token_that_comes_later(provider, admin, subtests):
    """What a person allowed stays what they allowed; the client is to have less."""
    both, back = "openid workflows:read workflows:run", "https://shop.example/back"
    granted = {"grant_types": ["authorization_code", "refresh_token"], "consent": "never"}
    made = await admin("POST", json=BODY | granted | {"scopes": both.split(), "redirect_uris": [back]})
    auth, browser = ("shop", made.json()["secret"]), await provider.browser()
    await provider.authorize(browser, client_id="shop", redirect_uri=back, scope=both)
    first = provider.answer(await browser.submit(username="ada", password="correct horse battery staple"))["code"]
    second = provider.answer(await provider.authorize(browser, client_id="shop", redirect_uri=back, scope=both))["code"]

    async def redeem(code):
        form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
        return (await provider.token(auth, grant_type="authorization_code", **form)).json()

    held = await redeem(first)
    assert set(held["scope"].split()) == set(both.split())
    await admin("PATCH", "/shop", json={"scopes": ["openid", "workflows:read"]})
    with subtests.test("a code that was waiting"):
        assert set((await redeem(second))["scope"].split()) == {"openid", "workflows:read"}
    with subtests.test("a refresh"):
        again = await provider.token(auth, grant_type="refresh_token", refresh_token=held["refresh_token"])
        assert set(again.json()["scope"].split()) == {"openid", "workflows:read"}


async def test_what_outlives_a_sign_in_is_over_where_the_client_may_not_have_that_any_more(provider, admin):
    wanted, back = "openid offline_access", "https://shop.example/back"
    granted = {"grant_types": ["authorization_code", "refresh_token"], "consent": "never"}
    made = await admin("POST", json=BODY | granted | {"scopes": wanted.split(), "redirect_uris": [back]})
    auth, browser = ("shop", made.json()["secret"]), await provider.browser()
    await provider.authorize(browser, client_id="shop", redirect_uri=back, scope=wanted)
    code = provider.answer(await browser.submit(username="ada", password="correct horse battery staple"))["code"]
    form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    held = (await provider.token(auth, grant_type="authorization_code", **form)).json()["refresh_token"]
    await admin("PATCH", "/shop", json={"scopes": ["openid"]})
    told = await provider.post("/oauth2/introspect", {"token": held}, auth)
    refused = await provider.token(auth, grant_type="refresh_token", refresh_token=held)
    assert (told.json(), refused.json()["error"]) == ({"active": False}, "invalid_grant")


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


# What a client registers (RFC 7591), and how the admin API calls it; None: we have one value for everybody.
AS_ADMINISTRATOR = {
    "client_name": "name",
    "token_endpoint_auth_method": "auth_method",
    "scope": "scopes",
    "id_token_signed_response_alg": "id_token_algorithm",
    "dpop_bound_access_tokens": "dpop_bound",
    "require_pushed_authorization_requests": "pushed_only",
    "backchannel_logout_uri": "logout_uri",
    "response_types": None,
    "subject_type": None,
}


def test_whatever_a_client_may_register_an_administrator_may_say_and_change():
    for name in ClientMetadata.model_fields:
        wanted = AS_ADMINISTRATOR.get(name, name)
        if wanted is not None and name not in ClientDetails.model_fields:
            assert wanted in ClientBody.model_fields, name
            assert wanted in ClientPatch.model_fields, name
            assert wanted in ClientView.model_fields, name
    assert ClientBody.model_fields.keys() - ClientPatch.model_fields.keys() == {"id", "public"}
    exported = {"enabled", "created_at", "resource", "secret"}  # of which the document has other words, or none
    assert ClientView.model_fields.keys() - ClientItem.model_fields.keys() == exported


async def test_what_a_client_says_of_itself_is_kept_changed_and_taken_away(admin):
    details = {"policy_uri": "https://shop.example/privacy", "contacts": ["shop@example.org"], "software_id": "shop"}
    made = (await admin("POST", json=BODY | {"default_max_age": 3600, "details": details})).json()
    assert (made["default_max_age"], made["details"]) == (3600, details)
    changes = {"details": {"software_id": None, "tos_uri": "https://shop.example/terms"}, "default_max_age": None}
    changed = (await admin("PATCH", "/shop", json=changes)).json()
    expected = {name: details[name] for name in ("policy_uri", "contacts")} | {"tos_uri": "https://shop.example/terms"}
    assert (changed["default_max_age"], changed["details"]) == (None, expected)
    assert (await admin("PATCH", "/shop", json={"name": "Same"})).json()["details"] == expected


async def test_id_tokens_are_signed_as_a_client_expects_that_was_told_nothing(provider, admin):
    """OpenID Registration section 2: RS256, where nobody says otherwise; strict libraries refuse every other."""
    wanted = {"client_id": "shop", "redirect_uri": "https://shop.example/cb", "scope": "openid"}
    body = {"id": "shop", "name": "Shop", "redirect_uris": [wanted["redirect_uri"]], "consent": "never"}
    secret, browser = (await admin("POST", json=body)).json()["secret"], await provider.browser()
    await browser.sign_in("ada")
    for changes, expected in (({}, "RS256"), ({"id_token_algorithm": "ES256"}, "ES256")):
        await admin("PATCH", "/shop", json=changes)
        code = provider.answer(await provider.authorize(browser, **wanted))["code"]
        form = {"code": code, "redirect_uri": wanted["redirect_uri"], "code_verifier": provider.verifier}
        tokens = (await provider.token(("shop", secret), grant_type="authorization_code", **form)).json()
        assert jws.extract_compact(tokens["id_token"].encode()).protected["alg"] == expected
        told = {"issuer": provider.settings.auth_url, "client_id": "shop", "nonce": "the nonce"}
        keys = RemoteKeys(provider.http, "/oauth2/jwks")
        assert (await verify_id_token(tokens["id_token"], keys=keys, **told))["sub"]


@pytest.mark.parametrize(
    "changes",
    [
        {"details": {"logo_uri": "http://shop.example/"}},
        {"details": {"unknown": 1}},
        {"details": {"software_id": "a\0b"}},
        {"details": {"application_type": "toaster"}},
        {"default_max_age": -1},
        {"default_max_age": 10**9},
        {"auth_method": "private_key_jwt"},
        {"auth_method": "none"},
    ],
    ids=str,
)
async def test_a_change_that_makes_no_client_is_refused(admin, changes):
    await admin("POST", json=BODY)
    before = (await admin("GET", "/shop")).json()
    assert (await admin("PATCH", "/shop", json=changes)).status_code == 422
    assert (await admin("GET", "/shop")).json() == before


async def test_a_sign_in_that_is_older_than_an_administrator_allows_is_made_again(provider, admin):
    body = {"id": "shop", "name": "Shop", "redirect_uris": ["https://shop.example/cb"], "consent": "never"}
    await admin("POST", json=body)
    wanted = {"client_id": "shop", "redirect_uri": "https://shop.example/cb"}
    browser = await provider.browser()
    await browser.sign_in("ada")
    assert (await provider.authorize(browser, **wanted)).is_redirect
    await admin("PATCH", "/shop", json={"default_max_age": 0})
    assert 'name="password"' in (await provider.authorize(browser, **wanted)).text


async def test_how_a_client_proves_itself_may_change_and_its_first_secret_is_told(provider, admin, client_key):
    jwks = {"keys": [client_key.as_dict(private=False)]}
    secret = (await admin("POST", json=BODY)).json()["secret"]
    by_key = (await admin("PATCH", "/shop", json={"auth_method": "private_key_jwt", "jwks": jwks})).json()
    assert (by_key["auth_method"], by_key["secret"]) == ("private_key_jwt", None)
    assert (await token(provider, secret)).status_code == 401
    by_secret = (await admin("PATCH", "/shop", json={"auth_method": "client_secret_basic", "jwks": None})).json()
    assert by_secret["secret"] not in (None, secret)
    assert (await token(provider, by_secret["secret"])).status_code == 200
    again = (await admin("PATCH", "/shop", json={"auth_method": "client_secret_basic"})).json()
    assert again["secret"] is None
    assert (await token(provider, by_secret["secret"])).status_code == 200


async def test_a_client_that_somebody_has_just_removed_is_told_to_be_gone(admin, monkeypatch, subtests):
    await admin("POST", json=BODY)
    for name, path in (("disable", "/disable"), ("enable", "/enable"), ("rotate_secret", "/rotate-secret")):
        act = getattr(clients, name)

        def come_too_late(connection, client_id, *given, act=act):
            clients.remove(connection, client_id, given[-1])
            return act(connection, client_id, *given)

        monkeypatch.setattr(clients, name, come_too_late)
        with subtests.test(name):
            gone = await admin("POST", f"/shop{path}")
            assert (gone.status_code, gone.json()["type"]) == (404, "urn:evs:problem:client-unknown")
