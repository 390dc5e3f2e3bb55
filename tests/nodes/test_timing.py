"""When schedules fire: every expectation is written as the clocks of its zone show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.mistakes import Mistakes
from nodes.timing import Timing

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def shown(timing: Timing, start: str, count: int) -> list[str]:
    """The first firings after an instant of the timing's zone, as its clocks show them."""
    zone = ZoneInfo(timing.timezone)
    after = datetime.fromisoformat(start).replace(tzinfo=zone)
    found = islice(timing.following(after.astimezone(UTC), ANCHOR), count)
    return [instant.astimezone(zone).isoformat(" ", "minutes") for instant in found]


# What Debian's cron does at the changes of 2026. The three zones change on other days, one of them in the
# other direction, and Lord Howe's clocks move by half an hour.
CHANGES = [
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
    (
        "America/New_York",
        "30 2 * * *",
        "2026-03-07T12:00",
        ["2026-03-08 03:00-04:00", "2026-03-09 02:30-04:00"],
    ),
    (
        "America/New_York",
        "30 1 * * *",
        "2026-10-31T12:00",
        ["2026-11-01 01:30-04:00", "2026-11-02 01:30-05:00"],
    ),
    (
        "Australia/Lord_Howe",
        "15 2 * * *",
        "2026-10-03T12:00",
        ["2026-10-04 02:30+11:00", "2026-10-05 02:15+11:00"],
    ),
    (
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2026-04-04T12:00",
        ["2026-04-05 01:45+11:00", "2026-04-06 01:45+10:30"],
    ),
    (
        "Europe/Berlin",
        "*/30 * * * *",
        "2026-03-29T01:15",
        ["2026-03-29 01:30+01:00", "2026-03-29 03:00+02:00", "2026-03-29 03:30+02:00"],
    ),
    (
        "Europe/Berlin",
        "*/30 * * * *",
        "2026-10-25T01:45",
        [
            "2026-10-25 02:00+02:00",
            "2026-10-25 02:30+02:00",
            "2026-10-25 02:00+01:00",
            "2026-10-25 02:30+01:00",
            "2026-10-25 03:00+01:00",
        ],
    ),
]


@pytest.mark.parametrize(("zone", "cron", "start", "wanted"), CHANGES)
def test_flt_45_a_clock_that_is_put_on_or_back_loses_and_doubles_nothing(
    zone: str, cron: str, start: str, wanted: list[str]
) -> None:
    assert shown(Timing(cron=cron, timezone=zone), start, len(wanted)) == wanted


@pytest.mark.parametrize("minute", [0, 10, 29, 30, 31, 59])
def test_flt_45_one_that_is_looked_at_within_the_hour_that_comes_twice_does_not_go_back(minute: int) -> None:
    timing = Timing(cron="30 2 * * *", timezone="Europe/Berlin")
    second = datetime(2026, 10, 25, 1, minute, tzinfo=UTC)  # 02:xx for the second time

    [found] = islice(timing.following(second, ANCHOR), 1)

    assert found == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "exactly one of 'cron', 'every' and 'once' says when, not none of them"),
    ({"cron": "* * * * *", "every": 60}, "not 'cron' and 'every'"),
    ({"cron": "* * * * * *"}, "has five fields (minute, hour, day of month, month, day of week), not 6"),
    ({"cron": ",".join(["1"] * 20_000) + " * * * *"}, "has at most 100 characters, not 40007"),
    ({"cron": "0 0 30 2 *"}, "is no cron expression: Bad day-of-month"),
    ({"cron": "61 * * * *"}, "is no cron expression: Bad minute"),
    ({"cron": "@daily"}, "has five fields"),
    ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, "'Mars/Olympus' is no time zone"),
    ({"cron": "* * * * *", "timezone": "../../etc/passwd"}, "is no time zone"),
    ({"cron": "* * * * *", "timezone": ""}, "is no time zone"),
    (
        {"every": 60, "starts_at": "2026-02-02T00:00:00Z", "ends_at": "2026-02-01T00:00:00Z"},
        "'ends_at' is not after 'starts_at'",
    ),
    ({"every": 60, "jitter": 60}, "'jitter' is shorter than the interval"),
    ({"every": 0.5}, "Expected `float` >= 1"),
    ({"every": -1}, "Expected `float` >= 1"),
    ({"every": 1e12}, "Expected `float` <="),
    ({"every": 60, "overlap": "stack"}, "Invalid enum value 'stack'"),
    ({"every": 60, "misfire": "all", "misfire_limit": 100_000}, "Expected `int` <= 1000"),
]


@pytest.mark.parametrize(("given_", "words"), REFUSED)
def test_sec_86_what_is_no_timing_is_refused_in_words(given_: dict[str, Any], words: str) -> None:
    with pytest.raises((Mistakes, msgspec.ValidationError)) as refused:
        msgspec.convert(given_, Timing)

    assert words in str(refused.value)


def test_an_interval_is_counted_from_its_start_or_else_from_where_it_was_made() -> None:
    begins = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
    after = datetime(2026, 5, 1, 12, 1, tzinfo=UTC)

    started = list(islice(Timing(every=60, starts_at=begins).following(after, ANCHOR), 2))
    anchored = list(islice(Timing(every=60).following(after, ANCHOR + timedelta(seconds=3)), 2))
    first = next(Timing(every=60, starts_at=begins).following(ANCHOR, ANCHOR))

    assert [each.second for each in started] == [7, 7]
    assert [each.second for each in anchored] == [3, 3]
    assert first == begins
    assert next(Timing(every=60).following(ANCHOR, ANCHOR)) == ANCHOR + timedelta(seconds=60)


def test_what_has_no_offset_is_a_time_of_the_zone() -> None:
    once = Timing(once=datetime(2026, 7, 1, 9), timezone="Asia/Tokyo")

    assert list(once.following(ANCHOR, ANCHOR)) == [datetime(2026, 7, 1, 0, tzinfo=UTC)]
    assert list(once.following(datetime(2026, 7, 1, tzinfo=UTC), ANCHOR)) == []


def test_it_fires_from_its_start_to_its_end_both_included() -> None:
    begins, ends = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 3, tzinfo=UTC)
    timing = Timing(cron="0 0 * * *", starts_at=begins, ends_at=ends)

    assert list(timing.following(ANCHOR, ANCHOR)) == [begins, begins + timedelta(days=1), ends]


@given(
    st.sampled_from(["* * * * *", "*/7 3 * * *", "0 */5 * * *", "30 2 * * *", "0 12 1 * *", "15 1 * * 0"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, 366 * 24 * 60),
    st.integers(1, 3000),
    st.integers(1, 30),
)
def test_the_latest_instants_are_the_last_of_all(
    cron: str, zone: str, start: int, length: int, most: int
) -> None:
    timing = Timing(cron=cron, timezone=zone)
    since = ANCHOR + timedelta(minutes=start)
    until = since + timedelta(minutes=length)
    every = []
    for instant in timing.following(since - timedelta(microseconds=1), ANCHOR):
        if instant > until:
            break
        every.append(instant)

    assert timing.latest(most, since, until, ANCHOR) == every[-most:]
    assert every == sorted(set(every))
