"""What Django's `dumpdata` writes of users and groups comes in, and people sign in with the passwords they have."""

import base64
import hashlib

import bcrypt
import pytest
from argon2 import PasswordHasher
from transfer_api import Api

PASSWORD = "correct horse battery staple"


@pytest.fixture
async def api(provider):
    return Api(provider, await provider.admin_token())


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


def pbkdf2(digest, iterations=1000):
    derived = hashlib.pbkdf2_hmac(digest, PASSWORD.encode(), b"seasalt", iterations)
    return f"pbkdf2_{digest}${iterations}$seasalt${base64.b64encode(derived).decode()}"


def bcrypt_sha256():
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest().encode()
    return "bcrypt_sha256$" + bcrypt.hashpw(digest, bcrypt.gensalt(4)).decode()


HASHES = {
    "sha256": pbkdf2("sha256"),
    "sha1": pbkdf2("sha1"),
    "argon2": "argon2" + PasswordHasher(2, 512, 2).hash(PASSWORD),
    "bcrypt": "bcrypt$" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
    "bcrypt_sha256": bcrypt_sha256(),
    "scrypt": "scrypt$1024$seasalt$8$5$"
    + base64.b64encode(hashlib.scrypt(PASSWORD.encode(), salt=b"seasalt", n=1024, r=8, p=5, dklen=64)).decode(),
}


def user(key, username, password, **changes):
    """A row as `manage.py dumpdata auth.user` writes it."""
    fields = {
        "password": password,
        "last_login": "2026-01-02T03:04:05.678Z",
        "is_superuser": False,
        "username": username,
        "first_name": "Grace",
        "last_name": "Example",
        "email": f"{username}@example.org",
        "is_staff": False,
        "is_active": True,
        "date_joined": "2020-01-02T03:04:05Z",
        "groups": [],
        "user_permissions": [],
    }
    return {"model": "auth.user", "pk": key, "fields": fields | changes}


def group(key, name):
    return {"model": "auth.group", "pk": key, "fields": {"name": name, "permissions": [1, 2]}}


async def test_every_kind_of_password_signs_in(api_on_both):
    dump = [user(number, name, kept) for number, (name, kept) in enumerate(HASHES.items(), 1)]
    report = await api_on_both.load(dump)
    assert report["counts"] == {"created": len(HASHES), "changed": 0, "unchanged": 0, "refused": 0}
    assert {item["why"] for item in report["items"]} == {None}
    for name in HASHES:
        assert (await (await api_on_both.provider.browser()).sign_in(name, "a wrong password")).status_code == 401
        for _ in range(2):
            assert "Your account" in (await (await api_on_both.provider.browser()).sign_in(name)).text
    assert (await api_on_both.load(dump))["counts"]["unchanged"] == len(HASHES)


async def test_groups_come_along_and_what_they_were_given_here_stays(api):
    dump = [
        group(3, "Editors"),
        {"model": "auth.group", "fields": {"name": "Readers", "permissions": []}},  # with --natural-primary
        user(1, "grace", HASHES["sha256"], groups=[3], is_superuser=True),
        user(2, "hal", "!unusable", groups=[["Editors"]], is_active=False, is_staff=True),
        user(4, "ida", "md5$salt$0123"),
        {"model": "admin.logentry", "pk": 1, "fields": {"object_repr": "x"}},
    ]
    report = await api.load(dump)
    why = {item["name"]: item["why"] for item in report["items"]}
    assert why["grace"] == "was a superuser, which nobody becomes by an import"
    assert (
        why["hal"]
        == "was staff; give them a role; they must be given a new password: evs admin user reset-password hal"
    )
    assert why["ida"].startswith("a password's hash must be whole, and Argon2id, PBKDF2")
    assert [(item["kind"], item["name"]) for item in report["left_out"]] == [("objects", "admin.logentry")]
    grace = await api.call("GET", "/users/grace")
    assert (grace["id"], grace["name"], grace["roles"], grace["groups"]) == (
        "1",
        "Grace Example",
        ["member"],
        ["Editors"],
    )
    assert (await api.call("GET", "/users/hal"))["enabled"] is False
    await api.call("PATCH", "/groups/Editors", {"roles": ["operator"]})
    await api.call("PUT", "/users/grace/roles", {"roles": ["operator"]})
    again = await api.load(dump)
    assert again["counts"] == {"created": 0, "changed": 0, "unchanged": 5, "refused": 0}
    assert (await api.call("GET", "/groups/Editors"))["roles"] == ["operator"]
    assert (await api.call("GET", "/users/grace"))["roles"] == ["member", "operator"]


async def test_users_of_a_projects_own_table_are_called_by_their_address(api):
    row = user(1, "x", HASHES["sha256"])
    row["model"] = "accounts.person"
    del row["fields"]["username"]
    row["fields"]["email"] = "grace@example.org"
    assert (await api.load([row]))["counts"]["created"] == 1
    assert "Your account" in (await (await api.provider.browser()).sign_in("grace@example.org")).text


async def test_a_list_of_something_else_is_no_document(api):
    for content in ([1], [{"model": "auth.user"}], []):
        await api.call("POST", "/import", content, 422)
