"""An installation's configuration and people as a document: out, into another one, and from Keycloak."""

import asyncio
import json

import pytest
from transfer_api import Api

from auth_svc.people import accounts
from lib_events.testing import wait_until

PASSWORD = "correct horse battery staple"
DOCUMENT = {"format": "evs-auth", "version": 1}


@pytest.fixture
async def api(provider):
    return Api(provider, await provider.admin_token())


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


async def fill(api):
    """Make something of everything."""
    resource = {"id": "maps", "identifier": "urn:maps", "name": "Maps", "scopes": {"maps": "See maps"}}
    more = {"permissions": {"maps:draw": "Draw"}, "signing_alg": "RS256"}
    await api.call("POST", "/resources", resource | more, 201)
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


@pytest.mark.parametrize("end", ["disabled", "demoted", "deleted", "signed out"])
async def test_an_import_ends_where_whoever_began_it_is_put_out(api_on_both, end):
    api, provider = api_on_both, api_on_both.provider
    grace = await provider.add_user("grace", "admin")
    values = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
    theirs = Api(provider, (await provider.tokens("grace", **values))["access_token"])
    document = await api.export() | {"users": [{"username": f"person{number}"} for number in range(300)]}
    begun = asyncio.create_task(
        provider.http.post("/v1/admin/import", content=json.dumps(document), headers=theirs.headers)
    )
    database = provider.service.database
    await wait_until(lambda: database.read(accounts.find_by_username, "person0"))
    match end:
        case "disabled":
            await api.call("POST", f"/users/{grace.id}/disable")
        case "demoted":
            await api.call("PUT", f"/users/{grace.id}/roles", {"roles": ["member"]})
        case "deleted":
            await api.call("DELETE", f"/users/{grace.id}", status=204)
        case "signed out":
            await api.call("DELETE", f"/users/{grace.id}/sessions", status=204)
    assert (await begun).status_code in (403, 409)
    assert await database.read(accounts.find_by_username, "person299") is None


@pytest.mark.parametrize("who", ["a person", "a program"])
async def test_whoever_is_put_out_while_they_send_a_document_imports_nothing(api_on_both, who):
    """Or they would let themselves in again, with a request that they have in hand for hours."""
    api, provider = api_on_both, api_on_both.provider
    await provider.add_user("grace", "admin")
    program = await provider.add_client(
        id="onboarding",
        name="Onboarding",
        grant_types=("client_credentials",),
        scopes=frozenset(("admin",)),
        roles=frozenset(("admin",)),
    )
    audience = {"scope": "openid admin", "resource": f"{provider.settings.auth_url}/v1/admin"}
    if who == "a person":
        token = (await provider.tokens("grace", **audience))["access_token"]
        put_out = "/users/grace/disable"
    else:
        form = {"grant_type": "client_credentials"} | audience | {"scope": "admin"}
        token = (await provider.token(program, **form)).json()["access_token"]
        put_out = "/clients/onboarding/disable"
    document = DOCUMENT | {"users": [{"username": "mallory", "roles": ["admin"]}]}

    async def held_back():
        yield b" "
        await api.call("POST", put_out)
        yield json.dumps(document).encode()

    headers = {"authorization": f"Bearer {token}"}
    answer = await provider.http.post("/v1/admin/import", content=held_back(), headers=headers)
    assert answer.status_code == 401, answer.text
    assert await provider.service.database.read(accounts.find_by_username, "mallory") is None


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


async def test_keys_of_a_client_that_are_none_stay_out(api, subtests):
    """Else nobody could list the clients, nor the client prove itself."""
    robot = {"id": "robot", "name": "Robot", "auth_method": "private_key_jwt", "grant_types": ["client_credentials"]}
    for jwks in ("x", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AAAA"}]}', "[]"):
        with subtests.test(jwks):
            report = await api.load({"format": "evs-auth", "version": 1, "clients": [robot | {"jwks": jwks}]})
            assert (report["counts"]["refused"], report["items"][0]["why"].partition(":")[0]) == (1, "jwks")
    assert "robot" not in {client["id"] for client in (await api.call("GET", "/clients"))["items"]}


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


async def test_a_hash_that_cannot_be_checked_stays_behind_and_says_whose_it_is_and_why(api):
    dear = f"$argon2id$v=19$m=4194304,t=2,p=1${'A' * 22}${'A' * 43}"
    people = [{"username": "dear", "password_hash": dear}, {"username": "odd", "password_hash": "md5$x$y"}]
    report = await api.load({"format": "evs-auth", "version": 1, "users": people})
    why = {item["name"]: item["why"] for item in report["items"]}
    assert "must ask for at most 262144 KiB" in why["dear"]
    assert "evs admin user reset-password dear" in why["dear"]
    assert "must be whole, and Argon2id, PBKDF2" in why["odd"]
    assert all("A" * 22 not in text for text in why.values())
    for name in why:
        assert (await (await api.provider.browser()).sign_in(name)).status_code == 401


async def test_a_large_document_is_read_only_from_an_administrator(provider, api):
    large = {"format": "evs-auth", "version": 1, "users": [{"username": f"u{n}"} for n in range(3_000)]}
    assert len(json.dumps(large)) > 64 * 1024
    assert (await api.load(large, dry_run=True))["counts"]["created"] == 3_000
    assert (await provider.http.post("/v1/admin/import", json=large)).status_code == 401
    body = {"username": "x" * 70_000}
    assert (await provider.http.post("/v1/admin/users", json=body, headers=api.headers)).status_code == 413


async def test_no_client_is_called_like_a_person_and_no_person_like_a_client(api_on_both, subtests):
    api, provider = api_on_both, api_on_both.provider
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    client = {"id": ada.id, "name": "Ada", "grant_types": ["client_credentials"]}
    refused = await provider.http.post("/v1/admin/clients", json=client, headers=api.headers)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/id")
    await api.call("POST", "/clients", client | {"id": "studio"}, 201)
    document = {"format": "evs-auth", "version": 1, "users": [{"id": "ada-of-old", "username": "old"}]}
    assert (await api.load(document))["counts"]["created"] == 1
    resource = {"id": "ada-of-old", "identifier": "urn:ada", "name": "Ada"}
    refused = await provider.http.post("/v1/admin/resources", json=resource, headers=api.headers)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/id")
    for number, taken in enumerate(("studio", "evs-gui", "evs-app")):
        with subtests.test(taken):
            document["users"] = [{"id": taken, "username": f"new{number}"}]
            (item,) = (await api.load(document))["items"]
            assert (item["outcome"], "is the id of a client" in item["why"]) == ("refused", True)


async def test_imports_of_one_document_at_the_same_time_wait_for_one_another(provider_on_both):
    api = Api(provider_on_both, await provider_on_both.admin_token())
    document = DOCUMENT | {
        "roles": [{"name": f"role{n}", "includes": [f"role{n - 1}"] if n else []} for n in range(8)],
        "groups": [{"name": f"group{n}", "roles": [f"role{n}"]} for n in range(8)],
        "users": [{"username": f"user{n}", "roles": ["role1"], "groups": [f"group{n % 8}"]} for n in range(30)],
    }
    for _ in range(3):
        reports = await asyncio.gather(*(api.load(document) for _ in range(5)))
    assert reports[0]["counts"]["unchanged"] == 46
