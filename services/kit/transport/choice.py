"""Which transport runs: by name, as configs say it."""

from collections.abc import Callable, Iterable
from typing import Final

from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidFiles
from services.kit.config import LimitsSection, Transport
from services.kit.rpc import Dispatcher, Rpc
from services.kit.transport.grpcio.channel import GrpcChannel
from services.kit.transport.grpcio.server import GrpcServer
from services.kit.transport.nghttp2.channel import NgChannel
from services.kit.transport.nghttp2.server import NgServer
from services.kit.transport.seam import Admission, Channel, Server

MakeServer = Callable[[str, Iterable[Rpc], Dispatcher, Admission, SvidFiles, LimitsSection], Server]
"""From the address, the rpcs, what runs them, who lets callers in, the identity to serve with, and limits."""

MakeChannel = Callable[[str, SpiffeId, Svid, int], Channel]
"""From `host:port`, the identity that it must prove, the identity to call with, and the largest answer in bytes."""

_SERVERS: Final[dict[Transport, MakeServer]] = {"grpcio": GrpcServer, "nghttp2": NgServer}
_CHANNELS: Final[dict[Transport, MakeChannel]] = {"grpcio": GrpcChannel, "nghttp2": NgChannel}


def server(transport: Transport) -> MakeServer:
    """Get what makes servers of a transport."""
    return _SERVERS[transport]


def channel(transport: Transport) -> MakeChannel:
    """Get what makes channels of a transport."""
    return _CHANNELS[transport]
