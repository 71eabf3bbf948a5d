"""`hutong remind`: ask whoever holds a stage to get on with it."""

from typing import Annotated

import typer

from hutong.api.recognition.v1 import case_service_pb2
from services.cli import approval
from services.cli.answer import as_dict
from services.cli.approval import CASES, Address, As, CaseId, RequestId
from services.cli.output import AsJson, print_json
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def remind(
    case_id: CaseId,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="The stage; without it, every open one.")] = "",
    caller: As = "",
    request_id: RequestId = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Remind the agency that holds a stage; at most once a day for each stage.

    Stages that are soon due or overdue are reminded of by themselves, and escalated up the agency's line.

    \b
    Example:
      hutong remind FTZ-EST-20261122-7K3M9Q2X E5c --as enterprise/91999901ma07hy2e6f
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = case_service_pb2.RemindStageRequest(
        request_id=approval.new_id(request_id), case_id=case_id, stage_code=stage
    )
    response = way.call(f"{CASES}/RemindStage", request, case_service_pb2.RemindStageResponse)
    if as_json:
        print_json(as_dict(response))
        return
    for event in response.events:
        # Which office of an agency it goes to is for agencies to know.
        typer.echo(f"{event.stage_code}: reminded {event.addressee or 'the agency that holds it'}")
