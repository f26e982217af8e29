"""An installation's configuration and people as a document: out, into another one, and from Keycloak."""

import base64
import json

import pytest
from argon2.low_level import Type, hash_secret_raw

from auth_svc.transfer.importing import is_safe_hash

PASSWORD = "correct horse battery staple"


class Api:
    """The transfer operations as an administrator."""

    def __init__(self, provider, token):
        self.provider = provider
        self.headers = {"authorization": f"Bearer {token}"}

    async def call(self, method, path, body=None, status=200):
        answer = await self.provider.http.request(method, f"/v1/admin{path}", json=body, headers=self.headers)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def export(self, *, secrets=False):
        return await self.call("GET", f"/export?secrets={str(secrets).lower()}")

    async def load(self, document, *, dry_run=False):
        return await self.call("POST", f"/import?dry_run={str(dry_run).lower()}", document)


@pytest.fixture
async def api(provider):
    return Api(provider, await provider.admin_token())


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


async def fill(api):
    """Make something of everything."""
    resource = {"id": "maps", "identifier": "urn:maps", "name": "Maps", "scopes": {"maps": "See maps"}}
    await api.call("POST", "/resources", resource | {"permissions": {"maps:draw": "Draw"}}, 201)
    await api.call("POST", "/roles", {"name": "drawer", "permissions": ["maps:draw"]}, 201)
    await api.call("POST", "/roles", {"name": "artist", "includes": ["drawer", "operator"]}, 201)
    await api.call("POST", "/groups", {"name": "Artists", "roles": ["artist"]}, 201)
    client = {
        "id": "studio",
        "name": "Studio",
        "redirect_uris": ["https://studio.test/cb"],
        "scopes": ["openid", "maps"],
    }
    await api.call("POST", "/clients", client, 201)
    await api.call("PUT", "/groups/Artists/members/ada", status=204)
    await api.call("PATCH", "/users/ada", {"email": "ada@example.org"})


def comparable(document):
    """What a document says of an installation, without what is only about the export."""
    return {name: value for name, value in document.items() if name not in ("exported_at", "issuer")}


async def test_another_installation_takes_everything_over_and_people_sign_in_as_before(
    api_on_both, tmp_path, sqlite_url, run_provider
):
    await fill(api_on_both)
    document = await api_on_both.export(secrets=True)
    (tmp_path / "other").mkdir()
    async with run_provider(tmp_path / "other", sqlite_url.replace("test.db", "other.db")) as other:
        target = Api(other, await other.admin_token())
        people = [user for user in document["users"] if user["username"] != "admin"]
        report = await target.load(document | {"users": people})
        assert report["counts"] == {"created": 6, "changed": 0, "unchanged": 5, "refused": 0}
        assert all(item.get("secret") is None for item in report["items"])
        assert "Your account" in (await (await other.browser()).sign_in("ada")).text
        tokens = await other.tokens("ada")
        assert (await other.introspect(tokens["access_token"]))["roles"] == ["artist", "drawer", "member", "operator"]
        taken = comparable(await target.export(secrets=True))
        expected = comparable(document)
        assert [user for user in taken.pop("users") if user["username"] != "admin"] == people
        expected.pop("users")
        assert taken == expected


async def test_importing_twice_is_as_good_as_once_and_a_rehearsal_changes_nothing(api_on_both):
    await fill(api_on_both)
    document = await api_on_both.export()
    for item in ("roles", "groups"):
        document[item][-1]["description"] = "changed"
    document["users"] += [{"username": f"person{number}", "groups": ["Artists"]} for number in range(120)]
    document["users"].append({"username": "not a name"})
    before = comparable(await api_on_both.export())
    rehearsed = await api_on_both.load(document, dry_run=True)
    assert comparable(await api_on_both.export()) == before
    assert rehearsed["counts"] | {"unchanged": 0} == {"created": 120, "changed": 2, "unchanged": 0, "refused": 1}
    done = await api_on_both.load(document)
    assert done["items"] == rehearsed["items"]
    again = await api_on_both.load(document)
    assert again["counts"] == {
        "created": 0,
        "changed": 0,
        "unchanged": done["counts"]["unchanged"] + 122,
        "refused": 1,
    }
    assert (await api_on_both.call("GET", "/groups/Artists"))["members"] == 121


async def test_what_cannot_be_is_refused_item_by_item_with_its_reason(api, subtests):
    kinds = {
        "resources": {"id": "maps", "identifier": "nonsense", "name": "Maps"},
        "roles": {"name": "drawer", "permissions": ["nothing"]},
        "groups": {"name": "Artists", "roles": ["nobody"]},
        "clients": {"id": "studio", "name": "Studio", "redirect_uris": ["http://evil.test/"]},
        "users": {"username": "eve", "groups": ["nowhere"]},
    }
    for kind, item in kinds.items():
        with subtests.test(kind):
            report = await api.load({"format": "evs-auth", "version": 1, kind: [item]})
            assert report["counts"]["refused"] == 1
            assert report["items"][0]["why"]
    own = {"format": "evs-auth", "version": 1, "clients": [{"id": "evs-gui", "name": "mine", "public": True}]}
    assert (await api.load(own))["counts"]["refused"] == 1


async def test_a_document_that_is_none_names_what_is_wrong(api, subtests):
    for document, pointer in (
        ({}, "/format"),
        ({"format": "evs-auth", "version": 2}, "/version"),
        ({"format": "evs-auth", "version": 1, "surprise": []}, "/surprise"),
        ({"format": "evs-auth", "version": 1, "users": [{"username": 3}]}, "/users/0/username"),
        ({"realm": "x", "users": [{}]}, "/users/0/username"),
        ([], ""),
    ):
        with subtests.test(document=document):
            refused = await api.call("POST", "/import", document, 422)
            assert refused["errors"][0]["pointer"] == pointer
    headers = api.headers | {"content-type": "application/json"}
    answer = await api.provider.http.post("/v1/admin/import", content=b"{oops", headers=headers)
    assert (answer.status_code, "body must be JSON" in answer.json()["detail"]) == (422, True)


async def test_nobody_imports_themselves_out_of_administration(api):
    document = await api.export()
    for changes in ({"roles": ["member"]}, {"enabled": False}):
        document["users"] = [
            user | (changes if user["username"] == "admin" else {"email": "x@y.test"}) for user in document["users"]
        ]
        refused = await api.call("POST", "/import", document, 409)
        assert refused["type"] == "urn:evs:problem:own-account"
    assert (await api.call("GET", "/users/ada"))["email"] is None, "nothing of it happened"


async def test_secrets_leave_only_after_a_fresh_sign_in(provider, api, monkeypatch):
    answer = await provider.http.get("/v1/admin/export", headers=api.headers)
    assert answer.headers["cache-control"] == "no-store"
    quiet = json.dumps(await api.export())
    assert "argon2" not in quiet
    assert "secret_digest" not in quiet
    assert "argon2" in json.dumps(await api.export(secrets=True))
    exported = (await api.call("GET", "/audit?what=configuration.exported"))["items"]
    assert [line["detail"] for line in exported] == [{"secrets": True}, {"secrets": False}, {"secrets": False}]
    monkeypatch.setattr("auth_svc.api.transfer.FRESH_SECONDS", -1)
    answer = await provider.http.get("/v1/admin/export?secrets=true", headers=api.headers)
    assert answer.status_code == 401
    assert 'error="insufficient_user_authentication"' in answer.headers["www-authenticate"]


async def test_a_new_client_without_a_secret_gets_one_that_is_told_once(api):
    document = {
        "format": "evs-auth",
        "version": 1,
        "clients": [
            {"id": "report", "name": "Report", "grant_types": ["client_credentials"], "scopes": ["events:read"]}
        ],
    }
    assert (await api.load(document, dry_run=True))["items"][0]["secret"] is None
    secret = (await api.load(document))["items"][0]["secret"]
    answer = await api.provider.token(("report", secret), grant_type="client_credentials")
    assert answer.json()["scope"] == "events:read"
    assert (await api.load(document))["items"][0]["secret"] is None


def keycloak_password(algorithm, **parameters):
    """A credential as Keycloak exports it."""
    salt = b"0123456789abcdef"
    value = hash_secret_raw(
        PASSWORD.encode(), salt, time_cost=5, memory_cost=7168, parallelism=1, hash_len=32, type=Type.ID
    )
    data = {"hashIterations": 5, "algorithm": algorithm, "additionalParameters": parameters}
    secret = {"value": base64.b64encode(value).decode(), "salt": base64.b64encode(salt).decode()}
    return [{"type": "password", "secretData": json.dumps(secret), "credentialData": json.dumps(data)}]


async def test_people_from_keycloak_keep_their_argon2id_passwords_and_others_must_recover(api_on_both):
    parameters = {"hashLength": ["32"], "memory": ["7168"], "type": ["id"], "version": ["1.3"], "parallelism": ["1"]}
    realm = {
        "realm": "acme",
        "sslRequired": "external",
        "roles": {
            "realm": [
                {"name": "Team Lead", "composites": {"realm": ["clerk"]}},
                {"name": "clerk", "description": "files things"},
                {"name": "admin"},
                {"name": "offline_access"},
            ]
        },
        "groups": [{"name": "sales", "realmRoles": ["clerk"], "subGroups": [{"name": "north"}]}],
        "users": [
            {
                "id": "5a1b0f2e-0000-4000-8000-000000000001",
                "username": "grace",
                "email": "grace@navy.test",
                "emailVerified": True,
                "realmRoles": ["Team Lead", "admin", "offline_access"],
                "groups": ["/sales/north"],
                "credentials": keycloak_password("argon2", **parameters),
            },
            {"username": "hal", "enabled": False, "credentials": keycloak_password("pbkdf2-sha512")},
            {"username": "ida", "credentials": [{"type": "otp"}]},
            {"username": "service-account-x", "serviceAccountClientId": "x"},
        ],
    }
    report = await api_on_both.load(realm)
    assert report["counts"] == {"created": 7, "changed": 0, "unchanged": 0, "refused": 0}
    why = {item["name"]: item["why"] for item in report["items"] if item["kind"] == "user"}
    assert why["grace"] == "without what cannot be taken over: admin"
    assert "they must be given a new one" in why["hal"]
    assert set(why) == {"grace", "hal", "ida"}
    grace = await api_on_both.call("GET", "/users/grace")
    assert (grace["id"], grace["roles"], grace["groups"]) == (
        "5a1b0f2e-0000-4000-8000-000000000001",
        ["member", "team-lead"],
        ["sales/north"],
    )
    browser = await api_on_both.provider.browser()
    assert "Your account" in (await browser.sign_in("grace")).text
    assert (await (await api_on_both.provider.browser()).sign_in("ida")).status_code == 401
    assert (await api_on_both.load(realm))["counts"]["created"] == 0


def test_a_hash_that_would_cost_too_much_at_every_sign_in_is_not_taken_over(subtests):
    rest = f"${'A' * 22}${'A' * 43}"
    for kept, safe in (
        (f"$argon2id$v=19$m=19456,t=2,p=1{rest}", True),
        (f"$argon2id$v=19$m=4194304,t=2,p=1{rest}", False),
        (f"$argon2id$v=19$m=19456,t=1000,p=1{rest}", False),
        (f"$argon2id$v=19$m=19456,t=2,p=64{rest}", False),
        (f"$argon2i$v=19$m=19456,t=2,p=1{rest}", False),
        ("$argon2id$nonsense", False),
        ("$2b$12$" + "A" * 53, False),
        (None, False),
    ):
        with subtests.test(kept):
            assert is_safe_hash(kept) is safe


async def test_a_large_document_is_read_only_from_an_administrator(provider, api):
    large = {"format": "evs-auth", "version": 1, "users": [{"username": f"u{n}"} for n in range(3_000)]}
    assert len(json.dumps(large)) > 64 * 1024
    assert (await api.load(large, dry_run=True))["counts"]["created"] == 3_000
    assert (await provider.http.post("/v1/admin/import", json=large)).status_code == 401
    body = {"username": "x" * 70_000}
    assert (await provider.http.post("/v1/admin/users", json=body, headers=api.headers)).status_code == 413
