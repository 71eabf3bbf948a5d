"""What the commands about authorizations share: the way to the supervision service, and an officer at the desk."""

import base64
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2
from services.cli import approval
from services.cli.approval import R, Way
from services.cli.officer import token_for
from services.cli.output import print_json
from services.cli.rooms import SUPERVISION
from services.cli.zone import Zone
from services.kit.officers.acts import act_nonce
from services.kit.officers.tokens import Role

SERVICE: Final = f"/{authorization_pb2.DESCRIPTOR.services_by_name['AuthorizationService'].full_name}"

_DIGEST: Final = sha256().digest_size

AuthorizationId = Annotated[str, typer.Argument(metavar="ID", help="Id of the authorization.")]
Officer = Annotated[
    str, typer.Option("--officer", metavar="REF", help="The officer who acts; the zone folder's own issuer signs.")
]
Token = Annotated[
    Path | None,
    typer.Option("--token", metavar="FILE", help="The officer's token from the agency's identity provider instead."),
]
Nonce = Annotated[
    bool, typer.Option("--nonce", help="Print the nonce and audience such a token has to have, and do nothing else.")
]
Address = Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="A supervision service elsewhere.")]
Reason = Annotated[
    str, typer.Option(metavar="CODE", help="Why: a code in capitals, for example CASE_CLOSED; never a text of anybody.")
]
Digest = Annotated[
    str, typer.Option("--digest", metavar="HEX", help="Digest of the scope you have seen: `explain` shows both.")
]


@dataclass(frozen=True, slots=True)
class Desk:
    """An officer at a system of their agency, and how a token of theirs is had."""

    way: Way
    folder: Path
    officer: str
    token: Path | None
    only_nonce: bool

    def act(self, rpc: str, request: Any, role: Role, response: type[R]) -> R:
        """Do what only an officer may: with a token made for this very request."""
        method = f"{SERVICE}/{rpc}"
        request.officer_token = self.sign(method, request, role)
        return self.way.call(method, request, response)

    def sign(self, method: str, request: Message, role: Role) -> str:
        """Get a token for an act; with --nonce, tell what it has to have and end."""
        audience = str(self.way.door.gateway)
        if self.only_nonce:
            print_json({"nonce": act_nonce(method, request), "aud": audience, "role": role.value})
            raise typer.Exit
        if self.token is not None:
            return self.token.read_text(encoding="ascii").strip()
        if not self.officer:
            raise typer.BadParameter("say which officer acts: --officer REF, or --token FILE")
        return token_for(Zone.open(self.folder), self.way.caller, self.officer, (role,), method, request, audience)


def at(
    folder: Path, caller: str, officer: str, token: Path | None, nonce: bool, address: str, cert: Path | None,
    key: Path | None, bundle: Path | None,
) -> Desk:  # fmt: skip
    """Sit an officer down at the desk of a system."""
    return Desk(approval.way(folder, caller, address, cert, key, bundle, SUPERVISION), folder, officer, token, nonce)


def digest_of(text: str) -> bytes:
    """Read a digest as it is shown: in hexadecimal, or in base64 as JSON has it; raises `typer.BadParameter`."""
    try:
        found = bytes.fromhex(text) if len(text) == 2 * _DIGEST else base64.b64decode(text, validate=True)
    except ValueError:
        found = b""
    if len(found) != _DIGEST:
        raise typer.BadParameter(f"{text!r} is no digest; `hutong authorization explain` shows it")
    return found
