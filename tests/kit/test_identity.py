"""A node's own identity while the files of the next one make no sense: the last good one serves, its end is seen."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from certs.authority import Authority
from certs.svid import SvidFiles
from hutong.api.node.v1 import node_pb2
from services.kit import identity
from services.kit.identity import Identity
from tests.zone import Zone, now

STATUS = "/hutong.api.node.v1.NodeService/GetStatus"
ENDS = ("hutong_certificate_seconds_left", "hutong_authority_seconds_left", "hutong_root_seconds_left")


def nonsense(files: SvidFiles, _: Authority) -> None:
    files.certificate.write_bytes(b"nonsense")


def gone(files: SvidFiles, _: Authority) -> None:
    files.certificate.unlink()


def exposed(files: SvidFiles, authority: Authority) -> None:
    authority.renew(files.load().spiffe_id, now())
    files.certificate.chmod(0o644)


def no_roots(files: SvidFiles, _: Authority) -> None:
    files.bundle.write_bytes(b"")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the files looked at for every call, and nobody sleep while calls wait."""
    monkeypatch.setattr(identity, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(time, "sleep", pytest.fail)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("spoil", [nonsense, gone, exposed, no_roots])
def test_the_last_good_identity_serves_and_it_is_said_once(
    tmp_path: Path, spoil: Callable[[SvidFiles, Authority], None], caplog: pytest.LogCaptureFixture
) -> None:
    zone = Zone(tmp_path)
    files = zone.files("gateway/main")
    own = Identity(files)
    good = own.svid()
    whole, roots = files.certificate.read_bytes(), files.bundle.read_bytes()
    spoil(files, zone.authority)
    assert [own.svid() for _ in range(3)] == [good] * 3
    (line,) = caplog.records
    told = vars(line)["fields"]
    assert (line.levelno, told["file"]) == (logging.ERROR, str(files.certificate))
    assert str(files.bundle if spoil is no_roots else files.certificate) in told["problem"]
    files.certificate.write_bytes(whole)
    files.certificate.chmod(0o600)
    files.bundle.write_bytes(roots)
    zone.authority.renew(good.spiffe_id, now())
    assert own.svid().leaf == files.load().leaf != good.leaf


@pytest.mark.usefixtures("always")
async def test_a_node_whose_new_certificate_cannot_be_read_serves_asks_and_shows_when_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zone = Zone(tmp_path)
    host, asked = zone.host("gateway/main"), zone.host("customs/node")
    await asked.start((), [])
    await host.start((), [])
    client = host.client(asked.address, asked.identity)
    try:
        until = host.status().certified_until
        before = {name for name, _, _ in host.telemetry.readings()}
        zone.files("gateway/main").certificate.write_bytes(b"nonsense")
        await client.raw("/grpc.health.v1.Health/Check", b"", timeout=10)
        async with zone.client(host, "operator/admin") as admin:
            told = await admin.unary(STATUS, node_pb2.GetStatusRequest(), node_pb2.GetStatusResponse, timeout=10)
        assert told.certified_until == until
        assert before == {each.name for each in told.readings} >= set(ENDS)
        shown = generate_latest(host.telemetry.registry).decode()
        assert all(f"\n{name} " in shown for name in ENDS)
    finally:
        await host.stop()
        await asked.stop()
    assert {vars(each)["fields"]["file"] for each in caplog.records if each.levelno >= logging.ERROR} == {
        str(zone.files("gateway/main").certificate)
    }
