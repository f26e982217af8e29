"""What is refused when it is declared, and what the declarations say of themselves."""

from datetime import timedelta

import pytest
from flows import Order, OrderPlaced, Receipt, charge, everything, on_order

from lib_workflows import Context, DefinitionError, Registry, Signal, current_step, step, workflow
from lib_workflows.errors import PayloadInvalid, PayloadTooLarge, UnknownWorkflow, WorkflowsError


def test_a_step_is_the_plain_function_when_called():
    @step
    def plain(number: int) -> int:
        """Add one."""
        return number + 1

    assert plain(1) == 2
    assert plain.__doc__ == "Add one."


@pytest.mark.parametrize("options", [{"retries": -1}, {"timeout": timedelta(0)}])
def test_impossible_options_are_refused(options):
    with pytest.raises(DefinitionError):
        step(**options)(lambda: None)


def test_keyword_only_parameters_are_refused():
    with pytest.raises(DefinitionError, match="positional parameters only, got loud"):

        @step
        async def shout(text: str, *, loud: bool = True) -> str:
            return text


def test_a_workflow_takes_a_context_and_at_most_one_input():
    with pytest.raises(DefinitionError, match="at most one input, got 3 parameters"):

        @workflow(name="too-much")
        async def too_much(ctx: Context, a: int, b: int) -> None: ...

    with pytest.raises(DefinitionError, match="must be an async def"):
        workflow(name="sync")(lambda ctx: None)


def test_two_workflows_cannot_have_one_name_and_version():
    @workflow(name="everything")
    async def impostor(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="registered once"):
        Registry.of([everything, impostor])


def test_versions_of_a_name_coexist():
    @workflow(name="everything", version=2)
    async def newer(ctx: Context) -> None: ...

    registry = Registry.of([everything, newer])
    assert registry.find("everything") is newer
    assert registry.find("everything", 1) is everything
    with pytest.raises(UnknownWorkflow, match="everything version 3"):
        registry.find("everything", 3)


def test_the_catalogue_tells_types_and_schemas():
    assert (everything.type, everything.description) == ("test", "Use every operation once.")
    assert on_order.on == (OrderPlaced,)
    assert everything.input_schema()["properties"]["amount"] == {"title": "Amount", "type": "integer"}
    assert everything.output_schema()["type"] == "object"


def test_an_input_that_does_not_fit_names_the_field():
    with pytest.raises(PayloadInvalid) as caught:
        everything.validate_input({"id": "a", "amount": "many"})
    assert (caught.value.what, caught.value.field) == ("input", "amount")
    assert everything.validate_input({"id": "a", "amount": "3"}) == '{"id":"a","amount":3}'


def test_a_result_is_what_a_replay_would_see():
    text, settled = charge.signature.result.settle(Receipt("a", 1))
    assert (text, settled) == ('{"order":"a","paid":1}', Receipt("a", 1))
    with pytest.raises(PayloadInvalid, match="result of step charge"):
        charge.signature.result.settle({"order": "a", "paid": 1})


def test_a_payload_has_a_limit():
    with pytest.raises(PayloadTooLarge, match="at most 4194304 bytes"):
        Signal("big", str).codec.encode("x" * 5_000_000)


def test_current_step_is_for_steps():
    with pytest.raises(WorkflowsError, match="inside a step"):
        current_step()


def test_plain_functions_are_no_steps():
    ctx = Context.__new__(Context)
    with pytest.raises(DefinitionError, match="decorated with @step"):
        ctx.step(print, Order(id="a", amount=1))
    with pytest.raises(DefinitionError, match="'user:<subject>' or 'role:<name>'"):
        ctx.approval("a", text="?", to="everyone")
    with pytest.raises(DefinitionError, match="0 s up to 100 years"):
        ctx.sleep(-1)


def test_what_a_workflow_cannot_ask_for_is_refused_where_it_asks(subtests):
    ctx = Context.__new__(Context)

    async def waits(connection): ...

    for use, told in (
        (lambda: ctx.transaction(waits), "ctx.transaction must get a def, which never awaits, got <function"),
        (lambda: ctx.wait_signal("approve"), r"ctx.wait_signal must get a Signal\(…\), got 'approve'"),
        (lambda: ctx.wait_update("change"), r"ctx.wait_update must get an Update\(…\), got 'change'"),
        (lambda: ctx.wait_event("shop.paid"), r"ctx.wait_event must get an EventType\(…\), got 'shop.paid'"),
        (lambda: ctx.publish("shop.paid", {}), r"ctx.publish must get an EventType\(…\), got 'shop.paid'"),
        (lambda: ctx.transaction("text"), "ctx.transaction must get a def, which never awaits, got 'text'"),
        (lambda: ctx.gather([ctx.sleep(1)]), r"ctx.gather must get operations or coroutines, got \[.*; write \*"),
        (lambda: ctx.gather(1), "ctx.gather must get operations or coroutines, got 1"),
        (lambda: ctx.race(5), "ctx.race must get operations or coroutines, got 5"),
        (lambda: ctx.map([1], ctx.sleep), r"ctx.map must get a function, then the items, got \[1\]"),
        (lambda: ctx.map(lambda n: n, [1]), "ctx.map must get operations or coroutines, got 1"),
    ):
        with subtests.test(told=told), pytest.raises(DefinitionError, match=told):
            use()
