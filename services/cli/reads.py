"""`hutong reads`: who looked at an enterprise's records."""

import asyncio
import datetime as dt
from typing import Annotated

import typer
from rich.text import Text

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, reads_pb2
from services.cli import question
from services.cli.answer import as_dict
from services.cli.approval import ENTERPRISE, PageSize, PageToken
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Bundle, Cert, Folder, GatewayAddress, GatewayId, Key
from services.cli.zone import DEFAULT_FOLDER

app = typer.Typer(rich_markup_mode="rich")

_METHOD = f"/{federation_pb2.DESCRIPTOR.services_by_name['FederationService'].full_name}/ListReads"
_CODES = "cn.uscc"


@app.command()
def reads(
    caller: Annotated[str, typer.Option("--as", metavar="enterprise/CODE", help="The enterprise that asks.")] = "",
    subject: Annotated[
        str, typer.Option("--subject", metavar="SCHEME:VALUE", help="Whose records; without it, its own code's.")
    ] = "",
    page_size: PageSize = 0,
    page_token: PageToken = "",
    deadline: question.Deadline = "5s",
    folder: Folder = DEFAULT_FOLDER,
    gateway: GatewayAddress = "",
    gateway_id: GatewayId = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """List who looked at your records: which system, when, why, on what basis, and which fields.

    Every line names its entry in the log of the agency that gave the records: `hutong log prove` shows that it is
    there, and whoever may read entries, an auditor say, what it holds. Looks under a running embargo (suspicious
    transactions, criminal cases) are left out until it ends, and show from then on. An enterprise needs a certificate
    of its own (`hutong certs issue enterprise/CODE`).

    \b
    Example:
      hutong reads --as enterprise/91999901ma07hy2e6f
    """
    way = question.door(folder, caller, gateway, gateway_id, cert, key, bundle)
    identity = way.credentials.load().spiffe_id
    own = identity.system.upper() if identity.agency == ENTERPRISE else ""
    scheme, _, value = (subject or f"{_CODES}:{own}").partition(":")
    request = reads_pb2.ListReadsRequest(
        context=exchange_pb2.RequestContext(purpose="P-SELF", legal_basis="CN-RIGHT-TO-KNOW"),
        page_size=page_size,
        page_token=page_token,
    )
    request.subject.scheme = scheme
    request.subject.value = value

    async def ask() -> reads_pb2.ListReadsResponse:
        client = way.client()
        try:
            wait = question.seconds(deadline)
            return await client.unary(_METHOD, request, reads_pb2.ListReadsResponse, timeout=wait)
        finally:
            await client.close()

    response = asyncio.run(ask())
    if as_json:
        print_json(as_dict(response))
    else:
        _show(response)


def _show(response: reads_pb2.ListReadsResponse) -> None:
    out = console()
    if response.reads:
        columns = ("When", "Who", "Why", "Basis", "Whose records", "What", "Proof")
        out.print(table("", columns, map(_row, response.reads)))
    else:
        out.print(Text("Nobody has looked at them, as far as may be told."))
    if response.missing:
        out.print(Text(f"no answer from {', '.join(response.missing)}: looks there are missing here", style="yellow"))
    if response.next_page_token:
        out.print(Text(f"more: --page-token {response.next_page_token}", style="dim"))


def _row(read: reads_pb2.Read) -> list[str]:
    # Events that were sent have no fields: they say no more than that there is something to look up.
    what = (f"{each.record_type}: {', '.join(each.paths) or each.rows}" for each in read.fields)
    return [
        f"{read.time.ToDatetime(dt.UTC):%Y-%m-%d %H:%M:%S}Z",
        read.caller,
        read.purpose,
        read.legal_basis,
        read.owner,
        "\n".join(what),
        f"{read.origin} #{read.index}",
    ]
