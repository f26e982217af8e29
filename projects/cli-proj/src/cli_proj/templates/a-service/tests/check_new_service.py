"""The API as somebody without a token meets it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from new_service.api import create_app
from new_service.settings import ServiceSettings

URL = "http://new-service.test"
ISSUER = "http://auth.test"


@pytest.fixture
async def service() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(ServiceSettings(new_service_url=URL, auth_url=ISSUER))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=URL) as http:
        yield http


async def test_it_is_well_before_it_can_check_tokens_and_ready_only_then(service: httpx.AsyncClient) -> None:
    assert (await service.get("/healthz")).status_code == 200
    ready = await service.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"revocations": "revocations have not been heard of"}


async def test_whoever_brings_no_token_is_told_where_to_sign_in(service: httpx.AsyncClient) -> None:
    refused = await service.get("/greeting")
    assert refused.status_code == 401
    told = f'resource_metadata="{URL}/.well-known/oauth-protected-resource"'
    assert told in refused.headers["www-authenticate"]
    metadata = (await service.get("/.well-known/oauth-protected-resource")).json()
    assert (metadata["resource"], metadata["authorization_servers"]) == (URL, [ISSUER])
