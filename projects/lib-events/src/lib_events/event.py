"""What happened: the CloudEvents 1.0 envelope, typed event types and the registry that checks them."""

import base64
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from lib_events.chance import current_seed
from lib_events.clock import SystemClock, to_datetime, to_micros
from lib_events.texts import NUL, is_whole, message_of

SPEC_VERSION = "1.0"
RESERVED_PREFIX = "evs."
TYPE_PATTERN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
JSON_DATA = "application/json"
# CloudEvents 1.0, naming conventions; that a name should not exceed 20 characters is advice to who invents one.
EXTENSION_PATTERN = re.compile(r"[a-z0-9]+")
INTEGERS = range(-(2**31), 2**31)  # CloudEvents 1.0, type system
INDEXED_BYTES = 2_000  # of a text by which events are found: an index of PostgreSQL takes 2,700 …
NAME_BYTES = 1_000  # … and two of these together
LEVELS = 200  # of JSON that are read everywhere; our parser takes one more
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
CORE_ATTRIBUTES = frozenset(
    (
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"),
        *("data", "data_base64"),
    )
)

type Reason = Literal[
    "malformed", "unsupported_content", "unknown_type", "invalid_data", "reserved_type", "forged_source"
]


class EventRejected(Exception):
    """An event is not acceptable; `reason` says which rule it breaks and `detail` what to do."""

    def __init__(self, reason: Reason, detail: str, *, event_type: str | None = None, field: str = "") -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.event_type = event_type
        self.field = field


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something happens: carried from a request or an event into every event it leads to."""

    correlation_id: str | None = None
    causation_id: str | None = None
    principal: str | None = None
    traceparent: str | None = None  # W3C Trace Context

    def extensions(self) -> dict[str, str]:
        """The CloudEvents extension attributes that carry this cause."""
        pairs = (
            ("correlationid", self.correlation_id),
            ("causationid", self.causation_id),
            ("principal", self.principal),
            ("traceparent", self.traceparent),
        )
        return {name: value for name, value in pairs if value}


current_cause: ContextVar[Cause] = ContextVar("current_cause", default=Cause())  # noqa: B039 - frozen


class EventType[T]:
    """A named kind of event whose data is a `T`.

    `packed` types tell of a lifecycle: they travel many to a row (a segment) and never trigger anything.
    """

    def __init__(self, name: str, model: type[T], *, packed: bool = False) -> None:
        if not TYPE_PATTERN.fullmatch(name):
            raise ValueError(
                f"event type name must match {TYPE_PATTERN.pattern}, got {name!r}; use lower-case words and dots"
            )
        self.name = name
        self.model = model
        self.packed = packed

    @cached_property
    def adapter(self) -> TypeAdapter[T]:
        """Validates and dumps the data."""
        return TypeAdapter(self.model)

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return self.adapter.json_schema()

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the data: always the same object, not to be changed."""
        return self._schema

    def dump(self, payload: T) -> Any:
        """Return `payload` as JSON-able data, named as in the schema; raises `EventRejected` when it is no `T`.

        Of an instance of a subclass only the fields of `T` are taken: readers know no others.
        """
        try:
            # An instance is only asked for its class here; dumping alone takes any other model for a `T` …
            checked = self.adapter.validate_python(payload)
            data = self.adapter.dump_python(checked, mode="json", by_alias=True, warnings=False)
            # … and writes whatever was put past validation. What readers would refuse must not get into the log.
            self.adapter.validate_python(data)
            check_readable(to_json(data))
        except ValidationError as error:
            raise _invalid_data(self.name, error) from error
        except EventRejected:
            raise
        except Exception as error:  # also of what is within itself, or is no text, and of the type's own checks
            raise _unchecked(self.name, error) from error
        return data

    def __repr__(self) -> str:
        return f"EventType({self.name!r}, {getattr(self.model, '__name__', self.model)!s})"


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvents 1.0 event in memory; `data` is any JSON value."""

    id: str
    source: str
    type: str
    time: datetime
    subject: str | None = None
    data: Any = None
    dataschema: str | None = None
    datacontenttype: str = JSON_DATA  # or another one whose data is JSON; says nothing without data
    extensions: Mapping[str, str] = field(default_factory=dict)
    packed: bool = field(default=False, compare=False)  # how our own log stores it; not on the wire

    @classmethod
    def of[T](
        cls,
        event_type: EventType[T],
        payload: T,
        *,
        source: str,
        subject: str | None = None,
        cause: Cause | None = None,
        id: str | None = None,  # noqa: A002 - the attribute's name in CloudEvents
        time: datetime | None = None,
    ) -> "Event":
        """Make an event of `event_type`; without `cause` it takes the one of the current context.

        Raises `EventRejected` when `payload` is not what the type promises.
        """
        if not source or subject == "":
            raise _malformed("subject" if source else "source", "must be a non-empty string", subject or source)
        _check_text("id", id or "", NAME_BYTES)
        _check_text("subject", subject or "", INDEXED_BYTES)
        event_id = id or _new_id()
        extensions = (cause or current_cause.get()).extensions()
        extensions.setdefault("correlationid", event_id)
        return cls(
            id=event_id,
            source=source,
            type=event_type.name,
            time=time or to_datetime(SystemClock().micros()),
            subject=subject,
            data=event_type.dump(payload),
            extensions=extensions,
            packed=event_type.packed,
        )

    @property
    def cause(self) -> Cause:
        """The cause of whatever this event leads to: same correlation, caused by this event."""
        return Cause(
            correlation_id=self.extensions.get("correlationid", self.id),
            causation_id=self.id,
            principal=self.extensions.get("principal"),
            traceparent=self.extensions.get("traceparent"),
        )

    def payload[T](self, event_type: EventType[T]) -> T:
        """Return the data as a `T`; raises `EventRejected` when it is not one."""
        try:
            return event_type.adapter.validate_python(self.data)
        except ValidationError as error:
            raise _invalid_data(self.type, error) from error
        except Exception as error:  # what the type's own checks raise is anybody's code
            raise _unchecked(self.type, error) from error

    def to_dict(self) -> dict[str, Any]:
        """The CloudEvents JSON format as a dictionary."""
        return self._attributes(self.time.isoformat().replace("+00:00", "Z"))

    def encode(self) -> "EncodedEvent":
        """The event as the log takes it."""
        time, correlation = to_micros(self.time), self.extensions.get("correlationid")
        return EncodedEvent(
            self.id, self.source, self.type, self.subject, time, correlation, self.to_json(), self.packed
        )

    def to_json(self) -> bytes:
        """The CloudEvents JSON format, encoded."""
        return to_json(self._attributes(self.time))  # which writes a time as `to_dict` does, in half the time

    def _attributes(self, time: object) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": time,
        }
        if self.subject is not None:
            attributes["subject"] = self.subject
        if self.dataschema is not None:
            attributes["dataschema"] = self.dataschema
        attributes |= self.extensions
        if self.data is not None:
            attributes["datacontenttype"] = self.datacontenttype
            attributes["data"] = self.data
        return attributes

    @classmethod
    def from_dict(cls, attributes: Mapping[str, Any]) -> "Event":
        """Read the CloudEvents JSON format; raises `EventRejected` naming the attribute at fault."""
        if attributes.get("specversion") != SPEC_VERSION:
            raise _malformed("specversion", f"must be {SPEC_VERSION!r}", attributes.get("specversion"))
        for name in ("id", "source", "type"):
            if not isinstance(attributes.get(name), str) or not attributes[name]:
                raise _malformed(name, "must be a non-empty string", attributes.get(name))
        datacontenttype, data = _read_data(attributes)
        return cls(
            id=attributes["id"],
            source=attributes["source"],
            type=attributes["type"],
            time=_read_time(attributes.get("time")),
            subject=_read_text(attributes, "subject"),
            data=data,
            dataschema=_read_text(attributes, "dataschema"),
            datacontenttype=datacontenttype,
            extensions=_read_extensions(attributes),
        )

    @classmethod
    def from_json(cls, body: bytes) -> "Event":
        """Read one encoded event; raises `EventRejected`."""
        try:
            attributes = decode(body)
        except ValueError as error:
            raise EventRejected("malformed", f"the event must be JSON: {error}") from error
        if not isinstance(attributes, dict):
            raise EventRejected("malformed", "the event must be a JSON object; see CloudEvents 1.0")
        return cls.from_dict(attributes)


class EncodedEvent(NamedTuple):
    """An event as the log takes it: for who tells of thousands a second, and can write their JSON in one go."""

    id: str
    source: str
    type: str
    subject: str | None
    time: int  # micros
    correlation: str | None
    body: bytes  # the CloudEvents JSON format
    packed: bool

    @classmethod
    def of[T](
        cls, event_type: EventType[T], payload: T, *, source: str, subject: str, cause: Cause | None = None
    ) -> "EncodedEvent":
        """Tell of something now, as `Event.of` does; `payload` was checked when it was made, as a frozen model is."""
        at, event_id = SystemClock().micros(), _new_id()
        extensions = (cause or current_cause.get()).extensions()
        correlation = extensions.setdefault("correlationid", event_id)
        attributes = {
            "specversion": SPEC_VERSION,
            "id": event_id,
            "source": source,
            "type": event_type.name,
            "time": to_datetime(at),
            "subject": subject,
            **extensions,
            "datacontenttype": JSON_DATA,
            "data": payload,
        }
        body = to_json(attributes)
        return cls(event_id, source, event_type.name, subject, at, correlation, body, event_type.packed)

    def encode(self) -> "EncodedEvent":
        """Itself."""
        return self


type Recordable = Event | EncodedEvent


class EventRegistry:
    """The event types a service knows, by name."""

    def __init__(self, *event_types: EventType[Any]) -> None:
        self._types: dict[str, EventType[Any]] = {}
        for event_type in event_types:
            self.register(event_type)

    def register(self, event_type: EventType[Any]) -> None:
        """Add `event_type`; the same name may come again only with the same schema."""
        known = self._types.get(event_type.name)
        if known is not None and known.model is not event_type.model and known.schema() != event_type.schema():
            raise ValueError(
                f"event type {event_type.name!r} must have one schema, "
                f"got {known.model!r} and {event_type.model!r}; rename one of them"
            )
        self._types[event_type.name] = event_type

    def __iter__(self) -> Iterator[EventType[Any]]:
        return iter(self._types.values())

    def schemas(self) -> dict[str, dict[str, Any]]:
        """The JSON Schema of each type, by name."""
        return {event_type.name: event_type.schema() for event_type in self}

    def get(self, name: str) -> EventType[Any] | None:
        """The type of that name, or None."""
        return self._types.get(name)

    def check(self, event: Event) -> EventType[Any]:
        """Return the event's type; raises `EventRejected` when it is unknown or the data does not fit."""
        event_type = self._types.get(event.type)
        if event_type is None:
            raise EventRejected(
                "unknown_type",
                f"event type {event.type!r} is not registered; declare EventType({event.type!r}, Model)",
                event_type=event.type,
            )
        event.payload(event_type)
        return event_type


def decode(body: bytes) -> Any:
    """Read what a log holds, however deep it is; raises `ValueError`.

    The quick parser stops at some 200 levels: what somebody sent us at that depth is a level or two deeper in an event.
    """
    try:
        return from_json(body)
    except ValueError as error:
        if "recursion limit" not in str(error):
            raise
        try:
            return json.loads(body)
        except RecursionError:
            raise error from None


def check_readable(body: bytes) -> None:
    """Raise `EventRejected` for what other readers would refuse the whole text: numbers that JSON has no words for, and
    more levels than parsers go down.
    """
    if b"NaN" not in body and b"Infinity" not in body and body.count(b"[") + body.count(b"{") < LEVELS:
        return
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        detail = f"numbers must be finite, and there must be at most {LEVELS} levels: {error}"
        raise EventRejected("malformed", detail, field="data") from error


def check_attributes(event: Event) -> None:
    """Raise `EventRejected` for attributes that not every database keeps as they are."""
    _check_text("id", event.id, NAME_BYTES)
    _check_text("source", event.source, NAME_BYTES)
    _check_text("type", event.type, INDEXED_BYTES)
    _check_text("subject", event.subject or "", INDEXED_BYTES)
    for name, value in event.extensions.items():
        _check_text(name, value)


def _check_text(name: str, text: str, limit: int | None = None) -> None:
    if NUL in text or not (text.isascii() or is_whole(text)):
        raise _malformed(name, "must have no character U+0000 and no half ones", text[:80])
    if limit is not None and len(text) > limit // 4 and len(text.encode()) > limit:
        raise _malformed(name, f"must be at most {limit} bytes long", f"{text[:80]}…")


def _new_id() -> str:
    """A UUIDv7 (RFC 9562 section 5.7): in order of time, so that an index of ids grows at its end.

    The standard library has it from Python 3.14 on.
    """
    seed = current_seed.get()
    if seed is None:
        moment, random = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10).hex()
    else:
        moment, random = "0" * 12, seed.draw("event").hex()
    variant = "89ab"[int(random[0], 16) % 4]  # binary 10, and two random bits
    return f"{moment[:8]}-{moment[8:]}-7{random[1:4]}-{variant}{random[4:7]}-{random[7:19]}"


def is_json(content_type: str) -> bool:
    """Whether data of that media type is JSON: `*/json` or `*/*+json`, whatever its parameters."""
    if content_type == JSON_DATA:
        return True
    subtype = content_type.partition(";")[0].strip().lower().rpartition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def unsupported_data(content_type: str | None) -> EventRejected:
    """The refusal of data that is not JSON: every type's data has a JSON Schema."""
    return EventRejected(
        "unsupported_content",
        f"datacontenttype must be application/json or end in +json, got {content_type!r}; put text or Base64 into a "
        "field of the data, or publish a reference",
        field="datacontenttype",
    )


def is_reserved(name: str) -> bool:
    """Whether only our own services may publish the event type `name`."""
    return name.startswith(RESERVED_PREFIX)


def _invalid_data(event_type: str, error: ValidationError) -> EventRejected:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in ("data", *first["loc"]))
    return EventRejected("invalid_data", f"{where}: {first['msg']}", event_type=event_type, field=where)


def _unchecked(event_type: str, error: Exception) -> EventRejected:
    detail = f"data: {type(error).__name__}: {message_of(error)}"
    return EventRejected("invalid_data", detail, event_type=event_type, field="data")


def _malformed(name: str, rule: str, value: object) -> EventRejected:
    return EventRejected("malformed", f"attribute {name!r} {rule}, got {value!r}", field=name)


def _read_text(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise _malformed(name, "must be a non-empty string when present", value)
    return value


def _read_time(value: object) -> datetime:
    """Read a timestamp; Python keeps six digits of a second, further ones are cut off."""
    if value is None:
        return to_datetime(SystemClock().micros())
    try:
        if isinstance(value, str) and RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value.upper())
    except ValueError:
        pass  # it looks like a time and is none
    raise _malformed("time", "must be an RFC 3339 timestamp with a time zone", value)


def _read_data(attributes: Mapping[str, Any]) -> tuple[str, Any]:
    """Return content type and data: JSON as such, or in Base64 (CloudEvents JSON format section 3.1)."""
    content_type = _read_text(attributes, "datacontenttype")
    encoded = attributes.get("data_base64")
    if encoded is None and attributes.get("data") is None:
        return JSON_DATA, None
    if encoded is not None and attributes.get("data") is not None:
        raise _malformed("data_base64", "must not be beside data", encoded)
    # Only `data` is JSON where nothing says otherwise (section 3.1.2).
    if not is_json(content_type or ("" if encoded is not None else JSON_DATA)):
        raise unsupported_data(content_type)
    return content_type or JSON_DATA, attributes.get("data") if encoded is None else _read_base64(encoded)


def _read_base64(encoded: object) -> Any:
    try:
        return from_json(base64.b64decode(encoded, validate=True)) if isinstance(encoded, str) else None
    except ValueError as error:  # also what b64decode raises
        raise EventRejected("malformed", f"data_base64 must be JSON in Base64: {error}", field="data_base64") from error


def _read_extensions(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the extension attributes as canonical strings; null is as good as absent."""
    found: dict[str, str] = {}
    for name, value in attributes.items():
        if name in CORE_ATTRIBUTES or value is None:
            continue
        if not EXTENSION_PATTERN.fullmatch(name):
            raise _malformed(name, f"must match {EXTENSION_PATTERN.pattern}", value)
        if not isinstance(value, str | int) or (not isinstance(value, str) and value not in INTEGERS):
            raise _malformed(name, "must be a string, a 32-bit integer or a boolean", value)
        found[name] = value if isinstance(value, str) else to_json(value).decode()
    return found
