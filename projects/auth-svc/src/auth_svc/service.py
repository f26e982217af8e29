"""The parts every endpoint works with, wired once in `auth_svc.app`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from auth_svc.audit import Actor
from auth_svc.clients.documents import ClientDocuments
from auth_svc.clients.keys import ClientKeys
from auth_svc.mail.postman import Postman
from auth_svc.people.decoys import Decoys
from auth_svc.people.passwords import Passwords
from auth_svc.people.recovery import RecoveryDesk
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.key_rotation import KeyRotation
from auth_svc.rate_limits import Limits
from auth_svc.rights.definitions import Definitions
from auth_svc.settings import AuthSettings
from auth_svc.upstreams.client import UpstreamClient
from lib_auth.access_token import TokenVerifier
from lib_auth.credentials import SenderCheck
from lib_auth.guard import Guard
from lib_events.clock import Clock
from lib_events.database import Database
from lib_events.event import Cause, current_cause
from lib_events.sealed import SealingKey


@dataclass(frozen=True, slots=True)
class AuthService:
    """One running AuthService."""

    settings: AuthSettings
    database: Database
    event_document: Mapping[str, Any]  # AsyncAPI
    issuer: Issuer
    client_keys: ClientKeys
    key_rotation: KeyRotation
    definitions: Definitions  # keeps the issuer's resources and roles current
    passwords: Passwords
    decoys: Decoys  # of people who are not there
    limits: Limits
    client_documents: ClientDocuments
    postman: Postman
    recovery_desk: RecoveryDesk
    sealing_key: SealingKey  # of what must be used again: secrets of apps and of clients elsewhere
    upstream_client: UpstreamClient
    verifier: TokenVerifier  # of our own tokens, whatever they are for
    sender: SenderCheck
    admin_guard: Guard
    app_guard: Guard
    clock: Clock
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # whoever holds an answer back gives it now

    def actor(self, request: Request, who: str | None = None) -> Actor:
        """Who acts in `request`, now."""
        return Actor(self.clock.micros(), who, address_of(request))


def service_of(request: Request) -> AuthService:
    """The service that answers `request`."""
    service: AuthService = request.app.state.service
    return service


def act_as(subject: str) -> None:
    """Let every event that this request leads to carry who caused it."""
    cause = current_cause.get()
    current_cause.set(Cause(cause.correlation_id, cause.causation_id, subject, cause.traceparent))


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else "unknown"
