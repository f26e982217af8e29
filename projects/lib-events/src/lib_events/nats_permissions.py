"""How our events lie in NATS, and what a service may do there: its own out, everybody's in, nothing else."""

from collections.abc import Iterable
from typing import Any

DEDUPLICATION_SECONDS = 120.0
MAX_AGE_SECONDS = 7 * 24 * 3600.0


def stream_name(service: str) -> str:
    """The stream of the events that `service` publishes."""
    return f"events-{service}"


def subject_prefix(service: str) -> str:
    """What the subjects of the events that `service` publishes begin with."""
    return f"events.{service}"


def inbox_prefix(service: str) -> str:
    """Where answers to `service` arrive; nobody else may listen there."""
    return f"_INBOX_{service}"


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


def permissions(service: str, services: Iterable[str]) -> dict[str, Any]:
    """The `permissions` of one user in the server's configuration.

    A service may not shape its stream: whoever could give it a republish rule could speak for others. The
    bundled server makes the streams itself.

    NATS wildcards stand for whole tokens, so a consumer is named exactly like the service it serves: one
    durable consumer per importing service and stream.
    """
    own = stream_name(service)
    publish = [
        f"{subject_prefix(service)}.>",
        *(f"$JS.API.STREAM.{verb}.{own}" for verb in ("PURGE", "MSG.GET")),
        f"$JS.API.DIRECT.GET.{own}",
        "$JS.API.STREAM.INFO.*",
    ]
    for other in map(stream_name, services):
        publish += [
            f"$JS.API.CONSUMER.CREATE.{other}.{service}",
            f"$JS.API.CONSUMER.CREATE.{other}.{service}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{other}.{service}",
            f"$JS.API.CONSUMER.INFO.{other}.{service}",
            f"$JS.API.CONSUMER.DELETE.{other}.{service}",
            f"$JS.API.CONSUMER.MSG.NEXT.{other}.{service}",
            f"$JS.ACK.{other}.{service}.>",
            f"$JS.ACK.*.*.{other}.{service}.>",  # the form with domain and account
        ]
    return {"publish": {"allow": publish}, "subscribe": {"allow": [f"{inbox_prefix(service)}.>"]}}
