"""A reader that is slow holds a stream back at its source: nothing piles up in the node that sends it."""

from collections.abc import AsyncIterator
from pathlib import Path

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.client import Client
from services.kit.rpc import Call
from tests.kit.test_server import ASK, FOLLOW, OPEN, Mirror, Request, Response, mirrored
from tests.zone import Zone

PIECE = 64 * 1024
PIECES = 2000
"""125 MiB in all: far more than any window of the transport."""


class Spring(Mirror):
    """Streams as much as it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0

    async def watch(self, request: health_pb2.HealthCheckRequest, call: Call) -> AsyncIterator[Message]:
        for _ in range(PIECES):
            self.given += 1
            yield exchange_pb2.SignedContext(payload=b"x" * PIECE)


async def settled(spring: Spring, client: Client) -> int:
    """Ask something else until the stream has made no step for a hundred answers; gives how far it came."""
    last, quiet = -1, 0
    while quiet < 100:
        await client.unary(ASK, Request(), Response, timeout=5)
        quiet = quiet + 1 if spring.given == last else 0
        last = spring.given
    return last


async def test_a_slow_reader_holds_the_stream_back_and_loses_nothing(tmp_path: Path) -> None:
    zone, spring = Zone(tmp_path), Spring()
    async with (
        zone.serving(mirrored(spring), OPEN) as host,
        zone.client(host, "taxation/refund") as reader,
        zone.client(host, "taxation/other") as other,
    ):
        stream = reader.stream(FOLLOW, Request(), exchange_pb2.SignedContext, timeout=60)
        read = len((await anext(stream)).payload)
        held = await settled(spring, other)
        # Windows on both sides hold some; a quarter of the stream is far more than they should.
        assert held < PIECES / 4
        for _ in range(200):
            read += len((await anext(stream)).payload)
        assert spring.given < 200 + PIECES / 4 + 1
        async for piece in stream:
            read += len(piece.payload)
    assert spring.given == PIECES
    assert read == PIECES * PIECE


async def test_a_reader_that_goes_away_ends_the_stream(tmp_path: Path) -> None:
    zone, spring = Zone(tmp_path), Spring()
    async with zone.serving(mirrored(spring), OPEN) as host, zone.client(host, "taxation/other") as other:
        async with zone.client(host, "taxation/refund") as reader:
            await anext(reader.stream(FOLLOW, Request(), exchange_pb2.SignedContext, timeout=60))
        assert await settled(spring, other) < PIECES / 4
