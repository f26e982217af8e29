"""A run's page tells what of it can be undone, is being undone, has been, and what could not be."""

from gui_proj.timeline import bar_class, timeline
from gui_proj.undos import undo_mark, undoing_badge, undos_card

AT = "2026-01-31T12:00:00Z"
RUN = {"id": "r1", "status": "running", "created_at": AT, "started_at": AT, "ended_at": None, "undoing_since": AT}


def entry(name, status, *, attempt=1, error=None):
    undo = {
        "name": f"un{name}",
        "status": status,
        "attempt": attempt,
        "error": error and {"type": "E", "message": error},
        "ended_at": None,
    }
    return {
        "position": 1, "operation": "1", "kind": "step", "name": name, "status": "completed", "attempt": 1,
        "started_at": AT, "ended_at": AT, "undo": undo if status else None,
    }  # fmt: skip


def test_each_state_of_an_undo_is_said_in_words_at_its_operation(subtests):
    for status, words in (
        ("declared", "can be undone"),
        ("pending", "to be undone"),
        ("running", "being undone"),
        ("undone", "undone"),
        ("failed", "not undone"),
    ):
        with subtests.test(status=status):
            html = str(timeline(RUN, [entry("charge", status)]))
            assert f"u-{status}" in html
            assert words in html
    with subtests.test("nothing to undo"):
        assert undo_mark(entry("print", None)) is None


def test_a_run_that_undoes_says_how_far_it_is_and_why_an_attempt_failed():
    history = [
        entry("reserve", "pending"),
        entry("charge", "running", attempt=3, error="no answer"),
        entry("ship", "failed", attempt=11, error="it is gone"),
        entry("pack", "undone"),
        entry("print", None),
    ]
    html = str(undos_card(RUN, history))
    assert "1 of 4 undone, 1 failed, 1 still to come" in html
    assert "undoes charge, attempt 3" in html
    assert "no answer" in html
    assert "after 11 attempts with E: it is gone" in html
    assert "undoing" in str(undoing_badge(RUN))


def test_afterwards_only_what_could_not_be_undone_is_worth_a_card():
    ended = RUN | {"status": "failed", "ended_at": AT, "undoing_since": None}
    assert undos_card(ended, [entry("charge", "undone")]) is None
    assert undos_card(RUN | {"undoing_since": None}, [entry("charge", "declared")]) is None
    assert "Not everything was undone" in str(undos_card(ended, [entry("charge", "failed", error="<gone>")]))
    assert "&lt;gone&gt;" in str(undos_card(ended, [entry("charge", "failed", error="<gone>")]))
    assert undoing_badge(ended) is None


def test_that_a_run_began_to_undo_has_the_colour_of_undos():
    assert bar_class(entry("undoing", None) | {"kind": "undoing"}) == "undo"
