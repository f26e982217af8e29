"""Guards: 401 says where to sign in, 403 what is missing, 503 that nobody knows."""

import json
import time

import httpx
import pytest
from fastapi import Depends, FastAPI
from joserfc import jws
from joserfc.jwk import ECKey

from lib_auth.access_token import RevocationsUnknown, TokenRejected
from lib_auth.dpop import KEPT_SECONDS, SeenProofs, hash_of
from lib_auth.guard import Guard, challenge
from lib_auth.protected_resource import read_challenge
from lib_events.event import current_cause
from lib_events.problem import Problem, install_problem_handlers

METADATA = "http://127.0.0.1:8002/.well-known/oauth-protected-resource"


@pytest.fixture
def service(issuer):
    """A service with one guarded route, as an httpx client."""
    guard = Guard(issuer.verifier(), resource_metadata=METADATA)
    app = FastAPI()
    install_problem_handlers(app)
    operator = guard.requires(scope="workflows:read", role="operator")

    @app.get("/")
    async def route(principal=Depends(operator)):  # noqa: B008
        return {"who": str(principal), "cause": current_cause.get().principal}

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8002")


async def get(service, token):
    return await service.get("/", headers={"authorization": f"Bearer {token}"})


async def test_who_may_gets_in_and_is_the_cause_of_what_follows(issuer, service):
    answer = await get(service, issuer.token(roles=["admin"]))
    assert answer.json() == {"who": "ada", "cause": "ada"}


async def test_without_a_token_the_answer_says_where_to_sign_in(service):
    answer = await service.get("/")
    assert answer.status_code == 401
    assert read_challenge(answer.headers["www-authenticate"]) == {"resource_metadata": METADATA}


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", "nonsense"])
async def test_what_is_no_bearer_token_is_none(service, header):
    answer = await service.get("/", headers={"authorization": header})
    assert answer.status_code == 401
    assert "error" not in read_challenge(answer.headers["www-authenticate"])


async def test_a_bad_token_is_called_invalid(issuer, service):
    answer = await get(service, issuer.token(exp=1))
    assert answer.status_code == 401
    challenge = read_challenge(answer.headers["www-authenticate"])
    assert challenge["error"] == "invalid_token"
    assert challenge["error_description"] == "the access token has expired"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_missing_scope_is_named(issuer, service):
    answer = await get(service, issuer.token(scope="events:read", roles=["operator"]))
    assert answer.status_code == 403
    challenge = read_challenge(answer.headers["www-authenticate"])
    assert (challenge["error"], challenge["scope"]) == ("insufficient_scope", "workflows:read")


async def test_a_missing_role_is_named(issuer, service):
    answer = await get(service, issuer.token())
    assert answer.status_code == 403
    assert answer.json()["role"] == "operator"


async def test_a_missing_permission_is_named_and_one_that_is_there_lets_in(issuer):
    app = FastAPI()
    install_problem_handlers(app)
    guard = Guard(issuer.verifier(), resource_metadata=METADATA)
    clerk = guard.requires(permission="orders:refund")

    @app.get("/")
    async def refund(principal=Depends(clerk)):  # noqa: B008
        return str(principal)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service.test") as http:
        refused = await get(http, issuer.token(permissions=["orders:ship"]))
        assert (refused.status_code, refused.json()["permission"]) == (403, "orders:refund")
        assert (await get(http, issuer.token(permissions=["orders:refund"]))).json() == "ada"
        assert (await get(http, issuer.token(permissions="orders:refund"))).status_code == 401


async def test_two_authorization_headers_are_none(issuer, service):
    token = issuer.token(roles=["operator"])
    headers = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
    assert (await service.get("/", headers=headers)).status_code == 401


async def test_when_nobody_can_say_whether_a_token_is_good_it_is_not_accepted(issuer, service, monkeypatch):
    async def unknown(principal, token):
        raise RevocationsUnknown("the issuer is away")

    monkeypatch.setattr(issuer, "is_revoked", unknown)
    answer = await get(service, issuer.token(roles=["operator"]))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


@pytest.fixture
def strict(issuer):
    """A service whose route wants two factors, proven a moment ago."""
    guard = Guard(issuer.verifier(), resource_metadata=METADATA)
    app = FastAPI()
    install_problem_handlers(app)
    strong = guard.requires(acr=("urn:evs:acr:2", "phr"), max_age_seconds=300)

    @app.get("/")
    async def route(principal=Depends(strong)):  # noqa: B008
        return {"acr": principal.acr}

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8002")


async def test_a_sign_in_that_is_too_weak_or_too_old_is_told_what_is_wanted(issuer, strict, subtests):
    now = int(time.time())
    for claims in (
        {},
        {"acr": "urn:evs:acr:1", "auth_time": now},
        {"acr": "phr"},
        {"acr": "phr", "auth_time": now - 400},
        {"acr": "urn:evs:acr:2 phr", "auth_time": now},
    ):
        with subtests.test(claims=claims):
            answer = await get(strict, issuer.token(**claims))
            assert answer.status_code == 401
            challenge = read_challenge(answer.headers["www-authenticate"])
            assert challenge["error"] == "insufficient_user_authentication"
            assert challenge["acr_values"] == "urn:evs:acr:2 phr"
            assert challenge["max_age"] == "300"
    for acr in ("urn:evs:acr:2", "phr"):
        answer = await get(strict, issuer.token(acr=acr, auth_time=now - 100))
        assert answer.json() == {"acr": acr}


async def test_of_a_sign_in_no_more_is_told_than_is_wanted(issuer):
    guard, principal = (
        Guard(issuer.verifier(), resource_metadata=METADATA),
        await issuer.verifier().verify(issuer.token()),
    )
    for wanted, told in (({"acr": ["phr"]}, {"acr_values": "phr"}), ({"max_age_seconds": 9}, {"max_age": "9"})):
        with pytest.raises(Problem) as missing:
            guard.require_sign_in(principal, **wanted)
        challenge = read_challenge(missing.value.headers["www-authenticate"])
        assert {name: challenge[name] for name in ("acr_values", "max_age") if name in challenge} == told


def proof_of(key, url, token, **changes):
    """Prove for one GET that the key of a token is held (RFC 9449 section 4.2)."""
    claims = {"jti": "once", "htm": "GET", "htu": url, "iat": int(time.time()), "ath": hash_of(token)} | changes
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)}
    return jws.serialize_compact(head, json.dumps(claims), key, algorithms=["ES256"])


async def test_processes_that_share_a_memory_take_a_proof_once(issuer):
    key, url = ECKey.generate_key("P-256", private=True), "http://127.0.0.1:8002/"
    token, shared = issuer.token(cnf={"jkt": key.thumbprint()}), SeenProofs()

    def process(replay_memory):
        app = FastAPI()
        install_problem_handlers(app)
        guard = Guard(issuer.verifier(), resource_metadata=METADATA, replay_memory=replay_memory)
        app.get("/", dependencies=[Depends(guard.requires())])(lambda: "in")
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=url)

    headers = {"authorization": f"DPoP {token}", "dpop": proof_of(key, url, token)}
    one, two, alone = process(shared), process(shared), process(None)
    assert [(await each.get("/", headers=headers)).status_code for each in (one, two, alone)] == [200, 401, 200]
    headers["dpop"] = proof_of(key, url, token, jti="twice")
    assert (await two.get("/", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("asked", "proven", "status"),
    [
        ("/of/a%20b", "/of/a%20b", 200),
        ("/of/%C3%A4", "/of/%c3%a4", 200),
        ("/of/~a", "/of/%7Ea", 200),
        ("/of/a%2Fb", "/of/a%2fb", 200),
        ("/of/a%2Fb", "/of/a/b", 401),
        ("/of/a%20b", "/of/a b", 401),
        ("/of/a", "/of/b", 401),
    ],
)
async def test_a_proof_names_the_url_as_it_was_sent_escapes_and_all(issuer, asked, proven, status):
    key, app = ECKey.generate_key("P-256", private=True), FastAPI()
    token = issuer.token(cnf={"jkt": key.thumbprint()})
    install_problem_handlers(app)
    guard = Guard(issuer.verifier(), resource_metadata=METADATA)
    app.get("/of/{name:path}", dependencies=[Depends(guard.requires())])(lambda name: name)
    service = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8002")
    headers = {"authorization": f"DPoP {token}", "dpop": proof_of(key, f"http://127.0.0.1:8002{proven}", token)}
    assert (await service.get(asked, headers=headers)).status_code == status


async def test_a_memory_forgets_the_oldest_proofs_first_and_those_whose_time_is_over():
    memory = SeenProofs(limit=2)
    assert [await memory.take(digest, 0.0) for digest in (b"1", b"1", b"2", b"3")] == [True, False, True, True]
    assert [await memory.take(digest, 0.0) for digest in (b"3", b"1")] == [False, True]
    assert await memory.take(b"1", KEPT_SECONDS + 1)


def test_what_a_token_brings_breaks_out_of_no_challenge():
    said = challenge(TokenRejected("claims", 'a "b" \\ c\r\nset-cookie: d \u00e9'), resource_metadata="http://x")
    assert said == (
        'Bearer resource_metadata="http://x", error="invalid_token", error_description="a b  cset-cookie: d "'
    )
    assert challenge(TokenRejected("proof", "used"), scheme="dpop").startswith('DPoP error="invalid_dpop_proof"')
