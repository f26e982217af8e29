"""The sign-in page and the account: passwords, limits, cookies, and forms that came from somewhere else."""

import asyncio
from contextlib import suppress

import httpx
import pytest

from auth_svc.people import accounts, sessions
from auth_svc.rate_limits import MAX_KEYS, Attempts, Limit, SignInLimits, TooManyAttempts, network_of
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
ISSUER = "http://127.0.0.1:8001"


async def test_signing_in_leads_to_the_account_and_is_told(provider_on_both):
    provider = provider_on_both
    browser = await provider.browser()
    page = await browser.sign_in("ada")
    assert "Your account" in page.text
    assert "ada" in page.text
    started = await wait_until(lambda: provider.events("evs.session.started"))
    assert started[0].subject == started[0].data["session"]


async def test_user_names_are_one_however_they_are_written(provider):
    assert "Your account" in (await (await provider.browser()).sign_in(" ADA ")).text


@pytest.mark.parametrize(("username", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("", ""), ("ada", "")])
async def test_a_wrong_password_and_an_unknown_user_look_the_same(provider, username, password):
    page = await (await provider.browser()).sign_in(username, password)
    assert page.status_code == 401
    assert "The user name or the password is wrong." in page.text
    assert "set-cookie" not in page.headers or "guest" in page.headers["set-cookie"]


async def test_a_password_is_the_same_however_its_letters_are_composed(provider):
    composed, decomposed = "caf\u00e9 au lait s'il vous plait", "cafe\u0301 au lait s'il vous plait"
    kept = await provider.service.passwords.hash(composed)
    assert await provider.service.passwords.verify(decomposed, kept)


async def test_events_say_who_caused_them(provider):
    tokens = await provider.tokens()
    user = (await provider.introspect(tokens["access_token"]))["sub"]
    issued = (await wait_until(lambda: provider.events("evs.token.issued")))[-1]
    started = (await wait_until(lambda: provider.events("evs.session.started")))[-1]
    assert issued.extensions["principal"] == started.extensions["principal"] == user
    await provider.post("/oauth2/revoke", {"token": tokens["access_token"]}, provider.gui())
    revoked = (await wait_until(lambda: provider.events("evs.token.revoked")))[-1]
    assert revoked.extensions["principal"] == "evs-gui"


async def test_a_disabled_user_cannot_sign_in_and_is_signed_out_everywhere(provider_on_both):
    provider = provider_on_both
    browser = await provider.browser()
    await provider.sign_in_for_code(browser=browser)
    tokens = await provider.tokens()
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    assert (await provider.http.post("/v1/admin/users/ada/disable", headers=admin)).json()["enabled"] is False
    assert "Sign in" in (await browser.open("/account")).text
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await (await provider.browser()).sign_in("ada")).status_code == 401
    await provider.http.post("/v1/admin/users/ada/enable", headers=admin)
    assert "Your account" in (await (await provider.browser()).sign_in("ada")).text
    assert await wait_until(lambda: provider.events("evs.user.disabled"))
    assert await wait_until(lambda: provider.events("evs.user.enabled"))


async def test_guessing_is_slowed_down_for_the_guesser_only(provider):
    guesser, owner = await provider.browser(), await provider.browser()
    for _ in range(8):
        assert (await guesser.sign_in("ada", "guess")).status_code == 401
    refused = await guesser.sign_in("ada", "guess")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    owner.http._transport.client = ("192.0.2.7", 50_000)
    assert "Your account" in (await owner.sign_in("ada")).text


def test_an_address_that_tries_many_users_is_slowed_down():
    now = 0.0
    limits = SignInLimits(clock=lambda: now)
    for number in range(60):
        limits.begin("own", "192.0.2.1")
        limits.succeeded("own", "192.0.2.1")  # who can sign in to an account of theirs may try no others the more
        limits.begin(f"user{number}", "192.0.2.1")
    with pytest.raises(Exception, match="too many attempts"):
        limits.begin("another", "192.0.2.1")
    limits.begin("another", "192.0.2.2")
    now = 301.0
    limits.begin("another", "192.0.2.1")


def test_attempts_are_kept_in_bounded_memory():
    attempts = Attempts(Limit(1, 300), max_keys=100)
    for number in range(1000):
        attempts.begin(str(number))
    assert len(attempts._recent) == 100
    attempts = Attempts(Limit(2, 300), max_keys=2)
    assert [attempts.may(key) for key in ("a", "b", "a", "c", "a")] == [True, True, True, True, False]
    assert [attempts.may("b"), attempts.may("b")] == [True, True], "the longest unused was forgotten"


def test_whoever_is_stopped_makes_nobody_be_forgotten():
    limits = SignInLimits()
    for _ in range(8):
        limits.begin("ada", "192.0.2.2")
    for number in range(MAX_KEYS):
        with suppress(TooManyAttempts):
            limits.begin(f"user{number}", "192.0.2.1")
    for _ in range(60):
        with pytest.raises(TooManyAttempts):
            limits.begin("ada", "192.0.2.2")
    limits.begin("grace", "192.0.2.2")  # of somebody else there it is no attempt


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("unknown", "unknown"),
    ],
)
def test_a_guesser_with_an_ipv6_network_is_one_guesser(address, network):
    assert network_of(address) == network


async def test_a_password_that_was_replaced_while_it_was_checked_signs_nobody_in(provider_on_both, monkeypatch):
    provider = provider_on_both
    service = provider.service
    browser, ada = await provider.browser(), await service.database.read(accounts.find_by_username, "ada")
    fresh = await service.passwords.hash("a long enough password")
    verify = service.passwords.verify

    async def verify_while_it_is_replaced(password, kept):
        right = await verify(password, kept)
        await service.database.transact(accounts.set_password, ada.id, fresh, provider.actor())
        return right

    await browser.open("/login")
    with monkeypatch.context() as patched:
        patched.setattr(service.passwords, "verify", verify_while_it_is_replaced)
        assert (await browser.submit(username="ada", password=PASSWORD)).status_code == 403
    assert "Sign in" in (await browser.open("/account")).text
    assert "Your account" in (await browser.sign_in("ada", "a long enough password")).text


async def test_an_account_that_was_disabled_while_its_password_was_checked_lets_nobody_in(
    provider_on_both, monkeypatch
):
    provider = provider_on_both
    service = provider.service
    browser, ada = await provider.browser(), await service.database.read(accounts.find_by_username, "ada")
    verify = service.passwords.verify

    async def verify_while_it_is_disabled(password, kept):
        right = await verify(password, kept)
        await service.database.transact(accounts.disable, ada.id, provider.actor())
        return right

    await browser.open("/login")
    with monkeypatch.context() as patched:
        patched.setattr(service.passwords, "verify", verify_while_it_is_disabled)
        assert (await browser.submit(username="ada", password=PASSWORD)).status_code == 403
    await service.database.transact(accounts.enable, ada.id, provider.actor())
    assert "Sign in" in (await browser.open("/account")).text, "nothing waited for the day they are let in again"


async def test_a_session_that_ended_meanwhile_sets_no_password(provider_on_both, monkeypatch):
    provider = provider_on_both
    service = provider.service
    browser = await provider.browser()
    await browser.sign_in("ada")
    ada = await service.database.read(accounts.find_by_username, "ada")
    hashed = service.passwords.hash

    async def hash_while_signed_out(password, **options):
        await service.database.transact(sessions.end_all_of_user, ada.id, "test", service.clock.micros())
        return await hashed(password, **options)

    with monkeypatch.context() as patched:
        patched.setattr(service.passwords, "hash", hash_while_signed_out)
        page = await browser.submit(form=-2, current_password=PASSWORD, new_password="a long enough password")
    assert "Sign in" in page.text
    assert "Your account" in (await browser.sign_in("ada")).text


async def test_a_new_password_that_is_too_short_is_no_wrong_guess(provider):
    browser = await provider.browser()
    await browser.sign_in("ada")
    for _ in range(10):
        await browser.open("/account")
        page = await browser.submit(form=-2, current_password=PASSWORD, new_password="short")
        assert page.status_code == 422


def test_a_trusted_proxy_says_where_a_request_comes_from(serve):
    with (
        serve(EVS_TRUSTED_PROXIES="127.0.0.1") as server,
        httpx.Client(
            base_url=server.auth_url, headers={"x-forwarded-for": "203.0.113.9", "origin": server.auth_url}
        ) as http,
    ):
        csrf = http.get("/login").text.split('name="csrf" value="')[1].split('"')[0]
        http.post("/login", data={"username": "admin", "password": PASSWORD, "csrf": csrf})
        assert "203.0.113.9" in http.get("/account/sessions").text


def test_nobody_else_says_where_a_request_comes_from(server):
    with httpx.Client(base_url=server.auth_url, headers={"x-forwarded-for": "203.0.113.9"}) as http:
        csrf = http.get("/login").text.split('name="csrf" value="')[1].split('"')[0]
        http.post(
            "/login",
            data={"username": "admin", "password": PASSWORD, "csrf": csrf},
            headers={"origin": server.auth_url},
        )
        assert "127.0.0.1" in http.get("/account/sessions").text


async def test_when_the_hashing_pool_is_full_the_answer_is_503_with_retry_after(provider):
    passwords = provider.service.passwords
    browser = await provider.browser()
    await browser.open("/login")
    passwords._pending = passwords._limit
    refused = await browser.submit(username="ada", password=PASSWORD)
    passwords._pending = 0
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "2"
    assert "Traceback" not in refused.text


@pytest.mark.parametrize("origin", [None, "null", "http://evil.test", "http://localhost:8001", "http://127.0.0.1:8000"])
async def test_a_form_from_elsewhere_is_refused(provider, origin):
    browser = await provider.browser()
    await browser.open("/login")
    assert (await browser.submit(origin=origin, username="ada", password=PASSWORD)).status_code == 403


async def test_a_form_without_this_browsers_token_is_refused(provider):
    stranger, browser = await provider.browser(), await provider.browser()
    await stranger.open("/login")
    await browser.open("/login")
    browser.page = stranger.page
    assert (await browser.submit(username="ada", password=PASSWORD)).status_code == 403
    await browser.open("/login")
    assert (await browser.submit(csrf="", username="ada", password=PASSWORD)).status_code == 403


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.test/",
        "//evil.test/oauth2/authorize",
        "/\\evil.test",
        "javascript:alert(1)",
        "/v1/admin",
        "/login",
    ],
)
async def test_a_sign_in_leads_to_our_own_pages_only(provider, wanted):
    browser = await provider.browser()
    await browser.open("/login")
    answer = await browser.http.post(
        "/login",
        data={"username": "ada", "password": PASSWORD, "next": wanted, "csrf": csrf_of(browser)},
        headers={"origin": ISSUER},
    )
    assert answer.headers["location"] == "/account"


def csrf_of(browser):
    return browser.page.text.split('name="csrf" value="')[1].split('"')[0]


async def test_a_sign_in_replaces_the_session_it_finds(provider):
    browser = await provider.browser()
    await browser.sign_in("ada")
    first = dict(browser.http.cookies)
    await browser.open("/login")
    await browser.submit(username="ada", password=PASSWORD)
    assert dict(browser.http.cookies) != first
    browser.http.cookies.clear()
    for name, value in first.items():
        browser.http.cookies.set(name, value)
    assert "Sign in" in (await browser.open("/account")).text


async def test_cookies_and_headers_protect_the_pages(provider):
    browser = await provider.browser()
    page = await browser.open("/login")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "form-action 'self'" in policy
    assert page.headers["referrer-policy"] == "same-origin"
    assert "<script" not in page.text
    answer = await browser.http.post(
        "/login",
        data={"username": "ada", "password": PASSWORD, "csrf": csrf_of(browser)},
        headers={"origin": ISSUER},
    )
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("evs-auth-8001="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


async def test_the_sign_in_page_may_lead_to_the_validated_client_only(provider):
    browser = await provider.browser()
    page = await provider.authorize(browser)
    assert page.headers["content-security-policy"].endswith("form-action 'self' http://127.0.0.1:8000")
    page = await browser.open(
        "/login?next=%2Foauth2%2Fauthorize%3Fclient_id%3Devs-gui%26redirect_uri%3Dhttps://evil.test"
    )
    assert page.headers["content-security-policy"].endswith("form-action 'self'")


async def test_a_host_that_is_not_ours_is_misdirected(provider):
    for host in ("evil.test", "localhost:8001", "127.0.0.1:8002"):
        assert (await provider.http.get("/login", headers={"host": host})).status_code == 421


async def test_only_discovery_and_keys_may_be_read_from_other_origins(provider):
    for path in ("/.well-known/openid-configuration", "/oauth2/jwks"):
        assert (await provider.http.get(path)).headers["access-control-allow-origin"] == "*"
    for path in ("/login", "/oauth2/authorize", "/oauth2/userinfo", "/v1/revocations", "/account"):
        answer = await provider.http.get(path, headers={"origin": "http://evil.test"})
        assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_origins_that_are_named_ask_for_tokens_themselves(run_provider, tmp_path, sqlite_url):
    """A client that is a page and has no server (OAuth 2.1 section 3.1): never where a cookie says who somebody is."""
    page = {"origin": "https://page.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,dpop"}
    async with run_provider(tmp_path, sqlite_url, cors_origins=["https://page.example"]) as provider:
        for path in ("/oauth2/token", "/oauth2/par", "/oauth2/revoke", "/oauth2/userinfo"):
            allowed = await provider.http.options(path, headers=page | asked)
            assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, page["origin"])
            answer = await provider.http.post(path, headers=page)
            assert answer.headers["access-control-allow-origin"] == page["origin"]
            assert "DPoP-Nonce" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers
            other = await provider.http.post(path, headers={"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers
        for path in (
            "/oauth2/authorize",
            "/login",
            "/account",
            "/oauth2/logout",
            "/oauth2/introspect",
            "/v1/admin/users",
        ):
            for method in ("OPTIONS", "GET", "POST"):
                answer = await provider.http.request(method, path, headers=page | asked)
                assert "access-control-allow-origin" not in answer.headers


async def test_changing_the_password_ends_every_other_sign_in(provider_on_both):
    provider = provider_on_both
    browser, other = await provider.browser(), await provider.browser()
    await browser.sign_in("ada")
    await other.sign_in("ada")
    tokens = await provider.tokens()
    await browser.open("/account")
    wrong = await browser.submit(form=2, current_password="wrong", new_password="a long enough password")
    assert wrong.status_code == 422
    short = await browser.submit(form=2, current_password=PASSWORD, new_password="short")
    assert "at least 12 characters" in short.text
    done = await browser.submit(form=2, current_password=PASSWORD, new_password="a long enough password")
    assert "The password is changed." in done.text
    assert "Your account" in (await browser.open("/account")).text
    assert "Sign in" in (await other.open("/account")).text
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert "Your account" in (await (await provider.browser()).sign_in("ada", "a long enough password")).text
    assert await wait_until(lambda: provider.events("evs.user.password-changed"))


async def test_another_browser_can_be_signed_out_and_nobody_elses(provider):
    await provider.add_user("grace")
    browser, other, grace = [await provider.browser() for _ in range(3)]
    await browser.sign_in("ada")
    await other.sign_in("ada")
    await grace.sign_in("grace")
    graces = (await provider.events("evs.session.started") or await wait_for_sessions(provider, 3))[-1]
    await browser.open("/account/sessions")
    await browser.submit(form=0, session=graces.data["session"])
    assert "Your account" in (await grace.open("/account")).text
    await browser.open("/account/sessions")
    await browser.submit(form=0)
    assert "Sign in" in (await other.open("/account")).text
    assert "Your account" in (await browser.open("/account")).text


async def wait_for_sessions(provider, count):
    async def enough():
        found = await provider.events("evs.session.started")
        return found if len(found) >= count else None

    return await wait_until(enough)


async def test_many_sign_ins_at_once_all_end_well(provider):
    browsers = [await provider.browser() for _ in range(8)]
    pages = await asyncio.gather(*(browser.sign_in("ada") for browser in browsers))
    assert all("Your account" in page.text for page in pages)
