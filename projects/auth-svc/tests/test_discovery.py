"""What discovery claims is there, and what is there is claimed."""

from urllib.parse import urlsplit

import pytest

ISSUER = "http://127.0.0.1:8001"
REQUIRED = (  # OpenID Connect Discovery section 3 and RFC 8414 section 2
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
)


async def test_both_documents_say_the_same(provider):
    openid = (await provider.http.get("/.well-known/openid-configuration")).json()
    oauth = (await provider.http.get("/.well-known/oauth-authorization-server")).json()
    assert openid == oauth
    assert openid["issuer"] == ISSUER
    assert all(openid.get(name) for name in REQUIRED)
    assert openid["code_challenge_methods_supported"] == ["S256"]
    assert openid["authorization_response_iss_parameter_supported"] is True
    assert openid["access_token_signing_alg_values_supported"] == ["ES256", "RS256"]


async def test_every_endpoint_is_there(provider):
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    endpoints = [url for name, url in document.items() if name.endswith(("_endpoint", "_uri"))]
    assert len(endpoints) == 9
    for url in endpoints:
        path = urlsplit(url).path
        assert (await provider.http.get(path)).status_code != 404
        assert url.startswith(ISSUER)


async def test_the_keys_are_public_ones(provider):
    keys = (await provider.http.get("/oauth2/jwks")).json()["keys"]
    assert [set(key) for key in keys] == [{"kty", "crv", "x", "y", "kid", "use", "alg"}]
    assert keys[0]["alg"] == "ES256"


async def test_the_admin_api_says_where_to_sign_in(provider):
    refused = await provider.http.get("/v1/admin/users")
    assert refused.status_code == 401
    challenge = refused.headers["www-authenticate"]
    url = challenge.split('resource_metadata="')[1].split('"')[0]
    document = (await provider.http.get(urlsplit(url).path)).json()
    assert document["resource"] == f"{ISSUER}/v1/admin"
    assert document["authorization_servers"] == [ISSUER]


async def test_the_events_are_described_with_the_versions_in_this_database(provider):
    document = (await provider.http.get("/asyncapi.json")).json()
    messages = document["components"]["messages"]
    assert {"evs.user.registered", "evs.token.revoked", "evs.approval.decided"} <= messages.keys()
    assert {message["x-contract-version"] for message in messages.values()} == {1}
    assert document["operations"]["receive.evs.approval.decided"]["action"] == "receive"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/oauth2/token"), ("PUT", "/oauth2/authorize"), ("DELETE", "/login")]
)
async def test_other_methods_are_not_allowed(provider, method, path):
    answer = await provider.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"]


async def test_every_page_has_a_head(provider):
    for path in ("/login", "/oauth2/jwks"):
        answer = await provider.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_path_is_no_pattern(provider):
    answer = await provider.http.get("/oauth2/register/{client_id}")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


async def test_probes_answer_by_any_name(provider):
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await provider.http.get(path, headers={"host": "10.0.0.1"})).status_code == 200


async def test_no_member_of_the_metadata_is_empty(provider):
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    resource = (await provider.http.get("/.well-known/oauth-protected-resource/v1/admin")).json()
    assert all(value not in (None, "", []) for value in [*document.values(), *resource.values()])
    algorithms = [value for name, value in document.items() if "signing_alg_values" in name]
    assert len(algorithms) >= 5
    assert all("none" not in values for values in algorithms)
