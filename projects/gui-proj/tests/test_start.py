"""What the page says on which a workflow is started."""

import pytest

from gui_proj.screens.start import in_short


@pytest.mark.parametrize(
    ("deadline", "said"), [(None, "v2 · queue mail"), (5_400, "v2 · queue mail · ends within 1 h 30 min")]
)
def test_a_workflow_in_short_says_within_which_time_its_runs_must_end(deadline, said):
    assert in_short({"version": 2, "queue": "mail", "deadline_seconds": deadline}) == said
