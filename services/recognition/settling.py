"""How the stages of a case follow from one another: what an end lets begin, a refusal takes back, what is doubtful.

See `services.recognition.case` for the rules.
"""

from typing import TYPE_CHECKING, Final

from services.recognition.procedure import Stage
from services.recognition.stages import ENDED, NOT_BEGUN, UNDER_WAY, StageState, StageStatus

if TYPE_CHECKING:
    from services.recognition.case import CaseState

_NOT_OPENED: Final = UNDER_WAY | {StageStatus.WAITING}
_LEFT_OUT: Final = frozenset({StageStatus.NOT_APPLICABLE, StageStatus.WITHDRAWN})


def look(state: "CaseState", code: str) -> None:
    """See whether a stage's clock starts, whether it applies, and whether it is ready."""
    stage = state.stages[code]
    status = stage.status
    if stage.passed_at is not None or status in ENDED:
        return
    of = state.procedure.stages[code]
    untouched = status is StageStatus.WAITING or (status is StageStatus.SUSPENDED and stage.opened_at is None)
    if of.when_result and untouched and applies(state, of) is False:
        status = StageStatus.NOT_APPLICABLE
        state.stand(stage, status)
        _stop_clock(stage)
    if of.clock_from and stage.started_at is None and status is StageStatus.WAITING and not stage.rounds:
        stage.started_at = state.stages[of.clock_from].passed_at
    moment = stage.reopened_at or state.applied_at
    for before in state.layout.needs[code]:
        passed = state.stages[before].passed_at
        if passed is None:
            return
        moment = max(moment, passed)
    if status in {StageStatus.NOT_APPLICABLE, StageStatus.WITHDRAWN}:
        stage.passed_at = max(moment, stage.ended_at or moment)
    elif stage.ready_at is None:
        stage.ready_at = moment
        stage.started_at = stage.started_at or moment
        if status is StageStatus.WAITING:
            stage.status = StageStatus.READY


def _stop_clock(stage: StageState) -> None:
    """Take a clock away that should not have begun, and with it what stopped it or made it longer."""
    stage.started_at = None
    stage.suspensions, stage.extensions, stage.extended = (), 0, 0


def applies(state: "CaseState", of: Stage) -> bool | None:
    """Tell whether a stage applies that depends on how others ended at first; None: not settled yet."""
    settled = True
    for code, wanted in of.when_result.items():
        before = state.stages[code]
        if before.passed_at is None:
            settled = False
        elif before.passed_as not in wanted:
            return False
    return True if settled else None


def take_back(state: "CaseState", code: str) -> None:
    """Let a stage that nobody has opened wait again, where one that it needs is open again."""
    stage = state.stages[code]
    if state.is_clear(code):
        return
    if stage.status in _NOT_OPENED and stage.opened_at is None:
        stage.ready_at = None
        clock_from = state.procedure.stages[code].clock_from
        if not clock_from or stage.rounds or state.stages[clock_from].passed_at is None:
            _stop_clock(stage)
        standing = stage.status is StageStatus.SUSPENDED and stage.suspensions
        state.stand(stage, StageStatus.SUSPENDED if standing else StageStatus.WAITING)
    elif stage.status in _LEFT_OUT:
        stage.passed_at = None
        if stage.status is StageStatus.NOT_APPLICABLE and code not in state.layout.left_out:
            stage.status = StageStatus.WAITING


def doubt(state: "CaseState") -> None:
    """Mark every stage that has begun and rests on one whose result does not stand."""
    if not state.broken and not state.doubted:
        return
    state.doubted = bool(state.broken)
    for code, stage in state.stages.items():
        stage.doubtful = stage.status not in NOT_BEGUN and (
            stage.revoked or not state.broken.isdisjoint(state.procedure.ancestors(code))
        )
