"""Who comes from another provider, and has an account here with their address: it is connected once they show that."""

import asyncio
from dataclasses import replace

import pytest
from lying_provider import ELSEWHERE, Liar, add_upstream, come_back, journey, leave, linked, speak_to
from sqlalchemy import select, update

from auth_svc.people import accounts
from auth_svc.pruner import prune
from auth_svc.tables import sessions, upstream_arrivals
from auth_svc.upstreams import providers
from lib_events.clock import SystemClock
from lib_events.testing import wait_until

ISSUER = "http://127.0.0.1:8001"
PASSWORD = "correct horse battery staple"
SECURITY = "/account/security"


@pytest.fixture
async def admin(provider_on_both):
    return {"authorization": f"Bearer {await provider_on_both.admin_token()}"}


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
    long_ago = update(sessions).values(authenticated_at=1)
    await provider.service.database.transact(lambda connection: connection.execute(long_ago) and None)
    assert "Prove once that it is yours" in (await browser.submit()).text, "it takes a sign-in of just now"
    assert await linked(provider, hopper) == frozenset()
    await browser.submit(username="hopper", password=PASSWORD)
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
    browser, other = await provider.browser(), await provider.browser()
    await journey(provider, liar, browser)
    await journey(provider, liar, other)
    assert "Your account" in (await browser.submit(action="/login/connect/new")).text
    assert (await other.submit(action="/login/connect/new")).status_code == 403, "whoever came has an account by now"
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


async def test_an_arrival_that_waits_is_as_welcome_as_the_provider_is_by_then(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    await provider.add_user("hopper", email="grace@navy.test")
    new, owner = await provider.browser(), await provider.browser()
    await journey(provider, liar, new)
    await journey(provider, liar, owner)
    await owner.submit(username="hopper", password=PASSWORD)
    known = await provider.service.database.read(providers.find, "example")
    await provider.service.database.transact(providers.change, replace(known, domains=("army.test",)), provider.actor())
    for browser, button in ((new, "/login/connect/new"), (owner, "/login/connect")):
        page = await browser.submit(action=button)
        assert (page.status_code, "did not vouch for an e-mail address" in page.text) == (403, True), button
    assert await provider.service.database.read(accounts.find_by_username, "grace") is None


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
