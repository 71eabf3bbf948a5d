"""What becomes due in a case: reminders and escalations that have not been sent, and stages deemed passed.

Pure functions of the case's state, the calendar and the moment. Thresholds of a stage, in order: "yellow" when its
light turns, "red" when its limit is used up, then "escalation-1", "escalation-2" … as the procedure says. Where a stage
was opened again after a refused recognition, its new clock has thresholds of its own: "yellow.2", "red.2" …
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.recognition.agencies import DESK, Agencies
from services.recognition.calendars import Calendar, Calendars
from services.recognition.case import CaseState
from services.recognition.clocks import Clock, clock_of
from services.recognition.procedure import Overdue
from services.recognition.statutory import Unit, add

YELLOW: Final = "yellow"
RED: Final = "red"
ESCALATION: Final = "escalation-"


@dataclass(frozen=True, slots=True)
class Reminder:
    """A reminder that is due."""

    stage: str
    threshold: str
    addressee: str
    """The office that it goes to."""
    at: dt.datetime
    """When it became due."""


def due_now(state: CaseState, calendars: Calendars, agencies: Agencies, now: dt.datetime) -> list[Reminder]:
    """List the reminders that are due and have not been sent, the oldest first."""
    found = [r for r in _open(state, calendars, agencies, now) if r.at <= now]
    return sorted(found, key=lambda r: r.at)


def deemed_now(state: CaseState, calendars: Calendars, now: dt.datetime) -> list[tuple[str, dt.datetime]]:
    """List the stages that count as passed because their limit is used up, with since when, the oldest first."""
    calendar = calendars.get(state.procedure.calendar)
    return sorted((item for item in _deemed(state, calendar, now) if item[1] <= now), key=lambda item: item[1])


def next_at(state: CaseState, calendars: Calendars, agencies: Agencies, now: dt.datetime) -> dt.datetime | None:
    """Give the next moment at which anything becomes due, which is past where something is due now.

    None where nothing will, unless something happens in the case.
    """
    calendar = calendars.get(state.procedure.calendar)
    moments = [reminder.at for reminder in _open(state, calendars, agencies, now)]
    moments += [at for _, at in _deemed(state, calendar, now)]
    return min(moments, default=None)


def _running(state: CaseState) -> Iterator[tuple[str, Clock]]:
    """Go through the clocks that have begun and of whose stages the end is open."""
    if state.closed_at is not None:
        return
    for code, stage in state.stages.items():
        if stage.started_at is not None and stage.ended_at is None and (clock := clock_of(state, code)) is not None:
            yield code, clock


def _deemed(state: CaseState, calendar: Calendar, now: dt.datetime) -> Iterator[tuple[str, dt.datetime]]:
    for code, clock in _running(state):
        stage = state.stages[code]
        if state.procedure.stages[code].overdue is not Overdue.DEEMED or stage.ready_at is None:
            continue
        due_at = clock.reckon(calendar, now).due_at
        if due_at is not None:
            # Not before what was last said of it either: a calendar may have moved the due moment since.
            yield code, max(due_at, stage.ready_at, stage.last_at or stage.ready_at)


def _open(state: CaseState, calendars: Calendars, agencies: Agencies, now: dt.datetime) -> Iterator[Reminder]:
    """Go through the reminders that have not been sent and whose moment is known, in the order of their stages."""
    calendar = calendars.get(state.procedure.calendar)
    for code, clock in _running(state):
        agency = state.procedure.stages[code].agency
        again = f".{state.stages[code].rounds + 1}" if state.stages[code].rounds else ""
        for threshold, to, at in _thresholds(state, calendar, code, clock, now):
            if (code, threshold + again) not in state.reminders:
                yield Reminder(code, threshold + again, agencies.addressee(agency, to), at)


def _thresholds(
    state: CaseState, calendar: Calendar, code: str, clock: Clock, now: dt.datetime
) -> Iterator[tuple[str, str, dt.datetime]]:
    """Go through a clock's thresholds: name, whom it goes to, moment; as far as moments are known."""
    of = state.procedure.stages[code]
    if of.overdue is Overdue.NONE:
        return
    lead = state.procedure.lead_of(of, clock.limit)
    warned = clock.yellow_at(calendar, lead)
    if warned is not None:
        yield YELLOW, DESK, warned
    due_at = clock.reckon(calendar, now).due_at
    if due_at is None:
        return
    yield RED, DESK, due_at
    for number, step in enumerate(state.procedure.escalation, 1):
        # Counted from the last moment in time: the first day of overdue is a whole one.
        last = due_at if step.after.unit is Unit.HOUR else due_at - dt.timedelta.resolution
        yield f"{ESCALATION}{number}", step.to, add(calendar, last, step.after, roll=clock.roll)[0]
