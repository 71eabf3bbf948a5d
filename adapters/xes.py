"""Event logs as XES (IEEE 1849): XML with traces of events, read case by case and never kept as a tree.

The parser reads elements and attributes and nothing else: it fetches nothing, and a document type, without which there
are no entities, refuses the file where it begins.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.parsers import expat

from adapters.logged import (
    Gathered,
    LogColumns,
    LoggedEvent,
    Moments,
    NoOffset,
    Wrong,
    attributes_of,
    check_id,
    refused,
)
from adapters.logstream import Limits, LogStream
from services.kit.errors import InvalidArgument

_CHUNK: Final = 1 << 16
_BETWEEN: Final = " "
"""Between a namespace and a name, where the parser tells of both."""

Told = dict[str, str]


def read(stream: LogStream, columns: LogColumns, limits: Limits) -> Iterator[Gathered]:
    """Read the cases of a log, in its order; raises `InvalidArgument` LOG_INVALID where it is none."""
    traces = _Traces(stream.log_name)
    cases = _Cases(stream.log_name, columns, limits)
    more = True
    while more:
        data = stream.read(_CHUNK)
        more = bool(data)
        for trace in traces.feed(data or b""):
            stream.mark()
            yield cases.gather(trace)


class _Trace:
    """One trace, as it stands in the file."""

    __slots__ = ("events", "line", "lines", "said")

    def __init__(self, line: int) -> None:
        self.line = line
        self.said: Told = {}
        self.events: list[Told] = []
        self.lines: list[int] = []


class _Traces:
    """Finds the traces in a stream of XML."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._done: deque[_Trace] = deque()
        self._parser = expat.ParserCreate(namespace_separator=_BETWEEN)
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._listen()

    def feed(self, data: bytes) -> Iterator[_Trace]:
        """Parse on, and give the traces that have ended; without data, the file has."""
        try:
            self._parser.Parse(data, not data)
        except expat.ExpatError as error:
            told = expat.ErrorString(error.code)
            raise refused(self._name, f"it is no XES, or was cut: {told}", error.lineno) from None
        while self._done:
            yield self._done.popleft()

    def _doctype(self, *_: object) -> None:
        raise forbidden(self._name)

    def _listen(self) -> None:  # noqa: C901 - called for every element of a long file, so that all is at hand
        """Set the handlers: what stands inside an event, what stands elsewhere, and ends."""
        parser, done = self._parser, self._done
        depth = 0
        trace_tag = event_tag = ""
        trace: _Trace | None = None
        event: Told = {}

        def inside(_tag: str, attributes: Mapping[str, str]) -> None:
            nonlocal depth
            if depth == 3:  # what is nested deeper says something of the attribute, not of the event
                event[attributes.get("key", "")] = attributes.get("value", "")
            depth += 1

        def elsewhere(tag: str, attributes: Mapping[str, str]) -> None:
            nonlocal depth, trace_tag, event_tag, trace, event
            if depth == 2 and trace is not None:
                if tag == event_tag:
                    event = {}
                    trace.events.append(event)
                    trace.lines.append(parser.CurrentLineNumber)
                    parser.StartElementHandler = inside
                elif "value" in attributes:
                    trace.said[attributes.get("key", "")] = attributes["value"]
            elif depth == 1:
                trace = _Trace(parser.CurrentLineNumber) if tag == trace_tag else None
            elif depth == 0:
                space = self._space(tag)
                trace_tag, event_tag = f"{space}trace", f"{space}event"
            depth += 1

        def end(_tag: str) -> None:
            nonlocal depth, trace
            depth -= 1
            if depth == 2:
                parser.StartElementHandler = elsewhere
            elif depth == 1 and trace is not None:
                done.append(trace)
                trace = None

        parser.StartElementHandler = elsewhere
        parser.EndElementHandler = end

    def _space(self, root: str) -> str:
        """Look at the root, and give what stands before the names of its namespace."""
        space, between, local = root.rpartition(_BETWEEN)
        if local != "log":
            message = f"it is no XES: its root is no <log> but <{local[:64]}>"
            raise refused(self._name, message, self._parser.CurrentLineNumber)
        return space + between


def forbidden(name: str) -> InvalidArgument:
    """Word the refusal of a log with a document type."""
    return refused(name, "document types and entities are not read")


class _Cases:
    """Makes cases of traces."""

    def __init__(self, name: str, columns: LogColumns, limits: Limits) -> None:
        self._name = name
        self._columns = columns
        self._limits = limits
        self._moments = Moments(columns.zone)
        self._events = 0

    def gather(self, trace: _Trace) -> Gathered:
        """Make a case of a trace."""
        case = Gathered(trace.said.get(self._columns.case, ""), trace.line)
        self._events += len(trace.events)
        if self._events > self._limits.events:
            raise refused(self._name, f"it has more than {self._limits.events} events", case.line, case.case_id)
        try:
            check_id(case.case_id)
            case.attributes = attributes_of(trace.said, self._columns, self._moments)
        except NoOffset as wrong:
            raise refused(self._name, str(wrong), case.line, case.case_id) from None
        except Wrong as wrong:
            case.spoil(str(wrong), trace.line)
            return case
        self._add(case, trace)
        return case

    def _add(self, case: Gathered, trace: _Trace) -> None:
        columns, moment = self._columns, self._moments.read
        for number, said in enumerate(trace.events):
            get: Any = said.get
            try:
                activity = get(columns.activity)
                if not activity:
                    raise Wrong(f"event {number + 1} has no {columns.activity}")
                case.add(
                    LoggedEvent(
                        activity,
                        moment(get(columns.time, "")),
                        get(columns.group, ""),
                        get(columns.resource, ""),
                        get(columns.instance, ""),
                        get(columns.transition, ""),
                    )
                )
            except NoOffset as wrong:
                raise refused(self._name, str(wrong), trace.lines[number], case.case_id) from None
            except Wrong as wrong:
                case.spoil(str(wrong), trace.lines[number])
                return
