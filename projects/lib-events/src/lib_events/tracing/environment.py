"""Whether traces are wanted: OpenTelemetry's own variables say so, and where they go."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from lib_events.settings import SettingsRejected

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


def find_traces(service: str, *, environment: Mapping[str, str] = os.environ) -> "Traces | None":
    """The traces of `service`, or None where no collector is named.

    Raises `SettingsRejected` where one is, and what it takes is not installed or not what we speak.
    """
    if not wants_traces(environment):
        return None
    protocol = _first(environment, PROTOCOLS) or PROTOCOL
    if protocol != PROTOCOL:
        raise SettingsRejected(
            f"OTEL_EXPORTER_OTLP_PROTOCOL must be {PROTOCOL}, got {protocol}; collectors take it at port 4318"
        )
    try:
        from lib_events.tracing.traces import Traces  # noqa: PLC0415 - only who wants traces needs OpenTelemetry
    except ModuleNotFoundError as error:
        raise SettingsRejected(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry's SDK and exporter, which are not installed "
            f"({error.name}): install lib-events[opentelemetry], or unset it"
        ) from error
    return Traces(service)


@asynccontextmanager
async def open_traces(service: str, *, installed: bool = False) -> AsyncGenerator["Traces | None"]:
    """The same, inside the block; what is kept in memory is sent on the way out.

    `installed`: the instrumentation of code that runs here, such as steps, sends its spans there, too.
    """
    traces = find_traces(service)
    if traces is None:
        yield None
        return
    if installed:
        traces.install()
    try:
        yield traces
    finally:
        await asyncio.to_thread(traces.close)


def wants_traces(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a collector is named, and nobody says that it shall get nothing."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    return exporter != "none" and _first(environment, ENDPOINTS) is not None


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := environment.get(name, "").strip())), None)
