"""Traces, metrics and logs of one node: OpenTelemetry inside, Prometheus and OTLP outside.

Providers belong to the node, not to the process, so that several nodes can live in one (tests do). Trace ids cross
every hop whether or not a trace is recorded. Nothing here is given personal data: logs name methods, reasons, ids.
"""

import json
import logging
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIServer

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from prometheus_client import CollectorRegistry, start_http_server

from services.kit.config import TelemetrySection
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.rpc import Call, Rpc

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C Trace Context, version 00; what does not match begins a new trace."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds. The SDK's own are meant for milliseconds: every call would fall into the first."""
_IDS = RandomIdGenerator()
_LOW_64 = (1 << 64) - 1
_RECORDED = TraceFlags(TraceFlags.SAMPLED)
# Not empty: the SDK takes an empty context for none and looks for the present one, which costs more than the rest.
_NO_CONTEXT = Context({"hutong": True})


class Telemetry:
    """The instruments of one node."""

    def __init__(
        self,
        node: str,
        section: TelemetrySection,
        *,
        processor: SpanProcessor | None = None,
        sample: float | None = None,
    ) -> None:
        """`processor` adds a span processor beside the configured exporter: tests collect spans with it."""
        resource = Resource.create({"service.name": f"hutong/{node}", "service.namespace": "hutong"})
        ratio = section.sample if sample is None else sample
        self.sample_bound = round(ratio * (1 << 64))
        """Traces whose id's lower half lies below it are recorded."""
        self._traces = TracerProvider(sampler=ALWAYS_ON, resource=resource)
        if section.otlp:
            # Loaded where it is wanted: it costs every other node 10 MB.
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=section.otlp)))
        if processor:
            self._traces.add_span_processor(processor)
        self.registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self.registry)
        self._metrics = MeterProvider(metric_readers=[reader], resource=resource)
        self.tracer = self._traces.get_tracer("hutong")
        self.meter = self._metrics.get_meter("hutong")
        self.refusals = self.meter.create_counter("hutong_refusals", description="Calls refused, by rpc and reason")
        # One instrument for how many and how long: its count, by rpc and code, is the number of calls.
        self.seconds = self.meter.create_histogram(
            "hutong_call_seconds", description="Time of served calls", explicit_bucket_boundaries_advisory=_BUCKETS
        )
        self._server: WSGIServer | None = None

    def gauge(self, name: str, description: str, read: Any) -> None:
        """Show a value that is read when somebody scrapes; `read` takes nothing and returns a number."""
        self.meter.create_observable_gauge(name, [lambda _: [Observation(read())]], description=description)

    def serve(self, address: str) -> int:
        """Serve `/metrics`; returns the port. Raises `FailedPrecondition` ADDRESS_IN_USE."""
        host, _, port = address.rpartition(":")
        try:
            self._server, _thread = start_http_server(int(port), host, self.registry)
        except OSError as error:
            raise FailedPrecondition(
                Reason.ADDRESS_IN_USE, f"metrics: cannot listen on {address}: {error.strerror}", address=address
            ) from None
        return int(self._server.server_port)

    def close(self) -> None:
        """Flush and stop."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        self._traces.shutdown()
        self._metrics.shutdown()


class Trace:
    """Interceptor: continues the caller's trace, or begins one, and counts how calls end.

    Whether a trace is recorded is settled before there is a span, by the caller's flag or by the trace id as
    `TraceIdRatioBased` does, so that the many calls that are not recorded cost an id and nothing more.
    """

    name = "trace"

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    @contextmanager
    def __call__(self, call: Call, rpc: Rpc, /) -> Generator[None]:
        """Surround one call."""
        telemetry = self._telemetry
        span = self._begin(call, rpc)
        started = time.perf_counter()
        code = "OK"
        try:
            yield
        except HutongError as error:
            code = error.code
            telemetry.refusals.add(1, {"rpc": rpc.method, "reason": error.reason}, _NO_CONTEXT)
            if span:
                span.set_status(StatusCode.ERROR, error.reason)
            raise
        except BaseException:
            code = "CANCELLED"
            raise
        finally:
            seconds = time.perf_counter() - started
            telemetry.seconds.record(seconds, {"rpc": rpc.method, "code": code}, _NO_CONTEXT)
            if span:
                span.set_attributes({"rpc.grpc.status": code, "hutong.caller": call.caller.path})
                span.end()

    def _begin(self, call: Call, rpc: Rpc) -> trace.Span | None:
        """Set the call's trace context; gives a span where the trace is recorded."""
        given = _TRACEPARENT.fullmatch(call.metadata.get("traceparent", ""))
        if given:
            identity, recorded = given[1], int(given[3], 16) & 1
        else:
            number = _IDS.generate_trace_id()
            identity, recorded = f"{number:032x}", number & _LOW_64 < self._telemetry.sample_bound
        if not recorded:
            call.traceparent = f"00-{identity}-{_IDS.generate_span_id():016x}-00"
            return None
        above = None
        if given:
            parent = SpanContext(int(identity, 16), int(given[2], 16), is_remote=True, trace_flags=_RECORDED)
            above = trace.set_span_in_context(NonRecordingSpan(parent), _NO_CONTEXT)
        span = self._telemetry.tracer.start_span(rpc.method[1:], above or _NO_CONTEXT, SpanKind.SERVER)
        made = span.get_span_context()
        call.traceparent = f"00-{made.trace_id:032x}-{made.span_id:016x}-01"
        return span


def trace_id(parent: str) -> str:
    """Take the trace id out of a `traceparent`."""
    return parent[3:35]


class JsonLines(logging.Formatter):
    """Log lines as JSON objects: time, level, logger, message, and the fields given as `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(level: str) -> None:
    """Send this process's log to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
