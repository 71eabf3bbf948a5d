"""Which days are worked where: calendars as versioned data, official as far as it is published, provisional beyond.

A calendar knows every day of every year. What it says of a year is *official* where somebody with the say has
published it and our data holds it, and *provisional* where it is only what the law makes likely. Years are published
late: an operator puts the year's file into a folder of its own, and the calendar's version changes with it.
"""

import datetime as dt
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from services.kit.errors import FailedPrecondition, Reason
from services.recognition import calendar_files
from services.recognition.calendar_files import Definition, Published

SHIPPED: Final = Path(__file__).with_name("calendars")
"""The folder of the calendars that come with the product."""


@dataclass(frozen=True, slots=True)
class Day:
    """What a calendar says of a day."""

    working: bool
    official: bool
    """Published, rather than only likely."""


@dataclass(frozen=True, slots=True)
class Year:
    """The working days of a year, as ordinals in ascending order."""

    working: tuple[int, ...]
    official: bool


@dataclass(frozen=True, slots=True)
class Calendar:
    """The working days of a place. Two are the same when their labels are.

    Days are `datetime.date`, or their ordinals (`date.toordinal`) where many are counted.
    """

    id: str
    version: str
    """The last official year, or "provisional", and a digest of all that the calendar was made of: it changes whenever
    a year is published, or data or libraries are others."""
    zone: ZoneInfo = field(compare=False)
    """Where its days begin and end."""
    title: str = field(default="", compare=False)
    sources: tuple[str, ...] = field(default=(), compare=False)
    """What it was made of, for people."""
    _read: Callable[[int], Year] = field(kw_only=True, repr=False, compare=False)
    _years: dict[int, Year] = field(default_factory=dict[int, Year], init=False, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Its name in events: `CN@2026-1a2b3c4d`."""
        return f"{self.id}@{self.version}"

    def kind(self, day: dt.date) -> Day:
        """Say whether a day is worked, and whether that is official."""
        return Day(self.working(day), self.official(day))

    def working(self, day: dt.date) -> bool:
        """Say whether a day is worked."""
        days, ordinal = self.year(day.year).working, day.toordinal()
        index = bisect_left(days, ordinal)
        return index < len(days) and days[index] == ordinal

    def official(self, day: dt.date) -> bool:
        """Say whether what the calendar says of a day is published."""
        return self.year(day.year).official

    def year(self, number: int) -> Year:
        """Give a year, made once."""
        try:
            return self._years[number]
        except KeyError:
            return self._years.setdefault(number, self._read(number))

    def count(self, after: int, until: int) -> int:
        """Count the working days after one day, up to and with another; both are ordinals."""
        if until <= after:
            return 0
        first, last = _year_of(after), _year_of(until)
        if first == last:
            days = self.year(first).working
            return bisect_right(days, until) - bisect_right(days, after)
        begun = self.year(first).working
        between = sum(len(self.year(number).working) for number in range(first + 1, last))
        return len(begun) - bisect_right(begun, after) + between + bisect_right(self.year(last).working, until)

    def nth(self, after: int, number: int) -> int:
        """Find the working day that is number so many after a day; both days are ordinals, the number is 1 or more."""
        year = _year_of(after)
        days = self.year(year).working
        index = bisect_right(days, after) + number - 1
        while index >= len(days):
            index -= len(days)
            year += 1
            days = self.year(year).working
        return days[index]

    def official_between(self, after: int, until: int) -> bool:
        """Say whether all days after one day, up to and with another, are official; both are ordinals."""
        if until <= after:
            return True
        return all(self.year(number).official for number in range(_year_of(after + 1), _year_of(until) + 1))


class Calendars:
    """The calendars there are. Each is made when it is first asked for."""

    def __init__(self, definitions: Mapping[str, Definition], published: Mapping[str, Mapping[int, Published]]) -> None:
        """Take what files say, as `load` reads it."""
        self._definitions = definitions
        self._published = published
        self._made: dict[str, Calendar] = {}

    @classmethod
    def load(cls, folder: Path | None = None) -> "Calendars":
        """Read what comes with the product, and what an operator's folder adds or puts in its place.

        Raises `FailedPrecondition` where a file has a mistake, with every mistake of every file.
        """
        return cls(*calendar_files.read([SHIPPED, *([folder] if folder else [])]))

    def get(self, name: str) -> Calendar:
        """Give a calendar by its id; raises `FailedPrecondition` where there is none such."""
        if name not in self._made:
            if name not in self._definitions:
                hint = calendar_files.hint(name, self._definitions)
                raise FailedPrecondition(Reason.CALENDAR_UNKNOWN, f"there is no calendar {name!r}{hint}")
            self._made[name] = _calendar(self._definitions[name], self._published.get(name, {}))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        """Give the ids, in order."""
        return iter(sorted(self._definitions))

    def __len__(self) -> int:
        """Say how many there are."""
        return len(self._definitions)

    def __contains__(self, name: object) -> bool:
        """Say whether there is a calendar of this id."""
        return name in self._definitions


def _year_of(ordinal: int) -> int:
    return dt.date.fromordinal(ordinal).year


def _calendar(definition: Definition, published: Mapping[int, Published]) -> Calendar:
    sources = (*definition.sources, *(f"{year}: {published[year].source}" for year in sorted(published)))
    digests = (definition.digest, *definition.sources, *(published[year].digest for year in sorted(published)))
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:8]
    through = max((definition.through, *published))
    return Calendar(
        id=definition.id,
        version=f"{through or 'provisional'}-{digest}",
        zone=definition.zone,
        title=definition.title,
        sources=sources,
        _read=lambda number: _year(definition, published, number),
    )


def _year(definition: Definition, published: Mapping[int, Published], number: int) -> Year:
    """Make a year from the best there is: the operator's file, then the library's official days, then likely ones."""
    if number in published:
        days, official = published[number].working_days(definition, number), True
    else:
        days, official = definition.working_days(number)
    if number + 1 in published:
        # A notice for a year may move days of the December before it.
        days = published[number + 1].amended(days, number)
    return Year(tuple(sorted(day.toordinal() for day in days)), official)
