"""The account: devices, connected apps, what is kept of a person, and its end."""

import asyncio
import json
from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update

from auth_svc import tables
from auth_svc.audit import Actor
from auth_svc.people import access_requests, accounts, addresses, connected_apps, own_data, profile, sessions
from auth_svc.people.administrators import LastAdministrator
from auth_svc.people.devices import describe
from auth_svc.protocol import families
from auth_svc.rights import roles
from auth_svc.rights.roles import Role
from auth_svc.site import apps, devices
from auth_svc.site.browser import read_page_form
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0 Safari/537.36 Edg/140.0"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile/15E148 Safari/604.1"


async def signed_in(provider, username="ada", user_agent=FIREFOX):
    browser = await provider.browser()
    browser.http.headers["user-agent"] = user_agent
    await browser.sign_in(username)
    return browser


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (FIREFOX, "Firefox on Linux"),
        (EDGE, "Edge on Windows"),
        (SAFARI, "Safari on iPhone"),
        ("curl/8.0", "curl"),
        ("<script>", "An unknown browser"),
        ("", "An unknown browser"),
        (None, "An unknown browser"),
    ],
)
def test_a_device_is_described_in_words(user_agent, words):
    assert describe(user_agent) == words


async def test_the_sections_of_the_account_need_a_sign_in_and_lead_back(provider, subtests):
    for path in ("/account", "/account/sessions", "/account/apps", "/account/data"):
        with subtests.test(path):
            browser = await provider.browser()
            page = await browser.open(path)
            assert "Sign in" in page.text
            page = await browser.submit(username="ada", password=PASSWORD)
            assert page.request.url.path == path
            assert f'href="{path}" aria-current="page"' in page.text
    assert (await (await provider.browser()).open("/account/data/export")).request.url.path == "/login"


async def test_all_other_devices_are_signed_out_at_once(provider_on_both):
    provider = provider_on_both
    browser, other, third = [await signed_in(provider, user_agent=agent) for agent in (FIREFOX, EDGE, SAFARI)]
    page = await browser.open("/account/sessions")
    for words in ("Firefox on Linux", "Edge on Windows", "Safari on iPhone", "this browser", "last seen"):
        assert words in page.text
    page = await browser.submit(form=-1)
    assert "Edge on Windows" not in page.text
    assert "Sign out everywhere else" not in page.text
    assert "Sign in" in (await other.open("/account")).text
    assert "Sign in" in (await third.open("/account")).text


async def test_a_session_says_when_it_was_last_seen(provider):
    browser = await signed_in(provider)
    database = provider.service.database
    await database.transact(lambda connection: connection.execute(update(tables.sessions).values(last_seen_at=1)))
    await browser.open("/account/sessions")
    seen = await database.read(lambda connection: connection.scalar(select(tables.sessions.c.last_seen_at)))
    assert seen > 1
    await browser.open("/account/sessions")
    again = await database.read(lambda connection: connection.scalar(select(tables.sessions.c.last_seen_at)))
    assert again == seen, "not every page is worth a write"


async def test_a_new_device_is_told_by_mail_and_a_known_one_is_not(provider):
    await provider.add_user("grace", email="grace@navy.test")
    await signed_in(provider, "grace", FIREFOX)
    await signed_in(provider, "grace", FIREFOX)
    assert provider.mailbox.unread("new-device") == []
    await signed_in(provider, "grace", EDGE)
    mail = await provider.mailbox.receive("new-device")
    assert "with Edge on Windows, from the address 127.0.0.1." in mail
    await signed_in(provider, "grace", EDGE)
    assert provider.mailbox.unread("new-device") == []


async def test_a_sign_in_after_a_long_time_is_told_although_no_device_is_known_any_more(provider):
    await provider.add_user("grace", email="grace@navy.test")
    long_ago = update(tables.users).values(created_at=1)
    await provider.service.database.transact(lambda connection: connection.execute(long_ago))
    await signed_in(provider, "grace")
    assert "Firefox on Linux" in await provider.mailbox.receive("new-device")


async def test_mails_about_new_devices_can_be_switched_off(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url, mail_new_devices=False) as provider:
        await provider.add_user("grace", email="grace@navy.test")
        await signed_in(provider, "grace", FIREFOX)
        await signed_in(provider, "grace", EDGE)
        rows = await provider.service.database.read(lambda connection: connection.execute(select(tables.mails)).all())
        assert (rows, provider.mailbox.unread()) == ([], [])


@pytest.fixture
async def report(provider):
    return await provider.add_client(
        id="report", name="The report", redirect_uris=("https://report.test/callback",), scopes=frozenset(("openid",))
    )


async def allow(provider, browser):
    await provider.authorize(browser, client_id="report", redirect_uri="https://report.test/callback", scope="openid")
    return await browser.submit(decision="allow")


async def test_an_app_is_shown_in_words_and_withdrawing_ends_all_it_holds(provider, report):
    browser = await signed_in(provider)
    assert "Nothing acts for you." in (await browser.open("/account/apps")).text
    code = provider.answer(await allow(provider, browser))["code"]
    form = {"code": code, "redirect_uri": "https://report.test/callback", "code_verifier": provider.verifier}
    tokens = (await provider.token(report, grant_type="authorization_code", **form)).json()
    given = (await wait_until(lambda: provider.events("evs.grant.given")))[0]
    assert (given.data["client"], given.data["scopes"]) == ("report", ["openid"])
    page = await browser.open("/account/apps")
    for words in ("The report", "Know who you are", "last used"):
        assert words in page.text
    page = await browser.submit(form=0)
    assert "Nothing acts for you." in page.text
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    refused = await provider.token(report, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refused.json()["error"] == "invalid_grant"
    revoked = (await wait_until(lambda: provider.events("evs.grant.revoked")))[0]
    assert (revoked.data["client"], revoked.data["scopes"]) == ("report", ["openid"])
    await provider.authorize(browser, client_id="report", redirect_uri="https://report.test/callback", scope="openid")
    assert "Allow access?" in browser.page.text


async def test_what_depends_on_a_sign_in_is_shown_as_long_as_that_lasts(provider):
    here, there = await provider.browser(), await provider.browser()
    for browser in (here, there):
        await provider.tokens(browser=browser)
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    begun, later = provider.actor().at, sessions.LIFETIME_SECONDS * sessions.MICROS + 1

    async def shown(now):
        apps = await provider.service.database.read(connected_apps.apps_of, ada.id, now)
        return [(app.client_id, app.last_used_at is not None and app.since <= app.last_used_at) for app in apps]

    assert await shown(begun) == [("evs-gui", True)]
    assert await shown(begun + later) == []
    for browser, left in ((here, [("evs-gui", True)]), (there, [])):
        await browser.open("/account")
        await browser.submit(action="/account/sign-out")
        assert await shown(begun) == left


async def test_what_is_asked_for_every_time_is_told_and_not_remembered(provider):
    browser = await signed_in(provider)
    await provider.authorize(
        browser, client_id="evs-cli", redirect_uri="http://127.0.0.1:4567/callback", scope="openid"
    )
    await browser.submit(decision="allow")
    given = (await wait_until(lambda: provider.events("evs.grant.given")))[0]
    assert given.data["client"] == "evs-cli"
    kept = await provider.service.database.read(lambda connection: connection.execute(select(tables.consents)).all())
    assert kept == []


async def test_nobody_withdraws_for_somebody_else_or_what_is_not_there(provider, report):
    browser, mallory = await signed_in(provider), await provider.browser()
    await allow(provider, browser)
    await provider.add_user("mallory")
    await mallory.sign_in("mallory")
    await mallory.open("/account/data")
    csrf = mallory.page.text.split('name="csrf" value="')[1].split('"')[0]
    for client in ("report", "nothing", ""):
        form = {"csrf": csrf, "client": client}
        answer = await mallory.http.post(
            "/account/apps/withdraw", data=form, headers={"origin": "http://127.0.0.1:8001"}
        )
        assert answer.status_code == 303
    assert "The report" in (await browser.open("/account/apps")).text
    assert await provider.events("evs.grant.revoked") == []


async def test_what_is_kept_of_a_person_can_be_taken_along(provider, report):
    browser = await signed_in(provider)
    await allow(provider, browser)
    await provider.add_user("grace", email="grace@navy.test")
    await signed_in(provider, "grace")
    answer = await browser.open("/account/data/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="my-account.json"'
    kept = json.loads(answer.text)
    assert kept["profile"]["username"] == "ada"
    assert kept["sessions"][0]["address"] == "127.0.0.1"
    assert [app["name"] for app in kept["connected_apps"]] == ["The report"]
    assert {"user.registered", "session.started", "grant.given", "user.exported"} <= {
        line["what"] for line in kept["audit"]
    }
    assert "grace" not in answer.text
    assert "argon2" not in answer.text


async def test_nothing_that_is_kept_of_a_person_is_missing(provider):
    """But for what proves who they are, and what is on its way for some minutes."""
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    now = provider.actor().at

    def fill(connection):
        accounts_of = {"user_id": ada.id}
        passkey = {"id": "1", "credential_id": b"1", "public_key": b"", "sign_count": 0, "synced": True}
        connection.execute(insert(tables.passkeys).values(accounts_of | passkey | {"name": "Phone", "created_at": now}))
        link = {"issuer": "https://id.company.test", "subject": "ada-there", "linked_at": now}
        connection.execute(insert(tables.upstream_links).values(accounts_of | link))
        connection.execute(insert(tables.groups).values(id="g", name="Poets", description="", roles="[]", created_at=1))
        connection.execute(insert(tables.group_members).values(accounts_of | {"group_id": "g", "added_at": now}))
        access_requests.ask(connection, ada.id, "operator", "I am on call", Actor(now, ada.id))
        addresses.ask(connection, ada.id, "ada", "ada@home.test", now)
        invitation = {"id": "i", "digest": b"1", "email": "ada@invited.test", "roles": "[]", "created_by": "admin"}
        used = {"created_at": now, "expires_at": now, "used_at": now, "used_by": ada.id}
        connection.execute(insert(tables.invitations).values(invitation | used))

    browser = await signed_in(provider)
    secret = await browser.set_up_app()
    await provider.service.database.transact(fill)
    kept = (await browser.open("/account/data/export")).json()
    assert kept["groups"] == ["Poets"]
    assert [passkey["name"] for passkey in kept["passkeys"]] == ["Phone"]
    assert kept["authenticator_app"]["since"]
    assert kept["recovery_codes_left"] == 10
    assert [(link["issuer"], link["subject"]) for link in kept["other_providers"]] == [
        ("https://id.company.test", "ada-there")
    ]
    assert [(asked["role"], asked["reason"], asked["status"]) for asked in kept["access_requests"]] == [
        ("operator", "I am on call", "pending")
    ]
    assert kept["addresses_to_confirm"] == ["ada@home.test"]
    assert [invitation["email"] for invitation in kept["invitations"]] == ["ada@invited.test"]
    assert secret not in json.dumps(kept)


TOLD = frozenset(
    (
        *("access_requests", "authenticator_apps", "consents", "families", "group_members", "mail_links"),
        *("passkeys", "recovery_codes", "sessions", "upstream_links"),
    )
)
LEFT_OUT = {
    "mails": "what is on its way to them",
    "roles_to_tell": "what other services are about to be told, some moments long",
    "sign_ins": "of some minutes, and what they prove it with",
    "upstream_sign_ins": "of some minutes, and what they prove it with",
}


def test_every_table_about_people_is_in_the_export_or_is_said_to_be_left_out():
    about = {
        table.name
        for table in tables.metadata.sorted_tables
        if any(key.column is tables.users.c.id for key in table.foreign_keys)
    }
    assert about == TOLD | LEFT_OUT.keys()


async def delete(provider, browser, password=PASSWORD):
    await browser.open("/account/data")
    return await browser.submit(password=password)


async def test_deleting_an_account_ends_everything_and_erases_who_it_was(provider_on_both):
    provider = provider_on_both
    grace = await provider.add_user("grace", email="grace@navy.test")
    browser = await signed_in(provider, "grace")
    tokens = await provider.tokens("grace")
    wrong = await delete(provider, browser, "wrong")
    assert wrong.status_code == 422
    assert "The current password is wrong." in wrong.text
    assert "Your account is deleted" in (await delete(provider, browser)).text
    assert "Sign in" in (await browser.open("/account")).text
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await (await provider.browser()).sign_in("grace")).status_code == 401
    (event,) = await wait_until(lambda: provider.events("evs.user.deleted"))
    assert event.data["user"] == grace.id
    assert "grace" not in str(event.data)
    everything = await provider.service.database.read(_all_rows)
    assert "grace" not in everything
    assert grace.id in everything
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    assert (await provider.http.get(f"/v1/admin/users/{grace.id}", headers=headers)).status_code == 404
    users = (await provider.http.get("/v1/admin/users", headers=headers)).json()["items"]
    assert [user["username"] for user in users] == ["ada", "admin"]
    await provider.add_user("grace", email="grace@navy.test")
    assert "Your account" in (await (await provider.browser()).sign_in("grace")).text


def _all_rows(connection):
    return str([connection.execute(select(table)).all() for table in tables.metadata.sorted_tables])


async def test_the_last_administrator_stays(provider):
    browser = await signed_in(provider, "admin")
    refused = await delete(provider, browser)
    assert refused.status_code == 422
    assert "Make somebody else one first" in refused.text
    await provider.add_user("grace", "admin")
    assert "Your account is deleted" in (await delete(provider, browser)).text


async def test_a_name_is_read_as_it_is_written(provider, subtests):
    """A sign that turns letters around makes one name look like another (Unicode TR 36)."""
    browser = await signed_in(provider)
    for name, status in (
        ("\u202enimda", 422),
        ("Ada\u2066x", 422),
        ("Ada\u0085x", 422),
        ("Ada\u2028x", 422),
        ("\u0632\u06cc\u0646\u200c\u0628", 200),  # a joiner is how some are written
    ):
        with subtests.test(ascii(name)):
            await browser.open("/account")
            assert (await browser.submit(action="/account/name", name=name)).status_code == status


async def test_an_administrator_by_a_role_that_includes_it_stays_too(provider):
    chief = Role(name="chief", includes=frozenset(("admin",)))
    await provider.service.database.transact(roles.create, chief, provider.actor())
    admin = await provider.service.database.read(accounts.find_by_username, "admin")
    await provider.service.database.transact(accounts.set_roles, admin.id, frozenset(("chief",)), provider.actor())
    browser = await signed_in(provider, "admin")
    assert (await delete(provider, browser)).status_code == 422
    await provider.add_user("grace", "chief")
    assert "Your account is deleted" in (await delete(provider, browser)).text


async def test_ones_data_do_not_say_where_others_were(provider):
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    elsewhere = replace(provider.actor(), who="an administrator", address="192.0.2.7")
    await provider.service.database.transact(profile.set_name, ada.id, "Ada", elsewhere)
    browser = await signed_in(provider)
    export = (await browser.open("/account/data/export")).json()
    addresses = {line["what"]: line["address"] for line in export["audit"]}
    assert (addresses["user.profile-changed"], addresses["session.started"]) == (None, "127.0.0.1")


async def test_of_two_administrators_who_leave_at_the_same_time_one_stays(provider_on_both):
    provider = provider_on_both
    grace = await provider.add_user("grace", "admin")
    admin = await provider.service.database.read(accounts.find_by_username, "admin")
    outcomes = await asyncio.gather(
        *(
            provider.service.database.transact(own_data.delete_account, account.id, provider.actor())
            for account in (grace, admin)
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [LastAdministrator.__name__, "NoneType"]


async def test_forms_of_the_account_from_elsewhere_are_refused(provider, subtests):
    browser = await signed_in(provider)
    for path in (
        "/account/name",
        "/account/email",
        "/account/password",
        "/account/end-other-sessions",
        "/account/apps/withdraw",
        "/account/delete",
    ):
        with subtests.test(path):
            answer = await browser.http.post(path, data={}, headers={"origin": "http://evil.test"})
            assert answer.status_code == 403


async def test_an_account_that_was_deleted_meanwhile_changes_nothing_and_is_no_error(provider_on_both, subtests):
    provider = provider_on_both
    for number, (path, values) in enumerate(
        (
            ("/account/name", {"name": "Bea"}),
            ("/account/email", {"email": "bea@home.test", "password": PASSWORD}),
            ("/account/password", {"current_password": PASSWORD, "new_password": "a long enough password"}),
            ("/account/delete", {"password": PASSWORD}),
        )
    ):
        with subtests.test(path), pytest.MonkeyPatch.context() as patched:
            person = await provider.add_user(f"bea{number}")
            browser = await provider.browser()
            await browser.sign_in(person.username)
            await browser.open("/account/data" if "delete" in path else "/account")
            transact, waiting = provider.service.database.transact, [person.id]

            async def transact_once_deleted(function, *args, waiting=waiting, transact=transact):
                if waiting and function.__module__.startswith("auth_svc.site."):  # and not a loop's
                    await transact(own_data.delete_account, waiting.pop(), provider.actor())
                return await transact(function, *args)

            patched.setattr(provider.service.database, "transact", transact_once_deleted)
            page = await browser.submit(action=path, **values)
            assert page.status_code in (200, 403), page.text
            assert provider.mailbox.unread("verify") == []


@pytest.mark.parametrize("path", ["/account/end-other-sessions", "/account/end-session", "/account/apps/withdraw"])
async def test_who_is_put_out_while_they_hold_a_form_back_puts_out_nobody(provider_on_both, monkeypatch, path):
    provider = provider_on_both
    owner = await signed_in(provider)
    tokens = (await provider.redeem(provider.answer(await provider.authorize(owner))["code"])).json()
    thief = await signed_in(provider, user_agent=EDGE)
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    stolen, own = await provider.service.database.read(sessions.alive_of_user, ada.id, provider.actor().at)

    async def read_once_put_out(request, visitor):
        await provider.service.database.transact(sessions.end, stolen.id, "ended", provider.actor().at)
        return await read_page_form(request, visitor)

    for module in (devices, apps):
        monkeypatch.setattr(module, "read_page_form", read_once_put_out)
    csrf = (await thief.open("/account")).text.split('name="csrf" value="')[1].split('"')[0]
    form = {"csrf": csrf, "session": own.id, "client": "evs-gui"}
    refused = await thief.http.post(path, data=form, headers={"origin": thief.origin})
    assert refused.status_code == 403
    assert "Your account" in (await owner.open("/account")).text
    assert (await provider.introspect(tokens["access_token"]))["active"]


async def test_a_page_shows_so_many_that_it_is_made_at_once_and_says_how_many_more_there_are(provider):
    """Whoever has thousands would else keep everybody waiting who signs in meanwhile."""
    browser = await signed_in(provider)
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    delegated = [
        families.opened(
            user_id=ada.id,
            client_id="evs-app",
            scope="offline_access workflows:read",
            resources=(),
            session_id="s",
            authenticated_at=1,
            methods=(),
            now=number,
        )
        for number in range(130)
    ]

    def make(connection):
        actor = provider.actor()
        for number, family in enumerate(delegated):
            sessions.start(connection, f"cookie {number}", ada.id, actor, FIREFOX)
            families.start(connection, family)
            row = {"id": f"d{number}", "family_id": family.id, "purpose": f"Run {number}.", "expires_at": actor.at * 2}
            connection.execute(insert(tables.delegations).values(row))

    await provider.service.database.transact(make)
    page = (await browser.open("/account/sessions")).text
    assert (page.count("<li>"), "31 more are not shown here" in page, "this browser" in page) == (100, True, True)
    page = (await browser.open("/account/apps")).text
    assert ("Run 129." in page, "Run 30." in page, "Run 29." in page) == (True, True, False)
    assert "30 more are not shown here" in page
    await browser.open("/account/sessions")
    assert "more are not shown" not in (await browser.submit(action="/account/end-other-sessions")).text
