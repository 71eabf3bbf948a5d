"""A server of grpc.aio's with one rpc, mutual TLS, and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from certs.svid import SvidFiles
from certs.tls import server_credentials


async def serve(method: str, handler: Callable[[bytes, Any], Awaitable[bytes]], files: SvidFiles, port: int) -> None:
    """Serve `/package.Service/Rpc` until killed."""
    service, _, rpc = method.strip("/").partition("/")
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {rpc: grpc.unary_unary_rpc_method_handler(handler)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_secure_port(f"127.0.0.1:{port}", server_credentials(files))
    await server.start()
    await server.wait_for_termination()
