"""A mesh on one machine: one process per node, started, watched, and stopped together.

The demo, the tests and the benchmark all run meshes through `Fleet`, exactly as `hutong up` does.
"""

import asyncio
import datetime as dt
import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from certs import agent
from certs.authority import Authority
from certs.errors import CertificateError
from certs.tls import channel_credentials, require_tls13, server_name
from services.cli.rooms import GATEWAY
from services.cli.zone import OPERATOR, Zone, held
from services.kit.client import Client
from services.kit.config import NodeConfig
from services.kit.errors import FailedPrecondition, Reason

START_LIMIT: Final = 30.0
"""Seconds a node may take from its start to its first healthy answer."""

_KILL_AFTER = 5.0
"""Seconds over its own drain time that a node is given to stop."""

# -P: the folder one stands in is no place to import from.
_COMMAND = (sys.executable, "-P", "-m", "services.cli.main")
_LAST_LINES = 12
_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_AGAIN = 0.05
"""Seconds until a node that does not serve yet is asked again."""
_RENEW_EVERY = 60.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Node:
    """One node's process."""

    name: str
    config: NodeConfig
    file: Path
    log: Path
    process: asyncio.subprocess.Process | None = None
    started_at: int = 0
    """Size of the log when this process started: what lies before is an older one's."""
    asked_to_stop: bool = False
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.config.node.listen

    @property
    def identity(self) -> str:
        """`agency/system`."""
        return f"{self.config.node.agency}/{self.config.node.system}"

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self.process is not None and self.process.returncode is None

    def last_lines(self) -> str:
        """Give the last lines this process logged."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(self.started_at)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-_LAST_LINES:])
        return ""


Died = Callable[[Node], None]


class Fleet:
    """The nodes of a zone. An asynchronous context: started on entry, stopped on exit, whatever happened between."""

    def __init__(
        self, zone: Zone, *, nodes: Iterable[str] = (), on_death: Died | None = None, program: str = "services.cli.main"
    ) -> None:
        """`nodes` names some of the zone's nodes, all by default; `on_death` hears of one that nobody stopped.

        `program` is the module whose `serve` runs each of them.
        """
        require_tls13()
        self.zone = zone
        self._on_death = on_death
        self._program = program
        self._names = tuple(nodes) or zone.nodes
        self.nodes: dict[str, Node] = {}
        self._clients: list[Client] = []
        self._renewal: asyncio.Task[None] | None = None
        self._held = ExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every node and wait until all are healthy.

        Raises `FailedPrecondition`: ZONE_IN_USE where another mesh runs from the zone, NODE_FAILED where a node does
        not come up; then none is left running.
        """
        self._held.enter_context(held(self.zone))
        try:
            # A zone that lay idle has certificates past their half life, and a revocation list that may lapse.
            await asyncio.to_thread(renew, self.zone)
            await asyncio.gather(*(self._launch(name) for name in self._names))
            await asyncio.gather(*(self._healthy(node) for node in self.nodes.values()))
        except BaseException:
            await self.stop()
            raise
        self._renewal = asyncio.create_task(self._renew())

    async def stop(self) -> None:
        """Drain every node, wait, and kill what does not stop; close every client."""
        if self._renewal:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
            self._renewal = None
        await asyncio.gather(*(client.close() for client in self._clients))
        self._clients.clear()
        await asyncio.gather(*(self._end(node) for node in self.nodes.values()))
        self._held.close()

    def cut(self) -> None:
        """Kill every node at once, for those who do not want to wait for a drain."""
        for node in self.nodes.values():
            node.asked_to_stop = True
            if node.process and node.running:
                node.process.kill()

    async def kill(self, name: str) -> None:
        """End a node's process at once, as a crash does."""
        node = self.nodes[name]
        node.asked_to_stop = True
        if node.process and node.running:
            node.process.kill()
        await self._ended(node)

    async def restart(self, name: str) -> None:
        """Stop a node if it runs, start it again, wait until it is healthy."""
        await self._end(self.nodes[name])
        await self._healthy(await self._launch(name))

    def address(self, name: str) -> str:
        """Say where a node listens."""
        return self.nodes[name].address

    def client(self, caller: str, node: str = GATEWAY) -> Client:
        """Connect to a node as `agency/system`; the fleet closes the client."""
        made = Client(self.address(node), self.zone.identity(self.nodes[node].identity), self.zone.credentials(caller))
        self._clients.append(made)
        return made

    async def _launch(self, name: str) -> Node:
        file = self.zone.config_file(name)
        log = self.zone.logs / f"{name}.log"
        node = Node(name, self.zone.node(name), file, log)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            node.started_at = os.fstat(descriptor).st_size
            # The pipe tells a node when we are gone; a session of its own keeps a terminal's Ctrl-C from it: it is
            # ours to pass on.
            node.process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-P",
                    "-m",
                    self._program,
                    "serve",
                    name,
                    "--config",
                    str(file),
                    "--supervised",
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        node.watcher = asyncio.create_task(self._watch(node))
        self.nodes[name] = node
        return node

    async def _watch(self, node: Node) -> None:
        assert node.process is not None  # noqa: S101 - it was started a line before
        await node.process.wait()
        if not node.asked_to_stop and self._on_death:
            self._on_death(node)

    async def _healthy(self, node: Node) -> None:
        """Wait until a node serves; raises `FailedPrecondition` NODE_FAILED where it ends or takes too long."""
        assert node.watcher is not None  # noqa: S101 - nodes are watched from their launch on
        asking = asyncio.create_task(self._serving(node))
        await asyncio.wait({asking, node.watcher}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done() and asking.result():
            return
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        code = node.process.returncode if node.process else None
        how = f"ended with exit code {code}" if code is not None else f"was not healthy after {START_LIMIT:.0f} s"
        raise FailedPrecondition(
            Reason.NODE_FAILED, f"{node.name} {how}; its last words:\n{node.last_lines()}", node=node.name
        )

    async def _serving(self, node: Node) -> bool:
        """Ask for health, waiting for the connection as long as it takes; false where the time is over."""
        identity = self.zone.identity(node.identity)
        channel = grpc.aio.secure_channel(
            node.address,
            channel_credentials(self.zone.credentials(OPERATOR)),
            options=[
                ("grpc.ssl_target_name_override", server_name(identity)),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        async with channel:
            check = channel.unary_unary(
                _CHECK,
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            request = health_pb2.HealthCheckRequest()
            with suppress(grpc.aio.AioRpcError, TimeoutError):
                async with asyncio.timeout(START_LIMIT):
                    while True:
                        answer = await check(request, timeout=START_LIMIT, wait_for_ready=True)
                        if answer.status == _SERVING:
                            return True
                        # It answers before all of it serves.
                        await asyncio.sleep(_AGAIN)
        return False

    async def _end(self, node: Node) -> None:
        node.asked_to_stop = True
        if node.process and node.running:
            node.process.terminate()
            drain = node.config.limits.drain.total_seconds()
            with suppress(TimeoutError):
                async with asyncio.timeout(drain + _KILL_AFTER):
                    await self._ended(node)
                return
            node.process.kill()
        await self._ended(node)

    async def _ended(self, node: Node) -> None:
        if node.watcher:
            await asyncio.shield(node.watcher)

    async def _renew(self) -> None:
        """Renew certificates at half their life, for as long as the fleet is up."""
        while True:
            await asyncio.sleep(_RENEW_EVERY)
            try:
                await asyncio.to_thread(renew, self.zone)
            except (CertificateError, OSError):
                # Half of every certificate's life is left to set this right.
                _log.exception("Certificates could not be renewed")


def renew(zone: Zone) -> list[str]:
    """Renew the certificates that are due, and the revocation list; tell whose were renewed."""
    turn = agent.tend(Authority.open(zone.certificates.folder), dt.datetime.now(dt.UTC))
    if turn.problem:
        # Half of every certificate's life is left to set this right.
        _log.error("Certificates could not be renewed: %s", turn.problem)
    return list(turn.renewed)
