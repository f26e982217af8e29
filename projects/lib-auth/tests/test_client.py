"""The OAuth client: what it sends, what it believes, and what it refuses."""

import asyncio
import base64
import hashlib
import json
import ssl
import time
from contextlib import nullcontext
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from joserfc import jws

from lib_auth import device
from lib_auth.client import DeviceAuthorization, OAuthClient, check_answer
from lib_auth.id_token import IdTokenRejected, verify_id_token
from lib_auth.jwks import KeysUnavailable, RemoteKeys
from lib_auth.loopback import LoopbackListener, SignInTimeout, sign_in
from lib_auth.oauth_error import OAuthError, ResponseForged, ServerUnavailable
from lib_auth.proof_key import ProofKey
from lib_auth.protected_resource import fetch_resource_metadata, read_challenge
from lib_events.testing.certificate import untrusted_certificate

ISSUER = "http://127.0.0.1:8001"


class Server:
    """Answers like an authorization server and remembers what it was asked."""

    def __init__(self, *answers, issuer=ISSUER):
        self.answers = list(answers)
        self.requests = []
        self.issuer = issuer

    def client(self, client_id="evs-cli", secret=None):
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        return OAuthClient(ISSUER, client_id, client_secret=secret, http=http)

    def _answer(self, request):
        if request.url.path == "/.well-known/openid-configuration":
            names = ("authorization", "token", "device_authorization", "revocation", "end_session")
            endpoints = {f"{name}_endpoint": f"{ISSUER}/oauth2/{name}" for name in names}
            return httpx.Response(200, json={"issuer": self.issuer} | endpoints)
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else (200, TOKEN)
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return httpx.Response(status, json=body)

    def form(self, number=-1):
        return dict(parse_qsl(self.requests[number].content.decode()))


TOKEN = {
    "access_token": "a",
    "token_type": "Bearer",
    "expires_in": 300,
    "refresh_token": "r",
    "scope": "openid",
    "new": 1,
}


async def test_the_authorization_request_carries_a_fresh_s256_challenge():
    client = Server().client()
    first, second = [
        await client.begin_authorization(redirect_uri="http://x/cb", scope="openid", resources=["http://a", "http://b"])
        for _ in range(2)
    ]
    query = parse_qs(urlsplit(first.url).query)
    expected = base64.urlsafe_b64encode(hashlib.sha256(first.verifier.encode()).digest()).rstrip(b"=").decode()
    assert query["code_challenge"] == [expected]
    assert query["code_challenge_method"] == ["S256"]
    assert query["resource"] == ["http://a", "http://b"]
    assert len({first.state, first.nonce, first.verifier, second.state, second.nonce, second.verifier}) == 6
    assert first.verifier not in repr(first)


async def test_an_answer_to_our_request_is_exchanged():
    server = Server()
    client = server.client("evs-gui", "s+c:t")
    pending = await client.begin_authorization(redirect_uri="http://x/cb", scope="openid")
    answer = {"code": "c", "state": pending.state, "iss": ISSUER, "something_new": "x"}
    assert (await client.finish_authorization(pending, answer, resource="http://a")).refresh_token == "r"
    assert server.form() == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": "http://x/cb",
        "code_verifier": pending.verifier,
        "resource": "http://a",
    }
    basic = server.requests[-1].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"evs-gui:s%2Bc%3At"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"state": "another"}, ResponseForged),
        ({"state": ""}, ResponseForged),
        ({"iss": "http://evil.test"}, ResponseForged),
        ({"iss": ""}, ResponseForged),
        ({"iss": f"{ISSUER}/"}, ResponseForged),
        ({"code": ""}, None),
        ({"error": "access_denied"}, OAuthError),
        ({"error": "access_denied", "iss": "http://evil.test"}, ResponseForged),
    ],
)
def test_other_answers_are_not_believed(changes, error):
    answer = {"code": "c", "state": "s", "iss": ISSUER} | changes
    if error is None:
        answer.pop("code")
        error = ResponseForged
    with pytest.raises(error):
        check_answer(answer, state="s", issuer=ISSUER)


async def test_metadata_that_names_another_issuer_is_refused():
    for issuer in ("http://evil.test", f"{ISSUER}/", None):
        with pytest.raises(ServerUnavailable, match="EVS_AUTH_URL"):
            await Server(issuer=issuer).client().metadata()


async def test_endpoints_are_reached_as_the_issuer_is_or_by_https():
    client = Server().client()
    document = await client.metadata()
    for endpoint in ("file:///bin/sh", "javascript:alert(1)", "search-ms:query=x", "//evil.test/", "-o", "HTTP://x/"):
        document["authorization_endpoint"] = document["token_endpoint"] = endpoint
        with pytest.raises(ServerUnavailable, match="as the issuer is"):
            await client.begin_authorization(redirect_uri="http://x/cb", scope="openid")
        with pytest.raises(ServerUnavailable, match="as the issuer is"):
            await client.client_credentials()
    document["authorization_endpoint"] = "https://pages.test/authorize"
    pending = await client.begin_authorization(redirect_uri="http://x/cb", scope="openid")
    assert pending.url.startswith("https://pages.test/authorize?")


async def test_an_issuer_may_end_with_a_slash_and_its_answers_name_it_so():
    client = OAuthClient(f"{ISSUER}/", "evs-cli", http=Server(issuer=f"{ISSUER}/").client()._http)
    pending = await client.begin_authorization(redirect_uri="http://x/cb", scope="openid")
    for issuer, error in ((f"{ISSUER}/", None), (ISSUER, ResponseForged)):
        answer = {"code": "c", "state": pending.state, "iss": issuer}
        with pytest.raises(error) if error else nullcontext():
            assert (await client.finish_authorization(pending, answer)).access_token == "a"
    another = OAuthClient(f"{ISSUER}/", "evs-cli", http=client._http)  # of a process that did not begin
    answer = {"code": "c", "state": pending.state, "iss": f"{ISSUER}/"}
    assert (await another.finish_authorization(pending, answer)).access_token == "a"
    without = OAuthClient(f"{ISSUER}/", "evs-cli", http=Server().client()._http)
    assert (await without.metadata())["issuer"] == without.issuer == ISSUER


async def test_an_endpoint_keeps_the_query_that_it_has():
    client = Server().client()
    document = await client.metadata()
    for name in ("authorization_endpoint", "end_session_endpoint"):
        document[name] += "?policy=sign-in"
    pending = await client.begin_authorization(redirect_uri="http://x/cb", scope="openid")
    for url in (pending.url, await client.end_session_url(state="s")):
        assert parse_qs(urlsplit(url).query)["policy"] == ["sign-in"]


async def test_a_refusal_carries_its_code():
    client = Server((400, {"error": "invalid_grant", "error_description": "used"})).client()
    with pytest.raises(OAuthError, match="invalid_grant: used") as refused:
        await client.refresh("r")
    assert refused.value.status == 400


async def test_a_refresh_says_the_word_by_which_it_may_be_asked_for_again():
    server = Server()
    await server.client().refresh("r", idempotency_key="the word")
    assert server.requests[-1].headers["idempotency-key"] == "the word"
    assert server.form() == {"grant_type": "refresh_token", "refresh_token": "r", "client_id": "evs-cli"}
    await server.client().refresh("r")
    assert "idempotency-key" not in server.requests[-1].headers


async def test_a_bound_refresh_says_the_word_with_each_of_its_proofs():
    server = Server((400, {"error": "use_dpop_nonce"}), (200, TOKEN | {"token_type": "DPoP"}))
    client = OAuthClient(ISSUER, "evs-cli", http=server.client()._http, proof_key=ProofKey.generate())
    await client.refresh("r", idempotency_key="the word")
    assert [request.headers["idempotency-key"] for request in server.requests] == ["the word"] * 2
    assert len({request.headers["dpop"] for request in server.requests}) == 2
    server.answers.append((400, {"error": "invalid_dpop_proof"}))
    with pytest.raises(OAuthError, match="invalid_dpop_proof"):
        await client.refresh("r")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}),
        (200, {"token_type": "Bearer"}),
        (200, TOKEN | {"token_type": "mac"}),
        (502, {"detail": "x"}),
        (200, []),
    ],
)
async def test_what_is_no_token_answer_is_an_unavailable_server(answer):
    with pytest.raises(ServerUnavailable):
        await Server(answer).client().refresh("r")


async def test_what_is_not_said_is_not_sent_and_what_is_not_answered_is_as_asked():
    server = Server((200, {name: TOKEN[name] for name in TOKEN if name != "scope"}))
    assert (await server.client("p", "s").client_credentials(scope="a b")).scope == {"a", "b"}
    await server.client("p", "s").client_credentials()
    assert [server.form(number).get("scope") for number in (0, 1)] == ["a b", None]
    with pytest.raises(ServerUnavailable, match="does not offer introspection_endpoint"):
        await server.client().introspect("a")


async def test_a_client_closes_its_own_connections_and_nobody_elses():
    async with httpx.AsyncClient() as handed_in:
        for http in (None, handed_in):
            async with OAuthClient(ISSUER, "evs-cli", http=http) as client:
                assert not client._http.is_closed
            assert client._http.is_closed is (http is None)


async def test_a_server_that_is_away_is_told_plainly():
    def refuse(request):
        raise httpx.ConnectError("refused")

    client = OAuthClient(ISSUER, "evs-cli", http=httpx.AsyncClient(transport=httpx.MockTransport(refuse)))
    with pytest.raises(ServerUnavailable, match="is it running"):
        await client.metadata()


DEVICE = {"device_code": "d", "user_code": "BCDF-GHJK", "verification_uri": f"{ISSUER}/device", "expires_in": 30}
PENDING = (400, {"error": "authorization_pending"})


async def test_a_device_waits_for_the_decision_and_slows_down_when_told(monkeypatch):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr("lib_auth.client.asyncio.sleep", sleep)
    server = Server((200, DEVICE | {"interval": 1}), PENDING, (400, {"error": "slow_down"}), PENDING)
    shown = []
    tokens = await device.sign_in(server.client(), scope="openid", show=shown.append)
    assert tokens.access_token == "a"
    assert pauses == [1, 1, 6, 6]
    assert shown[0].user_code == "BCDF-GHJK"
    assert server.form()["device_code"] == "d"


async def test_a_device_asks_less_and_less_often_a_server_that_does_not_answer(monkeypatch):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr("lib_auth.client.asyncio.sleep", sleep)
    server = Server((503, {}), httpx.ReadTimeout("no answer"), PENDING)
    tokens = await server.client().poll_device(DeviceAuthorization("d", "u", "v", "v", 30, 5))
    assert tokens.access_token == "a"
    assert pauses == [5, 10, 20, 20]


async def test_a_device_waits_five_seconds_unless_told_otherwise():
    assert (await Server((200, DEVICE)).client().device_authorization(scope="openid")).interval == 5


async def test_a_device_asks_no_longer_than_its_code_lives():
    server = Server()
    with pytest.raises(OAuthError, match="nobody confirmed the code in time"):
        await server.client().poll_device(DeviceAuthorization("d", "u", "v", "v", 0, 0))
    assert server.requests == []


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_grant"])
async def test_a_device_stops_when_it_is_over(error):
    device_authorization = DeviceAuthorization("d", "u", "v", "v", 30, 0)
    with pytest.raises(OAuthError, match=error):
        await Server((400, {"error": error})).client().poll_device(device_authorization)


@pytest.mark.parametrize("request_line", ["GET http://[ HTTP/1.1", "GET", "POST /callback HTTP/1.1", ""])
async def test_what_is_no_request_for_the_listener_finds_nothing_there(request_line):
    async with LoopbackListener() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(listener.redirect_uri).port)
        writer.write(f"{request_line}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        writer.close()


async def test_a_browser_brings_the_answer_to_the_loopback_listener():
    server = Server()
    pages = []

    def open_browser(url):
        query = dict(parse_qsl(urlsplit(url).query))
        assert urlsplit(query["redirect_uri"]).hostname == "127.0.0.1"

        async def visit():
            async with httpx.AsyncClient() as browser:
                forged = {"code": "evil", "state": "guessed", "iss": ISSUER}
                pages.append(await browser.get(query["redirect_uri"], params=forged))
                pages.append(await browser.get(query["redirect_uri"].replace("/callback", "/favicon.ico")))
                good = {"code": "c", "state": query["state"], "iss": ISSUER}
                pages.append(await browser.get(query["redirect_uri"], params=good))

        visits.append(asyncio.ensure_future(visit()))

    visits = []
    tokens = await sign_in(server.client(), scope="openid", open_browser=open_browser, within_seconds=10)
    await asyncio.gather(*visits)
    assert tokens.access_token == "a"
    assert server.form()["code"] == "c"
    assert [page.status_code for page in pages] == [400, 404, 200]
    assert "You are signed in" in pages[-1].text
    assert "default-src 'none'" in pages[-1].headers["content-security-policy"]


async def test_an_answer_that_comes_before_anybody_was_sent_away_is_nobodys():
    async with LoopbackListener() as listener, httpx.AsyncClient() as browser:
        assert (await browser.get(listener.redirect_uri, params={"code": "c"})).status_code == 400
        with pytest.raises(SignInTimeout):
            await listener.answer(within_seconds=0)


async def test_a_second_answer_with_the_same_state_changes_nothing():
    server = Server()
    client = server.client()
    async with LoopbackListener() as listener, httpx.AsyncClient() as browser:
        pending = await client.begin_authorization(redirect_uri=listener.redirect_uri, scope="openid")
        listener.expect(pending)
        for code in ("ours", "a thief's"):
            answer = {"code": code, "state": pending.state, "iss": ISSUER}
            await browser.get(listener.redirect_uri, params=answer)
        await client.finish_authorization(pending, await listener.answer(within_seconds=10))
    assert [server.form(number)["code"] for number in range(len(server.requests))] == ["ours"]


async def test_a_server_whose_certificate_nobody_vouches_for_is_not_spoken_to(tmp_path):
    path, context = untrusted_certificate(tmp_path)
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        body = json.dumps({"issuer": url, "resource": url, "keys": []}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, httpx.AsyncClient() as http, OAuthClient(url, "evs-cli") as client:
        with pytest.raises(ServerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await client.metadata()
        with pytest.raises(ServerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch_resource_metadata(http, url, resource=url)
        with pytest.raises(KeysUnavailable):
            await RemoteKeys(http, url).find("any")
        assert asked == []
        trusting = httpx.AsyncClient(verify=ssl.create_default_context(cafile=path))
        async with trusting, OAuthClient(url, "evs-cli", http=trusting) as vouched_for:
            assert (await vouched_for.metadata())["issuer"] == url
            assert await RemoteKeys(trusting, url).find("any") is None


async def test_nobody_waits_for_ever():
    async with LoopbackListener() as listener:
        with pytest.raises(SignInTimeout):
            await listener.answer(within_seconds=0.05)
        port = urlsplit(listener.redirect_uri).port
    with pytest.raises(ConnectionRefusedError):  # and nobody listens any longer than we wait
        await asyncio.open_connection("127.0.0.1", port)


async def test_an_id_token_is_checked_whole(issuer):
    good = {"aud": "evs-gui", "nonce": "n"}

    def id_token(**changes):
        return issuer.token(header={"typ": "JWT"}, **changes)

    async def verify(token, nonce="n"):
        return await verify_id_token(token, issuer=ISSUER, client_id="evs-gui", nonce=nonce, keys=issuer)

    now = int(time.time())
    assert (await verify(id_token(**good)))["sub"] == "ada"
    for near in ({"iat": now + 20}, {"exp": now - 20}):  # the clocks of two machines differ
        assert (await verify(id_token(**(good | near))))["sub"] == "ada"
    for another in ("at+jwt", "application/at+jwt", "logout+jwt", "secevent+jwt", ""):
        with pytest.raises(IdTokenRejected):
            await verify(issuer.token(header={"typ": another}, **good))
    for changes in (
        *({"aud": "other"}, {"aud": ["evs-gui", "other"]}, {"aud": ...}, {"azp": "other"}),
        *({"iss": "http://evil.test"}, {"iss": f"{ISSUER}/"}, {"iss": ...}, {"sub": ...}),
        *(
            {"exp": now - 31},
            {"iat": now + 60},
            {"exp": 1},
            {"exp": ...},
            {"exp": "soon"},
            {"iat": 4_102_444_800},
            {"iat": ...},
        ),
        *({"nonce": "replayed"}, {"nonce": ...}),
    ):
        with pytest.raises(IdTokenRejected):
            await verify(id_token(**(good | changes)))
    assert (await verify(id_token(**good), nonce=None))["nonce"] == "n"
    head = {"alg": "ES256", "kid": issuer.key.kid}
    with pytest.raises(IdTokenRejected, match="does not say who"):
        await verify(jws.serialize_compact(head, "[]", issuer.key, algorithms=["ES256"]))
    with pytest.raises(IdTokenRejected, match="names a key"):
        await verify(issuer.token(header={"typ": "JWT", "kid": "another"}, **good))
    with pytest.raises(IdTokenRejected):
        await verify("garbled")
    unsigned = base64.urlsafe_b64encode(b'{"alg": "none", "kid": "%s"}' % issuer.key.kid.encode()).decode().rstrip("=")
    with pytest.raises(IdTokenRejected):
        await verify(f"{unsigned}.{id_token(**good).split('.')[1]}.")
    with pytest.raises(IdTokenRejected):
        await verify(id_token(**good, key=type(issuer)().key))


def test_challenges_are_read_as_they_are_written():
    header = 'Bearer resource_metadata="http://a/b?c=d,e", error="invalid_token", error_description="a \\"b\\"", max=1'
    assert read_challenge(header) == {
        "resource_metadata": "http://a/b?c=d,e",
        "error": "invalid_token",
        "error_description": 'a "b"',
        "max": "1",
    }
    assert read_challenge("Basic realm=x") == {}
    assert read_challenge("") == {}


async def test_resource_metadata_must_be_about_the_resource():
    document = {"resource": "http://a", "authorization_servers": [ISSUER]}
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=document)))
    assert await fetch_resource_metadata(http, "http://a/.well-known/x", resource="http://a") == document
    with pytest.raises(ServerUnavailable, match="another resource"):
        await fetch_resource_metadata(http, "http://a/.well-known/x", resource="http://b")


def test_the_client_side_is_light():
    """The command line and the GUI must not load a database or a web framework to sign in."""
    import subprocess
    import sys

    modules = "client, device, loopback, principal, protected_resource, sign_in, token_store"
    script = f"import sys; from lib_auth import {modules}; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for heavy in ("sqlalchemy", "fastapi", "joserfc", "keyring", "authlib", "nats"):
        assert f"'{heavy}'" not in loaded
