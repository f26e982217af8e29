"""The CloudEvents envelope, event types and the registry."""

import json
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import from_json

from lib_events.event import Cause, EncodedEvent, Event, EventRegistry, EventRejected, EventType, is_reserved


class Order(BaseModel):
    sku: str
    quantity: int = 1


class OrderWithNote(Order):
    note: str = "please"


class Named(BaseModel):
    sku: str = Field(alias="skuCode")


class Nothing(BaseModel):
    other: int = 1


class Basket(BaseModel):
    orders: list[Order]


OrderPlaced = EventType("shop.order.placed", Order)


def test_an_event_survives_the_json_format():
    event = Event.of(OrderPlaced, Order(sku="tea"), source="/shop", subject="order-1", cause=Cause(principal="ada"))
    assert Event.from_json(event.to_json()) == event


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 120_000, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(-timedelta(minutes=30))),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(0), "GMT")),
    ],
)
def test_a_time_is_written_the_same_in_the_dictionary_and_encoded(moment):
    event = Event.of(OrderPlaced, Order(sku="tea"), source="/shop", time=moment)
    assert json.loads(event.to_json()) == event.to_dict()
    assert Event.from_json(event.to_json()) == event


def test_ids_are_unique_and_in_order_of_time():
    ids = [Event.of(OrderPlaced, Order(sku="tea"), source="/shop").id for _ in range(2_000)]
    parsed = [uuid.UUID(found) for found in ids]
    assert [str(found) for found in parsed] == ids
    assert {(found.version, found.variant) for found in parsed} == {(7, uuid.RFC_4122)}
    assert len(set(ids)) == len(ids)
    moments = [found.int >> 80 for found in parsed]
    assert moments == sorted(moments)
    assert abs(moments[-1] - time.time_ns() // 1_000_000) < 60_000
    assert {(found.int >> 62) % 4 for found in parsed} == {2}
    assert len({found.clock_seq for found in parsed}) > 100


def test_an_event_made_from_another_keeps_its_correlation_and_names_it_as_the_cause():
    first = Event.of(OrderPlaced, Order(sku="tea"), source="/shop")
    second = Event.of(OrderPlaced, Order(sku="cup"), source="/shop", cause=first.cause)
    assert second.extensions["correlationid"] == first.extensions["correlationid"] == first.id
    assert second.extensions["causationid"] == first.id


def test_a_payload_comes_back_typed():
    event = Event.of(OrderPlaced, Order(sku="tea", quantity=3), source="/shop")
    assert event.payload(OrderPlaced) == Order(sku="tea", quantity=3)


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"type": 7}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-01-01T00:00:00"}, "time"),
        ({"Upper": "x"}, "Upper"),
        ({"tags": ["a"]}, "tags"),
    ],
)
def test_a_malformed_event_is_refused_naming_the_attribute(attributes, field):
    good = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "shop.order.placed"}
    with pytest.raises(EventRejected) as caught:
        Event.from_dict(good | attributes)
    assert caught.value.reason == "malformed"
    assert caught.value.field == field


def test_text_that_is_not_json_is_refused():
    with pytest.raises(EventRejected, match="must be JSON"):
        Event.from_json(b"{")


def test_the_registry_refuses_unknown_types_and_data_that_does_not_fit():
    registry = EventRegistry(OrderPlaced)
    event = Event(id="1", source="/shop", type="shop.order.placed", time=datetime.now(UTC), data={"quantity": 1})
    with pytest.raises(EventRejected) as caught:
        registry.check(event)
    assert (caught.value.reason, caught.value.field) == ("invalid_data", "data.sku")
    with pytest.raises(EventRejected) as caught:
        registry.check(Event(id="1", source="/shop", type="shop.gone", time=datetime.now(UTC)))
    assert caught.value.reason == "unknown_type"


def test_one_name_has_one_schema():
    class Other(BaseModel):
        sku: int

    with pytest.raises(ValueError, match="one schema"):
        EventRegistry(OrderPlaced, EventType("shop.order.placed", Other))


def test_a_type_name_is_lower_case_words_and_dots():
    with pytest.raises(ValueError, match="event type name"):
        EventType("Shop Order", Order)


def test_our_own_namespace_is_reserved():
    assert is_reserved("evs.run.completed")
    assert not is_reserved("evsx.run.completed")


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (Nothing(), "data"),
        (None, "data"),
        ("tea", "data"),
        ({"quantity": 1}, "data.sku"),
        (Order.model_construct(sku=5), "data.sku"),
    ],
)
def test_a_payload_that_is_not_what_its_type_promises_is_not_published(payload, field):
    with pytest.raises(EventRejected) as caught:
        Event.of(OrderPlaced, payload, source="/shop")
    assert (caught.value.reason, caught.value.field) == ("invalid_data", field)
    assert caught.value.event_type == "shop.order.placed"


@pytest.mark.parametrize("wrong", [Nothing(), Order.model_construct(), Order.model_construct(sku=5)])
def test_what_was_put_past_validation_is_found(wrong):
    basket = Basket(orders=[Order(sku="tea")])
    basket.orders.append(wrong)
    with pytest.raises(EventRejected) as caught:
        Event.of(EventType("shop.basket.filled", Basket), basket, source="/shop")
    assert caught.value.field == "data.orders.1.sku"


def test_what_json_cannot_say_is_not_published():
    with pytest.raises(EventRejected, match="serialize"):
        Event.of(EventType("shop.thing.seen", dict[str, Any]), {"thing": object()}, source="/shop")


@pytest.mark.parametrize("empty", ["source", "subject"])
def test_an_event_whose_attribute_no_reader_would_take_is_not_made(empty):
    with pytest.raises(EventRejected) as caught:
        Event.of(OrderPlaced, Order(sku="tea"), **{"source": "/shop", empty: ""})
    assert (caught.value.reason, caught.value.field) == ("malformed", empty)


def test_of_a_subclass_only_what_the_type_promises_is_published():
    assert Event.of(OrderPlaced, OrderWithNote(sku="tea"), source="/shop").data == {"sku": "tea", "quantity": 1}


def test_fields_are_named_as_in_the_schema():
    event_type = EventType("shop.sku.named", Named)
    event = Event.of(event_type, Named(skuCode="tea"), source="/shop")
    assert event.data == {"skuCode": "tea"}
    assert event.payload(event_type) == Named(skuCode="tea")


def test_an_event_that_is_written_in_one_go_says_the_same():
    cause = Cause("c-1", "e-0", "ada", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    told = EncodedEvent.of(OrderPlaced, Order(sku="tea"), source="/shop", subject="order-1", cause=cause)
    read = Event.from_json(told.body)
    again = Event.of(
        OrderPlaced, Order(sku="tea"), source="/shop", subject="order-1", cause=cause, id=told.id, time=read.time
    )
    assert told == again.encode()


def test_an_event_that_is_written_in_one_go_is_the_cause_of_itself_where_there_is_no_other():
    told = EncodedEvent.of(OrderPlaced, Order(sku="tea"), source="/shop", subject="order-1")
    assert told.correlation == told.id == Event.from_json(told.body).extensions["correlationid"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_has_no_words_for_are_not_published(number):
    with pytest.raises(EventRejected, match="finite"):
        Event.of(EventType("test.measured", list[float]), [number], source="/x")


def test_words_that_look_like_such_numbers_are_published():
    assert Event.of(EventType("test.said", str), "NaN or Infinity", source="/x").data == "NaN or Infinity"


def test_a_check_of_the_type_that_breaks_refuses_the_event():
    odd = EventType("test.odd", Annotated[str, AfterValidator({"known": "word"}.__getitem__)])
    event = Event.of(EventType("test.odd", str), "unknown", source="/x")
    with pytest.raises(EventRejected, match="KeyError"):
        event.payload(odd)
    with pytest.raises(EventRejected, match="KeyError"):
        Event.of(odd, "unknown", source="/x")


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d", "x" * 2_001, "\u20ac" * 700])
def test_a_subject_that_not_every_database_keeps_is_refused(text):
    with pytest.raises(EventRejected, match="'subject' must"):
        Event.of(EventType("test.said", str), "x", source="/x", subject=text)


def test_an_event_may_be_deeper_than_what_was_sent_to_us():
    """The quick parser takes 201 levels, also of data alone, which lie one deeper in their event."""
    data = from_json(b"[" * 201 + b"]" * 201)
    event = Event.of(EventType("test.deep", Any), data, source="/x")
    assert Event.from_json(event.to_json()).data == data
    with pytest.raises(EventRejected, match="must be JSON"):
        Event.from_json(b"[" * 1_000_000)
    with pytest.raises(EventRejected, match="at most 200 levels"):
        Event.of(EventType("test.deep", Any), [data], source="/x")
