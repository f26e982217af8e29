"""The tail: the end of the log in memory, without a gap, or nothing."""

import pytest

from lib_events.event_log import APPEND_EVENTS
from lib_events.tail import LogRow, Tail


def rows(first, last, *, size=1, body=b"{}"):
    """Rows that end at the positions from `first` on up to `last`."""
    ends = range(first, last + 1, size)
    return [(end, f"id-{end}", "/x", "test.noted", None, 0, None, False, size, body) for end in ends]


def ends_after(tail, position, *, limit=100):
    found = tail.after(position, limit=limit)
    return None if found is None else [row.last_position for row in found]


def test_a_row_is_stored_as_the_log_appends_it():
    stored = [name for name, _ in APPEND_EVENTS.columns]
    assert ["last_position", *stored] == [{"size": "count"}.get(name, name) for name in LogRow._fields]


def test_an_empty_tail_knows_nothing():
    assert (Tail().after(0, limit=1), Tail().end) == (None, 0)


def test_what_follows_a_position_in_it_is_read_and_nothing_more_follows_its_end():
    tail = Tail()
    tail.extend(1, rows(5, 7))
    tail.extend(1, rows(8, 8))
    assert [ends_after(tail, position) for position in (4, 6, 7, 8)] == [[5, 6, 7, 8], [7, 8], [8], []]
    assert ends_after(tail, 4, limit=2) == [5, 6]
    assert (tail.end, tail.epoch) == (8, 1)


@pytest.mark.parametrize("position", [0, 3, 9])
def test_whoever_stands_before_it_or_beyond_it_reads_the_table(position):
    tail = Tail()
    tail.extend(1, rows(5, 8))
    assert ends_after(tail, position) is None


def test_a_row_of_many_events_is_found_from_inside_it_too():
    tail = Tail()
    tail.extend(1, rows(10, 20, size=5))
    assert [ends_after(tail, position) for position in (4, 5, 9)] == [None, [10, 15, 20], [10, 15, 20]]
    assert [ends_after(tail, position) for position in (10, 12)] == [[15, 20], [15, 20]]


def test_rows_after_a_gap_begin_it_anew():
    tail = Tail()
    tail.extend(1, rows(1, 3))
    tail.extend(1, rows(5, 6))
    assert [ends_after(tail, position) for position in (0, 3, 4, 6)] == [None, None, [5, 6], []]


def test_rows_of_another_epoch_begin_it_anew():
    tail = Tail()
    tail.extend(1, rows(1, 3))
    tail.extend(2, rows(4, 4))
    assert [ends_after(tail, position) for position in (0, 3)] == [None, [4]]
    assert tail.epoch == 2


def test_what_is_forgotten_is_read_from_the_table_until_more_is_known():
    tail = Tail()
    tail.extend(1, rows(1, 3))
    tail.clear()
    assert [ends_after(tail, position) for position in (0, 3)] == [None, None]
    tail.extend(1, rows(4, 4))
    assert [ends_after(tail, position) for position in (0, 3)] == [None, [4]]


def test_more_rows_than_may_be_kept_push_out_the_oldest():
    tail = Tail(rows_limit=4)
    tail.extend(1, rows(1, 3))
    tail.extend(1, rows(4, 6))
    assert [ends_after(tail, position) for position in (1, 2, 5)] == [None, [3, 4, 5, 6], [6]]
    tail.extend(1, rows(7, 20))
    assert [ends_after(tail, position) for position in (15, 16)] == [None, [17, 18, 19, 20]]


def test_more_bytes_than_may_be_kept_push_out_the_oldest_and_one_row_may_be_too_large():
    tail = Tail(bytes_limit=100)
    tail.extend(1, rows(1, 3, body=b"x" * 30))
    tail.extend(1, rows(4, 4, body=b"x" * 40))
    assert [ends_after(tail, position) for position in (0, 1, 2)] == [None, [2, 3, 4], [3, 4]]
    tail.extend(1, rows(5, 5, body=b"x" * 101))
    assert [ends_after(tail, position) for position in (4, 5)] == [None, []]
    tail.extend(1, rows(6, 6))
    assert ends_after(tail, 5) == [6]
