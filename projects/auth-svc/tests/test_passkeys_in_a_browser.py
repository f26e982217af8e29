"""Passkeys in a real browser, with the virtual authenticator that its developer tools have."""

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
PASSWORD = "correct horse battery staple"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
expect.set_options(timeout=20_000)  # a busy machine is slow, and that is not what is tested
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium):
    """A headless Chromium; each test has a context of its own."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser):
    context = await browser.new_context()
    opened = await context.new_page()
    opened.violations = []
    opened.on("console", lambda message: opened.violations.append(message.text) if "Security" in message.text else None)
    yield opened
    assert opened.violations == []
    await context.close()


UNLABELLED = """() => [...document.querySelectorAll('input:not([type=hidden]):not([hidden]), button')]
    .filter(e => !(e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"""


async def look(page):
    """What holds for every page, on a phone, too: nothing sticks out, everything is labelled, one heading."""
    for width in (390, 1200):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert await page.evaluate(UNLABELLED) == []
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)


class Authenticator:
    """The developer tools' authenticator of one page."""

    def __init__(self, session, number):
        self.session = session
        self.number = number

    @classmethod
    async def of(cls, page):
        session = await page.context.new_cdp_session(page)
        await session.send("WebAuthn.enable", {"enableUI": False})
        added = await session.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
        return cls(session, added["authenticatorId"])

    async def send(self, command, **values):
        return await self.session.send(f"WebAuthn.{command}", {"authenticatorId": self.number} | values)


async def sign_in(page, url):
    await page.goto(f"{url}/login")
    await page.fill("#username", "admin")
    await page.fill("#password", PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def add_passkey(page, url):
    await sign_in(page, url)
    await page.goto(f"{url}/account/security")
    await page.fill("#name", "My laptop")
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keep these recovery codes")
    await look(page)
    await page.get_by_role("link", name="I have kept them").click()
    await expect(page.get_by_text("My laptop")).to_be_visible()
    await look(page)


async def sign_out(page, url):
    await page.goto(f"{url}/account")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")


async def test_a_passkey_is_added_and_signs_in_by_the_button_and_beside_the_user_name(serve, page):
    with serve(host="localhost") as server:
        url, authenticator = server.auth_url, await Authenticator.of(page)
        await add_passkey(page, url)
        await sign_out(page, url)
        # Nobody touches the authenticator: the offer beside the user name waits, and the button is pressed.
        await authenticator.send("setAutomaticPresenceSimulation", enabled=False)
        await page.goto(f"{url}/login")
        await expect(page.locator("#username")).to_have_attribute("autocomplete", "username webauthn")
        # A question that waits already is not answered by this; the next one is.
        await authenticator.send("setAutomaticPresenceSimulation", enabled=True)
        await page.get_by_role("button", name="Sign in with a passkey").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
        await sign_out(page, url)
        # Somebody chooses the passkey that the browser offers beside the user name.
        await page.goto(f"{url}/login")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your account")


async def test_a_passkey_is_the_second_step_and_a_refusal_says_what_to_do(serve, page):
    with serve(host="localhost") as server:
        url, authenticator = server.auth_url, await Authenticator.of(page)
        await add_passkey(page, url)
        await sign_out(page, url)
        await authenticator.send("setAutomaticPresenceSimulation", enabled=False)
        await sign_in(page, url)
        await expect(page.get_by_role("heading", level=1)).to_have_text("One more step")
        await look(page)
        await authenticator.send("setAutomaticPresenceSimulation", enabled=True)
        await page.get_by_role("button", name="Use your passkey").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
        # The passkey is gone from the device: the page says so, and other ways are left.
        await sign_out(page, url)
        await authenticator.send("clearCredentials")
        await sign_in(page, url)
        await page.get_by_role("button", name="Use your passkey").click()
        await expect(page.get_by_role("alert")).to_contain_text("Try again, or use another way.")
        await expect(page.get_by_text("Use a recovery code")).to_be_visible()


async def test_chromium_makes_no_passkeys_for_an_address(serve, page):
    """Why the page offers none: this is what its script would run into."""
    with serve() as server:
        await Authenticator.of(page)
        await page.goto(f"{server.auth_url}/login")
        name = await page.evaluate(
            """async () => {
                const user = { id: new Uint8Array(8), name: "x", displayName: "x" };
                const pubKeyCredParams = [{ type: "public-key", alg: -7 }], challenge = new Uint8Array(32);
                const publicKey = { rp: { id: location.hostname, name: "x" }, user, challenge, pubKeyCredParams };
                return navigator.credentials.create({ publicKey }).then(() => "made", (error) => error.name);
            }"""
        )
        assert name == "SecurityError"
        await expect(page.get_by_role("button", name="Sign in with a passkey")).to_have_count(0)


async def test_without_javascript_the_password_signs_in_as_before(serve, browser):
    with serve(host="localhost") as server:
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await sign_in(page, server.auth_url)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
        await page.goto(f"{server.auth_url}/account/security")
        await expect(page.get_by_role("button", name="Add a passkey")).to_have_count(0)
        await page.get_by_role("button", name="Set up").click()
        await expect(page.locator(".qr svg")).to_be_visible()
        assert await page.locator("#code").get_attribute("autocomplete") == "one-time-code"
        await context.close()
