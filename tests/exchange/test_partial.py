"""One dead, slow or refusing department costs its own section: never the answer, and never more than the deadline."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.errors import DeadlineExceeded, HutongError, Reason
from tests.exchange.mesh import QUERY, STREAM, Mesh, question, running
from tests.exchange.records import EXPORTER, RECORDS

SUBJECT = f"cn.uscc:{EXPORTER}"
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
BOTH = question(SUBJECT, "customs.Operator:uscc", "taxation.TaxpayerStatus:uscc", **PUBLIC)


@contextlib.asynccontextmanager
async def tar_pit() -> AsyncGenerator[str]:
    """A department that takes connections and never says a word."""
    held: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await asyncio.Event().wait()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in held:
            writer.transport.abort()


async def statuses(mesh: Mesh, seconds: float = 3.0) -> dict[str, tuple[int, str]]:
    answer = await mesh.client("quality/lab").unary(QUERY, BOTH, federation_pb2.QueryResponse, timeout=seconds)
    return {s.agency: (s.status, s.reason) for s in answer.sections}


GIVEN = (exchange_pb2.SECTION_STATUS_OK, "")


async def test_a_dead_department_costs_its_own_section(own: Mesh) -> None:
    assert (await statuses(own))["customs"] == GIVEN
    await own.departments.pop("customs").stop()
    found = await statuses(own)
    assert found["customs"] == (exchange_pb2.SECTION_STATUS_UNAVAILABLE, Reason.DEPARTMENT_UNREACHABLE)
    assert found["taxation"] == GIVEN


async def test_a_dead_department_still_tells_what_was_decided(own: Mesh) -> None:
    await own.departments.pop("customs").stop()
    answer = await own.client("quality/lab").unary(QUERY, BOTH, federation_pb2.QueryResponse, timeout=3)
    assert [d.verdict for d in answer.sections[0].decisions] == [exchange_pb2.VERDICT_CLEAR]
    assert not answer.sections[0].records


async def test_a_silent_department_never_delays_past_the_deadline(tmp_path: Path) -> None:
    async with tar_pit() as silent, running(tmp_path, "customs", "taxation") as mesh:
        for agency in mesh.departments:
            await mesh.load(agency, RECORDS[agency])
        await mesh.replace_gateway(customs=silent)
        started = time.monotonic()
        found = await statuses(mesh, 1.0)
        assert time.monotonic() - started < 1.0
        assert found["customs"] == (exchange_pb2.SECTION_STATUS_TIMEOUT, Reason.DEPARTMENT_TIMEOUT)
        assert found["taxation"] == GIVEN
        # A stream does not even wait: the good section is there while the silent one is still silent.
        request = federation_pb2.StreamQueryRequest(query=BOTH)
        stream = mesh.client("quality/lab").stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=2.0)
        first = await anext(stream)
        assert first.section.agency == "taxation"
        assert [m.section.agency async for m in stream] == ["customs"]


async def test_an_impostor_is_no_department(tmp_path: Path) -> None:
    """The gateway asks customs' address and finds taxation there: its certificate proves another name."""
    async with running(tmp_path, "customs", "taxation") as mesh:
        await mesh.load("taxation", RECORDS["taxation"])
        await mesh.replace_gateway(customs=mesh.departments["taxation"].host.address)
        found = await statuses(mesh)
        assert found["customs"][0] == exchange_pb2.SECTION_STATUS_UNAVAILABLE
        assert found["taxation"] == GIVEN


async def test_a_department_that_comes_back_answers_again(own: Mesh) -> None:
    address = own.departments["customs"].host.address
    await own.departments.pop("customs").stop()
    assert (await statuses(own))["customs"] != GIVEN
    await own.start("customs", listen=address)
    async with asyncio.timeout(10):
        while (await statuses(own))["customs"] != GIVEN:
            pass


async def test_too_little_time_is_said_at_once(own: Mesh) -> None:
    with pytest.raises(HutongError) as refused:
        await own.client("quality/lab").unary(QUERY, BOTH, federation_pb2.QueryResponse, timeout=0.01)
    assert isinstance(refused.value, DeadlineExceeded)


async def test_a_department_that_answers_nonsense_is_failed(own: Mesh) -> None:
    """It owns nothing of what it is asked for: it says so, and its section says that it failed."""
    assert own.gateway is not None
    await own.replace_gateway(quality=own.departments["customs"].host.address)
    request = question(SUBJECT, "quality.TraceEvent:expiry_date", "taxation.TaxpayerStatus:uscc", **PUBLIC)
    answer = await own.client("quality/lab").unary(QUERY, request, federation_pb2.QueryResponse, timeout=3)
    assert answer.sections[0].status == exchange_pb2.SECTION_STATUS_UNAVAILABLE
    assert answer.sections[1].status == exchange_pb2.SECTION_STATUS_OK
