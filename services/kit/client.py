"""Calls to another node: one channel a peer, its identity checked, our certificate fresh, errors with their reasons.

A channel is opened with the certificate of the moment. When the files change, a new channel takes over and the old
one closes once its calls are done; no call fails for it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import channel_credentials, server_name
from services.kit import wire
from services.kit.errors import DOMAIN, HutongError

R = TypeVar("R", bound=Message)

_LOOK_EVERY = 1.0
"""Seconds between looks at the certificate files."""


class Client:
    """A connection to one node."""

    def __init__(
        self,
        target: str,
        server: SpiffeId,
        files: SvidFiles,
        *,
        response_bytes: int = 16 * 1024 * 1024,
        drain: float = 30,
    ) -> None:
        """Connect lazily to `target` (`host:port`), which must prove to be `server`."""
        self.target = target
        self._server = server
        self._files = files
        self._drain = drain
        self._response_bytes = response_bytes
        self._closing: set[asyncio.Task[None]] = set()
        self._looked = time.monotonic()
        self._version = files.version()
        self._channel = self._open()

    def _open(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            self.target,
            channel_credentials(self._files),
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

    def _fresh(self) -> grpc.aio.Channel:
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            version = self._files.version()
            if version != self._version:
                old, self._version = self._channel, version
                self._channel = self._open()
                task = asyncio.get_running_loop().create_task(old.close(self._drain))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        return self._channel

    async def unary(
        self, method: str, request: Message, response: type[R], *, timeout: float | None, traceparent: str = ""
    ) -> R:
        """Make a unary call; raises the `HutongError` the other side answered with."""
        call = self._fresh().unary_unary(
            method, request_serializer=_serialize, response_deserializer=response.FromString
        )
        try:
            return await call(request, timeout=timeout, metadata=_metadata(traceparent))
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from None

    async def stream(
        self, method: str, request: Message, response: type[R], *, timeout: float | None, traceparent: str = ""
    ) -> AsyncIterator[R]:
        """Make a server-streaming call; raises the `HutongError` the other side answered with."""
        stub = self._fresh().unary_stream(
            method, request_serializer=_serialize, response_deserializer=response.FromString
        )
        async for message in _read(stub(request, timeout=timeout, metadata=_metadata(traceparent))):
            yield message

    async def bidi(
        self, method: str, requests: AsyncIterator[Message], response: type[R], *, timeout: float | None
    ) -> AsyncIterator[R]:
        """Make a bidirectional call; raises the `HutongError` the other side answered with."""
        stub = self._fresh().stream_stream(
            method, request_serializer=_serialize, response_deserializer=response.FromString
        )
        async for message in _read(stub(requests, timeout=timeout)):
            yield message

    async def close(self) -> None:
        """Close the channel, cutting what still runs."""
        await self._channel.close()
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)


async def _read(call: Any) -> AsyncIterator[Any]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise read_error(error) from None
    finally:
        call.cancel()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _metadata(traceparent: str) -> tuple[tuple[str, str], ...]:
    return (("traceparent", traceparent),) if traceparent else ()


def read_error(error: grpc.aio.AioRpcError) -> HutongError:
    """Turn what grpcio raises into the error the other side meant."""
    details = next((v for k, v in error.trailing_metadata() or () if k == wire.DETAILS_KEY), None)
    message = (error.details() or "").removeprefix(f"{DOMAIN}: ")
    return wire.from_status(error.code().value[0], message, details if isinstance(details, bytes) else None)
