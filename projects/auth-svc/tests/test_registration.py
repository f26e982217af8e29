"""Clients that register themselves, and look after themselves (RFC 7591, RFC 7592)."""

import asyncio
import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from joserfc import jws
from sqlalchemy import delete, select, update

from auth_svc.audit import Actor
from auth_svc.clients import clients as clients_module
from auth_svc.clients import unused
from auth_svc.pruner import Pruner
from auth_svc.tables import clients, codes, families, registration_tokens, sessions
from lib_events.clock import SystemClock
from lib_events.lifecycle import running
from lib_events.testing import wait_until

ISSUER = "http://127.0.0.1:8001"
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "sign-in.md"
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
    settings = {"client_registration": "open", "unused_client_days": 0}  # tests prune by themselves
    async with run_provider(tmp_path, database_url, **settings) as opened:
        await opened.add_user("ada")
        yield opened


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


async def test_a_client_that_comes_to_send_people_elsewhere_has_to_ask_again(opened, subtests):
    """They allowed it to the host that was named on the page, the only one who stands behind such a client."""
    client = (await register(opened)).json()
    browser = await opened.browser()
    request = {"client_id": client["client_id"], "redirect_uri": "https://weather.example/back", "scope": "openid"}
    await opened.authorize(browser, **request)
    await browser.submit(username="ada", password="correct horse battery staple")
    assert "code" in opened.answer(await browser.submit(decision="allow"))
    headers = {"authorization": f"Bearer {client['registration_access_token']}"}
    for uris, is_asked in (
        (["https://weather.example/back", "https://weather.example/other"], False),
        (["https://weather.example/back", "https://other.example/back"], True),
    ):
        with subtests.test(uris=uris):
            metadata = METADATA | {"client_id": client["client_id"], "redirect_uris": uris}
            path = f"/oauth2/register/{client['client_id']}"
            assert (await opened.http.put(path, json=metadata, headers=headers)).status_code == 200
            page = await opened.authorize(browser, **request | {"redirect_uri": uris[1]})
            assert ("Allow access?" in page.text) == is_asked


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


async def test_a_client_that_comes_to_prove_itself_with_a_key_has_no_secret_any_more(
    opened, client_key, jwk_set, sign_assertion
):
    client, asked = (await register(opened)).json(), {"token": "x"}
    by_key = {"token_endpoint_auth_method": "private_key_jwt", "jwks": json.loads(jwk_set(client_key))}
    answer = await update_itself(opened, client, **by_key)
    assert (answer.status_code, "client_secret" in answer.json()) == (200, False)
    first = (client["client_id"], client["client_secret"])
    assert (await opened.post("/oauth2/introspect", asked, first)).json()["error"] == "invalid_client"
    proof = sign_assertion(client["client_id"], client_key, opened.settings.auth_url)
    assert (await opened.post("/oauth2/introspect", asked | proof)).json() == {"active": False}
    second = (client["client_id"], (await update_itself(opened, client)).json()["client_secret"])
    assert (await opened.post("/oauth2/introspect", asked, second)).json() == {"active": False}
    assert (await opened.post("/oauth2/introspect", asked, first)).json()["error"] == "invalid_client"


async def age(provider, days):
    """Let all clients be that much older, which is what time does."""
    micros = timedelta(days=days) // timedelta(microseconds=1)
    moved = {name: clients.c[name] - micros for name in ("created_at", "granted_at")}
    await provider.service.database.transact(lambda connection: connection.execute(update(clients).values(moved)))


async def prune(provider, days=30):
    return await provider.service.database.transact(unused.prune, days, Actor(SystemClock().micros(), "pruner"))


async def client_ids(provider):
    rows = await provider.service.database.read(lambda connection: connection.execute(select(clients.c.id)).all())
    return {row.id for row in rows}


async def test_a_client_that_nobody_ever_used_goes_after_a_while(opened):
    own = await client_ids(opened)
    unused_id = (await register(opened)).json()["client_id"]
    await opened.add_client(id="by-hand", name="By hand", scopes=frozenset(("openid",)))
    disabled = (await register(opened)).json()["client_id"]
    admin = {"authorization": f"Bearer {await opened.admin_token()}"}
    await opened.http.post(f"/v1/admin/clients/{disabled}/disable", headers=admin)
    await age(opened, 29)
    assert await prune(opened) == 0
    await age(opened, 2)
    assert await prune(opened) == 1
    assert await client_ids(opened) == own | {"by-hand", disabled}
    (told,) = await wait_until(lambda: opened.events("evs.client.removed"))
    assert (told.data["client"], told.data["by"], told.data["origin"]) == (unused_id, "pruner", "registered")
    assert await prune(opened) == 0


async def test_a_client_that_people_allowed_something_stays_and_so_does_one_whose_tokens_may_be_good(opened):
    client = (await register(opened)).json()
    browser = await opened.browser()
    back = {"client_id": client["client_id"], "redirect_uri": "https://weather.example/back"}
    await opened.authorize(browser, **back, scope="openid workflows:read")
    await browser.submit(username="ada", password="correct horse battery staple")
    await browser.submit(decision="allow")
    await age(opened, 100)
    await opened.service.database.transact(forget_tokens)
    assert await prune(opened) == 0, "somebody allowed it something"
    await opened.authorize(browser, **back, scope="openid workflows:read")
    await browser.open("/account/apps")
    await browser.submit(action="/account/apps/withdraw")
    assert await prune(opened) == 0, "its tokens may be good"
    await opened.service.database.transact(forget_tokens)
    assert await prune(opened) == 1


def forget_tokens(connection):
    """What the pruner does once they have expired."""
    for table in (codes, families):
        connection.execute(delete(table))


async def test_a_program_that_gets_tokens_of_its_own_is_used(opened):
    admin = {"authorization": f"Bearer {await opened.admin_token()}"}
    wanted = {"note": "for a robot", "uses": 1, "scopes": ["workflows:read"]}
    token = (await opened.http.post("/v1/admin/registration-tokens", json=wanted, headers=admin)).json()["token"]
    grants = {
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "scope": "workflows:read",
    }
    client = (await register(opened, token, **grants)).json()
    auth = (client["client_id"], client["client_secret"])

    async def granted_at():
        query = select(clients.c.granted_at).where(clients.c.id == auth[0])
        return await opened.service.database.read(lambda connection: connection.scalar(query))

    assert await granted_at() is None
    assert (await opened.token(auth, grant_type="client_credentials")).status_code == 200
    first = await granted_at()
    assert first is not None
    await opened.token(auth, grant_type="client_credentials")
    assert await granted_at() == first, "once a day is enough"
    await age(opened, 29)
    await opened.token(auth, grant_type="client_credentials")
    await age(opened, 29)
    assert await prune(opened) == 0
    await age(opened, 2)
    assert await prune(opened) == 1


async def test_many_unused_clients_go_a_few_at_a_time(opened):
    own = await client_ids(opened)
    for number in range(unused.BATCH + 3):
        await opened.add_client(id=f"left-{number}", name="Left", origin="registered")
    await age(opened, 31)
    assert [await prune(opened) for _ in range(3)] == [unused.BATCH, 3, 0]
    assert await client_ids(opened) == own


@pytest.mark.parametrize(("days", "stays"), [(0, True), (30, False)])
async def test_the_pruner_does_it_as_the_settings_say(run_provider, tmp_path, sqlite_url, days, stays):
    async with run_provider(tmp_path, sqlite_url, unused_client_days=0) as opened:
        await opened.add_client(id="left", name="Left", origin="registered")
        await age(opened, 31)
        pruner = Pruner(opened.service.database, SystemClock(), unused_client_days=days)
        async with running(pruner):
            await wait_until(lambda: pruner.is_pausing)
        assert ("left" in await client_ids(opened)) is stays


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


async def test_an_initial_access_token_of_a_former_administrator_registers_nothing(
    run_provider, tmp_path, database_url
):
    async with run_provider(tmp_path, database_url, client_registration="token") as provider:
        await provider.add_user("grace", "admin")
        values = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
        grace = {"authorization": f"Bearer {(await provider.tokens('grace', **values))['access_token']}"}
        headers = {"authorization": f"Bearer {await provider.admin_token()}"}
        body = {"note": "the weather team", "uses": 2, "scopes": ["openid"]}
        issued = (await provider.http.post("/v1/admin/registration-tokens", json=body, headers=grace)).json()
        assert issued["status"] == "good"
        assert (await register(provider, issued["token"])).status_code == 201
        assert (await provider.http.post("/v1/admin/users/grace/disable", headers=headers)).is_success
        assert (await register(provider, issued["token"])).status_code == 401
        (listed,) = (await provider.http.get("/v1/admin/registration-tokens", headers=headers)).json()["items"]
        assert (listed["status"], listed["uses_left"]) == ("lapsed", 1)
        assert (await provider.http.post("/v1/admin/users/grace/enable", headers=headers)).is_success
        assert (await register(provider, issued["token"])).status_code == 201
        (listed,) = (await provider.http.get("/v1/admin/registration-tokens", headers=headers)).json()["items"]
        assert listed["status"] == "used"


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


async def test_an_initial_access_token_whose_time_is_over_registers_nothing(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, client_registration="token") as provider:
        headers = {"authorization": f"Bearer {await provider.admin_token()}"}
        body = {"note": "for the weather people", "uses": 3, "scopes": ["openid"]}
        issued = (await provider.http.post("/v1/admin/registration-tokens", json=body, headers=headers)).json()
        now = provider.service.clock.micros()

        def end(connection):
            connection.execute(update(registration_tokens).values(expires_at=now))

        assert (await register(provider, issued["token"])).status_code == 201
        await provider.service.database.transact(end)
        assert (await register(provider, issued["token"])).status_code == 401


async def test_metadata_nobody_here_knows_is_ignored_and_all_that_counts_is_told(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        answer = (await register(opened, favourite_colour="green", token_endpoint_auth_method=...)).json()
        assert "favourite_colour" not in answer
        assert answer["token_endpoint_auth_method"] == "client_secret_basic"  # the default is told, too
        assert answer["redirect_uris"] == METADATA["redirect_uris"]
        other = (await register(opened)).json()
        assert len({answer["client_id"], other["client_id"]}) == 2
        assert len({answer["client_secret"], other["client_secret"]}) == 2


async def test_a_client_is_given_sign_ins_as_fresh_as_it_registered(opened, subtests):
    settings = {"default_max_age": 100, "require_auth_time": True, "default_acr_values": ["urn:evs:acr:1", "other"]}
    client = (await register(opened, token_endpoint_auth_method="none", **settings)).json()
    assert {name: client[name] for name in settings} == settings
    asked = {"client_id": client["client_id"], "redirect_uri": "https://weather.example/back", "scope": "openid"}
    browser = await opened.browser()
    await opened.authorize(browser, **asked)
    await browser.submit(username="ada", password="correct horse battery staple")
    answer = opened.answer(await browser.submit(decision="allow"))

    async def grow_older(seconds):
        earlier = update(sessions).values(authenticated_at=sessions.c.authenticated_at - seconds * 1_000_000)
        await opened.service.database.transact(lambda connection: connection.execute(earlier))

    form = {"code": answer["code"], "redirect_uri": asked["redirect_uri"], "code_verifier": opened.verifier}
    tokens = (await opened.token(None, grant_type="authorization_code", client_id=client["client_id"], **form)).json()
    assert b"auth_time" in jws.extract_compact(tokens["id_token"].encode()).payload
    await grow_older(50)
    assert "code" in opened.answer(await opened.authorize(browser, **asked))
    await grow_older(60)
    assert opened.answer(await opened.authorize(browser, **asked, prompt="none"))["error"] == "login_required"
    assert "code" in opened.answer(await opened.authorize(browser, **asked, max_age="1000")), "the request says so"
    assert "Password" in (await opened.authorize(browser, **asked)).text
    page = await browser.submit(username="ada", password="correct horse battery staple")
    assert "code" in opened.answer(page), "asked once"
    for wrong in (-1, "100", 1.5, 10**10):
        with subtests.test(wrong=wrong):
            refused = await register(opened, default_max_age=wrong)
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client_metadata")


async def test_a_client_that_wants_each_sign_in_fresh_is_not_sent_round_for_ever(opened):
    client = (await register(opened, default_max_age=0)).json()
    browser = await opened.browser()
    asked = {"client_id": client["client_id"], "redirect_uri": "https://weather.example/back", "scope": "openid"}
    for first in (True, False):
        assert "Password" in (await opened.authorize(browser, **asked)).text
        page = await browser.submit(username="ada", password="correct horse battery staple")
        if first:
            page = await browser.submit(decision="allow")
        assert "code" in opened.answer(page)


async def test_a_software_statement_is_taken_as_plain_metadata_and_vouches_for_nothing(
    run_provider, tmp_path, sqlite_url
):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        says = {"client_name": "Bank", "redirect_uris": ["https://bank.example/cb"], "scope": "admin"}
        parts = ({"alg": "none"}, says | {"iss": "https://bank.example"}, "")
        statement = ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        for sent in (statement, "garbled", 7):
            told = (await register(opened, software_statement=sent)).json()
            assert (told["client_name"], told["redirect_uris"]) == ("Weather", METADATA["redirect_uris"])
            assert set(told["scope"].split()) == {"openid", "workflows:read"}
            assert "software_statement" not in told


async def test_the_guide_says_how_long_client_ids_are(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, client_registration="open") as opened:
        length = len((await register(opened)).json()["client_id"])
    assert f"A client id has {length} characters" in GUIDE.read_text()


async def test_an_update_undoes_nothing_that_an_administrator_did_meanwhile(opened, monkeypatch, subtests):
    """A client that is about to be stopped may send updates without end; none of them must let it in again."""
    service, ensure = opened.service, opened.service.key_rotation.ensure
    for name, act, status in (
        ("disabled", clients_module.disable, 401),
        ("a new secret", partial(rotated, secret="of the administrator"), 200),
        ("removed", clients_module.remove, 401),
    ):
        with subtests.test(name):
            client = (await register(opened)).json()

            async def meanwhile(algorithm, client_id=client["client_id"], act=act):
                await service.database.transact(act, client_id, opened.actor())
                await ensure(algorithm)

            with monkeypatch.context() as changed:
                changed.setattr(service.key_rotation, "ensure", meanwhile)
                answer = await update_itself(opened, client)
            assert answer.status_code == status
            known = await service.database.read(clients_module.find, client["client_id"])
            assert known is None or known.disabled_at or known.check_client_secret("of the administrator")


def rotated(connection, client_id, actor, *, secret):
    return clients_module.rotate_secret(connection, client_id, secret, actor)


async def update_itself(provider, client, **changes):
    headers = {"authorization": f"Bearer {client['registration_access_token']}"}
    mine = METADATA | {"client_id": client["client_id"]} | changes
    return await provider.http.put(client["registration_client_uri"], json=mine, headers=headers)


async def test_an_update_leaves_what_an_administrator_has_set(opened):
    client = (await register(opened)).json()

    def set_by_administrator(known):
        scopes = known.scopes | {"approvals:decide"}
        return replace(known, consent="always", access_token_seconds=60, scopes=scopes)

    change = (clients_module.change, client["client_id"], set_by_administrator, opened.actor())
    await opened.service.database.transact(*change)
    told = (await update_itself(opened, client, scope=None)).json()
    assert set(told["scope"].split()) == {"openid", "workflows:read", "approvals:decide"}
    known = await opened.service.database.read(clients_module.find, client["client_id"])
    assert (known.consent, known.access_token_seconds) == ("always", 60)


async def test_an_update_takes_back_nothing_that_an_administrator_demands_or_has_taken(opened):
    device = "urn:ietf:params:oauth:grant-type:device_code"
    client = (await register(opened, grant_types=["authorization_code", device])).json()
    less = partial(replace, grant_types=("authorization_code",), dpop_bound=True, pushed_only=True)
    await opened.service.database.transact(clients_module.change, client["client_id"], less, opened.actor())
    refused = await update_itself(opened, client, grant_types=["authorization_code", device])
    assert refused.json()["error"] == "invalid_client_metadata"
    told = (await update_itself(opened, client, dpop_bound_access_tokens=False)).json()
    demanded = ("dpop_bound_access_tokens", "require_pushed_authorization_requests")
    assert [told[name] for name in demanded] == [True, True]
    assert told["grant_types"] == ["authorization_code"]


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
