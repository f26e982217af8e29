"""A request and an answer as the protocol's decisions see them, free of any web framework."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import OAuth2Request
from authlib.oauth2.rfc6749.requests import OAuth2Payload

BASIC_CHALLENGE = 'Basic realm="event-based-svcs"'  # RFC 7617 section 2: a challenge names its realm


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client; a redirect has its `location` and no body."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Payload(OAuth2Payload):  # type: ignore[misc]
    """The parameters of a request, and each as often as it came."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = pairs
        self._lists: dict[str, list[str]] = {}
        for name, value in pairs:
            self._lists.setdefault(name, []).append(value)
        self._data = {name: values[0] for name, values in self._lists.items()}

    @property
    def data(self) -> dict[str, str]:
        """The first value of each parameter."""
        return self._data

    @property
    def datalist(self) -> dict[str, list[str]]:
        """All values of each parameter."""
        return self._lists


class ProtocolRequest(OAuth2Request):  # type: ignore[misc]
    """A request as Authlib sees it."""

    def __init__(
        self,
        method: str,
        pairs: Sequence[tuple[str, str]],
        authorization: str = "",
        *,
        url: str = "",
        proofs: Sequence[str] = (),
        idempotency_key: str = "",
    ) -> None:
        """`authorization` is the header, `url` the endpoint's own, `proofs` the DPoP headers (RFC 9449).

        By `idempotency_key` whoever asks again is known.
        """
        # Not Authlib's own, which asks each time whether a URL is https: what is acceptable was decided at start-up.
        self.method = method
        self.authorization = authorization
        self.headers = {"Authorization": authorization}  # all that Authlib reads of them
        self.payload = Payload(pairs)
        self.url = url
        self.proofs = tuple(proofs)
        self.idempotency_key = idempotency_key
        self.client: Any = None  # what the grants find out
        self.user: Any = None
        self.auth_method: str | None = None
        self.authorization_code: Any = None
        self.refresh_token: Any = None
        self.credential: Any = None
        self._scope: str | None = None

    @property
    def form(self) -> dict[str, str]:
        """The parameters."""
        data: dict[str, str] = self.payload.data
        return data

    @property
    def args(self) -> dict[str, str]:
        """The parameters."""
        return self.form
