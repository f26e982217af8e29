"""A whole AuthService per test, spoken to over HTTP, and a browser that reads its pages."""

import asyncio
import base64
import hashlib
import importlib.util
import json
import os
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from functools import cached_property, partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import httpx
import pyotp
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, Key
from joserfc.util import urlsafe_b64encode

from auth_svc import first_start, opaque
from auth_svc.app import create_app
from auth_svc.audit import Actor
from auth_svc.clients.client import Client
from auth_svc.clients.clients import register as register_client
from auth_svc.composition import open_service
from auth_svc.people import accounts, passwords
from auth_svc.people.accounts import Account, NewAccount
from auth_svc.service import AuthService
from auth_svc.settings import AuthSettings
from lib_auth.client import OAuthClient, code_challenge
from lib_events.clock import SystemClock
from lib_events.event import Event
from lib_events.event_log import read_after
from lib_events.http.server import new_event_loop
from lib_events.testing import POLL_SECONDS, wait_until
from lib_events.testing.forks import Fork, Forks
from lib_events.testing.ports import free_ports

# What several tests use, importable by name.
for _name in (
    *("about_one_person", "delegating_app", "keycloak_realm", "lying_provider", "rights_api", "rows_and_events"),
    *("software_passkey", "transfer_api", "all_that_is_done"),
):
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])

ISSUER = "http://127.0.0.1:8001"
APP = "http://127.0.0.1:8002"
GUI = "http://127.0.0.1:8000"
GUI_CALLBACK = f"{GUI}/callback"
OWN = "own"  # the origin of the page itself
PASSWORD = "correct horse battery staple"
READY_SECONDS = 60  # tests are bounded by their own time: this is for a machine that does much else
LINK = re.compile(r"http://127\.0\.0\.1:8001(/\S+)")
SCOPE = "openid profile workflows:read workflows:run"
FORKS = Forks("auth_svc.__main__:main", ["auth_svc.serving"])


class _Forms(HTMLParser):
    """Reads the forms of a page: action and hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append((given["action"] or "", {}))
        elif tag == "input" and self.forms and given.get("value"):
            self.forms[-1][1][given["name"] or ""] = given["value"] or ""


class Browser:
    """A person's browser: keeps cookies, follows links within the issuer, fills in forms."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.page: httpx.Response | None = None

    async def open(self, url: str) -> httpx.Response:
        self.page = await self._follow(await self.http.get(url))
        return self.page

    async def submit(
        self, *, form: int = 0, origin: str | None = OWN, action: str | None = None, **values: str
    ) -> httpx.Response:
        """Send the form of that place on the page, or the one that leads to `action`."""
        assert self.page is not None
        reader = _Forms()
        reader.feed(self.page.text)
        found = reader.forms if action is None else [each for each in reader.forms if each[0] == action]
        action, fields = found[form]
        headers = {"origin": self.origin if origin == OWN else origin} if origin else {}
        self.page = await self._follow(await self.http.post(action, data=fields | values, headers=headers))
        return self.page

    async def set_up_app(self) -> str:
        """Set up an authenticator app for who is signed in; returns its secret."""
        await self.open("/account/security")
        page = await self.submit(action="/account/security/app")
        secret = page.text.split('class="secret"><code>')[1].split("<")[0].replace(" ", "")
        await self.submit(code=pyotp.TOTP(secret).now())
        return secret

    def recovery_codes(self) -> list[str]:
        assert self.page is not None
        return re.findall(r"<li><code>([A-Z2-7-]+)</code>", self.page.text)

    async def sign_in(self, username: str, password: str = PASSWORD, *, at: str = "/login") -> httpx.Response:
        await self.open(at)
        return await self.submit(username=username, password=password)

    async def _follow(self, answer: httpx.Response) -> httpx.Response:
        while answer.is_redirect and self._is_ours(answer.headers["location"]):
            answer = await self.http.get(answer.headers["location"])
        return answer

    @property
    def origin(self) -> str:
        return str(self.http.base_url).rstrip("/")

    def _is_ours(self, location: str) -> bool:
        return location.startswith(("/", self.origin + "/"))


class Mailbox:
    """The mails that an AuthService without a mail server writes into its folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[Path] = set()

    async def receive(self, kind: str) -> str:
        """Wait for the next mail of a kind and return its text."""
        path = (await wait_until(lambda: self.unread(kind)))[0]
        self._read.add(path)
        return path.read_text()

    def unread(self, kind: str = "*") -> list[Path]:
        return [path for path in self._folder.glob(f"*-{kind}-*.eml") if path not in self._read]

    async def link(self, kind: str) -> str:
        """Wait for the next mail of a kind and return where its link leads."""
        found = LINK.search(await self.receive(kind))
        assert found is not None
        return found[1]


@dataclass
class Provider:
    """A running AuthService and what a test needs to talk to it."""

    app: Any
    settings: AuthSettings
    http: httpx.AsyncClient
    service: AuthService
    open_client: Callable[[], Any]
    verifier: str = ""
    begin_again: Callable[[], Awaitable[None]] = field(repr=False, kw_only=True)  # end the service and start another

    def __post_init__(self) -> None:
        self.verifier = VERIFIER

    async def browser(self) -> Browser:
        return Browser(await self.open_client())

    @cached_property
    def mailbox(self) -> Mailbox:
        return Mailbox(self.settings.mails)

    async def add_user(self, username: str, *roles: str, email: str | None = None) -> Account:
        """Make a user, whose address counts as proven."""
        kept = self.service.passwords.hash_now(PASSWORD)
        new = NewAccount(username, kept, email, frozenset(("member", *roles)), email_verified=email is not None)
        return await self.service.database.transact(accounts.register, new, self.actor())

    async def add_client(self, **values: Any) -> tuple[str, str]:
        secret = opaque.new_secret()
        client = Client(**({"secret_digest": opaque.digest(secret)} | values))
        await self.service.database.transact(register_client, client, self.actor())
        return client.id, secret

    def request(self, **changes: str) -> dict[str, str]:
        """The parameters of the GUI's authorization request."""
        request = {
            "response_type": "code",
            "client_id": "evs-gui",
            "redirect_uri": GUI_CALLBACK,
            "scope": SCOPE,
            "state": "the state",
            "nonce": "the nonce",
            "code_challenge": code_challenge(VERIFIER),
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (request | changes).items() if value}

    def answer(self, response: httpx.Response) -> dict[str, str]:
        """The authorization response that a redirect to the client carries."""
        assert response.status_code == 303, response.text
        return dict(parse_qsl(urlsplit(response.headers["location"]).query))

    def actor(self) -> Actor:
        return Actor(SystemClock().micros(), "test")

    def secret_of(self, client_id: str) -> str:
        return first_start.secret_file(self.settings, client_id).read_text()

    def gui(self) -> tuple[str, str]:
        return "evs-gui", self.secret_of("evs-gui")

    async def post(self, path: str, form: Any, auth: tuple[str, str] | None = None) -> httpx.Response:
        pairs = list(form.items()) if isinstance(form, dict) else form
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return await self.http.post(path, content=urlencode(pairs), headers=headers, auth=auth)

    async def token(self, auth: tuple[str, str] | None = None, **form: str) -> httpx.Response:
        return await self.post("/oauth2/token", form, auth)

    async def events(self, *types: str) -> list[Event]:
        page = await self.service.database.read(lambda connection: read_after(connection, 0, types=types))
        return [placed.event for placed in page.events]

    async def authorize(self, browser: Browser, **values: str) -> httpx.Response:
        return await browser.open(f"/oauth2/authorize?{urlencode(self.request(**values))}")

    @staticmethod
    def code_of_app(secret: str, steps: int = 1) -> str:
        """The code that the app shows `steps` from now: those before were used."""
        return pyotp.TOTP(secret).at(int(time.time()) + 30 * steps)

    async def sign_in_for_code(self, username: str = "ada", browser: Browser | None = None, **values: str) -> str:
        """Sign in as a person and return the code the GUI would get."""
        browser = browser or await self.browser()
        await self.authorize(browser, **values)
        answer = await browser.submit(username=username, password=PASSWORD)
        return self.answer(answer)["code"]

    async def tokens(self, username: str = "ada", **values: str) -> dict[str, Any]:
        """Sign in as a person and return the GUI's tokens."""
        code = await self.sign_in_for_code(username, **values)
        answer = await self.redeem(code)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def redeem(self, code: str, **changes: str) -> httpx.Response:
        form = {"code": code, "redirect_uri": GUI_CALLBACK, "code_verifier": VERIFIER} | changes
        return await self.token(self.gui(), grant_type="authorization_code", **form)

    async def refresh(self, refresh_token: str, *, as_asker: str = "", **changes: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token} | changes
        named = {"idempotency-key": as_asker} if as_asker else {}
        return await self.http.post("/oauth2/token", data=form, headers=named, auth=self.gui())

    async def introspect(self, token: str) -> dict[str, Any]:
        auth = ("evs-app", self.secret_of("evs-app"))
        return (await self.post("/oauth2/introspect", {"token": token}, auth)).json()

    async def admin_token(self) -> str:
        values = {"scope": "openid admin", "resource": f"{self.settings.auth_url}/v1/admin"}
        return (await self.tokens("admin", **values))["access_token"]

    def oauth_client(self, client_id: str, secret: str | None = None) -> OAuthClient:
        return OAuthClient(ISSUER, client_id, client_secret=secret, http=self.http)


VERIFIER = secrets.token_urlsafe(48)
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def new_key() -> ECKey:
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return key


@dataclass
class Holder:
    """Holds a key and proves it (RFC 9449)."""

    key: Key = field(default_factory=new_key)
    algorithm: str = "ES256"
    nonce: str | None = None

    @property
    def thumbprint(self) -> str:
        return self.key.thumbprint()

    def proof(self, url: str, *, method: str = "POST", token: str | None = None, header: Any = None, **changes: Any):
        claims = {"jti": secrets.token_urlsafe(12), "htm": method, "htu": url, "iat": int(time.time())}
        if self.nonce is not None:
            claims["nonce"] = self.nonce
        if token is not None:
            digest = hashlib.sha256(token.encode()).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        claims = {name: value for name, value in (claims | changes).items() if value is not ...}
        head = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.key.as_dict(private=False)} | (header or {})
        return jws.serialize_compact(head, json.dumps(claims), self.key, algorithms=[head["alg"]])


def assertion(client_id: str, key: ECKey, audience: str, *, header: Any = None, **changes: Any) -> dict[str, str]:
    """The two parameters of `private_key_jwt`."""
    now = int(time.time())
    claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": secrets.token_urlsafe(12), "exp": now + 60}
    claims = {name: value for name, value in (claims | changes).items() if value is not ...}
    head = {"alg": "ES256", "kid": key.kid} | (header or {})
    text = jws.serialize_compact(head, json.dumps(claims), key, algorithms=[head["alg"]])
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text}


def key_set(*keys: ECKey) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the service is served on."""
    return {"served": new_event_loop}


@pytest.fixture
def holder() -> Holder:
    """Somebody who holds a key."""
    return Holder()


@pytest.fixture
def new_holder() -> type[Holder]:
    """Makes somebody who holds a key of the test's choice."""
    return Holder


@pytest.fixture
def client_key() -> ECKey:
    """A client's own key."""
    return new_key()


@pytest.fixture(name="new_key")
def new_key_fixture() -> Callable[[], ECKey]:
    """Makes keys of clients."""
    return new_key


@pytest.fixture
def sign_assertion() -> Callable[..., dict[str, str]]:
    """Signs what a client says of itself."""
    return assertion


@pytest.fixture
def slow_rsa_key() -> dict[str, str]:
    """The public half of an RSA key whose exponent is as long as its modulus: no signature fits, but each is tried."""
    modulus, exponent = (
        urlsafe_b64encode((secrets.randbits(bits) | 1 << bits - 1 | 1).to_bytes(bits // 8)).decode()
        for bits in (3072, 3000)
    )
    return {"kty": "RSA", "n": modulus, "e": exponent, "kid": "slow"}


@pytest.fixture
def jwk_set() -> Callable[..., str]:
    """Makes a JWK set of public keys."""
    return key_set


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing costs next to nothing in tests that are not about it."""
    monkeypatch.setattr(passwords, "MEMORY_KIB", 64)


@asynccontextmanager
async def running_provider(tmp_path: Any, database_url: str, **settings: Any) -> AsyncIterator[Provider]:
    given: dict[str, Any] = {"data": tmp_path / "evs", "auth_database_url": database_url, "admin_password": PASSWORD}
    chosen = AuthSettings(**(given | settings))
    async with AsyncExitStack() as stack:
        life = await stack.enter_async_context(AsyncExitStack())

        async def answer(*asked: Any) -> None:
            await provider.app(*asked)

        async def open_client() -> httpx.AsyncClient:
            transport = httpx.ASGITransport(app=answer, client=("127.0.0.1", 50_000))
            client = httpx.AsyncClient(transport=transport, base_url=chosen.auth_url, follow_redirects=False)
            return await stack.enter_async_context(client)

        async def begin_again() -> None:
            await life.aclose()
            provider.service = await life.enter_async_context(open_service(chosen))
            provider.app = create_app(provider.service)

        service = await life.enter_async_context(open_service(chosen))
        app = create_app(service)
        provider = Provider(app, chosen, await open_client(), service, open_client, begin_again=begin_again)
        yield provider


@pytest.fixture
def delegating(provider: Provider) -> Any:
    """The AppService and ada, who lets it act for her, on SQLite."""
    return sys.modules["delegating_app"].Delegating(provider)


@pytest.fixture
def delegating_on_both(provider_on_both: Provider) -> Any:
    """The same on both databases."""
    return sys.modules["delegating_app"].Delegating(provider_on_both)


@pytest.fixture
async def provider(tmp_path: Any, sqlite_url: str) -> AsyncIterator[Provider]:
    """An AuthService on SQLite with the user ada."""
    async with running_provider(tmp_path, sqlite_url) as running:
        await running.add_user("ada")
        yield running


@pytest.fixture
async def provider_on_both(tmp_path: Any, database_url: str) -> AsyncIterator[Provider]:
    """An AuthService with the user ada, once on SQLite and once on PostgreSQL."""
    async with running_provider(tmp_path, database_url) as running:
        await running.add_user("ada")
        yield running


@pytest.fixture
def as_stranger(postgresql_url: str) -> Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]:
    """Connects to the database past the service."""
    parts = urlsplit(postgresql_url)
    given = dict(parse_qsl(parts.query))
    settings = {"search_path": given.pop("schema")}
    url = urlunsplit(parts._replace(query=urlencode(given)))

    @asynccontextmanager
    async def connected() -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(url, server_settings=settings)
        try:
            yield connection
        finally:
            await connection.close()

    return connected


@pytest.fixture
async def wait_for_locks(as_stranger: Any) -> AsyncIterator[Callable[[int], Awaitable[Any]]]:
    """Waits until so many transactions wait for what others hold."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    async with as_stranger() as looker:

        async def wait(number: int) -> None:
            async def are_waiting() -> bool:
                return await looker.fetchval(waiting) >= number

            await wait_until(are_waiting)

        yield wait


@pytest.fixture
async def provider_on_postgresql(tmp_path: Any, postgresql_url: str) -> AsyncIterator[Provider]:
    """An AuthService with the user ada, on PostgreSQL, where transactions run side by side."""
    async with running_provider(tmp_path, postgresql_url) as running:
        await running.add_user("ada")
        yield running


@pytest.fixture
def run_provider() -> Any:
    """Starts and stops AuthServices within a test."""
    return running_provider


@contextmanager
def served(folder: Path, *, host: str = "127.0.0.1", gui_url: str = GUI, **variables: str) -> Iterator[AuthSettings]:
    """Serve an AuthService on SQLite as a process of its own; yields its settings."""
    (port,) = free_ports(1)
    database_url = f"sqlite:///{folder}/served.db"
    url = f"http://{host}:{port}"
    places = {"auth_database_url": database_url, "auth_url": url, "gui_url": gui_url}
    settings = AuthSettings(data=folder / "evs", auth_port=port, **places)
    given = {f"EVS_{name.upper()}": place for name, place in places.items()} | {"EVS_ADMIN_PASSWORD": PASSWORD}
    log = folder / "served.log"
    with log.open("wb") as errors:
        environment = dict(os.environ) | given | variables
        process = FORKS.start("--data", str(settings.data), "--port", str(port), env=environment, stderr=errors)
    try:
        wait_until_ready(process, settings.auth_url, log)
        yield settings
    finally:
        process.terminate()  # also when the test failed: nobody waits for it for ever
    assert process.wait(20) == 0, process.returncode


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthSettings]:
    """A served AuthService for the tests of a module, which sign in to it and change nothing else: its settings."""
    with served(tmp_path_factory.mktemp("served")) as settings:
        yield settings


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthSettings]:
    """The same, where everybody may make an account: each test makes its own. At its GUI's place a test may listen."""
    (port,) = free_ports(1)
    gui_url = f"http://127.0.0.1:{port}"
    with served(tmp_path_factory.mktemp("open"), gui_url=gui_url, EVS_REGISTRATION="open") as settings:
        yield settings


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractContextManager[AuthSettings]]:
    """Serves an AuthService with variables of the test's own."""
    return partial(served, tmp_path)


@pytest.fixture(scope="session")
def approve() -> Callable[[str, str], str]:
    """Is the administrator in a browser: opens a URL of an issuer, signs in, allows, and returns where that leads."""

    def visit(issuer: str, url: str) -> str:
        with httpx.Client(base_url=issuer, headers={"origin": issuer}, verify=False) as http:
            page = http.get(url)
            for more in ({}, {"username": "admin", "password": PASSWORD}, {"decision": "allow"}):
                if more:
                    reader = _Forms()
                    reader.feed(page.text)
                    action, fields = reader.forms[0]
                    page = http.post(action, data=fields | more)
                while page.is_redirect:
                    location = page.headers["location"]
                    if not location.startswith("/"):
                        return location
                    page = http.get(location)
        return page.text

    return visit


def wait_until_ready(process: Fork, url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(base_url=url, verify=False) as http:  # no trust store is read to speak to loopback
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            with suppress(httpx.TransportError):
                if http.get("/readyz").status_code == 200:
                    return
            time.sleep(POLL_SECONDS)  # between two looks, bounded by the deadline
    raise TimeoutError(f"the AuthService was not ready within {READY_SECONDS} s")
