"""Whatever becomes of the broker, nothing is lost, nothing is applied twice, and everything comes in order."""

import asyncio
import datetime as dt
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from hutong.api.exchange.v1 import event_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.events import outbox
from services.kit.events.jetstream.broker import Limits
from services.kit.events.jetstream.publisher import PUBLISH
from services.kit.events.jetstream.statement import unseal
from services.kit.events.outbox import NewEvent
from services.kit.events.seam import MAX_PAYLOAD, Batch, Event, EventSource
from services.kit.events.service import EVENT
from tests.events import bed
from tests.events.bed import SOURCE, Log, Receiver, create, event, zone_key
from tests.events.jetfield import CUSTOMS, Field, field, until
from tests.events.natsd import OPERATOR, free_ports
from tests.recording.bed import broken, everything
from tests.zone import now


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Field]:
    async with field(tmp_path) as made:
        yield made


async def held(receiver: Receiver, count: int) -> None:
    """Wait for so many events, and hold what is in the inbox to: each once, all in order."""
    assert await receiver.until(count) == list(range(count))
    assert await receiver.held() == list(range(count))


async def test_events_come_over_the_broker(made: Field) -> None:
    publisher = await made.publish()
    source = made.carried(away=True)
    receiver = made.receiver()
    receiver.follow(source)
    for number in range(20):
        await made.tell(event(number))
    await held(receiver, 20)
    assert (source.carried, source.fetched, source.refused, publisher.published) == (20, 0, 0, 20)
    assert source.reached


async def test_a_broker_that_is_down_for_an_hour(made: Field) -> None:
    """The source cannot be reached either: all of it waits, and comes once the broker is back.

    The clock of source and receiver goes on by an hour meanwhile, in twenty steps; the broker's own is the machine's.
    """
    publisher = await made.publish()
    source, receiver = made.carried(away=True), made.receiver()
    follower = receiver.follow(source)
    await made.tell(event(0))
    await receiver.until(1)
    made.server.stop()
    await until(lambda: not follower.connected and not publisher.connected)
    for start in range(1, 2001, 100):
        made.clock.ahead += dt.timedelta(minutes=3)
        await made.tell(*map(event, range(start, start + 100)))
        # It only ever grows while the broker does not have everything.
        assert publisher.behind() >= made.clock.ahead.total_seconds()
    assert publisher.behind() >= 3600
    made.server.start()
    await held(receiver, 2001)
    await until(lambda: publisher.behind() < 60)
    assert source.fetched == source.refused == 0
    # What went past in that hour is over: what comes now is carried at once.
    await made.tell(event(2001))
    await held(receiver, 2002)


async def test_without_a_broker_the_source_itself_is_followed(made: Field) -> None:
    publisher = await made.publish()
    source, receiver = made.carried(), made.receiver()
    follower = receiver.follow(source)
    await made.tell(event(0))
    await receiver.until(1)
    made.server.stop()
    await until(lambda: not source.reached)
    await made.tell(*map(event, range(1, 500)))
    await receiver.until(500)
    assert source.fetched == 499
    assert follower.connected
    made.server.start()
    await until(lambda: source.reached and publisher.connected)
    before = source.carried
    await made.tell(event(500))
    await held(receiver, 501)
    assert source.carried == before + 1


async def test_a_broker_that_is_killed_again_and_again(made: Field) -> None:
    await made.publish()
    source, receiver = made.carried(away=True), made.receiver()
    receiver.follow(source)
    count = 0
    for _ in range(4):
        for _ in range(10):
            await made.tell(*map(event, range(count, count + 20)))
            count += 20
        await receiver.until(count - 150)
        made.server.kill()
        await made.tell(event(count))
        count += 1
        made.server.start()
    await held(receiver, count)
    assert source.fetched == 0


async def test_a_broker_that_loses_its_disk(made: Field) -> None:
    """While the receiver is away: what was published for it is gone, and the source has it still."""
    publisher = await made.publish()
    receiver = made.receiver()
    receiver.follow(made.carried())
    await made.tell(*map(event, range(10)))
    await receiver.until(10)
    assert receiver.follower
    await receiver.follower.stop()
    await made.tell(*map(event, range(10, 300)))
    await until(lambda: publisher.published == 300)
    made.server.kill()
    made.server.lose_disk()
    await until(lambda: not publisher.connected)
    made.server.start()
    await until(lambda: publisher.connected)
    source = made.carried()
    receiver.follow(source)
    await receiver.until(300)
    await made.tell(*map(event, range(300, 310)))
    await held(receiver, 310)
    assert (source.fetched, source.carried) == (290, 10)


async def test_a_broker_that_lost_its_disk_while_all_were_connected(made: Field) -> None:
    await made.publish()
    source, receiver = made.carried(), made.receiver()
    receiver.follow(source)
    await made.tell(event(0))
    await receiver.until(1)
    made.server.kill()
    made.server.lose_disk()
    await made.tell(*map(event, range(1, 50)))
    made.server.start()
    await until(lambda: source.reached)
    await made.tell(event(50))
    await held(receiver, 51)


async def test_servers_that_are_not_there_are_passed_over(made: Field) -> None:
    """Each at once: not after as long as the client library would try."""
    made.server.addresses[:0] = [f"127.0.0.1:{port}" for port in free_ports(3)]
    async with asyncio.timeout(5), made.server.broker("customs/node").connect() as connection:
        assert await connection.extent(CUSTOMS.stream) is None


async def test_a_cluster_of_which_one_is_killed_and_another_loses_its_disk(tmp_path: Path) -> None:
    """Every stream is on all three servers: whatever becomes of one, the other two go on.

    Whoever leads is not killed here: without it the others wait for four to nine seconds until they choose another one,
    and there is no setting for that.
    """
    limits = Limits(2**30, 3600, replicas=3)
    async with field(tmp_path, servers=3) as made:
        await until(lambda: any(each.leads("metadata") for each in made.servers))
        async with made.server.broker(OPERATOR).connect() as connection:
            await connection.make(CUSTOMS.stream, CUSTOMS.events, limits)
        first, second = [each for each in made.servers if not each.leads("stream")]
        # Everybody talks to the one that is killed.
        made.server.addresses.sort(key=lambda address: address != first.address)
        publisher = await made.publish(limits=limits)
        source, receiver = made.carried(away=True), made.receiver()
        receiver.follow(source)
        await made.tell(*map(event, range(100)))
        await receiver.until(100)
        first.kill()
        await made.tell(*map(event, range(100, 200)))
        await receiver.until(200)
        first.start()
        second.kill()
        second.lose_disk()
        await made.tell(*map(event, range(200, 300)))
        await receiver.until(300)
        second.start()
        await made.tell(*map(event, range(300, 400)))
        await held(receiver, 400)
        assert (source.fetched, publisher.published) == (0, 400)
        assert await chained(made)


async def test_a_broker_restored_from_a_copy(made: Field) -> None:
    publisher = await made.publish()
    source, receiver = made.carried(), made.receiver()
    receiver.follow(source)
    await made.tell(*map(event, range(5)))
    await receiver.until(5)
    made.server.stop()
    shutil.copytree(made.server.store, made.folder / "copy")
    made.server.start()
    await until(lambda: publisher.connected)
    await made.tell(*map(event, range(5, 40)))
    await receiver.until(40)
    made.server.stop()
    made.server.lose_disk()
    shutil.copytree(made.folder / "copy", made.server.store)
    made.server.start()
    await until(lambda: publisher.connected and source.reached)
    await made.tell(*map(event, range(40, 50)))
    await held(receiver, 50)


async def test_what_expired_is_fetched(made: Field) -> None:
    await made.publish()
    await made.tell(*map(event, range(10)))
    async with made.operator() as operator:
        async with asyncio.timeout(20):
            while await operator.last() < 2:
                pass
        await operator.purge()
    source, receiver = made.carried(), made.receiver()
    receiver.follow(source)
    await receiver.until(10)
    await made.tell(event(10))
    await held(receiver, 11)
    assert (source.fetched, source.carried) == (10, 1)


async def test_what_is_published_twice_is_applied_once(made: Field) -> None:
    await made.publish()
    await made.tell(event(0), event(1))
    source, receiver = made.carried(away=True), made.receiver()
    receiver.follow(source)
    await receiver.until(2)
    async with made.operator() as operator:
        for place in (1, 2, 1, 2, 2):
            await operator.put(await operator.statement(place))
    again = made.receiver()
    again.follow(made.carried(away=True))
    await held(again, 2)
    # The publisher is told that its place was taken, looks, and goes on.
    await made.tell(event(2))
    await held(receiver, 3)
    await held(again, 3)
    assert source.refused == 0


async def test_two_replicas_publish_at_once(made: Field) -> None:
    """Each event is put into the stream once, in one chain, whoever of them does it; and one goes on alone."""
    other = Log(made.log.database_url, poll=0.005, heartbeat=0.2)
    first = await made.publish()
    second = await made.publish(other)
    source, receiver = made.carried(away=True), made.receiver()
    receiver.follow(source)
    for start in range(0, 400, 10):
        await made.log.put(*map(event, range(start, start + 10)))
        made.log.outbox.ring()
        other.outbox.ring()
    await held(receiver, 400)
    assert first.published + second.published == 400
    assert await chained(made)
    await first.stop()
    await made.log.put(*map(event, range(400, 420)))
    other.outbox.ring()
    await held(receiver, 420)
    await second.stop()
    await other.close()


async def chained(made: Field) -> bool:
    """Tell whether each statement of the stream begins where the one before it ends."""
    async with made.operator() as operator:
        kept = [await operator.statement(place) for place in range(1, await operator.last() + 1)]
    key = zone_key(made.zone)
    said = [unseal(CUSTOMS, one.headers, one.data, key) for one in kept]
    return [one.after for one in said[1:]] == [one.until for one in said[:-1]]


class Slow(Receiver):
    """A receiver whose inbox takes its time."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = asyncio.Event()
        keep = self.inbox.keep

        async def slowly(source: str, batch: Batch) -> tuple[Event, ...]:
            await self.gate.wait()
            return await keep(source, batch)

        self.inbox.keep = slowly  # type: ignore[method-assign]


async def test_a_slow_receiver(made: Field) -> None:
    """It holds nobody up, and nothing piles up for it anywhere but in the stream."""
    publisher = await made.publish()
    url = f"sqlite+aiosqlite:///{made.folder / 'slow.db'}"
    bed.create_inbox(url)
    slow, source = Slow(url), made.carried(away=True)
    made.stack.push_async_callback(slow.close)
    slow.follow(source)
    quick = made.receiver()
    quick.follow(made.carried(away=True))
    for start in range(0, 3000, 10):
        await made.tell(*map(event, range(start, start + 10)))
    await held(quick, 3000)
    assert publisher.published == 3000
    assert not slow.kept
    slow.gate.set()
    await held(slow, 3000)
    assert source.fetched == 0


async def test_the_largest_events(made: Field) -> None:
    room = MAX_PAYLOAD - len('{"number":1000,"a":""}')
    await made.publish()
    source, receiver = made.carried(away=True), made.receiver()
    receiver.follow(source)
    names = {"kind": "海" * 200, "key": "关" * 200}
    await made.tell(*(NewEvent("customs", payload={"number": n, "a": "x" * (room - 1)}, **names) for n in range(120)))
    await held(receiver, 120)
    assert source.fetched == 0


async def test_a_source_whose_log_began_anew(made: Field, caplog: pytest.LogCaptureFixture) -> None:
    publisher = await made.publish()
    receiver = made.receiver()
    receiver.follow(made.carried())
    await made.tell(event(0, event_id="a"), event(1, event_id="b"), event(2, event_id="c"))
    await receiver.until(3)
    await publisher.stop()
    restored = f"sqlite+aiosqlite:///{made.folder / 'restored.db'}"
    create(restored, outbox.METADATA)
    await made.replace(restored)
    await made.log.put(event(0, event_id="a"), event(3, event_id="d"))
    await made.publish(made.log)
    await held(receiver, 4)
    await made.tell(event(4))
    await held(receiver, 5)
    assert await receiver.inbox.position(SOURCE) == 3
    assert "A stream is ahead of the log" in caplog.text


async def test_a_receiver_restored_from_an_old_copy(made: Field) -> None:
    """Its own position counts, not what the broker remembers of it."""
    await made.publish()
    receiver = made.receiver()
    receiver.follow(made.carried(away=True))
    for start in range(0, 50, 5):
        await made.tell(*map(event, range(start, start + 5)))
        await receiver.until(start + 5)
    other = made.receiver()
    position = Batch(tuple(receiver.kept[:23]), receiver.kept[22].sequence)
    await other.inbox.keep(SOURCE, position)
    source = made.carried(away=True)
    other.follow(source)
    await other.until(27)
    assert await other.held() == list(range(50))
    assert source.carried == 27


async def test_two_replicas_of_a_receiver(made: Field) -> None:
    await made.publish()
    first = made.receiver()
    second = made.receiver(first.url)
    for receiver in (first, second):
        receiver.follow(made.carried(away=True))
    for number in range(40):
        await made.tell(event(number))
    await until(lambda: len(first.kept) + len(second.kept) == 40)
    assert await first.held() == list(range(40))


async def test_a_silent_publisher_is_noticed(made: Field) -> None:
    """It is gone, the broker is not: the source itself is asked."""
    publisher = await made.publish()
    source, receiver = made.carried(quiet=0.3), made.receiver()
    receiver.follow(source)
    await made.tell(event(0))
    await receiver.until(1)
    await publisher.stop()
    await made.tell(event(1))
    await held(receiver, 2)
    assert source.fetched == 1


class Noting:
    """Notes what a source is told by whoever asks it."""

    def __init__(self, source: EventSource) -> None:
        self._source = source
        self.told: list[int] = []

    def follow(self, audience: str, after: int) -> AsyncGenerator[Batch]:
        self.told.append(after)
        return self._source.follow(audience, after)

    async def again(self) -> None:
        """Wait until it is told once more."""
        enough = len(self.told) + 1
        await until(lambda: len(self.told) >= enough)


async def test_a_source_is_told_now_and_then_how_far_a_receiver_is(made: Field) -> None:
    """It keeps what it does not know to be here."""
    await made.publish()
    direct = Noting(made.direct())
    source, receiver = made.carried(tell=0.1, direct=direct), made.receiver()
    receiver.follow(source)
    await made.tell(event(0))
    await receiver.until(1)
    await until(lambda: 1 in direct.told)
    assert (source.carried, source.fetched) == (1, 0)


async def test_a_source_that_cannot_be_told_is_no_reason_to_stop(made: Field) -> None:
    await made.publish()
    direct = Noting(made.direct(away=True))
    source, receiver = made.carried(tell=0.0, direct=direct), made.receiver()
    receiver.follow(source)
    for number in range(3):
        await made.tell(event(number))
        await held(receiver, number + 1)
        await direct.again()
    assert (source.carried, source.reached) == (3, True)


async def test_certificates_are_renewed(made: Field) -> None:
    """Both sides go on with the new one, over a new connection, and nobody is told that anything was lost."""
    publisher = await made.publish()
    source, receiver = made.carried(away=True), made.receiver()
    follower = receiver.follow(source)
    await made.tell(event(0))
    await receiver.until(1)
    opened = made.server.connections()
    for path in ("customs/node", SOURCE):
        made.zone.authority.renew(made.zone.identity(path), now())
    await until(lambda: made.server.connections() >= opened + 2)
    await until(lambda: publisher.connected)
    await made.tell(event(1))
    await held(receiver, 2)
    assert follower.connected
    assert source.fetched == 0


async def test_what_is_published_was_logged(made: Field) -> None:
    await made.publish()
    await made.tell(event(0), event(1, "taxation"), event(2))
    receiver = made.receiver()
    receiver.follow(made.carried(away=True))
    await receiver.until(2)
    (entry,) = [entry for entry in await everything(made.host) if entry.rpc == PUBLISH]
    assert (entry.caller, entry.outcome) == (str(made.zone.identity("customs/node")), log_pb2.OUTCOME_ANSWERED)
    assert [(each.record_type, each.rows) for each in entry.disclosures] == [(EVENT, 2)]
    async with made.operator() as operator:
        kept = await operator.statement(2)
    receipt = event_pb2.FollowResponse.FromString(kept.data).receipt
    assert receipt.origin == CUSTOMS.origin


async def test_what_cannot_be_logged_is_not_published(made: Field) -> None:
    publisher = await made.publish()
    source, receiver = made.carried(away=True), made.receiver()
    receiver.follow(source)
    async with broken(made.host):
        await made.tell(event(0))
        await until(lambda: not publisher.connected)
        async with made.operator() as operator:
            assert await operator.last() == 1
        assert not receiver.kept
    await held(receiver, 1)
