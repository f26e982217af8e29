"""Hashes that others made are read in their notations, checked, and refused where they would cost too much."""

import base64
import hashlib

import bcrypt
import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type, hash_secret

from auth_svc.people import password_hashes
from auth_svc.people.password_hashes import HashRejected

PASSWORD = "correct horse bättery staple"
SALT = b"0123456789abcdef"
REST = f"${'A' * 22}${'A' * 43}"


def derived(digest, iterations, salt=SALT, length=None, password=PASSWORD):
    return base64.b64encode(hashlib.pbkdf2_hmac(digest, password.encode(), salt, iterations, length)).decode()


def phc(digest, iterations, length=None):
    salt, found = base64.b64encode(SALT).decode(), derived(digest, iterations, length=length)
    return f"$pbkdf2-{digest}$i={iterations}${salt.rstrip('=')}${found.rstrip('=')}"


def of_bcrypt(prefix="$2b$", password=PASSWORD):
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode().replace("$2b$", prefix)


HASHES = {
    "Argon2id": PasswordHasher(1, 64, 1).hash(PASSWORD),
    "Argon2id of Django": "argon2" + PasswordHasher(2, 512, 2).hash(PASSWORD),
    "PBKDF2 by SHA-1": phc("sha1", 1000),
    "PBKDF2 by SHA-256": phc("sha256", 1000),
    "PBKDF2 by SHA-512": phc("sha512", 1000),
    "PBKDF2 by SHA-256 with 64 bytes": phc("sha256", 1000, 64),
    "PBKDF2 by SHA-1 with 16 bytes": phc("sha1", 1000, 16),
    "Django by SHA-256": f"pbkdf2_sha256$1000$seasalt${derived('sha256', 1000, b'seasalt')}",
    "Django by SHA-1": f"pbkdf2_sha1$1000$seasalt${derived('sha1', 1000, b'seasalt')}",
    "Django by bcrypt": "bcrypt$" + of_bcrypt(),
    "Django by bcrypt of SHA-256": "bcrypt_sha256$"
    + bcrypt.hashpw(hashlib.sha256(PASSWORD.encode()).hexdigest().encode(), bcrypt.gensalt(4)).decode(),
    "Django by scrypt": "scrypt$1024$seasalt$8$5$"
    + base64.b64encode(hashlib.scrypt(PASSWORD.encode(), salt=b"seasalt", n=1024, r=8, p=5, dklen=64)).decode(),
    "bcrypt 2a": of_bcrypt("$2a$"),
    "bcrypt 2b": of_bcrypt("$2b$"),
    "bcrypt 2y": of_bcrypt("$2y$"),
}


@pytest.mark.parametrize("given", HASHES.values(), ids=HASHES)
def test_a_password_fits_its_hash_and_no_other(given):
    kept = password_hashes.accept(given)
    assert password_hashes.accept(kept) == kept
    found = password_hashes.read(kept)
    assert found.matches(PASSWORD)
    assert not found.matches(PASSWORD + "!")
    assert kept.split("$")[-1] not in repr(found)


def test_known_vectors_of_others_are_checked(subtests):
    """RFC 6070, RFC 7914 section 11, and a hash of the OpenBSD kind that is in many test suites."""
    rfc_7914 = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
    for kept, password in (
        (
            f"pbkdf2_sha1$4096$salt${base64.b64encode(bytes.fromhex('4b007901b765489abead49d926f721d065a429c1')).decode()}",
            "password",
        ),
        (f"pbkdf2_sha256$1$salt${base64.b64encode(bytes.fromhex(rfc_7914)).decode()}", "passwd"),
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
    ):
        with subtests.test(kept):
            assert password_hashes.read(kept).matches(password)


def test_bcrypt_reads_72_bytes_of_a_password_as_it_always_has():
    long = "a" * 100
    assert password_hashes.read(of_bcrypt(password=long)).matches(long)


REFUSED = {
    "too much memory": f"$argon2id$v=19$m=4194304,t=2,p=1{REST}",
    "too many passes": f"$argon2id$v=19$m=19456,t=1000,p=1{REST}",
    "too many passes over much": f"$argon2id$v=19$m=262144,t=5,p=1{REST}",
    "too many lanes": f"$argon2id$v=19$m=19456,t=2,p=64{REST}",
    "another Argon2": f"$argon2i$v=19$m=19456,t=2,p=1{REST}",
    "Argon2 in parts": "$argon2id$nonsense",
    "too many iterations": f"$pbkdf2-sha256$i=2000001{REST}",
    "no iterations": f"$pbkdf2-sha256$i=0{REST}",
    "endless iterations": f"pbkdf2_sha256${'9' * 40}$salt${'A' * 43}=",
    "a short hash": "$pbkdf2-sha256$i=1000$AAAA$AAAA",
    "a long hash": f"$pbkdf2-sha512$i=1000$AAAA${'A' * 100}",
    "a broken Base64": f"$pbkdf2-sha256$i=1000$A${'A' * 43}",
    "another digest": f"$pbkdf2-md5$i=1000{REST}",
    "a bcrypt that is too dear": f"$2b$15${'.' * 53}",
    "a bcrypt that is too cheap": f"$2b$03${'.' * 53}",
    "a bcrypt that was made wrongly": f"$2x$12${'.' * 53}",
    "half a bcrypt": "$2b$12$abc",
    "too much memory of scrypt": f"scrypt$131072$salt$8$1${'A' * 86}==",
    "too many lanes of scrypt": f"scrypt$16384$salt$8$99${'A' * 86}==",
    "no power of two": f"scrypt$16383$salt$8$5${'A' * 86}==",
    "a scrypt of nothing": f"scrypt$0$salt$8$5${'A' * 86}==",
    "a short scrypt": "scrypt$16384$salt$8$5$AAAA",
    "MD5": "md5$salt$5f4dcc3b5aa765d61d8327deb882cf99",
    "the password itself": PASSWORD,
    "nothing": "",
    "too long": "$argon2id$" + "A" * 1000,
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
def test_what_is_broken_or_would_cost_too_much_at_every_sign_in_is_refused(given):
    with pytest.raises(HashRejected, match="must") as refused:
        password_hashes.accept(given)
    assert "A" * 22 not in str(refused.value)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("given", HASHES.values(), ids=HASHES)
def test_a_decoy_costs_the_same_and_is_nobodys(given):
    kept = password_hashes.accept(given)
    decoy = password_hashes.of_equal_cost(kept)
    made, theirs = password_hashes.read(decoy), password_hashes.read(kept)
    assert type(made) is type(theirs)
    assert getattr(made, "iterations", None) == getattr(theirs, "iterations", None)
    assert not made.matches(PASSWORD)
    assert password_hashes.of_equal_cost(decoy) == decoy


def test_the_raw_notation_of_argon2_is_ours():
    kept = hash_secret(PASSWORD.encode(), SALT, 5, 7168, 1, 32, Type.ID).decode()
    assert password_hashes.accept(kept) == kept
