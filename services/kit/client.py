"""Calls to another node: one channel a peer, its identity checked, our certificate fresh, errors with their reasons.

A channel is opened with the certificate of the moment. When the files change, a new channel takes over and the old
one closes once its calls are done; no call fails for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidFiles, SvidVersion
from certs.tls import channel_credentials, server_name
from services.kit import wire
from services.kit.errors import DOMAIN, HutongError, Reason, Unavailable
from services.kit.identity import Identity

R = TypeVar("R", bound=Message)

_RETIRE_AFTER = 30.0
"""Seconds that a channel of a former certificate stays usable, for calls that were prepared with it."""


Unary = Callable[..., Awaitable[bytes]]
Streaming = Callable[..., AsyncIterator[bytes]]
"""Rpcs as this module calls them: bytes come back, and are parsed here."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A channel with the certificate it was opened with, and its unary rpcs by method (one response type each)."""

    channel: grpc.aio.Channel
    stubs: dict[str, Unary]


class Client:
    """A connection to one node."""

    def __init__(
        self, target: str, server: SpiffeId, files: SvidFiles, *, response_bytes: int = 16 * 1024 * 1024
    ) -> None:
        """Connect lazily to `target` (`host:port`), which must prove to be `server`."""
        self.target = target
        self._server = server
        self._identity = Identity(files)
        self._response_bytes = response_bytes
        self._lines: dict[SvidVersion, _Line] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def _open(self, svid: Svid) -> _Line:
        channel = grpc.aio.secure_channel(
            self.target,
            channel_credentials(svid),
            options=[
                ("grpc.ssl_target_name_override", server_name(self._server)),
                ("grpc.max_receive_message_length", self._response_bytes),
                # A department that comes back is noticed within a second, not within two minutes.
                ("grpc.initial_reconnect_backoff_ms", 100),
                # In spite of its name also the longest that connecting may take.
                ("grpc.min_reconnect_backoff_ms", 5_000),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                # Channels with the same arguments share connections; ours must not outlive their certificate.
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        return _Line(channel, {})

    def _line(self, svid: Svid | None) -> _Line:
        svid = svid or self._identity.svid()
        line = self._lines.get(svid.version)
        if line is None:
            for former in tuple(self._lines):
                task = asyncio.get_running_loop().create_task(self._retire(former))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
            line = self._lines[svid.version] = self._open(svid)
        return line

    async def _retire(self, version: SvidVersion) -> None:
        await asyncio.sleep(_RETIRE_AFTER)
        line = self._lines.pop(version, None)
        if line:
            await line.channel.close(_RETIRE_AFTER)

    async def unary(
        self,
        method: str,
        request: Message | bytes,
        response: type[R],
        *,
        timeout: float | None,
        traceparent: str = "",
        svid: Svid | None = None,
    ) -> R:
        """Make a unary call; raises the `HutongError` the other side answered with.

        `svid` is the identity to call with, where the request was signed with its key; the present one otherwise.
        """
        return parse(await self.raw(method, request, timeout=timeout, traceparent=traceparent, svid=svid), response)

    async def raw(
        self,
        method: str,
        request: Message | bytes,
        *,
        timeout: float | None,
        traceparent: str = "",
        svid: Svid | None = None,
    ) -> bytes:
        """Make a unary call, and give the answer's bytes as they came, of which a log has the digest; as `unary`."""
        line = self._line(svid)
        stub = line.stubs.get(method)
        if stub is None:
            stub = cast("Unary", line.channel.unary_unary(method, _serialize))
            line.stubs[method] = stub
        try:
            return await stub(request, timeout=timeout, metadata=_metadata(traceparent))
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from None

    async def stream(
        self, method: str, request: Message, response: type[R], *, timeout: float | None, traceparent: str = ""
    ) -> AsyncIterator[R]:
        """Make a server-streaming call; raises the `HutongError` the other side answered with."""
        stub = cast("Streaming", self._line(None).channel.unary_stream(method, _serialize))
        async for message in _read(stub(request, timeout=timeout, metadata=_metadata(traceparent)), response):
            yield message

    async def bidi(
        self, method: str, requests: AsyncIterator[Message], response: type[R], *, timeout: float | None
    ) -> AsyncIterator[R]:
        """Make a bidirectional call; raises the `HutongError` the other side answered with."""
        stub = cast("Streaming", self._line(None).channel.stream_stream(method, _serialize))
        async for message in _read(stub(requests, timeout=timeout), response):
            yield message

    async def close(self) -> None:
        """Close the connections, cutting what still runs."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for line in self._lines.values():
            await line.channel.close()
        self._lines.clear()


def parse(raw: bytes, response: type[R]) -> R:
    """Read the bytes of an answer; raises `Unavailable` DEPARTMENT_FAILED where they are none."""
    try:
        return response.FromString(raw)
    except DecodeError:
        raise Unavailable(Reason.DEPARTMENT_FAILED, f"the answer is no {response.DESCRIPTOR.full_name}") from None


async def _read(call: Any, response: type[R]) -> AsyncIterator[R]:
    try:
        async for raw in call:
            yield parse(raw, response)
    except grpc.aio.AioRpcError as error:
        raise read_error(error) from None
    finally:
        call.cancel()


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _metadata(traceparent: str) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(("traceparent", traceparent)) if traceparent else grpc.aio.Metadata()


def read_error(error: grpc.aio.AioRpcError) -> HutongError:
    """Turn what grpcio raises into the error the other side meant."""
    details = next((v for k, v in error.trailing_metadata() or () if k == wire.DETAILS_KEY), None)
    message = (error.details() or "").removeprefix(f"{DOMAIN}: ")
    return wire.from_status(error.code().value[0], message, details if isinstance(details, bytes) else None)
