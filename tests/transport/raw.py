"""A client that writes HTTP/2 frames by hand, right or wrong, and tells what came back, frame by frame.

It knows nothing of gRPC, keeps none of a client's promises unless told to, and judges nothing: that is for tests.
"""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self, cast

import hpack

from certs.spiffe import SpiffeId, server_name
from certs.svid import SvidFiles

Headers = Sequence[tuple[bytes, bytes]]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
FRAME: Final = 16_384
"""Bytes of the largest frame that every peer takes."""
WIDE: Final = 2**31 - 1
"""The widest window there is."""
LIMIT: Final = 20.0
"""Seconds after which a peer that has said nothing is taken to say nothing any more: tests fail then."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def header_block(headers: Headers) -> bytes:
    """Write headers as HPACK has them that nobody has to remember: literal, not indexed, not Huffman coded."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def header_frames(stream: int, headers: Headers, *, end: bool = False) -> bytes:
    """Write headers as a frame, or several where they are long."""
    block = header_block(headers)
    parts = [block[at : at + FRAME] for at in range(0, len(block), FRAME)] or [b""]
    written = b""
    for number, part in enumerate(parts):
        kind = CONTINUATION if number else HEADERS
        flags = (END_STREAM if end and not number else 0) | (END_HEADERS if number == len(parts) - 1 else 0)
        written += frame(kind, flags, stream, part)
    return written


def _text(value: bytes) -> bytes:
    """Write a string: its length with a prefix of seven bits (RFC 7541, 5.1), then itself."""
    length = len(value)
    if length < 127:
        return bytes((length,)) + value
    written = bytearray((127,))
    length -= 127
    while length > 127:
        written.append(length & 127 | 128)
        length >>= 7
    written.append(length)
    return bytes(written) + value


@dataclass
class Stream:
    """What came back on one stream."""

    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list[list[tuple[bytes, bytes]]])
    """Every header list, in the order they came: usually two, or one where there are only trailers."""
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """The peer said that it was done."""
    reset: int | None = None
    """The code that the peer cut it with."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing more will come: it has ended, was cut, or the connection is gone."""
    window: int = 65_535
    """Bytes that may be sent."""


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.streams: dict[int, Stream] = {}
        self.settings: dict[int, int] = {}
        """What the peer said of itself."""
        self.goaway: int | None = None
        """The code that the peer took leave with."""
        self.pings: set[bytes] = set()
        """Pings that the peer has answered."""
        self.gone = asyncio.Event()
        """The peer has closed the connection."""
        self._news = asyncio.Event()
        self._window = 65_535
        self._decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self._next = 1
        self._deaf = False
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def connect(cls, port: int, server: SpiffeId, files: SvidFiles) -> Self:
        """Connect over mutual TLS, without a word of HTTP/2."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(files.bundle)
        context.load_cert_chain(files.certificate, files.key)
        context.set_alpn_protocols(["h2"])
        name = server_name(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        return cls(reader, writer)

    @classmethod
    async def greeted(cls, port: int, server: SpiffeId, files: SvidFiles) -> Self:
        """Connect and exchange settings as a client should; every window is as wide as it can be."""
        made = await cls.connect(port, server, files)
        # 4: INITIAL_WINDOW_SIZE, 5: MAX_FRAME_SIZE.
        settings = (4).to_bytes(2) + WIDE.to_bytes(4) + (5).to_bytes(2) + FRAME.to_bytes(4)
        made.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        made.write(frame(WINDOW_UPDATE, 0, 0, (WIDE - 65_535).to_bytes(4)))
        return made

    @property
    def certificate(self) -> bytes:
        """The peer's, DER."""
        found = cast("ssl.SSLObject", self._writer.get_extra_info("ssl_object")).getpeercert(binary_form=True)
        assert found is not None
        return found

    @property
    def alive(self) -> bool:
        """Whether new streams may be opened."""
        return not self.gone.is_set() and self.goaway is None

    def write(self, data: bytes) -> None:
        """Send bytes as they are; in vain where the peer has gone."""
        if not self.gone.is_set():
            self._writer.write(data)

    async def drain(self) -> None:
        """Wait while much of what was written is still to be sent; not for a peer that takes nothing at all."""
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(0.5):
                await self._writer.drain()
        await asyncio.sleep(0)

    def following(self, number: int) -> None:
        """Have the next stream that is opened be this one: those before it were written by hand."""
        self._next = number

    def open(self, headers: Headers, *, end: bool = False) -> int:
        """Open a stream; gives its number."""
        number = self._next
        self._next += 2
        self.streams[number] = Stream(window=self.settings.get(4, 65_535))
        self.write(header_frames(number, headers, end=end))
        return number

    async def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send data as the peer's windows allow; stops where the peer wants no more."""
        stream = self.streams[number]
        while True:
            part = data[: max(0, min(FRAME, self._window, stream.window))]
            if part or not data:
                self._window -= len(part)
                stream.window -= len(part)
                data = data[len(part) :]
                self.write(frame(DATA, END_STREAM if end and not data else 0, number, part))
                if not data:
                    return
            elif stream.over.is_set():
                return
            else:
                self._news.clear()
                await self._wait(self._news)

    def cut(self, number: int, code: int) -> None:
        """Reset a stream; what still comes on it is of no interest."""
        self.write(frame(RST_STREAM, 0, number, code.to_bytes(4)))
        self.streams[number].over.set()

    async def over(self, number: int) -> Stream:
        """Wait until nothing more will come on a stream."""
        stream = self.streams[number]
        await self._wait(stream.over)
        return stream

    async def ping(self, data: bytes = b"12345678") -> None:
        """Wait until the peer answers a ping; raises `ConnectionError` where it goes instead."""
        self.pings.discard(data)
        self.write(frame(PING, 0, 0, data))
        while data not in self.pings:
            if self.gone.is_set():
                raise ConnectionError("the peer has closed the connection")
            self._news.clear()
            await self._wait(self._news)

    def deafen(self) -> None:
        """Read nothing more: what the peer writes stays where it is."""
        self._reading.cancel()
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # pyright: ignore
        self._deaf = True

    @property
    def cut_off(self) -> bool:
        """Whether a write has found the connection gone: who is deaf hears of it in no other way."""
        return self._writer.is_closing()

    async def left(self) -> None:
        """Wait until the peer has closed the connection."""
        await self._wait(self.gone)

    async def close(self) -> None:
        """Close."""
        if self._deaf:
            # Whoever reads nothing does not come to know of the other end's goodbye.
            self._writer.transport.abort()
        self._writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _wait(self, event: asyncio.Event) -> None:
        async with asyncio.timeout(LIMIT):
            await event.wait()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                self._take(head[3], head[4], int.from_bytes(head[5:]) & WIDE, payload)
                self._news.set()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.gone.set()
            self._news.set()
            for stream in self.streams.values():
                stream.over.set()

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        stream = self.streams.get(number) or Stream()
        if kind == SETTINGS and not flags & ACK:
            self._set(payload)
        elif kind == PING:
            self.pings.add(payload) if flags & ACK else self.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self._leave(int.from_bytes(payload[:4]), int.from_bytes(payload[4:8]))
        elif kind == WINDOW_UPDATE:
            self._widen(stream, number, int.from_bytes(payload))
        elif kind == HEADERS:
            # Nobody that we talk to has so many headers that they need another frame.
            assert flags & END_HEADERS
            decoded = self._decoder.decode(payload, raw=True)
            stream.headers.append([(bytes(n), bytes(v)) for n, v in cast("Iterable[tuple[bytes, bytes]]", decoded)])
        elif kind == DATA:
            stream.body += payload
        elif kind == RST_STREAM:
            stream.reset = int.from_bytes(payload)
            stream.over.set()
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            stream.ended = True
            stream.over.set()

    def _set(self, payload: bytes) -> None:
        before = self.settings.get(4, 65_535)
        for at in range(0, len(payload), 6):
            self.settings[int.from_bytes(payload[at : at + 2])] = int.from_bytes(payload[at + 2 : at + 6])
        for stream in self.streams.values():
            stream.window += self.settings.get(4, 65_535) - before
        self.write(frame(SETTINGS, ACK, 0))

    def _widen(self, stream: Stream, number: int, by: int) -> None:
        if number:
            stream.window += by
        else:
            self._window += by

    def _leave(self, last: int, code: int) -> None:
        self.goaway = code
        for number, stream in self.streams.items():
            if number > last:
                stream.over.set()
