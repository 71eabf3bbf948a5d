"""The part every node has: identity, telemetry, log, server, health; started in order, drained and stopped in reverse.

Wiring only. What a node serves comes as bound rpcs with their access lists; what it does comes from its room.
"""

import asyncio
import datetime as dt
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from opentelemetry.sdk.trace import SpanProcessor

from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.verify import PeerVerifier, ServerVerifier
from hutong.api.node.v1 import node_pb2
from services.kit import access, health, identity, status
from services.kit.access import AccessList
from services.kit.caller import Caller
from services.kit.client import Client
from services.kit.clock import Clock, system_clock
from services.kit.config import LogSection, NodeConfig, PolicySection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.health import Health
from services.kit.identity import Ends, Identity
from services.kit.interceptors import Access, Context, Errors
from services.kit.jurisdiction import Jurisdiction
from services.kit.log import serving
from services.kit.log.nodelog import NodeLog
from services.kit.log.recording import Recording
from services.kit.log.serving import Serving
from services.kit.log.showing import Showing
from services.kit.officers.pseudonyms import Pseudonyms
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.reload import PolicyFiles
from services.kit.policy.transforms import MIN_SECRET
from services.kit.quotas import Quotas
from services.kit.rates import Rates
from services.kit.records import migrations
from services.kit.records.catalogue import Catalogue
from services.kit.records.database import Database
from services.kit.revocations import Hearing, Telling
from services.kit.rpc import Dispatcher, Recorder, Rpc, served
from services.kit.shedding import Lateness, Shedding
from services.kit.telemetry import Read, Telemetry, Trace
from services.kit.transport import choice
from services.kit.transport.seam import Admission, Server, Verifier

KIT_ACCESS = Path(__file__).parent / "access.yaml"
"""Who may call what every node serves."""
_log = logging.getLogger(__name__)

Closing = Callable[[], Awaitable[None]]


class Asked(Protocol):
    """A service that has sessions."""

    @property
    def unanswered(self) -> int:
        """How many questions of them are not answered yet."""
        ...


@dataclass(frozen=True, slots=True)
class Peers:
    """Who calls at a door that is not for this zone."""

    verifier: Verifier
    files: SvidFiles
    """This node's identity, with their roots."""


class Host:
    """One node's frame."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        clock: Clock = system_clock,
        spans: SpanProcessor | None = None,
        sample: float | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Read the identity; raises `CertificateError` where it does not stand, or is not the configured one's.

        `recorder` takes the place of what writes the node's log: only what measures the cost of logging gives one, and
        no config can.
        """
        self.config = config
        self.clock = clock
        self.files = SvidFiles(config.tls.certificate, config.tls.key, config.tls.bundle)
        expected = SpiffeId.parse(f"spiffe://{config.node.zone}/{config.node.agency}/{config.node.system}")
        self._workload = identity.from_workload_api(config.tls, expected)
        self.own = Identity(self.files)
        """The identity that its files hold now."""
        self.identity = self.own.svid().spiffe_id
        if self.identity != expected:
            raise FailedPrecondition(
                Reason.CONFIG_INVALID,
                f"{config.at('tls', 'certificate')}: the certificate is {self.identity}'s, but the config says "
                f"{expected} ({config.at('node')}): {config.tls.certificate}",
            )
        self.telemetry = Telemetry(
            f"{config.node.agency}/{config.node.system}", config.telemetry, processor=spans, sample=sample
        )
        self.metrics_port = 0
        self._revoked = identity.revocations(config.tls)
        self._verifier = PeerVerifier(config.node.zone, self._revoked, clock)
        self._telling = Telling(self._revoked, clock)
        self._lateness = Lateness(config.limits.late.total_seconds())
        self._closing: list[Closing] = []
        self._server: Server | None = None
        self._doors: list[Server] = []
        self._gate: Shedding | None = None
        self._health: Health | None = None
        self._recorder = recorder
        self._pseudonyms = Pseudonyms(secrets.token_bytes(MIN_SECRET))
        self._serving: Serving | None = None
        self._policies: PolicyEngine | None = None
        self._zone: dt.tzinfo = dt.UTC
        self._started = clock()
        self.log: NodeLog | None = None
        """The node's log, once opened; None where its config describes none."""
        self.recording: Recording | None = None
        """What writes the log; None where there is none."""
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

    @property
    def tiles_port(self) -> int:
        """The port that tiles of the log are served on over HTTPS, once started; 0 where none are."""
        return self._serving.tiles_port if self._serving else 0

    @property
    def showing(self) -> Showing | None:
        """What shows the log to its witnesses, once started; None where there is no log."""
        return self._serving.showing if self._serving else None

    def status(self) -> node_pb2.GetStatusResponse:
        """Say how the node does, now."""
        return status.of(
            self.telemetry,
            identity=str(self.identity),
            transport=self.config.node.transport,
            policies=self._policies.version if self._policies else "",
            started=self._started,
            now=self.clock(),
            certified_until=self.own.svid().not_after,
        )

    @property
    def revocations(self) -> bytes:
        """The revocation lists that count at this node, PEM; empty where the zone has none."""
        lists = self._revoked
        return lists.published(self.clock()) if isinstance(lists, RevocationList) else b""

    def client(self, target: str, server: SpiffeId) -> Client:
        """Make a client that calls another node as this one; it is closed at the stop."""
        limits, transport = self.config.limits, self.config.node.transport
        vouch = ServerVerifier(self._revoked, self.clock).verify
        client = Client(
            target, server, self.own, response_bytes=limits.response_bytes, transport=transport, vouch=vouch
        )
        self.on_stop(client.close)
        return client

    def on_stop(self, close: Closing) -> None:
        """Have something closed at the stop, after the server; last come, first closed."""
        self._closing.append(close)

    async def open_log(self, secret: bytes = b"") -> NodeLog:
        """Open the log that the config describes; `start` does it for nodes that need it no sooner.

        `secret` is the node's own: the log calls officers by pseudonyms made with it, and without it by other ones
        after every start. Raises `FailedPrecondition` where the config describes none, or its key or its database
        cannot be used; `Unavailable` where that is away.
        """
        section = self.config.log
        if section is None:
            raise _no_log()
        if secret:
            self._pseudonyms = Pseudonyms(secret)
        if self.log is None:
            # Paths in the section are absolute by now: where the config lies is of no matter any more.
            log = NodeLog.of(section, self.config.node, section.read_url(Path()), self.clock)
            with self._naming("log"):
                await log.open()
            self.on_stop(log.close)
            self.log, self.recording = log, Recording(log)
            self.telemetry.gauge("hutong_log_entries", "Entries of the node's log", lambda: log.size)
            self.telemetry.gauge("hutong_log_failing", "Whether the log cannot be written", lambda: int(log.failing))
            self.telemetry.gauge("hutong_log_waiting", "Entries that wait to be written", lambda: log.waiting)
            self.observe_database("log", log.database)
        return self.log

    async def check_store(self, url: str, folder: Path, tables: sa.MetaData, *, migrate: bool) -> None:
        """Check that a node's store can be used, before anything of the node is opened or changed.

        Raises `FailedPrecondition` where its schema is another and `migrate` will not help, `Unavailable` where it is
        away.
        """
        with self._naming("store"):
            await asyncio.to_thread(migrations.check_before, url, folder, tables.tables.keys(), migrate=migrate)

    async def open_store(self, url: str, folder: Path, *, migrate: bool) -> Database:
        """Open a node's store; it is closed at the stop. `folder` holds its migrations.

        Raises `FailedPrecondition` where its schema is another, `Unavailable` where it is away.
        """
        with self._naming("store"):
            if migrate:
                await asyncio.to_thread(migrations.upgrade, url, folder)
            await asyncio.to_thread(migrations.check, url, folder)
        database = Database(url)
        self.on_stop(lambda: asyncio.to_thread(database.close))
        self.observe_database("store", database)
        return database

    @contextmanager
    def _naming(self, section: str) -> Generator[None]:
        """Put before a refusal where in the config stands what it is about."""
        try:
            yield
        except FailedPrecondition as error:
            raise FailedPrecondition(error.reason, f"{self.config.at(section)}: {error.message}") from None

    def observe_sessions(self, served: Asked) -> None:
        """Show how many questions of sessions are under way."""
        what = "Questions of sessions that are not answered yet"
        self.telemetry.gauge("hutong_session_questions", what, lambda: served.unanswered)

    def observe_database(self, name: str, database: Database) -> None:
        """Show how busy a database is."""
        gauge = self.telemetry.gauge
        gauge("hutong_store_connections", "Connections in use", lambda: database.connections, database=name)
        what = "Reads and writes that run, or wait for one that does"
        gauge("hutong_store_running", what, lambda: database.running, database=name)

    def policies(
        self, files: PolicyFiles, section: PolicySection, known: Catalogue, pack: Jurisdiction, secret: bytes
    ) -> PolicyEngine:
        """Put policies in force that were loaded, and follow their files; the log keeps whatever is decided by.

        They are loaded before anything is opened, so that those that do not stand change nothing. The log is open by
        now, where there is one: raises `AssertionError` otherwise.
        """
        self._zone = pack.zone
        engine = self._policies = PolicyEngine(files.policies, known, pack, secret, self.clock)
        if self.recording is not None:
            self.recording.jurisdiction(pack)
            self.recording.policies(files.policies)
            files.listeners.append(self.recording.policies)
        elif self.config.log is not None:
            raise AssertionError("policies decide before the log is open, which would keep none of them")
        self.on_stop(files.watch(engine, section.reload.total_seconds()))
        self.telemetry.cache("masks", engine.masks)
        what = "Whether changed policies do not pass, and former ones stay in force"
        self.telemetry.gauge("hutong_policy_refused", what, lambda: int(files.refused))
        return engine

    async def start(self, rpcs: Iterable[Rpc], access_lists: Iterable[Path]) -> None:
        """Serve; raises `FailedPrecondition` where lists do not fit, the address is taken, or a log is missing.

        Of the rpcs, those may call whom the config's list names where it has one, and not whom `access_lists` name.
        """
        if (workload := self._workload) is not None:
            workload.follow()
            self.on_stop(lambda: asyncio.to_thread(workload.stop))
        lists = [KIT_ACCESS, *([self.config.access] if self.config.access else access_lists)]
        own = tuple(rpcs)
        if self.config.log is not None:
            own += await self._log_rpcs(self.config.log)
            lists += serving.ACCESS
        elif any(rpc.receipt for rpc in own):
            raise _no_log()
        own += status.rpcs(self.status, self._telling.watch)
        names = sorted(served(own))
        self._health = Health(names)
        everything = (*own, *health.rpcs(self._health, names))
        self.served = served(everything)
        allowed = AccessList(access.read(*lists), self.served)
        limits = self.config.limits
        self._lateness.start()
        rates, vital = (Rates(limits.rate, limits.refusals, limits.rates) for _ in range(2))
        self._gate = Shedding(rates, vital, self._lateness, await self._quotas())
        admission = Admission(self._verifier, limits, self.telemetry.calls.refused)
        self._server = self._listen(self.config.node.listen, everything, allowed, admission, self.files)
        self._observe(admission)
        if isinstance(self._revoked, RevocationList):
            self._hear(self._revoked)
        await self._server.start()
        if self._serving:
            await self._serving.start()
        if self.config.node.metrics:
            self.metrics_port = self.telemetry.serve(self.config.node.metrics)
        await self._health.set(True)
        _log.info("Node serves", extra={"fields": {"identity": str(self.identity), "address": self.address}})

    async def open_door(
        self, listen: str, rpcs: Iterable[Rpc], lists: Mapping[str, Mapping[str, Iterable[str]]], peers: Peers
    ) -> str:
        """Serve peers of other zones as well, at an address where they alone may call; gives it. After `start`.

        It is stopped with the node. Raises as `start` does.
        """
        own = tuple(rpcs)
        admission = Admission(peers.verifier, self.config.limits, self.telemetry.calls.refused, Caller.abroad)
        door = self._listen(listen, own, AccessList(lists, served(own)), admission, peers.files)
        await door.start()
        self._doors.append(door)
        return f"{listen.rpartition(':')[0]}:{door.port}"

    def _listen(
        self, listen: str, rpcs: tuple[Rpc, ...], allowed: AccessList, admission: Admission, files: SvidFiles
    ) -> Server:
        limits, gate = self.config.limits, self._gate
        assert gate is not None, "a door is opened in a node that serves"  # noqa: S101 - the caller's promise
        dispatcher = Dispatcher(
            Trace(self.telemetry),
            gate,
            Access(allowed),
            Errors(),
            Context(limits.deadline.total_seconds()),
            limits.request_bytes,
            self._recorder or self.recording,
        )
        make = choice.server(self.config.node.transport)
        return make(listen, rpcs, dispatcher, admission, files, limits)

    async def _log_rpcs(self, section: LogSection) -> tuple[Rpc, ...]:
        """Bind what is served of the log; `start` begins the rest of it."""
        self._serving = made = Serving(
            await self.open_log(),
            section,
            self.config,
            self.files,
            self._verifier,
            self.clock,
            self.telemetry,
            self._pseudonyms,
        )
        self.on_stop(made.stop)
        await made.open()
        return made.rpcs

    async def _quotas(self) -> Quotas | None:
        """Take up the quotas of the config, where it gives any and a log says what was given."""
        limits, log = self.config.limits, self.log
        if log is None or (limits.quota is None and not limits.quotas):
            return None
        quotas = Quotas(
            limits.quota, limits.quotas, lambda: log.database, self._zone, self.clock, self.config.node.zone
        )
        await quotas.start()
        self.on_stop(quotas.stop)
        what = "Callers that have used up their quota of the day"
        self.telemetry.gauge("hutong_quotas_used_up", what, lambda: quotas.used_up)
        return quotas

    def _hear(self, lists: RevocationList) -> None:
        """Keep the newest revocation lists, and listen to those who tell them, from before the first call is let in."""
        gauge, left = self.telemetry.gauge, lambda: lists.seconds_left(self.clock())
        gauge("hutong_revocations_seconds_left", "Time until the revocation list lapses", left)
        hearing = Hearing(lists, self._telling, self.config.tls.heard, self.clock)
        for agency, peer in self.config.tls.revocations_from.items():
            identity = SpiffeId.of(self.config.node.zone, agency, peer.system)
            hearing.follow(f"{agency}/{peer.system}", self.client(peer.target, identity))
        if self.config.tls.revocations_from:
            hearing.observe(self.telemetry)
        hearing.start()
        self.on_stop(hearing.stop)

    def _observe(self, admission: Admission) -> None:
        def left(end: Callable[[], dt.datetime | None]) -> Read:
            return lambda: None if (moment := end()) is None else (moment - self.clock()).total_seconds()

        gauge, lateness = self.telemetry.gauge, self._lateness
        # What serves, that is: of files that cannot be read nobody learns when it ends.
        held = self.own.svid
        own, issuing = left(lambda: held().not_after), left(lambda: Ends.of(held()).issuing)
        gauge("hutong_certificate_seconds_left", "Time until the node's certificate ends", own)
        gauge("hutong_authority_seconds_left", "Time until the issuing authority ends", issuing)
        roots = left(lambda: Ends.of(held()).roots)
        gauge("hutong_root_seconds_left", "Time until the first of the trusted roots ends", roots)
        gauge("hutong_clock_seconds", "What the node's clock shows, since 1970", lambda: self.clock().timestamp())
        gauge("hutong_late_seconds", "How late the event loop runs", lambda: lateness.seconds)
        gauge("hutong_overloaded", "Whether calls are turned away", lambda: int(lateness.overloaded))
        gauge("hutong_calls_running", "Calls that run, sessions among them", lambda: admission.running)

    async def stop(self) -> None:
        """Say so in health, let running calls end within the drain time, close what the node holds."""
        if self._health:
            await self._health.set(False)
        self._telling.stop()
        servers = [*self._doors, *([self._server] if self._server else [])]
        drain = self.config.limits.drain.total_seconds()
        await asyncio.gather(*(server.stop(drain) for server in servers))
        self._lateness.stop()
        for close in reversed(self._closing):
            await close()
        self._closing.clear()
        # The last spans go to a collector that may be slow: that is no reason to stop the loop for.
        await asyncio.to_thread(self.telemetry.close)


def _no_log() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.CONFIG_INVALID, "[log]: a node that gives data keeps a log of it, and this config has none"
    )


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
