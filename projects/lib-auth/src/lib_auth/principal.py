"""Who does something: the person or program a verified access token stands for."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

MEMBER = "member"
OPERATOR = "operator"
ADMIN = "admin"

# Each built-in role includes the ones before it; a team's own roles include nothing but themselves.
LADDER = (MEMBER, OPERATOR, ADMIN)


def with_included(roles: Iterable[str]) -> frozenset[str]:
    """Return `roles` and every role they include."""
    held = set(roles)
    for rank, role in enumerate(LADDER):
        if role in held:
            held.update(LADDER[:rank])
    return frozenset(held)


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a verified access token; its text form, the subject, travels with every event."""

    subject: str
    client_id: str
    scopes: frozenset[str]
    roles: frozenset[str]
    token_id: str
    session_id: str | None
    username: str | None
    audience: str
    issued_at: datetime
    expires_at: datetime
    acr: str | None = None  # how well the person proved who they are
    authenticated_at: datetime | None = None  # when
    family_id: str | None = None  # the authorisation the token came from; all its tokens are revoked together
    key_id: str | None = None  # which of the issuer's keys signed it
    key_thumbprint: str | None = None  # only the holder of this key may use it (RFC 9449)
    actors: tuple[str, ...] = ()  # the services that act for the subject, the one that acts now first (RFC 8693)
    permissions: frozenset[str] = frozenset()  # in this audience; of more than 100 only introspection tells

    def has_role(self, role: str) -> bool:
        """Whether the person holds `role` or one that includes it."""
        return role in with_included(self.roles)

    def has_permission(self, permission: str) -> bool:
        """Whether one of the person's roles carries `permission`."""
        return permission in self.permissions

    def has_scope(self, scope: str) -> bool:
        """Whether the client was allowed `scope`."""
        return scope in self.scopes

    @property
    def is_service(self) -> bool:
        """Whether this is a program with client credentials rather than a person."""
        return self.subject == self.client_id

    def __str__(self) -> str:
        return self.subject
