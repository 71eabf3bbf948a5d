"""The lines of a process's log: JSON on standard error, and the same to a collector where there is one.

A line names methods, reasons and ids, never a person: neither do the lines of libraries, which may quote what they are
given and are heard from `info` on, whatever level our own have. A line that is written while a call is served has the
ids of its trace.
"""

import json
import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol, TextIO

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_OURS: Final = ("adapters", "certs", "gateway", "services")
_CARRIERS: Final = ("grpc", "opentelemetry")
"""What these say of a collector that is away must not wait for it."""
_APART: Final = frozenset({"time", "level", "logger", "message", "exception", "trace_id", "span_id"})
"""Fields of a line that have a place of their own in a record for a collector."""
_SEVERITIES: Final = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class Current(Protocol):
    """The trace of the call that is served."""

    @property
    def parent(self) -> str:
        """W3C trace context."""
        ...

    @property
    def over(self) -> bool:
        """The call has ended."""
        ...


TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C Trace Context, version 00; what does not match begins a new trace."""
CURRENT: Final[ContextVar[Current | None]] = ContextVar("call", default=None)
"""Set for as long as a call is served, or goes on as an event (`services.kit.telemetry`)."""


def traceparent() -> str:
    """W3C trace context of the call that is served, for calls made on its behalf; empty outside of one."""
    current = CURRENT.get()
    return current.parent if current is not None and not current.over else ""


class Provider(Protocol):
    """What takes records for a collector (`opentelemetry.sdk._logs.LoggerProvider`)."""

    @property
    def get_logger(self) -> Any:
        """Get a logger by name; see `opentelemetry._logs.LoggerProvider`."""
        ...

    def shutdown(self) -> None:
        """Send what waits, and take nothing more."""
        ...


class JsonLines(logging.Formatter):
    """Log lines as JSON objects: time, level, logger, message, the fields given as `extra={"fields": …}`, trace ids."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        return json.dumps(self.line(record), ensure_ascii=False, default=str)

    def line(self, record: logging.LogRecord) -> dict[str, object]:
        """Give what is in the line."""
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        current = CURRENT.get()
        if current is not None and not current.over:
            _, line["trace_id"], line["span_id"], _ = current.parent.split("-")
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return line


class ToCollector(logging.Handler):
    """Gives every line to what sends it to a collector: at once, whether that is there or not."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self._provider = provider
        self._lines = JsonLines()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over."""
        if record.name.startswith(_CARRIERS):
            return
        try:
            self._provider.get_logger(record.name).emit(self._record(record))
        except Exception:
            self.handleError(record)

    def _record(self, record: logging.LogRecord) -> LogRecord:
        line = self._lines.line(record)
        return LogRecord(
            timestamp=int(record.created * 1e9),
            context=_context(line),
            severity_text=record.levelname,
            severity_number=_SEVERITIES.get(record.levelno, SeverityNumber.UNSPECIFIED),
            body=str(line["message"]),
            attributes=_attributes(line),
        )

    def close(self) -> None:
        """Take no more lines, and send what waits: for a few seconds where the collector is away."""
        logging.getLogger().removeHandler(self)
        self._provider.shutdown()
        super().close()


def _attributes(line: Mapping[str, object]) -> dict[str, str | bool | int | float]:
    told = {key: value for key, value in line.items() if key not in _APART}
    if "exception" in line:
        told["exception.stacktrace"] = line["exception"]
    return {key: value if isinstance(value, str | bool | int | float) else str(value) for key, value in told.items()}


def _context(line: Mapping[str, object]) -> Context:
    # Not empty, since for an empty one the SDK takes the present one.
    context = Context({"hutong": True})
    number, span = (int(str(line.get(name) or "0"), 16) for name in ("trace_id", "span_id"))
    if not number:
        return context
    return trace.set_span_in_context(NonRecordingSpan(SpanContext(number, span, False, TraceFlags())), context)


def configure_logging(level: str, collector: ToCollector | None = None, stream: TextIO | None = None) -> None:
    """Send this process's log to standard error (or `stream`) as JSON lines, and to a collector where one is given."""
    lines = logging.StreamHandler(stream)
    lines.setFormatter(JsonLines())
    number = logging.getLevelNamesMapping()[level.upper()]
    handlers: list[logging.Handler] = [lines] if collector is None else [lines, collector]
    logging.basicConfig(level=max(number, logging.INFO), handlers=handlers, force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(number)
