"""A realm as Keycloak 26 exports it with its people, written by hand after its documentation."""

import base64
import hashlib
import json

import bcrypt
from argon2.low_level import Type, hash_secret_raw

PASSWORD = "correct horse battery staple"
SALT = b"0123456789abcdef"
APP_KEY = "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlEk"  # what Keycloak keeps: not Base32, but the key itself
DIGESTS = {"pbkdf2": "sha1", "pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}
ARGON2 = {"hashLength": ["32"], "memory": ["7168"], "type": ["id"], "version": ["1.3"], "parallelism": ["1"]}


def encoded(given):
    return base64.b64encode(given).decode()


def credential(kind, secret, data, **more):
    """Both are JSON in JSON."""
    return {"type": kind, "secretData": json.dumps(secret), "credentialData": json.dumps(data), **more}


def argon2(password=PASSWORD, **changes):
    value = hash_secret_raw(password.encode(), SALT, 5, 7168, 1, 32, Type.ID)
    secret = {"value": encoded(value), "salt": encoded(SALT), "additionalParameters": {}}
    data = {"hashIterations": 5, "algorithm": "argon2", "additionalParameters": ARGON2 | changes}
    return credential("password", secret, data, userLabel="My password")


def pbkdf2(algorithm, password=PASSWORD, iterations=1000, length=None):
    value = hashlib.pbkdf2_hmac(DIGESTS[algorithm], password.encode(), SALT, iterations, length)
    secret = {"value": encoded(value), "salt": encoded(SALT), "additionalParameters": {}}
    data = {"hashIterations": iterations, "algorithm": algorithm, "additionalParameters": {}}
    return credential("password", secret, data)


def bcrypt_extension():
    secret = {"value": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(), "salt": ""}
    return credential("password", secret, {"hashIterations": 4, "algorithm": "bcrypt"})


def of_version_7(algorithm):
    """Until version 7 the parts of a credential were fields of their own."""
    value = hashlib.pbkdf2_hmac(DIGESTS[algorithm], PASSWORD.encode(), SALT, 1000, 64)
    parts = {"hashedSaltedValue": encoded(value), "salt": encoded(SALT), "hashIterations": 1000, "counter": 0}
    return {"type": "password", "algorithm": algorithm, "digits": 0, **parts}


def app(**changes):
    data = {"subType": "totp", "digits": 6, "counter": 0, "period": 30, "algorithm": "HmacSHA1"}
    return credential("otp", {"value": APP_KEY}, data | changes, userLabel="Phone")


def person(username, *credentials, **changes):
    return {
        "id": f"5a1b0f2e-0000-4000-8000-{int.from_bytes(username.encode()[:5]):012x}",
        "createdTimestamp": 1_700_000_000_000,
        "username": username,
        "enabled": True,
        "totp": False,
        "emailVerified": True,
        "firstName": username.capitalize(),
        "lastName": "Example",
        "email": f"{username}@example.org",
        "credentials": list(credentials),
        "disableableCredentialTypes": [],
        "requiredActions": [],
        "realmRoles": ["default-roles-acme"],
        "notBefore": 0,
        "groups": [],
    } | changes


def client(client_id, **changes):
    """A confidential client for a web application, as the console makes it."""
    return {
        "id": f"c-{client_id}",
        "clientId": client_id,
        "name": "",
        "surrogateAuthRequired": False,
        "enabled": True,
        "alwaysDisplayInConsole": False,
        "clientAuthenticatorType": "client-secret",
        "secret": "q3Zr7fTn1Yc9Xw5Lb2Hs8Jd4Kg6Pm0Va",
        "redirectUris": [f"https://{client_id}.example.org/callback"],
        "webOrigins": [],
        "notBefore": 0,
        "bearerOnly": False,
        "consentRequired": False,
        "standardFlowEnabled": True,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "serviceAccountsEnabled": False,
        "publicClient": False,
        "frontchannelLogout": False,
        "protocol": "openid-connect",
        "attributes": {"pkce.code.challenge.method": "S256", "backchannel.logout.session.required": "true"},
        "fullScopeAllowed": True,
        "nodeReRegistrationTimeout": -1,
        "defaultClientScopes": ["web-origins", "acr", "profile", "roles", "basic", "email"],
        "optionalClientScopes": ["address", "phone", "offline_access", "microprofile-jwt"],
    } | changes


def realm(**parts):
    """What every export holds, with `parts` of one's own."""
    return {
        "id": "4d4c7ed8-35c1-4c1c-9d8e-52d2a8f0b8e0",
        "realm": "acme",
        "displayName": "Acme",
        "sslRequired": "external",
        "accessTokenLifespan": 300,
        "ssoSessionIdleTimeout": 1800,
        "defaultSignatureAlgorithm": "RS256",
        "defaultRole": {"name": "default-roles-acme", "composite": True},
        "requiredCredentials": ["password"],
        "otpPolicyType": "totp",
        "browserFlow": "browser",
        "roles": {
            "realm": [
                role("offline_access"),
                role("uma_authorization"),
                role(
                    "default-roles-acme",
                    realm=["offline_access", "uma_authorization"],
                    client={"account": ["view-profile"]},
                ),
            ],
            "client": {"account": [role("view-profile")], "realm-management": [role("realm-admin")], "broker": []},
        },
        "groups": [],
        "users": [],
        "clients": [
            client("account", redirectUris=["/realms/acme/account/*"], rootUrl="${authBaseUrl}", publicClient=True),
            client("realm-management", bearerOnly=True),
            client("security-admin-console", redirectUris=["/admin/acme/console/*"], rootUrl="${authAdminUrl}"),
        ],
        "clientScopes": [{"name": "profile", "protocol": "openid-connect"}],
        "identityProviders": [],
        "components": {"org.keycloak.keys.KeyProvider": [{"name": "rsa-generated"}]},
        "authenticationFlows": [{"alias": "browser", "builtIn": True, "topLevel": True}],
        "keycloakVersion": "26.0.7",
    } | parts


def role(name, *, realm=(), client=None, **changes):
    composites = {"realm": list(realm), "client": client or {}} if realm or client else None
    found = {"id": f"r-{name}", "name": name, "description": f"${{role_{name}}}", "composite": bool(composites)}
    return found | ({"composites": composites} if composites else {}) | {"attributes": {}} | changes


def roles(*more, client=None):
    """The realm's own roles, and more."""
    own = realm()["roles"]
    return {"realm": own["realm"] + list(more), "client": own["client"] | (client or {})}
