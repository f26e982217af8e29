"""The HTTP binding of CloudEvents, against its specification and a foreign SDK in both directions."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from lib_events.event import CORE_ATTRIBUTES, Event, EventRejected
from lib_events.http.cloudevents import (
    BATCH,
    DISALLOWED,
    STRUCTURED,
    HttpMessage,
    read_events,
    write_batch,
    write_binary,
    write_structured,
)

GIVEN = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "shop.order.placed"}
JSON = {"content-type": "application/json"}

texts = st.text(min_size=1, max_size=20).filter(lambda text: not DISALLOWED.search(text))
extension_names = st.from_regex(r"[a-z][a-z0-9]{0,24}", fullmatch=True).filter(lambda name: name not in CORE_ATTRIBUTES)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=5,
)


def events(data: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    return st.builds(
        Event,
        id=texts,
        source=texts,
        type=texts,
        time=st.datetimes(timezones=zones),
        subject=st.none() | texts,
        data=data,
        dataschema=st.none() | texts,
        extensions=st.dictionaries(extension_names, texts, max_size=3),
    )


def facts(event: CloudEvent) -> dict[str, Any]:
    """What the SDK has read, without what it sets by itself."""
    return {name: value for name, value in event.get_attributes().items() if name != "datacontenttype"}


def expected(event: Event) -> dict[str, Any]:
    return {
        name: value
        for name, value in (event.to_dict() | {"time": event.time}).items()
        if name not in ("data", "datacontenttype")
    }


@given(events(json_values))
def test_every_mode_brings_an_event_back_as_it_was(event):
    for message in (write_structured(event), write_binary(event)):
        assert read_events(message.headers, message.body) == [event]
    both = write_batch([event, event])
    assert read_events(both.headers, both.body) == [event, event]


@given(events(json_values))
def test_headers_are_printable_ascii_without_spaces_and_quotes(event):
    for value in write_binary(event).headers.values():
        assert re.fullmatch(r"[!#-~]+", value)


@given(events(st.dictionaries(st.text("ab"), json_values, min_size=1)))
def test_the_foreign_sdk_reads_what_we_write(event):
    for message in (write_structured(event), write_binary(event)):
        found = sdk.from_http_event(sdk.HTTPMessage(message.headers, message.body))
        assert facts(found) == expected(event)
        assert found.get_data() == event.data
    for item in json.loads(write_batch([event]).body):
        assert facts(JSONFormat().read(None, json.dumps(item))) == expected(event)


@given(events(st.dictionaries(st.text("ab"), json_values, min_size=1)))
def test_we_read_what_the_foreign_sdk_writes(event):
    foreign = CloudEvent(expected(event) | {"datacontenttype": "application/json"}, event.data)
    for message in (sdk.to_structured_event(foreign), sdk.to_binary_event(foreign)):
        assert read_events(message.headers, message.body) == [event]
    batch = b"[" + JSONFormat().write(foreign) + b"]"
    assert read_events({"content-type": BATCH}, batch) == [event]


def test_the_foreign_sdks_event_without_a_content_type_is_json():
    message = sdk.to_binary_event(CloudEvent({"type": "shop.order.placed", "source": "/shop"}, {"sku": "tea"}))
    assert "content-type" not in message.headers
    assert read_events(message.headers, message.body)[0].data == {"sku": "tea"}


# What the specification says, with its own examples


def test_the_specifications_example_of_encoding_is_ours():
    event = read_one(subject="Euro%20%E2%82%AC%20%F0%9F%98%80")
    assert event.subject == "Euro € 😀"
    assert write_binary(event).headers["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("%41%2fb", "A/b"),  # encoded without need, in lower case
        ('"a b"', "a b"),  # as older versions of the specification wrote it
        (r'"say \"hi\" \\ %22"', 'say "hi" \\ "'),
        ("%2541", "%41"),  # one round
        ("100%", "100%"),
        ("a%zz", "a%zz"),
    ],
)
def test_header_values_are_unquoted_then_decoded_once(header, value):
    assert read_one(subject=header).subject == value


@pytest.mark.parametrize("value", ["%C0%A0", "%ff", "%F0%9F%98", "%ED%A0%80", "caf\xe9", "€"])
def test_a_header_value_that_is_no_utf8_or_no_ascii_is_refused(value):
    with pytest.raises(EventRejected, match="'ce-subject' must be percent-encoded"):
        read_one(subject=value)


@pytest.mark.parametrize("value", ["%00", "a%0Ab", "%7F", "%C2%85", "%EF%BF%BE", "%F4%8F%BF%BF", "%EF%B7%90"])
def test_characters_that_no_attribute_may_have_are_refused(value):
    for attribute in ("id", "source", "subject", "myextension"):
        with pytest.raises(EventRejected, match=f"'{attribute}' must not have the character U"):
            read_one(**{attribute: value})


@pytest.mark.parametrize("attribute", ["id", "source", "type", "specversion"])
def test_a_required_attribute_that_is_missing_or_empty_is_named(attribute):
    for value in ({}, {f"ce-{attribute}": ""}):
        headers = {name: text for name, text in GIVEN.items() if name != f"ce-{attribute}"} | value
        with pytest.raises(EventRejected) as caught:
            read_events(headers, b"")
        assert (caught.value.reason, caught.value.field) == ("malformed", attribute)


@pytest.mark.parametrize("version", ["0.3", "1.1", "2.0", "1.0.2"])
def test_another_version_of_the_specification_is_refused(version):
    with pytest.raises(EventRejected, match="specversion"):
        read_one(specversion=version)


@pytest.mark.parametrize("name", ["data", "data_base64", "datacontenttype"])
def test_what_belongs_into_the_body_or_content_type_is_no_header(name):
    with pytest.raises(EventRejected, match="use content-type and the body"):
        read_one(**{name: "x"})


@pytest.mark.parametrize(
    "content_type",
    [STRUCTURED, "Application/CloudEvents+JSON", f"{STRUCTURED}; charset=UTF-8", f"{STRUCTURED};charset=utf-8"],
)
def test_the_content_type_tells_the_mode_whatever_its_case_and_parameters(content_type):
    event = read_one()
    assert read_events({"content-type": content_type, "ce-id": "ignored"}, event.to_json()) == [event]


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents+avro", "application/cloudevents-batch+xml", "text/plain", ""]
)
def test_other_formats_and_what_is_no_event_are_refused(content_type):
    headers = {"content-type": content_type} | (GIVEN if "cloudevents" in content_type else {})
    with pytest.raises(EventRejected) as caught:
        read_events(headers, read_one().to_json())
    assert caught.value.reason == "unsupported_content"


@pytest.mark.parametrize("content_type", ["application/json", "TEXT/JSON", "application/vnd.shop.order+json; v=1"])
def test_data_that_is_json_keeps_its_content_type(content_type):
    (event,) = read_events(GIVEN | {"content-type": content_type}, b'{"sku": "tea"}')
    assert (event.data, event.datacontenttype) == ({"sku": "tea"}, content_type)
    assert write_binary(event).headers["content-type"] == content_type
    assert Event.from_json(event.to_json()) == event


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/octet-stream", "image/png"])
def test_other_data_is_refused_in_every_mode_saying_what_to_do(content_type):
    structured = Event.from_json(read_one().to_json()).to_dict() | {"datacontenttype": content_type}
    messages = [
        HttpMessage(GIVEN | {"content-type": content_type}, b"<much wow='xml'/>"),
        HttpMessage({"content-type": STRUCTURED}, json.dumps(structured | {"data": "<xml/>"}).encode()),
        HttpMessage({"content-type": STRUCTURED}, json.dumps(structured | {"data_base64": "PHhtbC8+"}).encode()),
    ]
    for message in messages:
        with pytest.raises(EventRejected, match="put text or Base64 into a field") as caught:
            read_events(message.headers, message.body)
        assert (caught.value.reason, caught.value.field) == ("unsupported_content", "datacontenttype")


def test_json_in_base64_is_json():
    given = read_one().to_dict() | {"datacontenttype": "application/json", "data_base64": "eyAieHl6IjogMTIzIH0="}
    (event,) = read_events({"content-type": STRUCTURED}, json.dumps(given).encode())
    assert event.data == {"xyz": 123}
    foreign = CloudEvent({"type": "a", "source": "/b", "datacontenttype": "application/json"}, b'{"xyz": 123}')
    message = sdk.to_structured_event(foreign)
    assert read_events(message.headers, message.body)[0].data == {"xyz": 123}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"data_base64": "eyAieHl6IjogMTIzIH0="}, "unsupported_content"),  # JSON must not be assumed: section 3.1.2
        ({"data_base64": "*", "datacontenttype": "application/json"}, "malformed"),
        ({"data_base64": "aGk=", "datacontenttype": "application/json"}, "malformed"),
        ({"data_base64": "MQ==", "data": 1, "datacontenttype": "application/json"}, "malformed"),
    ],
)
def test_base64_that_is_something_else_is_refused(members, reason):
    with pytest.raises(EventRejected) as caught:
        Event.from_dict(read_one().to_dict() | members)
    assert caught.value.reason == reason


def test_attributes_of_every_type_become_their_canonical_strings_and_null_is_absent():
    given = read_one().to_dict() | {
        "flag": True,
        "number": -5,
        "unset": None,
        "subject": None,
        "comexampleextension12": "x",
    }
    event = Event.from_dict(given)
    assert event.extensions == {"flag": "true", "number": "-5", "comexampleextension12": "x"}
    assert event.subject is None


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 1.5, [], {}])
def test_what_no_attribute_can_be_is_refused(value):
    with pytest.raises(EventRejected, match="'number' must be a string, a 32-bit integer or a boolean"):
        Event.from_dict(read_one().to_dict() | {"number": value})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018-04-05T17:31:00Z", datetime(2018, 4, 5, 17, 31, tzinfo=UTC)),
        ("2018-04-05t17:31:00z", datetime(2018, 4, 5, 17, 31, tzinfo=UTC)),
        ("2018-04-05T17:31:00.5+02:00", datetime(2018, 4, 5, 15, 31, 0, 500_000, tzinfo=UTC)),
        ("2018-04-05T17:31:00.123456789Z", datetime(2018, 4, 5, 17, 31, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_to_the_microsecond(text, moment):
    assert read_one(time=text).time == moment


@pytest.mark.parametrize(
    "text", ["20180405T173100Z", "2018-W14-4T17:31:00Z", "2018-04-05T17:31Z", "2018-13-05T17:31:00Z", "2018-04-05"]
)
def test_a_time_that_is_not_rfc_3339_is_refused(text):
    with pytest.raises(EventRejected, match="RFC 3339"):
        read_one(time=text)


def test_a_batch_may_be_empty_and_has_a_limit():
    assert read_events({"content-type": BATCH}, b"[]") == []
    both = write_batch([read_one(), read_one()])
    with pytest.raises(EventRejected, match="at most 1 events, got 2"):
        read_events(both.headers, both.body, batch_limit=1)


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"[", b"\xff"])
def test_a_body_that_is_no_batch_is_refused(body):
    with pytest.raises(EventRejected, match="the batch must be"):
        read_events({"content-type": BATCH}, body)


def test_an_event_without_data_has_neither_body_nor_content_type():
    message = write_binary(read_one())
    assert message.body == b""
    assert "content-type" not in message.headers


def read_one(**attributes: str) -> Event:
    (event,) = read_events(GIVEN | {f"ce-{name}": value for name, value in attributes.items()}, b"")
    return event


@pytest.mark.parametrize("number", ["NaN", "1e400", "-Infinity"])
def test_numbers_that_json_has_no_words_for_are_refused(number):
    """They are taken by many parsers, and would be told to readers whose parsers refuse them."""
    structured = f'{{"specversion":"1.0","id":"1","source":"/x","type":"test.x","data":{number}}}'.encode()
    for headers, body in (
        (GIVEN | JSON, number.encode()),
        ({"content-type": STRUCTURED}, structured),
        ({"content-type": BATCH}, b"[" + structured + b"]"),
    ):
        with pytest.raises(EventRejected, match="finite"):
            read_events(headers, body)
