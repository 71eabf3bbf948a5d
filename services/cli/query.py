"""`hutong query`: ask one question across agencies."""

import asyncio
from collections.abc import AsyncIterator

import typer

from hutong.api.exchange.v1 import federation_pb2
from services.cli import answer, question
from services.cli.door import EMPTY
from services.cli.output import AsJson, console, print_json
from services.cli.question import Door
from services.cli.zone import DEFAULT_FOLDER

app = typer.Typer(rich_markup_mode="rich")

SERVICE = "/hutong.api.exchange.v1.FederationService"


@app.command()
def query(
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
    on_behalf_of: question.OnBehalf = "",
    deadline: question.Deadline = "5s",
    stream: bool = typer.Option(False, "--stream", help="Show each section as soon as its department answers."),
    folder: question.Folder = DEFAULT_FOLDER,
    gateway: question.GatewayAddress = "",
    gateway_id: question.GatewayId = "",
    cert: question.Cert = None,
    key: question.Key = None,
    bundle: question.Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question across agencies.

    Every section shows what was given, what was given changed (~transform), and what was refused, with the reason.
    Exit code: 0 answered, even in part; 3 answered, but every section was denied, late or unreachable; 1 the question
    itself was refused.

    \b
    Examples:
      hutong query --as taxation/refund --purpose P-REBATE --basis CN-VAT-REBATE --subject cn.uscc:… \\
          --select customs.Declaration:declaration_no,lines.hs10 --select commerce.Enterprise
      hutong query … --filter 'customs.Declaration:ie_flag = "E"' --as-of 2026-03-01 --json
      hutong query --gateway 10.0.0.5:9443 --cert me.pem --bundle roots.crt …
    """
    made = question.request(
        purpose or (), basis, subject, select or (), filters or (), page_token or (), page_size, as_of, case,
        authorization, on_behalf_of,
    )  # fmt: skip
    made.subject.as_written = as_written
    way = question.door(folder, caller, gateway, gateway_id, cert, key, bundle)
    wait = question.seconds(deadline)
    run = _stream(way, made, wait, as_json) if stream else _ask(way, made, wait, as_json)
    if not asyncio.run(run):
        raise typer.Exit(EMPTY)


async def _ask(door: Door, request: federation_pb2.QueryRequest, wait: float, as_json: bool) -> bool:
    client = door.client()
    try:
        response = await client.unary(f"{SERVICE}/Query", request, federation_pb2.QueryResponse, timeout=wait)
    finally:
        await client.close()
    if as_json:
        print_json(answer.as_dict(response))
    else:
        out = console()
        for section in response.sections:
            answer.show_section(out, section)
        out.print(f"[dim]query {response.query_id}[/dim]")
    return any(answer.given(section) for section in response.sections)


async def _stream(door: Door, request: federation_pb2.QueryRequest, wait: float, as_json: bool) -> bool:
    anything = False
    out = console()
    async for response in sections(door, request, wait):
        anything = anything or answer.given(response.section)
        if as_json:
            print_json(answer.as_dict(response), lines=True)
        else:
            answer.show_section(out, response.section)
    return anything


async def sections(
    door: Door, request: federation_pb2.QueryRequest, wait: float
) -> AsyncIterator[federation_pb2.StreamQueryResponse]:
    """Ask, and give each section as it comes."""
    client = door.client()
    try:
        asked = federation_pb2.StreamQueryRequest(query=request)
        async for response in client.stream(
            f"{SERVICE}/StreamQuery", asked, federation_pb2.StreamQueryResponse, timeout=wait
        ):
            yield response
    finally:
        await client.close()
