"""`hutong nats config`: what it prints a server takes, and nodes of the zone find in it what they need."""

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certs.authority import Authority
from services.cli.zone import Zone
from services.kit.errors import Reason, Unavailable
from services.kit.events.jetstream.broker import Broker, Limits
from services.kit.events.jetstream.way import Way
from services.kit.identity import Identity
from tests.cli.conftest import Ran, run
from tests.events.natsd import BROKER, SERVER, free_ports, listens
from tests.state.secured import made
from tests.zone import now


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    """A zone whose recognition service publishes for customs."""
    zone = Zone.prepare(tmp_path_factory.mktemp("broker") / "zone")
    Authority.open(zone.certificates.folder).issue(zone.identity(BROKER), now())
    with zone.config_file("recognition").open("a") as file:
        file.write('\n[nats]\nservers = ["127.0.0.1:4222"]\nreaders = ["customs/node"]\nreplicas = 3\n')
    return zone


def asked(zone: Zone, *more: str | Path, node: str = "recognition") -> Ran:
    own = zone.credentials(BROKER).certificate
    store = zone.folder / "nats"
    return run("nats", "config", "--config", zone.config_file(node), "--certificate", own, "--store", store, *more)


def accepted(file: Path, text: str) -> bool:
    """Tell whether a server takes a config."""
    file.write_text(text)
    return subprocess.run([SERVER, "-t", "-c", file], check=False, capture_output=True).returncode == 0


@contextmanager
def serving(file: Path, port: int) -> Generator[None]:
    with subprocess.Popen([SERVER, "-c", file], stderr=subprocess.DEVNULL) as server:
        try:
            listens(server, port)
            yield
        finally:
            server.kill()


async def test_nodes_join_a_server_that_has_it(zone: Zone, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    ran = asked(zone, "--listen", address)
    assert ran.exit_code == 0, ran.stderr
    assert accepted(tmp_path / "nats.conf", ran.stdout)
    way = Way.of(zone.identity("recognition/node"), "customs")

    def broker(node: str) -> Broker:
        return Broker((address,), zone.identity(BROKER), Identity(zone.credentials(node)))

    with serving(tmp_path / "nats.conf", port):
        async with broker("recognition/node").connect() as source, broker("customs/node").connect() as reader:
            await source.make(way.stream, way.events, Limits(2**20, 60))
            assert await source.publish(way.events, b"17", {}, 0) == 1
            kept = await reader.message(way.stream, way.events, 1)
            assert kept is not None
            assert kept.data == b"17"
        with pytest.raises(Unavailable):
            async with broker("taxation/node").connect():
                pass


def test_a_server_of_several(zone: Zone, tmp_path: Path) -> None:
    pair = made(tmp_path, "localhost")
    among = ("--server", "n1", "--cluster-listen", "127.0.0.1:6222")
    routes = ("--route", "localhost:6222", "--route", "localhost:6223")
    own = ("--cluster-certificate", pair.certificate, "--cluster-key", pair.key, "--cluster-bundle", pair.certificate)
    ran = asked(zone, *among, *routes, *own)
    assert ran.exit_code == 0, ran.stderr
    assert accepted(tmp_path / "nats.conf", ran.stdout)
    assert asked(zone, *among, *routes).exit_code == 2


def test_what_is_refused(zone: Zone, tmp_path: Path) -> None:
    assert asked(zone, "--listen", "nowhere").exit_code == 2
    other = asked(zone, node="customs")
    assert (other.exit_code, other.stdout) == (1, "")
    assert Reason.CONFIG_UNKNOWN_KEY in other.stderr
    without = tmp_path / "node.toml"
    without.write_text(zone.config_file("recognition").read_text().partition("[nats]")[0])
    ran = run("nats", "config", "--config", without, "--certificate", "a", "--store", "b", "--json")
    assert json.loads(ran.stdout)["error"]["reason"] == Reason.CONFIG_INVALID
