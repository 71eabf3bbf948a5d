"""Two releases and what lies outside of both, as processes: zones that ask each other, an agency elsewhere, events."""

import asyncio
import re
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from hutong.api.exchange.v1 import event_pb2
from services.kit.client import Client
from tests.cli.conftest import run
from tests.events.natsd import BROKER, SERVER, listens
from tests.exchange.records import EXPORTER
from tests.helm.chart import NAMESPACE, render
from tests.helm.cluster import HUTONG, Cluster, Pod, fresh_address, wait_for
from tests.zones.world import FOR_PORT, INLAND, PORT

REFUND, RELEASE, REGISTRY = "taxation/refund", "customs/release", "commerce/registry"
QUALITY = "quality/node"
FORMER = "taxation/former"
"""A system that is revoked."""
SUBJECT = ("--subject", f"cn.uscc:{EXPORTER}")
REBATE = (*SUBJECT, "--purpose", "P-REBATE", "--basis", "CN-VAT-REBATE")
PUBLIC = (*SUBJECT, "--purpose", "P-PUBLIC-REG", "--basis", "CN-PUBLIC-REGISTER")
LOT = ("--subject", "hutong.lot:SAMPLE-LOT-1", "--purpose", "P-RELEASE", "--basis", "CN-CONFORMITY-RELEASE")
DECLARATION = f"{INLAND}/customs.Declaration:declaration_no,gross_wt_kg"
INBOX = "/hutong.api.exchange.v1.InboxService/ListInboxEvents"
NATS = f"nats.{NAMESPACE}.svc"

OF_QUALITY = """
@id("Q-release")
@title("Release: certificates of a lot")
@basis("CN-CONFORMITY-RELEASE")
@until("2027-12-31T23:59:59+08:00")
permit (
    principal in Hutong::Agency::"customs",
    action == Hutong::Action::"read",
    resource in Hutong::RecordType::"quality.Certificate"
)
when { context.purpose == "P-RELEASE" };
"""

FOR_INLAND = """
@id("C-inland")
@title("What the register says to everybody, said to inland")
@basis("CN-PUBLIC-REGISTER")
@until("2027-12-31T23:59:59+08:00")
permit (
    principal in Hutong::Zone::"inland.example",
    action == Hutong::Action::"read",
    resource in Hutong::RecordType::"commerce.Enterprise"
)
when { context.purpose == "P-PUBLIC-REG" && resource.name == "name" };
"""

SMALL: dict[str, Any] = {
    "supervision": {"enabled": False},
    "defaults": {"replicas": 1, "database": {"kind": "sqlite"}},
}
"""As few processes as will do, on files."""

OF_PORT = SMALL | {
    "zone": PORT,
    "agencies": [
        {"name": "commerce"},
        {"name": "quality", "external": {"target": "hutong.quality.example:50051", "timeout": "10s"}},
    ],
    "certificates": {"issuer": {"claim": "authority", "systems": [REFUND, RELEASE, REGISTRY, FORMER, QUALITY, BROKER]}},
    "keys": {"configMap": "elsewhere"},
    "nats": {"servers": [f"{NATS}:4222"]},
    "policy": {"files": {"quality": OF_QUALITY, "commerce": FOR_INLAND}},
    "zones": {
        INLAND: {
            "configMap": "inland-trust",
            "target": f"gateway.{INLAND}:50061",
            "timeout": "10s",
            "asked_by": ["taxation/*"],
            "may_ask": ["customs/*"],
        }
    },
}

OF_INLAND = SMALL | {
    "zone": INLAND,
    "agencies": [{"name": "customs"}],
    "recognition": {"enabled": False},
    "certificates": {"issuer": {"claim": "authority", "systems": [RELEASE]}},
    "policy": {"files": {"customs": FOR_PORT}},
    "zones": {
        PORT: {
            "configMap": "port-trust",
            "target": f"gateway.{PORT}:50061",
            "timeout": "10s",
            "asked_by": ["customs/*"],
            "may_ask": ["taxation/*"],
            "follow": "500ms",
        }
    },
}

RECORDS = {
    "customs.Declaration": "declaration_no,trader_uscc,ie_flag,decl_status,gross_wt_kg\n"
    f"SAMPLE-1,{EXPORTER},E,CLEARED,12.5\n",
    "commerce.Enterprise": f"uscc,name\n{EXPORTER},of the name\n",
    "quality.Certificate": "cert_no,cert_type,cert_status,lot_id\nSAMPLE-CERT-1,SAMPLE,SAMPLE,SAMPLE-LOT-1\n",
}

AGENCY_ELSEWHERE = """
secret = "own/nodes/quality/secret"
gateways = ["gateway/main"]

[node]
zone = "port.example"
agency = "quality"
listen = "ADDRESS:50051"
metrics = "ADDRESS:9101"

[tls]
certificate = "identity.pem"
key = "identity.pem"
bundle = "trust/bundle.crt"
revoked = "trust/revoked.crl"

[tls.revocations_from.gateway]
target = "GATEWAY:50051"
system = "main"

[store]
url = "sqlite+aiosqlite:///records.db"
migrate = true

[log]
url = "sqlite+aiosqlite:///log.db"
migrate = true
key = "own/nodes/quality/log.key"
keys = "keys"

[log.witnesses.gateway]
target = "GATEWAY:50051"
system = "main"

[events.recognition]
target = "RECOGNITION:50051"

[policy]
files = ["quality.cedar"]
"""
"""What `docs/operations/join.md` has an agency write."""


@contextmanager
def running(command: list[str], output: Path) -> Generator["subprocess.Popen[bytes]"]:
    """Run what belongs to no release, for as long as is needed."""
    with output.open("ab") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def issued(cluster: Cluster, who: str) -> Path:
    """Find what the issuer's job made for a system that is no node of the release."""
    return cluster.claim("authority") / "authority" / "svid" / who / "credential-bundle.private-key.pem"


def trust(cluster: Cluster) -> dict[str, str]:
    """Take what another zone is given of a zone: its roots and its revocation list."""
    folder = cluster.claim("authority") / "trust"
    return {name: (folder / name).read_text() for name in ("bundle.crt", "revoked.crl")}


@contextmanager
def broker(port: Cluster, folder: Path) -> Generator[None]:
    """Run a NATS server, with what an operator writes for it: from the ConfigMap of the node that publishes."""
    folder.mkdir()
    source = folder / "recognition.toml"
    source.write_text(port.rendered.of("ConfigMap")["port-hutong-recognition"]["data"]["node.toml"])
    address = port.outside[NATS]
    bundle = port.claim("authority") / "trust" / "bundle.crt"
    given = ("--certificate", issued(port, BROKER), "--bundle", bundle, "--store", folder / "store")
    ran = run("nats", "config", "--config", source, *given, "--listen", f"{address}:4222")
    assert ran.exit_code == 0, ran.stderr
    (folder / "nats.conf").write_text(ran.stdout)
    with running([str(SERVER), "-c", str(folder / "nats.conf")], folder / "nats.log") as server:
        listens(server, 4222, address)
        yield


def handed(port: Cluster, folder: Path) -> Path:
    """Lay out what an agency elsewhere makes and is handed, as `docs/operations/join.md` has it; gives its config."""
    claim = port.claim("authority")
    for name in ("trust", "keys"):
        (folder / name).mkdir()
        for path in (claim / name).iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
    (folder / "identity.pem").write_bytes(issued(port, QUALITY).read_bytes())
    (folder / "identity.pem").chmod(0o600)
    (folder / "quality.cedar").write_text(OF_QUALITY)
    places = {"ADDRESS": port.outside["hutong.quality.example"]}
    places |= {name.upper(): port.addresses[f"port-hutong-{name}"] for name in ("gateway", "recognition")}
    text = AGENCY_ELSEWHERE
    for name, address in places.items():
        text = text.replace(f"{name}:", f"{address}:")
    (folder / "node.toml").write_text(text)
    return folder / "node.toml"


def serves(process: "subprocess.Popen[bytes]", config: Path) -> bool:
    assert process.poll() is None, (config.parent / "output").read_text()[-3000:]
    return run("health", "--config", config).exit_code == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("neighbours")


@pytest.fixture(scope="module")
def zones(folder: Path) -> Iterator[tuple[Cluster, Cluster]]:
    """Port, with an agency elsewhere and a broker, and inland; each knows the other."""
    with ExitStack() as stack:
        port, inland = (
            stack.enter_context(Cluster(render(values, release=name), folder / name))
            for name, values in (("port", OF_PORT), ("inland", OF_INLAND))
        )
        port.outside = {
            f"gateway.{INLAND}": inland.addresses["inland-hutong-gateway"],
            "hutong.quality.example": fresh_address(),
            NATS: fresh_address(),
        }
        inland.outside = {f"gateway.{PORT}": port.addresses["port-hutong-gateway"]}
        elsewhere = folder / "quality"
        made = run("provision", elsewhere / "own", "--zone", PORT, "--node", "quality")
        assert made.exit_code == 0, made.stderr
        key = elsewhere / "own" / "keys" / "quality.node.vkey"
        port.config_maps["elsewhere"] = {key.name: key.read_text()}
        for cluster in (port, inland):
            done = cluster.run_job(f"{cluster.folder.name}-hutong-issuer")
            assert done.returncode == 0, done.stderr
        port.config_maps["inland-trust"], inland.config_maps["port-trust"] = trust(inland), trust(port)
        stack.enter_context(broker(port, folder / "nats"))
        config = handed(port, elsewhere)
        port.launch()
        inland.launch()
        node = [*HUTONG, "serve", "quality", "--config", str(config)]
        process = stack.enter_context(running(node, elsewhere / "output"))
        port.wait_until_started()
        inland.wait_until_started()
        wait_for(lambda: serves(process, config))
        load(folder, port, inland)
        yield port, inland


def load(folder: Path, port: Cluster, inland: Cluster) -> None:
    for kind, text in RECORDS.items():
        source = folder / f"{kind}.csv"
        source.write_text(text)
        if kind.startswith("quality"):
            config = folder / "quality" / "node.toml"
            ran = run("load", "quality", "--config", config, "--mapping", f"auto:{kind}", source)
            assert ran.exit_code == 0, ran.stderr
        else:
            cluster = inland if kind.startswith("customs") else port
            cluster.pods[f"{cluster.folder.name}-hutong-{kind.partition('.')[0]}"].load(f"auto:{kind}", source)


def section(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    """The only section of an answer."""
    (found,) = answer[1]["sections"]
    return dict(found)


def test_a_zone_answers_another_under_its_own_policy(zones: tuple[Cluster, Cluster]) -> None:
    """Which is what decides: a permit that names no zone is for none, and without a permit there is nothing."""
    port, inland = zones

    def ask() -> dict[str, Any]:
        return section(port.ask(REFUND, *REBATE, "--select", DECLARATION))

    found = ask()
    assert (found["zone"], found["agency"], found["status"]) == (INLAND, "customs", "SECTION_STATUS_PARTIAL")
    assert [record["declaration_no"] for record in found["records"]] == ["SAMPLE-1"]
    assert {each["field"]: each.get("policy_ids", each["reason"]) for each in found["decisions"]} == {
        "declaration_no": ["Z-port"],
        "gross_wt_kg": "NO_PERMIT",
    }
    policies = inland.rendered.of("ConfigMap")["inland-hutong-policy"]["data"]
    closed = FOR_PORT.replace("taxation.port.example", "quality.port.example")
    try:
        inland.write_config_map("inland-hutong-policy", policies | {"customs.cedar": closed})
        wait_for(lambda: ask()["status"] == "SECTION_STATUS_DENIED")
    finally:
        inland.write_config_map("inland-hutong-policy", policies)


def test_and_the_other_way_round(zones: tuple[Cluster, Cluster]) -> None:
    _, inland = zones
    found = section(inland.ask(RELEASE, *PUBLIC, "--select", f"{PORT}/commerce.Enterprise:name"))
    assert (found["zone"], found["agency"]) == (PORT, "commerce")
    assert [record["name"] for record in found["records"]] == ["of the name"]
    assert [decision["policy_ids"] for decision in found["decisions"]] == [["C-inland"]]


def test_a_revocation_in_one_zone_is_heard_in_the_other(zones: tuple[Cluster, Cluster]) -> None:
    """By the gateways themselves: what was brought by hand stays as it was."""
    port, inland = zones
    gateway = inland.pods["inland-hutong-gateway"]
    kept = Path(gateway.here(f"/var/lib/hutong/zones/{PORT}/revoked.crl"))
    assert kept.read_text() == inland.config_maps["port-trust"]["revoked.crl"]
    revoked = run("certs", "revoke", FORMER, "--dir", port.claim("authority") / "authority")
    assert revoked.exit_code == 0, revoked.stderr
    assert port.run_job("port-hutong-issuer").returncode == 0
    wait_for(lambda: kept.read_text() == trust(port)["revoked.crl"])
    assert kept.read_text() != inland.config_maps["port-trust"]["revoked.crl"]


def test_an_event_reaches_a_department_over_the_broker(zones: tuple[Cluster, Cluster]) -> None:
    """From the recognition service, which is asked to remind an agency of its stage of a case."""
    port, _ = zones
    commerce = partial(measured, port.pods["port-hutong-commerce"])
    # Until then it follows the source itself.
    wait_for(lambda: commerce("over_broker") == 1)
    bundle = port.claim("authority") / "trust" / "bundle.crt"
    recognition = f"{port.addresses['port-hutong-recognition']}:50051"
    way = ("--address", recognition, "--cert", issued(port, REGISTRY), "--bundle", bundle)
    submitted = run("case", "submit", "FTZ-EST", "--subject", f"cn.uscc:{EXPORTER}", "--quiet", *way)
    assert submitted.exit_code == 0, submitted.stderr
    case = submitted.stdout.strip()
    reminded = run("remind", case, *way)
    assert reminded.exit_code == 0, reminded.stderr
    wait_for(lambda: received(port, case) == ["reminder"])
    # Of all that there was to bring, and once.
    assert commerce("carried_total") == 1
    wait_for(lambda: measured(port.pods["port-hutong-recognition"], "published_total") == 1)


def received(port: Cluster, case: str) -> list[str]:
    """List the kinds of what commerce was told of a case."""
    identity, bundle = issued(port, REGISTRY), port.claim("authority") / "trust" / "bundle.crt"
    node, address = SpiffeId.of(PORT, "commerce", "node"), port.addresses["port-hutong-commerce"]

    async def listed() -> list[str]:
        client = Client(f"{address}:50051", node, SvidFiles(identity, identity, bundle))
        try:
            request = event_pb2.ListInboxEventsRequest(key=case)
            answer = await client.unary(INBOX, request, event_pb2.ListInboxEventsResponse, timeout=10)
        finally:
            await client.close()
        return [event.kind for event in answer.events]

    return asyncio.run(listed())


def measured(pod: Pod, what: str) -> float:
    """Read what a node counts of its events."""
    (value,) = re.findall(rf"(?m)^hutong_events_{what}{{[^}}]*}} (\S+)$", pod.metrics())
    return float(value)


def test_an_agency_elsewhere_belongs_to_the_release(zones: tuple[Cluster, Cluster], folder: Path) -> None:
    """It is asked, and heard; and it reaches whom its own config names, as a node of the release does."""
    port, _ = zones
    found = section(port.ask(RELEASE, *LOT, "--select", "quality.Certificate:cert_no"))
    assert found["agency"] == "quality"
    assert [record["cert_no"] for record in found["records"]] == ["SAMPLE-CERT-1"]
    hook = port.run_pod("port-hutong-test")
    assert hook.returncode == 0, hook.stderr
    assert f"spiffe://{PORT}/quality/node serves" in hook.stdout
    gateway = port.pods["port-hutong-gateway"]
    wait_for(lambda: 'hutong_revocations_followed{node="quality/node"} 1.0' in gateway.metrics())
    config = folder / "quality" / "node.toml"
    asked = run("health", "--config", config, "--peers")
    assert asked.exit_code == 0, asked.stderr
    assert {line.split()[0] for line in asked.stdout.splitlines()} == {
        f"spiffe://{PORT}/{name}" for name in ("quality/node", "gateway/main", "recognition/node")
    }
    witnessed = run("log", "witness", "--config", config, "--now")
    assert "co-signs" in witnessed.stdout, witnessed.stderr
