"""The HTTP protocol binding of CloudEvents 1.0.2 in its three modes: structured, batched and binary.

Every type's data has a JSON Schema, so data is JSON here, also when it travels as `data_base64` or under a media type
of its own ending in `+json`; other data is refused as `unsupported_content`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from pydantic_core import from_json, to_json

from lib_events.event import Event, EventRejected, check_readable, is_json, unsupported_data

EVENT_FORMATS = "application/cloudevents"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PREFIX = "ce-"
BATCH_LIMIT = 500

# Section 3.1.3.2: printable ASCII but space, double quote and percent.
UNENCODED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in ' "%')
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
PRINTABLE = re.compile(r"[\t\x20-\x7e]*")
# CloudEvents 1.0, type system: no control characters, surrogates or noncharacters in a string.
NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | 0xFFFE + last) for plane in range(17) for last in (0, 1))
DISALLOWED = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{NONCHARACTERS}]")


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """The headers and the body of a request or a response that carries events."""

    headers: dict[str, str]
    body: bytes


def write_structured(event: Event) -> HttpMessage:
    """The whole event in the body."""
    return HttpMessage({"content-type": STRUCTURED}, event.to_json())


def write_batch(events: Sequence[Event]) -> HttpMessage:
    """Several events in the body; only for somebody who asked for batches."""
    return HttpMessage({"content-type": BATCH}, b"[" + b",".join(event.to_json() for event in events) + b"]")


def write_binary(event: Event) -> HttpMessage:
    """The attributes in headers, the data alone in the body."""
    attributes = event.to_dict()
    data, content_type = attributes.pop("data", None), attributes.pop("datacontenttype", None)
    headers = {PREFIX + name: quote(value, safe=UNENCODED) for name, value in attributes.items()}
    if content_type is None:
        return HttpMessage(headers, b"")
    return HttpMessage({"content-type": content_type} | headers, to_json(data))


def read_events(headers: Mapping[str, str], body: bytes, *, batch_limit: int = BATCH_LIMIT) -> list[Event]:
    """Read the events of a message, whose header names are in lower case; raises `EventRejected`.

    The content type alone tells the mode (section 3).
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == STRUCTURED:
        found = [Event.from_json(body)]
    elif media_type == BATCH:
        found = _read_batch(body, batch_limit)
    elif media_type.startswith(EVENT_FORMATS) or not any(name.startswith(PREFIX) for name in headers):
        raise EventRejected(
            "unsupported_content",
            f"content-type must be {STRUCTURED} or {BATCH}, or the event must be in {PREFIX} headers, "
            f"got {media_type!r}",
        )
    else:
        found = [_read_binary(headers, body)]
    for event in found:
        _check_strings(event)
        check_readable(to_json(event.data))
    return found


def _read_batch(body: bytes, limit: int) -> list[Event]:
    batch = _read_json(body, "the batch")
    if not isinstance(batch, list) or not all(isinstance(item, dict) for item in batch):
        raise EventRejected("malformed", "the batch must be a JSON array of events")
    if len(batch) > limit:
        raise EventRejected("malformed", f"a batch must have at most {limit} events, got {len(batch)}")
    return [Event.from_dict(item) for item in batch]


def _read_binary(headers: Mapping[str, str], body: bytes) -> Event:
    attributes: dict[str, Any] = {}
    for header, value in headers.items():
        name = header.removeprefix(PREFIX)
        if name == header:
            continue
        if name in ("data", "data_base64", "datacontenttype"):  # section 3.1.1
            raise EventRejected("malformed", f"header {header!r} must not be there: use content-type and the body")
        attributes[name] = _decode(header, value)
    if body:
        # Who says nothing means JSON: so write the SDKs.
        attributes["datacontenttype"] = content_type = headers.get("content-type") or "application/json"
        if not is_json(content_type):
            raise unsupported_data(content_type)
        attributes["data"] = _read_json(body, "data")
    return Event.from_dict(attributes)


def _decode(header: str, value: str) -> str:
    """Undo double quotes, then one round of percent-encoding (section 3.1.3.2)."""
    if not PRINTABLE.fullmatch(value):
        raise EventRejected(
            "malformed", f"header {header!r} must be percent-encoded ASCII, got {value!r}", field=header
        )
    unquoted = QUOTED.sub(lambda found: re.sub(r"\\(.)", r"\1", found[1]), value)
    try:
        return unquote_to_bytes(unquoted).decode()
    except UnicodeDecodeError as error:
        detail = f"header {header!r} must be percent-encoded UTF-8, got {value!r}"
        raise EventRejected("malformed", detail, field=header) from error


def _read_json(body: bytes, what: str) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        raise EventRejected("malformed", f"{what} must be JSON: {error}", field="data") from error


def _check_strings(event: Event) -> None:
    texts = {"id": event.id, "source": event.source, "type": event.type, "subject": event.subject or ""}
    for name, text in (texts | {"dataschema": event.dataschema or ""} | dict(event.extensions)).items():
        if found := DISALLOWED.search(text):
            detail = f"attribute {name!r} must not have the character U+{ord(found[0]):04X}; CloudEvents 1.0 forbids it"
            raise EventRejected("malformed", detail, event_type=event.type, field=name)
