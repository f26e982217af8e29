"""Runs and steps in traces: one tree, each span once by id, whatever crashes or is away meanwhile."""

import asyncio
import logging
from datetime import timedelta
from itertools import pairwise

import process_steps
import pytest
from opentelemetry import trace

from lib_events.event import Cause, current_cause
from lib_events.event_filter import Wanted
from lib_events.log.reader import read_page
from lib_events.testing import wait_until
from lib_events.testing.collector import Collector, collecting
from lib_events.tracing.environment import find_traces
from lib_events.tracing.traces import Traces
from lib_workflows import Backoff, Context, Engine, Signal, current_step, step, workflow
from lib_workflows import tracing as run_tracing
from lib_workflows.reading import queries
from lib_workflows.reading.run_spans import TOLD
from lib_workflows.values.trace_places import run_span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
REQUEST = "00f067aa0ba902b7"
go_on = Signal("go-on", str)
seen: list[tuple[str, str]] = []


@pytest.fixture
def collector(monkeypatch):
    seen.clear()
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setattr(run_tracing, "AGAIN_SECONDS", 0.1)
        yield found


@pytest.fixture
def traces(collector):
    found = find_traces("shop")
    yield found
    found.close()


def look() -> None:
    """Remember what the step is told of its place, and where OpenTelemetry finds itself."""
    here = trace.get_current_span().get_span_context()
    seen.append((current_step().traceparent, f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"))


@step(retries=2, backoff=Backoff(initial=timedelta(milliseconds=1)))
async def pack(order: str) -> str:
    look()
    if current_step().attempt == 1:
        raise ValueError("geheim")
    return order


@step
def weigh(order: str) -> int:
    look()
    return len(order)


@workflow(name="parcel")
async def parcel(ctx: Context, order: str) -> int:
    await ctx.wait_signal(go_on)
    return await ctx.step(weigh, order)


@workflow(name="order")
async def ship(ctx: Context, order: str) -> int:
    await ctx.step(pack, order)
    return await ctx.child(parcel, order)


@workflow(name="tell-place")
async def tell_place(ctx: Context) -> list[str]:
    return await ctx.step(process_steps.place_of_step)


@workflow(name="plain")
async def plain(ctx: Context, order: str) -> int:
    return await ctx.step(weigh, order)


@workflow(name="goes-on")
async def goes_on(ctx: Context, order: str) -> str:
    await ctx.step(weigh, order)
    if len(order) < 3:
        await ctx.continue_as_new(f"{order}.")
    return order


failing = {"fails": True}


@workflow(name="fails-once")
async def fails_once(ctx: Context) -> str:
    if failing["fails"]:
        raise RuntimeError("geheim")
    return "well"


def opened(database_url, traces: Traces | None):
    return Engine.open(database_url, workflows=[ship, parcel, plain, goes_on, fails_once], traces=traces)


async def came(collector: Collector, *names: str) -> None:
    await asyncio.to_thread(collector.wait_for, *names)


async def child_of(engine: Engine) -> str:
    def children() -> list[str]:
        return [executor.run.id for executor in engine.residence.executors.values() if executor.run.parent]

    async def is_saved() -> bool:
        return bool(children()) and await engine.database.read(queries.get_run, children()[0]) is not None

    await wait_until(is_saved)
    return children()[0]


def check_tree(collector: Collector, root: str) -> None:
    """One tree: the request, the run within it, both attempts and the child within that, and the child's step."""
    spans = collector.spans.values()
    assert {span.trace_id for span in spans} == {TRACE}
    (run,), (child,), (of_child,) = (collector.named(name) for name in ("run order", "child parcel", "run parcel"))
    (weighed,) = collector.named("step weigh")
    attempts = sorted(collector.named("step pack"), key=lambda span: span.attributes["evs.operation.attempt"])
    assert run.parent_id == root
    assert [span.parent_id for span in (*attempts, child, of_child, weighed)] == [
        *[run.span_id] * 3,
        child.span_id,
        of_child.span_id,
    ]
    assert [(span.has_failed, span.attributes["evs.operation.status"]) for span in attempts] == [
        (True, "retried"),
        (False, "completed"),
    ]
    assert len(spans) == 6
    for within in (*attempts, child):
        assert run.began_ns <= within.began_ns <= within.ended_ns <= run.ended_ns


async def test_a_run_its_steps_and_its_children_are_one_tree(database_url, collector, traces):
    async with opened(database_url, traces) as engine:
        current_cause.set(Cause("c-1", None, "ada", f"00-{TRACE}-{REQUEST}-01"))
        handle = await engine.start(ship, "books")
        child = await child_of(engine)
        await engine.handle(child).signal(go_on, "now")
        assert await handle.result(timeout=30) == 5
        await came(collector, "run order")
    check_tree(collector, REQUEST)
    (run,) = collector.named("run order")
    assert run.attributes["evs.run.id"] == handle.id
    assert (run.attributes["evs.workflow.version"], run.attributes["evs.run.status"]) == (1, "completed")
    told = {f"00-{span.trace_id}-{span.span_id}-01" for span in collector.spans.values()}
    assert len(seen) == 3
    for own, found in seen:
        assert own == found
        assert own in told
    # Neither what errors say, nor inputs, nor who it was.
    assert not any(secret in body for body in collector.bodies for secret in (b"geheim", b"books", b"ada"))


async def test_after_a_crash_and_an_outage_the_tree_is_whole_and_each_span_is_once(database_url, collector, traces):
    collector.close()
    async with opened(database_url, traces) as engine:
        current_cause.set(Cause("c-1", None, None, f"00-{TRACE}-{REQUEST}-01"))
        handle = await engine.start(ship, "books")
        child = await child_of(engine)
        await engine.abandon()
    async with opened(database_url, traces) as engine:
        again = engine.handle(handle.id, ship)
        await engine.handle(child).signal(go_on, "now")
        assert await again.result(timeout=30) == 5
        assert collector.received == []
        collector.open_again()
        await came(collector, "run order")
    check_tree(collector, REQUEST)


async def test_spans_that_come_again_are_the_same(database_url, collector, traces):
    """The place in the log is written after what it tells of: a crash in between repeats it."""
    async with opened(database_url, traces) as engine:
        await (await engine.start(plain, "books")).result(timeout=30)
        await came(collector, "run plain")
    before = dict(collector.spans)
    async with opened(database_url, None) as engine:
        page = await read_page(engine.database, 0, Wanted(types=TOLD), limit=100)
        events = [placed.event for placed in page.events]
        run_tracing.RunTracer(engine.database, traces).tell(events)
    assert len(collector.received) == 2 * len(before)
    assert collector.spans == before


async def test_a_run_outside_of_any_trace_has_one_of_its_own(database_url, collector, traces):
    async with opened(database_url, traces) as engine:
        first, second = await engine.start(plain, "a"), await engine.start(plain, "b")
        await first.result(timeout=30)
        await second.result(timeout=30)
        await wait_until(lambda: len(collector.spans) == 4)
    runs = collector.named("run plain")
    assert len({run.trace_id for run in runs}) == 2
    assert {run.parent_id for run in runs} == {""}
    assert {(span.trace_id, span.parent_id) for span in collector.named("step weigh")} == {
        (run.trace_id, run.span_id) for run in runs
    }


async def test_a_run_whose_trace_nobody_keeps_is_not_told_of(database_url, collector, traces):
    async with opened(database_url, traces) as engine:
        current_cause.set(Cause("c-1", None, None, f"00-{TRACE}-{REQUEST}-00"))
        await (await engine.start(plain, "a")).result(timeout=30)
        current_cause.set(Cause())
        await (await engine.start(plain, "b")).result(timeout=30)
        await came(collector, "run plain")
    assert len(collector.named("run plain")) == 1
    assert TRACE not in {span.trace_id for span in collector.received}
    assert seen[0][0].endswith("-00")


async def test_a_retried_run_has_a_span_for_each_life(database_url, collector, traces):
    failing["fails"] = True
    async with opened(database_url, traces) as engine:
        handle = await engine.start(fails_once, id="twice")
        with pytest.raises(Exception, match="geheim"):
            await handle.result(timeout=30)
        await came(collector, "run fails-once")
        failing["fails"] = False
        await handle.retry()
        assert await handle.result(timeout=30) == "well"
        await wait_until(lambda: len(collector.spans) == 2)
    lives = collector.named("run fails-once")
    assert [(span.has_failed, span.attributes["evs.run.status"]) for span in lives] == [
        (True, "failed"),
        (False, "completed"),
    ]
    assert lives[0].attributes["error.type"] == "RuntimeError"
    assert [span.span_id for span in lives] == [run_span("twice", life) for life in (0, 1)]


async def test_a_run_that_continues_as_new_has_a_span_for_each_life_with_its_own_steps(database_url, collector, traces):
    async with opened(database_url, traces) as engine:
        assert await (await engine.start(goes_on, "a")).result(timeout=30) == "a.."
        await wait_until(lambda: len(collector.spans) == 6)
    lives = collector.named("run goes-on")
    assert [span.attributes["evs.run.status"] for span in lives] == ["continued", "continued", "completed"]
    assert len({span.trace_id for span in collector.spans.values()}) == 1
    assert [span.parent_id for span in collector.named("step weigh")] == [span.span_id for span in lives]
    for before, after in pairwise(lives):
        assert before.began_ns <= before.ended_ns <= after.began_ns


async def test_a_step_knows_its_place_without_traces(database_url):
    seen.clear()
    async with opened(database_url, None) as engine:
        current_cause.set(Cause("c-1", None, None, f"00-{TRACE}-{REQUEST}-01"))
        await (await engine.start(plain, "books")).result(timeout=30)
    ((own, found),) = seen
    assert own.startswith(f"00-{TRACE}-")
    assert own.endswith("-01")
    assert REQUEST not in own
    assert found == f"00-{'0' * 32}-{'0' * 16}-00"


async def test_a_collector_that_is_away_makes_no_dead_letters_and_is_told_of(sqlite_url, collector, traces, caplog):
    collector.close()
    with caplog.at_level(logging.WARNING):
        async with opened(sqlite_url, traces) as engine:
            await (await engine.start(plain, "books")).result(timeout=30)
            await wait_until(lambda: "traces of runs wait for it" in caplog.text)
    assert "gives up" not in caplog.text
    collector.open_again()
    async with opened(sqlite_url, traces):
        await came(collector, "run plain", "step weigh")
    assert len(collector.received) == 2


async def test_a_step_in_a_process_knows_its_place(sqlite_url, collector, traces):
    async with Engine.open(sqlite_url, workflows=[tell_place], traces=traces) as engine:
        own, found = await (await engine.start(tell_place)).result(timeout=60)
        await came(collector, "step place_of_step")
    (span,) = collector.named("step place_of_step")
    assert own == found == f"00-{span.trace_id}-{span.span_id}-01"
