"""What an event log tells: cases, what happened in each, and cases that cannot be taken at their word.

An event log is what process mining works on: XES (IEEE 1849), or the same as a table with one line per event. This is
the model of both, and what builds it, so that one log gives the same cases in either form.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.kit.errors import InvalidArgument, Reason

Value = str | dt.datetime
"""What a case says of itself under one name: text as it stands in the log, or a moment in UTC."""

MAX_ATTRIBUTES: Final = 500
"""A case says no more of itself than this."""


class LogColumns(BaseModel):
    """Under which names a log says what; those of the XES standard extensions, unless a profile says otherwise.

    In a table, what belongs to the case and not to the event has `case_prefix` before its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: str = "concept:name"
    activity: str = "concept:name"
    time: str = "time:timestamp"
    group: str = "org:group"
    resource: str = "org:resource"
    instance: str = "concept:instance"
    transition: str = "lifecycle:transition"
    case_prefix: str = Field(default="case:", min_length=1)
    moments: frozenset[str] = frozenset()
    """What a case says of itself that are moments."""
    zone: str = ""
    """Where times without an offset were written down; without it such times are refused."""

    @field_validator("zone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name:
            try:
                ZoneInfo(name)
            except (KeyError, ValueError, OSError):
                raise ValueError("no time zone of this name: write one like Europe/Amsterdam") from None
        return name


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event. What the log does not say is empty."""

    activity: str
    at: dt.datetime
    """Aware, in UTC."""
    group: str = ""
    resource: str = field(default="", repr=False)
    instance: str = ""
    transition: str = ""


@dataclass(frozen=True, slots=True)
class LoggedCase:
    """One case, its events in the log's order, which is that of time."""

    case_id: str
    attributes: Mapping[str, Value] = field(repr=False)
    """What it says of itself. Moments only where the columns name them as such; a name without a value is left out."""
    events: tuple[LoggedEvent, ...]
    line: int = field(default=0, compare=False)
    """Where it begins in the file; the same case stands elsewhere in another form of the log."""


@dataclass(frozen=True, slots=True)
class WrongCase:
    """A case of a good log that cannot be taken as it stands; nothing of it is."""

    case_id: str
    """Empty where it has none."""
    line: int
    why: str


def refused(name: str, why: str, line: int = 0, case_id: str = "") -> InvalidArgument:
    """Word the refusal of a whole log, naming line and case where they are known."""
    where = [name]
    if line:
        where.append(f"line {line}")
    if case_id:
        where.append(f"case {case_id[:64]!r}")
    return InvalidArgument(Reason.LOG_INVALID, f"{', '.join(where)}: {why}", source=name)


class Wrong(Exception):
    """Something about a case does not stand; says what. Never leaves this package."""


class NoOffset(Wrong):
    """A time says no offset, and nobody knows where it was written down: the whole log is refused for it."""


class Moments:
    """Reads moments, and keeps those that stand in a log again and again."""

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone) if zone else None
        self._known: dict[str, dt.datetime] = {}

    def read(self, text: str) -> dt.datetime:
        """Read a moment as ISO 8601 writes it; raises `Wrong`."""
        try:
            at = dt.datetime.fromisoformat(text)
            if at.tzinfo is None:
                if self._zone is None:
                    raise NoOffset(f"the time {text[:40]!r} says no offset; state the log's time zone in its profile")
                at = at.replace(tzinfo=self._zone)
            return at.astimezone(dt.UTC)
        except (ValueError, OverflowError):
            raise Wrong(f"{text[:40]!r} is no moment; write it like 2026-11-22T10:00:00+01:00") from None

    def again(self, text: str) -> dt.datetime:
        """Read a moment that may well stand elsewhere too."""
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self.read(text)
        return found


class Gathered:
    """One case while its events come in."""

    __slots__ = ("attributes", "case_id", "events", "last_at", "line", "said", "why", "wrong_line")

    def __init__(self, case_id: str, line: int, said: object = None) -> None:
        self.case_id = case_id
        self.line = line
        self.said = said
        """What it said of itself, as the first line of a table has it."""
        self.attributes: Mapping[str, Value] = {}
        self.events: list[LoggedEvent] = []
        self.last_at: dt.datetime | None = None
        self.why = ""
        self.wrong_line = 0

    def spoil(self, why: str, line: int) -> None:
        """Note what is wrong with it: the first thing that is."""
        if not self.why:
            self.why, self.wrong_line = why, line

    def add(self, event: LoggedEvent) -> None:
        """Add an event; raises `Wrong` where it happened before the one that stands before it."""
        if self.last_at is not None and event.at < self.last_at:
            number = len(self.events) + 1
            raise Wrong(
                f"event {number} is earlier than the one before it: the events of a case stand in order of time"
            )
        self.last_at = event.at
        self.events.append(event)

    def done(self) -> LoggedCase | WrongCase:
        """Give what came of it."""
        if self.why:
            return WrongCase(self.case_id, self.wrong_line, self.why)
        return LoggedCase(self.case_id, self.attributes, tuple(self.events), self.line)


def attributes_of(said: Mapping[str, str], columns: LogColumns, moments: Moments) -> Mapping[str, Value]:
    """Take what a case says of itself; raises `Wrong` where a moment is none, or where it is too much."""
    if len(said) > MAX_ATTRIBUTES:
        raise Wrong(f"it says more than {MAX_ATTRIBUTES} things of itself")
    found: dict[str, Value] = {}
    for name, text in said.items():
        if text and name != columns.case:
            found[name] = moments.again(text) if name in columns.moments else text
    return found


def check_id(case_id: str) -> None:
    """Check that a case can go by this name; raises `Wrong`."""
    if not case_id:
        raise Wrong("a case without a name")
    if len(case_id) > MAX_NAME or not case_id.isprintable() or case_id != case_id.strip():
        raise Wrong(f"the name of a case is at most {MAX_NAME} printable characters, with no space around them")


MAX_NAME: Final = 80
