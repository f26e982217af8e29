"""What every scene of the demonstration works with: the product, its people, the screen."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cli_proj.api import Service
from cli_proj.demo.browser import Browser
from cli_proj.demo.page import Page
from cli_proj.demo.screen import Screen

WAIT_SECONDS = 20.0
LOOK_SECONDS = 0.1


class DemoFailed(Exception):
    """Something did not go as it must; the text says what."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who exists for this demonstration only."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One running product and what shows it."""

    gui_url: str
    auth_url: str
    app_url: str
    data: Path
    screen: Screen
    app: Service  # as this machine's own client, to watch
    http: httpx.AsyncClient  # as nobody
    admin: Person
    person: Person
    browser: Browser  # of `person`
    admin_browser: Browser

    async def sign_in(self, browser: Browser, person: Person, path: str = "/") -> Page:
        """Open a page of the GUI and sign in on the way to it."""
        page = await browser.open(self.gui_url + path)
        form = expect_form(page, "/login")
        return await browser.submit(page, form, {"username": person.username, "password": person.password})

    async def run_of(self, page: Page) -> dict[str, Any]:
        """Return the run that a page of the GUI shows."""
        path = httpx.URL(page.url).path
        if not path.startswith("/runs/"):
            raise DemoFailed(f"the GUI must show the run that was started, got {page.url}: {page.text[:200]}")
        run: dict[str, Any] = await self.app.get("/v1" + path)
        return run

    async def count_events(self, run: dict[str, Any]) -> int:
        """How many events tell of a run's story."""
        count, after = 0, None
        while True:
            page = await self.app.get("/v1/events", correlation=run["correlation_id"], after=after, limit=200)
            count += len(page["items"])
            after = page["next_cursor"]
            if after is None:
                return count


def make_person(name: str) -> Person:
    """A person with a name nobody has and a password nobody knows."""
    return Person(f"{name}-{secrets.token_hex(2)}", secrets.token_urlsafe(15))


def expect_form(page: Page, path: str) -> Any:
    """Return a form of the page; raises `DemoFailed` when it is not there."""
    try:
        return page.form(path)
    except LookupError as error:
        raise DemoFailed(f"{error} (status {page.status}: {page.text[:160]})") from error


async def eventually[T](ask: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Ask until there is an answer; raises `DemoFailed` when it takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        answer = await ask()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what} must happen within {WAIT_SECONDS:g} s, and did not")
        await asyncio.sleep(LOOK_SECONDS)


def expect(condition: object, text: str) -> None:
    """Raise `DemoFailed` unless `condition` holds."""
    if not condition:
        raise DemoFailed(text)
