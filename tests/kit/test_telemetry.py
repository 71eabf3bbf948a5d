"""What a node tells of itself, as a collector of traces hears it."""

import asyncio
import io
import json
import logging
import re
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import (  # pyright: ignore[reportMissingTypeStubs] - no `__init__` there
    logs_service_pb2,
    logs_service_pb2_grpc,
)
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client import generate_latest

from services.kit import lines
from services.kit.config import NodeConfig, TelemetrySection
from services.kit.errors import FailedPrecondition, Internal, PermissionDenied, Reason
from services.kit.host import Host
from services.kit.lines import JsonLines
from services.kit.rpc import Call
from services.kit.telemetry import Telemetry
from tests.kit.test_server import ASK, OPEN, Mirror, Request, Response, mirrored
from tests.zone import Zone

LEVELS = ("adapters", "certs", "gateway", "services")
_log = logging.getLogger("tests.said")


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


class Lines(logs_service_pb2_grpc.LogsServiceServicer):
    """Hears log lines."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        self.heard += [r for each in request.resource_logs for scope in each.scope_logs for r in scope.log_records]
        return logs_service_pb2.ExportLogsServiceResponse()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Hears spans, each with the name of its node."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.metrics = Metrics()
        self.lines = Lines()

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
    logged: Any = logs_service_pb2_grpc
    logged.add_LogsServiceServicer_to_server(collector.lines, server)
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
        said = io.StringIO()
        with logging_to(said, telemetry):
            for number in range(5000):
                _log.info("Said %d", number)
            # Nobody waits for a collector to have what is said.
            assert said.getvalue().count('"message": "Said ') == 5000
        began = time.monotonic()
        await asyncio.to_thread(telemetry.close)
        assert time.monotonic() - began < 20


@contextmanager
def logging_to(said: io.StringIO, telemetry: Telemetry | None = None, level: str = "info") -> Generator[None]:
    """Log as a node's process does, for a while."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in (*LEVELS, "tests")]
    before = root.handlers[:], root.level, [logger.level for logger in ours]
    lines.configure_logging(level, telemetry.log_handler if telemetry else None, said)
    ours[-1].setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        for logger, number in zip(ours, before[2], strict=True):
            logger.setLevel(number)


class Saying(Mirror):
    """Says something, and fails; what it began says something later."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[asyncio.Task[None]] = []
        self.over = asyncio.Event()

    async def _later(self) -> None:
        await self.over.wait()
        _log.warning("Somebody asked")

    async def check(self, request: Any, call: Call) -> Message:
        _log.warning("Somebody asks", extra={"fields": {"department": "customs", "after": 3, "what": ("a", 1)}})
        self.later.append(asyncio.create_task(self._later()))
        raise ValueError("as it was meant")


async def test_a_collector_hears_what_is_logged(tmp_path: Path) -> None:
    """The same lines as on standard error, with the ids of the call's trace."""
    zone, said, saying = Zone(tmp_path), io.StringIO(), Saying()
    listed = tmp_path / "access.yaml"
    listed.write_text(OPEN)
    async with collecting() as (collector, address):
        section = TelemetrySection(otlp=address, sample=0.0)
        host = Host(NodeConfig(node=zone.node("customs/node"), tls=zone.tls("customs/node"), telemetry=section))
        await host.start(mirrored(saying), [listed])
        with logging_to(said, host.telemetry):
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
            async with zone.client(host, "taxation/refund") as client:
                with pytest.raises(Internal):
                    await client.unary(ASK, Request(), Response, timeout=5, traceparent=parent)
            saying.over.set()
            await asyncio.gather(*saying.later)
            await host.stop()
    # What libraries say of a busy machine, or of what ended before, is in both as well.
    mine = ("Somebody asks", "Call failed unexpectedly", "Somebody asked")
    written = [line for line in map(json.loads, said.getvalue().splitlines()) if line["message"] in mine]
    heard = {line.body.string_value: line for line in collector.lines.heard}
    assert sorted(line["message"] for line in written) == sorted(mine)
    assert sorted(line.body.string_value for line in collector.lines.heard if line.body.string_value in mine) == sorted(
        mine
    )
    asked, failed, alone = (heard[what] for what in mine)
    told = {each.key: each.value for each in asked.attributes}
    assert (told["department"].string_value, told["after"].int_value, told["what"].string_value) == (
        "customs",
        3,
        "('a', 1)",
    )
    assert asked.severity_text == "WARNING"
    assert asked.trace_id.hex() == failed.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert asked.span_id == failed.span_id != bytes.fromhex("b7ad6b7169203331")
    (stack,) = (each.value.string_value for each in failed.attributes if each.key == "exception.stacktrace")
    assert "as it was meant" in stack
    assert not alone.trace_id
    (line,) = (line for line in written if line["message"] == "Somebody asks")
    assert (line["trace_id"], line["span_id"]) == (asked.trace_id.hex(), asked.span_id.hex())


def test_libraries_tell_less_than_we_do() -> None:
    """Of a database, never what is in it."""
    telemetry = Telemetry("customs/node", TelemetrySection())
    with logging_to(io.StringIO(), telemetry, "debug"):
        enabled = [
            logging.getLogger(name).isEnabledFor(level)
            for name, level in (("services.kit", 10), ("grpc", 10), ("grpc", 20), ("sqlalchemy.engine", 20))
        ]
    telemetry.close()
    assert enabled == [True, False, True, False]


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


def test_a_value_that_cannot_be_read_hides_no_other_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    telemetry, broken = Telemetry("customs/node", TelemetrySection()), [True]

    def read() -> float:
        if broken[0]:
            raise OSError("gone")
        return 2.0

    try:
        telemetry.gauge("hutong_some", "Some", read, of="one")
        telemetry.gauge("hutong_some", "Some", lambda: 1.0, of="other")
        assert [list(telemetry.readings()) for _ in range(2)] == [[("hutong_some", {"of": "other"}, 1.0)]] * 2
        assert b'hutong_some{of="other"} 1.0' in generate_latest(telemetry.registry)
        assert [vars(each)["fields"] for each in caplog.records] == [{"metric": "hutong_some"}]
        broken.clear()
        broken.append(False)
        assert len(list(telemetry.readings())) == 2
    finally:
        telemetry.close()


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
