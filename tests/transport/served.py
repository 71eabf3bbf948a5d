"""A server on libnghttp2 with an echo behind it, for clients that write frames by hand."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from certs.revocation import RevocationList
from certs.verify import PeerVerifier
from hutong.api.exchange.v1.exchange_pb2 import SignedContext
from services.kit.access import AccessList
from services.kit.clock import system_clock
from services.kit.config import LimitsSection, TelemetrySection
from services.kit.interceptors import Access, Context, Errors
from services.kit.rates import Rates
from services.kit.rpc import Call, Dispatcher, served
from services.kit.shedding import Lateness, Shedding
from services.kit.telemetry import Telemetry, Trace
from services.kit.transport.nghttp2 import headers
from services.kit.transport.nghttp2.bounds import Timing
from services.kit.transport.nghttp2.framing import frame as framed
from services.kit.transport.nghttp2.server import NgServer
from services.kit.transport.seam import Admission
from tests.transport import echo
from tests.transport.echo import LIMITS, NODE, SERVICE, UNARY, WHO, Echo
from tests.transport.raw import LIMIT, Raw, Stream
from tests.zone import ZONE, Zone

PIECE: Final = 64 * 1024
"""Bytes of a message that a spring gives."""


class Room(Echo):
    """An echo that streams without end where it is asked to, and takes requests only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.running: int = 0
        self.given = 0
        """Messages that a spring has given."""
        self.taken = 0
        """Requests that were taken of streams."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def unary(self, request: SignedContext, call: Call) -> Message:
        if request.payload == b"cancelled":
            raise asyncio.CancelledError
        if request.payload == b"large":
            self.calls.append(call)
            return SignedContext(payload=bytes(PIECE))
        return await super().unary(request, call)

    async def stream(self, request: SignedContext, call: Call) -> AsyncIterator[Message]:
        if request.payload != b"spring":
            async for answer in super().stream(request, call):
                yield answer
            return
        self.running += 1
        try:
            while True:
                self.given += 1
                yield SignedContext(payload=bytes(PIECE))
        finally:
            self.running -= 1

    async def bidi(self, requests: AsyncIterator[SignedContext], call: Call) -> AsyncIterator[Message]:
        async def through() -> AsyncIterator[SignedContext]:
            await self.gate.wait()
            async for request in requests:
                self.taken += 1
                yield request
                await self.gate.wait()

        self.running += 1
        try:
            async for answer in super().bidi(through(), call):
                yield answer
        finally:
            self.running -= 1


def made(zone: Zone, room: Echo, limits: LimitsSection = LIMITS, timing: Timing | None = None) -> NgServer:
    """Make a server as nodes have them, but for what carries their logs; not started."""
    rpcs = echo.rpcs(room)
    names = [rpc.name for rpc in rpcs]
    access = AccessList({SERVICE: {name: ["taxation/*"] for name in names}}, served(rpcs))
    tls = zone.tls(NODE)
    verifier = PeerVerifier(ZONE, RevocationList(tls.revoked, tls.bundle), system_clock)
    context = Context(limits.deadline.total_seconds())
    trace = Trace(Telemetry("customs/node", TelemetrySection()))
    dispatcher = Dispatcher(
        trace,
        Shedding(Rates(1e9, 1e9), Rates(1e9, 1e9), Lateness(60)),
        Access(access),
        Errors(),
        context,
        limits.request_bytes,
    )
    admission = Admission(verifier, limits, lambda _rpc, _reason: None)
    return NgServer("127.0.0.1:0", rpcs, dispatcher, admission, zone.files(NODE), limits, timing)


@contextlib.asynccontextmanager
async def serving(
    zone: Zone, room: Echo, limits: LimitsSection = LIMITS, timing: Timing | None = None
) -> AsyncGenerator[NgServer]:
    """Run a server."""
    server = made(zone, room, limits, timing)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def connected(zone: Zone, port: int, who: str = WHO) -> AsyncGenerator[Raw]:
    """Connect a client to it that has exchanged settings."""
    raw = await Raw.greeted(port, zone.identity(NODE), zone.files(who))
    try:
        yield raw
    finally:
        await raw.close()


def asking(method: str = UNARY, *more: tuple[bytes, bytes], timeout: str = "") -> list[tuple[bytes, bytes]]:
    """Write the headers of a call."""
    found = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", method.encode()),
        (b":authority", b"node"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    if timeout:
        found.append((b"grpc-timeout", timeout.encode()))
    return [*found, *more]


def message(payload: bytes, signature: bytes = b"") -> bytes:
    """Write a request as it goes over the wire."""
    return framed(SignedContext(payload=payload, signature=signature).SerializeToString())


async def ask(raw: Raw, payload: bytes, method: str = UNARY, *, signature: bytes = b"", timeout: str = "") -> Stream:
    """Make a call with one request, and wait for its end."""
    number = raw.open(asking(method, timeout=timeout))
    await raw.send(number, message(payload, signature), end=True)
    return await raw.over(number)


def payloads(stream: Stream) -> list[bytes]:
    """Read the messages that came."""
    found: list[bytes] = []
    body = bytes(stream.body)
    while body:
        assert body[0] == 0, "a message is compressed"
        end = 5 + int.from_bytes(body[1:5])
        assert len(body) >= end, "a message is not whole"
        found.append(SignedContext.FromString(body[5:end]).payload)
        body = body[end:]
    return found


def status(stream: Stream) -> int:
    """Read how a call ended: its `grpc-status`."""
    assert stream.headers, f"no headers came; reset {stream.reset}"
    return int(_last(stream)[b"grpc-status"])


def reason(stream: Stream) -> str:
    """Read the reason of a refusal, which is the same in every place that says it."""
    last = _last(stream)
    details = headers.read_details(last[b"grpc-status-details-bin"])
    assert details is not None
    found = status_pb2.Status.FromString(details)
    assert found.code == int(last[b"grpc-status"])
    assert headers.percent_decode(last[b"grpc-message"]) == f"hutong: {found.message}"
    info = error_details_pb2.ErrorInfo()
    assert found.details[0].Unpack(info)
    return str(info.reason)


def _last(stream: Stream) -> dict[bytes, bytes]:
    return dict(stream.headers[-1])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds in this very process."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - whatever changes it tells nobody
            await asyncio.sleep(0.001)
