"""Agents sign in at the AuthService: the official SDK's client finds the way by itself, as any standard client does."""

import runpy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from agent import ERAS, agent_at, refused, told, tools_of
from installation import PASSWORD, Installation, Person, follow, installed, read_form
from mcp.client.auth import OAuthClientProvider, OAuthRegistrationError
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

EXAMPLES = Path(__file__).parents[3] / "examples"
CALLBACK = "http://127.0.0.1:33418/callback"
OPEN = MappingProxyType({"EVS_CLIENT_REGISTRATION": "open"})


class Kept:
    """Where the agent's machine keeps what it was given."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.client = client
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Browser:
    """Ulla in front of a browser that an agent opens: she signs in, reads what she is asked, and allows it."""

    def __init__(self, auth_url: str) -> None:
        self.auth_url = auth_url
        self.asked: list[dict[str, list[str]]] = []
        self.read = ""
        self._answer: dict[str, list[str]] = {}

    async def open(self, url: str) -> None:
        self.asked.append(parse_qs(urlsplit(url).query))
        origin = {"origin": self.auth_url}
        async with httpx.AsyncClient(base_url=self.auth_url, timeout=30) as browser:
            page = await follow(browser, await browser.get(url))
            action, fields = read_form(page.text)
            given = fields | {"username": "ulla", "password": PASSWORD}
            page = await follow(browser, await browser.post(action, data=given, headers=origin))
            self.read = page.text
            action, fields = read_form(page.text)
            answer = await browser.post(action, data=fields | {"decision": "allow"}, headers=origin)
            answer = await follow(browser, answer, until=CALLBACK)
        self._answer = parse_qs(urlsplit(answer.headers["location"]).query)

    async def come_back(self) -> AuthorizationCodeResult:
        given = {name: values[0] for name, values in self._answer.items()}
        return AuthorizationCodeResult(code=given["code"], state=given["state"], iss=given["iss"])


def signing_in(installation: Installation, kept: Kept, browser: Browser) -> OAuthClientProvider:
    """The SDK's provider, as its documentation says to make it."""
    return OAuthClientProvider(
        server_url=f"{installation.app_url}/mcp",
        client_metadata=OAuthClientMetadata.model_validate({"client_name": "An agent", "redirect_uris": [CALLBACK]}),
        storage=kept,
        redirect_handler=browser.open,
        callback_handler=browser.come_back,
    )


@asynccontextmanager
async def with_ulla(data: Path, settings: Mapping[str, str]) -> AsyncIterator[tuple[Installation, Person]]:
    """An installation where ulla has an account, and its administrator."""
    async with installed(data, with_broker=False, auth_settings=settings) as installation:
        asked = {"scope": "openid admin", "resource": f"{installation.auth_url}/v1/admin"}
        admin = Person(installation, (await installation.tokens("admin", **asked))["access_token"])
        made = await admin.post("/v1/admin/users", {"username": "ulla", "password": PASSWORD}, at=installation.auth_url)
        assert made.is_success, made.text
        yield installation, admin


@pytest.mark.parametrize("mode", ERAS)
async def test_an_agent_registers_itself_and_acts_for_whoever_signs_in(tmp_path: Path, mode: str) -> None:
    async with with_ulla(tmp_path / "evs", OPEN) as (installation, _):
        kept, browser = Kept(), Browser(installation.auth_url)
        auth = signing_in(installation, kept, browser)
        async with agent_at(installation.app_url, auth=auth, mode=mode) as client:
            done = await told(client, "start_order", {"input": {"quantity": 3}})
            tools = await tools_of(client)
        assert done["result"]["quantity"] == 3
        assert done["started_by"] == "ulla"
        assert kept.client is not None
        assert done["tags"] == {"agent": kept.client.client_id}
        (asked,) = browser.asked
        assert asked["resource"] == [f"{installation.app_url}/mcp"]
        assert asked["code_challenge_method"] == ["S256"]
        assert "An agent" in browser.read
        # Who registers itself may never decide in people's names, whatever it asks for.
        assert "approvals:decide" in asked["scope"][0]
        assert kept.tokens is not None
        assert {*str(kept.tokens.scope).split()} >= {"workflows:read", "workflows:run"}
        assert "approvals:decide" not in str(kept.tokens.scope)
        assert "decide_approval" not in tools

        kept.tokens = kept.tokens.model_copy(update={"access_token": "worn-out"})
        again = signing_in(installation, kept, browser)
        async with agent_at(installation.app_url, auth=again, mode=mode) as client:
            assert (await told(client, "show_run", {"run": done["run"]}))["status"] == "completed"


async def test_a_stranger_gets_nowhere_unless_an_administrator_lets_it_and_then_without_registering(
    tmp_path: Path,
) -> None:
    async with with_ulla(tmp_path / "evs", {}) as (installation, admin):
        browser = Browser(installation.auth_url)
        with pytest.RaisesGroup(OAuthRegistrationError, flatten_subgroups=True):
            async with agent_at(installation.app_url, auth=signing_in(installation, Kept(), browser)):
                raise AssertionError("nobody let it in")
        client = {
            "id": "my-agent",
            "name": "My agent",
            "redirect_uris": [CALLBACK],
            "public": True,
            "scopes": ["openid", "workflows:read", "workflows:run", "approvals:decide"],
        }
        made = await admin.post("/v1/admin/clients", client, at=installation.auth_url)
        assert made.is_success, made.text
        known = OAuthClientInformationFull.model_validate(
            {"client_id": "my-agent", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
        )
        kept = Kept(known)
        async with agent_at(installation.app_url, auth=signing_in(installation, kept, browser)) as agent:
            assert {"decide_approval", "start_order"} <= {*await tools_of(agent)}
            assert "no run" in await refused(agent, "show_run", {"run": "somebody-elses"})
        assert "My agent" in browser.read
        assert kept.tokens is not None
        url = f"{installation.app_url}/v1/workflows"
        bearer = {"authorization": f"Bearer {kept.tokens.access_token}"}
        assert (await installation.http.get(url, headers=bearer)).status_code == 200, "the same token is good for REST"


async def test_a_program_signs_in_as_itself_and_does_once_what_it_is_told_twice(tmp_path: Path) -> None:
    order_tea = runpy.run_path(str(EXAMPLES / "use_tools.py"))["order_tea"]
    async with with_ulla(tmp_path / "evs", {}) as (installation, admin):
        client = {
            "id": "night-agent",
            "name": "Night agent",
            "grant_types": ["client_credentials"],
            "scopes": ["workflows:read", "workflows:run"],
            "roles": ["member"],
        }
        made = await admin.post("/v1/admin/clients", client, at=installation.auth_url)
        assert made.is_success, made.text
        url, secret, kept = f"{installation.app_url}/mcp", made.json()["secret"], Kept()
        first, again = [await order_tea(url, installation.auth_url, secret, kept) for _ in range(2)]
    assert first == again
    assert first.startswith("EVS-")


async def test_a_run_that_a_tool_starts_acts_for_its_person_once_they_have_allowed_it(acting: Any) -> None:
    ulla = await acting.ulla()
    token = ulla.headers["authorization"].removeprefix("Bearer ")
    async with agent_at(acting.installation.app_url, token) as agent:
        answer = await agent.call_tool("start_my-orders", {})
        assert answer.is_error
        told_first = answer.structured_content
        assert told_first["consent_uri"] in told_first["problem"]
        assert (await acting.allow(told_first["consent_uri"])).status_code == 200
        assert (await told(agent, "start_my-orders"))["result"] == ["an order of ulla"]
