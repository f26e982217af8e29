"""The AsyncAPI 3.0 document: which events there are, what they carry, and on which NATS subject they go."""

from collections.abc import Iterable, Mapping
from typing import Any

from lib_events.event import EventType
from lib_events.nats_permissions import subject_prefix

ENVELOPE = "cloudEvent"


def describe_events(
    event_types: Iterable[EventType[Any]], *, imported: Mapping[str, str], service: str, version: str
) -> dict[str, Any]:
    """Return the document for `event_types`; `service` publishes them, except those `imported` from the one named."""
    channels: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    schemas: dict[str, Any] = {ENVELOPE: _envelope()}
    for event_type in sorted(event_types, key=lambda found: found.name):
        name = event_type.name
        source = imported.get(name, service)
        schemas |= _schemas_of(event_type)
        messages[name] = _message(name)
        address = f"{subject_prefix(source)}.{name}"
        channels[name] = {"address": address, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}
        verb, action = ("publish", "send") if name not in imported else ("import", "receive")
        operations[f"{verb}.{name}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Events of {service}",
            "version": version,
            "description": "CloudEvents 1.0 in JSON. Read them over HTTP at /v1/events, or from NATS JetStream.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _message(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "contentType": "application/cloudevents+json",
        "payload": {
            "allOf": [
                {"$ref": f"#/components/schemas/{ENVELOPE}"},
                {
                    "type": "object",
                    "properties": {"type": {"const": name}, "data": {"$ref": f"#/components/schemas/{name}"}},
                },
            ]
        },
    }


def _schemas_of(event_type: EventType[Any]) -> dict[str, Any]:
    """The schema of the data and of what it refers to, each under a name of its own."""
    template = f"#/components/schemas/{event_type.name}.{{model}}"
    schema = event_type.adapter.json_schema(ref_template=template)
    parts = schema.pop("$defs", {})
    return {event_type.name: schema} | {f"{event_type.name}.{name}": part for name, part in parts.items()}


def _envelope() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": text,
            "type": text,
            "subject": text,
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "correlationid": text,
            "causationid": text,
            "principal": text,
            "traceparent": text,
        },
    }
