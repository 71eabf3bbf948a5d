"""`hutong authorization approve`, `reject`, `revoke`, `review` and `use`: what officers do about one."""

import datetime as dt
from typing import Annotated, Any

import typer

from hutong.api.authorization.v1 import authorization_pb2
from services.cli.answer import as_dict
from services.cli.approval import R
from services.cli.authorizations import desk, showing
from services.cli.authorizations.desk import Address, AuthorizationId, Desk, Digest, Nonce, Officer, Reason, Token
from services.cli.output import AsJson, console, print_json
from services.cli.question import As, Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER
from services.kit.officers.tokens import Role

_Auditor = Annotated[bool, typer.Option("--auditor", help="The officer acts as an auditor, not as an approver.")]


def approve(
    authorization_id: AuthorizationId,
    digest: Digest = "",
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Approve what you have seen. The second approval puts it in force.

    Without --digest it shows field by field what would be opened, and approves nothing: the digest says that this is
    what you approve, and nothing else.

    \b
    Examples:
      hutong authorization approve ID --as customs/release
      hutong authorization approve ID --as customs/release --officer 42 --digest 3f9a…
    """
    sitting = desk.at(folder, caller, officer, token, nonce, address, cert, key, bundle)
    if not digest:
        showing.show_scope(sitting, authorization_id, as_json)
        return
    request = authorization_pb2.ApproveAuthorizationRequest(
        authorization_id=authorization_id, scope_digest=desk.digest_of(digest)
    )
    response = authorization_pb2.ApproveAuthorizationResponse
    _act(sitting, "ApproveAuthorization", request, Role.APPROVER, response, as_json)


def reject(
    authorization_id: AuthorizationId,
    reason: Reason = "",
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Reject a request: it ends there, and a new one is needed.

    \b
    Example:
      hutong authorization reject ID --as customs/release --officer 42 --reason TOO_WIDE
    """
    sitting = desk.at(folder, caller, officer, token, nonce, address, cert, key, bundle)
    request = authorization_pb2.RejectAuthorizationRequest(authorization_id=authorization_id, reason_code=reason)
    response = authorization_pb2.RejectAuthorizationResponse
    _act(sitting, "RejectAuthorization", request, Role.APPROVER, response, as_json)


def revoke(
    authorization_id: AuthorizationId,
    reason: Reason = "",
    requester: Annotated[bool, typer.Option("--requester", help="The officer is one who asked for it.")] = False,
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Revoke an authorization: within a second no node gives anything under it, and running answers are cut.

    \b
    Example:
      hutong authorization revoke ID --as customs/release --officer 42 --reason CASE_CLOSED
    """
    sitting = desk.at(folder, caller, officer, token, nonce, address, cert, key, bundle)
    request = authorization_pb2.RevokeAuthorizationRequest(authorization_id=authorization_id, reason_code=reason)
    role = Role.REQUESTER if requester else Role.APPROVER
    response = authorization_pb2.RevokeAuthorizationResponse
    _act(sitting, "RevokeAuthorization", request, role, response, as_json)


def review(
    authorization_id: AuthorizationId,
    reason: Reason = "",
    auditor: _Auditor = False,
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Review an emergency use afterwards: by an auditor, or an approver who had no part in it.

    \b
    Example:
      hutong authorization review ID --as audit/desk --officer 3 --auditor --reason JUSTIFIED
    """
    sitting = desk.at(folder, caller, officer, token, nonce, address, cert, key, bundle)
    request = authorization_pb2.ReviewAuthorizationRequest(authorization_id=authorization_id, reason_code=reason)
    role = Role.AUDITOR if auditor else Role.APPROVER
    response = authorization_pb2.ReviewAuthorizationResponse
    _act(sitting, "ReviewAuthorization", request, role, response, as_json)


def use(
    authorization_id: AuthorizationId,
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Get a ticket to use one for a few minutes: what `hutong query --ticket` takes.

    The ticket is for the system that got it, --as, and worthless to any other.

    \b
    Example:
      hutong authorization use ID --as supervision/aml --officer 7731 > ticket
      hutong query --authorization ID --ticket ticket --as supervision/aml …
    """
    sitting = desk.at(folder, caller, officer, token, nonce, address, cert, key, bundle)
    response = ticket(sitting, authorization_id)
    if as_json:
        print_json(as_dict(response))
        return
    typer.echo(response.ticket)
    ends = response.expires_at.ToDatetime(dt.UTC)
    typer.echo(f"ends {ends:%Y-%m-%d %H:%M:%S}Z", err=True)


def ticket(sitting: Desk, authorization_id: str) -> authorization_pb2.UseAuthorizationResponse:
    """Get a ticket."""
    request = authorization_pb2.UseAuthorizationRequest(authorization_id=authorization_id)
    return sitting.act("UseAuthorization", request, Role.REQUESTER, authorization_pb2.UseAuthorizationResponse)


def _act(sitting: Desk, rpc: str, request: Any, role: Role, response: type[R], as_json: bool) -> None:
    done: Any = sitting.act(rpc, request, role, response)
    if as_json:
        print_json(showing.with_receipt(done))
    else:
        showing.show_authorization(console(), done.authorization)
