"""`hutong query`: ask one question across agencies."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from certs.files import PRIVATE, write_atomically
from hutong.api.exchange.v1 import federation_pb2
from services.cli import answer, question
from services.cli.authorizations import using
from services.cli.authorizations.desk import Officer
from services.cli.door import EMPTY
from services.cli.output import AsJson, console, print_json
from services.cli.question import Door
from services.cli.zone import DEFAULT_FOLDER
from services.kit.client import parse

app = typer.Typer(rich_markup_mode="rich")

SERVICE = "/hutong.api.exchange.v1.FederationService"


@app.command()
def query(
    purpose: question.Purposes = None,
    basis: question.Basis = "",
    subject: question.Subjects = None,
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
    stream: bool = typer.Option(False, "--stream", help="Show each section as soon as its department answers."),
    all_pages: bool = typer.Option(False, "--all-pages", help="Go on with the next page by itself; streams."),
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Keep the answer as it came: `hutong log prove FILE`.")
    ] = None,
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
    itself was refused. Every answer carries a receipt of its log; --save keeps it with the very bytes it is of.

    \b
    Examples:
      hutong query --as taxation/refund --purpose P-REBATE --basis CN-VAT-REBATE --subject cn.uscc:… \\
          --select customs.Declaration:declaration_no,lines.hs10 --select commerce.Enterprise
      hutong query … --filter 'customs.Declaration:ie_flag = "E"' --as-of 2026-03-01 --json
      hutong query --gateway 10.0.0.5:9443 --cert me.pem --bundle roots.crt …
      hutong query --authorization ID --as supervision/aml --officer 7731 --purpose P-AML … --subject … --subject …
    """
    first, *others = subject or [""]
    made = question.request(
        purpose or (), basis, first, select or (), filters or (), page_token or (), page_size, as_of, case,
        authorization, on_behalf_of,
    )  # fmt: skip
    if made.HasField("subject"):
        made.subject.as_written = as_written
    way = question.door(folder, caller, gateway, gateway_id, cert, key, bundle)
    made.context.authorization_ticket = using.ticket_text(
        authorization, ticket, officer, folder, caller, cert, key, bundle
    )
    wait = question.seconds(deadline)
    streams = stream or all_pages or bool(others)
    if save is not None and streams:
        raise typer.BadParameter("--save keeps one answer, and a stream is many: --json writes each with its receipt")
    if streams:
        asked = federation_pb2.StreamQueryRequest(query=made, all_pages=all_pages)
        for text in others:
            scheme, _, value = text.partition(":")
            asked.subjects.add(scheme=scheme, value=value, as_written=as_written)
        run = _stream(way, asked, wait, as_json)
    else:
        run = _ask(way, made, wait, save, as_json)
    if not asyncio.run(run):
        raise typer.Exit(EMPTY)


async def _ask(door: Door, request: federation_pb2.QueryRequest, wait: float, save: Path | None, as_json: bool) -> bool:
    client = door.client()
    try:
        raw = await client.raw(f"{SERVICE}/Query", request, timeout=wait)
    finally:
        await client.close()
    if save is not None:
        write_atomically(save, raw, PRIVATE)
    response = parse(raw, federation_pb2.QueryResponse)
    if as_json:
        print_json(answer.as_dict(response))
    else:
        out = console()
        for section in response.sections:
            answer.show_section(out, section)
        out.print(f"[dim]query {response.query_id}[/dim]")
    return any(answer.given(section) for section in response.sections)


async def _stream(door: Door, request: federation_pb2.StreamQueryRequest, wait: float, as_json: bool) -> bool:
    anything = False
    out = console()
    async for response in sections(door, request, wait):
        anything = anything or answer.given(response.section)
        if as_json:
            print_json(answer.as_dict(response), lines=True)
            continue
        if response.HasField("subject"):
            out.print(Text(f"{response.subject.scheme}:{response.subject.value}", style="bold"))
        answer.show_section(out, response.section)
    return anything


async def sections(
    door: Door, request: federation_pb2.StreamQueryRequest, wait: float
) -> AsyncIterator[federation_pb2.StreamQueryResponse]:
    """Ask, and give each section as it comes."""
    client = door.client()
    try:
        async for response in client.stream(
            f"{SERVICE}/StreamQuery", request, federation_pb2.StreamQueryResponse, timeout=wait
        ):
            yield response
    finally:
        await client.close()
