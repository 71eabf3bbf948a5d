"""One connection of a channel: calls out, answers and errors back.

A unary call costs no task, only a future. Of streaming calls the requests are taken from their iterator as the
connection has room for them, and the peer may send as its answers are taken.
"""

import asyncio
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import ClassVar, Final, Protocol

from ngh2 import (
    Configuration,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    NeverIndexedHeader,
    NGH2Error,
    ResponseReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
)

from certs.errors import CertificateError, CertificateRevoked
from services.kit.errors import HutongError
from services.kit.transport.nghttp2 import headers, statuses, tls
from services.kit.transport.nghttp2.connection import Connection, OnEvent
from services.kit.transport.nghttp2.framing import MessageReader, frame
from services.kit.transport.nghttp2.statuses import Headers
from services.kit.transport.seam import Metadata, Vouch

STREAM_WINDOW: Final = 1024 * 1024
"""Bytes that a peer may send on a stream before its messages are taken: so much may lie unread."""

WINDOW: Final = 2**31 - 1
"""What it may send on all streams together: no limit, or calls whose answers nobody reads would stop all others."""

MOST_KEPT: Final = 256 * 1024
"""Bytes of a stream of requests that are kept to be sent again, should the peer refuse the stream unseen."""

MOST_STREAMS: Final = 2**29
"""Streams that one connection is used for: there are twice as many numbers for them."""

LOOK: Final = 1.0
"""Seconds between looks at whether the peer is there."""

_MOST_HEADS: Final = 512
_CONFIGURATION: Final = Configuration(auto_window_update=False)
_SETTINGS: Final = {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
_PREFIX: Final = b"\0"
_OK: Final = ((b"grpc-status", b"0"),)
_NO_LIMIT: Final = 2**32 - 1
_log = logging.getLogger(__name__)


class Call:
    """One call, from its being made to its end."""

    __slots__ = ("answered", "connection", "deadline", "metadata", "method", "over", "retried", "stream", "tick")

    def __init__(self, method: str, deadline: float | None, metadata: Metadata) -> None:
        """`deadline` is on `time.monotonic`."""
        self.method = method
        self.deadline = deadline
        self.metadata = metadata if isinstance(metadata, tuple) else tuple(metadata)
        self.tick = 0
        """Where `Deadlines` has it."""
        self.connection: ClientConnection | None = None
        """What it runs on; None while it waits for one."""
        self.stream = 0
        self.answered = False
        """It cannot be made again without being made twice, or in part."""
        self.retried = False
        self.over = False
        """It has an outcome."""

    def expired(self) -> bool:
        """Tell whether its deadline has passed."""
        return self.deadline is not None and self.deadline <= time.monotonic()

    def begin(self, connection: "ClientConnection", stream: int) -> None:
        """Send what there is to send on a stream that has just been opened."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Take in what came of the answer; raises the `HutongError` that ends the call where it is none."""
        raise NotImplementedError

    def unsent(self) -> bool:
        """Whether something is still to be sent."""
        raise NotImplementedError

    def end(self, error: HutongError | None) -> None:
        """Tell whoever waits how it ended; called once."""
        raise NotImplementedError


class UnaryCall(Call):
    """A call with one request and one answer."""

    __slots__ = ("_message", "_most", "_reader", "answer", "request")

    def __init__(
        self,
        method: str,
        request: bytes,
        deadline: float | None,
        metadata: Metadata,
        most: int,
        answer: "asyncio.Future[bytes]",
    ) -> None:
        """`most` is the largest answer accepted, in bytes; `answer` is given it, or an error in its place."""
        super().__init__(method, deadline, metadata)
        self.request = request
        self.answer = answer
        self._most = most
        self._message: bytes | None = None
        self._reader: MessageReader | None = None

    def begin(self, connection: "ClientConnection", stream: int) -> None:
        """Send the request, which is all there will be."""
        connection.h2.send_data(stream, frame(self.request), end_stream=True)

    def feed(self, data: bytes) -> None:
        """Take in what came. Its window is given back at once: no more than one answer is kept."""
        size = len(data)
        if self.connection is not None:
            self.connection.taken(self.stream, size)
        if self._reader is None:
            length = size - 5
            if self._message is None and 0 <= length <= self._most and data[:5] == _PREFIX + length.to_bytes(4):
                # Nearly always: the whole answer in one frame.
                self._message = data[5:]
                return
            self._reader = MessageReader(self._most)
        for message in _read(self._reader, data):
            if self._message is not None:
                raise statuses.make(statuses.INTERNAL, "the call has more than one answer")
            self._message = message

    def unsent(self) -> bool:
        """Whether a part of the request still waits."""
        return self.connection is not None and self.connection.h2.queued_body_size(self.stream) > 0

    def end(self, error: HutongError | None) -> None:
        """Tell whoever waits how it ended."""
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        elif self._message is None or (self._reader is not None and self._reader.partial):
            self.answer.set_exception(statuses.make(statuses.INTERNAL, "the call has no whole answer"))
        else:
            self.answer.set_result(self._message)


class StreamCall(Call):
    """A call with several answers, which it gives as an iterator, and perhaps several requests."""

    __slots__ = (
        "_begun",
        "_error",
        "_kept",
        "_kept_bytes",
        "_messages",
        "_pulled",
        "_reader",
        "_requests",
        "_untaken",
        "_waiter",
        "pulling",
    )

    def __init__(
        self,
        method: str,
        requests: bytes | AsyncIterator[bytes],
        deadline: float | None,
        metadata: Metadata,
        most: int,
    ) -> None:
        """`most` is the largest answer accepted, in bytes."""
        super().__init__(method, deadline, metadata)
        self.pulling: asyncio.Task[None] | None = None
        """What takes requests from their iterator."""
        self._requests = requests
        self._pulled = isinstance(requests, bytes)
        """There are no more requests to take."""
        self._kept: list[bytes] = [frame(requests)] if isinstance(requests, bytes) else []
        """All that was sent, framed, for as long as it may have to be sent again."""
        self._kept_bytes = 0
        self._begun = asyncio.Event()
        self._reader = MessageReader(most)
        self._messages: deque[bytes] = deque()
        self._untaken = 0
        """Bytes that came and whose window has not been given back."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    # Requests.

    def begin(self, connection: "ClientConnection", stream: int) -> None:
        """Send the requests that were taken from the iterator, if any, and have more taken."""
        last = len(self._kept) - 1
        for number, data in enumerate(self._kept):
            connection.h2.send_data(stream, data, end_stream=self._pulled and number == last)
        if self._pulled and last < 0:
            connection.h2.end_stream(stream)
        self._begun.set()
        if self.pulling is None and not isinstance(self._requests, bytes):
            self.pulling = connection.loop.create_task(self._pull(self._requests))
            connection.keep(self.pulling)
        elif self._error is not None:
            connection.cut(self, None)

    def unsent(self) -> bool:
        """Whether there are requests still to be sent, or may be."""
        connection = self.connection
        return connection is not None and (not self._pulled or connection.h2.queued_body_size(self.stream) > 0)

    async def _pull(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for request in requests:
                await self._send(frame(request))
        except Exception as error:
            # Whoever reads the answers is told, and the peer that no more requests will come.
            self._error = error
            if self.connection is not None:
                self.connection.cut(self, None)
            return
        self._pulled = True
        if self.connection is not None and not self.over:
            with suppress(NGH2Error):
                self.connection.h2.end_stream(self.stream)
            self.connection.kick()

    async def _send(self, data: bytes) -> None:
        """Send a request, and wait until there is room for another one."""
        self._keep(data)
        connection = self.connection
        if connection is None:
            # It was refused, and is about to begin anew, with all that is kept.
            self._begun.clear()
            await self._begun.wait()
        else:
            with suppress(NGH2Error):
                await connection.send(self.stream, data)

    def _keep(self, data: bytes) -> None:
        if self.answered:
            self._kept.clear()
            return
        self._kept_bytes += len(data)
        self._kept.append(data)
        if self._kept_bytes > MOST_KEPT:
            self.answered = True

    # Answers.

    def feed(self, data: bytes) -> None:
        """Take in what came; raises the `HutongError` that ends the call where it is no answer."""
        self._untaken += len(data)
        found = _read(self._reader, data)
        if found:
            self._messages.extend(found)
            self._wake()
        elif not self._messages:
            # Nobody can take a part of a message: the rest of it must be let in.
            self._take()

    def end(self, error: HutongError | None) -> None:
        """Let the iteration end once what came is taken, by raising the error where there is one."""
        if error is None and self._reader.partial:
            error = statuses.make(statuses.INTERNAL, "the answer ends inside a message")
        if self._error is None:
            self._error = error
        if self.pulling is not None:
            self.pulling.cancel()
        self._wake()

    def drop(self) -> None:
        """Let go of what nobody will take."""
        self._messages.clear()
        self._take()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the answers."""
        return self

    async def __anext__(self) -> bytes:
        """Take an answer; raises the error that the call ended with."""
        while not self._messages:
            if self.over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        if not self._messages:
            self._take()
        return message

    def _take(self) -> None:
        untaken, self._untaken = self._untaken, 0
        if self.connection is not None:
            self.connection.taken(self.stream, untaken)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Heads:
    """Makes the headers of calls; those that are often the same are made once."""

    def __init__(self, authority: str) -> None:
        self._authority = authority.encode()
        self._made: dict[tuple[str, bytes], Headers] = {}
        """By method and timeout, as written."""
        self._lately: dict[tuple[str, float | None], Headers] = {}
        """By method and timeout, as asked for."""

    def of(self, method: str, timeout: float | None, metadata: Metadata) -> Headers:
        """Make the headers of a call; `timeout` is in seconds."""
        head = self._lately.get((method, timeout))
        if head is None:
            head = self._find(method, timeout)
        if metadata:
            # Most likely the only call with these: a peer that has to remember them forgets what comes often.
            return (*head, *(NeverIndexedHeader(name.encode(), value.encode()) for name, value in metadata))
        return head

    def _find(self, method: str, timeout: float | None) -> Headers:
        for made in (self._made, self._lately):
            if len(made) >= _MOST_HEADS:
                made.clear()
        text = b"" if timeout is None else headers.timeout(timeout)
        head = self._made.get((method, text))
        if head is None:
            head = self._made[method, text] = self._make(method, text)
        self._lately[method, timeout] = head
        return head

    def _make(self, method: str, timeout: bytes) -> Headers:
        return (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", method.encode()),
            (b":authority", self._authority),
            (b"te", b"trailers"),
            *(((b"grpc-timeout", timeout),) if timeout else ()),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"hutong"),
        )


class Owner(Protocol):
    """What a connection must know of its channel."""

    heads: Heads
    tasks: set[asyncio.Task[None]]

    @property
    def vouch(self) -> Vouch | None:
        """Ask whether the server's certificate stands; None where nobody knows."""
        ...

    def ended(self, call: Call) -> None:
        """Know that a call has an outcome."""
        ...

    def again(self, call: Call) -> None:
        """Make a call once more, which no peer has seen."""
        ...

    def freed(self) -> None:
        """Know that there is room for a call on some connection, or that there may be."""
        ...

    def retired(self, connection: "ClientConnection") -> None:
        """Begin no further call on a connection."""
        ...

    def lost(self, connection: "ClientConnection") -> None:
        """Know that a connection is gone."""
        ...


class ClientConnection(Connection):
    """A connection, at the client's end."""

    # What grpcio's channels have here.
    keepalive = 20.0
    patience = 5.0

    def __init__(self, owner: Owner) -> None:
        super().__init__(Role.CLIENT, _CONFIGURATION, _SETTINGS, WINDOW)
        self.calls: dict[int, Call] = {}
        """Calls that have no outcome yet, by stream."""
        self.running = 0
        """Streams that are open, with calls or without."""
        self.most = 0
        """How many the peer lets be open."""
        self.retired = False
        """No call is begun any more."""
        self.ready: asyncio.Future[None] = self.loop.create_future()
        """Done when the peer has said how it wants to be talked to; fails where it never does."""
        self.gone = asyncio.Event()
        self._owner = owner
        self._usual: Headers = ()
        """Headers of a response that are known to be right: nearly all have the same."""
        self._timer: asyncio.TimerHandle | None = None
        self._certificate = b""

    # The connection.

    def opened(self, transport: asyncio.Transport) -> None:
        """See that it is HTTP/2 that was agreed on."""
        if not tls.speaks_http2(transport):
            self._unready(ConnectionError("it does not speak HTTP/2"))
            self.abort()
            return
        if self._owner.vouch is not None:
            self._certificate = tls.peer_certificate(transport)
            try:
                self._owner.vouch(self._certificate)
            except CertificateError as error:
                self._unready(ConnectionError(str(error)))
                self.abort()
                return
        if sys.platform == "linux":
            # TCP sends what is not acknowledged ever more rarely: a network that was away for a while is back for just
            # as long before the connection is. It is given up, as grpcio's are: a new one is there sooner.
            # By Linux' count that is also a peer whose window is shut for as long.
            plug = transport.get_extra_info("socket")
            # One that is closed already has no options; that it is, is told in its turn.
            with suppress(OSError):
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(self.patience * 1000))
        self._timer = self.loop.call_later(LOOK, self._look)

    def ended(self) -> None:
        """Fail what was not answered: no call waits for the end of TLS."""
        self.retire()
        while self.calls:
            _, call = self.calls.popitem()
            self._over(call, statuses.make(statuses.UNAVAILABLE, "the connection was lost"))

    def lost(self, error: Exception | None) -> None:
        """Be forgotten."""
        if self._timer is not None:
            self._timer.cancel()
        self._unready(error or ConnectionError("it hung up"))
        self.gone.set()
        self._owner.lost(self)

    def leave(self) -> None:
        """Cut what runs, tell the peer that we go, and close."""
        self.retired = True
        for call in list(self.calls.values()):
            self.cut(call, statuses.make(statuses.UNAVAILABLE, "the channel was closed"))
        if self.open:
            self._flush()
        if self.open:
            # Where the peer left first, there is nothing left to say.
            with suppress(NGH2Error):
                self.h2.terminate_connection(ErrorCode.NO_ERROR)
            self._flush()
        self.close()

    def retire(self) -> None:
        """Begin no further call, and close when there are none."""
        if not self.retired:
            self.retired = True
            self._owner.retired(self)
        if not self.running and self.open:
            self.leave()

    def tend(self, now: float) -> None:
        """See whether the peer is there, where somebody waits for it."""
        if self.running or self.paused:
            super().tend(now)
        else:
            self.heard = now
        if self.open and self.h2.local_window_size < WINDOW // 4:
            # What came of a message in part, and was cut, is never given back.
            self.retire()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Have a task waited for when the channel closes."""
        self._owner.tasks.add(task)
        task.add_done_callback(self._owner.tasks.discard)

    def _look(self) -> None:
        self._timer = self.loop.call_later(LOOK, self._look)
        self.tend(time.monotonic())
        if self._owner.vouch is not None:
            # For anything but that no running call fails: connections are made anew within the hour.
            with suppress(CertificateError):
                self._still_stands(self._owner.vouch)

    def _still_stands(self, vouch: Vouch) -> None:
        try:
            vouch(self._certificate)
        except CertificateRevoked:
            _log.info("Connection cut: the server's certificate is revoked")
            self.abort()

    def _unready(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            # Nobody may be there to hear of it: whoever was connecting may have been cancelled.
            self.ready.exception()

    # Calls.

    def start(self, call: Call, timeout: float | None) -> None:
        """Begin a call, which must be given `timeout` seconds."""
        h2 = self.h2
        try:
            stream = h2.send_request(self._owner.heads.of(call.method, timeout, call.metadata))
        except NGH2Error:
            # The peer leaves, and we have not come to hear of it.
            self.retire()
            self._owner.again(call)
            return
        self.running += 1
        self.calls[stream] = call
        call.connection = self
        call.stream = stream
        call.begin(self, stream)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)
        if stream > 2 * MOST_STREAMS:
            self.retire()

    def cut(self, call: Call, error: HutongError | None) -> None:
        """End a call of ours whatever the peer says: with an error, or with nobody to be told of one."""
        if self.calls.pop(call.stream, None) is None:
            return
        self.reset(call.stream, ErrorCode.CANCEL)
        self._over(call, error)

    def _finish(self, call: Call, error: HutongError | None) -> None:
        """End a call as the peer has it."""
        del self.calls[call.stream]
        if call.unsent():
            self.reset(call.stream, ErrorCode.CANCEL)
        self._over(call, error)

    def _over(self, call: Call, error: HutongError | None) -> None:
        call.over = True
        self._owner.ended(call)
        call.end(error)

    # What the peer says.

    def _on_response(self, event: ResponseReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            return
        call.answered = True
        response = event.headers
        if event.end_stream:
            # Only trailers: they say how it ended, where they are gRPC's.
            known = any(name == b"grpc-status" for name, _ in response)
            self._finish(call, statuses.outcome(response) if known else statuses.unfit(response) or statuses.unsaid())
        elif response != self._usual:
            error = statuses.unfit(response)
            if error is None:
                self._usual = response
            else:
                self.cut(call, error)

    def _on_data(self, event: DataReceived) -> None:
        stream = event.stream_id
        call = self.calls.get(stream)
        if call is None:
            self.taken(stream, len(event.data))
            return
        try:
            call.feed(event.data)
        except HutongError as error:
            self.cut(call, error)
            return
        if event.end_stream:
            self._finish(call, statuses.unsaid())

    def _on_trailers(self, event: TrailersReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            trailers = event.headers
            self._finish(call, None if trailers == _OK else statuses.outcome(trailers))

    def _on_closed(self, event: StreamClosed) -> None:
        self.running -= 1
        call = self.calls.pop(event.stream_id, None)
        if call is not None:
            self._on_cut(call, event)
        if self.retired:
            self.retire()
        else:
            self._owner.freed()

    def _on_cut(self, call: Call, event: StreamClosed) -> None:
        # Refused, or never sent: the peer has done nothing for it.
        unseen = event.error_code == ErrorCode.REFUSED_STREAM or event.local_error is not None
        if unseen and not call.answered and not call.retried:
            call.retried = True
            call.connection = None
            self._owner.again(call)
        else:
            # A server that has no time left to say so cuts the call at its deadline.
            expired = event.error_code == ErrorCode.CANCEL and call.expired()
            self._over(call, statuses.late() if expired else statuses.cut(event.error_code))

    def _on_settings(self, event: SettingsReceived) -> None:
        if not self.most:
            self.most = _NO_LIMIT
        self.most = event.settings.get(Setting.MAX_CONCURRENT_STREAMS, self.most)
        if not self.ready.done():
            self.ready.set_result(None)
        else:
            self._owner.freed()

    def _on_goaway(self, _event: GoAwayReceived) -> None:
        self.retire()

    events: ClassVar[Mapping[type[Event], OnEvent]] = {
        ResponseReceived: _on_response,
        DataReceived: _on_data,
        TrailersReceived: _on_trailers,
        StreamClosed: _on_closed,
        SettingsReceived: _on_settings,
        GoAwayReceived: _on_goaway,
    }


def _read(reader: MessageReader, data: bytes) -> list[bytes]:
    """Read messages of an answer; raises the `HutongError` that a caller is to get where they are none."""
    try:
        return reader.feed(data)
    except HutongError as error:
        large = error.code == "RESOURCE_EXHAUSTED"
        code = statuses.RESOURCE_EXHAUSTED if large else statuses.INTERNAL
        raise statuses.make(code, error.message) from None
