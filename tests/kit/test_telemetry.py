"""What a node tells of itself, as a collector of traces hears it."""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client import generate_latest

from services.kit.config import NodeConfig, TelemetrySection
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason
from services.kit.host import Host
from services.kit.telemetry import JsonLines, Telemetry
from tests.kit.test_server import ASK, OPEN, Mirror, Request, Response, mirrored
from tests.zone import Zone


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Hears metrics, the last of each by name and labels."""

    def __init__(self) -> None:
        self.heard: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        for metric in (m for r in request.resource_metrics for scope in r.scope_metrics for m in scope.metrics):
            for point in (metric.sum if metric.HasField("sum") else metric.gauge).data_points:
                labels = frozenset((each.key, each.value.string_value) for each in point.attributes)
                value = point.as_int if point.HasField("as_int") else point.as_double
                self.heard[metric.name, labels] = value
        return metrics_service_pb2.ExportMetricsServiceResponse()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Hears spans, each with the name of its node."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.metrics = Metrics()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        for batch in request.resource_spans:
            named = {attribute.key: attribute.value.string_value for attribute in batch.resource.attributes}
            self.heard += [(named["service.name"], span) for scope in batch.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncGenerator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.aio.server()
    generated: Any = trace_service_pb2_grpc
    generated.add_TraceServiceServicer_to_server(collector, server)
    measured: Any = metrics_service_pb2_grpc
    measured.add_MetricsServiceServicer_to_server(collector.metrics, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_a_collector_hears_of_every_sampled_call(tmp_path: Path) -> None:
    zone = Zone(tmp_path)
    listed = tmp_path / "access.yaml"
    listed.write_text(OPEN)
    async with collecting() as (collector, address):
        host = Host(
            NodeConfig(
                node=zone.node("customs/node"),
                tls=zone.tls("customs/node"),
                telemetry=TelemetrySection(otlp=address, sample=1.0),
            )
        )
        await host.start(mirrored(Mirror()), [listed])
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        async with zone.client(host, "taxation/refund") as client:
            await client.unary(ASK, Request(), Response, timeout=5, traceparent=parent)
            await client.unary(ASK, Request(), Response, timeout=5)
        async with zone.client(host, "operator/admin") as client:
            with pytest.raises(PermissionDenied):
                await client.unary(ASK, Request(), Response, timeout=5)
        await host.stop()
    assert {node for node, _ in collector.heard} == {"hutong/customs/node"}
    first, second, _ = (span for _, span in collector.heard)
    assert (first.name, first.trace_id.hex()) == (ASK[1:], "0af7651916cd43dd8448eb211c80319c")
    assert first.trace_id != second.trace_id
    heard = collector.metrics.heard
    of_rpc = ("rpc", ASK)
    assert heard["hutong_calls", frozenset({of_rpc, ("code", "OK")})] == 2
    assert 0 < heard["hutong_call_seconds", frozenset({of_rpc, ("code", "OK")})] < 60
    assert heard["hutong_refusals", frozenset({of_rpc, ("reason", "CALLER_NOT_LISTED")})] == 1
    assert heard["hutong_overloaded", frozenset()] == 0
    assert heard["hutong_certificate_seconds_left", frozenset()] > 0


async def test_a_collector_that_is_away_keeps_no_node_from_stopping(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        telemetry = Telemetry("customs/node", TelemetrySection(otlp=f"http://127.0.0.1:{free.getsockname()[1]}"))
        telemetry.gauge("hutong_some", "Something", lambda: 1.0)
        began = time.monotonic()
        await asyncio.to_thread(telemetry.close)
        assert time.monotonic() - began < 20


def test_log_lines_are_json_with_their_fields() -> None:
    record = logging.LogRecord("kit", logging.WARNING, "f", 1, "Said %s", ("so",), None)
    record.fields = {"reason": "NO_PERMIT"}
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["level"], line["reason"]) == ("Said so", "warning", "NO_PERMIT")


def test_calls_of_a_few_milliseconds_are_told_from_slow_ones() -> None:
    telemetry = Telemetry("customs/node", TelemetrySection())
    for seconds in (0.002, 0.03, 2.0):
        telemetry.calls.ended("/a.B/C", "OK", seconds)
    text = generate_latest(telemetry.registry).decode()
    telemetry.close()
    found = re.finditer(r'_bucket\{code="OK",le="([0-9.]+)",rpc="/a.B/C"\} ([0-9.]+)', text)
    below = {one[1]: float(one[2]) for one in found}
    assert [below[edge] for edge in ("0.001", "0.005", "0.05", "5.0")] == [0, 1, 2, 3]


async def test_a_port_for_metrics_that_is_in_use_is_said(tmp_path: Path) -> None:
    zone = Zone(tmp_path)
    listed = tmp_path / "access.yaml"
    listed.write_text(OPEN)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = zone.node("customs/node").model_copy(update={"metrics": address})
        host = Host(NodeConfig(node=node, tls=zone.tls("customs/node")))
        with pytest.raises(FailedPrecondition, match=f"metrics: cannot listen on {address}") as refused:
            await host.start(mirrored(Mirror()), [listed])
        await host.stop()
    assert refused.value.reason is Reason.ADDRESS_IN_USE
