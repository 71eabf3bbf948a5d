"""What a case looks like at a moment: every clock, its light, when the case is expected to end, and what that hangs on.

A pure function of the case's state, the calendar and the moment.

The forecast: every stage takes its whole limit, an overdue one ends now, a pause takes its own limit where it has one.
A stage that only applies if another ends in some way is left out until that is settled. The critical path is the chain
of stages that the expected end hangs on, back to the beginning.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from services.recognition.calendars import Calendar, Calendars
from services.recognition.case import CaseState
from services.recognition.clocks import WITHOUT, Clock, case_clock, clock_of, pause_clock
from services.recognition.events import Pause
from services.recognition.forecast import forecast
from services.recognition.stages import ENDED, UNDER_WAY, StageStatus
from services.recognition.statutory import Limit, Reckoning


class Light(StrEnum):
    """How a deadline stands; the names of the wire without their prefix."""

    GREEN = "GREEN"
    YELLOW = "YELLOW"
    RED = "RED"


_ORDER: Final = tuple(Light)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A clock, read at a moment."""

    started_at: dt.datetime
    limit: Limit
    """With its extensions."""
    reckoning: Reckoning
    light: Light

    @property
    def due_at(self) -> dt.datetime | None:
        """The first moment of overdue; None while the clock stands and nobody knows."""
        return self.reckoning.due_at


@dataclass(frozen=True, slots=True)
class StageReckoning:
    """Where one stage stands at a moment."""

    code: str
    status: StageStatus
    clock: ClockReading | None
    """As it stands now, or stood when the stage ended; None where none ran."""
    runs: bool
    """Whether its clock has begun and the stage has not ended."""
    light: Light | None
    """Of a clock that runs, or of how the stage ended; None where there is none."""
    late: bool
    """Whether it ended late."""
    pause: Pause | None
    """Why its clock stands."""
    pause_clock: ClockReading | None
    """The clock of the pause itself; None where it has no limit."""
    expected_by: dt.datetime | None
    """When it ends if everything takes its whole limit; when it ended; None where that cannot be told."""
    critical: bool
    """Whether the expected end of the case hangs on it."""
    waits_for: tuple[str, ...]
    """The stages before it that have still to end for it; those before these go without saying."""


@dataclass(frozen=True, slots=True)
class CaseReckoning:
    """Where a case stands at a moment."""

    stages: Mapping[str, StageReckoning]
    """In the procedure's order."""
    light: Light | None
    """The worst of its running clocks, with the case's own; RED past a deadline from outside. None once closed."""
    clock: ClockReading | None
    """The case's own clock."""
    expected_by: dt.datetime | None
    provisional: bool
    """Whether anything of this rests on days that no official calendar covers yet."""
    calendar: str
    """`ID@version` of the calendar."""


def view(state: CaseState, calendars: Calendars, now: dt.datetime) -> CaseReckoning:
    """Look at a case at a moment."""
    calendar = calendars.get(state.procedure.calendar)
    expected = forecast(state, calendar, now)
    stages = {
        code: _stage(state, calendar, code, now, expected.ends[code], critical=code in expected.critical)
        for code in state.stages
    }
    found = case_clock(state)
    clock = None if found is None else _read(calendar, found, now, None)
    running = [stage.clock for stage in stages.values() if stage.clock and stage.runs]
    provisional = expected.provisional or any(c.reckoning.provisional for c in (*running, clock) if c is not None)
    return CaseReckoning(
        MappingProxyType(stages),
        _light(state, running, clock, now),
        clock,
        expected.end,
        provisional and state.closed_at is None,
        calendar.label,
    )


def _light(
    state: CaseState, running: Iterable[ClockReading], clock: ClockReading | None, now: dt.datetime
) -> Light | None:
    if state.closed_at is not None:
        return None
    lights = [reading.light for reading in (*running, clock) if reading is not None]
    deadline = state.submission.deadline
    if deadline is not None:
        lights.append(Light.RED if now >= deadline else Light.GREEN)
    return max(lights, key=_ORDER.index, default=None)


def _read(calendar: Calendar, clock: Clock, now: dt.datetime, lead: int | None) -> ClockReading:
    at = now if clock.ended_at is None else clock.ended_at
    reckoning = clock.reckon(calendar, at)
    if reckoning.overdue:
        light = Light.RED
    elif clock.ended_at is not None:
        light = Light.GREEN
    else:
        warned = clock.yellow_at(calendar, lead)
        light = Light.GREEN if warned is None or at < warned else Light.YELLOW
    return ClockReading(clock.started_at, clock.limit, reckoning, light)


def _stage(
    state: CaseState, calendar: Calendar, code: str, now: dt.datetime, expected: dt.datetime | None, *, critical: bool
) -> StageReckoning:
    stage, of = state.stages[code], state.procedure.stages[code]
    found = clock_of(state, code)
    clock = None if found is None else _read(calendar, found, now, state.procedure.lead_of(of, found.limit))
    pause = pause_clock(state, code)
    return StageReckoning(
        code=code,
        status=stage.status,
        clock=clock,
        runs=clock is not None and stage.ended_at is None,
        light=None if clock is None else clock.light,
        late=clock is not None and stage.status in ENDED and clock.reckoning.overdue,
        pause=stage.pause,
        pause_clock=None if pause is None else _read(calendar, pause, now, None),
        expected_by=expected,
        critical=critical,
        waits_for=tuple(_waits_for(state, code)),
    )


def _waits_for(state: CaseState, code: str) -> Iterator[str]:
    status = state.stages[code].status
    if status is StageStatus.WAITING or status in UNDER_WAY:
        found = set(_in_the_way(state, code))
        yield from (c for c in state.stages if c in found and not _goes_without_saying(state, c, found))


def _in_the_way(state: CaseState, code: str) -> Iterator[str]:
    """Go through what is in a stage's way; of a stage that is left out, what would be in that one's."""
    for before in state.layout.needs[code]:
        stage = state.stages[before]
        if stage.passed_at is None and stage.status in WITHOUT:
            yield from _in_the_way(state, before)
        elif stage.passed_at is None:
            yield before


def _goes_without_saying(state: CaseState, code: str, named: Iterable[str]) -> bool:
    return any(code in state.procedure.ancestors(other) for other in named)
