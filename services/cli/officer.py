"""`hutong officer`: the embedded identity provider of an agency, and tokens of its officers.

For development and the demo. Where an agency has an identity provider of its own, that one makes the tokens.
"""

import datetime as dt
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.log.v1 import log_service_pb2
from services.cli.output import AsJson, console, print_json
from services.cli.question import As, Folder, seconds
from services.cli.zone import DEFAULT_FOLDER, Zone
from services.kit.clock import system_clock
from services.kit.credentials import strict
from services.kit.errors import InvalidArgument, Reason
from services.kit.officers.acts import TOKEN_FIELD, act_nonce
from services.kit.officers.issuer import LIFE, Issuer, officers_uri
from services.kit.officers.tokens import Role

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Officers: the people who request, approve and audit, and the tokens that say who they are.\n\n"
    "An officer token is for [bold]one act[/bold]: one rpc with one content, at one node, through one system, within "
    "minutes. In earnest an agency's own identity provider makes it; here a small one does, whose keys lie in "
    "AGENCY/officers.\n\n"
    "\b\nExamples:\n"
    "  hutong officer issuer create customs\n"
    "  hutong officer token --as customs/release --subject o-17 \\\n"
    "      --role approver --for ApproveAuthorization --request approve.json\n",
)
_issuer = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="An agency's embedded identity provider: private keys in AGENCY/officers, public ones in officers/.",
)
app.add_typer(_issuer, name="issuer")

_SUPERVISION: Final = "supervision/node"
_LARGEST: Final = 1024 * 1024
"""Most bytes of a request in a file."""

Agency = Annotated[str, typer.Argument(metavar="AGENCY", help="Whose officers.")]


def token_for(
    zone: Zone,
    path: str,
    subject: str,
    roles: Collection[Role],
    method: str,
    request: Message,
    audience: str,
    life: dt.timedelta = LIFE,
) -> str:
    """Get a token of an officer for one act, signed by the embedded identity provider of the zone folder.

    `path` is the calling system, `agency/system`; `subject` the officer's reference; `method` `/package.Service/Rpc`;
    `audience` the node that serves it, as a SPIFFE ID or `agency/system`. Raises `FailedPrecondition` where the agency
    has no identity provider here, `CertificateError` where the system has no certificate.
    """
    identity = zone.identity(path)
    if not audience.startswith("spiffe://"):
        audience = str(zone.identity(audience))
    issuer = Issuer.open(zone.officers(identity.agency))
    certificate = zone.credentials(path).load().chain
    return issuer.token(subject, roles, audience, act_nonce(method, request), certificate, system_clock(), life)


@_issuer.command("create")
def create(agency: Agency, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Make an agency's identity provider with a first key, and publish it. Never overwrites keys.

    \b
    Example:
      hutong officer issuer create customs
    """
    zone = Zone.open(folder)
    identity = zone.identity(f"{agency}/node")
    uri = officers_uri(zone.name, identity.agency)
    _publish(zone, agency, Issuer.create(zone.officers(agency), uri, system_clock()), as_json)


@_issuer.command("publish")
def publish(agency: Agency, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Publish the public keys again, for the nodes that are to know the agency's officers.

    \b
    Example:
      hutong officer issuer publish customs
    """
    zone = Zone.open(folder)
    _publish(zone, agency, Issuer.open(zone.officers(agency)), as_json)


@_issuer.command("rotate")
def rotate(agency: Agency, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Make a new key to sign with, and publish it. Tokens of the key before are still taken, those of older ones not.

    \b
    Example:
      hutong officer issuer rotate customs
    """
    zone = Zone.open(folder)
    issuer = Issuer.open(zone.officers(agency))
    issuer.rotate(system_clock())
    _publish(zone, agency, issuer, as_json)


def _publish(zone: Zone, agency: str, issuer: Issuer, as_json: bool) -> None:
    path = issuer.publish(zone.published_officers(agency))
    if as_json:
        print_json({"issuer": issuer.uri, "jwks": str(path), "keys": issuer.key_ids()})
    else:
        console().print(f"{issuer.uri}: keys published in {path}", highlight=False, markup=False, soft_wrap=True)


@app.command("token")
def token(
    act: Annotated[str, typer.Option("--for", metavar="RPC", help="What is to be done: ApproveAuthorization.")],
    subject: Annotated[str, typer.Option("--subject", metavar="REF", help="The officer's reference; never a name.")],
    roles: Annotated[list[Role], typer.Option("--role", help="A role of the officer; repeat for more.")],
    caller: As = "",
    request: Annotated[
        Path,
        typer.Option("--request", metavar="FILE", help="The request as JSON; - for standard input."),
    ] = Path("-"),
    audience: Annotated[
        str, typer.Option("--audience", metavar="AGENCY/SYSTEM", help="The node that will be asked.")
    ] = _SUPERVISION,
    life: Annotated[str, typer.Option("--life", metavar="DURATION", help="How long it lives: at most 10m.")] = "5m",
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make a token of an officer for one act: this rpc, with this request, through this system.

    What has a command of its own needs none: `hutong authorization … --officer REF` gets its token itself.

    \b
    Example:
      hutong officer token --as customs/release --subject o-17 \\
          --role requester --for UseAuthorization --request use.json
    """
    if not caller:
        raise typer.BadParameter("say through which system: --as AGENCY/SYSTEM")
    method = _method(act)
    asked = _request(method, _text(request))
    full = f"/{method.containing_service.full_name}/{method.name}"
    lives = dt.timedelta(seconds=seconds(life))
    made = token_for(Zone.open(folder), caller, subject, roles, full, asked, audience, lives)
    if as_json:
        print_json({"token": made, "nonce": act_nonce(full, asked), "method": full})
    else:
        typer.echo(made)


def acts() -> Mapping[str, MethodDescriptor]:
    """Give the rpcs that need the token of an officer, by their short names."""
    return {
        method.name: method
        for file in (authorization_pb2.DESCRIPTOR, log_service_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
        if TOKEN_FIELD in method.input_type.fields_by_name
    }


def _method(name: str) -> MethodDescriptor:
    found = acts().get(name.rpartition("/")[2])
    if found is None or name not in {found.name, f"/{found.containing_service.full_name}/{found.name}"}:
        raise typer.BadParameter(f"--for {name!r}: needs no officer; those that do are {', '.join(sorted(acts()))}")
    return found


def _request(method: MethodDescriptor, text: bytes) -> Message:
    made: Any = message_factory.GetMessageClass(method.input_type)()
    try:
        # JSON of our own reading: a name that stands twice would be read one way here and another way elsewhere.
        raw = strict.loads(text)
        if not strict.is_object(raw):
            raise ValueError
        json_format.ParseDict(raw, made, max_recursion_depth=strict.DEPTH)
    except (ValueError, TypeError, AttributeError, json_format.ParseError):
        message = f"the request is no {method.input_type.name} as JSON"
        raise InvalidArgument(Reason.MALFORMED_REQUEST, message) from None
    result: Message = made
    return result


def _text(path: Path) -> bytes:
    if path == Path("-"):
        text = sys.stdin.buffer.read(_LARGEST + 1)
    else:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise InvalidArgument(Reason.REQUEST_TOO_LARGE, f"the request has more than {_LARGEST} bytes")
    return text
