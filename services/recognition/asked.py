"""What requests say, checked and in this service's own words: nothing of a request goes further unread."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from hutong.api.recognition.v1 import case_pb2, case_service_pb2
from services.kit import reader
from services.kit.errors import InvalidArgument, NotFound, Reason
from services.recognition.casework import Act, Application
from services.recognition.events import Kind, Mode, Pause, ResultCode
from services.recognition.stages import Status
from services.recognition.view import Light

MOST_TEXT: Final = 200
"""Most characters of a reference or a code."""

MOST_ANSWERS: Final = 64

_BELONGS: Final[Mapping[str, frozenset[Kind]]] = {
    "result_code": frozenset({Kind.RESULT}),
    "pause": frozenset({Kind.SUSPEND, Kind.SUPPLEMENT_REQUEST}),
    "extension": frozenset({Kind.EXTEND}),
    "approval_ref": frozenset({Kind.EXTEND}),
    "despite": frozenset({Kind.START}),
}
"""Which kinds of events say what else."""

_UNSPECIFIED: Final = "UNSPECIFIED"
E = TypeVar("E")


def application(request: case_service_pb2.SubmitCaseRequest, submitter: str) -> Application:
    """Read an application; raises `InvalidArgument`."""
    scheme, subject = reader.subject_of(request.subject.scheme, request.subject.value, request.subject.as_written)
    if len(request.answers) > MOST_ANSWERS:
        raise _malformed(f"at most {MOST_ANSWERS} answers")
    return Application(
        request_id=request.request_id,
        submitter=submitter,
        procedure=text(request.procedure_code, "procedure_code"),
        scheme=scheme,
        subject=subject,
        mode=named(case_pb2.CaseMode.DESCRIPTOR, request.mode, {m.value: m for m in Mode}) or Mode.NORMAL,
        answers={text(name, "answers"): text(value, "answers") for name, value in request.answers.items()},
        commitment_id=text(request.commitment_id, "commitment_id"),
        explicit_request_id=text(request.explicit_request_id, "explicit_request_id"),
        applied_at=moment(request, "applied_at"),
    )


def act(request: case_service_pb2.AppendStageEventRequest, *, applicant: bool) -> Act:
    """Read an event to be appended; raises `InvalidArgument`."""
    kind = named(case_pb2.StageEventKind.DESCRIPTOR, request.stage_event, {k.value: k for k in Kind})
    if kind is None:
        raise _malformed("say what happened: stage_event")
    _check_belongs(request, kind)
    return Act(
        id=request.stage_event_id,
        kind=kind,
        stage=text(request.stage_code, "stage_code"),
        at=moment(request, "event_time"),
        reason=text(request.reason_code, "reason_code"),
        result=named(case_pb2.ResultCode.DESCRIPTOR, request.result_code, {r.value: r for r in ResultCode}),
        credential=request.credential,
        pause=named(case_pb2.PauseKind.DESCRIPTOR, request.pause, {p.value: p for p in Pause}),
        extension=request.extension,
        approval_ref=text(request.approval_ref, "approval_ref"),
        # Enterprises have no officers: what they say there is nobody's.
        officer="" if applicant else text(request.officer, "officer"),
        despite=text(request.despite, "despite"),
    )


def _check_belongs(request: case_service_pb2.AppendStageEventRequest, kind: Kind) -> None:
    """Refuse what an event of this kind does not say: it would stand in the case, and read as if it meant something."""
    for name, kinds in _BELONGS.items():
        if getattr(request, name) and kind not in kinds:
            raise _malformed(f"{name} says nothing with {kind}: leave it out", name)


@dataclass(frozen=True, slots=True)
class Listing:
    """Which cases are asked for, of those that the caller reaches."""

    procedure_code: str
    subject: tuple[str, str] | None
    status: str
    light: Light | None

    @property
    def binding(self) -> tuple[str, ...]:
        """What a page token is bound to."""
        return (self.procedure_code, *(self.subject or ("", "")), self.status, self.light or "")


def listing(request: case_service_pb2.ListCasesRequest) -> Listing:
    """Read which cases are asked for; raises `InvalidArgument`."""
    subject = request.subject
    statuses = {status.value: status.value for status in Status}
    return Listing(
        procedure_code=text(request.procedure_code, "procedure_code"),
        subject=reader.subject_of(subject.scheme, subject.value, subject.as_written)
        if request.HasField("subject")
        else None,
        status=named(case_pb2.CaseStatus.DESCRIPTOR, request.case_status, statuses) or "",
        light=named(case_service_pb2.Light.DESCRIPTOR, request.light, {light.value: light for light in Light}),
    )


def named(kind: EnumDescriptor, number: int, members: Mapping[str, E]) -> E | None:
    """Read a value of an enumeration; none where it is not stated. Raises `InvalidArgument` for one there is not."""
    found = kind.values_by_number.get(number)
    if found is None:
        raise _malformed(f"{number} is no value of {kind.name}")
    prefix = kind.values_by_number[0].name.removesuffix(_UNSPECIFIED)
    return members[found.name.removeprefix(prefix)] if number else None


def text(value: str, name: str) -> str:
    """Check a short text; raises `InvalidArgument` MALFORMED_REQUEST."""
    if len(value) > MOST_TEXT or not value.isprintable():
        raise _malformed(f"{name} is at most {MOST_TEXT} printable characters", name)
    return value


def case_id(value: str) -> str:
    """Check the id of a case; raises `NotFound`, since there is no case with an id that is none."""
    if not value or len(value) > MOST_TEXT or not value.isprintable():
        raise no_case()
    return value


def no_case() -> NotFound:
    """Word that there is no such case, or none for this caller: nobody can tell the one from the other."""
    return NotFound(Reason.CASE_NOT_FOUND, "there is no such case that you may see")


def moment(request: Any, name: str) -> dt.datetime | None:
    """Read a moment; none where the request has none. Raises `InvalidArgument` for what no clock shows."""
    if not request.HasField(name):
        return None
    try:
        found: dt.datetime = getattr(request, name).ToDatetime(dt.UTC)
    except ValueError:
        raise _malformed(f"{name} is no moment that any clock shows", name) from None
    return found


def _malformed(message: str, name: str = "") -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, message, **({"field": name} if name else {}))
