"""Signing keys: published before they are used, kept until their last token has expired, sealed at rest."""

import asyncio
import json

import pytest
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import delete, insert, select, update

from auth_svc.protocol.signing_keys import LEAD_SECONDS, REST_SECONDS
from auth_svc.tables import signing_keys
from lib_events.sealed import SealingKey

HOUR = 3600 * 1_000_000


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


def kid(token):
    return jws.extract_compact(token.encode()).headers()["kid"]


async def test_a_new_key_is_published_before_it_is_used_and_the_old_one_stays(provider_on_both, admin):
    provider = provider_on_both
    (first,) = await published(provider)
    before = await provider.tokens()
    assert (await admin("POST", "keys:rotate", json={})).status_code == 200
    assert len(await published(provider)) == 2
    assert kid((await provider.tokens())["access_token"]) == first
    await age(provider, LEAD_SECONDS * 1_000_000 + 1)
    after = await provider.tokens()
    second = kid(after["access_token"])
    assert second != first
    assert kid(after["id_token"]) == second
    assert (await provider.introspect(before["access_token"]))["active"]
    await age(provider, REST_SECONDS * 1_000_000)
    await provider.service.key_rotation.look()
    assert await published(provider) == [second]
    states = {key["id"]: key["state"] for key in (await admin("GET", "keys")).json()["items"]}
    assert states == {first: "retired", second: "active"}
    types = [event.type for event in await provider.events() if event.type.startswith("evs.key.")]
    assert types == ["evs.key.published", "evs.key.published", "evs.key.retired"]


async def test_an_id_token_of_a_retired_key_is_still_a_hint(provider_on_both, admin):
    provider = provider_on_both
    hint = (await provider.tokens())["id_token"]
    await admin("POST", "keys:rotate", json={})
    await age(provider, LEAD_SECONDS * 1_000_000 + REST_SECONDS * 1_000_000 + 1)
    await provider.service.key_rotation.look()
    browser = await provider.browser()
    await browser.sign_in("ada")
    assert "signed out" in (await browser.open(f"/oauth2/logout?id_token_hint={hint}")).text


async def test_a_key_that_is_old_enough_is_followed_by_a_new_one_once(provider_on_both):
    provider = provider_on_both
    await age(provider, 91 * 24 * HOUR)
    await asyncio.gather(*(provider.service.key_rotation.look() for _ in range(5)))
    assert len(await published(provider)) == 2
    await provider.service.key_rotation.look()
    assert len(await published(provider)) == 2


async def test_a_revoked_key_is_worth_nothing_at_once(provider_on_both, admin):
    provider = provider_on_both
    (stolen,) = await published(provider)
    tokens = await provider.tokens()
    assert (await provider.introspect(tokens["access_token"]))["active"]
    answer = await admin("POST", f"keys/{stolen}/revoke")
    assert answer.status_code == 200, answer.text
    assert stolen not in await published(provider)
    assert await provider.introspect(tokens["access_token"]) == {"active": False}
    assert kid((await provider.tokens())["access_token"]) in await published(provider)
    told = (await provider.http.get("/v1/revocations", auth=("evs-app", provider.secret_of("evs-app")))).json()
    assert ("key", stolen) in {(item["kind"], item["value"]) for item in told["items"]}


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


async def test_two_services_with_one_sealing_key_sign_alike(run_provider, tmp_path, postgresql_url):
    given = SealingKey.generate()
    async with (
        run_provider(tmp_path / "a", postgresql_url, sealing_key=given) as one,
        run_provider(tmp_path / "b", postgresql_url, sealing_key=given) as two,
    ):
        assert await published(one) == await published(two)
