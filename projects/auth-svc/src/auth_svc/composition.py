"""The composition root: opens the database, wires the parts, and keeps the loops running while the app serves."""

import logging
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from auth_svc import first_start
from auth_svc.audit import Actor
from auth_svc.audit_chain import AuditChain
from auth_svc.clients.documents import ClientDocuments
from auth_svc.clients.keys import ClientKeys
from auth_svc.clients.logout_notices import LogoutNotices, plan_logouts
from auth_svc.endpoints.discovery import describe_events
from auth_svc.mail.postman import Postman
from auth_svc.mail.transport import sender_of, transport_of
from auth_svc.people.approvals import APP_SERVICE, ApprovalDecided, hear_decision
from auth_svc.people.decoys import Decoys
from auth_svc.people.password_policy import PasswordPolicy
from auth_svc.people.passwords import Passwords
from auth_svc.people.recovery import RecoveryDesk
from auth_svc.protocol.effects import take_proof
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.key_rotation import KeyRotation
from auth_svc.protocol.nonces import Nonces
from auth_svc.protocol.own_tokens import OwnRevocations
from auth_svc.protocol.signing_keys import SigningKeys
from auth_svc.pruner import Pruner
from auth_svc.rate_limits import Attempts, Limit, Limits
from auth_svc.rights import definitions
from auth_svc.rights.definitions import Definitions
from auth_svc.rights.resources import Resources
from auth_svc.rights.role_news import RoleNews
from auth_svc.service import AuthService
from auth_svc.settings import SERVICE, AuthSettings
from auth_svc.tables import SCHEMA
from auth_svc.upstreams.client import UpstreamClient
from lib_auth import events as account_events
from lib_auth.access_token import TokenVerifier
from lib_auth.credentials import SenderCheck
from lib_auth.guard import Guard
from lib_auth.revocations import SLACK_SECONDS
from lib_auth.used_proofs import UsedProofs
from lib_events import event_log
from lib_events.clock import SystemClock
from lib_events.contracts.remembered import keep_contracts
from lib_events.database import Database, open_database
from lib_events.event import EventRegistry
from lib_events.handling.subscriptions import Subscriptions
from lib_events.http.checked import CheckedHttp
from lib_events.lifecycle import Loop, running
from lib_events.log.retention import Keep, Retention
from lib_events.nats.broker import Broker
from lib_events.nats.importer import Importer
from lib_events.nats.relay import Relay
from lib_events.sealed import SealingKey
from lib_events.secret_file import create_secret

logger = logging.getLogger(__name__)

SEALING_KEY_FILE = "sealing-key"
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
        issuer = Issuer(
            url,
            keys,
            Resources(url, settings.app_url),
            Nonces(secret),
            session_seconds=settings.session_minutes * 60,
            refresh_seconds=settings.refresh_days * 24 * 3600,
            refresh_grace_seconds=settings.refresh_grace_seconds,
            second_factor_roles=frozenset(settings.require_second_factor),
            takes_documents=settings.client_documents,
        )
        await _first_start(database, settings, issuer, passwords)
        postman = Postman(database, transport, sender=sender, issuer=url, clock=clock)
        await database.transact(definitions.put_built_in, url, settings.app_url, clock.micros())
        async with CheckedHttp(settings.destinations(is_loopback=issuer.is_loopback)) as http:
            service = _wire(
                settings,
                database,
                issuer=issuer,
                passwords=passwords,
                decoys=Decoys(database, secret),
                postman=postman,
                http=http,
                rotation=rotation,
                sealing_key=sealing_key,
                contracts=contracts,
            )
            await service.definitions.refresh()
            await service.decoys.refresh()
            async with running(*_loops(service), LogoutNotices(database, issuer, http, clock)):
                yield service
    finally:
        passwords.close()
        await database.close()


def _wire(
    settings: AuthSettings,
    database: Database,
    *,
    issuer: Issuer,
    passwords: Passwords,
    decoys: Decoys,
    postman: Postman,
    http: CheckedHttp,
    rotation: KeyRotation,
    sealing_key: SealingKey,
    contracts: Mapping[str, int],
) -> AuthService:
    app, admin = issuer.resources.app, issuer.resources.admin
    revocations = OwnRevocations(database)
    used = UsedProofs(database, take_proof)

    def verifier(audience: str | Container[str]) -> TokenVerifier:
        return TokenVerifier(issuer=issuer.url, audience=audience, keys=issuer.keys, revocations=revocations)

    return AuthService(
        settings=settings,
        database=database,
        event_document=describe_events(contracts),
        issuer=issuer,
        client_keys=ClientKeys(http),
        key_rotation=rotation,
        definitions=Definitions(database, issuer, ensure_key=rotation.ensure),
        passwords=passwords,
        decoys=decoys,
        limits=Limits(),
        client_documents=ClientDocuments(
            database,
            http,
            Attempts(Limit(30, 300)),
            SystemClock(),
            allowed=settings.client_documents,
            ensure_key=rotation.ensure,
        ),
        postman=postman,
        recovery_desk=RecoveryDesk(database, SystemClock()),
        upstream_client=UpstreamClient(http, SystemClock()),
        sealing_key=sealing_key,
        verifier=verifier(issuer.resources),
        sender=SenderCheck(issuer.url, replay_memory=used),
        admin_guard=Guard(
            verifier(admin), resource_metadata=f"{issuer.url}{RESOURCE_METADATA}/v1/admin", replay_memory=used
        ),
        app_guard=Guard(
            verifier(app), resource_metadata=app + RESOURCE_METADATA, origin=issuer.url, replay_memory=used
        ),
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
        Retention(database, events_to_keep(settings), is_published=broker is not None),
        Pruner(
            database,
            service.clock,
            audit_days=settings.audit_retention_days,
            unused_client_days=settings.unused_client_days,
        ),
        AuditChain(database),
        RoleNews(database, service.clock),
        service.definitions,
        service.decoys,
        service.key_rotation,
        service.postman,
        service.recovery_desk,
    ]
    return loops


def events_to_keep(settings: AuthSettings) -> Keep:
    """As the settings say, and what was revoked as long as what it refuses could be used: resource servers read it."""
    return Keep(
        age=timedelta(days=settings.event_retention_days),
        events=settings.event_retention_count,
        at_least=timedelta(seconds=LONGEST_ACCESS_SECONDS + SLACK_SECONDS),
    )


async def _first_start(database: Database, settings: AuthSettings, issuer: Issuer, passwords: Passwords) -> None:
    now = SystemClock().micros()
    if not await database.read(first_start.has_users):
        admin = first_start.prepare_admin(settings, passwords)
        await database.transact(first_start.create_admin, admin, Actor(now, who="first start"))
    await database.transact(first_start.put_clients, first_start.prepare_clients(settings, issuer, now))
