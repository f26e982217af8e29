"""A service that accepts the issuer's tokens, whole: keys, revocations, guards and metadata, wired in one place."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lib_auth.access_token import TokenVerifier
from lib_auth.client import REQUEST_TIMEOUT_SECONDS
from lib_auth.dpop import ALGORITHMS, ReplayMemory
from lib_auth.guard import Guard
from lib_auth.jwks import ALGORITHMS as SIGNING_ALGORITHMS
from lib_auth.jwks import RemoteKeys
from lib_auth.principal import Principal
from lib_auth.revocations import Revocations
from lib_events.lifecycle import running
from lib_events.problem import install_problem_handlers

WELL_KNOWN = "/.well-known/oauth-protected-resource"
JWKS_PATH = "/oauth2/jwks"


class ResourceServer:
    """One resource server (RFC 9728). `requires` guards its routes, `protect` keeps it current while it serves.

    `client_id` and `client_secret` are those of the resource at the issuer: with them it hears of every revocation,
    and refuses when it cannot. `algorithms` are those its tokens may be signed with: all the issuer has, or fewer.
    A service of several processes gives a `replay_memory` that they share (`Guard`).
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        client_id: str,
        client_secret: str,
        scopes: Sequence[str] = (),
        algorithms: Sequence[str] = SIGNING_ALGORITHMS,
        replay_memory: ReplayMemory | None = None,
    ) -> None:
        self._issuer = issuer.rstrip("/")
        self._audience = audience
        self._scopes = list(scopes)
        self._http = httpx.AsyncClient(timeout=REQUEST_TIMEOUT_SECONDS)
        self._revocations = Revocations(
            issuer=self._issuer, client_id=client_id, client_secret=lambda: client_secret, http=self._http
        )
        keys = RemoteKeys(self._http, self._issuer + JWKS_PATH)
        verifier = TokenVerifier(
            issuer=self._issuer, audience=audience, keys=keys, revocations=self._revocations, algorithms=algorithms
        )
        self._guard = Guard(verifier, resource_metadata=self._metadata_url, replay_memory=replay_memory)

    @property
    def _metadata_url(self) -> str:
        """RFC 9728 section 3.1: between the host and the path of the resource."""
        parts = urlsplit(self._audience)
        return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}"

    def requires(
        self,
        *,
        scope: str | None = None,
        role: str | None = None,
        permission: str | None = None,
        acr: Sequence[str] = (),
        max_age_seconds: int | None = None,
    ) -> Callable[[Request], Awaitable[Principal]]:
        """Return the dependency that lets in who may; see `Guard.requires`."""
        return self._guard.requires(
            scope=scope, role=role, permission=permission, acr=acr, max_age_seconds=max_age_seconds
        )

    async def check_ready(self) -> str | None:
        """A readiness check: None, or why tokens cannot be accepted yet."""
        return await self._revocations.check_ready()

    def protect(self, app: FastAPI) -> FastAPI:
        """Give `app` the metadata and the answers to refusals, and follow the revocations while it serves."""
        app.router.routes.append(Route(urlsplit(self._metadata_url).path, self._metadata))
        install_problem_handlers(app)
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(served: Any) -> AsyncIterator[Any]:
            async with inner(served) as state, self._http, running(self._revocations):
                yield state

        app.router.lifespan_context = lifespan
        return app

    async def _metadata(self, _request: Request) -> Response:
        """Where to sign in for this service (RFC 9728 section 2)."""
        document = {
            "resource": self._audience,
            "authorization_servers": [self._issuer],
            "scopes_supported": self._scopes,
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": list(ALGORITHMS),
        }
        return JSONResponse(document, headers={"access-control-allow-origin": "*"})
