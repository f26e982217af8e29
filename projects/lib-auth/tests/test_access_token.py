"""Which access tokens are accepted, and the many that are not."""

import base64
import hmac
import json
import time

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from lib_auth.access_token import MAX_TOKEN_LENGTH, TokenRejected, TokenVerifier

ES256 = jws.JWSRegistry.algorithms["ES256"]


def encode(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def reason(issuer, token):
    with pytest.raises(TokenRejected) as refused:
        await issuer.verifier().verify(token)
    return refused.value.reason


def acting(*services):
    """Who acts, the first for the second and so on (RFC 8693 section 4.1)."""
    return {"sub": services[0]} | ({"act": acting(*services[1:])} if services[1:] else {})


async def test_those_who_act_are_told_the_one_that_acts_now_first(issuer):
    principal = await issuer.verifier().verify(issuer.token(act=acting(*"12345678")))
    assert principal.actors == tuple("12345678")


async def test_a_good_token_becomes_its_principal(issuer):
    principal = await issuer.verifier().verify(issuer.token())
    assert str(principal) == "ada"
    assert principal.scopes == {"workflows:read", "workflows:run"}
    assert principal.client_id == "evs-gui"
    assert principal.session_id == "session-1"
    assert principal.family_id == "family-1"
    assert not principal.is_service


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iss": "http://evil.test"}, "issuer"),
        ({"iss": ...}, "issuer"),
        ({"aud": "http://127.0.0.1:9999"}, "audience"),
        ({"aud": ["http://127.0.0.1:8002", "http://127.0.0.1:9999"]}, "audience"),
        ({"aud": ...}, "audience"),
        ({"aud": "http://127.0.0.1:800"}, "audience"),
        ({"exp": 1}, "expired"),
        ({"exp": ...}, "claims"),
        ({"exp": "tomorrow"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": 10**400}, "claims"),
        ({"exp": float("nan")}, "claims"),
        ({"exp": float("inf")}, "claims"),
        ({"nbf": float("-inf")}, "claims"),
        ({"nbf": "later"}, "claims"),
        ({"iat": ...}, "claims"),
        ({"sub": ...}, "claims"),
        ({"sub": ""}, "claims"),
        ({"sub": 7}, "claims"),
        ({"client_id": ...}, "claims"),
        ({"jti": ...}, "claims"),
        ({"roles": "admin"}, "claims"),
        ({"roles": [1]}, "claims"),
        ({"permissions": "all"}, "claims"),
        ({"permissions": [1]}, "claims"),
        ({"scope": ["workflows:read"]}, "claims"),
        ({"cnf": {"x5t#S256": "x"}}, "claims"),
        ({"cnf": {"jkt": "x", "jku": "y"}}, "claims"),
        ({"cnf": "x"}, "claims"),
        ({"cnf": ["jkt"]}, "claims"),
        ({"act": "x"}, "claims"),
        ({"act": acting(*"123456789")}, "claims"),
    ],
)
async def test_wrong_claims_are_refused(issuer, changes, expected):
    assert await reason(issuer, issuer.token(**changes)) == expected


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_a_token_from_the_future_is_refused(issuer, claim):
    assert await reason(issuer, issuer.token(**{claim: time.time() + 60})) == "early"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"typ": "JWT"}, "type"),
        ({"typ": ""}, "type"),
        ({"kid": "another"}, "key"),
        ({"kid": 7}, "key"),
        ({"crit": ["b64"], "b64": True}, "malformed"),
    ],
)
async def test_wrong_headers_are_refused(issuer, header, expected):
    assert await reason(issuer, raw_token(issuer, header)) == expected


def raw_token(issuer, header):
    """Sign by hand what the library would refuse to sign."""
    head = encode({"alg": "ES256", "typ": "at+jwt", "kid": issuer.key.kid} | header)
    return f"{head}.{encode(issuer.claims())}.{encode(b'0' * 64)}"


async def test_the_none_algorithm_is_refused(issuer):
    for alg in ("none", "None", "NONE", ""):
        head = encode({"alg": alg, "typ": "at+jwt", "kid": issuer.key.kid})
        assert await reason(issuer, f"{head}.{encode(issuer.claims())}.") in ("algorithm", "malformed")


async def test_the_public_key_is_no_shared_secret(issuer):
    head = encode({"alg": "HS256", "typ": "at+jwt", "kid": issuer.key.kid})
    body = f"{head}.{encode(issuer.claims())}"
    mac = hmac.digest(issuer.key.as_pem(private=False), body.encode(), "sha256")
    token = f"{body}.{encode(mac)}"
    assert await reason(issuer, token) == "algorithm"


async def test_rs256_is_accepted_like_es256(rsa_issuer):
    assert str(await rsa_issuer.verifier().verify(rsa_issuer.token())) == "ada"
    assert await reason(rsa_issuer, rsa_issuer.token(aud="http://127.0.0.1:9999")) == "audience"
    head, _, signature = rsa_issuer.token().split(".")
    changed = encode(rsa_issuer.claims(roles=["admin"]))
    assert await reason(rsa_issuer, f"{head}.{changed}.{signature}") == "signature"


async def test_the_public_rsa_key_is_no_shared_secret(rsa_issuer):
    for secret in (rsa_issuer.key.as_pem(private=False), json.dumps(rsa_issuer.key.as_dict(private=False)).encode()):
        body = f"{encode({'alg': 'HS256', 'typ': 'at+jwt', 'kid': rsa_issuer.key.kid})}.{encode(rsa_issuer.claims())}"
        token = f"{body}.{encode(hmac.digest(secret, body.encode(), 'sha256'))}"
        assert await reason(rsa_issuer, token) == "algorithm"


async def test_a_key_signs_with_its_own_algorithm_alone(issuer, rsa_issuer):
    for mine, other in ((issuer, "RS256"), (rsa_issuer, "ES256"), (rsa_issuer, "PS256"), (issuer, "ES384")):
        head = encode({"alg": other, "typ": "at+jwt", "kid": mine.key.kid})
        assert await reason(mine, f"{head}.{encode(mine.claims())}.{encode(b'0' * 64)}") == "algorithm"
    signed_otherwise = rsa_issuer.token(header={"alg": "PS256"})
    assert await reason(rsa_issuer, signed_otherwise) == "algorithm"


async def test_a_verifier_accepts_the_algorithms_of_its_list_alone(issuer, rsa_issuer):
    for mine, other in ((issuer, rsa_issuer), (rsa_issuer, issuer)):
        assert await mine.verifier(algorithms=[mine.algorithm]).verify(mine.token())
        with pytest.raises(TokenRejected) as refused:
            await mine.verifier(algorithms=[other.algorithm]).verify(mine.token())
        assert refused.value.reason == "algorithm"
    for nonsense in ([], ["none"], ["ES256", "HS256"], "ES256"):
        with pytest.raises(ValueError, match="must be some of ES256, RS256"):
            issuer.verifier(algorithms=nonsense)


async def test_a_key_inside_the_token_is_not_used(issuer):
    own = ECKey.generate_key("P-256", private=True)
    header = {"jwk": own.as_dict(private=False)}
    assert await reason(issuer, issuer.token(header=header, key=own)) == "signature"


async def test_a_token_of_a_foreign_key_is_refused(issuer):
    assert await reason(issuer, issuer.token(key=ECKey.generate_key("P-256", private=True))) == "signature"


async def test_a_changed_token_is_refused(issuer):
    head, _, signature = issuer.token().split(".")
    changed = encode(issuer.claims(roles=["admin"]))
    assert await reason(issuer, f"{head}.{changed}.{signature}") == "signature"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32", "cp037"])
async def test_texts_that_are_not_utf8_are_refused(issuer, encoding):
    claims, head = (
        issuer.claims(preferred_username="Zo\u00e9"),
        {"alg": "ES256", "typ": "at+jwt", "kid": issuer.key.kid},
    )

    def signed(head_bytes, payload):
        text = f"{encode(head_bytes)}.{encode(payload)}".encode()
        return (text + b"." + encode(ES256.sign(text, issuer.key)).encode()).decode()

    plain = [json.dumps(each, ensure_ascii=False) for each in (head, claims)]
    assert (await issuer.verifier().verify(signed(*(each.encode() for each in plain)))).username == "Zo\u00e9"
    assert await reason(issuer, signed(plain[0].encode(), plain[1].encode(encoding))) == "signature"
    if encoding != "latin-1":  # in which ASCII letters are what they are in UTF-8
        assert await reason(issuer, signed(plain[0].encode(encoding), plain[1].encode())) == "malformed"


@pytest.mark.parametrize("token", ["", "garbled", "a.b", "a.b.c", "a.b.c.d", "é.ü.ß", "....", "e30.e30.e30"])
async def test_what_is_no_token_is_refused(issuer, token):
    assert await reason(issuer, token) in ("malformed", "algorithm")


async def test_an_endless_token_is_refused_unread(issuer):
    assert await reason(issuer, issuer.token(more="a" * MAX_TOKEN_LENGTH)) == "malformed"


async def test_a_signed_text_without_claims_is_refused(issuer):
    head = {"alg": "ES256", "typ": "at+jwt", "kid": issuer.key.kid}
    assert await reason(issuer, jws.serialize_compact(head, "[]", issuer.key, algorithms=["ES256"])) == "claims"


async def test_a_verifier_may_accept_several_audiences(issuer):
    audiences = frozenset((issuer.claims()["aud"], "http://127.0.0.1:8010"))
    verifier = TokenVerifier(issuer=issuer.claims()["iss"], audience=audiences, keys=issuer, revocations=issuer)
    for audience in audiences:
        assert (await verifier.verify(issuer.token(aud=audience))).audience == audience
    for other in ("http://127.0.0.1:8001", sorted(audiences)):
        with pytest.raises(TokenRejected, match="another service"):
            await verifier.verify(issuer.token(aud=other))


async def test_a_verified_token_is_remembered_until_it_expires(issuer):
    now = time.time()
    verifier = issuer.verifier(clock=lambda: now)
    token = issuer.token()
    first = await verifier.verify(token)
    assert await verifier.verify(token) is first
    now = first.expires_at.timestamp()  # RFC 7519 section 4.1.4: on or after it
    for each in (verifier, issuer.verifier(clock=lambda: now)):
        with pytest.raises(TokenRejected) as refused:
            await each.verify(token)
        assert refused.value.reason == "expired"


async def test_a_remembered_token_goes_with_its_key(issuer):
    """What a thief signed with a stolen key may say that it lives for ever; what refuses the key does not."""
    verifier, stolen = issuer.verifier(), issuer.key
    forged = issuer.token(exp=int(time.time()) + 10 * 365 * 24 * 3600)
    await verifier.verify(forged)
    issuer.key = type(issuer)().key
    with pytest.raises(TokenRejected) as refused:
        await verifier.verify(forged)
    assert refused.value.reason == "key"
    issuer.key = ECKey.import_key(issuer.key.as_dict(private=True) | {"kid": stolen.kid})  # another by that name
    with pytest.raises(TokenRejected) as refused:
        await verifier.verify(forged)
    assert refused.value.reason == "signature"


async def test_revocation_is_asked_every_time(issuer):
    verifier, token = issuer.verifier(), issuer.token()
    await verifier.verify(token)
    await verifier.verify(token)
    assert issuer.asked == 2
    issuer.revoked = True
    with pytest.raises(TokenRejected) as refused:
        await verifier.verify(token)
    assert refused.value.reason == "revoked"


async def test_a_full_cache_forgets_the_oldest(issuer):
    verifier = issuer.verifier()
    verifier._cache_size = 3
    for number in range(10):
        await verifier.verify(issuer.token(jti=f"token-{number}"))
    assert len(verifier._verified) == 3


@pytest.mark.parametrize(
    ("roles", "held", "missing"),
    [
        (["admin"], {"admin", "operator", "member"}, {"auditor"}),
        (["operator"], {"operator", "member"}, {"admin"}),
        (["member"], {"member"}, {"operator", "admin"}),
        (["auditor"], {"auditor"}, {"member"}),
    ],
)
async def test_a_role_includes_the_ones_before_it(issuer, roles, held, missing):
    principal = await issuer.verifier().verify(issuer.token(roles=roles))
    assert all(principal.has_role(role) for role in held)
    assert not any(principal.has_role(role) for role in missing)
