"""Keeps what tokens mean, the resources and roles, in memory and current: no token request asks the database for it.

A process sees its own commits before it answers, those of others when the database says so, and at the latest when
it looks by itself; that something was taken from a role it sees among the rows of the next token request. Nothing is
known to be signed with a key that is not there yet: it is made first.
"""

import asyncio
from collections.abc import Awaitable, Callable

from auth_svc.protocol.issuer import Issuer
from auth_svc.rights import resource_servers, resources, roles
from auth_svc.rights.resources import Resource
from auth_svc.rights.roles import DEFINITIONS_TOPIC, Role
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop

POLL_SECONDS = 5.0


class Definitions(Loop):
    """Reads the rows into the issuer's snapshots."""

    def __init__(self, database: Database, issuer: Issuer, *, ensure_key: Callable[[str], Awaitable[None]]) -> None:
        """`ensure_key` has a key for an algorithm made, unless there is one."""
        super().__init__(name="definitions")
        self._database = database
        self._issuer = issuer
        self._ensure_key = ensure_key
        self._reading = asyncio.Lock()  # an older reading must not come after a newer one

    async def run(self) -> None:
        """Read whenever somebody changed something."""
        unsubscribe = self._database.on_notify(DEFINITIONS_TOPIC, self.wake)
        try:
            while True:
                await self.refresh()
                await self.pause(POLL_SECONDS)
        finally:
            unsubscribe()

    async def refresh(self) -> None:
        """Read now: what was committed before this began counts when it is done."""
        async with self._reading:
            await self._read()

    async def catch_up(self, refused_at: int) -> None:
        """Read unless what was taken from a role at that moment is known; of many who come at once, one reads."""
        async with self._reading:
            if self._issuer.roles.last_refused < refused_at:
                await self._read()

    async def _read(self) -> None:
        found = await self._database.read(load)
        for algorithm in {resource.signing_alg for resource in found[0]}:
            await self._ensure_key(algorithm)
        self._issuer.resources.take(found[0])
        self._issuer.roles.take(found[1])


def load(connection: Connection) -> tuple[list[Resource], list[Role]]:
    """Return everything in one snapshot."""
    return resources.load(connection), roles.load(connection)


def put_built_in(connection: Connection, issuer: str, app: str, now: int) -> None:
    """Transaction function: bring what is built in up to date."""
    resource_servers.put_built_in(connection, issuer, app, now)
    resource_servers.put_clients(connection)
    roles.put_built_in(connection, now)
    connection.notify(DEFINITIONS_TOPIC)
