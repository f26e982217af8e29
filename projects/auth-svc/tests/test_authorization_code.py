"""The authorization code flow: sign in, get a code, exchange it; and everything that must not work."""

import asyncio
import base64
import hashlib
import json
from urllib.parse import urlencode

from joserfc import jws
from joserfc.jwk import KeySet
from sqlalchemy import update

from auth_svc.tables import codes
from lib_events.testing import wait_until


def claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


async def test_a_person_signs_in_and_the_client_gets_its_tokens(provider_on_both):
    provider = provider_on_both
    answer = await provider.tokens()
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 300
    assert set(answer["scope"].split()) == {"openid", "profile", "workflows:read", "workflows:run"}
    access = claims(answer["access_token"])
    assert access["iss"] == "http://127.0.0.1:8001"
    assert access["aud"] == "http://127.0.0.1:8002"
    assert access["roles"] == ["member"]
    assert {"sub", "client_id", "jti", "iat", "exp", "sid", "family"} <= access.keys()
    assert {"refresh_token", "id_token"} <= answer.keys()


async def test_tokens_name_a_published_key_and_their_type(provider):
    answer = await provider.tokens()
    keys = KeySet.import_key_set((await provider.http.get("/oauth2/jwks")).json())
    for token, token_type in ((answer["access_token"], "at+jwt"), (answer["id_token"], "JWT")):
        header = jws.deserialize_compact(token, keys, algorithms=["ES256"]).headers()
        assert header == {"alg": "ES256", "typ": token_type, "kid": keys.keys[0].kid}


async def test_the_id_token_says_who_signed_in_to_whom(provider):
    identity = claims((await provider.tokens())["id_token"])
    assert identity["aud"] == "evs-gui"
    assert identity["nonce"] == "the nonce"
    assert identity["preferred_username"] == "ada"
    assert {"at_hash", "auth_time", "sid", "exp", "iat", "sub"} <= identity.keys()


async def test_the_answer_to_the_password_is_the_code(provider_on_both):
    browser = await provider_on_both.browser()
    await provider_on_both.authorize(browser)
    page = await browser.submit(username="ada", password="correct horse battery staple")
    assert page.request.url.path == "/login"
    assert (await provider_on_both.redeem(provider_on_both.answer(page)["code"])).status_code == 200
    assert "Your account" in (await browser.open("/account")).text


async def test_who_has_to_be_asked_first_goes_there_after_the_password(provider):
    browser = await provider.browser()
    await provider.authorize(browser, client_id="evs-cli", redirect_uri="http://127.0.0.1:45678/callback")
    page = await browser.submit(username="ada", password="correct horse battery staple")
    assert (page.request.url.path, "Allow access?" in page.text) == ("/oauth2/authorize", True)


async def test_the_answer_names_the_issuer_and_repeats_the_state(provider):
    browser = await provider.browser()
    await provider.authorize(browser)
    page = await browser.submit(username="ada", password="correct horse battery staple")
    location = page.headers["location"]
    assert location.startswith("http://127.0.0.1:8000/callback?")
    assert "iss=http%3A%2F%2F127.0.0.1%3A8001" in location
    assert "state=the+state" in location


async def test_somebody_who_is_signed_in_is_not_asked_again(provider):
    browser = await provider.browser()
    await provider.sign_in_for_code(browser=browser)
    again = await provider.authorize(browser)
    assert again.headers["location"].startswith("http://127.0.0.1:8000/callback?code=")


async def test_a_wrong_request_goes_back_to_the_client_with_its_error(provider, subtests):
    for changes, error in (
        ({"code_challenge": "", "code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": ""}, "invalid_request"),
        ({"scope": "bogus"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "dance"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"max_age": "9" * 5000}, "invalid_request"),
        ({"id_token_hint": "not.from.here"}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"request_uri": "https://client.test/request"}, "request_uri_not_supported"),
        ({"resource": "https://elsewhere.test"}, "invalid_target"),
    ):
        with subtests.test(changes=changes, error=error):
            page = await provider.authorize(await provider.browser(), **changes)
            assert page.status_code == 303, page.text
            location = page.headers["location"]
            assert location.startswith("http://127.0.0.1:8000/callback?")
            assert f"error={error}" in location
            assert "state=the+state" in location
            assert "iss=" in location


async def test_without_a_client_and_its_redirect_uri_nobody_is_sent_anywhere(provider, subtests):
    for changes in (
        {"client_id": "nobody"},
        {"client_id": ""},
        {"redirect_uri": ""},
        {"redirect_uri": "http://127.0.0.1:8000/callback/"},
        {"redirect_uri": "http://127.0.0.1:8000/callback?extra=1"},
        {"redirect_uri": "http://127.0.0.1:9999/callback"},
        {"redirect_uri": "http://127.0.0.1:8000@evil.test/callback"},
        {"redirect_uri": 'javascript:alert("1")'},
        {"redirect_uri": "https://evil.test/ümlaut"},
        {"client_id": 'a"b\\', "redirect_uri": "https://evil.test"},
        {"response_type": 'co"de', "redirect_uri": "https://evil.test"},
    ):
        with subtests.test(changes=changes):
            page = await provider.authorize(await provider.browser(), **changes)
            assert page.status_code == 400
            assert "location" not in page.headers
            assert "text/html" in page.headers["content-type"]


async def test_no_parameter_may_come_twice_but_resource(provider):
    browser = await provider.browser()
    base = urlencode(provider.request())
    assert "error=invalid_request" in (await browser.open(f"/oauth2/authorize?{base}&state=2")).headers["location"]
    assert "error=invalid_request" in (await browser.open(f"/oauth2/authorize?{base}&nonce=2")).headers["location"]
    assert (await browser.open(f"/oauth2/authorize?{base}&client_id=evs-cli")).status_code == 400
    both = urlencode([("resource", "http://127.0.0.1:8002"), ("resource", "http://127.0.0.1:8001/v1/admin")])
    page = await browser.open(f"/oauth2/authorize?{base}&{both}")
    assert "Sign in" in page.text


async def test_a_code_is_worth_nothing_without_all_that_belongs_to_it(provider, subtests):
    for changes, error in (
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"code_verifier": "short"}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:8000/other"}, "invalid_grant"),
        ({"code": "made-up"}, "invalid_grant"),
        ({"resource": "http://127.0.0.1:8001/v1/admin"}, "invalid_target"),
    ):
        with subtests.test(changes=changes, error=error):
            code = await provider.sign_in_for_code()
            refused = await provider.redeem(**({"code": code} | changes))
            assert refused.status_code == 400
            assert refused.json()["error"] == error
            assert refused.headers["cache-control"] == "no-store"
            assert (await provider.redeem(code)).status_code == 200  # a failed try does not use it up


async def test_the_challenge_is_enough_where_the_redirect_uri_is_left_out(provider):
    code = await provider.sign_in_for_code()
    tokens = await provider.token(
        provider.gui(), grant_type="authorization_code", code=code, code_verifier=provider.verifier
    )
    assert tokens.status_code == 200


async def test_a_code_belongs_to_its_client(provider):
    other = await provider.add_client(id="other", name="Other", redirect_uris=("https://other.test/cb",))
    code = await provider.sign_in_for_code()
    form = {"code": code, "redirect_uri": "http://127.0.0.1:8000/callback"}
    refused = await provider.token(other, grant_type="authorization_code", **form)
    assert refused.json()["error"] == "invalid_grant"


async def test_a_confidential_client_must_prove_itself(provider):
    code = await provider.sign_in_for_code()
    form = {"code": code, "redirect_uri": "http://127.0.0.1:8000/callback", "grant_type": "authorization_code"}
    for auth, more, status in (
        (None, {"client_id": "evs-gui"}, 400),
        (("evs-gui", "wrong"), {}, 401),
        (None, {"client_id": "evs-gui", "client_secret": "wrong"}, 400),
        (("nobody", "wrong"), {}, 401),
    ):
        refused = await provider.token(auth, **form, **more)
        assert (refused.status_code, refused.json()["error"]) == (status, "invalid_client")
        challenge = 'Basic realm="event-based-svcs"' if status == 401 else None
        assert refused.headers.get("www-authenticate") == challenge
        assert refused.json()["error_description"] == "Client authentication failed."


async def test_using_a_code_twice_ends_everything_it_brought(provider_on_both):
    provider = provider_on_both
    code = await provider.sign_in_for_code()
    tokens = (await provider.redeem(code)).json()
    assert (await provider.introspect(tokens["access_token"]))["active"]
    assert (await provider.redeem(code)).json()["error"] == "invalid_grant"
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert await wait_until(lambda: provider.events("evs.token.revoked"))


async def test_of_twenty_who_race_for_a_code_one_wins(provider_on_both):
    provider = provider_on_both
    code = await provider.sign_in_for_code()
    answers = await asyncio.gather(*(provider.redeem(code) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert {answer.json()["error"] for answer in answers if answer.status_code == 400} == {"invalid_grant"}


async def test_signing_out_between_code_and_token_wins(provider):
    browser = await provider.browser()
    code = await provider.sign_in_for_code(browser=browser)
    await browser.open("/account")
    await browser.submit(form=-1)
    assert (await provider.redeem(code)).json()["error"] == "invalid_grant"


async def test_a_token_is_for_one_resource_which_the_person_allowed(provider):
    both = [("resource", "http://127.0.0.1:8002"), ("resource", "http://127.0.0.1:8001/v1/admin")]
    pairs = [*(provider.request() | {"scope": "openid admin workflows:read"}).items(), *both]
    browser = await provider.browser()
    await browser.open(f"/oauth2/authorize?{urlencode(pairs)}")
    page = await browser.submit(username="ada", password="correct horse battery staple")
    code = dict(part.split("=") for part in page.headers["location"].split("?")[1].split("&"))["code"]
    tokens = (await provider.redeem(code, resource="http://127.0.0.1:8001/v1/admin")).json()
    assert claims(tokens["access_token"])["aud"] == "http://127.0.0.1:8001/v1/admin"
    assert tokens["scope"] == "admin openid"
    app = (await provider.refresh(tokens["refresh_token"], resource="http://127.0.0.1:8002")).json()
    assert claims(app["access_token"])["aud"] == "http://127.0.0.1:8002"
    assert app["scope"] == "openid workflows:read"


async def test_what_agents_call_means_the_appservice_in_every_request(provider):
    """RFC 8707 section 2: the resource may be mapped to a more general URI, which is the tokens' audience."""
    tools = "http://127.0.0.1:8002/mcp"
    discovered = (await provider.http.get("/.well-known/oauth-authorization-server")).json()
    assert tools in discovered["protected_resources"]  # RFC 9728 section 4
    code = await provider.sign_in_for_code(resource=tools)
    tokens = (await provider.redeem(code, resource=tools)).json()
    assert claims(tokens["access_token"])["aud"] == "http://127.0.0.1:8002"
    for resource in (tools, tools + "/", "http://127.0.0.1:8002"):
        tokens = (await provider.refresh(tokens["refresh_token"], resource=resource)).json()
        assert claims(tokens["access_token"])["aud"] == "http://127.0.0.1:8002", resource
    for other in (tools + "/tools", "http://127.0.0.1:8002/v1", "http://127.0.0.1:8001/v1/admin/mcp"):
        refused = await provider.refresh(tokens["refresh_token"], resource=other)
        assert refused.json()["error"] == "invalid_target", other


async def test_max_age_and_prompt_ask_for_a_fresh_sign_in_once(provider):
    browser = await provider.browser()
    await provider.sign_in_for_code(browser=browser)
    assert "Sign in" in (await provider.authorize(browser, prompt="login")).text
    page = await browser.submit(username="ada", password="correct horse battery staple")
    assert "code=" in page.headers["location"]
    assert "Sign in" in (await provider.authorize(browser, max_age="0")).text
    assert "code=" in (await provider.authorize(browser, max_age="3600")).headers["location"]


async def test_another_account_may_be_chosen_and_counts_from_then_on(provider):
    await provider.add_user("grace")
    browser = await provider.browser()
    await provider.sign_in_for_code(browser=browser)
    assert "Sign in" in (await provider.authorize(browser, prompt="select_account")).text
    code = provider.answer(await browser.submit(username="grace", password="correct horse battery staple"))["code"]
    told = await provider.introspect((await provider.redeem(code)).json()["access_token"])
    assert told["username"] == "grace"
    assert "grace" in (await browser.open("/account")).text


async def test_a_hint_at_somebody_else_asks_for_a_sign_in(provider):
    await provider.add_user("grace")
    graces = (await provider.tokens("grace"))["id_token"]
    browser = await provider.browser()
    await provider.sign_in_for_code(browser=browser)
    refused = await provider.authorize(browser, prompt="none", id_token_hint=graces)
    assert "error=login_required" in refused.headers["location"]
    assert "Sign in" in (await provider.authorize(browser, id_token_hint=graces)).text


async def test_a_posted_authorization_request_is_as_good(provider):
    answer = await provider.post("/oauth2/authorize", provider.request())
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/oauth2/authorize?response_type=code")


async def test_an_authorization_code_lives_a_minute(provider):
    code = await provider.sign_in_for_code()
    earlier = update(codes).values(expires_at=codes.c.expires_at - 61_000_000)
    await provider.service.database.transact(lambda connection: connection.execute(earlier) and None)
    assert (await provider.redeem(code)).json()["error"] == "invalid_grant"


async def test_a_parameter_without_a_value_counts_as_left_out(provider):
    browser = await provider.browser()
    page = await browser.open(f"/oauth2/authorize?{urlencode(provider.request())}&max_age=&resource=&request=&state2=")
    assert "Sign in" in page.text
    code = provider.answer(await browser.submit(username="ada", password="correct horse battery staple"))["code"]
    assert (await provider.redeem(code, resource="", scope="", unknown="x")).status_code == 200


async def test_the_id_token_names_its_access_token(provider):
    tokens = await provider.tokens()
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    assert claims(tokens["id_token"])["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


async def test_an_access_token_says_when_its_person_signed_in(provider):
    tokens = await provider.tokens()
    access, identity = claims(tokens["access_token"]), claims(tokens["id_token"])
    assert access["auth_time"] == identity["auth_time"] <= access["iat"]
    assert access["sub"] == identity["sub"]
    assert access["aud"] != identity["aud"]


async def test_an_answer_with_tokens_is_json_and_is_never_stored(provider):
    answer = await provider.redeem(await provider.sign_in_for_code())
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert isinstance(answer.json()["expires_in"], int)


async def test_without_a_scope_it_is_the_default(provider):
    assert (await provider.tokens(scope=""))["scope"] == "openid profile"


async def test_the_subject_is_the_same_for_every_client(provider):
    callback = "https://other.test/cb"
    values = {"redirect_uris": (callback,), "scopes": frozenset(("openid",)), "consent": "never"}
    other = await provider.add_client(id="other", name="Other", **values)
    code = await provider.sign_in_for_code(client_id="other", redirect_uri=callback, scope="openid")
    form = {"code": code, "redirect_uri": callback, "code_verifier": provider.verifier}
    theirs = (await provider.token(other, grant_type="authorization_code", **form)).json()["id_token"]
    assert claims(theirs)["sub"] == claims((await provider.tokens())["id_token"])["sub"]


async def test_a_resource_is_one_of_ours_and_nothing_that_resembles_it(provider, subtests):
    app = "http://127.0.0.1:8002"
    for resource in (f"{app}#x", f"{app}/x", f"{app}?x", "/v1", "HTTP://127.0.0.1:8002", f"{app}@evil.test", f"{app}0"):
        with subtests.test(resource):
            page = await provider.authorize(await provider.browser(), resource=resource)
            assert provider.answer(page)["error"] == "invalid_target"


async def test_the_query_of_a_redirect_uri_is_kept(provider):
    callback = "https://other.test/cb?tenant=a%20b&town=M%FCnchen&empty=&flag"  # whatever its encoding is
    values = {"redirect_uris": (callback,), "scopes": frozenset(("openid",)), "consent": "never"}
    await provider.add_client(id="other", name="Other", **values)
    browser = await provider.browser()
    request = {"client_id": "other", "redirect_uri": callback, "scope": "openid"}
    refused = await provider.authorize(browser, **request, prompt="none")
    await browser.sign_in("ada")
    answer = await provider.authorize(browser, **request)
    for location in (refused.headers["location"], answer.headers["location"]):
        assert location.startswith(f"{callback}&")
    assert {"error", "state", "iss"} <= provider.answer(refused).keys()
    assert {"code", "state", "iss"} <= provider.answer(answer).keys()


async def test_whoever_has_a_used_code_alone_ends_nothing(provider, subtests):
    code = await provider.sign_in_for_code()
    tokens = (await provider.redeem(code)).json()
    for changes in ({"code_verifier": "x" * 43}, {"code_verifier": ""}, {"redirect_uri": "https://evil.test/"}):
        with subtests.test(changes=changes):
            assert (await provider.redeem(code, **changes)).status_code == 400
            assert (await provider.introspect(tokens["access_token"]))["active"]
    assert (await provider.redeem(code)).json()["error"] == "invalid_grant"
    assert not (await provider.introspect(tokens["access_token"]))["active"]


async def test_a_client_that_may_not_refresh_gets_no_refresh_token(provider):
    callback = "https://other.test/cb"
    values = {"redirect_uris": (callback,), "scopes": frozenset(("openid",)), "grant_types": ("authorization_code",)}
    other = await provider.add_client(id="other", name="Other", consent="never", **values)
    code = await provider.sign_in_for_code(client_id="other", redirect_uri=callback, scope="openid")
    form = {"code": code, "redirect_uri": callback, "code_verifier": provider.verifier}
    tokens = (await provider.token(other, grant_type="authorization_code", **form)).json()
    assert "refresh_token" not in tokens
