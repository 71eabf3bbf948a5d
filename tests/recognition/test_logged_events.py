"""An event is about somebody: the log of the node that sends it knows whom, and tells them, and nobody else."""

from contextlib import aclosing
from typing import Any

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import event_pb2, reads_pb2
from hutong.api.recognition.v1 import case_service_pb2
from services.kit.events.service import EVENT
from tests.recognition.mesh import CASES, POLICE, REGISTRY, SELF, Mesh, enterprise, firm, fresh
from tests.recording.bed import everything

FOLLOW = "/hutong.api.exchange.v1.EventService/Follow"
READS = "/hutong.api.exchange.v1.ReadsService/FetchReads"


async def first(mesh: Mesh, who: str) -> event_pb2.FollowResponse:
    """Give what waits for an agency."""
    stream: Any = mesh.client(who).stream(FOLLOW, event_pb2.FollowRequest(), event_pb2.FollowResponse, timeout=10)
    async with aclosing(stream):
        sent: event_pb2.FollowResponse = await anext(stream)
    return sent


async def told(mesh: Mesh, code: str) -> list[reads_pb2.Read]:
    """List what an enterprise is told of events about it."""
    request = reads_pb2.FetchReadsRequest(context=SELF)
    request.subject.CopyFrom(common_pb2.SubjectId(scheme="cn.uscc", value=code))
    answer = await mesh.client(enterprise(code)).unary(READS, request, reads_pb2.FetchReadsResponse, timeout=10)
    return [read for read in answer.reads if any(field.record_type == EVENT for field in read.fields)]


async def outside_any_case(mesh: Mesh, subject: str) -> str:
    await mesh.register(POLICE, "person_verified", subject=subject)
    return "customs/node"


async def in_a_case(mesh: Mesh, subject: str) -> str:
    case_id = await mesh.accepted(subject)
    request = case_service_pb2.RemindStageRequest(request_id=fresh(), case_id=case_id, stage_code="E2")
    method = f"{CASES}RemindStage"
    await mesh.client(REGISTRY).unary(method, request, case_service_pb2.RemindStageResponse, timeout=10)
    return "publicsecurity/node"


@pytest.mark.parametrize("happens", [outside_any_case, in_a_case])
async def test_who_was_sent_an_event_is_told_to_the_one_it_is_about(own: Mesh, happens: Any) -> None:
    subject = firm()
    receiver = await happens(own, subject)
    assert not await told(own, subject)
    sent = await first(own, receiver)
    assert sent.events
    assert sent.HasField("receipt")
    # The event itself still says of nobody.
    assert subject not in str(sent)
    (read,) = await told(own, subject)
    assert (read.caller, read.owner) == (receiver, "recognition")
    assert (read.purpose, read.legal_basis) == ("P-APPROVAL", "CN-ADMIN-LICENSING")
    assert [(field.record_type, list(field.paths)) for field in read.fields] == [(EVENT, [])]
    assert read.fields[0].rows == len(sent.events)
    assert not await told(own, firm())
    # As everywhere, the entry itself names nobody.
    assert own.node is not None
    (entry,) = [entry for entry in await everything(own.node.host) if entry.rpc == FOLLOW]
    assert (len(entry.subject_commitments), entry.disclosures[0].mask_digest) == (1, b"")
    assert subject.encode() not in entry.SerializeToString()
