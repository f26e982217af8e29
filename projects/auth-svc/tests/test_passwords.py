"""Passwords are hashed with Argon2id at the OWASP parameters, and not more at once than the machine can."""

import asyncio
import unicodedata

import bcrypt
import pytest
from argon2 import extract_parameters
from sqlalchemy import select, update

from auth_svc.people import passwords
from auth_svc.people.passwords import DUMMY_HASH, PasswordRejected, Passwords, PasswordsBusy
from auth_svc.tables import users

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def quick_passwords():
    """Here they cost what they cost."""


@pytest.fixture
def hasher():
    made = Passwords(threads=1)
    yield made
    made.close()


async def test_a_hash_has_the_owasp_parameters_and_a_salt_of_its_own(hasher):
    first, second = await hasher.hash(PASSWORD), hasher.hash_now(PASSWORD)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert not hasher.needs_rehash(first)
    assert await hasher.verify(PASSWORD, first)
    assert not await hasher.verify(PASSWORD + "!", first)


async def test_nobodys_hash_costs_what_everybodys_does(hasher):
    assert extract_parameters(DUMMY_HASH) == extract_parameters(hasher.hash_now(PASSWORD))
    assert not await hasher.verify(PASSWORD, None)


async def test_an_unknown_user_costs_a_hash_like_a_known_one(provider, monkeypatch):
    worked_on = []
    hasher = type(provider.service.passwords._hasher)
    verify = hasher.verify
    monkeypatch.setattr(hasher, "verify", lambda self, kept, given: worked_on.append(kept) or verify(self, kept, given))
    await (await provider.browser()).sign_in("nobody")
    await (await provider.browser()).sign_in("ada", "wrong")
    dummy, known = worked_on
    assert dummy.rpartition("$")[0].rpartition("$")[0] == known.rpartition("$")[0].rpartition("$")[0]


async def test_what_is_no_hash_verifies_nothing(hasher):
    assert not await hasher.verify(PASSWORD, "not a hash")


async def test_what_was_typed_elsewhere_counts_as_it_was_typed_there(hasher):
    composed, decomposed = (unicodedata.normalize(form, "zwölf böse Füße") for form in ("NFC", "NFD"))
    elsewhere = bcrypt.hashpw(decomposed.encode(), bcrypt.gensalt(4)).decode()
    assert await hasher.verify(decomposed, elsewhere)
    assert not await hasher.verify(composed, elsewhere), "there it was another password"
    ours = await hasher.rehash(decomposed)
    assert await hasher.verify(composed, ours)
    assert await hasher.verify(decomposed, ours)


async def test_a_password_that_was_longer_elsewhere_than_may_be_here_goes_on(hasher):
    long = "x" * 1_000
    ours = await hasher.rehash(long)
    assert await hasher.verify(long, ours)
    assert not await hasher.verify(long + "x", ours)


async def test_hashes_from_elsewhere_wait_in_the_same_bounded_pool(hasher):
    kept = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    found = await asyncio.gather(*(hasher.verify(PASSWORD, kept) for _ in range(20)), return_exceptions=True)
    assert [type(refusal) for refusal in found[17:]] == [PasswordsBusy] * 3


@pytest.mark.parametrize("password", ["short", "x" * 257])
async def test_a_password_outside_the_policy_is_rejected(hasher, password):
    with pytest.raises(PasswordRejected):
        await hasher.hash(password)


async def test_more_sign_ins_than_the_machine_can_hash_are_refused_and_not_queued(hasher):
    kept = hasher.hash_now(PASSWORD)
    found = await asyncio.gather(*(hasher.verify(PASSWORD, kept) for _ in range(20)), return_exceptions=True)
    assert [type(refusal) for refusal in found[17:]] == [PasswordsBusy] * 3
    assert found[:17] == [True] * 17


async def test_signing_in_renews_a_hash_of_weaker_parameters(provider_on_both, monkeypatch):
    provider = provider_on_both
    with monkeypatch.context() as weak:
        weak.setattr(passwords, "MEMORY_KIB", 8_192)
        kept = Passwords(threads=1).hash_now(PASSWORD)
    database = provider.service.database
    of_ada = users.c.username == "ada"
    await database.transact(
        lambda connection: connection.execute(update(users).where(of_ada).values(password_hash=kept))
    )
    await (await provider.browser()).sign_in("ada")
    renewed = await database.read(lambda connection: connection.scalar(select(users.c.password_hash).where(of_ada)))
    assert renewed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_a_right_password_signs_in_also_when_there_is_no_room_to_renew_its_hash(provider, monkeypatch):
    async def busy(password):
        raise PasswordsBusy

    monkeypatch.setattr(provider.service.passwords, "rehash", busy)
    monkeypatch.setattr(passwords, "MEMORY_KIB", 4_096)  # ada's hash is of other parameters now
    assert "Your account" in (await (await provider.browser()).sign_in("ada")).text
