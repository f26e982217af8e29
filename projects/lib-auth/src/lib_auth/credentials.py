"""The token a request brings and how it brings it: as Bearer (RFC 6750), or bound to a key (DPoP, RFC 9449)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from starlette.requests import Request

from lib_auth.access_token import TokenRejected
from lib_auth.dpop import ProofRejected, ReplayMemory, SeenProofs, check_fresh, read_proof
from lib_auth.principal import Principal


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access token, not yet verified, and the proof that came with it."""

    scheme: Literal["bearer", "dpop"]
    token: str = field(repr=False)
    proofs: tuple[str, ...] = field(default=(), repr=False)


def read_credentials(request: Request) -> Credentials | None:
    """Return the `Authorization` header's token; tokens in URLs are not looked at (RFC 6750 section 5.3)."""
    headers = request.headers.getlist("authorization")
    scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    if not (token := token.strip()):
        return None
    match scheme.lower():
        case "bearer":
            return Credentials("bearer", token)
        case "dpop":
            return Credentials("dpop", token, tuple(request.headers.getlist("dpop")))
        case _:
            return None


class SenderCheck:
    """Whether a token comes from whom it was issued to, for the requests of one server (RFC 9449 section 7)."""

    def __init__(
        self, origin: str, *, replay_memory: ReplayMemory | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Without a `replay_memory` this process remembers alone: another one of the server takes a proof again."""
        self._origin = origin  # as clients see it: what a proof's `htu` begins with
        self._replay_memory = replay_memory or SeenProofs()
        self._clock = clock

    async def check(self, request: Request, credentials: Credentials, principal: Principal) -> None:
        """Raise `TokenRejected` unless the token's key, if it has one, was proven to be held."""
        if principal.key_thumbprint is None:
            if credentials.scheme == "dpop":
                raise TokenRejected("binding", "the access token is not bound to a key; send it as Bearer")
            return
        if credentials.scheme != "dpop":
            # RFC 9449 section 7.2: or a stolen token would only have to be called Bearer.
            raise TokenRejected("binding", "the access token is bound to a key; send it as DPoP, with a proof")
        if len(credentials.proofs) != 1:
            raise TokenRejected("proof", "a DPoP token needs exactly one DPoP header")
        try:
            await self._check_proof(request, credentials, principal.key_thumbprint)
        except ProofRejected as error:
            raise TokenRejected("proof", str(error)) from error

    async def _check_proof(self, request: Request, credentials: Credentials, thumbprint: str) -> None:
        now = self._clock()
        url = self._origin + _path_of(request)
        proof = read_proof(credentials.proofs[0], method=request.method, url=url, access_token=credentials.token)
        check_fresh(proof, now)
        if proof.thumbprint != thumbprint:
            raise ProofRejected("the DPoP proof is made with another key than the access token is bound to")
        if not await self._replay_memory.take(proof.digest, now):
            raise ProofRejected("the DPoP proof was used before (jti); make one for each request")


def _path_of(request: Request) -> str:
    """The path as the client wrote it: what is escaped in it is escaped in the proof's `htu`."""
    raw: bytes | None = request.scope.get("raw_path")
    return quote(request.url.path) if raw is None else raw.decode("latin-1")
