"""What the admin API takes and shows of groups, roles and resource servers."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from auth_svc.api.views import WITHOUT_NUL, Body
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS
from auth_svc.rights.groups import Group
from auth_svc.rights.resource_servers import MAX_NAMES
from auth_svc.rights.resources import Resource
from auth_svc.rights.roles import Role
from lib_events.clock import to_datetime

Name = Annotated[str, Field(min_length=1, max_length=80, pattern=WITHOUT_NUL)]
Description = Annotated[str, Field(max_length=300, pattern=WITHOUT_NUL)]
RoleName = Annotated[str, Field(max_length=40, pattern=WITHOUT_NUL)]
RoleNames = Annotated[list[RoleName], Field(max_length=50, default_factory=list)]
PermissionName = Annotated[str, Field(max_length=100, pattern=WITHOUT_NUL)]
PermissionNames = Annotated[list[PermissionName], Field(max_length=1000, default_factory=list)]
Described = Annotated[dict[PermissionName, Description], Field(max_length=MAX_NAMES, default_factory=dict)]
ClientName = Annotated[str, Field(max_length=500, pattern=WITHOUT_NUL)]
ClientNames = Annotated[list[ClientName], Field(max_length=50, default_factory=list)]
SigningAlg = Literal["ES256", "RS256"]
Seconds = Annotated[int, Field(ge=1, le=LONGEST_ACCESS_SECONDS)]


class GroupBody(Body):
    """A new group."""

    name: Name
    description: Description = ""
    roles: RoleNames


class GroupChanges(Body):
    """What of a group to set; what is left out stays."""

    name: Name = ""
    description: Description = ""
    roles: RoleNames


class GroupView(BaseModel):
    """A group, and how many people are in it."""

    id: str
    name: str
    description: str
    roles: list[str]
    members: int
    created_at: str

    @classmethod
    def of(cls, group: Group, members: int = 0) -> "GroupView":
        """Show a group."""
        return cls(
            id=group.id,
            name=group.name,
            description=group.description,
            roles=sorted(group.roles),
            members=members,
            created_at=to_datetime(group.created_at).isoformat(),
        )


class RoleBody(Body):
    """A new role."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    description: Description = ""
    includes: RoleNames
    permissions: PermissionNames


class RoleChanges(Body):
    """What of a role to set; what is left out stays."""

    description: Description = ""
    includes: RoleNames
    permissions: PermissionNames


class RoleView(BaseModel):
    """A role: what it includes, and what whoever holds it may do."""

    name: str
    description: str
    includes: list[str]
    permissions: list[str]
    built_in: bool
    created_at: str

    @classmethod
    def of(cls, role: Role) -> "RoleView":
        """Show a role."""
        return cls(
            name=role.name,
            description=role.description,
            includes=sorted(role.includes),
            permissions=sorted(role.permissions),
            built_in=role.built_in,
            created_at=to_datetime(role.created_at).isoformat(),
        )


class ResourceBody(Body):
    """A new resource server: `scopes` and `permissions` are names with what a person reads about them."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,63}$")]
    identifier: Annotated[str, Field(min_length=1, max_length=500, pattern=WITHOUT_NUL)]
    name: Name
    scopes: Described
    permissions: Described
    access_token_seconds: Seconds | None = None
    actors: ClientNames
    signing_alg: SigningAlg = "ES256"


class ResourceChanges(Body):
    """What of a resource server to set; what is left out stays, and so does its identifier."""

    name: Name = ""
    scopes: Described
    permissions: Described
    access_token_seconds: Seconds | None = None
    actors: ClientNames
    signing_alg: SigningAlg = "ES256"


class ResourceView(BaseModel):
    """A resource server; `secret` is that of the client with its id, which introspects and reads revocations."""

    id: str
    identifier: str
    name: str
    scopes: dict[str, str]
    permissions: dict[str, str]
    access_token_seconds: int | None
    actors: list[str] = Field(description="The clients that people may let act for them here")
    signing_alg: str = Field(description="What its access tokens are signed with (RFC 9068 section 2.1)")
    built_in: bool
    created_at: str
    secret: str | None = None  # only in the answer that made it

    @classmethod
    def of(cls, resource: Resource, secret: str | None = None) -> "ResourceView":
        """Show a resource."""
        return cls(
            id=resource.id,
            identifier=resource.identifier,
            name=resource.name,
            scopes=dict(resource.scopes),
            permissions=dict(resource.permissions),
            access_token_seconds=resource.access_token_seconds,
            actors=sorted(resource.actors),
            signing_alg=resource.signing_alg,
            built_in=resource.built_in,
            created_at=to_datetime(resource.created_at).isoformat(),
            secret=secret,
        )


def given(body: Body, *sets: str) -> dict[str, object]:
    """Return what a body sets; lists of names become sets, which have no order."""
    found = {name: getattr(body, name) for name in body.model_fields_set}
    return found | {name: frozenset(found[name]) for name in sets if name in found}
