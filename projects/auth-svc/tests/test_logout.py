"""RP-initiated logout, by the names of the OpenID test plan where it has one."""

from urllib.parse import urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
SIGNED_OUT = "http://127.0.0.1:8000/signed-out"


async def signed_in(provider, username="ada"):
    browser = await provider.browser()
    tokens = (await provider.redeem(await provider.sign_in_for_code(username, browser))).json()
    return browser, tokens


def path(**query):
    return f"/oauth2/logout?{urlencode(query)}"


async def test_the_hint_signs_out_and_leads_back_with_the_state(provider_on_both):
    provider = provider_on_both
    browser, tokens = await signed_in(provider)
    query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT, "state": "s1"}
    page = await browser.open(path(**query))
    assert page.headers["location"] == f"{SIGNED_OUT}?state=s1"
    assert "Sign in" in (await browser.open("/account")).text
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    ended = await wait_until(lambda: provider.events("evs.session.ended"))
    assert ended[0].data["reason"] == "signed out"


async def test_no_hint_asks_first(provider):
    browser, tokens = await signed_in(provider)
    page = await browser.open(path(client_id="evs-gui", post_logout_redirect_uri=SIGNED_OUT))
    assert "Sign out?" in page.text
    assert page.headers["content-security-policy"].endswith("form-action 'self' http://127.0.0.1:8000")
    assert (await provider.introspect(tokens["access_token"]))["active"]
    assert (await browser.submit()).headers["location"] == SIGNED_OUT
    assert not (await provider.introspect(tokens["access_token"]))["active"]


async def test_somebody_elses_hint_asks_first(provider):
    await provider.add_user("grace")
    _, graces = await signed_in(provider, "grace")
    browser, tokens = await signed_in(provider)
    assert "Sign out?" in (await browser.open(path(id_token_hint=graces["id_token"]))).text
    assert (await provider.introspect(tokens["access_token"]))["active"]


@pytest.mark.parametrize(
    "uri", ["https://evil.test/", "http://127.0.0.1:8000/signed-out/", "http://127.0.0.1:8000/signed-out?x=1", ""]
)
async def test_an_unregistered_post_logout_redirect_uri_leads_nowhere(provider, uri):
    browser, tokens = await signed_in(provider)
    page = await browser.open(path(id_token_hint=tokens["id_token"], post_logout_redirect_uri=uri))
    assert "You are signed out" in page.text


async def test_a_modified_hint_is_refused(provider):
    browser, tokens = await signed_in(provider)
    head, payload, signature = tokens["id_token"].split(".")
    for hint in (f"{head}.{payload[:-4]}AAAA.{signature}", "nonsense", tokens["access_token"]):
        page = await browser.open(path(id_token_hint=hint, post_logout_redirect_uri=SIGNED_OUT))
        assert page.status_code == 400
    assert "Your account" in (await browser.open("/account")).text


async def test_a_hint_of_another_issuer_is_refused_although_our_key_has_signed_it(provider):
    """As one is from before the service moved; another service may have the same sealing key, too."""
    browser, tokens = await signed_in(provider)
    keys = KeySet.import_key_set((await provider.http.get("/oauth2/jwks")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"]).claims
    for issuer, status in (("http://127.0.0.1:9001", 400), (claims["iss"], 303)):
        signed = provider.service.issuer.keys.sign(claims | {"iss": issuer}, token_type="JWT")
        page = await browser.open(path(id_token_hint=signed, post_logout_redirect_uri=SIGNED_OUT))
        assert page.status_code == status


async def test_client_and_hint_must_fit_together(provider):
    browser, tokens = await signed_in(provider)
    assert (await browser.open(path(id_token_hint=tokens["id_token"], client_id="evs-cli"))).status_code == 400


async def test_a_posted_logout_begins_like_any_other(provider):
    browser, tokens = await signed_in(provider)
    query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT}
    answer = await browser.http.post("/oauth2/logout", data=query, headers={"origin": "http://127.0.0.1:8000"})
    assert answer.headers["location"].startswith("/oauth2/logout?")
    assert (await browser.open(answer.headers["location"])).headers["location"] == SIGNED_OUT


async def test_without_anybody_signed_in_nothing_is_asked(provider):
    assert "You are signed out" in (await (await provider.browser()).open("/oauth2/logout")).text


async def test_tokens_for_offline_access_outlive_the_session(provider):
    browser = await provider.browser()
    cli = {"client_id": "evs-cli", "redirect_uri": "http://127.0.0.1:45678/callback"}
    await provider.authorize(browser, **cli, scope="openid offline_access workflows:read")
    await browser.submit(username="ada", password=PASSWORD)
    code = provider.answer(await browser.submit(decision="allow"))["code"]
    form = {"code": code, "code_verifier": provider.verifier, "redirect_uri": cli["redirect_uri"]}
    tokens = (await provider.token(None, grant_type="authorization_code", client_id="evs-cli", **form)).json()
    await browser.open("/account")
    await browser.submit(form=-1)
    assert "Sign in" in (await browser.open("/account")).text
    assert (await provider.introspect(tokens["access_token"]))["active"]
    again = {"refresh_token": tokens["refresh_token"], "client_id": "evs-cli"}
    assert (await provider.token(None, grant_type="refresh_token", **again)).status_code == 200


async def test_a_hint_of_another_session_asks_first(provider):
    """RP-Initiated Logout section 2: whoever has an old ID token must not sign its person out for ever."""
    browser, tokens = await signed_in(provider)
    await browser.open("/account")
    await browser.submit(form=-1)
    await browser.sign_in("ada")
    page = await browser.open(path(id_token_hint=tokens["id_token"], post_logout_redirect_uri=SIGNED_OUT))
    assert "Sign out?" in page.text
    assert "Your account" in (await browser.open("/account")).text


async def test_an_expired_id_token_is_still_a_hint(provider):
    browser, tokens = await signed_in(provider)
    keys = KeySet.import_key_set((await provider.http.get("/oauth2/jwks")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"]).claims
    old = claims | {"iat": claims["iat"] - 86_400, "exp": claims["exp"] - 86_400}
    hint = provider.service.issuer.keys.sign(old, token_type="JWT")
    assert provider.answer(await provider.authorize(browser, prompt="none", id_token_hint=hint))["code"]
    page = await browser.open(path(id_token_hint=hint, post_logout_redirect_uri=SIGNED_OUT))
    assert page.headers["location"] == SIGNED_OUT
