"""The AppService beside the real AuthService and broker: sign-in, choreography, an approval across services."""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from app_svc.serving import serving
from app_svc.settings import AppSettings
from lib_auth.client import code_challenge
from lib_events.secret_file import read_secret
from lib_events.testing import free_ports, needs_members, wait_until

PASSWORD = "correct horse battery staple"
SCOPE = "openid profile workflows:read workflows:run events:read events:publish approvals:decide"


class Installation:
    """Two services and a broker on one data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.auth_url, self.app_url, self.gui_url = (f"http://127.0.0.1:{port}" for port in free_ports(3))
        self.http = httpx.AsyncClient(timeout=30)

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
        own = {"EVS_DATA": self.data, "EVS_AUTH_URL": self.auth_url, "EVS_AUTH_PORT": urlsplit(self.auth_url).port}
        own |= {"EVS_APP_URL": self.app_url, "EVS_GUI_URL": self.gui_url, "EVS_ADMIN_PASSWORD": PASSWORD}
        return clean | {name: str(value) for name, value in own.items()}

    async def tokens(self, username: str, **request: str) -> dict[str, Any]:
        """Sign in as a person, as the GUI would, and return the tokens."""
        verifier, callback = secrets.token_urlsafe(48), f"{self.gui_url}/callback"
        asked = {
            "response_type": "code",
            "client_id": "evs-gui",
            "redirect_uri": callback,
            "scope": SCOPE,
            "state": "state",
            "code_challenge": code_challenge(verifier),
            "code_challenge_method": "S256",
        } | request
        async with httpx.AsyncClient(base_url=self.auth_url, timeout=30) as browser:
            page = await follow(browser, await browser.get(f"/oauth2/authorize?{urlencode(asked)}"))
            action, fields = read_form(page.text)
            given = fields | {"username": username, "password": PASSWORD}
            answer = await browser.post(action, data=given, headers={"origin": self.auth_url})
            answer = await follow(browser, answer, until=callback)
        code = dict(parse_qsl(urlsplit(answer.headers["location"]).query))["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": callback, "code_verifier": verifier}
        secret = read_secret(self.data / "secrets" / "evs-gui.secret")
        found = await self.http.post(f"{self.auth_url}/oauth2/token", data=form, auth=("evs-gui", secret))
        assert found.status_code == 200, found.text
        return found.json()

    async def person(self, username: str) -> "Person":
        return Person(self, (await self.tokens(username))["access_token"])


class Person:
    """Somebody with a token for the AppService."""

    def __init__(self, installation: Installation, token: str) -> None:
        self.installation = installation
        self.headers = {"authorization": f"Bearer {token}"}

    async def get(self, path: str, **parameters: Any) -> Any:
        url = self.installation.app_url + path
        return await self.installation.http.get(url, params=parameters, headers=self.headers)

    async def post(self, path: str, body: Any, *, at: str | None = None) -> Any:
        url = (at or self.installation.app_url) + path
        return await self.installation.http.post(url, json=body, headers=self.headers)


class _Form(HTMLParser):
    action = ""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and not self.action:
            self.action = given["action"] or ""
        elif tag == "input" and given.get("value"):
            self.fields[given["name"] or ""] = given["value"] or ""


def read_form(text: str) -> tuple[str, dict[str, str]]:
    form = _Form()
    form.feed(text)
    return form.action, form.fields


async def follow(browser: httpx.AsyncClient, answer: httpx.Response, until: str = "") -> httpx.Response:
    while answer.is_redirect and not (until and answer.headers["location"].startswith(until)):
        answer = await browser.get(answer.headers["location"])
    return answer


@asynccontextmanager
async def process(*arguments: str, environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
            await asyncio.wait_for(child.wait(), 20)


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    needs_members("auth_svc")
    made = Installation(tmp_path / "evs")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(made.http)
        environment = made.environment()
        settings = AppSettings(
            data=made.data,
            auth_url=made.auth_url,
            app_url=made.app_url,
            app_port=urlsplit(made.app_url).port,
            drain_seconds=1,
        )
        settings.prepare_data()
        broker = process("lib_events.nats_server", "--data", str(made.data), environment=environment)
        nats = await stack.enter_async_context(broker)
        assert nats.stdout is not None
        nats_url = json.loads(await asyncio.wait_for(nats.stdout.readline(), 20))["url"]
        environment |= {"EVS_NATS_URL": nats_url}
        await stack.enter_async_context(process("auth_svc", environment=environment))
        await wait_until(lambda: is_ready(made, made.auth_url), timeout=30)
        await stack.enter_async_context(serving(settings.model_copy(update={"nats_url": nats_url})))
        await wait_until(lambda: is_ready(made, made.app_url), timeout=30)
        yield made


async def is_ready(made: Installation, url: str) -> bool:
    try:
        return (await made.http.get(f"{url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_a_registration_is_welcomed_and_a_role_is_asked_for_decided_and_granted(
    installation: Installation,
) -> None:
    administering = {"scope": "openid admin", "resource": f"{installation.auth_url}/v1/admin"}
    administrator = Person(installation, (await installation.tokens("admin", **administering))["access_token"])
    user = {"username": "ulla", "email": "ulla@example.org", "password": PASSWORD}
    made = await administrator.post("/v1/admin/users", user, at=installation.auth_url)
    assert made.status_code == 201, made.text

    admin, ulla = await installation.person("admin"), await installation.person("ulla")

    async def welcomed() -> Any:
        found = (await admin.get("/v1/events", types="welcome.message.sent")).json()["items"]
        return [event for event in found if event["data"]["username"] == "ulla"]

    await wait_until(welcomed, timeout=20)

    asked = await ulla.post("/v1/access-requests", {"role": "operator", "reason": "on call"}, at=installation.auth_url)
    assert asked.status_code == 201, asked.text

    async def approval() -> Any:
        items = (await admin.get("/v1/approvals", status="pending")).json()["items"]
        return items[0] if items else None

    waiting = await wait_until(approval, timeout=20)
    assert (await ulla.post(f"/v1/approvals/{waiting['id']}/decision", {"approved": True})).status_code == 404
    decided = await admin.post(f"/v1/approvals/{waiting['id']}/decision", {"approved": True})
    assert decided.status_code == 200, decided.text

    async def ended() -> Any:
        run = (await ulla.get(f"/v1/runs/{waiting['run']}")).json()
        return run if run.get("ended_at") else None

    run = await wait_until(ended, timeout=20)
    assert (run["status"], run["output"]["outcome"], run["output"]["role"]) == ("completed", "granted", "operator")
    promoted = await installation.person("ulla")
    everybodys = (await promoted.get("/v1/events")).json()["items"]
    assert len(everybodys) > len((await ulla.get("/v1/events")).json()["items"])


async def test_a_revoked_token_of_the_authservice_is_refused_within_a_second(installation: Installation) -> None:
    tokens = await installation.tokens("admin")
    person = Person(installation, tokens["access_token"])
    assert (await person.get("/v1/workflows")).status_code == 200
    secret = read_secret(installation.data / "secrets" / "evs-gui.secret")
    revoke = {"token": tokens["refresh_token"]}
    url = f"{installation.auth_url}/oauth2/revoke"
    assert (await installation.http.post(url, data=revoke, auth=("evs-gui", secret))).status_code == 200

    async def is_refused() -> bool:
        return (await person.get("/v1/workflows")).status_code == 401

    await wait_until(is_refused, timeout=1)
