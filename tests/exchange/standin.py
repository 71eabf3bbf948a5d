"""What stands in the place of a department and answers whatever a test wants: by itself, and over sessions."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from certs.tls import server_credentials
from hutong.api.exchange.v1 import record_source_pb2
from services.kit import wire
from services.kit.rpc import Call, Reply, bind_method
from services.kit.sessions.serving import Prepared, Sessions
from tests.exchange.mesh import Mesh

SOURCE = record_source_pb2.DESCRIPTOR.services_by_name["RecordSourceService"]
ACCESS = f"{SOURCE.full_name}: {{Fetch: ['gateway/*'], FetchSession: ['gateway/*']}}"

Fetch = Callable[[record_source_pb2.FetchRequest, Call], Awaitable[Reply]]
Abort = tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]


class Standin:
    """A `RecordSourceService` whose every answer is that of one function."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._sessions = Sessions(bind_method(SOURCE.methods_by_name["Fetch"], self), self._asked)

    async def fetch(self, request: record_source_pb2.FetchRequest, call: Call) -> Reply:
        return await self._fetch(request, call)

    def fetch_session(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Reply]:
        return self._sessions.serve(requests, call)

    async def _asked(
        self, prepared: Prepared[None], ask: record_source_pb2.FetchSessionRequest.Ask, call: Call
    ) -> Reply:
        request = record_source_pb2.FetchRequest()
        request.CopyFrom(prepared.question)
        request.subject.CopyFrom(ask.subject)
        request.query_id = ask.query_id
        return await self.fetch(request, call)

    watch = describe = fetch


def answered(request: bytes, response: bytes) -> bytes:
    """Answer every ask of a message of a session with the same bytes, whatever they are."""
    asks = record_source_pb2.FetchSessionRequest.FromString(request).asks
    return b"".join(wire.embedded(1, wire.whole(1, ask.id) + wire.embedded(2, response)) for ask in asks)


@contextlib.asynccontextmanager
async def bare(
    mesh: Mesh, agency: str, session: Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]
) -> AsyncGenerator[None]:
    """Put a server there that speaks gRPC and nothing of ours, but for how it serves sessions."""
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(session)
    server = grpc.aio.server()
    handlers = {"FetchSession": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SOURCE.full_name, handlers),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(mesh.zone.files(f"{agency}/node")))
    await server.start()
    try:
        await mesh.replace_gateway(**{agency: f"127.0.0.1:{port}"})
        yield
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def stuck(mesh: Mesh, agency: str) -> AsyncGenerator[asyncio.Event]:
    """Put a department there that is asked and never answers; tells when it was asked."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def session(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for _request in requests:
            reached.set()
            await never.wait()
            yield b""

    async with bare(mesh, agency, session):
        try:
            yield reached
        finally:
            never.set()


@contextlib.asynccontextmanager
async def raw(mesh: Mesh, agency: str, reply: bytes | Abort) -> AsyncGenerator[None]:
    """Put a server there that gives these bytes as every answer, or fails in this way."""

    async def session(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            if isinstance(reply, tuple):
                code, details, trailing = reply
                await context.abort(code, details, trailing)
            else:
                yield answered(request, reply)

    async with bare(mesh, agency, session):
        yield
