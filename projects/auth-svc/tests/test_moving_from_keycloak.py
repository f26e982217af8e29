"""A realm's people sign in here with the passwords and apps they have; what cannot come along is told."""

import base64
import json

import pyotp
import pytest
from joserfc.jws import extract_compact
from keycloak_realm import (
    APP_KEY,
    PASSWORD,
    app,
    argon2,
    bcrypt_extension,
    client,
    credential,
    of_version_7,
    pbkdf2,
    person,
    realm,
    role,
    roles,
)
from sqlalchemy import select
from transfer_api import Api

from auth_svc.people.passwords import is_todays
from auth_svc.tables import users


@pytest.fixture
async def api(provider):
    return Api(provider, await provider.admin_token())


@pytest.fixture
async def api_on_both(provider_on_both):
    return Api(provider_on_both, await provider_on_both.admin_token())


def why(report, kind="user"):
    return {item["name"]: item["why"] for item in report["items"] if item["kind"] == kind}


def outcomes(report, kind):
    return {item["name"]: item["outcome"] for item in report["items"] if item["kind"] == kind}


def left_out(report, kind):
    return {item["name"]: item["why"] for item in report["left_out"] if item["kind"] == kind}


async def kept_hash(api, username):
    query = select(users.c.password_hash).where(users.c.username_key == username)
    return await api.provider.service.database.read(lambda connection: connection.scalar(query))


async def sign_in(api, username, password=PASSWORD):
    return await (await api.provider.browser()).sign_in(username, password)


async def test_every_kind_of_password_signs_in_once_imported_and_is_ours_from_then_on(api_on_both):
    people = {
        "argon": argon2(),
        "sha1": pbkdf2("pbkdf2", length=64),
        "sha256": pbkdf2("pbkdf2-sha256", length=64),
        "sha512": pbkdf2("pbkdf2-sha512"),
        "blowfish": bcrypt_extension(),
        "ancient": of_version_7("pbkdf2-sha256"),
    }
    report = await api_on_both.load(realm(users=[person(name, held) for name, held in people.items()]))
    assert report["counts"] == {"created": len(people), "changed": 0, "unchanged": 0, "refused": 0}
    assert set(why(report).values()) == {None}
    assert report["left_out"] == []
    for name in people:
        assert (await sign_in(api_on_both, name, "a wrong password")).status_code == 401
        assert not is_todays(await kept_hash(api_on_both, name))
        assert "Your account" in (await sign_in(api_on_both, name)).text
        assert is_todays(await kept_hash(api_on_both, name))
        assert "Your account" in (await sign_in(api_on_both, name)).text
        assert (await sign_in(api_on_both, name, "a wrong password")).status_code == 401


async def test_people_keep_ids_names_addresses_groups_and_roles(api_on_both):
    given = roles(
        role("Team Lead", realm=["clerk"], description="leads"),
        role("clerk", client={"orders": ["refund"]}),
        role("admin"),
        client={"orders": [role("refund")]},
    )
    groups = [
        {
            "name": "sales",
            "path": "/sales",
            "realmRoles": ["clerk"],
            "clientRoles": {},
            "subGroups": [
                {"name": "north", "path": "/sales/north", "realmRoles": [], "clientRoles": {}, "subGroups": []}
            ],
        },
    ]
    grace = person(
        "grace",
        argon2(),
        realmRoles=["Team Lead", "admin", "default-roles-acme"],
        clientRoles={"account": ["manage-account"], "realm-management": ["realm-admin"], "orders": ["refund"]},
        groups=["/sales/north"],
        attributes={"shoe": ["42"]},
    )
    report = await api_on_both.load(realm(roles=given, groups=groups, users=[grace]))
    assert outcomes(report, "role") == {"orders-refund": "created", "clerk": "created", "team-lead": "created"}
    assert why(report)["grace"] == "without what cannot be taken over: admin, realm-management/realm-admin"
    assert list(left_out(report, "role")) == ["admin"]
    assert list(left_out(report, "attributes")) == ["shoe"]
    found = await api_on_both.call("GET", "/users/grace")
    assert found["id"] == grace["id"]
    assert (found["name"], found["email"], found["email_verified"]) == ("Grace Example", "grace@example.org", True)
    assert (found["roles"], found["groups"]) == (["member", "orders-refund", "team-lead"], ["sales/north"])
    # In Keycloak a group has what the groups around it have.
    assert found["effective_roles"] == ["clerk", "member", "orders-refund", "team-lead"]
    lead = await api_on_both.call("GET", "/roles/team-lead")
    assert (lead["includes"], lead["description"]) == (["clerk"], "leads")


async def test_what_everybody_holds_by_the_default_role_everybody_has_here(api):
    given = realm()["roles"]
    given["realm"] = [
        role("default-roles-acme", realm=["offline_access", "reader"], client={"shop": ["buyer"]}),
        role("reader"),
    ]
    given["client"] |= {"shop": [role("buyer")]}
    await api.load(realm(roles=given, users=[person("grace", argon2())]))
    assert (await api.call("GET", "/users/grace"))["roles"] == ["member", "reader", "shop-buyer"]


async def test_two_roles_never_become_one(api):
    given = roles(role("shop-buyer"), role("Shop Buyer"), client={"shop": [role("buyer")]})
    grace = person("grace", argon2(), realmRoles=["Shop Buyer"], clientRoles={"shop": ["buyer"]})
    report = await api.load(realm(roles=given, users=[grace]))
    assert set(left_out(report, "role")) == {"Shop Buyer", "shop/buyer"}
    assert (await api.call("GET", "/users/grace"))["roles"] == ["member"]


async def test_an_import_makes_nobody_an_administrator_whatever_roles_and_groups_are_called_here(api, subtests):
    await api.call("POST", "/roles", {"name": "boss", "includes": ["admin"]}, 201)
    await api.call("POST", "/groups", {"name": "bosses", "roles": ["admin"]}, 201)
    await api.call("POST", "/groups", {"name": "staff"}, 201)
    grace = person("grace", argon2(), realmRoles=["boss"])
    hal = person("hal", argon2(), groups=["/bosses"])
    given = realm(roles=roles(role("boss")), groups=[{"name": "bosses"}], users=[grace, hal])
    report = await api.load(given)
    assert outcomes(report, "user") == {"grace": "refused", "hal": "refused"}
    assert all("makes nobody an administrator" in text for text in why(report).values())
    assert outcomes(report, "role") == {"boss": "unchanged"}
    account = person("service-account-shop", serviceAccountClientId="shop", realmRoles=["boss"])
    for name, parts in {
        "the role clerk": {"roles": roles(role("boss"), role("clerk", realm=["boss"]))},
        "the group staff": {"roles": roles(role("boss")), "groups": [{"name": "staff", "realmRoles": ["boss"]}]},
        "the client shop": {"roles": roles(role("boss")), "clients": [client("shop")], "users": [account]},
    }.items():
        with subtests.test(name):
            refused = await api.call("POST", "/import", realm(**parts), 409)
            assert refused["type"] == "urn:evs:problem:makes-administrators"
            assert name in refused["detail"]


async def test_a_namesake_here_is_somebody_else(api):
    ada, admin = person("ada", argon2()), person("admin", argon2())
    del admin["id"]
    report = await api.load(realm(users=[ada, admin]))
    assert outcomes(report, "user") == {"ada": "refused", "admin": "refused"}
    assert why(report)["ada"] == "username: somebody else has that name here; rename one of them"
    assert (await api.call("GET", "/users/ada"))["email"] is None


async def test_what_only_we_have_stays_when_a_realm_comes_again(api):
    given = realm(
        roles=roles(role("clerk")),
        groups=[{"name": "sales", "realmRoles": ["clerk"]}],
        clients=[client("shop", serviceAccountsEnabled=True)],
        users=[person("grace", argon2(), realmRoles=["clerk"])],
    )
    await api.load(given)
    await api.call("PATCH", "/roles/clerk", {"includes": ["operator"], "description": "files things"})
    await api.call("PATCH", "/groups/sales", {"roles": ["clerk", "operator"]})
    await api.call("PATCH", "/clients/shop", {"roles": ["operator"]})
    await api.call("PUT", "/users/grace/roles", {"roles": ["admin", "clerk"]})
    assert (await api.load(given))["counts"]["unchanged"] == 4
    given["roles"]["realm"][-1] |= {"description": "files everything"}
    given["users"][0]["realmRoles"] = []
    assert (await api.load(given))["counts"]["changed"] == 2
    assert (await api.call("GET", "/users/grace"))["roles"] == ["admin", "member"]
    assert (await api.call("GET", "/roles/clerk"))["includes"] == ["operator"]


async def test_people_in_files_of_their_own_find_what_the_realms_file_brought(api):
    """As `kc.sh export --users different_files` writes them."""
    whole = realm(
        roles=roles(role("Team Lead"), client={"orders": [role("refund")]}),
        groups=[{"name": "sales"}],
    )
    del whole["users"]
    await api.load(whole)
    grace = person("grace", argon2(), realmRoles=["Team Lead"], clientRoles={"orders": ["refund"]}, groups=["/sales"])
    report = await api.load({"realm": "acme", "users": [grace]})
    assert report["counts"] == {"created": 1, "changed": 0, "unchanged": 0, "refused": 0}
    found = await api.call("GET", "/users/grace")
    assert (found["roles"], found["groups"]) == (["member", "orders-refund", "team-lead"], ["sales"])


async def test_an_authenticator_app_goes_on_showing_codes_that_count(api_on_both):
    odd = app(digits=8, algorithm="HmacSHA256")
    short = app() | {"secretData": json.dumps({"value": "0123456789abc"})}
    people = [person("grace", argon2(), app()), person("hal", argon2(), odd), person("ida", argon2(), app(), app())]
    people.append(person("joe", argon2(), short))
    report = await api_on_both.load(realm(users=people))
    assert why(report)["grace"] is None
    assert "got digits 8, algorithm HmacSHA256" in why(report)["hal"]
    assert why(report)["ida"] == "without a second authenticator app"
    assert "must have 14 to 250 bytes" in why(report)["joe"]
    browser = await api_on_both.provider.browser()
    assert "code" in (await browser.sign_in("grace")).text
    shown = pyotp.TOTP(base64.b32encode(APP_KEY.encode()).decode()).now()
    assert (await browser.submit(code="000000")).status_code == 401
    assert "Your account" in (await browser.submit(code=shown)).text
    assert "Your account" in (await sign_in(api_on_both, "hal")).text


async def test_what_somebody_chose_here_is_not_replaced_by_what_they_had_there(api_on_both):
    old = realm(
        users=[person("grace", pbkdf2("pbkdf2-sha512"), app()), person("hal", argon2())], clients=[client("shop")]
    )
    await api_on_both.load(old)
    again = await api_on_both.load(old)
    assert again["counts"] == {"created": 0, "changed": 0, "unchanged": 3, "refused": 0}
    await sign_in(api_on_both, "grace")
    await api_on_both.call("POST", "/users/grace/reset-password", {"password": "another password of hers"})
    await api_on_both.call("DELETE", "/users/grace/factors", status=204)
    secret = (await api_on_both.call("POST", "/clients/shop/rotate-secret"))["secret"]
    hal = person("hal", argon2("what he chose there meanwhile"))
    again = await api_on_both.load(old | {"users": [old["users"][0], hal]})
    assert outcomes(again, "user") == {"grace": "unchanged", "hal": "changed"}
    assert outcomes(again, "client") == {"shop": "unchanged"}
    assert "Your account" in (await sign_in(api_on_both, "grace", "another password of hers")).text
    assert "Your account" in (await sign_in(api_on_both, "hal", "what he chose there meanwhile")).text
    answer = await api_on_both.provider.token(("shop", secret), grant_type="refresh_token", refresh_token="none")
    assert answer.json()["error"] == "invalid_grant", "the client was known by its new secret"


async def test_names_addresses_and_who_is_disabled_are_decided_here_once_people_are_here(api):
    given = realm(users=[person(name, argon2()) for name in ("grace", "hal", "ida")])
    await api.load(given)
    await sign_in(api, "grace")
    for name in ("grace", "hal"):
        await api.call("PATCH", f"/users/{name}", {"name": "Changed", "email": f"{name}@new.test"})
    await api.call("POST", "/users/ida/disable")
    report = await api.load(given)
    assert outcomes(report, "user") == {"grace": "unchanged", "hal": "changed", "ida": "unchanged"}
    assert why(report)["ida"] == "stays disabled, as they are here: evs admin user enable ida"
    assert (await api.call("GET", "/users/grace"))["email"] == "grace@new.test"
    assert (await api.call("GET", "/users/hal"))["email"] == "hal@example.org", "he has not been here yet"
    given["users"][0]["enabled"] = False
    assert outcomes(await api.load(given), "user")["grace"] == "changed"
    assert (await api.call("GET", "/users/grace"))["enabled"] is False


async def test_who_cannot_come_with_a_password_is_named_with_what_to_do(api, subtests):
    broken = credential("password", {"value": "%%%", "salt": ""}, {"algorithm": "pbkdf2-sha256", "hashIterations": 1})
    people = {
        "dear": (
            pbkdf2("pbkdf2-sha256") | {"credentialData": '{"algorithm":"pbkdf2-sha256","hashIterations":99999999}'},
            {},
        ),
        "broken": (broken, {}),
        "strange": (credential("password", {}, {"algorithm": "scrypt"}), {}),
        "argoni": (argon2(type=["i"]), {}),
        "clear": ({"type": "password", "value": PASSWORD, "temporary": False}, {}),
        "asked": (argon2(), {"requiredActions": ["UPDATE_PASSWORD", "TERMS_AND_CONDITIONS"]}),
        "ldap": (credential("webauthn", {}, {}), {"federationLink": "f-1"}),
    }
    expected = {
        "dear": "PBKDF2 must have 1 to 2000000 iterations, got 99999999",
        "broken": "the password's hash is not as Keycloak writes it",
        "strange": "passwords by scrypt cannot be checked here",
        "argoni": "passwords by Argon2i cannot be checked here",
        "clear": "the export holds the password itself instead of its hash",
        "asked": "so the old one is not taken over; they were to do what is not asked here: TERMS_AND_CONDITIONS",
        "ldap": "the password is kept by the realm's user federation, not by Keycloak; without a security key",
    }
    report = await api.load(realm(users=[person(name, held, **more) for name, (held, more) in people.items()]))
    for name, text in expected.items():
        with subtests.test(name):
            assert text in why(report)[name]
            assert f"evs admin user reset-password {name}" in why(report)[name]
            assert (await sign_in(api, name)).status_code == 401
    assert PASSWORD not in str(report)


async def test_an_address_that_was_never_proven_has_to_be_proven_here(api):
    people = [person("grace", argon2()), person("hal", argon2(), requiredActions=["VERIFY_EMAIL"])]
    await api.load(realm(users=people))
    assert (await api.call("GET", "/users/grace"))["email_verified"] is True
    assert (await api.call("GET", "/users/hal"))["email_verified"] is False
    browser = await api.provider.browser()
    await browser.open(await api.provider.mailbox.link("verify"))
    await browser.submit()
    assert (await api.call("GET", "/users/hal"))["email_verified"] is True
    assert (await api.call("GET", "/users/grace"))["email_verified"] is True


async def test_a_client_goes_on_with_its_secret(api_on_both):
    shop = client(
        "shop",
        name="The Shop",
        serviceAccountsEnabled=True,
        attributes={
            "pkce.code.challenge.method": "S256",
            "post.logout.redirect.uris": "+##https://shop.example.org/bye",
            "access.token.lifespan": "120",
            "backchannel.logout.url": "https://shop.example.org/logout",
            "oauth2.device.authorization.grant.enabled": "true",
        },
    )
    account = person("service-account-shop", serviceAccountClientId="shop", realmRoles=["clerk"], email=None)
    given = realm(clients=[*realm()["clients"], shop], users=[account], roles=roles(role("clerk")))
    report = await api_on_both.load(given)
    assert outcomes(report, "client") == {"shop": "created"}
    assert outcomes(report, "user") == {}
    found = await api_on_both.call("GET", "/clients/shop")
    assert (found["name"], found["consent"], found["access_token_seconds"]) == ("The Shop", "never", 120)
    assert found["roles"] == ["clerk"]
    assert found["redirect_uris"] == ["https://shop.example.org/callback"]
    assert found["post_logout_redirect_uris"] == ["https://shop.example.org/bye", "https://shop.example.org/callback"]
    assert found["scopes"] == ["email", "offline_access", "openid", "profile"]
    secret = shop["secret"]
    answer = await api_on_both.provider.token(("shop", secret), grant_type="client_credentials", scope="profile")
    assert answer.status_code == 200, answer.text
    wrong = await api_on_both.provider.token(("shop", secret[::-1]), grant_type="client_credentials")
    assert wrong.json()["error"] == "invalid_client"
    assert (await api_on_both.load(given))["counts"]["unchanged"] == 2


async def test_somebody_signs_in_to_an_imported_client(api_on_both):
    await api_on_both.load(realm(clients=[client("shop")], users=[person("grace", pbkdf2("pbkdf2-sha512"))]))
    provider, auth = api_on_both.provider, ("shop", client("shop")["secret"])
    back = "https://shop.example.org/callback"
    browser = await provider.browser()
    await provider.authorize(browser, client_id="shop", redirect_uri=back, scope="openid profile email")
    code = provider.answer(await browser.submit(username="grace", password=PASSWORD))["code"]
    form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    answer = await provider.token(auth, grant_type="authorization_code", **form)
    assert answer.status_code == 200, answer.text
    header = extract_compact(answer.json()["id_token"].encode()).headers()
    assert header["alg"] == "RS256", "as Keycloak signs unless it is told otherwise"
    claims = json.loads(extract_compact(answer.json()["id_token"].encode()).payload)
    assert claims["sub"] == person("grace")["id"]


async def test_what_a_client_cannot_be_here_is_told_beside_it(api, subtests):
    given = [
        client("wild", redirectUris=["https://wild.example.org/*"]),
        client("half", redirectUris=["https://half.example.org/*", "https://half.example.org/cb"]),
        client("relative", rootUrl="https://relative.example.org/", redirectUris=["/cb"]),
        client("rootless", redirectUris=["/cb"]),
        client("clear", redirectUris=["http://clear.example.org/cb"]),
        client("masked", secret="**********"),
        client("vault", secret="${vault.shop}"),
        client("short", secret="secret"),
        client("https://sso.example.org/x"),
        client("browser", publicClient=True, webOrigins=["+"], attributes={}),
        client("server", webOrigins=["+"]),
        client("old", implicitFlowEnabled=True, directAccessGrantsEnabled=True),
        client("scoped", defaultClientScopes=["profile", "admin", "orders", "workflows:run"]),
        client("mapped", protocolMappers=[{"name": "department"}]),
        client(
            "keys",
            clientAuthenticatorType="client-jwt",
            attributes={"use.jwks.url": "true", "jwks.url": "https://k.example.org/"},
        ),
        client("certified", clientAuthenticatorType="client-jwt", attributes={"jwt.credential.certificate": "MII"}),
        client("mutual", clientAuthenticatorType="client-x509"),
        client("slow", attributes={"access.token.lifespan": "86400", "id.token.signed.response.alg": "PS512"}),
        client("bearer", bearerOnly=True),
        client("idle", redirectUris=[], directAccessGrantsEnabled=True),
        client("robot", redirectUris=[], serviceAccountsEnabled=True, protocolMappers=[{"name": "Client ID"}]),
        client("saml", protocol="saml"),
        client("off", enabled=False),
    ]
    expected = {
        "wild": "redirect_uris must name exact URIs, got https://wild.example.org/*",
        "half": "redirect_uris: without https://half.example.org/*, which name no exact URI",
        "relative": None,
        "robot": None,
        "server": None,
        "rootless": "redirect_uris must name exact URIs, got /cb",
        "clear": "redirect_uris: a redirect URI must be https",
        "masked": "the export does not tell its secret, so it gets a new one",
        "vault": "the export does not tell its secret, so it gets a new one",
        "short": "its secret is short; change it: evs admin client rotate-secret short",
        "https://sso.example.org/x": "id: String should match pattern",
        "browser": "it must use PKCE with S256, as every client here; its pages ask for tokens themselves only where",
        "old": "the implicit flow is gone in OAuth 2.1; it must use the code flow; the password grant is gone",
        "scoped": "without the scopes admin, orders, workflows:run, which nothing here has",
        "mapped": "no claims are made by department",
        "keys": "it must use PKCE",
        "certified": "jwks must name the client's keys as a JWK set",
        "mutual": "it proves itself by its secret, not by client-x509",
        "slow": "access tokens live 3600 s at most, not 86400; ID tokens are signed by RS256, not PS512",
    }
    report = await api.load(realm(clients=given))
    found = why(report, "client")
    assert set(left_out(report, "client")) == {"bearer", "saml", "off", "idle"}
    assert set(found) == set(expected)
    for name, text in expected.items():
        with subtests.test(name):
            assert (found[name] is None) if text is None else (text in found[name])
    refused = {name for name, outcome in outcomes(report, "client").items() if outcome == "refused"}
    assert refused == {"wild", "rootless", "clear", "https://sso.example.org/x", "certified"}
    secrets = {item["name"] for item in report["items"] if item.get("secret")}
    assert secrets == {"masked", "vault"}
    assert (await api.call("GET", "/clients/scoped"))["scopes"] == ["offline_access", "openid", "profile"]
    assert (await api.call("GET", "/clients/robot"))["grant_types"] == ["client_credentials"]
    assert (await api.call("GET", "/clients/relative"))["redirect_uris"] == ["https://relative.example.org/cb"]
    again = await api.load(realm(clients=given))
    assert set(outcomes(again, "client").values()) == {"unchanged", "refused"}
    assert not any(item.get("secret") for item in again["items"])


async def test_a_scope_comes_along_once_its_resource_is_there(api):
    given = realm(clients=[client("scoped", defaultClientScopes=["profile", "orders"])])
    await api.load(given)
    resource = {"id": "orders", "identifier": "urn:orders", "name": "Orders", "scopes": {"orders": "Your orders"}}
    await api.call("POST", "/resources", resource, 201)
    report = await api.load(given)
    assert outcomes(report, "client") == {"scoped": "changed"}
    assert "orders" in (await api.call("GET", "/clients/scoped"))["scopes"]


async def test_a_sign_in_by_another_provider_is_linked_once_that_is_registered(api_on_both):
    providers = [
        {
            "alias": "company",
            "providerId": "oidc",
            "config": {"issuer": "https://id.company.example/", "clientSecret": "*"},
        },
        {"alias": "github", "providerId": "github", "config": {}},
    ]
    identities = [
        {"identityProvider": "company", "userId": "c-1", "userName": "grace"},
        {"identityProvider": "github", "userId": "7", "userName": "grace"},
    ]
    given = realm(identityProviders=providers, users=[person("grace", argon2(), federatedIdentities=identities)])
    report = await api_on_both.load(given)
    assert "nobody signs in with https://id.company.example here yet" in why(report)["grace"]
    assert "without the sign-in by github" in why(report)["grace"]
    assert set(left_out(report, "identity provider")) == {"company", "github"}
    upstream = {"id": "company", "name": "Company", "issuer": "https://id.company.example", "client_id": "evs"}
    await api_on_both.call("POST", "/upstreams", upstream | {"client_secret": "s" * 32}, 201)
    assert outcomes(await api_on_both.load(given), "user") == {"grace": "changed"}
    assert outcomes(await api_on_both.load(given), "user") == {"grace": "unchanged"}
    other = person("hal", argon2(), federatedIdentities=identities[:1])
    report = await api_on_both.load(given | {"users": [other]})
    assert "belongs to grace here" in why(report)["hal"]
    linked = (await api_on_both.provider.events("evs.user.factor-added"))[-1].data
    assert (linked["username"], linked["factor"]) == ("grace", "upstream")


async def test_the_rest_of_a_realm_is_named_with_what_to_do_about_it(api):
    report = await api.load(
        realm(
            components={"org.keycloak.storage.UserStorageProvider": [{"name": "ldap"}]},
            authenticationFlows=[{"alias": "browser", "builtIn": True}, {"alias": "ours", "builtIn": False}],
            smtpServer={"host": "mail.example.org", "password": "hunter2"},
            passwordPolicy="length(8) and digits(1)",
            registrationAllowed=True,
            organizations=[{"name": "Acme"}],
        )
    )
    told = {(item["kind"], item["name"]) for item in report["left_out"]}
    assert told == {
        ("user federation", "ldap"),
        ("authentication flow", "ours"),
        ("mail server", "mail.example.org"),
        ("password policy", "length(8) and digits(1)"),
        ("registration", "open"),
        ("organization", "Acme"),
    }
    assert "hunter2" not in str(report)
    assert report["items"] == []


async def test_one_bad_item_holds_up_none_of_the_others_and_a_rehearsal_changes_nothing(api):
    given = realm(users=[person("grace", argon2()), person("x" * 70, argon2()), person("not a name", argon2())])
    rehearsed = await api.load(given, dry_run=True)
    assert outcomes(rehearsed, "user") == {"grace": "created", "x" * 70: "refused", "not a name": "refused"}
    await api.call("GET", "/users/grace", status=404)
    done = await api.load(given)
    assert (done["items"], done["left_out"]) == (rehearsed["items"], rehearsed["left_out"])
    assert (await api.load(given))["counts"] == {"created": 0, "changed": 0, "unchanged": 1, "refused": 2}


@pytest.mark.timeout(300)
async def test_a_large_realm_holds_up_nobody_and_a_rehearsal_says_what_happens(api_on_both):
    many = range(60)  # more in all than one transaction is let do
    given = realm(
        roles=roles(*(role(f"r{number}", realm=[f"r{number - 1}"] if number % 5 else []) for number in many)),
        groups=[{"name": f"g{number}", "realmRoles": [f"r{number}"]} for number in many],
        clients=[client(f"c{number}") for number in many],
        users=[person(f"u{number}", argon2(), id=f"id-{number}", groups=[f"/g{number}"]) for number in range(30)],
    )
    rehearsed = await api_on_both.load(given, dry_run=True)
    assert rehearsed["counts"] == {"created": 210, "changed": 0, "unchanged": 0, "refused": 0}
    await api_on_both.call("GET", "/roles/r1", status=404)
    assert (await api_on_both.load(given))["items"] == rehearsed["items"]
    assert (await api_on_both.load(given))["counts"]["unchanged"] == 210
    assert (await api_on_both.call("GET", "/users/u4"))["effective_roles"] == ["member", "r0", "r1", "r2", "r3", "r4"]


async def test_what_is_null_is_as_good_as_absent(api):
    grace = person("grace", argon2(), groups=None, attributes=None, realmRoles=None, requiredActions=None)
    shop = client(
        "shop", attributes={"access.token.lifespan": "soon", "post.logout.redirect.uris": None}, webOrigins=None
    )
    given = roles(role("clerk", composites=None, description=None))
    report = await api.load(realm(users=[grace], clients=[shop], roles=given, groups=None, smtpServer=None))
    assert report["counts"] == {"created": 3, "changed": 0, "unchanged": 0, "refused": 0}
    assert (await api.call("GET", "/clients/shop"))["access_token_seconds"] == 300


async def test_a_disabled_person_stays_disabled(api):
    await api.load(realm(users=[person("hal", argon2(), enabled=False)]))
    assert (await sign_in(api, "hal")).status_code == 401
