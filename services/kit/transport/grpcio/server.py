"""The server on grpcio: mutual TLS in, rpcs run by a `Dispatcher`, statuses out.

No byte of a request is parsed before the handshake's certificate has been verified in full (`certs.verify`) and the
access list has let the caller through. Everything that is not about the transport lives elsewhere.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

import grpc
import grpc.aio

from certs.svid import SvidFiles
from certs.tls import server_credentials
from services.kit import wire
from services.kit.config import LimitsSection
from services.kit.errors import DOMAIN, HutongError
from services.kit.rpc import Call, Dispatcher, Rpc, Shape
from services.kit.transport.seam import METADATA_BYTES, SLACK, Admission, address_in_use

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}  # pyright: ignore

Context = grpc.aio.ServicerContext[bytes, bytes]


class GrpcServer:
    """Serves rpcs over grpcio on one address."""

    def __init__(
        self,
        address: str,
        rpcs: Iterable[Rpc],
        dispatcher: Dispatcher,
        admission: Admission,
        files: SvidFiles,
        limits: LimitsSection,
    ) -> None:
        self._address = address
        self._dispatcher = dispatcher
        self._admission = admission
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limits.request_bytes + SLACK),
                ("grpc.max_send_message_length", limits.response_bytes),
                ("grpc.max_metadata_size", METADATA_BYTES),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
            maximum_concurrent_rpcs=limits.concurrent_calls,
        )
        by_service: dict[str, dict[str, Any]] = {}
        for rpc in rpcs:
            by_service.setdefault(rpc.service, {})[rpc.name] = self._handler(rpc)
        for service, handlers in by_service.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._credentials = server_credentials(files)
        self.port = 0

    async def start(self) -> None:
        """Listen; raises `FailedPrecondition` ADDRESS_IN_USE."""
        try:
            self.port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError:
            raise address_in_use(self._address) from None
        await self._server.start()

    async def stop(self, drain: float) -> None:
        """Take no new calls, let running ones go on for `drain` seconds, then cut them."""
        await self._server.stop(drain)

    def _handler(self, rpc: Rpc) -> "grpc.RpcMethodHandler[bytes, bytes]":
        if rpc.shape is Shape.UNARY:
            return grpc.unary_unary_rpc_method_handler(self._unary(rpc))
        if rpc.shape is Shape.SERVER_STREAM:
            return grpc.unary_stream_rpc_method_handler(self._stream(rpc))
        return grpc.stream_stream_rpc_method_handler(self._bidi(rpc))

    def _unary(self, rpc: Rpc) -> Callable[[bytes, Context], Any]:
        async def serve(raw: bytes, context: Context) -> bytes:
            try:
                call = self._call(rpc, context)
                with self._admission.share(call):
                    return await self._dispatcher.unary(rpc, raw, call)
            except HutongError as error:
                await _abort(context, error)
                raise

        return serve

    def _stream(self, rpc: Rpc) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
        # gRPC tells streams by their being asynchronous generator functions themselves.
        async def serve(raw: bytes, context: Context) -> AsyncIterator[bytes]:
            async for response in self._responses(rpc, context, lambda call: self._dispatcher.stream(rpc, raw, call)):
                yield response

        return serve

    def _bidi(self, rpc: Rpc) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]:
        async def serve(raws: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            async for response in self._responses(rpc, context, lambda call: self._dispatcher.bidi(rpc, raws, call)):
                yield response

        return serve

    async def _responses(
        self, rpc: Rpc, context: Context, run: Callable[[Call], AsyncIterator[bytes]]
    ) -> AsyncIterator[bytes]:
        """Send what a streaming rpc gives, for as long as the certificate it began with stands (`Call.check`)."""
        try:
            call = self._call(rpc, context)
            with self._admission.share(call):
                async for response in run(call):
                    yield response
        except HutongError as error:
            await _abort(context, error)

    def _call(self, rpc: Rpc, context: Context) -> Call:
        certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        remaining = cast("float | None", context.time_remaining())
        metadata = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
        return self._admission.call(rpc, certificate, remaining, metadata)


async def _abort(context: Context, error: HutongError) -> None:
    status = wire.to_status(error)
    trailing = ((wire.DETAILS_KEY, status.SerializeToString()),)
    await context.abort(_CODES[status.code], f"{DOMAIN}: {error.message}"[:1024], trailing)
