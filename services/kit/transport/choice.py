"""Which transport runs: by name, as configs say it."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidFiles
from services.kit.config import LimitsSection, Transport
from services.kit.rpc import Dispatcher, Rpc
from services.kit.transport.grpcio.channel import GrpcChannel
from services.kit.transport.grpcio.server import GrpcServer
from services.kit.transport.nghttp2.channel import NgChannel
from services.kit.transport.nghttp2.server import NgServer
from services.kit.transport.seam import Admission, Channel, Server, Vouch

MakeServer = Callable[[str, Iterable[Rpc], Dispatcher, Admission, SvidFiles, LimitsSection], Server]
"""From the address, the rpcs, what runs them, who lets callers in, the identity to serve with, and limits."""


class MakeChannel(Protocol):
    """Makes channels of a transport."""

    def __call__(
        self, target: str, server: SpiffeId, svid: Svid, response_bytes: int, vouch: Vouch | None = None, /
    ) -> Channel:
        """Make one to `target`, `host:port`, which must prove to be `server`; `svid` is the identity to call with.

        `response_bytes` is the largest answer. `vouch` is asked of the server's certificate, at the handshake and while
        the connection is open: by nghttp2 only, since grpcio does not show it.
        """
        ...


_SERVERS: Final[dict[Transport, MakeServer]] = {"grpcio": GrpcServer, "nghttp2": NgServer}
_CHANNELS: Final[dict[Transport, MakeChannel]] = {"grpcio": GrpcChannel, "nghttp2": NgChannel}


def server(transport: Transport) -> MakeServer:
    """Get what makes servers of a transport."""
    return _SERVERS[transport]


def channel(transport: Transport) -> MakeChannel:
    """Get what makes channels of a transport."""
    return _CHANNELS[transport]
