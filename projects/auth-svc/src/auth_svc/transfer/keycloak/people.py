"""A realm's groups and people: what they hold, how they prove themselves, and what of that stays behind."""

from collections.abc import Iterable, Mapping
from typing import Any

from auth_svc.transfer.keycloak.credentials import NotTaken, app_secret, password_hash
from auth_svc.transfer.keycloak.realm import Group, IdentityProvider, Realm, User
from auth_svc.transfer.keycloak.roles import TakenRoles
from auth_svc.transfer.reading import Reader

GOOGLE = "https://accounts.google.com"
CREDENTIALS_LEFT = {
    "webauthn": "a security key",
    "webauthn-passwordless": "a passkey",
    "recovery-authn-codes": "recovery codes",
}
TAKEN_ACTIONS = frozenset(("UPDATE_PASSWORD", "VERIFY_EMAIL", "CONFIGURE_TOTP"))
NEW_PASSWORD = "they were to choose a new password, so the old one is not taken over"  # noqa: S105 - a text


def read_groups(realm: Realm, roles: TakenRoles, reader: Reader) -> None:
    """Take the groups, each under its path."""
    _take_groups(realm.groups, "", frozenset(), roles, reader)


def read_people(realm: Realm, roles: TakenRoles, reader: Reader) -> None:
    """Take the people."""
    issuers = {provider.alias: _issuer(provider) for provider in realm.identityProviders}
    for user in realm.people():
        reader.take("user", user.username, _user(user, roles, issuers))
    if unread := sorted({name for user in realm.people() for name in user.attributes or ()}):
        reader.leave("attributes", ", ".join(unread)[:300], "people have none here; keep them where they are used")


def _take_groups(
    groups: Iterable[Group], above: str, inherited: frozenset[str], roles: TakenRoles, reader: Reader
) -> None:
    """In Keycloak, whoever is in a group has the roles of the groups around it, too."""
    for group in groups:
        name = f"{above}{group.name}"
        held, left = roles.held(group.realmRoles, group.clientRoles)
        if left:
            reader.leave("group", name, f"without the roles {', '.join(left)}")
        own = inherited | set(held)
        reader.take("group", name, {"name": name, "roles": sorted(own)})
        _take_groups(group.subGroups, f"{name}/", own, roles, reader)


def _user(user: User, roles: TakenRoles, issuers: Mapping[str, str | None]) -> Mapping[str, Any]:
    held, left = roles.held(user.realmRoles, user.clientRoles)
    notes = [f"without what cannot be taken over: {', '.join(left)}"] if left else []
    kept, app = _password(user, notes), _app(user, notes)
    notes += [f"without {text}" for kind, text in CREDENTIALS_LEFT.items() if _has(user, kind)]
    if asked := sorted(set(user.requiredActions) - TAKEN_ACTIONS):
        notes.append(f"they were to do what is not asked here: {', '.join(asked)}")
    name = " ".join(part for part in (user.firstName, user.lastName) if part).strip()
    return {
        "id": user.id,
        "username": user.username,
        "name": name[:80] or None,
        "email": user.email,
        "email_verified": user.emailVerified and "VERIFY_EMAIL" not in user.requiredActions,
        "roles": held,
        "groups": [path.removeprefix("/").replace("~/", "/") for path in user.groups],
        "enabled": user.enabled,
        "password_hash": kept,
        "authenticator_secret": app,
        "links": _links(user, issuers, notes) or None,
        "note": "; ".join(notes)[:2_000] or None,
    }


def _password(user: User, notes: list[str]) -> str | None:
    if user.federationLink is not None:
        notes.append("the password is kept by the realm's user federation, not by Keycloak")
    if "UPDATE_PASSWORD" in user.requiredActions:
        notes.append(NEW_PASSWORD)
        return None
    for credential in user.credentials:
        if credential.type == "password":
            try:
                return password_hash(credential)
            except NotTaken as error:
                notes.append(str(error))
    return None


def _app(user: User, notes: list[str]) -> str | None:
    """Take the first authenticator app that can be: there is one of each person here."""
    taken: str | None = None
    for credential in user.credentials:
        if credential.type in ("otp", "totp", "hotp"):
            try:
                secret = app_secret(credential)
            except NotTaken as error:
                notes.append(str(error))
                continue
            if taken is not None:
                notes.append("without a second authenticator app")
            taken = taken or secret
    if taken is None and "CONFIGURE_TOTP" in user.requiredActions:
        notes.append("they were to set up an authenticator app; EVS_REQUIRE_SECOND_FACTOR asks for one by role")
    return taken


def _has(user: User, kind: str) -> bool:
    return any(credential.type == kind for credential in user.credentials)


def _links(user: User, issuers: Mapping[str, str | None], notes: list[str]) -> list[Mapping[str, str]]:
    links: list[Mapping[str, str]] = []
    for identity in user.federatedIdentities:
        issuer = issuers.get(identity.identityProvider)
        if issuer is None:
            notes.append(f"without the sign-in by {identity.identityProvider}, whose issuer the export does not name")
        else:
            links.append({"issuer": issuer, "subject": identity.userId})
    return links


def _issuer(provider: IdentityProvider) -> str | None:
    """Return the issuer of an OpenID provider; that of others is not told."""
    if provider.providerId == "google":
        return GOOGLE
    found = provider.config.get("issuer") if provider.providerId in ("oidc", "keycloak-oidc") else None
    return str(found).rstrip("/") if found else None
