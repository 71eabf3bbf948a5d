"""What the tests of events work with: a source node with a real outbox and sockets, receivers with a real inbox."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from hutong.api.exchange.v1 import event_pb2
from services.kit.client import Client
from services.kit.clock import Clock
from services.kit.config import NodeConfig
from services.kit.events import inbox as inboxes
from services.kit.events import outbox as outboxes
from services.kit.events.follower import Follower, Remote
from services.kit.events.inbox import Inbox
from services.kit.events.jetstream.broker import Limits
from services.kit.events.jetstream.carried import Carried
from services.kit.events.jetstream.publisher import Publisher, recorded
from services.kit.events.outbox import NewEvent, Outbox
from services.kit.events.seam import Batch, Event, EventSource
from services.kit.events.service import EventService
from services.kit.host import Host
from services.kit.log import keys
from services.kit.log.notes import Signer, VerifierKey
from services.kit.records.database import Database, T, Work, engine
from services.kit.rpc import bind
from tests.events.natsd import Natsd, way
from tests.zone import Zone, now

SOURCE = "recognition/node"
EVENTS = event_pb2.DESCRIPTOR.services_by_name["EventService"]
ACCESS = "hutong.api.exchange.v1.EventService: {Follow: ['*/*']}"
READERS = ("customs", "taxation", "quality", "courts")
LIMITS = Limits(64 * 1024 * 1024, 3600.0)
NEVER = 1e9
"""Seconds that no test lasts."""


def create(url: str, *metadata: sa.MetaData) -> None:
    made = engine(url, writer=True)
    with made.begin() as connection:
        for each in metadata:
            each.create_all(connection)
    made.dispose()


def create_inbox(url: str) -> None:
    create(url, inboxes.METADATA)
    made = engine(url, writer=True)
    with made.begin() as connection:
        connection.execute(sa.text("INSERT INTO inbox_clock (id, position) VALUES (1, 0)"))
    made.dispose()


def event(number: int, audience: str = "customs", *, key: str = "case-1", event_id: str = "") -> NewEvent:
    return NewEvent(audience, "result.issued", key, {"number": number}, event_id)


def numbers(events: Iterable[Event]) -> list[int]:
    return [json.loads(event.payload)["number"] for event in events]


class Counted(Database):
    """A database that tells how often it was read."""

    reads = 0

    async def read(self, work: Work[T], *, short: bool = False) -> T:
        found = await super().read(work, short=short)
        self.reads += 1
        return found

    async def looked_at(self, times: int = 2) -> None:
        """Wait until whoever looks has looked that often from now on."""
        until = self.reads + times
        async with asyncio.timeout(10):
            while self.reads < until:
                await asyncio.to_thread(int)


class Log:
    """A source's database with its outbox, as one replica of its node has it."""

    def __init__(self, url: str, *, poll: float = NEVER, heartbeat: float = NEVER, clock: Clock = now) -> None:
        self.database_url = url
        self.clock = clock
        self.database = Counted(url)
        self.outbox = Outbox(self.database, poll=poll, heartbeat=heartbeat)

    async def put(self, *events: NewEvent) -> None:
        """Put events, and tell nobody."""
        await self.database.write(lambda c: outboxes.put(c, events, self.clock()))

    async def tell(self, *events: NewEvent) -> None:
        await self.put(*events)
        self.outbox.ring()

    async def close(self) -> None:
        self.outbox.stop()
        await asyncio.to_thread(self.database.close)


class Transport(Protocol):
    """One way from an outbox to its receivers."""

    def source(self, agency: str) -> EventSource:
        """Give the source as a node of this agency has it."""
        ...


class InProcess:
    """The outbox itself."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def source(self, agency: str) -> EventSource:
        return self._log.outbox


class OverGrpc:
    """The embedded transport, with certificates and sockets."""

    def __init__(self, zone: Zone, host: Host, stack: contextlib.AsyncExitStack) -> None:
        self._zone = zone
        self._host = host
        self._stack = stack

    def client(self, path: str) -> Client:
        client = Client(self._host.address, self._host.identity, self._zone.files(path))
        self._stack.push_async_callback(client.close)
        return client

    def source(self, agency: str) -> EventSource:
        return Remote(self.client(f"{agency}/node"), SOURCE)


@contextlib.asynccontextmanager
async def serving(
    zone: Zone, implementation: object, address: str = "127.0.0.1:0", access: str = ACCESS, clock: Clock = now
) -> AsyncGenerator[Host]:
    """Serve something as the `EventService` of `recognition/node`."""
    node = zone.node(SOURCE).model_copy(update={"listen": address})
    host = Host(NodeConfig(node=node, tls=zone.tls(SOURCE), log=zone.log(SOURCE)), clock=clock)
    listed = zone.folder / "events-access.yaml"
    listed.write_text(access)
    await host.start(bind(EVENTS, implementation), [listed])
    try:
        yield host
    finally:
        await host.stop()


@contextlib.asynccontextmanager
async def source_node(zone: Zone, log: Log, address: str = "127.0.0.1:0") -> AsyncGenerator[Host]:
    """Run a source node over a log; at its end the log is closed too."""
    async with serving(zone, EventService(log.outbox, SOURCE), address, clock=log.clock) as host:
        try:
            yield host
        finally:
            await log.close()


class OverJetStream(OverGrpc):
    """A broker, and the embedded transport where it lacks something."""

    def __init__(self, zone: Zone, host: Host, stack: contextlib.AsyncExitStack, server: Natsd) -> None:
        super().__init__(zone, host, stack)
        self.server = server
        self.sources: list[Carried] = []

    def source(self, agency: str) -> EventSource:
        key = zone_key(self._zone)
        made = Carried(
            self.server.broker(f"{agency}/node"),
            way(SOURCE, agency),
            lambda: key,
            super().source(agency),
            now,
            quiet=NEVER,
        )
        self.sources.append(made)
        return made


def zone_key(zone: Zone) -> VerifierKey:
    """Find the published key of the source's log."""
    return keys.find(zone.folder / "logs" / "keys", way(SOURCE, "").origin)


def signer(zone: Zone) -> Signer:
    return keys.read(zone.log(SOURCE).key, way(SOURCE, "").origin)


def publisher(
    zone: Zone,
    host: Host,
    log: Log,
    server: Natsd,
    agency: str = "customs",
    *,
    limits: Limits | None = None,
    patience: float = 0.05,
) -> Publisher:
    """Make what publishes for an agency."""
    assert host.recording is not None
    reader = zone.identity(f"{agency}/node")
    return Publisher(
        server.broker(SOURCE),
        zone.identity(SOURCE),
        reader,
        log.outbox,
        signer(zone),
        recorded(host.recording),
        limits or LIMITS,
        log.clock,
        patience=patience,
    )


@contextlib.asynccontextmanager
async def publishing(*publishers: Publisher) -> AsyncGenerator[None]:
    """Publish, from the moment that all are connected."""
    for each in publishers:
        each.start()
    try:
        async with asyncio.timeout(20):
            while not all(each.connected for each in publishers):
                await asyncio.to_thread(int)
        yield
    finally:
        for each in publishers:
            await each.stop()


@contextlib.asynccontextmanager
async def over_jetstream(zone: Zone, log: Log, folder: Path) -> AsyncGenerator[OverJetStream]:
    """Run a source node, a broker, and publishers for all agencies."""
    server = Natsd(zone, folder / "nats", SOURCE, [f"{agency}/node" for agency in READERS])
    server.start()
    try:
        async with (
            source_node(zone, log) as host,
            contextlib.AsyncExitStack() as stack,
            publishing(*(publisher(zone, host, log, server, agency) for agency in READERS)),
        ):
            made = OverJetStream(zone, host, stack, server)
            yield made
            log.outbox.stop()
            # Otherwise it is the embedded transport that was tested.
            assert not sum(source.fetched + source.refused for source in made.sources)
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def transport(kind: str, log: Log, folder: Path) -> AsyncGenerator[Transport]:
    """Put one way or another in front of a log."""
    if kind == "in-process":
        yield InProcess(log)
        await log.close()
        return
    zone = Zone(folder)
    if kind == "jetstream":
        async with over_jetstream(zone, log, folder) as way_over:
            yield way_over
        return
    async with source_node(zone, log) as host, contextlib.AsyncExitStack() as stack:
        yield OverGrpc(zone, host, stack)
        # Before the clients close: the node's drain must find no stream running.
        log.outbox.stop()


class Receiver:
    """An agency's node as far as events go: an inbox in a database, and a follower."""

    def __init__(self, url: str, agency: str = "customs") -> None:
        self.url = url
        self.agency = agency
        self.database = Database(url)
        self.inbox = Inbox(self.database, agency)
        self.kept: list[Event] = []
        self.follower: Follower | None = None
        self._more = asyncio.Event()

    def follow(self, source: EventSource, *, silence: float = NEVER) -> Follower:
        self.follower = Follower(SOURCE, self.agency, source, self.inbox, self._new, silence=silence)
        self.follower.start()
        return self.follower

    def _new(self, events: tuple[Event, ...]) -> None:
        self.kept += events
        self._more.set()

    async def until(self, count: int) -> list[int]:
        """Wait until this receiver has kept so many events; gives their numbers."""
        async with asyncio.timeout(30):
            while len(self.kept) < count:
                self._more.clear()
                await self._more.wait()
        return numbers(self.kept)

    async def held(self) -> list[int]:
        """Give the numbers of everything in the inbox."""
        return numbers(await everything(self.inbox))

    async def close(self) -> None:
        if self.follower:
            await self.follower.stop()
        await asyncio.to_thread(self.database.close)


async def everything(inbox: Inbox) -> list[Event]:
    found: list[Event] = []
    after = 0
    while page := await inbox.list(after, 200):
        if not page.events:
            return found
        found += page.events
        after = page.next_after
    return found


async def take(batches: AsyncGenerator[Batch], count: int) -> list[Event]:
    """Read on until so many events came."""
    found: list[Event] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += (await anext(batches)).events
    return found
