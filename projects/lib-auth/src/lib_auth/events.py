"""The events the AuthService tells of users, sessions, tokens and roles, with what each carries."""

from pydantic import BaseModel, ConfigDict

from lib_events.event import EventType


class Payload(BaseModel):
    """What an event carries: read tolerantly, so that a newer service may add fields."""

    model_config = ConfigDict(frozen=True)


class UserRegisteredData(Payload):
    """A person can sign in from now on."""

    user: str
    username: str
    email: str | None = None


class UserChangedData(Payload):
    """Something about a person changed."""

    user: str
    username: str
    by: str | None = None  # the subject who did it; None when the service itself did


class UserRolesChangedData(UserChangedData):
    """The roles a person holds now."""

    roles: list[str]


class UserProfileChangedData(UserChangedData):
    """What a person is called, or where to reach them, changed."""

    email: str | None = None
    changed: list[str] = []  # the names of the fields


class UserInvitedData(Payload):
    """Somebody may make themselves an account."""

    invitation: str
    roles: list[str]
    by: str | None = None
    expires_at: int = 0  # seconds since the epoch


class UserDeletedData(Payload):
    """A person is gone: whoever keeps something of theirs deletes it now."""

    user: str
    by: str | None = None


class GrantData(Payload):
    """What a person lets a client do, or no longer does."""

    user: str
    client: str
    scopes: list[str]


class DelegationData(Payload):
    """What a person lets a client do for them while they are away, and what for; its id is worth nothing to others."""

    delegation: str
    user: str
    client: str
    scopes: list[str]
    resources: list[str]
    purpose: str
    expires_at: int  # seconds since the epoch


class DelegationWithdrawnData(Payload):
    """A delegation ended before its time."""

    delegation: str
    user: str
    client: str
    why: str


class GroupData(Payload):
    """A group and what its members may do."""

    group: str
    name: str
    roles: list[str]
    by: str | None = None


class GroupMemberData(Payload):
    """A person came into a group, or left it."""

    group: str
    name: str
    user: str
    by: str | None = None


class RoleData(Payload):
    """What a role includes and which permissions it carries."""

    role: str
    includes: list[str]
    permissions: list[str]
    by: str | None = None


class ResourceData(Payload):
    """A service that accepts access tokens; `identifier` is their audience."""

    resource: str
    identifier: str
    by: str | None = None


class UserFactorData(UserChangedData):
    """A way to prove who one is beside the password; never the secret of it."""

    factor: str


class UserRecoveryCodeUsedData(UserChangedData):
    """Somebody signed in with a recovery code in place of a second factor."""

    left: int


class SessionStartedData(Payload):
    """A person signed in with a browser."""

    session: str
    user: str


class SessionEndedData(Payload):
    """A browser session is over, and the tokens that came from it with it."""

    session: str
    user: str
    reason: str
    expires_at: int = 0  # seconds since the epoch: after it nothing of the session can be valid


class TokenIssuedData(Payload):
    """An access token was issued; the token itself is nobody's business."""

    token: str
    client: str
    user: str | None = None
    grant_type: str
    audience: str
    scope: str
    expires_at: int
    actor: str | None = None  # the client that acts for the user (RFC 8693)


class TokenRevokedData(Payload):
    """Every access token that one of the given fields names is refused from now on.

    `token`, `family` and `session` refuse for good; `user`, `client` and `role`, which every token says that its holder
    has, what was issued until `issued_until`.
    """

    token: str | None = None
    family: str | None = None
    session: str | None = None
    user: str | None = None
    client: str | None = None
    role: str | None = None
    issued_until: int = 0  # seconds since the epoch
    expires_at: int = 0  # seconds since the epoch: the last of those tokens has expired by then


class ClientChangedData(Payload):
    """Something about a client changed."""

    client: str
    name: str
    origin: str  # own | administrator | registered | document
    by: str | None = None
    roles: list[str] | None = None  # that it holds now; None where an older service did not say


class KeyChangedData(Payload):
    """Something about a signing key changed."""

    key: str
    algorithm: str
    active_from: int = 0  # seconds since the epoch: from then on it signs
    by: str | None = None


class AccessRequestedData(Payload):
    """A person asks for a role."""

    request: str
    user: str
    username: str
    role: str
    reason: str
    nonce: str


class AccessGrantedData(Payload):
    """A person holds a role that was asked for."""

    request: str
    user: str
    role: str
    by: str
    approval: str | None = None


class AccessRefusedData(Payload):
    """A role that was asked for was not given."""

    request: str
    user: str
    role: str
    why: str
    approval: str | None = None


UserRegistered = EventType("evs.user.registered", UserRegisteredData)
UserInvited = EventType("evs.user.invited", UserInvitedData)
UserDeleted = EventType("evs.user.deleted", UserDeletedData)
UserProfileChanged = EventType("evs.user.profile-changed", UserProfileChangedData)
UserEmailVerified = EventType("evs.user.email-verified", UserChangedData)
UserEmailChanged = EventType("evs.user.email-changed", UserChangedData)
GrantGiven = EventType("evs.grant.given", GrantData)
GrantRevoked = EventType("evs.grant.revoked", GrantData)
GrantDelegated = EventType("evs.grant.delegated", DelegationData)
DelegationUsed = EventType("evs.grant.delegation-used", DelegationData)
DelegationWithdrawn = EventType("evs.grant.delegation-withdrawn", DelegationWithdrawnData)
UserDisabled = EventType("evs.user.disabled", UserChangedData)
UserEnabled = EventType("evs.user.enabled", UserChangedData)
UserPasswordChanged = EventType("evs.user.password-changed", UserChangedData)
UserRolesChanged = EventType("evs.user.roles-changed", UserRolesChangedData)
GroupCreated = EventType("evs.group.created", GroupData)
GroupChanged = EventType("evs.group.changed", GroupData)
GroupDeleted = EventType("evs.group.deleted", GroupData)
GroupMemberAdded = EventType("evs.group.member-added", GroupMemberData)
GroupMemberRemoved = EventType("evs.group.member-removed", GroupMemberData)
RoleCreated = EventType("evs.role.created", RoleData)
RoleChanged = EventType("evs.role.changed", RoleData)
RoleDeleted = EventType("evs.role.deleted", RoleData)
ResourceCreated = EventType("evs.resource.created", ResourceData)
ResourceChanged = EventType("evs.resource.changed", ResourceData)
ResourceDeleted = EventType("evs.resource.deleted", ResourceData)
ResourceSecretRotated = EventType("evs.resource.secret-rotated", ResourceData)
UserFactorAdded = EventType("evs.user.factor-added", UserFactorData)
UserFactorRemoved = EventType("evs.user.factor-removed", UserFactorData)
UserFactorStopped = EventType("evs.user.factor-stopped", UserFactorData)
UserRecoveryCodeUsed = EventType("evs.user.recovery-code-used", UserRecoveryCodeUsedData)
SessionStarted = EventType("evs.session.started", SessionStartedData)
SessionEnded = EventType("evs.session.ended", SessionEndedData)
TokenIssued = EventType("evs.token.issued", TokenIssuedData)
TokenRevoked = EventType("evs.token.revoked", TokenRevokedData)
ClientRegistered = EventType("evs.client.registered", ClientChangedData)
ClientChanged = EventType("evs.client.changed", ClientChangedData)
ClientSecretRotated = EventType("evs.client.secret-rotated", ClientChangedData)
ClientDisabled = EventType("evs.client.disabled", ClientChangedData)
ClientEnabled = EventType("evs.client.enabled", ClientChangedData)
ClientRemoved = EventType("evs.client.removed", ClientChangedData)
KeyPublished = EventType("evs.key.published", KeyChangedData)
KeyRetired = EventType("evs.key.retired", KeyChangedData)
KeyRevoked = EventType("evs.key.revoked", KeyChangedData)
AccessRequested = EventType("evs.access.requested", AccessRequestedData)
AccessGranted = EventType("evs.access.granted", AccessGrantedData)
AccessRefused = EventType("evs.access.refused", AccessRefusedData)

ALL = (
    UserRegistered,
    UserInvited,
    UserDeleted,
    UserProfileChanged,
    UserEmailVerified,
    UserEmailChanged,
    GrantGiven,
    GrantRevoked,
    GrantDelegated,
    DelegationUsed,
    DelegationWithdrawn,
    UserDisabled,
    UserEnabled,
    UserPasswordChanged,
    UserRolesChanged,
    GroupCreated,
    GroupChanged,
    GroupDeleted,
    GroupMemberAdded,
    GroupMemberRemoved,
    RoleCreated,
    RoleChanged,
    RoleDeleted,
    ResourceCreated,
    ResourceChanged,
    ResourceDeleted,
    ResourceSecretRotated,
    UserFactorAdded,
    UserFactorRemoved,
    UserFactorStopped,
    UserRecoveryCodeUsed,
    SessionStarted,
    SessionEnded,
    TokenIssued,
    TokenRevoked,
    ClientRegistered,
    ClientChanged,
    ClientSecretRotated,
    ClientDisabled,
    ClientEnabled,
    ClientRemoved,
    KeyPublished,
    KeyRetired,
    KeyRevoked,
    AccessRequested,
    AccessGranted,
    AccessRefused,
)
