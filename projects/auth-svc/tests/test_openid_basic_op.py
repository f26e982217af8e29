"""The OpenID Foundation's Basic OP and Config OP plans, module by module; test_openid_logout.py has those of logout.

Each test carries the name of a module in snake case and checks what that module checks.
"""

import base64
import json
import time
from urllib.parse import urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from sqlalchemy import update

from auth_svc.tables import codes, sessions

ISSUER = "http://127.0.0.1:8001"
CALLBACK = "http://127.0.0.1:8000/callback"
SIGNED_OUT = "http://127.0.0.1:8000/signed-out"
PASSWORD = "correct horse battery staple"


def read(token):
    """The claims of a token whose signature somebody else checks."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


async def userinfo(provider, token):
    answer = await provider.http.get("/oauth2/userinfo", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def signed_in(provider, username="ada"):
    browser = await provider.browser()
    return browser, (await provider.redeem(await provider.sign_in_for_code(username, browser))).json()


async def keys_of(provider):
    return KeySet.import_key_set((await provider.http.get("/oauth2/jwks")).json())


async def sign_in_long_ago(provider, seconds):
    """Let every sign-in be some seconds older."""
    earlier = update(sessions).values(authenticated_at=sessions.c.authenticated_at - seconds * 1_000_000)
    await provider.service.database.transact(lambda connection: connection.execute(earlier) and None)


# --- Basic OP -------------------------------------------------------------------------------------------------------


async def test_oidcc_server(provider):
    tokens = await provider.tokens()
    claims = jwt.decode(tokens["id_token"], await keys_of(provider), algorithms=["ES256"]).claims
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (ISSUER, "evs-gui", "the nonce")
    assert claims["iat"] <= time.time() < claims["exp"]
    assert tokens["token_type"] == "Bearer"
    assert (await userinfo(provider, tokens["access_token"]))["sub"] == claims["sub"]


async def test_oidcc_response_type_missing(provider):
    answer = provider.answer(await provider.authorize(await provider.browser(), response_type=""))
    assert (answer["error"], answer["state"]) == ("invalid_request", "the state")


async def test_oidcc_idtoken_signature(provider):
    tokens = await provider.tokens()
    key_id = jwt.decode(tokens["id_token"], await keys_of(provider), algorithms=["ES256"]).header["kid"]
    assert key_id in {key["kid"] for key in (await provider.http.get("/oauth2/jwks")).json()["keys"]}


async def test_oidcc_idtoken_unsigned(provider):
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert "none" not in document["id_token_signing_alg_values_supported"]  # then the module is skipped


async def test_oidcc_userinfo_get(provider):
    tokens = await provider.tokens()
    assert (await userinfo(provider, tokens["access_token"]))["sub"] == read(tokens["id_token"])["sub"]


async def test_oidcc_userinfo_post_header(provider):
    tokens = await provider.tokens()
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    answer = await provider.http.post("/oauth2/userinfo", headers=headers)
    assert answer.json()["sub"] == read(tokens["id_token"])["sub"]


async def test_oidcc_userinfo_post_body(provider):
    tokens = await provider.tokens()
    answer = await provider.post("/oauth2/userinfo", {"access_token": tokens["access_token"]})
    assert answer.json()["sub"] == read(tokens["id_token"])["sub"]


async def test_oidcc_ensure_request_without_nonce_succeeds_for_code_flow(provider):
    assert "nonce" not in read((await provider.tokens(nonce=""))["id_token"])


async def test_oidcc_scope_profile(provider):
    told = await userinfo(provider, (await provider.tokens(scope="openid profile"))["access_token"])
    assert (told["name"], told["preferred_username"]) == ("ada", "ada")
    assert isinstance(told["updated_at"], int)


async def with_email(provider):
    made = {"username": "eve", "password": PASSWORD, "email": "eve@example.test"}
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    answer = await provider.http.post("/v1/admin/users", json=made, headers=headers)
    assert answer.status_code == 201, answer.text
    return "eve"


async def test_oidcc_scope_email(provider):
    eve = await with_email(provider)
    told = await userinfo(provider, (await provider.tokens(eve, scope="openid email"))["access_token"])
    assert (told["email"], told["email_verified"]) == ("eve@example.test", False)
    assert "preferred_username" not in told


async def test_oidcc_scope_address(provider):
    tokens = await provider.tokens(scope="openid address")  # no such data here: the scope is left out of the answer
    assert tokens["scope"] == "openid"
    assert "address" not in await userinfo(provider, tokens["access_token"])


async def test_oidcc_scope_phone(provider):
    tokens = await provider.tokens(scope="openid phone")
    assert tokens["scope"] == "openid"
    assert "phone_number" not in await userinfo(provider, tokens["access_token"])


async def test_oidcc_scope_all(provider):
    eve = await with_email(provider)
    tokens = await provider.tokens(eve, scope="openid profile email address phone")
    assert set(tokens["scope"].split()) == {"openid", "profile", "email"}
    assert {"sub", "name", "email"} <= (await userinfo(provider, tokens["access_token"])).keys()


async def test_oidcc_ensure_other_scope_order_succeeds(provider):
    told = await userinfo(provider, (await provider.tokens(scope="profile openid"))["access_token"])
    assert told["name"] == "ada"


async def test_oidcc_display_page(provider):
    assert "id_token" in await provider.tokens(display="page")


async def test_oidcc_display_popup(provider):
    assert "id_token" in await provider.tokens(display="popup")


async def test_oidcc_prompt_login(provider):
    browser, tokens = await signed_in(provider)
    await sign_in_long_ago(provider, 60)
    assert "Password" in (await provider.authorize(browser, prompt="login")).text
    code = provider.answer(await browser.submit(username="ada", password=PASSWORD))["code"]
    fresh = read((await provider.redeem(code)).json()["id_token"])
    assert fresh["sub"] == read(tokens["id_token"])["sub"]
    assert fresh["auth_time"] > time.time() - 30


async def test_oidcc_prompt_none_not_logged_in(provider):
    answer = provider.answer(await provider.authorize(await provider.browser(), prompt="none"))
    assert (answer["error"], answer["state"]) == ("login_required", "the state")


async def test_oidcc_prompt_none_logged_in(provider):
    browser, tokens = await signed_in(provider)
    code = provider.answer(await provider.authorize(browser, prompt="none"))["code"]
    again = read((await provider.redeem(code)).json()["id_token"])
    first = read(tokens["id_token"])
    assert (again["sub"], again["auth_time"]) == (first["sub"], first["auth_time"])


@pytest.mark.parametrize("seconds", [2, -60], ids=["long ago", "by a clock that was ahead"])
async def test_oidcc_max_age_1(provider, seconds):
    browser, _ = await signed_in(provider)
    await sign_in_long_ago(provider, seconds)
    assert "Password" in (await provider.authorize(browser, max_age="1")).text
    code = provider.answer(await browser.submit(username="ada", password=PASSWORD))["code"]
    assert time.time() - read((await provider.redeem(code)).json()["id_token"])["auth_time"] < 30


async def test_oidcc_max_age_10000(provider):
    browser, tokens = await signed_in(provider)
    code = provider.answer(await provider.authorize(browser, max_age="10000"))["code"]
    again = read((await provider.redeem(code)).json()["id_token"])
    assert again["auth_time"] == read(tokens["id_token"])["auth_time"]


async def test_oidcc_ensure_request_with_unknown_parameter_succeeds(provider):
    assert "id_token" in await provider.tokens(extra="foobar")


async def test_oidcc_id_token_hint(provider):
    browser, tokens = await signed_in(provider)
    code = provider.answer(await provider.authorize(browser, prompt="none", id_token_hint=tokens["id_token"]))["code"]
    again = read((await provider.redeem(code)).json()["id_token"])
    assert again["sub"] == read(tokens["id_token"])["sub"]


async def test_oidcc_login_hint(provider):
    page = await provider.authorize(await provider.browser(), login_hint="ada")
    assert 'value="ada"' in page.text


async def test_oidcc_ui_locales(provider):
    assert "id_token" in await provider.tokens(ui_locales="se")


async def test_oidcc_claims_locales(provider):
    assert "id_token" in await provider.tokens(claims_locales="se")


async def test_oidcc_ensure_request_with_acr_values_succeeds(provider):
    assert "id_token" in await provider.tokens(acr_values="1 2")


async def test_oidcc_codereuse(provider):
    code = await provider.sign_in_for_code()
    tokens = (await provider.redeem(code)).json()
    again = await provider.redeem(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert not (await provider.introspect(tokens["access_token"]))["active"]


async def test_oidcc_codereuse_30seconds(provider):
    code = await provider.sign_in_for_code()
    tokens = (await provider.redeem(code)).json()
    earlier = update(codes).values(used_at=codes.c.used_at - 30_000_000, expires_at=codes.c.expires_at - 90_000_000)
    await provider.service.database.transact(lambda connection: connection.execute(earlier) and None)
    assert (await provider.redeem(code)).json()["error"] == "invalid_grant"
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    assert (await provider.http.get("/oauth2/userinfo", headers=headers)).status_code == 401


async def test_oidcc_ensure_registered_redirect_uri(provider):
    page = await provider.authorize(await provider.browser(), redirect_uri=f"{CALLBACK}/not-registered")
    assert (page.status_code, "location" in page.headers) == (400, False)
    assert "invalid_request" in page.text


async def test_oidcc_ensure_post_request_succeeds(provider):
    browser = await provider.browser()
    posted = await browser.http.post("/oauth2/authorize", data=provider.request())
    await browser.open(posted.headers["location"])
    assert provider.answer(await browser.submit(username="ada", password=PASSWORD))["code"]


async def test_oidcc_server_client_secret_post(provider):
    client_id, secret = provider.gui()
    form = {"code": await provider.sign_in_for_code(), "redirect_uri": CALLBACK, "code_verifier": provider.verifier}
    credentials = {"client_id": client_id, "client_secret": secret}
    answer = await provider.token(None, grant_type="authorization_code", **form, **credentials)
    assert read(answer.json()["id_token"])["aud"] == client_id


def unsigned(**claims):
    """A request object without a signature."""
    parts = ({"alg": "none"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


async def test_oidcc_unsigned_request_object_supported_correctly_or_rejected_as_unsupported(provider):
    request = unsigned(**provider.request())
    answer = provider.answer(await provider.authorize(await provider.browser(), request=request))
    assert (answer["error"], answer["state"]) == ("request_not_supported", "the state")
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert document["request_parameter_supported"] is False


async def test_oidcc_request_uri_unsigned_supported_correctly_or_rejected_as_unsupported(provider):
    answer = provider.answer(await provider.authorize(await provider.browser(), request_uri="https://client.test/r"))
    assert (answer["error"], answer["state"]) == ("request_uri_not_supported", "the state")
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert document["request_uri_parameter_supported"] is False  # left out, it would mean true


async def test_oidcc_claims_essential(provider):
    claims = json.dumps({"userinfo": {"name": {"essential": True}}})
    tokens = await provider.tokens(claims=claims)  # not understood and so ignored; the scope profile brings it
    assert (await userinfo(provider, tokens["access_token"]))["name"] == "ada"


async def test_oidcc_ensure_request_object_with_redirect_uri(provider):
    request = unsigned(**provider.request(redirect_uri="https://evil.test/"))
    answer = await provider.authorize(await provider.browser(), request=request)
    assert answer.headers["location"].startswith(f"{CALLBACK}?error=request_not_supported")


async def test_oidcc_refresh_token(provider):
    tokens = await provider.tokens()
    fresh = (await provider.refresh(tokens["refresh_token"])).json()
    old, new = read(tokens["id_token"]), read(fresh["id_token"])
    for claim in ("iss", "sub", "aud", "auth_time"):
        assert old[claim] == new[claim]
    assert new["iat"] >= old["iat"]
    assert new.get("nonce", old["nonce"]) == old["nonce"]
    other = await provider.add_client(id="other", name="Other", redirect_uris=("https://other.test/cb",))
    form = {"grant_type": "refresh_token", "refresh_token": fresh["refresh_token"]}
    assert (await provider.token(other, **form)).json()["error"] == "invalid_grant"


async def test_oidcc_ensure_request_with_valid_pkce_succeeds(provider):
    code = await provider.sign_in_for_code()
    assert (await provider.redeem(code, code_verifier="x" * 43)).json()["error"] == "invalid_grant"
    assert (await provider.redeem(code)).status_code == 200


# --- Config OP ------------------------------------------------------------------------------------------------------


async def test_oidcc_discovery_endpoint_verification(provider):
    answer = await provider.http.get("/.well-known/openid-configuration")
    document = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert document["issuer"] == ISSUER
    assert document["response_types_supported"] == ["code"]
    assert {"authorization_code", "refresh_token"} <= set(document["grant_types_supported"])
    assert "openid" in document["scopes_supported"]
    assert document["subject_types_supported"] == ["public"]
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    assert {"sub", "iss", "auth_time"} <= set(document["claims_supported"])


async def test_oidcc_discovery_jwks_uri_keys(provider):
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    keys = (await provider.http.get(urlsplit(document["jwks_uri"]).path)).json()["keys"]
    assert len({key["kid"] for key in keys}) == len(keys) > 0
    assert all(key["use"] == "sig" and not {"d", "p", "q", "k"} & key.keys() for key in keys)


async def test_oidcc_discovery_issuer_not_matching_config(provider):
    assert (await provider.http.get("/another/.well-known/openid-configuration")).status_code == 404
    url = f"{ISSUER}/.well-known/openid-configuration"
    assert (await provider.http.get(url, headers={"host": "another.test"})).status_code == 421
