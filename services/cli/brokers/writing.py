"""`hutong nats config`: the config of a NATS server, written from what the node that publishes says of it."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import TypeAdapter, ValidationError

from certs.spiffe import SpiffeId
from services.cli.output import AsJson, print_json
from services.kit import config
from services.kit.config import Address
from services.kit.errors import FailedPrecondition, Reason
from services.kit.events.jetstream.permissions import Cluster, Place, server_config
from services.recognition.config import RecognitionConfig

_LISTEN: Final = "0.0.0.0:4222"  # who may connect is for certificates to say


def _file(name: str, what: str) -> Any:
    return typer.Option(name, metavar="FILE", help=what, show_default=False)


def _host(name: str, what: str) -> Any:
    return typer.Option(name, metavar="HOST:PORT", help=what, parser=_address, show_default=name == "--listen")


def _address(text: str) -> str:
    try:
        return str(TypeAdapter[str](Address).validate_python(text))
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is not HOST:PORT") from None


def write(
    source: Annotated[Path, _file("--config", "Config of the node that publishes.")],
    certificate: Annotated[Path, _file("--certificate", "The server's certificate, as `nats` there names it.")],
    store: Annotated[Path, _file("--store", "The folder where it keeps streams.")],
    key: Annotated[Path | None, _file("--key", "Its key, where the certificate's file has none.")] = None,
    bundle: Annotated[Path | None, _file("--bundle", "The zone's roots, if not those of that config.")] = None,
    listen: Annotated[str, _host("--listen", "Where it listens.")] = _LISTEN,
    server: Annotated[str, typer.Option("--server", metavar="NAME", help="Its own name in a cluster.")] = "",
    among: Annotated[str | None, _host("--cluster-listen", "Where it listens for the other servers.")] = None,
    routes: Annotated[list[str] | None, _host("--route", "Where each of them listens; repeat.")] = None,
    own: Annotated[Path | None, _file("--cluster-certificate", "Its certificate for them, naming its host.")] = None,
    own_key: Annotated[Path | None, _file("--cluster-key", "The key, where that file has none.")] = None,
    roots: Annotated[Path | None, _file("--cluster-bundle", "The roots of these certificates, and no others.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Print the config of a NATS server that carries events from a node to those whom its `nats` table names.

    It asks for a certificate before the first word; whoever is not named cannot connect, and who is may do what it
    needs and nothing else. For a cluster, run it once for each server. Certificates of the zone are not taken between
    servers, as every node has one: make an authority for these alone, whose certificates name the hosts of the routes.

    \b
    Examples:
      hutong nats config --config recognition.toml --certificate nats.pem --store /var/lib/nats > nats.conf
      hutong nats config --config recognition.toml --certificate nats.pem --store /var/lib/nats \\
          --server n1 --cluster-listen 0.0.0.0:6222 --route n1.example:6222 --route n2.example:6222 \\
          --route n3.example:6222 --cluster-certificate n1.pem --cluster-bundle nats-roots.pem > n1.conf
    """
    said = config.read(source, RecognitionConfig)
    if said.nats is None:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{source} has no [nats]: it does not say who reads over it")
    place = Place(
        listen,
        certificate.absolute(),
        (key or certificate).absolute(),
        (bundle or said.tls.bundle).absolute(),
        store.absolute(),
        _cluster(server, among, routes, own, own_key, roots),
    )
    zone = said.node.zone
    readers = [SpiffeId.of(zone, *path.split("/")) for path in said.nats.readers]
    text = server_config(place, SpiffeId.of(zone, said.node.agency, said.node.system), readers)
    if as_json:
        print_json({"config": text})
    else:
        typer.echo(text, nl=False)


def _cluster(
    server: str,
    listen: str | None,
    routes: list[str] | None,
    certificate: Path | None,
    key: Path | None,
    bundle: Path | None,
) -> Cluster | None:
    """Make what is said of a cluster; None where nothing is."""
    if not any((server, listen, routes, certificate, key, bundle)):
        return None
    if not (server and listen and routes and certificate and bundle):
        needed = "--server, --cluster-listen, --route, --cluster-certificate and --cluster-bundle"
        raise typer.BadParameter(f"a server of a cluster needs {needed}")
    own = certificate.absolute()
    return Cluster(server, listen, tuple(routes), own, key.absolute() if key else own, bundle.absolute())
