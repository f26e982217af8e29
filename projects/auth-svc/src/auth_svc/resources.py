"""What tokens are for: the services that accept them, and the scopes that mean something there."""

from collections.abc import Sequence
from dataclasses import dataclass

ADMIN_PATH = "/v1/admin"
OPENID = frozenset(("openid", "profile", "email", "offline_access"))
APP_SCOPES = frozenset(
    (
        "workflows:read",
        "workflows:run",
        "workflows:manage",
        "events:read",
        "events:publish",
        "approvals:decide",
    )
)
ADMIN_SCOPES = frozenset(("admin",))
ALL_SCOPES = OPENID | APP_SCOPES | ADMIN_SCOPES

# What a person reads on the consent page.
DESCRIPTIONS = {
    "openid": "Know who you are",
    "profile": "See your user name",
    "email": "See your e-mail address",
    "offline_access": "Stay signed in until you sign it out",
    "workflows:read": "See workflows and runs",
    "workflows:run": "Start workflows and act on your runs",
    "workflows:manage": "Manage everybody's runs, queues and schedules",
    "events:read": "Read events",
    "events:publish": "Publish events",
    "approvals:decide": "Approve and reject in your name",
    "admin": "Administer users and clients",
}


class TargetInvalid(Exception):
    """The client asked for a resource it cannot have (RFC 8707 section 2: `invalid_target`)."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The two audiences of an installation."""

    issuer: str
    app: str

    @property
    def admin(self) -> str:
        """The audience of the admin API, the only one in which the scope `admin` exists."""
        return self.issuer + ADMIN_PATH

    def choose(self, requested: Sequence[str]) -> tuple[str, ...]:
        """Return the resources to authorise; none asked for means the AppService."""
        chosen = tuple(dict.fromkeys(resource.rstrip("/") for resource in requested))
        for resource in chosen:
            if resource not in (self.app, self.admin):
                raise TargetInvalid("the resource must be one of this installation")
        return chosen or (self.app,)

    def scopes_in(self, resource: str, scopes: frozenset[str]) -> frozenset[str]:
        """Return those of `scopes` that exist in `resource`."""
        return scopes & ((ADMIN_SCOPES if resource == self.admin else APP_SCOPES) | OPENID)
