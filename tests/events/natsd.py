"""A real NATS server for tests, with the certificates of a zone and the permissions that the kit writes."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from shutil import rmtree

from services.kit.events.jetstream.broker import Broker
from services.kit.events.jetstream.permissions import Place, server_config
from services.kit.events.jetstream.way import Way
from tests.zone import ZONE, Zone

SERVER = Path(sys.executable).with_name("nats-server")
BROKER = "broker/nats"
OPERATOR = "broker/operator"


class Natsd:
    """One server, to be stopped, killed and robbed of its disk; always on the same port."""

    def __init__(self, zone: Zone, folder: Path, source: str, readers: Iterable[str]) -> None:
        self.zone = zone
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port: int = listening.getsockname()[1]
        files = zone.files(BROKER)
        place = Place(f"127.0.0.1:{self.port}", files.certificate, files.key, files.bundle, self.store)
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
        with (self.folder / "nats.log").open("ab") as output:
            self._process = subprocess.Popen([SERVER, "-c", self.config], stderr=output)
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, (self.folder / "nats.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.01)
            else:
                return

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

    def connections(self) -> int:
        """Count the connections that were ever let in."""
        return (self.folder / "nats.log").read_text().count("Client connection created")

    def violations(self) -> int:
        """Count what was refused to those who were let in."""
        return (self.folder / "nats.log").read_text().count("Violation")

    def broker(self, path: str) -> Broker:
        """Give the way to it for a node of the zone."""
        return Broker((f"127.0.0.1:{self.port}",), self.zone.identity(BROKER), self.zone.files(path))


def way(source: str, agency: str) -> Way:
    return Way(ZONE, source, agency)
