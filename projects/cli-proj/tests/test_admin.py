"""Administrators at a terminal, at a real product: users, groups, roles, resources and the audit."""

import json
import threading
import uuid
from dataclasses import fields

import httpx
import pytest
from joserfc.jwk import ECKey

from cli_proj.client_choices import MEMBERS, ClientChoices

ADMIN_PASSWORD = "a very long administrator password"  # of the fixture `product`


def new_name(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def user(admin) -> str:
    name = new_name("lee")
    made = admin.evs("admin", "user", "create", name, "--email", f"{name}@navy.test", "-o", "json")
    assert made.code == 0, made.err
    return name


def test_a_user_is_shown_changed_disabled_enabled_and_deleted(admin, user):
    def evs(*arguments):
        return admin.evs("admin", "user", *arguments)

    assert evs("show", user, "-o", "json").json["email"] == f"{user}@navy.test"
    assert user in evs("list", "--query", user, "--role", "member").out
    assert evs("edit", user, "--rename", f"{user}.l", "--email", "", "-o", "json").json["email"] is None
    renamed = f"{user}.l"
    assert evs("set-roles", renamed, "operator", "-o", "json").json["roles"] == ["member", "operator"]
    assert evs("disable", renamed, "-o", "json").json["enabled"] is False
    assert renamed in evs("list", "--state", "disabled").out
    assert evs("enable", renamed, "-o", "json").json["enabled"] is True
    assert "signed in with no browser" in evs("sessions", renamed).err
    assert evs("sessions", renamed, "--end-all").code == 0
    assert "has allowed nothing" in evs("consents", renamed).err
    assert "nothing acts for" in evs("delegations", renamed).err
    assert evs("delegations", renamed, "--end", "none").code == 3
    assert "is deleted" in evs("delete", renamed).err
    assert evs("show", renamed).code == 3


@pytest.mark.parametrize("dots", [".", ".."])
def test_what_a_path_would_lose_takes_nothing_else_away(admin, user, dots):
    group = new_name("group")
    assert admin.evs("admin", "group", "create", group).code == 0
    assert admin.evs("admin", "group", "remove", group, dots).code == 2
    assert admin.evs("admin", "user", "sessions", user, "--end", dots).code == 2
    assert group in admin.evs("admin", "group", "list").out
    assert admin.evs("admin", "user", "show", user).code == 0


def test_a_group_gives_its_members_a_role(admin, user):
    group = new_name("group")

    def evs(*arguments):
        return admin.evs("admin", "group", *arguments)

    assert evs("create", group, "--description", "who helps", "--role", "operator").code == 0
    assert f"{user} is in {group}" in evs("add", group, user).err
    assert user in evs("members", group).out
    assert admin.evs("admin", "user", "show", user, "-o", "json").json["effective_roles"] == ["member", "operator"]
    assert evs("edit", group, "--description", "who helped", "-o", "json").json["members"] == 1
    assert evs("set-roles", group, "-o", "json").json["roles"] == []
    assert "who helped" in evs("list").out
    assert evs("remove", group, user).code == 0
    assert evs("remove", group, user).code == 3
    assert evs("delete", group).code == 0
    assert evs("show", group).code == 3


def test_a_role_carries_the_permissions_of_a_resource(admin, user):
    role, resource = new_name("role"), new_name("res")
    refund = f"{resource}:refund"
    made = admin.evs(
        *("admin", "resource", "create", resource, f"https://{resource}.example.org"),
        *("--scope", f"{resource}=Work with your orders", "--permission", f"{refund}=Give money back", "-o", "json"),
    )
    assert made.code == 0, made.err
    changed = admin.evs(
        "admin", "resource", "edit", resource, "--token-seconds", "60", "--name", "Orders", "-o", "json"
    )
    assert changed.json["permissions"] == {refund: "Give money back"}
    assert "Give money back" in admin.evs("admin", "resource", "show", resource).out
    acting = admin.evs("admin", "resource", "edit", resource, "--actor", "evs-app", "-o", "json").json
    assert acting["actors"] == ["evs-app"]
    assert "actor" in admin.evs("admin", "resource", "show", resource).out
    alone = admin.evs("admin", "resource", "edit", resource, "--remove-actor", "evs-app", "-o", "json").json
    assert alone["actors"] == []
    signed = admin.evs("admin", "resource", "edit", resource, "--signing-alg", "RS256", "-o", "json").json
    assert (acting["signing_alg"], signed["signing_alg"]) == ("ES256", "RS256")
    assert admin.evs("admin", "resource", "edit", resource, "--signing-alg", "HS256").code == 2
    rotated = admin.evs("admin", "resource", "rotate-secret", resource, "-o", "json").json
    assert rotated["secret"] not in ("", None, made.json["secret"])
    assert resource in admin.evs("admin", "resource", "list").out

    assert admin.evs("admin", "role", "create", role, "--permission", refund, "--include", "operator").code == 0
    assert admin.evs("admin", "role", "describe", role, "gives money back").code == 0
    assert "gives money back" in admin.evs("admin", "role", "list").out
    assert admin.evs("admin", "resource", "delete", resource).code == 5, "a role carries its permission"
    assert admin.evs("admin", "role", "set-permissions", role, "-o", "json").json["permissions"] == []
    assert admin.evs("admin", "role", "set-includes", role, "member", "-o", "json").json["includes"] == ["member"]
    assert admin.evs("admin", "user", "set-roles", user, role).code == 0
    assert admin.evs("admin", "role", "delete", role).code == 5, "somebody holds it"
    assert admin.evs("admin", "user", "set-roles", user).code == 0
    assert admin.evs("admin", "role", "delete", role).code == 0
    assert admin.evs("admin", "role", "show", role).code == 3
    assert admin.evs("admin", "resource", "delete", resource).code == 0


def test_an_invitation_is_made_listed_and_withdrawn(admin):
    email = f"{new_name('kim')}@navy.test"
    made = admin.evs("admin", "invitation", "create", "--email", email, "--role", "operator", "-o", "json")
    assert made.code == 0, made.err
    assert "/register?invitation=" in made.json["link"]
    assert email in admin.evs("admin", "invitation", "list").out
    assert admin.evs("admin", "invitation", "revoke", made.json["id"], "-o", "json").json["status"] == "revoked"
    shown = admin.evs("admin", "invitation", "create", "--expires-seconds", "60")
    assert "/register?invitation=" in shown.out
    assert "not shown again" in shown.err


def test_an_upstream_is_made_listed_and_removed(admin):
    upstream = new_name("company")
    asking = type(admin)(admin.folder, admin.home, admin.variables | {"EVS_UPSTREAM_SECRET": "theirs"})
    made = asking.evs(
        *("admin", "upstream", "create", upstream, f"https://{upstream}.example", "--client-id", "evs"),
        *("--makes-accounts", "--domain", "navy.test", "-o", "json"),
    )
    assert made.code == 0, made.err
    assert made.json["domains"] == ["navy.test"]
    assert "theirs" not in made.out
    assert upstream in admin.evs("admin", "upstream", "list").out
    assert admin.evs("admin", "upstream", "delete", upstream).code == 0
    assert admin.evs("admin", "upstream", "delete", upstream).code == 3


def test_lost_factors_are_removed(admin, user):
    assert "password alone" in admin.evs("admin", "user", "remove-factors", user).err
    assert admin.evs("admin", "user", "remove-factors", "nobody-of-that-name").code == 3


def test_a_command_that_says_too_little_or_nonsense_says_so(admin, subtests):
    for arguments, code in (
        (("user", "edit", "admin"), 2),
        (("user", "set-roles", "admin", "member"), 5),
        (("user", "delete", "admin"), 5),
        (("user", "create", "eve", "--role", "nobody"), 2),
        (("group", "edit", "x"), 2),
        (("group", "add", "x"), 2),
        (("role", "delete", "member"), 5),
        (("resource", "create", "x1", "nonsense"), 2),
        (("resource", "edit", "app", "--remove-scope", "nothing"), 2),
        (("resource", "edit", "app", "--scope", "=x"), 2),
        (("resource", "delete", "app"), 5),
        (("invitation", "create", "--role", "nobody"), 2),
        (("invitation", "create", "--email", "nonsense"), 2),
        (("invitation", "revoke", "x"), 3),
        (("upstream", "create", "x", "https://id.example", "--client-id", "evs"), 2),
        (("audit", "verify", "--head", "nonsense"), 2),
        (("audit", "export", "--after", "-1"), 2),
    ):
        with subtests.test(arguments):
            answer = admin.evs("admin", *arguments)
            assert (answer.code, answer.out) == (code, ""), answer.err
            assert answer.err


def test_the_audit_is_listed_exported_and_verified_here(admin, user):
    listed = admin.evs("admin", "audit", "list", "--what", "user.registered", "-o", "json").json
    assert admin.evs("admin", "user", "show", user, "-o", "json").json["id"] in {line["about"] for line in listed}
    assert "user.registered" in admin.evs("admin", "audit", "list").out

    def is_chained():
        return admin.evs("admin", "audit", "head", "-o", "json").json["waiting"] == 0

    admin.wait_for(is_chained)
    head = admin.evs("admin", "audit", "head").out.strip()
    verified = admin.evs("admin", "audit", "verify", "--head", head)
    assert verified.code == 0, verified.err
    assert "lines, unbroken since 20" in verified.out
    assert admin.evs("admin", "audit", "verify", "-o", "json").json["unbroken"] is True
    forged = admin.evs("admin", "audit", "verify", "--head", head.partition(":")[0] + ":" + "0" * 64)
    assert forged.code == 1
    assert "the audit is broken: line" in forged.err
    exported = [json.loads(line) for line in admin.evs("admin", "audit", "export").out.splitlines()]
    assert [line["position"] for line in exported] == list(range(1, len(exported) + 1))


def test_the_configuration_goes_out_and_comes_in_as_one_document(admin, user, tmp_path):
    file = tmp_path / "configuration.json"
    exported = admin.evs("admin", "export", str(file))
    assert exported.code == 0, exported.err
    assert file.stat().st_mode & 0o777 == 0o600
    document = json.loads(file.read_text())
    assert user in {person["username"] for person in document["users"]}
    secrets = json.loads(admin.evs("admin", "export", "--secrets").out)
    assert secrets["users"][0]["password_hash"].startswith("$argon2id$")

    sealed = tmp_path / "sealed.json"
    short = admin.evs("admin", "export", str(sealed), "--sealed", EVS_EXPORT_PASSPHRASE="short")
    assert (short.code, "at least 12 characters" in short.err) == (2, True)
    phrase = {"EVS_EXPORT_PASSPHRASE": "a phrase for the safe"}
    exported = admin.evs("admin", "export", str(sealed), "--secrets", "--sealed", **phrase)
    assert exported.code == 0, exported.err
    assert "argon2id" not in sealed.read_text()
    assert user not in sealed.read_text()
    without = admin.evs("admin", "import", str(sealed), "--dry-run")
    assert (without.code, "EVS_EXPORT_PASSPHRASE" in without.err) == (2, True)
    wrong = admin.evs("admin", "import", str(sealed), "--dry-run", EVS_EXPORT_PASSPHRASE="another phrase")
    assert (wrong.code, "cannot be opened" in wrong.err) == (1, True)
    opened = admin.evs("admin", "import", str(sealed), "--dry-run", "-o", "json", **phrase)
    assert (opened.code, opened.json["counts"]["refused"]) == (0, 0), opened.err

    group = new_name("group")
    document["groups"].append({"name": group})
    document["users"] = [{"username": user, "groups": [group]}]
    file.write_text(json.dumps(document))
    rehearsed = admin.evs("admin", "import", str(file), "--dry-run")
    assert (rehearsed.code, group in rehearsed.out, "a dry run" in rehearsed.err) == (0, True, True), rehearsed.err
    assert admin.evs("admin", "group", "show", group).code == 3
    done = admin.evs("admin", "import", str(file), "-o", "json")
    assert (done.code, done.json["counts"]["created"]) == (0, 1), done.err
    assert user in admin.evs("admin", "group", "members", group).out

    many = [{"username": f"{user}.{number}"} for number in range(1_001)]
    file.write_text(json.dumps(document | {"users": many}))
    rehearsed = admin.evs("admin", "import", str(file), "--dry-run", "-o", "json")
    assert rehearsed.json["counts"]["created"] == len(many), rehearsed.err
    assert "1000 of 1001 people" in rehearsed.err

    document["users"].append({"username": "not a name"})
    file.write_text(json.dumps(document))
    refused = admin.evs("admin", "import", str(file))
    assert (refused.code, "1 refused" in refused.err) == (1, True), refused.err
    file.write_text("{oops")
    assert admin.evs("admin", "import", str(file)).code == 2
    assert admin.evs("admin", "import", str(tmp_path / "none.json")).code == 3


def test_what_happens_is_shown_as_it_happens(admin, user):
    process = admin.start("admin", "audit", "tail", "-o", "jsonl")
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(process.stdout))

    def is_seen() -> bool:
        # It looks from where the audit stood when it began, so something is changed until it has.
        admin.evs("admin", "user", "disable", user)
        admin.evs("admin", "user", "enable", user)
        return bool(seen)

    try:
        reader.start()
        admin.wait_for(is_seen)
    finally:
        process.terminate()
        reader.join(20)
        process.communicate(timeout=20)
    assert json.loads(seen[0])["what"].startswith("user.")


def test_a_client_is_made_shown_changed_and_deleted(admin):
    name = new_name("shop")

    def evs(*arguments):
        return admin.evs("admin", "client", *arguments)

    made = evs("create", name, "--grant", "client_credentials", "--scope", "events:read", "-o", "json").json
    assert made["secret"]
    both = evs("edit", name, "--scope", "events:read workflows:read", "-o", "json").json
    assert both["scopes"] == ["events:read", "workflows:read"]
    assert evs("show", name, "-o", "json").json["secret"] is None
    assert name in evs("list").out
    assert evs("edit", name, "--name", "Shop", "--role", "operator", "-o", "json").json["roles"] == ["operator"]
    assert evs("rotate-secret", name, "-o", "json").json["secret"] != made["secret"]
    assert evs("disable", name, "-o", "json").json["enabled"] is False
    assert evs("enable", name, "-o", "json").json["enabled"] is True
    assert evs("edit", name).code == 2
    assert evs("disable", "evs-gui").code == 5
    assert evs("delete", name).code == 0
    assert evs("show", name).code == 3
    assert evs("create", name, "--redirect-uri", "http://shop.example/").code == 2
    assert evs("registration-token", "--note", "for a test", "-o", "json").json["token"]


def test_registration_tokens_are_made_listed_and_revoked(admin):
    note = new_name("weather")

    def evs(*arguments):
        return admin.evs("admin", "registration-token", *arguments)

    made = evs("create", "--note", note, "--uses", "5", "--scope", "openid", "-o", "json").json
    assert made["token"]
    assert (made["uses_left"], made["scopes"], made["status"]) == (5, ["openid"], "good")
    assert note in evs("list").out
    assert all(each["token"] is None for each in evs("list", "-o", "json").json)
    assert evs("revoke", made["id"]).code == 0
    assert made["id"] not in evs("list").out
    assert evs("revoke", made["id"]).code == 3


def test_everything_of_a_client_is_chosen_changed_and_taken_away(admin, tmp_path):
    name, keys = new_name("shop"), tmp_path / "keys.json"
    key = ECKey.generate_key("P-256", private=True).as_dict(private=False)
    keys.write_text(json.dumps({"keys": [key]}))

    def evs(*arguments):
        answer = admin.evs("admin", "client", *arguments, "-o", "json")
        assert answer.code == 0, answer.err
        return answer.json

    made = evs(
        *(
            "create",
            name,
            "--name",
            "Shop",
            "--redirect-uri",
            "https://shop.example/cb",
            "--grant",
            "authorization_code",
        ),
        *("--scope", "openid", "--role", "operator", "--consent", "always", "--token-seconds", "60"),
        *("--jwks", str(keys), "--id-token-alg", "RS256", "--default-max-age", "3600", "--dpop", "--pushed-only"),
        *("--logout-uri", "https://shop.example/out", "--post-logout-redirect-uri", "https://shop.example/bye"),
        *("--client-uri", "https://shop.example/", "--logo-uri", "https://shop.example/logo.png"),
        *("--policy-uri", "https://shop.example/privacy", "--tos-uri", "https://shop.example/terms"),
        *("--contact", "a@shop.example", "--contact", "b@shop.example", "--software-id", "shop"),
        *("--software-version", "2", "--application-type", "web", "--require-auth-time", "--logout-session-required"),
        *("--default-acr", "urn:evs:acr:2", "--default-acr", "phr"),
    )
    assert (made["auth_method"], made["jwks"]["keys"][0]["kty"], made["secret"]) == ("private_key_jwt", "EC", None)
    assert (made["default_max_age"], made["dpop_bound"], made["pushed_only"]) == (3600, True, True)
    assert (made["access_token_seconds"], made["id_token_algorithm"]) == (60, "RS256")
    assert len(made["details"]) == 11
    assert made["details"]["default_acr_values"] == ["urn:evs:acr:2", "phr"]
    changed = evs(
        *("edit", name, "--auth-method", "client_secret_basic", "--jwks-uri", "https://shop.example/keys"),
        *("--default-max-age", "none", "--no-dpop", "--no-pushed-only", "--logout-uri", "", "--role", ""),
        *("--tos-uri", "", "--contact", "", "--no-require-auth-time"),
    )
    assert changed["secret"], "its first one"
    assert (changed["jwks"], changed["jwks_uri"]) == (None, "https://shop.example/keys")
    assert (changed["default_max_age"], changed["dpop_bound"], changed["pushed_only"]) == (None, False, False)
    assert (changed["logout_uri"], changed["roles"], changed["name"]) == (None, [], "Shop")
    assert made["details"].keys() - changed["details"].keys() == {"tos_uri", "contacts", "require_auth_time"}
    shown = admin.evs("admin", "client", "show", name).out
    assert "https://shop.example/privacy" in shown
    assert admin.evs("admin", "client", "create", new_name("shop"), "--jwks", str(tmp_path / "no.json")).code == 3
    keys.write_text("no keys")
    assert admin.evs("admin", "client", "create", new_name("shop"), "--jwks", str(keys)).code == 2


def test_every_member_of_a_client_has_an_option(product):
    url = product.evs("status", "-o", "json").json["urls"]["auth"]
    schemas = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]
    members = schemas["ClientPatch"]["properties"].keys() | schemas["ClientDetails"]["properties"].keys()
    options = {MEMBERS.get(choice.name, choice.name) for choice in fields(ClientChoices)}
    assert members - {"details"} == options


def test_keys_are_listed_and_rotated(admin):
    (first,) = [
        key
        for key in admin.evs("admin", "key", "list", "-o", "json").json
        if (key["state"], key["algorithm"]) == ("active", "ES256")
    ]
    keys = admin.evs("admin", "key", "rotate", "-o", "json").json
    assert {key["state"] for key in keys} == {"active", "published"}
    assert first["id"] in admin.evs("admin", "key", "list").out
    assert admin.evs("admin", "key", "revoke", "nothing").code == 3
