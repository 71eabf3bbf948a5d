"""A zone for tests: an authority in a temporary folder, hosts of it that really serve, clients that really call."""

import contextlib
import datetime as dt
import socket
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from certs.authority import Authority
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from services.kit.client import Client
from services.kit.config import LimitsSection, LogSection, NodeConfig, NodeSection, TlsSection
from services.kit.host import Host
from services.kit.log import keys
from services.kit.log.checkpoint import origin_of
from services.kit.rpc import Rpc
from tests import transports

ZONE = "zone.example"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def free_address() -> str:
    """Find an address where nobody listens, for nodes that must know of each other before either runs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def log_section(folder: Path, agency: str, system: str = "node", zone: str = ZONE) -> LogSection:
    """Write the `[log]` of a node of the zone whose log lies in `folder`; makes the key where there is none."""
    name = f"{agency}.{system}"
    published = folder / "keys"
    keys.create(folder / f"{name}.key", published, origin_of(zone, agency, system))
    url = f"sqlite+aiosqlite:///{folder / name}.db"
    return LogSection(url=url, migrate=True, key=folder / f"{name}.key", keys=published)


@dataclass(frozen=True)
class Span:
    """What tests ask of a finished span."""

    name: str
    trace: int
    id: int
    parent: int
    """0 where it has none."""


class Zone:
    """An authority and what it issued."""

    def __init__(self, folder: Path, name: str = ZONE) -> None:
        self.folder = folder
        self.name = name
        self.authority = Authority.create(folder / "zone", name, now())
        self.spans = InMemorySpanExporter()

    def finished(self) -> list[Span]:
        """List the spans that ended, in the order they did."""
        found: list[Span] = []
        for span in self.spans.get_finished_spans():
            assert span.context is not None
            parent = span.parent.span_id if span.parent else 0
            found.append(Span(span.name, span.context.trace_id, span.context.span_id, parent))
        return found

    def identity(self, path: str) -> SpiffeId:
        return SpiffeId.parse(f"spiffe://{self.name}/{path}")

    def files(self, path: str) -> SvidFiles:
        """Get the identity `agency/system`, issuing it the first time."""
        files = self.authority.layout.svid(self.identity(path))
        if not files.certificate.exists():
            self.authority.issue(self.identity(path), now())
        return files

    def tls(self, path: str) -> TlsSection:
        files = self.files(path)
        return TlsSection(
            certificate=files.certificate,
            key=files.key,
            bundle=files.bundle,
            revoked=self.authority.layout.revoked,
        )

    def node(self, path: str) -> NodeSection:
        agency, _, system = path.partition("/")
        return NodeSection(
            zone=self.name, agency=agency, system=system, listen="127.0.0.1:0", transport=transports.chosen()
        )

    def log(self, path: str) -> LogSection:
        """Say where the log of `agency/system` lies, making its key the first time."""
        agency, _, system = path.partition("/")
        return log_section(self.folder / "logs", agency, system, self.name)

    def host(self, path: str, limits: LimitsSection | None = None, *, log: bool = False) -> Host:
        """Make a host whose every span is kept in `spans`."""
        config = NodeConfig(node=self.node(path), tls=self.tls(path), limits=limits or LimitsSection())
        return self.frame(config.model_copy(update={"log": self.log(path)}) if log else config)

    def frame(self, config: NodeConfig) -> Host:
        return Host(config, spans=SimpleSpanProcessor(self.spans), sample=1.0)

    @contextlib.asynccontextmanager
    async def serving(
        self, rpcs: Iterable[Rpc], access: str, limits: LimitsSection | None = None
    ) -> AsyncGenerator[Host]:
        """Serve rpcs as `customs/node` under an access list given as text."""
        listed = self.folder / "access.yaml"
        listed.write_text(access)
        served = tuple(rpcs)
        host = self.host("customs/node", limits, log=any(rpc.receipt for rpc in served))
        await host.start(served, [listed])
        try:
            yield host
        finally:
            await host.stop()

    @contextlib.asynccontextmanager
    async def client(self, host: Host, path: str) -> AsyncGenerator[Client]:
        """Call a host as `agency/system`."""
        client = Client(host.address, host.identity, self.files(path))
        try:
            yield client
        finally:
            await client.close()
