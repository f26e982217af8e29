"""Clients that register themselves, and look after themselves (RFC 7591, RFC 7592)."""

import asyncio

import pytest

from lib_events.testing import wait_until

ISSUER = "http://127.0.0.1:8001"
METADATA = {
    "client_name": "Weather",
    "redirect_uris": ["https://weather.example/back"],
    "scope": "openid workflows:read",
    "id_token_signed_response_alg": "ES256",
}
KEY = {  # of RFC 7517 appendix A.1
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


@pytest.fixture
async def opened(run_provider, tmp_path, database_url):
    """An AuthService that lets everybody register, on both databases."""
    async with run_provider(tmp_path, database_url, client_registration="open") as running:
        await running.add_user("ada")
        yield running


async def register(provider, token=None, **changes):
    metadata = {name: value for name, value in (METADATA | changes).items() if value is not ...}
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return await provider.http.post("/oauth2/register", json=metadata, headers=headers)


async def test_a_registered_client_signs_people_in_after_their_consent(opened):
    answer = await register(opened)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    client = answer.json()
    assert client["client_secret_expires_at"] == 0
    browser = await opened.browser()
    back = {"client_id": client["client_id"], "redirect_uri": "https://weather.example/back"}
    await opened.authorize(browser, **back, scope="openid workflows:read workflows:manage admin")
    page = await browser.submit(username="ada", password="correct horse battery staple")
    assert "Weather" in page.text
    assert "Run by" in page.text
    assert "weather.example" in page.text
    code = opened.answer(await browser.submit(decision="allow"))["code"]
    tokens = await opened.token(
        (client["client_id"], client["client_secret"]),
        grant_type="authorization_code",
        code=code,
        redirect_uri=back["redirect_uri"],
        code_verifier=opened.verifier,
    )
    assert set(tokens.json()["scope"].split()) == {"openid", "workflows:read"}
    await wait_until(lambda: opened.events("evs.client.registered"))
    (event,) = await opened.events("evs.client.registered")
    assert event.data["origin"] == "registered"
    assert client["client_secret"] not in str(event.data)


async def test_a_client_reads_changes_and_removes_itself(opened):
    client = (await register(opened)).json()
    headers = {"authorization": f"Bearer {client['registration_access_token']}"}
    url = client["registration_client_uri"]
    read = (await opened.http.get(url, headers=headers)).json()
    assert read["client_name"] == "Weather"
    assert "client_secret" not in read
    changed = METADATA | {"client_id": client["client_id"], "client_name": "Climate", "scope": "openid"}
    answer = await opened.http.put(url, json=changed, headers=headers)
    assert (answer.status_code, answer.json()["client_name"], answer.json()["scope"]) == (200, "Climate", "openid")
    grown = await opened.http.put(url, json=changed | {"scope": "openid workflows:read"}, headers=headers)
    assert grown.json()["scope"] == "openid"
    assert (await opened.http.delete(url, headers=headers)).status_code == 204
    assert (await opened.http.get(url, headers=headers)).status_code == 401

    async def told():
        return {"evs.client.changed", "evs.client.removed"} <= {event.type for event in await opened.events()}

    await wait_until(told)


async def test_nobody_else_manages_a_client(opened, subtests):
    mine, other = (await register(opened)).json(), (await register(opened)).json()
    for name, token in (("none", None), ("wrong", "x" * 43), ("another's", other["registration_access_token"])):
        with subtests.test(name):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            for method in ("GET", "PUT", "DELETE"):
                answer = await opened.http.request(method, mine["registration_client_uri"], headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
    unknown = await opened.http.get("/oauth2/register/nobody", headers={"authorization": "Bearer x"})
    own = await opened.http.get("/oauth2/register/evs-gui", headers={"authorization": "Bearer x"})
    assert unknown.status_code == own.status_code == 401
    assert unknown.json() == own.json()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uris": ["http://weather.example/back"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://weather.example/#x"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://weather.example/back"}, "invalid_redirect_uri"),
        ({"redirect_uris": ...}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://weather.example/" + "a" * 3000]}, "invalid_redirect_uri"),
        ({"grant_types": ["client_credentials"], "response_types": []}, "invalid_client_metadata"),
        ({"grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"jwks": {"keys": []}}, "invalid_client_metadata"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}}, "invalid_client_metadata"),
        ({"jwks": {"keys": [{"kty": "EC"}]}, "jwks_uri": "https://weather.example/keys"}, "invalid_client_metadata"),
        ({"jwks": {"keys": [KEY]}, "jwks_uri": "https://weather.example/keys"}, "invalid_client_metadata"),
        ({"jwks_uri": "http://weather.example/keys"}, "invalid_client_metadata"),
        ({"jwks_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"client_name": "Bank\u202eretaehC"}, "invalid_client_metadata"),
        ({"client_name": "two\nlines"}, "invalid_client_metadata"),
        ({"scope": "admin approvals:decide"}, "invalid_client_metadata"),
        ({"scope": 7}, "invalid_client_metadata"),
        ({"client_name": "a" * 500}, "invalid_client_metadata"),
        ({"client_name": "nul\x00"}, "invalid_client_metadata"),
        ({"client_uri": "http://weather.example"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "none"}, "invalid_client_metadata"),
        ({"backchannel_logout_uri": "http://10.0.0.1/hear"}, "invalid_client_metadata"),
    ],
    ids=str,
)
async def test_a_registration_that_lies_is_refused(run_provider, tmp_path, sqlite_url, changes, error):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        answer = await register(opened, **changes)
        assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_the_body_must_be_json(run_provider, tmp_path, sqlite_url, subtests):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        for sent in ({"data": {"client_name": "x"}}, {"json": []}, {"json": "x"}, {"content": b"{"}):
            with subtests.test(str(sent)):
                headers = {"content-type": "application/json"} if "content" in sent else {}
                answer = await opened.http.post("/oauth2/register", **sent, headers=headers)
                assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")


async def test_rs256_is_the_default_and_such_id_tokens_verify(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        answer = await register(opened, id_token_signed_response_alg=..., token_endpoint_auth_method="none")
        assert answer.json()["id_token_signed_response_alg"] == "RS256"
        assert "client_secret" not in answer.json()
        keys = (await opened.http.get("/oauth2/jwks")).json()["keys"]
        assert sorted(key["alg"] for key in keys) == ["ES256", "RS256"]


async def test_where_it_is_closed_nobody_registers(provider):
    assert (await register(provider)).status_code == 401
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert "registration_endpoint" not in document


async def test_strangers_register_within_limits(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        answers = [await register(opened) for _ in range(21)]
        assert [answer.status_code for answer in answers[-2:]] == [201, 429]


async def test_an_initial_access_token_counts_its_uses(run_provider, tmp_path, database_url):
    async with run_provider(tmp_path, database_url, client_registration="token") as provider:
        headers = {"authorization": f"Bearer {await provider.admin_token()}"}
        body = {"note": "for the weather people", "uses": 3, "scopes": ["openid", "events:read"]}
        issued = (await provider.http.post("/v1/admin/registration-tokens", json=body, headers=headers)).json()
        assert (await register(provider)).status_code == 401
        assert (await register(provider, "x" * 43)).status_code == 401
        answers = await asyncio.gather(*(register(provider, issued["token"]) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [401] * 7
        made = next(answer.json() for answer in answers if answer.status_code == 201)
        assert made["scope"] == "openid"
        listed = (await provider.http.get("/v1/admin/registration-tokens", headers=headers)).json()["items"]
        assert [(token["uses_left"], token["token"]) for token in listed] == [(0, None)]
        gone = f"/v1/admin/registration-tokens/{issued['id']}"
        assert (await provider.http.delete(gone, headers=headers)).status_code == 204
        assert (await provider.http.delete(gone, headers=headers)).status_code == 404


async def test_metadata_nobody_here_knows_is_ignored_and_all_that_counts_is_told(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        answer = (await register(opened, favourite_colour="green", token_endpoint_auth_method=...)).json()
        assert "favourite_colour" not in answer
        assert answer["token_endpoint_auth_method"] == "client_secret_basic"  # the default is told, too
        assert answer["redirect_uris"] == METADATA["redirect_uris"]
        other = (await register(opened)).json()
        assert len({answer["client_id"], other["client_id"]}) == 2
        assert len({answer["client_secret"], other["client_secret"]}) == 2


async def test_an_update_says_only_what_is_the_clients_to_say(run_provider, tmp_path, sqlite_url, subtests):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        client = (await register(opened)).json()
        headers = {"authorization": f"Bearer {client['registration_access_token']}"}
        mine = METADATA | {"client_id": client["client_id"]}
        for changes in (
            {"client_id": "another"},
            {"client_id": None},
            {"registration_access_token": client["registration_access_token"]},
            {"registration_client_uri": client["registration_client_uri"]},
            {"client_secret_expires_at": 0},
            {"client_id_issued_at": 1},
            {"client_secret": "of my own choice"},
        ):
            with subtests.test(changes=changes):
                answer = await opened.http.put(client["registration_client_uri"], json=mine | changes, headers=headers)
                assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
        same = mine | {"client_secret": client["client_secret"], "client_uri": "https://weather.example/"}
        assert (await opened.http.put(client["registration_client_uri"], json=same, headers=headers)).status_code == 200
        del same["client_uri"], same["client_name"]  # what is left out is gone, or the default
        left = (await opened.http.put(client["registration_client_uri"], json=same, headers=headers)).json()
        assert ("client_uri" in left, left["client_name"]) == (False, client["client_id"])
