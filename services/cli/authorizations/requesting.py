"""`hutong authorization request`: ask for an authorization."""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.common.v1 import common_pb2
from services.cli import approval, question
from services.cli.approval import RequestId
from services.cli.authorizations import desk, showing
from services.cli.authorizations.desk import Address, Nonce, Officer, Token
from services.cli.output import AsJson, console, print_json
from services.cli.question import As, AsWritten, Basis, Bundle, Cert, Folder, Key, Purposes, Selects
from services.cli.zone import DEFAULT_FOLDER
from services.kit.errors import InvalidArgument, Reason
from services.kit.officers.tokens import Role

_USUAL: Final = dt.timedelta(days=14)
_EMERGENCY: Final = dt.timedelta(hours=4)


def request(
    purpose: Purposes = None,
    basis: Basis = "",
    case: Annotated[str, typer.Option(metavar="REF", help="The case it is for: an authorization has one.")] = "",
    select: Selects = None,
    subject: Annotated[
        list[str] | None, typer.Option("--subject", metavar="SCHEME:VALUE", help="Whom it is about; repeat for more.")
    ] = None,
    as_written: AsWritten = False,
    condition: Annotated[
        list[str] | None,
        typer.Option("--condition", metavar="TYPE:CONDITION", help="Only records of TYPE for which this holds."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Records it discloses at most, over all.")] = 100,
    per_minute: Annotated[int, typer.Option(min=0, metavar="N", help="Records a minute at most; 0 for no limit.")] = 0,
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="From when; without it, at once.")] = "",
    days: Annotated[
        float, typer.Option(min=0, metavar="N", help="For how many days; 0 is the usual: 14, in an emergency 4 hours.")
    ] = 0,
    no_bulk: Annotated[
        bool, typer.Option("--no-bulk/--bulk", help="Only questions that name a subject, or also others.")
    ] = True,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="One approver, hours only, reviewed afterwards; where the zone allows.")
    ] = False,
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the id and nothing else.")] = False,
    request_id: RequestId = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Ask for an authorization: it is in force once two other officers have approved it, and not before.

    It is for the system that asks, --as, and for no other. Less is approved sooner: name the fields, not whole types.

    \b
    Examples:
      hutong authorization request --as supervision/aml --officer 7731 --purpose P-AML --basis CN-AML \\
          --case STR-2026-7 --subject cn.uscc:91999901MA07HY2E6F --rows 200 \\
          --select customs.Declaration:declaration_no,total_value_cny,declared_at
      hutong authorization request … --bulk --condition 'customs.Declaration:trade_country = "XX"'
    """
    sitting = desk.at(folder, caller, officer, token, nonce, address, cert, key, bundle)
    if (token is not None or nonce) and not (start and request_id):
        raise typer.BadParameter("a token is for one request: say --id and --from, so that it is the same one")
    if len(purpose or ()) != 1:
        raise InvalidArgument(Reason.PURPOSE_MISSING, "an authorization has exactly one purpose")
    begin = question.moment(start) if start else dt.datetime.now(dt.UTC).replace(microsecond=0)
    scope = authorization_pb2.Scope(
        caller=sitting.way.caller,
        purpose=(purpose or [""])[0],
        legal_basis=basis,
        case_ref=case,
        types=_types(select or (), condition or ()),
        subjects=[_subject(text, as_written) for text in subject or ()],
        row_quota=rows,
        rows_per_minute=per_minute,
        no_bulk=no_bulk,
        emergency=emergency,
    )
    scope.not_before.FromDatetime(begin)
    usual = _EMERGENCY if emergency else _USUAL
    scope.not_after.FromDatetime(begin + (dt.timedelta(days=days) or usual))
    asked = authorization_pb2.RequestAuthorizationRequest(request_id=approval.new_id(request_id), scope=scope)
    response = sitting.act(
        "RequestAuthorization", asked, Role.REQUESTER, authorization_pb2.RequestAuthorizationResponse
    )
    if as_json:
        print_json(showing.with_receipt(response))
    elif quiet:
        typer.echo(response.authorization.authorization_id)
    else:
        showing.show_authorization(console(), response.authorization)


def _types(selects: Sequence[str], conditions: Sequence[str]) -> list[authorization_pb2.ScopedType]:
    where = question.by_type(conditions, "--condition")
    found = [question.selection(text) for text in selects]
    if not found:
        raise typer.BadParameter("say what it is to open: --select TYPE:field,field")
    made = [
        authorization_pb2.ScopedType(record_type=name, fields=fields, condition=where.pop(name, ""))
        for name, fields in found
    ]
    if where:
        raise typer.BadParameter(f"--condition is for {next(iter(where))}, which no --select asks for")
    return made


def _subject(text: str, as_written: bool) -> common_pb2.SubjectId:
    scheme, _, value = text.partition(":")
    return common_pb2.SubjectId(scheme=scheme, value=value, as_written=as_written)
