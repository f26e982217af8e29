"""People as a document: whatever they prove themselves with goes along, and only where it is good for something."""

import asyncio
import json
from collections import Counter

import pyotp
import pytest
from lying_provider import BODY, ELSEWHERE, Liar, journey, speak_to
from software_passkey import ISSUER, SoftwarePasskey, options_of
from sqlalchemy import select
from transfer_api import Api

from auth_svc.people import accounts
from auth_svc.tables import recovery_codes

PASSWORD = "correct horse battery staple"
SECURITY = "/account/security"
DOCUMENT = {"format": "evs-auth", "version": 1}
OF_FACTORS = ("authenticator_secret", "recovery_codes", "passkeys")


class Installation(Api):
    """An AuthService with everything that people sign in with."""

    def __init__(self, provider, token):
        super().__init__(provider, token)
        self.liar, self.passkey, self.app, self.codes = Liar(), SoftwarePasskey(), "", []

    async def fill(self):
        """Ada has an app and a passkey, grace comes by way of another provider."""
        await self.provider.add_user("ada")
        speak_to(self.provider, self.liar)
        await self.call("POST", "/upstreams", BODY | {"makes_accounts": True, "domains": ["navy.test"]}, 201)
        browser = await self.provider.browser()
        await browser.sign_in("ada")
        self.app = await browser.set_up_app()
        self.codes = browser.recovery_codes()
        page = await browser.open(SECURITY)
        credential = self.passkey.create(options_of(page, f"{SECURITY}/passkeys"))
        assert (
            "The passkey is added."
            in (await browser.submit(action=f"{SECURITY}/passkeys", credential=credential, name="My phone")).text
        )
        assert "grace" in (await journey(self.provider, self.liar)).text

    async def people(self, *, secrets=True):
        return {user["username"]: user for user in (await self.export(secrets=secrets))["users"]}


@pytest.fixture
def install(tmp_path, sqlite_url, run_provider):
    """Opens an installation on SQLite, at a name, as browsers make passkeys for no address."""

    def opened(name, *, auth_url=ISSUER):
        (tmp_path / name).mkdir(exist_ok=True)
        return run_provider(tmp_path / name, sqlite_url.replace("test.db", f"{name}.db"), auth_url=auth_url)

    return opened


@pytest.fixture
async def full(tmp_path, database_url, run_provider):
    """An installation with people, once on SQLite and once on PostgreSQL."""
    async with run_provider(tmp_path, database_url, auth_url=ISSUER) as provider:
        installation = Installation(provider, await provider.admin_token())
        await installation.fill()
        yield installation


def without_administrator(document):
    return document | {"users": [user for user in document["users"] if user["username"] != "admin"]}


async def take_second_step(provider, **answer):
    """Sign ada in with her password and what an app or a list of codes says."""
    browser = await provider.browser()
    assert "One more step" in (await browser.sign_in("ada")).text
    await browser.submit(action="/login/second", form=0 if "code" in answer else 1, **answer)
    return browser


async def sign_in_with(provider, passkey):
    browser = await provider.browser()
    page = await browser.open("/login")
    return await browser.submit(action="/login/passkey", credential=passkey.get(options_of(page, "/login/passkey")))


async def test_people_sign_in_at_another_installation_with_all_they_had(full, install):
    document = without_administrator(await full.export(secrets=True))
    async with install("other") as provider:
        other = Installation(provider, await provider.admin_token())
        rehearsed = await other.load(document, dry_run=True)
        report = await other.load(document)
        assert rehearsed["items"] == report["items"]
        assert (report["counts"]["refused"], report["counts"]["created"]) == (0, 3)
        assert not any(item["why"] for item in report["items"] if item["kind"] != "user")
        for answer in ({"code": provider.code_of_app(full.app)}, {"recovery_code": full.codes[0]}):
            assert (await take_second_step(provider, **answer)).page.url.path == "/account"
        assert "ada" in (await sign_in_with(provider, full.passkey)).text
        speak_to(provider, full.liar)
        assert "grace" in (await journey(provider, full.liar)).text
        told = await other.export(secrets=True)
        assert (told["upstreams"], len(told["users"])) == (document["upstreams"], 3)


async def test_what_comes_back_out_is_what_went_in(full, install):
    document = without_administrator(await full.export(secrets=True))
    async with install("other") as provider:
        other = Installation(provider, await provider.admin_token())
        await other.load(document)
        assert without_administrator(await other.export(secrets=True))["users"] == document["users"]
        again = await other.load(document)
        assert {item["outcome"] for item in again["items"]} == {"unchanged"}


async def test_without_secrets_nothing_is_told_that_somebody_proves_themselves_with(full):
    document = await full.export()
    text = json.dumps(document)
    for secret in (full.app, "their secret", *OF_FACTORS, "client_secret", "password_hash"):
        assert secret not in text
    assert document["upstreams"][0]["issuer"] == ELSEWHERE
    grace = next(user for user in document["users"] if user["username"] == "grace")
    assert grace["links"] == [{"issuer": ELSEWHERE, "subject": "248289761001"}]


async def test_used_codes_and_apps_nobody_confirmed_stay_behind(full):
    await take_second_step(full.provider, recovery_code=full.codes[0])
    await full.provider.add_user("eve")
    other = await full.provider.browser()
    await other.sign_in("eve")
    await other.open(SECURITY)
    await other.submit(action=f"{SECURITY}/app")
    people = await full.people()
    assert len(people["ada"]["recovery_codes"]) == len(full.codes) - 1
    assert not people["eve"].keys() & set(OF_FACTORS)


async def test_passkeys_are_for_one_host_and_one_id(full, install):
    ada = (await full.people())["ada"]
    for name, at, changes, why in (
        ("elsewhere", "http://127.0.0.1:8001", {}, "it is for localhost"),
        ("renamed", ISSUER, {"id": None}, "it is for their id None"),
    ):
        async with install(name, auth_url=at) as provider:
            other = Installation(provider, await provider.admin_token())
            (item,) = (await other.load(DOCUMENT | {"users": [ada | changes]}))["items"]
            assert item["outcome"] == "created"
            assert f"My phone stays behind: {why}" in item["why"]
            taken = (await other.people())["ada"]
            assert "passkeys" not in taken
            assert taken["authenticator_secret"] == full.app


@pytest.mark.parametrize("changes", [{"public_key": "AAAA"}, {"credential_id": "A"}, {"public_key": "A"}])
async def test_what_is_no_passkey_stays_behind_and_holds_nobody_up(full, install, changes):
    ada = (await full.people())["ada"]
    ada["passkeys"] = [ada["passkeys"][0] | changes, ada["passkeys"][0] | {"name": "Key"}]
    async with install("other") as provider:
        other = Installation(provider, await provider.admin_token())
        (item,) = (await other.load(DOCUMENT | {"users": [ada]}))["items"]
        assert (item["outcome"], item["why"].startswith("My phone stays behind: ")) == ("created", True)
        assert [each["name"] for each in (await other.people())["ada"]["passkeys"]] == ["Key"]


@pytest.mark.parametrize("length", [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 32])
async def test_the_secret_of_an_app_is_one_or_is_refused(install, length):
    """It has 112 bits, and Base32 has no text of some lengths: a second step of theirs would be an error, ever."""
    async with install("target") as provider:
        target = Api(provider, await provider.admin_token())
        await provider.add_user("ada")
        person = {"username": "ada", "authenticator_secret": "A" * length}
        document = json.dumps(DOCUMENT | {"users": [person]})
        answer = await provider.http.post("/v1/admin/import", content=document, headers=target.headers)
        assert answer.status_code == (200 if length in (23, 24, 26, 32) else 422)
        if answer.is_success:
            browser = await take_second_step(provider, code=pyotp.TOTP("A" * length).now())
            assert "Your account" in browser.page.text


async def test_a_passkey_of_somebody_else_here_is_not_taken_from_them(full):
    eve = (await full.people())["ada"] | {"id": "eve", "username": "eve", "links": []}
    (item,) = (await full.load(DOCUMENT | {"users": [eve]}))["items"]
    assert (item["outcome"], "is known here already" in item["why"]) == ("created", True)
    assert "ada" in (await sign_in_with(full.provider, full.passkey)).text


async def test_who_has_a_factor_here_keeps_just_that(full):
    """An older document brings back neither a passkey that was taken away nor a code that was used."""
    ada = (await full.people())["ada"]
    browser = await take_second_step(full.provider, recovery_code=full.codes[0])
    page = await browser.open(SECURITY)
    assert "My phone" in page.text
    passkey = page.text.split('name="passkey" value="')[1].split('"')[0]
    await browser.submit(action=f"{SECURITY}/passkeys/remove", passkey=passkey)
    (item,) = (await full.load(DOCUMENT | {"users": [ada]}))["items"]
    assert item["outcome"] == "unchanged"
    now = (await full.people())["ada"]
    assert "passkeys" not in now
    assert len(now["recovery_codes"]) == len(full.codes) - 1


async def test_an_upstream_is_made_only_with_its_secret_and_changed_with_or_without(full, install, subtests):
    document = DOCUMENT | {"upstreams": (await full.export())["upstreams"]}
    with_secret = DOCUMENT | {"upstreams": (await full.export(secrets=True))["upstreams"]}
    changed = {"name": "Renamed", "domains": [], "makes_accounts": False}
    async with install("other") as provider:
        other = Installation(provider, await provider.admin_token())
        (item,) = (await other.load(document))["items"]
        assert (item["outcome"], "evs admin upstream create" in item["why"]) == ("refused", True)
        assert (await other.load(with_secret))["items"][0]["outcome"] == "created"
        for given, outcome in (
            (document, "unchanged"),
            (DOCUMENT | {"upstreams": [document["upstreams"][0] | changed]}, "changed"),
            (DOCUMENT | {"upstreams": [with_secret["upstreams"][0] | changed | {"client_secret": "new"}]}, "changed"),
            (DOCUMENT | {"upstreams": [document["upstreams"][0] | {"issuer": "https://evil.example"}]}, "refused"),
            (
                DOCUMENT | {"upstreams": [with_secret["upstreams"][0] | {"id": "b", "issuer": "http://b.test"}]},
                "refused",
            ),
            (DOCUMENT | {"upstreams": [document["upstreams"][0] | {"scopes": "email"}]}, "refused"),
        ):
            with subtests.test(given=given):
                assert (await other.load(given))["items"][0]["outcome"] == outcome
        (kept,) = (await other.export(secrets=True))["upstreams"]
        assert kept == with_secret["upstreams"][0] | changed | {"client_secret": "new"}


async def test_no_secret_of_the_document_is_in_the_rows_as_it_is(full, install):
    document = without_administrator(await full.export(secrets=True))
    async with install("other") as provider:
        other = Installation(provider, await provider.admin_token())
        await other.load(document)
        content = (provider.settings.data.parent.parent / "other.db").read_bytes()
        for secret in (full.app, "their secret"):
            assert secret.encode() not in content
        ada = await provider.service.database.read(accounts.find_by_username, "ada")
        rows = select(recovery_codes).where(recovery_codes.c.user_id == ada.id)
        kept = await provider.service.database.read(lambda connection: connection.execute(rows).all())
        assert len(kept) == len(full.codes)


async def test_a_document_from_before_somebody_was_deleted_brings_them_back_under_another_id(full):
    document = await full.export(secrets=True)
    before = (await full.people())["ada"]["id"]
    await full.call("DELETE", "/users/ada", status=204)
    report = await full.load(document)
    assert [item for item in report["items"] if item["outcome"] == "refused"] == []
    assert (await full.people())["ada"]["id"] != before
    browser = await full.provider.browser()
    assert "One more step" in (await browser.sign_in("ada")).text


async def test_two_who_import_one_document_at_once_make_one_of_each(full):
    people = [{"username": f"person{number}", "roles": ["member"]} for number in range(30)]
    reports = await asyncio.gather(*(full.load(DOCUMENT | {"users": people}) for _ in range(2)))
    outcomes = Counter(item["outcome"] for report in reports for item in report["items"])
    assert outcomes["created"] == 30
    assert outcomes["unchanged"] + outcomes["refused"] == 30  # refused: the other one was in the middle of it
