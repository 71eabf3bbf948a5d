"""When a case ends if every stage takes its whole limit, and which stages that hangs on.

See `services.recognition.view` for what is assumed.
"""

import datetime as dt
from dataclasses import dataclass

from services.recognition.calendars import Calendar
from services.recognition.case import CaseState
from services.recognition.clocks import WITHOUT, Clock, clock_of, pause_clock, stops
from services.recognition.procedure import Stage
from services.recognition.settling import applies
from services.recognition.stages import StageState, StageStatus, Status
from services.recognition.statutory import Unit


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected."""

    ends: dict[str, dt.datetime | None]
    """For each stage, when it ends; None where it has no limit, or is left out."""
    end: dt.datetime | None
    """When the case ends."""
    critical: frozenset[str]
    """The stages that this hangs on."""
    provisional: bool


def forecast(state: CaseState, calendar: Calendar, now: dt.datetime) -> Forecast:
    """Look ahead from a moment; for a closed case, back."""
    return _Ahead(state, calendar, now).look()


class _Ahead:
    """One pass over the graph, each stage after those it waits for."""

    def __init__(self, state: CaseState, calendar: Calendar, now: dt.datetime) -> None:
        self._state = state
        self._calendar = calendar
        self._now = now
        self._passed: dict[str, dt.datetime] = {}
        """When each stage is out of the way."""
        self._because: dict[str, str] = {}
        """The stage that this hangs on."""
        self._ends: dict[str, dt.datetime | None] = {}
        self._left_out: set[str] = set()
        self._provisional = False

    def look(self) -> Forecast:
        state = self._state
        for code in state.procedure.order:
            self._look(code, state.procedure.stages[code], state.stages[code])
        if state.closed_at is not None and state.status is not Status.DELIVERED:
            return Forecast(self._ends, state.closed_at, frozenset(), provisional=False)
        ends = [code for code in state.procedure.order if code in state.layout.closing and code not in self._left_out]
        last = max(ends, key=self._passed.__getitem__, default=None)
        end = state.closed_at or (None if last is None else self._passed[last])
        return Forecast(self._ends, end, frozenset(self._chain(last)), self._provisional)

    def _chain(self, last: str | None) -> list[str]:
        chain: list[str] = []
        while last is not None:
            if last not in self._left_out:
                chain.append(last)
            last = self._because.get(last)
        return chain

    def _look(self, code: str, of: Stage, stage: StageState) -> None:
        before, because = self._before(of)
        if stage.status in WITHOUT or (stage.status is StageStatus.WAITING and applies(self._state, of) is None):
            self._left_out.add(code)
            passed, end = stage.passed_at or before, None
        elif stage.ended_at is not None:
            passed = end = stage.passed_at or stage.ended_at
        else:
            end = self._end(code, of, before)
            passed = max(end or before, before, self._now)
            if of.clock_from and passed > max(before, self._now):
                because = of.clock_from
        self._passed[code], self._ends[code] = passed, end
        if because:
            self._because[code] = because

    def _before(self, of: Stage) -> tuple[dt.datetime, str]:
        """Say when everything that a stage waits for is out of the way, and which of it is last."""
        last = max(of.after, key=self._passed.__getitem__, default="")
        return (self._passed[last], last) if last else (self._state.applied_at, "")

    def _end(self, code: str, of: Stage, before: dt.datetime) -> dt.datetime | None:
        """Say when a stage ends that has not, if it takes its whole limit; None where it has no limit."""
        clock = clock_of(self._state, code)
        if clock is None:
            limit = self._state.procedure.limit_of(of, self._state.answers)
            if limit is None:
                return max(before, self._now) if of.instant else None
            begin = self._passed[of.clock_from] if of.clock_from else before
            if begin > self._now and limit.unit is not Unit.HOUR:
                # What takes its whole limit ends on the last day in time, not at the first moment after it.
                begin -= dt.timedelta.resolution
            clock = Clock(begin, limit, (), None, self._state.procedure.roll)
        due, provisional = clock.due_by(self._calendar, self._runs_again(code, of))
        self._provisional |= provisional
        return max(due, before, self._now)

    def _runs_again(self, code: str, of: Stage) -> dt.datetime:
        """Say when a clock that stands runs again, if everything that stops it takes its whole limit."""
        moments = [self._now]
        pause = pause_clock(self._state, code)
        if pause is not None:
            due, provisional = pause.due_by(self._calendar, self._now)
            self._provisional |= provisional
            moments.append(due)
        if of.clock_from:
            stages = self._state.procedure.stages
            moments += [at for c, at in self._passed.items() if stops(stages[c], self._state.stages[c])]
        return max(moments)
