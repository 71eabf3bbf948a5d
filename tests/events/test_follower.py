"""A receiver gets everything once and in order, whatever happens to it, to the source, or to what lies between."""

import asyncio
import datetime as dt
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from hutong.api.exchange.v1 import event_pb2
from services.kit.client import Client
from services.kit.errors import FailedPrecondition, HutongError, Reason, Unavailable
from services.kit.events import inbox, outbox
from services.kit.events.follower import Follower, Remote
from services.kit.events.inbox import Inbox
from services.kit.events.seam import Batch, Event
from services.kit.rpc import Call
from tests.conftest import REPOSITORY
from tests.databases import Postgres
from tests.events.bed import SOURCE, Log, Receiver, create, create_inbox, event, serving, source_node
from tests.log.bed import Clock
from tests.zone import Zone

MANY = 10_000


class Field:
    """A zone with one source, which can be away, and receivers."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.zone = Zone(folder)
        self.stack = stack
        self.url = f"sqlite+aiosqlite:///{folder / 'source.db'}"
        self.address = ""
        self.log: Log | None = None
        self._source = AsyncExitStack()
        create(self.url, outbox.METADATA)

    async def start(self) -> Log:
        """Start the source, on its former address where it had one."""
        self.log = log = Log(self.url)
        host = await self._source.enter_async_context(source_node(self.zone, log, self.address or "127.0.0.1:0"))
        self.address = host.address
        return log

    async def stop(self) -> None:
        if self.log:
            self.log.outbox.stop()
        await self._source.aclose()

    def remote(self, path: str = "customs/node", address: str = "") -> Remote:
        client = Client(address or self.address, self.zone.identity(SOURCE), self.zone.files(path))
        self.stack.push_async_callback(client.close)
        return Remote(client, SOURCE)

    def receiver(self, url: str, agency: str = "customs") -> Receiver:
        receiver = Receiver(url, agency)
        self.stack.push_async_callback(receiver.close)
        return receiver


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    async with AsyncExitStack() as stack:
        field = Field(tmp_path / "field", stack)
        yield field
        await field.stop()


@pytest.fixture
def inbox_url(any_url: str) -> str:
    create_inbox(any_url)
    return any_url


@pytest.fixture
def sqlite_inbox(sqlite_url: str) -> str:
    create_inbox(sqlite_url)
    return sqlite_url


async def test_events_arrive_as_soon_as_they_are_committed(field: Field, inbox_url: str) -> None:
    log = await field.start()
    receiver = field.receiver(inbox_url)
    receiver.follow(field.remote())
    for number in range(5):
        await log.tell(event(number), event(number, "taxation"))
        assert await receiver.until(number + 1) == list(range(number + 1))
    assert await receiver.held() == list(range(5))
    assert {e.source for e in receiver.kept} == {SOURCE}
    # The end of the log, which lies behind what is another's.
    assert await receiver.inbox.position(SOURCE) == 10


async def test_ten_thousand_wait(field: Field, inbox_url: str) -> None:
    log = await field.start()
    await log.put(*map(event, range(MANY)))
    receiver = field.receiver(inbox_url)
    receiver.follow(field.remote())
    assert await receiver.until(MANY) == list(range(MANY))
    assert await receiver.held() == list(range(MANY))


async def test_a_source_that_is_away_when_the_receiver_starts(field: Field, sqlite_inbox: str) -> None:
    await field.start()
    await field.stop()
    receiver = field.receiver(sqlite_inbox)
    follower = receiver.follow(field.remote())
    assert not follower.connected
    log = await field.start()
    await log.tell(event(1))
    assert await receiver.until(1) == [1]
    assert follower.connected


async def test_a_source_that_is_restarted(field: Field, sqlite_inbox: str) -> None:
    receiver = field.receiver(sqlite_inbox)
    for number in range(0, 9, 3):
        log = await field.start()
        if not receiver.follower:
            receiver.follow(field.remote())
        await log.tell(event(number), event(number + 1))
        await receiver.until(number + 2)
        # Committed as the source goes down, and told to nobody.
        await log.put(event(number + 2))
        await field.stop()
    await field.start()
    assert await receiver.until(9) == list(range(9))
    assert await receiver.held() == list(range(9))


async def test_a_receiver_that_comes_and_goes(field: Field, sqlite_inbox: str) -> None:
    log = await field.start()
    for number in range(4):
        await log.put(event(2 * number), event(2 * number + 1))
        receiver = field.receiver(sqlite_inbox)
        receiver.follow(field.remote())
        assert await receiver.until(2) == [2 * number, 2 * number + 1]
        await receiver.close()
    receiver = field.receiver(sqlite_inbox)
    assert await receiver.held() == list(range(8))


async def test_a_receiver_whose_database_is_away(field: Field, postgres_url: str, postgres_server: Postgres) -> None:
    create_inbox(postgres_url)
    log = await field.start()
    receiver = field.receiver(postgres_url)
    follower = receiver.follow(field.remote())
    await log.tell(event(1))
    await receiver.until(1)
    name = sa.make_url(postgres_url).database
    postgres_server.execute(
        f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    await log.tell(event(2))
    async with asyncio.timeout(10):
        while follower.connected:
            await asyncio.to_thread(int)
    await log.tell(event(3))
    with pytest.raises(Unavailable):
        await receiver.inbox.position(SOURCE)
    postgres_server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    assert await receiver.until(3) == [1, 2, 3]
    assert await receiver.held() == [1, 2, 3]


def kill_after(kept: int, command: list[str]) -> int:
    """Run a receiver until it has kept so many events, and kill it without any warning."""
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= kept:
                process.kill()
    return process.returncode


async def test_a_receiver_that_is_killed_again_and_again(field: Field, inbox_url: str) -> None:
    log = await field.start()
    total = 3_000
    await log.put(*map(event, range(total)))
    field.zone.files("customs/node")
    folder = field.zone.authority.layout.folder
    command = [sys.executable, "-m", "tests.events.receiving", field.address, str(folder), inbox_url]
    for kept in (1, 350, 700):
        assert await asyncio.to_thread(kill_after, kept, command) == -9
    receiver = field.receiver(inbox_url)
    before = await receiver.held()
    assert before == list(range(len(before)))
    assert 1_000 < len(before) <= total
    receiver.follow(field.remote())
    await log.tell(event(total))
    await receiver.until(total + 1 - len(before))
    assert await receiver.held() == list(range(total + 1))


async def test_two_replicas_of_a_receiver(field: Field, inbox_url: str) -> None:
    log = await field.start()
    first, second = field.receiver(inbox_url), field.receiver(inbox_url)
    for receiver in (first, second):
        receiver.follow(field.remote())
    for number in range(40):
        await log.tell(event(number))
    async with asyncio.timeout(30):
        while len(first.kept) + len(second.kept) < 40:
            await asyncio.to_thread(int)
    assert await first.held() == list(range(40))
    assert sorted(e.sequence for e in first.kept + second.kept) == list(range(1, 41))


async def test_a_source_whose_log_began_anew(field: Field, sqlite_inbox: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its database was restored from a copy: some events come again, others have numbers that were used before."""
    log = await field.start()
    await log.put(event(1, event_id="a"), event(2, event_id="b"), event(3, event_id="c"))
    receiver = field.receiver(sqlite_inbox)
    receiver.follow(field.remote())
    await receiver.until(3)
    await field.stop()
    field.url = field.url.replace("source.db", "restored.db")
    create(field.url, outbox.METADATA)
    log = await field.start()
    await log.tell(event(1, event_id="a"), event(4, event_id="d"))
    assert await receiver.until(4) == [1, 2, 3, 4]
    assert await receiver.inbox.position(SOURCE) == 2
    assert "A source's log began anew" in caplog.text


class Hostile:
    """A source that does what it should not."""

    def __init__(self, *responses: event_pb2.FollowResponse) -> None:
        self._responses = responses
        self.called = 0
        self.again = asyncio.Event()

    async def follow(self, request: event_pb2.FollowRequest, call: Call) -> AsyncIterator[event_pb2.FollowResponse]:
        self.called += 1
        for response in self._responses:
            yield response
        if self.called > 1:
            self.again.set()
        await self.again.wait()


def sent(number: int, **changed: str) -> event_pb2.Event:
    fields = {"event_id": f"e{number}", "audience": "customs", "kind": "k", "payload": f'{{"number": {number}}}'}
    message = event_pb2.Event(sequence=number, source="commerce/node", **(fields | changed))  # type: ignore[arg-type]  # pyright: ignore
    message.recorded_at.FromDatetime(dt.datetime(2026, 3, 1, tzinfo=dt.UTC))
    return message


async def test_a_source_that_sends_what_it_should_not(field: Field, sqlite_inbox: str) -> None:
    never = sent(4)
    never.recorded_at.seconds = 10**15
    events = [
        sent(1),
        sent(2, audience="taxation"),
        sent(3, kind="\x1b[2J"),
        never,
        sent(5, payload="no JSON"),
        sent(6),
    ]
    hostile = Hostile(event_pb2.FollowResponse(events=events, until=6))
    receiver = field.receiver(sqlite_inbox)
    async with serving(field.zone, hostile) as host:
        receiver.follow(field.remote(address=host.address))
        assert await receiver.until(2) == [1, 6]
        await receiver.close()
        hostile.again.set()
    # Nobody speaks for another: the certificate says who sent it.
    assert {e.source for e in receiver.kept} == {SOURCE}


async def test_a_source_that_falls_silent_is_called_again(field: Field, sqlite_inbox: str) -> None:
    hostile = Hostile(event_pb2.FollowResponse(until=1))
    receiver = field.receiver(sqlite_inbox)
    async with serving(field.zone, hostile) as host:
        receiver.follow(field.remote(address=host.address), silence=0.01)
        async with asyncio.timeout(10):
            await hostile.again.wait()
        assert await receiver.held() == []
        await receiver.close()


async def test_a_source_that_refuses_is_asked_again(field: Field, sqlite_inbox: str) -> None:
    log = Log(field.url)
    receiver = field.receiver(sqlite_inbox)
    async with serving(field.zone, Hostile(), access="{}") as host:
        address = host.address
        remote = field.remote(address=address)
        follower = receiver.follow(remote)
        with pytest.raises(HutongError):
            await anext(remote.follow("customs", 0))
    async with source_node(field.zone, log, address):
        await log.tell(event(1))
        assert await receiver.until(1) == [1]
        assert follower.connected
        log.outbox.stop()


async def test_it_stops_at_once(field: Field, sqlite_inbox: str) -> None:
    """While it waits for an event, for a source that is away, and before it began."""
    log = await field.start()
    receiver = field.receiver(sqlite_inbox)
    follower = receiver.follow(field.remote())
    await log.tell(event(1))
    await receiver.until(1)
    async with asyncio.timeout(30):
        await follower.stop()
        await follower.stop()
    assert not follower.connected
    await field.stop()
    follower.start()
    async with asyncio.timeout(30):
        await follower.stop()


class Told:
    """A source that says what it is given to say, and tells when that was taken."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[Batch] = asyncio.Queue()
        self.taken = asyncio.Event()

    async def follow(self, audience: str, after: int) -> AsyncGenerator[Batch]:
        while True:
            self.taken.set()
            yield await self.says.get()

    async def say(self, *recorded: dt.datetime) -> None:
        """Say that something happened at these moments, and wait until it was kept."""
        self.taken.clear()
        events = tuple(Event(f"e{m}", n, "customs", "result.issued", "k", m, "{}") for n, m in enumerate(recorded, 1))
        self.says.put_nowait(Batch(events, len(events)))
        await self.taken.wait()


async def test_how_old_is_what_is_known(tmp_path: Path) -> None:
    """As old as the last of what came, until the source says that it was the last; and a silence counts."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'inbox.db'}"
    create_inbox(url)
    clock, source, receiver = Clock(), Told(), Receiver(url)
    follower = Follower(SOURCE, "customs", source, receiver.inbox, clock=clock)
    follower.start()
    try:
        async with asyncio.timeout(20):
            await source.taken.wait()
            clock.move(seconds=5)
            assert follower.behind() == 5
            hour = clock() - dt.timedelta(hours=1)
            await source.say(hour - dt.timedelta(hours=1), hour)
            assert follower.behind() == 3600
            await source.say()
            assert follower.behind() == 0
            clock.move(seconds=90)
            assert follower.behind() == 90
            # A source whose clock is ahead of ours.
            await source.say(clock() + dt.timedelta(seconds=30))
            assert follower.behind() == 0
    finally:
        await follower.stop()
        await receiver.close()


class Gone:
    """A source that lacks what comes first, and counts how often it is asked for it."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def follow(self, audience: str, after: int) -> AsyncGenerator[Batch]:
        self.asked.append(after)
        if after < 2:
            raise FailedPrecondition(Reason.EVENTS_GONE, "events up to 2 are gone", **{outbox.KEPT_AFTER: "2"})
        yield Batch((), after)
        await asyncio.Event().wait()


class Looking(Inbox):
    """An inbox that counts how often somebody looks how far it is."""

    looks = 0

    async def position(self, source: str) -> int:
        self.looks += 1
        return await super().position(source)


async def test_a_source_that_no_longer_has_what_comes_next_is_asked_seldom(tmp_path: Path) -> None:
    """It notes and logs each try; but when somebody gives up what is gone, that shows at once."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'inbox.db'}"
    create_inbox(url)
    source, receiver = Gone(), Receiver(url)
    sink = Looking(receiver.database, "customs")
    follower = Follower(SOURCE, "customs", source, sink)
    follower.start()
    try:
        async with asyncio.timeout(20):
            while sink.looks < 4:
                await asyncio.to_thread(int)
            assert source.asked == [0]
            # What `hutong events resume` does.
            await receiver.database.write(partial(inbox.resume, source=SOURCE, after=2))
            while not follower.connected:
                await asyncio.to_thread(int)
        assert source.asked == [0, 2]
    finally:
        await follower.stop()
        await receiver.close()


async def test_a_source_that_may_have_it_again_is_asked_in_the_end(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'inbox.db'}"
    create_inbox(url)
    source, receiver = Gone(), Receiver(url)
    follower = Follower(SOURCE, "customs", source, receiver.inbox, gone_pause=0.01)
    follower.start()
    try:
        async with asyncio.timeout(20):
            while len(source.asked) < 3:
                await asyncio.to_thread(int)
        assert set(source.asked) == {0}
    finally:
        await follower.stop()
        await receiver.close()
