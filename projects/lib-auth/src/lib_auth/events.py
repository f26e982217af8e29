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


class TokenRevokedData(Payload):
    """Every access token that one of the given fields names is refused from now on.

    `token`, `family` and `session` refuse for good; `user` and `client` what was issued until `issued_until`.
    """

    token: str | None = None
    family: str | None = None
    session: str | None = None
    user: str | None = None
    client: str | None = None
    issued_until: int = 0  # seconds since the epoch
    expires_at: int = 0  # seconds since the epoch: the last of those tokens has expired by then


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
UserDisabled = EventType("evs.user.disabled", UserChangedData)
UserEnabled = EventType("evs.user.enabled", UserChangedData)
UserPasswordChanged = EventType("evs.user.password-changed", UserChangedData)
UserRolesChanged = EventType("evs.user.roles-changed", UserRolesChangedData)
UserFactorAdded = EventType("evs.user.factor-added", UserFactorData)
UserFactorRemoved = EventType("evs.user.factor-removed", UserFactorData)
UserRecoveryCodeUsed = EventType("evs.user.recovery-code-used", UserRecoveryCodeUsedData)
SessionStarted = EventType("evs.session.started", SessionStartedData)
SessionEnded = EventType("evs.session.ended", SessionEndedData)
TokenIssued = EventType("evs.token.issued", TokenIssuedData)
TokenRevoked = EventType("evs.token.revoked", TokenRevokedData)
AccessRequested = EventType("evs.access.requested", AccessRequestedData)
AccessGranted = EventType("evs.access.granted", AccessGrantedData)
AccessRefused = EventType("evs.access.refused", AccessRefusedData)

ALL = (
    UserRegistered,
    UserDisabled,
    UserEnabled,
    UserPasswordChanged,
    UserRolesChanged,
    UserFactorAdded,
    UserFactorRemoved,
    UserRecoveryCodeUsed,
    SessionStarted,
    SessionEnded,
    TokenIssued,
    TokenRevoked,
    AccessRequested,
    AccessGranted,
    AccessRefused,
)
