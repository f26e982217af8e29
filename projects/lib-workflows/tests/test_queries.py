"""The read side: typed values in pages, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Principal, workflow
from lib_workflows.errors import ApprovalDecided, ApprovalNotFound, FilterInvalid, TextInvalid
from lib_workflows.paging import PageCursorInvalid, encode_cursor
from lib_workflows.reading import queries
from lib_workflows.reading.queries import RunFilter
from lib_workflows.runs import commands

MIA = Principal("u1", "mia")


@workflow(name="halve")
async def halve(ctx: Context, number: int) -> int:
    """Halve an even number."""
    await ctx.set_view("asked", number)
    if number % 2:
        raise ValueError(f"must be even, got {number}")
    await ctx.set_view("halved", number // 2)
    return number // 2


@workflow(name="asks")
async def asks(ctx: Context) -> bool:
    """Ask two questions, one after the other."""
    first = await ctx.approval("first", text="Go?", to="role:member")
    return first.approved and (await ctx.approval("second", text="On?", to="user:u1")).approved


@pytest.fixture
async def engine(database_url):
    async with Engine.open(database_url, [halve, asks]) as engine:
        yield engine


async def ended(engine, number, **options):
    handle = await engine.start(halve, number, **options)
    status, _, _ = await engine.results.wait(handle.id)
    assert status in ("completed", "failed")
    return handle.id


async def ids_of(engine, **filters):
    page = await engine.database.read(queries.list_runs, RunFilter(**filters))
    return [run.id for run in page.items]


@pytest.mark.parametrize("statuses", [["done"], ["completed", "Failed"], "failed"])
def test_a_status_that_is_none_is_refused_rather_than_never_found(statuses):
    with pytest.raises(FilterInvalid, match="completed, failed, cancelled"):
        RunFilter(statuses=statuses)


async def test_a_run_is_read_whole_and_a_list_leaves_out_what_may_be_large(engine):
    before = datetime.now(UTC) - timedelta(seconds=1)
    run_id = await ended(engine, 4, principal=MIA, tags={"team": "red"})
    run = await engine.database.read(queries.get_run, run_id)
    assert (run.input, run.output, run.views) == (4, 2, {"asked": 4, "halved": 2})
    assert (run.principal, run.tags, run.error) == (MIA, {"team": "red"}, None)
    assert before < run.created_at <= run.started_at <= run.ended_at <= datetime.now(UTC)
    (listed,) = (await engine.database.read(queries.list_runs)).items
    assert (listed.input, listed.output, listed.views) == (None, None, {})
    assert await engine.database.read(queries.get_runs, [run_id, "absent"]) == {run_id: listed}
    assert await engine.database.read(queries.get_run, "absent") is None


async def test_runs_are_narrowed_by_what_is_known_of_them(engine):
    red = await ended(engine, 2, id="a", principal=MIA, tags={"team": "red", "we.ird": "1"})
    failed = await ended(engine, 3, id="b", tags={"team": "blue"})
    assert await ids_of(engine, statuses=["failed"]) == [failed]
    assert await ids_of(engine, statuses=["failed", "completed"]) == [failed, red]
    assert await ids_of(engine, principal="u1") == [red]
    assert await ids_of(engine, workflow="asks") == []
    assert await ids_of(engine, tags=["team"]) == [failed, red]
    assert await ids_of(engine, tags=["team:red"]) == await ids_of(engine, tags=["we.ird:1"]) == [red]
    assert await ids_of(engine, tags=['te"am']) == []
    assert await ids_of(engine, tags=["team:red", "we.ird"]) == [red]
    assert await ids_of(engine, tags=["team:blue", "we.ird"]) == []
    assert await ids_of(engine, text="MUST be even") == [failed]
    assert await ids_of(engine, text="%") == []
    created_at = (await engine.database.read(queries.get_run, failed)).created_at
    assert await ids_of(engine, since=created_at) == [failed]
    assert await engine.database.read(queries.list_run_ids, RunFilter(), 1) == [red]
    assert await engine.database.read(queries.count_runs) == {"completed": 1, "failed": 1}


async def test_lists_come_in_pages_that_together_are_the_whole(engine):
    ids = [await ended(engine, 2) for _ in range(5)]
    found, cursor = [], None
    while True:
        page = await engine.database.read(queries.list_runs, None, cursor, 2)
        found += [run.id for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == ids[::-1]
    whole = await engine.database.read(queries.get_history, ids[0])
    first = await engine.database.read(queries.list_history, ids[0], None, 1)
    rest = await engine.database.read(queries.list_history, ids[0], first.next_cursor)
    assert [*first.items, *rest.items] == whole
    assert rest.next_cursor is None


@pytest.mark.parametrize("cursor", ["abc", "W10", encode_cursor("x", 1), encode_cursor(2**63, "x"), "é"])
async def test_a_cursor_of_another_list_is_refused(engine, cursor):
    with pytest.raises(PageCursorInvalid, match="leave it out to begin"):
        await engine.database.read(queries.list_runs, None, cursor)


async def test_approvals_are_listed_for_those_they_name(engine):
    handle = await engine.start(asks)
    first = await asked(engine, "first")
    await engine.database.transact(lambda c: commands.decide(c, first.id, approved=True, by=MIA, form={"a": 1}))
    second = await asked(engine, "second")

    async def listed(**narrow):
        page = await engine.database.read(lambda c: queries.list_approvals(c, **narrow))
        return [approval.id for approval in page.items]

    assert await listed(run=handle.id) == [second.id, first.id]
    assert await listed(addressees=["role:member"]) == await listed(statuses=["approved"]) == [first.id]
    assert await listed(addressees=[]) == await listed(run="absent") == []
    decided = await engine.database.read(queries.get_approval, first.id)
    assert (decided.status, decided.decided_by, decided.form) == ("approved", MIA, {"a": 1})
    assert decided.asked_at <= decided.decided_at
    assert await engine.database.read(queries.get_approval, "absent") is None


async def asked(engine, name):
    async def look():
        page = await engine.database.read(lambda c: queries.list_approvals(c, statuses=["pending"]))
        return next((approval for approval in page.items if approval.name == name), None)

    return await wait_until(look)


@workflow(name="shows-side-by-side")
async def shows_side_by_side(ctx: Context) -> None:
    await ctx.gather(*(ctx.set_view("last", number) for number in range(20)))


async def test_of_views_that_are_set_at_once_the_last_one_stays(database_url):
    async with Engine.open(database_url, [shows_side_by_side]) as engine:
        handle = await engine.start(shows_side_by_side)
        await handle.result(10)
        assert await handle.view("last") == 19


@workflow(name="asks-again")
async def asks_again(ctx: Context) -> list[bool]:
    return [(await ctx.approval("go", text="Go?", to="user:u1")).approved for _ in range(2)]


async def test_a_program_decides_what_a_run_asks_by_its_name(database_url):
    async with Engine.open(database_url, [asks_again]) as engine:
        handle = await engine.start(asks_again)
        with pytest.raises(ApprovalNotFound, match=r"must have asked for approval 'stop', and has not; wait"):
            await handle.decide("stop", approved=True, by=MIA)
        first = await asked(engine, "go")
        with pytest.raises(TextInvalid, match="comment of a decision"):
            await handle.decide("go", approved=True, by=MIA, comment="a\0b")
        await handle.decide("go", approved=True, by=MIA, comment="fine", form={"a": 1})
        second = await wait_until(lambda: asked_other_than(engine, first))
        await handle.decide("go", approved=False, by=MIA)
        assert await handle.result(10) == [True, False]
        with pytest.raises(ApprovalDecided, match="must be pending, got rejected"):
            await handle.decide("go", approved=True, by=MIA)
        decided = await engine.database.read(queries.get_approval, first.id)
    assert (decided.comment, decided.form, decided.decided_by) == ("fine", {"a": 1}, MIA)
    assert second.id != first.id


async def asked_other_than(engine, first):
    found = await asked(engine, "go")
    return found if found.id != first.id else None
