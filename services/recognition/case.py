"""Where a case stands: a pure function of its procedure and its events, folded one event at a time.

Nothing here checks whether an event is allowed (`services.recognition.rules` does) and nothing asks for the time: the
same events give the same state, to the second, on every machine. What depends on the present moment is in
`services.recognition.view`.

How stages follow one another:

- A stage is *out of the way* (`passed_at`) once it is satisfied: passed, also under conditions, recognised or deemed;
  where it failed and the procedure goes on; where it does not apply or was dropped, from the moment everything before
  it is out of the way, so that leaving a stage out never lets those behind it overtake those before it.
- A stage is ready once everything it needs is out of the way, at the latest of those moments: what it waits for, and
  what its clock or whether it applies hangs on, which may be open again. Its clock starts then, or at the end of the
  stage that its procedure names.
- A refused recognition opens its stage again, as the agency's own, with a new clock. Stages behind it that nobody has
  touched wait again; those that were opened or ended stay as they are, and are doubtful until it ends anew.
- A revoked result undoes nothing. Its stage, and every stage behind it that has begun, is doubtful until the stage
  gets another result. Where it was the agency's own, it gives another one at once, or starts anew: that opens the
  stage again as a refusal does.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from services.recognition.events import WHOLE_CASE, Event, Kind, Pause, ResultCode, Submission
from services.recognition.layout import Layout, layout_of
from services.recognition.procedure import OnFail, Procedure, Stage
from services.recognition.settling import doubt, look, take_back
from services.recognition.stages import (
    APPLICANT,
    APPLICANTS,
    ENDED,
    SATISFIED,
    UNDER_WAY,
    StageState,
    StageStatus,
    Status,
)
from services.recognition.statutory import Suspension

__all__ = ["APPLICANT", "ENDED", "SATISFIED", "UNDER_WAY", "CaseState", "StageState", "StageStatus", "Status", "fold"]

_OF_RESULT: Final[Mapping[ResultCode, StageStatus]] = {
    ResultCode.PASS: StageStatus.PASSED,
    ResultCode.CONDITIONAL: StageStatus.CONDITIONAL,
    ResultCode.FAIL: StageStatus.FAILED,
}
_BY_RANK: Final = (Status.APPLIED, Status.ACCEPTED, Status.IN_REVIEW, Status.DECIDED, Status.ISSUED, Status.DELIVERED)
_RANK: Final[Mapping[Status, int]] = {status: rank for rank, status in enumerate(_BY_RANK)}
_ACCEPTED: Final = _RANK[Status.ACCEPTED]
_DECIDED: Final = _RANK[Status.DECIDED]
_ISSUED: Final = _RANK[Status.ISSUED]
_SILENT: Final = frozenset({Kind.REMIND, Kind.RECOMPUTE})
"""Events that change no status, and no order of moments."""


@dataclass(slots=True)
class CaseState:
    """Where a case stands after the events applied so far."""

    procedure: Procedure = field(repr=False, compare=False)
    submission: Submission
    applied_at: dt.datetime
    answers: Mapping[str, str]
    """Complete: with the defaults of what was not answered."""
    stages: dict[str, StageState]
    """In the procedure's order."""
    latest_at: dt.datetime
    """The latest moment of any event that changed something."""
    layout: Layout = field(repr=False, compare=False)
    version: int = 1
    """Number of the last event."""
    status: Status = Status.APPLIED
    closed_at: dt.datetime | None = None
    reached: dict[Status, dt.datetime] = field(default_factory=dict[Status, dt.datetime])
    """When the case first reached each status that an end of a stage brings about."""
    suspensions: tuple[Suspension, ...] = ()
    """When every stage under way stood still; the last may be going on."""
    stopped: tuple[Suspension, ...] = ()
    """Runs of stages that stop the clocks of others, as far as they have ended."""
    reminders: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Stage and threshold of every reminder sent."""
    reminded: int = 0
    """How many reminders were sent."""
    calendar: str = ""
    """`ID@version` of the last RECOMPUTE."""
    _open: int = 0
    _suspended: int = 0
    _rank: int = 0
    _examined: bool = False
    _empty: bool = False
    """Nothing that has to be done applied from the beginning: whatever ends first, ends the case."""
    broken: set[str] = field(default_factory=set[str])
    """Stages whose result was revoked or refused, and that have no other one yet."""
    doubted: bool = False

    @staticmethod
    def begin(procedure: Procedure, event: Event) -> "CaseState":
        """Begin a case with its SUBMIT."""
        submission = event.submission
        assert submission is not None  # noqa: S101 - refused before, by the rules
        layout = layout_of(procedure, submission.answers)
        stages = {code: StageState() for code in procedure.stages}
        state = CaseState(procedure, submission, event.at, layout.answers, stages, event.at, layout)
        for code in layout.left_out:
            stages[code].status = StageStatus.NOT_APPLICABLE
        for code in layout.free:
            stage = stages[code]
            stage.status, stage.ready_at, stage.started_at = StageStatus.READY, event.at, event.at
        for code in layout.at_once:
            look(state, code)
        state._empty = bool(layout.at_once) and all(stages[code].passed_at is not None for code in layout.closing)
        return state

    def apply(self, event: Event) -> None:
        """Add one event. It must be allowed; nothing is checked."""
        self.version += 1
        if event.at > self.latest_at and event.kind not in _SILENT:
            self.latest_at = event.at
        self._steps[event.kind](self, event)

    @property
    def held_by(self) -> tuple[str, ...]:
        """Who has to do something now: agencies in the order of their stages, and `APPLICANT`."""
        if self.closed_at is not None:
            return ()
        holders: dict[str, None] = {}
        for code, stage in self.stages.items():
            of = self.procedure.stages[code]
            if stage.status in UNDER_WAY and not (of.repeatable and stage.status is StageStatus.READY):
                holders[APPLICANT if stage.pause in APPLICANTS else of.agency] = None
        return tuple(holders)

    def is_clear(self, code: str) -> bool:
        """Tell whether everything a stage waits for is out of the way."""
        needs = self.layout.needs[code]
        return not needs or all(self.stages[before].passed_at is not None for before in needs)

    # What each event does.

    def _start(self, event: Event) -> None:
        stage = self._touch(event)
        if stage.status in ENDED:
            self._open_again(event.stage, stage, event.at)
        stage.opened_at = event.at
        self.stand(stage, StageStatus.OPEN)
        if not self._examined and event.stage not in self.layout.acceptance:
            self._examined = True
        self._reckon_status(event.at)

    def _suspend(self, event: Event) -> None:
        stage = self._touch(event)
        pause = event.pause or Pause.SUPPLEMENT
        if pause is Pause.SUPPLEMENT:
            stage.supplements += 1
        stage.suspensions = (*stage.suspensions, (Suspension(event.at, None), pause))
        self.stand(stage, StageStatus.SUSPENDED)
        self._reckon_status(event.at)

    def _resume(self, event: Event) -> None:
        stage = self._touch(event)
        self._go_on(stage, event.at)
        if stage.opened_at is not None:
            self.stand(stage, StageStatus.OPEN)
        else:
            self.stand(stage, StageStatus.WAITING if stage.ready_at is None else StageStatus.READY)
        self._reckon_status(event.at)

    def _extend(self, event: Event) -> None:
        stage = self._touch(event)
        stage.extensions += 1
        stage.extended += event.extension

    def _result(self, event: Event) -> None:
        stage = self._touch(event)
        code = event.result or ResultCode.PASS
        if stage.status is StageStatus.DEEMED:
            stage.late_opinion, stage.late_opinion_at = code, event.at
            stage.ref = event.ref
            return
        stage.result, stage.ref, stage.source_agency, stage.arrangement = code, event.ref, "", ""
        if not self._examined and event.stage not in self.layout.acceptance:
            self._examined = True
        of = self.procedure.stages[event.stage]
        if code is ResultCode.FAIL and of.on_fail is OnFail.REFUSE:
            self._end(event, of, stage, StageStatus.FAILED, passed=False)
            self._close(Status.REFUSED, event.at)
        else:
            self._end(event, of, stage, _OF_RESULT[code])

    def _recognise(self, event: Event) -> None:
        stage = self._touch(event)
        stage.result, stage.ref = None, event.ref
        stage.source_agency, stage.arrangement = event.source_agency, event.arrangement
        self._end(event, self.procedure.stages[event.stage], stage, StageStatus.RECOGNISED)

    def _deem(self, event: Event) -> None:
        stage = self._touch(event)
        stage.result = None
        self._end(event, self.procedure.stages[event.stage], stage, StageStatus.DEEMED)

    def _refuse(self, event: Event) -> None:
        stage = self._touch(event)
        stage.refused_refs = (*stage.refused_refs, event.ref or stage.ref)
        self._open_again(event.stage, stage, event.at)
        self._reckon_status(event.at)

    def _open_again(self, code: str, stage: StageState, at: dt.datetime) -> None:
        """Take a stage back to its beginning, with a new clock, and let those behind it wait again that can."""
        stage.rounds += 1
        stage.ref = stage.source_agency = stage.arrangement = ""
        stage.result = stage.opened_at = stage.ended_at = stage.passed_at = stage.passed_as = None
        stage.suspensions, stage.extensions, stage.extended, stage.revoked = (), 0, 0, False
        stage.ready_at = stage.started_at = None
        stage.reopened_at = at
        self.stand(stage, StageStatus.WAITING)
        self.broken.add(code)
        behind = self.layout.behind[code]
        for other in behind:
            take_back(self, other)
        for other in (code, *behind):
            look(self, other)

    def _withdraw(self, event: Event) -> None:
        if event.stage == WHOLE_CASE:
            self._close(Status.WITHDRAWN, event.at)
            return
        self._drop(event.stage, event.at)
        self.stages[event.stage].last_at = event.at
        look(self, event.stage)
        self._settle(event.at, event.stage)

    def _revoke(self, event: Event) -> None:
        self._touch(event).revoked = True
        self.broken.add(event.stage)
        doubt(self)

    def _remind(self, event: Event) -> None:
        self.reminders.add((event.stage, event.threshold))
        self.reminded += 1

    def _recompute(self, event: Event) -> None:
        self.calendar = event.calendar

    # How one thing leads to another.

    def _touch(self, event: Event) -> StageState:
        stage = self.stages[event.stage]
        stage.last_at = event.at
        return stage

    def stand(self, stage: StageState, status: StageStatus) -> None:
        """Change a stage's status, keeping count."""
        before = stage.status
        self._open += (status is StageStatus.OPEN) - (before is StageStatus.OPEN)
        self._suspended += (status is StageStatus.SUSPENDED) - (before is StageStatus.SUSPENDED)
        stage.status = status

    @staticmethod
    def _go_on(stage: StageState, at: dt.datetime) -> None:
        *earlier, (suspension, pause) = stage.suspensions
        stage.suspensions = (*earlier, (Suspension(suspension.start, max(suspension.start, at)), pause))

    def _end(self, event: Event, of: Stage, stage: StageState, status: StageStatus, *, passed: bool = True) -> None:
        at = event.at
        if stage.status is StageStatus.SUSPENDED:
            self._go_on(stage, at)
        self._stop_stopping(of, stage, at)
        self.stand(stage, status)
        stage.ended_at = at
        if self.broken:
            self.broken.discard(event.stage)
            stage.revoked = False
        if of.reaches and status in SATISFIED:
            self._reach(Status(of.reaches), at)
        if not passed:
            return
        if stage.passed_at is None:
            stage.passed_at, stage.passed_as = at, stage.result or ResultCode.PASS
        self._settle(at, event.stage)

    def _reach(self, status: Status, at: dt.datetime) -> None:
        self.reached.setdefault(status, at)
        self._rank = max(self._rank, _RANK[status])

    def _settle(self, at: dt.datetime, code: str) -> None:
        """Let those behind a stage begin where they can, and the case end where nothing is left."""
        behind, closing = self.layout.behind[code], self.layout.closing
        for other in behind:
            look(self, other)
        ends = bool(closing) and (code in closing or bool(behind) or self._empty)
        if ends and all(self.stages[c].passed_at is not None for c in closing):
            self._close(Status.DELIVERED, at)
        else:
            self._reckon_status(at)

    def _drop(self, code: str, at: dt.datetime) -> None:
        stage = self.stages[code]
        if stage.status is StageStatus.SUSPENDED:
            self._go_on(stage, at)
        self._stop_stopping(self.procedure.stages[code], stage, at)
        self.stand(stage, StageStatus.WITHDRAWN)
        stage.ended_at = at

    def _stop_stopping(self, of: Stage, stage: StageState, at: dt.datetime) -> None:
        begun = stage.ready_at
        if of.stops_clocks and stage.ended_at is None and begun is not None and at > begun:
            self.stopped = (*self.stopped, Suspension(begun, at))

    def _close(self, how: Status, at: dt.datetime) -> None:
        for code, stage in self.stages.items():
            status = stage.status
            if status is StageStatus.READY and not self.procedure.stages[code].stops_clocks:
                # Most are this, in a procedure that orders little: the same as below, in less time.
                stage.status, stage.ended_at = StageStatus.WITHDRAWN, at
            elif status in UNDER_WAY or status is StageStatus.WAITING:
                self._drop(code, at)
        self.status, self.closed_at = how, at
        self._stop_standing(at)
        doubt(self)

    def _reckon_status(self, at: dt.datetime) -> None:
        doubt(self)
        if self.closed_at is not None:
            return
        rank = self._rank
        if rank < _DECIDED and self._suspended and not self._open and self._all_stand():
            status = Status.SUSPENDED
        elif rank <= _ACCEPTED:
            accepted = rank == _ACCEPTED or not self.layout.accepts
            status = Status.IN_REVIEW if accepted and self._examined else _BY_RANK[rank]
        else:
            # Delivered it is only once nothing is left to be done.
            status = _BY_RANK[min(rank, _ISSUED)]
        if status is self.status:
            return
        if self.status is Status.SUSPENDED:
            self._stop_standing(at)
        elif status is Status.SUSPENDED:
            self.suspensions = (*self.suspensions, Suspension(at, None))
        self.status = status

    def _all_stand(self) -> bool:
        """Tell whether no clock runs of a stage that has to be done and that nobody has opened."""
        stages = self.procedure.stages
        return not any(s.status is StageStatus.READY and not stages[code].repeatable for code, s in self.stages.items())

    def _stop_standing(self, at: dt.datetime) -> None:
        if self.suspensions and self.suspensions[-1].end is None:
            start = self.suspensions[-1].start
            self.suspensions = (*self.suspensions[:-1], Suspension(start, max(start, at)))

    _steps: ClassVar[Mapping[Kind, Callable[[Any, Event], None]]] = {
        Kind.START: _start,
        Kind.SUPPLEMENT_REQUEST: _suspend,
        Kind.SUPPLEMENT_RECEIVED: _resume,
        Kind.SUSPEND: _suspend,
        Kind.RESUME: _resume,
        Kind.EXTEND: _extend,
        Kind.RESULT: _result,
        Kind.RECOGNISE: _recognise,
        Kind.REFUSE_RECOGNITION: _refuse,
        Kind.DEEMED: _deem,
        Kind.WITHDRAW: _withdraw,
        Kind.REVOKE: _revoke,
        Kind.REMIND: _remind,
        Kind.RECOMPUTE: _recompute,
    }


def fold(procedure: Procedure, events: Iterable[Event]) -> CaseState:
    """Replay a case from its events, the first of which is its SUBMIT."""
    rest = iter(events)
    state = CaseState.begin(procedure, next(rest))
    for event in rest:
        state.apply(event)
    return state
