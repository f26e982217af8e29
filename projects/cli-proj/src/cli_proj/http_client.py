"""The HTTP client of a command: one for all it calls, and cheap to make for a product on this machine."""

import httpx

from cli_proj.context import Context

TIMEOUT_SECONDS = 30.0


def new_http(context: Context) -> httpx.AsyncClient:
    """Return a client for the services of `context`; close it."""
    is_remote = any(url.startswith("https://") for url in (context.auth_url, context.app_url))
    # Reading the certificates of the world takes 80 ms, and a proxy cannot reach this machine's loopback.
    return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, verify=is_remote, trust_env=is_remote)
