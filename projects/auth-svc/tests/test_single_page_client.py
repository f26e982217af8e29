"""oidc-client-ts from npm, unmodified, in a page without a server in a real browser, which holds it to CORS."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect

from lib_events.testing.npm import node_modules

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
FOREIGN = Path(__file__).parent / "foreign"
LIBRARY = "oidc-client-ts/dist/browser/oidc-client-ts.min.js"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PASSWORD = "correct horse battery staple"
SCOPE = "openid profile workflows:read"
PATIENCE = 20_000  # ms: a busy machine is slow, and that is not what is tested
USER = "async () => ({ ...(await manager.getUser()) })"
RENEWED = """async () => {
    const before = (await manager.getUser()).access_token;
    const user = await manager.signinSilent();
    return user.access_token !== before && user.profile.preferred_username;
}"""
BY_A_FRAME = "manager.signinSilent({ forceIframeAuth: true })"


class Pages(ThreadingHTTPServer):
    """A server of files that knows nothing of people: the page is the client."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Files)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.settings = {}


class _Files(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self):
        kind, content = "text/html", (FOREIGN / "single_page.html").read_bytes()
        if self.path == "/oidc-client-ts.js":
            kind, content = "text/javascript", (node_modules(FOREIGN) / LIBRARY).read_bytes()
        if self.path == "/settings.json":
            kind, content = "application/json", json.dumps(self.server.settings).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nobody reads it."""


def registered(issuer: str, origin: str, *, bound: bool) -> dict[str, Any]:
    """Register the page as a public client (RFC 7591), and return what it has to know."""
    wanted = {
        "client_name": "A page",
        "redirect_uris": [f"{origin}/", f"{origin}/silent"],
        "post_logout_redirect_uris": [f"{origin}/"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": SCOPE,
        "dpop_bound_access_tokens": bound,
    }
    answer = httpx.post(f"{issuer}/oauth2/register", json=wanted, verify=False)
    assert answer.status_code == 201, answer.text
    return {"authority": issuer, "client_id": answer.json()["client_id"], "scope": SCOPE, "bound": bound}


def refreshed(known: dict[str, Any], refresh_token: str) -> str | None:
    """The error of somebody who has only the refresh token."""
    sent = {"grant_type": "refresh_token", "client_id": known["client_id"], "refresh_token": refresh_token}
    return httpx.post(f"{known['authority']}/oauth2/token", data=sent, verify=False).json().get("error")


@pytest.fixture
def pages() -> Iterator[Pages]:
    serving = Pages()
    thread = Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest_asyncio.fixture(loop_scope="module")
async def page(chromium):
    """A page of a headless Chromium that has seen nobody."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = await browser.new_page()
        opened.set_default_timeout(PATIENCE)
        yield opened
        await browser.close()


async def sign_in(page, origin, *, ends_as="signed in as admin"):
    await page.goto(origin)
    await expect(page.locator("#state")).to_have_text("ready", timeout=PATIENCE)
    await page.evaluate("void manager.signinRedirect()")
    await page.fill("#username", "admin")
    await page.fill("#password", PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await page.get_by_role("button", name="Allow").click()
    await expect(page.locator("#state")).to_have_text(ends_as, timeout=PATIENCE)


@contextmanager
def opened(serve, pages: Pages, *, bound: bool = False, **variables) -> Iterator[None]:
    """An AuthService and the page as its client; `bound` its tokens are of no use without its key (RFC 9449)."""
    with serve(EVS_CLIENT_REGISTRATION="open", **variables) as settings:
        pages.settings = registered(settings.auth_url, pages.origin, bound=bound)
        yield


@pytest.mark.parametrize("bound", [False, True], ids=["bearer", "DPoP"])
async def test_a_page_signs_in_renews_silently_and_signs_out(serve, page, pages, bound):
    with opened(serve, pages, bound=bound, EVS_CORS_ORIGINS=pages.origin):
        await sign_in(page, pages.origin)
        user = await page.evaluate(USER)
        assert user["token_type"] == ("DPoP" if bound else "Bearer")
        assert await page.evaluate(RENEWED) == "admin", "by the refresh token"
        with pytest.raises(Exception, match="The person has to be asked"):  # RFC 8252 section 8.6: it is on loopback
            await page.evaluate(BY_A_FRAME)
        kept = (await page.evaluate(USER))["refresh_token"]
        await page.evaluate("manager.revokeTokens(['refresh_token'])")
        assert bound or refreshed(pages.settings, kept) == "invalid_grant"
        await page.evaluate("void manager.signoutRedirect({ state: 'leaving' })")
        await expect(page.locator("#state")).to_have_text("signed out", timeout=PATIENCE)
        await page.evaluate("void manager.signinRedirect()")
        await expect(page.locator("#password")).to_be_visible()  # the session at the provider has ended, too


async def test_a_page_of_an_origin_that_is_not_named_gets_no_tokens(serve, page, pages):
    with opened(serve, pages):
        await sign_in(page, pages.origin, ends_as="TypeError: Failed to fetch")
