"""The way to the broker: mutual TLS with the node's own certificate, one connection for each who follows or publishes.

A connection is not mended: who holds one opens another, with the certificate that counts by then. What goes wrong at
the broker is `Unavailable` BROKER_UNAVAILABLE, whatever it was: what the node does about it is the same.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from nats.aio import client as nats_client
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from certs.contexts import show
from certs.spiffe import SpiffeId, server_name
from certs.svid import Svid, SvidVersion
from services.kit.errors import Reason, Unavailable
from services.kit.events.jetstream.way import inbox_prefix
from services.kit.identity import Identity

_CONNECT: Final = 5
"""Seconds that a connection may take."""
_REQUEST: Final = 5.0
"""Seconds that the broker may take to answer."""
_PING: Final = 10
"""Seconds between questions whether the other end is still there; two without an answer end the connection."""
_PENDING: Final = 64
"""Beats that may wait to be read; more are dropped, and the next one says as much."""

_LAST: Final = "Nats-Expected-Last-Sequence"
"""With this header a message is taken only right after that place."""
_Client: Final[Callable[[], Any]] = cast("Any", nats_client).Client

T = TypeVar("T")
_log = logging.getLogger(__name__)


def unavailable(why: str = "the broker cannot be reached now") -> Unavailable:
    """Word the error of whatever goes wrong at the broker."""
    return Unavailable(Reason.BROKER_UNAVAILABLE, why)


@contextmanager
def translated() -> Generator[None]:
    """Replace the errors of the broker and its client library by ours."""
    try:
        yield
    except (TimeoutError, NatsError, OSError, ssl.SSLError) as error:
        # Texts of a broker are not ours to show to anybody; whoever runs the node finds them here.
        _log.debug("The broker failed", exc_info=error)
        raise unavailable() from None


async def _bounded(asked: Coroutine[Any, Any, T], seconds: float, closed: asyncio.Event | None = None) -> T:
    """Wait for the client library so long at most, and no longer than until a connection is closed.

    Not in our own task: with Python 3.11 the library may swallow that it was cancelled (`services.kit.waiting` says
    how), and whoever waits for our task to end would wait for as long as the library tries again. Raises `Unavailable`.
    """
    answer = asyncio.ensure_future(asked)
    waiting: set[asyncio.Future[Any]] = {answer}
    if closed is not None:
        waiting.add(asyncio.ensure_future(closed.wait()))
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise unavailable()
        return answer.result()
    finally:
        for each in waiting:
            each.cancel()


Heard = Callable[[bytes, Mapping[str, str] | None], Awaitable[None]]
"""Is given the data and the headers of what was said."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of a stream."""

    place: int
    """Its number in the stream."""
    headers: Mapping[str, str] | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker keeps in a stream."""

    bytes: int
    """Most bytes; the oldest go first."""
    seconds: float
    """How long."""
    replicas: int = 1
    """On how many of its servers."""


class Connection:
    """One connection to the broker; what it does raises `Unavailable` BROKER_UNAVAILABLE."""

    def __init__(self, client: Any, version: SvidVersion, closed: asyncio.Event) -> None:
        """`client` is `nats.aio.client.Client`, whose own types say too little to be held to them."""
        self._client = client
        self._js = client.jetstream(timeout=_REQUEST)
        self.version = version
        """Of the certificate it was opened with."""
        self.closed = closed
        """Set once it is gone."""

    @property
    def max_payload(self) -> int:
        """Most bytes that the broker takes in one message."""
        return int(self._client.max_payload)

    async def listen(self, subject: str, heard: Heard) -> None:
        """Have everything on a subject heard, from now on."""

        async def each(message: Any) -> None:
            await heard(message.data, message.headers)

        with translated():
            await self._open(self._client.subscribe(subject, cb=each, pending_msgs_limit=_PENDING))
            # Only what the broker has read of us is in force.
            await self._open(self._client.flush(timeout=_CONNECT))

    async def say(self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Say something that nobody keeps."""
        with translated():
            await self._open(self._client.publish(subject, data, headers=headers))

    async def extent(self, stream: str) -> tuple[int, int] | None:
        """Get the first and the last place of a stream, the other way round of an empty one; None without one."""
        with translated():
            try:
                state = (await self._open(self._js.stream_info(stream))).state
            except NotFoundError:
                return None
        return (state.first_seq, state.last_seq) if state.messages else (state.last_seq + 1, state.last_seq)

    async def message(self, stream: str, subject: str, first: int) -> Kept | None:
        """Get the first message kept at this place of a stream or after it; None where there is none."""
        with translated():
            try:
                raw = await self._open(self._js.get_msg(stream, seq=first, subject=subject, next=True))
            except NotFoundError:
                return None
        return Kept(raw.seq or first, raw.headers, raw.data or b"")

    async def publish(self, subject: str, data: bytes, headers: dict[str, str], last: int) -> int | None:
        """Have something kept right after a place of its stream, and wait until it is; gives its own place.

        None where it was refused, as it is where something else came there first.
        """
        with translated():
            try:
                sent = self._js.publish(subject, data, headers=headers | {_LAST: str(last)})
                return int((await self._open(sent)).seq)
            except APIError as error:
                _log.info("The broker refused a message", extra={"fields": {"code": error.err_code}})
                return None

    async def make(self, stream: str, subject: str, limits: Limits) -> None:
        """Have a stream of one subject, with these limits."""
        wanted = StreamConfig(
            name=stream,
            subjects=[subject],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_bytes=limits.bytes,
            max_age=limits.seconds,
            num_replicas=limits.replicas,
        )
        with translated():
            try:
                there = (await self._open(self._js.stream_info(stream))).config
            except NotFoundError:
                await self._open(self._js.add_stream(wanted))
            else:
                if Limits(there.max_bytes, there.max_age, there.num_replicas) != limits:
                    await self._open(self._js.update_stream(wanted))

    async def _open(self, asked: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer while the connection is open; the client would wait on for one that cannot come."""
        return await _bounded(asked, 2 * _REQUEST, self.closed)

    async def purge(self, stream: str) -> None:
        """Empty a stream."""
        with translated():
            await self._open(self._js.purge_stream(stream))


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and who we are to it."""

    servers: tuple[str, ...]
    """`host:port`, each."""
    identity: SpiffeId
    """What it has to prove to be."""
    own: Identity
    """Ours: our certificate, and the roots."""

    def stale(self, connection: Connection) -> bool:
        """Tell whether our certificate, or the roots, were replaced since."""
        return self.own.svid().version != connection.version

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Connection]:
        """Open a connection. Raises `Unavailable` BROKER_UNAVAILABLE."""

        async def failed(error: Exception) -> None:
            _log.debug("The broker complains", exc_info=error)

        svid = self.own.svid()
        try:
            context = await asyncio.to_thread(_context, svid)
        except (ssl.SSLError, OSError):
            raise unavailable("there is no certificate to show to the broker") from None
        client, closed = await self._open(
            {
                "tls": context,
                "tls_hostname": server_name(self.identity),
                # Not a word before both sides have proven who they are.
                "tls_handshake_first": True,
                "allow_reconnect": False,
                # Of a server that takes no connection the library would ask again every two seconds, for minutes.
                "max_reconnect_attempts": 1,
                "reconnect_time_wait": 0,
                "connect_timeout": _CONNECT,
                "ping_interval": _PING,
                "inbox_prefix": inbox_prefix(svid.spiffe_id),
                "name": f"{svid.spiffe_id.agency}/{svid.spiffe_id.system}",
                "error_cb": failed,
            }
        )
        try:
            yield Connection(client, svid.version, closed)
        finally:
            with suppress(Unavailable), translated():
                await _bounded(client.close(), _CONNECT)

    async def _open(self, options: dict[str, Any]) -> tuple[Any, asyncio.Event]:
        """Connect to the first server that takes us; those of a cluster are all as good."""
        for server in self.servers[:-1]:
            with suppress(Unavailable), translated():
                return await self._opened(server, options)
        with translated():
            return await self._opened(self.servers[-1], options)

    async def _opened(self, server: str, options: dict[str, Any]) -> tuple[Any, asyncio.Event]:
        """Connect to a server; gives what is set once that connection is gone, too."""
        client, closed = _Client(), asyncio.Event()

        async def gone() -> None:
            closed.set()

        try:
            # The library bounds each step by itself, and not all of them: whoever took the address may say nothing.
            await _bounded(client.connect(f"tls://{server}", closed_cb=gone, **options), 2 * _CONNECT)
        except BaseException:
            with suppress(Unavailable), translated():
                await _bounded(client.close(), _CONNECT)
            raise
        return client, closed


def _context(svid: Svid) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    show(context, svid)
    return context
