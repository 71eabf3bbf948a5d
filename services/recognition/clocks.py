"""The clocks of a case: when each began, how long it may run, when it stood. What they show is reckoned elsewhere."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from services.recognition.calendars import Calendar
from services.recognition.case import CaseState
from services.recognition.procedure import Stage
from services.recognition.stages import UNDER_WAY, StageState, StageStatus, Status
from services.recognition.statutory import Limit, Reckoning, Suspension, add, reckon, yellow_at

WITHOUT: Final = frozenset({StageStatus.NOT_APPLICABLE, StageStatus.WITHDRAWN})
"""Stages that are left out."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock, as the events left it."""

    started_at: dt.datetime
    limit: Limit
    """With its extensions."""
    suspensions: tuple[Suspension, ...]
    """When it stood, for reasons of its own or of others; they may overlap."""
    ended_at: dt.datetime | None
    """When it stopped for good; None while it runs, or stands for the time being."""
    roll: bool
    """Whether calendar days that end on a rest day go on to the next working day."""

    def reckon(self, calendar: Calendar, now: dt.datetime) -> Reckoning:
        """Say where it stands at a moment."""
        return reckon(calendar, self.started_at, self.limit, self.suspensions, now, roll=self.roll)

    def yellow_at(self, calendar: Calendar, lead: int | None) -> dt.datetime | None:
        """Say from when on it is worth a warning; None where it stands before it gets there."""
        return yellow_at(calendar, self.started_at, self.limit, self.suspensions, lead)

    def due_by(self, calendar: Calendar, runs_again: dt.datetime) -> tuple[dt.datetime, bool]:
        """Say when it is used up if what stops it now ends at `runs_again`, and whether that is provisional."""
        closed = [s if s.end is not None else replace(s, end=max(s.start, runs_again)) for s in self.suspensions]
        return add(calendar, self.started_at, self.limit, closed, roll=self.roll)


def clock_of(state: CaseState, code: str) -> Clock | None:
    """Give the clock of a stage; None where it has no limit, has not begun, or the stage is left out."""
    stage, of = state.stages[code], state.procedure.stages[code]
    if stage.started_at is None or stage.status in WITHOUT:
        return None
    limit = state.procedure.limit_of(of, state.answers)
    if limit is None:
        return None
    if stage.extended:
        limit = Limit(limit.amount + stage.extended, limit.unit)
    suspensions = tuple(suspension for suspension, _ in stage.suspensions)
    if of.clock_from:
        suspensions += tuple(_after(state, stage.started_at))
    return Clock(stage.started_at, limit, suspensions, stage.ended_at, state.procedure.roll)


def case_clock(state: CaseState) -> Clock | None:
    """Give the clock of the whole case, which begins when it is accepted; None where there is no limit for that."""
    limit = state.procedure.case_limit
    started_at = state.reached.get(Status.ACCEPTED) if state.layout.accepts else state.applied_at
    if limit is None or started_at is None:
        return None
    suspensions = (*state.suspensions, *_after(state, started_at))
    return Clock(started_at, limit, suspensions, state.closed_at, state.procedure.roll)


def pause_clock(state: CaseState, code: str) -> Clock | None:
    """Give the clock of the pause that a stage is in; None where it is in none, or that has no limit."""
    stage = state.stages[code]
    limit = None if stage.pause is None else state.procedure.stages[code].pauses.get(stage.pause)
    if limit is None:
        return None
    return Clock(stage.suspensions[-1][0].start, limit, (), None, state.procedure.roll)


def stops(of: Stage, stage: StageState) -> bool:
    """Tell whether a stage is one that makes others' clocks stand just now."""
    return of.stops_clocks and stage.status in UNDER_WAY and stage.ready_at is not None


def _after(state: CaseState, started_at: dt.datetime) -> Iterator[Suspension]:
    """Give the runs of stages that stop the clocks of others, as far as they concern one that began before them."""
    yield from (run for run in state.stopped if run.start >= started_at)
    for code, stage in state.stages.items():
        ready_at = stage.ready_at
        if ready_at is not None and ready_at >= started_at and stops(state.procedure.stages[code], stage):
            yield Suspension(ready_at, None)
