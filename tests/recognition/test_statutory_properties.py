"""The statutory clock: what always holds, and a second way to count that agrees."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import chinese_calendar  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
from hypothesis import given
from hypothesis import strategies as st

from services.recognition.calendars import Calendar, Calendars, Year
from services.recognition.statutory import LARGEST, Limit, Suspension, Unit, reckon, yellow_at

CALENDARS = Calendars.load()
CN, US, NL, SA, EG = (CALENDARS.get(name) for name in ("CN", "US", "NL", "SA", "EG"))
LAST = max(chinese_calendar.holidays).year
"""The library's last year, by the library's word."""
DAY = dt.timedelta(days=1)

MOMENTS = st.datetimes(dt.datetime(2012, 1, 1), dt.datetime(LAST + 1, 6, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001
PLACES = st.sampled_from([CN, US, NL, SA, EG])
LIMITS = st.builds(Limit, st.integers(1, 45), st.sampled_from(Unit))
SPANS = st.integers(0, 40 * 24 * 60).map(lambda minutes: dt.timedelta(minutes=minutes))


@st.composite
def clocks(draw: st.DrawFn) -> tuple[Calendar, dt.datetime, Limit, list[Suspension]]:
    """A clock with up to four suspensions, overlapping or not, the last of them perhaps without an end.

    Moments are often midnights of the place, where the answers turn.
    """
    calendar = draw(PLACES)

    def moment(base: dt.datetime) -> dt.datetime:
        if draw(st.booleans()):
            base = base.astimezone(calendar.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        return base.astimezone(dt.UTC)

    start = moment(draw(MOMENTS))
    suspensions: list[Suspension] = []
    for _ in range(draw(st.integers(0, 4))):
        begin = moment(start + draw(SPANS) - DAY)
        suspensions.append(Suspension(begin, draw(st.none()) if draw(st.booleans()) else moment(begin + draw(SPANS))))
    return calendar, start, draw(LIMITS), suspensions


def stands(moment: dt.datetime, suspensions: Sequence[Suspension]) -> bool:
    """Whether the clock stood right up to this moment."""
    return any(s.start < moment and (s.end is None or moment <= s.end) for s in suspensions)


def by_looking(
    calendar: Calendar, start: dt.datetime, limit: Limit, suspensions: Sequence[Suspension], days: int = 600
) -> tuple[dt.date | None, list[dt.date]]:
    """The last day in time and the days counted, found by going through one day after the other."""
    day, counted, due = start.astimezone(calendar.zone).date(), list[dt.date](), None
    for _ in range(days):
        day += DAY
        # The first moment of the next day, as the clocks of the place show it, whatever they do at midnight.
        close = dt.datetime.combine(day + DAY, dt.time(), calendar.zone).astimezone(dt.UTC)
        if stands(close, suspensions):
            continue
        rest = not calendar.working(day)
        if limit.unit is Unit.CALENDAR_DAY or not rest:
            counted.append(day)
            full = len(counted) >= limit.amount
            if due is None and full and not (limit.unit is Unit.CALENDAR_DAY and rest):
                due = day
    return due, counted


@given(clocks(), SPANS)
def test_the_clock_agrees_with_going_through_the_days(
    clock: tuple[Calendar, dt.datetime, Limit, list[Suspension]], later: dt.timedelta
) -> None:
    calendar, start, limit, suspensions = clock
    if limit.unit is Unit.HOUR:
        limit = replace(limit, unit=Unit.WORKING_DAY)
    now = start + later
    found = reckon(calendar, start, limit, suspensions, now)
    due, counted = by_looking(calendar, start, limit, suspensions)
    assert found.due_date == due
    assert found.used == sum(day < now.astimezone(calendar.zone).date() for day in counted)
    if due:
        assert found.total == sum(day <= due for day in counted)
        first = start.astimezone(calendar.zone).date() + DAY
        if limit.unit is Unit.WORKING_DAY:
            official = all(calendar.official(first + n * DAY) for n in range((due - first).days + 1))
            assert found.provisional == (not official)


@given(clocks(), SPANS)
def test_hours_agree_with_going_through_the_minutes(
    clock: tuple[Calendar, dt.datetime, Limit, list[Suspension]], later: dt.timedelta
) -> None:
    calendar, start, _, suspensions = clock
    start = start.replace(second=0, microsecond=0)
    suspensions = [
        Suspension(s.start.replace(second=0, microsecond=0), s.end and s.end.replace(second=0, microsecond=0))
        for s in suspensions
    ]
    minute, moment, ran, due = dt.timedelta(minutes=1), start, 0, None
    now = start + later
    used = 0
    for _ in range(6 * 24 * 60):
        moment += minute
        ran += not stands(moment, suspensions)
        used = ran if moment <= now else used
        due = moment if due is None and ran == 3 * 60 else due
    found = reckon(calendar, start, Limit(3, Unit.HOUR), suspensions, min(now, moment))
    assert found.due_at == due or (due is None and (found.due_at is None or found.due_at > moment))
    assert found.used == used // 60


@given(clocks(), SPANS, SPANS)
def test_time_only_uses_up(
    clock: tuple[Calendar, dt.datetime, Limit, list[Suspension]], first: dt.timedelta, more: dt.timedelta
) -> None:
    """The answer about a limit is the same whenever it is asked for; what is used never gets less, what is overdue
    stays so."""
    calendar, start, limit, suspensions = clock
    before, after = (reckon(calendar, start, limit, suspensions, start + t) for t in (first, first + more))
    assert before.due_at == after.due_at
    assert before.used <= after.used
    assert before.left >= after.left
    assert before.overdue <= after.overdue
    for found in (before, after):
        assert found.used + found.left == found.total
    if before.due_at:
        assert before.overdue == (start + first >= before.due_at)
        if limit.unit is not Unit.HOUR:
            assert before.overdue == (before.left <= 0)


@given(clocks(), SPANS, SPANS, SPANS)
def test_more_suspension_is_never_earlier(
    clock: tuple[Calendar, dt.datetime, Limit, list[Suspension]],
    begin: dt.timedelta,
    length: dt.timedelta,
    later: dt.timedelta,
) -> None:
    calendar, start, limit, suspensions = clock
    more = [*suspensions, Suspension(start + begin, start + begin + length)]
    less, found = (reckon(calendar, start, limit, s, start + later) for s in (suspensions, more))
    assert found.used <= less.used
    assert (less.due_at is None) <= (found.due_at is None)
    if less.due_at and found.due_at:
        assert found.due_at >= less.due_at
    soon, late = (yellow_at(calendar, start, limit, s) for s in (suspensions, more))
    assert (soon is None) <= (late is None)
    if soon and late:
        assert late >= soon


@given(clocks(), SPANS)
def test_who_starts_later_is_never_due_earlier(
    clock: tuple[Calendar, dt.datetime, Limit, list[Suspension]], later: dt.timedelta
) -> None:
    calendar, start, limit, suspensions = clock
    first, second = (reckon(calendar, s, limit, suspensions, start).due_at for s in (start, start + later))
    if first and second:
        assert first <= second
    if limit.amount < LARGEST:
        larger = reckon(calendar, start, replace(limit, amount=limit.amount + 1), suspensions, start).due_at
        assert larger is None or (first is not None and first <= larger)


@given(clocks(), st.integers(0, 60) | st.none())
def test_yellow_comes_before_red(
    clock: tuple[Calendar, dt.datetime, Limit, list[Suspension]], lead: int | None
) -> None:
    calendar, start, limit, suspensions = clock
    yellow, red = (
        yellow_at(calendar, start, limit, suspensions, lead),
        reckon(calendar, start, limit, suspensions, start),
    )
    if red.due_at:
        assert yellow
        assert start <= yellow <= red.due_at
        assert yellow < red.due_at or lead == 0


@given(clocks(), SPANS, st.sampled_from([ZoneInfo("Asia/Shanghai"), ZoneInfo("America/St_Johns"), dt.UTC]))
def test_the_zone_in_which_a_moment_is_written_does_not_matter(
    clock: tuple[Calendar, dt.datetime, Limit, list[Suspension]], later: dt.timedelta, zone: dt.tzinfo
) -> None:
    calendar, start, limit, suspensions = clock
    now = start + later
    written = [Suspension(s.start.astimezone(zone), s.end and s.end.astimezone(zone)) for s in suspensions]
    found = reckon(calendar, start, limit, suspensions, now)
    assert reckon(calendar, start.astimezone(zone), limit, written, now.astimezone(zone)) == found
    assert yellow_at(calendar, start.astimezone(zone), limit, written) == yellow_at(calendar, start, limit, suspensions)


@given(
    start=st.datetimes(dt.datetime(LAST - 1, 6, 1), dt.datetime(LAST, 12, 31), timezones=st.just(dt.UTC)),  # noqa: DTZ001
    limit=LIMITS,
    off=st.sets(st.integers(0, 364), max_size=60),
)
def test_publication_moves_nothing_that_was_official(start: dt.datetime, limit: Limit, off: set[int]) -> None:
    """Whatever is published for the next year, an answer that was not provisional stays as it was."""
    first = dt.date(LAST + 1, 1, 1).toordinal()
    days = [day for n, day in enumerate(range(first, first + 365)) if n not in off]
    known = CN.year(LAST + 1)
    assert not known.official
    published = _with_year(LAST + 1, tuple(day for day in days if dt.date.fromordinal(day).weekday() < 5))
    before, after = (reckon(c, start, limit, [], start) for c in (CN, published))
    if not before.provisional:
        assert after == before


def _with_year(number: int, working_days: tuple[int, ...]) -> Calendar:
    return Calendar(
        "CN", "published", CN.zone, _read=lambda year: Year(working_days, True) if year == number else CN.year(year)
    )
