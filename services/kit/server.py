"""The grpcio transport: mutual TLS in, rpcs run by a `Dispatcher`, statuses out.

No byte of a request is parsed before the handshake's certificate has been verified in full (`certs.verify`) and the
access list has let the caller through. Everything that is not about the transport lives elsewhere.
"""

import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Protocol, cast

import grpc
import grpc.aio

from certs.errors import CertificateError
from certs.spiffe import SpiffeId
from services.kit import wire
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.errors import (
    DOMAIN,
    FailedPrecondition,
    HutongError,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from services.kit.rpc import Call, Dispatcher, Rpc, Shape

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}  # pyright: ignore
_SLACK = 64 * 1024
"""grpcio's own message limit lies this much over ours, so that nearly all oversized requests get our reason."""

Context = grpc.aio.ServicerContext[bytes, bytes]


class Verifier(Protocol):
    """Verifies a peer's certificate (`certs.verify.PeerVerifier`)."""

    def verify(self, pem: bytes, /) -> SpiffeId:
        """Return the identity or raise `CertificateError`."""
        ...


class GrpcServer:
    """Serves rpcs over grpcio on one address."""

    def __init__(
        self,
        address: str,
        rpcs: Iterable[Rpc],
        dispatcher: Dispatcher,
        verifier: Verifier,
        credentials: grpc.ServerCredentials,
        limits: LimitsSection,
    ) -> None:
        self._address = address
        self._dispatcher = dispatcher
        self._verifier = verifier
        self._most_each = max(1, limits.concurrent_calls // 2)
        self._running: dict[str, int] = {}
        """Calls running now, by caller."""
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limits.request_bytes + _SLACK),
                ("grpc.max_send_message_length", limits.response_bytes),
                ("grpc.max_metadata_size", 16 * 1024),
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
        self._credentials = credentials
        self.port = 0

    async def start(self) -> None:
        """Listen; raises `FailedPrecondition` ADDRESS_IN_USE."""
        try:
            self.port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError:
            raise FailedPrecondition(
                Reason.ADDRESS_IN_USE,
                f"cannot listen on {self._address}: the address is in use or not this machine's",
                address=self._address,
            ) from None
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
                with self._share(call):
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
            with self._share(call):
                async for response in run(call):
                    yield response
        except HutongError as error:
            await _abort(context, error)

    @contextmanager
    def _share(self, call: Call) -> Generator[None]:
        """Count the calls a caller has running: nobody may have more than half of all there can be."""
        caller = call.caller.spiffe_id
        running = self._running.get(caller, 0)
        if running >= self._most_each:
            raise ResourceExhausted(Reason.CALLS_TOO_MANY, f"at most {self._most_each} calls of one caller at a time")
        self._running[caller] = running + 1
        try:
            yield
        finally:
            running = self._running[caller] - 1
            if running:
                self._running[caller] = running
            else:
                del self._running[caller]

    def _identify(self, certificate: bytes) -> SpiffeId:
        try:
            return self._verifier.verify(certificate)
        except CertificateError as error:
            if error.reason == "REVOCATION_UNKNOWN":
                # Ours is the fault, not the caller's; but nobody is let in unchecked.
                message = "revocations cannot be checked now"
                raise Unavailable(Reason.REVOCATION_UNKNOWN, message) from None
            # The stranger learns that its certificate does not stand, and which check; nothing of ours.
            reason = Reason.CERTIFICATE_REVOKED if error.reason == "CERTIFICATE_REVOKED" else Reason.IDENTITY_INVALID
            raise Unauthenticated(reason, "the client certificate does not stand", check=error.reason) from None

    def _call(self, rpc: Rpc, context: Context) -> Call:
        certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        remaining = cast("float | None", context.time_remaining())
        return Call(
            method=rpc.method,
            caller=Caller.of(self._identify(certificate)),
            certificate=certificate,
            deadline=None if remaining is None else time.monotonic() + remaining,
            metadata={k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)},
            check=None if rpc.shape is Shape.UNARY else lambda: self._identify(certificate),
        )


async def _abort(context: Context, error: HutongError) -> None:
    status = wire.to_status(error)
    trailing = ((wire.DETAILS_KEY, status.SerializeToString()),)
    await context.abort(_CODES[status.code], f"{DOMAIN}: {error.message}"[:1024], trailing)
