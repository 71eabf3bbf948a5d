"""`hutong result get | list | status` and `hutong result keys fetch`: what a holder or a verifier needs."""

from typing import Annotated

import typer
from rich.text import Text

from hutong.api.recognition.v1 import result_service_pb2, stage_result_pb2
from services.cli import approval
from services.cli.answer import as_dict
from services.cli.approval import RESULTS, Address, As, PageSize, PageToken
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import AsWritten, Bundle, Cert, Folder, Key, Subject
from services.cli.results import texts
from services.cli.zone import DEFAULT_FOLDER
from services.kit.errors import NotFound, Reason

Ref = Annotated[str, typer.Argument(metavar="RESULT", help="Id of the result.")]


def get(
    ref: Ref,
    caller: As = "",
    out: texts.Out = None,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Get a result: the credential itself, with all that there is to disclose.

    Enterprises get results about themselves; agencies what they issued, recognised, or may recognise in a case.

    \b
    Examples:
      hutong result get 5f0c… --as enterprise/91999901ma07hy2e6f --out result.sdjwt
      hutong result get 5f0c… --as customs/release --json
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = result_service_pb2.GetResultRequest(result_ref=ref, context=way.context())
    result = way.call(f"{RESULTS}/GetResult", request, result_service_pb2.GetResultResponse).result
    if out is not None or not as_json:
        if not result.credential:
            raise NotFound(Reason.RESULT_NOT_FOUND, "that there is this result is all that this caller may see of it")
        texts.write(result.credential, out)
    if as_json:
        print_json(as_dict(result))


def list_(
    subject: Subject = "",
    caller: As = "",
    fact: Annotated[str, typer.Option(metavar="FACT", help="Only what proves this.")] = "",
    as_written: AsWritten = False,
    page_size: PageSize = 0,
    page_token: PageToken = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """List the results about somebody that the caller may know of, the newest first.

    \b
    Example:
      hutong result list --subject cn.uscc:91999901MA07HY2E6F --as enterprise/91999901ma07hy2e6f
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = result_service_pb2.ListResultsRequest(
        fact_code=fact, context=way.context(), page_size=page_size, page_token=page_token
    )
    request.subject.scheme, _, request.subject.value = subject.partition(":")
    request.subject.as_written = as_written
    response = way.call(f"{RESULTS}/ListResults", request, result_service_pb2.ListResultsResponse)
    if as_json:
        print_json(as_dict(response))
        return
    out = console()
    if response.results:
        made = table("", ("Result", "Fact", "Proven by", "Assurance", "Stands", "Until"), map(_row, response.results))
        made.columns[0].no_wrap = True  # to be copied
        out.print(made)
    else:
        out.print(Text(f"There is no result of {subject} that {way.caller} may know of."))
    if response.next_page_token:
        out.print(Text(f"more: --page-token {response.next_page_token}", style="dim"))


def _row(result: stage_result_pb2.StageResult) -> list[str | Text]:
    state = stage_result_pb2.ResultState.Name(result.result_state).removeprefix("RESULT_STATE_")
    stands = result.result_state == stage_result_pb2.RESULT_STATE_VALID
    return [
        result.result_ref,
        result.fact_code,
        result.issuer_agency,
        stage_result_pb2.Assurance.Name(result.assurance).removeprefix("ASSURANCE_"),
        Text(state, style="" if stands else "red"),
        f"{result.valid_until.ToDatetime():%Y-%m-%d %H:%M}Z" if result.HasField("valid_until") else "",
    ]


def status(
    uri: Annotated[str, typer.Argument(metavar="URI", help="The status list, as the credential names it.")],
    caller: As = "",
    out: texts.Out = None,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a status list, signed now, for `hutong result verify --status`.

    \b
    Example:
      hutong result status urn:hutong:status:publicsecurity:1 --as customs/release --out list.jwt
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = result_service_pb2.GetStatusListRequest(uri=uri)
    response = way.call(f"{RESULTS}/GetStatusList", request, result_service_pb2.GetStatusListResponse)
    if as_json:
        print_json(as_dict(response))
    else:
        texts.write(response.token, out)


def fetch(
    agency: Annotated[str, typer.Argument(metavar="AGENCY", help="Whose published keys.")],
    caller: As = "",
    out: texts.Out = None,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the keys an agency has published, a JWK set, for `hutong result verify --keys`. They are JSON anyway.

    \b
    Example:
      hutong result keys fetch publicsecurity --as customs/release --out publicsecurity.jwks.json
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = result_service_pb2.GetKeysRequest(agency=agency)
    texts.write(way.call(f"{RESULTS}/GetKeys", request, result_service_pb2.GetKeysResponse).jwks.rstrip(), out)
