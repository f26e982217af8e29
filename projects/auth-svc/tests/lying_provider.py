"""Another OpenID provider of which a test can say in what it lies, and the way of a person through it."""

import json
import time
from functools import cache
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from joserfc import jws
from joserfc.jwk import RSAKey

from auth_svc.upstreams import providers

ELSEWHERE = "https://id.example"
BODY = {"id": "example", "name": "Example", "issuer": ELSEWHERE, "client_id": "us", "client_secret": "their secret"}


@cache
def signing_key():
    """The provider's key: a new one takes longer than most tests."""
    return RSAKey.generate_key(2048, {"kid": "1"}, private=True)


class Liar:
    """A provider of which a test can say in what it lies."""

    def __init__(self, **lies):
        self.lies = lies
        self.key = signing_key()
        self.nonce = ""
        self.claims = {}

    def __call__(self, request):
        path = request.url.path
        if path in self.lies:
            return self.lies[path](request) if callable(self.lies[path]) else self.lies[path]
        if path.startswith("/.well-known"):
            return httpx.Response(200, json=self.metadata())
        if path == "/keys":
            return httpx.Response(200, json={"keys": [self.key.as_dict(private=False)]})
        assert path == "/token"
        answer = {"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": self.id_token()}
        return httpx.Response(200, json=answer | self.lies.get("answer", {}))

    def metadata(self):
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        document = {"issuer": ELSEWHERE} | {name: f"{ELSEWHERE}/{path}" for name, path in names.items()}
        return document | self.lies.get("metadata", {})

    def id_token(self):
        claims = {
            "iss": ELSEWHERE,
            "aud": "us",
            "sub": "248289761001",
            "exp": int(time.time()) + 60,
            "iat": int(time.time()),
            "auth_time": int(time.time()),
            "nonce": self.nonce,
            "email": "grace@navy.test",
            "email_verified": True,
            "preferred_username": "grace",
        }
        key, algorithm = self.lies.get("key", self.key), self.lies.get("alg", "RS256")
        text = json.dumps(self.lies["payload"] if "payload" in self.lies else claims | self.lies.get("claims", {}))
        return jws.serialize_compact({"alg": algorithm, "kid": "1"}, text, key, algorithms=[algorithm])


def speak_to(provider, liar):
    provider.service.upstream_client._http = httpx.AsyncClient(transport=httpx.MockTransport(liar))
    return liar


async def leave(browser, upstream="example", target="/account"):
    """Go to the other provider; returns what it was asked."""
    answer = await browser.http.get(f"/login/upstream/{upstream}", params={"next": target})
    assert answer.status_code == 303, answer.text
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


async def come_back(browser, asked, upstream="example", **values):
    answer = {"code": "c", "state": asked["state"]} | values
    return await browser.open(f"/login/upstream/{upstream}/callback?{urlencode(answer)}")


async def journey(provider, liar, browser=None, **values):
    browser = browser or await provider.browser()
    asked = await leave(browser)
    liar.nonce = asked["nonce"]
    return await come_back(browser, asked, **values)


async def add_upstream(provider, admin, **changes):
    """Let people sign in with it."""
    made = await provider.http.post("/v1/admin/upstreams", json=BODY | changes, headers=admin)
    assert made.status_code == 201, made.text
    return made.json()


async def linked(provider, account):
    """The issuers of the identities that an account has elsewhere."""
    return await provider.service.database.read(providers.linked_to, account.id)
