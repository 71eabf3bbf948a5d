"""A department whose certificate is right and whose program is not: it answers whatever the test wants."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf.message import Message

from certs.tls import server_credentials
from hutong.api.exchange.v1 import record_source_pb2
from services.kit.config import LimitsSection
from services.kit.rpc import Call, bind
from tests.exchange.mesh import Mesh

Answer = Callable[[record_source_pb2.FetchRequest], record_source_pb2.FetchResponse]
Abort = tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]

_LISTS = "hutong.api.exchange.v1.RecordSourceService: {Fetch: ['gateway/*']}"
_SERVICE = record_source_pb2.DESCRIPTOR.services_by_name["RecordSourceService"]


class Imposter:
    """Stands in the place of an agency's department, for the gateway of a mesh."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _: record_source_pb2.FetchResponse()
        self.heard: list[record_source_pb2.FetchRequest] = []
        self.address = ""

    async def fetch(self, request: record_source_pb2.FetchRequest, call: Call) -> Message:
        self.heard.append(request)
        return self.answer(request)

    async def watch(self, request: record_source_pb2.WatchRequest, call: Call) -> AsyncIterator[Message]:
        yield record_source_pb2.WatchResponse()

    async def describe(self, request: record_source_pb2.DescribeRequest, call: Call) -> Message:
        return record_source_pb2.DescribeResponse()


@contextlib.asynccontextmanager
async def instead_of(mesh: Mesh, agency: str, folder: Path) -> AsyncGenerator[Imposter]:
    """Put an imposter in the place of a department; the gateway asks it from now on."""
    imposter = Imposter()
    host = mesh.zone.host(f"{agency}/node", LimitsSection(response_bytes=64 * 1024 * 1024), log=True)
    lists = folder / f"{agency}-imposter.yaml"
    lists.write_text(_LISTS)
    await host.start(bind(_SERVICE, imposter), [lists])
    imposter.address = host.address
    try:
        await mesh.replace_gateway(**{agency: host.address})
        yield imposter
    finally:
        await host.stop()


@contextlib.asynccontextmanager
async def raw(mesh: Mesh, agency: str, reply: bytes | Abort) -> AsyncGenerator[None]:
    """Put a server there that speaks gRPC and nothing of ours: it gives these bytes, or fails in this way."""

    async def fetch(_request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        if isinstance(reply, tuple):
            code, details, trailing = reply
            await context.abort(code, details, trailing)
        return reply

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(fetch)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, {"Fetch": handler}),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(mesh.zone.files(f"{agency}/node")))
    await server.start()
    try:
        await mesh.replace_gateway(**{agency: f"127.0.0.1:{port}"})
        yield
    finally:
        await server.stop(0)
