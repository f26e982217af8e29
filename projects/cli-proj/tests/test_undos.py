"""What a person is told of a run that undoes what it did."""

from datetime import UTC, datetime

import pytest
from rich.console import Console

from cli_proj.timeline import Timeline, event_line
from cli_proj.undos import describe_undos
from cli_proj.waterfall import draw

RUN = {
    "id": "r1", "workflow": "order", "status": "running", "created_at": "2026-01-01T00:00:00Z",
    "started_at": "2026-01-01T00:00:00Z", "ended_at": None, "error": None, "progress": None, "waiting_for": [],
    "undoing_since": "2026-01-01T00:00:05Z",
}  # fmt: skip


def undo(name, status, *, attempt=1, error=None):
    return {"name": name, "status": status, "attempt": attempt, "error": error and {"type": "E", "message": error}}


def entry(operation, name, undone):
    times = {"started_at": f"2026-01-01T00:00:0{operation}Z", "ended_at": f"2026-01-01T00:00:0{operation}Z"}
    return times | {
        "operation": operation, "kind": "step", "name": name, "status": "completed", "attempt": 1, "undo": undone,
    }  # fmt: skip


def undoing():
    timeline = Timeline(dict(RUN))
    history = [
        entry("1", "reserve", undo("release", "pending")),
        entry("2", "charge", undo("refund", "running", attempt=2, error="no answer")),
        entry("3", "print", None),
        entry("4", "ship", undo("recall", "failed", error="it is gone")),
    ]
    timeline.take_snapshot(RUN, history)
    return timeline


def told(kind, operation, second, **more):
    data = {"run": "r1", "operation": operation, "kind": "undo", "name": "refund", "attempt": 2} | more
    return {"type": f"evs.step.{kind}", "time": f"2026-01-01T00:00:{second:02}Z", "data": data}


def pictured(timeline):
    console = Console(width=100, record=True, file=None)
    with console.capture() as captured:
        console.print(draw(timeline, width=100, now=datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)))
    return captured.get()


def test_how_far_the_undos_are_is_said_in_one_line(subtests):
    running = [undo("a", "undone"), undo("b", "failed", error="gone"), undo("c", "running"), undo("d", "pending")]
    for undos, words in (
        ([], ""),
        ([undo("a", "declared")], ""),
        (running, "1 of 4 undone, c under way, 1 to come, b failed (gone)"),
        ([undo("a", "running", attempt=3, error="busy")], "0 of 1 undone, a under way (attempt 3: busy)"),
        ([undo("a", "undone"), undo("b", "undone")], "2 of 2 undone"),
    ):
        with subtests.test(words=words):
            assert describe_undos(undos) == words


def test_the_picture_marks_what_is_undone_what_comes_and_what_could_not_be():
    lines = {line.split()[1]: line for line in pictured(undoing()).splitlines() if len(line.split()) > 1}
    assert "↶ undoing" in next(iter(lines.values()))
    assert "↶ to undo" in lines["reserve"]
    assert "↶ undoing" in lines["charge"]
    assert "↶" not in lines["print"]
    assert "↶ not undone" in lines["ship"]
    assert max(map(len, lines.values())) <= 100


def test_events_about_undos_change_what_is_said_of_the_operation():
    timeline = undoing()
    timeline.apply(told("completed", "2/undo", 7))
    timeline.apply(told("started", "1/undo", 8, name="release"))
    undos = [operation.undo for operation in timeline.in_order if operation.undo and operation.kind == "step"]
    assert describe_undos(undos) == "1 of 3 undone, release under way, recall failed (it is gone)"
    timeline.apply({"type": "evs.run.failed", "time": "2026-01-01T00:00:09Z", "data": {"run": "r1"}})
    assert "↶ undoing" not in pictured(timeline).splitlines()[0]


def test_that_a_run_begins_to_undo_is_one_line_with_its_reason():
    data = {"run": "r1", "operations": 3, "error": {"type": "CardDeclined", "message": "no"}}
    line = event_line({"type": "evs.run.undoing", "time": "2026-01-01T00:00:01Z", "data": data})
    assert line.endswith("run undoing       3 operations  CardDeclined: no")


@pytest.mark.parametrize("status", ["declared", "pending", "running", "undone", "failed"])
def test_an_operation_that_can_be_undone_is_marked(status):
    timeline = Timeline(dict(RUN))
    timeline.take_snapshot(RUN, [entry("1", "reserve", undo("release", status))])
    assert "↶" in pictured(timeline).splitlines()[1]
