"""A mesh of processes: started together, one by one killed and brought back, never left behind."""

import asyncio
import datetime as dt
import socket
import urllib.request
import uuid

import pytest

from certs.authority import Authority
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from hutong.api.recognition.v1 import case_service_pb2
from services.cli import question
from services.cli.fleet import Fleet, Node, renew
from services.cli.query import SERVICE
from services.cli.sample import Subject
from services.cli.zone import Zone
from services.kit.errors import FailedPrecondition, Reason
from tests.cli.processes import mentioning


async def statuses(fleet: Fleet, subject: str) -> list[str]:
    request = question.request(
        ["P-PUBLIC-REG"], "CN-PUBLIC-REGISTER", subject, ["commerce.Enterprise:name", "quality.FoodFiling:filing_no"]
    )
    client = fleet.client("taxation/refund")
    answer = await client.unary(f"{SERVICE}/Query", request, federation_pb2.QueryResponse, timeout=10)
    return [exchange_pb2.SectionStatus.Name(section.status) for section in answer.sections]


async def test_a_node_that_is_killed_comes_back(mesh: Fleet, exporter: Subject) -> None:
    process = mesh.nodes["quality"].process
    await mesh.kill("quality")
    assert mesh.nodes["quality"].running is False
    assert (await statuses(mesh, exporter.text))[1] == "SECTION_STATUS_UNAVAILABLE"
    await mesh.restart("quality")
    back = mesh.nodes["quality"]
    assert back.running
    assert back.process is not process


async def test_a_case_is_begun_and_found_through_the_gateway(mesh: Fleet, exporter: Subject) -> None:
    """The recognition service is a process like the others, and the gateway asks it like the others."""
    submit = case_service_pb2.SubmitCaseRequest(request_id=str(uuid.uuid4()), procedure_code="AEO-CERT")
    submit.subject.scheme, _, submit.subject.value = exporter.text.partition(":")
    method = "/hutong.api.recognition.v1.CaseService/SubmitCase"
    client = mesh.client("customs/release", "recognition")
    begun = await client.unary(method, submit, case_service_pb2.SubmitCaseResponse, timeout=10)
    asked = question.request(
        ["P-APPROVAL"], "CN-ADMIN-LICENSING", exporter.text, ["recognition.Case:case_id", "commerce.Enterprise:name"]
    )
    gateway = mesh.client("customs/release")
    answer = await gateway.unary(f"{SERVICE}/Query", asked, federation_pb2.QueryResponse, timeout=10)
    case, _ = answer.sections
    assert case.agency == "recognition"
    assert begun.view.case.case_id.encode() in case.records[0].value


async def test_every_node_can_be_scraped(mesh: Fleet, exporter: Subject) -> None:
    """What docs/operator.md names is there: calls by rpc and code, and time left, of every node."""
    await statuses(mesh, exporter.text)
    expected = {"gateway": "exchange.v1.FederationService/Query", "commerce": "exchange.v1.RecordSourceService/Fetch"}
    for name in mesh.nodes:
        address = mesh.zone.node(name).node.metrics
        text = await asyncio.to_thread(scraped, f"http://{address}/metrics")
        assert "hutong_certificate_seconds_left" in text
        assert 'hutong_call_seconds_count{code="OK",rpc="/grpc.health.v1.Health/Check"}' in text
        if name in expected:
            assert f'hutong_call_seconds_count{{code="OK",rpc="/hutong.api.{expected[name]}"}}' in text


def scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


async def test_a_mesh_that_ends_leaves_nothing(zone: Zone) -> None:
    async with Fleet(zone, nodes=["customs", "gateway"]) as fleet:
        assert len(mentioning(str(zone.folder))) == 2
        assert fleet.address("customs") == zone.node("customs").node.listen
    assert not mentioning(str(zone.folder))


async def test_a_node_that_cannot_start_ends_them_all(zone: Zone) -> None:
    host, _, port = zone.department("customs").node.listen.rpartition(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        with pytest.raises(FailedPrecondition) as caught:
            await Fleet(zone, nodes=["quality", "customs"]).start()
    assert caught.value.reason is Reason.NODE_FAILED
    assert caught.value.metadata == {"node": "customs"}
    # Its own words, so that nobody has to look for the log.
    assert "ADDRESS_IN_USE" in caught.value.message
    assert not mentioning(str(zone.folder))


async def test_one_zone_runs_once(mesh: Fleet) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await Fleet(mesh.zone).start()
    assert caught.value.reason is Reason.ZONE_IN_USE
    assert all(node.running for node in mesh.nodes.values())


async def test_a_death_that_nobody_asked_for_is_told(zone: Zone) -> None:
    died: list[Node] = []
    async with Fleet(zone, nodes=["quality"], on_death=died.append) as fleet:
        node = fleet.nodes["quality"]
        assert node.process is not None
        assert node.watcher is not None
        node.process.kill()
        await node.watcher
        assert died == [node]
        assert "Node serves" in node.last_lines()
    assert died == [node]


async def test_the_log_of_an_earlier_process_is_not_this_ones(zone: Zone) -> None:
    zone.logs.joinpath("quality.log").write_text("long ago\n")
    async with Fleet(zone, nodes=["quality"]) as fleet:
        assert "long ago" not in fleet.nodes["quality"].last_lines()


async def test_certificates_past_half_their_life_are_renewed_at_the_start(zone: Zone) -> None:
    authority = Authority.open(zone.certificates.folder)
    identity = zone.identity("customs/node")
    authority.renew(identity, dt.datetime.now(dt.UTC) - dt.timedelta(hours=13))
    old = zone.credentials("customs/node").load().leaf.serial_number
    async with Fleet(zone, nodes=["customs"]):
        assert zone.credentials("customs/node").load().leaf.serial_number != old
    assert renew(zone) == []
