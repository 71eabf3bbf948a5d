"""The gateway's sessions to departments: what goes wrong there costs the questions concerned, and those only."""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from gateway.asked import Asked
from gateway.departments import Department, Outcome
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.client import Client
from services.kit.config import LimitsSection
from services.kit.errors import HutongError, Reason, Unavailable
from services.kit.rpc import Call, Reply, bind
from tests.exchange.mesh import QUERY, STREAM, Mesh, question
from tests.exchange.records import EXPORTER, OTHER
from tests.exchange.standin import SOURCE, Standin, answered, bare, stuck
from tests.zone import now

SUBJECT = f"cn.uscc:{EXPORTER}"
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
BOTH = question(SUBJECT, "customs.Operator:uscc", "taxation.TaxpayerStatus:uscc", **PUBLIC)
OK, UNAVAILABLE = exchange_pb2.SECTION_STATUS_OK, exchange_pb2.SECTION_STATUS_UNAVAILABLE
WHO = "quality/lab"


async def sections(mesh: Mesh, asked: federation_pb2.QueryRequest = BOTH) -> list[exchange_pb2.Section]:
    answer = await mesh.client(WHO).unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5)
    return list(answer.sections)


async def test_a_department_that_refuses_the_session_has_failed(own: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    async def never(_: record_source_pb2.FetchRequest, __: Call) -> record_source_pb2.FetchResponse:
        raise AssertionError("it was asked")

    access = f"{SOURCE.full_name}: {{Fetch: ['gateway/*']}}"
    async with own.zone.serving(bind(SOURCE, Standin(never)), access, LimitsSection(drain=dt.timedelta())) as host:
        await own.replace_gateway(customs=host.address)
        customs, taxation = await sections(own)
    assert (customs.status, customs.reason) == (UNAVAILABLE, Reason.DEPARTMENT_FAILED)
    assert taxation.status == OK
    assert Reason.CALLER_NOT_LISTED in [getattr(record, "fields", {}).get("reason") for record in caplog.records]


@pytest.mark.parametrize("how", ["break", "end", "nonsense", "strangers"])
async def test_a_session_that_breaks_is_opened_again_for_the_next_question(own: Mesh, how: str) -> None:
    """Once, for what was asked on it; whoever breaks every session is no department."""
    opened = 0
    good = record_source_pb2.FetchResponse(sections=[exchange_pb2.Section(status=OK)]).SerializeToString()

    async def session(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        nonlocal opened
        opened += 1
        first = opened == 1
        async for request in requests:
            if not first:
                yield answered(request, good)
            elif how == "break":
                await context.abort(14, "gone")
            elif how == "nonsense":
                yield b"\xff\xff"
            elif how == "strangers":
                yield answered(request, good).replace(b"\x08\x01", b"\x08\x7f")
                yield answered(request, good)
            else:
                return

    async with bare(own, "customs", session):
        customs, taxation = await sections(own)
        # What it says rests on no policy version, so that it comes to nothing; but it is an answer.
        assert (customs.status, customs.reason) != (UNAVAILABLE, Reason.DEPARTMENT_FAILED)
        assert taxation.status == OK
        assert opened == (1 if how == "strangers" else 2)


async def test_a_department_that_breaks_every_session_fails_every_question(own: Mesh) -> None:
    opened = 0

    async def session(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        nonlocal opened
        async for _request in requests:
            opened += 1
            yield b"\xff\xff"

    async with bare(own, "customs", session):
        for times in (1, 2):
            customs, taxation = await sections(own)
            assert (customs.status, customs.reason) == (UNAVAILABLE, Reason.DEPARTMENT_FAILED)
            assert taxation.status == OK
            assert opened == 2 * times


async def test_a_department_is_stopped_and_started_under_load(own: Mesh) -> None:
    """Its sections fail meanwhile, nobody else's do, and every question is answered."""
    statuses: list[int] = []
    stop = asyncio.Event()

    async def keep_asking() -> None:
        while not stop.is_set():
            customs, taxation = await sections(own)
            assert taxation.status == OK
            statuses.append(customs.status)

    async def until(status: int) -> None:
        seen = len(statuses)
        while status not in statuses[seen:]:
            await sections(own)

    async with asyncio.timeout(30):
        asking = [asyncio.ensure_future(keep_asking()) for _ in range(4)]
        await until(OK)
        address = own.departments["customs"].host.address
        await own.departments.pop("customs").stop()
        await until(UNAVAILABLE)
        await own.start("customs", listen=address)
        await until(OK)
        stop.set()
        await asyncio.gather(*asking)
    assert set(statuses) <= {OK, UNAVAILABLE}


async def test_a_long_question_is_asked_by_itself(own: Mesh) -> None:
    """Whatever limits it meets at the department are its own, and not those of everybody's session."""
    long = federation_pb2.QueryRequest()
    long.CopyFrom(BOTH)
    long.selections[0].page_token = "A" * 20_000
    with pytest.raises(HutongError) as refused:
        await sections(own, long)
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID
    assert [section.status for section in await sections(own)] == [OK, OK]
    methods = [span.name.rpartition("/")[2] for span in own.zone.finished()]
    # Both departments' calls of the short question, and the other department's of the long one, were in sessions.
    assert methods.count("Fetch") == 4
    long.selections[0].page_token = ""
    long.context.on_behalf_of = "x"
    long.as_of.GetCurrentTime()
    assert [section.status for section in await sections(own, long)] == [OK, OK]


async def test_a_question_that_is_given_up_is_forgotten(own: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    client = own.client(WHO)
    free = asyncio.Event()

    async def session(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            reached.set()
            await free.wait()
            yield answered(request, b"")

    reached = asyncio.Event()
    async with bare(own, "customs", session):
        client = own.client(WHO)
        given_up = asyncio.ensure_future(client.unary(QUERY, BOTH, federation_pb2.QueryResponse, timeout=5))
        await reached.wait()
        given_up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await given_up
        stream = client.stream(
            STREAM, federation_pb2.StreamQueryRequest(query=BOTH), federation_pb2.StreamQueryResponse, timeout=5
        )
        assert (await anext(stream)).section.agency == "taxation"
        await stream.aclose()  # type: ignore[attr-defined]  # pyright: ignore
        free.set()
        customs, taxation = await sections(own)
        assert customs.status == UNAVAILABLE
        assert taxation.status == OK
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("how", ["query", "stream"])
async def test_departments_hear_that_nobody_waits_any_more(own: Mesh, how: str) -> None:
    reached, ended = asyncio.Event(), asyncio.Event()

    async def wait(_: record_source_pb2.FetchRequest, __: Call) -> record_source_pb2.FetchResponse:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("unreachable")

    access = f"{SOURCE.full_name}: {{FetchSession: ['gateway/*'], Fetch: ['gateway/*']}}"
    async with own.zone.serving(bind(SOURCE, Standin(wait)), access, LimitsSection(drain=dt.timedelta())) as host:
        await own.replace_gateway(customs=host.address)
        client = own.client(WHO)
        if how == "query":
            asking = asyncio.ensure_future(client.unary(QUERY, BOTH, federation_pb2.QueryResponse, timeout=60))
            await reached.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            asked = federation_pb2.StreamQueryRequest(query=BOTH)
            stream: Any = client.stream(STREAM, asked, federation_pb2.StreamQueryResponse, timeout=60)
            assert (await anext(stream)).section.agency == "taxation"
            await reached.wait()
            await stream.aclose()
        # Long before its deadline, which is the session's ten seconds.
        async with asyncio.timeout(5):
            await ended.wait()


async def test_an_answer_the_gateway_could_not_take_costs_its_own_section(own: Mesh) -> None:
    """And no session: whatever else is asked at that moment is answered on the same one."""
    own.limits = LimitsSection(response_bytes=200_000)
    opened, begun, free = 0, asyncio.Event(), asyncio.Event()

    async def fetch(request: record_source_pb2.FetchRequest, _: Call) -> record_source_pb2.FetchResponse:
        large = request.subject.value == EXPORTER
        if not large:
            begun.set()
            await free.wait()
        reason = "x" * 300_000 if large else ""
        return record_source_pb2.FetchResponse(sections=[exchange_pb2.Section(status=OK, reason=reason)])

    class Counted(Standin):
        def fetch_session(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Reply]:
            nonlocal opened
            opened += 1
            return super().fetch_session(requests, call)

    access = f"{SOURCE.full_name}: {{FetchSession: ['gateway/*'], Fetch: ['gateway/*']}}"
    async with own.zone.serving(bind(SOURCE, Counted(fetch)), access, LimitsSection(drain=dt.timedelta())) as host:
        await own.replace_gateway(customs=host.address)
        other = question(f"cn.uscc:{OTHER}", "customs.Operator:uscc", **PUBLIC)
        waiting = asyncio.ensure_future(sections(own, other))
        await begun.wait()
        customs, taxation = await sections(own)
        assert (customs.status, customs.reason) == (UNAVAILABLE, Reason.ANSWER_TOO_LARGE)
        assert taxation.status == OK
        free.set()
        assert (await waiting)[0].status != UNAVAILABLE
        assert opened == 1


async def test_who_was_renewed_asks_over_another_session(own: Mesh) -> None:
    """What was asked on the former one is still answered there."""
    gateway, opened = own.zone.identity("gateway/main"), 0
    free, reached = asyncio.Event(), asyncio.Event()
    good = record_source_pb2.FetchResponse(sections=[exchange_pb2.Section(status=OK)]).SerializeToString()
    ended: list[int] = []

    async def session(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        nonlocal opened
        opened += 1
        number = opened
        async for request in requests:
            reached.set()
            if number == 1:
                await free.wait()
            yield answered(request, good)
        ended.append(number)

    async with bare(own, "customs", session):
        waiting = asyncio.ensure_future(sections(own))
        await reached.wait()
        own.zone.authority.renew(gateway, now())
        async with asyncio.timeout(10):
            while opened < 2:
                asked = question(SUBJECT, "taxation.TaxpayerStatus:uscc", "customs.Operator:uscc", **PUBLIC)
                asking = asyncio.ensure_future(sections(own, asked))
                done, _ = await asyncio.wait({asking}, timeout=0.3)
                if not done:
                    asking.cancel()
        assert not waiting.done()
        free.set()
        assert (await waiting)[1].status == OK
        async with asyncio.timeout(10):
            while 1 not in ended:
                await sections(own)
        assert ended == [1]
        assert opened == 2


async def test_a_gateway_stops_though_a_department_owes_an_answer(own: Mesh) -> None:
    own.limits = LimitsSection(deadline=dt.timedelta(seconds=2))
    async with stuck(own, "customs") as reached:
        waiting = asyncio.ensure_future(sections(own))
        await reached.wait()
        assert own.gateway is not None
        stopping = asyncio.ensure_future(own.gateway.stop())
        # It drains: the department has half as long as a call to answer in.
        customs, taxation = await waiting
        assert customs.status == exchange_pb2.SECTION_STATUS_TIMEOUT
        assert taxation.status == OK
        async with asyncio.timeout(10):
            await stopping
        own.gateway = None


async def test_who_asks_a_long_question_is_told_once_whatever_comes_of_it(mesh: Mesh) -> None:
    """A question too long for a session goes by itself: it is given up, or the gateway stops meanwhile."""
    files, identity = mesh.zone.files("gateway/main"), mesh.zone.identity("customs/node")
    question = record_source_pb2.FetchRequest(known_policy_version="x" * 20_000).SerializeToString()
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    client = Client(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", identity, files)
    department, svid, told = Department("customs", client, 30), files.load(), list[Outcome]()
    try:
        given_up = department.ask(svid, question, b"", 30, told.append)
        department.ask(svid, question, b"", 30, told.append)
        given_up()
        assert department.waiting == 1
        await department.close()
        assert department.waiting == 0
        assert [getattr(outcome, "reason", None) for outcome in told] == [Reason.SHUTTING_DOWN]
    finally:
        await client.close()
        server.close()
        for writer in writers:
            writer.transport.abort()


async def test_what_nobody_expected_is_told_as_well(caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked[str]("customs", Unavailable(Reason.DEPARTMENT_FAILED, "it cannot be asked"))
    told: asyncio.Queue[str | HutongError] = asyncio.Queue()

    async def answer(text: str) -> str:
        if not text:
            raise ValueError("a mistake of ours")
        return text

    asked.ask(partial(answer, ""), told.put_nowait)
    asked.ask(partial(answer, "well"), told.put_nowait)
    async with asyncio.timeout(10):
        found = [await told.get(), await told.get()]
    assert [str(getattr(outcome, "reason", outcome)) for outcome in found] == [Reason.DEPARTMENT_FAILED, "well"]
    assert len(asked) == 0
    assert [record.message for record in caplog.records] == ["Question cannot be asked"]
