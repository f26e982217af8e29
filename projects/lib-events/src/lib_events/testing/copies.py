"""For tests on PostgreSQL that each want a database of their own: copies of the first with the same tables.

To migrate an empty schema takes PostgreSQL three times as long as to copy the files of a database where that was done,
and every schema that is left makes the next one slower.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg

from lib_events.database import Schema

type Migrate = Callable[[str, Sequence[Schema]], Awaitable[None]]


class Copies:
    """Databases on a server that is ours alone, each made when it is first opened.

    `migrate` opens the database of a URL with the tables of some schemas, and closes it again.
    """

    def __init__(self, server: str, migrate: Migrate) -> None:
        self._server = server
        self._migrate = migrate
        self._originals: dict[tuple[str, tuple[Schema, ...]], str] = {}
        self._wanted: set[str] = set()
        self._making: dict[str, asyncio.Event] = {}
        self._left: list[str] = []

    def new_url(self) -> str:
        """The URL of a schema in a database that nobody has made yet."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._wanted.add(name)
        return self._url(name, "test")

    def leave(self, url: str) -> None:
        """Nobody wants that database any more: it goes when the next one comes."""
        name = _name(url)
        if self._making.pop(name, None) is not None:
            self._left.append(name)
        self._wanted.discard(name)

    async def make(self, url: str, schemas: Sequence[Schema]) -> None:
        """Make the database of a URL that is about to be opened, unless it is there or none of ours."""
        name = _name(url)
        if name not in self._wanted:
            return
        if name in self._making:
            await self._making[name].wait()
            return
        made = self._making[name] = asyncio.Event()
        async with self._administrator() as administrator:
            while self._left:
                await administrator.execute(f'DROP DATABASE "{self._left.pop()}" WITH (FORCE)')
            original = await self._original(administrator, _schema(url), tuple(schemas))
            await administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE "{original}" STRATEGY file_copy')
        self._wanted.discard(name)
        made.set()

    async def _original(self, administrator: asyncpg.Connection, schema: str, schemas: tuple[Schema, ...]) -> str:
        """The name of a database with those tables, which nobody else uses."""
        kind = (schema, schemas)
        if kind not in self._originals:
            name = f"original_{len(self._originals)}"
            await administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
            await self._migrate(self._url(name, schema), schemas)
            self._originals[kind] = name
        return self._originals[kind]

    @asynccontextmanager
    async def _administrator(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._server)
        try:
            yield connection
        finally:
            await connection.close()

    def _url(self, name: str, schema: str) -> str:
        parts = urlsplit(self._server)
        query = f"{parts.query}&schema={schema}" if parts.query else f"schema={schema}"
        return urlunsplit(parts._replace(path=f"/{name}", query=query))


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _schema(url: str) -> str:
    return parse_qs(urlsplit(url).query)["schema"][0]
