"""What peers may make a server keep, run and wait for."""

from dataclasses import dataclass
from typing import Final

from ngh2 import Configuration

from services.kit.transport.seam import METADATA_BYTES

STREAM_WINDOW: Final = 256 * 1024
"""Bytes that a peer may send on a stream before we take any."""

MOST_KEPT: Final = 32 * 1024 * 1024
"""Bytes of one connection's messages that nobody has taken yet, whole or not: as many may be sent on all streams
together before we take any, and a stream that wants more to be kept is refused."""

MOST_UNREAD: Final = 64 * 1024 * 1024
"""Bytes of answers that one connection's peer leaves unread, above which no answer is added, and no call begun."""

MOST_OF_ALL: Final = 256 * 1024 * 1024
"""Bytes of either kind on all connections together, above which those are refused more that have `SOME`."""

SOME: Final = 1024 * 1024

MOST_STREAMS: Final = 1000
"""Streams that one connection may have open."""

MOST_PINGS: Final = 2000
"""PINGs a second of one connection: more than measuring its bandwidth makes any client send."""

MOST_EMPTY: Final = 200
"""SETTINGS, and DATA with nothing in it, a second of one connection."""

CONFIGURATION: Final = Configuration(
    auto_window_update=False,
    # A call with more headers than METADATA_BYTES is refused; one with that many more costs the connection.
    max_inbound_header_list_size=4 * METADATA_BYTES,
    max_inbound_header_count=256,
    max_continuations=8,
    max_settings=32,
    max_outbound_ack=1000,
    stream_reset_rate_limit=(1000, 100),
    glitch_rate_limit=(1000, 100),
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a server waits for peers, in seconds."""

    handshake: float = 5.0
    """For TLS to be agreed on."""
    preface: float = 5.0
    """For the first frame after that."""
    idle: float = 300.0
    """For a call, on a connection that has none."""
    keepalive: float = 60.0
    """For anything at all, before the peer is asked whether it is there."""
    patience: float = 20.0
    """For the answer to that."""
    stalled: float = 30.0
    """For anything to be read of what was written, on a connection or a stream."""
    look: float = 1.0
    """Between looks at all of this."""
