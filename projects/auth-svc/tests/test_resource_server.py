"""A stranger's service: three lines of FastAPI that let in who may, as the documentation shows them."""

import importlib.util
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from lib_auth.client import code_challenge
from lib_auth.protected_resource import read_challenge
from lib_events.testing import wait_until

EXAMPLE = Path(__file__).parents[3] / "examples" / "orders_service.py"
ORDERS = "http://127.0.0.1:8010"


@pytest.fixture
def administer():
    """Signs in as the administrator, and asks the admin API of a served AuthService."""

    def signed_in(settings, approve):
        secret, verifier = (settings.secrets / "evs-gui.secret").read_text(), "v" * 60
        wanted = {
            "response_type": "code",
            "client_id": "evs-gui",
            "redirect_uri": f"{settings.gui_url}/callback",
            "scope": "openid admin",
            "resource": f"{settings.auth_url}/v1/admin",
            "code_challenge": code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        http = httpx.Client(base_url=settings.auth_url)
        location = approve(settings.auth_url, f"/oauth2/authorize?{urlencode(wanted)}")
        form = {"grant_type": "authorization_code", "code": httpx.URL(location).params["code"]}
        form |= {"redirect_uri": wanted["redirect_uri"], "code_verifier": verifier}
        token = http.post("/oauth2/token", data=form, auth=("evs-gui", secret)).json()["access_token"]
        http.headers["authorization"] = f"Bearer {token}"
        return http

    return signed_in


def load(monkeypatch, issuer, secret):
    monkeypatch.setenv("EVS_AUTH_URL", issuer)
    monkeypatch.setenv("ORDERS_SECRET", secret)
    specification = importlib.util.spec_from_file_location("orders_service", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


async def test_a_service_in_three_lines_lets_in_who_may_until_the_token_is_revoked(
    serve, approve, administer, monkeypatch
):
    with serve() as settings, closing(administer(settings, approve)) as admin:
        resource = {"id": "orders", "identifier": ORDERS, "name": "Orders", "scopes": {"orders": "See your orders"}}
        secret = admin.post("/v1/admin/resources", json=resource).json()["secret"]
        client = {"id": "shop", "name": "Shop", "grant_types": ["client_credentials"], "scopes": ["orders"]}
        shop = ("shop", admin.post("/v1/admin/clients", json=client).json()["secret"])
        service = load(monkeypatch, settings.auth_url, secret)
        app = service.app
        assert await service.sign_in.check_ready() == "revocations have not been heard of"
        transport = httpx.ASGITransport(app=app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=ORDERS) as orders:
            refused = await orders.get("/orders")
            assert refused.status_code == 401
            assert (
                f'resource_metadata="{ORDERS}/.well-known/oauth-protected-resource"'
                in refused.headers["www-authenticate"]
            )
            metadata = (await orders.get("/.well-known/oauth-protected-resource")).json()
            assert (metadata["resource"], metadata["authorization_servers"]) == (ORDERS, [settings.auth_url])

            form = {"grant_type": "client_credentials", "resource": ORDERS}
            token = admin.post("/oauth2/token", data=form, auth=shop, headers={"authorization": ""}).json()
            headers = {"authorization": f"Bearer {token['access_token']}"}

            async def let_in():
                return (await orders.get("/orders", headers=headers)).status_code == 200

            await wait_until(let_in)

            async def ready():  # let in it may have been by introspection, before the feed was read
                return await service.sign_in.check_ready() is None

            await wait_until(ready)
            weak = await orders.post("/orders/42/refund", headers=headers)  # a client of its own has shown no factor
            assert weak.status_code == 401
            challenge = read_challenge(weak.headers["www-authenticate"])
            assert (challenge["error"], challenge["acr_values"], challenge["max_age"]) == (
                "insufficient_user_authentication",
                "urn:evs:acr:2 phr",
                "300",
            )
            other = {"grant_type": "client_credentials"}
            wrong = admin.post("/oauth2/token", data=other, auth=shop, headers={"authorization": ""}).json()
            wrong_headers = {"authorization": f"Bearer {wrong['access_token']}"}
            assert (await orders.get("/orders", headers=wrong_headers)).status_code == 401
            admin.post("/v1/admin/clients/shop/disable")

            async def shut_out():
                return (await orders.get("/orders", headers=headers)).status_code == 401

            await wait_until(shut_out)
