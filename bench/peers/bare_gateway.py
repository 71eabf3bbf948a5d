"""A bare grpc.aio gateway: five calls at once, their answers' bytes put together, and nothing else.

`python -m bench.peers.bare_gateway ZONE CERTIFICATE BUNDLE PORT TARGETS`, where TARGETS names each department's address
in the order of an answer's fields. Mutual TLS on both sides; no access list, policy, cut, trace, log, receipt, errors.
"""

import asyncio
import sys
from pathlib import Path

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import grpc.aio
import uvloop

from bench.peers import bare_server, contract
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import channel_credentials, server_name
from services.kit import wire


class Gateway:
    """Five channels."""

    def __init__(self, zone: str, files: SvidFiles, targets: list[str]) -> None:
        agencies = [contract.agency_of(name) for name in contract.FIELDS]
        self._calls = [self._call(zone, files, *each) for each in zip(agencies, targets, strict=True)]

    @staticmethod
    def _call(
        zone: str, files: SvidFiles, agency: str, target: str
    ) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        name = server_name(SpiffeId.of(zone, agency, "node"))
        options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.secure_channel(target, channel_credentials(files), options=options)
        return channel.unary_unary(contract.get(agency))

    async def query(self, request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        """Forward the call five times and join what comes back."""
        remaining = context.time_remaining()
        answers = await asyncio.gather(*(call(request, timeout=remaining) for call in self._calls))
        return b"".join(wire.embedded(number, body) for number, body in enumerate(answers, 1))


async def main(zone: str, files: SvidFiles, port: int, targets: list[str]) -> None:
    """Serve until killed."""
    gateway = Gateway(zone, files, targets)
    await bare_server.serve(contract.QUERY, gateway.query, files, port)


if __name__ == "__main__":
    certificate = Path(sys.argv[2])
    identity = SvidFiles(certificate, certificate, Path(sys.argv[3]))
    uvloop.run(main(sys.argv[1], identity, int(sys.argv[4]), sys.argv[5].split(",")))
