"""What goes wrong between an OAuth client and its authorization server."""

from collections.abc import Mapping
from typing import Any


class OAuthError(Exception):
    """The authorization server refused; `error` is its code (RFC 6749 section 5.2)."""

    def __init__(
        self,
        error: str,
        description: str = "",
        *,
        status: int | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{error}: {description}" if description else error)
        self.error = error
        self.description = description
        self.status = status
        self.members = members or {}  # all that the answer said

    @classmethod
    def of(cls, body: Mapping[str, Any], *, status: int | None = None) -> "OAuthError":
        """Read an error answer or the error parameters of a redirect."""
        return cls(str(body.get("error")), str(body.get("error_description") or ""), status=status, members=body)


class ServerUnavailable(Exception):
    """The authorization server does not answer, or not as one."""


class ResponseForged(Exception):
    """An authorization response is not the answer to our request; it is dropped."""
