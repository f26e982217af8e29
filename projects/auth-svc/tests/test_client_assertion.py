"""`private_key_jwt`: clients that prove themselves with a key (RFC 7523)."""

import asyncio
import json
import time
from dataclasses import replace
from functools import partial

import pytest
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import select, update

from auth_svc import tables
from auth_svc.clients import clients
from auth_svc.clients.assertion import LEEWAY_SECONDS
from auth_svc.clients.client import ClientRejected
from lib_events.testing import wait_until
from lib_events.testing.receiver import receiving, status

ISSUER = "http://127.0.0.1:8001"
FAR = 4_102_444_800  # the year 2100
GRANT = {"grant_type": "client_credentials", "scope": "events:read"}


@pytest.fixture
async def robot(provider, client_key, jwk_set):
    """A client with a key of its own."""
    await provider.add_client(**values(client_key, jwk_set))
    return "robot"


def new_key():
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return key


def values(key, jwk_set):
    return {
        "id": "robot",
        "name": "Robot",
        "grant_types": ("client_credentials",),
        "scopes": frozenset(("events:read",)),
        "auth_method": "private_key_jwt",
        "secret_digest": None,
        "jwks": jwk_set(key),
    }


async def test_an_assertion_is_as_good_as_a_secret(provider, robot, client_key, sign_assertion, subtests):
    for audience in (ISSUER, f"{ISSUER}/oauth2/token", [ISSUER]):
        with subtests.test(audience):
            answer = await provider.token(**GRANT, **sign_assertion(robot, client_key, audience))
            assert answer.status_code == 200, answer.text
            named = await provider.token(**GRANT, client_id=robot, **sign_assertion(robot, client_key, audience))
            assert named.status_code == 200
    token = (await provider.token(**GRANT, **sign_assertion(robot, client_key, ISSUER))).json()["access_token"]
    told = await provider.post("/oauth2/introspect", {"token": token} | sign_assertion(robot, client_key, ISSUER))
    assert told.json()["active"]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "another"},
        {"sub": "another"},
        {"sub": ...},
        {"aud": "https://another.example"},
        {"aud": [ISSUER, "https://another.example"]},
        {"aud": ...},
        {"jti": ...},
        {"jti": ""},
        {"exp": ...},
        {"exp": 1},
        {"exp": FAR},
        {"exp": "soon"},
        {"exp": 10**400},
        {"exp": float("nan")},
        {"nbf": 10**400},
        {"iat": float("nan")},
        {"nbf": FAR},
        {"iat": FAR},
        {"header": {"kid": "unknown"}},
        {"header": {"crit": ["b64"], "b64": True}},
    ],
    ids=str,
)
async def test_a_wrong_assertion_proves_nothing(provider, robot, client_key, sign_assertion, changes):
    answer = await provider.token(
        **GRANT, **({"client_id": robot} | sign_assertion(robot, client_key, ISSUER, **changes))
    )
    assert answer.status_code == 400
    assert answer.json()["error"] in {"invalid_client", "invalid_request"}
    assert "access_token" not in answer.json()


async def test_another_key_or_none_proves_nothing(provider, robot, new_holder, sign_assertion):
    stranger = new_holder().key
    answers = [
        await provider.token(**GRANT, **sign_assertion(robot, stranger, ISSUER)),
        await provider.token(**GRANT, client_id=robot),
        await provider.token(**GRANT, client_id=robot, client_assertion="x", client_assertion_type="y"),
        await provider.token((robot, "secret"), **GRANT),
        await provider.token(**GRANT, client_id=robot, client_secret="secret"),
    ]
    assert {answer.json()["error"] for answer in answers} <= {"invalid_client", "invalid_request"}


async def test_what_is_not_said_to_be_an_assertion_or_names_nobody_here_proves_nothing(
    provider, robot, client_key, sign_assertion, subtests
):
    saml = {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}
    for name, changes in (
        ("another type", sign_assertion(robot, client_key, ISSUER) | saml),
        ("no type", {"client_assertion": sign_assertion(robot, client_key, ISSUER)["client_assertion"]}),
        ("a client that is not there", sign_assertion("nobody", client_key, ISSUER)),
        ("a text without end", sign_assertion(robot, client_key, ISSUER, pad="x" * 4_096)),
    ):
        with subtests.test(name):
            answer = await provider.token(**GRANT, **changes)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")


async def test_a_client_with_a_secret_cannot_use_an_assertion(provider, client_key, sign_assertion):
    answer = await provider.token(**GRANT, **sign_assertion("evs-local", client_key, ISSUER))
    assert answer.json()["error"] == "invalid_client"


async def test_what_one_client_has_used_another_may_use(provider, robot, client_key, jwk_set, sign_assertion):
    await provider.add_client(**values(client_key, jwk_set) | {"id": "other"})
    statuses = [
        (await provider.token(**GRANT, **sign_assertion(client, client_key, ISSUER, jti="the same"))).status_code
        for client in (robot, "other", robot)
    ]
    assert statuses == [200, 200, 400]


async def test_there_is_one_way_to_prove_oneself_in_a_request(provider, robot, client_key, sign_assertion):
    proof = sign_assertion(robot, client_key, ISSUER)
    both = await provider.token(("evs-local", provider.secret_of("evs-local")), **GRANT, **proof)
    assert (both.status_code, both.json()["error"]) == (400, "invalid_request")
    other = await provider.token(**GRANT, client_id="evs-local", **proof)
    assert (other.status_code, other.json()["error"]) == (400, "invalid_request")


async def test_of_twenty_uses_of_one_assertion_one_counts(provider_on_both, client_key, jwk_set, sign_assertion):
    provider = provider_on_both
    await provider.add_client(**values(client_key, jwk_set))
    proof = sign_assertion("robot", client_key, ISSUER)
    answers = await asyncio.gather(*(provider.token(**GRANT, **proof) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert {answer.json().get("error") for answer in answers} == {None, "invalid_client"}
    told = [await provider.post("/oauth2/introspect", {"token": "x"} | proof) for _ in range(2)]
    assert {answer.json()["error"] for answer in told} == {"invalid_client"}


async def test_a_key_that_is_made_to_be_slow_proves_nothing(provider, slow_rsa_key):
    """Twenty of them would hold everybody up for a tenth of a second, whenever somebody asks."""
    changes = {"id": "slow", "auth_method": "private_key_jwt", "secret_digest": None, "grant_types": ()}
    with pytest.raises(ClientRejected, match="exponent"):
        await provider.add_client(name="Slow", jwks=json.dumps({"keys": [slow_rsa_key]}), **changes)


async def test_twenty_tabs_of_a_client_with_a_key_are_told_the_same_successor(
    provider_on_both, client_key, jwk_set, sign_assertion
):
    provider, back = provider_on_both, "https://robot.example/back"
    changes = {"grant_types": ("authorization_code", "refresh_token"), "redirect_uris": (back,), "consent": "never"}
    await provider.add_client(**(values(client_key, jwk_set) | changes | {"scopes": frozenset(("openid",))}))
    code = await provider.sign_in_for_code(client_id="robot", redirect_uri=back, scope="openid")
    form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    prove = partial(sign_assertion, "robot", client_key, ISSUER)
    tokens = (await provider.token(grant_type="authorization_code", **form, **prove())).json()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    answers = await asyncio.gather(*(provider.token(**form, **prove()) for _ in range(20)))
    assert {(answer.status_code, answer.json().get("error")) for answer in answers} == {(200, None)}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


async def test_an_assertion_is_remembered_as_long_as_it_could_be_accepted(provider, robot, client_key, sign_assertion):
    end = int(time.time()) + 30.9  # a date may have a fraction (RFC 7519 section 2)
    assert (await provider.token(**GRANT, **sign_assertion(robot, client_key, ISSUER, exp=end))).status_code == 200
    kept = select(tables.proofs.c.expires_at)
    until = await provider.service.database.read(lambda connection: connection.scalar(kept))
    assert until >= int((end + LEEWAY_SECONDS) * 1_000_000)


async def test_rs256_assertions_are_as_good(provider, jwk_set, sign_assertion):
    key = RSAKey.generate_key(2048, private=True)
    key.ensure_kid()
    await provider.add_client(**values(key, jwk_set))
    proof = sign_assertion("robot", key, ISSUER, header={"alg": "RS256"})
    assert (await provider.token(**GRANT, **proof)).status_code == 200


@pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")
async def test_a_key_that_could_be_broken_proves_nothing(provider, robot, jwk_set, sign_assertion):
    """RFC 7518 section 3.3; one may have been kept before anybody looked."""
    key = RSAKey.generate_key(1024, private=True)
    key.ensure_kid()
    with pytest.raises(ClientRejected, match="2048 bits"):
        await provider.add_client(**(values(key, jwk_set) | {"id": "another"}))
    await provider.service.database.transact(
        lambda connection: connection.execute(update(tables.clients).values(jwks=jwk_set(key))) and None
    )
    refused = await provider.token(**GRANT, **sign_assertion(robot, key, ISSUER, header={"alg": "RS256"}))
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client")


def serving(body):
    """Answers with a document."""

    async def answer(_received, writer):
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return answer


@pytest.fixture
async def site():
    """Serves a client's keys."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def prove(provider, client_key, jwk_set, sign_assertion):
    """Asks for a token as a new client whose keys are at a URL."""

    async def ask(url, key=client_key):
        name = f"robot-{url.rpartition('/')[2]}"
        if (await provider.service.database.read(clients.find, name)) is None:
            changes = {"id": name, "jwks": None, "jwks_uri": url}
            await provider.add_client(**(values(client_key, jwk_set) | changes))
        return await provider.token(**GRANT, **sign_assertion(name, key, ISSUER))

    return ask


async def test_keys_may_be_at_a_url_and_are_asked_for_once_in_a_while(site, prove, client_key, new_holder, jwk_set):
    site.answer = serving(jwk_set(client_key).encode())
    assert (await prove(site.url)).status_code == 200
    assert (await prove(site.url)).status_code == 200
    assert (await prove(site.url, new_holder().key)).json()["error"] == "invalid_client"
    assert len(site.received) == 1


async def test_a_key_of_a_type_that_nobody_here_knows_takes_none_from_the_others(site, prove, client_key, jwk_set):
    """RFC 7517 section 5: or a client that gets its first key of a new type is locked out."""
    known = json.loads(jwk_set(client_key))["keys"]
    site.answer = serving(json.dumps({"keys": [{"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}, *known]}).encode())
    assert (await prove(site.url)).status_code == 200
    site.answer = serving(json.dumps({"keys": [{"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}]}).encode())
    assert (await prove(f"{site.url}/none")).json()["error"] == "invalid_client"


async def test_a_new_key_and_a_site_that_was_away_are_looked_for_again_soon(
    provider, site, prove, jwk_set, monkeypatch
):
    """OpenID Connect Core section 10.1.1: an unfamiliar kid is looked for; but not for every forgery."""
    old, new, now = new_key(), new_key(), 0.0
    monkeypatch.setattr(provider.service.client_keys, "_clock", lambda: now)
    site.answer = status(503)
    assert (await prove(site.url, old)).json()["error"] == "invalid_client"
    site.answer, now = serving(jwk_set(old).encode()), 31.0
    assert (await prove(site.url, old)).status_code == 200
    site.answer = serving(jwk_set(new).encode())
    assert (await prove(site.url, new)).json()["error"] == "invalid_client"
    now = 62.0
    assert (await prove(site.url, old)).status_code == 200
    assert (await prove(site.url, new)).status_code == 200
    assert len(site.received) == 3


async def test_of_many_at_once_one_asks_for_the_keys(provider, site, prove, jwk_set, client_key):
    """Else whoever registers a client with somebody's URL could have us flood them."""
    site.answer = serving(jwk_set(client_key).encode())
    for number in range(2):
        changes = {"id": f"robot-{number}", "jwks": None, "jwks_uri": f"{site.url}/{number}"}
        await provider.add_client(**(values(client_key, jwk_set) | changes))
    answers = await asyncio.gather(*(prove(f"{site.url}/{number % 2}") for number in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(received.target for received in site.received) == ["/hook/0", "/hook/1"]


async def test_a_site_that_lies_about_keys_proves_nothing(site, prove, client_key, jwk_set, subtests):
    private = json.dumps({"keys": [client_key.as_dict(private=True)]}).encode()
    lies = {
        "away": status(500),
        "elsewhere": status(302, location="http://127.0.0.1:1/"),
        "no keys": serving(b'{"keys": []}'),
        "no json": serving(b"keys"),
        "a list": serving(b"[1]"),
        "a private key": serving(private),
        "endless": serving(b" " * 200_000),
        "too many keys": serving(jwk_set(client_key, *(new_key() for _ in range(20))).encode()),
    }
    for number, (lie, answer) in enumerate(lies.items()):
        with subtests.test(lie):
            site.answer = answer
            refused = await prove(f"{site.url}/{number}")
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client")


async def test_what_is_taken_while_a_clients_keys_are_fetched_is_in_no_token_that_counts(
    provider_on_both, site, client_key, jwk_set, sign_assertion
):
    """The client has the server that has its keys, and may let the question wait until somebody takes its role away."""
    provider, may_answer = provider_on_both, asyncio.Event()

    async def later(received, writer):
        await may_answer.wait()
        await serving(jwk_set(client_key).encode())(received, writer)

    site.answer = later
    changes = {"jwks": None, "jwks_uri": site.url, "roles": frozenset(("operator",))}
    await provider.add_client(**(values(client_key, jwk_set) | changes))
    asked = asyncio.create_task(provider.token(**GRANT, **sign_assertion("robot", client_key, ISSUER)))
    await wait_until(lambda: site.received)
    taken = provider.actor()
    await provider.service.database.transact(clients.change, "robot", partial(replace, roles=frozenset()), taken)
    await wait_until(lambda: time.time() > taken.at // 1_000_000 + 2)  # tokens say whole seconds
    may_answer.set()
    token = (await asked).json()["access_token"]
    told = await provider.post("/oauth2/introspect", {"token": token} | sign_assertion("robot", client_key, ISSUER))
    assert told.json() == {"active": False}
