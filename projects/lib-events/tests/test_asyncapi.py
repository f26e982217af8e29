"""The AsyncAPI document: every event, what it carries, and the ways it goes."""

from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from lib_events.contracts.asyncapi import HttpServer, HttpWay, describe_service
from lib_events.event import Event, EventType


@dataclass
class Inner:
    size: int


@dataclass
class Outer:
    inner: Inner


Packed = EventType("house.box.packed", Outer)
Touched = EventType("house.box.touched", Inner, packed=True)
Opened = EventType("house.box.opened", Inner, packed=True)
Moved = EventType("city.flat.moved", Inner)
WAYS = [
    HttpWay("feed", "GET", "/events/{box}", [Packed, Moved], "events:read", "Follow.", query=("after",)),
    HttpWay("publish", "POST", "/events", [Packed], "events:publish", "Publish."),
]


@pytest.fixture
def document() -> dict[str, Any]:
    return describe_service(
        "house",
        version="1",
        sent=[Packed, Touched, Opened],
        received={"city": [Moved]},
        contracts={"house.box.packed": 3},
        http=HttpServer("https://house.example/api", "https://auth.example", WAYS),
    )


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


def messages_of(document: dict[str, Any], operation: str) -> list[str]:
    return [found.rpartition("/")[2] for found in references(document["operations"][operation]["messages"])]


def payload_schema(document: dict[str, Any], message: str) -> dict[str, Any]:
    return document["components"]["messages"][message]["payload"] | {"components": document["components"]}


def test_every_reference_leads_somewhere(document):
    assert references(document)
    for pointer in references(document):
        assert resolve(document, pointer) is not None, pointer


def test_a_type_of_ones_own_is_sent_on_its_subject_from_ones_own_stream(document):
    channel = document["channels"]["events.house.house.box.packed"]
    assert (channel["address"], channel["x-jetstream"]) == ("events.house.house.box.packed", {"stream": "events-house"})
    operation = document["operations"]["send.house.box.packed"]
    assert (operation["action"], operation["bindings"]) == ("send", {"nats": {"bindingVersion": "0.1.0"}})
    assert messages_of(document, "send.house.box.packed") == ["house.box.packed"]


def test_an_imported_type_is_received_from_the_other_services_stream(document):
    channel = document["channels"]["events.city.city.flat.moved"]
    assert channel["x-jetstream"] == {"stream": "events-city", "consumer": "house"}
    assert document["operations"]["receive.city.flat.moved"]["action"] == "receive"


def test_packed_types_go_on_nats_in_segments_alone(document):
    assert messages_of(document, "send.evs.run.segment") == ["evs.run.segment"]
    assert not any("touched" in key for key in document["channels"])
    message = document["components"]["messages"]["evs.run.segment"]
    assert message["contentType"] == "application/cloudevents-batch+json"
    segment = [Event.of(kind, Inner(1), source="/house").to_dict() for kind in (Touched, Opened)]
    schema = payload_schema(document, "evs.run.segment")
    jsonschema.validate(segment, schema)
    for wrong in ([], [segment[0] | {"type": "house.box.packed"}], [segment[0] | {"data": {"size": "big"}}]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_a_messages_schema_accepts_its_events_and_no_others(document):
    schema = payload_schema(document, "house.box.packed")
    event = Event.of(Packed, Outer(Inner(3)), source="/house").to_dict()
    jsonschema.validate(event, schema)
    for wrong in (
        event | {"data": {"inner": {"size": "big"}}},
        event | {"type": "city.flat.moved"},
        event | {"id": ""},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_a_message_says_its_version_how_it_is_correlated_and_what_headers_it_has(document):
    message = document["components"]["messages"]["house.box.packed"]
    assert message["x-contract-version"] == 3
    (pointer,) = references(message["traits"])
    trait = resolve(document, pointer)
    assert trait["contentType"] == "application/cloudevents+json"
    assert {"Content-Type", "Nats-Msg-Id"} <= trait["headers"]["properties"].keys()
    correlation = resolve(document, trait["correlationId"]["$ref"])
    assert correlation["location"] == "$message.payload#/correlationid"


def test_events_over_http_say_method_scope_and_parameters(document):
    server = document["servers"]["http"]
    assert (server["host"], server["protocol"], server["pathname"]) == ("house.example", "https", "/api")
    feed, publish = document["operations"]["send.feed"], document["operations"]["receive.publish"]
    assert (feed["bindings"]["http"]["method"], publish["bindings"]["http"]["method"]) == ("GET", "POST")
    assert feed["security"][0]["scopes"] == ["events:read"]
    assert publish["security"][0]["openIdConnectUrl"] == "https://auth.example/.well-known/openid-configuration"
    assert document["channels"]["feed"]["parameters"].keys() == {"box"}
    assert messages_of(document, "send.feed") == ["city.flat.moved", "house.box.packed"]


def test_the_document_does_not_tell_where_the_broker_is(document):
    assert document["servers"]["nats"]["host"] == "{address}"
    assert document["servers"]["nats"]["security"] == [{"$ref": "#/components/securitySchemes/nkey"}]
