"""Batches that can start no run are refused where they are declared, saying what to do."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import pytest
from annotated_types import MaxLen
from flows import OrderPlaced
from gathering_flows import SECONDS, Paid, Payment
from pydantic import BaseModel

from lib_events.event import EventType
from lib_workflows import Batch, Context, DefinitionError, workflow
from lib_workflows.authoring.workflow import Registry

type Payments = list[Payment]
Counted = EventType("shop.things.counted", int)


class Number(BaseModel):
    number: int


def declare(input_type, *, on=Paid, batch=Batch(events=10, timeout=SECONDS)):  # noqa: B008 - frozen
    async def function(ctx: Context, given) -> None: ...

    function.__annotations__["given"] = input_type
    return workflow(name="w", on=on, batch=batch)(function)


def test_batches_that_cannot_be_are_refused(subtests):
    for options, told in (
        ({"events": 0}, "events of a batch must be 1 to 1,000, got 0"),
        ({"events": 1_001}, "events of a batch must be 1 to 1,000, got 1001"),
        ({"events": 2.0}, "events of a batch must be 1 to 1,000, got 2.0"),
        ({"events": True}, "events of a batch must be 1 to 1,000, got True"),
        ({"timeout": 5}, "timeout of a batch must be a timedelta of a millisecond to 7 days, got 5"),
        ({"timeout": timedelta(0)}, "timeout of a batch must be a timedelta of a millisecond"),
        ({"timeout": timedelta(days=8)}, "what gathers for longer is a schedule's"),
        ({"timeout": timedelta.max}, "timeout of a batch must be"),
        ({"key": ""}, "key of a batch must be"),
        ({"key": 5}, "key of a batch must be"),
        ({"key": "a\0"}, "key of a batch must be"),
    ):
        with subtests.test(told=told), pytest.raises(DefinitionError, match=told):
            Batch(**({"events": 10, "timeout": SECONDS} | options))


def test_workflows_that_cannot_take_a_batch_are_refused(subtests):
    for input_type, options, told in (
        (list[Payment], {"batch": 100}, r"batch of workflow w must be Batch\(events=…, timeout=…\), got 100"),
        (list[Payment], {"on": ()}, "workflow w must start on events of one type to take them in batches, got 0"),
        (list[Payment], {"on": [Paid, OrderPlaced]}, "got 2; give each type a workflow of its own"),
        (Payment, {}, r"got one that is no list; write list\[Payment\]"),
        (tuple[Payment, Payment], {}, "that is no list"),
        (set[int], {"on": Counted}, r"without order; write list\[int\]"),
        (list[int], {}, "of integers, where shop.payment.captured has objects"),
        (list[Payment], {"on": Counted}, "of objects, where shop.things.counted has integers"),
        (Annotated[list[Payment], MaxLen(9)], {}, "that cannot have 1 to 10 of them"),
    ):
        with subtests.test(told=told), pytest.raises(DefinitionError, match=told):
            declare(input_type, **options)


def test_a_key_that_no_payload_has_is_refused(subtests):
    for event_type, input_type, told in (
        (Paid, list[Payment], "a field of shop.payment.captured, which has merchant, number; got 'merchnt'"),
        (Counted, list[int], "a field of shop.things.counted, which has no fields; got 'merchnt'"),
    ):
        batch = Batch(events=10, timeout=SECONDS, key="merchnt")
        with subtests.test(told=told), pytest.raises(DefinitionError, match=told):
            declare(input_type, on=event_type, batch=batch)
    named = EventType("shop.things.named", dict[str, int])
    assert declare(list[dict[str, int]], on=named, batch=batch).batch is batch


def test_a_workflow_without_input_takes_no_batch():
    with pytest.raises(DefinitionError, match="workflow w must take an input, the list of payloads, got none"):

        @workflow(name="w", on=Paid, batch=Batch(events=10, timeout=SECONDS))
        async def nothing(ctx: Context) -> None: ...


def test_any_list_of_what_can_be_read_of_the_payloads_will_do(subtests):
    for input_type in (list, Payments, Sequence[Payment], tuple[Payment, ...], list[Number], list[dict[str, object]]):
        with subtests.test(input_type=str(input_type)):
            assert declare(input_type).batch == Batch(events=10, timeout=SECONDS)


def test_an_input_whose_type_is_written_later_is_checked_when_it_is_registered():
    def declare_ahead():
        async def function(ctx: Context, given: "Later") -> None: ...  # noqa: F821 - it comes

        return workflow(name="w", on=Paid, batch=Batch(events=10, timeout=SECONDS))(function)

    right, wrong, never = declare_ahead(), declare_ahead(), declare_ahead()
    with pytest.raises(DefinitionError, match="must name types its module knows"):
        Registry.of([never])
    globals()["Later"] = Payment
    try:
        with pytest.raises(DefinitionError, match="that is no list"):
            Registry.of([wrong])
        globals()["Later"] = list[Payment]
        assert Registry.of([right]).newest() == [right]
    finally:
        del globals()["Later"]
