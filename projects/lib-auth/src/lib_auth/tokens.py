"""The tokens a client holds, and how they look when they are kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class TokenSet:
    """One answer of a token endpoint."""

    access_token: str
    expires_at: datetime
    scope: frozenset[str] = frozenset()
    refresh_token: str | None = None
    id_token: str | None = None

    def __repr__(self) -> str:
        return f"TokenSet(expires_at={self.expires_at.isoformat()}, scope={sorted(self.scope)})"  # no secrets in logs

    def expires_within(self, seconds: float) -> bool:
        """Whether the access token is unusable in `seconds` from now."""
        return self.seconds_left <= seconds

    @property
    def seconds_left(self) -> float:
        """How long the access token is good from now on; less than 0 for one that has expired."""
        return (self.expires_at - datetime.now(UTC)).total_seconds()

    @classmethod
    def of(cls, answer: Mapping[str, Any], *, requested_scope: str = "") -> "TokenSet":
        """Read a token answer (RFC 6749 section 5.1); no `scope` means what was asked for."""
        lifetime = float(answer.get("expires_in", 0))
        return cls(
            access_token=str(answer["access_token"]),
            expires_at=datetime.now(UTC) + timedelta(seconds=lifetime),
            scope=frozenset(str(answer.get("scope", requested_scope)).split()),
            refresh_token=answer.get("refresh_token"),
            id_token=answer.get("id_token"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able copy for a token store."""
        return asdict(self) | {"expires_at": self.expires_at.isoformat(), "scope": sorted(self.scope)}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "TokenSet":
        """Read what `to_dict` made."""
        return cls(
            access_token=kept["access_token"],
            expires_at=datetime.fromisoformat(kept["expires_at"]),
            scope=frozenset(kept["scope"]),
            refresh_token=kept["refresh_token"],
            id_token=kept["id_token"],
        )
