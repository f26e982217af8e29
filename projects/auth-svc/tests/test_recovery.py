"""A lost password: whoever reads the account's mails chooses a new one; nobody learns whether there is an account."""

import asyncio
import re

import pytest
from sqlalchemy import select, update

from auth_svc import tables
from auth_svc.people import accounts, own_data, recovery
from auth_svc.rate_limits import Attempts, Limit
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
FRESH = "a long enough password"
CSRF = re.compile(r'name="csrf" value="[^"]*"')


@pytest.fixture
async def grace(provider):
    return await provider.add_user("grace", email="grace@navy.test")


async def ask(provider, wanted):
    browser = await provider.browser()
    await browser.open("/recover")
    page = await browser.submit(wanted=wanted)
    provider.service.recovery_desk.wake()  # it looks every two seconds by itself
    return page


async def choose(provider, link, password=FRESH):
    browser = await provider.browser()
    await browser.open(link)
    return await browser.submit(new_password=password)


async def answered(provider):
    return not await provider.service.database.read(
        lambda connection: connection.execute(select(tables.recoveries)).all()
    )


async def test_nothing_is_kept_of_who_is_deleted_while_their_request_is_answered(provider_on_both, monkeypatch):
    provider = provider_on_both
    grace = await provider.add_user("grace", email="grace@navy.test")
    find = accounts.find_by_email

    def find_then_delete(connection, wanted):
        found = find(connection, wanted)
        own_data.delete_account(connection, grace.id, provider.actor())
        return found

    monkeypatch.setattr(accounts, "find_by_email", find_then_delete)
    await ask(provider, "grace@navy.test")
    await wait_until(lambda: answered(provider))
    for table in (tables.mails, tables.mail_links):
        of_grace = select(table).where(table.c.user_id == grace.id)
        assert not await provider.service.database.read(
            lambda connection, of_grace=of_grace: connection.scalar(of_grace)
        )


async def test_a_lost_password_is_replaced_and_everything_signed_in_ends(provider_on_both):
    provider = provider_on_both
    await provider.add_user("grace", email="grace@navy.test")
    browser = await provider.browser()
    await browser.sign_in("grace")
    tokens = await provider.tokens("grace")
    await ask(provider, "grace")
    link = await provider.mailbox.link("recover")
    page = await choose(provider, link)
    assert "The password is changed" in page.text
    assert "Sign in" in (await browser.open("/account")).text
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await (await provider.browser()).sign_in("grace")).status_code == 401
    assert "Your account" in (await (await provider.browser()).sign_in("grace", FRESH)).text
    assert "Your password was changed" in await provider.mailbox.receive("password-changed")
    assert await wait_until(lambda: provider.events("evs.user.password-changed"))


async def test_recovering_signs_nobody_in(provider, grace):
    await ask(provider, "grace")
    browser = await provider.browser()
    await browser.open(await provider.mailbox.link("recover"))
    await browser.submit(new_password=FRESH)
    assert "Sign in" in (await browser.open("/account")).text


@pytest.mark.parametrize("wanted", ["GRACE", "grace@navy.test", " Grace@NAVY.test "])
async def test_a_user_name_and_a_confirmed_address_will_do(provider, grace, wanted):
    await ask(provider, wanted)
    assert "for one hour" in await provider.mailbox.receive("recover")


async def test_the_answer_is_the_same_whoever_is_meant(provider, grace):
    await provider.service.database.transact(accounts.disable, (await provider.add_user("gone")).id, provider.actor())
    pages = [await ask(provider, wanted) for wanted in ("grace", "ada", "gone", "nobody", "x@y.test", "", "' OR 1=1")]
    assert {page.status_code for page in pages} == {200}
    assert len({CSRF.sub("", page.text) for page in pages}) == 1
    await wait_until(lambda: answered(provider))
    await provider.mailbox.receive("recover")
    assert provider.mailbox.unread("recover") == []


async def test_asking_does_the_same_work_whoever_is_meant(provider, grace):
    """What is looked up and written depends on nothing: a row that is looked into later."""
    await provider.service.recovery_desk.stop()
    for wanted in ("grace", "nobody"):
        await ask(provider, wanted)
    rows = await provider.service.database.read(
        lambda connection: connection.execute(select(tables.recoveries.c.wanted)).scalars().all()
    )
    assert sorted(rows) == ["grace", "nobody"]
    assert (
        await provider.service.database.read(lambda connection: connection.execute(select(tables.mail_links)).all())
        == []
    )


async def test_an_address_that_was_never_confirmed_recovers_nothing(provider):
    made = accounts.NewAccount("bea", None, "bea@home.test")
    await provider.service.database.transact(accounts.register, made, provider.actor())
    for wanted in ("bea", "bea@home.test"):
        await ask(provider, wanted)
    await wait_until(lambda: answered(provider))
    assert provider.mailbox.unread("recover") == []


async def test_a_user_name_that_looks_like_an_address_keeps_nobody_from_theirs(provider, grace):
    await provider.add_user("grace@navy.test", email="mallory@evil.test")
    await ask(provider, "grace@navy.test")
    mails = [await provider.mailbox.receive("recover"), await provider.mailbox.receive("recover")]
    assert {re.search(r"To: (\S+)", mail)[1] for mail in mails} == {"grace@navy.test", "mallory@evil.test"}


async def test_a_link_is_over_after_an_hour_a_use_a_change_and_a_newer_one(provider, grace, subtests):
    database = provider.service.database

    async def spent(link):
        return (await provider.http.get(link)).status_code == 410

    await ask(provider, "grace")
    first = await provider.mailbox.link("recover")
    await ask(provider, "grace")
    second = await provider.mailbox.link("recover")
    with subtests.test("a newer one"):
        assert await spent(first)
        assert not await spent(second)
    with subtests.test("a change of the password"):
        fresh = await provider.service.passwords.hash("another password of mine")
        await database.transact(accounts.set_password, grace.id, fresh, provider.actor())
        assert await spent(second)
    await ask(provider, "grace")
    third = await provider.mailbox.link("recover")
    with subtests.test("an hour"):
        row = await database.read(
            lambda connection: connection.execute(
                select(tables.mail_links).where(tables.mail_links.c.used_at.is_(None))
            ).one()
        )
        assert row.expires_at - row.created_at == 3600 * 1_000_000
        await database.transact(lambda connection: connection.execute(update(tables.mail_links).values(expires_at=1)))
        assert await spent(third)
    for invented in ("/recover/new-password", "/recover/new-password?link=", "/recover/new-password?link=nonsense"):
        with subtests.test(invented):
            assert await spent(invented)


async def test_a_link_of_somebody_disabled_is_over(provider, grace):
    await ask(provider, "grace")
    link = await provider.mailbox.link("recover")
    await provider.service.database.transact(accounts.disable, grace.id, provider.actor())
    assert (await provider.http.get(link)).status_code == 410


async def test_a_link_that_confirms_an_address_recovers_nothing(provider, grace):
    browser = await provider.browser()
    await browser.sign_in("grace")
    await browser.open("/account")
    await browser.submit(form=1, email="grace@home.test", password=PASSWORD)
    secret = (await provider.mailbox.link("verify")).partition("=")[2]
    assert (await provider.http.get(f"/recover/new-password?link={secret}")).status_code == 410


async def test_a_password_that_is_refused_leaves_the_link_as_it_is(provider, grace):
    await ask(provider, "grace")
    link = await provider.mailbox.link("recover")
    for password, text in (
        ("short", "at least 12"),
        ("passwordpassword", "Many people"),
        ("grace-navy-grace", "a name"),
    ):
        refused = await choose(provider, link, password)
        assert refused.status_code == 422
        assert text in refused.text
    assert "The password is changed" in (await choose(provider, link)).text


async def test_of_twenty_who_use_a_link_at_the_same_time_one_sets_the_password(provider_on_both):
    provider = provider_on_both
    await provider.add_user("grace", email="grace@navy.test")
    await ask(provider, "grace")
    secret = (await provider.mailbox.link("recover")).partition("=")[2]
    kept = await provider.service.passwords.hash(FRESH)
    outcomes = await asyncio.gather(
        *(provider.service.database.transact(recovery.recover, secret, kept, provider.actor()) for _ in range(20)),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Account"] + ["LinkSpent"] * 19


async def test_recovering_and_changing_a_password_at_the_same_time_wait_for_one_another(provider_on_both):
    """Both lock the person before the links: the other way round each would wait for the other."""
    provider = provider_on_both
    grace = await provider.add_user("grace", email="grace@navy.test")
    kept, database = await provider.service.passwords.hash(FRESH), provider.service.database
    for _ in range(3):
        await ask(provider, "grace")
        secret = (await provider.mailbox.link("recover")).partition("=")[2]
        outcomes = await asyncio.gather(
            *(database.transact(recovery.recover, secret, kept, provider.actor()) for _ in range(6)),
            *(database.transact(accounts.set_password, grace.id, kept, provider.actor()) for _ in range(6)),
            return_exceptions=True,
        )
        assert {type(outcome).__name__ for outcome in outcomes} <= {"Account", "LinkSpent"}


async def test_a_mailbox_gets_a_few_mails_an_hour_however_many_ask(provider, grace):
    for _ in range(6):
        await ask(provider, "grace")
    await wait_until(lambda: answered(provider))
    for _ in range(3):
        await provider.mailbox.receive("recover")
    assert provider.mailbox.unread("recover") == []


async def test_a_network_that_asks_without_end_has_to_wait(provider):
    statuses = [(await ask(provider, f"user{number}")).status_code for number in range(11)]
    assert statuses == [200] * 10 + [429]
    assert isinstance(provider.service.limits.recoveries, Attempts)
    assert Limit(10, 3600) == provider.service.limits.recoveries._limit


async def test_what_a_thief_has_allowed_a_program_of_theirs_is_asked_for_again(provider_on_both):
    """Every token ends, and a program that nobody is asked about would have new ones with the next look at it."""
    provider = provider_on_both
    await provider.add_user("grace", email="grace@navy.test")
    back = {"client_id": "theirs", "redirect_uri": "https://thief.test/callback", "scope": "openid workflows:read"}
    await provider.add_client(
        id="theirs",
        name="Theirs",
        redirect_uris=("https://thief.test/callback",),
        scopes=frozenset(("openid", "workflows:read")),
    )
    thief, grace = await provider.browser(), await provider.browser()
    await thief.sign_in("grace")
    await provider.authorize(thief, **back)
    assert provider.answer(await thief.submit(decision="allow"))["code"]
    await ask(provider, "grace")
    await choose(provider, await provider.mailbox.link("recover"))
    await grace.sign_in("grace", FRESH)
    page = await provider.authorize(grace, **back)
    assert page.status_code == 200, "straight to them, with a code"
    assert "Allow access?" in page.text
    taken = await wait_until(lambda: provider.events("evs.grant.revoked"))
    assert [(event.data["client"], event.data["scopes"]) for event in taken] == [
        ("theirs", ["openid", "workflows:read"])
    ]
