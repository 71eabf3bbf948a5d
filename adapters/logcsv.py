"""Event logs as a table: one line per event, what its case says of itself repeated on each."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Final

from adapters.delimited import check_columns
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

_DELIMITERS: Final = (",", ";", "\t")
_HEADER: Final = 1 << 16


def read(stream: LogStream, columns: LogColumns, limits: Limits) -> Iterator[Gathered]:
    """Read the cases of a log, in the order of their first lines.

    Raises `InvalidArgument` LOG_INVALID where it is no such table.
    """
    text = io.TextIOWrapper(io.BufferedReader(stream, 1 << 16), encoding="utf-8-sig", newline="")
    reader = _Lines(stream, text)
    try:
        table = _Table(stream.log_name, reader.header(), columns, limits)
        for row in reader:
            table.add(row, reader.line)
    except UnicodeDecodeError:
        raise refused(stream.log_name, "it is no XES, and no table in UTF-8", reader.line + 1) from None
    except csv.Error as error:
        raise refused(stream.log_name, f"it is no table, or was cut: {error}", reader.line) from None
    return iter(table.cases.values())


class _Lines:
    """The lines of a table, as cells."""

    def __init__(self, stream: LogStream, text: io.TextIOWrapper) -> None:
        self._stream = stream
        self._text = text
        self._reader = csv.reader(())

    @property
    def line(self) -> int:
        """Number of the line that was read last."""
        return self._reader.line_num + 1

    def header(self) -> list[str]:
        """Read the header, and take what stands between its names for what stands between all cells."""
        first = self._text.readline(_HEADER)
        delimiter = max(_DELIMITERS, key=first.count)
        names = list(csv.reader([first], delimiter=delimiter, strict=True))
        self._reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)
        return names[0] if names else []

    def _lines(self) -> Iterator[str]:
        for line in self._text:
            self._stream.mark()
            yield line

    def __iter__(self) -> Iterator[list[str]]:
        return iter(self._reader)


class _Table:
    """Makes cases of lines."""

    def __init__(self, name: str, header: Sequence[str], columns: LogColumns, limits: Limits) -> None:
        self.cases: dict[str, Gathered] = {}
        self._name = name
        self._columns = columns
        self._limits = limits
        self._moments = Moments(columns.zone)
        self._events = 0
        self._width = len(header)
        prefix = columns.case_prefix
        self._case = prefix + columns.case
        self._check(header)
        at = {column: place for place, column in enumerate(header)}
        self._said = {column.removeprefix(prefix): at[column] for column in header if column.startswith(prefix)}
        self._id_at = at[self._case]
        self._of_case = _cells(list(self._said.values()))
        blank = self._width  # a cell of its own, always empty, for columns that are not there
        wanted = (columns.activity, columns.time, columns.group, columns.resource, columns.instance, columns.transition)
        self._of_event = _cells([at.get(column, blank) for column in wanted])

    def _check(self, header: Sequence[str]) -> None:
        columns = self._columns
        needs = (
            self._case,
            columns.activity,
            columns.time,
            *(columns.case_prefix + n for n in sorted(columns.moments)),
        )
        try:
            check_columns(self._name, header, needs)
        except InvalidArgument as error:
            raise refused(self._name, error.message.partition(": ")[2], 1) from None
        if twice := sorted({column for column in header if column and header.count(column) > 1}):
            raise refused(self._name, f"the column {twice[0]!r} stands twice", 1)

    def add(self, row: list[str], line: int) -> None:
        """Take a line."""
        if len(row) != self._width:
            if not row:
                return  # an empty line
            raise refused(self._name, f"it has {len(row)} cells where {self._width} were expected", line)
        self._events += 1
        if self._events > self._limits.events:
            raise refused(self._name, f"it has more than {self._limits.events} events", line)
        row.append("")
        case = self._case_of(row, line)
        if case.why:
            return
        activity, time, group, resource, instance, transition = self._of_event(row)
        try:
            if not activity:
                raise Wrong(f"event {len(case.events) + 1} has no {self._columns.activity}")
            case.add(LoggedEvent(activity, self._moments.read(time), group, resource, instance, transition))
        except NoOffset as wrong:
            raise refused(self._name, str(wrong), line, case.case_id) from None
        except Wrong as wrong:
            case.spoil(str(wrong), line)

    def _case_of(self, row: list[str], line: int) -> Gathered:
        case_id, said = row[self._id_at], self._of_case(row)
        case = self.cases.get(case_id)
        if case is not None and case_id:
            if case.said != said:
                case.spoil("its lines do not say the same of the case", line)
            return case
        case = Gathered(case_id, line, said)
        # Lines without a case are no case together.
        self.cases[case_id or f"\n{line}"] = case
        try:
            check_id(case_id)
            case.attributes = attributes_of(dict(zip(self._said, said, strict=True)), self._columns, self._moments)
        except NoOffset as wrong:
            raise refused(self._name, str(wrong), line, case_id) from None
        except Wrong as wrong:
            case.spoil(str(wrong), line)
        return case


def _cells(places: list[int]) -> Callable[[list[str]], tuple[str, ...]]:
    """Make what takes cells out of a row; always a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda row: tuple(row[place] for place in places)
