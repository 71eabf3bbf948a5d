"""Questions over a session that breaks, ends, or has more to keep in mind than it can."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from certs.spiffe import SpiffeId
from hutong.api.exchange.v1 import federation_pb2
from services.kit.client import Client
from services.kit.config import LimitsSection
from services.kit.errors import DeadlineExceeded, HutongError, PermissionDenied, Reason, Unavailable
from services.kit.sessions.queries import QuerySession
from services.kit.transport.seam import Channel, Metadata
from tests.chaos.lines import Line
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER, OTHER
from tests.exchange.standin import stuck

SUBJECT = f"cn.uscc:{EXPORTER}"
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
STATUS = question(SUBJECT, "taxation.TaxpayerStatus:tax_status", **PUBLIC)
OPERATOR = question(SUBJECT, "customs.Operator:uscc", **PUBLIC)
WHO = "quality/lab"


@contextlib.asynccontextmanager
async def calling(mesh: Mesh, target: str, identity: SpiffeId) -> AsyncGenerator[QuerySession]:
    client = Client(target, identity, mesh.zone.files(WHO))
    session = QuerySession(client.channel())
    try:
        yield session
    finally:
        await session.close()
        await client.close()


async def test_answers_are_those_of_single_questions(mesh: Mesh) -> None:
    client = mesh.client(WHO)
    single = await client.unary(QUERY, STATUS, federation_pb2.QueryResponse, timeout=5)
    session = QuerySession(client.channel())
    answers = await asyncio.gather(*(session.query(STATUS, 5) for _ in range(50)))
    assert len({answer.query_id for answer in answers}) == len(answers)
    for answer in answers:
        assert answer.sections[0].records == single.sections[0].records
        assert answer.sections[0].decisions == single.sections[0].decisions
    past = federation_pb2.QueryRequest()
    past.CopyFrom(STATUS)
    past.as_of.FromSeconds(1_500_000_000)
    assert not (await session.query(past, 5)).sections[0].records
    await session.close()
    with pytest.raises(Unavailable):
        await session.query(STATUS, 5)


async def test_one_wrong_question_costs_no_other(mesh: Mesh) -> None:
    session = QuerySession(mesh.client(WHO).channel())
    wrong = question("cn.uscc:no code", "taxation.TaxpayerStatus:tax_status", **PUBLIC)
    right = question(f"cn.uscc:{OTHER}", "taxation.TaxpayerStatus:tax_status", **PUBLIC)
    error, answer = await asyncio.gather(session.query(wrong, 5), session.query(right, 5), return_exceptions=True)
    assert isinstance(error, HutongError)
    assert error.reason is Reason.SUBJECT_INVALID
    assert isinstance(answer, federation_pb2.QueryResponse)
    await session.close()


async def test_a_question_too_long_for_a_session_costs_no_other(mesh: Mesh) -> None:
    session = QuerySession(mesh.client(WHO).channel())
    long = federation_pb2.QueryRequest()
    long.CopyFrom(STATUS)
    long.context.on_behalf_of = "x" * 20_000
    error, answer = await asyncio.gather(session.query(long, 5), session.query(STATUS, 5), return_exceptions=True)
    assert isinstance(error, HutongError)
    assert error.reason is Reason.REQUEST_TOO_LARGE
    assert isinstance(answer, federation_pb2.QueryResponse)
    await session.close()


async def test_three_hundred_different_questions_in_turn(mesh: Mesh) -> None:
    """More than can be prepared at a time: those used least lately make room, and come back when they are asked."""
    session = QuerySession(mesh.client(WHO).channel())
    asked = [
        question(SUBJECT, "taxation.TaxpayerStatus:tax_status", on_behalf_of=f"desk-{n}", **PUBLIC) for n in range(300)
    ]
    for _ in range(2):
        answers = await asyncio.gather(*(session.query(each, 20) for each in asked))
        assert all(answer.sections[0].records for answer in answers)
    await session.close()


async def test_questions_of_a_broken_session_are_asked_again(own: Mesh) -> None:
    identity = own.host("gateway").identity
    async with (
        stuck(own, "customs") as reached,
        (wire := Line(own.host("gateway").address)).listening() as address,
        calling(own, address, identity) as session,
    ):
        assert (await session.query(STATUS, 10)).sections[0].records
        # Longer than the gateway waits for a department, so that its answer is what comes, however busy the machine.
        waiting = asyncio.gather(*(session.query(OPERATOR, 12) for _ in range(20)))
        await reached.wait()
        wire.cut()
        # Nobody is told of it: the second session is as good as the first, and waits as long.
        answers = await waiting
        assert {answer.sections[0].reason for answer in answers} == {Reason.DEPARTMENT_TIMEOUT}
        assert wire.opened == 2
        assert (await session.query(STATUS, 10)).sections[0].records


async def test_a_gateway_that_comes_back_answers_again(own: Mesh) -> None:
    own.limits = LimitsSection(drain=dt.timedelta(milliseconds=200))
    await own.replace_gateway()
    host = own.host("gateway")
    own.gateway_listen = host.address
    async with calling(own, host.address, host.identity) as session:
        assert (await session.query(STATUS, 10)).sections[0].records
        async with stuck(own, "customs") as reached:
            waiting = [asyncio.ensure_future(session.query(OPERATOR, 5)) for _ in range(20)]
            await reached.wait()
            assert own.gateway is not None
            await own.gateway.stop()
            own.gateway = None
            for each in waiting:
                with pytest.raises(Unavailable):
                    await each
            with pytest.raises(Unavailable):
                await session.query(STATUS, 1)
            await own.start_gateway()
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(Unavailable):
                        assert (await session.query(STATUS, 5)).sections[0].records
                        break


async def test_deadlines_are_kept_though_the_peer_never_says_a_word(mesh: Mesh) -> None:
    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = Client(address, mesh.host("gateway").identity, mesh.zone.files(WHO))
    session = QuerySession(client.channel())
    started = asyncio.get_running_loop().time()
    outcomes = await asyncio.gather(*(session.query(STATUS, 0.2) for _ in range(10)), return_exceptions=True)
    assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
    # Nor does closing wait for a peer that nobody waits for.
    await session.close()
    assert asyncio.get_running_loop().time() - started < 3
    await client.close()
    server.close()
    for writer in held:
        writer.transport.abort()


async def test_a_session_that_is_refused_tells_every_question_why(mesh: Mesh) -> None:
    session = QuerySession(mesh.client("operator/admin").channel())
    outcomes = await asyncio.gather(*(session.query(STATUS, 5) for _ in range(10)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, PermissionDenied)
        assert outcome.reason is Reason.CALLER_NOT_LISTED
    await session.close()


class Faulty:
    """A real channel, on which the first streams fail in a way that nobody expects."""

    def __init__(self, channel: Channel, faults: int) -> None:
        self._channel = channel
        self.faults = faults
        self.response_bytes = channel.response_bytes
        self.unary = channel.unary
        self.close = channel.close

    def stream(
        self, method: str, requests: Any, timeout: float | None, metadata: Metadata = ()
    ) -> AsyncIterator[bytes]:
        if self.faults:
            self.faults -= 1
            raise ValueError("a mistake of ours")
        return self._channel.stream(method, requests, timeout, metadata)


async def test_whatever_ends_a_session_somebody_is_told_and_the_next_one_works(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Faulty(mesh.client(WHO).channel(), 2)
    session = QuerySession(faulty)
    # It is tried once more, as after a session that broke; then whoever asked is told.
    with pytest.raises(Unavailable) as caught:
        await session.query(STATUS, 5)
    assert caught.value.reason is Reason.DEPARTMENT_FAILED
    assert [record.message for record in caplog.records] == ["Session failed"] * 2
    assert (await session.query(STATUS, 5)).sections[0].records
    faulty.faults = 1
    await session.close()
    session = QuerySession(faulty)
    assert (await session.query(STATUS, 5)).sections[0].records
    await session.close()
