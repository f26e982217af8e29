"""Keys are fetched when they are needed, and no more often than that."""

import asyncio

import httpx
import pytest

from lib_auth import jwks
from lib_auth.jwks import KeysUnavailable, RemoteKeys, read_keys
from lib_events.testing import wait_until

URL = "http://127.0.0.1:8001/oauth2/jwks"


class Server:
    """Serves a JWK set and counts."""

    def __init__(self, document):
        self.document = document
        self.requests = 0
        self.now = 0.0
        self.hangs_seconds = 0.0  # longer than between two tries
        self.answers = asyncio.Event()
        self.answers.set()

    def keys(self):
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        return RemoteKeys(http, URL, clock=lambda: self.now)

    async def _answer(self, request):
        self.requests += 1
        self.now += self.hangs_seconds
        await self.answers.wait()
        status, document = (503, {"keys": []}) if self.document is None else (200, self.document)
        return httpx.Response(status, json=document)


async def test_a_known_key_is_fetched_every_five_minutes(issuer):
    server = Server(issuer.document())
    keys = server.keys()
    for now, requests in ((0, 1), (299, 1), (301, 2), (302, 2)):
        server.now = now
        assert (await keys.find(issuer.key.kid)).thumbprint() == issuer.key.thumbprint()
        assert server.requests == requests


async def test_an_unknown_key_id_fetches_again_but_not_for_every_forgery(issuer):
    server = Server(issuer.document())
    keys = server.keys()
    await keys.find(issuer.key.kid)
    server.now = 10
    for number in range(50):
        assert await keys.find(f"forged-{number}") is None
    assert server.requests == 2
    server.now = 16
    await keys.find("forged")
    assert server.requests == 3


async def test_a_new_key_is_found_and_an_old_one_goes(issuer):
    server = Server({"keys": []})
    keys = server.keys()
    assert await keys.find(issuer.key.kid) is None
    server.document, server.now = issuer.document(), 6
    assert await keys.find(issuer.key.kid) is not None
    server.document, server.now = {"keys": []}, 400
    assert await keys.find(issuer.key.kid) is None


async def test_without_the_issuer_known_keys_stay_for_an_hour_and_of_others_nobody_can_tell(issuer):
    server = Server(issuer.document())
    keys = server.keys()
    await keys.find(issuer.key.kid)
    server.document, server.now = None, 400
    assert await keys.find(issuer.key.kid) is not None
    with pytest.raises(KeysUnavailable):  # it may be one that signs since a moment ago
        await keys.find("another")
    server.now = 3_601  # for as long it was refused by name, if it was revoked
    with pytest.raises(KeysUnavailable):
        await keys.find(issuer.key.kid)
    server.document, server.now = issuer.document(), 3_607
    assert await keys.find(issuer.key.kid) is not None
    assert await keys.find("another") is None


async def test_while_the_issuer_hangs_whoever_has_a_known_key_waits_for_nobody(issuer):
    server = Server(issuer.document())
    keys = server.keys()
    await keys.find(issuer.key.kid)
    server.now = 400
    server.answers.clear()
    first = asyncio.create_task(keys.find(issuer.key.kid))
    await wait_until(lambda: server.requests == 2)
    async with asyncio.timeout(5):
        assert await keys.find(issuer.key.kid) is not None
    new = asyncio.create_task(keys.find("new"))  # this one does: it may be in the answer
    await asyncio.sleep(0)
    assert not first.done()
    server.document["keys"].append(server.document["keys"][0] | {"kid": "new"})
    server.answers.set()
    assert None not in await asyncio.gather(first, new)
    assert server.requests == 2


async def test_an_answer_that_does_not_come_to_an_end_is_not_waited_for(issuer, monkeypatch):
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_SECONDS", 0.05)
    server = Server(issuer.document())
    server.answers.clear()  # a byte now and then is an answer to every timeout of its own
    with pytest.raises(KeysUnavailable):
        await server.keys().find(issuer.key.kid)


async def test_of_many_who_wait_for_an_issuer_that_hangs_one_tries(issuer):
    server = Server(issuer.document())
    keys = server.keys()
    await keys.find(issuer.key.kid)
    server.document, server.now, server.hangs_seconds = None, 400, 6
    found = await asyncio.gather(*(keys.find(issuer.key.kid) for _ in range(20)))
    assert (len(found), None in found, server.requests) == (20, False, 2)


async def test_without_any_key_nothing_can_be_said(issuer):
    with pytest.raises(KeysUnavailable):
        await Server(None).keys().find(issuer.key.kid)


def test_keys_of_other_kinds_are_ignored(issuer, rsa_issuer):
    good, rsa = issuer.document()["keys"][0], rsa_issuer.document()["keys"][0]
    others = [{"kty": "RSA", "kid": "r"}, good | {"kid": "e", "use": "enc"}, good | {"kid": "x", "x": "!"}, "nonsense"]
    others += [good | {"kid": "a", "alg": "RS256"}, rsa | {"kid": "p", "alg": "PS256"}]
    others += [{"kty": "oct", "k": "c2VjcmV0", "kid": "o"}, 7, {name: good[name] for name in good if name != "kid"}]
    others.append(rsa | {"kid": "short", "n": rsa["n"][:172]})
    assert list(read_keys({"keys": [good, *others, rsa]})) == [good["kid"], rsa["kid"]]
    for nonsense in ([], {"keys": 1}, None):
        with pytest.raises(KeysUnavailable):
            read_keys(nonsense)
