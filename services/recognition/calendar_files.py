"""What calendars are made of: files that define one, files that publish a year of one, and two libraries.

`CN.yaml` defines the calendar CN; `CN-2027.yaml`, in an operator's folder, says what was published for 2027:

    id: CN
    year: 2027
    source: what was published, by whom, under which number
    published: 2026-11-12
    holidays: [2027-01-01/2027-01-03, 2027-02-05/2027-02-12]   # days, or the first and last of several
    workdays: [2027-02-20]                                     # days of the weekend that are worked
"""

import datetime as dt
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import chinese_calendar  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import holidays
import yaml
from holidays.holiday_base import HolidayBase
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.kit.errors import FailedPrecondition, Reason
from services.kit.jurisdiction.pack import describe, load_yaml
from services.kit.records.catalogue import nearest

_NOTICE_WORKED: Final[Collection[dt.date]] = chinese_calendar.workdays
_NOTICE_OFF: Final[Collection[dt.date]] = chinese_calendar.holidays
_ID: Final = r"[A-Z]{2}(-[A-Z][A-Z0-9]{0,7})?"
_DECEMBER: Final = 12
_MOST_DAYS_IN_RANGE: Final = 31


def _zone(value: object) -> object:
    if isinstance(value, str):
        try:
            return ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}") from None
    return value


def _days(value: object) -> object:
    """Open ranges: a list of days and `first/last` becomes a list of days."""
    if not isinstance(value, list):
        return value
    found: list[object] = []
    for item in cast("list[object]", value):
        if isinstance(item, str) and "/" in item:
            found.extend(_range(item))
        else:
            found.append(item)
    return found


def _range(text: str) -> Iterator[dt.date]:
    first, last = (dt.date.fromisoformat(part) for part in text.split("/", 1))
    if not 0 < (last - first).days < _MOST_DAYS_IN_RANGE:
        raise ValueError(f"{text} is no range of days: the first day, a slash, a later day")
    yield from _every_day(first, last)


def _every_day(first: dt.date, last: dt.date) -> Iterator[dt.date]:
    return (dt.date.fromordinal(number) for number in range(first.toordinal(), last.toordinal() + 1))


Days = Annotated[frozenset[dt.date], BeforeValidator(_days)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    id: str = Field(pattern=f"^{_ID}$")
    digest: str = ""
    """Of the file's bytes; set when it is read."""


class Definition(_File):
    """A calendar: which country's days it has, where its days begin, and how far they are official."""

    title: str
    zone: Annotated[ZoneInfo, BeforeValidator(_zone)]
    country: str
    """As the library `holidays` names it."""
    subdivision: str | None = None
    categories: tuple[str, ...] = ("public",)
    """Of days off; also as that library names them."""
    notices: Literal["chinesecalendar"] | None = None
    """A library of published years, which knows by itself how far it goes."""
    official_through: int | None = None
    """Without such a library: the last year whose days were compared with what the country publishes."""
    source: str
    """Where the country publishes its days."""
    statutory_days_off: bool = False
    """Whether a published year always has the days of the law off: a file that lacks one has a mistake."""

    @property
    def through(self) -> int:
        """The last official year; 0 where there is none."""
        if self.notices:
            return max(day.year for day in _NOTICE_OFF)
        return self.official_through or 0

    @property
    def sources(self) -> tuple[str, ...]:
        """What its days come from, for people, with versions."""
        libraries = [self.notices, "holidays"] if self.notices else ["holidays"]
        return (self.source, *(f"{name} {version(name)}" for name in libraries))

    @cached_property
    def _country(self) -> HolidayBase:
        return self.days_off(())

    def days_off(self, years: Sequence[int], *, observed: bool = True) -> HolidayBase:
        """Give the country's days off in these years, as the library has them."""
        return holidays.country_holidays(
            self.country,
            subdiv=self.subdivision,
            years=years,
            expand=False,
            observed=observed,
            categories=self.categories,
        )

    def weekend(self, day: dt.date) -> bool:
        """Say whether a day is of the country's weekend, which may have changed over the years."""
        return self._country.is_weekend(day)

    def working_days(self, year: int) -> tuple[list[dt.date], bool]:
        """Give a year's working days, and whether they are official."""
        days = _every_day(dt.date(year, 1, 1), dt.date(year, 12, 31))
        if self.notices and _has_notice(year):
            off = _NOTICE_OFF
            return [day for day in days if day in _NOTICE_WORKED or (day.weekday() < 5 and day not in off)], True
        country = self.days_off((year,))
        official = self.official_through is not None and year <= self.official_through
        return [day for day in days if country.is_working_day(day)], official


class Published(_File):
    """A year of a calendar as it was published, whole."""

    year: int = Field(ge=1950, le=2200)
    source: str = Field(min_length=1)
    published: dt.date
    holidays: Days = Field(min_length=1)
    """Days off, weekends among them or not."""
    workdays: Days = frozenset()
    """Days of the weekend that are worked."""

    def working_days(self, definition: Definition, year: int) -> list[dt.date]:
        """Give the working days of its year."""
        days = _every_day(dt.date(year, 1, 1), dt.date(year, 12, 31))
        return [d for d in days if d in self.workdays or not (d in self.holidays or definition.weekend(d))]

    def amended(self, days: Collection[dt.date], year: int) -> list[dt.date]:
        """Give the working days of the year before, with what this publication says of its December."""
        added = {day for day in self.workdays if day.year == year}
        return sorted((set(days) | added) - self.holidays)

    def mistakes(self, definition: Definition) -> Iterator[str]:
        """Say everything about the file that cannot be meant."""
        for day in sorted(self.holidays | self.workdays):
            if day.year != self.year and (day.year, day.month) != (self.year - 1, _DECEMBER):
                yield f"{day} is neither in {self.year} nor in the December before"
        for day in sorted(self.holidays & self.workdays):
            yield f"{day} is both off and worked"
        for day in sorted(self.workdays - self.holidays):
            if not definition.weekend(day):
                yield f"{day} is no day of the weekend: it is worked without being listed"
        if definition.statutory_days_off:
            for day, name in sorted(definition.days_off((self.year,), observed=False).items()):
                if day not in self.holidays:
                    yield f"{day} is off by law ({name}) and not among the holidays"


def _has_notice(year: int) -> bool:
    """Ask the library whether it has a year: it refuses years it has nothing of.

    A New Year's Day alone is no year, though the library then answers for all of it: National Day must be there too.
    """
    national_day = dt.date(year, 10, 1)
    try:
        asked = bool(chinese_calendar.is_holiday(national_day))  # pyright: ignore[reportUnknownMemberType]
    except NotImplementedError:
        return False
    return asked and national_day in _NOTICE_OFF


def read(folders: Sequence[Path]) -> tuple[dict[str, Definition], dict[str, dict[int, Published]]]:
    """Read the files of the folders; in a later folder, a file of the same name takes an earlier one's place.

    Raises `FailedPrecondition` with every mistake.
    """
    mistakes: list[str] = []
    files: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            mistakes.append(f"{folder}: there is no such folder")
            continue
        files |= {path.stem: path for path in sorted(folder.iterdir()) if _is_calendar(path, mistakes)}
    found = [(path, _read_file(path, mistakes)) for path in files.values()]
    definitions = {file.id: file for _, file in found if isinstance(file, Definition)}
    published: dict[str, dict[int, Published]] = {}
    for path, file in found:
        if isinstance(file, Published):
            if definition := definitions.get(file.id):
                published.setdefault(file.id, {})[file.year] = file
                mistakes.extend(f"{path}: {mistake}" for mistake in file.mistakes(definition))
            else:
                mistakes.append(f"{path}: id: there is no calendar {file.id!r}{hint(file.id, definitions)}")
    if mistakes:
        raise FailedPrecondition(Reason.CALENDAR_INVALID, "\n".join(mistakes))
    return definitions, published


def hint(name: str, known: Collection[str]) -> str:
    """Word a hint at the calendar that may be meant, or at all there are."""
    return nearest(name, known) or f"; there are {', '.join(sorted(known))}"


def _is_calendar(path: Path, mistakes: list[str]) -> bool:
    """Take `*.yaml`, and refuse what could be meant as one: a year that is silently left out moves deadlines."""
    if path.suffix != ".yaml" and path.suffix.lower() in {".yaml", ".yml", ".json", ".toml", ".txt"}:
        mistakes.append(f"{path}: names of calendar files end in .yaml")
    return path.suffix == ".yaml"


def _read_file(path: Path, mistakes: list[str]) -> Definition | Published | None:
    try:
        content = path.read_bytes()
        data = load_yaml(content.decode())
        file = _parse(data, hashlib.sha256(content).hexdigest())
        expected = f"{file.id}-{file.year}" if isinstance(file, Published) else file.id
        if path.stem != expected:
            raise ValueError(f"what stands in it belongs into {expected}.yaml")
        if isinstance(file, Definition):
            file.days_off(())
    except ValidationError as error:
        mistakes.append(f"{path}:\n  {describe(error)}")
    except NotImplementedError as error:
        mistakes.append(f"{path}: country, subdivision: {error}")
    except (OSError, yaml.YAMLError, ValueError) as error:
        mistakes.append(f"{path}: {error}")
    else:
        return file
    return None


def _parse(data: Any, digest: str) -> Definition | Published:
    if not isinstance(data, dict):
        raise ValueError("a calendar is a mapping of names to values")
    content: Mapping[str, Any] = {**data, "digest": digest}
    return Published.model_validate(content) if "year" in content else Definition.model_validate(content)
