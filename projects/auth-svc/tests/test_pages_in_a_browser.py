"""The pages in a real browser: policies that hold, focus, labels, both themes, a narrow screen."""

import re
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from lib_auth.client import code_challenge
from lib_events.testing import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
PASSWORD = "correct horse battery staple"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
UNLABELLED = """() => [...document.querySelectorAll('input:not([type=hidden]):not([hidden]), button')]
    .filter(e => !(e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"""

# Texts whose contrast with what is behind them is less than 4.5 to 1 (WCAG 2.2, 1.4.3).
LOW_CONTRAST = """() => {
    const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = parse(getComputedStyle(e).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll('main *')]
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.offsetParent)
        .map(e => {
            const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(behind(e))];
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML];
        })
        .filter(([ratio]) => ratio < 4.5);
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium):
    """A headless Chromium; each test has a context of its own."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        await launched.close()


class _Client(BaseHTTPRequestHandler):
    """What a program on a person's machine does with the answer: it says who it is."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the client")

    def do_POST(self):
        posted = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the client was posted " + posted)

    def log_message(self, *_):
        """Nobody reads it."""


class _OnIpv6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def listening(port=0, *, host="127.0.0.1"):
    """A client that waits on loopback to be called back; yields its port."""
    kind = _OnIpv6 if ":" in host else ThreadingHTTPServer
    try:
        server = kind((host, port), _Client)
    except OSError as error:
        pytest.skip(f"needs {host}: {error}")
    with server:
        Thread(target=server.serve_forever).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.fixture
def client():
    """The URL of a client that waits to be called back."""
    with listening() as port:
        yield f"http://127.0.0.1:{port}"


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
async def test_a_person_gets_from_the_sign_in_to_the_client(server, client, browser, theme, width):
    context = await browser.new_context(color_scheme=theme, viewport={"width": width, "height": 800})
    page = await context.new_page()
    violations = []
    page.on("console", lambda message: violations.append(message.text) if "Security" in message.text else None)

    async def check():
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate(UNLABELLED) == []
        assert await page.locator("[hidden] >> visible=true").count() == 0
        assert await page.title()
        assert await page.locator("h1").count() == 1

    await page.goto(request_of(server.auth_url, "evs-cli", f"{client}/callback"))
    await check()
    assert await page.evaluate("document.activeElement.name") == "username"
    assert await page.get_attribute("#password", "autocomplete") == "current-password"
    await page.keyboard.type("admin")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=Allow access?")
    await check()
    await page.click("button[value=allow]")
    await page.wait_for_selector("text=the client")
    assert page.url.startswith(f"{client}/callback?code=")
    await page.goto(f"{server.auth_url}/account")
    await check()
    assert violations == []
    await context.close()


async def test_making_an_account_leads_on_to_the_client(open_server, browser):
    page = await browser.new_page()
    await page.goto(request_of(open_server.auth_url, "evs-gui", f"{open_server.gui_url}/callback"))
    await page.click("text=Make one")
    await page.fill("#username", "mary")
    await page.fill("#password", "too short")
    await page.evaluate("document.querySelector('#password').removeAttribute('minlength')")
    await page.click("button")
    await page.fill("#password", PASSWORD)
    with listening(urlsplit(open_server.gui_url).port):
        await page.click("button")
        await page.wait_for_selector("text=the client")
    assert page.url.startswith(f"{open_server.gui_url}/callback?code=")
    await page.context.close()


async def test_a_consent_leads_on_to_an_ipv6_address(server, browser):
    page = await browser.new_page()
    with listening(host="::1") as port:
        await page.goto(request_of(server.auth_url, "evs-cli", f"http://[::1]:{port}/callback"))
        await sign_in(page)
        await page.click("button[value=allow]")
        await page.wait_for_selector("text=the client")
    assert page.url.startswith(f"http://[::1]:{port}/callback?code=")
    await page.context.close()


@pytest.mark.parametrize(("username", "theme", "width"), [("grace", "light", 390), ("ida", "dark", 1200)])
async def test_a_person_looks_after_their_account_without_scripts(open_server, browser, username, theme, width):
    context = await browser.new_context(
        color_scheme=theme, viewport={"width": width, "height": 800}, java_script_enabled=False
    )
    page, url = await context.new_page(), open_server.auth_url
    await page.goto(f"{url}/register")
    await page.fill("#username", username)
    await page.fill("#name", f"{username} at home")
    await page.fill("#email", f"{username}@navy.test")
    await page.fill("#password", PASSWORD)
    await page.click("button")
    link = await mailed_link(open_server, "verify", username)
    await page.goto(link)
    await page.click("text=Confirm the address")
    await page.click("text=Go to your account")
    await page.wait_for_selector("text=confirmed")
    for section in ("Devices", "Apps", "Your data", "Profile"):
        await page.click(f".sections >> text={section}")
        assert await page.text_content(".sections [aria-current=page]") == section
    await page.click("text=Change your password")
    assert await page.get_attribute("#new_password", "autocomplete") == "new-password"
    await page.goto(f"{url}/recover")
    await page.fill("#wanted", username)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=Look at your mails")
    await page.goto(await mailed_link(open_server, "recover", username))
    await page.fill("#new_password", "another long enough password")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=The password is changed")
    await page.click("text=Sign in")
    await page.fill("#username", username)
    await page.fill("#password", "another long enough password")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(f"text={username} at home")
    await context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_page_of_the_account_fits_and_can_be_read(server, browser, theme, subtests):
    context = await browser.new_context(color_scheme=theme, viewport={"width": 390, "height": 800})
    page = await context.new_page()
    await page.goto(f"{server.auth_url}/login")
    await sign_in(page)
    await page.wait_for_selector("text=Your account")
    for path in ("", "/security", "/sessions", "/apps", "/data"):
        with subtests.test(path):
            await page.goto(f"{server.auth_url}/account{path}")
            await page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390
            assert await page.evaluate(UNLABELLED) == []
            assert await page.evaluate(LOW_CONTRAST) == []
            assert await page.locator("h1").count() == 1
            await page.evaluate("document.documentElement.style.fontSize = '200%'")  # WCAG 2.2, 1.4.4
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    for path in ("/recover", "/register"):
        with subtests.test(path):
            await page.goto(server.auth_url + path)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390
            assert await page.evaluate(LOW_CONTRAST) == []
    await context.close()


async def mailed_link(server, kind, username):
    """Where the link of a mail of a kind to somebody leads."""

    def received():
        mails = [path.read_text() for path in sorted(server.mails.glob(f"*-{kind}-*.eml"))]
        return [mail for mail in mails if f"To: {username}@" in mail]

    return re.search(r"http://\S+", (await wait_until(received))[-1])[0]


@pytest.mark.parametrize("scripted", [True, False], ids=["by a script", "by a press"])
async def test_an_answer_is_posted_to_the_client(server, client, browser, scripted):
    page = await (await browser.new_context(java_script_enabled=scripted)).new_page()
    await page.goto(request_of(server.auth_url, "evs-cli", f"{client}/callback") + "&response_mode=form_post")
    await sign_in(page)
    await page.click("button[value=allow]")
    if not scripted:
        await page.click("button")
    await page.wait_for_url(f"{client}/callback")
    assert re.search(r"the client was posted code=[\w-]+&state=s&iss=http", await page.inner_text("body"))
