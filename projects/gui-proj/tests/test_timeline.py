"""The timeline tells what a run did, when, and what of it was undone."""

from datetime import UTC, datetime, timedelta

import pytest

from gui_proj.components import asker, waiting_words
from gui_proj.json_view import json_view
from gui_proj.moments import ago, ahead, distance_words, seconds_words
from gui_proj.timeline import Scale, bar_class, scale_of, ticks, timeline

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def moment(seconds):
    return None if seconds is None else (START + timedelta(seconds=seconds)).isoformat()


def run(status="completed", *, ended=10.0):
    return {
        "id": "r1",
        "status": status,
        "created_at": moment(0),
        "started_at": moment(0.01),
        "ended_at": moment(ended),
    }


def entry(name, began, ended, *, kind="step", status="completed", operation="1", **more):
    return {
        "position": 1,
        "operation": operation,
        "kind": kind,
        "name": name,
        "status": status,
        "attempt": 1,
        "started_at": moment(began),
        "ended_at": moment(ended),
        **more,
    }


def test_a_bar_lies_where_its_operation_lay_in_time():
    html = str(timeline(run(), [entry("charge", 2.5, 5)]))
    assert '<rect x="25.0%" y="4" width="25.00%"' in html


def test_an_operation_that_has_not_ended_reaches_until_now():
    now = START + timedelta(seconds=8)
    html = str(timeline(run("running", ended=None), [entry("charge", 4, None, status="running")], now=now))
    assert '<rect x="50.0%" y="4" width="50.00%"' in html
    assert "open" in html


def test_what_was_undone_and_what_failed_have_colours_of_their_own():
    assert bar_class(entry("release", 0, 1, kind="undo")) == "undo"
    assert bar_class(entry("charge", 0, 1, status="failed")) == "failed"
    assert bar_class(entry("pause", 0, 1, kind="sleep")) == "wait"
    assert bar_class(entry("charge", 0, None, status="running")) == "running"


def test_attempts_errors_and_values_are_shown():
    failed = entry("charge", 0, 1, status="failed", attempt=3, error={"type": "CardDeclined", "message": "no money"})
    failed["attempt"] = 3
    html = str(timeline(run("failed"), [failed | {"input": ["tea", 2]}]))
    assert "attempt 3" in html
    assert "CardDeclined" in html
    assert "no money" in html


def test_operations_of_a_branch_are_set_in():
    assert "d2" in str(timeline(run(), [entry("x", 0, 1, operation="3/1/2")]))


def test_time_in_the_queue_is_shown_when_it_is_worth_a_row():
    waited = run() | {"started_at": moment(4)}
    assert "in the queue" in str(timeline(waited, []))
    assert "in the queue" not in str(timeline(run(), []))


def test_a_run_without_any_duration_divides_by_nothing():
    assert "op-line" in str(timeline(run(ended=0.0), [entry("x", 0, 0)]))


@pytest.mark.parametrize("seconds", [0.0004, 0.3, 1, 59, 4000, 3 * 86400, 400 * 86400])
def test_the_axis_has_a_few_round_marks(seconds):
    marks = ticks(Scale(START, seconds))
    assert 1 < len(marks) <= 7
    assert marks[0] == (0.0, "0")


def test_the_axis_reaches_to_the_last_thing_that_happened():
    assert scale_of(run(ended=5.0), [entry("late", 1, 9)], now=START).seconds == 9


def test_durations_and_distances_read_as_people_say_them():
    assert [seconds_words(each) for each in (0.0004, 0.05, 3.21, 75, 7500, 90000)] == [
        "0.4 ms",
        "50 ms",
        "3.2 s",
        "1 min 15 s",
        "2 h 5 min",
        "1 d 1 h",
    ]
    assert distance_words(timedelta(seconds=90)) == "2 min ago"
    assert distance_words(timedelta(hours=-3)) == "in 3 h"
    assert distance_words(timedelta(seconds=1)) == "just now"
    assert "in 9 s" in str(ahead(moment(9), now=START))
    assert "any moment" in str(ahead(moment(4), now=START))
    assert "just now" in str(ago(moment(-4), now=START))


def test_whoever_or_whatever_started_a_run_is_named():
    assert asker(run() | {"principal": {"subject": "s-1", "username": "grace"}}) == "grace"
    assert "an event" in str(asker(run() | {"principal": None}))
    assert "a schedule" in str(asker(run() | {"id": "schedule~tick~20261126T072400Z", "principal": None}))


def test_long_json_is_cut_and_the_rest_offered():
    html = str(json_view({"text": "x" * 20_000, "after": 1}, whole="/runs/r1/input.json"))
    assert len(html) < 2_000
    assert "after" in html
    assert 'href="/runs/r1/input.json"' in html


def test_long_lists_and_objects_are_cut_before_they_are_written():
    for value in (list(range(5_000)), {str(number): number for number in range(5_000)}):
        html = str(json_view(value, whole="/runs/r1/input.json"))
        assert "4,900 more" in html
        assert "Show all" in html


def test_what_a_run_waits_for_is_said_once():
    waiting = [{"kind": "sleep", "name": "sleep"}, {"kind": "wait_event", "name": "order.paid"}]
    assert waiting_words(waiting) == "sleep, event order.paid"
    woken = [{"kind": "worker", "name": "that holds ship version 2 and serves queue default"}]
    assert waiting_words(woken) == "a worker that holds ship version 2 and serves queue default"
    assert waiting_words([{"kind": "slot", "name": "of queue mail"}]) == "a slot of queue mail"
    many = [{"kind": "child", "name": "ship", "count": 1_000}, {"kind": "others", "name": "7 others", "count": 7}]
    assert waiting_words(many) == "child ship (1,000 of them), 7 others"


def test_json_is_escaped_and_coloured():
    html = str(json_view({"a": "</script><b>", "n": 1.5, "t": True}))
    assert "<b>" not in html
    assert '<i class="jk">&#34;a&#34;</i>' in html
    assert '<i class="jn">1.5</i>' in html
