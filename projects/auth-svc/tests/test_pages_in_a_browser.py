"""The pages in a real browser: policies that hold, focus, labels, both themes, a narrow screen."""

import re
import shutil
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from lib_auth.client import code_challenge
from lib_events.testing import missing

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
PASSWORD = "correct horse battery staple"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
UNLABELLED = """() => [...document.querySelectorAll('input:not([type=hidden]):not([hidden]), button')]
    .filter(e => !(e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    """A headless Chromium; each test has a context of its own."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("Chromium: install the package chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


def request_of(issuer, client_id, redirect_uri):
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": "openid workflows:read",
        "state": "s",
        "code_challenge": code_challenge("v" * 50),
        "code_challenge_method": "S256",
    }
    return f"{issuer}/oauth2/authorize?{urlencode(query)}"


async def sign_in(page):
    await page.fill("#username", "admin")
    await page.fill("#password", PASSWORD)
    await page.click("button")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
async def test_a_person_gets_from_the_sign_in_to_the_client(server, chromium, theme, width):
    context = await chromium.new_context(color_scheme=theme, viewport={"width": width, "height": 800})
    page = await context.new_page()
    violations = []
    page.on("console", lambda message: violations.append(message.text) if "Security" in message.text else None)

    async def check():
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate(UNLABELLED) == []
        assert await page.locator("[hidden] >> visible=true").count() == 0
        assert await page.title()
        assert await page.locator("h1").count() == 1

    await page.goto(request_of(server.auth_url, "evs-cli", "http://127.0.0.1:45678/callback"))
    await check()
    assert await page.evaluate("document.activeElement.name") == "username"
    assert await page.get_attribute("#password", "autocomplete") == "current-password"
    await page.keyboard.type("admin")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=Allow access?")
    await check()
    await page.route("http://127.0.0.1:45678/**", lambda route: route.fulfill(body="the client"))
    await page.click("button[value=allow]")
    await page.wait_for_url("http://127.0.0.1:45678/callback*")
    assert "code=" in page.url
    await page.goto(f"{server.auth_url}/account")
    await check()
    assert violations == []
    await context.close()


async def test_making_an_account_leads_on_to_the_client(serve, chromium):
    with serve(EVS_REGISTRATION="true") as server:
        page = await chromium.new_page()
        await page.route(f"{server.gui_url}/**", lambda route: route.fulfill(body="the client"))
        await page.goto(request_of(server.auth_url, "evs-gui", f"{server.gui_url}/callback"))
        await page.click("text=Make one")
        await page.fill("#username", "grace")
        await page.fill("#password", "too short")
        await page.evaluate("document.querySelector('#password').removeAttribute('minlength')")
        await page.click("button")
        await page.fill("#password", PASSWORD)
        await page.click("button")
        await page.wait_for_url(f"{server.gui_url}/callback*", timeout=10_000)


async def test_a_consent_leads_on_to_an_ipv6_address(server, chromium):
    page = await chromium.new_page()
    await page.route(re.compile(r"http://\[::1]:45678/"), lambda route: route.fulfill(body="the client"))
    await page.goto(request_of(server.auth_url, "evs-cli", "http://[::1]:45678/callback"))
    await sign_in(page)
    await page.click("button[value=allow]")
    await page.wait_for_url(re.compile(r"http://\[::1]:45678/callback"), timeout=10_000)
