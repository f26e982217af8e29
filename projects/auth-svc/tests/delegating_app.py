"""The AppService's side of a delegation, and ada's: what tests of delegations are made of."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from auth_svc.people import accounts
from auth_svc.rights import resource_servers
from auth_svc.rights.resources import Resource
from lib_events.testing import wait_until

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
DELEGATION = "urn:event-based-svcs:params:oauth:token-type:delegation"
ORDERS, STOCK = "https://orders.example", "https://stock.example"


@dataclass
class Delegating:
    """The AppService's side of a delegation, and ada's."""

    provider: Any

    async def make_resource(
        self, name: str = "orders", identifier: str = ORDERS, actors: tuple[str, ...] = ("evs-app",)
    ):
        service = self.provider.service
        scopes = {f"{name}:read": f"See your {name}", f"{name}:write": f"Change your {name}"}
        made = Resource(id=name, identifier=identifier, name=name.title(), scopes=scopes, actors=frozenset(actors))
        await service.database.transact(resource_servers.create, made, "secret", self.provider.actor())
        await service.definitions.refresh()

    async def change_resource(self, name: str = "orders", **changes: Any):
        service = self.provider.service
        await service.database.transact(resource_servers.change, name, changes, self.provider.actor())
        await service.definitions.refresh()

    def app(self) -> tuple[str, str]:
        return "evs-app", self.provider.secret_of("evs-app")

    async def ask(self, token: str, auth: Any = None, *, resources: tuple[str, ...] = (ORDERS,), **form: Any):
        wanted = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": DELEGATION,
            "scope": "orders:read",
            "purpose": "Run 42 of the workflow report",
        } | form
        pairs = [(name, value) for name, value in wanted.items() if value is not ...]
        pairs += [("resource", resource) for resource in resources]
        return await self.provider.post("/oauth2/token", pairs, auth or self.app())

    async def use(self, delegation: str, auth: Any = None, **form: Any) -> httpx.Response:
        wanted = {"grant_type": EXCHANGE, "subject_token": delegation, "subject_token_type": DELEGATION} | form
        return await self.provider.post("/oauth2/token", wanted, auth or self.app())

    async def allow(self, scope: str = "orders:read", resource: str = ORDERS, username: str = "ada"):
        browser = await self.provider.browser()
        asked = urlencode({"client": "evs-app", "scope": scope, "resource": resource})
        await browser.sign_in(username, at=f"/account/apps/allow?{asked}")
        return await browser.submit(decision="allow")

    async def given(self, **form: Any) -> str:
        """A delegation that ada gave."""
        await self.make_resource()
        await self.allow()
        answer = await self.ask((await self.provider.tokens())["access_token"], **form)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    async def events(self, count: int, *types: str):
        """At least `count` events of these types: on PostgreSQL they get their places a moment later."""

        async def look():
            found = await self.provider.events(*types)
            return found if len(found) >= count else None

        return await wait_until(look)

    async def subject(self) -> str:
        found = await self.provider.service.database.read(accounts.find_by_username, "ada")
        return found.id
