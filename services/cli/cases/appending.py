"""`hutong case event`: an agency, or the applicant, says what has happened."""

from pathlib import Path
from typing import Annotated

import typer

from certs.errors import CertificateError
from hutong.api.recognition.v1 import case_pb2, case_service_pb2
from services.cli import approval, question
from services.cli.answer import as_dict
from services.cli.approval import CASES, Address, As, CaseId, Officer, Reason, Way
from services.cli.cases import certifying
from services.cli.output import AsJson, print_json
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.results import texts
from services.cli.zone import DEFAULT_FOLDER, Zone
from services.kit.errors import FailedPrecondition
from services.kit.errors import Reason as Because
from services.recognition.events import OWN
from services.recognition.stages import StageStatus

_KIND = "STAGE_EVENT_KIND_"


def event(
    case_id: CaseId,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="The stage; - for the whole case.")],
    kind: Annotated[
        str,
        typer.Argument(
            metavar="EVENT",
            help="start, supplement-request, supplement-received, suspend, resume, extend, result, "
            "refuse-recognition, withdraw or revoke.",
        ),
    ],
    result: Annotated[str, typer.Argument(metavar="[pass|fail|conditional]", help="With result.")] = "",
    caller: As = "",
    reason: Reason = "",
    pause: Annotated[str, typer.Option(metavar="WHY", help="With suspend: test, hearing, inspection …")] = "",
    extend: Annotated[int, typer.Option(min=0, metavar="N", help="With extend: by how much.")] = 0,
    approval_ref: Annotated[str, typer.Option("--approval", metavar="REF", help="With extend: who approved.")] = "",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--value", metavar="NAME=VALUE", help="With result: what was found; NAME:=JSON for no text; repeat."
        ),
    ] = None,
    credential: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With result: the signed result, instead of signing it here.")
    ] = None,
    officer: Officer = "",
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="When it happened; without it, now.")] = "",
    expect: Annotated[
        int | None, typer.Option(metavar="VERSION", help="Only where the case is still at this version.")
    ] = None,
    despite: Annotated[
        str, typer.Option(metavar="REF", help="With start: examine although this one was told of; give --reason.")
    ] = "",
    event_id: Annotated[
        str, typer.Option("--id", metavar="UUID", help="Id of the event: sent again with it, nothing happens twice.")
    ] = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Append an event to a case.

    The result of a stage that proves a fact is signed with the agency's own key, which lies in its part of the zone
    folder; --credential takes one that was signed elsewhere.

    \b
    Examples:
      hutong case event CASE E2 start --as publicsecurity/permits
      hutong case event CASE E2 result pass --value method=chip --as publicsecurity/permits --officer 7731
      hutong case event CASE E4 supplement-request --reason MATERIAL_MISSING --as commerce/registry
      hutong case event CASE - withdraw --reason APPLICANT_WITHDREW --as enterprise/91999901ma07hy2e6f
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = case_service_pb2.AppendStageEventRequest(
        case_id=case_id,
        stage_event_id=approval.new_id(event_id),
        expected_version=expect,
        stage_code="" if stage == "-" else stage,
        stage_event=approval.named(case_pb2.StageEventKind, _KIND, kind, "event", besides=OWN),
        reason_code=reason,
        extension=extend,
        approval_ref=approval_ref,
        officer=officer,
        despite=despite,
    )
    if pause:
        request.pause = approval.named(case_pb2.PauseKind, "PAUSE_KIND_", pause, "pause")
    if at:
        request.event_time.FromDatetime(question.moment(at))
    if request.stage_event == case_pb2.STAGE_EVENT_KIND_RESULT:
        request.result_code = approval.named(case_pb2.ResultCode, "RESULT_CODE_", result, "result")
        request.credential = _credential(way, folder, request, credential, approval.claims(values))
    try:
        response = way.call(f"{CASES}/AppendStageEvent", request, case_service_pb2.AppendStageEventResponse)
    except FailedPrecondition as refused:
        raise _explained(way, request, refused) from None
    _tell(response, as_json=as_json)


def _credential(
    way: Way,
    folder: Path,
    request: case_service_pb2.AppendStageEventRequest,
    file: Path | None,
    values: dict[str, object],
) -> str:
    if file is not None:
        return texts.read(file)
    if request.result_code == case_pb2.RESULT_CODE_FAIL:
        return ""  # what failed proves nothing
    try:
        zone = Zone.open(folder)
    except CertificateError:
        return ""  # the keys lie elsewhere: the service says whether it needs a signed result
    return way.run(lambda client: certifying.certify(client, way, zone, request, values))


def _explained(
    way: Way, request: case_service_pb2.AppendStageEventRequest, refused: FailedPrecondition
) -> FailedPrecondition:
    """Say whose result stands in a stage, where somebody wants to examine what is recognised already."""
    if refused.reason != Because.EVENT_NOT_ALLOWED or refused.metadata.get("status") != StageStatus.RECOGNISED:
        return refused
    asked = case_service_pb2.GetCaseRequest(case_id=request.case_id, context=way.context())
    view = way.call(f"{CASES}/GetCase", asked, case_service_pb2.GetCaseResponse).view
    stage = next((stage for stage in view.stages if stage.code == request.stage_code), None)
    if stage is None or not stage.source_agency:
        return refused
    return FailedPrecondition(
        refused.reason,
        f"{stage.code} is satisfied: {stage.source_agency} has proven it (result {stage.result_ref}), recognised under "
        f"{stage.arrangement}; only where that may not count, refuse it first: refuse-recognition --reason CODE",
        **refused.metadata,
    )


def _tell(response: case_service_pb2.AppendStageEventResponse, *, as_json: bool) -> None:
    if as_json:
        print_json(as_dict(response))
        return
    name = case_pb2.StageEventKind.Name(response.event.stage_event).removeprefix(_KIND)
    words = [f"event {response.event.sequence}", response.event.stage_code, name, response.event.result_ref]
    known = " (recorded before)" if response.duplicate else ""
    typer.echo(f"{' '.join(word for word in words if word)}; the case is at version {response.version}{known}")
