"""Event logs as XES (IEEE 1849): XML with traces of events, read case by case.

Document types, entities and the network are off: a file that has a document type is refused before it is parsed on.
"""

from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

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

_TRACE: Final = "{*}trace"
_DOCTYPE: Final = tuple("<!DOCTYPE".encode(name) for name in ("ascii", "utf-16-le", "utf-16-be"))


def read(stream: LogStream, columns: LogColumns, limits: Limits) -> Iterator[Gathered]:
    """Read the cases of a log, in its order; raises `InvalidArgument` LOG_INVALID where it is none."""
    name = stream.log_name
    parser = etree.iterparse(
        _Guarded(stream),
        events=("start", "end"),
        tag=("{*}log", _TRACE),
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    cases = _Traces(name, columns, limits)
    try:
        for step, element in parser:
            if step == "end" and element is not cases.root:
                yield cases.gather(element)
                stream.mark()
                _forget(element)
            elif cases.root is None:
                cases.begin(element)
    except etree.XMLSyntaxError as error:
        told = str(error.msg).partition(", line ")[0]
        raise refused(name, f"it is no XES, or was cut: {told}", error.lineno or 0) from None
    if cases.root is None:
        raise refused(name, f"it is no XES: its root is no <log> but <{etree.QName(parser.root).localname}>")


class _Guarded:
    """Bytes on their way to the parser, in which no document type begins."""

    def __init__(self, stream: LogStream) -> None:
        self._stream = stream
        self._tail = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size) or b""
        seen = self._tail + data
        if any(word in seen for word in _DOCTYPE):
            raise refused(self._stream.log_name, "document types and entities are not read")
        self._tail = seen[-20:]
        return data


def _forget(trace: Any) -> None:
    """Let go of a trace, and of what stands before it."""
    trace.clear()
    parent = trace.getparent()
    while trace.getprevious() is not None:
        del parent[0]


class _Traces:
    """Makes cases of traces."""

    def __init__(self, name: str, columns: LogColumns, limits: Limits) -> None:
        self.root: Any = None
        self._name = name
        self._columns = columns
        self._limits = limits
        self._moments = Moments(columns.zone)
        self._events = 0
        self._event_tag = ""

    def begin(self, element: Any) -> None:
        """Look at the root: the first element that the parser tells of, if it is a log."""
        if element.getparent() is not None or etree.QName(element).localname != "log":
            root = etree.QName(element.getroottree().getroot()).localname
            raise refused(self._name, f"it is no XES: its root is no <log> but <{root}>", element.sourceline or 0)
        if element.getroottree().docinfo.doctype:
            raise refused(self._name, "document types and entities are not read")
        self.root = element
        space = etree.QName(element).namespace
        self._event_tag = f"{{{space}}}event" if space else "event"

    def gather(self, trace: Any) -> Gathered:
        """Make a case of a trace."""
        said: dict[str, str] = {}
        events: list[Any] = []
        for child in trace:
            if child.tag == self._event_tag:
                events.append(child)
            elif (value := child.get("value")) is not None:
                said[child.get("key", "")] = value
        line = trace.sourceline or 0
        case = Gathered(said.get(self._columns.case, ""), line)
        self._count(len(events), case)
        try:
            check_id(case.case_id)
            case.attributes = self._attributes(said, case)
        except Wrong as wrong:
            case.spoil(str(wrong), line)
            return case
        self._add(case, events)
        return case

    def _attributes(self, said: dict[str, str], case: Gathered) -> Any:
        try:
            return attributes_of(said, self._columns, self._moments)
        except NoOffset as wrong:
            raise refused(self._name, str(wrong), case.line, case.case_id) from None

    def _count(self, events: int, case: Gathered) -> None:
        self._events += events
        if self._events > self._limits.events:
            raise refused(self._name, f"it has more than {self._limits.events} events", case.line, case.case_id)

    def _add(self, case: Gathered, events: list[Any]) -> None:
        columns, moments = self._columns, self._moments
        for element in events:
            said = {child.get("key"): child.get("value") or "" for child in element}
            get = said.get
            try:
                activity = get(columns.activity)
                if not activity:
                    raise Wrong(f"event {len(case.events) + 1} has no {columns.activity}")
                case.add(
                    LoggedEvent(
                        activity,
                        moments.read(get(columns.time) or ""),
                        get(columns.group, ""),
                        get(columns.resource, ""),
                        get(columns.instance, ""),
                        get(columns.transition, ""),
                    )
                )
            except NoOffset as wrong:
                raise refused(self._name, str(wrong), element.sourceline or 0, case.case_id) from None
            except Wrong as wrong:
                case.spoil(str(wrong), element.sourceline or 0)
                return
