"""A sign-in with another provider is as old as that provider says, and new only if it says so."""

import base64
import html
import json
import re
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from lying_provider import BODY, Liar, come_back, leave, speak_to
from sqlalchemy import select

from auth_svc.proving.assurance import UNTOLD
from auth_svc.tables import sessions
from auth_svc.upstreams import freshness

DAY = 86_400
MICROS = 1_000_000
SECURITY = "/account/security"
NOT_NEW = "Example did not say that you have signed in there just now"
NO_MOMENTS = (None, "now", True, -1, 0, 10**15, [1])  # what a provider may say that is no moment


@pytest.fixture
async def liar(provider_on_both):
    """A provider whose people get accounts here."""
    admin = {"authorization": f"Bearer {await provider_on_both.admin_token()}"}
    made = await provider_on_both.http.post("/v1/admin/upstreams", json=BODY | {"makes_accounts": True}, headers=admin)
    assert made.status_code == 201, made.text
    return speak_to(provider_on_both, Liar())


def says(liar, auth_time):
    liar.lies["claims"] = {"auth_time": auth_time}


async def go_there(browser, page):
    """Go to the other provider by the link of a page; returns what it is asked."""
    found = re.search(r'href="(/login/upstream/example[^"]*)"', page.text)
    assert found is not None, page.text
    answer = await browser.http.get(html.unescape(found[1]))
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


async def go_and_come_back(browser, page, liar):
    asked = await go_there(browser, page)
    liar.nonce = asked["nonce"]
    return await come_back(browser, asked)


async def sign_in(provider, browser, liar, **values):
    return await go_and_come_back(browser, await provider.authorize(browser, **values), liar)


async def push(provider, **values):
    pushed = await provider.post("/oauth2/par", provider.request(**values), provider.gui())
    return f"/oauth2/authorize?{urlencode({'client_id': 'evs-gui', 'request_uri': pushed.json()['request_uri']})}"


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


async def sessions_of(provider, name):
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    return (await provider.http.get(f"/v1/admin/users/{name}/sessions", headers=headers)).json()["items"]


async def test_tokens_say_when_somebody_signed_in_at_the_other_provider(provider_on_both, liar):
    provider, browser, yesterday = provider_on_both, await provider_on_both.browser(), int(time.time()) - DAY
    says(liar, yesterday)
    answer = provider.answer(await sign_in(provider, browser, liar))
    tokens = (await provider.redeem(answer["code"])).json()
    refreshed = (await provider.refresh(tokens["refresh_token"])).json()
    for said in (
        claims_of(tokens["id_token"]),
        claims_of(tokens["access_token"]),
        claims_of(refreshed["access_token"]),
        await provider.introspect(tokens["access_token"]),
    ):
        assert (said["auth_time"], said["acr"], said["amr"]) == (yesterday, "urn:evs:acr:1", ["fed"])
    shown = (await sessions_of(provider, "grace"))[0]
    assert (shown["authenticated_at"] < shown["started_at"]) is True


async def test_what_the_other_provider_does_not_say_is_said_by_nobody(provider_on_both, liar, subtests):
    provider = provider_on_both
    for said in NO_MOMENTS:
        with subtests.test(said=said):
            says(liar, said)
            browser = await provider.browser()
            tokens = (await provider.redeem(provider.answer(await sign_in(provider, browser, liar))["code"])).json()
            assert "auth_time" not in claims_of(tokens["id_token"]) | claims_of(tokens["access_token"])
            assert "auth_time" not in await provider.introspect(tokens["access_token"])
            asked = provider.answer(await provider.authorize(browser, prompt="none", max_age="999999999"))
            assert asked["error"] == "login_required"
    assert {shown["authenticated_at"] for shown in await sessions_of(provider, "grace")} == {None}


async def test_the_other_provider_is_asked_for_what_the_application_asks_for(provider_on_both, liar, subtests):
    provider = provider_on_both
    claims = {"claims": '{"id_token": {"auth_time": {"essential": true}}}'}
    anew = claims | {"prompt": "login", "max_age": "120"}
    for values, wanted in (
        ({}, claims | {"max_age": "999999999"}),
        ({"prompt": "login"}, anew),
        ({"prompt": "select_account"}, anew),
        ({"max_age": "0"}, anew),
        ({"max_age": "600"}, anew),
        ({"max_age": "7200"}, claims | {"max_age": "7200"}),
    ):
        with subtests.test(values=values):
            browser = await provider.browser()
            page = await provider.authorize(browser, **values)
            asked = await go_there(browser, page)
            assert {name: asked[name] for name in ("claims", "prompt", "max_age") if name in asked} == wanted
            again = await go_there(browser, await browser.submit(username="ada", password="not that"))
            assert {name: again[name] for name in ("claims", "prompt", "max_age") if name in again} == wanted
            if values:
                page = await browser.open(await push(provider, **values))
                asked = await go_there(browser, page)
                assert {name: asked[name] for name in ("claims", "prompt", "max_age") if name in asked} == wanted


async def test_a_provider_that_has_nobody_sign_in_anew_makes_no_sign_in_new(provider_on_both, liar, subtests):
    provider = provider_on_both
    for values in ({"prompt": "login"}, {"max_age": "60"}, {"max_age": "7200"}):
        for is_pushed in (False, True):
            for said in (None, int(time.time()) - DAY):
                with subtests.test(values=values, is_pushed=is_pushed, said=said):
                    says(liar, said)
                    browser = await provider.browser()
                    url = await push(provider, **values) if is_pushed else None
                    page = await (browser.open(url) if url else provider.authorize(browser, **values))
                    page = await go_and_come_back(browser, page, liar)
                    assert (page.status_code, NOT_NEW in page.text) == (403, True)
                    assert (await browser.open("/account")).url.path == "/login"
                    says(liar, int(time.time()))
                    answer = provider.answer(await go_and_come_back(browser, page, liar))
                    tokens = (await provider.redeem(answer["code"])).json()
                    assert time.time() - claims_of(tokens["id_token"])["auth_time"] < 60


async def test_an_old_sign_in_there_is_new_enough_for_who_asks_for_no_newer_one(provider_on_both, liar):
    provider, browser = provider_on_both, await provider_on_both.browser()
    an_hour_ago = int(time.time()) - 3600
    says(liar, an_hour_ago)
    answer = provider.answer(await sign_in(provider, browser, liar, max_age="7200"))
    assert claims_of((await provider.redeem(answer["code"])).json()["id_token"])["auth_time"] == an_hour_ago
    assert "code" in provider.answer(await provider.authorize(browser, max_age="7200"))
    assert "Sign in with Example" in (await provider.authorize(browser, max_age="1800")).text
    answer = provider.answer(await browser.open(await push(provider, max_age="7200")))
    assert "code" in answer


async def test_who_takes_the_address_apart_brings_back_a_sign_in_that_says_how_old_it_is(provider_on_both, liar):
    provider, browser = provider_on_both, await provider_on_both.browser()
    url = await push(provider, prompt="login")
    await browser.open(url)
    says(liar, int(time.time()) - DAY)
    asked = await leave(browser, target="/account")
    liar.nonce = asked["nonce"]
    assert "Your account" in (await come_back(browser, asked)).text
    assert "Sign in with Example" in (await browser.open(url)).text, "the pushed request waits for a new one"
    says(liar, int(time.time()))
    assert "code" in provider.answer(await go_and_come_back(browser, browser.page, liar))


async def test_a_second_step_here_is_new_whatever_was_before(provider_on_both, liar, subtests):
    provider, browser = provider_on_both, await provider_on_both.browser()
    await sign_in(provider, browser, liar)
    await browser.set_up_app()
    for code, said in zip(browser.recovery_codes(), (None, int(time.time()) - DAY), strict=False):
        with subtests.test(said=said):
            says(liar, said)
            other = await provider.browser()
            page = await sign_in(provider, other, liar, prompt="login")
            assert "One more step" in page.text
            answer = provider.answer(await other.submit(recovery_code=code))
            told = claims_of((await provider.redeem(answer["code"])).json()["id_token"])
            assert (told["amr"], time.time() - told["auth_time"] < 60) == (["fed", "otp", "mfa"], True)


async def test_a_change_of_how_one_signs_in_takes_a_new_sign_in_there(provider_on_both, liar):
    browser = await provider_on_both.browser()
    says(liar, int(time.time()) - DAY)
    asked = await leave(browser)
    liar.nonce = asked["nonce"]
    await come_back(browser, asked)
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/app")
    assert "Confirm that it is you" in page.text
    page = await go_and_come_back(browser, page, liar)
    assert (page.status_code, NOT_NEW in page.text) == (403, True)
    says(liar, int(time.time()))
    page = await go_and_come_back(browser, page, liar)
    assert page.url.path == SECURITY
    assert 'class="secret"' in (await browser.submit(action=f"{SECURITY}/app")).text


async def test_who_has_no_password_here_signs_in_there_anew_for_what_a_password_is_asked_for(provider_on_both, liar):
    browser = await provider_on_both.browser()
    says(liar, int(time.time()) - DAY)
    asked = await leave(browser)
    liar.nonce = asked["nonce"]
    await come_back(browser, asked)
    for path, fields in (("/account", {"email": "grace@home.test"}), ("/account/data", {})):
        await browser.open(path)
        action = "/account/email" if fields else "/account/delete"
        page = await browser.submit(action=action, **fields)
        assert "Confirm that it is you" in page.text
        page = await go_and_come_back(browser, page, liar)
        assert (page.status_code, NOT_NEW in page.text) == (403, True)
    says(liar, int(time.time()))
    assert (await go_and_come_back(browser, page, liar)).url.path == "/account/data"
    assert "Your account is deleted" in (await browser.submit(action="/account/delete")).text


async def test_who_makes_another_account_brings_the_moment_along(provider_on_both, liar):
    provider, browser = provider_on_both, await provider_on_both.browser()
    await provider.add_user("hopper", email="grace@navy.test")
    yesterday = int(time.time()) - DAY
    says(liar, yesterday)
    asked = await leave(browser)
    liar.nonce = asked["nonce"]
    await come_back(browser, asked)
    assert "Your account" in (await browser.submit(action="/login/connect/new")).text
    newest = select(sessions.c.authenticated_at).order_by(sessions.c.expires_at.desc()).limit(1)
    assert await provider.service.database.read(lambda connection: connection.scalar(newest)) == yesterday * MICROS


async def test_a_client_whose_id_tokens_must_say_when_gets_none_that_do_not(provider_on_both, liar):
    provider, browser = provider_on_both, await provider_on_both.browser()
    asked = {"client_id": "strict", "redirect_uri": "https://strict.example/back", "scope": "openid"}
    _, secret = await provider.add_client(
        id="strict",
        name="Strict",
        redirect_uris=(asked["redirect_uri"],),
        scopes=frozenset(("openid",)),
        consent="never",
        details={"require_auth_time": True},
    )
    says(liar, None)
    page = await sign_in(provider, browser, liar, **asked)
    assert (page.status_code, NOT_NEW in page.text) == (403, True)
    says(liar, int(time.time()) - 300 * DAY)
    answer = provider.answer(await go_and_come_back(browser, page, liar))
    form = {"grant_type": "authorization_code", "code": answer["code"], "code_verifier": provider.verifier}
    tokens = (await provider.token(("strict", secret), **form)).json()
    assert claims_of(tokens["id_token"])["auth_time"] == liar.lies["claims"]["auth_time"]


async def test_the_clocks_of_two_providers_may_differ_by_two_minutes(provider_on_both, liar, subtests):
    provider = provider_on_both
    for seconds, status in ((-100, 303), (100, 303), (-130, 403), (130, 502)):
        with subtests.test(seconds=seconds):
            there = int(time.time()) + seconds
            liar.lies["claims"] = {"auth_time": there, "iat": there, "exp": there + 60}
            page = await sign_in(provider, await provider.browser(), liar, prompt="login")
            assert page.status_code == status
            if status == 303:
                tokens = (await provider.redeem(provider.answer(page)["code"])).json()
                assert abs(claims_of(tokens["id_token"])["auth_time"] - time.time()) < 60, "by our clock"


def test_what_happened_after_somebody_left_happened_then():
    left, now = 1_000_000 * MICROS, 1_000_030 * MICROS
    for told, expected in (
        (1_000_010, 1_000_010),
        (1_000_100, 1_000_030),
        (999_900, 1_000_000),
        (999_880, 1_000_000),
        (999_879, 999_879),
        (1_000_150, 1_000_030),
        (1_000_151, UNTOLD),
        (0, UNTOLD),
    ):
        assert freshness.signed_in_at({"auth_time": told}, left, now) == expected * MICROS, told
