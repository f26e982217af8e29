"""How our events lie in NATS, and what a service may do there: its own out, others' in, nothing else.

Permissions on subjects are not enough: whoever may ask the server for something may name any subject for the
answer, and so have it written into another service's stream. So each service has an *account*, which sees no
subject of another. What a service may ask about another one's stream it imports, as `imports.<service>.…`:
one durable consumer, named like the importing service, because NATS permissions match whole tokens.

Nobody may shape a stream but the *keeper*: a service that could give its own a source, a mirror or a rule that
republishes would need nobody else's key.
"""

from collections.abc import Iterable, Mapping
from typing import Any

DEDUPLICATION_SECONDS = 120.0
MAX_AGE_SECONDS = 7 * 24 * 3600.0
KEEPER = "keeper"
API = "$JS.API"
KEEPER_ASKS = ("STREAM.CREATE.{stream}", "STREAM.UPDATE.{stream}")
OWNER_ASKS = ("STREAM.INFO.{stream}", "STREAM.MSG.GET.{stream}")
IMPORTER_ASKS = (
    "CONSUMER.CREATE.{stream}.{importer}",
    "CONSUMER.CREATE.{stream}.{importer}.>",
    "CONSUMER.DURABLE.CREATE.{stream}.{importer}",
    "CONSUMER.INFO.{stream}.{importer}",
    "CONSUMER.DELETE.{stream}.{importer}",
)
IMPORTER_PULLS = "CONSUMER.MSG.NEXT.{stream}.{importer}"
IMPORTER_ACKNOWLEDGES = "$JS.ACK.{stream}.{importer}.>"


def stream_name(service: str) -> str:
    """The stream of the events that `service` publishes."""
    return f"events-{service}"


def subject_prefix(service: str) -> str:
    """What the subjects of the events that `service` publishes begin with."""
    return f"events.{service}"


def inbox_prefix(service: str) -> str:
    """Where answers to `service` arrive; nobody else may listen there."""
    return f"_INBOX_{service}"


def import_prefix(service: str) -> str:
    """Where others ask JetStream about the stream of `service`, which lies in its account and not in theirs."""
    return f"imports.{service}"


def stream_settings(service: str, *, replicas: int = 1, max_age_seconds: float = MAX_AGE_SECONDS) -> dict[str, Any]:
    """What the stream of `service` must be like."""
    return {
        "subjects": [f"{subject_prefix(service)}.>"],
        "storage": "file",
        "discard": "old",
        "max_age": max_age_seconds,
        "duplicate_window": DEDUPLICATION_SECONDS,
        "num_replicas": replicas,
    }


def accounts(public_keys: Mapping[str, str]) -> dict[str, Any]:
    """The `accounts` of the server's configuration, from the public key of each service and of the keeper."""
    services = [name for name in public_keys if name != KEEPER]
    return {
        KEEPER: _keeper(public_keys[KEEPER], services),
        **{service: _account(service, public_keys[service], services) for service in services},
    }


def _account(service: str, public_key: str, services: Iterable[str]) -> dict[str, Any]:
    others = [other for other in services if other != service]
    own = [f"{API}.{ask.format(stream=stream_name(service))}" for ask in OWNER_ASKS]
    imports = [entry for other in others for entry in _imports(other, service)]
    publish = [f"{subject_prefix(service)}.>", *own, *(entry["to"] for entry in imports)]
    return {
        "jetstream": "enabled",
        "users": [_user(service, public_key, publish)],
        "exports": _exports_to_keeper(service) + [entry for other in others for entry in _exports(service, other)],
        "imports": imports,
    }


def _keeper(public_key: str, services: Iterable[str]) -> dict[str, Any]:
    imports = [_import(service, ask.format(stream=stream_name(service))) for service in services for ask in KEEPER_ASKS]
    return {"users": [_user(KEEPER, public_key, [entry["to"] for entry in imports])], "imports": imports}


def _user(name: str, public_key: str, publish: list[str]) -> dict[str, Any]:
    permissions = {"publish": {"allow": publish}, "subscribe": {"allow": [f"{inbox_prefix(name)}.>"]}}
    return {"nkey": public_key, "permissions": permissions}


def _exports_to_keeper(service: str) -> list[dict[str, Any]]:
    asks = (ask.format(stream=stream_name(service)) for ask in KEEPER_ASKS)
    return [{"service": f"{API}.{ask}", "accounts": [KEEPER]} for ask in asks]


def _exports(service: str, importer: str) -> list[dict[str, Any]]:
    names = {"stream": stream_name(service), "importer": importer}
    asks = [f"{API}.{ask.format(**names)}" for ask in IMPORTER_ASKS]
    return [
        *({"service": subject, "accounts": [importer]} for subject in asks),
        {"service": f"{API}.{IMPORTER_PULLS.format(**names)}", "accounts": [importer], "response_type": "Stream"},
        {"service": IMPORTER_ACKNOWLEDGES.format(**names), "accounts": [importer]},
    ]


def _imports(service: str, importer: str) -> list[dict[str, Any]]:
    names = {"stream": stream_name(service), "importer": importer}
    acknowledges = IMPORTER_ACKNOWLEDGES.format(**names)
    return [
        *(_import(service, ask.format(**names)) for ask in (*IMPORTER_ASKS, IMPORTER_PULLS)),
        {"service": {"account": service, "subject": acknowledges}, "to": acknowledges},
    ]


def _import(service: str, ask: str) -> dict[str, Any]:
    return {"service": {"account": service, "subject": f"{API}.{ask}"}, "to": f"{import_prefix(service)}.{ask}"}
