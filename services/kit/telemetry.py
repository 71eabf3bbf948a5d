"""Traces, metrics and logs of one node: OpenTelemetry inside, Prometheus and OTLP outside.

Providers belong to the node, not to the process, so that several nodes can live in one (tests do). Trace ids cross
every hop whether or not a trace is recorded. Nothing here is given personal data: logs name methods, reasons, ids.
"""

import logging
import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from random import getrandbits
from wsgiref.simple_server import WSGIServer

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from services.kit.config import TelemetrySection
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.lines import CURRENT, TRACEPARENT, ToCollector
from services.kit.rpc import Call, Rpc
from services.kit.uses import Uses

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""
_PATIENCE = 3
"""Seconds that a collector has to take what it is sent."""
_MOST_LINES = 2048
"""Log lines that wait for a collector; of more, the oldest go only to standard error."""
_IDS = RandomIdGenerator()
_log = logging.getLogger(__name__)
_LOW_64 = (1 << 64) - 1
_RECORDED = TraceFlags(TraceFlags.SAMPLED)
# Not empty: the SDK takes an empty context for none and looks for the present one, which costs more than the rest.
_NO_CONTEXT = Context({"hutong": True})


Read = Callable[[], float | None]
"""Gives a value as it is now, None where there is none; called in whatever thread scrapes."""


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
        if processor:
            self._traces.add_span_processor(processor)
        self.registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self.registry)
        self._metrics = [MeterProvider(metric_readers=[reader], resource=resource)]
        self.tracer = self._traces.get_tracer("hutong")
        self._shown: dict[str, list[tuple[dict[str, str], Read]]] = {}
        self.log_handler: ToCollector | None = None
        """Sends the lines of the process's log to the collector, once it is added to the root logger; None without."""
        self.calls = Calls()
        self.registry.register(self.calls)
        if section.otlp:
            self._export(section.otlp, section.every.total_seconds(), resource)
        self._server: WSGIServer | None = None

    def _export(self, endpoint: str, every: float, resource: Resource) -> None:
        """Send traces and log lines, and every so many seconds metrics, to a collector."""
        # Loaded where it is wanted: it costs every other node 10 MB.
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

        self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        logs = LoggerProvider(resource)
        # All that waits is one batch, so that a stop waits for a collector that is away but once.
        sender = OTLPLogExporter(endpoint=endpoint, timeout=_PATIENCE)
        logs.add_log_record_processor(
            BatchLogRecordProcessor(sender, max_queue_size=_MOST_LINES, max_export_batch_size=_MOST_LINES)
        )
        self.log_handler = ToCollector(logs)
        exporter = OTLPMetricExporter(endpoint=endpoint, timeout=_PATIENCE)
        provider = MeterProvider([PeriodicExportingMetricReader(exporter, every * 1000)], resource)
        self._metrics.append(provider)
        # To Prometheus the calls are shown by themselves (`Calls.collect`); here by what they add up to.
        meter, calls = provider.get_meter("hutong"), self.calls
        meter.create_observable_counter("hutong_calls", [lambda _: calls.counted()], description="Calls served")
        took = "Time of served calls, together"
        meter.create_observable_counter("hutong_call_seconds", [lambda _: calls.timed()], "s", took)
        meter.create_observable_counter("hutong_refusals", [lambda _: calls.turned_away()], description="Calls refused")

    def gauge(self, name: str, description: str, read: Read, **labels: str) -> None:
        """Show a value that is read when somebody scrapes; one name may have several, by their labels."""
        self._show("create_observable_gauge", name, description, read, labels)

    def counter(self, name: str, description: str, read: Read, **labels: str) -> None:
        """Show a number that only grows, as `gauge` does; Prometheus adds `_total` to its name."""
        self._show("create_observable_counter", name, description, read, labels)

    def _show(self, create: str, name: str, description: str, read: Read, labels: dict[str, str]) -> None:
        shown = self._shown.get(name)
        if shown is None:
            shown = self._shown[name] = []
            found = shown

            def observe(_: CallbackOptions) -> list[Observation]:
                return [Observation(value, of) for of, one in found if (value := one()) is not None]

            for provider in self._metrics:
                getattr(provider.get_meter("hutong"), create)(name, [observe], description=description)
        shown.append((labels, _guarded(name, read)))

    def cache(self, name: str, uses: Uses) -> None:
        """Show how well something is kept, by hits and misses."""
        hits, misses = "What was wanted and was there", "What was wanted and had to be made"
        self.counter("hutong_cache_hits", hits, lambda: max(0, uses.wanted - uses.made), cache=name)
        self.counter("hutong_cache_misses", misses, lambda: uses.made, cache=name)

    def readings(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Give all values there are now: name, labels, value."""
        for name, shown in self._shown.items():
            for labels, read in shown:
                if (value := read()) is not None:
                    yield name, labels, value

    def trace_of(self, parent: str | None, name: str, kind: SpanKind, since: int | None = None) -> "CallTrace":
        """Continue a trace, or begin one where `parent` is no W3C trace context.

        Whether it is recorded is settled before there is a span, by the flag of `parent` or by the trace id as
        `TraceIdRatioBased` does, so that the many that are not cost an id and nothing more. `since` is when the span
        began, in nanoseconds since 1970, where that is past.
        """
        given = TRACEPARENT.fullmatch(parent) if parent else None
        if given:
            number, recorded = int(given[1], 16), int(given[3], 16) & 1
        else:
            number = getrandbits(128) or 1
            recorded = number & _LOW_64 < self.sample_bound
        span = None
        if recorded:
            span = self.tracer.start_span(name.removeprefix("/"), _above(number, given), kind, start_time=since)
            number = span.get_span_context().trace_id
        return CallTrace(number, span, bool(given or span))

    @contextmanager
    def resumed(self, parent: str, name: str, since: int) -> Generator["CallTrace"]:
        """Go on where a call has led by another way than a call: what is logged meanwhile has the ids of its trace.

        The span, where there is one, is of something that began at `since` and ends here; for the rest see `trace_of`.
        """
        made = self.trace_of(parent, name, SpanKind.CONSUMER, since)
        before = CURRENT.set(made)
        try:
            yield made
        finally:
            CURRENT.reset(before)
            made.over = True
            if made.span:
                made.span.end()

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
        ends: list[Callable[[], object]] = [self._traces.shutdown]
        ends += [partial(provider.shutdown, timeout_millis=_PATIENCE * 1000) for provider in self._metrics]
        if self.log_handler:
            ends.append(self.log_handler.close)
        # At once: of a collector that is away one waits but once.
        with ThreadPoolExecutor(len(ends)) as threads:
            for ended in [threads.submit(end) for end in ends]:
                ended.result()


def _guarded(name: str, read: Read) -> Read:
    """Read a value such that one that cannot be read is none: the log says so once, and the others are shown."""
    failing = False

    def guarded() -> float | None:
        nonlocal failing
        try:
            value = read()
        except Exception:
            if not failing:
                _log.exception("A value cannot be shown", extra={"fields": {"metric": name}})
            failing = True
            return None
        failing = False
        return value

    return guarded


class Calls(Collector):
    """How many calls ended how, and how long they took.

    Every call is counted here, so counting is three additions; what a scraper sees is made when one asks.
    """

    def __init__(self) -> None:
        self._ended: dict[tuple[str, str], _Ended] = {}
        self._refused: Counter[tuple[str, str]] = Counter()

    def ended(self, rpc: str, code: str, seconds: float) -> None:
        """Count a call by its rpc and status code."""
        found = self._ended.get((rpc, code))
        if found is None:
            found = self._ended[rpc, code] = _Ended()
        found.seconds += seconds
        found.buckets[bisect_left(_BUCKETS, seconds)] += 1

    def refused(self, rpc: str, reason: str) -> None:
        """Count a refusal by its reason."""
        self._refused[rpc, reason] += 1

    def counted(self) -> list[Observation]:
        """How many there were, by rpc and status code."""
        return [Observation(sum(ended.buckets), _labels(*of)) for of, ended in list(self._ended.items())]

    def timed(self) -> list[Observation]:
        """How many seconds they took, by rpc and status code."""
        return [Observation(ended.seconds, _labels(*of)) for of, ended in list(self._ended.items())]

    def turned_away(self) -> list[Observation]:
        """How many were refused, by rpc and reason."""
        return [Observation(count, {"rpc": rpc, "reason": why}) for (rpc, why), count in self.refusals.items()]

    @property
    def refusals(self) -> dict[tuple[str, str], int]:
        """How many calls were refused, by rpc and reason."""
        return dict(self._refused)

    def collect(self) -> Iterable[Metric]:
        """Give what there is now; called by whoever scrapes, in a thread of its own."""
        took = HistogramMetricFamily("hutong_call_seconds", "Time of served calls", labels=("code", "rpc"))
        for (rpc, code), ended in list(self._ended.items()):
            bounds = (*map(str, _BUCKETS), "+Inf")
            counts = list(zip(bounds, accumulate(list(ended.buckets)), strict=True))
            took.add_metric((code, rpc), counts, ended.seconds)
        yield took
        refused = CounterMetricFamily("hutong_refusals", "Calls refused, by rpc and reason", labels=("reason", "rpc"))
        for (rpc, reason), count in list(self._refused.items()):
            refused.add_metric((reason, rpc), count)
        yield refused


def _labels(rpc: str, code: str) -> dict[str, str]:
    return {"rpc": rpc, "code": code}


class _Ended:
    """Calls that ended alike."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(_BUCKETS) + 1)


class CallTrace:
    """The trace that a call is part of, or an event that came of one.

    Its ids are written only where somebody is told them.
    """

    __slots__ = ("_parent", "_trace", "over", "span", "started", "told")

    def __init__(self, trace: int, span: trace.Span | None, told: bool) -> None:
        self._trace = trace
        self._parent = ""
        self.span = span
        """Where the trace is recorded."""
        self.told = told
        self.over = False
        """The call has ended: what goes on behind it is no part of it."""
        self.started = time.perf_counter()

    @property
    def parent(self) -> str:
        """W3C trace context for calls made on behalf of this one."""
        if not self._parent:
            span = self.span.get_span_context().span_id if self.span else _IDS.generate_span_id()
            self._parent = f"00-{self._trace:032x}-{span:016x}-{'01' if self.span else '00'}"
        return self._parent


class Trace:
    """Continues the caller's trace, or begins one, and counts how calls end."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._calls = telemetry.calls

    def begin(self, call: Call, rpc: Rpc, /) -> None:
        """Set the call's trace."""
        given = call.metadata.get("traceparent")
        call.trace = made = self._telemetry.trace_of(given, rpc.method, SpanKind.SERVER)
        CURRENT.set(made)

    def end(self, call: Call, rpc: Rpc, error: BaseException | None, /) -> None:
        """Count how the call ended, and end its span."""
        traced = call.trace
        if not isinstance(traced, CallTrace):
            return
        traced.over = True
        code = "OK"
        if error is not None:
            code = error.code if isinstance(error, HutongError) else "CANCELLED"
            if isinstance(error, HutongError):
                self._calls.refused(rpc.method, error.reason)
        self._calls.ended(rpc.method, code, time.perf_counter() - traced.started)
        if traced.span:
            if isinstance(error, HutongError):
                traced.span.set_status(StatusCode.ERROR, error.reason)
            traced.span.set_attributes({"rpc.grpc.status": code, "hutong.caller": call.caller.told})
            traced.span.end()


def _above(number: int, given: re.Match[str] | None) -> Context:
    if given is None:
        return _NO_CONTEXT
    parent = SpanContext(number, int(given[2], 16), is_remote=True, trace_flags=_RECORDED)
    return trace.set_span_in_context(NonRecordingSpan(parent), _NO_CONTEXT)


def ids(parent: str) -> dict[str, str]:
    """Take the ids out of a `traceparent`, for the fields of a log line; none out of an empty one."""
    return {"trace_id": parent[3:35], "span_id": parent[36:52]} if parent else {}
