"""A mesh under mixed load for a long while: what its processes keep, and every error that came.

    python -m bench.soak [--minutes 10] [--transport nghttp2]

Unary calls, sessions and streams by callers of the zone, calls that are cancelled or too short, peers that mean harm,
certificates renewed every minute, policies reloaded. Fails where a process grows by more than `--slope` MB a minute
once it is warm, keeps files open, ends, or where an error came that is not expected.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import uvloop
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from rich.console import Console
from rich.table import Table

from bench import corpus, zones
from bench.watching import Watched, watch
from certs import rotation
from certs.authority import Authority
from certs.spiffe import server_name
from certs.svid import SvidFiles
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli.fleet import Fleet
from services.cli.rooms import GATEWAY, rooms
from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.errors import HutongError, Reason
from services.kit.sessions.asking import AskingSession

SERVICE: Final = "/hutong.api.exchange.v1.FederationService"
WATCH: Final = "/grpc.health.v1.Health/Watch"
SUBJECTS: Final = 500
EVERY: Final = 3.0
"""Seconds between samples."""
ROTATE: Final = 60.0
RELOAD: Final = 20.0
PAUSE: Final = 0.01
"""Seconds between two calls of one loop: the machine is to be busy, not swamped."""
IN_FLIGHT: Final = 32
"""Questions that each session has unanswered."""
SIGNIFICANT: Final = 240.0
"""Seconds of samples below which a slope says nothing: a rotation and a reload each cost a megabyte or two, once."""
FILES: Final = 20
"""Files that a process may have open at the end more than when it was warm: connections come and go."""
WHY: Final = exchange_pb2.RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER")
console = Console()
Loop = Callable[["Soak"], Awaitable[None]]


class Soak:
    """The load, and what came of it."""

    def __init__(self, fleet: Fleet, transport: Any, strangers: SvidFiles, seed: int) -> None:
        """`strangers` is an identity of another zone."""
        self.fleet = fleet
        self.zone = fleet.zone
        self.transport = transport
        self.strangers = strangers
        self.rng = random.Random(seed)
        self.came: Counter[tuple[str, str]] = Counter()
        """By loop and outcome."""
        self.wrong: Counter[str] = Counter()
        self._clients: list[Client] = []

    def client(self, caller: str = zones.CALLER, node: str = GATEWAY) -> Client:
        """Connect to a node as a system of the zone."""
        identity = self.zone.identity(self.fleet.nodes[node].identity)
        made = Client(self.fleet.address(node), identity, self.zone.credentials(caller), transport=self.transport)
        self._clients.append(made)
        return made

    def tell(self, loop: str, outcome: str, *, expected: bool = True) -> None:
        """Count an outcome."""
        self.came[loop, outcome] += 1
        if not expected:
            self.wrong[f"{loop}: {outcome}"] += 1

    async def attempt(self, loop: str, call: Awaitable[object], *expected: Reason) -> None:
        """Await a call; an error that is not among those expected is wrong, and so is none where some are."""
        try:
            await call
        except HutongError as error:
            fine = error.reason in expected
            self.tell(loop, error.reason if fine else f"{error.reason} {error.message}", expected=fine)
        else:
            self.tell(loop, "OK")

    async def forget(self, client: Client) -> None:
        """Close a client before the end."""
        self._clients.remove(client)
        await client.close()

    async def close(self) -> None:
        """Close every client."""
        await asyncio.gather(*(client.close() for client in self._clients))


def question(number: int) -> federation_pb2.QueryRequest:
    """Ask all five departments about an enterprise."""
    return federation_pb2.QueryRequest(
        subject=common_pb2.SubjectId(scheme=corpus.SCHEME, value=corpus.code(number % SUBJECTS)),
        selections=[exchange_pb2.Selection(record_type=name) for name in corpus.TYPES],
        context=WHY,
    )


def whole(answer: federation_pb2.QueryResponse) -> str:
    """Tell which departments did not answer; empty where all did."""
    return " ".join(f"{s.record_type}: {s.reason}" for s in answer.sections if not s.records)


async def unary(soak: Soak) -> None:
    """Ask and be answered."""
    client = soak.client()
    for number in _numbers(soak):
        request = question(number)

        async def ask(request: Message = request) -> None:
            answer = await client.unary(f"{SERVICE}/Query", request, federation_pb2.QueryResponse, timeout=20)
            missing = whole(answer)
            if missing:
                soak.tell("unary", missing, expected=False)

        await soak.attempt("unary", ask())
        await asyncio.sleep(PAUSE)


async def session(soak: Soak) -> None:
    """Keep questions unanswered on a session; begin another one after a while, as its certificate ends."""
    client = soak.client()
    common = question(0)
    common.ClearField("subject")
    prepared = common.SerializeToString()
    while True:
        asking = AskingSession(client.channel(), f"{SERVICE}/Session", federation_pb2.SessionResponse)
        until = time.monotonic() + soak.rng.uniform(5, 25)
        await asyncio.gather(*(_asks(soak, asking, prepared, until) for _ in range(IN_FLIGHT)))
        await asking.close()


async def _asks(soak: Soak, asking: AskingSession, prepared: bytes, until: float) -> None:
    while time.monotonic() < until:
        subject = question(soak.rng.randrange(SUBJECTS)).subject
        rest = federation_pb2.SessionRequest.Ask(subject=subject).SerializeToString()
        told: asyncio.Queue[Any] = asyncio.Queue(1)
        asking.ask(prepared, rest, 20, told.put_nowait)
        came = await told.get()
        problem = f"{came.reason} {came.message}" if isinstance(came, HutongError) else whole(came)
        soak.tell("session", problem or "OK", expected=not problem)
        await asyncio.sleep(PAUSE)


async def streams(soak: Soak) -> None:
    """Ask about several, and read all or leave in the middle."""
    client = soak.client("taxation/refund")
    for number in _numbers(soak):
        subjects = [question(number + n).subject for n in range(1, 5)]
        request = federation_pb2.StreamQueryRequest(query=question(number), subjects=subjects)
        leaves = soak.rng.choice([0, 1, 3, 1000])

        async def read(request: Message = request, leaves: int = leaves) -> None:
            answers: Any = client.stream(
                f"{SERVICE}/StreamQuery", request, federation_pb2.StreamQueryResponse, timeout=20
            )
            async with contextlib.aclosing(answers):
                count = 0
                async for _ in answers:
                    count += 1
                    if count > leaves:
                        return

        await soak.attempt("streams", read())
        await asyncio.sleep(PAUSE)


async def impatient(soak: Soak) -> None:
    """Cancel, or give far too little time."""
    client = soak.client("customs/release")
    late = (Reason.DEPARTMENT_TIMEOUT, Reason.DEADLINE_TOO_SHORT)
    for number in _numbers(soak):
        call = client.unary(f"{SERVICE}/Query", question(number), federation_pb2.QueryResponse, timeout=20)
        task = asyncio.ensure_future(call)
        try:
            await asyncio.sleep(soak.rng.uniform(0, 0.02))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        soak.tell("impatient", "cancelled")
        wait = soak.rng.uniform(0.0005, 0.01)
        call = client.unary(f"{SERVICE}/Query", question(number), federation_pb2.QueryResponse, timeout=wait)
        await soak.attempt("impatient", call, *late)
        await asyncio.sleep(PAUSE)


async def watchers(soak: Soak) -> None:
    """Watch health at every node, and go away."""
    while True:
        for node in soak.fleet.nodes:
            client = soak.client("operator/admin", node)
            watching: Any = client.stream(
                WATCH, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse, timeout=30
            )

            async def first(watching: Any = watching) -> None:
                async with contextlib.aclosing(watching):
                    await anext(watching)

            await soak.attempt("watchers", first())
            await soak.forget(client)
        await asyncio.sleep(0.5)


async def unlisted(soak: Soak) -> None:
    """Call what one may not."""
    client = soak.client("quality/lab", "customs")
    method = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
    while True:
        await soak.attempt("unlisted", client.raw(method, b"\xff", timeout=20), Reason.CALLER_NOT_LISTED)
        await asyncio.sleep(0.05)


async def harmful(soak: Soak) -> None:
    """Be a bad peer of every node: silent, wordy, or of another zone."""
    own = soak.zone.credentials("quality/lab")
    while True:
        node = soak.rng.choice(list(soak.fleet.nodes))
        host, _, port = soak.fleet.address(node).rpartition(":")
        name = server_name(soak.zone.identity(soak.fleet.nodes[node].identity))
        kind = soak.rng.choice(["plain", "silent", "stranger", "garbage", "resets"])
        files = {"plain": None, "silent": own, "stranger": soak.strangers}.get(kind, own)
        try:
            async with asyncio.timeout(10):
                await _harm(soak, kind, host, int(port), _context(files, own) if files else None, name)
            soak.tell("harmful", kind)
        except TimeoutError:
            soak.tell("harmful", f"{kind}, not cut", expected=False)
        except OSError:
            soak.tell("harmful", f"{kind}, cut")
        await asyncio.sleep(0.2)


def _context(files: SvidFiles, trusting: SvidFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusting.bundle)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    return context


async def _harm(soak: Soak, kind: str, host: str, port: int, tls: ssl.SSLContext | None, name: str) -> None:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name if tls else None)
    try:
        if kind in ("plain", "garbage"):
            writer.write(soak.rng.randbytes(soak.rng.randrange(1, 3000)))
        elif kind == "resets":
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
            for stream in range(1, 201, 2):
                # Headers that HPACK has by number (POST, https, /), then a reset: a stream that is opened for nothing.
                writer.write(b"\0\0\3\1\5" + stream.to_bytes(4) + b"\x83\x87\x84")
                writer.write(b"\0\0\4\3\0" + stream.to_bytes(4) + b"\0\0\0\x08")
        await writer.drain()
        if kind in ("garbage", "stranger"):
            # The node has to hang up by itself, or nobody would.
            while await reader.read(65_536):
                pass
        elif kind == "resets":
            await reader.read(65_536)
    finally:
        writer.transport.abort()


async def rotate(soak: Soak) -> None:
    """Renew every certificate of the zone, again and again."""
    while True:
        await asyncio.sleep(ROTATE)
        await asyncio.to_thread(_renew, soak.zone)
        soak.tell("rotate", "OK")


def _renew(zone: Zone) -> None:
    authority = Authority.open(zone.certificates.folder)
    now = dt.datetime.now(dt.UTC)
    for entry in authority.current().values():
        rotation.rotate(authority, entry, now)
    authority.publish_revocations(now)


async def reload(soak: Soak) -> None:
    """Write every policy anew: another file each time, with the same policies in it."""
    texts = {agency: soak.zone.policy(agency).read_text(encoding="utf-8") for agency in rooms()}
    for number in _numbers(soak):
        await asyncio.sleep(RELOAD)
        for agency, text in texts.items():
            soak.zone.policy(agency).write_text(f"{text}\n// {number}\n", encoding="utf-8")
        soak.tell("reload", "OK")


def _numbers(soak: Soak) -> Any:
    return iter(lambda: soak.rng.randrange(1_000_000), -1)


LOOPS: Final[tuple[Loop, ...]] = (
    *(unary, unary, session, streams, impatient, watchers, unlisted, harmful, rotate, reload),
)


async def soaked(folder: Path, options: argparse.Namespace) -> list[str]:
    """Run the load on a zone of its own; gives what was wrong."""
    zone = await zones.made(folder / "zone", SUBJECTS, options.transport)
    stranger = Authority.create(folder / "other", zone.name, dt.datetime.now(dt.UTC))
    foreign = zone.identity("taxation/refund")
    stranger.issue(foreign, dt.datetime.now(dt.UTC))
    died: list[str] = []
    async with Fleet(zone, on_death=lambda node: died.append(node.name)) as fleet:
        watched = {name: Watched(node.process.pid) for name, node in fleet.nodes.items() if node.process}
        soak = Soak(fleet, options.transport, stranger.layout.svid(foreign), options.seed)
        tasks = [asyncio.ensure_future(loop(soak)) for loop in LOOPS]
        sampling = asyncio.ensure_future(watch(watched, EVERY))
        began = time.monotonic()
        done, _ = await asyncio.wait(tasks, timeout=options.minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        ended = time.monotonic()
        for task in (*tasks, sampling):
            task.cancel()
        await asyncio.gather(*tasks, sampling, return_exceptions=True)
        await soak.close()
    warm = began + (ended - began) * options.warm
    wrong = [f"{name} ended" for name in died] + [f"{count} × {what}" for what, count in soak.wrong.most_common(20)]
    wrong += [f"a loop ended: {task.exception()!r}" for task in done]
    return wrong + report(soak, watched, warm, ended - warm, options)


def report(
    soak: Soak, watched: dict[str, Watched], warm: float, seconds: float, options: argparse.Namespace
) -> list[str]:
    """Print what was measured; gives what is more than it may be."""
    wrong: list[str] = []
    table = Table("process", "MB first", "warm", "last", "most", "MB/min", "files warm", "last", "most")
    for name, process in watched.items():
        samples = process.since(warm)
        first, begin, last = process.samples[0], samples[0], samples[-1]
        slope = process.slope(warm)
        most = max(sample.mb for sample in process.samples)
        files = max(sample.files for sample in process.samples)
        numbers = (first.mb, begin.mb, last.mb, most)
        table.add_row(
            name,
            *(f"{number:.0f}" for number in numbers),
            f"{slope:.2f}",
            *(str(number) for number in (begin.files, last.files, files)),
        )
        if slope > options.slope and seconds >= SIGNIFICANT:
            wrong.append(f"{name} grows by {slope:.2f} MB a minute; the bound is {options.slope}")
        if last.files > begin.files + FILES:
            wrong.append(f"{name} has {last.files} files open, {begin.files} when it was warm")
    console.print(table)
    outcomes = Table("loop", "outcome", "times")
    for (loop, outcome), count in sorted(soak.came.items()):
        outcomes.add_row(loop, outcome, str(count))
    console.print(outcomes)
    judged = "" if seconds >= SIGNIFICANT else f", too short to be judged (at least {SIGNIFICANT:.0f} s)"
    console.print(f"slopes over the last {seconds:.0f} s{judged}; seed {options.seed}")
    return wrong


def main() -> None:
    """Soak a mesh."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--transport", choices=("grpcio", "nghttp2"), default="nghttp2")
    parser.add_argument("--slope", type=float, default=1.0, help="most MB a minute that a warm process may grow by")
    parser.add_argument("--warm", type=float, default=0.4, help="share of the time after which processes are warm")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    console.print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="hutong-soak-") as folder:
        wrong = uvloop.run(soaked(Path(folder), options))
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
