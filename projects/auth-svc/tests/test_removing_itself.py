"""A client that removes itself while it is used: nothing survives, whatever was under way, and nothing is a fault."""

import asyncio
import base64
import json
import random
import secrets

import pytest
from sqlalchemy import select

from auth_svc import opaque
from auth_svc.clients import clients
from auth_svc.clients.client import CODE, CREDENTIALS, DEVICE, REFRESH
from auth_svc.people import accounts
from auth_svc.tables import consents, device_codes, families, logout_deliveries, pushed_requests

CALLBACK = "https://shop.example/back"
METADATA = {
    "client_name": "Shop",
    "redirect_uris": [CALLBACK],
    "scope": "openid workflows:read",
    "grant_types": [CODE, REFRESH],
    "id_token_signed_response_alg": "ES256",
}
ROUNDS = 4
ANSWERS = {200, 201, 204, 303, 400, 401, 403, 409}


class Shop:
    """A client that registered itself, and a person who uses it."""

    def __init__(self, provider, name):
        self.provider, self.id, self.access = provider, name, opaque.new_secret()
        self.asked = {"client_id": name, "redirect_uri": CALLBACK, "scope": "openid workflows:read"}

    async def open(self):
        values = {"name": "Shop", "redirect_uris": (CALLBACK,), "grant_types": (CODE, REFRESH, DEVICE, CREDENTIALS)}
        values |= {"scopes": frozenset(("openid", "workflows:read")), "registration_digest": opaque.digest(self.access)}
        values |= {"logout_uri": "https://10.0.0.1/hear", "created_at": self.provider.actor().at}
        self.auth = await self.provider.add_client(id=self.id, origin="registered", **values)
        self.browser, self.other, self.undecided = [await self.provider.browser() for _ in range(3)]
        for browser in (self.browser, self.other, self.undecided):
            await browser.sign_in("ada")
        await self.provider.authorize(self.browser, **self.asked)
        self.code = self.provider.answer(await self.browser.submit(decision="allow"))["code"]
        self.refresh_token = (await self.redeem(await self.new_code(self.other))).json()["refresh_token"]
        await self.provider.authorize(self.undecided, **self.asked, prompt="consent")
        self.device = (await self.begin_device()).json()
        await self.browser.open(self.device["verification_uri_complete"])
        await self.browser.submit()
        await self.browser.submit(decision="allow")

    async def new_code(self, browser):
        return self.provider.answer(await self.provider.authorize(browser, **self.asked))["code"]

    async def redeem(self, code):
        form = {"grant_type": CODE, "code": code, "redirect_uri": CALLBACK, "code_verifier": self.provider.verifier}
        return await self.provider.token(self.auth, **form)

    async def redeem_code(self):
        return await self.redeem(self.code)

    async def refresh(self):
        return await self.provider.token(self.auth, grant_type=REFRESH, refresh_token=self.refresh_token)

    async def own_token(self):
        return await self.provider.token(self.auth, grant_type=CREDENTIALS, scope="workflows:read")

    async def poll(self):
        return await self.provider.token(self.auth, grant_type=DEVICE, device_code=self.device["device_code"])

    async def begin_device(self):
        return await self.provider.post("/oauth2/device_authorization", {"scope": "openid"}, self.auth)

    async def push(self):
        return await self.provider.post("/oauth2/par", self.provider.request(**self.asked), self.auth)

    async def authorize(self):
        return await self.provider.authorize(self.browser, **self.asked)

    async def allow(self):
        return await self.undecided.submit(decision="allow")

    async def sign_out(self):
        await self.other.open("/account/sessions")
        return await self.other.submit(action="/account/end-other-sessions")

    async def change(self):
        body = METADATA | {"client_id": self.id, "client_name": secrets.token_hex(4)}
        return await self._manage("PUT", json=body)

    async def remove(self):
        return await self._manage("DELETE")

    async def _manage(self, method, **sent):
        headers = {"authorization": f"Bearer {self.access}"}
        return await self.provider.http.request(method, f"/oauth2/register/{self.id}", headers=headers, **sent)

    async def at_once(self):
        doing = [self.redeem_code, self.refresh, self.refresh, self.own_token, self.own_token, self.poll, self.push]
        doing += [self.sign_out, self.begin_device, self.authorize, self.allow]
        doing += [self.change, self.change, self.remove, self.remove]
        random.shuffle(doing)
        return await asyncio.gather(*(act() for act in doing))


def issued_at(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iat"]


async def test_nothing_survives_a_client_that_removes_itself(provider_on_both):
    provider, tokens = provider_on_both, []
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    for number in range(ROUNDS):
        provider.service.limits.user_codes.forget(ada.id)
        provider.service.limits.devices.forget("127.0.0.1")
        shop = Shop(provider, f"shop-{number}")
        await shop.open()
        answers = await shop.at_once()
        assert {answer.status_code for answer in answers} <= ANSWERS, [answer.text for answer in answers]
        assert await provider.service.database.read(clients.find, shop.id) is None
        for table in (consents, device_codes, families, pushed_requests, logout_deliveries):
            left = select(table).where(table.c.client_id == shop.id)
            assert not await provider.service.database.read(lambda connection, left=left: connection.scalar(left))
        given = [each for each in answers if each.status_code == 200 and each.request.url.path == "/oauth2/token"]
        tokens += [(shop.id, each.json()["access_token"]) for each in given]
    told = (await provider.http.get("/v1/revocations", auth=("evs-app", provider.secret_of("evs-app")))).json()["items"]
    until = {item["value"]: item["issued_until"] for item in told if item["kind"] == "client"}
    for client, token in tokens:
        assert await provider.introspect(token) == {"active": False}
        assert issued_at(token) <= until[client], "whoever hears of it refuses the token"
    assert tokens


async def disable(provider, shop):
    await provider.service.database.transact(clients.disable, shop.id, provider.actor())


async def make_another(provider, shop):
    await provider.service.database.transact(clients.remove, shop.id, provider.actor())
    await provider.add_client(id=shop.id, name="Another", redirect_uris=("https://another.example/back",))


@pytest.mark.parametrize("meanwhile", [disable, make_another])
async def test_a_client_that_is_not_its_own_any_more_does_not_remove_itself(provider_on_both, monkeypatch, meanwhile):
    """What an administrator has just disabled stays, and so does what has just been made under the same id."""
    provider, shop = provider_on_both, Shop(provider_on_both, "shop")
    await shop.open()
    database, waiting = provider.service.database, [meanwhile]
    transact = database.transact

    async def transact_once_changed(function, *args):
        if waiting and function.__name__ in ("remove", "_remove"):
            await waiting.pop()(provider, shop)
        return await transact(function, *args)

    monkeypatch.setattr(database, "transact", transact_once_changed)
    answer = await shop.remove()
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert await database.read(clients.find, "shop") is not None
