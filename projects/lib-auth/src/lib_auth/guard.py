"""Route guards: who calls, and whether they may; refusals that tell a client what to do (RFC 6750, RFC 9728)."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from fastapi import Request

from lib_auth.access_token import RevocationsUnknown, TokenRejected, TokenVerifier
from lib_auth.credentials import Credentials, SenderCheck, read_credentials
from lib_auth.dpop import ALGORITHMS, ReplayMemory
from lib_auth.jwks import KeysUnavailable
from lib_auth.principal import Principal
from lib_events.event import current_cause
from lib_events.problem import Problem

RETRY_AFTER_SECONDS = "1"


class Guard:
    """Guards the routes of one resource server.

    `Depends(guard.requires(scope="workflows:read", role="member"))` gives a route its `Principal`.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        *,
        resource_metadata: str,
        origin: str | None = None,
        replay_memory: ReplayMemory | None = None,
    ) -> None:
        """`origin` is where clients send requests to; without one it is that of the metadata's URL.

        A server of several processes gives a `replay_memory` that they share, so that no DPoP proof counts twice.
        """
        self._verifier = verifier
        self._resource_metadata = resource_metadata
        seen_from = origin or "{0.scheme}://{0.netloc}".format(urlsplit(resource_metadata))
        self._sender = SenderCheck(seen_from, replay_memory=replay_memory)

    def requires(
        self,
        *,
        scope: str | None = None,
        role: str | None = None,
        permission: str | None = None,
        acr: Sequence[str] = (),
        max_age_seconds: int | None = None,
    ) -> Callable[[Request], Awaitable[Principal]]:
        """Return a dependency: scope limits the client, role and permission the person; all must hold.

        `acr` names the levels of sign-in that are good enough, `max_age_seconds` how long ago it may be.
        """

        async def check(request: Request) -> Principal:
            principal = await self.authenticate(request)
            self.authorise(principal, scope=scope, role=role, permission=permission)
            self.require_sign_in(principal, acr=acr, max_age_seconds=max_age_seconds)
            return principal

        return check

    async def authenticate(self, request: Request) -> Principal:
        """Return who calls; raises the `Problem` 401, or 503 when nobody can say whether the token is good."""
        credentials = read_credentials(request)
        if credentials is None:
            raise self._unauthorised("Send an access token in the header Authorization: Bearer …", None)
        with self._refusing(credentials):
            principal = await self._verifier.verify(credentials.token)
            await self._sender.check(request, credentials, principal)
        cause_principal(principal)
        return principal

    async def confirm(self, request: Request) -> None:
        """Raise as `authenticate` did not: for a body that came later than what it was let in by, which may be hours.

        Its DPoP proof was taken then, and is not asked for twice.
        """
        credentials = read_credentials(request)
        assert credentials is not None  # noqa: S101 - it was let in with some
        with self._refusing(credentials):
            await self._verifier.verify(credentials.token)

    def authorise(
        self,
        principal: Principal,
        *,
        scope: str | None = None,
        role: str | None = None,
        permission: str | None = None,
    ) -> None:
        """Raise the `Problem` 403 unless `principal` has all of them."""
        if scope is not None and not principal.has_scope(scope):
            raise Problem(
                403,
                "insufficient-scope",
                "The token does not reach that far",
                f"the access token must have the scope {scope}; sign in again and ask for it",
                headers={"www-authenticate": insufficient_scope(scope, resource_metadata=self._resource_metadata)},
                scope=scope,
            )
        if role is not None and not principal.has_role(role):
            raise Problem(
                403,
                "role-missing",
                "You may not do that",
                f"this needs the role {role}; ask for it with: evs auth request-role {role}",
                role=role,
            )
        if permission is not None and not principal.has_permission(permission):
            raise Problem(
                403,
                "permission-missing",
                "You may not do that",
                f"this needs a role that carries the permission {permission}; ask an administrator",
                permission=permission,
            )

    def require_sign_in(
        self, principal: Principal, *, acr: Sequence[str] = (), max_age_seconds: int | None = None
    ) -> None:
        """Raise the `Problem` 401 that sends the person through a better or fresher sign-in (RFC 9470 section 3)."""
        if (not acr or principal.acr in acr) and (max_age_seconds is None or _is_fresh(principal, max_age_seconds)):
            return
        detail = "this needs a stronger or more recent sign-in; send the person there with these parameters"
        told = {
            "resource_metadata": self._resource_metadata,
            "error": "insufficient_user_authentication",
            "error_description": detail,
            "acr_values": " ".join(acr),
            "max_age": None if max_age_seconds is None else str(max_age_seconds),
        }
        headers = {"www-authenticate": _scheme("Bearer", told)}
        raise Problem(401, "stronger-sign-in-needed", "Sign in once more", detail, headers=headers)

    @contextmanager
    def _refusing(self, credentials: Credentials) -> Iterator[None]:
        try:
            yield
        except TokenRejected as error:
            raise self._unauthorised(error.detail, error, scheme=credentials.scheme) from error
        except (KeysUnavailable, RevocationsUnknown) as error:
            raise Problem(
                503,
                "token-check-unavailable",
                "Tokens cannot be checked",
                f"{error}; try again in a moment",
                headers={"retry-after": RETRY_AFTER_SECONDS},
            ) from error

    def _unauthorised(self, detail: str, error: TokenRejected | None, *, scheme: str = "bearer") -> Problem:
        named = challenge(error, scheme=scheme, resource_metadata=self._resource_metadata)
        return Problem(401, "not-signed-in", "Sign in first", detail, headers={"www-authenticate": named})


def challenge(error: TokenRejected | None, *, scheme: str = "bearer", **parameters: str | None) -> str:
    """The `WWW-Authenticate` of a 401: what was wrong, in the scheme that was used (RFC 6750, RFC 9449 section 7.1)."""
    if error is None:
        return _scheme("Bearer", parameters)
    code = "invalid_dpop_proof" if error.reason == "proof" else "invalid_token"
    told = parameters | {"error": code, "error_description": error.detail}
    return _scheme("DPoP", told | {"algs": " ".join(ALGORITHMS)}) if scheme == "dpop" else _scheme("Bearer", told)


def _is_fresh(principal: Principal, seconds: int) -> bool:
    signed_in = principal.authenticated_at
    return signed_in is not None and datetime.now(UTC) - signed_in <= timedelta(seconds=seconds)


def cause_principal(principal: Principal) -> None:
    """Let every event that this request leads to carry who caused it."""
    current_cause.set(replace(current_cause.get(), principal=str(principal)))


def insufficient_scope(scope: str, **parameters: str | None) -> str:
    """The `WWW-Authenticate` of a 403: which scope is missing."""
    return _scheme("Bearer", parameters | {"error": "insufficient_scope", "scope": scope})


def _scheme(name: str, parameters: Mapping[str, str | None]) -> str:
    told = ", ".join(f'{key}="{_quotable(text)}"' for key, text in parameters.items() if text)
    return f"{name} {told}".strip()


def _quotable(text: str) -> str:
    return "".join(letter for letter in text if " " <= letter <= "~" and letter not in '"\\')
