"""A whole product for the end-to-end tests: `evs up` on free ports with data of its own, and a browser."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from lib_events.testing.ports import free_ports

ADMIN_PASSWORD = "an-administrator-for-tests"
READY_SECONDS = 60
EVS = Path(sys.executable).with_name("evs")
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def wait_for(condition, *, seconds=20):
    """Return the first true value of `condition()`; a test waits for something, never for a while."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.02)
    return value


@dataclass
class Product:
    """A running product, and the command line of its owner."""

    data: Path
    gui_url: str
    auth_url: str
    app_url: str
    process: subprocess.Popen
    environment: dict[str, str]

    def evs(self, *arguments, check=True, **environment):
        """Run `evs` and return the finished process."""
        result = subprocess.run(
            [EVS, *arguments],
            env=self.environment | environment,
            cwd=self.data.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check:
            assert result.returncode == 0, f"evs {arguments} → {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def start_evs(self, *arguments):
        """Start `evs` and return the running process."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([EVS, *arguments], env=self.environment, cwd=self.data.parent, **pipes)

    def evs_json(self, *arguments, **environment):
        """Run `evs … -o json` and return what it printed."""
        return json.loads(self.evs(*arguments, "-o", "json", **environment).stdout)

    def pid(self, service):
        """The process id of one service."""
        services = self.evs_json("status")["services"]
        return next(entry["pid"] for entry in services if entry["service"] == service)


@contextmanager
def running_product(folder: Path, *options: str, **environment: str) -> Iterator[Product]:
    """Keep `evs up` running inside the block."""
    gui, auth, app = free_ports(3)
    data = folder / "evs"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
    settings = {
        "EVS_DATA": str(data),
        "EVS_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "NO_COLOR": "1",
    }
    ports = ("--gui-port", str(gui), "--auth-port", str(auth), "--app-port", str(app))
    log = (folder / "up.log").open("wb")
    process = subprocess.Popen(
        [EVS, "up", *ports, *options],
        env=clean | settings | environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    urls = [f"http://127.0.0.1:{port}" for port in (gui, auth, app)]
    product = Product(data, *urls, process, clean | settings)
    try:
        _wait_ready(process, folder / "up.log")
        yield product
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _wait_ready(process, log):
    deadline = time.monotonic() + READY_SECONDS
    while "everything is ready" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.fixture(scope="session")
def product(tmp_path_factory):
    """One product on SQLite, shared by the tests of a process."""
    with running_product(tmp_path_factory.mktemp("product")) as running:
        yield running


@pytest.fixture(scope="module")
def administrator(product, browser):
    """The administrator's `evs`, signed in on loopback with a real browser; for administration, too."""
    for arguments in ((), ("--admin",)):
        sign_in_on_loopback(product, browser, "admin", ADMIN_PASSWORD, *arguments)
    return product


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator[Browser]:
    """A real Chromium; it ends with its module, because while it lives no other event loop can run."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def page(browser):
    """A page of a person nobody knows yet; what its console complains of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    complaints = []

    def listen(line):
        # A refused password is answered 401, which Chromium reports as a resource that failed to load.
        if line.type == "error" and "the server responded with a status of" not in line.text:
            complaints.append(line.text)

    opened.on("console", listen)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def fill_in_sign_in(page, username, password):
    """Fill in the AuthService's page and press its button."""
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def sign_in_on_loopback(product, browser, username, password, *arguments):
    """`evs auth login --web`: the person's browser goes to the address it prints, and allows."""
    command = ["auth", "login", "--web", "--insecure-storage", *arguments]
    with product.start_evs(*command) as process:
        url = next(line.strip() for line in process.stderr if line.strip().startswith("http"))
        person = browser.new_context().new_page()
        person.goto(url)
        fill_in_sign_in(person, username, password)
        person.get_by_role("button", name="Allow").click()
        assert process.wait(20) == 0, process.stderr.read()
        person.context.close()
    return url
