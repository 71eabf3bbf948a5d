"""A real gRPC server that tells each caller who it is, and callers of it: what a node does, and nothing else."""

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import AsyncGenerator

import grpc
import grpc.aio
from cryptography import x509

from certs.errors import CertificateError
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import channel_credentials, server_credentials, server_name
from certs.verify import PeerVerifier

SERVICE = "hutong.tests.Mirror"
WHO = f"/{SERVICE}/Who"
SECONDS = 10.0
"""The most any call here may take; none needs a tenth of it."""


def wall_clock() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Mirror:
    """Answers with the caller's SPIFFE ID, or UNAUTHENTICATED and the reason."""

    def __init__(self, verifier: PeerVerifier) -> None:
        self._verifier = verifier
        self.calls = 0

    async def who(self, _request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        self.calls += 1
        try:
            (pem,) = context.auth_context()["x509_pem_cert"]
            return str(self._verifier.verify(pem)).encode()
        except CertificateError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.reason)


class Node:
    """A server that listens, with what a test asks about it."""

    def __init__(self, port: int, spiffe_id: SpiffeId, mirror: Mirror) -> None:
        self.port = port
        self.spiffe_id = spiffe_id
        self.mirror = mirror

    def channel(self, files: SvidFiles, expected: SpiffeId | None = None) -> grpc.aio.Channel:
        """Open a channel that shares no connection with another."""
        return self.open(channel_credentials(files), expected)

    def open(self, credentials: grpc.ChannelCredentials, expected: SpiffeId | None = None) -> grpc.aio.Channel:
        name = server_name(expected or self.spiffe_id)
        options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options)

    async def ask(self, files: SvidFiles, expected: SpiffeId | None = None) -> str:
        """Call once over a new connection."""
        async with self.channel(files, expected) as channel:
            return await who(channel)

    async def refusal(self, files: SvidFiles, expected: SpiffeId | None = None) -> tuple[grpc.StatusCode, str]:
        """Call once over a new connection and give the refusal."""
        async with self.channel(files, expected) as channel:
            return await refused(channel)

    async def serial(self, files: SvidFiles) -> int:
        """Shake hands anew and give the serial of the certificate the server shows."""
        return await asyncio.to_thread(self._serial, files)

    def _serial(self, files: SvidFiles) -> int:
        context = plain_context(files, ssl.TLSVersion.TLSv1_3)
        name = server_name(self.spiffe_id)
        address = ("127.0.0.1", self.port)
        with (
            socket.create_connection(address, SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=name) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number

    def shake_hands(self, files: SvidFiles, version: ssl.TLSVersion) -> tuple[str | None, int]:
        """Speak exactly `version` with Python's own TLS; give what was agreed and how much the server then said."""
        context = plain_context(files, version)
        address = ("127.0.0.1", self.port)
        name = server_name(self.spiffe_id)
        with (
            socket.create_connection(address, SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=name) as tls,
        ):
            # In TLS 1.3 a server judges the client after the client is done: only its first words show acceptance.
            return tls.version(), len(tls.recv(64))


@contextlib.asynccontextmanager
async def serving(files: SvidFiles, spiffe_id: SpiffeId, verifier: PeerVerifier) -> AsyncGenerator[Node]:
    """Serve a `Mirror` under the identity in `files`."""
    mirror = Mirror(verifier)
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(mirror.who)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Who": handler}),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    try:
        yield Node(port, spiffe_id, mirror)
    finally:
        await server.stop(0)


async def who(channel: grpc.aio.Channel) -> str:
    """Ask over `channel` who one is."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHO)
    return (await call(b"", timeout=SECONDS)).decode()


async def refused(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, str]:
    """Call over `channel` and give the refusal; fails when the call is answered."""
    try:
        answer = await who(channel)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError(f"the call was answered: {answer}")


def bare_credentials(files: SvidFiles) -> grpc.ChannelCredentials:
    """Make credentials as an attacker would, without any of our own checks."""
    return grpc.ssl_channel_credentials(
        files.bundle.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )


def plain_context(files: SvidFiles, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Make a client context of Python's own TLS, a second implementation, that speaks exactly `version`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.bundle)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = version
    context.maximum_version = version
    return context
