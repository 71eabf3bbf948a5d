"""The contract with clients that are none of ours: grpcio and grpc-js against servers of either transport.

Every case is one text run four times. What such a client relies on is that a call's messages, status, reason and
metadata arrive, that deadlines and cancellations reach the handler, and that a node may come and go.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.node import GatewayNode
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from hutong.api.exchange.v1.exchange_pb2 import SignedContext
from services.kit.config import LimitsSection, Transport
from services.kit.errors import HutongError, Reason
from services.kit.host import Host
from services.kit.wire import NUMBERS
from tests import transports
from tests.exchange.mesh import Mesh, question, records, running
from tests.exchange.records import CLEARED, EXPORTER, OTHER, RECORDS
from tests.transport import echo
from tests.transport.echo import BIDI, ERRORS, STREAM, UNARY, WHO, Echo
from tests.transport.stock.client import MODULES, Connect, Metadata, Node, PythonStock, Stock, rest
from tests.zone import Zone

FEDERATION = "/hutong.api.exchange.v1.FederationService"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CANCELLED, DEADLINE_EXCEEDED, UNIMPLEMENTED, UNAVAILABLE = 1, 4, 12, 14
NO_NODE = "no node here, or no grpc-js (`make dev` installs it): that half of the contract is not tested"
ROOMY = LimitsSection(request_bytes=1 << 20, response_bytes=64 << 20)


@pytest.fixture(scope="module", params=transports.NAMES)
def transport(request: pytest.FixtureRequest) -> Transport:
    """What the servers speak."""
    name: Transport = request.param
    return name


@pytest.fixture(scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Node | None]:
    """The process with grpc-js in it; None where there is no node, or nobody installed what it needs."""
    if not shutil.which("node") or not MODULES.is_dir():
        assert not os.environ.get("CI"), "the gate has node, and `make dev` installs grpc-js: something is amiss"
        yield None
        return
    async with Node.running(tmp_path_factory.mktemp("contracts")) as made:
        yield made


@pytest.fixture(params=["grpcio", "grpc-js"])
def connect(request: pytest.FixtureRequest, node: Node | None) -> Connect:
    """Connects a client of each make."""
    if request.param == "grpcio":
        return PythonStock
    if node is None:
        pytest.skip(NO_NODE)
    return node.connect


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(tmp_path)


@pytest.fixture
def heard() -> Echo:
    return Echo()


@pytest.fixture
async def host(zone: Zone, transport: Transport, heard: Echo) -> AsyncGenerator[Host]:
    async with echo.serving(zone, transport, heard, ROOMY) as host:
        yield host


@pytest.fixture
async def client(zone: Zone, host: Host, connect: Connect) -> AsyncGenerator[Stock]:
    async with connected(connect, host, zone) as client:
        yield client


@contextlib.asynccontextmanager
async def connected(connect: Connect, host: Host, zone: Zone, who: str = WHO) -> AsyncGenerator[Stock]:
    client = connect(host.address, host.identity, zone.files(who))
    try:
        yield client
    finally:
        await client.close()


def said(text: bytes, more: bytes = b"") -> SignedContext:
    return SignedContext(payload=text, signature=more)


# The echo: what a transport owes to any call.


async def test_a_unary_call_is_answered(client: Stock) -> None:
    call = client.call(UNARY, said(b"hello"))
    assert await call.next() == said(b"hello")
    status = await call.status()
    assert (status.code, status.message) == (0, "")
    assert await call.next() is None


async def test_a_stream_comes_in_its_order(client: Stock) -> None:
    call = client.call(STREAM, said(b"hello", b"12345"))
    assert [m.signature for m in await rest(call)] == [bytes((n,)) for n in range(5)]
    assert (await call.status()).code == 0


async def test_an_empty_stream_and_an_empty_message_are_something(client: Stock) -> None:
    call = client.call(STREAM, said(b"hello"))
    assert not await rest(call)
    assert (await call.status()).code == 0
    call = client.call(UNARY, said(b""))
    assert await call.next() == said(b"")


async def test_both_sides_talk_by_turns(client: Stock) -> None:
    call = client.call(BIDI)
    for number in range(20):
        await call.send(said(b"%d" % number))
        assert await call.next() == said(b"%d" % number)
    await call.done()
    assert [m.signature for m in await rest(call)] == [b"done"]
    assert (await call.status()).code == 0


@pytest.mark.parametrize("name", sorted(ERRORS), ids=lambda name: name.decode())
async def test_an_error_has_its_code_message_reason_and_metadata(client: Stock, name: bytes) -> None:
    text = "50 % 中文\ttab"
    kind: type[HutongError] = ERRORS[name]
    for call in (
        client.call(UNARY, said(name + b" " + text.encode())),
        client.call(STREAM, said(name + b" " + text.encode(), b"12")),
    ):
        await rest(call)
        status = await call.status()
        assert status.code == NUMBERS[kind.code]
        assert status.message == f"hutong: {text}"
        assert (status.reason, status.said) == (Reason.RECORD_INVALID, {"said": text.encode().hex()})


async def test_an_error_in_a_dialogue_ends_it(client: Stock) -> None:
    call = client.call(BIDI)
    await call.send(said(b"one"))
    assert await call.next() == said(b"one")
    await call.send(said(b"NotFound two"))
    assert not await rest(call)
    status = await call.status()
    assert (status.code, status.reason) == (5, Reason.RECORD_INVALID)


async def test_what_comes_before_an_error_is_not_lost(client: Stock) -> None:
    call = client.call(STREAM, said(b"NotFound", b"123"))
    assert len(await rest(call)) == 3
    assert (await call.status()).code == 5


async def test_an_rpc_that_is_not_there_is_unimplemented(client: Stock) -> None:
    for method in (f"{FEDERATION}/Query", f"{FEDERATION}/Explain"):
        call = client.call(method, _empty(method))
        assert (await call.status()).code == UNIMPLEMENTED
    call = client.call(f"{FEDERATION}/Session")
    assert (await call.status()).code == UNIMPLEMENTED


def _empty(method: str) -> Any:
    return federation_pb2.QueryRequest() if method.endswith("Query") else federation_pb2.ExplainRequest()


@pytest.mark.parametrize("method", [UNARY, STREAM, BIDI])
async def test_a_stranger_is_told_that_it_is_one(host: Host, zone: Zone, connect: Connect, method: str) -> None:
    async with connected(connect, host, zone, "quality/lab") as client:
        for _ in range(5):
            call = client.call(method, None if method == BIDI else said(b"hello"))
            if method == BIDI:
                with contextlib.suppress(Exception):  # it may have been refused before it said anything
                    await call.send(said(b"hello"))
            assert not await rest(call)
            status = await call.status()
            assert (status.code, status.reason) == (7, Reason.CALLER_NOT_LISTED)


@pytest.mark.parametrize("method", [UNARY, STREAM, BIDI])
async def test_a_deadline_ends_the_call_on_both_sides(client: Stock, heard: Echo, method: str) -> None:
    await client.call(UNARY, said(b"connected")).status()
    call = client.call(method, None if method == BIDI else said(b"wait"), timeout=0.2)
    if method == BIDI:
        await call.send(said(b"wait"))
    assert not await rest(call)
    assert (await call.status()).code == DEADLINE_EXCEEDED
    await heard.until_running(0)
    remaining = heard.calls[-1].deadline
    assert remaining is not None


@pytest.mark.parametrize("method", [UNARY, STREAM, BIDI])
async def test_a_cancelled_call_ends_on_both_sides(client: Stock, heard: Echo, method: str) -> None:
    call = client.call(method, None if method == BIDI else said(b"wait"))
    if method == BIDI:
        await call.send(said(b"wait"))
    await heard.until_running(1)
    call.cancel()
    assert (await call.status()).code == CANCELLED
    await heard.until_running(0)
    assert (await client.call(UNARY, said(b"hello")).status()).code == 0


async def test_metadata_arrives_as_text(client: Stock, heard: Echo) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata: Metadata = [("traceparent", parent), ("x-plain", "a b, c"), ("x-raw-bin", b"\x00\xff")]
    call = client.call(UNARY, said(b"hello"), metadata=metadata)
    assert (await call.status()).code == 0
    told = heard.calls[0].metadata
    assert (told["traceparent"], told["x-plain"]) == (parent, "a b, c")
    assert not {"te", "content-type", "grpc-timeout", "x-raw-bin", ":path"} & told.keys()
    headers = await call.headers()
    assert not [name for name in headers if "server" in name or "hutong" in name]


async def test_big_messages_pass_both_ways(client: Stock) -> None:
    big = bytes(range(256)) * 3500
    call = client.call(UNARY, said(big))
    assert (await call.next()).payload == big
    call = client.call(STREAM, said(big, b"1234567890123456"))
    assert [len(m.payload) for m in await rest(call)] == [len(big)] * 16
    call = client.call(BIDI)
    # Who only sends, and reads nothing, is not read for ever.
    sending = asyncio.ensure_future(_pour(call, said(big), 8))
    assert [len(m.payload) for m in await rest(call)] == [len(big)] * 8 + [0]
    await sending


async def test_a_message_that_is_too_big_is_refused_and_costs_no_other_call(client: Stock, heard: Echo) -> None:
    waiting = client.call(UNARY, said(b"wait"))
    await heard.until_running(1)
    for size in (ROOMY.request_bytes + 1, ROOMY.request_bytes * 3):
        call = client.call(UNARY, said(b"x" * size))
        assert (await call.status()).code == 8
        call = client.call(STREAM, said(b"x" * size, b"1"))
        assert (await call.status()).code == 8
    assert (await client.call(UNARY, said(b"hello")).status()).code == 0
    assert heard.running == 1
    waiting.cancel()
    assert (await waiting.status()).code == CANCELLED


async def test_many_calls_at_a_time_get_each_its_own(client: Stock) -> None:
    async def one(number: int) -> None:
        text = b"%d" % number
        if number % 3 == 0:
            call = client.call(STREAM, said(text, text))
            assert {m.payload for m in await rest(call)} == {text}
        elif number % 3 == 1:
            call = client.call(UNARY, said(b"NotFound " + text))
            assert (await call.status()).said == {"said": text.hex()}
        else:
            call = client.call(UNARY, said(text))
            assert (await call.next()).payload == text

    await asyncio.gather(*(one(number) for number in range(300)))


async def test_a_slow_reader_holds_the_sender_back(client: Stock) -> None:
    """And both go on where they were: nothing waits for ever for a window that nobody opens."""
    slow = client.call(BIDI)
    sending = asyncio.ensure_future(_pour(slow, said(bytes(200_000)), 40))
    for number in range(20):
        assert (await client.call(UNARY, said(b"%d" % number)).next()).payload == b"%d" % number
    answers = await rest(slow)
    await sending
    assert sum(len(m.payload) for m in answers) == 40 * 200_000


async def _pour(call: Any, message: SignedContext, times: int) -> None:
    for _ in range(times):
        await call.send(message)
    await call.done()


# A node that comes and goes.


async def test_a_node_that_comes_back_is_found(zone: Zone, transport: Transport, heard: Echo, connect: Connect) -> None:
    async with echo.serving(zone, transport, heard) as first:
        client = connect(first.address, first.identity, zone.files(WHO))
        assert (await client.call(UNARY, said(b"hello")).status()).code == 0
    for _ in range(2):
        async with echo.serving(zone, transport, heard, listen=first.address):
            assert (await client.call(UNARY, said(b"hello"), waits=True).status()).code == 0
    await client.close()


async def test_a_node_that_stops_lets_calls_end(
    zone: Zone, transport: Transport, heard: Echo, connect: Connect
) -> None:
    async with echo.serving(zone, transport, heard) as host, connected(connect, host, zone) as client:
        talk = client.call(BIDI)
        await talk.send(said(b"one"))
        assert await talk.next() == said(b"one")
        watch = client.call(WATCH, health_pb2.HealthCheckRequest())
        assert (await watch.next()).status == SERVING
        stopping = asyncio.ensure_future(host.stop())
        assert (await watch.next()).status == NOT_SERVING
        watch.cancel()
        await talk.send(said(b"two"))
        assert await talk.next() == said(b"two")
        assert not stopping.done()
        await talk.done()
        assert len(await rest(talk)) == 1
        assert (await talk.status()).code == 0
        await stopping
        assert (await client.call(UNARY, said(b"hello"), timeout=5).status()).code in (UNAVAILABLE, DEADLINE_EXCEEDED)


async def test_a_node_that_stops_cuts_what_does_not_end(
    zone: Zone, transport: Transport, heard: Echo, connect: Connect
) -> None:
    limits = LimitsSection(drain="200ms")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with echo.serving(zone, transport, heard, limits) as host, connected(connect, host, zone) as client:
        talk = client.call(BIDI)
        await talk.send(said(b"wait"))
        await heard.until_running(1)
        await host.stop()
        assert not await rest(talk)
        assert (await talk.status()).code in (UNAVAILABLE, CANCELLED)
        assert not heard.running


async def test_a_call_survives_its_clients_keepalive(zone: Zone, host: Host, node: Node | None) -> None:
    """Pings of a client that waits long are answered, and not counted against it.

    grpc-js alone: grpcio pings every ten seconds at most, which is longer than a test should take.
    """
    if node is None:
        pytest.skip(NO_NODE)
    options = {"grpc.keepalive_time_ms": 150, "grpc.keepalive_timeout_ms": 5000}
    client = node.connect(host.address, host.identity, zone.files(WHO), options)
    # Two pings: the reference implementation takes no more of a client that says nothing else.
    call = client.call(UNARY, said(b"wait"), timeout=0.4)
    assert (await call.status()).code == DEADLINE_EXCEEDED
    assert (await client.call(UNARY, said(b"hello")).status()).code == 0
    await client.close()


# The gateway: the contract itself.


@pytest.fixture(scope="module")
async def mesh(transport: Transport, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    with transports.using(transport):
        async with running(tmp_path_factory.mktemp("mesh"), "customs", "taxation") as mesh:
            for agency in mesh.departments:
                await mesh.load(agency, RECORDS[agency])
            yield mesh


@pytest.fixture
async def asking(mesh: Mesh, connect: Connect) -> AsyncGenerator[Stock]:
    async with connected(connect, gateway(mesh).host, mesh.zone) as client:
        yield client


def gateway(mesh: Mesh) -> GatewayNode:
    assert mesh.gateway is not None
    return mesh.gateway


def asked(subject: str = EXPORTER) -> federation_pb2.QueryRequest:
    return question(f"cn.uscc:{subject}", "customs.Declaration:declaration_no", "taxation.TaxpayerStatus", **REBATE)


def numbers(sections: Any) -> list[str]:
    return [r.declaration_no for s in sections for r in records(s) if s.record_type == "customs.Declaration"]


async def test_a_question_is_answered(asking: Stock) -> None:
    call = asking.call(f"{FEDERATION}/Query", asked())
    answer = await call.next()
    assert CLEARED in numbers(answer.sections)
    assert answer.receipt.ByteSize()
    assert (await call.status()).code == 0


async def test_a_wrong_question_has_a_reason(asking: Stock) -> None:
    wrong = asked()
    wrong.context.purpose = "P-NONE"
    status = await asking.call(f"{FEDERATION}/Query", wrong).status()
    assert (status.code, status.reason) == (3, Reason.PURPOSE_UNKNOWN)


async def test_a_question_about_several_is_answered_section_by_section(asking: Stock) -> None:
    subjects = [common_pb2.SubjectId(scheme="cn.uscc", value=value) for value in (EXPORTER, OTHER)]
    request = federation_pb2.StreamQueryRequest(query=asked(), subjects=subjects[1:])
    call = asking.call(f"{FEDERATION}/StreamQuery", request)
    answers = await rest(call)
    assert len(answers) == 4
    assert CLEARED in numbers(a.section for a in answers)
    assert (await call.status()).code == 0


async def test_a_session_answers_each_by_its_id(asking: Stock) -> None:
    common = asked()
    common.ClearField("subject")
    call = asking.call(f"{FEDERATION}/Session")
    request = federation_pb2.SessionRequest()
    request.prepare.add(id=7, query=common)
    for number, value in enumerate((EXPORTER, OTHER, "no code", EXPORTER)):
        request.asks.add(id=number, prepared=7, subject=common_pb2.SubjectId(scheme="cn.uscc", value=value))
    await call.send(request)
    await call.done()
    answers = {a.id: a for message in await rest(call) for a in message.answers}
    assert sorted(answers) == [0, 1, 2, 3]
    assert CLEARED in numbers(answers[0].response.sections)
    assert answers[2].status
    assert answers[0].response.query_id != answers[3].response.query_id
    assert (await call.status()).code == 0


async def test_what_a_node_serves_can_be_read_from_it(mesh: Mesh, connect: Connect) -> None:
    async with connected(connect, gateway(mesh).host, mesh.zone, "operator/admin") as client:
        call = client.call(REFLECT)
        await call.send(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await call.next()
        names = {s.name for s in listed.list_services_response.service}
        assert "hutong.api.exchange.v1.FederationService" in names
        await call.send(reflection_pb2.ServerReflectionRequest(file_containing_symbol=min(names)))
        assert (await call.next()).file_descriptor_response.file_descriptor_proto
        await call.done()
        assert (await call.status()).code == 0


async def test_health_is_watched(mesh: Mesh, connect: Connect) -> None:
    async with connected(connect, gateway(mesh).host, mesh.zone, "anyone/atall") as client:
        call = client.call(WATCH, health_pb2.HealthCheckRequest())
        assert (await call.next()).status == SERVING
        call.cancel()
        assert (await call.status()).code == CANCELLED


def test_the_echo_has_every_shape() -> None:
    """And the contract's rpcs are not those of the echo alone."""
    assert {m.rpartition("/")[2] for m in (UNARY, STREAM, BIDI)} == {
        m.name for m in echo.DESCRIPTOR.services_by_name["Echo"].methods
    }
    assert exchange_pb2.SignedContext.DESCRIPTOR.full_name in str(echo.DESCRIPTOR.serialized_pb)
