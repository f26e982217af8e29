"""Reads a Keycloak realm's export: its people, their groups and roles, as a document of ours.

What has another meaning here is left out and said: Keycloak's own roles, and roles named as our built-in ones, which
would make somebody an administrator who never was one here.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import from_json

from auth_svc.rights.roles import ROLE
from auth_svc.transfer.document import FORMAT, VERSION, GroupItem, RoleItem, UserItem
from lib_auth.principal import LADDER

KEYCLOAKS_OWN = re.compile(r"offline_access|uma_authorization|default-roles-.*")
VERSIONS = {"1.0": 16, "1.3": 19}


class Credential(BaseModel):
    """How somebody proves who they are; both fields are JSON in JSON."""

    type: str = ""
    secretData: str = Field(default="{}", repr=False)  # noqa: N815 - Keycloak's name
    credentialData: str = "{}"  # noqa: N815


class KeycloakUser(BaseModel):
    """A person."""

    id: str | None = None
    username: str
    email: str | None = None
    enabled: bool = True
    realmRoles: list[str] = Field(default=[])  # noqa: N815
    groups: list[str] = Field(default=[])
    credentials: list[Credential] = Field(default=[], repr=False)
    serviceAccountClientId: str | None = None  # noqa: N815


class KeycloakRole(BaseModel):
    """A role of the realm; `composites` are those it includes."""

    name: str
    description: str | None = None
    composites: dict[str, Any] = Field(default={})


class KeycloakRoles(BaseModel):
    """Those of the realm; clients' own roles have no place here."""

    realm: list[KeycloakRole] = Field(default=[])


class KeycloakGroup(BaseModel):
    """A group, with those inside it."""

    name: str
    realmRoles: list[str] = Field(default=[])  # noqa: N815
    subGroups: list["KeycloakGroup"] = Field(default=[])  # noqa: N815


class Realm(BaseModel):
    """What we read of a realm's export."""

    realm: str
    users: list[KeycloakUser] = Field(default=[])
    roles: KeycloakRoles = Field(default=KeycloakRoles())
    groups: list[KeycloakGroup] = Field(default=[])


def is_realm(content: Mapping[str, Any]) -> bool:
    """Whether a document is one of Keycloak's."""
    return "realm" in content and "format" not in content


def to_document(realm: Realm) -> Mapping[str, Any]:
    """Return what the realm says in our words, still to be checked as any document."""
    roles = [role for role in realm.roles.realm if _is_taken(role.name)]
    return {
        "format": FORMAT,
        "version": VERSION,
        "roles": [_role(role) for role in roles],
        "groups": list(_groups(realm.groups, "")),
        "users": [_user(user) for user in realm.users if user.serviceAccountClientId is None],
    }


def _role(role: KeycloakRole) -> Mapping[str, Any]:
    included = role.composites.get("realm", [])
    names = _names(name for name in included if isinstance(name, str))
    return RoleItem.model_construct(
        name=_name(role.name), description=(role.description or "")[:300], includes=names, permissions=[]
    ).model_dump()


def _groups(groups: Iterable[KeycloakGroup], above: str) -> Iterator[Mapping[str, Any]]:
    for group in groups:
        name = f"{above}{group.name}"
        yield GroupItem.model_construct(name=name, description="", roles=_names(group.realmRoles)).model_dump()
        yield from _groups(group.subGroups, f"{name}/")


def _user(user: KeycloakUser) -> Mapping[str, Any]:
    left = sorted(name for name in user.realmRoles if not _is_taken(name) and not KEYCLOAKS_OWN.fullmatch(name))
    notes = [f"without what cannot be taken over: {', '.join(left)}"] if left else []
    kept = next((password_hash(credential) for credential in user.credentials if credential.type == "password"), None)
    if kept is None:
        notes.append("the password cannot be taken over: they must be given a new one")
    return UserItem.model_construct(
        id=user.id,
        username=user.username,
        email=user.email,
        roles=_names(user.realmRoles),
        groups=[path.removeprefix("/") for path in user.groups],
        enabled=user.enabled,
        password_hash=kept,
        note="; ".join(notes)[:300] or None,
    ).model_dump()


def password_hash(credential: Credential) -> str | None:
    """Return an Argon2id hash as everybody writes it; None for any other kind, which nobody here can check."""
    try:
        secret, data = from_json(credential.secretData), from_json(credential.credentialData)
        more = data.get("additionalParameters") or {}
        if data.get("algorithm") != "argon2" or _first(more, "type") != "id":
            return None
        version, memory = VERSIONS[_first(more, "version") or "1.3"], int(_first(more, "memory") or 0)
        lanes, passes = int(_first(more, "parallelism") or 0), int(data["hashIterations"])
        parts = (_unpadded(secret["salt"]), _unpadded(secret["value"]))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None
    return f"$argon2id$v={version}$m={memory},t={passes},p={lanes}${parts[0]}${parts[1]}"


def _first(parameters: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = parameters.get(name)
    return str(values[0]) if values else None


def _unpadded(text: str) -> str:
    return base64.b64encode(base64.b64decode(text, validate=True)).decode().rstrip("=")


def _names(names: Iterable[str]) -> list[str]:
    return sorted({_name(name) for name in names if _is_taken(name)})


def _name(name: str) -> str:
    return name.strip().casefold().replace(" ", "-")


def _is_taken(name: str) -> bool:
    return ROLE.fullmatch(_name(name)) is not None and _name(name) not in LADDER and not KEYCLOAKS_OWN.fullmatch(name)
