"""What the README of lib-auth shows works with a real AuthService."""

import ast
import asyncio
import inspect
import re
import webbrowser
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

README = Path(__file__).parents[2] / "lib-auth" / "README.md"


class NothingRevoked:
    """Revocations have tests of their own."""

    async def is_revoked(self, principal, token):
        return False


@pytest.fixture
def shown(server):
    """Runs the README's blocks, of which the service's is the first, with names that they leave to the reader."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2

    async def run(number, names):
        text = blocks[number].replace("http://127.0.0.1:8001", server.auth_url)
        running = eval(compile(text, str(README), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(running):
            await running
        return names

    return run


async def test_a_service_lets_in_who_may(server, shown):
    own = ("evs-local", (server.secrets / "evs-local.secret").read_text())
    app = FastAPI()
    async with httpx.AsyncClient() as http:
        await shown(0, {"http": http, "app": app, "revocations": NothingRevoked()})
        form = {"grant_type": "client_credentials", "scope": "workflows:read", "resource": "http://127.0.0.1:8002"}
        answer = await http.post(f"{server.auth_url}/oauth2/token", data=form, auth=own)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8002") as service:
            headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
            let_in = await service.get("/reports", headers=headers)
            refused = await service.get("/reports")
    assert (let_in.status_code, let_in.json()) == (200, "reports for evs-local")
    assert refused.status_code == 401


async def test_somebody_is_signed_in_and_stays_so(server, approve, shown, tmp_path, monkeypatch):
    visits = []

    def open_browser(url):
        visits.append(asyncio.ensure_future(asyncio.to_thread(lambda: httpx.get(approve(server.auth_url, url)))))

    monkeypatch.setattr(webbrowser, "open", open_browser)
    names = await shown(1, {"folder": tmp_path})
    await asyncio.gather(*visits)
    assert names["token"] == names["tokens"].access_token
    assert await names["sign_in"].renew(names["token"]) != names["token"], "kept with what refreshes it"
    await names["client"].close()
