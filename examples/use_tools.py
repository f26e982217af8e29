"""A program that uses workflows as tools, signed in as itself: `evs admin client create night-agent --grant …`."""

import httpx2
from mcp import Client
from mcp.client.auth import TokenStorage
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client


# --8<-- [start:order]
async def order_tea(url: str, issuer: str, secret: str, kept: TokenStorage) -> str:
    """Order tea, once however often this is called, and return the tracking number."""
    auth = ClientCredentialsOAuthProvider(url, kept, client_id="night-agent", client_secret=secret, issuer=issuer)
    async with (
        httpx2.AsyncClient(auth=auth, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as agent,  # url: http://127.0.0.1:8002/mcp
    ):
        wanted = {"input": {"sku": "tea-green"}, "idempotency_key": "tea-of-november", "wait_seconds": 20}
        answer = await agent.call_tool("start_order", wanted)
        if answer.is_error:
            raise RuntimeError(answer.structured_content)
        return str(answer.structured_content["result"]["tracking_number"])


# --8<-- [end:order]
