"""The channel on grpcio."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

import grpc
import grpc.aio

from certs.spiffe import SpiffeId
from certs.svid import Svid
from certs.tls import channel_credentials, server_name
from services.kit import wire
from services.kit.errors import DOMAIN, HutongError
from services.kit.transport.seam import Metadata, Vouch

_Unary = Callable[..., Awaitable[bytes]]
_Streaming = Callable[..., AsyncIterator[bytes]]


class GrpcChannel:
    """A channel of grpcio's to one node."""

    def __init__(
        self, target: str, server: SpiffeId, svid: Svid, response_bytes: int, vouch: Vouch | None = None
    ) -> None:
        """Connect lazily to `target`, which must prove to be `server`; grpcio does not show what `vouch` asks for."""
        self.response_bytes: Final = response_bytes
        """Bytes of the largest message that it takes."""
        self._channel = grpc.aio.secure_channel(
            target,
            channel_credentials(svid),
            options=[
                ("grpc.ssl_target_name_override", server_name(server)),
                ("grpc.max_receive_message_length", response_bytes),
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
        self._stubs: dict[str, _Unary] = {}

    async def unary(self, method: str, request: bytes, timeout: float | None, metadata: Metadata = ()) -> bytes:
        """Make a unary call; raises the `HutongError` the other side answered with."""
        stub = self._stubs.get(method)
        if stub is None:
            stub = self._stubs[method] = cast("_Unary", self._channel.unary_unary(method))
        try:
            return await stub(request, timeout=timeout, metadata=grpc.aio.Metadata(*metadata))
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from None

    async def stream(
        self,
        method: str,
        requests: bytes | AsyncIterator[bytes],
        timeout: float | None,
        metadata: Metadata = (),
    ) -> AsyncIterator[bytes]:
        """Make a streaming call; see `seam.Channel`."""
        make = self._channel.unary_stream if isinstance(requests, bytes) else self._channel.stream_stream
        call: Any = cast("_Streaming", make(method))(requests, timeout=timeout, metadata=grpc.aio.Metadata(*metadata))
        try:
            async for raw in call:
                yield raw
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from None
        finally:
            call.cancel()

    async def close(self, grace: float = 0.0) -> None:
        """Close it; running calls may go on for `grace` seconds, then they are cut."""
        await self._channel.close(grace or None)


def read_error(error: grpc.aio.AioRpcError) -> HutongError:
    """Turn what grpcio raises into the error the other side meant."""
    details = next((v for k, v in error.trailing_metadata() or () if k == wire.DETAILS_KEY), None)
    message = (error.details() or "").removeprefix(f"{DOMAIN}: ")
    return wire.from_status(error.code().value[0], message, details if isinstance(details, bytes) else None)
