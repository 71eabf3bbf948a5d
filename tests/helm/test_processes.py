"""A release as processes: what the chart renders starts, is probed, answers a question, follows its files, stops."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa

from certs.layout import Layout
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from services.cli import sample
from services.cli.dbs import roles
from services.cli.dbs.places import Node
from services.cli.sample import Subject
from tests.certs.test_workload import handed, serving
from tests.databases import Postgres
from tests.helm.chart import AGENCIES, PREFIX, SERVICES, render, zone
from tests.helm.cluster import HUTONG, Cluster, Pod, wait_for
from tests.state.bed import user

CALLER = "taxation/refund"
FORMER = "taxation/former"
REBATE = ("--purpose", "P-REBATE", "--basis", "CN-VAT-REBATE")
PUBLIC = ("--purpose", "P-PUBLIC-REG", "--basis", "CN-PUBLIC-REGISTER")
DECLARATION = ("--select", "customs.Declaration:declaration_no,lines.hs10")
ONE = {"replicas": 1}
OWNED = ("customs", "gateway")
"""Nodes whose databases a job migrates before they start, as another role than theirs."""
OWNER = {"database": {"owner": {"enabled": True}}}
REGISTER = """\
mapping: commerce.register
version: 1
record: commerce.Enterprise
title: The register as it stands in the old system
source_system: old-register
source: {kind: sql, table: register, key: [uscc]}
fields: {uscc: uscc, name: name}
"""
LIVE: dict[str, Any] = {
    "mappings": {"register.yaml": REGISTER},
    "live": {"commerce.Enterprise": {"mapping": "register.yaml", "key": "register-url"}},
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic zone."""
    folder = tmp_path_factory.mktemp("sample")
    sample.write(folder, sample.Setting(enterprises=80))
    return folder


@pytest.fixture(scope="module")
def exporter(records: Path) -> Subject:
    return sample.story(records).exporter


@pytest.fixture(scope="module")
def release(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres, records: Path, exporter: Subject
) -> Iterator[Cluster]:
    """A whole zone on PostgreSQL, with certificates of our own issuer, running; one reads a table of another system."""
    agencies: list[dict[str, Any]] = [
        {"name": name, "database": {"owner": {"enabled": name in OWNED}}} for name in AGENCIES
    ]
    agencies[AGENCIES.index("commerce")] |= LIVE
    issuer = {"issuer": {"claim": "authority", "systems": [CALLER, FORMER]}}
    values = zone(agencies=agencies, gateway=OWNER, defaults=ONE, certificates=issuer, tiles={"enabled": True})
    with ExitStack() as stack:
        made = Cluster(render(values), tmp_path_factory.mktemp("release"))
        for node in (*AGENCIES, *SERVICES):
            names = ("log-url",) if node == "gateway" else ("store-url", "log-url")
            urls = {name: stack.enter_context(postgres_server.fresh()).encode() for name in names}
            made.secrets[f"{PREFIX}-{node}-database"] = urls
        made.secrets[f"{PREFIX}-commerce-database"]["register-url"] = register(
            stack.enter_context(postgres_server.fresh()), exporter
        )
        cluster = stack.enter_context(made)
        for node in OWNED:
            own_apart(cluster, node, postgres_server)
            migrated = cluster.run_job(f"{PREFIX}-{node}-database")
            assert migrated.returncode == 0, migrated.stderr
        checked = cluster.run_job(f"{PREFIX}-policy")
        assert checked.returncode == 0, checked.stderr
        issued = cluster.run_job(f"{PREFIX}-issuer")
        assert issued.returncode == 0, issued.stderr
        cluster.start()
        load(cluster, records)
        yield cluster


def register(url: str, exporter: Subject) -> bytes:
    """Make another system's table, of one enterprise; gives the URL that a node is to read it with."""
    engine = sa.create_engine(url.replace("+asyncpg", "+psycopg"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE register (uscc text, name text, address text)"))
        row = sa.text("INSERT INTO register VALUES (:uscc, 'of the name', 'of the address')")
        connection.execute(row, {"uscc": exporter.text.partition(":")[2]})
    engine.dispose()
    return url.encode()


def own_apart(cluster: Cluster, node: str, server: Postgres) -> None:
    """Make the roles of a node's databases, as an administrator does: it runs as one, the other owns the tables."""
    node_secret, owner_secret = f"{PREFIX}-{node}-database", f"{PREFIX}-{node}-owner"
    cluster.secrets[owner_secret] = dict(cluster.secrets[node_secret])
    found = Node.of(cluster.job(f"{PREFIX}-{node}-database").config)
    for place in found.places:
        server.execute(*roles.statements(found, place), database=sa.make_url(place.url).database)
        for secret, role in zip((owner_secret, node_secret), roles.names(found, place), strict=True):
            cluster.secrets[secret][f"{place.name}-url"] = user(place.url, role).encode()


def load(cluster: Cluster, records: Path) -> None:
    """Load declarations."""
    table = sample.manifest(records)["tables"]["customs.Declaration"]
    cluster.pods[f"{PREFIX}-customs"].load("auto:customs.Declaration", records / table["path"])


def ask(
    cluster: Cluster, exporter: Subject, *more: str, purpose: tuple[str, ...] = REBATE
) -> tuple[int, dict[str, Any]]:
    return cluster.ask(CALLER, "--subject", exporter.text, *purpose, *more)


def test_one_question_goes_through_the_gateway_to_a_department(release: Cluster, exporter: Subject) -> None:
    code, answer = ask(release, exporter, *DECLARATION)
    assert code == 0, answer
    (section,) = answer["sections"]
    assert section["status"] in {"SECTION_STATUS_OK", "SECTION_STATUS_PARTIAL"}
    assert section["records"][0]["declaration_no"]


def test_a_node_runs_as_a_role_that_owns_nothing(release: Cluster) -> None:
    """It has answered; here is as whom. The job again finds nothing to do."""
    for node in OWNED:
        config = release.pods[f"{PREFIX}-{node}"].config
        done = subprocess.run([*HUTONG, "db", "check", "--config", config, "--json"], capture_output=True, check=False)
        databases = json.loads(done.stdout)["databases"]
        assert {(one["standing"], one["role"], one["usable"]) for one in databases} == {("CURRENT", "runtime", True)}
    again = release.run_job(f"{PREFIX}-gateway-database")
    assert again.returncode == 0
    assert "nothing to upgrade" in again.stdout


def test_a_policy_that_does_not_pass_ends_an_installation_before_it_begins(tmp_path: Path) -> None:
    """The job is the first thing that is done; it names the file, the line and the column."""
    wrong = '// ours\n@id("a")\npermit (principal action, resource);\n'
    cluster = Cluster(render(zone(policy={"files": {"customs": wrong}})), tmp_path)
    done = cluster.run_job(f"{PREFIX}-policy")
    assert done.returncode == 1
    assert "/etc/hutong/policy/customs.cedar:3:19: not Cedar: unexpected token `action`" in done.stderr


@pytest.mark.parametrize("probe", ["startup", "readiness", "liveness"])
@pytest.mark.parametrize("node", ["customs", "recognition", "supervision", "gateway"])
def test_every_probe_is_answered(release: Cluster, node: str, probe: str) -> None:
    done = release.pods[f"{PREFIX}-{node}"].probe(probe)
    assert done.returncode == 0, done.stderr


def test_the_hook_asks_everyone_whom_the_gateway_calls(release: Cluster) -> None:
    done = release.run_pod(f"{PREFIX}-test")
    assert done.returncode == 0, done.stderr
    for name in (*AGENCIES, "recognition", "supervision"):
        assert f"spiffe://port.example/{name}/node serves" in done.stdout
    assert "spiffe://port.example/gateway/main serves" in done.stdout


@pytest.mark.parametrize("node", [*AGENCIES, *SERVICES])
def test_nodes_hear_of_revocations_from_each_other(release: Cluster, node: str) -> None:
    """The gateway from everybody, everybody from the gateway."""
    others = {f"{name}/node" for name in (*AGENCIES, *SERVICES) if name != "gateway"}
    wait_for(lambda: heard(release.pods[f"{PREFIX}-{node}"]) == (others if node == "gateway" else {"gateway/main"}))


def heard(pod: Pod) -> set[str]:
    """Whom a node hears now, as it shows it."""
    return set(re.findall(r'hutong_revocations_followed\{node="([^"]+)"\} 1.0', pod.metrics()))


def test_a_changed_policy_counts_without_a_restart(release: Cluster, exporter: Subject) -> None:
    name = f"{PREFIX}-policy"
    delivered = release.rendered.of("ConfigMap")[name]["data"]
    closed = delivered | {"customs.cedar": delivered["customs.cedar"] + CLOSED}
    try:
        release.write_config_map(name, closed)
        wait_for(lambda: statuses(release, exporter) == {"SECTION_STATUS_DENIED"})
    finally:
        release.write_config_map(name, delivered)
    wait_for(lambda: statuses(release, exporter) != {"SECTION_STATUS_DENIED"})


def test_a_changed_mapping_counts_without_a_restart(release: Cluster, exporter: Subject) -> None:
    """The table of another system is read through it, when a question comes."""

    def name() -> str:
        code, answer = ask(release, exporter, "--select", "commerce.Enterprise:name", purpose=PUBLIC)
        assert code == 0, answer
        return str(answer["sections"][0]["records"][0]["name"])

    assert name() == "of the name"
    changed = REGISTER.replace("name: name", "name: address")
    release.write_config_map(f"{PREFIX}-commerce-mappings", {"register.yaml": changed})
    assert name() == "of the address"


def test_tiles_are_served_where_the_service_says(release: Cluster) -> None:
    for name in (*AGENCIES, *SERVICES):
        with socket.create_connection((release.addresses[f"{PREFIX}-{name}"], 8443), timeout=10):
            pass


CLOSED = """
@id("closed")
@title("Closed for the moment")
forbid (
    principal,
    action == Hutong::Action::"read",
    resource in Hutong::RecordType::"customs.Declaration"
)
when { context.purpose == "P-REBATE" };
"""


def statuses(cluster: Cluster, exporter: Subject) -> set[str]:
    return {section["status"] for section in ask(cluster, exporter, *DECLARATION)[1]["sections"]}


def test_certificates_are_renewed_by_the_same_job(release: Cluster) -> None:
    """Nothing is due yet, so it changes nothing; what was revoked meanwhile, it takes to where nodes see it."""
    claim = release.claim("authority")
    identity = claim / "authority" / "svid" / "customs" / "node" / "credential-bundle.private-key.pem"
    delivered = claim / "trust" / "revoked.crl"
    before, listed = identity.read_bytes(), delivered.read_bytes()
    cron = release.rendered.of("CronJob")[f"{PREFIX}-issuer"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    job = release.rendered.of("Job")[f"{PREFIX}-issuer"]["spec"]["template"]["spec"]
    assert cron == job
    assert release.run_job(f"{PREFIX}-issuer").returncode == 0
    assert (identity.read_bytes(), delivered.read_bytes()) == (before, listed)
    revoke = [*HUTONG, "certs", "revoke", FORMER, "--dir", str(claim / "authority")]
    assert subprocess.run(revoke, capture_output=True, check=False).returncode == 0
    assert release.run_job(f"{PREFIX}-issuer").returncode == 0
    assert identity.read_bytes() == before
    assert delivered.read_bytes() == (claim / "authority" / "revoked.crl").read_bytes() != listed
    assert release.pods[f"{PREFIX}-customs"].probe("readiness").returncode == 0


def test_a_node_sees_nothing_of_the_claim_but_its_own(release: Cluster) -> None:
    for pod in release.pods.values():
        for mount in pod.container["volumeMounts"]:
            if mount["name"] == "authority":
                assert mount["readOnly"]
                assert mount["subPath"] in {
                    "trust",
                    "keys",
                    f"nodes/{pod.name.removeprefix(f'{PREFIX}-')}",
                    f"nodes/{pod.name.removeprefix(f'{PREFIX}-')}/signing",
                    f"authority/svid/{pod.name.removeprefix(f'{PREFIX}-')}/node",
                    "authority/svid/gateway/main",
                }


def test_probes_tell_a_frozen_node_and_one_that_is_gone(release: Cluster) -> None:
    pod = release.pods[f"{PREFIX}-quality"]
    assert pod.process is not None
    pod.process.send_signal(signal.SIGSTOP)
    try:
        for kind in ("readiness", "liveness"):
            done = pod.probe(kind)
            assert done.returncode == 1
            assert "NODE_UNHEALTHY" in done.stderr
            assert "spiffe://port.example/quality/node does not answer" in done.stderr
    finally:
        pod.process.send_signal(signal.SIGCONT)
    pod.wait_until_started()
    assert pod.stop() == 0
    assert "DEADLINE_EXCEEDED" not in pod.probe("liveness").stderr
    assert pod.probe("liveness").returncode == 1
    hook = release.run_pod(f"{PREFIX}-test")
    assert hook.returncode == 1
    assert "quality/node does not answer" in hook.stderr
    assert "customs/node does not answer" not in hook.stderr
    pod.start()
    pod.wait_until_started()


SMALL = {
    "zone": "port.example",
    "agencies": [{"name": "customs"}],
    "recognition": {"enabled": True},
    "supervision": {"enabled": False},
    "defaults": {"replicas": 1, "database": {"kind": "sqlite"}},
    "keys": {"configMap": "published"},
}


SOURCES: dict[str, dict[str, Any]] = {
    "certManager": {"certManager": {"issuerRef": {"name": "zone"}}, "revocations": {"configMap": "revoked"}},
    # Ours live for 24 hours: an agent's live for one.
    "spire": {"spire": {"longestLife": "25h"}},
}
IDENTITIES = (("customs", "node"), ("recognition", "node"), ("gateway", "main"))


@pytest.mark.parametrize("source", SOURCES)
def test_identities_from_elsewhere(source: str, records: Path, exporter: Subject) -> None:
    """What cert-manager writes into Secrets, or SPIRE's agent hands out on its socket, is what a node starts with."""
    # The path of a socket has at most 107 bytes.
    with TemporaryDirectory() as short, ExitStack() as stack:
        folder = Path(short)
        # All that these authorities make, made by ours.
        claim = folder / "claims" / "authority"
        nodes = [f"--node={agency}" for agency, _ in IDENTITIES]
        command = [*HUTONG, "provision", str(claim), "--zone=port.example", *nodes, f"--system={CALLER}"]
        subprocess.run(command, check=True, capture_output=True)
        cluster = stack.enter_context(
            Cluster(render(SMALL | {"certificates": {"source": source} | SOURCES[source]}), folder)
        )
        cluster.config_maps["revoked"] = {"revoked.crl": (claim / "trust" / "revoked.crl").read_text()}
        cluster.config_maps["published"] = {path.name: path.read_text() for path in (claim / "keys").iterdir()}
        found = [Layout(claim / "authority").svid(SpiffeId.of("port.example", *who)) for who in IDENTITIES]
        for (name, _), files in zip(IDENTITIES, found, strict=True):
            hand_in(cluster, name, claim / "nodes" / name, files)
        if source == "spire":
            cluster.sockets.mkdir()
            stack.enter_context(serving(cluster.sockets / "spire-agent.sock", handed(*found)))
        cluster.start()
        load(cluster, records)
        code, answer = ask(cluster, exporter, *DECLARATION)
        assert code == 0, answer
        assert answer["sections"][0]["records"]
        # The hook is a pod of its own: what the node beside it keeps is not there, and it asks for itself.
        hook = cluster.run_pod(f"{PREFIX}-test")
        assert hook.returncode == 0, hook.stderr
        assert all(pod.stop() == 0 for pod in cluster.pods.values())


def hand_in(cluster: Cluster, name: str, private: Path, identity: SvidFiles) -> None:
    """Make a node's Secrets: of what was provisioned outside, and of what cert-manager would write."""
    for folder, secret in ((private, "private"), (private / "signing", "private-signing")):
        if folder.exists():
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            cluster.secrets[f"{PREFIX}-{name}-{secret}"] = files
    svid = identity.load()
    cluster.secrets[f"{PREFIX}-{name}-identity"] = {"tls.crt": svid.chain, "tls.key": svid.key, "ca.crt": svid.bundle}
