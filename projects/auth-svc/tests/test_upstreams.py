"""Sign-in with another provider: whom it lets in, and what it is connected to."""

import asyncio
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from lying_provider import BODY, ELSEWHERE, Liar, add_upstream, come_back, journey, leave, linked, speak_to
from sqlalchemy import insert, select, update

from auth_svc.people import accounts
from auth_svc.tables import passkeys, sessions, upstream_links, upstream_sign_ins, upstreams
from auth_svc.upstreams import providers
from auth_svc.upstreams.client import UpstreamClient
from lib_events.testing import wait_until

ISSUER = "http://127.0.0.1:8001"
PASSWORD = "correct horse battery staple"
SECURITY = "/account/security"


async def connecting(browser, liar):
    """Press the button that connects the account; returns what the other provider is asked."""
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/example")
    location = page.text.split('class="button primary" href="')[1].split('"')[0].replace("&amp;", "&")
    asked = dict(parse_qsl(urlsplit(location).query))
    liar.nonce = asked["nonce"]
    return asked


@pytest.fixture
async def admin(provider_on_both):
    return {"authorization": f"Bearer {await provider_on_both.admin_token()}"}


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


async def test_an_address_that_is_none_here_is_named_to_who_comes_with_it(provider_on_both, admin):
    provider = provider_on_both
    liar = speak_to(provider, Liar(claims={"email": "grace at navy.test"}))
    await add_upstream(provider, admin, makes_accounts=True)
    refused = await journey(provider, liar)
    assert (refused.status_code, "not an e-mail address" in refused.text) == (403, True)


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


async def test_what_becomes_of_a_provider_while_it_is_asked_counts_for_who_comes(
    provider_on_both, admin, monkeypatch, subtests
):
    provider, finish = provider_on_both, UpstreamClient.finish
    liar = speak_to(provider, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    known = await provider.service.database.read(providers.find, "example")

    async def close(**changes):
        await provider.service.database.transact(providers.change, replace(known, **changes), provider.actor())

    async def make_anew():
        assert (await provider.http.delete("/v1/admin/upstreams/example", headers=admin)).status_code == 204
        await add_upstream(provider, admin, makes_accounts=True, issuer="https://other.example")

    meanwhile = {
        "it lets in another domain": partial(close, domains=("army.test",)),
        "it makes no accounts": partial(close, makes_accounts=False),
        "it is another's": make_anew,
    }
    for name, happens in meanwhile.items():
        await close()

        async def finish_slowly(*asked, happens=happens):
            arrival = await finish(*asked)
            await happens()
            return arrival

        monkeypatch.setattr(UpstreamClient, "finish", finish_slowly)
        with subtests.test(name):
            assert (await journey(provider, liar)).status_code == 403
            assert await provider.service.database.read(accounts.find_by_username, "grace") is None


async def test_an_account_is_connected_from_its_own_page_and_disconnected(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    browser = await provider.browser()
    await browser.sign_in("ada")
    assert "Example is connected." in (await come_back(browser, await connecting(browser, liar))).text
    other = await provider.browser()
    assert "ada" in (await journey(provider, liar, other)).text
    added = await wait_until(lambda: provider.events("evs.user.factor-added"))
    assert added[0].data["factor"] == "upstream"
    hopper = await provider.add_user("hopper")
    link = {"issuer": ELSEWHERE, "subject": "hopper", "user_id": hopper.id, "linked_at": 1}
    await provider.service.database.transact(lambda connection: connection.execute(insert(upstream_links).values(link)))
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/disconnect")
    assert "is connected" not in page.text
    assert await linked(provider, hopper) == {ELSEWHERE}, "what others have connected stays"
    assert (await journey(provider, liar)).status_code == 403


async def test_what_one_person_began_connects_nothing_with_another_nor_an_old_sign_in(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    hopper, browser = await provider.add_user("hopper"), await provider.browser()
    await browser.sign_in("ada")
    asked = await connecting(browser, liar)
    await browser.sign_in("hopper")
    assert "Confirm that it is you." in (await come_back(browser, asked)).text
    asked = await connecting(browser, liar)
    long_ago = update(sessions).values(authenticated_at=1)
    await provider.service.database.transact(lambda connection: connection.execute(long_ago) and None)
    assert "Confirm that it is you." in (await come_back(browser, asked)).text
    assert await linked(provider, ada) == await linked(provider, hopper) == frozenset()


async def test_whoever_is_half_in_by_what_is_disconnected_begins_again(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin)
    browser, half = await provider.browser(), await provider.browser()
    await browser.sign_in("ada")
    await come_back(browser, await connecting(browser, liar))
    secret = await browser.set_up_app()
    assert "One more step" in (await journey(provider, liar, half)).text
    await browser.open(SECURITY)
    await browser.submit(action=f"{SECURITY}/upstreams/disconnect")
    assert "Sign in once more" in (await half.submit(code=provider.code_of_app(secret))).text


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
    refused = await come_back(browser, await connecting(browser, liar))
    assert "belongs to another account" in refused.text


async def test_the_only_way_in_is_not_taken_away(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    browser = await provider.browser()
    await journey(provider, liar, browser)
    await browser.open(SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/disconnect")
    assert "That is the only way in that you have." in page.text
    grace = await provider.service.database.read(accounts.find_by_username, "grace")
    passkey = {"id": "p", "user_id": grace.id, "name": "Phone", "sign_count": 0, "synced": False, "created_at": 1}

    def add_passkey_and_disconnect(connection):
        connection.execute(insert(passkeys).values(passkey | {"credential_id": b"1", "public_key": b"1"}))
        return providers.unlink(connection, grace, provider.actor(), issuer=ELSEWHERE)

    assert await provider.service.database.transact(add_passkey_and_disconnect), "a passkey is another one"


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
    assert "Your account" in (await come_back(browser, asked)).text
    assert (await come_back(browser, asked)).status_code == 400
    asked = await leave(browser)
    over = update(upstream_sign_ins).values(expires_at=1)
    await provider.service.database.transact(lambda connection: connection.execute(over) and None)
    assert (await come_back(browser, asked)).status_code == 400, "it took too long"


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
