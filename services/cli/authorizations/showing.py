"""`hutong authorization show`, `list` and `explain`: what one opens, and where it stands."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hutong.api.authorization.v1 import authorization_pb2
from services.cli import answer, approval
from services.cli.answer import as_dict
from services.cli.approval import PageSize, PageToken
from services.cli.authorizations import desk
from services.cli.authorizations.desk import SERVICE, Address, AuthorizationId, Desk
from services.cli.output import AsJson, console, pairs, print_json, table
from services.cli.question import As, Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER

_PREFIX: Final = "AUTHORIZATION_STATE_"
_STYLES: Final = {"ACTIVE": "green", "REQUESTED": "cyan", "APPROVED_ONCE": "cyan"}


def show(
    authorization_id: AuthorizationId,
    caller: As = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Show an authorization and its history: who asked, who approved, how much of it is used.

    Officers appear as pseudonyms.

    \b
    Example:
      hutong authorization show ID --as supervision/aml
    """
    sitting = _sit(folder, caller, address, cert, key, bundle)
    found = _get(sitting, authorization_id)
    if as_json:
        print_json(with_receipt(found))
    else:
        show_authorization(console(), found.authorization)


def explain(
    authorization_id: AuthorizationId,
    caller: As = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Show what it would open, field by field, as the owners' policies stand: what an approver has to see.

    \b
    Example:
      hutong authorization explain ID --as customs/release
    """
    show_scope(_sit(folder, caller, address, cert, key, bundle), authorization_id, as_json)


def list_(
    state: Annotated[str, typer.Option(metavar="STATE", help="Only these: requested, active, revoked …")] = "",
    caller: As = "",
    page_size: PageSize = 0,
    page_token: PageToken = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """List the authorizations one's agency has to do with, the newest first.

    \b
    Example:
      hutong authorization list --as customs/release --state requested
    """
    sitting = _sit(folder, caller, address, cert, key, bundle)
    number = authorization_pb2.AUTHORIZATION_STATE_UNSPECIFIED
    if state:
        number = approval.named(authorization_pb2.AuthorizationState, _PREFIX, state, "state")
    request = authorization_pb2.ListAuthorizationsRequest(state=number, page_size=page_size, page_token=page_token)
    response = sitting.way.call(f"{SERVICE}/ListAuthorizations", request, authorization_pb2.ListAuthorizationsResponse)
    if as_json:
        print_json(as_dict(response))
        return
    out = console()
    if response.authorizations:
        columns = ("Authorization", "State", "System", "Purpose", "Case", "Until", "Rows")
        made = table("", columns, map(_row, response.authorizations))
        made.columns[0].no_wrap = True  # to be copied
        out.print(made)
    else:
        out.print(Text("There is none."))
    if response.next_page_token:
        out.print(Text(f"more: --page-token {response.next_page_token}", style="dim"))


def with_receipt(response: Any) -> dict[str, object]:
    """Write the authorization of an answer for machines, with the answer's receipt."""
    made: Any = as_dict(response)
    return {**made["authorization"], "receipt": made.get("receipt")}


def show_authorization(out: Console, found: authorization_pb2.Authorization) -> None:
    """Print an authorization with its scope and its history."""
    scope = found.scope
    name = _state(found)
    out.print(Text.assemble((found.authorization_id, "bold"), "  ", (name, _STYLES.get(name, "red"))))
    rows = [
        ("System", scope.caller),
        ("Why", f"{scope.purpose}  {scope.legal_basis}  {scope.case_ref}"),
        ("About", ", ".join(f"{each.scheme}:{each.value}" for each in scope.subjects) or "what the conditions say"),
        ("Time", f"{_moment(scope.not_before)} – {_moment(scope.not_after)}"),
        ("Rows", f"{found.rows_used} of {scope.row_quota}{_rate(scope)}{', no bulk' if scope.no_bulk else ''}"),
        ("Digest", found.scope_digest.hex()),
    ]
    if scope.emergency:
        rows.insert(0, ("Emergency", _review(found)))
    out.print(Padding(pairs(rows), (0, 0, 0, 2), expand=False))
    out.print(Padding(_types(scope), (0, 0, 0, 2), expand=False))
    if found.events:
        history = table("", ("", "When", "What", "Agency", "Officer", "Reason"), _history(found))
        out.print(Padding(history, (0, 0, 1, 2), expand=False))


def show_scope(sitting: Desk, authorization_id: str, as_json: bool) -> None:
    """Print what one would open, field by field, and how to approve exactly that."""
    request = authorization_pb2.ExplainAuthorizationRequest(authorization_id=authorization_id)
    told = sitting.way.call(f"{SERVICE}/ExplainAuthorization", request, authorization_pb2.ExplainAuthorizationResponse)
    if as_json:
        print_json(as_dict(told))
        return
    out = console()
    show_authorization(out, _get(sitting, authorization_id).authorization)
    for section in told.sections:
        answer.show_decisions(out, section)
    out.print(Text(f"to approve exactly this: --digest {told.scope_digest.hex()}", style="dim"))


def _sit(folder: Path, caller: str, address: str, cert: Path | None, key: Path | None, bundle: Path | None) -> Desk:
    return desk.at(folder, caller, "", None, False, address, cert, key, bundle)


def _get(sitting: Desk, authorization_id: str) -> authorization_pb2.GetAuthorizationResponse:
    request = authorization_pb2.GetAuthorizationRequest(authorization_id=authorization_id)
    return sitting.way.call(f"{SERVICE}/GetAuthorization", request, authorization_pb2.GetAuthorizationResponse)


def _types(scope: authorization_pb2.Scope) -> Table:
    rows = [(each.record_type, ", ".join(each.fields), each.condition) for each in scope.types]
    return table("", ("Record type", "Fields", "Where"), rows)


def _history(found: authorization_pb2.Authorization) -> Iterator[list[str]]:
    for event in found.events:
        yield [str(event.sequence), _moment(event.at), event.kind, event.agency, event.officer, event.reason_code]


def _row(found: authorization_pb2.Authorization) -> list[str | Text]:
    name, scope = _state(found), found.scope
    return [
        found.authorization_id,
        Text.assemble((name, _STYLES.get(name, "red")), _loud(found)),
        scope.caller,
        scope.purpose,
        scope.case_ref,
        _moment(scope.not_after),
        f"{found.rows_used} of {scope.row_quota}",
    ]


def _loud(found: authorization_pb2.Authorization) -> str:
    """Say of an emergency that it was one, and by when it has to be reviewed."""
    if not found.scope.emergency:
        return ""
    due = _moment(found.review_due)
    return f"\nemergency, review by {due}" if due else "\nemergency"


def _review(found: authorization_pb2.Authorization) -> str:
    if due := _moment(found.review_due):
        return f"to be reviewed by {due}"
    return "reviewed" if any(event.kind == "reviewed" for event in found.events) else "to be reviewed once approved"


def _state(found: authorization_pb2.Authorization) -> str:
    return authorization_pb2.AuthorizationState.Name(found.state).removeprefix(_PREFIX)


def _rate(scope: authorization_pb2.Scope) -> str:
    return f", {scope.rows_per_minute} a minute" if scope.rows_per_minute else ""


def _moment(at: Timestamp) -> str:
    return f"{at.ToDatetime(dt.UTC):%Y-%m-%d %H:%M}Z" if at.seconds else ""
