"""Nobody learns from the time of a sign-in whether a user exists, also while some passwords came from elsewhere."""

import base64
import hashlib

import pytest
from sqlalchemy import select, text
from transfer_api import Api

from auth_svc.people import password_hashes
from auth_svc.people.decoys import Decoys, made_elsewhere, shares
from auth_svc.people.passwords import DUMMY_HASH
from auth_svc.tables import users
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
NAMES = [f"nobody{number}" for number in range(400)]


def imported(iterations):
    derived = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"seasalt", iterations)
    return f"pbkdf2_sha256${iterations}$seasalt${base64.b64encode(derived).decode()}"


def people(hashes):
    users = [{"username": f"person{number}", "password_hash": kept} for number, kept in enumerate(hashes)]
    return {"format": "evs-auth", "version": 1, "users": users}


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


async def test_names_that_are_nobodys_cost_what_people_cost_in_the_same_proportion(api_on_both):
    decoys = api_on_both.provider.service.decoys
    assert {decoys.choose(name) for name in NAMES} == {DUMMY_HASH}
    await api_on_both.load(people([imported(1000)] * 3 + [imported(2000)] * 3))  # beside ada and admin
    chosen = [decoys.choose(name) for name in NAMES]
    costs = {password_hashes.of_equal_cost(imported(number)): 3 / 8 for number in (1000, 2000)} | {DUMMY_HASH: 2 / 8}
    assert set(chosen) == set(costs)
    for kept, part in costs.items():
        assert chosen.count(kept) / len(NAMES) == pytest.approx(part, abs=0.1)
    assert chosen == [decoys.choose(name.upper()) for name in NAMES], "always the same, however it is written"
    other = Decoys(api_on_both.provider.service.database, "another key")
    await other.refresh()
    assert chosen != [other.choose(name) for name in NAMES]


async def test_when_everybody_has_signed_in_all_cost_the_same_again(api_on_both):
    provider = api_on_both.provider
    await api_on_both.load(people([imported(1000)]))
    assert len({provider.service.decoys.choose(name) for name in NAMES}) == 2
    await (await provider.browser()).sign_in("person0")
    await provider.service.decoys.refresh()
    assert {provider.service.decoys.choose(name) for name in NAMES} == {DUMMY_HASH}


async def test_a_sign_in_with_a_name_that_is_nobodys_is_checked_against_its_decoy(api_on_both, monkeypatch):
    provider, asked = api_on_both.provider, []
    await api_on_both.load(people([imported(1000)] * 20))
    verify = provider.service.passwords.verify
    monkeypatch.setattr(
        provider.service.passwords, "verify", lambda given, kept: asked.append(kept) or verify(given, kept)
    )
    slow = next(name for name in NAMES if provider.service.decoys.choose(name) != DUMMY_HASH)
    assert (await (await provider.browser()).sign_in(slow)).status_code == 401
    assert asked == [provider.service.decoys.choose(slow)]


async def test_another_process_hears_that_people_came(api_on_both):
    service = api_on_both.provider.service
    other = Decoys(service.database, "a key")
    other.start()
    try:
        await api_on_both.load(people([imported(1000)] * 20))
        await wait_until(lambda: len({other.choose(name) for name in NAMES}) == 2)
    finally:
        await other.stop()


async def test_few_are_found_without_looking_at_everybody(provider, monkeypatch):
    monkeypatch.setattr("auth_svc.people.passwords.MEMORY_KIB", 19_456)  # the index is for what is really made
    database, query = provider.service.database, select(users.c.password_hash).where(made_elsewhere())
    plan = text(f"EXPLAIN QUERY PLAN {query}")
    steps = await database.read(lambda connection: connection.execute(plan).all())
    assert any("users_imported" in str(step) for step in steps)
    assert await database.read(shares), "ada and admin, whose hashes cost less in tests"
