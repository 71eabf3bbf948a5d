"""A whole mesh in one process: real nodes, sockets, certificates and SQLite; policies of the test's choice."""

import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from gateway.config import DepartmentSection, DoorSection, GatewayConfig, ZoneSection
from gateway.node import GatewayNode
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli import live
from services.cli.rooms import rooms
from services.kit.client import Client
from services.kit.config import (
    AuthorizationsSection,
    DepartmentConfig,
    LimitsSection,
    LiveSection,
    PolicySection,
    StoreSection,
    TelemetrySection,
)
from services.kit.department import DepartmentNode, Room
from services.kit.host import Host
from services.kit.records import catalogue
from services.kit.records.store import Draft, RecordStore
from tests.zone import ZONE, Zone, now

QUERY = "/hutong.api.exchange.v1.FederationService/Query"
STREAM = "/hutong.api.exchange.v1.FederationService/StreamQuery"
EXPLAIN = "/hutong.api.exchange.v1.FederationService/Explain"
TYPES = "/hutong.api.exchange.v1.FederationService/ListRecordTypes"

ROOMS: Mapping[str, Room] = rooms()


class Mesh:
    """Departments and a gateway over one zone; stop and start them one by one."""

    def __init__(self, folder: Path, name: str = ZONE) -> None:
        self.zone = Zone(folder, name)
        self.folder = folder
        self.departments: dict[str, DepartmentNode] = {}
        self.gateway: GatewayNode | None = None
        self.gateway_policies = "policy"
        """Folder of the gateway's policies: the departments' own, until a test takes another."""
        self.gateway_listen = "127.0.0.1:0"
        self.limits = LimitsSection()
        """Limits of every node; the gateway waits for a department half as long as it grants a call."""
        self.telemetry = TelemetrySection()
        self.urls: dict[str, str] = {}
        """Stores that do not lie in SQLite, by agency."""
        self.live: dict[str, LiveSection] = {}
        """Record types that are read from a legacy table, by name."""
        self.authorizations: AuthorizationsSection | None = None
        """The service that keeps authorizations, where the mesh has one."""
        self.zones: dict[str, ZoneSection] = {}
        """Other zones, as the gateway has them."""
        self.lets_in: list[str] = []
        """Other zones whose callers departments let in."""
        self.door: DoorSection | None = None
        """Where other zones ask."""
        self._clients: dict[str, Client] = {}
        secret = folder / "secret"
        secret.write_bytes(b"0123456789abcdef0123456789abcdef")
        secret.chmod(0o600)

    def policy(self, agency: str, folder: str = "policy") -> Path:
        """Where an agency's policy lies; the room's own is copied there at first."""
        path = self.folder / folder / f"{agency}.cedar"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(ROOMS[agency].policy.read_text(encoding="utf-8"), encoding="utf-8")
        return path

    def policies(self, *files: Path) -> PolicySection:
        return PolicySection(files=list(files), reload=dt.timedelta(milliseconds=50))

    def add_policy(self, agency: str, text: str, folder: str = "policy") -> None:
        """Write one more policy into an agency's file."""
        path = self.policy(agency, folder)
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{text}", encoding="utf-8")

    def url(self, agency: str) -> str:
        return self.urls.get(agency) or f"sqlite+aiosqlite:///{self.folder}/{agency}.db"

    def config(self, agency: str, listen: str) -> DepartmentConfig:
        path = f"{agency}/node"
        return DepartmentConfig(
            node=self.zone.node(path).model_copy(update={"listen": listen}),
            tls=self.zone.tls(path),
            log=self.zone.log(path),
            limits=self.limits,
            telemetry=self.telemetry,
            store=StoreSection(url=self.url(agency), migrate=True),
            policy=self.policies(self.policy(agency)),
            secret=self.folder / "secret",
            live={name: section for name, section in self.live.items() if name.startswith(f"{agency}.")},
            authorizations=self.authorizations,
            zones=self.lets_in,
        )

    async def start(self, agency: str, listen: str = "127.0.0.1:0") -> DepartmentNode:
        config = self.config(agency, listen)
        open_live = live.opener(config, self.folder)
        node = DepartmentNode(ROOMS[agency], config, self.url(agency), self.zone.frame(config), open_live)
        await node.start()
        self.departments[agency] = node
        return node

    async def start_gateway(self, **addresses: str) -> GatewayNode:
        """Start a gateway to the running departments; `addresses` sends it elsewhere for some."""
        targets = {agency: node.host.address for agency, node in self.departments.items()} | addresses
        config = GatewayConfig(
            node=self.zone.node("gateway/main").model_copy(update={"listen": self.gateway_listen}),
            tls=self.zone.tls("gateway/main"),
            log=self.zone.log("gateway/main"),
            limits=self.limits,
            telemetry=self.telemetry,
            departments={
                agency: DepartmentSection(target=target, timeout=self.limits.deadline / 2)
                for agency, target in targets.items()
            },
            policy=self.policies(*(self.policy(agency, self.gateway_policies) for agency in targets)),
            secret=self.folder / "secret",
            authorizations=self.authorizations,
            zones=self.zones,
            door=self.door,
        )
        self.gateway = GatewayNode(config, self.zone.frame(config))
        await self.gateway.start()
        return self.gateway

    async def replace_gateway(self, **addresses: str) -> None:
        """Put another gateway in the place of the running one."""
        for name in [name for name in self._clients if name.endswith(">gateway")]:
            await self._clients.pop(name).close()
        if self.gateway:
            await self.gateway.stop()
        await self.start_gateway(**addresses)

    async def load(self, agency: str, messages: Iterable[Message]) -> None:
        """Put records into a department's store, through a store of our own beside the node's."""
        store = RecordStore(self.url(agency), ROOMS[agency].catalogue(), now)
        await store.open()
        by_message = {kind.message.DESCRIPTOR.full_name: kind for kind in catalogue.load()}
        drafts = [Draft(by_message[m.DESCRIPTOR.full_name], m, source_system="test") for m in messages]
        await store.append(drafts)
        await store.close()

    def client(self, who: str, agency: str = "gateway") -> Client:
        """Call the gateway, or a department directly, as `agency/system`."""
        name = f"{who}>{agency}"
        if name not in self._clients:
            host = self.host(agency)
            self._clients[name] = Client(host.address, host.identity, self.zone.files(who))
        return self._clients[name]

    def host(self, agency: str) -> Host:
        """The host of a running node."""
        node = self.gateway if agency == "gateway" else self.departments[agency]
        assert node is not None
        return node.host

    async def stop(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        if self.gateway:
            await self.gateway.stop()
        for node in self.departments.values():
            await node.stop()


@contextlib.asynccontextmanager
async def running(folder: Path, *agencies: str) -> AsyncGenerator[Mesh]:
    """Run the named departments (all where none is named) and a gateway."""
    mesh = Mesh(folder)
    try:
        for agency in agencies or sorted(ROOMS):
            await mesh.start(agency)
        await mesh.start_gateway()
        yield mesh
    finally:
        await mesh.stop()


def question(subject: str, *selections: str, **context: str) -> federation_pb2.QueryRequest:
    """Write a question as on the command line: `customs.Declaration:declaration_no,lines.hs10`."""
    scheme, _, value = subject.partition(":")
    request = federation_pb2.QueryRequest(
        subject=common_pb2.SubjectId(scheme=scheme, value=value),
        context=exchange_pb2.RequestContext(**context),
    )
    for selection in selections:
        name, _, fields = selection.partition(":")
        request.selections.add(record_type=name, fields=fields.split(",") if fields else [])
    return request


def records(section: exchange_pb2.Section) -> list[Any]:
    """Read the records of a section."""
    kind = catalogue.load().get(section.record_type)
    found: list[Any] = []
    for record in section.records:
        message = kind.message()
        assert record.Unpack(message)
        found.append(message)
    return found
