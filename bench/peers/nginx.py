"""nginx as a gRPC proxy (`grpc_pass`), mutual TLS on both sides: six hops, before a bare gateway and its departments.

The cheapest thing that a gRPC call can pass through: no policy, no log, no fan-out. It says what six connections of
HTTP/2 over TLS cost in C.
"""

import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers import bare, contract
from bench.peers.running import HOST, PeerMissingError, free_port, running
from certs.svid import SvidFiles
from certs.tls import server_name
from services.cli.zone import Zone


@dataclass(frozen=True)
class Hop:
    """One server of nginx's."""

    port: int
    target: str
    """Where it passes calls on to."""
    name: str
    """What that one must prove to be."""
    shown: SvidFiles
    """What it shows to clients, in place of that one."""
    own: SvidFiles
    """What it shows to that one."""


def _server(number: int, hop: Hop) -> str:
    return f"""\
  upstream hop{number} {{ server {hop.target}; keepalive 64; keepalive_requests 1000000000; keepalive_time 24h; }}
  server {{
    listen {HOST}:{hop.port} ssl http2;
    ssl_certificate {hop.shown.certificate};
    ssl_certificate_key {hop.shown.key};
    ssl_client_certificate {hop.shown.bundle};
    ssl_verify_client on;
    ssl_verify_depth 3;
    location / {{
      grpc_pass grpcs://hop{number};
      grpc_ssl_certificate {hop.own.certificate};
      grpc_ssl_certificate_key {hop.own.key};
      grpc_ssl_trusted_certificate {hop.own.bundle};
      grpc_ssl_verify on;
      grpc_ssl_verify_depth 3;
      grpc_ssl_name {hop.name};
      grpc_ssl_server_name on;
      grpc_ssl_protocols TLSv1.3;
    }}
  }}
"""


def configuration(folder: Path, hops: Sequence[Hop]) -> str:
    """Write nginx's configuration: one worker, nothing logged, connections kept open on both sides."""
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"  {name}_temp_path {folder}/{name};\n" for name in temporary)
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"""\
{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
{paths}\
  ssl_protocols TLSv1.3;
  keepalive_requests 1000000000;
  keepalive_time 24h;
  http2_max_concurrent_streams 1024;
{"".join(_server(number, hop) for number, hop in enumerate(hops))}\
}}
"""


@contextlib.asynccontextmanager
async def six_hops(zone: Zone, behind: bare.Departments) -> AsyncGenerator[tuple[str, Sequence[int]]]:
    """Run nginx before a bare gateway and before each of its departments; gives the address and nginx's pid.

    Raises `PeerMissingError` where nginx is not installed.
    """
    if shutil.which("nginx") is None:
        raise PeerMissingError("nginx is not installed: apt-get install --no-install-recommends nginx")
    folder = behind.folder / "nginx"
    folder.mkdir(exist_ok=True)
    own = zone.credentials("gateway/main")
    hops = [
        _hop(zone, f"{contract.agency_of(t)}/node", a, own)
        for t, a in zip(contract.FIELDS, behind.targets, strict=True)
    ]
    async with bare.gateway(behind, [f"{HOST}:{hop.port}" for hop in hops]) as (target, _):
        front = _hop(zone, "gateway/main", target, own)
        file = folder / "nginx.conf"
        file.write_text(configuration(folder, [*hops, front]))
        command = ("nginx", "-p", str(folder), "-e", "stderr", "-c", str(file))
        async with running(*command, port=front.port, log=folder / "log") as pid:
            yield f"{HOST}:{front.port}", (pid,)


def _hop(zone: Zone, identity: str, target: str, own: SvidFiles) -> Hop:
    name = server_name(zone.identity(identity))
    return Hop(free_port(), target, name, zone.credentials(identity), own)
