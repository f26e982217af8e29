"""The OpenID Foundation's plans for RP-initiated and back-channel logout, module by module, under their names."""

import base64
import json
from urllib.parse import parse_qs, urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from lib_events.testing import wait_until
from lib_events.testing.receiver import receiving

ISSUER = "http://127.0.0.1:8001"
SIGNED_OUT = "http://127.0.0.1:8000/signed-out"
PASSWORD = "correct horse battery staple"
UNSIGNED = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."


def read(token):
    """The claims of a token whose signature somebody else checks."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


async def signed_in(provider, username="ada"):
    browser = await provider.browser()
    return browser, (await provider.redeem(await provider.sign_in_for_code(username, browser))).json()


async def keys_of(provider):
    return KeySet.import_key_set((await provider.http.get("/oauth2/jwks")).json())


# --- RP-initiated logout --------------------------------------------------------------------------------------------


def logout(**query):
    return f"/oauth2/logout?{urlencode(query)}"


async def is_signed_in(browser):
    return "Your account" in (await browser.open("/account")).text


async def test_oidcc_rp_initiated_logout_discovery_endpoint_verification(provider):
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert document["end_session_endpoint"] == f"{ISSUER}/oauth2/logout"


async def test_oidcc_rp_initiated_logout(provider):
    browser, tokens = await signed_in(provider)
    query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT, "state": "s"}
    assert (await browser.open(logout(**query))).headers["location"] == f"{SIGNED_OUT}?state=s"
    assert provider.answer(await provider.authorize(browser, prompt="none"))["error"] == "login_required"


async def test_oidcc_rp_initiated_logout_no_state(provider):
    browser, tokens = await signed_in(provider)
    query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT}
    assert (await browser.open(logout(**query))).headers["location"] == SIGNED_OUT


async def test_oidcc_rp_initiated_logout_no_params(provider):
    browser, _ = await signed_in(provider)
    assert "Sign out?" in (await browser.open("/oauth2/logout")).text
    assert "You are signed out" in (await browser.submit()).text
    assert not await is_signed_in(browser)


async def test_oidcc_rp_initiated_logout_only_state(provider):
    browser, _ = await signed_in(provider)
    assert "Sign out?" in (await browser.open(logout(state="s"))).text
    assert "You are signed out" in (await browser.submit()).text


async def test_oidcc_rp_initiated_logout_no_id_token_hint(provider):
    browser, _ = await signed_in(provider)
    page = await browser.open(logout(post_logout_redirect_uri=SIGNED_OUT, state="s"))
    assert "Sign out?" in page.text
    assert "You are signed out" in (await browser.submit()).text  # nobody has said whose URI that is


async def test_oidcc_rp_initiated_logout_no_post_logout_redirect_uri(provider):
    browser, tokens = await signed_in(provider)
    page = await browser.open(logout(id_token_hint=tokens["id_token"], state="s"))
    assert "You are signed out" in page.text


async def test_oidcc_rp_initiated_logout_modified_id_token_hint(provider):
    browser, tokens = await signed_in(provider)
    head, payload, signature = tokens["id_token"].split(".")
    hint = f"{head}.{payload}.{signature[::-1]}"
    page = await browser.open(logout(id_token_hint=hint, post_logout_redirect_uri=SIGNED_OUT))
    assert (page.status_code, "location" in page.headers) == (400, False)
    assert await is_signed_in(browser)


async def test_oidcc_rp_initiated_logout_bad_id_token_hint(provider):
    browser, _ = await signed_in(provider)
    page = await browser.open(logout(id_token_hint=UNSIGNED, post_logout_redirect_uri=SIGNED_OUT))
    assert (page.status_code, "location" in page.headers) == (400, False)


async def test_oidcc_rp_initiated_logout_bad_post_logout_redirect_uri(provider):
    browser, tokens = await signed_in(provider)
    page = await browser.open(logout(id_token_hint=tokens["id_token"], post_logout_redirect_uri="https://evil.test/"))
    assert "You are signed out" in page.text


async def test_oidcc_rp_initiated_logout_query_added_to_post_logout_redirect_uri(provider):
    browser, tokens = await signed_in(provider)
    uri = f"{SIGNED_OUT}?foo=bar"
    page = await browser.open(logout(id_token_hint=tokens["id_token"], post_logout_redirect_uri=uri))
    assert "You are signed out" in page.text


async def test_oidcc_rp_initiated_logout_post(provider):
    browser, tokens = await signed_in(provider)
    query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT}
    posted = await browser.http.post("/oauth2/logout", data=query, headers={"origin": "http://127.0.0.1:8000"})
    assert (await browser.open(posted.headers["location"])).headers["location"] == SIGNED_OUT


async def test_oidcc_rp_initiated_logout_other_client(provider):
    browser, tokens = await signed_in(provider)
    page = await browser.open(logout(id_token_hint=tokens["id_token"], client_id="evs-cli"))
    assert page.status_code == 400
    assert await is_signed_in(browser)


async def test_oidcc_rp_initiated_logout_client_id_and_id_token_hint(provider):
    browser, tokens = await signed_in(provider)
    query = {"id_token_hint": tokens["id_token"], "client_id": "evs-gui", "post_logout_redirect_uri": SIGNED_OUT}
    assert (await browser.open(logout(**query))).headers["location"] == SIGNED_OUT


# --- Back-channel logout --------------------------------------------------------------------------------------------

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
async def hearer():
    """A client's endpoint that hears of logouts."""
    async with receiving() as receiver:
        yield receiver


async def hears(provider, hearer):
    """Sign ada in to a client that wants to hear of logouts; returns her browser and the client's ID token."""
    back = "https://hearing.example/back"
    values = {"scopes": frozenset(("openid",)), "consent": "never", "logout_uri": hearer.url}
    auth = await provider.add_client(id="hearing", name="Hearing", redirect_uris=(back,), **values)
    browser = await provider.browser()
    await provider.authorize(browser, client_id="hearing", redirect_uri=back, scope="openid")
    code = provider.answer(await browser.submit(username="ada", password=PASSWORD))["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    return browser, (await provider.token(auth, **form)).json()["id_token"]


async def heard(provider, hearer):
    """The claims of the logout token that came, whose signature fits."""
    await wait_until(lambda: hearer.received)
    (token,) = parse_qs(hearer.received[0].body.decode())["logout_token"]
    return jwt.decode(token, await keys_of(provider), algorithms=["ES256"]).claims


async def test_oidcc_backchannel_logout_discovery_endpoint_verification(provider):
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert document["backchannel_logout_supported"] is True
    assert document["backchannel_logout_session_supported"] is True


async def test_oidcc_backchannel_rp_initiated_logout(provider, hearer):
    browser, id_token = await hears(provider, hearer)
    await browser.open(logout(id_token_hint=id_token))
    claims = await heard(provider, hearer)
    assert claims["events"] == {EVENT: {}}
    assert (claims["iss"], claims["aud"]) == (ISSUER, "hearing")
    assert {"iat", "exp", "jti"} <= claims.keys()
    assert "nonce" not in claims


async def test_oidcc_backchannel_rp_initiated_logout_sid(provider, hearer):
    browser, id_token = await hears(provider, hearer)
    await browser.open(logout(id_token_hint=id_token))
    claims = await heard(provider, hearer)
    assert (claims["sid"], claims["sub"]) == (read(id_token)["sid"], read(id_token)["sub"])


async def test_oidcc_backchannel_logout_at_the_provider(provider, hearer):
    browser, id_token = await hears(provider, hearer)
    await browser.open("/account")
    await browser.submit(form=-1)
    assert (await heard(provider, hearer))["sid"] == read(id_token)["sid"]


async def test_oidcc_backchannel_logout_of_another_session_says_nothing(provider, hearer):
    browser, id_token = await hears(provider, hearer)
    other, tokens = await signed_in(provider)
    await other.open(logout(id_token_hint=tokens["id_token"]))
    await browser.open(logout(id_token_hint=id_token))
    assert (await heard(provider, hearer))["sid"] == read(id_token)["sid"]  # events come in order: the first is hers
