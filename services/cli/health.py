"""`hutong health`: ask a node whether it serves, as itself.

Nodes talk to members of the zone only, so what probes them needs a certificate: it takes the node's own, beside it.
It runs every few seconds for as long as the node does, so it reads of the config what it needs, and imports little.
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, cast

import typer

from certs.spiffe import SpiffeId, server_name
from certs.svid import Svid, SvidFiles
from certs.tls import channel_credentials
from services.cli.output import AsJson, print_json
from services.kit.errors import FailedPrecondition, Reason, Unavailable

app = typer.Typer(rich_markup_mode="rich")

_CHECK: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = b"\x08\x01"
"""A `HealthCheckResponse` with status SERVING, as bytes: to load the contract takes longer than to ask."""

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - an address to translate, not to bind
"""What to dial where a node listens on every address."""


class Check(Protocol):
    """The rpc, from bytes to bytes."""

    def __call__(self, request: bytes, *, timeout: float) -> bytes:
        """Ask; raises `grpc.RpcError`."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A node to ask."""

    target: str
    """`host:port`."""
    identity: SpiffeId
    """Who it must prove to be."""


@app.command()
def health(
    file: Annotated[Path, typer.Option("--config", help="The node's config, a TOML file.", show_default=False)],
    address: Annotated[
        str, typer.Option("--address", metavar="HOST:PORT", help="Where it is; absent, where its config says.")
    ] = "",
    peers: Annotated[bool, typer.Option("--peers", help="Ask every node too that its config names.")] = False,
    alive: Annotated[
        bool, typer.Option("--alive", help="Be content with any answer: a node that drains is not dead.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.", min=0.1)] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Ask a node for its health, with its own certificate: what probes and `helm test` run.

    Exit code 0 means that it serves; with --peers, that everyone does whom it calls.

    \b
    Examples:
      hutong health --config .hutong/customs/node.toml
      hutong health --config /etc/hutong/node/node.toml --address gateway:50051 --peers
    """
    everyone = answers(file, address, peers=peers, alive=alive, timeout=timeout)
    wrong = {str(asked.identity): answer for asked, answer in everyone if answer}
    if wrong:
        said = "; ".join(f"{identity} {answer}" for identity, answer in wrong.items())
        raise Unavailable(Reason.NODE_UNHEALTHY, said)
    if as_json:
        print_json([{"identity": str(asked.identity), "target": asked.target} for asked, _ in everyone])
        return
    for asked, _ in everyone:
        typer.echo(f"{asked.identity} {'answers' if alive else 'serves'} at {asked.target}")


def answers(
    file: Path, address: str = "", *, peers: bool = False, alive: bool = False, timeout: float = 3.0
) -> list[tuple[Asked, str]]:
    """Ask a node, and with `peers` every other that its config names; gives what is wrong with each, "" where nothing.

    With `alive` nothing is wrong with whoever answers; `timeout` is seconds for each.

    Raises `FailedPrecondition` for a config that is none, `CertificateError` where its certificate does not stand.
    """
    raw = _read(file)
    try:
        svid = _files(raw, file.parent.absolute()).load()
        everyone = [_itself(raw["node"], address), *(_peers(raw, raw["node"]["zone"]) if peers else ())]
    except (KeyError, TypeError, AttributeError) as error:
        raise FailedPrecondition(
            Reason.CONFIG_INVALID, f"{file} is no node's config ({error}); `hutong serve … --check-config` says more"
        ) from None
    return [(asked, _ask(asked, svid, timeout, alive)) for asked in everyone]


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"there is no config file {file}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{file}: {error}") from None


def _files(raw: dict[str, Any], base: Path) -> SvidFiles:
    tls = raw["tls"]
    if "workload_api" in tls:
        return _handed_out(raw, base / tls["folder"])
    return SvidFiles(base / tls["certificate"], base / tls["key"], base / tls["bundle"])


def _handed_out(raw: dict[str, Any], folder: Path) -> SvidFiles:
    """Take what the node beside this keeps; where there is none, as in a pod of its own, ask as the node does."""
    # Of those who probe, hardly any needs it.
    from certs.workload import WorkloadFiles  # noqa: PLC0415

    workload = WorkloadFiles(raw["tls"]["workload_api"], folder, _itself(raw["node"], "").identity)
    if not workload.files.certificate.exists():
        workload.fetch()
    return workload.files


def _itself(node: dict[str, str], address: str) -> Asked:
    host, _, port = node["listen"].rpartition(":")
    identity = SpiffeId.of(node["zone"], node["agency"], node.get("system", "node"))
    return Asked(address or f"{_ANYWHERE.get(host, host)}:{port}", identity)


def _peers(raw: dict[str, Any], zone: str) -> Iterator[Asked]:
    """List whom a config names, each once: departments, whose events or lists count, who co-signs, who authorizes."""
    tables = [*raw.get("departments", {}).items(), *raw.get("events", {}).items()]
    tables += raw.get("log", {}).get("witnesses", {}).items()
    tables += raw["tls"].get("revocations_from", {}).items()
    if authorizations := raw.get("authorizations"):
        tables.append((authorizations.get("agency", "supervision"), authorizations))
    found = (Asked(peer["target"], SpiffeId.of(zone, agency, peer.get("system", "node"))) for agency, peer in tables)
    yield from dict.fromkeys(found)


def _ask(asked: Asked, svid: Svid, timeout: float, alive: bool) -> str:
    """Ask one node; gives what is wrong with it, nothing where it serves."""
    # What the library has to say of a refused connection on standard error is in our own words below.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    credentials = channel_credentials(svid)
    import grpc  # noqa: PLC0415 - not before the floor under TLS is set

    options = [
        ("grpc.ssl_target_name_override", server_name(asked.identity)),
        ("grpc.default_authority", server_name(asked.identity)),
        ("grpc.enable_http_proxy", 0),
    ]
    with grpc.secure_channel(asked.target, credentials, options=options) as channel:
        check = cast("Check", channel.unary_unary(_CHECK))  # pyright: ignore[reportUnknownMemberType]
        try:
            answer = check(b"", timeout=timeout)
        except grpc.RpcError as error:
            call: Any = error
            if alive and call.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                return ""
            return f"does not answer at {asked.target}: {call.code().name}: {call.details()}"
    return "" if alive or answer == _SERVING else f"at {asked.target} does not serve now"
