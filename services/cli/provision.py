"""`hutong provision`: everything that nodes hold in private and cannot make for themselves, made once and kept fresh.

Where no other authority issues certificates, a job runs this at installation and every hour. It makes a folder

    DIR/
      authority/          the zone's authority and the identities it issued (`certs.layout`)
      trust/              `bundle.crt` and `revoked.crl`: what every node and caller reads
      keys/               the published keys of logs and of whoever signs results or tickets
      nodes/NODE/         what one node alone reads: `secret`, `log.key`, and `signing/` where it signs

of which a node gets `authority/svid/AGENCY/SYSTEM`, `trust`, `keys` and its own of `nodes`, and nothing else.
"""

import datetime as dt
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from certs import agent
from certs.authority import Authority
from certs.errors import SvidExists
from certs.files import PUBLIC, make_folder, write_atomically
from certs.layout import Layout
from certs.register import State
from certs.spiffe import SpiffeId
from services.cli.output import AsJson, print_json
from services.cli.rooms import RECOGNITION, SUPERVISION
from services.cli.zone import GATEWAY_SYSTEM
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import SUFFIX, issuer_uri
from services.kit.errors import InvalidArgument, Reason
from services.kit.log import keys as log_keys
from services.kit.log.checkpoint import origin_of

app = typer.Typer(rich_markup_mode="rich")

_SIGN: Final = (RECOGNITION, SUPERVISION)
_GATEWAY: Final = GATEWAY_SYSTEM.partition("/")[0]


@app.command()
def provision(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; made where it is not there.")],
    zone: Annotated[str, typer.Option(help="The zone's name, a DNS name.")],
    node: Annotated[list[str], typer.Option(help="A node: an agency, recognition, supervision or gateway; repeat it.")],
    system: Annotated[
        list[str] | None, typer.Option(metavar="AGENCY/SYSTEM", help="A system that calls; repeat it.")
    ] = None,
    publish: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Further published keys: *.jwks.json and *.vkey.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make what nodes and systems hold in private, and renew the certificates that are due.

    What is there already is kept, so it may run as often as one likes; certificates that were revoked are not issued
    again. Nodes that run follow their files.

    \b
    Example:
      hutong provision /authority --zone port.example --node customs --node gateway --system taxation/refund
    """
    now = dt.datetime.now(dt.UTC)
    make_folder(folder)
    authority = _authority(folder / "authority", zone, now)
    wanted = [SpiffeId.of(zone, *_path(name)) for name in (*map(_node, node), *(system or ()))]
    standing = authority.current()
    issued: list[str] = []
    for identity in wanted:
        if identity not in standing or standing[identity].state(now) is not State.REVOKED:
            with suppress(SvidExists):
                issued.append(str(authority.issue(identity, now).spiffe_id))
    turn = agent.tend(authority, now)
    for name in node:
        _private(folder, zone, name, now)
    layout = authority.layout
    # Where nothing else lies: a node's volume must not show the authority's key.
    _deliver((layout.bundle, layout.revoked), folder / "trust")
    if publish:
        _deliver((*publish.glob(f"*{SUFFIX}"), *publish.glob(f"*{log_keys.SUFFIX}")), folder / "keys")
    if as_json:
        print_json({"zone": zone, "dir": str(folder), "issued": issued, "renewed": list(turn.renewed)})
    else:
        typer.echo(f"{zone} in {folder}: {len(issued)} issued, {len(turn.renewed)} renewed")
    if turn.problem:
        # Whoever else was to be renewed is, and everything is delivered; the job must be seen to have failed.
        typer.echo(f"not renewed: {turn.problem}", err=True)
        raise typer.Exit(1)


def _authority(folder: Path, zone: str, now: dt.datetime) -> Authority:
    if not Layout(folder).intermediate_certificate.exists():
        return Authority.create(folder, zone, now)
    found = Authority.open(folder)
    if found.zone != zone:
        raise InvalidArgument(Reason.NAME_INVALID, f"{folder} is the authority of {found.zone}, not of {zone}")
    return found


def _node(name: str) -> str:
    return GATEWAY_SYSTEM if name == _GATEWAY else f"{name}/node"


def _path(name: str) -> tuple[str, str]:
    agency, slash, system = name.partition("/")
    if not slash:
        raise InvalidArgument(Reason.NAME_INVALID, f"{name!r} is no identity: write AGENCY/SYSTEM")
    return agency, system


def _private(folder: Path, zone: str, name: str, now: dt.datetime) -> None:
    """Make what one node reads alone, and publish the public halves of its keys."""
    own, published = folder / "nodes" / name, folder / "keys"
    make_folder(own)
    if not (own / "secret").exists():
        write_atomically(own / "secret", secrets.token_bytes(32))
    log_keys.create(own / "log.key", published, origin_of(zone, *_path(_node(name))))
    if name in _SIGN:
        if not (own / "signing").exists():
            SigningKeys.create(own / "signing", issuer_uri(zone, name), now)
        if not (published / f"{name}{SUFFIX}").exists():
            SigningKeys.open(own / "signing").publish(published)


def _deliver(sources: Iterable[Path], folder: Path) -> None:
    """Copy what everybody may read."""
    make_folder(folder)
    for source in sources:
        write_atomically(folder / source.name, source.read_bytes(), PUBLIC)
