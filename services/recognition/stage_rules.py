"""What each kind of event asks of the stage it is about."""

from collections.abc import Callable, Mapping
from typing import Final

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.recognition.case import CaseState
from services.recognition.events import Event, Kind, Pause, ResultCode
from services.recognition.procedure import Overdue, Stage
from services.recognition.stages import ENDED, UNDER_WAY, StageState, StageStatus

_ISSUED: Final = frozenset({StageStatus.PASSED, StageStatus.CONDITIONAL})
_NOT_OPENED: Final = frozenset({StageStatus.WAITING, StageStatus.READY})
_OWN_RESULT: Final = _ISSUED | {StageStatus.FAILED}


def check(state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    """Refuse an event that the stage does not take as it stands."""
    _CHECKS[event.kind](state, event, of, stage)


def _refuse(event: Event, of: Stage, stage: StageState, hint: str = "") -> FailedPrecondition:
    """Word that the stage is not where the event would need it to be."""
    if stage.status is StageStatus.WAITING or _stands_waiting(stage):
        return FailedPrecondition(Reason.STAGE_NOT_READY, f"{of.code} waits for {', '.join(of.after)}", stage=of.code)
    message = f"{of.code} is {stage.status}: no {event.kind} now{'; ' if hint else ''}{hint}"
    return FailedPrecondition(Reason.EVENT_NOT_ALLOWED, message, stage=of.code, status=stage.status.value)


def _works(of: Stage, stage: StageState) -> bool:
    """Tell whether the agency works on a stage; some need not be opened for that."""
    return stage.status is StageStatus.OPEN or (stage.status is StageStatus.READY and (of.instant or of.repeatable))


def _stands_waiting(stage: StageState) -> bool:
    """Tell whether a stage is suspended that is not ready yet."""
    return stage.status is StageStatus.SUSPENDED and stage.ready_at is None


def _clock_runs(of: Stage, stage: StageState) -> bool:
    """Tell whether a stage's clock runs from the end of an earlier one, before it is opened."""
    return bool(of.clock_from) and stage.started_at is not None and stage.status in _NOT_OPENED


def _start(state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if stage.revoked and stage.status in _ISSUED:
        _check_clear(state, of)
    elif stage.status is not StageStatus.READY:
        hint = "refuse the recognition first" if stage.status is StageStatus.RECOGNISED else ""
        raise _refuse(event, of, stage, hint)


def _supplement_request(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if not of.supplement or event.pause not in {None, Pause.SUPPLEMENT}:
        raise FailedPrecondition(Reason.PAUSE_NOT_ALLOWED, f"{of.code} asks the applicant for nothing", stage=of.code)
    if stage.supplements:
        raise FailedPrecondition(
            Reason.SUPPLEMENT_REPEATED, f"{of.code} has asked the applicant for more before; once is all", stage=of.code
        )
    if not _works(of, stage):
        raise _refuse(event, of, stage, "start it first" if stage.status is StageStatus.READY else "")


def _suspend(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if event.pause is None or event.pause is Pause.SUPPLEMENT or event.pause not in of.pauses:
        allowed = ", ".join(p for p in of.pauses if p is not Pause.SUPPLEMENT) or "nothing"
        raise FailedPrecondition(
            Reason.PAUSE_NOT_ALLOWED, f"{of.code} is suspended for {allowed}; not for this", stage=of.code
        )
    if not _works(of, stage) and not _clock_runs(of, stage):
        raise _refuse(event, of, stage, "start it first" if stage.status is StageStatus.READY else "")


def _resume(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if stage.pause is None or stage.pause is Pause.SUPPLEMENT:
        raise _refuse(event, of, stage, "" if stage.pause is None else "it waits for what the applicant was asked for")


def _supplement_received(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if stage.pause is not Pause.SUPPLEMENT:
        raise _refuse(event, of, stage, "the applicant was asked for nothing")


def _extend(state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    allowed = of.extension
    refusal = ""
    if allowed is None or state.procedure.limit_of(of, state.answers) is None:
        refusal = f"the limit of {of.code} cannot be extended"
    elif not event.approval_ref:
        refusal = f"an extension needs an approval of {allowed.approver}: give its reference"
    elif not 1 <= event.extension <= allowed.amount:
        refusal = f"{of.code} is extended by at most {allowed.amount}"
    elif stage.extensions >= allowed.times:
        refusal = f"{of.code} is extended at most {allowed.times} time(s)"
    if refusal:
        raise FailedPrecondition(Reason.EXTENSION_NOT_ALLOWED, refusal, stage=of.code)
    if stage.status not in UNDER_WAY and not _clock_runs(of, stage):
        raise _refuse(event, of, stage)


def _result(state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if event.result is None:
        raise InvalidArgument(Reason.RESULT_MISSING, "say how the stage ended: PASS, FAIL or CONDITIONAL")
    passes = event.result is not ResultCode.FAIL
    if stage.status is StageStatus.DEEMED:
        if stage.late_opinion is not None:
            raise _refuse(event, of, stage, "its late opinion is there already")
    elif not _works(of, stage) and not _again(of, stage):
        raise _refuse(event, of, stage, _hint(stage))
    elif passes:
        _check_clear(state, of)
    if passes and of.proves is not None and not event.ref:
        raise InvalidArgument(
            Reason.RESULT_MISSING, f"{of.code} proves {of.proves.code}: hand in the signed result", stage=of.code
        )


def _check_clear(state: CaseState, of: Stage) -> None:
    if not state.is_clear(of.code):
        raise FailedPrecondition(
            Reason.STAGE_NOT_READY, f"{of.code} rests on a stage that is open again", stage=of.code
        )


def _again(of: Stage, stage: StageState) -> bool:
    """Tell whether another result may take the place of a stage's own."""
    return (of.repeatable and stage.status in _OWN_RESULT) or (stage.revoked and stage.status in _ISSUED)


def _hint(stage: StageState) -> str:
    if stage.status is StageStatus.READY:
        return "start it first"
    if stage.status is StageStatus.SUSPENDED:
        return "it waits for what the applicant was asked for" if stage.pause is Pause.SUPPLEMENT else "resume it first"
    return "refuse the recognition first" if stage.status is StageStatus.RECOGNISED else ""


def _recognise(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if not event.ref or not event.source_agency or not event.arrangement:
        raise InvalidArgument(Reason.RESULT_MISSING, "a recognition says which result, whose, and by what arrangement")
    if not of.accepts:
        raise FailedPrecondition(
            Reason.EVENT_NOT_ALLOWED, f"{of.code} is not satisfied by another agency's result", stage=of.code
        )
    if event.ref in stage.refused_refs:
        raise FailedPrecondition(Reason.EVENT_NOT_ALLOWED, f"{of.code} has refused this result", stage=of.code)
    if stage.status not in UNDER_WAY or _stands_waiting(stage):
        raise _refuse(event, of, stage)


def _refuse_recognition(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if stage.status is not StageStatus.RECOGNISED:
        raise _refuse(event, of, stage, "nothing is recognised here")
    _check_ref(event, of, stage)


def _check_ref(event: Event, of: Stage, stage: StageState) -> None:
    if event.ref not in {"", stage.ref}:
        raise FailedPrecondition(Reason.EVENT_NOT_ALLOWED, f"{of.code} does not rest on this result", stage=of.code)


def _deemed(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if of.overdue is not Overdue.DEEMED:
        raise FailedPrecondition(
            Reason.EVENT_NOT_ALLOWED, f"silence is no pass in {of.code}: the procedure forbids it", stage=of.code
        )
    if stage.status not in UNDER_WAY or _stands_waiting(stage):
        raise _refuse(event, of, stage)


def _withdraw(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    if not of.optional:
        raise FailedPrecondition(
            Reason.EVENT_NOT_ALLOWED, f"{of.code} may not be left out: the whole case may be withdrawn", stage=of.code
        )
    if stage.status is not StageStatus.WAITING and stage.status not in UNDER_WAY:
        raise _refuse(event, of, stage)


def _revoke(_state: CaseState, event: Event, of: Stage, stage: StageState) -> None:
    there = stage.status in ENDED and stage.status is not StageStatus.FAILED
    if not there or (stage.status is StageStatus.DEEMED and stage.late_opinion is None):
        raise _refuse(event, of, stage, "there is no result to revoke")
    if stage.revoked:
        raise _refuse(event, of, stage, "its result is revoked already")
    _check_ref(event, of, stage)


def _remind(_state: CaseState, event: Event, of: Stage, _stage: StageState) -> None:
    if not event.threshold:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"a reminder of {of.code} says which threshold was passed")


def _recompute(_state: CaseState, event: Event, of: Stage, _stage: StageState) -> None:
    if not event.calendar:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"{of.code}: say by which calendar it was computed again")


_CHECKS: Final[Mapping[Kind, Callable[[CaseState, Event, Stage, StageState], None]]] = {
    Kind.START: _start,
    Kind.SUPPLEMENT_REQUEST: _supplement_request,
    Kind.SUPPLEMENT_RECEIVED: _supplement_received,
    Kind.SUSPEND: _suspend,
    Kind.RESUME: _resume,
    Kind.EXTEND: _extend,
    Kind.RESULT: _result,
    Kind.RECOGNISE: _recognise,
    Kind.REFUSE_RECOGNITION: _refuse_recognition,
    Kind.DEEMED: _deemed,
    Kind.WITHDRAW: _withdraw,
    Kind.REVOKE: _revoke,
    Kind.REMIND: _remind,
    Kind.RECOMPUTE: _recompute,
}
