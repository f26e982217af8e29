"""When schedules are due: cron expressions, intervals, lists, and what clocks that change do to them."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from lib_events.clock import to_datetime, to_micros
from lib_workflows import At, Between, Cron, Every
from lib_workflows.authoring.timing import latest, read_timing, times_after
from lib_workflows.errors import ScheduleInvalid

HOUR = timedelta(hours=1)
BERLIN = "Europe/Berlin"


def at(text):
    return to_micros(datetime.fromisoformat(text).replace(tzinfo=UTC))


def due(timing, after, count=3):
    return [f"{to_datetime(found):%Y-%m-%dT%H:%M:%S}" for found in times_after(timing, at(after), count)]


def due_in(timing, zone, after, count):
    found = times_after(timing, at(after), count)
    return [f"{to_datetime(moment).astimezone(ZoneInfo(zone)):%d %H:%M %Z}" for moment in found]


def test_expressions_mean_what_cron_means(subtests):
    for expression, expected in {
        "0 6 * * *": ["2026-01-01T06:00:00", "2026-01-02T06:00:00"],
        "*/20 * * * *": ["2026-01-01T00:20:00", "2026-01-01T00:40:00"],
        "0 9-17/4 * * mon-fri": ["2026-01-01T09:00:00", "2026-01-01T13:00:00"],
        "30 4 1,15 * fri": ["2026-01-01T04:30:00", "2026-01-02T04:30:00"],
        "0 0 29 feb *": ["2028-02-29T00:00:00", "2032-02-29T00:00:00"],
        "0 0 * * 7": ["2026-01-04T00:00:00", "2026-01-11T00:00:00"],
        "0 0 l * *": ["2026-01-31T00:00:00", "2026-02-28T00:00:00"],
        "0 0 * * fri#2": ["2026-01-09T00:00:00", "2026-02-13T00:00:00"],
        "@daily": ["2026-01-02T00:00:00", "2026-01-03T00:00:00"],
        " @Hourly ": ["2026-01-01T01:00:00", "2026-01-01T02:00:00"],
        "@monthly": ["2026-02-01T00:00:00", "2026-03-01T00:00:00"],
        "@yearly": ["2027-01-01T00:00:00", "2028-01-01T00:00:00"],
        "@weekly": ["2026-01-04T00:00:00", "2026-01-11T00:00:00"],
    }.items():
        with subtests.test(expression):
            assert due(Cron(expression), "2026-01-01T00:00:00", 2) == expected


def test_nonsense_is_refused_with_the_field_and_what_to_do(subtests):
    for expression, words in {
        "61 * * * *": "a valid minute, got '61'",
        "* 24 * * *": "a valid hour",
        "0 0 31 2 *": "a valid day of month",
        "0 0 0 * *": "day of month",
        "0 0 * 13 *": "month",
        "0 0 * * 8": "day of week",
        "": "5 fields",
        "   ": "5 fields",
        "* * * * * *": "5 fields (minute, hour, day of month, month, day of week), got 6",
        "@reboot": "@daily",
        "@every 5m": "5 fields",
        "*/90 * * * *": "use every",
        "*/0 * * * *": "minute",
        "5-1 * * * *": "minute",
        "-1 * * * *": "minute",
        "1.5 * * * *": "minute",
        "* * * * mon-": "day of week",
        "\u0661 * * * *": "ASCII",
        "0 0 30 2 *": "day of month",
        "*," * 200 + "* * * * *": "256",
        "tomorrow": "5 fields",
    }.items():
        with subtests.test(expression[:20]), pytest.raises(ScheduleInvalid) as refused:
            Cron(expression)
        assert refused.value.field == "cron"
        assert words in str(refused.value)


def test_zones_intervals_and_lists_that_make_no_sense_are_refused(subtests):
    for field, make in {
        "timezone": [
            lambda: Cron("@daily", "Mars/Olympus"),
            lambda: Cron("@daily", ""),
            lambda: Cron("@daily", "../etc/passwd"),
            lambda: Cron("@daily", "\0"),
            lambda: Cron("@daily", "A" * 10_000),
        ],
        "every": [
            lambda: Every(timedelta(0)),
            lambda: Every(timedelta(seconds=-5)),
            lambda: Every(timedelta(milliseconds=1)),
            lambda: Every(timedelta(days=100_000)),
            lambda: Every(5),
        ],
        "start": [lambda: Every(timedelta(hours=1), datetime(2026, 1, 1))],  # noqa: DTZ001
        "times": [
            lambda: At(()),
            lambda: At((datetime(2026, 1, 1),)),  # noqa: DTZ001
            lambda: At(tuple(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(1_001))),
        ],
    }.items():
        for number, one in enumerate(make):
            with subtests.test(field, number=number), pytest.raises(ScheduleInvalid) as refused:
                one()
            assert refused.value.field == field


def test_a_time_that_clocks_skip_is_due_once_as_long_after_the_change():
    # On 29 March 2026 it is 03:00 right after 01:59 in Berlin.
    assert due_in(Cron("30 2 * * *", BERLIN), BERLIN, "2026-03-28T00:00", 3) == [
        "28 02:30 CET",
        "29 03:30 CEST",
        "30 02:30 CEST",
    ]
    assert due_in(Cron("15,45 2,3 * * *", BERLIN), BERLIN, "2026-03-29T00:00", 3) == [
        "29 03:15 CEST",
        "29 03:45 CEST",
        "30 02:15 CEST",
    ]
    # Of several skipped and real times the earlier moment is first, also when it is asked for in between.
    assert due_in(Cron("45 2 * * *", BERLIN), BERLIN, "2026-03-29T01:10", 1) == ["29 03:45 CEST"]
    assert due_in(Cron("*/2 2 * * *", BERLIN), BERLIN, "2026-03-29T01:01", 2) == ["29 03:02 CEST", "29 03:04 CEST"]


def test_a_time_that_comes_twice_is_due_the_first_time_only():
    # On 25 October 2026 it is 02:00 again after 02:59 in Berlin.
    assert due_in(Cron("30 2 * * *", BERLIN), BERLIN, "2026-10-24T12:00", 2) == ["25 02:30 CEST", "26 02:30 CET"]
    assert due_in(Cron("0 */2 * * *", BERLIN), BERLIN, "2026-10-24T22:00", 3) == [
        "25 02:00 CEST",
        "25 04:00 CET",
        "25 06:00 CET",
    ]


def test_an_open_hour_goes_by_time_that_passes(subtests):
    for begin, count in (("2026-03-28T23:00", 23), ("2026-10-24T22:00", 25)):
        for expression in ("0 * * * *", "0 0-23 * * *", "0 */1 * * *"):
            with subtests.test(expression, begin=begin):
                found = times_after(Cron(expression, BERLIN), at(begin) - 1, count + 1)
                assert {later - earlier for earlier, later in itertools.pairwise(found)} == {3_600_000_000}
                assert to_datetime(found[-1]).astimezone(ZoneInfo(BERLIN)).hour == 0


def test_a_day_that_does_not_exist_loses_nothing():
    # Samoa had no 30 December 2011.
    found = times_after(Cron("0 12 * * *", "Pacific/Apia"), at("2011-12-29T00:00"), 4)
    assert len(set(found)) == 4
    assert found == sorted(found)


def test_in_every_zone_each_time_on_the_wall_is_due_once(subtests):
    for zone, year in {
        BERLIN: 2026,
        "America/New_York": 2026,
        "Australia/Lord_Howe": 2026,  # half an hour
        "Pacific/Apia": 2011,  # a whole day
        "America/Sao_Paulo": 2018,  # at midnight
        "Africa/Casablanca": 2026,  # for Ramadan
        "Asia/Kathmandu": 2026,  # never
    }.items():
        for expression in ("30 2 * * *", "0 0 * * *", "15,45 0,2,3 * * *"):
            with subtests.test(zone, expression=expression):
                begin, end = datetime(year, 1, 2), datetime(year + 1, 1, 2)  # noqa: DTZ001 - on the wall
                walls = itertools.takewhile(lambda wall, end=end: wall < end, CronSim(expression, begin))
                expected = {to_micros(wall.replace(tzinfo=ZoneInfo(zone))) for wall in walls}
                first = to_micros(begin.replace(tzinfo=ZoneInfo(zone)))
                until = to_micros(end.replace(tzinfo=ZoneInfo(zone))) - 1
                assert times_after(Cron(expression, zone), first, 100_000, until) == sorted(expected)


def test_every_counts_from_the_epoch_or_from_its_start():
    assert due(Every(timedelta(hours=1)), "2026-01-01T00:30:00", 2) == ["2026-01-01T01:00:00", "2026-01-01T02:00:00"]
    start = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)
    assert due(Every(timedelta(minutes=90), start), "2025-01-01T00:00:00", 2) == [
        "2026-01-01T00:00:07",
        "2026-01-01T01:30:07",
    ]


def test_where_the_calendar_ends_nothing_is_due(subtests):
    end = datetime(9999, 12, 31, 23, tzinfo=UTC)
    for timing in (Cron("* * * * *", "Pacific/Kiritimati"), Every(timedelta(days=1)), Every(HOUR, end), At((end,))):
        with subtests.test(str(timing)):
            assert times_after(timing, to_micros(end), 3) == []


def test_a_list_is_sorted_and_ends():
    first, second = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert due(At((first, second, first)), "2025-01-01T00:00:00") == ["2026-01-01T00:00:00", "2026-01-02T00:00:00"]


def test_a_timing_is_read_as_it_was_written(subtests):
    start = datetime(2026, 1, 1, 1, tzinfo=ZoneInfo(BERLIN))
    for timing in (
        Cron("0 6 * * mon-fri", BERLIN),
        Every(timedelta(minutes=5)),
        Every(timedelta(minutes=5), start),
        At((start,)),
    ):
        with subtests.test(str(timing)):
            assert read_timing(timing.as_json()) == timing


def test_the_last_time_of_a_year_of_seconds_is_found_at_once():
    every = Every(timedelta(seconds=1))
    until = at("2026-01-01T00:00:00")
    assert latest(every, at("2025-01-01T00:00:00"), until) == until
    assert latest(Cron("0 0 29 2 *"), at("2001-01-01T00:00:00"), until) == at("2024-02-29T00:00:00")
    assert latest(Cron("0 0 29 2 *"), at("2024-03-01T00:00:00"), until) is None


def test_a_timing_may_have_a_first_and_a_last_time():
    since, until = (datetime(2026, 3, day, 6, tzinfo=UTC) for day in (2, 4))
    within = Between(Cron("0 6 * * *"), since, until)
    assert due(within, "2026-01-01T00:00:00", 9) == [f"2026-03-0{day}T06:00:00" for day in (2, 3, 4)]
    assert due(within, "2026-03-03T06:00:00", 9) == ["2026-03-04T06:00:00"]
    assert latest(within, at("2026-01-01T00:00:00"), at("2027-01-01T00:00:00")) == at("2026-03-04T06:00:00")
    open_end = Between(Every(timedelta(hours=12)), since)
    assert due(open_end, "2026-01-01T00:00:00", 2) == ["2026-03-02T12:00:00", "2026-03-03T00:00:00"]
    for timing in (within, open_end, Between(Every(HOUR, since), until=until)):
        assert read_timing(timing.as_json()) == timing


def test_bounds_that_leave_nothing_are_refused():
    day = datetime(2026, 3, 2, 6, tzinfo=UTC)
    for make, field in (
        (lambda: Between(Cron("0 6 * * *"), day, day - HOUR), "until"),
        (lambda: Between(Cron("0 7 * * *"), day, day + HOUR / 2), "until"),
        (lambda: Between(Cron("0 7 * * *"), day.replace(tzinfo=None)), "since"),
        (lambda: Between(At((day,)), day), "since"),
    ):
        with pytest.raises(ScheduleInvalid) as refused:
            make()
        assert refused.value.field == field
