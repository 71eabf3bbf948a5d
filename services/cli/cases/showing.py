"""`hutong case show | list | watch`, and `hutong progress`: where cases stand."""

import asyncio
import datetime as dt
from typing import Annotated, Final

import typer
from rich.text import Text

from hutong.api.recognition.v1 import case_pb2, case_service_pb2
from services.cli import approval
from services.cli.answer import as_dict
from services.cli.approval import CASES, WAIT, Address, As, CaseId, PageSize, PageToken, Way
from services.cli.cases import timeline
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER
from services.kit.client import Client
from services.kit.errors import HutongError, Reason

_RETRY: Final = 0.5
"""Seconds before a stream that broke is opened again."""

_AWAY: Final = frozenset({Reason.SHUTTING_DOWN, Reason.DEPARTMENT_UNREACHABLE, Reason.STORE_UNAVAILABLE})


def show(
    case_id: CaseId,
    caller: As = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Show a case: its stages with their clocks, and every event the caller may see.

    \b
    Example:
      hutong case show FTZ-EST-20261122-7K3M9Q2X --as commerce/registry
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = case_service_pb2.GetCaseRequest(case_id=case_id, context=way.context())
    view = way.call(f"{CASES}/GetCase", request, case_service_pb2.GetCaseResponse).view
    if as_json:
        print_json(as_dict(view))
        return
    out = console()
    timeline.show_head(out, view)
    timeline.show_stages(out, view)
    timeline.show_events(out, view)


def list_(
    caller: As = "",
    procedure: Annotated[str, typer.Option(metavar="CODE", help="Only of this procedure.")] = "",
    subject: Annotated[str, typer.Option(metavar="SCHEME:VALUE", help="Only about this one.")] = "",
    status: Annotated[str, typer.Option(metavar="STATUS", help="Only with this status, for example in-review.")] = "",
    light: Annotated[str, typer.Option(metavar="LIGHT", help="Only with this light: green, yellow, red.")] = "",
    page_size: PageSize = 0,
    page_token: PageToken = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """List the cases one takes part in, the newest first.

    \b
    Example:
      hutong case list --as customs/release --light red
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = case_service_pb2.ListCasesRequest(
        context=way.context(), procedure_code=procedure, page_size=page_size, page_token=page_token
    )
    if subject:
        request.subject.scheme, _, request.subject.value = subject.partition(":")
    if status:
        number = approval.named(case_pb2.CaseStatus, "CASE_STATUS_", status, "status")
        request.case_status = number
    if light:
        request.light = approval.named(case_service_pb2.Light, "LIGHT_", light, "light")
    response = way.call(f"{CASES}/ListCases", request, case_service_pb2.ListCasesResponse)
    if as_json:
        print_json(as_dict(response))
        return
    out = console()
    if response.cases:
        columns = ("Case", "Procedure", "About", "Status", "Light", "Held by", "At the latest")
        made = table("", columns, map(_row, response.cases))
        made.columns[0].no_wrap = True  # to be copied
        out.print(made)
    else:
        which = " on this page" if page_token or response.next_page_token else ""
        out.print(Text(f"{way.caller} takes part in no such case{which}."))
    if response.next_page_token:
        out.print(Text(f"more: --page-token {response.next_page_token}", style="dim"))


def _row(view: case_service_pb2.CaseView) -> list[str | Text]:
    case = view.case
    working = (case_service_pb2.STAGE_STATUS_READY, case_service_pb2.STAGE_STATUS_OPEN)
    holders = sorted({stage.agency for stage in view.stages if stage.status in working})
    latest = timeline.day(view.expected_by, timeline.zone_of(view)) if view.HasField("expected_by") else ""
    return [
        case.case_id,
        f"{case.procedure_code}@{case.procedure_version}",
        case.subject_uscc or case.subject_token,
        timeline.status_word(case.case_status),
        timeline.light(view.light),
        ", ".join(holders),
        latest,
    ]


def watch(
    case_id: CaseId,
    caller: As = "",
    after: Annotated[int, typer.Option(min=0, metavar="N", help="Go on after this event; 0: from the first.")] = 0,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Print a case's events as they come, until it is closed or Ctrl-C. A connection that breaks is made again.

    \b
    Example:
      hutong case watch FTZ-EST-20261122-7K3M9Q2X --as commerce/registry
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    asyncio.run(_watch(way, case_id, after, as_json))


async def _watch(way: Way, case_id: str, after: int, as_json: bool) -> None:
    while True:
        try:
            async with way.client() as client:
                zone = dt.UTC if as_json else await _zone(client, way, case_id)
                request = case_service_pb2.WatchCaseRequest(case_id=case_id, context=way.context(), after=after)
                stream = client.stream(f"{CASES}/WatchCase", request, case_service_pb2.WatchCaseResponse, timeout=None)
                async for response in stream:
                    _tell(response, zone, as_json=as_json)
                    after = max(after, response.version)
                return  # it ends with the case, and with nothing else
        except HutongError as error:
            if error.reason not in _AWAY:
                raise
        await asyncio.sleep(_RETRY)


async def _zone(client: Client, way: Way, case_id: str) -> dt.tzinfo:
    request = case_service_pb2.GetCaseRequest(case_id=case_id, context=way.context())
    answer = await client.unary(f"{CASES}/GetCase", request, case_service_pb2.GetCaseResponse, timeout=WAIT)
    return timeline.zone_of(answer.view)


def _tell(response: case_service_pb2.WatchCaseResponse, zone: dt.tzinfo, *, as_json: bool) -> None:
    if not response.HasField("event"):
        return  # a heartbeat
    if as_json:
        print_json(as_dict(response), lines=True)
    else:
        cells = timeline.event_row(response.event, zone)
        console().print(Text("  ".join(cell for cell in cells if cell)), soft_wrap=True)


def progress(
    case_id: CaseId,
    caller: As = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Show where a case stands: every stage with its light, the days left, who holds it, and what was recognised.

    \b
    Example:
      hutong progress FTZ-EST-20261122-7K3M9Q2X --as enterprise/91999901ma07hy2e6f
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = case_service_pb2.GetProgressRequest(case_id=case_id, context=way.context())
    response = way.call(f"{CASES}/GetProgress", request, case_service_pb2.GetProgressResponse)
    if as_json:
        print_json(as_dict(response))
        return
    out = console()
    timeline.show_head(out, response.view)
    timeline.show_stages(out, response.view)
    out.print(Text(f"held by: {', '.join(response.held_by) or 'nobody'}"))
    if response.reminders:
        out.print(Text(f"reminders sent: {response.reminders}"))
