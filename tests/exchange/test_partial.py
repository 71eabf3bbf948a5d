"""One dead, slow or refusing department costs its own section: never the answer, and never more than the deadline."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest

from certs.tls import channel_credentials, server_name
from hutong.api.commerce.v1 import branch_pb2
from hutong.api.customs.v1 import operator_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.config import LimitsSection
from services.kit.errors import DeadlineExceeded, HutongError, Reason, Unavailable
from services.kit.rpc import Call, bind
from tests.exchange.mesh import QUERY, STREAM, Mesh, question, running
from tests.exchange.records import EXPORTER, RECORDS
from tests.exchange.standin import ACCESS, SOURCE, Standin

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


class Hurried(Standin):
    """A department that notes how much time it is given, and has none."""

    def __init__(self) -> None:
        super().__init__(self._refuse)
        self.given: list[float] = []

    async def _refuse(self, _: record_source_pb2.FetchRequest, call: Call) -> record_source_pb2.FetchResponse:
        remaining = call.remaining()
        assert remaining is not None
        self.given.append(remaining)
        raise Unavailable(Reason.SHUTTING_DOWN, "not now")


async def test_departments_get_less_time_than_the_caller_has(tmp_path: Path) -> None:
    """So that the answer still gets home in it, whatever they do."""
    async with running(tmp_path, "taxation") as mesh:
        await mesh.load("taxation", RECORDS["taxation"])
        hurried = Hurried()
        async with mesh.zone.serving(bind(SOURCE, hurried), ACCESS, LimitsSection(drain=dt.timedelta())) as host:
            await mesh.replace_gateway(customs=host.address)
            # Once, so that the next call finds every connection open.
            await statuses(mesh, 30)
            found = await statuses(mesh, 4.0)
        assert found["customs"] == (exchange_pb2.SECTION_STATUS_UNAVAILABLE, Reason.SHUTTING_DOWN)
        assert found["taxation"] == GIVEN
        # The longest wait for any department, at first; then the caller's own. gRPC rounds up, by some milliseconds.
        assert 0 < hurried.given[0] <= mesh.limits.deadline.total_seconds() / 2 + 0.1
        assert 0 < hurried.given[1] <= 3.8 + 0.1


async def test_a_silent_department_never_delays_past_the_deadline(tmp_path: Path) -> None:
    async with tar_pit() as silent, running(tmp_path, "customs", "taxation") as mesh:
        for agency in mesh.departments:
            await mesh.load(agency, RECORDS[agency])
        # The gateway grants so much; its caller would wait longer, and a gateway that waited for ever would be found.
        mesh.limits = LimitsSection(deadline=dt.timedelta(seconds=3))
        await mesh.replace_gateway(customs=silent)
        found = await statuses(mesh, 60)
        assert found["customs"] == (exchange_pb2.SECTION_STATUS_TIMEOUT, Reason.DEPARTMENT_TIMEOUT)
        assert found["taxation"] == GIVEN
        # A stream does not even wait: the good section is there while the silent one is still silent.
        request = federation_pb2.StreamQueryRequest(query=BOTH)
        stream = mesh.client("quality/lab").stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=60)
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


def long_records(agency: str) -> list[Any]:
    """Records of about 14 MB in all, about the one exporter."""
    text = "长" * 32_000
    if agency == "commerce":
        return [
            branch_pb2.Branch(branch_uscc=f"B{n:03d}", uscc=EXPORTER, branch_address=f"{n}{text}") for n in range(150)
        ]
    return [
        operator_pb2.Operator(customs_code=f"99999{n:05d}", uscc=EXPORTER, mra_partners=[f"{n}{text}"])
        for n in range(150)
    ]


async def narrow_stream(
    mesh: Mesh, request: federation_pb2.StreamQueryRequest
) -> AsyncGenerator[federation_pb2.StreamQueryResponse]:
    """Ask over a connection whose window stays as small as it begins: gRPC would widen it on a quick machine."""
    assert mesh.gateway is not None
    options = [
        ("grpc.ssl_target_name_override", server_name(mesh.zone.identity("gateway/main"))),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ]
    credentials = channel_credentials(mesh.zone.files("quality/lab"))
    async with grpc.aio.secure_channel(mesh.gateway.host.address, credentials, options) as channel:
        stub = cast("Callable[..., AsyncIterator[bytes]]", channel.unary_stream(STREAM))
        async for raw in stub(request.SerializeToString(), timeout=60):
            yield federation_pb2.StreamQueryResponse.FromString(raw)


async def test_a_slow_reader_holds_a_streamed_answer_back(tmp_path: Path) -> None:
    """The gateway holds one answer a department and sends no section before the reader has taken the one before."""
    async with running(tmp_path, "commerce", "customs") as mesh:
        for agency in mesh.departments:
            await mesh.load(agency, long_records(agency))
        asked = question(SUBJECT, "commerce.Branch:branch_address", "customs.Operator:mra_partners", **PUBLIC)
        for selection in asked.selections:
            selection.page_size = 200
        request = federation_pb2.StreamQueryRequest(query=asked)
        client = mesh.client("quality/lab")
        stream = narrow_stream(mesh, request)
        first = await anext(stream)
        assert len(first.section.records) == 150
        mesh.zone.spans.clear()
        small = question(SUBJECT, "customs.Operator:uscc", **PUBLIC)
        small.selections[0].page_size = 1
        for _ in range(100):
            await client.unary(QUERY, small, federation_pb2.QueryResponse, timeout=5)
        # A hundred others were answered meanwhile; this one still waits for its reader.
        assert not [s for s in mesh.zone.finished() if s.name.endswith("FederationService/StreamQuery")]
        rest = [m.section async for m in stream]
        assert [len(s.records) for s in rest] == [150]
        assert {first.section.agency, rest[0].agency} == {"commerce", "customs"}
        async with asyncio.timeout(10):
            while not [s for s in mesh.zone.finished() if s.name.endswith("FederationService/StreamQuery")]:
                await client.unary(QUERY, small, federation_pb2.QueryResponse, timeout=5)
