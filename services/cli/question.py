"""A question as it is written on the command line: the arguments of `query` and `explain`, and their request."""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import TypeAdapter, ValidationError

from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.verify import ServerVerifier
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli.rooms import GATEWAY
from services.cli.zone import GATEWAY_SYSTEM, Zone
from services.kit.client import Client
from services.kit.clock import system_clock
from services.kit.config import Duration
from services.kit.errors import InvalidArgument, Reason

_DURATION: Final[TypeAdapter[dt.timedelta]] = TypeAdapter(Duration)
_SELECTION = re.compile(r"([^:\s]+)(?::(.+))?", re.DOTALL)

As = Annotated[
    str, typer.Option("--as", metavar="AGENCY/SYSTEM", help="Who asks: a system that has a certificate here.")
]
Purposes = Annotated[list[str] | None, typer.Option("--purpose", metavar="CODE", help="Why: exactly one.")]
Basis = Annotated[str, typer.Option("--basis", metavar="CODE", help="The legal basis relied on.")]
Subject = Annotated[str, typer.Option("--subject", metavar="SCHEME:VALUE", help="Whom or what it is about: cn.uscc:…")]
Subjects = Annotated[
    list[str] | None,
    typer.Option("--subject", metavar="SCHEME:VALUE", help="Whom or what it is about: cn.uscc:…; repeat for more."),
]
Ticket = Annotated[
    Path | None, typer.Option("--ticket", metavar="FILE", help="Ticket for --authorization, or - for standard input.")
]
AsWritten = Annotated[
    bool, typer.Option("--as-written", help="The subject is meant so, although its check digit says it is mistyped.")
]
Selects = Annotated[
    list[str] | None,
    typer.Option(
        "--select", metavar="[ZONE/]TYPE[:FIELD,…]", help="Record type and fields, here or in another zone; repeat it."
    ),
]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", metavar="TYPE:CONDITION", help="Only records of TYPE for which this holds."),
]
PageTokens = Annotated[
    list[str] | None, typer.Option("--page-token", metavar="TYPE:TOKEN", help="Go on where an earlier answer ended.")
]
PageSize = Annotated[int, typer.Option(min=0, metavar="N", help="Records a section holds at most; 0 is the usual 20.")]
AsOf = Annotated[str, typer.Option(metavar="TIME", help="As it was known then: 2026-03-01 or 2026-03-01T08:00:00Z.")]
Case = Annotated[str, typer.Option("--case", metavar="REF", help="The case it is for, where the purpose needs one.")]
Authorization = Annotated[str, typer.Option(metavar="ID", help="A supervisor's authorization, where one is used.")]
OnBehalf = Annotated[str, typer.Option(metavar="REF", help="For whom the system asks; a reference, never a name.")]
Deadline = Annotated[str, typer.Option(metavar="DURATION", help="How long the answer may take: 500ms, 5s, 1m.")]
Folder = Annotated[
    Path, typer.Option("--dir", "-d", envvar="HUTONG_DIR", help="Zone folder: gateway's address and certificates.")
]
GatewayAddress = Annotated[str, typer.Option("--gateway", metavar="HOST:PORT", help="A gateway elsewhere.")]
GatewayId = Annotated[str, typer.Option(metavar="SPIFFE-ID", help="Whom the gateway must prove to be; with --gateway.")]
Cert = Annotated[
    Path | None, typer.Option("--cert", metavar="PEM", help="Certificate chain, instead of --as; may hold the key.")
]
Key = Annotated[Path | None, typer.Option("--key", metavar="PEM", help="Key of --cert, where it lies apart.")]
Bundle = Annotated[Path | None, typer.Option("--bundle", metavar="PEM", help="The zone's roots; with --cert.")]


@dataclass(frozen=True, slots=True)
class Door:
    """Where a node is and who knocks."""

    target: str
    gateway: SpiffeId
    credentials: SvidFiles
    revoked: Path | None = None
    """The zone's revocation list, where it is at hand."""

    def client(self) -> Client:
        """Connect; a node whose certificate is revoked is told nothing."""
        if self.revoked is None:
            return Client(self.target, self.gateway, self.credentials)
        lists = RevocationList(self.revoked, self.credentials.bundle)
        vouch = ServerVerifier(lists, system_clock).verify
        return Client(self.target, self.gateway, self.credentials, vouch=vouch)


def door(
    folder: Path,
    caller: str,
    address: str,
    gateway_id: str,
    cert: Path | None,
    key: Path | None,
    bundle: Path | None,
    node: str = GATEWAY,
) -> Door:
    """Find a node, the gateway where none is named, and the caller's certificate.

    Both lie in the zone folder, or where the options say.
    """
    if cert is None and not caller:
        raise typer.BadParameter("say who asks: --as AGENCY/SYSTEM, or --cert with --bundle")
    if cert is not None and bundle is None:
        raise typer.BadParameter("--cert needs --bundle: the zone's roots")
    if cert is not None and address and bundle is not None:
        # Nothing of a zone folder is needed by a caller that brings everything along.
        files = SvidFiles(cert, key or cert, bundle)
        zone_name = files.load().spiffe_id.trust_domain
        usual = GATEWAY_SYSTEM if node == GATEWAY else f"{node}/node"
        return Door(address, SpiffeId.parse(gateway_id or f"spiffe://{zone_name}/{usual}"), files)
    zone = Zone.open(folder)
    there = zone.node(node).node
    expected = SpiffeId.of(there.zone, there.agency, there.system)
    files = SvidFiles(cert, key or cert, bundle) if cert and bundle else zone.credentials(caller)
    files.load()
    gateway = SpiffeId.parse(gateway_id) if gateway_id else expected
    return Door(address or there.listen, gateway, files, zone.certificates.revoked)


def request(
    purposes: Sequence[str],
    basis: str,
    subject: str,
    selects: Sequence[str],
    filters: Sequence[str] = (),
    page_tokens: Sequence[str] = (),
    page_size: int = 0,
    as_of: str = "",
    case: str = "",
    authorization: str = "",
    on_behalf_of: str = "",
) -> federation_pb2.QueryRequest:
    """Make the request; raises `InvalidArgument` for what cannot even be asked. The rest is the gateway's to judge."""
    if len(purposes) > 1:
        raise InvalidArgument(
            Reason.PURPOSE_SEVERAL, f"exactly one purpose, not {len(purposes)}: {', '.join(purposes)}"
        )
    scheme, _, value = subject.partition(":")
    made = federation_pb2.QueryRequest(
        context=exchange_pb2.RequestContext(
            purpose=purposes[0] if purposes else "",
            legal_basis=basis,
            case_ref=case,
            authorization_id=authorization,
            on_behalf_of=on_behalf_of,
        )
    )
    if subject or not authorization:
        # Without a subject only an authorization can open anything, by its conditions.
        made.subject.scheme = scheme
        made.subject.value = value
    options = {"--filter": by_type(filters, "--filter"), "--page-token": by_type(page_tokens, "--page-token")}
    for select in selects:
        name, fields = selection(select)
        zone, _, record_type = name.rpartition("/")
        made.selections.add(
            zone=zone,
            record_type=record_type,
            fields=fields,
            page_size=page_size,
            filter=options["--filter"].pop(name, ""),
            page_token=options["--page-token"].pop(name, ""),
        )
    for option, left in options.items():
        if left:
            raise typer.BadParameter(f"{option} is for {next(iter(left))}, which no --select asks for")
    if as_of:
        made.as_of.FromDatetime(moment(as_of))
    return made


def seconds(text: str) -> float:
    """Read a duration; raises `typer.BadParameter`."""
    try:
        return _DURATION.validate_python(text).total_seconds()
    except ValidationError as error:
        raise typer.BadParameter(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None


def moment(text: str) -> dt.datetime:
    """Read a moment; without a zone it is UTC. Raises `typer.BadParameter`."""
    try:
        read = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write 2026-03-01 or 2026-03-01T08:00:00Z") from None
    return read if read.tzinfo else read.replace(tzinfo=dt.UTC)


def selection(text: str) -> tuple[str, list[str]]:
    """Read `TYPE:field,field`; raises `typer.BadParameter`."""
    found = _SELECTION.fullmatch(text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no selection; write TYPE or TYPE:field,field")
    return found[1], [field.strip() for field in (found[2] or "").split(",") if field.strip()]


def by_type(texts: Sequence[str], option: str) -> dict[str, str]:
    """Read values of an option that are each for one type, `TYPE:VALUE`; raises `typer.BadParameter`."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not value or name in pairs:
            raise typer.BadParameter(f"{option} {text!r}: write TYPE:VALUE, once per type")
        pairs[name] = value
    return pairs
