"""Fuzzes both ends of a connection with arbitrary frames, from a peer whose certificate stands.

`python -m tests.transport.fuzz_connection [libFuzzer's options]`; `make fuzz` runs it for a while. Whatever comes, no
exception reaches the loop, what is kept stays small, and the connection is fine or closed, with nothing left of its
calls.
"""

import asyncio
import gc
import logging
import ssl
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.transport.fuzzing import Data, fuzz, instrumented

with instrumented("services.kit.transport.nghttp2", "services.kit.rpc"):
    from services.kit.transport.nghttp2 import tls
    from services.kit.transport.nghttp2.calling import ClientConnection
    from services.kit.transport.nghttp2.channel import NgChannel
    from services.kit.transport.nghttp2.server import NgServer
    from services.kit.transport.nghttp2.serving import ServerConnection

from certs.renewed import Renewed
from certs.spiffe import server_name
from certs.svid import SvidFiles
from services.kit.errors import HutongError
from tests.transport import echo, raw
from tests.transport.raw import frame, header_block
from tests.transport.scripts import framed, request, usual
from tests.zone import Zone

MOST_FRAMES = 40
TURNS = 4
"""How often the loop turns for what has been set going to come to something."""


async def turn(times: int = TURNS) -> None:
    """Let the loop turn."""
    for _ in range(times):
        await asyncio.sleep(0)


class Pipe(asyncio.Transport):
    """Stands in the place of TLS over TCP: takes what is written, and closes when told to."""

    def __init__(self, tls: ssl.SSLObject, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"ssl_object": tls})
        self._loop = loop
        self._closing = False
        self.protocol: Any = None
        self.written = 0

    def write(self, data: Any) -> None:
        assert not self._closing
        self.written += len(data)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Troubles(logging.Handler):
    """Keeps what nobody should have had to log, and what reached the loop."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, ZeroDivisionError):  # the echo's own bug, which it was asked for
            self.found.append(f"{record.getMessage()}: {error!r}")

    def heard(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.found.append(f"{context.get('message')}: {context.get('exception')!r}")

    def none(self) -> None:
        found, self.found = self.found, []
        assert not found, found


def agreed(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Do a handshake without a socket; gives both ends of it."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(there, back, server_side=True)
    other = client.wrap_bio(back, there, server_hostname=name)
    for _ in range(4):
        for end in (other, one):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert one.selected_alpn_protocol() == other.selected_alpn_protocol() == "h2"
    return one, other


class Bed:
    """What both ends need that is made once."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.troubles = Troubles()
        self.loop.set_exception_handler(self.troubles.heard)
        logging.getLogger().addHandler(self.troubles)
        logging.getLogger().setLevel(logging.ERROR)
        zone = Zone(Path(tempfile.mkdtemp(prefix="hutong-fuzz-")))
        serving = echo.serving(zone, "nghttp2", echo.Echo())
        host = self.loop.run_until_complete(serving.__aenter__())
        server: Any = host._server  # pyright: ignore[reportPrivateUsage]
        assert isinstance(server, NgServer)
        self.server = server
        self.identity = host.identity
        files: SvidFiles = zone.files(echo.WHO)
        self.svid = files.load()
        contexts = Renewed(zone.files(echo.NODE), tls.server_context)
        self.tls = agreed(contexts.present(), tls.client_context(self.svid), server_name(host.identity))
        self._runs = 0

    def settle(self) -> None:
        """See that nothing went wrong in silence."""
        self._runs += 1
        if self._runs % 200 == 0:
            gc.collect()
        self.troubles.none()


def frames(data: Data, heads: Callable[[Data], raw.Headers]) -> bytes:
    """Make the next frame: what a peer would send, or what it would not."""
    stream = data.PickValueInList([0, 1, 1, 1, 3, 3, 5, 7, 2, 999])
    flags = data.PickValueInList([0, 0, raw.END_STREAM, raw.END_STREAM, 0xFF])
    kind = data.ConsumeIntInRange(0, 11)
    if kind == raw.DATA:
        return frame(raw.DATA, flags, stream, data.ConsumeBytes(40))
    if kind == raw.HEADERS:
        return frame(raw.HEADERS, flags | raw.END_HEADERS, stream, header_block(heads(data)))
    if kind == raw.RST_STREAM:
        return frame(kind, flags, stream, data.ConsumeIntInRange(0, 15).to_bytes(4))
    if kind == raw.SETTINGS:
        values = b"".join(
            data.ConsumeIntInRange(0, 9).to_bytes(2) + data.ConsumeIntInRange(0, 2**32 - 1).to_bytes(4)
            for _ in range(data.ConsumeIntInRange(0, 3))
        )
        return frame(kind, flags & raw.ACK, 0, b"" if flags & raw.ACK else values)
    if kind == raw.WINDOW_UPDATE:
        return frame(kind, 0, stream, data.ConsumeIntInRange(0, 2**31 - 1).to_bytes(4))
    if kind == raw.GOAWAY:
        return frame(kind, 0, 0, stream.to_bytes(4) + data.ConsumeIntInRange(0, 15).to_bytes(4))
    if kind == 10:
        message = data.PickValueInList([b"hello", b"wait", b"bug", b"NotFound x", b""])
        return frame(raw.DATA, flags & raw.END_STREAM, stream, framed(request(message, b"12")))
    if kind == 11:
        return bytes(data.ConsumeBytes(30))
    return frame(kind, flags, stream, bytes(data.ConsumeBytes(20)))


def asked(data: Data) -> raw.Headers:
    """Make the headers of a call, nearly."""
    head = list(usual(data.PickValueInList([echo.UNARY, echo.STREAM, echo.BIDI, "/none"])))
    for _ in range(data.ConsumeIntInRange(0, 2)):
        name = data.PickValueInList([b"grpc-timeout", b"grpc-encoding", b"te", b"x", b"content-length", b":path"])
        head.append((name, data.ConsumeBytes(6)))
    if data.ConsumeIntInRange(0, 7) == 7:
        del head[data.ConsumeIntInRange(0, len(head) - 1)]
    return head


def answered(data: Data) -> raw.Headers:
    """Make the headers of an answer, or its trailers, nearly."""
    names = [b"grpc-status", b"grpc-message", b"grpc-status-details-bin", b"content-type", b"x", b"grpc-encoding"]
    head: list[tuple[bytes, bytes]] = []
    if data.ConsumeBool():
        status = data.PickValueInList([b"200", b"200", b"404", b"100", b"999", b"", b"x"])
        head = [(b":status", status), (b"content-type", b"application/grpc")]
    if data.ConsumeBool():
        head.append((b"grpc-status", data.PickValueInList([b"0", b"5", b"999", b"-1", b"x", b""])))
    for _ in range(data.ConsumeIntInRange(0, 2)):
        head.append((data.PickValueInList(names), data.ConsumeBytes(6)))
    return head


async def talk(data: Data, connection: Any, said: Callable[[], bytes], cancel: Callable[[int], object]) -> None:
    """Feed a connection frame by frame, cut anywhere, while other things happen to it."""
    for _ in range(data.ConsumeIntInRange(0, MOST_FRAMES)):
        written = said()
        at = data.ConsumeIntInRange(0, len(written)) if data.ConsumeBool() else len(written)
        connection.data_received(written[:at])
        what = data.ConsumeIntInRange(0, 15)
        if what < 4:
            await turn(what + 1)
        elif what == 4 and connection.transport is not None:
            connection.pause_writing()
        elif what == 5 and connection.transport is not None:
            connection.resume_writing()
        elif what == 6:
            connection.tend(connection.heard + data.ConsumeIntInRange(0, 1000))
        elif what == 7:
            cancel(data.ConsumeIntInRange(0, 2))
        if connection.transport is None:
            break
        connection.data_received(written[at:])


async def serve(bed: Bed, data: Data) -> None:
    """Be a client of a server's."""
    connection = ServerConnection(bed.server)
    pipe = Pipe(bed.tls[0], bed.loop)
    pipe.protocol = connection
    connection.connection_made(pipe)
    connection.data_received(raw.PREFACE if data.ConsumeIntInRange(0, 9) else data.ConsumeBytes(24))
    if data.ConsumeIntInRange(0, 9):
        connection.data_received(frame(raw.SETTINGS, 0, 0))
    await talk(data, connection, lambda: frames(data, asked), lambda _: connection.leave())
    await turn()
    assert connection.kept < 1 << 20
    connection.abort()
    await turn(12)
    assert not connection.streams
    assert not bed.server.connections
    assert not bed.server.running


async def call(bed: Bed, data: Data) -> None:
    """Be a server of a client's."""
    # Nobody listens on the first port of all: what is to be made again is made in vain.
    channel = NgChannel("127.0.0.1:1", bed.identity, bed.svid, 4096)
    connection = ClientConnection(channel)
    pipe = Pipe(bed.tls[1], bed.loop)
    pipe.protocol = connection
    connection.connection_made(pipe)
    connection.data_received(frame(raw.SETTINGS, 0, 0))
    hidden: Any = channel
    hidden._connection = connection
    hidden._connections.add(connection)

    async def stream(method: str, requests: Any) -> None:
        async for _ in channel.stream(method, requests, 30):
            pass

    async def requests() -> Any:
        for number in range(3):
            yield b"%d" % number
            await asyncio.sleep(0)

    calls: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(channel.unary(echo.UNARY, b"hello", 30)),
        asyncio.ensure_future(stream(echo.STREAM, b"hello")),
        asyncio.ensure_future(stream(echo.BIDI, requests())),
    ]
    await asyncio.sleep(0)
    await talk(data, connection, lambda: frames(data, answered), lambda number: calls[number].cancel())
    await turn()
    connection.abort()
    await channel.close()
    for ended in await asyncio.gather(*calls, return_exceptions=True):
        assert ended is None or isinstance(ended, (bytes, HutongError, asyncio.CancelledError)), repr(ended)
    assert not connection.calls


def main() -> None:
    """Fuzz one end or the other, which the first byte says."""
    bed = Bed()

    def one(which: int, data: Data) -> None:
        bed.loop.run_until_complete((serve if which & 1 else call)(bed, data))
        bed.settle()

    fuzz(one)


if __name__ == "__main__":
    main()
