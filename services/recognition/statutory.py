"""The statutory clock: when a limit that began then, and stood still so long, is used up.

How days are counted:

1. The day on which the clock starts is not counted.
2. A day is counted when the clock runs at its close, 24:00 in the calendar's zone. With `WORKING_DAY` only working
   days are counted, with `CALENDAR_DAY` all days.
3. The limit is used up at the close of the day that makes the count full: `due_at` is the first moment of overdue.
4. A limit in calendar days whose last day is no working day goes on to the close of the next working day.
5. Hours run without regard to days; only suspensions stop them.

Everything here is a pure function of its arguments. Moments are aware in any zone; answers are in UTC.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.recognition.calendars import Calendar

LARGEST: Final = 9999
"""The largest amount of a limit."""

_EVER: Final = dt.date.max.toordinal()
_HOUR: Final = dt.timedelta(hours=1)
_NOTHING: Final = dt.timedelta()


class Unit(StrEnum):
    """What a limit is counted in."""

    WORKING_DAY = "WORKING_DAY"
    CALENDAR_DAY = "CALENDAR_DAY"
    HOUR = "HOUR"


@dataclass(frozen=True, slots=True)
class Limit:
    """How long something may take."""

    amount: int
    unit: Unit

    def __post_init__(self) -> None:
        if not 1 <= self.amount <= LARGEST:
            raise ValueError(f"the amount of a limit is 1 to {LARGEST}, not {self.amount}")


@dataclass(frozen=True, slots=True)
class Suspension:
    """A time in which the clock stands; without an end, it still stands."""

    start: dt.datetime
    end: dt.datetime | None

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or (self.end is not None and self.end.tzinfo is None):
            raise ValueError("moments of a suspension are aware")


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Where a clock stands at a moment."""

    due_at: dt.datetime | None
    """The first moment of overdue, in UTC; None while the clock stands before the limit is used up, since nobody knows
    then."""
    due_date: dt.date | None
    """The last day in time, in the calendar's zone."""
    used: int
    """Days counted that have closed; with hours, full hours that ran."""
    left: int
    """How many are left with the present one; 0 or less once it is overdue."""
    total: int
    """What `used` and `left` add up to: the limit, and the days that rule 4 added."""
    provisional: bool
    """Whether a day that matters is not official, so that the answer may change when its year is published."""
    suspended: bool
    """Whether the clock stands at the moment asked about."""
    overdue: bool


def reckon(
    calendar: Calendar,
    started_at: dt.datetime,
    limit: Limit,
    suspensions: Sequence[Suspension],
    now: dt.datetime,
    *,
    roll: bool = True,
) -> Reckoning:
    """Say where a clock stands now: when the limit is used up, how much of it is, and whether that is certain.

    `roll=False` leaves rule 4 out. Raises `ValueError` where a moment has no zone.
    """
    if started_at.tzinfo is None or now.tzinfo is None:
        raise ValueError("moments of a clock are aware")
    suspended = any(s.start <= now and (s.end is None or now < s.end) for s in suspensions)
    if limit.unit is Unit.HOUR:
        return _reckon_hours(calendar, started_at, limit.amount, suspensions, now, suspended)
    zone = calendar.zone
    start, standing = _day(started_at, zone), _standing(suspensions, zone)
    closed = max(_day(now, zone) - 1, start)
    used = _count(_counter(calendar, limit.unit), start, closed, standing)
    due, total, provisional = _due(calendar, start, limit, standing, roll=roll)
    if due is None:
        # Not known: then what has been counted so far may be provisional.
        provisional = limit.unit is Unit.WORKING_DAY and not calendar.official_between(start, closed)
        return Reckoning(None, None, used, total - used, total, provisional, suspended, overdue=False)
    return Reckoning(
        due_at=_beginning(due + 1, zone),
        due_date=dt.date.fromordinal(due),
        used=used,
        left=total - used,
        total=total,
        provisional=provisional,
        suspended=suspended,
        overdue=closed >= due,
    )


def add(
    calendar: Calendar, start: dt.datetime, limit: Limit, suspensions: Sequence[Suspension] = (), *, roll: bool = True
) -> tuple[dt.datetime, bool]:
    """Give the moment at which a limit is used up if nothing else stops it, and whether that is provisional.

    Raises `ValueError` where a suspension has no end: close it at the moment asked about to see the soonest.
    """
    if any(suspension.end is None for suspension in suspensions):
        raise ValueError("a suspension without an end has no due moment; give it one")
    found = reckon(calendar, start, limit, suspensions, start, roll=roll)
    if found.due_at is None:
        raise AssertionError("a clock that nothing stops is due some time")
    return found.due_at, found.provisional


def yellow_at(
    calendar: Calendar,
    started_at: dt.datetime,
    limit: Limit,
    suspensions: Sequence[Suspension],
    lead: int | None = None,
) -> dt.datetime | None:
    """Give the moment from which a clock is worth a warning: `lead` days or hours before its limit is used up.

    With days that is the beginning of the counted day `amount - lead`, or the moment on that day at which the clock
    runs again; without a `lead` it is a quarter of the limit, rounded down to whole days. None where the clock stands
    before it gets there.
    """
    if started_at.tzinfo is None:
        raise ValueError("moments of a clock are aware")
    if limit.unit is Unit.HOUR:
        before = dt.timedelta(hours=limit.amount) / 4 if lead is None else lead * _HOUR
        return _after(started_at, max(limit.amount * _HOUR - before, _NOTHING), suspensions)
    number = limit.amount - (limit.amount // 4 if lead is None else lead)
    if number < 1:
        return started_at.astimezone(dt.UTC)
    zone = calendar.zone
    counter = _counter(calendar, limit.unit)
    day = _find(counter, _day(started_at, zone), number, _standing(suspensions, zone))
    if day is None:
        return None
    moment = _beginning(day, zone)
    for first, last in _merged(suspensions):
        if first <= moment and last is not None and moment < last:
            moment = last
    return moment


# Days, as ordinals. A clock that stands over the close of a day does not count it: those days are kept as ranges.

_Standing = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Counter:
    """Which days are counted: how many there are after one day up to another, and which is number so many."""

    between: Callable[[int, int], int]
    nth: Callable[[int, int], int]


_ALL_DAYS: Final = _Counter(lambda after, until: max(until - after, 0), lambda after, number: after + number)


def _counter(calendar: Calendar, unit: Unit) -> _Counter:
    return _Counter(calendar.count, calendar.nth) if unit is Unit.WORKING_DAY else _ALL_DAYS


def _day(moment: dt.datetime, zone: dt.tzinfo) -> int:
    return moment.astimezone(zone).toordinal()


def _beginning(day: int, zone: dt.tzinfo) -> dt.datetime:
    """Give the first moment of a day. Where its midnight is skipped, that is the moment clocks are put forward."""
    date = dt.date.fromordinal(day)
    return dt.datetime(date.year, date.month, date.day, tzinfo=zone).astimezone(dt.UTC)


def _standing(suspensions: Sequence[Suspension], zone: dt.tzinfo) -> _Standing:
    """Give the days over whose close the clock stood: apart, in order."""
    ranges: _Standing = []
    for suspension in suspensions:
        first = _day(suspension.start, zone)
        last = _EVER if suspension.end is None else _day(suspension.end, zone) - 1
        if first <= last:
            ranges.append((first, last))
    ranges.sort()
    merged: _Standing = []
    for first, last in ranges:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _count(counter: _Counter, after: int, until: int, standing: _Standing) -> int:
    total = counter.between(after, until)
    for first, last in standing:
        total -= counter.between(max(first - 1, after), min(last, until))
    return total


def _find(counter: _Counter, after: int, number: int, standing: _Standing) -> int | None:
    """Find the day that makes the count full; None where the clock stands before and has not run since."""
    for first, last in standing:
        if last <= after:
            continue
        run = counter.between(after, first - 1)
        if run >= number:
            break
        if last == _EVER:
            return None
        number -= run
        after = last
    return counter.nth(after, number)


def _due(
    calendar: Calendar, start: int, limit: Limit, standing: _Standing, *, roll: bool
) -> tuple[int | None, int, bool]:
    """Find the last day in time, with the whole count and whether it is provisional."""
    full = _find(_counter(calendar, limit.unit), start, limit.amount, standing)
    if full is None:
        return None, limit.amount, False
    if limit.unit is Unit.WORKING_DAY:
        return full, limit.amount, not calendar.official_between(start, full)
    if not roll:
        return full, limit.amount, False
    last: int | None = full
    if not calendar.working(dt.date.fromordinal(full)):
        last = _find(_Counter(calendar.count, calendar.nth), full, 1, standing)
    if last is None:
        return None, limit.amount, False
    total = limit.amount + _count(_ALL_DAYS, full, last, standing)
    return last, total, not calendar.official_between(full - 1, last)


# Hours.


def _merged(suspensions: Sequence[Suspension]) -> list[tuple[dt.datetime, dt.datetime | None]]:
    """Give the times in which the clock stood: apart, in order, in UTC. Python subtracts wall clocks in one zone."""
    merged: list[tuple[dt.datetime, dt.datetime | None]] = []
    for suspension in sorted(suspensions, key=lambda s: s.start):
        first = suspension.start.astimezone(dt.UTC)
        last = None if suspension.end is None else suspension.end.astimezone(dt.UTC)
        if merged and (merged[-1][1] is None or first <= merged[-1][1]):
            before = merged[-1][1]
            merged[-1] = (merged[-1][0], None if before is None or last is None else max(before, last))
        elif last is None or first < last:
            merged.append((first, last))
    return merged


def _after(started_at: dt.datetime, running: dt.timedelta, suspensions: Sequence[Suspension]) -> dt.datetime | None:
    """Give the moment at which the clock has run for so long; None where it stands before."""
    at = started_at.astimezone(dt.UTC)
    for first, last in _merged(suspensions):
        if last is not None and last <= at:
            continue
        run = max(first - at, _NOTHING)
        if run >= running:
            break
        if last is None:
            return None
        running -= run
        at = last
    return at + running


def _ran(started_at: dt.datetime, now: dt.datetime, suspensions: Sequence[Suspension]) -> dt.timedelta:
    """Say for how long the clock has run."""
    start, now = started_at.astimezone(dt.UTC), now.astimezone(dt.UTC)
    ran = max(now - start, _NOTHING)
    for first, last in _merged(suspensions):
        ran -= max(min(now if last is None else last, now) - max(first, start), _NOTHING)
    return ran


def _reckon_hours(
    calendar: Calendar,
    started_at: dt.datetime,
    amount: int,
    suspensions: Sequence[Suspension],
    now: dt.datetime,
    suspended: bool,
) -> Reckoning:
    used = _ran(started_at, now, suspensions) // _HOUR
    due_at = _after(started_at, amount * _HOUR, suspensions)
    return Reckoning(
        due_at=due_at,
        due_date=due_at.astimezone(calendar.zone).date() if due_at else None,
        used=used,
        left=amount - used,
        total=amount,
        provisional=False,
        suspended=suspended,
        overdue=due_at is not None and now >= due_at,
    )
