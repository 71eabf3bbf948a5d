"""The statutory clock: known answers."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import chinese_calendar  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest
import yaml

from services.recognition.calendars import Calendar, Calendars
from services.recognition.statutory import LARGEST, Limit, Suspension, Unit, add, reckon, yellow_at

CALENDARS = Calendars.load()
CN, US, NL, SA, EG = (CALENDARS.get(name) for name in ("CN", "US", "NL", "SA", "EG"))
LAST = max(chinese_calendar.holidays).year
"""The library's last year, by the library's word."""
DAY = dt.timedelta(days=1)


def working(amount: int) -> Limit:
    return Limit(amount, Unit.WORKING_DAY)


def calendar_days(amount: int) -> Limit:
    return Limit(amount, Unit.CALENDAR_DAY)


def hours(amount: int) -> Limit:
    return Limit(amount, Unit.HOUR)


def at(text: str, calendar: Calendar = CN) -> dt.datetime:
    """A moment by the clocks of the calendar's place; a date alone is nine in the morning there."""
    return dt.datetime.fromisoformat(text if "T" in text else f"{text}T09:00").replace(tzinfo=calendar.zone)


def pause(start: str, end: str | None, calendar: Calendar = CN) -> Suspension:
    return Suspension(at(start, calendar), at(end, calendar) if end else None)


def last_day(start: str, limit: Limit, *suspensions: Suspension, calendar: Calendar = CN, roll: bool = True) -> str:
    found = reckon(calendar, at(start, calendar), limit, suspensions, at(start, calendar), roll=roll)
    assert found.due_date
    return found.due_date.isoformat()


# Known answers.

PAUSED = pause("2026-09-23T10:00", "2026-09-28T15:00")


@pytest.mark.parametrize(
    ("start", "amount", "suspensions", "due"),
    [
        ("2026-09-30", 5, [], "2026-10-13"),
        ("2026-09-21", 20, [], "2026-10-26"),
        ("2026-09-21", 20, [PAUSED], "2026-10-28"),
        ("2026-02-13", 3, [], "2026-02-25"),
        ("2026-02-13", 5, [], "2026-02-27"),
        ("2026-02-14", 1, [], "2026-02-24"),
    ],
)
def test_known_answers(start: str, amount: int, suspensions: list[Suspension], due: str) -> None:
    found = reckon(CN, at(start), working(amount), suspensions, at(start))
    assert found.due_date == dt.date.fromisoformat(due)
    assert found.due_at == at(f"{due}T00:00") + DAY
    assert found.due_at is not None
    assert found.due_at.tzinfo is dt.UTC
    assert (found.provisional, found.overdue, found.used, found.left, found.total) == (False, False, 0, amount, amount)


def test_known_answers_differ_from_those_that_are_easily_had() -> None:
    """Monday to Friday, or without the holidays but not with the weekends that are worked for them."""

    def naive(start: str, amount: int, off: Sequence[dt.date] = ()) -> str:
        day = dt.date.fromisoformat(start)
        while amount:
            day += DAY
            amount -= day.weekday() < 5 and day not in off
        return day.isoformat()

    holidays = list(chinese_calendar.holidays)
    assert naive("2026-09-30", 5) == "2026-10-07"
    assert naive("2026-09-30", 5, holidays) == "2026-10-14"
    assert last_day("2026-09-30", working(5)) == "2026-10-13"


def test_a_limit_that_crosses_the_last_official_day_is_provisional() -> None:
    found = reckon(CN, at(f"{LAST}-12-28"), working(5), [], at(f"{LAST}-12-28"))
    assert found.provisional
    assert found.due_date
    assert found.due_date.year == LAST + 1
    assert not reckon(CN, at(f"{LAST}-12-28"), working(1), [], at(f"{LAST}-12-28")).provisional


def test_a_day_may_be_the_last_official_one() -> None:
    left = CN.count(dt.date(LAST, 12, 3).toordinal(), dt.date(LAST, 12, 31).toordinal())
    start = at(f"{LAST}-12-03")
    assert not reckon(CN, start, working(left), [], start).provisional
    assert reckon(CN, start, working(left + 1), [], start).provisional


def test_the_clock_counts_a_day_at_its_close() -> None:
    start, limit = at("2026-09-21"), working(3)
    for now, used, left, overdue in [
        ("2026-09-21T09:00", 0, 3, False),
        ("2026-09-22T23:59:59", 0, 3, False),
        ("2026-09-23T00:00", 1, 2, False),
        ("2026-09-24T12:00", 2, 1, False),  # the last day
        ("2026-09-24T23:59:59.999999", 2, 1, False),
        ("2026-09-25T00:00", 3, 0, True),
        ("2026-09-29T00:00", 4, -1, True),  # the 25th to the 27th are days off
    ]:
        found = reckon(CN, start, limit, [], at(now))
        assert (found.used, found.left, found.overdue) == (used, left, overdue), now
        assert found.due_at == at("2026-09-25T00:00")
    assert reckon(CN, start, limit, [], at("2026-09-01")).used == 0


# Suspensions.


def test_nobody_knows_the_end_while_the_clock_stands() -> None:
    standing = [pause("2026-09-23T10:00", None)]
    found = reckon(CN, at("2026-09-21"), working(5), standing, at("2026-10-20"))
    assert (found.due_at, found.due_date, found.overdue) == (None, None, False)
    assert (found.used, found.left, found.total, found.suspended) == (1, 4, 5, True)
    assert yellow_at(CN, at("2026-09-21"), working(5), standing) is None


def test_what_is_overdue_stays_so_when_the_clock_stops_afterwards() -> None:
    found = reckon(CN, at("2026-09-21"), working(2), [pause("2026-09-28T10:00", None)], at("2026-10-20"))
    assert (found.due_at, found.overdue, found.suspended) == (at("2026-09-24T00:00"), True, True)
    assert (found.used, found.left) == (3, -1)


@pytest.mark.parametrize(
    ("suspension", "due"),
    [
        (pause("2026-09-22T10:00", "2026-09-22T15:00"), "2026-09-23"),  # the clock runs again at the close
        (pause("2026-09-22T23:59:59", "2026-09-23T00:00:01"), "2026-09-24"),  # it does not
        (pause("2026-09-23T00:00", "2026-09-24T00:00"), "2026-09-24"),  # the 22nd has closed, the 23rd stood to its end
        (pause("2026-09-01T00:00", "2026-09-22T12:00"), "2026-09-23"),  # begun before the clock
        (pause("2026-09-01T00:00", "2026-09-20T12:00"), "2026-09-23"),  # over before the clock
        (pause("2026-09-24T00:00", None), "2026-09-23"),  # begins as the count is full
        (pause("2026-09-22T12:00", "2026-09-22T12:00"), "2026-09-23"),  # of no length
        (pause("2026-09-22T12:00", "2026-09-20T12:00"), "2026-09-23"),  # backwards: none
    ],
)
def test_only_the_close_of_a_day_matters(suspension: Suspension, due: str) -> None:
    assert last_day("2026-09-21", working(2), suspension) == due


def test_a_suspension_over_a_holiday_costs_the_working_days_it_covers_only() -> None:
    week = pause("2026-09-30T10:00", "2026-10-08T11:00")
    assert last_day("2026-09-28", working(5)) == "2026-10-10"
    # Of the days it stood over, only 30 September is worked.
    assert last_day("2026-09-28", working(5), week) == "2026-10-12"


def test_overlapping_suspensions_count_once() -> None:
    first, second = pause("2026-09-22T10:00", "2026-09-24T10:00"), pause("2026-09-23T10:00", "2026-09-28T15:00")
    whole = pause("2026-09-22T10:00", "2026-09-28T15:00")
    assert last_day("2026-09-21", working(20), second, first) == last_day("2026-09-21", working(20), whole)
    assert last_day("2026-09-21", hours(20), second, first) == last_day("2026-09-21", hours(20), whole)


def test_a_supplement_on_the_last_day_leaves_that_day() -> None:
    """Asked for on the last day and received on another's last hour: the day received is the last one again."""
    asked = pause("2026-09-24T16:00", "2026-10-13T23:30")
    found = reckon(CN, at("2026-09-21"), working(3), [asked], at("2026-10-13T23:45"))
    assert (found.due_date, found.used, found.left, found.overdue) == (dt.date(2026, 10, 13), 2, 1, False)


# Calendar days.


def test_calendar_days_that_end_on_a_rest_day_go_on_to_the_next_working_day() -> None:
    assert last_day("2026-09-21", calendar_days(4)) == "2026-09-28"  # the 25th is a day off, and so on to the 27th
    assert last_day("2026-09-21", calendar_days(4), roll=False) == "2026-09-25"
    assert last_day("2026-10-07", calendar_days(3)) == "2026-10-10"  # a Saturday that is worked
    assert last_day("2026-05-06", calendar_days(2), calendar=SA) == "2026-05-10"  # Friday


def test_days_that_a_rest_day_adds_are_days_left() -> None:
    start, limit = at("2026-09-21"), calendar_days(4)
    for now, used, left, overdue in [
        ("2026-09-25T12:00", 3, 4, False),
        ("2026-09-26T12:00", 4, 3, False),
        ("2026-09-28T12:00", 6, 1, False),
        ("2026-09-29T00:00", 7, 0, True),
    ]:
        found = reckon(CN, start, limit, [], at(now))
        assert (found.used, found.left, found.total, found.overdue) == (used, left, 7, overdue)


def test_a_suspension_on_the_rest_days_moves_the_next_working_day() -> None:
    assert last_day("2026-09-21", calendar_days(4), pause("2026-09-26T10:00", "2026-09-29T10:00")) == "2026-09-29"
    found = reckon(CN, at("2026-09-21"), calendar_days(4), [pause("2026-09-26T10:00", None)], at("2026-10-20"))
    assert (found.due_at, found.used, found.left) == (None, 4, 0)


def test_calendar_days_are_provisional_only_where_a_rest_day_decides() -> None:
    start = at(f"{LAST}-12-20")
    assert not reckon(CN, start, calendar_days(5), [], start).provisional
    assert reckon(CN, start, calendar_days(15), [], start).provisional
    assert not reckon(CN, start, calendar_days(15), [], start, roll=False).provisional


# Hours.


def test_hours_run_through_nights_and_holidays() -> None:
    found = reckon(CN, at("2026-10-01T22:30"), hours(4), [], at("2026-10-02T01:00"))
    assert found.due_at == at("2026-10-02T02:30")
    assert (found.used, found.left, found.total, found.provisional) == (2, 2, 4, False)
    assert found.due_date == dt.date(2026, 10, 2)
    assert reckon(CN, at("2026-10-01T22:30"), hours(4), [], at("2026-10-02T02:30")).overdue
    assert reckon(CN, at("2026-10-01T22:30"), hours(4), [], at("2026-10-02T05:00")).left == -2


def test_suspensions_stop_hours_to_the_second() -> None:
    stood = pause("2026-09-21T10:00:00", "2026-09-21T11:59:59")
    assert add(CN, at("2026-09-21"), hours(2), [stood])[0] == at("2026-09-21T12:59:59")
    found = reckon(CN, at("2026-09-21"), hours(2), [pause("2026-09-21T10:00", None)], at("2026-09-22"))
    assert (found.due_at, found.used, found.left, found.suspended) == (None, 1, 1, True)
    assert reckon(CN, at("2026-09-21"), hours(1), [pause("2026-09-21T10:00", None)], at("2026-09-22")).overdue


# Warnings.


@pytest.mark.parametrize(
    ("limit", "lead", "yellow"),
    [
        (working(20), None, "2026-10-19T00:00"),  # day 15 of 20
        (working(20), 1, "2026-10-23T00:00"),
        (working(3), None, "2026-09-24T00:00"),  # the last day: a quarter is less than a day
        (working(3), 3, "2026-09-21T09:00"),
        (working(3), 9, "2026-09-21T09:00"),
        (calendar_days(8), None, "2026-09-27T00:00"),
        (hours(4), None, "2026-09-21T12:00"),
        (hours(1), None, "2026-09-21T09:45"),
        (hours(4), 3, "2026-09-21T10:00"),
        (hours(4), 9, "2026-09-21T09:00"),
    ],
)
def test_the_light_turns_yellow(limit: Limit, lead: int | None, yellow: str) -> None:
    assert yellow_at(CN, at("2026-09-21"), limit, [], lead) == at(yellow)


def test_the_light_does_not_turn_yellow_while_the_clock_stands() -> None:
    # The third day counted is the 28th, on which the clock runs again at three.
    assert yellow_at(CN, at("2026-09-21"), working(3), [PAUSED], 1) == at("2026-09-28T15:00")
    # Beside another suspension that ends later on the same day.
    again = pause("2026-09-28T14:00", "2026-09-28T17:00")
    assert yellow_at(CN, at("2026-09-21"), working(3), [again, PAUSED], 1) == at("2026-09-28T17:00")
    assert yellow_at(CN, at("2026-09-21"), hours(4), [pause("2026-09-21T10:00", None)]) is None
    assert yellow_at(CN, at("2026-09-21"), hours(4), [pause("2026-09-21T10:00", "2026-09-21T14:00")]) == at(
        "2026-09-21T16:00"
    )


# Zones.


def test_which_day_it_is_depends_on_the_place() -> None:
    moment = dt.datetime(2026, 11, 2, 4, 30, tzinfo=dt.UTC)  # the 1st in New York, the 2nd in Amsterdam and China
    due = {c.id: reckon(c, moment, working(1), [], moment).due_at for c in (US, NL, CN)}
    assert due["US"] == dt.datetime(2026, 11, 3, 5, tzinfo=dt.UTC)  # Monday the 2nd, closed by winter time
    assert due["NL"] == dt.datetime(2026, 11, 3, 23, tzinfo=dt.UTC)
    assert due["CN"] == dt.datetime(2026, 11, 3, 16, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("calendar", "start", "limit", "due"),
    [
        (NL, "2026-03-27T09:00+01:00", working(1), "2026-03-31T00:00+02:00"),  # Monday, by summer time
        (NL, "2026-10-23T09:00+02:00", working(1), "2026-10-27T00:00+01:00"),
        (NL, "2026-03-28T12:00+01:00", hours(24), "2026-03-29T13:00+02:00"),  # by the clock on the wall, 25 hours
        (NL, "2026-10-24T12:00+02:00", hours(24), "2026-10-25T11:00+01:00"),
        (US, "2026-03-06T09:00-05:00", working(1), "2026-03-10T00:00-04:00"),
        (US, "2026-10-30T09:00-04:00", working(1), "2026-11-03T00:00-05:00"),
        (US, "2026-03-08T01:59-05:00", hours(1), "2026-03-08T03:59-04:00"),
        (US, "2026-11-01T01:30-04:00", hours(1), "2026-11-01T01:30-05:00"),  # the hour that comes twice
        (EG, "2027-04-28T09:00+02:00", calendar_days(1), "2027-05-03T00:00+03:00"),
        (SA, "2026-05-06T09:00+03:00", working(2), "2026-05-11T00:00+03:00"),  # Thursday and Sunday
    ],
)
def test_clocks_that_are_put_forward_and_back(calendar: Calendar, start: str, limit: Limit, due: str) -> None:
    begun = dt.datetime.fromisoformat(start)
    expected = dt.datetime.fromisoformat(due)
    assert add(calendar, begun, limit)[0] == expected
    assert add(calendar, begun.astimezone(calendar.zone), limit)[0] == expected
    assert add(calendar, begun.astimezone(dt.UTC), limit)[0] == expected


def test_a_day_whose_midnight_is_skipped_begins_when_clocks_are_put_forward() -> None:
    assert EG.zone == ZoneInfo("Africa/Cairo")
    due, _ = add(EG, at("2027-04-28", EG), calendar_days(1), roll=False)
    assert due.astimezone(EG.zone).isoformat() == "2027-04-30T01:00:00+03:00"


def test_suspensions_over_the_hour_that_comes_twice() -> None:
    zone = US.zone
    stood = Suspension(dt.datetime(2026, 11, 1, 1, tzinfo=zone), dt.datetime(2026, 11, 1, 1, tzinfo=zone, fold=1))
    due, _ = add(US, dt.datetime(2026, 11, 1, tzinfo=zone), hours(2), [stood])
    assert due.astimezone(zone).isoformat() == "2026-11-01T02:00:00-05:00"


# What is refused.


@pytest.mark.parametrize("amount", [0, -1, LARGEST + 1])
def test_limits_have_an_amount(amount: int) -> None:
    with pytest.raises(ValueError, match="1 to 9999"):
        Limit(amount, Unit.HOUR)


def test_moments_without_a_zone_are_refused() -> None:
    naive, aware = dt.datetime(2026, 9, 21), at("2026-09-21")  # noqa: DTZ001 - that is what is refused
    for limit in (working(1), hours(1)):
        with pytest.raises(ValueError, match="aware"):
            reckon(CN, naive, limit, [], aware)
        with pytest.raises(ValueError, match="aware"):
            reckon(CN, aware, limit, [], naive)
        with pytest.raises(ValueError, match="aware"):
            yellow_at(CN, naive, limit, [])
    with pytest.raises(ValueError, match="aware"):
        Suspension(naive, None)
    with pytest.raises(ValueError, match="aware"):
        Suspension(aware, naive)


def test_a_suspension_without_an_end_has_no_due_moment() -> None:
    with pytest.raises(ValueError, match="without an end"):
        add(CN, at("2026-09-21"), working(5), [pause("2026-09-22", None)])


# A year is published after deadlines have been computed.


def test_publication_settles_what_was_provisional(tmp_path: Path) -> None:
    """The answer may change then, is no longer provisional, and the calendar's label tells that it is another one."""
    year = LAST + 1
    content = {
        "id": "CN",
        "year": year,
        "source": "invented",
        "published": f"{LAST}-11-12",
        # Generous, so that the days of the law are among them whatever the moon says.
        "holidays": [
            f"{year}-01-01/{year}-01-10",
            f"{year}-01-20/{year}-02-19",
            f"{year}-02-20/{year}-02-24",
            f"{year}-04-03/{year}-04-06",
            f"{year}-05-01/{year}-05-05",
            f"{year}-05-25/{year}-06-24",
            f"{year}-09-07/{year}-10-07",
        ],
    }
    (tmp_path / f"CN-{year}.yaml").write_text(yaml.safe_dump(content))
    published = Calendars.load(tmp_path).get("CN")
    start = at(f"{LAST}-12-28")
    before, after = (reckon(c, start, working(5), [], start) for c in (CN, published))
    assert (before.provisional, after.provisional) == (True, False)
    assert before.due_at
    assert after.due_at
    assert after.due_at > before.due_at
    assert published.label != CN.label
