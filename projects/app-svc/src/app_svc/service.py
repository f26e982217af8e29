"""The composition root: opens the database, wires the parts, and keeps the loops running."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import httpx
from sqlalchemy import text

from app_svc import tables
from app_svc.delegations import hear_withdrawals
from app_svc.delegator import Delegator
from app_svc.engine_metrics import EngineMetrics
from app_svc.kept_tokens import Anywhere
from app_svc.progress import Progress
from app_svc.schedule_owners import hear_schedule_owners
from app_svc.settings import CLIENT_ID, SERVICE, AppSettings
from app_svc.starter_tokens import DelegationEnds, StarterTokens
from app_svc.streams import Streams
from app_svc.webhook_owners import hear_owners, may_read
from app_svc.workflow_loading import Loaded, WorkflowsNotLoaded, load_workflows
from lib_auth import events as account_events
from lib_auth import tables as auth_tables
from lib_auth.access_token import TokenVerifier
from lib_auth.delegations import Delegations
from lib_auth.guard import Guard
from lib_auth.jwks import RemoteKeys
from lib_auth.revocations import Revocations, hear_revocations
from lib_auth.used_proofs import ProofPruner, UsedProofs
from lib_events import event_log
from lib_events.contracts.remembered import keep_contracts
from lib_events.database import Connection, Database, open_database
from lib_events.event import EventRegistry
from lib_events.handling.dead_letters import EVENT_TYPES as DEAD_LETTER_EVENTS
from lib_events.handling.subscriptions import Subscriptions
from lib_events.http.health import Check
from lib_events.lifecycle import Loop, running
from lib_events.log.feed import Feed
from lib_events.log.retention import Keep, Retention
from lib_events.nats.broker import Broker
from lib_events.nats.importer import Importer
from lib_events.nats.relay import Relay
from lib_events.sealed import SealingKey
from lib_events.secret_file import create_secret, read_secret
from lib_events.telemetry import Metrics, carry_trace
from lib_events.tracing.environment import open_traces
from lib_events.webhooks import webhook as webhooks
from lib_events.webhooks.delivery import Webhooks
from lib_events.webhooks.sender import Sender
from lib_workflows import Engine, Registry, RetentionPolicy
from lib_workflows import tables as workflow_tables
from lib_workflows.authoring.delegation import TokenSource
from lib_workflows.events.waits import oldest_look_back
from lib_workflows.keeping.archive import FolderArchive
from lib_workflows.queueing.events import EVENT_TYPES as QUEUE_EVENTS
from lib_workflows.runs.lifecycle_events import EVENT_TYPES
from lib_workflows.scheduling.events import EVENT_TYPES as SCHEDULE_EVENTS
from lib_workflows.workers.limits import Limits
from lib_workflows.workers.residence import OnProgress

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

SCHEMAS = (event_log.SCHEMA, workflow_tables.SCHEMA, auth_tables.SCHEMA, tables.SCHEMA)
SUBSCRIPTIONS = (hear_revocations, hear_owners, hear_schedule_owners, hear_withdrawals)
SEALING_KEY_FILE = "webhook-secrets.key"
IMPORTED_FROM = "auth-svc"
SOURCES_OF_IMPORTED = {event_type.name: IMPORTED_FROM for event_type in account_events.ALL}
IMPORTED_TYPES = ("evs.user.*", "evs.session.*", "evs.token.*", "evs.grant.*", "evs.access.*", "evs.client.*")


@dataclass(frozen=True, slots=True)
class Service:
    """The running parts, as the routes need them."""

    settings: AppSettings
    database: Database
    workflows: Registry
    event_registry: EventRegistry
    contracts: Mapping[str, int]  # the version of each event type
    engine: Engine
    guard: Guard
    agent_guard: Guard  # the same, and it tells whom it refuses where agents sign in
    streams: Streams
    progress: Progress
    metrics: Metrics
    engine_metrics: EngineMetrics
    revocations: Revocations
    webhooks: Webhooks
    sealing_key: SealingKey
    delegator: Delegator
    traces: "Traces | None" = None

    def checks(self) -> dict[str, Check]:
        """What must be well before requests can be answered. The broker is not among it: events wait in the log."""

        async def check_database() -> str | None:
            await self.database.read(_ping)
            return None

        return {"database": check_database, "revocations": self.revocations.check_ready}


@asynccontextmanager
async def open_service(settings: AppSettings) -> AsyncIterator[Service]:
    """Open everything and keep it running inside the block; on the way out the engine drains first."""
    loaded = load_workflows(settings.workflows)
    registry = registry_of(loaded)
    async with (
        open_traces(SERVICE, installed=True) as traces,
        _open_database(settings) as database,
        _http(traces) as http,
        Sender(settings.destinations) as sender,
    ):
        contracts = await database.transact(keep_contracts, registry.schemas())
        key = _sealing_key(settings)
        subscriptions = _subscriptions(database, loaded)
        deliveries = Webhooks(database, subscriptions, sender=sender, key=key, may_read=may_read)
        feed = Feed(database)
        known_revocations = Revocations(
            database, issuer=settings.auth_url, client_id=CLIENT_ID, client_secret=partial(_secret, settings), http=http
        )
        acting = _delegations(settings, http)
        keys = _keys(settings, http)
        verifier = TokenVerifier(
            issuer=settings.auth_url, audience=settings.app_url, keys=keys, revocations=known_revocations
        )
        progress, proofs = Progress(database.source), UsedProofs(database)
        loops = [subscriptions, deliveries, *_event_loops(settings, database, registry), feed, known_revocations]
        tokens = StarterTokens(database, acting, _verifier_of_others(settings, keys, known_revocations))
        async with (
            running(*loops, DelegationEnds(database, acting), ProofPruner(database)),
            _engine(settings, database, loaded, tokens, traces=traces, on_progress=progress.report) as engine,
        ):
            metrics, engine_metrics = Metrics(SERVICE), EngineMetrics(engine)
            metrics.registry.register(engine_metrics)
            yield Service(
                settings=settings,
                database=database,
                workflows=loaded.workflows,
                event_registry=registry,
                contracts=contracts,
                engine=engine,
                guard=Guard(verifier, resource_metadata=settings.resource_metadata, replay_memory=proofs),
                agent_guard=Guard(verifier, resource_metadata=settings.mcp_metadata, replay_memory=proofs),
                streams=Streams(feed, verifier),
                progress=progress,
                metrics=metrics,
                engine_metrics=engine_metrics,
                revocations=known_revocations,
                webhooks=deliveries,
                sealing_key=key,
                delegator=Delegator(acting),
                traces=traces,
            )


@asynccontextmanager
async def open_engine_only(settings: AppSettings) -> AsyncIterator[Engine]:
    """Run an engine and nothing that answers anybody; relay, importer and subscriptions wait to take the lead."""
    loaded = load_workflows(settings.workflows)
    registry = registry_of(loaded)
    async with (
        open_traces(SERVICE, installed=True) as traces,
        _open_database(settings) as database,
        _http(traces) as http,
        Sender(settings.destinations) as sender,
    ):
        await database.transact(keep_contracts, registry.schemas())
        subscriptions = _subscriptions(database, loaded)
        key = _sealing_key(settings)
        deliveries = Webhooks(database, subscriptions, sender=sender, key=key, may_read=may_read)
        known_revocations = Revocations(
            issuer=settings.auth_url, client_id=CLIENT_ID, client_secret=partial(_secret, settings), http=http
        )
        verifier = _verifier_of_others(settings, _keys(settings, http), known_revocations)
        tokens = StarterTokens(database, _delegations(settings, http), verifier)
        loops = [subscriptions, deliveries, *_event_loops(settings, database, registry)]
        if any(workflow.acts_for_starter for workflow in loaded.workflows.workflows):
            loops.append(known_revocations)  # of the tokens that steps are given
        async with (
            running(*loops),
            _engine(settings, database, loaded, tokens, traces=traces) as engine,
        ):
            yield engine


def _engine(
    settings: AppSettings,
    database: Database,
    loaded: Loaded,
    tokens: TokenSource,
    *,
    traces: "Traces | None",
    on_progress: OnProgress | None = None,
) -> Engine:
    limits = Limits() if settings.step_processes is None else Limits(step_processes=settings.step_processes)
    return Engine(
        database,
        loaded.workflows,
        on_progress=on_progress,
        limits=limits,
        queues=settings.queues or None,
        tags=settings.worker_tags,
        lease_seconds=settings.lease_seconds,
        retention=_run_retention(settings),
        tokens=tokens,
        traces=traces,
    )


def _http(traces: "Traces | None") -> httpx.AsyncClient:
    """For the AuthService."""
    return httpx.AsyncClient(event_hooks={"request": [carry_trace] if traces is not None else []})


def _delegations(settings: AppSettings, http: httpx.AsyncClient) -> Delegations:
    return Delegations(settings.auth_url, CLIENT_ID, client_secret=partial(_secret, settings), http=http)


def _keys(settings: AppSettings, http: httpx.AsyncClient) -> RemoteKeys:
    return RemoteKeys(http, f"{settings.auth_url}/oauth2/jwks")


def _verifier_of_others(settings: AppSettings, keys: RemoteKeys, known_revocations: Revocations) -> TokenVerifier:
    """For tokens with which runs act at other services."""
    return TokenVerifier(issuer=settings.auth_url, audience=Anywhere(), keys=keys, revocations=known_revocations)


def _secret(settings: AppSettings) -> str:
    """Ours at the AuthService, read when it is needed: it may not be there yet at our start."""
    return read_secret(settings.secrets / f"{CLIENT_ID}.secret")


def registry_of(loaded: Loaded) -> EventRegistry:
    """Return every event type there is to read here; raises `WorkflowsNotLoaded` when two claim a name."""
    try:
        return EventRegistry(
            *account_events.ALL,
            *EVENT_TYPES,
            *SCHEDULE_EVENTS,
            *QUEUE_EVENTS,
            *DEAD_LETTER_EVENTS,
            *webhooks.EVENT_TYPES,
            *loaded.event_types,
        )
    except ValueError as error:
        raise WorkflowsNotLoaded(str(error)) from error


@asynccontextmanager
async def _open_database(settings: AppSettings) -> AsyncIterator[Database]:
    database = await open_database(settings.database, service=SERVICE, schemas=SCHEMAS)
    try:
        yield database
    finally:
        await database.close()


def _subscriptions(database: Database, loaded: Loaded) -> Subscriptions:
    try:
        return Subscriptions(database, [*SUBSCRIPTIONS, *loaded.subscriptions])
    except ValueError as error:
        raise WorkflowsNotLoaded(f"subscriptions must not share a durable name: {error}; rename one") from error


def _event_loops(settings: AppSettings, database: Database, registry: EventRegistry) -> list[Loop]:
    """Relay, importer and retention; without NATS events stay in the log, and revocations come from the feed."""
    loops: list[Loop] = []
    broker = Broker.of_settings(settings, SERVICE)
    if broker is not None:
        loops += [
            broker,
            Importer(database, broker, sources=[IMPORTED_FROM], types=list(IMPORTED_TYPES), registry=registry),
        ]
    keep = Keep(age=timedelta(days=settings.event_retention_days), events=settings.event_retention_count)
    retention = Retention(database, keep, needed=[oldest_look_back], is_published=broker is not None)
    return [*loops, Relay(database, broker), retention]


def _run_retention(settings: AppSettings) -> RetentionPolicy:
    failed = settings.run_retention_failed_days
    return RetentionPolicy(
        age=timedelta(days=settings.run_retention_days),
        failed_age=None if failed is None else timedelta(days=failed),
        runs=settings.run_retention_count,
        archive=None if settings.run_archive is None else FolderArchive(settings.run_archive),
    )


def _sealing_key(settings: AppSettings) -> SealingKey:
    return SealingKey(create_secret(settings.secrets / SEALING_KEY_FILE, SealingKey.generate))


def _ping(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))
