"""`hutong case submit`: an application begins a case."""

from typing import Annotated

import typer

from hutong.api.common.v1 import common_pb2
from hutong.api.recognition.v1 import case_pb2, case_service_pb2
from services.cli import approval, question
from services.cli.answer import as_dict
from services.cli.approval import CASES, Address, As, RequestId
from services.cli.cases import timeline
from services.cli.output import AsJson, console, print_json
from services.cli.question import AsWritten, Bundle, Cert, Folder, Key, Subject
from services.cli.zone import DEFAULT_FOLDER


def submit(
    procedure: Annotated[str, typer.Argument(metavar="PROCEDURE", help="Code of the procedure, for example FTZ-EST.")],
    subject: Subject = "",
    caller: As = "",
    answers: Annotated[
        list[str] | None, typer.Option("--answer", metavar="NAME=VALUE", help="Answer to one of its questions; repeat.")
    ] = None,
    mode: Annotated[str, typer.Option(metavar="MODE", help="normal, commitment or parallel.")] = "normal",
    commitment: Annotated[str, typer.Option(metavar="REF", help="The written commitment, where there is one.")] = "",
    request_ref: Annotated[str, typer.Option("--request", metavar="REF", help="The applicant's request that opens "
                                             "questions to other agencies.")] = "",
    applied_at: Annotated[str, typer.Option(metavar="TIME", help="When it was applied for; without it, now.")] = "",
    as_written: AsWritten = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the case's id and nothing else.")] = False,
    request_id: RequestId = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Submit an application: it begins a case on the procedure's version in force, and the case stays on it.

    What other agencies have proven already is recognised at once, and nobody asks for it again.

    \b
    Examples:
      hutong case submit FTZ-EST --as commerce/registry --subject cn.uscc:91999901MA07HY2E6F --answer foreign=true
      hutong case submit FOOD-IMP --as enterprise/91999901ma07hy2e6f --subject cn.uscc:91999901MA07HY2E6F
    """
    scheme, _, value = subject.partition(":")
    number = approval.named(case_pb2.CaseMode, "CASE_MODE_", mode, "mode")
    request = case_service_pb2.SubmitCaseRequest(
        request_id=approval.new_id(request_id),
        procedure_code=procedure,
        subject=common_pb2.SubjectId(scheme=scheme, value=value, as_written=as_written),
        mode=number,
        answers=approval.pairs(answers, "--answer"),
        commitment_id=commitment,
        explicit_request_id=request_ref,
    )
    if applied_at:
        request.applied_at.FromDatetime(question.moment(applied_at))
    way = approval.way(folder, caller, address, cert, key, bundle)
    view = way.call(f"{CASES}/SubmitCase", request, case_service_pb2.SubmitCaseResponse).view
    if as_json:
        print_json(as_dict(view))
        return
    if quiet:
        typer.echo(view.case.case_id)
        return
    out = console()
    timeline.show_head(out, view)
    timeline.show_stages(out, view)
