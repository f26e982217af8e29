"""A line to PostgreSQL that tests may cut without a word to the server, as a proxy does that is restarted."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit


class Line:
    """Forwards connections made by its `url` to the server of another one; `async with` opens it."""

    def __init__(self, url: str, *, port: int) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        self._folder = options.pop("host", None)  # of the server's socket file
        self._server = (parts.hostname, parts.port or 5432)
        user = parts.netloc.rpartition("@")[0] or "postgres:"
        self._port = port
        self.url = f"postgresql://{user}@127.0.0.1:{port}{parts.path}?{urlencode(options)}"
        self._clients: set[asyncio.StreamWriter] = set()
        self._held: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listening is not None:
            self._listening.close()
        self.cut()
        for writer in self._held:
            writer.close()

    def cut(self) -> None:
        """Cut all connections there are; the server's ends stay open, and it goes on with what it was asked."""
        for client in self._clients:
            client.transport.abort()
        self._clients.clear()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._folder is not None:
            back, server = await asyncio.open_unix_connection(f"{self._folder}/.s.PGSQL.{self._server[1]}")
        else:
            back, server = await asyncio.open_connection(*self._server)
        self._clients.add(client)
        self._held.add(server)
        answering = asyncio.create_task(_forward(back, client))
        answering.add_done_callback(lambda _: client.close())
        await _forward(reader, server)
        if client in self._clients:  # it went by itself
            self._clients.discard(client)
            server.close()
        await answering


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            if not writer.is_closing():
                writer.write(data)
