"""A federated query over five departments, side by side with what others would build, on the same records."""

import contextlib
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from bench import corpus, driver, sides, zones
from bench.asking.calls import leanest
from bench.asking.job import Job, Kind
from bench.peers import bare, contract, fdw, grpcjs_gateway, hive_gateway, nginx
from bench.peers.running import PeerMissingError
from bench.process import proportional_mb
from bench.setup import PACE, Setup
from bench.sides import Side, console
from services.cli.fleet import Fleet
from services.cli.zone import Zone

_PACED_ROUNDS = 5

NO_POLICY: Final = (
    "access lists",
    "a field policy",
    "a second decision at the department",
    "a cut, a digest and an envelope of records",
    "a log entry before the answer, and a receipt",
    "traces, and errors told section by section",
)
"""What none of the peers does, and our own nodes do for every query."""


@dataclass
class Sides:
    """Everybody who is measured."""

    zone: Zone
    subjects: int
    stack: AsyncExitStack
    found: list[Side] = field(default_factory=list[Side])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    """Why a peer is not there, by its name."""

    async def add(
        self,
        name: str,
        label: str,
        kind: Kind,
        target: str,
        gateway: Sequence[int],
        departments: Sequence[int],
        lacks: Sequence[str] = (),
    ) -> None:
        """Add one."""
        made = job(self.zone, kind, target, self.subjects)
        generator = await self.stack.enter_async_context(driver.Generator(made))
        self.found.append(Side(name, label, generator, gateway, departments, lacks))


def job(zone: Zone, kind: Kind, target: str, subjects: int, **others: Any) -> Job:
    """Make a generator's job: to ask as the caller of all measurements."""
    files = zone.credentials(zones.CALLER)
    server = str(zone.identity("gateway/main"))
    return Job(kind, target, server, str(files.certificate), str(files.bundle), subjects, **others)


def pids(fleet: Fleet, *names: str) -> list[int]:
    """Give the processes of nodes."""
    found = (fleet.nodes[name].process for name in names)
    return [process.pid for process in found if process is not None]


AGENCIES: Final = tuple(contract.agency_of(name) for name in corpus.TYPES)


@contextlib.asynccontextmanager
async def ours(setup: Setup, name: str, subjects: int = 0) -> AsyncGenerator[Fleet]:
    """Run a mesh of our own over the corpus."""
    zone = await zones.made(setup.folder / name, subjects or setup.subjects, setup.transport)
    async with Fleet(zone) as fleet:
        yield fleet


async def measure(setup: Setup, *, peers: bool) -> dict[str, Any]:
    """Measure ours by session and by unary call, the bare mesh, and with `peers` all others that are installed."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(ours(setup, "federated"))
        everybody = Sides(fleet.zone, setup.subjects, stack)
        await _add_ours(everybody, fleet)
        behind = await stack.enter_async_context(bare.departments(fleet.zone))
        await _add_bare(everybody, behind)
        if peers:
            await _add_peers(everybody, behind)
        checked = await sides.verify(everybody.found, setup.subjects)
        loads = await sides.compare(everybody.found, rounds=setup.rounds, seconds=setup.seconds)
        pace = await sides.paced(everybody.found, rate=PACE, count=setup.paced, rounds=_PACED_ROUNDS)
        return {
            "subjects": setup.subjects,
            "rounds": setup.rounds,
            "seconds": setup.seconds,
            "transport": fleet.nodes["gateway"].config.node.transport,
            "client": leanest(),
            "checked": checked,
            "missing": everybody.missing,
            "lacks": {side.name: list(side.lacks) for side in everybody.found},
            "memory_mb": {side.name: proportional_mb(*side.gateway) for side in everybody.found},
            "loads": [load.to_json() for load in loads],
            "paced": [each.to_json() for each in pace],
        }


async def _add_ours(everybody: Sides, fleet: Fleet) -> None:
    gateway, departments = pids(fleet, "gateway"), pids(fleet, *AGENCIES)
    target = fleet.address("gateway")
    await everybody.add("session", "Hutong, session", "session", target, gateway, departments)
    await everybody.add("unary", "Hutong, unary", "unary", target, gateway, departments)


async def _add_bare(everybody: Sides, behind: bare.Departments) -> None:
    target, pid = await everybody.stack.enter_async_context(bare.gateway(behind))
    await everybody.add("bare", "bare grpc.aio", "plain", target, [pid], behind.pids, NO_POLICY)


async def _add_peers(everybody: Sides, behind: bare.Departments) -> None:
    add, zone, stack = everybody.add, everybody.zone, everybody.stack
    with _perhaps(everybody, "nginx"):
        target, found = await stack.enter_async_context(nginx.six_hops(zone, behind))
        lacks = (*NO_POLICY, "fan out: it passes six calls on, and the bare gateway behind it is not counted")
        await add("nginx", "nginx, six grpc_pass hops", "plain", target, found, behind.pids, lacks)
    with _perhaps(everybody, "grpcjs"):
        target, found = await stack.enter_async_context(grpcjs_gateway.gateway(behind, raw=False))
        await add("grpcjs", "Node grpc-js", "plain", target, found, behind.pids, NO_POLICY)
        target, found = await stack.enter_async_context(grpcjs_gateway.gateway(behind, raw=True))
        await add("grpcjs-raw", "Node grpc-js, bytes unparsed", "plain", target, found, behind.pids, NO_POLICY)
    with _perhaps(everybody, "hive"):
        target, found = await stack.enter_async_context(hive_gateway.gateway(behind))
        lacks = (
            *NO_POLICY,
            "answer in protobuf: it answers in JSON over HTTP/1.1, asked for just the fields that our policy gives",
        )
        await add("hive", "Hive Gateway, JIT", "graphql", target, found, behind.pids, lacks)
    with _perhaps(everybody, "fdw"):
        servers = await stack.enter_async_context(fdw.fanout(zone, everybody.subjects))
        lacks = (*NO_POLICY, "leave departments code of their own: the gateway reads their tables")
        await add(
            "fdw", "PostgreSQL, postgres_fdw", "postgres", servers.target, servers.gateway, servers.departments, lacks
        )


@contextlib.contextmanager
def _perhaps(everybody: Sides, name: str) -> Generator[None]:
    try:
        yield
    except PeerMissingError as error:
        console.log(f"{name} is left out: {error}")
        everybody.missing[name] = str(error)
