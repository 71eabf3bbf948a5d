"""The channel on libnghttp2: connects when there is something to ask, and again when the peer has gone.

Calls wait, within their deadlines, while a connection is made, or while the peer lets no more of them run. Once it
could not be made they fail at once, and it is tried again and again in the background: whoever asks an absent node is
told so without delay, and a node that comes back is noticed within a second.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator
from typing import Final

from certs.spiffe import SpiffeId, server_name
from certs.svid import Svid
from services.kit.errors import HutongError, Reason, ResourceExhausted
from services.kit.sessions.deadlines import Deadlines
from services.kit.transport.nghttp2 import statuses, tls
from services.kit.transport.nghttp2.calling import Call, ClientConnection, Heads, StreamCall, UnaryCall
from services.kit.transport.seam import Metadata, Vouch
from services.kit.waiting import within

CONNECT: Final = 5.0
"""Seconds that connecting may take, to the peer's first word of HTTP/2."""

SHUTDOWN: Final = 0.2
"""Seconds that the end of a connection may take: all calls have their outcomes, and nothing is lost."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
"""Seconds between attempts to connect: doubled each time, up to the longest, and a fifth more or less by chance."""

GIVE_UP: Final = 60.0
"""Seconds without a call after which no further attempt is made before there is one."""

MOST_WAITING: Final = 10_000
"""Calls that may wait for a connection."""

_CLOSED: Final = "the channel was closed"


class NgChannel:
    """A channel of libnghttp2's to one node. To be used in one event loop."""

    def __init__(
        self, target: str, server: SpiffeId, svid: Svid, response_bytes: int, vouch: Vouch | None = None
    ) -> None:
        """Connect lazily to `target`, which must prove to be `server`; `vouch` is asked whether it still stands."""
        self._target = target
        self.vouch: Final = vouch
        self._name = server_name(server)
        self._svid = svid
        self._context: ssl.SSLContext | None = None
        self.response_bytes: Final = response_bytes
        """Bytes of the largest message that it takes."""
        self.heads = Heads(self._name)
        self._deadlines: Deadlines[Call] = Deadlines(self._expire)
        self._waiting: dict[Call, None] = {}
        """Calls that are not begun, in the order they came."""
        self._connection: ClientConnection | None = None
        """What new calls are begun on."""
        self._connections: set[ClientConnection] = set()
        """All that are open, with those that only end what they began."""
        self._connecting: asyncio.Task[None] | None = None
        self._failure = ""
        """Why there is no connection, where it was tried in vain."""
        self._asked = 0.0
        """When somebody asked for a connection last."""
        self.tasks: set[asyncio.Task[None]] = set()
        """What takes the requests of streaming calls from their iterators."""
        self._closing = False
        self._running = 0
        self._idle = asyncio.Event()

    async def unary(self, method: str, request: bytes, timeout: float | None, metadata: Metadata = ()) -> bytes:
        """Make a unary call; raises the `HutongError` the other side answered with."""
        deadline = None if timeout is None else time.monotonic() + timeout
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        call = UnaryCall(method, request, deadline, metadata, self.response_bytes, answer)
        self._begin(call, timeout)
        try:
            return await answer
        except asyncio.CancelledError:
            self._cut(call, None)
            raise

    async def stream(
        self,
        method: str,
        requests: bytes | AsyncIterator[bytes],
        timeout: float | None,
        metadata: Metadata = (),
    ) -> AsyncIterator[bytes]:
        """Make a streaming call; see `seam.Channel`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        call = StreamCall(method, requests, deadline, metadata, self.response_bytes)
        self._begin(call, timeout)
        try:
            async for message in call:
                yield message
        finally:
            self._cut(call, None)
            call.drop()

    async def close(self, grace: float = 0.0) -> None:
        """Close it; running calls may go on for `grace` seconds, then they are cut."""
        self._closing = True
        if grace > 0 and self._running:
            self._idle.clear()
            await within(self._idle, grace)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._fail_waiting(_CLOSED)
        connections = list(self._connections)
        for connection in connections:
            connection.leave()
        for connection in connections:
            if not await within(connection.gone, SHUTDOWN):
                connection.abort()
                await within(connection.gone, SHUTDOWN)
        self._deadlines.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # What connections call.

    def ended(self, call: Call) -> None:
        """Know that a call has an outcome."""
        if call.deadline is not None:
            self._deadlines.discard(call, call.tick)
        self._running -= 1
        if not self._running:
            self._idle.set()

    def again(self, call: Call) -> None:
        """Make a call once more, which no peer has seen."""
        if self._closing or self._failure:
            self._over(call, statuses.make(statuses.UNAVAILABLE, self._failure or _CLOSED))
            return
        self._waiting[call] = None
        self.freed()

    def freed(self) -> None:
        """Begin what waits, as far as there is room for it; connect where there is nothing to begin it on."""
        while self._waiting:
            connection = self._connection
            if connection is None:
                self._want()
                return
            if connection.running >= connection.most:
                return
            call = next(iter(self._waiting))
            del self._waiting[call]
            left = None if call.deadline is None else call.deadline - time.monotonic()
            if left is not None and left <= 0:
                self._over(call, statuses.late())
            else:
                connection.start(call, left)

    def retired(self, connection: ClientConnection) -> None:
        """Begin no further call on a connection."""
        if self._connection is connection:
            self._connection = None
            self.freed()

    def lost(self, connection: ClientConnection) -> None:
        """Know that a connection is gone."""
        self._connections.discard(connection)
        self.retired(connection)

    # Calls.

    def _begin(self, call: Call, timeout: float | None) -> None:
        """Begin a call, or have it wait; raises the `HutongError` that it ends with at once."""
        if self._closing:
            raise statuses.make(statuses.UNAVAILABLE, _CLOSED)
        if timeout is not None and timeout <= 0:
            raise statuses.late()
        connection = self._connection
        begins = connection is not None and connection.running < connection.most and not self._waiting
        if not begins:
            self._asked = time.monotonic()
            if self._failure:
                raise statuses.make(statuses.UNAVAILABLE, self._failure)
            if len(self._waiting) >= MOST_WAITING:
                raise ResourceExhausted(Reason.CALLS_TOO_MANY, f"{MOST_WAITING} calls wait for {self._target} already")
        self._running += 1
        if call.deadline is not None:
            call.tick = self._deadlines.add(call, call.deadline)
        if begins and connection is not None:
            connection.start(call, timeout)
        else:
            self._waiting[call] = None
            self.freed()

    def _over(self, call: Call, error: HutongError | None) -> None:
        """End a call that is on no connection."""
        call.over = True
        self.ended(call)
        call.end(error)

    def _expire(self, call: Call) -> None:
        self._cut(call, statuses.late())

    def _cut(self, call: Call, error: HutongError | None) -> None:
        """End a call that has no outcome yet; of one that has, nothing comes."""
        if call.over:
            return
        if call in self._waiting:
            del self._waiting[call]
            self._over(call, error)
        elif call.connection is not None:
            call.connection.cut(call, error)

    def _fail_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            self._over(call, statuses.make(statuses.UNAVAILABLE, why))

    # Connections.

    def _want(self) -> None:
        if self._connecting is None and not self._closing:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        """Connect, again and again, for as long as somebody asks."""
        pause = FIRST_PAUSE
        try:
            while True:
                began = time.monotonic()
                self._failure = await self._attempt() or ""
                if not self._failure:
                    break
                self._fail_waiting(self._failure)
                if began - self._asked > GIVE_UP:
                    break
                until = began + pause * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
                await asyncio.sleep(until - time.monotonic())
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._failure = ""
            self._connecting = None
        self.freed()

    async def _attempt(self) -> str | None:
        """Connect once; tells why there is no connection, where there is none."""
        try:
            async with asyncio.timeout(CONNECT):
                self._connection = await self._open()
        except TimeoutError:
            return f"cannot connect to {self._target}: no answer within {CONNECT:g} s"
        except Exception as error:
            # Mostly OSError, as TLS's errors are, too; but whatever it is, those who wait must be told.
            return f"cannot connect to {self._target}: {error}"
        self._connections.add(self._connection)
        return None

    async def _open(self) -> ClientConnection:
        if self._context is None:
            self._context = tls.client_context(self._svid)
        host, _, port = self._target.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: ClientConnection(self),
            host.strip("[]"),
            int(port),
            ssl=self._context,
            server_hostname=self._name,
            ssl_handshake_timeout=CONNECT,
            ssl_shutdown_timeout=SHUTDOWN,
        )
        try:
            await connection.ready
            if connection.retired:
                # It said hello and goodbye in one breath.
                raise ConnectionError("it leaves")
        except BaseException:
            connection.abort()
            raise
        return connection
