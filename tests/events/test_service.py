"""The doors: nobody reads what is another agency's, asks for too much, or holds more streams than its share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from hutong.api.exchange.v1 import event_pb2
from services.kit.caller import Caller
from services.kit.errors import HutongError, InvalidArgument, PermissionDenied, Reason, ResourceExhausted
from services.kit.events import outbox
from services.kit.events.inbox import Inbox
from services.kit.events.seam import MAX_NAME, MAX_PAYLOAD, Batch, Event
from services.kit.events.service import STREAMS, EventService, InboxService
from services.kit.records.database import Database
from services.kit.rpc import Call
from tests.events.bed import SOURCE, Log, OverGrpc, create, create_inbox, event, source_node, take
from tests.zone import ZONE, Zone, now


def call(path: str) -> Call:
    agency, _, system = path.partition("/")
    return Call("", Caller(f"spiffe://{ZONE}/{path}", agency, system), b"", None)


@pytest.fixture
async def log(sqlite_url: str) -> AsyncIterator[Log]:
    create(sqlite_url, outbox.METADATA)
    log = Log(sqlite_url)
    yield log
    await log.close()


async def test_the_certificate_says_whose_events_they_are(sqlite_url: str, tmp_path: Path) -> None:
    """Whatever the client writes: the request has no word for an agency."""
    create(sqlite_url, outbox.METADATA)
    log = Log(sqlite_url)
    zone = Zone(tmp_path / "zone")
    await log.put(event(1, "customs"), event(2, "taxation"), event(3, "courts"))
    async with source_node(zone, log) as host, AsyncExitStack() as stack:
        way = OverGrpc(zone, host, stack)
        for agency, number in (("customs", 1), ("taxation", 2), ("courts", 3)):
            source = way.source(agency)
            async with aclosing(source.follow("customs", 0)) as batches:
                (found,) = await take(batches, 1)
            assert (found.audience, found.sequence, found.source) == (agency, number, SOURCE)
        log.outbox.stop()


async def test_a_caller_has_so_many_streams(log: Log) -> None:
    service = EventService(log.outbox, SOURCE)
    request = event_pb2.FollowRequest()
    open_streams: list[Any] = []
    for _ in range(STREAMS):
        stream = service.follow(request, call("customs/node"))
        await anext(stream)
        open_streams.append(stream)
    with pytest.raises(ResourceExhausted) as caught:
        await anext(service.follow(request, call("customs/node")))
    assert caught.value.reason is Reason.STREAMS_TOO_MANY
    for path in ("taxation/node", "customs/other"):
        other: Any = service.follow(request, call(path))
        await anext(other)
        await other.aclose()
    await open_streams.pop().aclose()
    again: Any = service.follow(request, call("customs/node"))
    await anext(again)
    for stream in (again, *open_streams):
        await stream.aclose()


@pytest.mark.parametrize(("after", "reason"), [(-1, Reason.MALFORMED_REQUEST), (2**63 - 1, Reason.EVENTS_AHEAD)])
async def test_sequences_that_are_none(log: Log, after: int, reason: Reason) -> None:
    service = EventService(log.outbox, SOURCE)
    with pytest.raises(HutongError) as caught:
        await anext(service.follow(event_pb2.FollowRequest(after=after), call("customs/node")))
    assert caught.value.reason is reason


@pytest.fixture
async def inbox(any_url: str) -> AsyncIterator[Inbox]:
    create_inbox(any_url)
    database = Database(any_url)
    yield Inbox(database, "customs")
    await asyncio.to_thread(database.close)


async def fill(inbox: Inbox, count: int, payload: str = "{}") -> None:
    events = (
        Event(f"e{n}", n, "customs", f"kind-{n % 2}", f"case-{n % 3}", now(), payload) for n in range(1, count + 1)
    )
    await inbox.keep(SOURCE, Batch(tuple(events), count))


async def ask(inbox: Inbox, path: str = "customs/release", **asked: Any) -> event_pb2.ListInboxEventsResponse:
    service = InboxService(inbox, "customs")
    return await service.list_inbox_events(event_pb2.ListInboxEventsRequest(**asked), call(path))


async def test_an_inbox_is_read_in_pages(inbox: Inbox) -> None:
    assert await ask(inbox) == event_pb2.ListInboxEventsResponse()
    await fill(inbox, 450)
    found = await ask(inbox)
    assert ([e.sequence for e in found.events], found.next_after) == (list(range(1, 21)), 20)
    seen: list[int] = []
    after = 0
    while (page := await ask(inbox, after=after, page_size=2**31 - 1)).events:
        assert len(page.events) <= 200
        seen += [e.sequence for e in page.events]
        after = page.next_after
    assert (seen, page.next_after) == (list(range(1, 451)), 450)
    some = await ask(inbox, kind="kind-1", key="case-0", page_size=2)
    assert [e.sequence for e in some.events] == [3, 9]
    first = found.events[0]
    assert (first.source, first.audience, first.kind, first.key) == (SOURCE, "customs", "kind-1", "case-1")
    assert first.recorded_at.ToDatetime() <= now().replace(tzinfo=None)


async def test_the_largest_page_fits_an_answer(inbox: Inbox) -> None:
    await fill(inbox, 200, '{"a":"' + "海" * ((MAX_PAYLOAD - 9) // 3) + '"}')
    found = await ask(inbox, page_size=200)
    assert len(found.events) == 200
    assert found.ByteSize() < 16 * 1024 * 1024


@pytest.mark.parametrize("path", ["taxation/node", "gateway/main", "operator/admin", "enterprise/customs"])
async def test_an_inbox_is_its_own_agencys(inbox: Inbox, path: str) -> None:
    """Also where an access list would let somebody else in."""
    await fill(inbox, 1)
    with pytest.raises(PermissionDenied):
        await ask(inbox, path)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"after": -1}, Reason.MALFORMED_REQUEST),
        ({"page_size": -1}, Reason.PAGE_SIZE_INVALID),
        ({"kind": "a\x00"}, Reason.EVENT_INVALID),
        ({"key": "x" * (MAX_NAME + 1)}, Reason.EVENT_INVALID),
    ],
)
async def test_questions_that_are_none(inbox: Inbox, asked: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await ask(inbox, **asked)
    assert caught.value.reason is reason


async def test_beyond_the_end_there_is_nothing(inbox: Inbox) -> None:
    await fill(inbox, 3)
    for after in (3, 4, 2**63 - 1):
        found = await ask(inbox, after=after)
        assert (list(found.events), found.next_after) == ([], after)
