"""What every transport of events has to do. A new one joins the list of `TRANSPORTS` and nothing else changes here."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.kit.errors import FailedPrecondition, Reason
from services.kit.events import outbox
from services.kit.events.seam import BATCH
from services.kit.records.database import engine
from tests.events.bed import NEVER, Log, Transport, create, event, numbers, take, transport
from tests.zone import now

TRANSPORTS = ["in-process", "grpc", "jetstream"]
MANY = 10_000


@dataclass(frozen=True, slots=True)
class Bed:
    """A log and one way out of it."""

    log: Log
    way: Transport
    url: str


@pytest.fixture(params=TRANSPORTS)
async def bed(request: pytest.FixtureRequest, any_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    """A log that nothing but its bell makes known."""
    create(any_url, outbox.METADATA)
    log = Log(any_url)
    async with transport(request.param, log, tmp_path) as way:
        yield Bed(log, way, any_url)


@pytest.fixture(params=TRANSPORTS)
async def looking(request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    """A log that is looked at often."""
    create(sqlite_url, outbox.METADATA)
    log = Log(sqlite_url, poll=0.001)
    async with transport(request.param, log, tmp_path) as way:
        yield Bed(log, way, sqlite_url)


async def test_the_first_batch_comes_at_once(bed: Bed) -> None:
    async with aclosing(bed.way.source("customs").follow("customs", 0)) as batches, asyncio.timeout(10):
        batch = await anext(batches)
    assert (batch.events, batch.until) == ((), 0)


async def test_what_waits_comes_first_and_then_each_as_it_comes(bed: Bed) -> None:
    await bed.log.put(event(1), event(2, key="case-2"))
    async with aclosing(bed.way.source("customs").follow("customs", 0)) as batches:
        first = await take(batches, 2)
        for number in (3, 4):
            await bed.log.tell(event(number))
            assert numbers(await take(batches, 1)) == [number]
    assert numbers(first) == [1, 2]
    assert [(e.sequence, e.audience, e.kind, e.key) for e in first] == [
        (1, "customs", "result.issued", "case-1"),
        (2, "customs", "result.issued", "case-2"),
    ]
    assert len({e.event_id for e in first}) == 2
    assert all(e.recorded_at.tzinfo and abs((now() - e.recorded_at).total_seconds()) < 60 for e in first)


async def test_it_goes_on_where_it_was_left(bed: Bed) -> None:
    await bed.log.put(*map(event, range(5)))
    source = bed.way.source("customs")
    async with aclosing(source.follow("customs", 0)) as batches:
        seen = await take(batches, 5)
    async with aclosing(source.follow("customs", seen[2].sequence)) as batches:
        assert numbers(await take(batches, 2)) == [3, 4]
    async with aclosing(source.follow("customs", seen[4].sequence)) as batches:
        assert (await anext(batches)).events == ()
        await bed.log.tell(event(5))
        assert numbers(await take(batches, 1)) == [5]


async def test_everyone_gets_their_own_only(bed: Bed) -> None:
    await bed.log.put(event(1), event(2, "taxation"), event(3, "quality"), event(4, "taxation"), event(5))
    for agency, expected in (("customs", [1, 5]), ("taxation", [2, 4]), ("quality", [3])):
        async with aclosing(bed.way.source(agency).follow(agency, 0)) as batches:
            found = await take(batches, len(expected))
            assert numbers(found) == expected
            assert {e.audience for e in found} == {agency}
    async with aclosing(bed.way.source("courts").follow("courts", 0)) as batches:
        assert (await anext(batches)).events == ()


async def test_what_another_replica_commits_is_noticed(looking: Bed) -> None:
    other = Log(looking.url)
    async with aclosing(looking.way.source("customs").follow("customs", 0)) as batches:
        await anext(batches)
        for number in range(3):
            await other.put(event(number))
            assert numbers(await take(batches, 1)) == [number]
    await other.close()


async def test_what_is_for_others_makes_no_sound(looking: Bed) -> None:
    async with aclosing(looking.way.source("customs").follow("customs", 0)) as batches:
        await anext(batches)
        pending = asyncio.ensure_future(anext(batches))
        await looking.log.tell(event(1, "taxation"), event(2, "quality"))
        await looking.log.database.looked_at(4)
        assert not pending.done()
        await looking.log.tell(event(3))
        async with asyncio.timeout(10):
            batch = await pending
    assert (numbers(batch.events), batch.until) == ([3], 3)


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_silence_is_told_from_death(kind: str, sqlite_url: str, tmp_path: Path) -> None:
    create(sqlite_url, outbox.METADATA)
    log = Log(sqlite_url, heartbeat=0.001)
    async with (
        transport(kind, log, tmp_path) as way,
        aclosing(way.source("customs").follow("customs", 0)) as batches,
        asyncio.timeout(10),
    ):
        for _ in range(3):
            assert (await anext(batches)).events == ()
        # What is for others moves the end on all the same: not all of it need be looked through again.
        await log.put(event(1, "taxation"))
        while (await anext(batches)).until < 1:
            pass


async def test_a_log_that_ends_before_the_given_sequence_is_told(bed: Bed) -> None:
    await bed.log.put(event(1))
    async with aclosing(bed.way.source("customs").follow("customs", 2)) as batches:
        with pytest.raises(FailedPrecondition) as caught:
            await anext(batches)
    assert caught.value.reason is Reason.EVENTS_AHEAD


async def test_ten_thousand_wait(bed: Bed) -> None:
    await bed.log.put(*(event(n, "customs" if n % 4 else "taxation") for n in range(MANY)))
    expected = [n for n in range(MANY) if n % 4]
    found: list[int] = []
    async with aclosing(bed.way.source("customs").follow("customs", 0)) as batches, asyncio.timeout(60):
        while len(found) < len(expected):
            batch = await anext(batches)
            assert len(batch.events) <= BATCH
            found += numbers(batch.events)
    assert found == expected


async def test_it_ends_when_the_source_stops(bed: Bed) -> None:
    async with aclosing(bed.way.source("customs").follow("customs", 0)) as batches, asyncio.timeout(10):
        await anext(batches)
        bed.log.outbox.stop()
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


async def test_a_transaction_that_fails_sends_nothing(bed: Bed) -> None:
    async with aclosing(bed.way.source("customs").follow("customs", 0)) as batches:
        await anext(batches)

        def fail(connection: object) -> None:
            outbox.put(connection, [event(1)], now())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            raise RuntimeError("changed its mind")

        with pytest.raises(RuntimeError, match="changed its mind"):
            await bed.log.database.write(fail)
        await bed.log.tell(event(2))
        (found,) = await take(batches, 1)
    assert (numbers([found]), found.sequence) == ([2], 1)


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_nothing_is_missed_while_many_write(kind: str, any_url: str, tmp_path: Path) -> None:
    """Writers of other replicas commit while the log is read: a number once passed never comes up behind."""
    create(any_url, outbox.METADATA)
    each, writers = 40, 4

    def write(writer: int) -> None:
        made = engine(any_url, writer=True)
        for number in range(each):
            with made.begin() as connection:
                outbox.put(connection, [event(writer * each + number, key=f"case-{writer}")], now())
        made.dispose()

    log = Log(any_url, poll=0.001, heartbeat=NEVER)
    async with transport(kind, log, tmp_path) as way:
        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
        async with aclosing(way.source("customs").follow("customs", 0)) as batches:
            await anext(batches)
            for thread in threads:
                thread.start()
            found = await take(batches, each * writers)
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert [e.sequence for e in found] == list(range(1, each * writers + 1))
    for writer in range(writers):
        own = [e for e in found if e.key == f"case-{writer}"]
        assert numbers(own) == list(range(writer * each, (writer + 1) * each))
