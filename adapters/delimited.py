"""Delimited text as a source: any encoding, any line ends, titles, null words, quoted line ends, in constant memory.

The header decides before any row is read: taken for the whole file is the first encoding of the mapping's list in
which the header holds every mapped column and most of what is not plain ASCII decodes. Rows are never read in two
encodings: where a file changes half-way, what does not decode comes out as `Unreadable` with its bytes.
"""

import codecs
import io
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from adapters.document import DelimitedSpec
from adapters.lines import Codec, Record, Records, lines
from adapters.rows import Cause, Cells, Row, Unreadable
from services.kit.errors import InvalidArgument, Reason
from services.kit.records.catalogue import nearest

_HEAD = 4
_CHUNK = 1 << 20


class Delimited:
    """One opened delimited file."""

    def __init__(
        self, path: Path, spec: DelimitedSpec, needs: Collection[str] = (), allows: Collection[str] | None = None
    ) -> None:
        """Read the header, choose the encoding and check the columns.

        Raises `InvalidArgument` MAPPING_COLUMN_MISSING, naming the column and the nearest there is, where the file
        lacks one of `needs` or has one beside `allows`; MAPPING_INVALID for an encoding nobody knows.
        """
        self._path = path
        self._spec = spec
        self._nulls = frozenset(spec.null_words)
        self._done = 0
        with _open(path) as stream:
            self._total = path.stat().st_size
            self._codec, self._layout = self._choose(stream, needs, allows)

    @property
    def done(self) -> int:
        """Bytes read."""
        return self._done

    @property
    def total(self) -> int | None:
        """Bytes there are."""
        return self._total

    @property
    def layout(self) -> tuple[str, ...]:
        """Column names in order; a name that stands twice has `#2` behind it the second time."""
        return self._layout

    @property
    def encoding(self) -> str:
        """The encoding the file is read in."""
        return self._codec.name

    def __iter__(self) -> Iterator[Row | Unreadable]:
        """Read on, and close the file at its end."""
        with _open(self._path) as stream:
            records = self._records(stream, self._codec)
            if self._spec.header:
                next(iter(records), None)
            for record in records:
                self._done = records.done
                yield _row(record, self._layout, self._nulls)
            self._done = records.done

    def _choose(
        self, stream: BinaryIO, needs: Collection[str], allows: Collection[str] | None
    ) -> tuple[Codec, tuple[str, ...]]:
        fitting: list[tuple[Codec, tuple[str, ...]]] = []
        problem: InvalidArgument | None = None
        for name in self._spec.encoding:
            try:
                fitting.append(self._fit(stream, name, needs, allows))
            except InvalidArgument as error:
                problem = problem or error
        if problem is not None and not fitting:
            raise problem
        if len(fitting) == 1:
            return fitting[0]
        return next((f for f in fitting if decodes(stream, f[0]) or mostly_decodes(stream, f[0])), fitting[0])

    def _fit(
        self, stream: BinaryIO, encoding: str, needs: Collection[str], allows: Collection[str] | None
    ) -> tuple[Codec, tuple[str, ...]]:
        stream.seek(0)
        try:
            codec = Codec.of(encoding, stream.read(_HEAD))
        except LookupError as error:
            raise InvalidArgument(Reason.MAPPING_INVALID, f"{self._path.name}: {error}") from None
        if not self._spec.header:
            return codec, tuple(self._spec.columns)
        layout = self._header(self._records(stream, codec), encoding)
        check_columns(self._path.name, layout, needs, allows)
        return codec, layout

    def _records(self, stream: BinaryIO, codec: Codec) -> Records:
        records = Records(stream, codec, self._spec.delimiter, self._spec.quote)
        records.skip(self._spec.skip_lines)
        return records

    def _header(self, records: Records, encoding: str) -> tuple[str, ...]:
        record = next(iter(records), None)
        if record is None or record.problem is not None:
            why = "is empty" if record is None else f"does not read as {encoding}: {record.detail or record.problem}"
            message = f"{self._path.name}: the header {why}"
            raise InvalidArgument(Reason.MAPPING_COLUMN_MISSING, message, source=self._path.name)
        seen: Counter[str] = Counter()
        names: list[str] = []
        for name in (cell.strip() for cell in record.cells):
            seen[name] += 1
            names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        return tuple(names)


def decodes(stream: BinaryIO, codec: Codec) -> bool:
    """Tell whether a whole stream decodes."""
    decoder = codecs.getincrementaldecoder(codec.name)()
    stream.seek(len(codec.bom))
    try:
        while chunk := stream.read(_CHUNK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def mostly_decodes(stream: BinaryIO, codec: Codec) -> bool:
    """Tell whether at least half of the lines that are not plain ASCII decode.

    One broken line must not turn a file over to the next encoding of the list: some decode anything, to nonsense.
    """
    good = bad = 0
    for line in lines(stream, codec):
        if codec.wide or not line.raw.isascii():
            try:
                line.raw.decode(codec.name)
                good += 1
            except UnicodeDecodeError:
                bad += 1
    return bad <= good


def _open(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> InvalidArgument:
    """Word the error of a source that cannot be opened."""
    return InvalidArgument(
        Reason.MALFORMED_REQUEST, f"the source {path.name} cannot be read: {error.strerror}", source=path.name
    )


def check_columns(
    source: str, layout: Collection[str], needs: Collection[str], allows: Collection[str] | None = None
) -> None:
    """Refuse a source that lacks a needed column, or has one that is not allowed, before any row of it is read.

    Raises `InvalidArgument` MAPPING_COLUMN_MISSING naming the column, and the nearest one.
    """
    for name in needs:
        if name not in layout:
            hint = nearest(name, layout) or f"; it has {', '.join(layout)}"
            message = f"{source}: there is no column {name!r}{hint}"
            raise InvalidArgument(Reason.MAPPING_COLUMN_MISSING, message, source=source, column=name)
    for name in layout if allows is not None else ():
        if name not in (allows or ()):
            message = f"{source}: no field goes by the column name {name!r}{nearest(name, allows or ())}"
            raise InvalidArgument(Reason.MAPPING_COLUMN_MISSING, message, source=source, column=name)


def _row(record: Record, layout: tuple[str, ...], nulls: frozenset[str]) -> Row | Unreadable:
    if record.problem is not None:
        return Unreadable(record.position, record.raw, record.problem, record.detail)
    if len(record.cells) != len(layout):
        detail = f"{len(record.cells)} columns where {len(layout)} were expected"
        return Unreadable(record.position, record.raw, Cause.COLUMN_COUNT, detail)
    return Row(record.position, record.raw, Cells(_cells(record.cells, layout, nulls)))


def _cells(cells: list[str], layout: tuple[str, ...], nulls: frozenset[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, cell in zip(layout, cells, strict=True):
        text = cell.strip()
        found[name] = text if text and text not in nulls else None
    return found


def again(spec: DelimitedSpec, layout: tuple[str, ...], position: str, original: bytes) -> Row | Unreadable:
    """Read one row's bytes again, out of quarantine: in the first encoding of the list in which they decode."""
    found: Row | Unreadable | None = None
    for encoding in spec.encoding:
        codec = Codec.of(encoding, b"")
        records = list(Records(io.BytesIO(original), codec, spec.delimiter, spec.quote, max(len(original), 1)))
        if len(records) != 1:
            found = found or Unreadable(position, original, Cause.COLUMN_COUNT, f"{len(records)} rows where one was")
            continue
        row = _row(records[0], layout, frozenset(spec.null_words))
        if isinstance(row, Row):
            return Row(position, original, row.values)
        found = found or Unreadable(position, original, row.reason, row.detail)
    return found or Unreadable(position, original, Cause.NOT_DECODABLE, "no encoding is given")
