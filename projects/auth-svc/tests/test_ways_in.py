"""Every way into an account, for every state an account can be in: which of them open is a table."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from lying_provider import BODY, ELSEWHERE, Liar, journey, speak_to
from software_passkey import ISSUER, SoftwarePasskey, options_of
from sqlalchemy import insert, update

from auth_svc.people import accounts, mail_links, own_data, recovery
from auth_svc.people.addresses import email_key
from auth_svc.people.mail_links import MailLink
from auth_svc.rate_limits import Limit
from auth_svc.tables import upstream_links, users
from lib_auth.client import DEVICE_GRANT

PASSWORD = "correct horse battery staple"
SECURITY, SIGN_IN, ADD = "/account/security", "/login/passkey", "/account/security/passkeys"


@dataclass
class Ada:
    """Somebody with everything an account can have, all of it from before the account came into its state."""

    provider: Any
    id: str
    name: str
    browser: Any  # signed in
    passkey: SoftwarePasskey
    codes: list[str]
    tokens: dict[str, Any]
    code: str
    device: dict[str, Any]
    link: str  # of a mail
    liar: Liar
    half: Any  # a browser that has shown the password and is asked for more


async def full_grown(provider, name):
    """Make somebody, and let them sign in in every way there is."""
    account = await provider.add_user(name, email=f"{name}@home.test")
    link = {"issuer": ELSEWHERE, "subject": name, "user_id": account.id, "linked_at": 1}
    await provider.service.database.transact(lambda connection: connection.execute(insert(upstream_links).values(link)))
    browser, passkey = await provider.browser(), SoftwarePasskey()
    await browser.sign_in(name)
    page = await browser.open(SECURITY)
    await browser.submit(action=ADD, credential=passkey.create(options_of(page, ADD)), name="Phone")
    codes = browser.recovery_codes()
    tokens = (await provider.redeem(provider.answer(await provider.authorize(browser))["code"])).json()
    code = provider.answer(await provider.authorize(browser))["code"]
    asked = {"client_id": "evs-cli", "scope": "openid workflows:run"}
    device = (await provider.post("/oauth2/device_authorization", asked)).json()
    await browser.open(device["verification_uri_complete"])
    await browser.submit()
    assert "Connected" in (await browser.submit(decision="allow")).text
    address = MailLink(account.id, account.email, email_key(account.email))
    mailed = await provider.service.database.transact(mail_links.issue, "recover", address, provider.actor().at)
    half = await provider.browser()
    assert "One more step" in (await half.sign_in(name)).text
    liar = speak_to(provider, Liar(claims={"sub": name}))
    return Ada(provider, account.id, name, browser, passkey, codes, tokens, code, device, mailed, liar, half)


async def by_password(ada):
    page = await (await ada.provider.browser()).sign_in(ada.name)
    return "One more step" in page.text or "Your account" in page.text


async def by_password_in_a_known_browser(ada):
    await ada.browser.open("/login")
    page = await ada.browser.submit(action="/login", username=ada.name, password=PASSWORD)
    return "One more step" in page.text or "Your account" in page.text


async def by_the_second_step_of_before(ada):
    return "Your account" in (await ada.half.submit(form=-1, recovery_code=ada.codes[0])).text


async def by_passkey(ada):
    browser = await ada.provider.browser()
    page = await browser.open("/login")
    answer = ada.passkey.get(options_of(page, SIGN_IN))
    return "Your account" in (await browser.submit(action=SIGN_IN, credential=answer)).text


async def by_another_provider(ada):
    page = await journey(ada.provider, ada.liar)
    return "One more step" in page.text or "Your account" in page.text


async def by_the_link_of_a_mail(ada):
    browser = await ada.provider.browser()
    page = await browser.open(f"/recover/new-password?link={ada.link}")
    if page.status_code == 410:
        return False
    return "The password is changed" in (await browser.submit(new_password="a quite different phrase")).text


async def by_the_session_of_before(ada):
    return "Your account" in (await ada.browser.open("/account")).text


async def by_a_code_of_before(ada):
    return (await ada.provider.redeem(ada.code)).is_success


async def by_the_refresh_token_of_before(ada):
    return (await ada.provider.refresh(ada.tokens["refresh_token"])).is_success


async def by_the_access_token_of_before(ada):
    return (await ada.provider.introspect(ada.tokens["access_token"]))["active"]


async def by_a_device_of_before(ada):
    form = {"grant_type": DEVICE_GRANT, "device_code": ada.device["device_code"], "client_id": "evs-cli"}
    return (await ada.provider.token(None, **form)).is_success


WAYS = {
    way.__name__.removeprefix("by_"): way
    for way in (
        *(by_password, by_password_in_a_known_browser, by_the_second_step_of_before, by_passkey, by_another_provider),
        *(by_the_link_of_a_mail, by_the_session_of_before, by_a_code_of_before, by_the_refresh_token_of_before),
        *(by_the_access_token_of_before, by_a_device_of_before),
    )
}
ANEW = {"password", "password_in_a_known_browser", "passkey", "another_provider"}
OF_BEFORE = WAYS.keys() - ANEW - {"the_link_of_a_mail", "the_second_step_of_before"}


def set_to(**values):
    async def act(ada):
        change = update(users).where(users.c.id == ada.id).values(values)
        await ada.provider.service.database.transact(lambda connection: connection.execute(change))

    return act


def done_by(command, *more):
    async def act(ada):
        await ada.provider.service.database.transact(command, ada.id, *more, ada.provider.actor())

    return act


async def disabled_and_enabled(ada):
    for command in (accounts.disable, accounts.enable):
        await done_by(command)(ada)


async def recovered(ada):
    kept = await ada.provider.service.passwords.hash("yet another phrase")
    await ada.provider.service.database.transact(recovery.recover, ada.link, kept, ada.provider.actor())


async def signed_out_everywhere(ada):
    await ada.browser.open("/account")
    other = await ada.provider.browser()
    page = await other.open("/login")
    await other.submit(action=SIGN_IN, credential=ada.passkey.get(options_of(page, SIGN_IN)))
    await other.open("/account/sessions")
    await other.submit(form=-1)


# As one that came from elsewhere and has not signed in since.
DERIVED = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"salt", 1000)
IMPORTED = "pbkdf2_sha256$1000$salt$" + base64.b64encode(DERIVED).decode()

STATES = {
    "as it is": (set_to(name="Ada"), WAYS.keys()),
    "disabled": (done_by(accounts.disable), set()),
    "deleted": (done_by(own_data.delete_account), set()),
    # It begins anew: nothing of before comes back with it.
    "disabled and enabled": (disabled_and_enabled, ANEW),
    "recovered": (recovered, {"passkey", "another_provider"}),
    "signed out everywhere else": (
        signed_out_everywhere,
        ANEW | {"the_link_of_a_mail", "the_second_step_of_before"},
    ),
    "of an address that is not proven": (set_to(email_verified_at=None), WAYS.keys() - {"the_link_of_a_mail"}),
    "imported": (set_to(password_hash=IMPORTED), WAYS.keys()),
    "without a password": (
        set_to(password_hash=None),
        WAYS.keys() - {"password", "password_in_a_known_browser"},
    ),
    "guessed at": (set_to(wrong_passwords=100), WAYS.keys() - {"password"}),
}


async def test_the_ways_into_an_account(tmp_path, sqlite_url, run_provider, subtests):
    async with run_provider(tmp_path, sqlite_url, auth_url=ISSUER) as provider:
        admin = {"authorization": f"Bearer {await provider.admin_token()}"}
        assert (await provider.http.post("/v1/admin/upstreams", json=BODY, headers=admin)).is_success
        replace_limits(provider)
        for number, (state, (become, opens)) in enumerate(STATES.items()):
            found = set()
            for way, enter in WAYS.items():
                ada = await full_grown(provider, f"ada{number}.{way}")
                await become(ada)
                if await enter(ada):
                    found.add(way)
            with subtests.test(state):
                assert found == set(opens)


def replace_limits(provider):
    """All of them come from one address, which is not what this is about."""
    for name in ("devices", "upstreams", "passkeys"):
        getattr(provider.service.limits, name)._limit = Limit(10_000, 1)
    for limits in (provider.service.limits.sign_ins, provider.service.limits.second_factors):
        limits._address._limit = Limit(10_000, 1)
