"""Reads a Keycloak realm's export: its people, their groups and roles, and its clients, as a document of ours.

What has another meaning here is left out and said: Keycloak's own roles and clients, and roles named as our built-in
ones, which would make somebody an administrator who never was one here.
"""

from collections.abc import Collection, Mapping
from typing import Any

from auth_svc.transfer.keycloak.clients import read_clients
from auth_svc.transfer.keycloak.people import read_groups, read_people
from auth_svc.transfer.keycloak.realm import Realm
from auth_svc.transfer.keycloak.rest import tell_the_rest
from auth_svc.transfer.keycloak.roles import TakenRoles
from auth_svc.transfer.reading import Reader, Reading

__all__ = ["is_realm", "read_realm"]


def is_realm(content: Mapping[str, Any]) -> bool:
    """Whether a document is one of Keycloak's."""
    return "realm" in content and "format" not in content


def read_realm(content: Mapping[str, Any], scopes: Collection[str]) -> Reading:
    """Return what the realm says; `scopes` are those a client from elsewhere may have. Raises `ValidationError`."""
    realm, reader = Realm.model_validate(content), Reader()
    roles = TakenRoles(realm, reader)
    read_groups(realm, roles, reader)
    read_clients(realm, roles, scopes, reader)
    read_people(realm, roles, reader)
    tell_the_rest(realm, reader)
    return reader.reading()
