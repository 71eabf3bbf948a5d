"""The yardstick: a bare grpc.aio gateway that forwards the same five calls, with nothing around them.

No access list, no policy, no cut, no trace, no errors: it takes a question's bytes, sends five prepared requests to the
five departments over the same mutual TLS with the same certificate, and joins the answers' bytes. It is run as a
process of its own: `python -m bench.bare CONFIG REQUESTS`, where CONFIG is the gateway's and REQUESTS a file of
prepared requests. Departments accept a signed context for half a minute, so it signs anew every ten seconds.
"""

import asyncio
import sys
from pathlib import Path

from services.kit.caller import Caller
from services.kit.clock import system_clock
from services.kit.context import ContextSigner, request_digest

# isort: split
import grpc
import grpc.aio
import uvloop

from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import channel_credentials, server_credentials, server_name
from gateway.config import GatewayConfig
from hutong.api.exchange.v1 import federation_pb2, record_source_pb2
from services.kit import config

FETCH = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
METHOD = "bench.Bare", "Query"


class Bare:
    """Five channels and five requests."""

    def __init__(self, settings: GatewayConfig, question: federation_pb2.QueryRequest, caller: str) -> None:
        self.files = SvidFiles(settings.tls.certificate, settings.tls.key, settings.tls.bundle)
        self._question = question
        agency, _, system = caller.partition("/")
        zone = settings.node.zone
        self._caller = Caller(f"spiffe://{zone}/{caller}", agency, system)
        self._signer = ContextSigner(self.files.load().spiffe_id, system_clock)
        self._calls = {name: self._channel(zone, name, settings) for name in settings.departments}
        self._requests: list[tuple[str, bytes]] = []
        self.sign()

    def _channel(
        self, zone: str, agency: str, settings: GatewayConfig
    ) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        name = server_name(SpiffeId.of(zone, agency, settings.departments[agency].system))
        options = [("grpc.ssl_target_name_override", name)]
        channel = grpc.aio.secure_channel(
            settings.departments[agency].target, channel_credentials(self.files), options=options
        )
        return channel.unary_unary(FETCH)

    def sign(self) -> None:
        """Prepare the five requests."""
        requests: dict[str, record_source_pb2.FetchRequest] = {}
        for selection in self._question.selections:
            agency = selection.record_type.partition(".")[0]
            request = record_source_pb2.FetchRequest(subject=self._question.subject, selections=[selection])
            requests[agency] = request
        digests = [request_digest(r) for r in requests.values()]
        signed = self._signer.sign(self.files.load(), self._caller, self._question.context, digests)
        for request in requests.values():
            request.delegated.CopyFrom(signed)
        self._requests = [(agency, request.SerializeToString()) for agency, request in requests.items()]

    async def query(self, _: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        """Forward the five calls and join what comes back."""
        remaining = context.time_remaining()
        answers = await asyncio.gather(
            *(self._calls[agency](request, timeout=remaining) for agency, request in self._requests)
        )
        return b"".join(answers)


async def main(settings: GatewayConfig, asked: federation_pb2.QueryRequest, caller: str, port: int) -> None:
    """Serve until killed."""
    bare = Bare(settings, asked, caller)
    server = grpc.aio.server()
    service, method = METHOD
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {method: grpc.unary_unary_rpc_method_handler(bare.query)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_secure_port(f"127.0.0.1:{port}", server_credentials(bare.files))
    await server.start()
    while True:
        await asyncio.sleep(10)
        bare.sign()


if __name__ == "__main__":
    prepared = federation_pb2.QueryRequest.FromString(Path(sys.argv[2]).read_bytes())
    settings = config.read(Path(sys.argv[1]), GatewayConfig)
    uvloop.run(main(settings, prepared, sys.argv[3], int(sys.argv[4])))
