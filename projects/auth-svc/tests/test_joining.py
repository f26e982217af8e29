"""Who may make themselves an account: nobody, the invited, or everybody; an invitation is used once."""

import asyncio
import json

import pytest

from auth_svc.people import account_changes, accounts, invitations, registration
from auth_svc.people.account_changes import Search
from auth_svc.people.accounts import NewAccount
from auth_svc.people.invitations import Wanted
from auth_svc.people.registration import Registration
from auth_svc.pruner import prune
from auth_svc.settings import AuthSettings
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"


@pytest.fixture
async def inviting(tmp_path, database_url, run_provider):
    async with run_provider(tmp_path, database_url, registration="invited") as provider:
        yield provider


async def invite(provider, **body):
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    answer = await provider.http.post("/v1/admin/invitations", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def fill_in(provider, link, **values):
    browser = await provider.browser()
    page = await browser.open(link)
    assert page.status_code == 200, page.text
    return await browser.submit(**({"username": "grace", "password": PASSWORD} | values))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("true", "open"), (True, "open"), ("1", "open"), ("false", "off"), (False, "off"), ("invited", "invited")],
)
def test_the_old_switch_still_means_what_it_meant(given, meant):
    assert AuthSettings(registration=given).registration == meant


async def test_an_invitation_makes_an_account_with_its_roles_and_a_confirmed_address(inviting):
    provider = inviting
    made = await invite(provider, email="grace@navy.test", roles=["operator"])
    assert made["status"] == "waiting"
    link = await provider.mailbox.link("invitation")
    assert made["link"].endswith(link)
    page = await fill_in(provider, link)
    assert "Your account" in page.text
    assert ">confirmed<" in page.text
    assert ">operator<" in page.text
    assert await wait_until(lambda: provider.events("evs.user.invited"))

    async def registered():
        return [event for event in await provider.events("evs.user.registered") if event.data["username"] == "grace"]

    assert await wait_until(registered)
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    (listed,) = (await provider.http.get("/v1/admin/invitations", headers=headers)).json()["items"]
    assert (listed["status"], listed["link"]) == ("used", None)
    assert (await provider.http.get(link)).status_code == 410


async def test_an_invitation_that_is_asked_for_again_is_one_invitation_and_one_mail(inviting):
    provider = inviting
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    grace = {"email": "grace@navy.test", "roles": ["operator"]}

    async def ask(body, key):
        return await provider.http.post("/v1/admin/invitations", json=body, headers=headers | {"idempotency-key": key})

    answers = await asyncio.gather(*(ask(grace, "1") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {201}
    (made,) = {json.dumps(answer.json()) for answer in answers}
    other = await ask(grace, "2")
    assert other.json()["link"] != json.loads(made)["link"]
    for changed in ({"email": "ada@navy.test"}, {"roles": []}, {"expires_seconds": 60}):
        refused = await ask(grace | changed, "1")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:evs:problem:idempotency-key-used")
    link = json.loads(made)["link"].removeprefix(provider.settings.auth_url)
    assert (await fill_in(provider, link, email="grace@navy.test")).status_code == 200
    again = (await ask(grace, "1")).json()
    assert (again["status"], again["id"]) == ("used", json.loads(made)["id"])
    assert len(await provider.events("evs.user.invited")) == 2
    await wait_until(lambda: len(provider.mailbox.unread("invitation")) == 2)


async def test_another_address_than_the_invited_one_has_to_be_confirmed(inviting):
    await invite(inviting, email="grace@navy.test")
    page = await fill_in(inviting, await inviting.mailbox.link("invitation"), email="grace@home.test")
    assert "not confirmed" in page.text
    assert "To: grace@home.test" in await inviting.mailbox.receive("verify")


async def test_an_invited_address_counts_as_it_was_invited(inviting):
    """What folds to the same is the invited person's, and what they write may still be somebody else's mailbox."""
    await invite(inviting, email="grace@strasse.test")
    page = await fill_in(inviting, await inviting.mailbox.link("invitation"), email="Grace@straße.test")
    assert ">confirmed<" in page.text
    grace = await inviting.service.database.read(accounts.find_by_username, "grace")
    assert (grace.email, grace.email_verified) == ("grace@strasse.test", True)


async def test_without_an_invitation_nobody_gets_in(inviting, subtests):
    for link, status in (("/register", 403), ("/register?invitation=nonsense", 410)):
        with subtests.test(link):
            assert (await inviting.http.get(link)).status_code == status
    browser = await inviting.browser()
    await browser.open("/login")
    assert "Make one" not in browser.page.text
    browser.page = await browser.http.get("/recover")
    csrf = browser.page.text.split('name="csrf" value="')[1].split('"')[0]
    for invitation, status in (("", 403), ("nonsense", 410)):
        form = {"username": "eve", "password": PASSWORD, "csrf": csrf, "invitation": invitation}
        answer = await browser.http.post("/register", data=form, headers={"origin": "http://127.0.0.1:8001"})
        assert answer.status_code == status


async def test_of_twenty_who_use_an_invitation_at_the_same_time_one_registers(inviting):
    provider = inviting
    made = await invite(provider)
    secret = made["link"].partition("=")[2]
    database = provider.service.database
    outcomes = await asyncio.gather(
        *(
            database.transact(
                registration.register, Registration(NewAccount(f"user{number}", None), secret), provider.actor()
            )
            for number in range(20)
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Account"] + ["InvitationSpent"] * 19
    everybody = await database.read(account_changes.page, Search(), None, 50)
    assert len([account for account in everybody if account.username.startswith("user")]) == 1


async def test_a_withdrawn_and_an_old_invitation_let_nobody_in(inviting):
    provider = inviting
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    made, other = await invite(provider), await invite(provider)
    revoked = await provider.http.post(f"/v1/admin/invitations/{made['id']}/revoke", headers=headers)
    assert revoked.json()["status"] == "revoked"
    link = made["link"].removeprefix("http://127.0.0.1:8001")
    assert (await provider.http.get(link)).status_code == 410
    assert await status_of(provider, headers, other) == "waiting"
    now = provider.service.clock.micros()
    wanted = Wanted(None, frozenset(), 60, "its secret")
    old = await provider.service.database.transact(invitations.invite, wanted, provider.actor())
    assert old.status(now + 61 * 1_000_000) == "expired"
    with pytest.raises(invitations.InvitationSpent):
        await provider.service.database.read(invitations.find, wanted.secret, now + 61 * 1_000_000)
    unknown = await provider.http.post("/v1/admin/invitations/nobody/revoke", headers=headers)
    assert unknown.status_code == 404


async def made_by_grace(provider, headers, **body):
    """An invitation that grace, an administrator, has made."""
    values = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
    grace = {"authorization": f"Bearer {(await provider.tokens('grace', **values))['access_token']}"}
    made = await provider.http.post("/v1/admin/invitations", json=body, headers=grace)
    assert made.status_code == 201, made.text
    return made.json()


async def status_of(provider, headers, invitation):
    listed = (await provider.http.get("/v1/admin/invitations", headers=headers)).json()["items"]
    return next(each["status"] for each in listed if each["id"] == invitation["id"])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/admin/users/grace/roles", {"roles": ["member"]}),
        ("POST", "/v1/admin/users/grace/disable", None),
        ("DELETE", "/v1/admin/users/grace", None),
    ],
)
async def test_what_a_former_administrator_has_promised_lets_nobody_in(inviting, method, path, body):
    headers = {"authorization": f"Bearer {await inviting.admin_token()}"}
    await inviting.add_user("grace", "admin")
    made = await made_by_grace(inviting, headers, roles=["admin"])
    link = made["link"].removeprefix("http://127.0.0.1:8001")
    browser = await inviting.browser()
    assert (await browser.open(link)).status_code == 200, "a form that is open already is worth no more"
    assert (await inviting.http.request(method, path, json=body, headers=headers)).is_success
    refused = await browser.submit(username="mallory", password=PASSWORD)
    assert refused.status_code == 410
    assert "no longer works" in refused.text
    assert (await inviting.http.get(link)).status_code == 410
    assert await status_of(inviting, headers, made) == "lapsed"


async def test_an_administrator_by_a_group_has_promised_nothing_either_once_it_is_gone(inviting):
    headers = {"authorization": f"Bearer {await inviting.admin_token()}"}
    await inviting.add_user("grace")
    await inviting.http.post("/v1/admin/groups", json={"name": "chiefs", "roles": ["admin"]}, headers=headers)
    await inviting.http.put("/v1/admin/groups/chiefs/members/grace", headers=headers)
    made = await made_by_grace(inviting, headers)
    link = made["link"].removeprefix("http://127.0.0.1:8001")
    assert (await inviting.http.get(link)).status_code == 200
    assert (await inviting.http.delete("/v1/admin/groups/chiefs", headers=headers)).status_code == 204
    assert (await inviting.http.get(link)).status_code == 410


async def test_a_program_invites_as_long_as_it_administers(inviting):
    headers = {"authorization": f"Bearer {await inviting.admin_token()}"}
    program = await inviting.add_client(
        id="onboarding",
        name="Onboarding",
        grant_types=("client_credentials",),
        scopes=frozenset(("admin",)),
        roles=frozenset(("admin",)),
    )
    form = {"grant_type": "client_credentials", "scope": "admin", "resource": "http://127.0.0.1:8001/v1/admin"}
    token = (await inviting.token(program, **form)).json()["access_token"]
    made = await inviting.http.post("/v1/admin/invitations", json={}, headers={"authorization": f"Bearer {token}"})
    link = made.json()["link"].removeprefix("http://127.0.0.1:8001")
    assert (await inviting.http.get(link)).status_code == 200
    await inviting.http.post("/v1/admin/clients/onboarding/disable", headers=headers)
    assert (await inviting.http.get(link)).status_code == 410
    await inviting.http.post("/v1/admin/clients/onboarding/enable", headers=headers)
    assert (await inviting.http.get(link)).status_code == 200
    await inviting.http.delete("/v1/admin/clients/onboarding", headers=headers)
    assert (await inviting.http.get(link)).status_code == 410


async def test_a_failed_registration_uses_no_invitation_up(inviting):
    made = await invite(inviting)
    link = made["link"].removeprefix("http://127.0.0.1:8001")
    taken = await fill_in(inviting, link, username="admin")
    assert taken.status_code == 422
    assert "Your account" in (await fill_in(inviting, link)).text


async def test_a_wrong_invitation_is_refused_by_field(inviting, subtests):
    headers = {"authorization": f"Bearer {await inviting.admin_token()}"}
    for body, pointer in (
        ({"email": "nonsense"}, "/email"),
        ({"roles": ["No Role"]}, "/roles"),
        ({"roles": ["nobody-described-it"]}, "/roles"),
        ({"expires_seconds": 1}, "/expires_seconds"),
        ({"expires_seconds": 10**9}, "/expires_seconds"),
        ({"surprise": 1}, "/surprise"),
    ):
        with subtests.test(body=body):
            refused = await inviting.http.post("/v1/admin/invitations", json=body, headers=headers)
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["pointer"] == pointer


async def test_a_role_that_somebody_is_invited_to_stays(inviting):
    headers = {"authorization": f"Bearer {await inviting.admin_token()}"}
    made = await inviting.http.post("/v1/admin/roles", json={"name": "clerk"}, headers=headers)
    assert made.status_code == 201
    invitation = await invite(inviting, roles=["clerk"])
    refused = await inviting.http.delete("/v1/admin/roles/clerk", headers=headers)
    assert refused.status_code == 409
    assert "revoke the invitation" in refused.json()["detail"]
    await inviting.http.post(f"/v1/admin/invitations/{invitation['id']}/revoke", headers=headers)
    assert (await inviting.http.delete("/v1/admin/roles/clerk", headers=headers)).status_code == 204


async def test_only_administrators_invite(inviting):
    assert (await inviting.http.post("/v1/admin/invitations", json={})).status_code == 401
    assert (await inviting.http.get("/v1/admin/invitations")).status_code == 401


async def test_where_registration_is_off_nobody_is_invited(provider):
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    refused = await provider.http.post("/v1/admin/invitations", json={}, headers=headers)
    assert refused.status_code == 409
    assert "EVS_REGISTRATION" in refused.json()["detail"]


@pytest.fixture
async def opened(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url, registration="open") as provider:
        await provider.add_user("ada", email="ada@home.test")
        yield provider


async def test_registering_with_an_address_in_use_looks_like_any_other(opened):
    free = await fill_in(opened, "/register", username="bea", email="free@home.test")
    taken = await fill_in(opened, "/register", username="cleo", email="ADA@home.test")
    assert free.status_code == taken.status_code == 200
    assert free.text.count("not confirmed") == taken.text.count("not confirmed") == 1
    assert "Hello ada," in await opened.mailbox.receive("address-in-use")
    assert "Hello bea," in await opened.mailbox.receive("verify")
    assert opened.mailbox.unread("verify") == []


async def test_registering_again_and_again_from_one_network_is_slowed_down(opened):
    statuses = [
        (await fill_in(opened, "/register", username=f"user{number}", password="short")).status_code
        for number in range(31)
    ]
    assert statuses == [422] * 30 + [429]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"username": "a b"}, "A user name is"),
        ({"email": "nonsense"}, "That is not an e-mail address."),
        ({"name": "<b>"}, "A name has up to 80 characters"),
        ({"password": "grace-grace-grace"}, "little more than a name"),
        ({"password": "x" * 257}, "at most 256 characters"),
    ],
)
async def test_what_cannot_be_is_refused_with_what_to_do(opened, values, text):
    refused = await fill_in(opened, "/register", **values)
    assert refused.status_code == 422
    assert text in refused.text
    assert PASSWORD not in refused.text


async def test_of_twenty_who_want_a_user_name_at_the_same_time_one_has_it(provider_on_both):
    provider = provider_on_both
    outcomes = await asyncio.gather(
        *(
            provider.service.database.transact(accounts.register, NewAccount("grace", None), provider.actor())
            for _ in range(20)
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Account"] + ["AccountRejected"] * 19


async def test_an_administrator_names_an_address_and_its_owner_confirms_it(provider):
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    body = {"username": "grace", "name": "Grace Hopper", "email": "grace@navy.test"}
    made = (await provider.http.post("/v1/admin/users", json=body, headers=headers)).json()
    assert (made["name"], made["email"], made["email_verified"]) == ("Grace Hopper", "grace@navy.test", False)
    browser = await provider.browser()
    page = await browser.open(await provider.mailbox.link("verify"))
    assert "belongs to your account <strong>grace</strong>" in page.text
    await browser.submit()
    shown = (await provider.http.get("/v1/admin/users/grace", headers=headers)).json()
    assert shown["email_verified"] is True


async def test_an_invitation_is_forgotten_a_month_after_it_is_over(provider):
    database, now = provider.service.database, provider.service.clock.micros()
    wanted = Wanted("grace@navy.test", frozenset(), 60, "its secret")
    await database.transact(invitations.invite, wanted, provider.actor())
    month = 31 * 24 * 3600 * 1_000_000
    for later, kept in ((0, 1), (month, 0)):
        await database.transact(prune, now + later)
        assert len(await database.read(invitations.page, None, 10)) == kept
