"""Event logs written out, as XES and as a table, from one description of what happened."""

import csv
import datetime as dt
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

START = dt.datetime(2026, 3, 2, 9, tzinfo=dt.timezone(dt.timedelta(hours=1)))
EVENT_NAMES = (
    "concept:name",
    "time:timestamp",
    "org:group",
    "org:resource",
    "concept:instance",
    "lifecycle:transition",
)


@dataclass(frozen=True)
class Case:
    """One case; what an event does not say is empty."""

    name: str
    events: Sequence[Mapping[str, str]]
    said: Mapping[str, str] = field(default_factory=dict[str, str])


def event(activity: str, at: dt.datetime | str, **more: str) -> dict[str, str]:
    """Describe an event."""
    when = at if isinstance(at, str) else at.isoformat()
    names = {"group": "org:group", "resource": "org:resource", "transition": "lifecycle:transition"}
    return {"concept:name": activity, "time:timestamp": when} | {names[k]: v for k, v in more.items()}


def hours(count: float) -> dt.datetime:
    """Give a moment so many hours after the beginning of everything here."""
    return START + dt.timedelta(hours=count)


def xes(cases: Sequence[Case], dates: Sequence[str] = ()) -> str:
    """Write XES."""

    def attribute(name: str, value: str) -> str:
        kind = "date" if name == "time:timestamp" or name in dates else "string"
        return f"<{kind} key={quoteattr(name)} value={quoteattr(value)}/>"

    def one(what: str, values: Mapping[str, str], inner: str = "") -> str:
        return f"<{what}>" + "".join(attribute(k, v) for k, v in values.items() if v) + f"{inner}</{what}>\n"

    traces = "".join(
        one("trace", {"concept:name": c.name, **c.said}, "\n" + "".join(one("event", e) for e in c.events))
        for c in cases
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- made for a test -->\n'
    space = 'xes.version="1.0" xmlns="http://www.xes-standard.org/"'
    globals_ = '<global scope="trace"><string key="concept:name" value="UNKNOWN"/></global>\n'
    return f'{head}<log {space}>\n{globals_}<string key="concept:name" value="a log"/>\n{traces}</log>\n'


def table(cases: Sequence[Case], delimiter: str = ",") -> str:
    """Write a table."""
    said = sorted({name for case in cases for name in case.said})
    text = io.StringIO()
    columns = ["case:concept:name", *(f"case:{name}" for name in said), *EVENT_NAMES]
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    for case in cases:
        for each in case.events:
            cells = [case.said.get(name, "") for name in said]
            writer.writerow([case.name, *cells, *(each.get(name, "") for name in EVENT_NAMES)])
    return text.getvalue()


def packed(text: str) -> bytes:
    """Pack a text, the same way every time."""
    return gzip.compress(text.encode(), mtime=0)
