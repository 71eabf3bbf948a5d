"""A node under h2load: unary calls over many connections and streams, and how the node is afterwards.

    python -m bench.hammer [--seconds 10] [--connections 8] [--streams 32] [--transport nghttp2]

h2load (Debian's nghttp2-client) cannot show a certificate: it speaks plain HTTP/2 to a forwarder beside it, which puts
mutual TLS around each of its connections. It counts HTTP statuses; what gRPC said is read from the node's metrics,
which leave out calls that were refused for being too many. Fails where an unexpected status came, the node does not
serve afterwards, or does not let go of memory and descriptors.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import ssl
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import uvloop
from grpc_health.v1 import health_pb2
from rich.console import Console
from rich.table import Table

from bench import corpus, zones
from bench.watching import Watched
from certs.spiffe import server_name
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli.fleet import Fleet
from services.cli.rooms import GATEWAY
from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.errors import HutongError

CHECK: Final = "/grpc.health.v1.Health/Check"
QUERY: Final = "/hutong.api.exchange.v1.FederationService/Query"
SUBJECTS: Final = 200
GROWTH_MB: Final = 40.0
"""Memory that the hardest phase may leave behind in a process: allocators give back what they like."""
GROWTH_FILES: Final = 8
SETTLE: Final = 5.0
"""Seconds after which what belonged to a connection that has gone is to be let go of."""
console = Console()


@dataclass(frozen=True)
class Phase:
    """One kind of load."""

    name: str
    method: str
    body: bytes
    connections: int
    streams: int
    refused: bool = False
    """There are more calls than one caller may have: refusals are expected."""


@dataclass(frozen=True)
class Came:
    """What came of a phase."""

    requests: int
    per_second: float
    statuses: Counter[str]
    """gRPC statuses, as the node counted them."""
    other: int
    """Requests without HTTP status 200."""


async def forward(zone: Zone, caller: str, host: str, port: int) -> tuple[asyncio.Server, int]:
    """Listen for plain connections, and put the mutual TLS of a caller's around each."""
    files = zone.credentials(caller)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(files.bundle)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    name = server_name(zone.identity("gateway/main"))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(256 * 1024):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
        except OSError as error:
            console.print(f"no connection: {error}")
            writer.close()
            return
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def forwarding(zone: Path, target: str, caller: str) -> None:
    """Forward until killed; says its port on standard output. A process of its own, or it would slow the node's."""
    host, _, port = target.rpartition(":")
    server, own = await forward(Zone.open(zone), caller, host, int(port))
    sys.stdout.write(f"{own}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextlib.asynccontextmanager
async def forwarder(zone: Zone, target: str, caller: str) -> AsyncGenerator[int]:
    """Run a forwarder; gives its port."""
    arguments = ("-m", "bench.hammer", "--forward", str(zone.folder), target, caller)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def h2load(phase: Phase, port: int, seconds: float, folder: Path) -> tuple[str, int]:
    """Run h2load; gives what it printed, and how it exited."""
    body = folder / "body"
    body.write_bytes(b"\0" + len(phase.body).to_bytes(4) + phase.body)
    process = await asyncio.create_subprocess_exec(
        "h2load",
        f"--duration={seconds:g}",
        f"--clients={phase.connections}",
        f"--max-concurrent-streams={phase.streams}",
        f"--data={body}",
        *("--header=content-type: application/grpc", "--header=te: trailers", "--header=grpc-timeout: 10S"),
        f"http://127.0.0.1:{port}{phase.method}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return printed.decode(), process.returncode or 0


def counted(metrics: str, method: str) -> Counter[str]:
    """Read from a node's metrics how many calls of a method ended how."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(rf'hutong_call_seconds_count{{code="(\w+)",rpc="{re.escape(method)}"}} ([0-9.e+]+)', text)
    return Counter({code: int(float(number)) for code, number in found})


def query() -> bytes:
    """Write a question about one enterprise to all five departments."""
    return federation_pb2.QueryRequest(
        subject=common_pb2.SubjectId(scheme=corpus.SCHEME, value=corpus.code(7)),
        selections=[exchange_pb2.Selection(record_type=name) for name in corpus.TYPES],
        context=exchange_pb2.RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER"),
    ).SerializeToString()


def phases(connections: int, streams: int) -> list[Phase]:
    """What is done, one after the other."""
    health = health_pb2.HealthCheckRequest().SerializeToString()
    return [
        Phase("health", CHECK, health, connections, streams),
        Phase("query", QUERY, query(), max(1, connections // 2), max(1, streams // 2)),
        # Many connections, each with as many streams as it may have, are more calls than one caller may have.
        Phase("too many", CHECK, health, connections * 8, 1000, refused=True),
        Phase("garbage", QUERY, b"\xff" * 200, connections, streams, refused=True),
    ]


async def hammer(fleet: Fleet, phase: Phase, port: int, seconds: float, folder: Path) -> Came:
    """Run one phase."""
    metrics = fleet.nodes[GATEWAY].config.node.metrics
    assert metrics is not None
    before = await asyncio.to_thread(counted, metrics, phase.method)
    printed, code = await h2load(phase, port, seconds, folder)
    after = await asyncio.to_thread(counted, metrics, phase.method)
    done = re.search(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed", printed)
    rate = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", printed)
    if code or not done or not rate:
        raise RuntimeError(f"h2load: {code}\n{printed}")
    return Came(int(done[3]), float(rate[1]), after - before, int(done[2]) - int(done[3]))


def unexpected(phase: Phase, came: Came) -> list[str]:
    """Tell what should not have come."""
    known = {"OK"} if not phase.refused else {"OK", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}
    # What was under way when h2load hung up was cancelled.
    known.add("CANCELLED")
    found = [f"{phase.name}: {count} × {code}" for code, count in came.statuses.items() if code not in known]
    if came.other:
        found.append(f"{phase.name}: {came.other} answers without status 200")
    if not came.requests:
        found.append(f"{phase.name}: no answers")
    return found


async def serves(client: Client, phase: str = "at first") -> list[str]:
    """See that the gateway answers somebody else; tells what came instead, a few times."""
    wrong: list[str] = []
    for _ in range(5):
        try:
            answer = await client.unary(QUERY, query(), federation_pb2.QueryResponse, timeout=10)
        except HutongError as error:
            wrong.append(f"{phase}: somebody else was told {error.reason}, {error.message}")
            await asyncio.sleep(1)
            continue
        if len([section for section in answer.sections if section.records]) < len(corpus.TYPES):
            wrong.append(f"{phase}: somebody else got half an answer")
        break
    return wrong


async def measure(folder: Path, options: argparse.Namespace) -> list[str]:
    """Hammer the gateway of a zone; gives what was wrong."""
    zone = await zones.made(folder / "zone", SUBJECTS, options.transport)
    wrong: list[str] = []
    table = Table("phase", "connections × streams", "answers", "answers/s", "statuses", "MB after", "files after")
    async with Fleet(zone) as fleet, forwarder(zone, fleet.address(GATEWAY), "taxation/refund") as port:
        process = fleet.nodes[GATEWAY].process
        assert process is not None
        watched = Watched(process.pid)
        other = fleet.client(zones.CALLER)
        wrong += await serves(other)
        # The first phase once for nothing: pools and caches are filled by it.
        todo = phases(options.connections, options.streams)
        for phase in todo[:2]:
            await hammer(fleet, phase, port, 3, folder)
        await asyncio.sleep(SETTLE)
        watched.look()
        for phase in todo:
            came = await hammer(fleet, phase, port, options.seconds, folder)
            wrong += unexpected(phase, came)
            wrong += await serves(other, phase.name)
            await asyncio.sleep(SETTLE)
            watched.look()
            last = watched.samples[-1]
            statuses = ", ".join(f"{count} {code}" for code, count in came.statuses.items())
            load = f"{phase.connections} × {phase.streams}"
            answers = (str(came.requests), f"{came.per_second:.0f}")
            table.add_row(phase.name, load, *answers, statuses, f"{last.mb:.0f}", str(last.files))
        first, last = watched.samples[0], watched.samples[-1]
    console.print(table)
    console.print(f"gateway before: {first.mb:.0f} MB, {first.files} files")
    if last.mb - first.mb > GROWTH_MB:
        wrong.append(f"the gateway kept {last.mb - first.mb:.0f} MB")
    if last.files - first.files > GROWTH_FILES:
        wrong.append(f"the gateway kept {last.files - first.files} files open")
    return wrong


def main() -> None:
    """Hammer a node."""
    parser = argparse.ArgumentParser(prog="python -m bench.hammer", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="length of each phase")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--streams", type=int, default=32, help="concurrent calls of each connection")
    parser.add_argument("--transport", choices=("grpcio", "nghttp2"), default="nghttp2")
    parser.add_argument("--forward", nargs=3, metavar=("ZONE", "TARGET", "CALLER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.forward:
        zone, target, caller = options.forward
        uvloop.run(forwarding(Path(zone), target, caller))
        return
    if not shutil.which("h2load"):
        sys.exit("h2load is not here: apt-get install --no-install-recommends nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="hutong-hammer-") as folder:
        wrong = uvloop.run(measure(Path(folder), options))
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
