"""A real NATS server for tests, with the certificates of a zone and the permissions that the kit writes."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree

from services.kit.events.jetstream.broker import Broker
from services.kit.events.jetstream.permissions import Cluster, Place, server_config
from services.kit.events.jetstream.way import Way
from services.kit.identity import Identity
from tests.state.secured import made
from tests.zone import ZONE, Zone

SERVER = Path(sys.executable).with_name("nats-server")
BROKER = "broker/nats"
OPERATOR = "broker/operator"


class Natsd:
    """One server, to be stopped, killed and robbed of its disk; always on the same port."""

    def __init__(
        self, zone: Zone, folder: Path, source: str, readers: Iterable[str], cluster: Cluster | None = None
    ) -> None:
        self.zone = zone
        self.folder = folder
        (self.port,) = free_ports(1)
        self.addresses = [self.address]
        """Where nodes are told that it is: of a cluster all of its servers."""
        files = zone.files(BROKER)
        place = Place(self.address, files.certificate, files.key, files.bundle, self.store, cluster)
        self.config = folder / "nats.conf"
        folder.mkdir(parents=True, exist_ok=True)
        text = server_config(place, zone.identity(source), map(zone.identity, readers))
        # Whoever runs a broker may do anything there; the config that is delivered has no such user.
        everything = f'  {{ user: "{zone.identity(OPERATOR)}" }}'
        self.config.write_text("debug: true\n" + text.replace("users: [", f"users: [\n{everything}"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        self.launch()
        self.listens()

    def launch(self) -> None:
        """Start."""
        with (self.folder / "nats.log").open("ab") as output:
            self._process = subprocess.Popen([SERVER, "-c", self.config], stderr=output)

    def listens(self) -> None:
        """Wait until it takes connections."""
        assert self._process
        listens(self._process, self.port)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait(20)
        self._process = None

    def lose_disk(self) -> None:
        """Lose everything that it keeps; it must not be running."""
        assert self._process is None
        rmtree(self.store)

    @property
    def address(self) -> str:
        """Where it alone is."""
        return f"127.0.0.1:{self.port}"

    def leads(self, what: str) -> bool:
        """Tell whether it became the leader of the cluster's "metadata" or of a "stream"."""
        log = (self.folder / "nats.log").read_text()
        return "_meta_] Switching to leader" in log if what == "metadata" else "new stream leader" in log

    def connections(self) -> int:
        """Count the connections that were ever let in."""
        return (self.folder / "nats.log").read_text().count("Client connection created")

    def violations(self) -> int:
        """Count what was refused to those who were let in."""
        return (self.folder / "nats.log").read_text().count("Violation")

    def broker(self, path: str) -> Broker:
        """Give the way to it for a node of the zone."""
        return Broker(tuple(self.addresses), self.zone.identity(BROKER), Identity(self.zone.files(path)))


def clustered(zone: Zone, folder: Path, source: str, readers: Sequence[str], count: int = 3) -> list[Natsd]:
    """Make several servers that are one broker; none is started yet."""
    folder.mkdir(parents=True)
    pair = made(folder, "localhost")
    routes = tuple(f"localhost:{port}" for port in free_ports(count))
    servers = [
        Natsd(
            zone,
            folder / f"n{number}",
            source,
            readers,
            Cluster(f"n{number}", route, routes, pair.certificate, pair.key, pair.certificate),
        )
        for number, route in enumerate(routes)
    ]
    for server in servers:
        server.addresses = [f"127.0.0.1:{each.port}" for each in servers]
    return servers


def listens(server: "subprocess.Popen[bytes]", port: int, host: str = "127.0.0.1") -> None:
    """Wait until a server takes connections."""
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            assert server.poll() is None, "it ended by itself; its log says why"
            assert time.monotonic() < end
            time.sleep(0.01)
        else:
            return


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    with ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in free]


def way(source: str, agency: str) -> Way:
    return Way(ZONE, source, agency)
