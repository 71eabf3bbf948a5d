"""`hutong explain`: what a question would be given, field by field, without reading any record."""

import asyncio

import typer

from hutong.api.exchange.v1 import federation_pb2
from services.cli import answer, question
from services.cli.authorizations import using
from services.cli.authorizations.desk import Officer
from services.cli.output import AsJson, console, print_json
from services.cli.query import SERVICE
from services.cli.question import Door
from services.cli.zone import DEFAULT_FOLDER

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def explain(
    purpose: question.Purposes = None,
    basis: question.Basis = "",
    subject: question.Subject = "",
    as_written: question.AsWritten = False,
    select: question.Selects = None,
    caller: question.As = "",
    filters: question.Filters = None,
    page_size: question.PageSize = 0,
    page_token: question.PageTokens = None,
    as_of: question.AsOf = "",
    case: question.Case = "",
    authorization: question.Authorization = "",
    ticket: question.Ticket = None,
    officer: Officer = "",
    on_behalf_of: question.OnBehalf = "",
    deadline: question.Deadline = "5s",
    folder: question.Folder = DEFAULT_FOLDER,
    gateway: question.GatewayAddress = "",
    gateway_id: question.GatewayId = "",
    cert: question.Cert = None,
    key: question.Key = None,
    bundle: question.Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Show what a question would be given, field by field. Takes the arguments of `query`; reads no record.

    \b
    Example:
      hutong explain --as taxation/refund --purpose P-REBATE --basis CN-VAT-REBATE --subject cn.uscc:… \\
          --select customs.Declaration
    """
    made = question.request(
        purpose or (), basis, subject, select or (), filters or (), page_token or (), page_size, as_of, case,
        authorization, on_behalf_of,
    )  # fmt: skip
    if made.HasField("subject"):
        made.subject.as_written = as_written
    way = question.door(folder, caller, gateway, gateway_id, cert, key, bundle)
    made.context.authorization_ticket = using.ticket_text(
        authorization, ticket, officer, folder, caller, cert, key, bundle
    )
    response = asyncio.run(_explain(way, made, question.seconds(deadline)))
    if as_json:
        print_json(answer.as_dict(response))
        return
    out = console()
    for section in response.sections:
        answer.show_decisions(out, section)


async def _explain(door: Door, request: federation_pb2.QueryRequest, wait: float) -> federation_pb2.ExplainResponse:
    client = door.client()
    try:
        asked = federation_pb2.ExplainRequest(query=request)
        return await client.unary(f"{SERVICE}/Explain", asked, federation_pb2.ExplainResponse, timeout=wait)
    finally:
        await client.close()
