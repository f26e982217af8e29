"""What a person is told of a run that acts for somebody."""

import pytest

from cli_proj.run_view import show_run

RUN = {
    "id": "r1", "workflow": "my-orders", "version": 1, "status": "waiting", "created_at": "2026-01-01T00:00:00Z",
    "started_at": "2026-01-01T00:00:00Z", "ended_at": None, "principal": {"subject": "u1", "username": "ulla"},
}  # fmt: skip
SERVICES = [{"resource": "https://orders.example", "scope": ["orders", "refunds"]}]
WHERE = "at https://orders.example with orders, refunds"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("acting", f"for ulla {WHERE}, until it ends, 2026-12-03T05:00:00Z at the latest"),
        ("stopped", f"for nobody any more (stopped) {WHERE}"),
        ("expired", f"for nobody any more (expired) {WHERE}"),
        ("nobody", f"for nobody (its owner has to start or retry it) {WHERE}"),
    ],
)
def test_a_run_says_for_whom_it_acts_or_why_it_does_not(state, words, capsys):
    show_run(RUN | {"acting": {"state": state, "until": "2026-12-03T05:00:00Z", "services": SERVICES}})
    assert words in " ".join(capsys.readouterr().out.split())


def test_of_a_run_whose_workflow_acts_for_nobody_nothing_is_said(capsys):
    show_run(RUN | {"acting": None})
    assert "acts" not in capsys.readouterr().out
