"""An installation with a service of another team, that of the examples, and people who let runs act for them."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from installation import PASSWORD, SCOPE, Installation, Person, Places, follow, installed, read_form
from sqlalchemy import select

from app_svc import starter_tokens
from app_svc.tables import delegations
from lib_events.testing import wait_until
from lib_events.testing.ports import free_ports
from lib_workflows.reading import queries

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "examples"
FLOWS = (EXAMPLES / "my_orders.py", HERE / "acting_flows.py")


class Quiet(uvicorn.Server):
    """Leaves signals to pytest."""

    def install_signal_handlers(self) -> None:
        """Nothing."""


class Acting:
    """An installation with a service of another team, and what people do at it."""

    def __init__(self, installation: Installation, orders_url: str) -> None:
        self.installation = installation
        self.orders_url = orders_url
        self.tokens_seen: list[str] = []
        self._administrator: Person | None = None

    @property
    def service(self) -> Any:
        assert self.installation.serving is not None
        return self.installation.serving.service

    async def administrator(self) -> Person:
        if self._administrator is None:
            asked = {"scope": "openid admin", "resource": f"{self.installation.auth_url}/v1/admin"}
            tokens = await self.installation.tokens("admin", **asked)
            self._administrator = Person(self.installation, tokens["access_token"])
        return self._administrator

    async def administer(self, method: str, path: str, body: Any = None, *, or_gone: bool = False) -> httpx.Response:
        admin = await self.administrator()
        url = f"{self.installation.auth_url}/v1/admin/{path}"
        answer = await self.installation.http.request(method, url, json=body, headers=admin.headers)
        assert answer.is_success or (or_gone and answer.status_code == 404), answer.text
        return answer

    async def ulla(self) -> Person:
        return await self.installation.person("ulla")

    async def allow(self, consent_uri: str) -> httpx.Response:
        """Be ulla in a browser, who allows what she is asked."""
        origin = {"origin": self.installation.auth_url}
        async with httpx.AsyncClient(base_url=self.installation.auth_url, timeout=30) as browser:
            page = await follow(browser, await browser.get(consent_uri))
            action, fields = read_form(page.text)
            signed_in = await browser.post(
                action, data=fields | {"username": "ulla", "password": PASSWORD}, headers=origin
            )
            page = await follow(browser, signed_in)
            action, fields = read_form(page.text)
            return await browser.post(action, data=fields | {"decision": "allow"}, headers=origin)

    async def allowed(self, workflow: str = "my-orders") -> Person:
        """Ulla, who has allowed the workflow to act for her."""
        ulla = await self.ulla()
        refused = await ulla.post("/v1/runs", {"workflow": workflow})
        assert refused.status_code == 403, refused.text
        assert (await self.allow(refused.json()["consent_uri"])).status_code == 200
        return ulla

    async def start(self, person: Person, workflow: str, value: Any = None, **more: Any) -> dict[str, Any]:
        answer = await person.post("/v1/runs", {"workflow": workflow, "input": value} | more)
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def ended(self, run_id: str) -> Any:
        async def look() -> Any:
            run = await self.service.database.read(queries.get_run, run_id)
            return run if run is not None and run.ended_at is not None else None

        return await wait_until(look, timeout=30)

    async def operator(self, username: str) -> Person:
        """Somebody who may make schedules."""
        tokens = await self.installation.tokens(username, scope=f"{SCOPE} workflows:manage")
        return Person(self.installation, tokens["access_token"])

    async def patch(self, person: Person, schedule: str, body: dict[str, Any]) -> httpx.Response:
        url = f"{self.installation.app_url}/v1/schedules/{schedule}"
        return await self.installation.http.patch(url, json=body, headers=person.headers)

    async def outputs_of(self, schedule: str, until: str | None = None) -> list[str]:
        """What the ended runs of a schedule have said, once there is one (that said `until`)."""

        async def look() -> list[str]:
            runs = await self.service.engine.schedules.runs(schedule)
            found = [await self.service.database.read(queries.get_run, run.id) for run in runs]
            said = [run.output for run in found if run is not None and run.output is not None]
            return said if until is None or until in said else []

        return await wait_until(look, timeout=20)

    async def delegations(self) -> list[dict[str, Any]]:
        """What acts for ulla, as the AuthService says."""
        return (await self.administer("GET", "users/ulla/delegations")).json()["items"]

    async def until_nothing_acts(self) -> None:
        async def look() -> bool:
            return await self.delegations() == []

        await wait_until(look, timeout=20)

    async def until_nothing_is_kept(self) -> None:
        async def look() -> bool:
            return await self.rows() == []

        await wait_until(look, timeout=20)

    async def let_go_on(self, person: Person, run: dict[str, Any]) -> Any:
        await person.post(f"/v1/runs/{run['id']}/signals/go-on", True)
        return await self.ended(run["id"])

    async def rows(self) -> list[Any]:
        def read(connection: Any) -> list[Any]:
            return list(connection.execute(select(delegations)).all())

        return await self.service.database.read(read)

    def watch_tokens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Remember the tokens that steps are given."""
        give = starter_tokens.StarterTokens.__call__

        async def remember(source: Any, wanted: Any) -> str:
            token = await give(source, wanted)
            self.tokens_seen.append(token)
            return token

        monkeypatch.setattr(starter_tokens.StarterTokens, "__call__", remember)


def load(path: Path) -> Any:
    specification = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@asynccontextmanager
async def serving_orders(port: int) -> AsyncIterator[None]:
    server = Quiet(uvicorn.Config(load(EXAMPLES / "orders_service.py").app, port=port, log_config=None))
    task = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def acting_installation(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str | None = None,
    queues: Sequence[str] = (),
    *,
    with_broker: bool = False,
    authority: Places | None = None,
) -> AsyncIterator[Acting]:
    monkeypatch.setattr(starter_tokens, "PAUSE_SECONDS", 0.1)
    (port,) = free_ports(1)
    orders_url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("ORDERS_URL", orders_url)
    for path in FLOWS:
        sys.modules.pop(path.stem, None)
    options: dict[str, Any] = {"database_url": database_url, "workflows": FLOWS, "queues": queues}
    async with installed(data, with_broker=with_broker, authority=authority, **options) as installation:
        acting = Acting(installation, orders_url)
        scopes = {"orders": "See your orders"}
        resource = {"id": "orders", "identifier": orders_url, "name": "Orders", "scopes": scopes, "actors": ["evs-app"]}
        secret = (await acting.administer("POST", "resources", resource)).json()["secret"]
        await acting.administer("POST", "users", {"username": "ulla", "password": PASSWORD})
        monkeypatch.setenv("EVS_AUTH_URL", installation.auth_url)
        monkeypatch.setenv("ORDERS_SECRET", secret)
        async with serving_orders(port):
            try:
                yield acting
            finally:
                if authority is not None:  # to the next installation nobody is known, and nothing
                    await acting.administer("DELETE", "users/ulla")
                    await acting.administer("DELETE", "resources/orders", or_gone=True)
