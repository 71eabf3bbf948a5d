"""The server on libnghttp2: listens, lets TLS be agreed on, and looks after the connections.

Whoever has no certificate of the zone costs a handshake and nothing more, and of those only so many go on at a time.
"""

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from certs.renewed import Renewed
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.errors import HutongError
from services.kit.rpc import Dispatcher, Rpc
from services.kit.sessions.deadlines import Deadlines
from services.kit.transport.nghttp2.bounds import Timing
from services.kit.transport.nghttp2.connection import SHUTDOWN
from services.kit.transport.nghttp2.serving import ServedStream, ServerConnection
from services.kit.transport.nghttp2.tls import server_context
from services.kit.transport.seam import SLACK, Admission, address_in_use
from services.kit.waiting import within

MOST_HANDSHAKES: Final = 128
"""Handshakes that go on at a time: one more, and the oldest is broken off, which an honest one would not be by then."""

_BACKLOG: Final = 512
_AT_ONCE: Final = 64
_ENDING: Final = 1.0
"""Seconds that cancelled handlers, and the ends of connections, are waited for."""

_PARTING: Final = 0.05
"""Seconds that peers are given to close their end first."""

_TAKEN: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
_log = logging.getLogger(__name__)


class NgServer:
    """Serves rpcs on one address."""

    def __init__(
        self,
        address: str,
        rpcs: Iterable[Rpc],
        dispatcher: Dispatcher,
        admission: Admission,
        files: SvidFiles,
        limits: LimitsSection,
        timing: Timing | None = None,
    ) -> None:
        """Raises what `SvidFiles.load` raises when there is no identity to start with."""
        self.admission = admission
        self.dispatcher = dispatcher
        self.rpcs = {rpc.method.encode(): rpc for rpc in rpcs}
        self.deadlines: Deadlines[ServedStream] = Deadlines(_expire)
        self.timing = timing or Timing(stalled=limits.stalled.total_seconds())
        self.request_bytes = limits.request_bytes + SLACK
        self.response_bytes = limits.response_bytes
        self.concurrent_calls = limits.concurrent_calls
        self.deadline = limits.deadline.total_seconds()
        self.drain = limits.drain.total_seconds()
        self.age = limits.connection_age.total_seconds()
        self.running = 0
        self.begun: dict[str, int] = {}
        self.most_each = max(1, limits.concurrent_calls // 2)
        self.port = 0
        self.address = address
        self._contexts = Renewed(files, server_context)
        self._most = limits.connections
        self._most_of = max(1, limits.connections // 2)
        self.connections: dict[ServerConnection, str] = {}
        """Connections, and who they are of."""
        self._of: Counter[str] = Counter()
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}
        self._listeners: list[socket.socket] = []
        self._looking: asyncio.TimerHandle | None = None
        self._silent = asyncio.Event()
        """Set while there is no connection on which anything may still be said."""
        self._gone = asyncio.Event()
        """Set while there is no connection at all."""
        self._silent.set()
        self._gone.set()

    async def start(self) -> None:
        """Listen; raises `FailedPrecondition` ADDRESS_IN_USE."""
        loop = asyncio.get_running_loop()
        host, _, port = self.address.rpartition(":")
        self.port = int(port)
        try:
            found = await loop.getaddrinfo(host.strip("[]"), self.port, type=socket.SOCK_STREAM)
            for family, _, _, _, place in dict.fromkeys(found):
                self._listeners.append(self._listen(family, place))
        except OSError as error:
            self._close_listeners()
            if isinstance(error, socket.gaierror) or error.errno in _TAKEN:
                raise address_in_use(self.address) from None
            raise
        for listener in self._listeners:
            self._listen_on(listener)
        self._looking = loop.call_later(self.timing.look, self._look)

    async def stop(self, drain: float) -> None:
        """Take no new calls, let running ones go on for `drain` seconds, then cut them."""
        self._close_listeners()
        for task in list(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for connection in list(self.connections):
            connection.leave()
        if drain > 0:
            await within(self._silent, drain)
        await self._cut()
        self.deadlines.close()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def joined(self, connection: ServerConnection) -> bool:
        """Take a connection in; tells whether there is room for it."""
        try:
            caller = str(self.admission.identify(connection.certificate))
        except HutongError:
            # Its calls will be told why; until then all such share.
            caller = ""
        if len(self.connections) >= self._most or self._of[caller] >= self._most_of:
            _log.warning("Connection refused: too many", extra={"fields": {"caller": _told(caller)}})
            return False
        connection.caller = caller
        self.connections[connection] = caller
        self._of[caller] += 1
        self._silent.clear()
        self._gone.clear()
        return True

    def unread(self) -> int:
        """Bytes of answers that all peers leave unread."""
        return sum(connection.h2.queued_body_size() for connection in self.connections)

    def kept(self) -> int:
        """Bytes of all peers' messages that nobody has taken yet."""
        return sum(connection.kept for connection in self.connections)

    def silenced(self) -> None:
        """Know that on some connection nothing will be said any more."""
        if not any(connection.open for connection in self.connections):
            self._silent.set()

    def parted(self, connection: ServerConnection) -> None:
        """Know that a connection is gone."""
        caller = self.connections.pop(connection, None)
        if caller is None:
            return
        self._of[caller] -= 1
        if not self._of[caller]:
            del self._of[caller]
        if not self.connections:
            self._gone.set()

    def _listen(self, family: int, place: tuple[object, ...]) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Where any port will do, all addresses have the one that the first one got.
            listener.bind((place[0], self.port, *place[2:]))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        return listener

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _listen_on(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take in who waits to be."""
        loop = asyncio.get_running_loop()
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors, most likely: whoever waits can wait a little longer.
                _log.warning("Connection not accepted: %s", error)
                loop.remove_reader(listener)
                loop.call_later(self.timing.look, self._listen_on, listener)
                return
            accepted.setblocking(False)
            if len(self._handshakes) >= MOST_HANDSHAKES:
                next(iter(self._handshakes)).cancel()
            task = loop.create_task(self._welcome(accepted))
            self._handshakes[task] = accepted
            task.add_done_callback(self._welcomed)

    async def _welcome(self, accepted: socket.socket) -> None:
        """Let TLS be agreed on, under the certificate of this moment."""
        loop = asyncio.get_running_loop()
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                lambda: ServerConnection(self),
                accepted,
                ssl=self._contexts.present(),
                ssl_handshake_timeout=self.timing.handshake,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            accepted.close()
            _log.debug("No TLS with a stranger: %s", error)

    def _welcomed(self, task: asyncio.Task[None]) -> None:
        accepted = self._handshakes.pop(task)
        if task.cancelled():
            # Before it began.
            accepted.close()

    def _look(self) -> None:
        now = time.monotonic()
        for connection in list(self.connections):
            connection.tend(now)
        self._looking = asyncio.get_running_loop().call_later(self.timing.look, self._look)

    async def _cut(self) -> None:
        """End what did not end by itself."""
        tasks = [
            stream.task
            for connection in self.connections
            for stream in connection.streams.values()
            if stream.task is not None and not stream.task.done()
        ]
        for connection in list(self.connections):
            connection.cut()
        if tasks:
            await asyncio.wait(tasks, timeout=_ENDING)
        # Whoever has been told everything need not agree that this is the end.
        await within(self._gone, _PARTING)
        for connection in list(self.connections):
            if connection.written:
                connection.abort()
        if not await within(self._gone, _ENDING):
            for connection in list(self.connections):
                connection.abort()
            await within(self._gone, _ENDING)


def _expire(stream: ServedStream) -> None:
    stream.connection.expire(stream)


def _told(caller: str) -> str:
    """Name a caller in a log line, of another zone as of this one; empty for one that nobody knows."""
    return Caller.of(SpiffeId.parse(caller)).told if caller else ""
