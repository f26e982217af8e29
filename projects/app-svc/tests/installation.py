"""A whole installation for tests: the AuthService and the broker as processes, the AppService in this one."""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from app_svc.serving import Serving, serving
from app_svc.settings import AppSettings
from lib_auth.client import code_challenge
from lib_events.nats_server import NatsServer
from lib_events.secret_file import read_secret
from lib_events.testing import POLL_SECONDS, needs_members, wait_until
from lib_events.testing.forks import Forks
from lib_events.testing.ports import free_ports

PASSWORD = "correct horse battery staple"
SCOPE = "openid profile workflows:read workflows:run events:read events:publish approvals:decide"


READY_SECONDS = 60
FORKS = Forks("auth_svc.__main__:main", ["auth_svc.serving"])


@dataclass(frozen=True)
class Places:
    """Where the services of an installation are, and the data folder."""

    data: Path
    auth_url: str
    app_url: str
    gui_url: str

    @classmethod
    def free(cls, data: Path) -> "Places":
        return cls(data, *(f"http://127.0.0.1:{port}" for port in free_ports(3)))

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
        own = {"EVS_DATA": self.data, "EVS_AUTH_URL": self.auth_url, "EVS_AUTH_PORT": urlsplit(self.auth_url).port}
        own |= {"EVS_APP_URL": self.app_url, "EVS_GUI_URL": self.gui_url, "EVS_ADMIN_PASSWORD": PASSWORD}
        return clean | {name: str(value) for name, value in own.items()}


class Installation:
    """Two services and a broker on one data folder."""

    def __init__(self, places: Places) -> None:
        self.data = places.data
        self.auth_url, self.app_url, self.gui_url = places.auth_url, places.app_url, places.gui_url
        self.http = httpx.AsyncClient(timeout=30)
        self.auth_environment: dict[str, str] = {}
        self.serving: Serving | None = None
        self._auth = AsyncExitStack()

    async def start_auth(self) -> None:
        """Run the AuthService, again perhaps."""
        child = FORKS.start(env=self.auth_environment)
        self._auth.push_async_callback(asyncio.to_thread, child.wait, 20)
        self._auth.callback(child.terminate)
        await wait_until(lambda: is_ready(self, self.auth_url), timeout=30)

    async def stop_auth(self) -> None:
        """Stop the AuthService; stopping twice is safe."""
        await self._auth.aclose()

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


@contextmanager
def running_authority(data: Path, database_url: str | None = None) -> Iterator[Places]:
    """Run an AuthService for installations that come one after the other, on SQLite unless told otherwise."""
    needs_members("auth_svc")
    places = Places.free(data)
    environment = places.environment() | ({"EVS_AUTH_DATABASE_URL": database_url} if database_url else {})
    child = FORKS.start(env=environment)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(places.auth_url):
            assert child.poll() is None, "the AuthService has ended"
            assert time.monotonic() < deadline, f"the AuthService must be ready within {READY_SECONDS} s"
            time.sleep(POLL_SECONDS)  # between two looks, bounded by the deadline
        yield places
    finally:
        child.terminate()
        child.wait(20)


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError), httpx.Client(verify=False) as http:
        return http.get(f"{url}/readyz").status_code == 200
    return False


@asynccontextmanager
async def installed(
    data: Path,
    *,
    with_broker: bool = True,
    database_url: str | None = None,
    workflows: Sequence[Path] = (),
    queues: Sequence[str] = (),
    authority: Places | None = None,
    auth_settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Installation]:
    """Run an installation in `data`, on SQLite unless told otherwise; without a broker events stay in their logs.

    With an `authority` that runs already there is an AppService alone, at the place which that one knows.
    """
    needs_members("auth_svc")
    places = replace(authority, data=data) if authority is not None else Places.free(data)
    made = Installation(places)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(made.http)
        environment = places.environment() | auth_settings
        app_database_url = None
        if database_url is not None and database_url.startswith("postgresql"):  # a schema for each of them
            environment["EVS_AUTH_DATABASE_URL"], app_database_url = f"{database_url}_auth", f"{database_url}_app"
        settings = AppSettings(
            data=made.data,
            auth_url=made.auth_url,
            app_url=made.app_url,
            app_port=urlsplit(made.app_url).port,
            app_database_url=app_database_url,
            workflows=[str(path) for path in workflows],
            queues=list(queues),
            drain_seconds=1,
        )
        settings.prepare_data()
        if with_broker:
            environment["EVS_NATS_URL"] = (await stack.enter_async_context(NatsServer(made.data))).url
            settings = settings.model_copy(update={"nats_url": environment["EVS_NATS_URL"]})
        made.auth_environment = environment
        if authority is None:
            await made.start_auth()
            stack.push_async_callback(made.stop_auth)
        else:
            shutil.copytree(authority.data / "secrets", made.data / "secrets", dirs_exist_ok=True)
        made.serving = await stack.enter_async_context(serving(settings))
        await wait_until(lambda: is_ready(made, made.app_url), timeout=30)
        yield made


async def is_ready(made: Installation, url: str) -> bool:
    try:
        return (await made.http.get(f"{url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False
