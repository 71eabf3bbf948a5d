"""The part every node has: identity, telemetry, server, health; started in order, drained and stopped in reverse.

Wiring only. What a node serves comes as bound rpcs with their access lists; what it does comes from its room.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from opentelemetry.sdk.trace import SpanProcessor

from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import server_credentials
from certs.verify import PeerVerifier
from services.kit import access, health
from services.kit.access import AccessList
from services.kit.clock import Clock, system_clock
from services.kit.config import NodeConfig
from services.kit.errors import FailedPrecondition, Reason
from services.kit.health import Health
from services.kit.interceptors import Access, Context, Errors
from services.kit.rpc import Dispatcher, Rpc, served
from services.kit.server import GrpcServer
from services.kit.telemetry import Telemetry, Trace

KIT_ACCESS = Path(__file__).parent / "access.yaml"
"""Who may call what every node serves."""
_log = logging.getLogger(__name__)

Closing = Callable[[], Awaitable[None]]


class Host:
    """One node's frame."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        clock: Clock = system_clock,
        spans: SpanProcessor | None = None,
        sample: float | None = None,
    ) -> None:
        """Read the identity; raises `CertificateError` where it does not stand, or is not the configured one's."""
        self.config = config
        self.clock = clock
        self.files = SvidFiles(config.tls.certificate, config.tls.key, config.tls.bundle)
        self.identity = self.files.load().spiffe_id
        expected = SpiffeId.parse(f"spiffe://{config.node.zone}/{config.node.agency}/{config.node.system}")
        if self.identity != expected:
            raise FailedPrecondition(
                Reason.CONFIG_INVALID, f"the certificate is {self.identity}'s, but the config says {expected}"
            )
        self.telemetry = Telemetry(
            f"{config.node.agency}/{config.node.system}", config.telemetry, processor=spans, sample=sample
        )
        self.metrics_port = 0
        self._verifier = PeerVerifier(config.node.zone, RevocationList(config.tls.revoked, config.tls.bundle), clock)
        self._closing: list[Closing] = []
        self._server: GrpcServer | None = None
        self._health: Health | None = None
        self.served: dict[str, list[str]] = {}
        """Services and their rpcs, once started."""

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._server.port if self._server else 0

    @property
    def address(self) -> str:
        """`host:port` it listens on, once started."""
        return f"{self.config.node.listen.rpartition(':')[0]}:{self.port}"

    def on_stop(self, close: Closing) -> None:
        """Have something closed at the stop, after the server; last come, first closed."""
        self._closing.append(close)

    async def start(self, rpcs: Iterable[Rpc], access_lists: Iterable[Path]) -> None:
        """Serve; raises `FailedPrecondition` where lists do not fit or the address is taken."""
        own = tuple(rpcs)
        names = sorted(served(own))
        self._health = Health(names)
        everything = (*own, *health.rpcs(self._health, names))
        self.served = served(everything)
        lists = AccessList(access.read(KIT_ACCESS, *access_lists), self.served)
        limits = self.config.limits
        dispatcher = Dispatcher(
            (Trace(self.telemetry), Access(lists), Errors(), Context(limits.deadline.total_seconds())),
            limits.request_bytes,
        )
        self._server = GrpcServer(
            self.config.node.listen, everything, dispatcher, self._verifier, server_credentials(self.files), limits
        )
        self._observe()
        await self._server.start()
        if self.config.node.metrics:
            self.metrics_port = self.telemetry.serve(self.config.node.metrics)
        await self._health.set(True)
        _log.info("Node serves", extra={"fields": {"identity": str(self.identity), "address": self.address}})

    def _observe(self) -> None:
        def left() -> float:
            return (self.files.load().not_after - self.clock()).total_seconds()

        self.telemetry.gauge("hutong_certificate_seconds_left", "Time until the node's certificate ends", left)

    async def stop(self) -> None:
        """Say so in health, let running calls end within the drain time, close what the node holds."""
        if self._health:
            await self._health.set(False)
        if self._server:
            await self._server.stop(self.config.limits.drain.total_seconds())
        for close in reversed(self._closing):
            await close()
        self._closing.clear()
        # The last spans go to a collector that may be slow: that is no reason to stop the loop for.
        await asyncio.to_thread(self.telemetry.close)


async def run(start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
    """Start a node, wait for SIGTERM or SIGINT, drain and stop it."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        await start()
        await asked.wait()
        _log.info("Node drains")
    finally:
        await stop()
