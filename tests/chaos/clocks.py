"""Clocks that are moved while a mesh answers. They are not the machine's: those that can be moved are in this process.

A node takes the time from what it is given (`Host(clock=…)`), and no config can give it another; so these nodes are
hosts in one process, with real sockets, certificates and files, and everything else is as with processes.
"""

import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import corpus
from gateway.config import DepartmentSection, GatewayConfig
from gateway.node import GatewayNode
from services.cli.rooms import GATEWAY
from services.kit.client import Client
from services.kit.department import DepartmentNode
from services.kit.host import Host
from services.kit.log import keys
from services.kit.log.checkpoint import origin_of
from services.kit.records import catalogue
from tests.attacks.clocked import Clock
from tests.chaos.asking import SUBJECTS, Given
from tests.chaos.bed import CALLER
from tests.chaos.proving import Kept
from tests.chaos.running import Case, Doing
from tests.exchange.mesh import ROOMS, Mesh
from tests.zone import ZONE

MOVED: Final = "customs"
"""The department whose clock is moved."""


@dataclass
class Clocked:
    """A mesh in this process, with two clocks that can be moved."""

    mesh: Mesh
    department: Clock
    gateway: Clock
    given: Given = field(default_factory=dict[tuple[str, str], tuple[bytes, ...]])
    """What callers were given first."""

    def client(self) -> Client:
        """Connect as who asks; closed with the mesh."""
        return self.mesh.client(CALLER)

    def logs(self) -> dict[str, Kept]:
        """Find the log of every node."""
        paths = {agency: f"{agency}/node" for agency in ROOMS} | {GATEWAY: "gateway/main"}
        return {name: self._kept(path) for name, path in paths.items()}

    def _kept(self, path: str) -> Kept:
        section = self.mesh.zone.log(path)
        agency, _, system = path.partition("/")
        return Kept(section.url, keys.find(section.keys, origin_of(ZONE, agency, system)))


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Clocked]:
    """Run five departments and a gateway."""
    mesh = Mesh(folder)
    made = Clocked(mesh, Clock(), Clock())
    try:
        for agency in sorted(ROOMS):
            if agency == MOVED:
                config = mesh.config(agency, "127.0.0.1:0")
                host = Host(config, clock=made.department)
                mesh.departments[agency] = DepartmentNode(ROOMS[agency], config, mesh.url(agency), host)
                await mesh.departments[agency].start()
            else:
                await mesh.start(agency)
        for name in corpus.TYPES:
            await mesh.load(catalogue.load().get(name).owner, corpus.records(name, SUBJECTS))
        await _start_gateway(mesh, made.gateway)
        yield made
    finally:
        await mesh.stop()


async def _start_gateway(mesh: Mesh, clock: Clock) -> None:
    config = GatewayConfig(
        node=mesh.zone.node("gateway/main"),
        tls=mesh.zone.tls("gateway/main"),
        log=mesh.zone.log("gateway/main"),
        departments={agency: DepartmentSection(target=n.host.address) for agency, n in mesh.departments.items()},
        policy=mesh.policies(*(mesh.policy(agency) for agency in ROOMS)),
        secret=mesh.folder / "secret",
    )
    mesh.gateway = GatewayNode(config, Host(config, clock=clock))
    await mesh.gateway.start()


def moved(which: Callable[[Clocked], Clock], by: dt.timedelta) -> "Callable[[Doing[Clocked]], _Fault]":
    """Move a clock, and set it right again."""

    @contextlib.asynccontextmanager
    async def fault(doing: Doing[Clocked]) -> AsyncGenerator[None]:
        which(doing.bed).ahead = by
        yield
        which(doing.bed).ahead = dt.timedelta()

    return fault


_Fault = AbstractAsyncContextManager[None]
_HOUR: Final = dt.timedelta(hours=1)


def _theirs(bed: Clocked) -> Clock:
    return bed.department


def _gateways(bed: Clocked) -> Clock:
    return bed.gateway


_FAILED: Final = "DEPARTMENT_FAILED"
_ALL: Final = frozenset({", ".join(f"{catalogue.load().get(name).owner}: {_FAILED}" for name in corpus.TYPES)})


def _case(name: str, title: str, which: Callable[[Clocked], Clock], by: dt.timedelta, *seen: str) -> Case[Clocked]:
    return Case(name, title, moved(which, by), frozenset(seen), lasts=1.0)


CLOCK_CASES: Final[tuple[Case[Clocked], ...]] = (
    _case("clock-ahead", "a department's clock an hour ahead", _theirs, _HOUR, f"{MOVED}: {_FAILED}"),
    _case("clock-behind", "a department's clock an hour behind", _theirs, -_HOUR, f"{MOVED}: {_FAILED}"),
    _case("gateway-ahead", "the gateway's clock an hour ahead", _gateways, _HOUR, *_ALL),
    _case("gateway-behind", "the gateway's clock an hour behind", _gateways, -_HOUR, "error IDENTITY_INVALID"),
)
