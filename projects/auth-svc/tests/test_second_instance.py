"""Sign-in with a second real instance of this service."""

import html
import sqlite3
from contextlib import closing
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from argon2 import PasswordHasher
from lying_provider import linked

from auth_svc import first_start
from lib_auth.client import OAuthClient

ISSUER = "http://127.0.0.1:8001"
PASSWORD = "correct horse battery staple"


class RealBrowser:
    """A person's browser at the other instance."""

    def __init__(self, settings):
        self.settings = settings
        self.http = httpx.Client(base_url=settings.auth_url, headers={"origin": settings.auth_url})

    def sign_in(self, url, username="admin"):
        """Sign in on the way to a client; returns where the browser is sent with the answer."""
        page = self.http.get(url, follow_redirects=True)
        fields = {name: page.text.split(f'name="{name}" value="')[1].split('"')[0] for name in ("csrf", "next")}
        fields["next"] = fields["next"].replace("&amp;", "&")
        answer = self.http.post("/login", data=fields | {"username": username, "password": PASSWORD})
        while answer.headers["location"].startswith("/"):
            answer = self.http.get(answer.headers["location"])
            if answer.status_code == 200:  # the consent
                answer = self._allow(answer)
        return answer.headers["location"]

    def _allow(self, page):
        names = ("csrf", "request", "scope")
        fields = {name: page.text.split(f'name="{name}" value="')[1].split('"')[0] for name in names}
        fields["request"] = fields["request"].replace("&amp;", "&")
        return self.http.post("/consent", data=fields | {"decision": "allow"})


async def test_a_second_instance_of_this_service_signs_people_in(tmp_path, sqlite_url, run_provider, serve):
    with serve() as elsewhere:
        async with run_provider(tmp_path / "here", sqlite_url) as provider:
            there = RealBrowser(elsewhere)
            redirect_uri = f"{ISSUER}/login/upstream/second/callback"
            await make_friends(provider, there, redirect_uri)
            browser = await provider.browser()
            away = await browser.http.get("/login/upstream/second")
            location = there.sign_in(away.headers["location"])
            assert location.startswith(redirect_uri)
            page = await browser.open(location.removeprefix(ISSUER))
            assert "Your account" in page.text
            assert "admin2" in page.text, "the administrator there is nobody here"
            there.http.close()


async def test_a_second_instance_sends_somebody_who_has_an_account_here(tmp_path, sqlite_url, run_provider, serve):
    with serve() as elsewhere:
        async with run_provider(tmp_path / "here", sqlite_url) as provider:
            there = RealBrowser(elsewhere)
            redirect_uri = f"{ISSUER}/login/upstream/second/callback"
            await make_friends(provider, there, redirect_uri)
            hopper = await provider.add_user("hopper", email="grace@navy.test")
            for proven in (False, True):
                browser = await provider.browser()
                away = await browser.http.get("/login/upstream/second")
                there.http.cookies.clear()
                page = await browser.open(there.sign_in(away.headers["location"], "grace").removeprefix(ISSUER))
                assert ("You have an account here already" in page.text) is not proven
                if not proven:
                    await browser.submit(username="hopper", password=PASSWORD)
                    page = await browser.submit()
                assert "hopper" in page.text
            assert await linked(provider, hopper) == {elsewhere.auth_url}
            there.http.close()


async def test_a_second_instance_has_people_sign_in_anew_where_that_is_asked_for(
    tmp_path, sqlite_url, run_provider, serve
):
    with serve() as elsewhere:
        async with run_provider(tmp_path / "here", sqlite_url) as provider:
            there = RealBrowser(elsewhere)
            await make_friends(provider, there, f"{ISSUER}/login/upstream/second/callback")
            browser = await provider.browser()
            page = await provider.authorize(browser, prompt="login")
            link = html.unescape(page.text.split('href="/login/upstream/')[1].split('"')[0])
            away = (await browser.http.get(f"/login/upstream/{link}")).headers["location"]
            assert "code" in provider.answer(await browser.open(there.sign_in(away).removeprefix(ISSUER)))
            path = elsewhere.auth_database_url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(path, timeout=30)) as database, database:
                database.execute("UPDATE sessions SET authenticated_at = authenticated_at - 3600000000")
            for is_taken_off in (True, False):
                other = await provider.browser()
                away = (await other.http.get(f"/login/upstream/{link}")).headers["location"]
                if is_taken_off:
                    address, _, query = away.partition("?")
                    kept = [pair for pair in parse_qsl(query) if pair[0] not in ("prompt", "max_age")]
                    back = there.http.get(f"{address}?{urlencode(kept)}").headers["location"]
                    page = await other.open(back.removeprefix(ISSUER))
                    assert (page.status_code, "Second did not say that" in page.text) == (403, True)
                else:
                    assert there.http.get(away).headers["location"].startswith("/login"), "they are signed in there"
                    assert "code" in provider.answer(await other.open(there.sign_in(away).removeprefix(ISSUER)))
            there.http.close()


async def make_friends(provider, there, redirect_uri):
    """Let each instance know the other, as their administrators would; grace has proven her address there."""
    settings, hasher = there.settings, PasswordHasher(memory_cost=64, time_cost=1, parallelism=1)
    headers = await administer(there)
    body = {"id": "us", "name": "The first instance", "redirect_uris": [redirect_uri]}
    body["scopes"] = ["openid", "profile", "email"]
    made = there.http.post("/v1/admin/clients", json=body, headers=headers)
    assert made.status_code == 201, made.text
    grace = {"username": "grace", "email": "grace@navy.test", "email_verified": True}
    document = {"format": "evs-auth", "version": 1, "users": [grace | {"password_hash": hasher.hash(PASSWORD)}]}
    report = there.http.post("/v1/admin/import", json=document, headers=headers)
    assert report.json()["counts"]["created"] == 1, report.text
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    body = {"id": "second", "name": "Second", "issuer": settings.auth_url, "makes_accounts": True}
    body |= {"client_id": "us", "client_secret": made.json()["secret"]}
    known = await provider.http.post("/v1/admin/upstreams", json=body, headers=admin)
    assert known.status_code == 201, known.text
    there.http.cookies.clear()


async def administer(there):
    """Sign in at the other instance as its administrator; returns the header that its API wants."""
    settings = there.settings
    gui_secret = first_start.secret_file(settings, "evs-gui").read_text()
    async with OAuthClient(settings.auth_url, "evs-gui", client_secret=gui_secret) as gui:
        audience = f"{settings.auth_url}/v1/admin"
        pending = await gui.begin_authorization(
            redirect_uri=f"{settings.gui_url}/callback", scope="openid admin", resources=[audience]
        )
        answer = dict(parse_qsl(urlsplit(there.sign_in(pending.url)).query))
        tokens = await gui.finish_authorization(pending, answer, resource=audience)
    return {"authorization": f"Bearer {tokens.access_token}"}
