"""Clients that are removed: what they held is worth nothing, and who comes as one at that moment is told so."""

from urllib.parse import urlencode

import pytest
from sqlalchemy import select, update

from auth_svc.clients import clients
from auth_svc.tables import clients as client_table
from auth_svc.tables import consents, device_codes, families, pushed_requests

CALLBACK = "https://shop.example/back"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
SHOP = {
    "id": "shop",
    "name": "Shop",
    "redirect_uris": (CALLBACK,),
    "scopes": frozenset(("openid", "profile", "workflows:read")),
    "grant_types": ("authorization_code", DEVICE, EXCHANGE),
}


async def add_program(provider, **rights):
    """Make a client that has been there for a while: a token of the very second it was made in says the next."""
    auth = await provider.add_client(id="ops", name="Ops", grant_types=("client_credentials",), **rights)
    older = update(client_table).where(client_table.c.id == "ops").values(tokens_valid_after=0)
    await provider.service.database.transact(lambda connection: connection.execute(older).rowcount)
    return auth


async def test_a_resource_server_of_the_same_name_brings_no_token_back(provider_on_both):
    """The tokens of both are told apart by the moment from which on they are good."""
    provider, audience = provider_on_both, f"{provider_on_both.settings.auth_url}/v1/admin"
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    rights = {"scopes": frozenset(("admin",)), "roles": frozenset(("admin",))}
    program = await add_program(provider, **rights)
    answer = await provider.token(program, grant_type="client_credentials", scope="admin", resource=audience)
    theirs = {"authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await provider.http.get("/v1/admin/users", headers=theirs)).status_code == 200
    assert (await provider.http.delete("/v1/admin/clients/ops", headers=admin)).status_code == 204
    body = {"id": "ops", "identifier": "https://ops.example", "name": "Ops"}
    assert (await provider.http.post("/v1/admin/resources", json=body, headers=admin)).status_code == 201
    assert (await provider.http.get("/v1/admin/users", headers=theirs)).status_code == 401


async def test_a_client_of_the_same_name_acts_nowhere_where_the_other_did(provider_on_both):
    """And what is said of the services meanwhile is not refused for a client that is there no more."""
    provider = provider_on_both
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}

    async def ask(method, path, body=None):
        return await provider.http.request(method, f"/v1/admin{path}", json=body, headers=admin)

    await provider.add_client(**SHOP)
    for name, actors in (("orders", ["shop"]), ("stock", ["orders", "shop"])):
        await ask("POST", "/resources", {"id": name, "identifier": f"https://{name}.example", "name": name})
        assert (await ask("PATCH", f"/resources/{name}", {"actors": actors})).status_code == 200
    assert (await ask("DELETE", "/clients/shop")).status_code == 204
    assert [(await ask("GET", f"/resources/{name}")).json()["actors"] for name in ("orders", "stock")] == [
        [],
        ["orders"],
    ]
    assert (await ask("PATCH", "/resources/stock", {"name": "The stock"})).json()["actors"] == ["orders"]
    assert (await ask("DELETE", "/resources/orders")).status_code == 204
    assert (await ask("GET", "/resources/stock")).json()["actors"] == []
    assert provider.service.issuer.resources.find("https://stock.example").actors == frozenset()


async def test_a_client_made_anew_at_once_brings_no_token_back(provider_on_both):
    provider = provider_on_both
    rights = {"scopes": frozenset(("workflows:read",))}
    program = await add_program(provider, **rights)
    held = (await provider.token(program, grant_type="client_credentials")).json()["access_token"]
    await provider.service.database.transact(clients.remove, "ops", provider.actor())
    await provider.add_client(id="ops", name="Ops", grant_types=("client_credentials",), **rights)
    assert await provider.introspect(held) == {"active": False}


async def allow(provider, auth):
    browser = await provider.browser()
    await provider.authorize(browser, client_id="shop", redirect_uri=CALLBACK, scope="openid")
    await browser.submit(username="ada", password="correct horse battery staple")
    return browser.submit(decision="allow")


async def allow_for_later(provider, auth):
    browser = await provider.browser()
    asked = {"client": "shop", "scope": "workflows:read", "resource": provider.settings.app_url}
    await browser.sign_in("ada", at=f"/account/apps/allow?{urlencode(asked)}")
    return browser.submit(decision="allow")


async def push(provider, auth):
    return provider.post("/oauth2/par", provider.request(client_id="shop", redirect_uri=CALLBACK, scope="openid"), auth)


async def begin_on_a_device(provider, auth):
    return provider.post("/oauth2/device_authorization", {"scope": "openid"}, auth)


ASKING = {
    "allowed": (allow, 409, "begin again"),
    "allowed for later": (allow_for_later, 409, "nothing was allowed"),
    "pushed": (push, 400, "invalid_client"),
    "on a device": (begin_on_a_device, 400, "invalid_client"),
}


@pytest.mark.parametrize(("ask", "status", "told"), ASKING.values(), ids=ASKING)
async def test_who_comes_as_a_client_is_removed_is_told_so(provider_on_both, monkeypatch, ask, status, told):
    """Whatever would refer to it is not kept: it was there when the request was looked at."""
    provider = provider_on_both
    auth = await provider.add_client(**SHOP)
    asking = await ask(provider, auth)
    transact, waiting = provider.service.database.transact, [clients.remove]

    async def transact_once_removed(function, *args):
        if waiting:
            await transact(waiting.pop(), "shop", provider.actor())
        return await transact(function, *args)

    monkeypatch.setattr(provider.service.database, "transact", transact_once_removed)
    answer = await asking
    assert (answer.status_code, told in answer.text.lower()) == (status, True), answer.text
    for table in (consents, device_codes, families, pushed_requests):
        of_shop = select(table).where(table.c.client_id == "shop")
        assert not await provider.service.database.read(lambda connection, of_shop=of_shop: connection.scalar(of_shop))
