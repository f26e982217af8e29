"""Guesses at one person's password from everywhere: they come to a stop, and keep nobody out of their own browser."""

import pytest
from sqlalchemy import select, update

from auth_svc.people import accounts
from auth_svc.proving import known_browsers
from auth_svc.proving.guesses import MAX_IN_A_ROW
from auth_svc.proving.known_browsers import MOST_PEOPLE, KnownBrowser
from auth_svc.tables import users
from lib_events.sealed import SealingKey
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
WRONG = "The user name or the password is wrong."
KNOWN = "evs-auth-8001-known"


@pytest.fixture
async def ada(provider_on_both):
    """The provider, and a browser in which ada, whose address is proven, has signed in and out again."""
    provider, browser = provider_on_both, await provider_on_both.browser()
    proven = {"email": "ada@home.test", "email_key": "ada@home.test", "email_verified_at": 1}
    await provider.service.database.transact(
        lambda connection: connection.execute(update(users).where(users.c.username == "ada").values(proven))
    )
    await browser.sign_in("ada")
    await browser.submit(action="/account/sign-out")
    return provider, browser


async def guessed(provider, wrong):
    """As many wrong passwords came for ada before."""
    await provider.service.database.transact(
        lambda connection: connection.execute(update(users).values(wrong_passwords=wrong))
    )


async def counted(provider):
    query = select(users.c.wrong_passwords).where(users.c.username == "ada")
    return await provider.service.database.read(lambda connection: connection.scalar(query))


async def elsewhere(provider, number=1):
    """A browser in another network."""
    browser = await provider.browser()
    browser.http._transport.client = (f"192.0.2.{number}", 50_000)
    return browser


async def test_guesses_from_many_networks_come_to_a_stop(ada):
    provider, _ = ada
    for number in range(MAX_IN_A_ROW):
        guess = await (await elsewhere(provider, number)).sign_in("ada", "guess")
        assert (guess.status_code, WRONG in guess.text) == (401, True)
    assert await counted(provider) == MAX_IN_A_ROW
    right = await (await elsewhere(provider, 250)).sign_in("ada")
    assert (right.status_code, WRONG in right.text) == (401, True), "the right one looks like any other"
    assert await counted(provider) == MAX_IN_A_ROW
    told = await wait_until(lambda: provider.events("evs.user.factor-stopped"))
    assert [event.data["factor"] for event in told] == ["password"]
    assert "100 wrong passwords in a row" in await provider.mailbox.receive("wrong-passwords")
    assert provider.mailbox.unread("wrong-passwords") == []


async def test_they_keep_nobody_out_of_a_browser_of_theirs_and_its_sign_in_starts_over(ada):
    provider, browser = ada
    await guessed(provider, MAX_IN_A_ROW)
    assert "Your account" in (await browser.sign_in("ada")).text
    assert await counted(provider) == 0
    assert "Your account" in (await (await elsewhere(provider)).sign_in("ada")).text


async def test_a_new_password_lets_in_and_its_browser_is_known(ada):
    provider, _ = ada
    await guessed(provider, MAX_IN_A_ROW)
    browser = await elsewhere(provider)
    await browser.open("/recover")
    await browser.submit(wanted="ada")
    provider.service.recovery_desk.wake()
    await browser.open(await provider.mailbox.link("recover"))
    await browser.submit(new_password="a long enough password")
    assert await counted(provider) == 0
    await guessed(provider, MAX_IN_A_ROW)
    assert "Your account" in (await browser.sign_in("ada", "a long enough password")).text


async def test_wrong_passwords_in_a_known_browser_count_there_alone_until_they_are_many(ada, subtests):
    provider, browser = ada
    for number in range(20):
        browser.http._transport.client = (f"192.0.2.{number}", 50_000)
        await browser.sign_in("ada", "guess")
    assert await counted(provider) == 0
    await browser.sign_in("ada", "guess")
    assert await counted(provider) == 1, "whoever has stolen its cookie is one of many now"
    await guessed(provider, MAX_IN_A_ROW)
    assert (await browser.sign_in("ada")).status_code == 401


async def test_a_guess_that_was_on_its_way_when_they_came_to_a_stop_is_none(ada, monkeypatch):
    provider, _ = ada
    verify = provider.service.passwords.verify

    async def verify_meanwhile(password, kept):
        await guessed(provider, MAX_IN_A_ROW)
        return await verify(password, kept)

    monkeypatch.setattr(provider.service.passwords, "verify", verify_meanwhile)
    refused = await (await elsewhere(provider)).sign_in("ada")
    assert (refused.status_code, WRONG in refused.text) == (401, True)


async def test_a_browser_is_known_for_whoever_signed_in_with_it_alone(ada, subtests):
    provider, _ = ada
    await provider.add_user("mallory")
    mallory = await elsewhere(provider)
    await mallory.sign_in("mallory")
    await guessed(provider, MAX_IN_A_ROW)
    with subtests.test("somebody else"):
        assert (await mallory.sign_in("ada")).status_code == 401
    for forged in ("", "x", "%", "a" * 3_000, "bm90aGluZw==", mallory.http.cookies[KNOWN][:-8] + "AAAAAAA="):
        with subtests.test(forged[:20]):
            browser = await elsewhere(provider, 2)
            browser.http.cookies.set(KNOWN, forged)
            assert (await browser.sign_in("ada")).status_code == 401
            provider.service.limits.sign_ins.succeeded("ada", "192.0.2.2")


async def test_whoever_proved_the_password_alone_is_not_known_yet(provider):
    browser = await provider.browser()
    await browser.sign_in("ada")
    secret = await browser.set_up_app()
    other = await provider.browser()
    await other.sign_in("ada")
    assert KNOWN not in other.http.cookies
    await other.submit(code=provider.code_of_app(secret))
    assert KNOWN in other.http.cookies


async def test_a_session_guesses_the_current_password_so_often_and_no_more(provider):
    browser = await provider.browser()
    await browser.sign_in("ada")
    statuses = []
    for number in range(21):
        browser.http._transport.client = (f"192.0.2.{number}", 50_000)
        await browser.open("/account")
        values = {"current_password": "guess", "new_password": "a long enough password"}
        statuses.append((await browser.submit(action="/account/password", **values)).status_code)
    assert statuses == [422] * 20 + [429]


async def test_a_name_that_is_nobodys_is_answered_alike(provider):
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    assert ada.wrong_passwords == 0
    pages = [await (await elsewhere(provider, 3)).sign_in(name, "guess") for name in ("ada", "nobody")]
    assert {page.status_code for page in pages} == {401}


async def test_a_browser_from_before_the_password_was_changed_is_no_better_than_any(ada):
    provider, thief = ada
    owner = await elsewhere(provider)
    await owner.sign_in("ada")
    fresh = "a long enough password"
    await owner.submit(action="/account/password", current_password=PASSWORD, new_password=fresh)
    await thief.sign_in("ada", "guess")
    assert await counted(provider) == 1
    await guessed(provider, MAX_IN_A_ROW)
    await owner.submit(action="/account/sign-out")
    assert "Your account" in (await owner.sign_in("ada", fresh)).text


def test_a_browser_remembers_the_latest_people_for_half_a_year():
    key, browser = SealingKey(SealingKey.generate()), KnownBrowser("one")
    for number in range(MOST_PEOPLE + 1):
        browser = browser.with_person(f"user{number}", number)
    browser = browser.with_person("user3", 10)
    assert [user for user, _ in browser.people] == ["user3", "user5", "user4", "user2", "user1"]
    cookie = known_browsers.write(browser, key)
    assert known_browsers.read(cookie, key) == browser
    assert browser.knows("user3", since=10, now=10)
    assert not browser.knows("user3", since=11, now=11)
    assert not browser.knows("user3", since=0, now=known_browsers.LIFETIME_SECONDS * 1_000_000 + 11)
    assert known_browsers.read(cookie, SealingKey(SealingKey.generate())).people == ()
