"""Steps act for the person who started the run: in what the workflow declares, with tokens that are never kept."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from lib_workflows import (
    Context,
    DefinitionError,
    Delegation,
    DelegationRefused,
    Engine,
    StepFailed,
    TokensUnavailable,
    current_step,
    step,
    workflow,
)
from lib_workflows.reading import queries
from lib_workflows.testing import GivenTokens, environment, export_history, replay_history

ORDERS, STOCK = "https://orders.example", "https://stock.example"
READ_ORDERS = Delegation(resource=ORDERS, scope=("orders:read", "orders:list"))
TOKEN = "a-token-nobody-may-read"
TOKENS = {ORDERS: TOKEN}

seen: list[str] = []


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


@step
async def read_orders() -> int:
    seen.append(await current_step().access_token(resource=ORDERS, scope=("orders:read",)))
    return len(seen)


@step
def read_in_a_thread() -> int:
    seen.append(current_step().wait_access_token())
    return len(seen)


@step(process=True)
def read_in_a_process() -> int:
    return len(current_step().wait_access_token())


@step
async def read_stock() -> None:
    await current_step().access_token(resource=STOCK)


@step
async def write_orders() -> None:
    await current_step().access_token(scope=("orders:write",))


@step
async def block_the_loop() -> None:
    current_step().wait_access_token()


@step
async def tell_in_a_result() -> str:
    return "got " + await current_step().access_token()


@step
async def tell_in_an_error() -> None:
    try:
        int(await current_step().access_token())
    except ValueError as error:
        raise RuntimeError("it did not work") from error


@step
async def tell_in_a_heartbeat() -> None:
    current_step().heartbeat({"with": await current_step().access_token()})


@step(errors=(DelegationRefused,))
async def read_if_allowed() -> None:
    await current_step().access_token()


@step(retries=5)
async def read_patiently() -> str:
    await current_step().access_token()
    return f"at attempt {current_step().attempt}"


STEPS = {
    each.name: each
    for each in (
        *(read_orders, read_in_a_thread, read_in_a_process, read_stock, write_orders, block_the_loop),
        *(tell_in_a_result, tell_in_an_error, tell_in_a_heartbeat, read_patiently),
    )
}


@workflow(name="report", acts_for_starter=READ_ORDERS)
async def report(ctx: Context, name: str) -> object:
    return await ctx.step(STEPS[name])


@workflow(name="silent-report")
async def silent_report(ctx: Context, name: str) -> object:
    return await ctx.step(STEPS[name])


@workflow(name="careful-report", acts_for_starter=READ_ORDERS)
async def careful_report(ctx: Context) -> str:
    try:
        await ctx.step(read_if_allowed)
    except DelegationRefused as refused:
        return f"not allowed any more: {refused.reason}"
    return "done"


@workflow(name="book", acts_for_starter=READ_ORDERS)
async def book(ctx: Context) -> None:
    await ctx.step(read_orders, undo=give_back)
    raise RuntimeError("no room")


@step
async def give_back(_result: int | None) -> None:
    seen.append("undone with " + await current_step().access_token())


async def whole_database(engine):
    def read(connection):
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        return "\n".join(str(connection.execute(text(f"SELECT * FROM {table}")).all()) for table in tables)

    return await engine.database.read(read)


async def refusal(handle):
    with pytest.raises(StepFailed) as caught:
        await handle.result(10)
    assert caught.value.attempts == 1
    return caught.value.error


@pytest.mark.parametrize("name", ["read_orders", "read_in_a_thread"])
async def test_a_step_gets_a_token_and_nothing_of_it_is_kept(sqlite_url, name):
    source = GivenTokens(TOKENS)
    async with Engine.open(sqlite_url, [report], tokens=source) as engine:
        handle = await engine.start(report, name)
        assert await handle.result(10) == 1
        assert seen == [TOKEN]
        (asked,) = source.asked
        assert (asked.run_id, asked.workflow, asked.resource) == (handle.id, "report", ORDERS)
        assert asked.scope == (("orders:read",) if name == "read_orders" else READ_ORDERS.scope)
        assert TOKEN not in await whole_database(engine)
        assert replay_history(report, await export_history(engine, handle.id)) == 1
        assert seen == [TOKEN]


@pytest.mark.parametrize("name", ["tell_in_a_result", "tell_in_an_error", "tell_in_a_heartbeat"])
async def test_a_step_that_would_leave_its_token_in_the_history_fails_instead(sqlite_url, name):
    async with Engine.open(sqlite_url, [report], tokens=GivenTokens(TOKENS)) as engine:
        error = await refusal(await engine.start(report, name))
        assert error.type == "TokenKept"
        assert TOKEN not in await whole_database(engine)


@pytest.mark.parametrize(
    ("workflow", "name", "told"),
    [
        (report, "read_stock", "add it to acts_for_starter"),
        (report, "write_orders", "scope must be of orders:read, orders:list"),
        (report, "read_in_a_process", "not process=True"),
        (silent_report, "read_orders", "of a workflow that declares acts_for_starter"),
    ],
)
async def test_what_is_not_declared_is_not_asked_for(sqlite_url, workflow, name, told):
    source = GivenTokens(TOKENS)
    async with Engine.open(sqlite_url, [workflow], tokens=source) as engine:
        error = await refusal(await engine.start(workflow, name))
        assert error.type == "DelegationRefused"
        assert told in error.message
        assert source.asked == []


async def test_an_engine_without_a_source_of_tokens_says_what_to_do(sqlite_url):
    async with Engine.open(sqlite_url, [report]) as engine:
        error = await refusal(await engine.start(report, "read_orders"))
        assert (error.type, "give Engine.open(…, tokens=…)" in error.message) == ("DelegationRefused", True)


async def test_a_step_on_the_loop_must_not_block_it(sqlite_url):
    async with Engine.open(sqlite_url, [report], tokens=GivenTokens(TOKENS)) as engine:
        error = await refusal(await engine.start(report, "block_the_loop"))
        assert "must await access_token()" in error.message


async def test_a_workflow_hears_why_it_may_no_longer_act(sqlite_url):
    source = GivenTokens(TOKENS)
    source.withdraw()
    async with environment(sqlite_url, [careful_report], tokens=source) as env:
        handle = await env.engine.start(careful_report)
        assert await env.result(handle) == "not allowed any more: withdrawn"
        assert len(source.asked) == 1
        exported = await export_history(env.engine, handle.id)
        assert replay_history(careful_report, exported) == "not allowed any more: withdrawn"


async def test_who_cannot_be_asked_now_is_asked_again(database_url):
    answers = [TokensUnavailable("nobody answers"), TokensUnavailable("nobody answers"), None]

    async def source(_wanted):
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return TOKEN

    async with environment(database_url, [report], tokens=source) as env:
        handle = await env.engine.start(report, "read_patiently")
        assert await env.result(handle) == "at attempt 3"


async def test_what_undoes_a_step_may_act_too(sqlite_url):
    async with Engine.open(sqlite_url, [book], tokens=GivenTokens(TOKENS)) as engine:
        handle = await engine.start(book)
        with pytest.raises(RuntimeError):
            await handle.result(10)
        assert seen == [TOKEN, f"undone with {TOKEN}"]


async def test_a_step_that_is_cancelled_waits_for_no_token(sqlite_url):
    asked = asyncio.Event()

    async def never(_wanted):
        asked.set()
        await asyncio.Event().wait()

    async with Engine.open(sqlite_url, [report], tokens=never) as engine:
        handle = await engine.start(report, "read_orders")
        await asyncio.wait_for(asked.wait(), 10)
        await handle.cancel()
        run = await engine.results.wait(handle.id)
        assert run.status == "cancelled"


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource": "orders", "scope": ("a",)},
        {"resource": ORDERS + "#here", "scope": ("a",)},
        {"resource": 5, "scope": ("a",)},
        {"resource": ORDERS, "scope": ()},
        {"resource": ORDERS, "scope": "orders:read"},
        {"resource": ORDERS, "scope": ("orders:read orders:write",)},
        {"resource": ORDERS, "scope": ("a",), "lasts": timedelta(0)},
        {"resource": ORDERS, "scope": ("a",), "lasts": timedelta(days=91)},
    ],
    ids=str,
)
def test_a_delegation_that_makes_no_sense_cannot_be_declared(wrong):
    with pytest.raises(DefinitionError):
        Delegation(**wrong)


def test_a_workflow_declares_delegations_and_each_resource_once():
    for wrong in ([READ_ORDERS, Delegation(resource=f"{ORDERS}/", scope=("x",))], ["orders"]):
        with pytest.raises(DefinitionError, match="acts_for_starter of workflow twice"):
            workflow(name="twice", acts_for_starter=wrong)(careful_report.function)
    both = [READ_ORDERS, Delegation(resource=STOCK, scope=("stock:read",))]
    assert workflow(name="both", acts_for_starter=both)(careful_report.function).acts_for_starter == tuple(both)


async def test_where_several_are_declared_a_step_says_which(sqlite_url):
    both = [READ_ORDERS, Delegation(resource=STOCK, scope=("stock:read",))]
    made = workflow(name="both", acts_for_starter=both)(careful_report.function)
    async with Engine.open(sqlite_url, [made], tokens=GivenTokens(TOKENS)) as engine:
        handle = await engine.start(made)
        assert await handle.result(10) == "not allowed any more: undeclared"
        run = await engine.database.read(queries.get_run, handle.id)
        assert run.status == "completed"
