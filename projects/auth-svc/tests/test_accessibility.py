"""Every page, in both themes, without a finding of axe (WCAG 2.2 A and AA)."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

import pytest
from playwright.async_api import async_playwright

from auth_svc.factors.held import Factors
from auth_svc.factors.passkeys import Passkey
from auth_svc.pages.consent import Asked, device_confirmation_page
from auth_svc.pages.mailed import new_password_page, verification_page
from auth_svc.pages.notices import done_page, error_page
from auth_svc.pages.second_factor import second_factor_page
from auth_svc.pages.security import app_page, recovery_codes_page, security_page
from auth_svc.pages.sign_in import registration_page, sign_in_page
from auth_svc.pages.upstream import connect_page, other_account_page
from auth_svc.upstreams.arrivals import WaitingArrival
from auth_svc.upstreams.providers import Arrival, Upstream
from lib_auth.client import code_challenge
from lib_events.testing.npm import node_modules

pytestmark = pytest.mark.browser
FOREIGN = Path(__file__).parent / "foreign"
PASSWORD = "correct horse battery staple"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FINDINGS = """async tags => (await axe.run(document, {runOnly: tags})).violations
    .map(found => [found.id, found.help, found.nodes.map(node => node.html)])"""
CONSENT = {
    "response_type": "code",
    "client_id": "evs-cli",
    "redirect_uri": "http://127.0.0.1:9/callback",
    "scope": "openid workflows:read",
    "code_challenge": code_challenge("v" * 60),
    "code_challenge_method": "S256",
}
ACTING = {"client": "evs-app", "scope": "workflows:read", "resource": "http://127.0.0.1:8002"}
BEFORE = {
    "sign in": "/login",
    "sign in for somebody": f"/login?next={quote('/oauth2/authorize?' + urlencode(CONSENT), safe='')}",
    "register": "/register",
    "recover": "/recover",
    "signed out": "/oauth2/logout",
    "nothing there": "/nothing",
    "a wrong request": "/oauth2/authorize?client_id=nobody",
    "a link that is spent": "/recover/new-password?link=x",
}
AFTER = {
    "profile": "/account",
    "security": "/account/security",
    "devices": "/account/sessions",
    "apps": "/account/apps",
    "allow acting for one": f"/account/apps/allow?{urlencode(ACTING)}",
    "data": "/account/data",
    "consent": f"/oauth2/authorize?{urlencode(CONSENT)}",
    "device": "/device",
    "sign out": "/oauth2/logout",
}

COMPANY = Upstream("company", "Company", "https://id.example", "us", b"", "openid", True, (), 0)
SCHOOL = replace(COMPANY, id="school", name="School", issuer="https://id.school.example")
WAITING = WaitingArrival(COMPANY, Arrival(COMPANY.issuer, "1", "grace", "grace@navy.test"), "/account")
KEYS = [Passkey(name, "u", b"", b"", 0, name, True, 0, None) for name in ("My phone", "My desk")]
EVERY_FACTOR = Factors(app=True, passkeys=2, recovery_codes=2)
WRONG = "That is wrong; here is what to do about it."
DRAWN = {  # pages on a way that takes another provider, a second factor, a mail or a mistake: drawn, and served
    "prove that an account is yours": sign_in_page(csrf="x", way_on="/login/connect", waiting=WAITING),
    "connect another provider": connect_page(csrf="x", waiting=WAITING, username="hopper"),
    "a device that asks": device_confirmation_page(
        csrf="x",
        user_code="BCDF-GHJK",
        client="evs command line",
        username="ada",
        asked=Asked(datetime(2026, 1, 1, tzinfo=UTC), 3, "2001:db8:1234:5678:9abc:def0:1234:5678", is_here=False),
        scopes=["openid", "workflows:run"],
        is_registered=True,
    ),
    "another account has the address": other_account_page(csrf="x", waiting=WAITING, username="ada"),
    "a wrong password": sign_in_page(csrf="x", way_on="/account", username="ada", error=WRONG, upstreams=[COMPANY]),
    "a registration with mistakes": registration_page(
        csrf="x",
        way_on="/account",
        typed={"username": "ada", "email": "x"},
        errors=dict.fromkeys(("username", "name", "email", "password"), WRONG),
        shortest=12,
    ),
    "second step": second_factor_page(csrf="x", factors=EVERY_FACTOR, passkey_options="{}", error=WRONG),
    "second step that is stopped": second_factor_page(csrf="x", factors=Factors(), error=WRONG, strengthens=True),
    "set up an app": app_page(csrf="x", uri="otpauth://totp/x?secret=ABCD", secret="ABCDEFGH", error=WRONG),
    "recovery codes": recovery_codes_page(codes=["ABCD-EFGH-IJKL-MNOP"] * 2, done="It is set up."),
    "security with everything": security_page(
        csrf="x",
        factors=EVERY_FACTOR,
        passkeys=KEYS,
        passkey_options="{}",
        upstreams=[COMPANY, SCHOOL, replace(SCHOOL, id="club", name="Club", issuer="https://id.club.example")],
        linked=frozenset((COMPANY.issuer,)),
        error=WRONG,
    ),
    "confirm an address": verification_page(csrf="x", secret="s", email="ada@home.test", username="ada"),
    "a new password with a mistake": new_password_page(csrf="x", secret="s", username="ada", shortest=12, error=WRONG),
    "done": done_page("Look at your mails", "A mail is on its way.", way_on=("/login", "Back to the sign-in")),
    "an error": error_page("Too many attempts", "Wait a minute.", code="busy"),
}


DRAWN_ONCE = {name: str(page) for name, page in DRAWN.items()}
BUTTONS = """() => [...document.querySelectorAll('button')].map(b => b.getAttribute('aria-label') || b.innerText)"""


def drawn(route):
    return DRAWN_ONCE[unquote(route.request.url).rpartition("/")[2]]


@pytest.fixture
def axe():
    """The source of axe-core."""
    return (node_modules(FOREIGN) / "axe-core" / "axe.min.js").read_text()


async def test_axe_finds_nothing(serve, axe, chromium, subtests):
    with serve(EVS_REGISTRATION="open") as settings:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = await browser.new_page(base_url=settings.auth_url, reduced_motion="reduce")

            async def look_at(pages):
                for name, path in pages.items():
                    await page.goto(path)
                    await page.evaluate(axe)
                    for theme in ("light", "dark"):
                        with subtests.test(name, theme=theme):
                            await page.emulate_media(color_scheme=theme)
                            assert await page.evaluate(FINDINGS, TAGS) == []

            await page.set_content("<img src=x>")
            await page.evaluate(axe)
            assert await page.evaluate(FINDINGS, TAGS) != []  # it looks at all
            await look_at(BEFORE)
            await page.goto("/login")
            await page.fill("[name=username]", "admin")
            await page.fill("[name=password]", PASSWORD)
            await page.click("button:text('Sign in')")
            await page.wait_for_url("**/account")
            await look_at(AFTER)
            await page.route("**/drawn/*", lambda route: route.fulfill(content_type="text/html", body=drawn(route)))
            await look_at({name: f"/drawn/{quote(name)}" for name in DRAWN})
            await page.goto(f"/drawn/{quote('security with everything')}")
            names = Counter(await page.evaluate(BUTTONS))
            assert max(names.values()) == 1, "whoever hears the buttons alone knows what each is for"
            await browser.close()
