from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from app_svc.asyncapi import describe_events
from app_svc.service import SOURCES_OF_IMPORTED as IMPORTED
from app_svc.workflow_loading import load_workflows
from lib_auth import events as account_events
from lib_events.event import Event, EventType
from lib_workflows.lifecycle_events import EVENT_TYPES


@dataclass
class Inner:
    size: int


@dataclass
class Outer:
    inner: Inner


def document() -> dict[str, Any]:
    _, own = load_workflows([])
    return describe_events([*own, *EVENT_TYPES, *account_events.ALL], imported=IMPORTED, service="app-svc", version="1")


def resolve(document: dict[str, Any], pointer: str) -> Any:
    found: Any = document
    for part in pointer.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


def test_every_reference_of_the_event_document_leads_somewhere() -> None:
    found = document()
    assert found["asyncapi"] == "3.0.0"
    for pointer in references(found):
        assert resolve(found, pointer) is not None, pointer


def test_every_event_type_has_a_channel_on_its_nats_subject() -> None:
    found = document()
    for name in ("table.rows.accepted", "evs.run.completed"):
        assert found["channels"][name]["address"] == f"events.app-svc.{name}"
        assert found["operations"][f"publish.{name}"]["action"] == "send"
    # What is imported is not published again: who wants it listens where it comes from.
    assert found["channels"]["evs.user.registered"]["address"] == "events.auth-svc.evs.user.registered"
    assert found["operations"]["import.evs.user.registered"]["action"] == "receive"


def test_a_messages_schema_accepts_its_events_and_no_others() -> None:
    nested = EventType("house.box.packed", Outer)
    found = describe_events([nested], imported={}, service="app-svc", version="1")
    schema = found["components"]["messages"]["house.box.packed"]["payload"] | {"components": found["components"]}
    event = Event.of(nested, Outer(Inner(3)), source="/app-svc").to_dict()
    jsonschema.validate(event, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event | {"data": {"inner": {"size": "big"}}}, schema)
