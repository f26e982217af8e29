"""Times as people read them."""

import pytest

from cli_proj.moments import brief, precise, read_duration, written


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0754, "75 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (119.7, "2 min 0 s"),
        (3599.7, "1 h 0 min"),
        (7384, "2 h 3 min"),
    ],
)
def test_a_duration_never_shows_a_full_unit_as_sixty_of_a_smaller_one(seconds, shown):
    assert precise(seconds) == shown


def test_a_duration_in_one_unit_changes_the_unit_at_two_of_the_next():
    assert [brief(seconds) for seconds in (-1, 119, 120, 7200, 172_800)] == ["0s", "119s", "2m", "2h", "2d"]


def test_a_duration_is_written_exactly_and_as_it_is_read():
    assert [written(seconds) for seconds in (90, 300, 5400, 172_800, 0.5)] == ["90s", "5m", "90m", "2d", "0.5s"]
    assert read_duration(written(5400), option="--every") == 5400
