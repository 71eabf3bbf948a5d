"""Sessions against a running mesh: many questions on one stream, each answered as if it had been asked by itself."""

import asyncio
from typing import Any

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import federation_pb2
from services.kit.errors import HutongError, Reason
from services.kit.sessions.asking import AskingSession
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER, OTHER

SESSION = "/hutong.api.exchange.v1.FederationService/Session"
SUBJECT = f"cn.uscc:{EXPORTER}"
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}


def about(value: str, scheme: str = "cn.uscc") -> bytes:
    subject = common_pb2.SubjectId(scheme=scheme, value=value)
    return federation_pb2.SessionRequest.Ask(subject=subject).SerializeToString()


def asked(session: AskingSession, asked: federation_pb2.QueryRequest, rest: bytes, wait: float = 5) -> Any:
    common = federation_pb2.QueryRequest()
    common.CopyFrom(asked)
    common.ClearField("subject")
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    session.ask(common.SerializeToString(), rest, wait, future.set_result)
    return future


async def test_answers_are_those_of_single_questions(mesh: Mesh) -> None:
    client = mesh.client("taxation/refund")
    request = question(SUBJECT, "customs.Declaration", **REBATE)
    single = await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=5)
    session = AskingSession(client.channel(), SESSION, federation_pb2.SessionResponse)
    answers = await asyncio.gather(*(asked(session, request, about(EXPORTER)) for _ in range(50)))
    assert len({answer.query_id for answer in answers}) == len(answers)
    assert len({answer.receipt.index for answer in answers}) == len(answers)
    for answer in answers:
        assert [s.status for s in answer.sections] == [s.status for s in single.sections]
        assert answer.sections[0].records == single.sections[0].records
        assert answer.sections[0].decisions == single.sections[0].decisions
    await session.close()


async def test_one_wrong_question_costs_no_other(mesh: Mesh) -> None:
    client = mesh.client("taxation/refund")
    request = question(SUBJECT, "customs.Declaration", **REBATE)
    session = AskingSession(client.channel(), SESSION, federation_pb2.SessionResponse)
    wrong = asked(session, request, about("no code", "cn.uscc"))
    right = asked(session, request, about(OTHER))
    error, answer = await wrong, await right
    assert isinstance(error, HutongError)
    assert error.reason == Reason.SUBJECT_INVALID
    assert answer.sections
    await session.close()
