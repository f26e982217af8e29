"""Signing keys: published before they are used, kept until their last token has expired, sealed at rest."""

import asyncio
import json

import pytest
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import delete, insert, select, update

from auth_svc.people import account_changes, accounts
from auth_svc.protocol import key_rotation
from auth_svc.protocol import signing_keys as signing_key_rows
from auth_svc.protocol.signing_keys import LEAD_SECONDS, REST_SECONDS
from auth_svc.tables import signing_keys
from lib_auth.access_token import TokenRejected, TokenVerifier
from lib_auth.jwks import ALGORITHMS, RemoteKeys
from lib_events.sealed import SealingKey, SecretUnreadable
from lib_events.testing import wait_until

HOUR = 3600 * 1_000_000
ORDERS = "https://orders.example.org"


@pytest.fixture
async def admin(provider_on_both):
    """Administers keys."""
    headers = {"authorization": f"Bearer {await provider_on_both.admin_token()}"}

    async def ask(method, path, **sent):
        return await provider_on_both.http.request(method, f"/v1/admin/{path}", headers=headers, **sent)

    return ask


async def published(provider):
    return [key["kid"] for key in (await provider.http.get("/oauth2/jwks")).json()["keys"]]


async def age(provider, micros):
    """Let all keys be that much older, which is what time does."""

    def earlier(connection):
        connection.execute(
            update(signing_keys).values(
                created_at=signing_keys.c.created_at - micros, active_from=signing_keys.c.active_from - micros
            )
        )

    await provider.service.database.transact(earlier)
    await provider.service.key_rotation.reload()


async def states(admin):
    """What each key does, newest first."""
    return [key["state"] for key in (await admin("GET", "keys")).json()["items"]]


def header(token):
    return jws.extract_compact(token.encode()).headers()


def kid(token):
    return header(token)["kid"]


@pytest.mark.parametrize("path", ["keys:rotate", "keys/{}/revoke"])
async def test_who_is_put_out_while_a_key_is_made_changes_none(provider_on_both, admin, monkeypatch, path):
    provider, (before,) = provider_on_both, await published(provider_on_both)
    who = await provider.service.database.read(accounts.find_by_username, "admin")
    make = key_rotation.new_key

    async def make_slowly(algorithm):
        await provider.service.database.transact(account_changes.end_sessions, who.id, provider.actor())
        return make(algorithm)

    monkeypatch.setattr(key_rotation, "_made", make_slowly)
    refused = await admin("POST", path.format(before), json={})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:evs:problem:administers-no-more")
    assert await published(provider) == [before]


async def test_a_new_key_is_published_before_it_is_used_and_the_old_one_stays(provider_on_both, admin):
    provider = provider_on_both
    (first,) = await published(provider)
    before = await provider.tokens()
    assert (await admin("POST", "keys:rotate", json={})).status_code == 200
    assert await states(admin) == ["published", "active"]
    assert kid((await provider.tokens())["access_token"]) == first
    await age(provider, LEAD_SECONDS * 1_000_000 + 1)
    after = await provider.tokens()
    await provider.service.key_rotation.look()  # the first one stays until the last of its tokens has expired
    second = kid(after["access_token"])
    assert (second != first, await states(admin)) == (True, ["active", "resting"])
    assert kid(after["id_token"]) == second
    assert (await provider.introspect(before["access_token"]))["active"]
    await age(provider, REST_SECONDS * 1_000_000)
    await provider.service.key_rotation.look()
    assert await published(provider) == [second]
    rotation = provider.service.key_rotation
    found = {key.id: rotation.state_of(key) for key in await rotation.all()}  # the key of the admin's token is gone
    assert found == {first: "retired", second: "active"}
    assert await private_half(provider, first) is None
    told = ["evs.key.published", "evs.key.published", "evs.key.retired"]
    assert await wait_until(lambda: types_told(provider, told))


async def private_half(provider, key_id):
    """What is kept of the private half of a key, sealed."""
    query = select(signing_keys.c.sealed_key).where(signing_keys.c.id == key_id)
    return await provider.service.database.read(lambda connection: connection.scalar(query))


async def types_told(provider, types):
    """Whether the log tells of these changes of keys, in this order: on PostgreSQL it does a moment later."""
    return types == [event.type for event in await provider.events() if event.type.startswith("evs.key.")]


async def test_a_key_of_another_algorithm_takes_nothing_over(provider_on_both):
    (first,) = await published(provider_on_both)
    await provider_on_both.service.key_rotation.ensure("RS256")
    await age(provider_on_both, REST_SECONDS * 1_000_000 + 1_000_000)
    await provider_on_both.service.key_rotation.look()
    assert first in await published(provider_on_both)


async def test_an_id_token_of_a_retired_key_is_still_a_hint(provider_on_both, admin):
    provider = provider_on_both
    browser = await provider.browser()
    hint = (await provider.redeem(await provider.sign_in_for_code(browser=browser))).json()["id_token"]
    await admin("POST", "keys:rotate", json={})
    await age(provider, LEAD_SECONDS * 1_000_000 + REST_SECONDS * 1_000_000 + 1)
    await provider.service.key_rotation.look()
    assert "signed out" in (await browser.open(f"/oauth2/logout?id_token_hint={hint}")).text


async def test_a_key_that_is_old_enough_is_followed_by_a_new_one_once(provider_on_both):
    provider = provider_on_both
    await age(provider, 91 * 24 * HOUR)
    await asyncio.gather(*(provider.service.key_rotation.look() for _ in range(5)))
    rotation = provider.service.key_rotation
    assert [rotation.state_of(key) for key in await rotation.all()] == ["active", "published"]
    await provider.service.key_rotation.look()
    assert len(await published(provider)) == 2


async def test_a_revoked_key_is_worth_nothing_at_once(provider_on_both, admin):
    provider = provider_on_both
    (stolen,) = await published(provider)
    tokens = await provider.tokens()
    assert (await provider.introspect(tokens["access_token"]))["active"]
    answer = await admin("POST", f"keys/{stolen}/revoke")
    assert [key["state"] for key in answer.json()["items"]] == ["active", "revoked"]
    assert stolen not in await published(provider)
    assert await private_half(provider, stolen) is None
    assert await provider.introspect(tokens["access_token"]) == {"active": False}
    assert kid((await provider.tokens())["access_token"]) in await published(provider)
    hinted = await provider.authorize(await provider.browser(), prompt="none", id_token_hint=tokens["id_token"])
    assert provider.answer(hinted)["error"] == "invalid_request", "what it has signed says nothing of anybody"
    told = (await provider.http.get("/v1/revocations", auth=("evs-app", provider.secret_of("evs-app")))).json()
    assert ("key", stolen) in {(item["kind"], item["value"]) for item in told["items"]}


async def test_a_clock_that_is_behind_the_one_that_made_the_only_key_signs_with_it(provider_on_both, admin):
    """The first start's clock was ahead, or that of a machine where the only key was just revoked."""
    await age(provider_on_both, -2 * HOUR)
    assert await states(admin) == ["active"]
    assert (await provider_on_both.introspect((await provider_on_both.tokens())["access_token"]))["active"]
    assert (await admin("POST", "keys:rotate", json={})).status_code == 200
    assert sorted(await states(admin)) == ["active", "published"]


async def test_after_a_clock_that_was_a_year_ahead_keys_are_followed_by_new_ones_again(provider_on_both, admin):
    """What it made is no reason to wait for a year: it signs until the next key's time has come, and is followed."""
    provider, year, last = provider_on_both, 365 * 24 * HOUR, 30 * 24 * HOUR
    rotation = provider.service.key_rotation
    await age(provider, year + last)
    await rotation.look()  # the first key is followed by one that was made a year from now
    await age(provider, 3 * HOUR)
    await rotation.look()  # which has taken over, and the first is retired
    await age(provider, -year)
    (ahead,) = await published(provider)
    await rotation.look()
    assert await published(provider) == [ahead], "the last that a clock made that was right is a month old"
    await age(provider, 61 * 24 * HOUR)
    await asyncio.gather(*(rotation.look() for _ in range(5)))
    (new,) = set(await published(provider)) - {ahead}
    assert kid((await provider.tokens())["access_token"]) == ahead
    await age(provider, LEAD_SECONDS * 1_000_000 + 1)
    await rotation.look()
    assert kid((await provider.tokens())["access_token"]) == new
    await age(provider, 91 * 24 * HOUR)
    await rotation.look()
    assert len(await published(provider)) == 3


async def test_where_only_a_clock_that_was_ahead_has_made_keys_one_is_made_now_and_once(provider_on_both):
    await age(provider_on_both, -365 * 24 * HOUR)
    for _ in range(3):
        await provider_on_both.service.key_rotation.look()
    assert len(await published(provider_on_both)) == 2


async def test_a_reading_from_before_brings_no_revoked_key_back(provider_on_both, admin, monkeypatch):
    """The process would have signed with it, and believed it, until it looked again a minute later."""
    provider, (stolen,) = provider_on_both, await published(provider_on_both)
    database, has_read, may_go_on = provider.service.database, asyncio.Event(), asyncio.Event()
    read = database.read

    async def read_slowly(function, *args):
        found = await read(function, *args)
        if function is signing_key_rows.load and not has_read.is_set():
            has_read.set()
            await may_go_on.wait()
        return found

    monkeypatch.setattr(database, "read", read_slowly)
    look = asyncio.create_task(provider.service.key_rotation.look())
    await has_read.wait()
    revoke = asyncio.create_task(admin("POST", f"keys/{stolen}/revoke"))
    await asyncio.wait([revoke], timeout=0.5)  # it may have to wait for the reading
    may_go_on.set()
    await look
    assert (await revoke).status_code == 200
    assert stolen not in await published(provider)


async def test_a_key_that_another_process_has_just_made_is_followed_by_one_of_its_kind(provider_on_both, admin):
    """Nothing could be signed for whoever asks for RS256, until the next such client came."""
    provider, made = provider_on_both, key_rotation.new_key("RS256")
    await provider.service.key_rotation.stop()  # it has not heard of it yet

    def publish(connection):
        signing_key_rows.publish(connection, made, provider.service.sealing_key, provider.actor(), active_from=0)

    await provider.service.database.transact(publish)
    assert (await admin("POST", f"keys/{made.id}/revoke")).status_code == 200
    assert provider.service.issuer.keys.active("RS256").id != made.id


async def resource_of(admin, **changes):
    orders = {"id": "orders", "identifier": ORDERS, "name": "Orders", "scopes": {"orders": "See your orders"}}
    made = await admin("POST", "resources", json=orders | changes)
    assert made.status_code == 201, made.text
    client = {"id": "shop", "name": "Shop", "grant_types": ["client_credentials"], "scopes": ["orders"]}
    shop = await admin("POST", "clients", json=client)
    return ("orders", made.json()["secret"]), ("shop", shop.json()["secret"])


def verifier_of(provider, auth, *algorithms):
    keys = RemoteKeys(provider.http, "/oauth2/jwks", retry_seconds=0)

    class Introspection:
        async def is_revoked(self, _principal, token):
            answer = await provider.post("/oauth2/introspect", {"token": token}, auth)
            return not answer.json()["active"]

    return TokenVerifier(
        issuer=provider.settings.auth_url,
        audience=ORDERS,
        keys=keys,
        revocations=Introspection(),
        algorithms=algorithms or ALGORITHMS,
    )


async def test_a_resource_server_gets_the_algorithm_it_asks_for(provider_on_both, admin):
    provider = provider_on_both
    orders, shop = await resource_of(admin, signing_alg="RS256")
    assert sorted(key["alg"] for key in (await provider.http.get("/oauth2/jwks")).json()["keys"]) == ["ES256", "RS256"]
    form = {"grant_type": "client_credentials", "resource": ORDERS}
    token = (await provider.token(shop, **form)).json()["access_token"]
    assert header(token)["alg"] == "RS256"
    principal = await verifier_of(provider, orders, "RS256").verify(token)
    assert (principal.subject, principal.audience) == ("shop", ORDERS)
    elsewhere = (await provider.token(shop, grant_type="client_credentials")).json()["access_token"]
    assert header(elsewhere)["alg"] == "ES256"
    with pytest.raises(TokenRejected, match="must be signed with RS256"):
        await verifier_of(provider, orders, "RS256").verify(elsewhere)
    changed = await admin("PATCH", "resources/orders", json={"signing_alg": "ES256"})
    assert changed.json()["signing_alg"] == "ES256"
    after = (await provider.token(shop, **form)).json()["access_token"]
    assert header(after)["alg"] == "ES256"
    for one in (token, after):  # what was signed before the change is good until it expires
        assert (await verifier_of(provider, orders).verify(one)).subject == "shop"
    assert (await admin("PATCH", "resources/orders", json={"signing_alg": "HS256"})).status_code == 422


async def test_keys_of_both_kinds_are_followed_by_their_own(provider_on_both, admin):
    provider = provider_on_both
    orders, shop = await resource_of(admin, signing_alg="RS256")
    form = {"grant_type": "client_credentials", "resource": ORDERS}
    before = (await provider.token(shop, **form)).json()["access_token"]
    assert (await admin("POST", "keys:rotate", json={"algorithm": "RS256"})).status_code == 200
    assert kid((await provider.token(shop, **form)).json()["access_token"]) == kid(before)
    await age(provider, LEAD_SECONDS * 1_000_000 + 1)
    after = (await provider.token(shop, **form)).json()["access_token"]
    assert (header(after)["alg"], kid(after) == kid(before)) == ("RS256", False)
    for token in (before, after):
        assert await verifier_of(provider, orders).verify(token)
    assert (await admin("POST", f"keys/{kid(after)}/revoke")).status_code == 200
    assert await verifier_of(provider, orders).verify(before)
    with pytest.raises(TokenRejected, match="a key the issuer does not have"):
        await verifier_of(provider, orders).verify(after)
    active = (await provider.post("/oauth2/introspect", {"token": after}, orders)).json()["active"]
    assert not active


async def test_an_access_token_signed_with_rs256_works_here_too(provider_on_both, admin):
    provider = provider_on_both
    assert (await admin("PATCH", "resources/admin", json={"signing_alg": "RS256"})).status_code == 200
    token = await provider.admin_token()
    assert header(token)["alg"] == "RS256"
    listed = await provider.http.get("/v1/admin/resources", headers={"authorization": f"Bearer {token}"})
    assert {item["id"]: item["signing_alg"] for item in listed.json()["items"]} == {"admin": "RS256", "app": "ES256"}


async def test_a_process_that_hears_of_an_algorithm_has_its_key_first(run_provider, tmp_path, postgresql_url):
    given = SealingKey.generate()
    async with (
        run_provider(tmp_path / "a", postgresql_url, sealing_key=given) as one,
        run_provider(tmp_path / "b", postgresql_url, sealing_key=given) as two,
    ):
        wanted = {"id": "orders", "identifier": ORDERS, "name": "Orders", "signing_alg": "RS256"}
        headers = {"authorization": f"Bearer {await two.admin_token()}"}  # its secrets are the newer ones
        assert (await one.http.post("/v1/admin/resources", json=wanted, headers=headers)).status_code == 201
        await two.service.definitions.refresh()
        assert two.service.issuer.keys.active("RS256").id == one.service.issuer.keys.active("RS256").id
        assert sorted(await published(one)) == sorted(await published(two))
        assert len(await published(one)) == 2


async def test_of_several_who_make_the_first_key_of_a_kind_one_does(run_provider, tmp_path, postgresql_url):
    given = SealingKey.generate()
    async with (
        run_provider(tmp_path / "a", postgresql_url, sealing_key=given) as one,
        run_provider(tmp_path / "b", postgresql_url, sealing_key=given) as two,
    ):
        await asyncio.gather(*(each.service.key_rotation.ensure("RS256") for each in (one, two, one, two)))
        for each in (one, two):
            await each.service.key_rotation.reload()
            assert len(await published(each)) == 2


async def test_an_unknown_key_is_named(provider_on_both, admin):
    assert (await admin("POST", "keys/nothing/revoke")).status_code == 404


async def test_private_keys_are_sealed_and_no_file_holds_one(provider_on_both):
    provider = provider_on_both
    rows = await provider.service.database.read(lambda connection: connection.execute(select(signing_keys)).all())
    for row in rows:
        assert b"PRIVATE KEY" not in row.sealed_key
        assert '"d"' not in row.public_key
    for path in provider.settings.data.rglob("*"):
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()


async def test_keys_sealed_elsewhere_are_an_error_that_says_so(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url) as running:
        assert running
    (tmp_path / "evs" / "secrets" / "sealing-key").unlink()
    with pytest.raises(Exception, match="sealed with another key"):
        async with run_provider(tmp_path, sqlite_url):
            pass


async def test_the_private_half_of_a_key_fits_its_own_row_alone(provider_on_both, admin):
    provider = provider_on_both
    await admin("POST", "keys:rotate", json={})
    first, second = await published(provider)
    moved = (
        update(signing_keys).where(signing_keys.c.id == second).values(sealed_key=await private_half(provider, first))
    )
    await provider.service.database.transact(lambda connection: connection.execute(moved) and None)
    with pytest.raises(SecretUnreadable):
        await provider.service.key_rotation.reload()


async def test_the_key_file_of_an_older_release_is_taken_in(run_provider, tmp_path, sqlite_url):
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    row = {"id": key.kid, "public_key": json.dumps(key.as_dict(private=False)), "created_at": 1}

    def as_it_was(connection):
        connection.execute(delete(signing_keys))
        connection.execute(insert(signing_keys).values(row))

    async with run_provider(tmp_path, sqlite_url) as running:
        await running.service.database.transact(as_it_was)
    file = tmp_path / "evs" / "secrets" / "signing-key.pem"
    file.write_bytes(key.as_pem(private=True))
    for _ in range(2):
        async with run_provider(tmp_path, sqlite_url) as running:
            assert await published(running) == [key.kid]
            local = ("evs-local", running.secret_of("evs-local"))
            answer = await running.token(local, grant_type="client_credentials")
            assert kid(answer.json()["access_token"]) == key.kid
        assert not file.exists()
    async with run_provider(tmp_path, sqlite_url) as running:
        headers = {"authorization": f"Bearer {await running.admin_token()}"}
        assert (await running.http.post(f"/v1/admin/keys/{key.kid}/revoke", headers=headers)).status_code == 200
    file.write_bytes(key.as_pem(private=True))  # it comes back with an old copy of the folder
    async with run_provider(tmp_path, sqlite_url) as running:
        assert key.kid not in await published(running)
        assert await private_half(running, key.kid) is None
    assert not file.exists()


async def test_two_services_with_one_sealing_key_sign_alike(run_provider, tmp_path, postgresql_url):
    given = SealingKey.generate()
    async with (
        run_provider(tmp_path / "a", postgresql_url, sealing_key=given) as one,
        run_provider(tmp_path / "b", postgresql_url, sealing_key=given) as two,
    ):
        assert await published(one) == await published(two)
