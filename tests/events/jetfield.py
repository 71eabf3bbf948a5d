"""A zone with a broker for the tests of what can go wrong: any part of it can be away, and come back."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from services.kit.client import Client
from services.kit.events import outbox
from services.kit.events.follower import Remote
from services.kit.events.jetstream.broker import Broker, Connection
from services.kit.events.jetstream.carried import Carried
from services.kit.events.jetstream.publisher import Publisher
from services.kit.events.jetstream.statement import Sealed
from services.kit.events.outbox import NewEvent
from services.kit.events.seam import EventSource
from services.kit.host import Host
from tests.attacks.clocked import Clock
from tests.events import bed
from tests.events.bed import SOURCE, Log, Receiver, create, create_inbox
from tests.events.natsd import OPERATOR, Natsd, clustered, way
from tests.zone import Zone

CUSTOMS = way(SOURCE, "customs")
NOWHERE = "127.0.0.1:1"
"""Where nobody listens."""


class Field:
    """A source with its log, a broker, publishers, receivers."""

    def __init__(
        self,
        folder: Path,
        stack: contextlib.AsyncExitStack,
        host: Host,
        zone: Zone,
        log: Log,
        servers: int,
        clock: Clock,
    ) -> None:
        self.folder = folder
        self.stack = stack
        self.host = host
        self.zone = zone
        self.log = log
        self.clock = clock
        """Of the source and of everybody who follows it; not the broker's own."""
        readers = ["customs/node", "taxation/node"]
        if servers == 1:
            self.servers = [Natsd(zone, folder / "nats", SOURCE, readers)]
        else:
            self.servers = clustered(zone, folder / "nats", SOURCE, readers, servers)
        self.server = self.servers[0]
        for server in self.servers:
            self.stack.callback(server.stop)
            server.launch()
        for server in self.servers:
            server.listens()
        self._receivers = 0

    async def publish(self, log: Log | None = None, agency: str = "customs", **settings: Any) -> Publisher:
        """Start what publishes, and wait until it does."""
        made = bed.publisher(self.zone, self.host, log or self.log, self.server, agency, **settings)
        made.start()
        self.stack.push_async_callback(made.stop)
        await until(lambda: made.connected)
        return made

    def direct(self, agency: str = "customs", *, away: bool = False) -> EventSource:
        address = NOWHERE if away else self.host.address
        client = Client(address, self.host.identity, self.zone.files(f"{agency}/node"))
        self.stack.push_async_callback(client.close)
        return Remote(client, SOURCE)

    def carried(
        self,
        agency: str = "customs",
        *,
        away: bool = False,
        quiet: float = 60.0,
        tell: float = 3600.0,
        broker: Broker | None = None,
        direct: EventSource | None = None,
    ) -> Carried:
        """Make the way over the broker; `away` says that the source itself cannot be reached."""
        key = bed.zone_key(self.zone)
        broker = broker or self.server.broker(f"{agency}/node")
        direct = direct or self.direct(agency, away=away)
        return Carried(broker, way(SOURCE, agency), lambda: key, direct, self.clock, quiet=quiet, hold=0.05, tell=tell)

    def receiver(self, url: str = "") -> Receiver:
        """Make a receiver, with an inbox of its own where it is not given one."""
        if not url:
            self._receivers += 1
            url = f"sqlite+aiosqlite:///{self.folder / f'inbox-{self._receivers}.db'}"
            create_inbox(url)
        made = Receiver(url)
        self.stack.push_async_callback(made.close)
        return made

    async def replace(self, url: str) -> None:
        """Have the source go on with another database, at the same address."""
        address = self.host.address
        self.log.outbox.stop()
        await self.host.stop()
        await self.log.close()
        self.log = Log(url, heartbeat=0.2, clock=self.clock)
        self.host = await self.stack.enter_async_context(bed.source_node(self.zone, self.log, address))

    async def tell(self, *events: NewEvent) -> None:
        await self.log.tell(*events)

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncGenerator["Operator"]:
        """Be who runs the broker."""
        async with self.server.broker(OPERATOR).connect() as connection:
            yield Operator(connection)


class Operator:
    """Who runs the broker, and may do anything there; what it does here it does to what is for customs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def last(self) -> int:
        extent = await self._connection.extent(CUSTOMS.stream)
        assert extent is not None
        return extent[1]

    async def statement(self, place: int) -> Sealed:
        kept = await self._connection.message(CUSTOMS.stream, CUSTOMS.events, place)
        assert kept is not None
        ours = {name: value for name, value in (kept.headers or {}).items() if name.startswith("Hutong")}
        return Sealed(ours, kept.data)

    async def put(self, sealed: Sealed) -> None:
        assert await self._connection.publish(CUSTOMS.events, sealed.data, sealed.headers, await self.last())

    async def purge(self) -> None:
        await self._connection.purge(CUSTOMS.stream)

    async def beat(self, sealed: Sealed) -> None:
        await self._connection.say(CUSTOMS.beats, sealed.data, sealed.headers)


async def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.to_thread(int)


@contextlib.asynccontextmanager
async def field(folder: Path, servers: int = 1) -> AsyncGenerator[Field]:
    """Have a zone with a source and a broker of so many servers that runs; nobody publishes yet."""
    zone = Zone(folder / "zone")
    url = f"sqlite+aiosqlite:///{folder / 'source.db'}"
    create(url, outbox.METADATA)
    clock = Clock()
    log = Log(url, heartbeat=0.2, clock=clock)
    async with bed.source_node(zone, log) as host:
        async with contextlib.AsyncExitStack() as stack:
            yield Field(folder, stack, host, zone, log, servers, clock)
        log.outbox.stop()
