"""What is sent and what is read is logged before it leaves; what says nothing is not."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from hutong.api.exchange.v1 import event_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.errors import Reason, Unavailable
from services.kit.events import outbox
from services.kit.events.service import EVENT
from services.kit.host import Host
from tests.events.bed import Log, OverGrpc, create, event, source_node
from tests.recording.bed import broken, everything, included
from tests.zone import Zone

FOLLOW = "/hutong.api.exchange.v1.EventService/Follow"


class Bed:
    """A source node, and the stream of one who follows it."""

    def __init__(self, log: Log, host: Host, way: OverGrpc) -> None:
        self.log = log
        self.host = host
        self.client = way.client("customs/node")

    def follow(self, after: int = 0) -> Any:
        return self.client.stream(FOLLOW, event_pb2.FollowRequest(after=after), event_pb2.FollowResponse, timeout=30)

    async def followed(self) -> list[log_pb2.LogEntry]:
        return [entry for entry in await everything(self.host) if entry.rpc == FOLLOW]


@pytest.fixture
async def bed(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    create(sqlite_url, outbox.METADATA)
    log, zone = Log(sqlite_url, poll=0.01, heartbeat=0.01), Zone(tmp_path / "zone")
    async with source_node(zone, log) as host, AsyncExitStack() as stack:
        yield Bed(log, host, OverGrpc(zone, host, stack))
        log.outbox.stop()


async def test_a_heartbeat_is_not_logged_and_events_are(bed: Bed) -> None:
    async with aclosing(bed.follow()) as stream:
        for _ in range(3):
            beat = await anext(stream)
            assert not beat.events
            assert not beat.HasField("receipt")
        assert not await bed.followed()
        await bed.log.tell(event(1), event(2, "taxation"), event(3))
        while not (sent := await anext(stream)).events:
            pass
        assert [each.sequence for each in sent.events] == [1, 3]
        await included(bed.client, bed.host, sent.receipt)
        (entry,) = await bed.followed()
        assert (entry.caller.rpartition("zone.example/")[2], entry.outcome) == (
            "customs/node",
            log_pb2.OUTCOME_ANSWERED,
        )
        (given,) = entry.disclosures
        assert (given.record_type, given.mask_digest, given.rows) == (EVENT, b"", 2)
        # What was told of once is not told of again with what comes after it.
        assert not (await anext(stream)).HasField("receipt")
        await bed.log.tell(event(4))
        while not (sent := await anext(stream)).events:
            pass
        assert [entry.disclosures[0].rows for entry in await bed.followed()] == [2, 1]


async def test_no_event_leaves_that_cannot_be_logged(bed: Bed) -> None:
    await bed.log.tell(event(1))
    async with broken(bed.host), aclosing(bed.follow()) as stream:
        with pytest.raises(Unavailable) as caught:
            await anext(stream)
        assert caught.value.reason is Reason.LOG_UNAVAILABLE
    async with aclosing(bed.follow()) as stream:
        assert [each.sequence for each in (await anext(stream)).events] == [1]
