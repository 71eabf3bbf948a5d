"""Whole nodes with a broker in their configs: from the recognition service to the inbox of a department."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hutong.api.exchange.v1 import event_pb2
from services.kit.config import NatsPublishSection, NatsSection
from services.kit.events.jetstream.publisher import PUBLISH
from tests.events.bed import SOURCE
from tests.events.natsd import Natsd
from tests.recognition.mesh import POLICE, Mesh, firm
from tests.recording.bed import everything

INBOX = "/hutong.api.exchange.v1.InboxService/ListInboxEvents"


def metrics(node: Any) -> dict[str, float]:
    found = (sample for metric in node.host.telemetry.registry.collect() for sample in metric.samples)
    return {sample.name: sample.value for sample in found if sample.name.startswith("hutong_events")}


async def test_a_department_is_told_over_the_broker(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    server = Natsd(mesh.zone, tmp_path / "nats", SOURCE, ["publicsecurity/node"])
    server.start()
    address = f"127.0.0.1:{server.port}"
    mesh.nats = NatsSection(servers=[address])
    mesh.changes = {"nats": NatsPublishSection(servers=[address], readers=["publicsecurity/node"])}
    try:
        recognition = await mesh.start()
        department = await mesh.start_department("publicsecurity")
        case_id = await mesh.accepted(firm())
        request = event_pb2.ListInboxEventsRequest(key=case_id)
        async with asyncio.timeout(30):
            while True:
                client = mesh.client(POLICE, "publicsecurity")
                answer = await client.unary(INBOX, request, event_pb2.ListInboxEventsResponse, timeout=10)
                if answer.events:
                    break
        assert {each.source for each in answer.events} == {SOURCE}
        entries = [entry for entry in await everything(recognition.host) if entry.rpc == PUBLISH]
        # Logged as what is sent over gRPC is: to whom, why, and whom it is about.
        assert {entry.caller for entry in entries} == {str(mesh.zone.identity("publicsecurity/node"))}
        assert {entry.purpose for entry in entries} == {"P-APPROVAL"}
        assert all(entry.subject_commitments for entry in entries)
        assert metrics(department)["hutong_events_over_broker"] == 1
        assert metrics(department)["hutong_events_carried_total"] >= len(answer.events)
        assert metrics(recognition)["hutong_events_published_total"] >= len(answer.events)
        assert metrics(recognition)["hutong_events_publishing"] == 1
    finally:
        await mesh.stop()
        server.stop()


@pytest.mark.parametrize(
    "wrong",
    [
        {"readers": []},
        {"readers": ["customs/node", "customs/other"]},
        {"readers": ["customs"]},
        {"readers": ["customs/*"]},
        {"servers": []},
        {"servers": ["nats"]},
        {"replicas": 0},
        {"stream_age": "0s"},
        {"subject": "x"},
    ],
    ids=lambda wrong: "-".join(f"{name}={value}" for name, value in wrong.items()),
)
def test_configs_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NatsPublishSection.model_validate({"servers": ["a:1"], "readers": ["customs/node"]} | wrong)
