"""Step-up: applications and roles that want more than a password, and get it or an honest answer."""

import base64
import json

import pytest
from sqlalchemy import update

from auth_svc.endpoints import authorize
from auth_svc.people import accounts
from auth_svc.rights import roles
from auth_svc.rights.roles import Role
from auth_svc.site import person
from auth_svc.tables import sessions as session_rows
from lib_auth.client import DEVICE_GRANT
from lib_auth.delegations import ACCESS_TOKEN, EXCHANGE
from lib_auth.principal import ADMIN

ONE, TWO, RESISTANT = "urn:evs:acr:1", "urn:evs:acr:2", "phr"
SECURITY = "/account/security"
PASSWORD = "correct horse battery staple"


@pytest.fixture
async def weak(provider_on_both):
    """A browser that is signed in by password alone, and the secret of an app that was set up elsewhere."""
    browser, other = await provider_on_both.browser(), await provider_on_both.browser()
    await browser.sign_in("ada")
    await other.sign_in("ada")
    return provider_on_both, browser, await other.set_up_app()


async def test_a_session_that_is_strong_enough_is_asked_for_nothing(provider):
    browser = await provider.browser()
    await browser.sign_in("ada")
    assert "code" in provider.answer(await provider.authorize(browser, acr_values=ONE))


async def test_levels_that_nobody_knows_are_not_asked_for(provider):
    browser = await provider.browser()
    await browser.sign_in("ada")
    answer = await provider.authorize(browser, acr_values="urn:mace:incommon:iap:silver 17")
    assert "code" in provider.answer(answer)


async def test_only_the_missing_factor_is_asked_for_and_the_session_goes_on(weak):
    provider, browser, secret = weak
    before = await provider.events("evs.session.started")
    answer = await provider.authorize(browser)
    earlier = (await provider.redeem(provider.answer(answer)["code"])).json()
    page = await provider.authorize(browser, acr_values=TWO)
    assert "One more step" in page.text
    assert "event-based-svcs" in page.text
    assert "asks you to prove a little more" in page.text
    assert 'name="password"' not in page.text
    answer = await browser.submit(code=provider.code_of_app(secret))
    tokens = (await provider.redeem(provider.answer(answer)["code"])).json()
    assert claims_of(tokens["id_token"])["acr"] == TWO
    assert claims_of(tokens["id_token"])["sid"] == claims_of(earlier["id_token"])["sid"]
    assert claims_of(tokens["id_token"])["auth_time"] == claims_of(earlier["id_token"])["auth_time"]
    refreshed = (await provider.refresh(earlier["refresh_token"])).json()
    assert claims_of(refreshed["access_token"])["acr"] == ONE, "what was allowed before says what was proven then"
    assert len(await provider.events("evs.session.started")) == len(before)


async def test_a_client_is_given_sign_ins_as_strong_as_it_registered(weak):
    provider, browser, secret = weak
    client = {"id": "bank", "name": "Bank", "redirect_uris": ("https://bank.example/back",), "consent": "never"}
    await provider.add_client(**client, scopes=frozenset(("openid",)), details={"default_acr_values": [TWO, RESISTANT]})
    asked = {"client_id": "bank", "redirect_uri": "https://bank.example/back", "scope": "openid"}
    assert "code" in provider.answer(await provider.authorize(browser, **asked, acr_values=ONE)), "the request says so"
    refused = provider.answer(await provider.authorize(browser, **asked, prompt="none"))
    assert refused["error"] == "login_required"
    assert "One more step" in (await provider.authorize(browser, **asked)).text
    assert "code" in provider.answer(await browser.submit(code=provider.code_of_app(secret)))


async def test_the_cookie_from_before_is_worth_nothing(weak):
    provider, browser, secret = weak
    old = dict(browser.http.cookies)
    await provider.authorize(browser, acr_values=TWO)
    await browser.submit(code=provider.code_of_app(secret))
    thief = await provider.browser()
    for name, value in old.items():
        thief.http.cookies.set(name, value)
    assert "Sign in" in (await thief.open("/account")).text


async def test_a_wrong_code_makes_no_session_stronger(weak):
    provider, browser, _ = weak
    await provider.authorize(browser, acr_values=TWO)
    assert (await browser.submit(code="000000")).status_code == 401
    page = await provider.authorize(browser, acr_values=TWO)
    assert "One more step" in page.text


async def test_a_session_that_ended_meanwhile_does_not_become_stronger(weak):
    provider, browser, secret = weak
    other = await provider.browser()
    await other.sign_in("ada")
    await other.submit(code=provider.code_of_app(secret))
    await provider.authorize(browser, acr_values=TWO)
    await provider.service.database.transact(
        lambda connection: connection.execute(update(session_rows).values(ended_at=1))
    )
    assert (await browser.submit(code=provider.code_of_app(secret, 2))).status_code in (401, 403)
    assert "Sign in" in (await browser.open("/account")).text


async def test_what_cannot_be_reached_is_answered_to_the_client(weak, provider_on_both):
    provider, browser, _ = weak
    answer = provider.answer(await provider.authorize(browser, acr_values=RESISTANT))
    assert answer["error"] == "unmet_authentication_requirements"
    assert answer["state"] == "the state"
    assert answer["iss"] == "http://127.0.0.1:8001"
    await provider.add_user("grace")
    grace = await provider.browser()
    await grace.sign_in("grace")
    assert provider.answer(await provider.authorize(grace, acr_values=f"{RESISTANT} {TWO}"))["error"] == answer["error"]


async def test_the_lowest_of_the_levels_that_are_asked_for_is_enough(weak):
    provider, browser, _ = weak
    assert "code" in provider.answer(await provider.authorize(browser, acr_values=f"{TWO} {ONE}"))


async def test_without_a_page_nobody_is_asked(weak):
    provider, browser, _ = weak
    answer = provider.answer(await provider.authorize(browser, acr_values=TWO, prompt="none"))
    assert answer["error"] == "login_required"


OTHER = {"client_id": "other", "redirect_uri": "https://other.test/cb", "scope": "openid"}


async def add_other(provider):
    values = {"redirect_uris": (OTHER["redirect_uri"],), "scopes": frozenset(("openid", "profile"))}
    await provider.add_client(id="other", name="Other", **values)


@pytest.fixture
async def asking(weak):
    """The same, and an application that nobody has allowed anything yet."""
    provider, browser, secret = weak
    await add_other(provider)
    return provider, browser, secret


async def test_a_session_from_before_the_second_factor_connects_no_new_application(asking):
    """Whoever has stolen the password may be in it; what is allowed lasts longer than they would."""
    provider, browser, secret = asking
    assert provider.answer(await provider.authorize(browser, **OTHER, prompt="none"))["error"] == "consent_required"
    page = await provider.authorize(browser, **OTHER)
    assert ("One more step" in page.text, "Allow access?" in page.text) == (True, False)
    page = await browser.submit(code=provider.code_of_app(secret))
    assert "Allow access?" in page.text
    assert "code" in provider.answer(await browser.submit(decision="allow"))


async def test_what_was_allowed_before_the_second_factor_goes_on(provider_on_both):
    provider = provider_on_both
    await add_other(provider)
    browser, other = await provider.browser(), await provider.browser()
    await browser.sign_in("ada")
    await other.sign_in("ada")
    await provider.authorize(browser, **OTHER)
    await browser.submit(decision="allow")
    await other.set_up_app()
    assert "code" in provider.answer(await provider.authorize(browser, **OTHER, prompt="none"))
    assert "One more step" in (await provider.authorize(browser, **OTHER | {"scope": "openid profile"})).text


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_factor_that_comes_while_somebody_reads_what_is_asked_is_asked_for(provider_on_both, decision):
    provider = provider_on_both
    await add_other(provider)
    browser, other = await provider.browser(), await provider.browser()
    await browser.sign_in("ada")
    await other.sign_in("ada")
    assert "Allow access?" in (await provider.authorize(browser, **OTHER)).text
    secret = await other.set_up_app()
    answer = await browser.submit(decision=decision)
    if decision == "deny":
        assert provider.answer(answer)["error"] == "access_denied"
        return
    assert "One more step" in answer.text
    page = await browser.submit(code=provider.code_of_app(secret))
    assert "Allow access?" in page.text


@pytest.mark.parametrize("what", ["application", "device"])
async def test_a_factor_that_comes_as_something_is_allowed_is_seen(provider_on_both, monkeypatch, what):
    provider = provider_on_both
    await add_other(provider)
    asked = {"client_id": "evs-cli", "scope": "openid"}
    device = (await provider.post("/oauth2/device_authorization", asked)).json()
    browser, other = await provider.browser(), await provider.browser()
    for each in (browser, other):
        await each.sign_in("ada")
    if what == "application":
        await provider.authorize(browser, **OTHER)
    else:
        await browser.open(device["verification_uri_complete"])
        await browser.submit()
    database, waiting = provider.service.database, [True]
    transact, late = database.transact, (authorize._commit, person.in_session)

    async def transact_once_there(function, *args):
        if function in late and waiting:
            waiting.pop()
            await other.set_up_app()
        return await transact(function, *args)

    monkeypatch.setattr(database, "transact", transact_once_there)
    page = await browser.submit(decision="allow")
    assert (page.status_code in (403, 409), "second factor by now" in page.text) == (True, True)
    polled = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"], "client_id": "evs-cli"}
    assert (await provider.token(None, **polled)).json()["error"] == "authorization_pending"


async def test_a_session_from_before_the_second_factor_connects_no_device(weak):
    provider, browser, secret = weak
    device = (await provider.post("/oauth2/device_authorization", {"client_id": "evs-cli", "scope": "openid"})).json()
    page = await browser.open(device["verification_uri_complete"])
    assert "One more step" in page.text
    page = await browser.submit(code=provider.code_of_app(secret))
    assert device["user_code"] in page.text
    assert "Is this your device?" in (await browser.submit()).text
    assert "Connected" in (await browser.submit(decision="allow")).text


async def test_a_fresh_sign_in_asks_for_the_second_factor_too(weak, subtests):
    provider, browser, secret = weak
    for number, values in enumerate(({"prompt": "login"}, {"max_age": "0"}), 1):
        with subtests.test(values=values):
            page = await provider.authorize(browser, **values)
            assert 'name="password"' in page.text
            page = await browser.submit(username="ada", password=PASSWORD)
            assert "One more step" in page.text
            if number == 1:
                assert "code" in provider.answer(await browser.submit(code=provider.code_of_app(secret)))


async def test_what_is_no_level_cannot_be_stepped_up_to(provider):
    browser = await provider.browser()
    assert "Sign in" in (await browser.open(f"/login/step-up?level={TWO}")).text
    await browser.sign_in("ada")
    for level in ("", "3", "urn:evs:acr:1%00"):
        assert (await browser.open(f"/login/step-up?level={level}&next=/account")).status_code == 400
    elsewhere = await browser.http.get(f"/login/step-up?level={ONE}&next=https://evil.test/")
    assert elsewhere.headers["location"] == "/account"


async def test_discovery_names_the_levels(provider):
    metadata = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert metadata["acr_values_supported"] == [ONE, TWO, RESISTANT]
    assert {"acr", "amr"} <= set(metadata["claims_supported"])


async def test_a_role_that_takes_two_factors_leads_to_the_set_up_before_anything_else(
    tmp_path, database_url, run_provider
):
    async with run_provider(tmp_path, database_url, require_second_factor=["operator"]) as provider:
        await provider.add_user("ada")
        assert "code" in provider.answer(await provider.authorize(await signed_in(provider, "ada")))
        browser = await provider.browser()
        page = await provider.authorize(browser)
        page = await browser.submit(username="admin", password=PASSWORD)  # admin includes operator
        assert "Your role takes more than a password." in page.text
        assert "Your role takes more than a password." in (await provider.authorize(browser)).text
        assert "Your role takes more than a password." in (await browser.open("/device")).text
        anywhere = await (await provider.browser()).sign_in("admin")
        assert "Your role takes more than a password." in anywhere.text
        answer = provider.answer(await provider.authorize(browser, prompt="none"))
        assert answer["error"] == "login_required"
        page = await provider.authorize(browser)
        page = await browser.submit(action=f"{SECURITY}/app")
        secret = page.text.split('class="secret"><code>')[1].split("<")[0].replace(" ", "")
        page = await browser.submit(code=provider.code_of_app(secret, 0))
        way_on = page.text.split('class="aside"><a href="')[1].split('"')[0].replace("&amp;", "&")
        answer = provider.answer(await browser.open(way_on))
        assert "code" in answer, "the factor has just been shown"


async def test_a_role_that_comes_later_asks_the_sessions_that_are_there(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url, require_second_factor=["admin"]) as provider:
        ada = await provider.add_user("ada")
        browser = await signed_in(provider, "ada")
        assert "code" in provider.answer(await provider.authorize(browser))
        roles = frozenset((ADMIN,))
        await provider.service.database.transact(accounts.set_roles, ada.id, roles, provider.actor())
        assert "Your role takes more than a password." in (await provider.authorize(browser)).text


async def test_a_role_that_includes_one_takes_what_that_takes(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url, require_second_factor=["admin"]) as provider:
        chief = Role(name="chief", includes=frozenset((ADMIN,)))
        await provider.service.database.transact(roles.create, chief, provider.actor())
        await provider.service.definitions.refresh()
        await provider.add_user("ada", "chief")
        browser = await provider.browser()
        await provider.authorize(browser)
        assert "Your role takes more" in (await browser.submit(username="ada", password=PASSWORD)).text
        assert "Your role takes more" in (await provider.authorize(browser)).text
        assert "Your role takes more" in (await browser.open("/device")).text


async def test_a_role_that_comes_later_is_in_no_token_of_a_sign_in_with_one_factor(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url, require_second_factor=["admin"]) as provider:
        ada = await provider.add_user("ada")
        tokens = (await provider.refresh((await provider.tokens())["refresh_token"])).json()
        role = frozenset((ADMIN,))
        await provider.service.database.transact(accounts.set_roles, ada.id, role, provider.actor())
        refused = await provider.refresh(tokens["refresh_token"])
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
        await provider.service.database.transact(accounts.set_roles, ada.id, frozenset(), provider.actor())
        assert (await provider.refresh(tokens["refresh_token"])).status_code == 200, "nothing was used up"


async def test_such_a_role_is_in_no_token_of_any_other_grant_either(tmp_path, sqlite_url, run_provider, subtests):
    async with run_provider(tmp_path, sqlite_url, require_second_factor=["admin"]) as provider:
        ada = await provider.add_user("ada")
        token = (await provider.tokens())["access_token"]
        code, cli = await provider.sign_in_for_code(), {"client_id": "evs-cli"}
        device = (await provider.post("/oauth2/device_authorization", cli | {"scope": "openid"})).json()
        browser = await signed_in(provider, "ada")
        await browser.open(device["verification_uri_complete"])
        await browser.submit()
        await browser.submit(decision="allow")
        exchange = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
        app = ("evs-app", provider.secret_of("evs-app"))
        assert (await provider.token(app, **exchange)).status_code == 200
        more = frozenset(("member", ADMIN))
        await provider.service.database.transact(accounts.set_roles, ada.id, more, provider.actor())
        assert (await provider.introspect(token))["active"], "it says what is still so"
        polled = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"]}
        for name, answer, error in (
            ("exchange", await provider.token(app, **exchange), "invalid_request"),
            ("code", await provider.redeem(code), "invalid_grant"),
            ("device", await provider.token(None, **cli, **polled), "access_denied"),
        ):
            with subtests.test(name):
                assert (answer.status_code, answer.json()["error"]) == (400, error)


async def signed_in(provider, username):
    browser = await provider.browser()
    await browser.sign_in(username)
    return browser


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
