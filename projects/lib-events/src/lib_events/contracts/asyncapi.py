"""The AsyncAPI 3 document of a service: which events it sends and receives, what they carry, and on which ways.

Every event type is one message, `components/messages/<type>`; channels say where it can be met. A packed type is met
on NATS only inside a segment, so it has no channel of its own there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from lib_events.event import EventType
from lib_events.http.cloudevents import BATCH, STRUCTURED
from lib_events.nats.permissions import stream_name, subject_prefix
from lib_events.tables import SEGMENT_TYPE

type AnyType = EventType[Any]
type Part = dict[str, Any]

ENVELOPE = "cloudEvent"
KNOWN_TYPES = 1_000
NATS = "nats"
HTTP = "http"
MESSAGE_HEADERS = {
    "type": "object",
    "description": "On NATS. Over HTTP a message has none but the content type.",
    "properties": {
        "Content-Type": {"type": "string", "description": "The structured mode of the CloudEvents NATS binding"},
        "Nats-Msg-Id": {"type": "string", "description": "The event's place in its log, `<epoch>.<position>`"},
        "Nats-Expected-Last-Msg-Id": {"type": "string", "description": "The message before it: there is no gap"},
    },
}
NKEY = {
    "type": "asymmetricEncryption",
    "description": "An Ed25519 key (NKey) per service. It may write only below the service's own subjects.",
}


@dataclass(frozen=True, slots=True)
class HttpWay:
    """Events over HTTP: a stream that the service sends, or a request in which it receives."""

    name: str
    method: Literal["GET", "POST"]
    path: str
    types: Sequence[AnyType]
    scope: str
    summary: str
    query: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class HttpServer:
    """Where a service answers, whose tokens it takes, and its ways for events."""

    url: str
    issuer: str
    ways: Sequence[HttpWay]


def describe_service(
    service: str,
    *,
    version: str,
    sent: Sequence[AnyType],
    received: Mapping[str, Sequence[AnyType]],
    contracts: Mapping[str, int],
    http: HttpServer | None = None,
) -> Part:
    """Return the document: `sent` are its own types, `received` the types it imports from each other service.

    `contracts` gives the version of each type that the service's database remembers.
    """
    ways = http.ways if http is not None else ()
    types = {kind.name: kind for kinds in (sent, *received.values(), *(way.types for way in ways)) for kind in kinds}
    packed = [kind for kind in sent if kind.packed]
    document = _Document(service, version, types.values(), contracts)
    for kind in sent:
        if not kind.packed:
            document.add_nats(service, kind.name, "send")
    if packed:
        document.add_segment(packed)
        document.add_nats(service, SEGMENT_TYPE, "send")
    for other, kinds in received.items():
        for kind in kinds:
            document.add_nats(other, kind.name, "receive")
    if http is not None:
        document.add_http(http)
    return document.parts


class _Document:
    """A document being made; each `add_` method adds a channel with its operation."""

    def __init__(self, service: str, version: str, types: Iterable[AnyType], contracts: Mapping[str, int]) -> None:
        self._service = service
        self._messages: Part = {}
        self._schemas: Part = {ENVELOPE: _envelope()}
        for kind in sorted(types, key=lambda found: found.name):
            self._schemas |= _schemas_of(kind)
            self._messages[kind.name] = _message(kind, contracts.get(kind.name))
        self.parts: Part = {
            "asyncapi": "3.0.0",
            "id": f"urn:evs:{service}",
            "info": {
                "title": f"Events of {service}",
                "version": version,
                "description": "CloudEvents 1.0 in JSON: what this service sends, and what it receives from others.",
                "license": {"name": "MIT"},
            },
            "defaultContentType": STRUCTURED,
            "servers": {NATS: _nats_server()},
            "channels": {},
            "operations": {},
            "components": {
                "messages": self._messages,
                "schemas": self._schemas,
                "messageTraits": {ENVELOPE: _trait()},
                "correlationIds": {"story": _correlation()},
                "securitySchemes": {"nkey": NKEY},
            },
        }

    def add_nats(self, service: str, name: str, action: Literal["send", "receive"]) -> None:
        """A subject of `service`, on which we send or from which we import."""
        subject = f"{subject_prefix(service)}.{name}"
        jetstream = {"stream": stream_name(service)}
        if action == "receive":
            jetstream["consumer"] = self._service
        self._add_channel(subject, subject, NATS, [name])
        self._add_operation(f"{action}.{name}", action, subject, [name], {NATS: {"bindingVersion": "0.1.0"}})
        self.parts["channels"][subject]["x-jetstream"] = jetstream

    def add_segment(self, packed: Sequence[AnyType]) -> None:
        """The message in which the packed types travel: the events of one commit."""
        events = [{"$ref": f"#/components/schemas/{ENVELOPE}.{kind.name}"} for kind in packed]
        self._messages[SEGMENT_TYPE] = {
            "name": SEGMENT_TYPE,
            "title": SEGMENT_TYPE,
            "summary": "The lifecycle events of one commit, in order, as a CloudEvents JSON batch.",
            "contentType": BATCH,
            "headers": MESSAGE_HEADERS,
            "payload": {"type": "array", "minItems": 1, "items": {"anyOf": events}},
        }

    def add_http(self, http: HttpServer) -> None:
        """The ways over HTTP, with the server they are on."""
        parts = urlsplit(http.url)
        server = {"host": parts.netloc, "protocol": parts.scheme, "description": "The REST API"}
        self.parts["servers"][HTTP] = server | ({"pathname": parts.path} if parts.path else {})
        for way in http.ways:
            names = sorted(kind.name for kind in way.types)
            binding: Part = {"method": way.method, "bindingVersion": "0.3.0"}
            if way.query:
                binding["query"] = {"type": "object", "properties": {name: {"type": "string"} for name in way.query}}
            action = "send" if way.method == "GET" else "receive"
            self._add_channel(way.name, way.path, HTTP, names)
            self._add_operation(f"{action}.{way.name}", action, way.name, names, {HTTP: binding})
            self.parts["operations"][f"{action}.{way.name}"] |= {
                "summary": way.summary,
                "security": [_openid(http.issuer, way.scope)],
            }

    def _add_channel(self, key: str, address: str, server: str, names: Iterable[str]) -> None:
        self.parts["channels"][key] = {
            "address": address,
            "servers": [{"$ref": f"#/servers/{server}"}],
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        }
        if "{" in address:
            named = [part.strip("{}") for part in address.split("/") if part.startswith("{")]
            self.parts["channels"][key]["parameters"] = {name: {"description": f"Id of the {name}"} for name in named}

    def _add_operation(self, key: str, action: str, channel: str, names: Iterable[str], bindings: Part) -> None:
        self.parts["operations"][key] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
            "bindings": bindings,
        }


def _nats_server() -> Part:
    # Anybody may read this document, so it does not tell where ours is.
    return {
        "host": "{address}",
        "protocol": "nats",
        "description": "NATS JetStream. Each service has a stream of its own, which holds its events in order.",
        "variables": {"address": {"description": "EVS_NATS_URL", "default": "127.0.0.1:4222"}},
        "security": [{"$ref": "#/components/securitySchemes/nkey"}],
    }


def _openid(issuer: str, scope: str) -> Part:
    url = f"{issuer}/.well-known/openid-configuration"
    return {"type": "openIdConnect", "openIdConnectUrl": url, "scopes": [scope]}


def _trait() -> Part:
    correlation = {"$ref": "#/components/correlationIds/story"}
    return {"contentType": STRUCTURED, "headers": MESSAGE_HEADERS, "correlationId": correlation}


def _correlation() -> Part:
    return {
        "description": "All events of one story share it; `causationid` names the event before.",
        "location": "$message.payload#/correlationid",
    }


def _message(kind: AnyType, version: int | None) -> Part:
    message: Part = {
        "name": kind.name,
        "title": kind.name,
        "traits": [{"$ref": f"#/components/messageTraits/{ENVELOPE}"}],
        "payload": {"$ref": f"#/components/schemas/{ENVELOPE}.{kind.name}"},
    }
    return message if version is None else message | {"x-contract-version": version}


@lru_cache(KNOWN_TYPES)  # it follows from the type alone, and takes most of a document's time
def _schemas_of(kind: AnyType) -> Part:
    """The schema of the event, of its data and of what these refer to, each under a name of its own; not to change."""
    name = kind.name
    schema = _adapt(kind.adapter.json_schema(ref_template=f"#/components/schemas/{name}.{{model}}"))
    parts = schema.pop("$defs", {})
    properties = {"type": {"const": name}, "data": {"$ref": f"#/components/schemas/{name}"}}
    event = {"allOf": [{"$ref": f"#/components/schemas/{ENVELOPE}"}, {"type": "object", "properties": properties}]}
    return {f"{ENVELOPE}.{name}": event, name: schema} | {f"{name}.{part}": found for part, found in parts.items()}


def _adapt(schema: Any) -> Any:
    """AsyncAPI's `discriminator` is the name of the field alone."""
    if isinstance(schema, list):
        return [_adapt(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    adapted = {name: _adapt(inner) for name, inner in schema.items()}
    hint = schema.get("discriminator")
    if isinstance(hint, dict) and isinstance(hint.get("propertyName"), str):
        adapted["discriminator"] = hint["propertyName"]
    return adapted


def _envelope() -> Part:
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "description": "CloudEvents 1.0, JSON format",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": text,
            "type": text,
            "subject": text,
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": text,
            "dataschema": text,
            "correlationid": text,
            "causationid": text,
            "principal": text,
            "traceparent": text,
        },
    }
