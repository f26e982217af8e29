"""A run's state from its history and its events."""

from datetime import UTC, datetime

import pytest
from rich.console import Console

from cli_proj.timeline import Timeline, describe_waits, event_line
from cli_proj.waterfall import bar, choose_operations, draw

RUN = {
    "id": "r1",
    "workflow": "order",
    "status": "running",
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": "2026-01-01T00:00:00Z",
    "ended_at": None,
    "error": None,
    "progress": None,
    "waiting_for": [],
}


def step(kind, operation, second, **more):
    data = {"run": "r1", "operation": operation, "kind": "step", "name": "charge", "attempt": 1} | more
    return {"type": f"evs.step.{kind}", "time": f"2026-01-01T00:00:{second:02}Z", "data": data}


def test_a_step_starts_is_retried_and_completes():
    timeline = Timeline(dict(RUN))
    assert timeline.apply(step("started", "1", 1))
    assert timeline.apply(step("retried", "1", 2, attempt=2, error={"type": "E", "message": "busy"}))
    assert timeline.apply(step("completed", "1", 3, attempt=2))
    operation = timeline.operations["1"]
    assert (operation.status, operation.attempt, operation.started_at[-3:-1]) == ("completed", 2, "01")


def test_an_event_told_twice_changes_nothing():
    timeline = Timeline(dict(RUN))
    timeline.apply(step("completed", "1", 3))
    assert not timeline.apply(step("completed", "1", 3))
    assert not timeline.apply(step("started", "1", 1))
    assert timeline.operations["1"].status == "completed"


def test_a_retried_run_runs_a_failed_step_again():
    timeline = Timeline(dict(RUN))
    timeline.apply(step("failed", "1", 3))
    assert timeline.apply(step("started", "1", 9))
    assert timeline.operations["1"].status == "running"


def waiting(second, name):
    waits = [{"kind": "wait_signal", "name": name}]
    data = {"run": "r1", "waiting_for": waits}
    return {"type": "evs.run.waiting", "time": f"2026-01-01T00:00:{second:02}Z", "data": data}


def test_another_wait_is_a_change_and_the_same_again_is_none():
    timeline = Timeline(dict(RUN))
    assert timeline.apply(waiting(1, "first"))
    assert not timeline.apply(waiting(1, "first"))
    assert timeline.apply(waiting(2, "second"))


def test_what_was_told_before_a_snapshot_does_not_undo_it():
    timeline = Timeline(dict(RUN))
    ended = {"operation": "1", "kind": "wait_signal", "name": "first", "status": "completed", "attempt": 1}
    ended |= {"started_at": "2026-01-01T00:00:01Z", "ended_at": "2026-01-01T00:00:05Z"}
    timeline.take_snapshot(RUN | {"status": "waiting", "waiting_for": [{"kind": "approval", "name": "send"}]}, [ended])
    assert not timeline.apply(waiting(1, "first"))
    assert timeline.run["waiting_for"][0]["name"] == "send"
    assert timeline.apply(waiting(6, "second"))


def test_progress_and_waits_are_kept():
    timeline = Timeline(dict(RUN))
    timeline.apply({"type": "evs.run.progressed", "data": {"run": "r1", "fraction": 0.5, "text": "half"}})
    timeline.apply(
        {"type": "evs.run.waiting", "data": {"run": "r1", "waiting_for": [{"kind": "sleep", "name": "sleep"}]}}
    )
    assert (timeline.run["progress"]["text"], timeline.status) == ("half", "waiting")


def test_waits_that_look_alike_are_said_once_with_their_number():
    waits = [
        {"kind": "child", "name": "ship", "until": None, "count": 1_000},
        {"kind": "sleep", "name": "sleep", "until": None, "count": 1},
        {"kind": "wait_signal", "name": "go", "until": None, "count": 1},
        {"kind": "worker", "name": "that holds ship version 2", "until": None, "count": 1},
        {"kind": "others", "name": "7 others", "until": None, "count": 7},
    ]
    assert (
        describe_waits(waits)
        == "child ship (1,000 of them), sleep, signal go, a worker that holds ship version 2, 7 others"
    )


def test_an_event_is_one_line():
    line = event_line(step("failed", "1", 1, error={"type": "CardDeclined", "message": "no"}))
    assert line.endswith("step failed       charge  CardDeclined: no")


@pytest.mark.parametrize("data", ["operation", ["fraction"], {"operation": 1, "fraction": "half", "error": "none"}])
def test_the_data_of_somebody_elses_event_is_not_taken_for_ours(data):
    event = {"type": "shop.order.placed", "time": "2026-01-01T00:00:01Z", "data": data}
    assert event_line(event).endswith("shop order placed")


def test_a_bar_covers_its_part_of_the_time_to_an_eighth_of_a_cell():
    assert bar(0, 1, 8) == "████████"
    assert bar(0.5, 1, 8) == "    ████"
    assert bar(0, 0.5625, 8) == "████▌   "
    assert len(bar(1, 1, 8)) == 8


def test_the_picture_of_many_operations_fits_the_screen_and_keeps_what_failed():
    timeline = Timeline(dict(RUN))
    for number in range(100):
        timeline.apply(step("failed" if number == 3 else "completed", str(number), number % 60))
    chosen = choose_operations(timeline.in_order, 10)
    assert len(chosen) == 10
    assert "3" in [operation.key for operation in chosen]


def test_the_picture_names_the_run_its_operations_and_its_error():
    failed = RUN | {"status": "failed", "error": {"type": "CardDeclined", "message": "card tok_declined\033[2J"}}
    timeline = Timeline(failed)
    timeline.apply(step("failed", "1", 1))
    console = Console(width=80, record=True, file=None)
    with console.capture() as captured:
        console.print(draw(timeline, width=80, now=datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)))
    text = captured.get()
    assert all(word in text for word in ("failed", "order", "charge", "CardDeclined: card tok_declined\\x1b[2J"))
    assert max(len(line) for line in text.splitlines()) <= 80
