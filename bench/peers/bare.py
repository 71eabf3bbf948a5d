"""The bare mesh: grpc.aio and nothing around it, a gateway and five departments."""

import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import corpus
from bench.peers import contract
from bench.peers.running import HOST, free_port, python, running
from services.cli.zone import Zone


@dataclass(frozen=True)
class Departments:
    """Five bare departments that run."""

    zone: Zone
    folder: Path
    targets: Sequence[str]
    """In the order of an answer's fields."""
    pids: Sequence[int]


def _copied(zone: Zone, agency: str, folder: Path) -> Path:
    """Copy a department's database, so that nothing the peer does touches it."""
    copy = folder / f"{agency}.db"
    original = zone.config_file(agency).with_name("records.db")
    connect = sqlite3.connect
    with contextlib.closing(connect(original)) as source, contextlib.closing(connect(copy)) as target:
        source.backup(target)
    return copy


@contextlib.asynccontextmanager
async def departments(zone: Zone) -> AsyncGenerator[Departments]:
    """Run five bare departments over copies of the zone's stores."""
    folder = zone.folder / "peers"
    folder.mkdir(exist_ok=True)
    targets: list[str] = []
    pids: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        for name in corpus.TYPES:
            agency = contract.agency_of(name)
            files, port = zone.credentials(f"{agency}/node"), free_port()
            command = python(
                "bench.peers.bare_department",
                *(name, _copied(zone, agency, folder), files.certificate, files.bundle, str(port)),
            )
            pids.append(
                await stack.enter_async_context(running(*command, port=port, log=folder / f"bare-{agency}.log"))
            )
            targets.append(f"{HOST}:{port}")
        yield Departments(zone, folder, targets, pids)


@contextlib.asynccontextmanager
async def gateway(behind: Departments, targets: Sequence[str] = ()) -> AsyncGenerator[tuple[str, int]]:
    """Run a bare gateway before departments, at `targets` where something stands between; gives its address and pid."""
    zone, port = behind.zone, free_port()
    files = zone.credentials("gateway/main")
    command = python(
        "bench.peers.bare_gateway",
        *(zone.name, files.certificate, files.bundle, str(port), ",".join(targets or behind.targets)),
    )
    async with running(*command, port=port, log=behind.folder / f"bare-gateway-{port}.log") as pid:
        yield f"{HOST}:{port}", pid
