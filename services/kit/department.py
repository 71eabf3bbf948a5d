"""A department's node: a host with a store, a policy, the two doors, and an inbox for what other nodes tell.

A room says only who it is (`Room`); everything else follows from its contracts and from the files beside it, which
have the same names in every room: `access.yaml`, `policy/<agency>.cedar`, `migrations/`, `mappings/`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from certs.spiffe import SpiffeId
from hutong.api.exchange.v1 import event_pb2, reads_pb2, record_source_pb2
from services.kit import jurisdiction
from services.kit.authorizations.joining import join
from services.kit.clock import Clock
from services.kit.config import DepartmentConfig
from services.kit.context import ContextVerifier
from services.kit.doors import RecordSourceService, TypedService
from services.kit.errors import FailedPrecondition, Reason
from services.kit.events.follower import Follower, Remote
from services.kit.events.inbox import Inbox
from services.kit.events.seam import EventSource
from services.kit.events.service import InboxService
from services.kit.events.traced import Traced
from services.kit.host import Host
from services.kit.log.reads import ReadsService
from services.kit.policy.reload import PolicyFiles
from services.kit.reader import Reader
from services.kit.records import catalogue, migrations
from services.kit.records.catalogue import Catalogue
from services.kit.records.pages import PageTokens, ResumeTokens
from services.kit.records.routing import RoutedSource
from services.kit.records.source import RecordSource
from services.kit.records.store import RecordStore
from services.kit.rpc import bind

_MIN_SECRET = 32
_OTHERS = 0o007
"""Rights of users outside the file's group, as for private keys (`certs.svid`)."""

OpenLive = Callable[[Clock], Mapping[str, RecordSource]]
"""Opens the sources of record types that are read live; may block. It comes from outside: the kit knows no adapter."""


@dataclass(frozen=True, slots=True)
class Room:
    """An agency's room: its name, its typed service, its folder."""

    agency: str
    service: ServiceDescriptor
    folder: Path

    @property
    def access(self) -> Path:
        """The access list beside the service."""
        return self.folder / "access.yaml"

    @property
    def policy(self) -> Path:
        """The agency's policy."""
        return self.folder / "policy" / f"{self.agency}.cedar"

    @property
    def scenarios(self) -> Path:
        """What the policy must do, as data."""
        return self.folder / "policy" / "scenarios.yaml"

    @property
    def mappings(self) -> Path:
        """The folder of mapping files."""
        return self.folder / "mappings"

    @property
    def migrations(self) -> Path:
        """The folder of schema migrations."""
        return self.folder / "migrations"

    def catalogue(self) -> Catalogue:
        """The record types the agency owns."""
        return catalogue.load().owned_by(self.agency)


def read_secret(path: Path) -> bytes:
    """Read a node's secret; raises `FailedPrecondition` where it is absent, short, or open to everybody."""
    try:
        exposed = path.stat().st_mode & _OTHERS
        secret = path.read_bytes()
    except OSError as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"secret: cannot read {path}: {error.strerror}") from None
    if len(secret) < _MIN_SECRET:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"secret: {path} holds fewer than {_MIN_SECRET} bytes")
    if exposed:
        raise FailedPrecondition(
            Reason.CONFIG_INVALID, f"secret: {path} is open to every user of this machine; chmod 600 it"
        )
    return secret


class DepartmentNode:
    """One department, running."""

    def __init__(
        self, room: Room, config: DepartmentConfig, url: str, host: Host, open_live: OpenLive | None = None
    ) -> None:
        """`url` is the store's; `host` is the frame it runs in; `open_live` opens what the config says is read live."""
        if config.node.agency != room.agency:
            raise FailedPrecondition(
                Reason.CONFIG_INVALID,
                f"{config.at('node', 'agency')}: this config is {config.node.agency}'s, not {room.agency}'s",
            )
        self.host = host
        self._room = room
        self._config = config
        self._url = url
        self._open_live = open_live
        self._source: RecordSourceService | None = None
        self._followers: list[Follower] = []

    async def start(self) -> None:
        """Open the store, load the policy, serve, follow other nodes' events."""
        config, room, host = self._config, self._room, self.host
        owned = room.catalogue()
        secret = read_secret(config.secret)
        pack = jurisdiction.load(config.policy.jurisdiction)
        # What is refused of the policies, the mappings or the databases is refused before anything is changed.
        self.policy_files = files = PolicyFiles(config.policy.files, owned, pack)
        live = await asyncio.to_thread(self._live, owned)
        store = RecordStore(self._url, owned, host.clock)
        migrate = config.store.migrate
        await host.check_store(self._url, room.migrations, store.tables.metadata, migrate=migrate)
        log = await host.open_log(secret)
        if migrate:
            await asyncio.to_thread(migrations.upgrade, self._url, room.migrations)
        await store.open()
        host.on_stop(store.close)
        host.observe_database("store", store.database)
        await store.check_migrated(room.migrations)
        engine = host.policies(files, config.policy, owned, pack, secret)
        source = RoutedSource(store, live)
        pages = PageTokens(secret)
        self.enforcer = join(config, host, pack)
        reader = Reader(source, engine, pages, host.clock, self.enforcer)
        contexts = ContextVerifier(config.gateways, config.node.zone, host.clock, config.zones)
        self._source = uniform = RecordSourceService(room.agency, owned, reader, contexts, ResumeTokens(secret))
        host.telemetry.cache("requests", uniform.requests)
        host.observe_sessions(uniform)
        typed = TypedService(room.service, owned, reader)
        inbox = Inbox(store, room.agency, host.clock)
        exchange = record_source_pb2.DESCRIPTOR.services_by_name["RecordSourceService"]
        inboxes = event_pb2.DESCRIPTOR.services_by_name["InboxService"]
        reads = reads_pb2.DESCRIPTOR.services_by_name["ReadsService"]
        doors = (
            *bind(exchange, uniform),
            *bind(reads, ReadsService(room.agency, log, engine, contexts, pages, host.clock)),
            *bind(inboxes, InboxService(inbox, room.agency)),
            *bind(room.service, typed),
        )
        self._followers = [self._follower(agency, inbox) for agency in config.events]
        await host.start(doors, [room.access])
        # Whoever is away now is no reason not to serve: they are heard when they come back.
        for follower in self._followers:
            follower.start()

    def _follower(self, agency: str, inbox: Inbox) -> Follower:
        section, node, host = self._config.events[agency], self._config.node, self.host
        identity = SpiffeId.parse(f"spiffe://{node.zone}/{agency}/{section.system}")
        client = host.client(section.target, identity)
        source = f"{agency}/{section.system}"
        way: EventSource = Remote(client, source)
        if section.carrier == "nats" and self._config.nats is not None:
            # Loaded where a broker is used only: a client takes a while to load.
            from services.kit.events.jetstream import joining  # noqa: PLC0415

            way = joining.carried(host, self._config.nats, identity, way)
        follower = Follower(source, node.agency, way, Traced(inbox, host.telemetry), clock=host.clock)
        name = "".join(letter if letter.isalnum() else "_" for letter in agency)
        host.telemetry.gauge(
            f"hutong_events_{name}_followed", f"Whether events of {source} are followed now", lambda: follower.connected
        )
        what = "How old what is known of events may be"
        host.telemetry.gauge("hutong_events_behind_seconds", what, follower.behind, source=source)
        return follower

    def _live(self, owned: Catalogue) -> Mapping[str, RecordSource]:
        for name in self._config.live:
            owned.get(name)
        if self._config.live and self._open_live is None:
            raise FailedPrecondition(Reason.CONFIG_INVALID, "live: this program reads no legacy tables")
        return self._open_live(self.host.clock) if self._open_live else {}

    async def stop(self) -> None:
        """End watches, stop following, drain, close."""
        if self._source:
            self._source.stop()
        for follower in self._followers:
            await follower.stop()
        await self.host.stop()
