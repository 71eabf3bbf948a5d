"""One connection of a server: calls in, a task for each, answers and statuses out.

Calls are gRPC's, over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). A unary call costs
nothing but memory until its request is whole; then its caller is asked for (`seam.Admission`), and only then is it
parsed. What peers may make a server keep, run or do is bounded: streams, bytes of requests that are not whole, bytes of
answers that are not read, and frames that say nothing.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, cast

from ngh2 import (
    DataReceived,
    ErrorCode,
    Event,
    NGH2Error,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
)

from services.kit.errors import (
    DeadlineExceeded,
    HutongError,
    Internal,
    InvalidArgument,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from services.kit.rpc import Call, Dispatcher, Rpc, Shape
from services.kit.sessions.deadlines import Deadlines
from services.kit.shedding import VITAL
from services.kit.transport.nghttp2 import tls
from services.kit.transport.nghttp2.bounds import (
    CONFIGURATION,
    MOST_EMPTY,
    MOST_KEPT,
    MOST_OF_ALL,
    MOST_PINGS,
    MOST_STREAMS,
    MOST_UNREAD,
    SOME,
    STREAM_WINDOW,
    Timing,
)
from services.kit.transport.nghttp2.connection import Connection, Incoming, OnEvent
from services.kit.transport.nghttp2.framing import MessageReader, frame
from services.kit.transport.nghttp2.headers import HEAD, OK, Headers, mismatch, read_call, trailers
from services.kit.transport.seam import METADATA_BYTES, Admission

_log = logging.getLogger(__name__)

_LEAVING: Final = b"leaving."
"""Payload of the PING whose answer says that the peer knows that we leave."""

_CAP: Final = 1.0
"""Seconds beyond the longest deadline granted after which a call that heeds no deadline is cut."""

_HESITATION: Final = 0.1
"""Seconds that a stream of requests which is refused at once may take to begin. Some clients (grpcio's, in asyncio) say
of a refusal that overtakes their first message that there was an internal error."""

_CUT_SHORT: Final = "the request ends inside a message"

Run = Callable[[Call], AsyncIterator[bytes]]
"""Runs a streaming call."""


class Owner(Protocol):
    """What a connection must know of its server."""

    admission: Admission
    dispatcher: Dispatcher
    rpcs: dict[bytes, Rpc]
    """By `:path`."""
    deadlines: Deadlines["ServedStream"]
    timing: Timing
    request_bytes: int
    response_bytes: int
    concurrent_calls: int
    deadline: float
    """Seconds that a call may take that states no deadline, or a longer one."""
    drain: float
    age: float
    running: int
    """Calls whose handlers run now."""
    begun: dict[str, int]
    """The same, by caller."""
    most_each: int
    """How many of these one caller may have."""

    def joined(self, connection: "ServerConnection") -> bool:
        """Take a connection in; tells whether there is room for it."""
        ...

    def unread(self) -> int:
        """Bytes of answers that all peers leave unread."""
        ...

    def kept(self) -> int:
        """Bytes of all peers' messages that nobody has taken yet."""
        ...

    def silenced(self) -> None:
        """Know that on some connection nothing will be said any more."""
        ...

    def parted(self, connection: "ServerConnection") -> None:
        """Know that a connection is gone."""
        ...


@dataclass(slots=True, eq=False)
class ServedStream:
    """A call, from its headers to the end of its stream."""

    connection: "ServerConnection"
    id: int
    rpc: Rpc
    metadata: Mapping[str, str]
    deadline: float | None
    """The caller's, on `time.monotonic`."""
    tick: int = 0
    """Where `Deadlines` has it; 0 where it has not."""
    reader: MessageReader | None = None
    """Of a single request that came in parts."""
    incoming: Incoming | None = None
    """Of a stream of requests."""
    held: int = 0
    """Bytes of a single request that is not whole."""
    request: bytes | None = None
    task: asyncio.Task[None] | None = None
    begun: bool = False
    """The task has begun to run."""
    ended: bool = False
    """The peer will send no more."""
    headed: bool = False
    """The response has headers already."""
    done: bool = False
    """The response has its end, or will never have one."""
    late: Headers | None = None
    """The response, where it waits for the peer's first word."""
    sent: int = 0
    """Bytes of the response's body, as queued."""
    moved: int = -1
    """How many of them the peer had let out when it was last looked, and when that changed."""
    moved_at: float = 0.0


class ServerConnection(Connection):
    """A connection, at the server's end."""

    # A peer that does not read gets no further calls in; clients read at all times, so nobody waits for ever.
    reads_while_paused: ClassVar[bool] = False

    def __init__(self, server: Owner) -> None:
        """Make the connection of a handshake that has just been done."""
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: min(server.concurrent_calls, MOST_STREAMS),
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: METADATA_BYTES,
        }
        super().__init__(Role.SERVER, CONFIGURATION, settings, MOST_KEPT)
        timing = server.timing
        self.keepalive, self.patience, self.stalled = timing.keepalive, timing.patience, timing.stalled
        self.certificate = b""
        """The peer's, PEM."""
        self.caller = ""
        """Whose it is, as it was when it joined; empty where it has none that stands."""
        self.streams: dict[int, ServedStream] = {}
        self._server = server
        self._timing = timing
        self._since = self._idle_since = time.monotonic()
        # Not all at once, where all were opened at once.
        self._age = server.age * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
        self._greeted = False
        self._leaving: float | None = None
        """When it was asked to leave."""
        self._lingering: dict[int, bool] = {}
        """Streams whose response is queued to its end, while the peer may still send; whether it has a body."""
        self._pings = 0
        self._empty = 0

    # The connection.

    def opened(self, transport: asyncio.Transport) -> None:
        """Keep the certificate that the handshake proved; nothing of what it says is believed yet."""
        self.certificate = tls.peer_certificate(transport)
        if not self.certificate or not tls.speaks_http2(transport) or not self._server.joined(self):
            self.abort()

    def ended(self) -> None:
        """Cancel what runs for nobody."""
        for stream in list(self.streams.values()):
            self._let_go(stream)
        self.streams.clear()
        self._server.silenced()

    def lost(self, error: Exception | None) -> None:
        """Make room for another one."""
        self._server.parted(self)

    def leave(self) -> None:
        """Take no new calls, and be closed when there are none left, or after the server's `drain`.

        The first word asks the peer to open no more streams; only once it is known to have been heard does the last
        one follow, which says which streams were the last: so none is lost on the way.
        """
        if self._leaving is not None or not self.open:
            return
        self._leaving = time.monotonic()
        self.h2.send_shutdown_notice()
        self.h2.ping(_LEAVING)
        self.kick()

    def cut(self) -> None:
        """Refuse what still runs, and close."""
        if not self.open:
            return
        for stream in list(self.streams.values()):
            if not stream.done:
                self._cancel(stream)
                self._refuse(stream, Unavailable(Reason.SHUTTING_DOWN, "the node shuts down"))
                self._say_late(stream)
        self._flush()
        if self.open:
            self.h2.terminate_connection(ErrorCode.NO_ERROR)
            self._flush()
        self.close()

    def tend(self, now: float) -> None:
        """See whether the peer is there, has been there for too long, or for nothing."""
        super().tend(now)
        self._pings = self._empty = 0
        if not self.open:
            return
        if self._leaving is not None:
            if now - self._leaving > self._server.drain:
                self.cut()
        elif not self._greeted:
            if now - self._since > self._timing.preface:
                self.abort()
        elif now - self._since > self._age or (not self.streams and now - self._idle_since > self._timing.idle):
            self.leave()
        if self.open and self.h2.queued_body_size():
            self._see_stalled(now)

    def _see_stalled(self, now: float) -> None:
        for stream in list(self.streams.values()):
            left = self.h2.queued_body_size(stream.id)
            moved = stream.sent - left
            if not left or moved != stream.moved:
                stream.moved, stream.moved_at = moved, now
            elif now - stream.moved_at > self._timing.stalled:
                self._drop(stream, ErrorCode.ENHANCE_YOUR_CALM)

    def _flush(self) -> None:
        super()._flush()
        if self._lingering and self.open and not self.paused and not self._scheduled:
            self._part()

    def _part(self) -> None:
        """Tell peers that send on, although they have their answer, that nobody listens.

        Not before the answer is out: a reset takes the place of whatever was queued before it.
        """
        for stream, body in list(self._lingering.items()):
            if body and (self.h2.queued_body_size(stream) or self._window(stream) <= 0):
                # Trailers go out with the last byte of the body; where there is none left, they need a window still.
                continue
            del self._lingering[stream]
            self.reset(stream, ErrorCode.NO_ERROR)

    def _window(self, stream: int) -> int:
        try:
            return min(self.h2.stream_remote_window_size(stream), self.h2.remote_window_size)
        except NGH2Error:
            return 1

    # What the peer says.

    def _on_request(self, event: RequestReceived) -> None:
        self._greeted = True
        sent = dict(event.headers)
        rpc = self._server.rpcs.get(sent.get(b":path", b""))
        response = mismatch(sent, known=rpc is not None)
        if response is not None or rpc is None:
            self._turn_away(event, response or HEAD)
            return
        try:
            remaining, metadata = read_call(sent, event.headers)
        except HutongError as error:
            self._turn_away(event, (*HEAD, *trailers(error)))
            return
        self._open(ServedStream(self, event.stream_id, rpc, metadata, None), remaining)
        if event.end_stream:
            self._on_end(event.stream_id)

    def _open(self, stream: ServedStream, remaining: float | None) -> None:
        server = self._server
        now = time.monotonic()
        self.streams[stream.id] = stream
        shape = stream.rpc.shape
        if shape is Shape.BIDI:
            stream.incoming = Incoming(self, stream.id, server.request_bytes)
            until = remaining
        else:
            # Without a deadline of its own, this is how long a streaming call's request may take.
            until = server.deadline + _CAP
            if remaining is not None and (shape is Shape.SERVER_STREAM or remaining < until):
                until = remaining
        if remaining is not None:
            stream.deadline = now + remaining
        if until is not None:
            stream.tick = server.deadlines.add(stream, now + until)
        if stream.incoming is not None:
            self._begin(stream, self._bidi(stream, stream.incoming))

    def _on_data(self, event: DataReceived) -> None:
        data = event.data
        stream = self.streams.get(event.stream_id)
        if stream is None or stream.done:
            self.taken(event.stream_id, len(data))
            if stream is not None:
                stream.ended = stream.ended or event.end_stream
                self._say_late(stream)
            return
        ended = event.end_stream
        if not data and not ended:
            self._nothing_said()
            return
        if stream.incoming is not None:
            self._stream_data(stream, stream.incoming, data)
        elif data:
            if ended and stream.reader is None and self._is_whole(data):
                # Nearly always: the whole request in one frame.
                self.h2.acknowledge_received_data(len(data), stream.id)
                stream.request = data[5:]
            else:
                self._part_of_request(stream, data)
        if ended and not stream.done:
            self._on_end(stream.id)

    def _is_whole(self, data: bytes) -> bool:
        length = len(data) - 5
        return 0 <= length <= self._server.request_bytes and data[:5] == b"\0" + length.to_bytes(4)

    def _part_of_request(self, stream: ServedStream, data: bytes) -> None:
        self.taken(stream.id, len(data))
        if stream.reader is None:
            stream.reader = MessageReader(self._server.request_bytes)
        try:
            for message in stream.reader.feed(data):
                if stream.request is not None:
                    raise InvalidArgument(Reason.MALFORMED_REQUEST, "the call has more than one request")
                stream.request = message
            self._hold(stream, stream.reader.held)
            self._check_kept()
        except HutongError as error:
            self._refuse(stream, error)

    def _stream_data(self, stream: ServedStream, incoming: Incoming, data: bytes) -> None:
        try:
            incoming.feed(data)
            self._check_kept()
        except HutongError as error:
            # The handler learns of it, and the caller from the handler's end.
            incoming.end(error)

    def _hold(self, stream: ServedStream, held: int) -> None:
        self.kept += held - stream.held
        stream.held = held

    def _check_kept(self) -> None:
        if self.kept > MOST_KEPT or (self.kept > SOME and self._server.kept() > MOST_OF_ALL):
            raise ResourceExhausted(Reason.CALLS_TOO_MANY, "too much has come that nobody has taken yet")

    def _on_trailers(self, event: TrailersReceived) -> None:
        self._on_end(event.stream_id)

    def _on_end(self, number: int) -> None:
        """Run the call: its request is whole."""
        stream = self.streams.get(number)
        if stream is None:
            return
        stream.ended = True
        if stream.done:
            self._say_late(stream)
            return
        if stream.incoming is not None:
            error = _CUT_SHORT if stream.incoming.partial else None
            stream.incoming.end(InvalidArgument(Reason.MALFORMED_REQUEST, error) if error else None)
            return
        request = stream.request
        if request is None or (stream.reader is not None and stream.reader.partial):
            missing = "the call has no request" if stream.reader is None else _CUT_SHORT
            self._refuse(stream, InvalidArgument(Reason.MALFORMED_REQUEST, missing))
            return
        stream.request = stream.reader = None
        if stream.rpc.shape is Shape.UNARY:
            self._begin(stream, self._unary(stream, request))
        else:
            if stream.deadline is None:
                self._undated(stream)
            self._begin(stream, self._server_stream(stream, request))

    def _on_closed(self, event: StreamClosed) -> None:
        stream = self.streams.pop(event.stream_id, None)
        if stream is not None:
            self._let_go(stream)
            if not self.streams:
                self._idle_since = time.monotonic()

    def _on_settings(self, _event: SettingsReceived) -> None:
        if self._greeted:
            self._nothing_said()
        self._greeted = True

    def _on_ping(self, _event: PingReceived) -> None:
        self._pings += 1
        if self._pings > MOST_PINGS:
            self._calm()

    def _on_pong(self, event: PingAcknowledged) -> None:
        if event.opaque_data == _LEAVING and self._leaving is not None and self.open:
            self.h2.send_goaway(ErrorCode.NO_ERROR)
            self.kick()

    def _nothing_said(self) -> None:
        self._empty += 1
        if self._empty > MOST_EMPTY:
            self._calm()

    def _calm(self) -> None:
        """Close: the peer keeps us busy with nothing."""
        if self.open:
            _log.info("Connection cut: too many frames that say nothing")
            self.h2.terminate_connection(ErrorCode.ENHANCE_YOUR_CALM)
            self._flush()
            self.close()

    events: ClassVar[Mapping[type[Event], OnEvent]] = {
        RequestReceived: _on_request,
        DataReceived: _on_data,
        TrailersReceived: _on_trailers,
        StreamClosed: _on_closed,
        SettingsReceived: _on_settings,
        PingReceived: _on_ping,
        PingAcknowledged: _on_pong,
    }

    # What runs.

    def _begin(self, stream: ServedStream, work: Any) -> None:
        problem = self._crowded(stream.rpc)
        if problem:
            work.close()
            self._server.admission.refused(stream.rpc.method, Reason.CALLS_TOO_MANY)
            self._refuse(stream, ResourceExhausted(Reason.CALLS_TOO_MANY, problem))
            return
        self._count(1)
        stream.task = self.loop.create_task(work)

    def _crowded(self, rpc: Rpc) -> str:
        """Say why no further call may begin; empty where one may."""
        server = self._server
        if server.running >= server.concurrent_calls and rpc.method not in VITAL:
            return f"at most {server.concurrent_calls} calls at a time"
        # A call has its share (`Admission.share`) from its first step on: whoever begins very many in one go would take
        # everybody's place for that long.
        if server.begun.get(self.caller, 0) >= server.most_each:
            return f"at most {server.most_each} calls of one caller at a time"
        return "answers are not read" if self._is_unread() else ""

    def _count(self, change: int) -> None:
        """Count a call in, or out."""
        server = self._server
        server.running += change
        begun = server.begun.get(self.caller, 0) + change
        if begun:
            server.begun[self.caller] = begun
        else:
            del server.begun[self.caller]

    def _is_unread(self) -> bool:
        """Whether so much is unread that there should not be more."""
        unread = self.h2.queued_body_size()
        return unread > MOST_UNREAD or (unread > SOME and self._server.unread() > MOST_OF_ALL)

    async def _unary(self, stream: ServedStream, request: bytes) -> None:
        stream.begun = True
        server = self._server
        try:
            call = self._call(stream)
            with server.admission.share(call):
                answer = await server.dispatcher.unary(stream.rpc, request, call)
            if not stream.done:
                self._answer(stream, answer)
        except HutongError as error:
            self._refuse(stream, error)
        except BaseException as error:
            self._failed(stream, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._count(-1)

    async def _server_stream(self, stream: ServedStream, request: bytes) -> None:
        await self._responses(stream, lambda call: self._server.dispatcher.stream(stream.rpc, request, call))

    async def _bidi(self, stream: ServedStream, incoming: Incoming) -> None:
        await self._responses(stream, lambda call: self._server.dispatcher.bidi(stream.rpc, incoming, call))

    async def _responses(self, stream: ServedStream, run: Run) -> None:
        """Send what a streaming rpc gives, for as long as the certificate it began with stands (`Call.check`)."""
        stream.begun = True
        server = self._server
        try:
            call = self._call(stream)
            with server.admission.share(call):
                async with aclosing(cast("AsyncGenerator[bytes]", run(call))) as responses:
                    async for response in responses:
                        await self._respond(stream, response)
            self._finish(stream)
        except HutongError as error:
            self._refuse(stream, error)
        except BaseException as error:
            self._failed(stream, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._count(-1)

    async def _respond(self, stream: ServedStream, response: bytes) -> None:
        self._check_size(response)
        if not stream.headed:
            stream.headed = True
            self.h2.send_response(stream.id, HEAD)
        stream.sent += len(response) + 5
        await self.send(stream.id, frame(response))

    def _call(self, stream: ServedStream) -> Call:
        remaining = None if stream.deadline is None else stream.deadline - time.monotonic()
        return self._server.admission.call(stream.rpc, self.certificate, remaining, stream.metadata)

    def _check_size(self, answer: bytes) -> None:
        most = self._server.response_bytes
        if len(answer) > most:
            message = f"the answer has {len(answer)} bytes; the limit is {most}"
            raise ResourceExhausted(Reason.ANSWER_TOO_LARGE, message, limit_bytes=str(most))

    # What is said to the peer.

    def _answer(self, stream: ServedStream, answer: bytes) -> None:
        self._check_size(answer)
        h2 = self.h2
        if self._is_unread():
            raise ResourceExhausted(Reason.CALLS_TOO_MANY, "answers are not read")
        number = stream.id
        h2.send_response(number, HEAD)
        h2.send_data(number, frame(answer))
        h2.send_trailers(number, OK)
        stream.headed = stream.done = True
        stream.sent = len(answer) + 5
        self.kick()

    def _finish(self, stream: ServedStream) -> None:
        """End a stream's response well."""
        if not stream.done:
            self._close_response(stream, OK)

    def _refuse(self, stream: ServedStream, error: HutongError) -> None:
        """End a response with an error; of one that has its end already, nothing comes."""
        if not stream.done:
            self._close_response(stream, trailers(error))

    def _close_response(self, stream: ServedStream, status: Headers) -> None:
        stream.done = True
        if stream.incoming is not None and stream.incoming.untouched and not stream.headed:
            stream.late = status
            self.loop.call_later(_HESITATION, self._say_late, stream)
        else:
            self._say_last(stream, status)

    def _say_late(self, stream: ServedStream) -> None:
        status, stream.late = stream.late, None
        if status is not None:
            self._say_last(stream, status)

    def _say_last(self, stream: ServedStream, status: Headers) -> None:
        if not self.open:
            return
        try:
            if stream.headed:
                self.h2.send_trailers(stream.id, status)
                if not stream.ended:
                    self._lingering[stream.id] = True
            else:
                stream.headed = True
                self._only(stream.id, (*HEAD, *status), ended=stream.ended)
        except NGH2Error:
            # The peer has reset it; we have not yet come to hear of it.
            return
        self.kick()

    def _only(self, number: int, response: Headers, *, ended: bool) -> None:
        """Answer with headers alone; raises `NGH2Error` where the stream has ended."""
        self.h2.send_response(number, response, end_stream=True)
        if not ended:
            # There is no use in the rest of the request.
            self._lingering[number] = False

    def _turn_away(self, event: RequestReceived, response: Headers) -> None:
        """Answer what is no call of ours."""
        with suppress(NGH2Error):
            self._only(event.stream_id, response, ended=event.end_stream)

    def _failed(self, stream: ServedStream, error: BaseException) -> None:
        """End a call that somebody cancelled, or that failed for no reason that anybody foresaw."""
        if stream.done or not self.open:
            return
        if isinstance(error, NGH2Error):
            # The stream ended while it was written to.
            self._drop(stream, ErrorCode.CANCEL)
            return
        _log.error("Call failed unexpectedly", exc_info=error, extra={"fields": {"rpc": stream.rpc.method}})
        self._refuse(stream, Internal(Reason.INTERNAL, "internal error"))

    # What ends.

    def expire(self, stream: ServedStream) -> None:
        """End a call whose deadline has passed."""
        stream.tick = 0
        if stream.done:
            # It is answered, but the peer does not let the answer out.
            self.reset(stream.id, ErrorCode.CANCEL)
            return
        self._cancel(stream)
        if stream.headed and self.open and (self.h2.queued_body_size(stream.id) or self._window(stream.id) <= 0):
            self._drop(stream, ErrorCode.CANCEL)
        else:
            self._refuse(stream, DeadlineExceeded(Reason.DEADLINE_TOO_SHORT, "no answer before the deadline"))

    def _drop(self, stream: ServedStream, code: ErrorCode) -> None:
        """Cut a call's stream."""
        if not stream.done:
            stream.done = True
            self._cancel(stream)
        self.reset(stream.id, code)

    def _let_go(self, stream: ServedStream) -> None:
        """Let go of what a stream holds."""
        self._undated(stream)
        stream.late = None
        self._hold(stream, 0)
        if stream.incoming is not None:
            stream.incoming.drop()
        if not stream.done:
            stream.done = True
            self._cancel(stream)

    def _undated(self, stream: ServedStream) -> None:
        if stream.tick:
            self._server.deadlines.discard(stream, stream.tick)
            stream.tick = 0

    def _cancel(self, stream: ServedStream) -> None:
        """Cancel a call's handler; until that has ended, it counts as running."""
        task = stream.task
        if task is None or task.done():
            return
        if not stream.begun:
            # It will never run, nor count itself out.
            stream.begun = True
            self._count(-1)
        task.cancel()
