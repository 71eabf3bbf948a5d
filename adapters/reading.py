"""A mapping at work on a source: what the ingest consumes, the command line shows progress of, and quarantine retries.

    reading = read(mapping, "registry.csv")
    for outcome in reading:          # Mapped or Unmapped, one for every row
        ...reading.done, reading.total

Every row of the source comes out, in the source's order, as exactly one of the two.
"""

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from adapters import delimited, sql, wco
from adapters.delimited import Delimited
from adapters.document import DelimitedSpec, SqlSpec, WcoSpec
from adapters.mapping import Mapper, Mapping
from adapters.parsers import Secrets
from adapters.rows import Mapped, Row, Source, Unmapped, Unreadable
from adapters.sql import LiveRows, SqlTable
from adapters.wco import Wco
from services.kit.errors import InvalidArgument, Reason
from services.kit.records import values

Location = str | Path | sa.Engine
"""Where a source is: a path, a database URL, or an engine that is open already."""


class Reading:
    """One reading of a source through a mapping; iterate it once."""

    def __init__(self, mapper: Mapper, source: Source) -> None:
        self._mapper = mapper
        self._source = source

    @property
    def mapping(self) -> Mapping:
        """The mapping."""
        return self._mapper.mapping

    @property
    def done(self) -> int:
        """How much was read: bytes of a file, rows of a table."""
        return self._source.done

    @property
    def total(self) -> int | None:
        """How much there is, in the same unit; None where that is not known."""
        return self._source.total

    @property
    def layout(self) -> tuple[str, ...]:
        """What `retry` needs to know beside a row's bytes: the column names of a delimited file."""
        return self._source.layout

    @property
    def resume(self) -> str | None:
        """Where the next reading of a table may start; None for sources that are read whole."""
        return self._source.resume if isinstance(self._source, SqlTable) else None

    def __iter__(self) -> Iterator[Mapped | Unmapped]:
        """Read and map on."""
        return map(self._mapper.map, self._source)


def open_source(mapping: Mapping, location: Location, since: str | None = None) -> Source:
    """Open the source a mapping is for, and check its columns.

    Raises `InvalidArgument`: MAPPING_COLUMN_MISSING naming column and nearest, MALFORMED_REQUEST where there is nothing
    to read.
    """
    spec = mapping.document.source
    if isinstance(spec, SqlSpec):
        engine = location if isinstance(location, sa.Engine) else sql.engine_for(str(location))
        return SqlTable(engine, spec, mapping.needs, since)
    if isinstance(location, sa.Engine):
        message = f"mapping {mapping.name} reads files, not a database"
        raise InvalidArgument(Reason.MALFORMED_REQUEST, message, mapping=mapping.name)
    path = Path(location)
    if isinstance(spec, WcoSpec):
        return Wco(path, spec)
    return Delimited(path, spec, mapping.needs, mapping.allows)


def read(mapping: Mapping, location: Location, secrets: Secrets | None = None, since: str | None = None) -> Reading:
    """Open a source and read it through a mapping.

    Raises like `Mapper` and `open_source`, before any row is read.
    """
    return Reading(Mapper(mapping, secrets), open_source(mapping, location, since))


def retry(
    mapping: Mapping,
    position: str,
    original: bytes,
    secrets: Secrets | None = None,
    layout: tuple[str, ...] = (),
) -> Mapped | Unmapped:
    """Map one row's bytes again, out of quarantine, with the mapping as it is now.

    `layout` is the reading's, where it is known; without it the columns the mapping expects are taken.
    """
    spec = mapping.document.source
    row: Row | Unreadable
    if isinstance(spec, DelimitedSpec):
        columns = layout or tuple(spec.columns)
        if not columns:
            message = f"mapping {mapping.name} names no columns: a single row of it cannot be read again"
            raise InvalidArgument(Reason.MAPPING_INVALID, message, mapping=mapping.name)
        row = delimited.again(spec, columns, position, original)
    elif isinstance(spec, WcoSpec):
        row = wco.again(spec, position, original)
    else:
        row = sql.again(spec, position, original)
    return Mapper(mapping, secrets).map(row)


class LiveTable:
    """A legacy table read live through a mapping: asked by field, answered in records, nothing copied."""

    def __init__(self, mapping: Mapping, location: str | sa.Engine, secrets: Secrets | None = None) -> None:
        """Check table and columns.

        Raises `InvalidArgument` where the mapping is not for a table or does not fit it, or where a field of the key or
        of a subject cannot be searched, since questions are asked by these; `Unavailable` where no database answers.
        """
        spec = mapping.document.source
        if not isinstance(spec, SqlSpec):
            message = f"mapping {mapping.name} is for {spec.kind}: only a table can be read live"
            raise InvalidArgument(Reason.MAPPING_INVALID, message, mapping=mapping.name)
        self._mapper = Mapper(mapping, secrets)
        engine = location if isinstance(location, sa.Engine) else sql.engine_for(location)
        self._rows = LiveRows(engine, spec, mapping.needs)
        record = mapping.record
        asked_by = {f.path for f in (*record.key_fields, *(f for several in record.subjects.values() for f in several))}
        for path in sorted(asked_by & mapping.document.fields.keys()):
            self._mapper.lookup_column(path)

    def read(self, limit: int, /, **fields: str) -> Iterator[Mapped | Unmapped]:
        """Read as `fetch` does; where a field is not mapped at all, no record has a value in it, and none is found."""
        return self.fetch(limit, **fields) if fields.keys() <= self._mapper.mapping.document.fields.keys() else iter(())

    def fetch(self, limit: int = 200, /, **fields: str) -> Iterator[Mapped | Unmapped]:
        """Read the records whose fields have these canonical values.

        Raises `InvalidArgument` where a field is not mapped from a plain column and cannot be searched.
        """
        columns = {self._mapper.lookup_column(path): text for path, text in fields.items()}
        for row in self._rows.where(columns, limit):
            outcome = self._mapper.map(row)
            if isinstance(outcome, Unmapped) or self._holds(outcome, fields):
                yield outcome

    def _holds(self, outcome: Mapped, fields: dict[str, str]) -> bool:
        # The database's idea of equal (case, padding) may be wider than ours.
        record = self._mapper.mapping.record
        return all(
            values.text_of(record.field(path).descriptor, getattr(outcome.message, path)) == text
            for path, text in fields.items()
        )
