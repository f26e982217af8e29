"""Sign-in with another provider: a second real instance of this service, and providers that lie or hang."""

import asyncio
import html
import sqlite3
from contextlib import closing
from ipaddress import ip_network
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from argon2 import PasswordHasher
from joserfc.jwk import ECKey, OctKey, RSAKey
from lying_provider import BODY, ELSEWHERE, Liar, come_back, journey, leave, speak_to
from sqlalchemy import select, update

from auth_svc import first_start
from auth_svc.people import accounts
from auth_svc.pruner import prune
from auth_svc.tables import upstream_arrivals, upstream_sign_ins, upstreams
from auth_svc.upstreams import providers
from auth_svc.upstreams import transport as upstream_http
from auth_svc.upstreams.client import UpstreamClient
from lib_auth.client import OAuthClient
from lib_events.clock import SystemClock
from lib_events.http.checked import CheckedHttp
from lib_events.http.destinations import Destinations
from lib_events.testing import wait_until

ISSUER = "http://127.0.0.1:8001"
PASSWORD = "correct horse battery staple"
SECURITY = "/account/security"


@pytest.fixture
async def admin(provider_on_both):
    return {"authorization": f"Bearer {await provider_on_both.admin_token()}"}


async def add_upstream(provider, admin, **changes):
    made = await provider.http.post("/v1/admin/upstreams", json=BODY | changes, headers=admin)
    assert made.status_code == 201, made.text
    return made.json()


async def test_who_comes_from_elsewhere_gets_an_account_where_that_is_allowed(provider_on_both, admin):
    provider, liar = provider_on_both, Liar()
    await add_upstream(provider, admin, makes_accounts=True)
    speak_to(provider, liar)
    browser = await provider.browser()
    assert "Sign in with Example" in (await browser.open("/login")).text
    assert "grace" in (await journey(provider, liar, browser)).text
    grace = await provider.service.database.read(accounts.find_by_username, "grace")
    assert grace.email == "grace@navy.test"
    assert grace.password_hash is None
    again = await provider.browser()
    assert "Your account" in (await journey(provider, liar, again)).text
    users = (await provider.http.get("/v1/admin/users", headers=admin)).json()["items"]
    assert [user["username"] for user in users].count("grace") == 1
    assert (await (await provider.browser()).sign_in("grace", "")).status_code == 401


async def test_a_taken_name_gets_a_number_and_no_account_that_is_there(provider_on_both, admin):
    provider, liar = provider_on_both, Liar(claims={"preferred_username": "ada", "email": "ada@navy.test"})
    await add_upstream(provider, admin, makes_accounts=True)
    speak_to(provider, liar)
    assert "ada2" in (await journey(provider, liar)).text


@pytest.mark.parametrize(
    ("called", "here"),
    [("Grace Brewster Hopper", "Grace.Brewster.Hopper"), ("auth0|5f7c", "auth0.5f7c"), ("\u2026", "grace")],
)
async def test_what_is_no_name_here_keeps_nobody_out(provider_on_both, admin, called, here):
    provider, liar = provider_on_both, Liar(claims={"preferred_username": called})
    await add_upstream(provider, admin, makes_accounts=True)
    speak_to(provider, liar)
    assert here in (await journey(provider, liar)).text
    assert await provider.service.database.read(accounts.find_by_username, here) is not None


async def test_a_provider_that_is_removed_while_it_is_asked_is_told_to_be_gone(provider_on_both, admin, monkeypatch):
    provider = provider_on_both
    speak_to(provider, Liar())
    await add_upstream(provider, admin)
    begin = UpstreamClient.begin

    async def begin_slowly(*asked):
        pending = await begin(*asked)
        assert (await provider.http.delete("/v1/admin/upstreams/example", headers=admin)).status_code == 204
        return pending

    monkeypatch.setattr(UpstreamClient, "begin", begin_slowly)
    page = await (await provider.browser()).open("/login/upstream/example")
    assert (page.status_code, "No such provider" in page.text) == (404, True), page.text


async def test_nobody_is_let_in_by_e_mail_alone(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    body = {"username": "hopper", "email": "grace@navy.test", "password": PASSWORD}
    assert (await provider.http.post("/v1/admin/users", json=body, headers=admin)).status_code == 201
    browser = await provider.browser()
    page = await journey(provider, liar, browser)
    assert page.status_code == 403
    assert "No account here belongs to that sign-in." in page.text, "the address was never proven"
    await provider.add_user("grace", email="grace@navy.test")
    page = await journey(provider, liar, browser)
    assert "You have an account here already" in page.text
    assert (await browser.open("/account")).url.path == "/login"
    assert "grace" not in page.text.replace("grace@navy.test", ""), "who the account is, its owner knows"


async def test_an_account_with_the_address_is_connected_once_it_was_signed_in_to(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    hopper = await provider.add_user("hopper", email="grace@navy.test")
    browser = await provider.browser()
    asked = await leave(browser, target="/account/apps")
    liar.nonce = asked["nonce"]
    page = await come_back(browser, asked)
    assert "Prove once that it is yours" in page.text
    assert "Sign in with Example" not in page.text
    page = await browser.submit(username="hopper", password="not that")
    assert (page.status_code, "You have an account here already" in page.text) == (401, True)
    page = await browser.submit(username="hopper", password=PASSWORD)
    assert "Connect Example?" in page.text
    assert await linked(provider, hopper) == frozenset()
    assert (await browser.submit()).url.path == "/account/apps"
    assert await linked(provider, hopper) == {ELSEWHERE}
    assert (await browser.open("/login/connect")).status_code == 400, "it is used up"
    assert "hopper" in (await journey(provider, liar)).text
    assert "Example is connected." in (await browser.open(SECURITY)).text
    added = await wait_until(lambda: provider.events("evs.user.factor-added"))
    assert [(event.data["user"], event.data["factor"]) for event in added] == [(hopper.id, "upstream")]
    assert "can now be signed in to with Example" in await provider.mailbox.receive("upstream-connected")
    page = await browser.submit(action=f"{SECURITY}/upstreams/disconnect")
    assert "Example is connected." not in page.text


async def test_the_second_factor_is_part_of_the_proof(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    hopper = await provider.add_user("hopper", email="grace@navy.test")
    own = await provider.browser()
    await own.sign_in("hopper")
    secret = await own.set_up_app()
    browser = await provider.browser()
    await journey(provider, liar, browser)
    assert "One more step" in (await browser.submit(username="hopper", password=PASSWORD)).text
    assert "Connect Example?" not in (await browser.http.get("/login/connect")).text
    forced = await browser.http.post("/login/connect", headers={"origin": ISSUER})
    assert forced.headers["location"] == "/login/connect"
    assert "Connect Example?" in (await browser.submit(code=provider.code_of_app(secret))).text
    assert await linked(provider, hopper) == frozenset()
    await browser.submit()
    assert await linked(provider, hopper) == {ELSEWHERE}


async def test_an_address_that_somebody_only_claims_is_a_trap_nobody_falls_into(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    body = {"username": "trap", "email": "grace@navy.test", "password": PASSWORD}
    assert (await provider.http.post("/v1/admin/users", json=body, headers=admin)).status_code == 201
    assert "Your account" in (await journey(provider, liar)).text
    grace = await provider.service.database.read(accounts.find_by_username, "grace")
    trap = await provider.service.database.read(accounts.find_by_username, "trap")
    assert (await linked(provider, grace), await linked(provider, trap)) == ({ELSEWHERE}, frozenset())


async def test_who_is_sent_here_with_a_strangers_arrival_connects_nothing(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    await provider.add_user("mallory", email="grace@navy.test")
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    browser = await provider.browser()
    await journey(provider, liar, browser)  # as if somebody had signed it in there
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "Another account has that address" in page.text
    csrf = (await browser.open("/account")).text.split('name="csrf" value="')[1].split('"')[0]
    forced = await browser.http.post("/login/connect", data={"csrf": csrf}, headers={"origin": ISSUER})
    assert forced.status_code == 403
    assert await linked(provider, ada) == frozenset()


async def test_whoever_has_no_account_with_the_address_makes_one_without_it(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    hopper = await provider.add_user("hopper", email="grace@navy.test")
    browser = await provider.browser()
    await journey(provider, liar, browser)
    assert "Your account" in (await browser.submit(action="/login/connect/new")).text
    grace = await provider.service.database.read(accounts.find_by_username, "grace")
    assert (grace.email, await linked(provider, grace)) == (None, {ELSEWHERE})
    assert await linked(provider, hopper) == frozenset()
    assert "grace" in (await journey(provider, liar)).text


async def test_no_account_is_made_by_that_way_where_the_provider_makes_none(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    await provider.add_user("hopper", email="grace@navy.test")
    browser = await provider.browser()
    page = await journey(provider, liar, browser)
    assert "Make a new account" not in page.text
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    forced = await browser.http.post("/login/connect/new", data={"csrf": csrf}, headers={"origin": ISSUER})
    assert forced.status_code == 403


async def test_an_arrival_waits_in_its_browser_alone_and_for_some_minutes(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    await provider.add_user("hopper", email="grace@navy.test")
    browser, other = await provider.browser(), await provider.browser()
    await journey(provider, liar, browser)
    await other.sign_in("hopper")
    assert (await other.open("/login/connect")).status_code == 400
    assert "You have an account" in (await browser.open("/login/connect")).text

    def grow_old(connection):
        connection.execute(update(upstream_arrivals).values(expires_at=1))

    await provider.service.database.transact(grow_old)
    assert (await browser.open("/login/connect")).status_code == 400
    assert "with your account" in (await browser.open("/login?next=/login/connect")).text
    await provider.service.database.transact(prune, SystemClock().micros())
    rows = await provider.service.database.read(lambda connection: connection.execute(select(upstream_arrivals)).all())
    assert rows == []
    await journey(provider, liar, browser)
    assert (await provider.http.delete("/v1/admin/upstreams/example", headers=admin)).status_code == 204
    assert (await browser.open("/login/connect")).status_code == 400


async def test_of_twenty_presses_one_connects(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    hopper = await provider.add_user("hopper", email="grace@navy.test")
    browser = await provider.browser()
    await journey(provider, liar, browser)
    page = await browser.submit(username="hopper", password=PASSWORD)
    form = {"csrf": page.text.split('name="csrf" value="')[1].split('"')[0]}
    press = [browser.http.post("/login/connect", data=form, headers={"origin": ISSUER}) for _ in range(20)]
    answers = await asyncio.gather(*press)
    assert sorted(answer.status_code for answer in answers) == [303, *[400] * 19]
    assert await linked(provider, hopper) == {ELSEWHERE}
    assert len(await wait_until(lambda: provider.events("evs.user.factor-added"))) == 1


async def linked(provider, account):
    return await provider.service.database.read(providers.linked_to, account.id)


async def test_an_account_is_connected_from_its_own_page_and_disconnected(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/example")
    location = page.text.split('class="button primary" href="')[1].split('"')[0].replace("&amp;", "&")
    asked = dict(parse_qsl(urlsplit(location).query))
    liar.nonce = asked["nonce"]
    assert "Example is connected." in (await come_back(browser, asked)).text
    other = await provider.browser()
    assert "ada" in (await journey(provider, liar, other)).text
    added = await wait_until(lambda: provider.events("evs.user.factor-added"))
    assert added[0].data["factor"] == "upstream"
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/disconnect")
    assert "is connected" not in page.text
    assert (await journey(provider, liar)).status_code == 403


async def test_who_is_signed_in_here_has_to_sign_in_there_again(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    browser = await provider.browser()
    assert "prompt" not in await leave(browser)
    await journey(provider, liar, browser)
    assert (await leave(browser))["prompt"] == "login"


async def test_an_identity_belongs_to_one_account(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    await journey(provider, liar)
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/example")
    location = page.text.split('class="button primary" href="')[1].split('"')[0].replace("&amp;", "&")
    asked = dict(parse_qsl(urlsplit(location).query))
    liar.nonce = asked["nonce"]
    refused = await come_back(browser, asked)
    assert "belongs to another account" in refused.text


async def test_the_only_way_in_is_not_taken_away(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    browser = await provider.browser()
    await journey(provider, liar, browser)
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/disconnect")
    assert "That is the only way in that you have." in page.text


async def test_a_second_factor_here_is_asked_for_all_the_same(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    browser = await provider.browser()
    await journey(provider, liar, browser)
    secret = await browser.set_up_app()
    other = await provider.browser()
    assert "One more step" in (await journey(provider, liar, other)).text
    assert "Your account" in (await other.submit(code=provider.code_of_app(secret))).text


async def test_only_addresses_of_the_named_domains_come_in(provider_on_both, admin, subtests):
    provider = provider_on_both
    await add_upstream(provider, admin, makes_accounts=True, domains=["navy.test"])
    for claims in (
        {"email": "grace@evil.test"},
        {"email": "grace@navy.test", "email_verified": False},
        {"email": "grace@navy.test", "email_verified": "true"},
        {"email": None},
        {"email": "grace@navy.test@evil.test"},
        {"email": ["grace@navy.test"]},
    ):
        with subtests.test(claims=claims):
            page = await journey(provider, speak_to(provider, Liar(claims=claims)))
            assert page.status_code == 403
            assert "did not vouch for" in page.text
    assert "Your account" in (await journey(provider, speak_to(provider, Liar()))).text


LIES = {
    "another nonce": {"claims": {"nonce": "another"}},
    "no nonce": {"claims": {"nonce": None}},
    "another issuer": {"claims": {"iss": "https://evil.test"}},
    "another audience": {"claims": {"aud": "somebody else"}},
    "several audiences": {"claims": {"aud": ["us", "them"], "azp": "them"}},
    "expired": {"claims": {"exp": 1}},
    "no end": {"claims": {"exp": None}},
    "an end in words": {"claims": {"exp": "tomorrow"}},
    "nobody": {"claims": {"sub": ""}},
    "a number": {"claims": {"sub": 7}},
    "somebody long": {"claims": {"sub": "x" * 256}},
    "no claims": {"payload": ["iss"]},
    "another key": {"key": RSAKey.generate_key(2048, {"kid": "1"}, private=True)},
    "a shared secret": {"key": OctKey.import_key(b"their secret, of which they know 256 bits"), "alg": "HS256"},
    "another kind of key": {"key": ECKey.generate_key("P-256", {"kid": "1"}, private=True), "alg": "ES256"},
    "no id token": {"answer": {"id_token": None}},
    "an id token of no form": {"answer": {"id_token": "a.b"}},
    "a lifetime without end": {"answer": {"expires_in": 10**400}},
    "no bearer": {"answer": {"token_type": "mac"}},
    "html for tokens": {"/token": httpx.Response(200, text="<html>")},
    "an error for tokens": {"/token": httpx.Response(500, text="oops")},
    "keys that are none": {"/keys": httpx.Response(200, json={"keys": [{"kty": "RSA"}]})},
    "a list of keys": {"/keys": httpx.Response(200, json=[])},
    "no keys": {"/keys": httpx.Response(404)},
    "a redirect for tokens": {"/token": httpx.Response(302, headers={"location": "http://169.254.169.254/"})},
    "nested": {"/token": httpx.Response(200, text="[" * 100_000)},
}


async def test_a_provider_that_lies_lets_nobody_in_and_is_no_stack_trace(provider_on_both, admin, subtests):
    provider = provider_on_both
    await add_upstream(provider, admin, makes_accounts=True)
    for name, lies in LIES.items():
        with subtests.test(lie=name):
            page = await journey(provider, speak_to(provider, Liar(**lies)))
            assert page.status_code == 502
            assert "Example cannot be reached" in page.text
            assert "Traceback" not in page.text
    assert await provider.service.database.read(accounts.find_by_username, "grace") is None


async def test_a_provider_that_describes_itself_wrongly_is_not_gone_to(provider_on_both, admin, subtests):
    provider = provider_on_both
    await add_upstream(provider, admin)
    browser = await provider.browser()
    for lie in (
        {"metadata": {"issuer": "https://evil.test"}},
        {"metadata": {"authorization_endpoint": "javascript:alert(1)"}},
        {"metadata": {"authorization_endpoint": "http://id.example/authorize"}},
        {"metadata": {"authorization_endpoint": 7}},
        {"/.well-known/openid-configuration": httpx.Response(200, text="[]")},
        {"/.well-known/openid-configuration": httpx.Response(503)},
        {"/.well-known/openid-configuration": httpx.Response(301, headers={"location": "http://10.0.0.1/"})},
    ):
        with subtests.test(lie=lie):
            speak_to(provider, Liar(**lie))
            assert (await browser.http.get("/login/upstream/example")).status_code == 502


async def test_keys_that_nobody_here_can_use_take_none_from_those_that_fit(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    own = liar.key.as_dict(private=False)
    others = [
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x", "kid": "0"},
        {"kty": "RSA", "kid": "2"},
        own | {"use": "enc"},
    ]
    liar.lies["/keys"] = httpx.Response(200, json={"keys": [*others, own]})
    assert "Your account" in (await journey(provider, liar)).text


async def test_an_issuer_that_ends_with_a_slash_signs_people_in(provider_on_both, admin):
    provider, issuer = provider_on_both, f"{ELSEWHERE}/"
    made = await add_upstream(provider, admin, issuer=issuer, makes_accounts=True)
    assert made["issuer"] == issuer
    liar = speak_to(provider, Liar(metadata={"issuer": issuer}, claims={"iss": issuer}))
    assert "Your account" in (await journey(provider, liar)).text
    liar.lies["claims"] = {}
    assert (await journey(provider, liar)).status_code == 502


async def test_where_a_provider_sends_people_may_have_a_query(provider_on_both, admin):
    provider = provider_on_both
    speak_to(provider, Liar(metadata={"authorization_endpoint": f"{ELSEWHERE}/authorize?policy=sign-in"}))
    await add_upstream(provider, admin)
    asked = await leave(await provider.browser())
    assert (asked["policy"], asked["response_type"]) == ("sign-in", "code")


async def test_an_answer_is_taken_once_in_its_browser_and_for_its_provider(provider_on_both, admin, subtests):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    await add_upstream(provider, admin, id="other", issuer="https://other.example")
    browser, thief = await provider.browser(), await provider.browser()
    asked = await leave(browser)
    liar.nonce = asked["nonce"]
    await leave(thief)
    for name, at, values in (
        ("another browser", thief, {}),
        ("another provider", browser, {"upstream": "other"}),
        ("another state", browser, {"state": "x"}),
        ("no state", browser, {"state": ""}),
    ):
        with subtests.test(name):
            page = await come_back(at, asked, **values)
            assert page.status_code == 400
            assert "Begin again." in page.text
    twice = await browser.http.get(f"/login/upstream/example/callback?state={asked['state']}&state=x")
    assert twice.status_code == 400
    assert (await browser.http.get("/login/upstream/example/callback?x=" + "y" * 9_000)).status_code == 400
    assert "Your account" in (await come_back(browser, asked)).text
    assert (await come_back(browser, asked)).status_code == 400


async def test_of_twenty_who_bring_one_answer_one_gets_in(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    browser = await provider.browser()
    asked = await leave(browser)
    liar.nonce = asked["nonce"]
    path = f"/login/upstream/example/callback?code=c&state={asked['state']}"
    answers = await asyncio.gather(*(browser.http.get(path) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [303, *[400] * 19]


async def test_somebody_who_comes_twenty_times_at_once_is_one(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    browsers = [await provider.browser() for _ in range(20)]
    asked = [await leave(browser) for browser in browsers]

    def token(request):
        liar.nonce = asked[int(dict(parse_qsl(request.content.decode()))["code"])]["nonce"]
        answer = {"access_token": "a", "token_type": "Bearer", "id_token": liar.id_token()}
        return httpx.Response(200, json=answer)

    liar.lies["/token"] = token
    pages = await asyncio.gather(
        *(
            come_back(browser, each, code=str(code))
            for code, (browser, each) in enumerate(zip(browsers, asked, strict=True))
        )
    )
    assert {page.status_code for page in pages} == {200}
    users = (await provider.http.get("/v1/admin/users", headers=admin)).json()["items"]
    assert [user["username"] for user in users] == ["ada", "admin", "grace"]


async def test_a_provider_names_itself_in_its_answer_when_it_says_that_it_does(provider_on_both, admin):
    provider = provider_on_both
    await add_upstream(provider, admin, makes_accounts=True)
    liar = speak_to(provider, Liar(metadata={"authorization_response_iss_parameter_supported": True}))
    assert (await journey(provider, liar)).status_code == 502
    assert (await journey(provider, liar, iss="https://evil.test")).status_code == 502
    assert "Your account" in (await journey(provider, liar, iss=ELSEWHERE)).text


async def test_a_refusal_there_is_told_here(provider_on_both, admin):
    provider = provider_on_both
    speak_to(provider, Liar())
    await add_upstream(provider, admin)
    browser = await provider.browser()
    page = await come_back(browser, await leave(browser), error="access_denied", error_description="<b>no</b>")
    assert page.status_code == 403
    assert "It was cancelled, or refused there." in page.text
    assert "<b>" not in page.text


async def test_a_provider_that_hangs_or_floods_is_given_up(provider_on_both, admin, monkeypatch, subtests):
    provider = provider_on_both
    monkeypatch.setattr(upstream_http, "TIMEOUT_SECONDS", 0.2)
    let_go = asyncio.Event()

    async def hang(reader, writer):
        await let_go.wait()
        writer.close()

    async def flood(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b" " * 300_000)
        await let_go.wait()
        writer.close()

    for behave in (hang, flood):
        with subtests.test(behave.__name__):
            server = await asyncio.start_server(behave, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            issuer = f"http://127.0.0.1:{port}"
            await add_upstream(provider, admin, id=behave.__name__, issuer=issuer)
            answer = await provider.http.get(f"/login/upstream/{behave.__name__}")
            assert answer.status_code == 502
            assert "Try again later" in answer.text
            server.close()
    let_go.set()


async def test_a_provider_that_sends_us_elsewhere_is_not_followed(provider_on_both, admin):
    provider, asked = provider_on_both, []

    async def send_on(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).partition(b" HTTP")[0])
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(send_on, "127.0.0.1", 0)
    async with server:
        issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await add_upstream(provider, admin, issuer=issuer)
        assert (await provider.http.get("/login/upstream/example")).status_code == 502
    assert asked == [b"GET /.well-known/openid-configuration"]


async def test_addresses_inside_are_not_asked(subtests):
    for networks, url in (
        ((), "http://127.0.0.1:1/"),
        ((), "https://127.0.0.1:1/"),
        ((), "https://169.254.169.254/latest/meta-data"),
        ((), "https://10.0.0.1/"),
        ((), "https://[::1]/"),
        ((), "https://user@id.example/"),
        (("10.0.0.0/8",), "http://10.0.0.1/"),
        (("127.0.0.0/8", "::1/128"), "https://10.0.0.1/"),
    ):
        with subtests.test(url=url, networks=networks):
            async with CheckedHttp(Destinations(tuple(map(ip_network, networks)))) as http:
                with pytest.raises(httpx.ConnectError) as refused:
                    await UpstreamClient(http, SystemClock())._http.get(url)
            assert type(refused.value.__cause__).__name__ == "DestinationRefused"


async def test_a_wrong_upstream_is_refused_by_field(provider_on_both, admin, subtests):
    provider = provider_on_both
    await add_upstream(provider, admin)
    for changes, pointer in (
        ({}, "/id"),
        ({"id": "another"}, "/issuer"),
        ({"id": "UPPER", "issuer": "https://new.example"}, "/id"),
        ({"id": "new", "issuer": "http://new.example"}, "/issuer"),
        ({"id": "new", "issuer": "https://u@new.example"}, "/issuer"),
        ({"id": "new", "issuer": "https://new.example?x=1"}, "/issuer"),
        ({"id": "new", "issuer": "javascript:alert(1)"}, "/issuer"),
        ({"id": "new", "issuer": "https://new.example", "scopes": "email"}, "/scopes"),
        ({"id": "new", "issuer": "https://new.example", "surprise": 1}, "/surprise"),
    ):
        with subtests.test(changes=changes):
            refused = await provider.http.post("/v1/admin/upstreams", json=BODY | changes, headers=admin)
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["pointer"] == pointer
            assert "their secret" not in refused.text
    assert (await provider.http.post("/v1/admin/upstreams", json=BODY)).status_code == 401


async def test_the_secret_is_encrypted_and_never_shown_and_an_upstream_can_go(provider_on_both, admin):
    provider = provider_on_both
    speak_to(provider, Liar())
    made = await add_upstream(provider, admin)
    assert made["redirect_uri"] == f"{ISSUER}/login/upstream/example/callback"
    listed = await provider.http.get("/v1/admin/upstreams", headers=admin)
    assert "their secret" not in listed.text
    rows = await provider.service.database.read(lambda connection: connection.execute(select(upstreams)).all())
    assert b"their secret" not in bytes(rows[0].sealed)
    await leave(await provider.browser())
    assert (await provider.http.delete("/v1/admin/upstreams/example", headers=admin)).status_code == 204
    assert (await provider.http.delete("/v1/admin/upstreams/example", headers=admin)).status_code == 404
    left = await provider.service.database.read(lambda connection: connection.execute(select(upstream_sign_ins)).all())
    assert left == []
    assert "Sign in with" not in (await (await provider.browser()).open("/login")).text


class RealBrowser:
    """A person's browser at the other instance."""

    def __init__(self, settings):
        self.settings = settings
        self.http = httpx.Client(base_url=settings.auth_url, headers={"origin": settings.auth_url})

    def sign_in(self, url, username="admin"):
        """Sign in on the way to a client; returns where the browser is sent with the answer."""
        page = self.http.get(url, follow_redirects=True)
        fields = {name: page.text.split(f'name="{name}" value="')[1].split('"')[0] for name in ("csrf", "next")}
        fields["next"] = fields["next"].replace("&amp;", "&")
        answer = self.http.post("/login", data=fields | {"username": username, "password": PASSWORD})
        while answer.headers["location"].startswith("/"):
            answer = self.http.get(answer.headers["location"])
            if answer.status_code == 200:  # the consent
                answer = self._allow(answer)
        return answer.headers["location"]

    def _allow(self, page):
        names = ("csrf", "request", "scope")
        fields = {name: page.text.split(f'name="{name}" value="')[1].split('"')[0] for name in names}
        fields["request"] = fields["request"].replace("&amp;", "&")
        return self.http.post("/consent", data=fields | {"decision": "allow"})


async def test_a_second_instance_of_this_service_signs_people_in(tmp_path, sqlite_url, run_provider, serve):
    with serve() as elsewhere:
        async with run_provider(tmp_path / "here", sqlite_url) as provider:
            there = RealBrowser(elsewhere)
            redirect_uri = f"{ISSUER}/login/upstream/second/callback"
            await make_friends(provider, there, redirect_uri)
            browser = await provider.browser()
            away = await browser.http.get("/login/upstream/second")
            location = there.sign_in(away.headers["location"])
            assert location.startswith(redirect_uri)
            page = await browser.open(location.removeprefix(ISSUER))
            assert "Your account" in page.text
            assert "admin2" in page.text, "the administrator there is nobody here"
            there.http.close()


async def test_a_second_instance_sends_somebody_who_has_an_account_here(tmp_path, sqlite_url, run_provider, serve):
    with serve() as elsewhere:
        async with run_provider(tmp_path / "here", sqlite_url) as provider:
            there = RealBrowser(elsewhere)
            redirect_uri = f"{ISSUER}/login/upstream/second/callback"
            await make_friends(provider, there, redirect_uri)
            hopper = await provider.add_user("hopper", email="grace@navy.test")
            for proven in (False, True):
                browser = await provider.browser()
                away = await browser.http.get("/login/upstream/second")
                there.http.cookies.clear()
                page = await browser.open(there.sign_in(away.headers["location"], "grace").removeprefix(ISSUER))
                assert ("You have an account here already" in page.text) is not proven
                if not proven:
                    await browser.submit(username="hopper", password=PASSWORD)
                    page = await browser.submit()
                assert "hopper" in page.text
            assert await linked(provider, hopper) == {elsewhere.auth_url}
            there.http.close()


async def test_a_second_instance_has_people_sign_in_anew_where_that_is_asked_for(
    tmp_path, sqlite_url, run_provider, serve
):
    with serve() as elsewhere:
        async with run_provider(tmp_path / "here", sqlite_url) as provider:
            there = RealBrowser(elsewhere)
            await make_friends(provider, there, f"{ISSUER}/login/upstream/second/callback")
            browser = await provider.browser()
            page = await provider.authorize(browser, prompt="login")
            link = html.unescape(page.text.split('href="/login/upstream/')[1].split('"')[0])
            away = (await browser.http.get(f"/login/upstream/{link}")).headers["location"]
            assert "code" in provider.answer(await browser.open(there.sign_in(away).removeprefix(ISSUER)))
            path = elsewhere.auth_database_url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(path, timeout=30)) as database, database:
                database.execute("UPDATE sessions SET authenticated_at = authenticated_at - 3600000000")
            for is_taken_off in (True, False):
                other = await provider.browser()
                away = (await other.http.get(f"/login/upstream/{link}")).headers["location"]
                if is_taken_off:
                    address, _, query = away.partition("?")
                    kept = [pair for pair in parse_qsl(query) if pair[0] not in ("prompt", "max_age")]
                    back = there.http.get(f"{address}?{urlencode(kept)}").headers["location"]
                    page = await other.open(back.removeprefix(ISSUER))
                    assert (page.status_code, "Second did not say that" in page.text) == (403, True)
                else:
                    assert there.http.get(away).headers["location"].startswith("/login"), "they are signed in there"
                    assert "code" in provider.answer(await other.open(there.sign_in(away).removeprefix(ISSUER)))
            there.http.close()


async def make_friends(provider, there, redirect_uri):
    """Let each instance know the other, as their administrators would; grace has proven her address there."""
    settings, hasher = there.settings, PasswordHasher(memory_cost=64, time_cost=1, parallelism=1)
    headers = await administer(there)
    body = {"id": "us", "name": "The first instance", "redirect_uris": [redirect_uri]}
    body["scopes"] = ["openid", "profile", "email"]
    made = there.http.post("/v1/admin/clients", json=body, headers=headers)
    assert made.status_code == 201, made.text
    grace = {"username": "grace", "email": "grace@navy.test", "email_verified": True}
    document = {"format": "evs-auth", "version": 1, "users": [grace | {"password_hash": hasher.hash(PASSWORD)}]}
    report = there.http.post("/v1/admin/import", json=document, headers=headers)
    assert report.json()["counts"]["created"] == 1, report.text
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    body = {"id": "second", "name": "Second", "issuer": settings.auth_url, "makes_accounts": True}
    body |= {"client_id": "us", "client_secret": made.json()["secret"]}
    known = await provider.http.post("/v1/admin/upstreams", json=body, headers=admin)
    assert known.status_code == 201, known.text
    there.http.cookies.clear()


async def administer(there):
    """Sign in at the other instance as its administrator; returns the header that its API wants."""
    settings = there.settings
    gui_secret = first_start.secret_file(settings, "evs-gui").read_text()
    async with OAuthClient(settings.auth_url, "evs-gui", client_secret=gui_secret) as gui:
        audience = f"{settings.auth_url}/v1/admin"
        pending = await gui.begin_authorization(
            redirect_uri=f"{settings.gui_url}/callback", scope="openid admin", resources=[audience]
        )
        answer = dict(parse_qsl(urlsplit(there.sign_in(pending.url)).query))
        tokens = await gui.finish_authorization(pending, answer, resource=audience)
    return {"authorization": f"Bearer {tokens.access_token}"}
