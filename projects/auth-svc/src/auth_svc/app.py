"""The composition root: opens the database, wires the parts, and keeps the loops running while the app serves."""

import logging
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

from fastapi import FastAPI
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response

from auth_svc import first_start
from auth_svc.api import rest_routes
from auth_svc.api.administrator import install_change_handlers
from auth_svc.api.openapi import install_openapi
from auth_svc.api.transfer import IMPORT_PATH
from auth_svc.audit import Actor
from auth_svc.audit_chain import AuditChain
from auth_svc.clients.documents import ClientDocuments
from auth_svc.clients.keys import ClientKeys
from auth_svc.clients.logout_notices import LogoutNotices, plan_logouts
from auth_svc.endpoints.discovery import describe_events
from auth_svc.endpoints.oauth_http import ProtocolRefused, protocol_refused
from auth_svc.mail.postman import Postman
from auth_svc.mail.transport import sender_of, transport_of
from auth_svc.pages.notices import error_page
from auth_svc.parameters import ParametersRejected
from auth_svc.people.approvals import APP_SERVICE, ApprovalDecided, hear_decision
from auth_svc.people.password_policy import PasswordPolicy
from auth_svc.people.passwords import Passwords, PasswordsBusy
from auth_svc.people.recovery import RecoveryDesk
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.key_rotation import KeyRotation
from auth_svc.protocol.nonces import Nonces
from auth_svc.protocol.own_tokens import OwnRevocations
from auth_svc.protocol.signing_keys import SigningKeys
from auth_svc.pruner import Pruner
from auth_svc.rate_limits import Attempts, Limit, SignInLimits, TooManyAttempts
from auth_svc.rights import definitions
from auth_svc.rights.definitions import Definitions
from auth_svc.rights.resources import Resources
from auth_svc.routes import routes
from auth_svc.service import AuthService
from auth_svc.settings import SERVICE, AuthSettings
from auth_svc.site.browser import PageRefused, render
from auth_svc.tables import SCHEMA
from auth_svc.upstreams.client import UpstreamClient
from lib_auth import events as account_events
from lib_auth.access_token import TokenVerifier
from lib_auth.credentials import SenderCheck
from lib_auth.guard import Guard
from lib_events import event_log
from lib_events.broker import Broker
from lib_events.checked_http import CheckedHttp
from lib_events.clock import SystemClock
from lib_events.contracts import keep_contracts
from lib_events.database import UNAVAILABLE, Connection, Database, open_database
from lib_events.event import EventRegistry
from lib_events.health import Check, health_routes
from lib_events.http_limits import MEBIBYTE, BodyLimit, HostCheck
from lib_events.importer import Importer
from lib_events.lifecycle import Loop, running
from lib_events.problem import install_problem_handlers
from lib_events.relay import Relay
from lib_events.retention import Keep, Retention
from lib_events.sealed import SealingKey
from lib_events.secret_file import create_secret
from lib_events.subscriptions import Subscriptions
from lib_events.telemetry import Metrics, RequestTelemetry

logger = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 64 * 1024
SEALING_KEY_FILE = "sealing-key"
IMPORT_LIMIT_BYTES = 64 * MEBIBYTE  # read only once an administrator has signed in
RESOURCE_METADATA = "/.well-known/oauth-protected-resource"
SCHEMAS = (event_log.SCHEMA, SCHEMA)
EVENT_TYPES = EventRegistry(*account_events.ALL, ApprovalDecided)


@asynccontextmanager
async def open_service(settings: AuthSettings) -> AsyncIterator[AuthService]:
    """Open everything and keep it running inside the block.

    Raises `SettingsRejected` and `DatabaseError`.
    """
    url = settings.check_issuer()
    settings.prepare_data()
    policy, transport, sender = PasswordPolicy(settings.breached_passwords), transport_of(settings), sender_of(settings)
    database = await open_database(settings.database_url_of(SERVICE), service=SERVICE, schemas=SCHEMAS)
    passwords = Passwords(threads=settings.hash_threads, policy=policy)
    try:
        contracts = await database.transact(keep_contracts, EVENT_TYPES.schemas())
        secret = settings.sealing_key or create_secret(settings.secrets / SEALING_KEY_FILE, SealingKey.generate)
        keys, clock = SigningKeys(), SystemClock()
        sealing_key = SealingKey(secret)
        rotation = KeyRotation(database, keys, sealing_key, days=settings.signing_key_days, clock=clock)
        await rotation.begin(settings.secrets)
        issuer = Issuer(url, keys, Resources(url, settings.app_url), Nonces(secret), settings.refresh_grace_seconds)
        await _first_start(database, settings, issuer, passwords)
        postman = Postman(database, transport, sender=sender, issuer=url, clock=clock)
        await database.transact(definitions.put_built_in, url, settings.app_url, clock.micros())
        async with CheckedHttp(settings.destinations(is_loopback=issuer.is_loopback)) as http:
            service = _wire(
                settings,
                database,
                issuer=issuer,
                passwords=passwords,
                postman=postman,
                http=http,
                rotation=rotation,
                sealing_key=sealing_key,
                contracts=contracts,
            )
            await service.definitions.refresh()
            async with running(*_loops(service), LogoutNotices(database, issuer, http, clock)):
                yield service
    finally:
        passwords.close()
        await database.close()


def create_app(service: AuthService) -> FastAPI:
    """Return the application that answers for an open service."""
    metrics = Metrics(SERVICE)
    app = FastAPI(
        title="AuthService",
        version="1",
        docs_url=None,
        redoc_url=None,
        routes=[
            *routes(),
            *health_routes({"database": _check_database(service.database)}),
            metrics.route(),
            *rest_routes(),
        ],
    )
    app.state.service = service
    install_problem_handlers(app, unavailable=UNAVAILABLE)
    install_change_handlers(app)
    install_openapi(app, service.issuer.url)
    app.add_exception_handler(PageRefused, _page_refused)
    app.add_exception_handler(PasswordsBusy, _passwords_busy)
    app.add_exception_handler(TooManyAttempts, _too_many_attempts)
    app.add_exception_handler(ProtocolRefused, protocol_refused)
    app.add_exception_handler(ParametersRejected, protocol_refused)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limit_bytes=BODY_LIMIT_BYTES, larger={IMPORT_PATH: IMPORT_LIMIT_BYTES})
    app.add_middleware(HostCheck, hosts=[urlsplit(service.issuer.url).netloc])
    app.add_middleware(RequestTelemetry, metrics=metrics)
    return app


def _wire(
    settings: AuthSettings,
    database: Database,
    *,
    issuer: Issuer,
    passwords: Passwords,
    postman: Postman,
    http: CheckedHttp,
    rotation: KeyRotation,
    sealing_key: SealingKey,
    contracts: Mapping[str, int],
) -> AuthService:
    database = postman.database
    app, admin = issuer.resources.app, issuer.resources.admin
    revocations = OwnRevocations(database, issuer.keys)

    def verifier(audience: str | Container[str]) -> TokenVerifier:
        return TokenVerifier(issuer=issuer.url, audience=audience, keys=issuer.keys, revocations=revocations)

    return AuthService(
        settings=settings,
        database=database,
        event_document=describe_events(contracts),
        issuer=issuer,
        client_keys=ClientKeys(http),
        key_rotation=rotation,
        definitions=Definitions(database, issuer),
        passwords=passwords,
        sign_in_limits=SignInLimits(),
        second_factor_limits=SignInLimits(),
        passkey_limits=Attempts(Limit(60, 300)),
        upstream_limits=Attempts(Limit(60, 300)),
        user_code_limits=Attempts(Limit(20, 300)),
        device_limits=Attempts(Limit(60, 60)),
        push_limits=Attempts(Limit(60, 60)),
        client_limits=Attempts(Limit(20, 3600)),
        client_documents=ClientDocuments(
            database,
            http,
            Attempts(Limit(30, 300)),
            SystemClock(),
            allowed=settings.client_documents,
            ensure_key=rotation.ensure,
        ),
        registration_limits=Attempts(Limit(30, 3600)),
        recovery_limits=Attempts(Limit(10, 3600)),
        postman=postman,
        recovery_desk=RecoveryDesk(database, postman, SystemClock()),
        upstream_client=UpstreamClient(http),
        sealing_key=sealing_key,
        verifier=verifier(issuer.resources),
        sender=SenderCheck(issuer.url),
        admin_guard=Guard(verifier(admin), resource_metadata=f"{issuer.url}{RESOURCE_METADATA}/v1/admin"),
        app_guard=Guard(verifier(app), resource_metadata=app + RESOURCE_METADATA, origin=issuer.url),
        clock=SystemClock(),
    )


def _loops(service: AuthService) -> list[Loop]:
    """The background work: without NATS everything goes on, and events wait in the log."""
    database, settings = service.database, service.settings
    broker = Broker.of_settings(settings, SERVICE)
    loops: list[Loop] = []
    if broker is not None:
        loops.append(broker)
        types = [ApprovalDecided.name]
        loops.append(Importer(database, broker, sources=[APP_SERVICE], types=types, registry=EVENT_TYPES))
    loops += [
        Relay(database, broker),
        Subscriptions(database, [hear_decision, plan_logouts]),
        Retention(database, _keep(settings), is_published=broker is not None),
        Pruner(database, service.clock, audit_days=settings.audit_retention_days),
        AuditChain(database),
        service.definitions,
        service.key_rotation,
        service.postman,
        service.recovery_desk,
    ]
    return loops


def _keep(settings: AuthSettings) -> Keep:
    return Keep(age=timedelta(days=settings.event_retention_days), events=settings.event_retention_count)


async def _first_start(database: Database, settings: AuthSettings, issuer: Issuer, passwords: Passwords) -> None:
    now = SystemClock().micros()
    if not await database.read(first_start.has_users):
        admin = first_start.prepare_admin(settings, passwords)
        await database.transact(first_start.create_admin, admin, Actor(now, who="first start"))
    await database.transact(first_start.put_clients, first_start.prepare_clients(settings, issuer, now))


def _check_database(database: Database) -> Check:
    async def check() -> str | None:
        await database.read(_ping)
        return None

    return check


def _ping(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


async def _passwords_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, PasswordsBusy)  # noqa: S101 - registered for it
    busy = PageRefused(503, "Too many sign-ins at once", "Try again in a moment.", retry_after=error.retry_after)
    return await _page_refused(request, busy)


async def _too_many_attempts(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyAttempts)  # noqa: S101 - registered for it
    slower = PageRefused(429, "Too many attempts", f"Wait {error.wait} and try again.", retry_after=error.retry_after)
    return await _page_refused(request, slower)


async def _page_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, PageRefused)  # noqa: S101 - registered for it
    response = render(request, error_page(error.title, error.text, code=error.code), status=error.status)
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response
