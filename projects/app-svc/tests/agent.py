"""An agent: the official SDK's own client, unmodified, with a token or with a sign-in of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

ERAS = ("legacy", "auto")  # with a handshake, as up to 2025-11-25, and without, as since 2026-07-28


@asynccontextmanager
async def agent_at(
    url: str, token: str | None = None, *, mode: Any = "auto", auth: Any = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    """Connect to the tools at an AppService."""
    bearer = {} if token is None else {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=bearer | (headers or {}), auth=auth, timeout=30) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def tools_of(client: Client) -> dict[str, Any]:
    return {tool.name: tool for tool in (await client.list_tools()).tools}


async def told(client: Client, name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a tool says when all is well."""
    answer = await client.call_tool(name, arguments or {})
    assert not answer.is_error, answer
    return answer.structured_content


async def refused(client: Client, name: str, arguments: dict[str, Any] | None = None) -> str:
    """Why a tool does not do it."""
    answer = await client.call_tool(name, arguments or {})
    assert answer.is_error, answer
    return answer.structured_content["problem"]
