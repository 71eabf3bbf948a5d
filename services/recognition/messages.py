"""Values of this service as messages of its contracts, whole: cutting them is `services.recognition.disclosure`'s."""

from collections.abc import Mapping
from typing import Final

from hutong.api.recognition.v1 import case_pb2, case_service_pb2, stage_result_pb2
from services.kit.caller import USCC
from services.recognition import codec, doubts
from services.recognition.casework import Snapshot
from services.recognition.codec import timestamp
from services.recognition.events import Event, Mode, Submission
from services.recognition.ledger import Head
from services.recognition.procedure import Stage
from services.recognition.stage_results import Result
from services.recognition.tasks import Task
from services.recognition.view import CaseReckoning, ClockReading, Light

UNSPECIFIED: Final = "UNSPECIFIED"

_LIGHTS: Final[Mapping[str, case_service_pb2.Light.ValueType]] = {
    name.removeprefix("LIGHT_"): number for name, number in case_service_pb2.Light.items()
}
_STATUSES: Final[Mapping[str, case_pb2.CaseStatus.ValueType]] = {
    name.removeprefix("CASE_STATUS_"): number for name, number in case_pb2.CaseStatus.items()
}
_STAGE_STATUSES: Final[Mapping[str, case_service_pb2.StageStatus.ValueType]] = {
    name.removeprefix("STAGE_STATUS_"): number for name, number in case_service_pb2.StageStatus.items()
}


def case(head: Head, said: Submission) -> case_pb2.Case:
    """Make the record of a case."""
    uscc, token = _subject(head.scheme, head.subject)
    return case_pb2.Case(
        case_id=head.case_id,
        procedure_code=head.procedure_code,
        procedure_version=head.procedure_version,
        subject_uscc=uscc,
        subject_token=token,
        applied_at=timestamp(head.applied_at),
        lead_agency=head.lead_agency,
        mode=mode_number(said.mode),
        case_status=_STATUSES[head.status],
        commitment_id=said.commitment_id,
        explicit_request_id=said.explicit_request_id,
        closed_at=timestamp(head.closed_at),
    )


def mode_number(mode: Mode) -> case_pb2.CaseMode.ValueType:
    """Give the number of a mode."""
    return case_pb2.CaseMode.Value(f"CASE_MODE_{mode}")


def event(head: Head, sequence: int, event: Event, reader: object) -> case_pb2.StageEvent:
    """Make the record of an event, with whom its case is about, for an agency to read.

    An agency's own reference of its officer leaves it in no record of another's, whatever a policy says of it.
    """
    made = codec.to_proto(head.case_id, sequence, event)
    if event.agency != reader:
        made.officer = ""
    made.subject_uscc, made.subject_token = _subject(head.scheme, head.subject)
    return made


def event_like(snapshot: Snapshot, stage: Stage) -> case_pb2.StageEvent:
    """Make what every event of a stage as it stands has in common."""
    uscc, token = _subject(snapshot.head.scheme, snapshot.head.subject)
    state = snapshot.state.stages[stage.code]
    return case_pb2.StageEvent(
        case_id=snapshot.case_id,
        stage_code=stage.code,
        agency=stage.agency,
        source_agency=state.source_agency,
        result_ref=state.ref,
        arrangement=state.arrangement,
        subject_uscc=uscc,
        subject_token=token,
    )


def stage(snapshot: Snapshot, stage: Stage) -> case_service_pb2.StageView:
    """Make a stage as it stands."""
    state, reckoned = snapshot.state.stages[stage.code], snapshot.reckoning.stages[stage.code]
    calendar = snapshot.reckoning.calendar
    return case_service_pb2.StageView(
        code=stage.code,
        title=stage.title,
        local_title=stage.local_title,
        agency=stage.agency,
        status=_STAGE_STATUSES[reckoned.status],
        clock=_clock(reckoned.clock, calendar),
        pause=case_pb2.PauseKind.Value(f"PAUSE_KIND_{reckoned.pause or UNSPECIFIED}"),
        pause_clock=_clock(reckoned.pause_clock, calendar),
        ended_at=timestamp(state.ended_at),
        late=reckoned.late,
        result_ref=state.ref,
        source_agency=state.source_agency,
        arrangement=state.arrangement,
        doubtful=doubts.doubtful(snapshot.state, snapshot.events, snapshot.questions, stage.code),
        critical=reckoned.critical,
        expected_by=timestamp(reckoned.expected_by),
        waits_for=reckoned.waits_for,
    )


def fill_reckoning(view: case_service_pb2.CaseView, reckoning: CaseReckoning) -> None:
    """Say how a case stands in time."""
    view.light = _light(reckoning.light)
    if (expected := timestamp(reckoning.expected_by)) is not None:
        view.expected_by.CopyFrom(expected)
    view.provisional = reckoning.provisional
    view.calendar = reckoning.calendar
    if (clock := _clock(reckoning.clock, reckoning.calendar)) is not None:
        view.clock.CopyFrom(clock)


def _clock(reading: ClockReading | None, calendar: str) -> case_service_pb2.ClockView | None:
    if reading is None:
        return None
    reckoning = reading.reckoning
    return case_service_pb2.ClockView(
        started_at=timestamp(reading.started_at),
        limit=reading.limit.amount,
        unit=case_service_pb2.LimitUnit.Value(f"LIMIT_UNIT_{reading.limit.unit}"),
        used=reckoning.used,
        left=reckoning.left,
        due_at=timestamp(reckoning.due_at),
        light=_light(reading.light),
        provisional=reckoning.provisional,
        calendar=calendar,
    )


def _light(light: Light | None) -> case_service_pb2.Light.ValueType:
    return _LIGHTS[light or UNSPECIFIED]


def _subject(scheme: str, subject: str) -> tuple[str, str]:
    return (subject, "") if scheme == USCC else ("", subject)


def result(result: Result) -> stage_result_pb2.StageResult:
    """Make the record of a result."""
    uscc, token = _subject(result.scheme, result.subject)
    return stage_result_pb2.StageResult(
        result_ref=result.result_ref,
        case_id=result.case_id,
        stage_code=result.stage,
        issuer_agency=result.issuer,
        subject_uscc=uscc,
        subject_token=token,
        fact_code=result.fact,
        assurance=stage_result_pb2.Assurance.Value(f"ASSURANCE_{result.assurance}"),
        valid_from=timestamp(result.valid_from),
        valid_until=timestamp(result.valid_until),
        result_state=stage_result_pb2.ResultState.Value(f"RESULT_STATE_{result.state}"),
        state_reason=result.state_reason,
        state_changed_at=timestamp(result.state_changed_at),
        credential=result.credential,
    )


def task(task: Task) -> stage_result_pb2.Task:
    """Make the record of a task."""
    return stage_result_pb2.Task(
        task_id=task.task_id,
        owner_agency=task.owner_agency,
        kind=stage_result_pb2.TaskKind.Value(f"TASK_KIND_{task.kind}"),
        case_id=task.case_id,
        stage_code=task.stage,
        result_ref=task.result_ref,
        origin_ref=task.origin_ref,
        reason_code=task.reason,
        raised_at=timestamp(task.raised_at),
        due_at=timestamp(task.due_at),
        officer=task.officer,
        disposed_at=timestamp(task.disposed_at),
        disposition=stage_result_pb2.Disposition.Value(f"DISPOSITION_{task.disposition or UNSPECIFIED}"),
        disposition_reason=task.disposition_reason,
    )
