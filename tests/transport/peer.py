"""A server that writes HTTP/2 frames by hand, right or wrong, as a test tells it to: what channels must cope with."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, cast

import hpack

from certs.svid import SvidFiles
from services.kit.config import Transport
from services.kit.transport import choice
from services.kit.transport.nghttp2.framing import frame as framed
from services.kit.transport.seam import Channel
from tests.transport.raw import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    GOAWAY,
    HEADERS,
    LIMIT,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WIDE,
    WINDOW_UPDATE,
    Headers,
    frame,
    header_frames,
)
from tests.zone import Zone

NODE: Final = "customs/node"
WHO: Final = "taxation/refund"
OK: Final = ((b"grpc-status", b"0"),)
HEAD: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
MOST: Final = 1 << 20
"""Bytes of the largest answer that channels to a peer accept."""


@dataclass
class Asked:
    """What came on one stream."""

    headers: dict[bytes, bytes]
    body: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The client has said all."""
    reset: int | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """The client has cut it, or has gone."""


class Line:
    """One connection."""

    def __init__(self, peer: "Peer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = peer
        self.reader = reader
        self.writer = writer
        self.streams: dict[int, Asked] = {}
        self.given: dict[int, int] = {}
        """Bytes of window that the client gave, by stream, since the beginning."""
        self.stream_window = 65_535
        self.sent: dict[int, int] = {}
        """Bytes of data that `send` sent, by stream."""
        self.pings = 0
        self.answered_pings = 0
        self.goaway: int | None = None
        """The code that the client took leave with."""
        self.gone = asyncio.Event()
        self.news = asyncio.Event()
        """Set at every frame."""
        self._decoder = hpack.Decoder()
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, data: bytes) -> None:
        """Send bytes as they are; in vain where the client has gone."""
        if not self.gone.is_set():
            self.writer.write(data)

    def head(self, stream: int, headers: Headers = HEAD, *, end: bool = False) -> None:
        """Send headers, or trailers."""
        self.write(header_frames(stream, headers, end=end))

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send data, whatever the client's windows are."""
        for at in range(0, max(len(data), 1), FRAME):
            last = at + FRAME >= len(data)
            self.write(frame(DATA, END_STREAM if end and last else 0, stream, data[at : at + FRAME]))

    async def send(self, stream: int, data: bytes) -> int:
        """Send data as the client lets us, and stop where it has let nothing more in for a while of other talk.

        Gives how much was sent.
        """
        sent = 0
        while sent < len(data):
            room = self.stream_window + self.given.get(stream, 0) - self.sent.get(stream, 0)
            part = data[sent : sent + min(room, FRAME)]
            if part:
                sent += len(part)
                self.sent[stream] = self.sent.get(stream, 0) + len(part)
                self.write(frame(DATA, 0, stream, part))
            elif not await self.echoed():
                break
        return sent

    async def echoed(self) -> bool:
        """Wait until the client has seen all that was sent; tells whether anything else than that came meanwhile."""
        before = dict(self.given)
        self.answered_pings = 0
        self.write(frame(PING, 0, 0, b"seen????"))
        await self.until(lambda: self.answered_pings > 0)
        return before != self.given

    def answer(self, stream: int, *messages: bytes, trailers: Headers = OK) -> None:
        """Answer as a server should."""
        self.head(stream)
        self.data(stream, b"".join(map(framed, messages)))
        self.head(stream, trailers, end=True)

    def reset(self, stream: int, code: int) -> None:
        self.write(frame(RST_STREAM, 0, stream, code.to_bytes(4)))

    def leave(self, last: int, code: int = 0) -> None:
        """Send GOAWAY: no stream after `last` was, or will be, looked at."""
        self.write(frame(GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4)))

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.writer.transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, which is looked at whenever something came."""
        async with asyncio.timeout(LIMIT):
            while not condition():
                assert not self.gone.is_set(), "the client has gone"
                self.news.clear()
                await self.news.wait()

    async def left(self) -> None:
        """Wait until the client has closed the connection."""
        async with asyncio.timeout(LIMIT):
            await self.gone.wait()

    async def run(self) -> None:
        """Read what comes, and have each request answered."""
        try:
            assert await self.reader.readexactly(len(PREFACE)) == PREFACE
            if self.peer.mute:
                await self.reader.read()
            parting = self.peer.parting
            self.write(frame(SETTINGS, 0, 0, _settings(self.peer.settings)) + (parting or b""))
            if parting is not None:
                self.writer.close()
                return
            self.write(frame(WINDOW_UPDATE, 0, 0, (WIDE - 65_535).to_bytes(4)))
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
                if not self.peer.deaf:
                    self._take(head[3], head[4], int.from_bytes(head[5:]) & WIDE, payload)
                self.news.set()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.gone.set()
            self.news.set()
            for asked in self.streams.values():
                asked.over.set()
            for task in self._tasks:
                task.cancel()
            self.writer.transport.abort()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                if payload[at + 1] == 4:
                    self.stream_window = int.from_bytes(payload[at + 2 : at + 6])
            self.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.pings += 1
            self.write(frame(PING, ACK, 0, payload))
        elif kind == PING:
            self.answered_pings += 1
        elif kind == WINDOW_UPDATE:
            self.given[stream] = self.given.get(stream, 0) + int.from_bytes(payload)
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8])
        elif kind == HEADERS:
            self._asked(flags, stream, payload)
        elif kind == DATA:
            self.streams[stream].body += payload
        elif kind == RST_STREAM:
            self.streams[stream].reset = int.from_bytes(payload)
            self.streams[stream].over.set()
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.streams[stream].ended.set()

    def _asked(self, flags: int, stream: int, payload: bytes) -> None:
        assert flags & END_HEADERS
        decoded = cast("Iterable[tuple[bytes, bytes]]", self._decoder.decode(payload, raw=True))
        self.streams[stream] = Asked({bytes(name): bytes(value) for name, value in decoded})
        task = asyncio.ensure_future(self.peer.script(self, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


Script = Callable[[Line, int], Awaitable[None]]
"""What is done about each stream that is opened, at once, before its request is whole."""


async def echo(line: Line, stream: int) -> None:
    """Answer with the request."""
    asked = line.streams[stream]
    await asked.ended.wait()
    line.answer(stream, bytes(asked.body[5:]))


async def nothing(line: Line, stream: int) -> None:
    """Do not answer."""


class Peer:
    """A server of many connections."""

    def __init__(self, zone: Zone, script: Script) -> None:
        self.zone = zone
        self.script: Script = script
        self.settings: dict[int, int] = {4: WIDE}
        """Settings that clients are told: a wide window for every stream, to begin with."""
        self.deaf = False
        """Takes nothing in any more, and answers nothing, not even a ping."""
        self.mute = False
        """Says nothing at all, not even its settings."""
        self.parting: bytes | None = None
        """What is said after the settings, and then the connection closed."""
        self.refusing = False
        """Closes connections before a word of HTTP/2."""
        self.lines: list[Line] = []
        self.accepted: list[float] = []
        """When connections came, the refused ones with them."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._more = asyncio.Event()

    async def start(self, *, alpn: str = "h2") -> None:
        """Listen; on the port of last time, where there was one."""
        files = self.zone.files(NODE)
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=_context(files, alpn), ssl_shutdown_timeout=0.1
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Hang up on everybody, and stop listening."""
        if self._server is not None:
            self._server.close()
            for line in self.lines:
                line.hang_up()
            await self._server.wait_closed()

    async def line(self, number: int = 0) -> Line:
        """Wait for a connection, by its number."""
        async with asyncio.timeout(LIMIT):
            while len(self.lines) <= number:
                self._more.clear()
                await self._more.wait()
        return self.lines[number]

    async def asked(self, stream: int = 1, number: int = 0) -> tuple[Line, Asked]:
        """Wait for a stream on a connection."""
        line = await self.line(number)
        await line.until(lambda: stream in line.streams)
        return line, line.streams[stream]

    @contextlib.asynccontextmanager
    async def channel(self, transport: Transport = "nghttp2", most: int = MOST) -> AsyncGenerator[Channel]:
        """Call it."""
        svid = self.zone.files(WHO).load()
        made = choice.channel(transport)(f"127.0.0.1:{self.port}", self.zone.identity(NODE), svid, most)
        try:
            yield made
        finally:
            await made.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append(time.monotonic())
        if self.refusing:
            writer.transport.abort()
            return
        line = Line(self, reader, writer)
        self.lines.append(line)
        self._more.set()
        await line.run()


@contextlib.asynccontextmanager
async def listening(zone: Zone, script: Script = echo) -> AsyncGenerator[Peer]:
    """Run a peer as `customs/node`."""
    peer = Peer(zone, script)
    await peer.start()
    try:
        yield peer
    finally:
        await peer.stop()


def _settings(settings: dict[int, int]) -> bytes:
    return b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in settings.items())


def _context(files: SvidFiles, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.bundle)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([alpn])
    return context
