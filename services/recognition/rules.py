"""Which events a case takes: every refusal with a reason of its own.

`check` looks at the case as it stands, at the event and at who sends it, and changes nothing. What depends on other
cases, on results in store or on signatures is checked elsewhere.
"""

import datetime as dt
from collections.abc import Collection
from typing import Final

from services.kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Reason
from services.recognition import stage_rules
from services.recognition.case import CaseState
from services.recognition.events import OWN, WHOLE_CASE, Event, Kind
from services.recognition.procedure import Procedure, Stage
from services.recognition.reasons import Reasons, ground_of
from services.recognition.stages import StageState, StageStatus, Status

SERVICE: Final = "recognition"
"""The agency of the service's own events."""
SKEW: Final = dt.timedelta(seconds=60)
"""How far another machine's clock may be ahead."""
BACKDATING: Final = dt.timedelta(days=3)
"""How long ago an event may have happened that is sent in only now."""

_OF_THE_CASE: Final = frozenset({Kind.WITHDRAW, Kind.REMIND, Kind.RECOMPUTE})
"""Events that need no stage."""
_UNTIMED: Final = frozenset({Kind.REMIND, Kind.RECOMPUTE})
"""Events that follow from nothing that happened in the case."""


def check(
    state: CaseState,
    event: Event,
    *,
    now: dt.datetime,
    caller_agency: str,
    skew: dt.timedelta = SKEW,
    backdating: dt.timedelta | None = BACKDATING,
    enterprise: bool = False,
    reasons: Reasons | None = None,
    stand_ins: Collection[str] = (),
) -> None:
    """Refuse an event that the case does not take.

    `enterprise` says that the applicant sends it. `backdating=None` takes events of any age, as imports do. `reasons`
    are the closed lists; without them a reason only has to be there. `stand_ins` may speak for the agency of any stage:
    units of one body whose log tells that they did each other's work. Raises `InvalidArgument`, `PermissionDenied` or
    `FailedPrecondition`, each cause with its own reason.
    """
    if event.kind is Kind.SUBMIT:
        raise FailedPrecondition(Reason.EVENT_NOT_ALLOWED, "the case has begun already")
    of, stage = _stage_of(state, event)
    if caller_agency not in stand_ins or event.agency != caller_agency or event.kind in OWN or enterprise:
        _check_sender(state, event, of, stage, caller_agency, enterprise=enterprise)
    check_moment(event, now, skew, _backdating(event, skew, backdating, enterprise=enterprise))
    _check_closed(state, event, stage)
    if of is not None and stage is not None:
        if stage.status is StageStatus.NOT_APPLICABLE:
            raise FailedPrecondition(
                Reason.STAGE_NOT_APPLICABLE, f"{of.code} does not apply to this case", stage=of.code
            )
        stage_rules.check(state, event, of, stage)
    _check_order(state, event)
    if not (enterprise and not event.reason):
        _check_reason(event, reasons)


def check_first(
    procedure: Procedure,
    event: Event,
    *,
    now: dt.datetime,
    skew: dt.timedelta = SKEW,
    backdating: dt.timedelta | None = BACKDATING,
) -> None:
    """Refuse what cannot begin a case on this procedure: anything but an application for it, with all its answers."""
    said = event.submission
    if event.kind is not Kind.SUBMIT or said is None:
        raise FailedPrecondition(Reason.EVENT_OUT_OF_ORDER, f"{event.kind} before the case exists")
    check_moment(event, now, skew, backdating)
    if said.procedure != procedure.label:
        raise InvalidArgument(Reason.PROCEDURE_UNKNOWN, f"an application for {said.procedure[:64]} is none here")
    if said.scheme not in procedure.subject_schemes:
        schemes = ", ".join(procedure.subject_schemes)
        raise InvalidArgument(Reason.SUBJECT_SCHEME_UNSUPPORTED, f"{procedure.label} is about subjects by {schemes}")
    procedure.complete(dict(said.answers))


def not_before(state: CaseState, kind: Kind, stage: str) -> dt.datetime:
    """Give the earliest moment that an event of the case, or of one of its stages, may have."""
    if kind in _UNTIMED:
        return state.applied_at
    if stage == WHOLE_CASE:
        return state.latest_at
    found = state.stages[stage]
    earliest = state.applied_at
    for moment in (found.last_at, found.ready_at, found.started_at):
        if moment is not None and moment > earliest:
            earliest = moment
    if kind is Kind.START and found.revoked:
        # Opened again: what it needs may have ended anew since.
        passed = (state.stages[code].passed_at for code in state.layout.needs[stage])
        earliest = max([earliest, *(moment for moment in passed if moment is not None)])
    return earliest


def check_moment(event: Event, now: dt.datetime, skew: dt.timedelta, backdating: dt.timedelta | None) -> None:
    """Refuse an event that has not happened yet, or happened too long ago."""
    if event.at > now + skew:
        raise InvalidArgument(Reason.EVENT_IN_FUTURE, "the event has not happened yet; are the clocks set?")
    if backdating is not None and event.at < now - backdating:
        raise InvalidArgument(
            Reason.EVENT_TOO_OLD, f"the event is too old to be sent in now; at most {_words(backdating)} are allowed"
        )


def _backdating(
    event: Event, skew: dt.timedelta, backdating: dt.timedelta | None, *, enterprise: bool
) -> dt.timedelta | None:
    """Say how far back an event may lie.

    What an applicant hands in comes when it comes: dated back, it would take days from the agency that has to answer.
    """
    if event.kind in OWN or backdating is None:
        return None
    return min(skew, backdating) if enterprise else backdating


def _words(span: dt.timedelta) -> str:
    return f"{span.days} days" if span >= dt.timedelta(days=1) else f"{span.total_seconds():.0f} seconds"


def _stage_of(state: CaseState, event: Event) -> tuple[Stage | None, StageState | None]:
    if event.stage == WHOLE_CASE:
        if event.kind not in _OF_THE_CASE:
            raise InvalidArgument(Reason.STAGE_UNKNOWN, f"{event.kind} is about a stage: name it")
        return None, None
    of = state.procedure.stage(event.stage)
    return of, state.stages[of.code]


def _check_sender(
    state: CaseState, event: Event, of: Stage | None, stage: StageState | None, caller: str, *, enterprise: bool
) -> None:
    if event.kind in OWN and caller != SERVICE:
        raise PermissionDenied(Reason.EVENT_WRONG_AGENCY, f"{event.kind} is the service's own to say")
    if event.agency != caller:
        raise PermissionDenied(Reason.EVENT_WRONG_AGENCY, "an event is sent by whom it is about")
    if enterprise:
        if event.kind is not Kind.SUPPLEMENT_RECEIVED and (event.kind, event.stage) != (Kind.WITHDRAW, WHOLE_CASE):
            raise PermissionDenied(
                Reason.EVENT_WRONG_AGENCY, "an applicant hands in what was asked for, or withdraws the whole case"
            )
        return
    allowed = {state.procedure.lead} if of is None or stage is None else _senders(state, event, of, stage)
    if event.kind not in OWN and caller not in allowed:
        what = event.kind if of is None else f"{event.kind} of {of.code}"
        raise PermissionDenied(Reason.EVENT_WRONG_AGENCY, f"{what} is not this agency's to say", stage=event.stage)


def _senders(state: CaseState, event: Event, of: Stage, stage: StageState) -> set[str]:
    """Name who may say this of a stage."""
    if event.kind is Kind.REVOKE:
        # The issuer; or the service, where the result was issued elsewhere and revoked there.
        return {stage.source_agency or of.agency, SERVICE}
    return {of.agency, state.procedure.lead} if event.kind is Kind.WITHDRAW else {of.agency}


def _check_closed(state: CaseState, event: Event, stage: StageState | None) -> None:
    if state.closed_at is None or event.kind is Kind.REVOKE:
        return
    # The document that is owed may still come.
    late = event.kind is Kind.RESULT and stage is not None and stage.status is StageStatus.DEEMED
    if not (late and state.status is Status.DELIVERED):
        raise FailedPrecondition(Reason.CASE_CLOSED, f"the case is closed: {state.status}", status=state.status.value)


def _check_order(state: CaseState, event: Event) -> None:
    if event.at < not_before(state, event.kind, event.stage):
        raise FailedPrecondition(
            Reason.EVENT_OUT_OF_ORDER,
            "the event is said to have happened before what it follows on",
            stage=event.stage,
        )


def _check_reason(event: Event, reasons: Reasons | None) -> None:
    if reasons is not None:
        reasons.check_event(event)
    elif ground_of(event) is not None and not event.reason:
        raise InvalidArgument(Reason.REASON_MISSING, f"{event.kind} needs a reason")
