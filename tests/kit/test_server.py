"""The server on a real socket: who gets in, in which order things happen, what comes out when something is wrong."""

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from hutong.api.exchange.v1 import exchange_pb2
from services.kit import rpc
from services.kit.client import Client
from services.kit.config import LimitsSection, NodeConfig
from services.kit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
)
from services.kit.health import HEALTH
from services.kit.host import Host
from services.kit.rpc import Call
from tests.zone import Zone

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
Request = health_pb2.HealthCheckRequest
Response = health_pb2.HealthCheckResponse


def serving() -> Message:
    answer: Message = Response(status=Response.SERVING)
    return answer


class Mirror:
    """Stands in for a room: echoes, fails, waits, streams, as the request's text says. Bound to the health contract."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled = asyncio.Event()

    async def check(self, request: health_pb2.HealthCheckRequest, call: Call) -> Message:
        self.calls.append(call)
        if request.service == "bug":
            raise ZeroDivisionError("a secret in the text of an exception")
        if request.service == "wait":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        if request.service == "refuse":
            raise NotFound(Reason.RECORD_NOT_FOUND, "none", key="k")
        return serving()

    async def list(self, request: Message, call: Call) -> Message:
        return serving()

    async def watch(self, request: health_pb2.HealthCheckRequest, call: Call) -> AsyncIterator[Message]:
        for _ in range(3):
            yield serving()
        if request.service == "refuse":
            raise ResourceExhausted(Reason.REQUEST_TOO_LARGE, "enough")


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(tmp_path)


def mirrored(mirror: Mirror) -> tuple[rpc.Rpc, ...]:
    """The mirror's rpcs under a service name of their own, since every host serves health itself."""
    return tuple(
        rpc.Rpc(
            r.method.replace("grpc.health.v1.Health", "test.Mirror"),
            "test.Mirror",
            r.name,
            r.shape,
            r.request,
            r.handler,
        )
        for r in rpc.bind(HEALTH, mirror)
    )


GARBAGE = exchange_pb2.SignedContext(payload=b"\xff\xfe")
"""Where a health request has text, this has bytes that are no UTF-8."""

ASK = "/test.Mirror/Check"
FOLLOW = "/test.Mirror/Watch"
OPEN = "test.Mirror: {Check: ['taxation/*'], Watch: ['taxation/*']}"


async def test_a_listed_caller_is_answered_and_known(zone: Zone) -> None:
    mirror = Mirror()
    async with zone.serving(mirrored(mirror), OPEN) as host, zone.client(host, "taxation/refund") as client:
        await client.unary(ASK, Request(), Response, timeout=5)
    assert mirror.calls[0].caller.spiffe_id == "spiffe://zone.example/taxation/refund"
    assert mirror.calls[0].caller.path == "taxation/refund"


@pytest.mark.parametrize("who", ["quality/lab", "gateway/main"])
async def test_an_unlisted_caller_is_refused_before_anything_is_parsed(zone: Zone, who: str) -> None:
    mirror = Mirror()
    async with zone.serving(mirrored(mirror), OPEN) as host, zone.client(host, who) as client:
        for request in (Request(), GARBAGE):
            with pytest.raises(PermissionDenied) as refused:
                await client.unary(ASK, request, Response, timeout=5)
            assert refused.value.reason is Reason.CALLER_NOT_LISTED
    assert not mirror.calls


async def test_a_list_of_the_config_counts_instead(zone: Zone, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(OPEN)
    ours.write_text("test.Mirror: {Check: ['harbour/*']}")
    host = zone.frame(NodeConfig(node=zone.node("customs/node"), tls=zone.tls("customs/node"), access=ours))
    await host.start(mirrored(Mirror()), [theirs])
    try:
        async with zone.client(host, "harbour/permits") as client:
            await client.unary(ASK, Request(), Response, timeout=5)
        async with zone.client(host, "taxation/refund") as client:
            with pytest.raises(PermissionDenied) as refused:
                await client.unary(ASK, Request(), Response, timeout=5)
    finally:
        await host.stop()
    assert refused.value.reason is Reason.CALLER_NOT_LISTED


async def test_a_malformed_request_has_a_reason(zone: Zone) -> None:
    async with zone.serving(mirrored(Mirror()), OPEN) as host, zone.client(host, "taxation/refund") as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.unary(ASK, GARBAGE, Response, timeout=5)
    assert refused.value.reason is Reason.MALFORMED_REQUEST


async def test_an_rpc_without_a_list_refuses_everyone(zone: Zone) -> None:
    only_watch = "test.Mirror: {Watch: ['*/*']}"
    async with zone.serving(mirrored(Mirror()), only_watch) as host, zone.client(host, "taxation/refund") as client:
        with pytest.raises(PermissionDenied):
            await client.unary(ASK, Request(), Response, timeout=5)


async def test_a_refusal_keeps_its_reason_and_metadata(zone: Zone) -> None:
    async with zone.serving(mirrored(Mirror()), OPEN) as host, zone.client(host, "taxation/refund") as client:
        with pytest.raises(NotFound) as refused:
            await client.unary(ASK, Request(service="refuse"), Response, timeout=5)
        assert refused.value.metadata == {"key": "k"}
        seen = 0
        with pytest.raises(ResourceExhausted):
            async for _ in client.stream(FOLLOW, Request(service="refuse"), Response, timeout=5):
                seen += 1
        assert seen == 3


async def test_a_bug_tells_a_stranger_nothing_but_an_id(zone: Zone, caplog: pytest.LogCaptureFixture) -> None:
    async with zone.serving(mirrored(Mirror()), OPEN) as host, zone.client(host, "taxation/refund") as client:
        with pytest.raises(Internal) as failed:
            await client.unary(ASK, Request(service="bug"), Response, timeout=5)
    assert "secret" not in failed.value.message
    incident = failed.value.metadata["incident"]
    assert any(getattr(record, "fields", {}).get("incident") == incident for record in caplog.records)


async def test_an_oversized_request_is_told_the_limit(zone: Zone) -> None:
    limits = LimitsSection(request_bytes=2048)
    async with zone.serving(mirrored(Mirror()), OPEN, limits) as host, zone.client(host, "taxation/refund") as client:
        with pytest.raises(ResourceExhausted, match="2048") as refused:
            await client.unary(ASK, Request(service="x" * 4000), Response, timeout=5)
        assert refused.value.reason is Reason.REQUEST_TOO_LARGE
        assert refused.value.metadata["limit_bytes"] == "2048"
        # Far beyond the limit the transport refuses by itself; the limit is stated all the same.
        with pytest.raises(ResourceExhausted, match="larger than max"):
            await client.unary(ASK, Request(service="x" * 400_000), Response, timeout=5)


async def test_the_deadline_reaches_the_handler_and_cancels_it(zone: Zone) -> None:
    mirror = Mirror()
    async with zone.serving(mirrored(mirror), OPEN) as host, zone.client(host, "taxation/refund") as client:
        # Connected before: what the deadline is for is the call.
        await client.unary(ASK, Request(), Response, timeout=30)
        with pytest.raises(DeadlineExceeded):
            await client.unary(ASK, Request(service="wait"), Response, timeout=0.5)
        async with asyncio.timeout(30):
            await mirror.cancelled.wait()
    remaining = mirror.calls[-1].remaining()
    assert remaining is not None
    assert remaining <= 0.5


async def test_a_call_without_a_deadline_gets_the_nodes(zone: Zone) -> None:
    mirror = Mirror()
    async with zone.serving(mirrored(mirror), OPEN) as host, zone.client(host, "taxation/refund") as client:
        await client.unary(ASK, Request(), Response, timeout=None)
    remaining = mirror.calls[0].remaining()
    assert remaining is not None
    assert remaining <= LimitsSection().deadline.total_seconds()


async def test_a_trace_continues_and_its_id_crosses(zone: Zone) -> None:
    mirror = Mirror()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with zone.serving(mirrored(mirror), OPEN) as host, zone.client(host, "taxation/refund") as client:
        await client.unary(ASK, Request(), Response, timeout=5, traceparent=parent)
        await client.unary(ASK, Request(), Response, timeout=5)
    spans = zone.finished()
    assert f"{spans[0].trace:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{spans[0].parent:016x}" == "b7ad6b7169203331"
    assert spans[1].trace != spans[0].trace
    assert mirror.calls[0].traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c-")


async def test_metrics_count_calls_and_refusals_by_reason(zone: Zone) -> None:
    async with zone.serving(mirrored(Mirror()), OPEN) as host:
        port = host.telemetry.serve("127.0.0.1:0")
        async with zone.client(host, "taxation/refund") as client, zone.client(host, "quality/lab") as stranger:
            await client.unary(ASK, Request(), Response, timeout=5)
            with pytest.raises(PermissionDenied):
                await stranger.unary(ASK, Request(), Response, timeout=5)
        text = await asyncio.to_thread(_scrape, port)
    assert 'hutong_call_seconds_count{code="OK",rpc="/test.Mirror/Check"} 1.0' in text
    assert 'hutong_refusals_total{reason="CALLER_NOT_LISTED",rpc="/test.Mirror/Check"} 1.0' in text
    assert "hutong_certificate_seconds_left" in text


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


async def test_health_tells_and_follows(zone: Zone) -> None:
    async with zone.serving(mirrored(Mirror()), OPEN) as host, zone.client(host, "anyone/atall") as client:
        assert (await client.unary(CHECK, Request(), Response, timeout=5)).status == Response.SERVING
        assert (
            await client.unary(CHECK, Request(service="test.Mirror"), Response, timeout=5)
        ).status == Response.SERVING
        with pytest.raises(NotFound):
            await client.unary(CHECK, Request(service="none"), Response, timeout=5)
        first = await anext(client.stream(WATCH, Request(), Response, timeout=5))
        assert first.status == Response.SERVING


async def test_reflection_is_for_operators(zone: Zone) -> None:
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    async with zone.serving(mirrored(Mirror()), OPEN) as host:
        async with zone.client(host, "operator/admin") as client:
            names = [s.name for s in (await _reflect(client, listing)).list_services_response.service]
            assert "test.Mirror" in names
        async with zone.client(host, "taxation/refund") as client:
            with pytest.raises(PermissionDenied):
                await _reflect(client, listing)


async def _reflect(
    client: Client, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    async def requests() -> AsyncIterator[Message]:
        yield request

    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    return await anext(client.bidi(method, requests(), reflection_pb2.ServerReflectionResponse, timeout=5))


async def test_a_port_in_use_is_said(zone: Zone) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = zone.host("customs/node").config
        node = config.node.model_copy(update={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        host = zone.frame(config.model_copy(update={"node": node}))
        with pytest.raises(FailedPrecondition) as refused:
            await host.start((), ())
        await host.stop()
    assert refused.value.reason is Reason.ADDRESS_IN_USE


async def test_a_stop_lets_running_calls_end(zone: Zone) -> None:
    mirror = Mirror()
    async with zone.serving(mirrored(mirror), OPEN) as host, zone.client(host, "taxation/refund") as client:
        stream = client.stream(FOLLOW, Request(), Response, timeout=5)
        await anext(stream)
        stopping = asyncio.create_task(host.stop())
        rest = [message async for message in stream]
        await stopping
        assert len(rest) == 2


def test_a_service_must_be_implemented_whole() -> None:
    with pytest.raises(FailedPrecondition, match="no method 'check'"):
        rpc.bind(HEALTH, object())


def test_the_certificate_must_be_the_configured_ones(zone: Zone) -> None:
    config = zone.host("customs/node").config
    node = config.node.model_copy(update={"system": "other"})
    with pytest.raises(FailedPrecondition, match="the certificate is"):
        Host(config.model_copy(update={"node": node}))
