"""Passkeys: an authenticator in software, which can do right and every kind of wrong."""

import asyncio
import re
from importlib.resources import files

import pytest
from software_passkey import ISSUER, PRESENT, VERIFIED, SoftwarePasskey, options_of, text
from sqlalchemy import update

from auth_svc.factors import challenges
from auth_svc.tables import sessions as session_rows
from auth_svc.tables import users
from auth_svc.upstreams import arrivals, providers
from auth_svc.upstreams.arrivals import WaitingArrival
from auth_svc.upstreams.providers import Arrival, Upstream
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
SECURITY = "/account/security"
ADD, SIGN_IN, SECOND = f"{SECURITY}/passkeys", "/login/passkey", "/login/second/passkey"


@pytest.fixture
async def named(tmp_path, database_url, run_provider):
    """An AuthService that is reached by a name, with the user ada."""
    async with run_provider(tmp_path, database_url, auth_url=ISSUER) as running:
        await running.add_user("ada")
        yield running


@pytest.fixture
async def ada(named):
    """The provider, ada's passkey, her recovery codes, and a browser in which nobody is signed in."""
    browser, passkey = await named.browser(), SoftwarePasskey()
    await browser.sign_in("ada")
    page = await add(browser, passkey)
    assert "The passkey is added." in page.text
    return named, passkey, browser.recovery_codes(), await named.browser()


async def add(browser, passkey, name="My phone", **wrong):
    page = await browser.open(SECURITY)
    credential = passkey.create(options_of(page, ADD), **wrong)
    return await browser.submit(action=ADD, credential=credential, name=name)


async def sign_in(browser, passkey, **wrong):
    page = await browser.open("/login")
    return await browser.submit(action=SIGN_IN, credential=passkey.get(options_of(page, SIGN_IN), **wrong))


def test_no_page_of_the_issuer_speaks_with_other_windows():
    script = (files("auth_svc") / "static" / "passkeys.js").read_text()
    assert "navigator.credentials" in script
    assert not re.search(r"postMessage|opener|message|BroadcastChannel", script)


async def test_a_passkey_signs_in_without_a_password(ada):
    provider, passkey, codes, browser = ada
    assert len(codes) == 10
    assert "Your account" in (await sign_in(browser, passkey)).text
    page = await browser.open(SECURITY)
    assert "My phone" in page.text
    assert "last used" in page.text
    added = await wait_until(lambda: provider.events("evs.user.factor-added"))
    assert {event.data["factor"] for event in added} == {"passkey", "recovery-codes"}


async def test_a_passkey_proves_that_an_account_with_the_address_is_ones_own(ada):
    provider, passkey, _, browser = ada
    other = Upstream("other", "Other", "https://id.example", "us", b"", "openid", False, (), 0)
    waiting = WaitingArrival(other, Arrival(other.issuer, "7", "ada", "ada@home.test"), "/account/apps")

    def arrived(connection):
        proven = {"email": "ada@home.test", "email_key": "ada@home.test", "email_verified_at": 1}
        connection.execute(update(users).where(users.c.username == "ada").values(proven))
        providers.register(connection, other, provider.actor())
        arrivals.keep(connection, waiting, "of this browser", provider.actor().at)

    await provider.service.database.transact(arrived)
    browser.http.cookies.set("evs-auth-8001-arrival", "of this browser")
    page = await browser.open("/login/connect")
    page = await browser.submit(action=SIGN_IN, credential=passkey.get(options_of(page, SIGN_IN)))
    assert "Connect Other?" in page.text
    assert (await browser.submit()).url.path == "/account/apps"
    assert "Other is connected." in (await browser.open(SECURITY)).text


async def test_a_passkey_is_phishing_resistant_and_tokens_say_so(ada):
    provider, passkey, _, browser = ada
    page = await provider.authorize(browser)
    credential = passkey.get(options_of(page, SIGN_IN))
    answer = await browser.submit(action=SIGN_IN, credential=credential)
    tokens = (await provider.redeem(provider.answer(answer)["code"])).json()
    introspected = await provider.introspect(tokens["access_token"])
    assert introspected["acr"] == "phr"
    assert introspected["amr"] == ["pop", "user", "mfa"]


async def test_a_passkey_is_a_second_step_after_the_password(ada):
    provider, passkey, codes, browser = ada
    page = await browser.sign_in("ada")
    assert "One more step" in page.text
    options = options_of(page, SECOND)
    assert [each["id"] for each in options["allowCredentials"]] == [text(passkey.id)]
    page = await browser.submit(action=SECOND, credential=passkey.get(options, flags=PRESENT))
    assert "Your account" in page.text
    other = await provider.browser()
    await other.sign_in("ada")
    assert "Your account" in (await other.submit(action="/login/second", recovery_code=codes[0])).text


async def test_who_wants_a_passkey_is_content_with_nothing_less(ada, monkeypatch):
    provider, passkey, _, browser = ada
    await sign_in(browser, passkey)
    secret = await browser.set_up_app()
    other = await provider.browser()
    await other.sign_in("ada")
    await other.submit(action="/login/second", code=provider.code_of_app(secret))
    page = await provider.authorize(other, acr_values="phr")
    assert 'name="code"' not in page.text
    csrf, options = _form(other, "")["csrf"], options_of(page, SECOND)
    now = provider.service.clock.micros() + 30_000_000
    monkeypatch.setattr(type(provider.service.clock), "micros", lambda self: now)
    form = {"csrf": csrf, "code": provider.code_of_app(secret, 2)}
    less = await other.http.post("/login/second", data=form, headers={"origin": ISSUER})
    assert less.status_code == 401
    monkeypatch.undo()
    answer = await other.submit(action=SECOND, credential=passkey.get(options))
    tokens = (await provider.redeem(provider.answer(answer)["code"])).json()
    introspected = await provider.introspect(tokens["access_token"])
    assert introspected["acr"] == "phr"
    assert introspected["amr"] == ["pwd", "otp", "mfa", "pop", "user"]


async def test_what_is_wrong_with_a_passkey_signs_nobody_in(ada, subtests):
    _, passkey, _, browser = ada
    wrongs = (
        {"origin": "http://localhost:8000"},
        {"origin": "https://evil.test"},
        {"host": "evil.test"},
        {"flags": PRESENT},
        {"flags": VERIFIED},
        {"kind": "webauthn.create"},
        {"user": text(b"somebody else")},
        {"crossOrigin": True},
    )
    for wrong in wrongs:
        with subtests.test(wrong=wrong):
            page = await sign_in(browser, passkey, **wrong)
            assert page.status_code == 401
            assert "That passkey was not accepted." in page.text
    stranger = SoftwarePasskey()
    stranger.user, stranger.id = passkey.user, passkey.id
    stranger.count = 100
    assert (await sign_in(browser, stranger)).status_code == 401, "another key under the same id"
    assert "Your account" in (await sign_in(browser, passkey)).text


async def test_an_answer_is_taken_once_and_from_its_browser_alone(ada):
    provider, passkey, _, browser = ada
    thief = await provider.browser()
    page = await browser.open("/login")
    credential = passkey.get(options_of(page, SIGN_IN))
    await thief.open("/login")
    assert (await thief.submit(action=SIGN_IN, credential=credential)).status_code == 401
    first = browser.page
    browser.page = first
    assert "Your account" in (await browser.submit(action=SIGN_IN, credential=credential)).text
    page = await thief.open("/login")
    again = passkey.get(options_of(page, SIGN_IN))
    assert "Your account" in (await thief.submit(action=SIGN_IN, credential=again)).text
    await thief.open(SECURITY)
    refused = await thief.http.post(SIGN_IN, data=_form(thief, again), headers={"origin": ISSUER})
    assert refused.status_code == 401


async def test_of_twenty_who_send_one_answer_one_wins(ada):
    _, passkey, _, browser = ada
    page = await browser.open("/login")
    passkey.count = -1  # as those that are synced: they count nothing, and the challenge alone tells a replay
    form = _form(browser, passkey.get(options_of(page, SIGN_IN)))
    headers = {"origin": ISSUER}
    answers = await asyncio.gather(*(browser.http.post(SIGN_IN, data=form, headers=headers) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [303, *[401] * 19]


async def test_a_question_for_one_thing_is_not_answered_for_another(ada):
    _, passkey, _, browser = ada
    page = await browser.sign_in("ada")
    second = options_of(page, SECOND)
    page = await browser.open("/login")
    assert (await browser.submit(action=SIGN_IN, credential=passkey.get(second))).status_code == 401


async def test_a_passkey_of_somebody_else_is_no_second_step(ada):
    provider, passkey, _, browser = ada
    await provider.add_user("mallory")
    thief, own = await provider.browser(), SoftwarePasskey()
    await thief.sign_in("mallory")
    await add(thief, own)
    page = await browser.sign_in("ada")  # by whoever has stolen the password
    for handle in (own.user, passkey.user):
        credential = own.get(options_of(page, SECOND), user=handle)
        page = await browser.submit(action=SECOND, credential=credential)
        assert page.status_code == 401
    credential = passkey.get(options_of(page, SECOND), flags=PRESENT)
    assert "Your account" in (await browser.submit(action=SECOND, credential=credential)).text


async def test_an_app_that_was_never_confirmed_is_no_second_step(ada):
    provider, passkey, _, browser = ada
    await sign_in(browser, passkey)
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/app")
    secret = page.text.split('class="secret"><code>')[1].split("<")[0].replace(" ", "")
    other = await provider.browser()
    await other.sign_in("ada")
    page = await other.submit(action="/login/second", code=provider.code_of_app(secret, 0))
    assert (page.status_code, "One more step" in page.text) == (401, True)


async def test_a_challenge_is_good_once_for_what_and_for_whom_it_was_made(named):
    key, now = named.service.sealing_key, named.service.clock.micros()
    challenge = challenges.make(key, purpose="adding", cookie="hers", now=now)

    def use(connection, purpose, cookie):
        return challenges.use(connection, challenge, key, purpose=purpose, cookie=cookie, now=now)

    for purpose, cookie, fits in (
        ("signing in", "hers", False),
        ("adding", "his", False),
        ("adding", "hers", True),
        ("adding", "hers", False),
    ):
        assert await named.service.database.transact(use, purpose, cookie) is fits


async def test_a_question_can_be_answered_for_five_minutes(ada, monkeypatch):
    provider, passkey, _, browser = ada
    page = await browser.open("/login")
    now = provider.service.clock.micros()
    monkeypatch.setattr(type(provider.service.clock), "micros", lambda self: now + 301 * 1_000_000)
    assert (await browser.submit(action=SIGN_IN, credential=passkey.get(options_of(page, SIGN_IN)))).status_code == 401


async def test_a_copied_passkey_is_refused_and_noted(ada):
    provider, passkey, _, browser = ada
    await sign_in(browser, passkey)
    await sign_in(browser, passkey)
    passkey.count -= 1
    assert (await sign_in(await provider.browser(), passkey)).status_code == 401
    admin = {"authorization": f"Bearer {await administration(provider)}"}
    lines = (await provider.http.get("/v1/admin/audit", headers=admin)).json()["items"]
    assert "passkey.copied" in {line["what"] for line in lines}


async def test_a_removed_passkey_signs_nobody_in(ada):
    provider, passkey, _, browser = ada
    other = await provider.browser()
    page = await other.open("/login")
    options = options_of(page, SIGN_IN)
    await sign_in(browser, passkey)
    await browser.open(SECURITY)
    await browser.submit(action=f"{SECURITY}/passkeys/remove")
    assert (await other.submit(action=SIGN_IN, credential=passkey.get(options))).status_code == 401
    assert "Your account" in (await other.sign_in("ada")).text


async def test_nobody_removes_somebody_elses_passkey(ada):
    provider, passkey, _, browser = ada
    await provider.add_user("grace")
    grace = await provider.browser()
    await sign_in(browser, passkey)
    page = await browser.open(SECURITY)
    own = re.search(r'name="passkey" value="([^"]+)"', page.text)[1]
    await grace.sign_in("grace")
    await grace.open(SECURITY)
    form = _form(grace, "") | {"passkey": own}
    await grace.http.post(f"{SECURITY}/passkeys/remove", data=form, headers={"origin": ISSUER})
    assert "My phone" in (await browser.open(SECURITY)).text


async def test_what_is_no_passkey_is_not_added(named, subtests):
    browser = await named.browser()
    await browser.sign_in("ada")
    for wrong in ({"origin": "https://evil.test"}, {"host": "evil.test"}, {"flags": PRESENT}, {"flags": VERIFIED}):
        with subtests.test(wrong=wrong):
            page = await add(browser, SoftwarePasskey(), **wrong)
            assert page.status_code == 422
            assert "The passkey was not added." in page.text
    for credential in ("", "null", "{}", "[" * 16_000, '{"id":"a","rawId":"a"}', "x" * 50_000, '{"id":1,"rawId":2}'):
        with subtests.test(credential=credential[:20]):
            await browser.open(SECURITY)
            assert (await browser.submit(action=ADD, credential=credential)).status_code == 422
            await browser.open("/login")
            assert (await browser.submit(action=SIGN_IN, credential=credential)).status_code == 401


async def test_a_passkey_is_added_once(ada):
    _, passkey, _, browser = ada
    await sign_in(browser, passkey)
    page = await browser.open(SECURITY)
    assert [each["id"] for each in options_of(page, ADD)["excludeCredentials"]] == [text(passkey.id)]
    again = await browser.submit(action=ADD, credential=passkey.create(options_of(page, ADD)))
    assert again.status_code == 422
    other = await add(browser, SoftwarePasskey(), name="  My\n laptop ")
    assert "My laptop" in other.text
    assert not browser.recovery_codes(), "they came with the first factor"


async def test_adding_a_passkey_takes_a_sign_in_of_a_moment_ago(named):
    browser = await named.browser()
    await browser.sign_in("ada")
    page = await browser.open(SECURITY)
    long_ago = named.service.clock.micros() - 301 * 1_000_000
    await named.service.database.transact(
        lambda connection: connection.execute(update(session_rows).values(authenticated_at=long_ago))
    )
    credential = SoftwarePasskey().create(options_of(page, ADD))
    assert "Confirm that it is you." in (await browser.submit(action=ADD, credential=credential)).text


async def test_a_step_that_takes_a_passkey_takes_nothing_else(named):
    owner, browser = await named.browser(), await named.browser()
    await owner.sign_in("ada")
    secret = await owner.set_up_app()
    codes = owner.recovery_codes()
    await add(owner, SoftwarePasskey())
    await browser.sign_in("ada")
    await browser.submit(action="/login/second", code=named.code_of_app(secret))
    page = await browser.open("/login/step-up?level=phr&next=/account/security")
    assert ("One more step" in page.text, 'name="code"' in page.text) == (True, False)
    form = {"csrf": page.text.split('name="csrf" value="')[1].split('"')[0], "recovery_code": codes[0]}
    answer = await browser.http.post("/login/second", data=form, headers={"origin": browser.origin})
    assert answer.status_code == 401
    form = {"csrf": (await owner.open(SECURITY)).text.split('name="csrf" value="')[1].split('"')[0]}
    made = await owner.http.post(f"{SECURITY}/app", data=form, headers={"origin": owner.origin})
    assert made.headers["location"] == SECURITY, "an app that is in use is not set up anew"
    page = await owner.submit(action=f"{ADD}/remove")
    assert "10 of 10 left." in page.text, "none was used up for nothing, and they stand in for the app still"


async def test_by_an_address_no_passkeys_are_offered_and_the_page_says_why(provider):
    browser = await provider.browser()
    page = await browser.sign_in("ada")
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    page = await browser.open(SECURITY)
    assert "browsers make them for a host name" in page.text
    assert "<script" not in page.text
    for path in (ADD, SIGN_IN):
        refused = await browser.http.post(path, data={"csrf": csrf}, headers={"origin": browser.origin})
        assert refused.status_code == 404


async def test_only_pages_that_ask_for_a_passkey_run_a_script(ada):
    _, _, _, browser = ada
    page = await browser.open("/login")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert 'autocomplete="username webauthn"' in page.text
    assert "script-src" not in (await browser.open("/register")).headers["content-security-policy"]
    script = await browser.http.get("/static/passkeys.js")
    assert script.headers["content-type"].startswith("text/javascript")


async def administration(provider):
    browser = await provider.browser()
    await provider.authorize(browser, scope="openid admin", resource=f"{ISSUER}/v1/admin")
    answer = await browser.submit(action="/login", username="admin", password=PASSWORD)
    return (await provider.redeem(provider.answer(answer)["code"])).json()["access_token"]


def _form(browser, credential):
    csrf = browser.page.text.split('name="csrf" value="')[1].split('"')[0]
    return {"csrf": csrf, "credential": credential}


async def test_the_last_passkey_of_somebody_without_a_password_stays(ada):
    provider, passkey, _, browser = ada
    second = SoftwarePasskey()
    await sign_in(browser, passkey)
    await add(browser, second, name="Second")
    await provider.service.database.transact(
        lambda connection: connection.execute(update(users).values(password_hash=None))
    )
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/passkeys/remove", form=1)
    assert "Second" not in page.text
    page = await browser.submit(action=f"{SECURITY}/passkeys/remove")
    assert page.status_code == 422
    assert "That is the only way in that you have." in page.text
    assert "My phone" in page.text


async def test_a_passkey_that_comes_or_goes_is_told_by_mail(named):
    browser, passkey = await named.browser(), SoftwarePasskey()
    proven = {"email": "ada@home.test", "email_key": "ada@home.test", "email_verified_at": 1}
    await named.service.database.transact(
        lambda connection: connection.execute(update(users).where(users.c.username == "ada").values(proven))
    )
    await browser.sign_in("ada")
    await add(browser, passkey, name="My phone")
    assert "the passkey My phone" in await named.mailbox.receive("factor-added")
    await browser.open(SECURITY)
    await browser.submit(action=f"{SECURITY}/passkeys/remove")
    assert "the passkey My phone" in await named.mailbox.receive("factor-removed")
