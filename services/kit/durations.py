"""ISO 8601 durations, as policies and procedures write them: P180D, P5Y, PT24H."""

import calendar
import datetime as dt
import re

_DURATION = re.compile(
    r"P(?=[\dT])(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?"
)
_SECONDS = (31_556_952, 2_629_746, 604_800, 86_400, 3_600, 60, 1)


def duration_seconds(text: str) -> int:
    """Measure an ISO 8601 duration, years and months at their mean length; raises `ValueError` for anything else."""
    return sum(count * seconds for count, seconds in zip(_counts(text), _SECONDS, strict=True))


def add_duration(moment: dt.datetime, text: str) -> dt.datetime:
    """Add an ISO 8601 duration to a moment: years and months by the calendar, 29 February becoming the 28th.

    Raises `ValueError` for what is no duration, and `OverflowError` where the end has no date any more.
    """
    years, months, weeks, days, hours, minutes, seconds = _counts(text)
    month = moment.month - 1 + months + 12 * years
    year, month = moment.year + month // 12, month % 12 + 1
    if year > dt.MAXYEAR:
        raise OverflowError(f"{text} after {moment.date()} has no date any more")
    day = min(moment.day, calendar.monthrange(year, month)[1])
    rest = dt.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    return moment.replace(year=year, month=month, day=day) + rest


def _counts(text: str) -> tuple[int, ...]:
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no ISO 8601 duration; write P180D, P10Y or PT24H")
    return tuple(int(count) for count in found.groups("0"))
