"""One HTTP/2 connection: what both ends share of it.

libnghttp2 keeps the protocol's state and gives bytes to send; a connection feeds it, hands events to its subclass by
their class, and writes once per turn of the loop, however many streams had something to say. Nothing is queued without
bound: windows open as messages are taken, senders wait while the peer does not read, and a peer that neither reads nor
answers is cut.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, ClassVar, Final, cast

from ngh2 import (
    Configuration,
    ConnectionClosed,
    ConnectionStateError,
    DenialOfServiceError,
    ErrorCode,
    Event,
    NGH2Error,
    Role,
    Setting,
)
from ngh2 import Connection as Session

from services.kit.errors import HutongError
from services.kit.transport.nghttp2.framing import MessageReader

MOST_WRITTEN: Final = 256 * 1024
"""Bytes that one write takes at most: what is due to a peer that stops reading is no more than that and `HIGH`."""

HIGH: Final = 256 * 1024
"""Bytes that wait in the transport above which nothing more is written."""

MOST_QUEUED: Final = 64 * 1024
"""Bytes of one stream that wait to be written above which its sender waits."""

SHUTDOWN: Final = 1.0
"""Seconds that the end of TLS may take, once all is written."""

_log = logging.getLogger(__name__)

OnEvent = Callable[[Any, Any], None]
"""A method of a connection's, given an event."""


class Connection(asyncio.Protocol):
    """One HTTP/2 connection. Subclasses say what events mean."""

    events: ClassVar[Mapping[type[Event], OnEvent]] = {}
    """What is called for each class of event; others are of no interest."""

    reads_while_paused: ClassVar[bool] = True
    """Whether it reads on while the peer does not read. One end of every connection must: else both may wait."""

    keepalive: float = 20.0
    """Seconds of silence after which the peer is asked whether it is there."""

    patience: float = 10.0
    """Seconds that the answer may take."""

    stalled: float = 30.0
    """Seconds after which a peer is cut that takes nothing of what is written to it."""

    def __init__(self, role: Role, configuration: Configuration, settings: Mapping[Setting, int], window: int) -> None:
        """`settings` are told to the peer; `window` is how many bytes it may send on all streams before we take any."""
        self.h2 = Session(role, configuration)
        self.h2.initiate_connection(dict(settings))
        self.h2.set_local_window_size(window)
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        """None before the handshake is done, and after the connection is lost."""
        self.open = False
        """Whether there is a peer to talk to: nothing may be asked of `h2` otherwise."""
        self.paused = False
        """Whether the transport holds as much as it may: nothing is written until the peer reads."""
        self.heard = time.monotonic()
        """When the peer said something last."""
        self.kept: int = 0
        """Bytes of messages that came and that nobody has taken yet, whole or not."""
        self._scheduled = False
        self._closing = False
        self._senders: dict[int, asyncio.Future[None]] = {}
        self._pinged = 0.0
        """When the peer was asked whether it is there; 0 where it has said something since."""
        self._left = 0
        self._moved = 0.0
        """When the peer last took something while we were paused, and what was left then."""

    # What subclasses may add to.

    def opened(self, transport: asyncio.Transport) -> None:
        """Begin: the handshake is done."""

    def ended(self) -> None:
        """Know that nothing can be said any more; called once, before `lost`, and often some time before."""

    def lost(self, error: Exception | None) -> None:
        """End: the connection is gone, for whatever reason; called once."""

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to talk."""
        # Not by its class: uvloop's transports are of none of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(HIGH)
        self.open = True
        self.heard = time.monotonic()
        self.opened(self.transport)
        self.kick()

    def data_received(self, data: bytes) -> None:
        """Hand on what the peer says."""
        if not self.open:
            return
        self.heard = time.monotonic()
        self._pinged = 0.0
        try:
            self.h2.receive_data(data)
        except NGH2Error as error:
            self._fail(error)
            return
        self._dispatch()
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everybody go who waits."""
        self._end()
        self.transport = None
        senders, self._senders = self._senders, {}
        for sender in senders.values():
            if not sender.done():
                sender.set_result(None)
        self.lost(exc)

    def pause_writing(self) -> None:
        """Write no more, for now."""
        self.paused = True
        self._pinged = 0.0
        self._moved = time.monotonic()
        if self.transport is not None:
            self._left = self.transport.get_write_buffer_size()
            if not self.reads_while_paused:
                self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self.paused = False
        self.heard = time.monotonic()
        if self.transport is None:
            return
        if self._closing:
            self.transport.close()
            return
        if not self.reads_while_paused:
            self.transport.resume_reading()
        self.kick()

    # What subclasses call.

    def kick(self) -> None:
        """Have whatever is queued written at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    async def send(self, stream: int, data: bytes) -> None:
        """Queue bytes of a stream's body, and wait while much of it is queued, or the peer does not read.

        Raises `NGH2Error` where the stream has ended.
        """
        self.h2.send_data(stream, data)
        self.kick()
        while self.open and (self.paused or self.h2.queued_body_size(stream) > MOST_QUEUED):
            room = self._senders[stream] = self.loop.create_future()
            try:
                await room
            finally:
                self._senders.pop(stream, None)

    def taken(self, stream: int, amount: int) -> None:
        """Let the peer send so many bytes again, on the stream and on the connection."""
        if self.open and amount:
            try:
                self.h2.acknowledge_received_data(amount, stream)
            except ConnectionStateError:
                # It has ended with its last stream, of which we are still being told.
                return
            self.kick()

    def reset(self, stream: int, code: int) -> None:
        """Cut a stream, whatever of it is still queued; of one that has ended, nothing comes."""
        if self.open:
            try:
                self.h2.reset_stream(stream, code)
            except ConnectionStateError:
                return
            self.kick()

    def close(self) -> None:
        """Close, once what waits in the transport is written: for a slow peer, that may take longer than TLS's end."""
        if self.transport is None or self._closing:
            return
        self._end()
        self._closing = True
        if self.transport.get_write_buffer_size():
            # Paused until nothing is left, and resumed then.
            self.transport.set_write_buffer_limits(0)
        else:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._end()
        if self.transport is not None:
            self.transport.abort()

    @property
    def written(self) -> bool:
        """Whether the transport holds nothing that is still to be written."""
        return self.transport is None or not self.transport.get_write_buffer_size()

    def _end(self) -> None:
        if self.open:
            self.open = False
            self.ended()

    def tend(self, now: float) -> None:
        """See whether the peer is there; to be called every second or so with `time.monotonic()`."""
        if self.transport is None:
            return
        if self.paused:
            # Of a peer that does not read, nothing can be heard either.
            left = self.transport.get_write_buffer_size()
            if left < self._left:
                self._moved = now
            elif now - self._moved > self.stalled:
                _log.info("Connection cut: the peer does not read")
                self.abort()
            self._left = left
        elif self._pinged:
            if now - self._pinged > self.patience:
                _log.info("Connection cut: the peer does not answer")
                self.abort()
        elif self.open and now - self.heard > self.keepalive:
            self._pinged = now
            self.h2.ping()
            self.kick()

    def _flush(self) -> None:
        self._scheduled = False
        if self.paused or not self.open or self.transport is None:
            return
        try:
            data = self.h2.data_to_send(MOST_WRITTEN)
        except NGH2Error as error:
            self._fail(error)
            return
        if data:
            self.transport.write(data)
            if len(data) >= MOST_WRITTEN:
                self.kick()
        # What is sent to its end closes streams, and a last word the connection.
        self._dispatch()
        if self._senders and not self.paused:
            self._wake()

    def _dispatch(self) -> None:
        handlers = self.events
        for event in self.h2.events():
            if not self.open:
                return
            handler = handlers.get(event.__class__)
            if handler is not None:
                handler(self, event)
            elif event.__class__ is ConnectionClosed:
                self.close()

    def _wake(self) -> None:
        for stream, sender in self._senders.items():
            if not sender.done() and self.h2.queued_body_size(stream) <= MOST_QUEUED:
                sender.set_result(None)

    def _fail(self, error: NGH2Error) -> None:
        """Say in a last frame what was wrong, which the session, being broken, cannot, and close."""
        if isinstance(error, ConnectionStateError):
            self.abort()
            return
        code = ErrorCode.ENHANCE_YOUR_CALM if isinstance(error, DenialOfServiceError) else ErrorCode.PROTOCOL_ERROR
        _log.info("Connection cut: %s", error)
        if self.transport is not None and not self.paused:
            self.transport.write(b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff" + int(code).to_bytes(4))
        self.close()


class Incoming:
    """Messages that come in on a stream, taken one by one; the peer may send more as they are taken."""

    __slots__ = (
        "_begun",
        "_connection",
        "_ended",
        "_error",
        "_kept",
        "_messages",
        "_reader",
        "_stream",
        "_untold",
        "_waiter",
    )

    def __init__(self, connection: Connection, stream: int, most: int) -> None:
        """`most` is the largest message accepted, in bytes."""
        self._connection = connection
        self._stream = stream
        self._reader = MessageReader(most)
        self._messages: deque[bytes] = deque()
        self._kept = 0
        self._untold = 0
        """Bytes that came and whose window has not been given back."""
        self._begun = False
        self._ended = False
        self._error: HutongError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def partial(self) -> bool:
        """Whether what came so far ends inside a message."""
        return self._reader.partial

    @property
    def untouched(self) -> bool:
        """Whether nothing came yet, and more may come."""
        return not self._begun and not self._ended

    def feed(self, data: bytes) -> None:
        """Take in what came; raises as `MessageReader.feed`, after which `end` is to be called with the error."""
        self._begun = True
        self._untold += len(data)
        if self._error is not None:
            self._tell()
            return
        self._keep(len(data))
        found = self._reader.feed(data)
        if found:
            self._messages.extend(found)
            self._wake()
        elif not self._messages:
            # Nobody can take a part of a message: the rest of it must be let in.
            self._tell()

    def end(self, error: HutongError | None = None) -> None:
        """Let the iteration end once what came is taken; where there is an error, at once, raising it."""
        if self._ended and error is None:
            return
        self._ended = True
        if error is not None:
            self._error = error
            self._messages.clear()
        self._wake()

    def drop(self) -> None:
        """Give back what nobody will take: the window of the whole connection is charged for it, too."""
        self._messages.clear()
        self._keep(-self._kept)
        self._tell()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the messages."""
        return self

    async def __anext__(self) -> bytes:
        """Take a message."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self._keep(-len(message) - 5)
        if not self._messages:
            self._tell()
        return message

    def _keep(self, more: int) -> None:
        self._kept += more
        self._connection.kept += more

    def _tell(self) -> None:
        untold, self._untold = self._untold, 0
        self._connection.taken(self._stream, untold)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
