"""Providers that are removed: what they began ends, unless whoever removes them wants it to go on."""

import pytest
from lying_provider import Liar, add_upstream, come_back, journey, leave, speak_to
from sqlalchemy import select

from auth_svc.people import accounts
from auth_svc.site import new_session
from auth_svc.tables import consents, sessions, upstream_links
from auth_svc.upstreams import removal
from lib_events.database import DatabaseUnavailable

EXAMPLE = "/v1/admin/upstreams/example"
OFFLINE = "openid offline_access workflows:read"


@pytest.fixture
async def admin(provider_on_both):
    return {"authorization": f"Bearer {await provider_on_both.admin_token()}"}


@pytest.fixture
async def known(provider_on_both, admin):
    """A provider whose people get accounts."""
    await add_upstream(provider_on_both, admin, makes_accounts=True)
    return provider_on_both


def person(name):
    claims = {"sub": name, "preferred_username": name, "email": f"{name}@navy.test"}
    return Liar(claims=claims)


async def sign_in(provider, name, **sent):
    browser = await provider.browser()
    page = await journey(provider, speak_to(provider, person(name)), browser, **sent)
    assert name in page.text
    return browser


async def tokens_of(provider, browser, **values):
    return (await provider.redeem(provider.answer(await provider.authorize(browser, **values))["code"])).json()


async def is_signed_in(browser):
    return "Your account" in (await browser.open("/account")).text


async def remove(provider, admin, **query):
    answer = await provider.http.delete(EXAMPLE, headers=admin, params=query)
    assert answer.status_code == 204, answer.text


async def test_what_a_provider_began_ends_with_it_and_nothing_else_does(known, admin):
    provider = known
    grace, ada = await sign_in(provider, "grace"), await provider.browser()
    await ada.sign_in("ada")
    theirs = [await tokens_of(provider, grace), await tokens_of(provider, grace, scope=OFFLINE)]
    hers = await tokens_of(provider, ada)
    await remove(provider, admin)
    assert (await is_signed_in(grace), await is_signed_in(ada)) == (False, True)
    for tokens in theirs:
        assert await provider.introspect(tokens["access_token"]) == {"active": False}
        assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await provider.introspect(hers["access_token"]))["active"]
    assert (await provider.http.delete(EXAMPLE, headers=admin)).status_code == 404


async def test_it_goes_on_where_that_is_wanted(known, admin):
    grace = await sign_in(known, "grace")
    tokens = await tokens_of(known, grace)
    await remove(known, admin, keep_sessions=True)
    assert await is_signed_in(grace)
    assert (await known.refresh(tokens["refresh_token"])).status_code == 200
    assert "Sign in with Example" not in (await (await known.browser()).open("/login")).text


async def test_a_connection_that_was_taken_away_meanwhile_hides_nothing(known, admin):
    grace = await sign_in(known, "grace")
    await known.service.database.transact(lambda connection: connection.execute(upstream_links.delete()) and None)
    await remove(known, admin)
    assert not await is_signed_in(grace)


async def test_people_of_another_provider_stay(known, admin):
    other = await known.http.post(
        "/v1/admin/upstreams",
        json={"id": "other", "name": "Other", "issuer": "https://other.test", "client_id": "u", "client_secret": "s"},
        headers=admin,
    )
    assert other.status_code == 201
    grace = await sign_in(known, "grace")
    assert (await known.http.delete("/v1/admin/upstreams/other", headers=admin)).status_code == 204
    assert await is_signed_in(grace)


async def test_an_administrator_who_came_by_way_of_it_removes_it_and_is_signed_out_last(known, admin):
    provider = known
    browsers = [await sign_in(provider, name) for name in ("grace", "chief", "zoe")]
    chief = await provider.service.database.read(accounts.find_by_username, "chief")
    roles = frozenset(("member", "admin"))
    await provider.service.database.transact(accounts.set_roles, chief.id, roles, provider.actor())
    values = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
    token = (await tokens_of(provider, browsers[1], **values))["access_token"]
    await remove(provider, {"authorization": f"Bearer {token}"})
    assert [await is_signed_in(browser) for browser in browsers] == [False] * 3
    assert (
        await provider.http.get("/v1/admin/upstreams", headers={"authorization": f"Bearer {token}"})
    ).status_code == 401


async def test_whoever_is_on_the_way_in_as_it_is_removed_does_not_come_in(known, admin, monkeypatch):
    provider = known
    await sign_in(provider, "grace")
    database = provider.service.database
    transact, waiting = database.transact, [True]

    async def transact_once_removed(function, *args):
        if function is new_session._start and waiting:
            waiting.pop()
            await remove(provider, admin)
        return await transact(function, *args)

    monkeypatch.setattr(database, "transact", transact_once_removed)
    browser = await provider.browser()
    page = await journey(provider, speak_to(provider, person("grace")), browser)
    assert (page.status_code, "any more" in page.text) == (403, True)
    assert not await is_signed_in(browser)


async def test_a_second_step_that_was_under_way_is_over(known, admin):
    provider = known
    grace = await sign_in(provider, "grace")
    secret = await grace.set_up_app()
    other = await provider.browser()
    page = await journey(provider, speak_to(provider, person("grace")), other)
    assert "One more step" in page.text
    await remove(provider, admin)
    assert not await is_signed_in(grace), "also what has taken one"
    assert (await other.submit(code=provider.code_of_app(secret))).status_code == 401
    assert not await is_signed_in(other)


async def test_whoever_is_interrupted_removes_it_again(known, admin, monkeypatch):
    """The provider goes last: what is left of it is seen, and can be ended."""
    provider = known
    browsers = [await sign_in(provider, name) for name in ("grace", "hopper")]
    end_all, calls = removal._end_all, []

    def end_one(*args):
        calls.append(args)
        if len(calls) == 2:
            raise DatabaseUnavailable("away")
        end_all(*args)

    monkeypatch.setattr(removal, "_end_all", end_one)
    assert (await provider.http.delete(EXAMPLE, headers=admin)).status_code == 503
    assert sorted([await is_signed_in(browser) for browser in browsers]) == [False, True]
    listed = (await provider.http.get("/v1/admin/upstreams", headers=admin)).json()["items"]
    assert [item["id"] for item in listed] == ["example"]
    monkeypatch.undo()
    await remove(provider, admin)
    assert [await is_signed_in(browser) for browser in browsers] == [False] * 2


async def test_what_its_people_had_allowed_is_asked_for_again(known, admin):
    """It may have been somebody else who did, and would have new tokens with their next sign-in."""
    provider = known
    values = {"redirect_uris": ("https://other.test/cb",), "scopes": frozenset(("openid",))}
    await provider.add_client(id="other", name="Other", **values)
    asked = {"client_id": "other", "redirect_uri": "https://other.test/cb", "scope": "openid"}
    for browser in (await sign_in(provider, "grace"), await provider.browser()):
        page = await provider.authorize(browser, **asked)
        if "Allow access?" not in page.text:
            await browser.submit(username="ada", password="correct horse battery staple")
        await browser.submit(decision="allow")
    await remove(provider, admin)
    left = await provider.service.database.read(lambda connection: connection.scalars(select(consents.c.user_id)).all())
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    assert list(left) == [ada.id]


async def test_a_journey_that_had_begun_leads_nowhere(known, admin):
    liar, browser = speak_to(known, person("grace")), await known.browser()
    asked = await leave(browser)
    liar.nonce = asked["nonce"]
    await remove(known, admin)
    assert (await come_back(browser, asked)).status_code in (400, 404)
    alive = select(sessions.c.id).where(sessions.c.ended_at.is_(None))
    assert len(await known.service.database.read(lambda connection: connection.scalars(alive).all())) == 1, "the admin"
