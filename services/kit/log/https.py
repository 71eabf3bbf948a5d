"""The log as static tiles over HTTPS (C2SP tlog-tiles), to members of the zone: mutual TLS 1.3, GET and HEAD only.

As small as it can be: HTTP/1.1 with keep-alive, no bodies in, no ranges, no compression. The peer's certificate is
verified in full before every answer (`certs.verify`); hashes are for every member, entries for the log's readers.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from certs.contexts import show
from certs.errors import CertificateError
from certs.renewed import Renewed
from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidFiles
from services.kit.caller import Caller
from services.kit.errors import FailedPrecondition, HutongError, InvalidArgument, NotFound, PermissionDenied, Reason
from services.kit.log.service import check_reader
from services.kit.log.tiles import CHECKPOINT, Tile

MAX_HEAD: Final = 8 * 1024
"""Most bytes of a request line with its headers."""

MAX_HEADERS: Final = 32
"""Most headers of a request."""

_LONGEST_PATH: Final = 64
_PIECE: Final = 64 * 1024
_GOODBYE: Final = 2.0
"""Seconds for a connection to end in good order."""
_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"
_FRESH: Final = "no-cache"
_FOREVER: Final = "max-age=31536000, immutable"
_log = logging.getLogger(__name__)


class Tiles(Protocol):
    """What is served: a log."""

    async def checkpoint(self) -> str:
        """Give the newest checkpoint; empty where there is none."""
        ...

    async def tile(self, wanted: Tile, /) -> bytes:
        """Give a tile; raises `NotFound`."""
        ...


class Verifier(Protocol):
    """Verifies a peer's certificate (`certs.verify.PeerVerifier`)."""

    def verify(self, pem: bytes, /) -> SpiffeId:
        """Return the identity or raise `CertificateError`."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of whom is borne; times are seconds."""

    connections: int = 64
    """At a time, those that still shake hands included; one caller may have half of them."""
    handshake: float = 5.0
    """For the handshake."""
    idle: float = 30.0
    """For a request to come in whole, counted from the answer before it."""
    sending: float = 30.0
    """For an answer to be taken."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    close: bool
    """The client wants the connection closed after the answer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes = b""
    kind: str = _TEXT
    caching: str = "no-store"

    def head(self, close: bool) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            f"Cache-Control: {self.caching}",
            "X-Content-Type-Options: nosniff",
        ]
        if self.status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        if close:
            lines.append("Connection: close")
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


@dataclass(slots=True)
class _Peer:
    """The other end of a connection."""

    certificate: bytes
    """As the handshake proved it, PEM."""
    connection: contextlib.ExitStack
    """What is held for as long as the connection lasts."""


class _Refused(Exception):
    """A request that is none: answered, and the connection closed."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class TileServer:
    """Serves a log's tiles on one address."""

    def __init__(
        self,
        address: str,
        tiles: Tiles,
        files: SvidFiles,
        verifier: Verifier,
        readers: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """`readers` are identities (`agency/system`) that may have entries."""
        self._address = address
        self._tiles = tiles
        self._files = files
        self._verifier = verifier
        self._readers = frozenset(readers)
        self._limits = limits or Limits()
        self._free = asyncio.Semaphore(self._limits.connections)
        self._running: set[asyncio.Task[None]] = set()
        self._callers: Counter[str] = Counter()
        self._accepting: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen; raises `FailedPrecondition` ADDRESS_IN_USE, `CertificateError` where there is no identity."""
        self._contexts = await asyncio.to_thread(Renewed, self._files, _context)
        host, _, port = self._address.rpartition(":")
        try:
            listening = socket.create_server((host.strip("[]"), int(port)), backlog=128)
        except OSError:
            message = f"cannot listen on {self._address}: the address is in use or not this machine's"
            raise FailedPrecondition(Reason.ADDRESS_IN_USE, message, address=self._address) from None
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(listening), name="log-tiles")

    async def stop(self) -> None:
        """Take no more connections, and cut those there are."""
        if self._accepting is None:
            return
        tasks = (self._accepting, *self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._accepting = None

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                # Before accepting: what cannot be served yet waits in the kernel, whose queue is bounded.
                await self._free.acquire()
                try:
                    connection, _ = await loop.sock_accept(listening)
                except OSError:
                    self._free.release()
                    # The peer is gone already, or there are no descriptors left: the others need a moment to end.
                    await asyncio.sleep(0.1)
                    continue
                except BaseException:
                    self._free.release()
                    raise
                task = asyncio.create_task(self._connection(connection))
                self._running.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._free.release()
        if not task.cancelled() and (error := task.exception()):
            _log.error("A connection to the log's tiles failed", exc_info=error)

    async def _connection(self, connection: socket.socket) -> None:
        """Shake hands, and serve requests until either side has enough."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_HEAD, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        # Whatever a stranger sends, or however it goes away, is worth no line in the log.
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError):
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._contexts.present(),
                ssl_handshake_timeout=self._limits.handshake,
                ssl_shutdown_timeout=_GOODBYE,
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                with contextlib.ExitStack() as held:
                    peer = _Peer(_certificate(transport), held)
                    serve = await self._admitted(writer, peer)
                    while serve:
                        serve = await self._request(reader, writer, peer)
            finally:
                await _close(writer)

    async def _admitted(self, writer: asyncio.StreamWriter, peer: _Peer) -> bool:
        """Count a connection as its caller's; tells whether it is served.

        Before any request is waited for: whoever sends none, or one letter at a time, holds no more than who asks.
        """
        try:
            peer.connection.enter_context(self._share(self._caller(peer)))
        except _Refused as refused:
            answer = _refusal(refused.status)
            await self._send(writer, answer.head(close=True) + answer.body)
            return False
        return True

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: _Peer) -> bool:
        """Serve one request; tells whether there may be another."""
        close, bodiless = True, False
        try:
            async with asyncio.timeout(self._limits.idle):
                head = await reader.readuntil(b"\r\n\r\n")
            request = _parse(head)
            bodiless = request.method == "HEAD"
            answer = await self._answer(request, peer)
            close = request.close
        except asyncio.LimitOverrunError:
            answer = _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except _Refused as refused:
            answer = _refusal(refused.status)
        await self._send(writer, answer.head(close) + (b"" if bodiless else answer.body))
        return not close

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        # In pieces: of one large write under TLS, draining does not wait for more than that it was taken over.
        async with asyncio.timeout(self._limits.sending):
            for start in range(0, len(data), _PIECE):
                writer.write(data[start : start + _PIECE])
                await writer.drain()

    async def _answer(self, request: _Request, peer: _Peer) -> _Answer:
        # Each time: a connection does not outlive its certificate.
        return await self._give(request.path, self._caller(peer))

    def _caller(self, peer: _Peer) -> str:
        try:
            return Caller.of(self._verifier.verify(peer.certificate)).path
        except CertificateError:
            raise _Refused(HTTPStatus.FORBIDDEN) from None

    @contextmanager
    def _share(self, caller: str) -> Generator[None]:
        """Count a caller's connections: nobody may have more than half of all there can be."""
        if self._callers[caller] >= max(1, self._limits.connections // 2):
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS)
        self._callers[caller] += 1
        try:
            yield
        finally:
            self._callers[caller] -= 1
            # Without what stands at zero, of which there would be more and more.
            self._callers = +self._callers

    async def _give(self, path: str, caller: str) -> _Answer:
        try:
            if path == f"/{CHECKPOINT}":
                note = await self._tiles.checkpoint()
                return _Answer(HTTPStatus.OK, note.encode(), _TEXT, _FRESH) if note else _refusal(HTTPStatus.NOT_FOUND)
            tile = Tile.parse(path.removeprefix("/"))
            check_reader(tile, caller, self._readers)
            caching = f"private, {_FOREVER}" if tile.level is None else f"public, {_FOREVER}"
            return _Answer(HTTPStatus.OK, await self._tiles.tile(tile), _BYTES, caching)
        except (InvalidArgument, NotFound):
            return _refusal(HTTPStatus.NOT_FOUND)
        except PermissionDenied:
            return _refusal(HTTPStatus.FORBIDDEN)
        except HutongError:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE)


def _context(svid: Svid) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would bring back a peer that was verified under roots of then.
    context.num_tickets = 0
    show(context, svid)
    return context


async def _close(writer: asyncio.StreamWriter) -> None:
    """Say goodbye, and cut the connection where the other side does not take it."""
    writer.close()
    try:
        async with asyncio.timeout(_GOODBYE):
            await writer.wait_closed()
    finally:
        writer.transport.abort()


def _refusal(status: HTTPStatus) -> _Answer:
    return _Answer(status, f"{status.phrase}\n".encode())


def _certificate(transport: asyncio.Transport) -> bytes:
    tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
    # The handshake has made sure that there is one.
    return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"").encode()


def _parse(head: bytes) -> _Request:
    """Read a request without a body; raises `_Refused` for everything else."""
    try:
        line, *headers = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    except UnicodeDecodeError:
        raise _Refused(HTTPStatus.BAD_REQUEST) from None
    parts = line.split(" ")
    if len(parts) != 3 or not parts[1].startswith("/") or len(headers) > MAX_HEADERS:
        raise _Refused(HTTPStatus.BAD_REQUEST)
    method, path, version = parts
    if version != "HTTP/1.1":
        raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if method not in {"GET", "HEAD"}:
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    if len(path) > _LONGEST_PATH:
        raise _Refused(HTTPStatus.REQUEST_URI_TOO_LONG)
    return _Request(method, path, _headers(headers).get("connection", "").lower() == "close")


def _headers(lines: Iterable[str]) -> dict[str, str]:
    """Read headers, of which there must be one host and no body; raises `_Refused`."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        folded = name.lower()
        # A line that goes on, a space before the colon or a second host are how two readers come to disagree.
        if not colon or not name or name != name.strip() or (folded == "host" and folded in found):
            raise _Refused(HTTPStatus.BAD_REQUEST)
        found[folded] = value.strip()
    if "host" not in found or "transfer-encoding" in found or found.get("content-length", "0") != "0":
        raise _Refused(HTTPStatus.BAD_REQUEST)
    return found
