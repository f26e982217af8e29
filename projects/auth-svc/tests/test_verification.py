"""An e-mail address is a person's once the link that was sent there is followed, and then nobody else's."""

import asyncio
from email import message_from_string, policy

import pytest
from sqlalchemy import select, update

from auth_svc import tables
from auth_svc.people import accounts, verification
from auth_svc.people.mail_links import LinkSpent
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
EMAIL_FORM, NAME_FORM = 1, 0


async def ask(provider, browser, email, password=PASSWORD):
    await browser.open("/account")
    return await browser.submit(form=EMAIL_FORM, email=email, password=password)


async def signed_in(provider, username="ada"):
    browser = await provider.browser()
    await browser.sign_in(username)
    return browser


async def confirm(provider, link):
    browser = await provider.browser()
    await browser.open(link)
    return await browser.submit()


async def test_an_address_is_confirmed_by_its_link_and_told(provider_on_both):
    provider = provider_on_both
    browser = await signed_in(provider)
    assert "on its way" in (await ask(provider, browser, "Ada@Home.test")).text
    link = await provider.mailbox.link("verify")
    page = await browser.open("/account")
    assert "To confirm" in page.text
    assert "Ada@Home.test" in page.text
    assert "is your address from now on" in (await confirm(provider, link)).text
    page = await browser.open("/account")
    assert ">confirmed<" in page.text
    told = await wait_until(lambda: provider.events("evs.user.email-verified"))
    assert told[0].data["username"] == "ada"
    assert await provider.events("evs.user.email-changed") == []
    tokens = await provider.tokens(scope="openid email")
    claims = (
        await provider.http.get("/oauth2/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"})
    ).json()
    assert claims["email"] == "Ada@Home.test"
    assert claims["email_verified"] is True


async def test_looking_at_the_link_confirms_nothing(provider):
    browser = await signed_in(provider)
    await ask(provider, browser, "ada@home.test")
    link = await provider.mailbox.link("verify")
    for _ in range(3):
        page = await provider.http.get(link)
        assert page.status_code == 200
        assert "Confirm the address" in page.text
    assert ">confirmed<" not in (await browser.open("/account")).text


async def test_a_link_works_once_and_the_newest_only(provider, subtests):
    browser = await signed_in(provider)
    await ask(provider, browser, "ada@home.test")
    replaced = await provider.mailbox.link("verify")
    await ask(provider, browser, "ada@work.test")
    link = await provider.mailbox.link("verify")
    assert (await confirm(provider, link)).status_code == 200
    for name, spent in (
        ("replaced", replaced),
        ("used", link),
        ("invented", "/verify-email?link=x"),
        ("none", "/verify-email"),
    ):
        with subtests.test(name=name):
            refused = await provider.http.get(spent)
            assert refused.status_code == 410
            assert "That link no longer works" in refused.text
    assert "ada@work.test" in (await browser.open("/account")).text


async def test_a_link_is_over_after_a_day(provider):
    browser = await signed_in(provider)
    await ask(provider, browser, "ada@home.test")
    link = await provider.mailbox.link("verify")
    row = await provider.service.database.read(lambda connection: connection.execute(select(tables.mail_links)).one())
    assert row.expires_at - row.created_at == 24 * 3600 * 1_000_000
    await provider.service.database.transact(
        lambda connection: connection.execute(update(tables.mail_links).values(expires_at=1))
    )
    assert (await provider.http.get(link)).status_code == 410


async def test_of_twenty_who_use_a_link_at_the_same_time_one_does(provider_on_both):
    provider = provider_on_both
    await ask(provider, await signed_in(provider), "ada@home.test")
    secret = (await provider.mailbox.link("verify")).partition("=")[2]
    database, actor = provider.service.database, provider.actor()
    outcomes = await asyncio.gather(
        *(database.transact(verification.verify, secret, actor) for _ in range(20)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Account"] + ["LinkSpent"] * 19


async def test_of_many_who_prove_one_address_at_the_same_time_one_has_it(provider_on_both):
    provider = provider_on_both
    names = ["bea", "cleo", "dora"]
    secrets = []
    for name in names:
        await provider.add_user(name)
        await ask(provider, await signed_in(provider, name), "shared@home.test")
        secrets.append((await provider.mailbox.link("verify")).partition("=")[2])
    database = provider.service.database
    outcomes = await asyncio.gather(
        *(database.transact(verification.verify, secret, provider.actor()) for secret in secrets),
        return_exceptions=True,
    )
    winners = [outcome for outcome in outcomes if not isinstance(outcome, LinkSpent)]
    assert len(winners) == 1, outcomes
    owner = await database.read(accounts.find_by_email, "SHARED@home.test")
    assert owner.id == winners[0].id


async def test_a_new_address_counts_once_it_is_confirmed_and_the_old_one_is_told(provider):
    await provider.add_user("grace", email="grace@navy.test")
    browser = await signed_in(provider, "grace")
    await ask(provider, browser, "grace@home.test")
    link = await provider.mailbox.link("verify")
    assert await provider.service.database.read(accounts.find_by_email, "grace@navy.test")
    await confirm(provider, link)
    told = await provider.mailbox.receive("email-changed")
    assert "To: grace@navy.test" in told
    assert "g***@home.test" in told
    assert "grace@home.test" not in told
    assert await wait_until(lambda: provider.events("evs.user.email-changed"))
    assert await provider.service.database.read(accounts.find_by_email, "grace@navy.test") is None


async def test_changing_the_address_needs_the_password(provider):
    browser = await signed_in(provider)
    refused = await ask(provider, browser, "ada@home.test", password="wrong")
    assert refused.status_code == 422
    assert "The current password is wrong." in refused.text
    assert provider.mailbox.unread() == []


async def test_an_address_that_is_somebodys_is_not_given_away_and_only_the_owner_learns(provider):
    await provider.add_user("grace", email="grace@navy.test")
    browser = await signed_in(provider)
    free = await ask(provider, browser, "free@home.test")
    taken = await ask(provider, browser, "Grace@Navy.test")
    told = "A mail to {} is on its way. Follow the link in it within 24 hours."
    assert told.format("free@home.test") in free.text
    assert told.format("Grace@Navy.test") in taken.text
    mail = await provider.mailbox.receive("address-in-use")
    assert "Hello grace," in mail
    assert "ada" not in mail.partition("\n\n")[2]
    await provider.mailbox.receive("verify")
    assert provider.mailbox.unread("verify") == []


async def test_who_has_an_address_hears_of_it_where_they_have_proven_it(provider):
    """What folds to the same may be the mailbox of a stranger, who must not learn whose account it is."""
    await provider.add_user("grace", email="grace@stra\u00dfe.test")
    assert (await ask(provider, await signed_in(provider), "grace@strasse.test")).status_code == 200
    mail = message_from_string(await provider.mailbox.receive("address-in-use"), policy=policy.default)
    assert mail["To"] == "grace@stra\u00dfe.test"


async def test_nobody_has_mails_sent_to_one_address_after_another(provider):
    browser = await signed_in(provider)
    for number in range(4):
        assert (await ask(provider, browser, f"victim{number}@home.test")).status_code == 200
    assert "Enough mails were sent for now" in (await ask(provider, browser, "another@home.test")).text


async def test_nobodys_mailbox_is_flooded(provider):
    await provider.add_user("bea")
    ada, bea = await signed_in(provider), await signed_in(provider, "bea")
    for browser in (ada, bea, ada, bea):
        assert (await ask(provider, browser, "victim@home.test")).status_code == 200
    refused = await ask(provider, ada, "VICTIM@home.test")
    assert refused.status_code == 422
    assert "Enough mails were sent for now" in refused.text


@pytest.mark.parametrize(
    "email", ["", "nonsense", "a@b@c", "a b@c.test", "<a@b.test>", "a,b@c.test", "x" * 300 + "@c.test"]
)
async def test_what_is_no_address_is_refused(provider, email):
    refused = await ask(provider, await signed_in(provider), email)
    assert refused.status_code == 422
    assert "That is not an e-mail address." in refused.text


async def test_secrets_of_links_are_kept_as_digests_only(provider):
    await ask(provider, await signed_in(provider), "ada@home.test")
    secret = (await provider.mailbox.link("verify")).partition("=")[2]
    await wait_until(lambda: mails_are_gone(provider))
    rows = await provider.service.database.read(
        lambda connection: [
            str(connection.execute(select(table)).all()) for table in (tables.mail_links, tables.mails, tables.audit)
        ]
    )
    assert not any(secret in text for text in rows)
    assert not any(secret in str(event) for event in await provider.events())


async def mails_are_gone(provider):
    return not await provider.service.database.read(lambda connection: connection.execute(select(tables.mails)).all())


async def test_a_name_is_how_clients_call_the_person(provider):
    browser = await signed_in(provider)
    await browser.open("/account")
    assert "Ada Lovelace" in (await browser.submit(form=NAME_FORM, name=" Ada Lovelace ")).text
    tokens = await provider.tokens(scope="openid profile")
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    claims = (await provider.http.get("/oauth2/userinfo", headers=headers)).json()
    assert (claims["name"], claims["preferred_username"]) == ("Ada Lovelace", "ada")
    await browser.open("/account")
    refused = await browser.submit(form=NAME_FORM, name="<script>")
    assert refused.status_code == 422
    assert "<script" not in refused.text
    assert await wait_until(lambda: provider.events("evs.user.profile-changed"))


async def test_who_has_no_password_changes_the_address_soon_after_signing_in_only(provider):
    browser = await signed_in(provider)
    database = provider.service.database

    async def change(table, **values):
        await database.transact(lambda connection: connection.execute(update(table).values(values)))

    await change(tables.users, password_hash=None)
    assert "Your password" not in (await browser.open("/account")).text
    assert "on its way" in (await browser.submit(form=EMAIL_FORM, email="ada@home.test")).text
    await change(tables.sessions, authenticated_at=provider.service.clock.micros() - 301 * 1_000_000)
    await browser.open("/account")
    refused = await browser.submit(form=EMAIL_FORM, email="ada@work.test")
    assert (refused.url.path, "Confirm that it is you" in refused.text) == ("/login", True)


@pytest.fixture
async def grace(provider_on_both):
    """The provider, and grace, whose address is proven."""
    return provider_on_both, await provider_on_both.add_user("grace", email="grace@navy.test")


async def set_password(provider, account, password="a long enough password"):
    kept = await provider.service.passwords.hash(password)
    await provider.service.database.transact(accounts.set_password, account.id, kept, provider.actor())


async def test_a_new_password_ends_the_link_to_an_address_that_a_thief_asked_for(grace):
    provider, account = grace
    await ask(provider, await signed_in(provider, "grace"), "mallory@evil.test")
    link = await provider.mailbox.link("verify")
    await set_password(provider, account)
    assert (await provider.http.get(link)).status_code == 410
    assert (await provider.service.database.read(accounts.find, account.id)).email == "grace@navy.test"


async def test_a_new_password_leaves_the_link_to_ones_own_address(provider):
    made = accounts.NewAccount("bea", None, "bea@home.test")
    account = await provider.service.database.transact(accounts.register, made, provider.actor())
    await set_password(provider, account)
    assert "is your address from now on" in (await confirm(provider, await provider.mailbox.link("verify"))).text


async def test_whoever_was_signed_out_while_their_password_was_checked_asks_for_no_address(grace, monkeypatch):
    provider, account = grace
    browser, verify = await signed_in(provider, "grace"), provider.service.passwords.verify

    async def verify_while_it_is_replaced(password, kept):
        right = await verify(password, kept)
        await set_password(provider, account)
        return right

    await browser.open("/account")
    monkeypatch.setattr(provider.service.passwords, "verify", verify_while_it_is_replaced)
    refused = await browser.submit(form=EMAIL_FORM, email="mallory@evil.test", password=PASSWORD)
    assert refused.status_code == 403
    assert "Nothing was changed" in refused.text
    assert provider.mailbox.unread("verify") == []


async def test_links_of_somebody_disabled_stay_over_once_they_are_enabled(grace):
    provider, account = grace
    await ask(provider, await signed_in(provider, "grace"), "mallory@evil.test")
    link = await provider.mailbox.link("verify")
    for change in (accounts.disable, accounts.enable):
        await provider.service.database.transact(change, account.id, provider.actor())
    assert (await provider.http.get(link)).status_code == 410


async def edit(provider, username, **changes):
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    changed = await provider.http.patch(f"/v1/admin/users/{username}", json=changes, headers=headers)
    assert changed.is_success, changed.text


async def test_an_address_that_an_administrator_takes_away_does_not_come_back_by_a_link(grace, subtests):
    provider, account = grace
    for changed in (None, "Grace@Army.test"):
        with subtests.test(changed=changed):
            await ask(provider, await signed_in(provider, "grace"), "mallory@evil.test")
            link = await provider.mailbox.link("verify")
            await edit(provider, "grace", email=changed)
            assert (await provider.http.get(link)).status_code == 410
            assert (await provider.service.database.read(accounts.find, account.id)).email == changed


async def test_the_old_address_is_told_of_a_new_one_that_an_administrator_sets(grace):
    provider, _ = grace
    await edit(provider, "grace", email="grace@army.test")
    told = await provider.mailbox.receive("email-changed")
    assert "To: grace@navy.test" in told
    assert "g***@army.test" in told
