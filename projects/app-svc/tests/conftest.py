"""A real AppService on a free port, and a tiny issuer with real ES256 tokens, a JWKS and revocations over HTTP."""

import asyncio
import contextlib
import importlib.util
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import insert
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app_svc import workflow_loading
from app_svc.serving import Serving, serving
from app_svc.settings import AppSettings
from lib_events.database import EVENTS_TOPIC, Connection
from lib_events.event import Event
from lib_events.event_log import imported_row
from lib_events.http.server import new_event_loop
from lib_events.secret_file import write_secret
from lib_events.tables import events
from lib_events.testing import wait_until

ALL_SCOPES = "workflows:read workflows:run workflows:manage events:read events:publish approvals:decide"


class LocalIssuer:
    """Issues and revokes; `silent` makes it stop answering."""

    def __init__(self) -> None:
        self.url = ""
        self.key = ECKey.generate_key("P-256", {"kid": "first", "alg": "ES256", "use": "sig"}, private=True)
        self.revoked: list[dict[str, Any]] = []
        self.silent = False
        self._changed = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/oauth2/jwks", self._jwks),
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/.well-known/oauth-authorization-server", self._discovery),
                Route("/v1/revocations", self._revocations),
                Route("/oauth2/introspect", self._introspect, methods=["POST"]),
            ]
        )

    def token(
        self,
        subject: str = "alice",
        *,
        roles: tuple[str, ...] = ("member",),
        scope: str = ALL_SCOPES,
        seconds: float = 300,
        key: ECKey | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        now = time.time()
        payload = {
            "iss": self.url,
            "sub": subject,
            "client_id": "tests",
            "aud": self.audience,
            "iat": int(now),
            "exp": int(now + seconds),
            "jti": uuid.uuid4().hex,
            "scope": scope,
            "roles": list(roles),
            "preferred_username": subject,
            **claims,
        }
        signing = key or self.key
        return jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "first", **(header or {})}, payload, signing)

    audience = ""

    def revoke(self, **named: str) -> None:
        """Refuse from now on every token with this `token`, `session` or `user`."""
        for kind, value in named.items():
            until = 0 if kind in ("token", "session") else int(time.time()) + 1
            self.revoked.append(
                {"kind": kind, "value": value, "issued_until": until, "expires_at": int(time.time()) + 3600}
            )
        self._changed.set()

    async def _jwks(self, _request: Request) -> Response:
        return self._answer({"keys": [self.key.as_dict(private=False)]})

    async def _discovery(self, _request: Request) -> Response:
        return self._answer(
            {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/oauth2/jwks",
                "token_endpoint": f"{self.url}/oauth2/token",
                "authorization_endpoint": f"{self.url}/oauth2/authorize",
                "introspection_endpoint": f"{self.url}/oauth2/introspect",
            }
        )

    async def _revocations(self, request: Request) -> Response:
        after = int(request.query_params.get("after", "0"))
        if len(self.revoked) <= after and not self.silent:
            self._changed.clear()
            try:
                async with asyncio.timeout(min(float(request.query_params.get("wait", "0")), 0.5)):
                    await self._changed.wait()
            except TimeoutError:
                pass
        return self._answer({"items": self.revoked[after:], "next_cursor": str(len(self.revoked)), "head": True})

    async def _introspect(self, _request: Request) -> Response:
        return self._answer({"active": False})

    def _answer(self, body: Any) -> Response:
        return Response(status_code=503) if self.silent else JSONResponse(body)


def unsigned(token: str) -> str:
    """The same claims with the algorithm none and no signature."""
    import base64

    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "at+jwt", "kid": "first"}).encode())
    return f"{header.rstrip(b'=').decode()}.{token.split('.')[1]}."


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the service is served on."""
    return {"served": new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def packages_read_once() -> Iterator[None]:
    """Let services that tests start share what installed packages declare: each would read all of them anew."""
    found = cache(lambda path, group: entry_points(group=group))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow_loading, "entry_points", lambda group: found(tuple(sys.path), group))
        yield


@pytest.fixture
async def issuer() -> AsyncIterator[LocalIssuer]:
    """An issuer that answers on a free port."""
    local = LocalIssuer()
    config = uvicorn.Config(local.app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = _Quiet(config)
    task = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    local.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield local
    task.cancel()  # who asked it is gone: nothing is to be finished, and nobody looks whether to stop
    await asyncio.wait([task])
    for listening in server.servers:
        listening.close()
    for connection in tuple(server.server_state.connections):
        connection.transport.abort()


@pytest.fixture
def make_settings(issuer: LocalIssuer, tmp_path: Path) -> Any:
    """Settings of an AppService for that issuer, in a data folder of its own."""
    write_secret(tmp_path / "data" / "secrets" / "evs-app.secret", "secret")
    (tmp_path / "data" / ".gitignore").write_text("*\n")

    def make(database_url: str | None = None, **options: Any) -> AppSettings:
        return AppSettings(
            data=tmp_path / "data",
            app_port=0,
            auth_url=issuer.url,
            app_database_url=database_url,
            drain_seconds=1,
            lease_seconds=2,
            **options,
        )

    return make


class Client:
    """Somebody with a token."""

    def __init__(self, http: httpx.AsyncClient, issuer: LocalIssuer, token: str) -> None:
        self.http = http
        self.issuer = issuer
        self.token = token

    async def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        bearer = {"authorization": f"Bearer {self.token}"}
        return await self.http.request(method, path, headers=bearer | (headers or {}), **options)

    async def get(self, path: str, **options: Any) -> Any:
        return await self.request("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Any:
        return await self.request("POST", path, json=json, **options)

    async def run(self, workflow: str, value: Any = None, **options: Any) -> dict[str, Any]:
        """Start a run, wait for its end and return it."""
        started = await self.post(
            "/v1/runs", {"workflow": workflow, "input": value, **options}, headers={"prefer": "wait=30"}
        )
        assert started.status_code == 200, started.text
        return started.json()

    async def until(self, run_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the run has one of the statuses and return it."""

        async def look() -> Any:
            run = (await self.get(f"/v1/runs/{run_id}")).json()
            return run if run["status"] in statuses else None

        return await wait_until(look, timeout=30)

    async def ended_event(self, run_id: str) -> dict[str, Any] | None:
        """The event that tells of the run's completion, once it can be read."""
        found = await self.get("/v1/events", params={"types": "evs.run.completed", "subject": run_id})
        items = found.json()["items"]
        return items[0] if items else None

    @contextlib.asynccontextmanager
    async def stream(self, path: str, **headers: str) -> AsyncIterator[Any]:
        """Open an event stream and yield an iterator of (id, event, data)."""
        bearer = {"authorization": f"Bearer {self.token}", "accept": "text/event-stream"}
        async with self.http.stream("GET", path, headers=bearer | headers, timeout=30) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield _messages(answer)


async def _messages(answer: httpx.Response) -> AsyncIterator[tuple[str | None, str, Any]]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif "data" in fields:
            yield fields.get("id"), fields.get("event", "message"), json.loads(fields["data"])
            fields = {}
        else:
            fields = {}


class AppUnderTest:
    """A running AppService."""

    def __init__(self, server: Serving, issuer: LocalIssuer, http: httpx.AsyncClient) -> None:
        self.url = server.url
        self.service = server.service
        self.issuer = issuer
        self.http = http

    def client(self, subject: str = "alice", **options: Any) -> Client:
        """Somebody signed in."""
        return Client(self.http, self.issuer, self.issuer.token(subject, **options))

    def operator(self) -> Client:
        return self.client("olga", roles=("operator",))

    async def hear(self, event_type: Any, data: Any) -> None:
        """As if the AuthService had told so and the importer had brought it."""
        about = getattr(data, "user", None) or data.client
        event = Event.of(event_type, data, source="/auth-svc", subject=about)

        def bring(connection: Connection) -> None:
            connection.execute(insert(events), imported_row(event))
            connection.notify(EVENTS_TOPIC)

        await self.service.database.transact(bring)

    def admin(self) -> Client:
        return self.client("ada", roles=("admin",))


@contextlib.asynccontextmanager
async def serve_app(settings: AppSettings, issuer: LocalIssuer) -> AsyncIterator[AppUnderTest]:
    """Serve in this process."""
    async with serving(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30, verify=False) as http:
        issuer.audience = server.url

        async def is_ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await wait_until(is_ready)
        yield AppUnderTest(server, issuer, http)


@pytest.fixture
def run_app() -> Any:
    """The way to run an AppService with settings of the test's own."""
    return serve_app


@pytest.fixture
async def app(make_settings: Any, issuer: LocalIssuer) -> AsyncIterator[AppUnderTest]:
    """An AppService on SQLite."""
    async with serve_app(make_settings(), issuer) as running_app:
        yield running_app


@pytest.fixture
async def any_app(make_settings: Any, issuer: LocalIssuer, database_url: str) -> AsyncIterator[AppUnderTest]:
    """An AppService, once on SQLite and once on PostgreSQL."""
    async with serve_app(make_settings(database_url), issuer) as running_app:
        yield running_app


# What several tests use, importable by name.
for _name in ("installation", "acting_installation", "agent", "agent_flows"):
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])
_running_authority = sys.modules["installation"].running_authority
_acting_installation = sys.modules["acting_installation"].acting_installation


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Any]:
    """The real services and a broker."""
    async with sys.modules["installation"].installed(tmp_path / "evs") as running_installation:
        yield running_installation


@pytest.fixture(scope="module")
def authorities(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Any]]:
    """The AuthService on a kind of database, begun for the first test that asks: the others find it running."""
    with ExitStack() as stack:

        @cache
        def authority(kind: str) -> Any:
            url = None
            if kind == "postgresql":
                server = request.getfixturevalue("postgresql_server")
                url = f"{server}{'&' if '?' in server else '?'}schema=test_{uuid.uuid4().hex[:12]}"
            return stack.enter_context(_running_authority(tmp_path_factory.mktemp("authority"), url))

        yield authority


@pytest.fixture
async def acting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authorities: Callable[[str], Any]
) -> AsyncIterator[Any]:
    """On SQLite, beside an AuthService that others have used."""
    async with _acting_installation(tmp_path / "evs", monkeypatch, authority=authorities("sqlite")) as running:
        yield running


@pytest.fixture
async def acting_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """On SQLite, with an AuthService that the test may stop."""
    async with _acting_installation(tmp_path / "evs", monkeypatch) as running:
        yield running


@pytest.fixture
async def acting_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, authorities: Callable[[str], Any]
) -> AsyncIterator[Any]:
    """Once on SQLite and once on PostgreSQL, beside an AuthService that others have used."""
    authority = authorities(database_url.partition(":")[0])
    async with _acting_installation(tmp_path / "evs", monkeypatch, database_url, authority=authority) as running:
        yield running
