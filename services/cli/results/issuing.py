"""`hutong result issue | revoke`: an agency's results, registered where others find them."""

from pathlib import Path
from typing import Annotated

import typer

from hutong.api.recognition.v1 import result_service_pb2, stage_result_pb2
from services.cli import approval
from services.cli.answer import as_dict
from services.cli.approval import RESULTS, WAIT, Address, As, Officer, Reason, RequestId
from services.cli.cases import certifying
from services.cli.output import AsJson, print_json
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.results import signing, texts
from services.cli.results.fetching import Ref
from services.cli.zone import DEFAULT_FOLDER, Zone
from services.kit.client import Client
from services.kit.clock import system_clock


def issue(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The statement; see `hutong result sign`.")],
    caller: As = "",
    out: texts.Out = None,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Sign a result outside a case and register it, so that others can recognise it and look up its status.

    \b
    Example:
      hutong result issue statement.yaml --as publicsecurity/permits --out result.sdjwt
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    draft = signing.read(file)
    statement = draft.statement(way.caller.partition("/")[0], system_clock())

    async def issuing(client: Client) -> tuple[str, stage_result_pb2.StageResult]:
        credential = await certifying.sign(client, Zone.open(folder), statement, draft.disclosable)
        request = result_service_pb2.RegisterResultRequest(credential=credential)
        response = await client.unary(
            f"{RESULTS}/RegisterResult", request, result_service_pb2.RegisterResultResponse, timeout=WAIT
        )
        return credential, response.result

    credential, result = way.run(issuing)
    if as_json:
        if out is not None:
            texts.write(credential, out)
        print_json({"credential": credential, "result": as_dict(result)})
        return
    texts.write(credential, out)
    if out is not None:
        typer.echo(f"{result.result_ref}: {result.fact_code} of {result.issuer_agency} is registered; it lies in {out}")


def revoke(
    ref: Ref,
    caller: As = "",
    reason: Reason = "",
    suspend: Annotated[bool, typer.Option("--suspend", help="For the time being only.")] = False,
    reinstate: Annotated[bool, typer.Option("--reinstate", help="Let a suspended result stand again.")] = False,
    officer: Officer = "",
    request_id: RequestId = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a result of one's own agency. Whoever recognised it, or built on it, gets a task; nothing is undone.

    \b
    Example:
      hutong result revoke 5f0c… --reason FACTS_CHANGED --as publicsecurity/permits
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = result_service_pb2.RevokeResultRequest(
        request_id=approval.new_id(request_id),
        result_ref=ref,
        reason_code=reason,
        suspend=suspend,
        reinstate=reinstate,
        officer=officer,
    )
    response = way.call(f"{RESULTS}/RevokeResult", request, result_service_pb2.RevokeResultResponse)
    if as_json:
        print_json(as_dict(response))
        return
    state = stage_result_pb2.ResultState.Name(response.result.result_state).removeprefix("RESULT_STATE_")
    typer.echo(
        f"{response.result.result_ref}: {state}; {response.tasks} task{'' if response.tasks == 1 else 's'} raised"
    )
