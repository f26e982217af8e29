"""A real product without its GUI's test double: AuthService, AppService and GUI as processes on free ports."""

import html
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gui_proj.app import create_app
from gui_proj.session import Person as GuiPerson
from gui_proj.settings import GuiSettings
from gui_proj.web_guard import WebGuard
from lib_auth.tokens import TokenSet
from lib_events.parent_watch import supervised
from lib_events.testing import needs_members
from lib_events.testing.forks import Fork, Forks
from lib_events.testing.ports import free_ports

PASSWORD = "a-password-for-tests"
READY_SECONDS = 60
SERVING = {"auth_svc": "auth_svc.serving", "app_svc": "app_svc.serving", "gui_proj": "gui_proj.app"}
FORKS = {name: Forks(f"{name}.__main__:main", [module]) for name, module in SERVING.items()}
WORKFLOWS = [str(Path(__file__).with_name(name)) for name in ("acting_flow.py", "queued_flow.py")]


class Person(httpx.Client):
    """A browser without JavaScript."""

    def hidden(self, page):
        """The hidden fields of a page's forms; later ones win."""
        pairs = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
        return {name: html.unescape(value) for name, value in pairs}

    def sign_in(self, path, *, username="admin", password=PASSWORD):
        """Open a page as somebody new and fill in the AuthService's form; returns the page one lands on."""
        return self.fill_in(self.get(path, follow_redirects=True), username=username, password=password)

    def fill_in(self, page, *, username="admin", password=PASSWORD):
        """Press the button of the AuthService's sign-in page."""
        form = self.hidden(page) | {"username": username, "password": password}
        origin = f"{page.url.scheme}://{page.url.netloc.decode()}"
        return self.post(page.url.join("/login"), data=form, headers={"Origin": origin}, follow_redirects=True)

    def submit(self, path, form, *, page=None):
        """Press the button of a form on `page` (default: the path itself), with the token that is in it."""
        return self.post(path, data={"_csrf": self.hidden(self.get(page or path))["_csrf"], **form})

    def allow(self, refused, auth_url):
        """Follow the link of a page that says what has to be allowed first, and allow it; returns the link."""
        address = html.unescape(
            re.search(r'<a href="([^"]+)" target="_blank" rel="noopener">Allow it', refused.text)[1]
        )
        allowed = {**self.hidden(self.get(address)), "decision": "allow"}
        answer = self.post(f"{auth_url}/account/apps/allow", data=allowed, headers={"Origin": auth_url})
        assert "Allowed" in answer.text
        return address


@dataclass
class Product:
    """The three services; each can be stopped and started again."""

    data: Path
    ports: dict[str, int]
    access_seconds: int = 300
    processes: dict[str, Fork] = field(default_factory=dict)
    supervision: dict[str, socket.socket] = field(default_factory=dict)

    @property
    def gui_url(self):
        return f"http://127.0.0.1:{self.ports['gui_proj']}"

    @property
    def auth_url(self):
        return f"http://127.0.0.1:{self.ports['auth_svc']}"

    @property
    def app_url(self):
        return f"http://127.0.0.1:{self.ports['app_svc']}"

    @property
    def cookie(self):
        return f"evs-gui-{self.ports['gui_proj']}"

    def start(self, name):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("EVS_")} | {
            "EVS_DATA": str(self.data),
            "EVS_GUI_PORT": str(self.ports["gui_proj"]),
            "EVS_AUTH_PORT": str(self.ports["auth_svc"]),
            "EVS_APP_PORT": str(self.ports["app_svc"]),
            "EVS_ADMIN_PASSWORD": PASSWORD,
            "EVS_WORKFLOWS": ",".join(WORKFLOWS),
            "EVS_GUI_ACCESS_SECONDS": str(self.access_seconds),
            "EVS_WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8",
        }
        ours, theirs = socket.socketpair()  # its standard input, which ends with us
        with (self.data / f"{name}.log").open("ab") as log, theirs, theirs.makefile("rb") as stdin:
            files = {"stdin": stdin, "stdout": log, "stderr": log}
            self.processes[name] = FORKS[name].start(env=supervised(environment), cwd=self.data, **files)
        self.supervision[name] = ours
        self.wait_ready(name)

    def wait_ready(self, name):
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(verify=False) as http:  # no trust store is read to speak to loopback
            while time.monotonic() < deadline:
                assert self.processes[name].poll() is None, (self.data / f"{name}.log").read_text()[-3000:]
                with suppress(httpx.TransportError):
                    if http.get(f"http://127.0.0.1:{self.ports[name]}/readyz").is_success:
                        return
                time.sleep(0.02)  # between two looks, bounded by the deadline
        raise TimeoutError(f"{name} was not ready within {READY_SECONDS} s")

    def stop(self, name):
        process = self.processes.pop(name)
        process.terminate()
        process.wait(20)
        self.supervision.pop(name).close()

    def person(self):
        return Person(base_url=self.gui_url, headers={"Origin": self.gui_url}, timeout=20)

    @contextmanager
    def signed_in(self):
        with self.person() as person:
            page = person.sign_in("/")
            assert page.status_code == 200, page.text
            yield person


@pytest.fixture
async def gui(tmp_path) -> AsyncIterator[WebGuard]:
    """The GUI alone, in this process: nobody answers where its services should be."""
    guarded = create_app(GuiSettings(data=tmp_path, gui_port=8123, auth_port=1, app_port=1), "a-secret-for-tests")
    async with guarded.app.router.lifespan_context(guarded.app):
        yield guarded


@pytest.fixture
async def stranger(gui) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who has not signed in to the GUI alone."""
    transport = httpx.ASGITransport(gui)
    async with httpx.AsyncClient(transport=transport, base_url=gui.gui_url, headers={"Origin": gui.gui_url}) as client:
        yield client


@pytest.fixture
async def resident(gui, stranger) -> httpx.AsyncClient:
    """Somebody with a session of the GUI alone; its tokens are good for nothing."""
    parts = gui.app.state.gui
    tokens = TokenSet("access", datetime.now(UTC) + timedelta(minutes=5), refresh_token="refresh")
    session = parts.sessions.begin(GuiPerson("u1", "ada"), tokens)
    stranger.cookies.set(parts.settings.cookie, session.cookie)
    stranger.csrf_token = session.csrf_token
    return stranger


@pytest.fixture(scope="session")
def product(tmp_path_factory) -> Iterator[Product]:
    """One product for all tests that change nothing of it but runs."""
    yield from running_product(tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory) -> Iterator[Product]:
    """One product whose tokens expire after five seconds, for tests that end no session but their own.

    A token has to live longer than the page that it is renewed for takes where everything is slow.
    """
    yield from running_product(tmp_path_factory.mktemp("short_lived"), access_seconds=5)


@pytest.fixture
def own_product(tmp_path) -> Iterator[Product]:
    """A product for this test alone: it may stop services; tokens expire after five seconds."""
    yield from running_product(tmp_path, access_seconds=5)


def running_product(data, *, access_seconds=300):
    needs_members("auth_svc", "app_svc")
    (data / ".gitignore").write_text("*\n")
    ports = dict(zip(("gui_proj", "auth_svc", "app_svc"), free_ports(3), strict=True))
    running = Product(data, ports, access_seconds)
    try:
        for name in ("auth_svc", "app_svc", "gui_proj"):
            running.start(name)
        yield running
    finally:
        for name in list(running.processes):
            running.stop(name)
