"""Deadlines that have passed stay passed: nothing recorded afterwards makes the time longer, or says that it stood."""

import datetime as dt
from typing import Final

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.recognition.calendars import Calendar
from services.recognition.case import CaseState
from services.recognition.clocks import clock_of
from services.recognition.events import Event, Kind
from services.recognition.procedure import Overdue

_STOPS: Final = frozenset({Kind.SUSPEND, Kind.SUPPLEMENT_REQUEST})


def check(state: CaseState, event: Event, calendar: Calendar, now: dt.datetime) -> None:
    """Refuse an event of a stage that would move a deadline which has passed by now.

    That what it says happened in time, and was sent in late, does not count here: everybody has been told by then that
    the time is used up. Where silence counts as a pass, nobody has been told of anything until it has counted: what
    gets here then was said in time. Raises `FailedPrecondition` EXTENSION_NOT_ALLOWED, `InvalidArgument` EVENT_TOO_OLD.
    """
    if event.kind is not Kind.EXTEND and event.kind not in _STOPS:
        return
    clock = clock_of(state, event.stage)
    if clock is None:
        return
    reckoning = clock.reckon(calendar, now)
    if not reckoning.overdue:
        return
    if event.kind is Kind.EXTEND:
        raise FailedPrecondition(
            Reason.EXTENSION_NOT_ALLOWED,
            f"the limit of {event.stage} is used up: it is extended before that, or not at all",
            stage=event.stage,
        )
    silence = state.procedure.stages[event.stage].overdue is Overdue.DEEMED
    if reckoning.due_at is not None and event.at < reckoning.due_at and not silence:
        raise InvalidArgument(
            Reason.EVENT_TOO_OLD,
            f"the limit of {event.stage} was used up since: what stops a clock is sent in while it runs",
            stage=event.stage,
        )
