"""What other providers say, send or leave out: whoever lies, hangs or floods lets nobody in."""

import asyncio
from ipaddress import ip_network

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from lying_provider import ELSEWHERE, Liar, add_upstream, come_back, journey, leave, speak_to

from auth_svc.people import accounts
from auth_svc.upstreams import transport as upstream_http
from auth_svc.upstreams.client import UpstreamClient
from lib_events.clock import SystemClock
from lib_events.http.checked import CheckedHttp
from lib_events.http.destinations import Destinations


@pytest.fixture
async def admin(provider_on_both):
    return {"authorization": f"Bearer {await provider_on_both.admin_token()}"}


LIES = {
    "another nonce": {"claims": {"nonce": "another"}},
    "no nonce": {"claims": {"nonce": None}},
    "another issuer": {"claims": {"iss": "https://evil.test"}},
    "another audience": {"claims": {"aud": "somebody else"}},
    "several audiences": {"claims": {"aud": ["us", "them"], "azp": "them"}},
    "expired": {"claims": {"exp": 1}},
    "no end": {"claims": {"exp": None}},
    "an end in words": {"claims": {"exp": "tomorrow"}},
    "nobody": {"claims": {"sub": ""}},
    "a number": {"claims": {"sub": 7}},
    "somebody long": {"claims": {"sub": "x" * 256}},
    "no claims": {"payload": ["iss"]},
    "another key": {"key": RSAKey.generate_key(2048, {"kid": "1"}, private=True)},
    "a shared secret": {"key": OctKey.import_key(b"their secret, of which they know 256 bits"), "alg": "HS256"},
    "another kind of key": {"key": ECKey.generate_key("P-256", {"kid": "1"}, private=True), "alg": "ES256"},
    "no id token": {"answer": {"id_token": None}},
    "an id token of no form": {"answer": {"id_token": "a.b"}},
    "a lifetime without end": {"answer": {"expires_in": 10**400}},
    "no bearer": {"answer": {"token_type": "mac"}},
    "html for tokens": {"/token": httpx.Response(200, text="<html>")},
    "an error for tokens": {"/token": httpx.Response(500, text="oops")},
    "keys that are none": {"/keys": httpx.Response(200, json={"keys": [{"kty": "RSA"}]})},
    "a list of keys": {"/keys": httpx.Response(200, json=[])},
    "no keys": {"/keys": httpx.Response(404)},
    "a redirect for tokens": {"/token": httpx.Response(302, headers={"location": "http://169.254.169.254/"})},
    "nested": {"/token": httpx.Response(200, text="[" * 100_000)},
}


async def test_a_provider_that_lies_lets_nobody_in_and_is_no_stack_trace(provider_on_both, admin, subtests):
    provider = provider_on_both
    await add_upstream(provider, admin, makes_accounts=True)
    for name, lies in LIES.items():
        with subtests.test(lie=name):
            page = await journey(provider, speak_to(provider, Liar(**lies)))
            assert page.status_code == 502
            assert "Example cannot be reached" in page.text
            assert "Traceback" not in page.text
    assert await provider.service.database.read(accounts.find_by_username, "grace") is None


async def test_a_provider_that_describes_itself_wrongly_is_not_gone_to(provider_on_both, admin, subtests):
    provider = provider_on_both
    await add_upstream(provider, admin)
    browser = await provider.browser()
    for lie in (
        {"metadata": {"issuer": "https://evil.test"}},
        {"metadata": {"authorization_endpoint": "javascript:alert(1)"}},
        {"metadata": {"authorization_endpoint": "http://id.example/authorize"}},
        {"metadata": {"authorization_endpoint": 7}},
        {"/.well-known/openid-configuration": httpx.Response(200, text="[]")},
        {"/.well-known/openid-configuration": httpx.Response(503)},
        {"/.well-known/openid-configuration": httpx.Response(301, headers={"location": "http://10.0.0.1/"})},
    ):
        with subtests.test(lie=lie):
            speak_to(provider, Liar(**lie))
            assert (await browser.http.get("/login/upstream/example")).status_code == 502


async def test_keys_that_nobody_here_can_use_take_none_from_those_that_fit(provider_on_both, admin):
    provider, liar = provider_on_both, speak_to(provider_on_both, Liar())
    await add_upstream(provider, admin, makes_accounts=True)
    own = liar.key.as_dict(private=False)
    others = [
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x", "kid": "0"},
        {"kty": "RSA", "kid": "2"},
        own | {"use": "enc"},
    ]
    liar.lies["/keys"] = httpx.Response(200, json={"keys": [*others, own]})
    assert "Your account" in (await journey(provider, liar)).text


async def test_an_issuer_that_ends_with_a_slash_signs_people_in(provider_on_both, admin):
    provider, issuer = provider_on_both, f"{ELSEWHERE}/"
    made = await add_upstream(provider, admin, issuer=issuer, makes_accounts=True)
    assert made["issuer"] == issuer
    liar = speak_to(provider, Liar(metadata={"issuer": issuer}, claims={"iss": issuer}))
    assert "Your account" in (await journey(provider, liar)).text
    liar.lies["claims"] = {}
    assert (await journey(provider, liar)).status_code == 502


async def test_where_a_provider_sends_people_may_have_a_query(provider_on_both, admin):
    provider = provider_on_both
    speak_to(provider, Liar(metadata={"authorization_endpoint": f"{ELSEWHERE}/authorize?policy=sign-in"}))
    await add_upstream(provider, admin)
    asked = await leave(await provider.browser())
    assert (asked["policy"], asked["response_type"]) == ("sign-in", "code")


async def test_a_provider_names_itself_in_its_answer_when_it_says_that_it_does(provider_on_both, admin):
    provider = provider_on_both
    await add_upstream(provider, admin, makes_accounts=True)
    liar = speak_to(provider, Liar(metadata={"authorization_response_iss_parameter_supported": True}))
    assert (await journey(provider, liar)).status_code == 502
    assert (await journey(provider, liar, iss="https://evil.test")).status_code == 502
    assert "Your account" in (await journey(provider, liar, iss=ELSEWHERE)).text


async def test_a_refusal_there_is_told_here(provider_on_both, admin):
    provider = provider_on_both
    speak_to(provider, Liar())
    await add_upstream(provider, admin)
    browser = await provider.browser()
    page = await come_back(browser, await leave(browser), error="access_denied", error_description="<b>no</b>")
    assert page.status_code == 403
    assert "It was cancelled, or refused there." in page.text
    assert "<b>" not in page.text


async def test_a_provider_that_hangs_or_floods_is_given_up(provider_on_both, admin, monkeypatch, subtests):
    provider = provider_on_both
    monkeypatch.setattr(upstream_http, "TIMEOUT_SECONDS", 0.2)
    let_go = asyncio.Event()

    async def hang(reader, writer):
        await let_go.wait()
        writer.close()

    async def flood(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b" " * 300_000)
        await let_go.wait()
        writer.close()

    for behave in (hang, flood):
        with subtests.test(behave.__name__):
            server = await asyncio.start_server(behave, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            issuer = f"http://127.0.0.1:{port}"
            await add_upstream(provider, admin, id=behave.__name__, issuer=issuer)
            answer = await provider.http.get(f"/login/upstream/{behave.__name__}")
            assert answer.status_code == 502
            assert "Try again later" in answer.text
            server.close()
    let_go.set()


async def test_a_provider_that_sends_us_elsewhere_is_not_followed(provider_on_both, admin):
    provider, asked = provider_on_both, []

    async def send_on(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).partition(b" HTTP")[0])
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(send_on, "127.0.0.1", 0)
    async with server:
        issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await add_upstream(provider, admin, issuer=issuer)
        assert (await provider.http.get("/login/upstream/example")).status_code == 502
    assert asked == [b"GET /.well-known/openid-configuration"]


async def test_addresses_inside_are_not_asked(subtests):
    for networks, url in (
        ((), "http://127.0.0.1:1/"),
        ((), "https://127.0.0.1:1/"),
        ((), "https://169.254.169.254/latest/meta-data"),
        ((), "https://10.0.0.1/"),
        ((), "https://[::1]/"),
        ((), "https://user@id.example/"),
        (("10.0.0.0/8",), "http://10.0.0.1/"),
        (("127.0.0.0/8", "::1/128"), "https://10.0.0.1/"),
    ):
        with subtests.test(url=url, networks=networks):
            async with CheckedHttp(Destinations(tuple(map(ip_network, networks)))) as http:
                with pytest.raises(httpx.ConnectError) as refused:
                    await UpstreamClient(http, SystemClock())._http.get(url)
            assert type(refused.value.__cause__).__name__ == "DestinationRefused"
