"""The second step of a sign-in: authenticator apps, recovery codes, and what must not get anybody past them."""

import asyncio
import base64
import json
from functools import partial

import cbor2
import pyotp
import pytest
from sqlalchemy import select, update

from auth_svc.factors import passkeys
from auth_svc.factors.passkeys import NewPasskey
from auth_svc.people import accounts, sessions
from auth_svc.site import security
from auth_svc.tables import authenticator_apps, users
from auth_svc.tables import sessions as session_rows
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
SECOND = "/login/second"
SECURITY = "/account/security"
KEY = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32)})  # COSE


@pytest.fixture
async def protected(provider_on_both):
    """The provider, the secret of ada's authenticator app, and her recovery codes."""
    browser = await provider_on_both.browser()
    await browser.sign_in("ada")
    secret = await browser.set_up_app()
    codes = browser.recovery_codes()
    assert len(set(codes)) == 10
    return provider_on_both, secret, codes


async def test_an_app_is_asked_for_once_it_is_set_up(protected):
    provider, secret, _ = protected
    browser = await provider.browser()
    page = await browser.sign_in("ada")
    assert "One more step" in page.text
    assert 'autocomplete="one-time-code"' in page.text
    assert "Sign in" in (await browser.open("/account")).text
    await browser.open(SECOND)
    page = await browser.submit(code=provider.code_of_app(secret))
    assert "Your account" in page.text
    added = await wait_until(lambda: provider.events("evs.user.factor-added"))
    assert {event.data["factor"] for event in added} == {"authenticator-app", "recovery-codes"}
    assert secret not in str([event.data for event in added])


async def test_the_sign_in_leads_on_to_where_it_was_going_and_tokens_say_how(protected):
    provider, secret, _ = protected
    browser = await provider.browser()
    await provider.authorize(browser)
    page = await browser.submit(username="ada", password=PASSWORD)
    assert page.headers["content-security-policy"].endswith("form-action 'self' http://127.0.0.1:8000")
    answer = await browser.submit(code=provider.code_of_app(secret))
    tokens = (await provider.redeem(provider.answer(answer)["code"])).json()
    refreshed = (await provider.refresh(tokens["refresh_token"])).json()
    for each in (tokens, refreshed):
        for token in (each["access_token"], each["id_token"]):
            assert claims_of(token)["acr"] == "urn:evs:acr:2"
            assert claims_of(token)["amr"] == ["pwd", "otp", "mfa"]
    introspected = await provider.introspect(refreshed["access_token"])
    assert introspected["acr"] == "urn:evs:acr:2"
    assert introspected["amr"] == ["pwd", "otp", "mfa"]
    assert introspected["auth_time"] == claims_of(tokens["id_token"])["auth_time"]


async def test_a_password_alone_is_one_factor(provider):
    tokens = await provider.tokens()
    assert claims_of(tokens["id_token"])["acr"] == "urn:evs:acr:1"
    assert claims_of(tokens["access_token"])["amr"] == ["pwd"]


async def test_a_code_is_taken_once(protected):
    provider, secret, _ = protected
    first, second = await provider.browser(), await provider.browser()
    code = provider.code_of_app(secret)
    await first.sign_in("ada")
    await second.sign_in("ada")
    assert "Your account" in (await first.submit(code=code)).text
    refused = await second.submit(code=code)
    assert refused.status_code == 401
    assert "That code is wrong" in refused.text
    older = await second.submit(code=pyotp.TOTP(secret).now())
    assert older.status_code == 401, "a code of a step before the last one used"


async def test_a_code_of_a_minute_to_come_is_not_taken(protected, monkeypatch):
    """RFC 6238 section 5.2: one step for clocks that differ, and no more."""
    provider, secret, _ = protected
    now = provider.service.clock.micros()
    monkeypatch.setattr(type(provider.service.clock), "micros", lambda self: now)
    browser = await provider.browser()
    await browser.sign_in("ada")
    refused = await browser.submit(code=pyotp.TOTP(secret).at(now // 1_000_000 + 60))
    assert refused.status_code == 401
    taken = await browser.submit(code=pyotp.TOTP(secret).at(now // 1_000_000 + 30))
    assert "Your account" in taken.text


async def test_a_recovery_code_of_somebody_else_is_no_second_step(protected):
    provider, _, codes = protected
    await provider.add_user("mallory")
    thief = await provider.browser()
    await thief.sign_in("mallory")
    await thief.set_up_app()
    browser = await provider.browser()
    await browser.sign_in("ada")  # by whoever has stolen the password
    assert (await browser.submit(recovery_code=thief.recovery_codes()[0])).status_code == 401
    assert "Your account" in (await browser.submit(recovery_code=codes[0])).text


async def test_a_wrong_code_leads_nowhere_and_five_end_the_sign_in(protected, subtests):
    provider, secret, _ = protected
    browser = await provider.browser()
    await browser.sign_in("ada")
    for code in ("", "12345", "1234567", "abcdef", "\u0661\u0662\u0663\u0664\u0665\u0666"):
        with subtests.test(code=code):
            page = await browser.submit(code=code)
            assert page.status_code == 401
            assert "session" not in str(page.headers.get("set-cookie"))
    over = await browser.http.get(SECOND)
    assert over.headers["location"] == "/login"
    await browser.sign_in("ada")
    assert "Your account" in (await browser.submit(code=provider.code_of_app(secret))).text


async def guessed_before(provider, wrong):
    """As many wrong codes for ada came from elsewhere, and a wrong password; her address is proven."""
    proven = {"email": "ada@home.test", "email_key": "ada@home.test", "email_verified_at": 1, "wrong_passwords": 1}

    def write(connection):
        connection.execute(update(users).where(users.c.username == "ada").values(wrong_codes=wrong, **proven))

    await provider.service.database.transact(write)


async def test_guesses_from_many_networks_stop_the_app(protected):
    provider, secret, codes = protected
    browser = await provider.browser()
    await guessed_before(provider, 99)
    await browser.sign_in("ada")
    page = await browser.submit(code="000000x")
    assert page.status_code == 401
    assert "Too many wrong codes" in page.text
    stopped = await wait_until(lambda: provider.events("evs.user.factor-stopped"))
    assert [event.data["factor"] for event in stopped] == ["authenticator-app"]
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    form, headers = {"csrf": csrf, "code": provider.code_of_app(secret)}, {"origin": browser.origin}
    assert (await browser.http.post(SECOND, data=form, headers=headers)).status_code == 401, "right, and not looked at"
    assert "Your account" in (await browser.submit(recovery_code=codes[0])).text
    again = await provider.browser()
    await again.sign_in("ada")
    assert "Your account" in (await again.submit(code=provider.code_of_app(secret))).text, "it started over"


async def test_guesses_are_told_by_mail(protected):
    provider, _, _ = protected
    browser = await provider.browser()
    await guessed_before(provider, 8)
    await browser.sign_in("ada")
    for _ in range(3):
        await browser.submit(code="")
    assert "has sent 10 wrong codes" in await provider.mailbox.receive("wrong-codes")
    assert provider.mailbox.unread("wrong-codes") == []


async def test_a_new_password_ends_the_stop(protected):
    provider, secret, _ = protected
    await guessed_before(provider, 100)
    headers = await administration(provider)
    password = {"password": "a quite different phrase"}
    changed = await provider.http.post("/v1/admin/users/ada/reset-password", json=password, headers=headers)
    assert changed.is_success, changed.text
    browser = await provider.browser()
    await browser.sign_in("ada", "a quite different phrase")
    assert "Your account" in (await browser.submit(code=provider.code_of_app(secret))).text


async def test_the_second_step_needs_the_first_in_the_same_browser(protected):
    provider, secret, _ = protected
    browser, stranger = await provider.browser(), await provider.browser()
    await browser.sign_in("ada")
    await stranger.open("/login")
    refused = await stranger.submit(
        action="/login", username="ada", password="wrong", code=provider.code_of_app(secret)
    )
    assert refused.status_code == 401
    csrf = {"csrf": stranger.page.text.split('name="csrf" value="')[1].split('"')[0]}
    for form in ({"code": provider.code_of_app(secret)}, {"code": "1", "username": "ada"}, {}):
        answer = await stranger.http.post(SECOND, data=csrf | form, headers={"origin": "http://127.0.0.1:8001"})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    assert "Your account" in (await browser.submit(code=provider.code_of_app(secret))).text, "nothing was used up"


async def test_a_step_that_came_twice_cannot_be_read(protected):
    provider, _, _ = protected
    browser = await provider.browser()
    page = await browser.sign_in("ada")
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    headers = {"origin": "http://127.0.0.1:8001"}
    twice = await browser.http.post(SECOND, data={"csrf": csrf, "code": ["123456", "654321"]}, headers=headers)
    assert twice.status_code == 400
    huge = await browser.http.post(SECOND, data={"csrf": csrf, "code": "1" * 60_000}, headers=headers)
    assert huge.status_code == 401
    elsewhere = await browser.http.post(SECOND, data={"csrf": csrf, "code": "1"}, headers={"origin": "null"})
    assert elsewhere.status_code == 403


async def test_a_recovery_code_lets_in_once_and_is_told(protected):
    provider, _, codes = protected
    first, second = await provider.browser(), await provider.browser()
    await first.sign_in("ada")
    typed = codes[0].lower().replace("-", " ")
    assert "Your account" in (await first.submit(form=1, recovery_code=typed)).text
    assert "9 of 10 left." in (await first.open(SECURITY)).text
    used = await wait_until(lambda: provider.events("evs.user.recovery-code-used"))
    assert used[0].data["left"] == 9
    assert codes[0] not in str(used[0].data)
    await second.sign_in("ada")
    assert (await second.submit(form=1, recovery_code=codes[0])).status_code == 401


async def test_new_recovery_codes_replace_the_old(protected):
    provider, secret, old = protected
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.submit(code=provider.code_of_app(secret))
    await browser.open(SECURITY)
    await browser.submit(action=f"{SECURITY}/recovery-codes")
    new = browser.recovery_codes()
    assert not set(new) & set(old)
    other = await provider.browser()
    await other.sign_in("ada")
    assert (await other.submit(form=1, recovery_code=old[0])).status_code == 401
    assert "Your account" in (await other.submit(form=1, recovery_code=new[0])).text


async def test_of_twenty_who_race_for_one_code_one_wins(protected):
    provider, secret, codes = protected
    browsers = [await provider.browser() for _ in range(20)]
    await asyncio.gather(*(browser.sign_in("ada") for browser in browsers[:8]))
    for start in (8, 16):
        provider.service.limits.sign_ins.succeeded("ada", "127.0.0.1")
        await asyncio.gather(*(browser.sign_in("ada") for browser in browsers[start : start + 8]))
    unlimited(provider)
    for form, value in ((0, {"code": provider.code_of_app(secret)}), (1, {"recovery_code": codes[3]})):
        waiting = [each for each in browsers if "One more step" in each.page.text]
        pages = await asyncio.gather(*(browser.submit(form=form, **value) for browser in waiting))
        assert sorted(page.status_code for page in pages) == [200, *[401] * (len(waiting) - 1)]


async def test_of_twenty_who_race_with_one_sign_in_one_wins(protected):
    provider, _, codes = protected
    browser = await provider.browser()
    page = await browser.sign_in("ada")
    unlimited(provider)
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]

    def post(code):
        form, headers = {"csrf": csrf, "recovery_code": code}, {"origin": "http://127.0.0.1:8001"}
        return browser.http.post(SECOND, data=form, headers=headers)

    answers = await asyncio.gather(*(post(code) for code in codes * 2))
    assert sorted(answer.status_code for answer in answers) == [303, *[401] * 19]
    left = await provider.browser()
    await left.sign_in("ada")
    await left.submit(form=1, recovery_code=codes[([answer.status_code for answer in answers].index(303) + 1) % 10])
    assert "8 of 10 left." in (await left.open(SECURITY)).text, "the losers used nothing up"


async def test_of_twenty_wrong_codes_at_once_five_are_looked_at(protected):
    provider, _, _ = protected
    browser = await provider.browser()
    page = await browser.sign_in("ada")
    unlimited(provider)
    form = {"csrf": page.text.split('name="csrf" value="')[1].split('"')[0], "code": "000000"}
    headers = {"origin": "http://127.0.0.1:8001"}
    answers = await asyncio.gather(*(browser.http.post(SECOND, data=form, headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {401}
    assert sum("That code is wrong" in answer.text for answer in answers) == 5


async def test_a_password_that_was_changed_meanwhile_ends_the_sign_in(protected):
    provider, secret, _ = protected
    browser = await provider.browser()
    await browser.sign_in("ada")
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    fresh = await provider.service.passwords.hash("a long enough password")
    await provider.service.database.transact(accounts.set_password, ada.id, fresh, provider.actor())
    assert (await browser.submit(code=provider.code_of_app(secret))).status_code == 401
    assert "Sign in" in (await browser.open("/account")).text


async def test_a_sign_in_waits_five_minutes(protected, monkeypatch):
    provider, secret, _ = protected
    browser = await provider.browser()
    await browser.sign_in("ada")
    now = provider.service.clock.micros()
    monkeypatch.setattr(type(provider.service.clock), "micros", lambda self: now + 301 * 1_000_000)
    assert (await browser.submit(code=provider.code_of_app(secret, 11))).status_code == 401


async def test_guessing_codes_is_slowed_down_for_the_guesser_alone(protected):
    provider, secret, _ = protected
    guesser, owner = await provider.browser(), await provider.browser()
    statuses = []
    for _ in range(2):
        await guesser.sign_in("ada")
        statuses += [(await guesser.submit(code="000000")).status_code for _ in range(4)]
    await guesser.sign_in("ada")
    refused = await guesser.submit(code="000000")
    assert statuses == [401] * 8
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    owner.http._transport.client = ("192.0.2.7", 50_000)
    await owner.sign_in("ada")
    assert "Your account" in (await owner.submit(code=provider.code_of_app(secret))).text


async def test_strangers_cannot_lock_anybody_out(protected):
    provider, secret, _ = protected
    stranger, owner = await provider.browser(), await provider.browser()
    await stranger.open("/login")
    csrf = stranger.page.text.split('name="csrf" value="')[1].split('"')[0]
    for _ in range(70):
        data = {"csrf": csrf, "code": "000000", "username": "ada"}
        await stranger.http.post(SECOND, data=data, headers={"origin": "http://127.0.0.1:8001"})
    await owner.sign_in("ada")
    assert "Your account" in (await owner.submit(code=provider.code_of_app(secret))).text


async def test_an_app_counts_once_it_has_shown_a_right_code(provider):
    browser, other = await provider.browser(), await provider.browser()
    await browser.sign_in("ada")
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/app")
    assert "<svg" in page.text
    assert (await browser.submit(code="000000")).status_code == 422
    assert "Your account" in (await other.sign_in("ada")).text


async def test_the_secret_of_an_app_is_encrypted_and_never_shown_again(protected):
    provider, secret, codes = protected
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.submit(code=provider.code_of_app(secret))
    assert secret not in (await browser.open(SECURITY)).text
    assert "Security" in (await browser.open(f"{SECURITY}/app")).text
    rows = await provider.service.database.read(lambda connection: connection.execute(select(authenticator_apps)).all())
    assert secret.encode() not in bytes(rows[0].sealed)
    lines = (await provider.http.get("/v1/admin/audit", headers=await administration(provider))).text
    assert secret not in lines
    assert all(code not in lines for code in codes)


async def test_changing_factors_takes_a_sign_in_of_a_moment_ago(protected):
    provider, secret, _ = protected
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.submit(code=provider.code_of_app(secret))
    for seconds in (-301, 301):  # long ago, or by a clock that was ahead
        await browser.open(SECURITY)
        then = update(session_rows).values(authenticated_at=provider.service.clock.micros() + seconds * 1_000_000)
        await provider.service.database.transact(lambda connection, then=then: connection.execute(then) and None)
        page = await browser.submit(action=f"{SECURITY}/app/remove")
        assert "Confirm that it is you." in page.text, seconds
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "One more step" in page.text, "the fresh sign-in asks for the second factor, too"


async def test_a_session_that_ended_meanwhile_changes_nothing(provider_on_both, monkeypatch):
    provider = provider_on_both
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.open(SECURITY)
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    page = await browser.submit(action=f"{SECURITY}/app")
    secret = page.text.split('class="secret"><code>')[1].split("<")[0].replace(" ", "")
    read, ended = security.read_page_form, sessions.end_all_of_user

    async def read_while_signed_out(request, visitor):
        await provider.service.database.transact(ended, ada.id, "test", provider.service.clock.micros())
        return await read(request, visitor)

    monkeypatch.setattr(security, "read_page_form", read_while_signed_out)
    refused = await browser.submit(code=provider.code_of_app(secret, 0))
    assert refused.status_code == 403
    assert "Nothing was changed." in refused.text
    monkeypatch.undo()
    assert "Your account" in (await (await provider.browser()).sign_in("ada")).text


async def test_of_twenty_who_set_up_an_app_all_see_the_one_that_is_kept(provider_on_both):
    browser = await provider_on_both.browser()
    page = await browser.sign_in("ada")
    form = {"csrf": page.text.split('name="csrf" value="')[1].split('"')[0]}
    headers = {"origin": "http://127.0.0.1:8001"}
    answers = await asyncio.gather(
        *(browser.http.post(f"{SECURITY}/app", data=form, headers=headers) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {303}
    assert "<svg" in (await browser.open(f"{SECURITY}/app")).text


async def test_removing_the_last_factor_takes_the_recovery_codes_along(protected):
    provider, secret, _ = protected
    browser, other = await provider.browser(), await provider.browser()
    await browser.sign_in("ada")
    await browser.submit(code=provider.code_of_app(secret))
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/app/remove")
    assert "Set up" in page.text
    assert "Recovery codes" not in page.text
    form = {"csrf": page.text.split('name="csrf" value="')[1].split('"')[0]}
    made = await browser.http.post(f"{SECURITY}/recovery-codes", data=form, headers={"origin": browser.origin})
    assert made.headers["location"] == SECURITY, "there is nothing that they could stand in for"
    assert "Your account" in (await other.sign_in("ada")).text
    await browser.set_up_app()
    assert len(browser.recovery_codes()) == 10, "the ones from before are not left for it"
    last = select(authenticator_apps.c.last_step)
    assert await provider.service.database.read(lambda connection: connection.scalar(last)), "its code is used up"
    assert (await wait_until(lambda: provider.events("evs.user.factor-removed")))[0].data[
        "factor"
    ] == "authenticator-app"


async def test_an_administrator_removes_the_factors_of_who_has_lost_them(protected):
    provider, _, _ = protected
    browser = await provider.browser()
    headers = await administration(provider)
    assert (await provider.http.delete("/v1/admin/users/ada/factors")).status_code == 401
    assert (await provider.http.delete("/v1/admin/users/nobody/factors", headers=headers)).status_code == 404
    assert (await provider.http.delete("/v1/admin/users/ada/factors", headers=headers)).status_code == 204
    assert "Your account" in (await browser.sign_in("ada")).text
    removed = await wait_until(lambda: provider.events("evs.user.factor-removed"))
    assert removed[0].data["by"] != removed[0].data["user"]


async def recover(provider, password):
    """Choose a new password by a link in a mail."""
    browser = await provider.browser()
    await browser.open("/recover")
    await browser.submit(wanted="ada")
    provider.service.recovery_desk.wake()
    await browser.open(await provider.mailbox.link("recover"))
    assert "The password is changed" in (await browser.submit(new_password=password)).text


async def test_whoever_reads_the_mails_gets_no_more_guesses_by_a_new_password(protected):
    provider, secret, codes = protected
    await guessed_before(provider, 100)
    await recover(provider, "a quite different phrase")
    browser = await provider.browser()
    page = await browser.sign_in("ada", "a quite different phrase")
    assert "Too many wrong codes" in page.text
    assert 'name="code"' not in page.text
    assert "Your account" in (await browser.submit(recovery_code=codes[0])).text
    again = await provider.browser()
    await again.sign_in("ada", "a quite different phrase")
    assert "Your account" in (await again.submit(code=provider.code_of_app(secret))).text, "it started over"


async def test_a_session_from_before_the_second_factor_changes_none(provider_on_both, subtests):
    provider = provider_on_both
    thief, ada = await provider.browser(), await provider.browser()
    await thief.sign_in("ada")
    await thief.open(SECURITY)
    await ada.sign_in("ada")
    secret = await ada.set_up_app()
    for path in ("/app/remove", "/recovery-codes", "/passkeys", "/app"):
        with subtests.test(path):
            csrf = (await thief.open(SECURITY)).text.split('name="csrf" value="')[1].split('"')[0]
            headers = {"origin": thief.origin}
            answer = await thief.http.post(SECURITY + path, data={"csrf": csrf}, headers=headers)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/login/step-up?")
    page = await thief.open(SECURITY)
    assert "10 of 10 left." in page.text
    await thief.submit(action=f"{SECURITY}/app/remove")
    assert "One more step" in thief.page.text
    assert "Security" in (await thief.submit(code=provider.code_of_app(secret))).text, "with it, it is theirs"
    assert "Set up" in (await thief.submit(action=f"{SECURITY}/app/remove")).text


async def test_a_session_from_before_the_second_factor_does_nothing_grave_with_the_password_alone(
    provider_on_both, subtests
):
    """Whoever has stolen the password would put its owner out, who has just protected the account against that."""
    provider = provider_on_both
    thief, ada = await provider.browser(), await provider.browser()
    await thief.sign_in("ada")
    await ada.sign_in("ada")
    secret = await ada.set_up_app()
    for page, path, values in (
        ("/account", "/account/email", {"email": "thief@elsewhere.test", "password": PASSWORD}),
        ("/account", "/account/password", {"current_password": PASSWORD, "new_password": "a quite different phrase"}),
        ("/account/data", "/account/delete", {"password": PASSWORD}),
    ):
        with subtests.test(path):
            await thief.open(page)
            assert "One more step" in (await thief.submit(action=path, **values)).text
    page = await thief.open("/account/data/export")
    assert "What you want to do asks you to prove a little more." in page.text
    assert provider.mailbox.unread("verify") == []
    assert "Your account" in (await ada.open("/account")).text
    await thief.open("/account")
    values = {"current_password": PASSWORD, "new_password": "a quite different phrase"}
    await thief.submit(action="/account/password", **values)
    assert "Your account" in (await thief.submit(code=provider.code_of_app(secret))).text, "with it, it is theirs"
    assert "The password is changed." in (await thief.submit(action="/account/password", **values)).text


async def test_a_factor_that_comes_while_something_grave_is_under_way_is_asked_for(provider_on_both, subtests):
    provider, database = provider_on_both, provider_on_both.service.database
    for number, (page, path, values) in enumerate(
        (
            ("/account", "/account/email", {"email": "thief@elsewhere.test", "password": PASSWORD}),
            ("/account", "/account/password", {"current_password": PASSWORD, "new_password": "a different phrase"}),
            ("/account/data", "/account/delete", {"password": PASSWORD}),
            (SECURITY, f"{SECURITY}/app", {}),
        )
    ):
        with subtests.test(path), pytest.MonkeyPatch.context() as patched:
            bea = await provider.add_user(f"bea{number}")
            thief = await provider.browser()
            await thief.sign_in(bea.username)
            await thief.open(page)
            add = partial(passkeys.adopt, account=bea, new=NewPasskey(b"%d" % number, KEY, 0, "Phone", synced=False))
            transact, waiting = database.transact, [partial(add, actor=provider.actor())]

            async def transact_once_added(function, *args, waiting=waiting, transact=transact):
                if waiting and function.__module__.startswith("auth_svc.site."):  # and not a loop's
                    await transact(waiting.pop())
                return await transact(function, *args)

            patched.setattr(database, "transact", transact_once_added)
            refused = await thief.submit(action=path, **values)
            assert refused.status_code == 403, refused.text
            assert "second factor" in refused.text
    assert provider.mailbox.unread("verify") == []


async def test_the_secret_of_an_app_is_shown_in_the_session_alone_that_makes_it(provider_on_both):
    """Whoever has stolen the password would have the second factor, too, from its first moment."""
    provider = provider_on_both
    thief, ada = await provider.browser(), await provider.browser()
    await thief.sign_in("ada")
    await ada.sign_in("ada")
    await ada.open(SECURITY)
    page = await ada.submit(action=f"{SECURITY}/app")
    secret = page.text.split('class="secret"><code>')[1].split("<")[0].replace(" ", "")
    seen = await thief.open(f"{SECURITY}/app")
    assert seen.url.path == SECURITY
    assert secret not in seen.text.replace(" ", "")
    csrf = seen.text.split('name="csrf" value="')[1].split('"')[0]
    form = {"csrf": csrf, "code": pyotp.TOTP(secret).now()}
    confirmed = await thief.http.post(f"{SECURITY}/app/confirm", data=form, headers={"origin": thief.origin})
    assert "is set up" not in confirmed.text
    assert "The authenticator app is set up." in (await ada.submit(code=pyotp.TOTP(secret).now())).text


async def test_a_factor_that_comes_or_goes_is_told_by_mail(provider_on_both):
    provider = provider_on_both
    await guessed_before(provider, 0)
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.set_up_app()
    added = await provider.mailbox.receive("factor-added")
    assert "To: ada@home.test" in added
    assert "an authenticator app" in added
    await browser.open(SECURITY)
    await browser.submit(action=f"{SECURITY}/recovery-codes")
    assert "new recovery codes" in await provider.mailbox.receive("factor-added")
    await browser.open(SECURITY)
    await browser.submit(action=f"{SECURITY}/app/remove")
    assert "an authenticator app" in await provider.mailbox.receive("factor-removed")
    assert provider.mailbox.unread("factor-*") == []


async def administration(provider):
    return {"authorization": f"Bearer {await provider.admin_token()}"}


def unlimited(provider):
    """The limits of one address are not what is tested."""
    provider.service.limits.second_factors._pair._limit = provider.service.limits.second_factors._address._limit


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
