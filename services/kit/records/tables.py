"""Tables derived from the record types: one per type, plus the few every department's database has.

Columns that start with an underscore are the store's own; protobuf names never do, so they cannot clash. Every version
of a record is a row. Rows are only ever added, except that a version's end (`_superseded_at`) is written once, when the
next version comes. The migrations of a room must give exactly these tables; a test compares.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from services.kit.errors import FailedPrecondition, Reason
from services.kit.records.catalogue import Field, RecordType
from services.kit.records.values import Kind

TEXT_LIMIT = 1024
"""Most bytes of a key or an indexed text: two of them still fit PostgreSQL's index entries (a third of a page)."""


class UtcDateTime(sa.TypeDecorator[dt.datetime]):
    """Moments: aware and in UTC on both sides, also where the database (SQLite) knows no zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Refuse naive datetimes, turn the others to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime is no moment")
        return value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Give the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def moment_of_text(value: str) -> dt.datetime:
    """Read a moment as SQLite keeps it, where it comes straight from the driver."""
    return dt.datetime.fromisoformat(value + "+00:00")


def moment_of_driver(value: dt.datetime) -> dt.datetime:
    """Read a moment as PostgreSQL's driver gives it."""
    return value.astimezone(dt.UTC)


def text_type() -> sa.types.TypeEngine[str]:
    """Make the type of text columns: ordered by code point in every database, as Python orders."""
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _column_type(field: Field) -> sa.types.TypeEngine[Any]:
    match field.kind:
        case Kind.STRING | Kind.DATE | Kind.PERIOD:
            return text_type()
        case Kind.BOOL:
            return sa.Boolean()
        case Kind.ENUM:
            return sa.Integer()
        case Kind.INT | Kind.DECIMAL | Kind.MONEY | Kind.QUANTITY:
            return sa.BigInteger()
        case Kind.TIMESTAMP:
            return UtcDateTime()
        case Kind.BYTES | Kind.PART:
            raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{field.path}: a field of type {field.kind} has no column")


def table_name(record_type: RecordType) -> str:
    """Name a record type's table: `clearance_event` for `customs.ClearanceEvent`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", record_type.name.rpartition(".")[2]).lower()


@dataclass(frozen=True, slots=True)
class RecordTable:
    """A record type's table, with its columns at hand."""

    record_type: RecordType
    table: sa.Table
    columns: Mapping[str, sa.Column[Any]]
    """Columns of the indexed fields, by field path."""
    key: sa.Column[str]
    version: sa.Column[int]
    seq: sa.Column[int]
    state: sa.Column[int]
    fact_time: sa.Column[dt.datetime | None]
    recorded_at: sa.Column[dt.datetime]
    superseded_at: sa.Column[dt.datetime | None]
    source_system: sa.Column[str]
    digest: sa.Column[bytes]
    body: sa.Column[bytes]


def _record_table(metadata: sa.MetaData, record_type: RecordType) -> RecordTable:
    name = table_name(record_type)
    if name in metadata.tables:
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{record_type.name}: there are two tables {name!r}")
    fields = {f.path: sa.Column(f.name, _column_type(f)) for f in record_type.indexed}
    table = sa.Table(
        name,
        metadata,
        sa.Column("_key", text_type(), primary_key=True),
        sa.Column("_version", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("_seq", sa.BigInteger(), nullable=False),
        sa.Column("_state", sa.SmallInteger(), nullable=False),
        sa.Column("_fact_time", UtcDateTime()),
        sa.Column("_recorded_at", UtcDateTime(), nullable=False),
        sa.Column("_superseded_at", UtcDateTime()),
        sa.Column("_source_system", text_type(), nullable=False),
        sa.Column("_run_id", text_type(), nullable=False),
        sa.Column("_position", text_type(), nullable=False),
        sa.Column("_digest", sa.LargeBinary(), nullable=False),
        sa.Column("_body", sa.LargeBinary(), nullable=False),
        *fields.values(),
    )
    own = {column: table.c[f"_{column}"] for column in RecordTable.__slots__ if f"_{column}" in table.c}
    found = RecordTable(record_type, table, fields, **own)
    _add_indexes(found)
    return found


def _add_indexes(table: RecordTable) -> None:
    name, current = table.table.name, table.superseded_at.is_(None)
    sa.Index(f"{name}_seq_uq", table.seq, unique=True)
    # Also the promise that a record has one version in force at most.
    sa.Index(f"{name}_current_uq", table.key, unique=True, sqlite_where=current, postgresql_where=current)
    for field in table.record_type.indexed:
        column = table.columns[field.path]
        if field.subject:
            # Whole, not partial: the question about a subject is the common one, also for the past.
            sa.Index(f"{name}_{field.name}_ix", column, table.key)
        elif field.kind not in {Kind.BOOL, Kind.ENUM} and table.record_type.key_fields != (field,):
            # A handful of values is no use as an index, and a key that is one field has its index already.
            sa.Index(f"{name}_{field.name}_ix", column, table.key, sqlite_where=current, postgresql_where=current)


@dataclass(frozen=True, slots=True)
class InboxTables:
    """The tables of an inbox."""

    event: sa.Table
    position: sa.Table
    """How far each source's log has been kept."""
    clock: sa.Table
    """One row: the last position given. Whoever keeps events locks it, so that positions are committed in order."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Every table of one department's database."""

    metadata: sa.MetaData
    records: Mapping[str, RecordTable]
    """By the record type's short name."""
    change_clock: sa.Table
    """One row: the end of the change sequence and the moment it was reached. Writers lock it, so that changes come in
    order: whatever is recorded later has a greater number and a later moment than what was there to be read."""
    ingest_run: sa.Table
    quarantine: sa.Table
    applied_row: sa.Table
    """Rows already applied, for sources whose every row is a version of its own."""
    watermark: sa.Table
    inbox: "InboxTables"
    """Events that other nodes sent, see `services.kit.events`."""

    def of(self, record_type: RecordType) -> RecordTable:
        """Get a record type's table; raises `FailedPrecondition` where this database does not hold the type."""
        try:
            return self.records[record_type.name]
        except KeyError:
            raise FailedPrecondition(
                Reason.RECORD_TYPE_NOT_OWNED, f"this store holds no {record_type.name}", record_type=record_type.name
            ) from None


def _change_clock(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "change_clock",
        metadata,
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("moment", UtcDateTime()),
        sa.CheckConstraint("id = 1", name="change_clock_one_row"),
    )


def _ingest_run(metadata: sa.MetaData) -> sa.Table:
    counts = [sa.Column(n, sa.BigInteger(), nullable=False) for n in ("read", "loaded", "unchanged", "quarantined")]
    return sa.Table(
        "ingest_run",
        metadata,
        sa.Column("id", text_type(), primary_key=True),
        sa.Column("mapping", text_type(), nullable=False),
        sa.Column("mapping_version", text_type(), nullable=False),
        sa.Column("record_type", text_type(), nullable=False),
        sa.Column("source", text_type(), nullable=False),
        sa.Column("source_digest", text_type(), nullable=False),
        sa.Column("source_system", text_type(), nullable=False),
        sa.Column("layout", text_type(), nullable=False),
        sa.Column("state", text_type(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime()),
        *counts,
        sa.Column("detail", text_type(), nullable=False),
        # Nothing that was read is ever lost: the database itself refuses a run whose sum does not come out.
        sa.CheckConstraint("loaded + unchanged + quarantined = read", name="ingest_run_balanced"),
        sa.Index("ingest_run_source_ix", "mapping", "source"),
    )


def _quarantine(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "quarantine",
        metadata,
        sa.Column("id", text_type(), primary_key=True),
        sa.Column("run_id", text_type(), sa.ForeignKey("ingest_run.id", name="quarantine_run_fk"), nullable=False),
        sa.Column("record_type", text_type(), nullable=False),
        sa.Column("mapping", text_type(), nullable=False),
        sa.Column("source", text_type(), nullable=False),
        sa.Column("position", text_type(), nullable=False),
        sa.Column("reason", text_type(), nullable=False),
        sa.Column("detail", text_type(), nullable=False),
        sa.Column("original", sa.LargeBinary(), nullable=False),
        sa.Column("first_seen", UtcDateTime(), nullable=False),
        sa.Column("last_seen", UtcDateTime(), nullable=False),
        sa.Column("times_seen", sa.Integer(), nullable=False),
        sa.Column("state", text_type(), nullable=False),
        sa.Column("resolved_run_id", text_type(), sa.ForeignKey("ingest_run.id", name="quarantine_resolved_fk")),
        sa.Index("quarantine_source_ix", "mapping", "source", "state"),
        sa.Index("quarantine_state_ix", "state", "first_seen"),
    )


def add_inbox(metadata: sa.MetaData) -> InboxTables:
    """Add the tables of an inbox to a database's."""
    event = sa.Table(
        "inbox_event",
        metadata,
        sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("source", text_type(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("event_id", text_type(), nullable=False),
        sa.Column("kind", text_type(), nullable=False),
        sa.Column("key", text_type(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("payload", text_type(), nullable=False),
        # Also the promise that an event that comes again is known.
        sa.Index("inbox_event_uq", "source", "event_id", unique=True),
        sa.Index("inbox_event_kind_ix", "kind", "position"),
        sa.Index("inbox_event_key_ix", "key", "position"),
    )
    position = sa.Table(
        "inbox_position",
        metadata,
        sa.Column("source", text_type(), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
    )
    clock = sa.Table(
        "inbox_clock",
        metadata,
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="inbox_clock_one_row"),
    )
    return InboxTables(event, position, clock)


def derive(types: Iterable[RecordType]) -> Tables:
    """Derive every table of a database that holds these record types.

    Raises `FailedPrecondition` with SCHEMA_INVALID where two tables would have one name.
    """
    metadata = sa.MetaData()
    clock, runs = _change_clock(metadata), _ingest_run(metadata)
    quarantine = _quarantine(metadata)
    applied = sa.Table(
        "applied_row",
        metadata,
        sa.Column("id", text_type(), primary_key=True),
        sa.Column("run_id", text_type(), nullable=False),
    )
    watermark = sa.Table(
        "watermark",
        metadata,
        sa.Column("mapping", text_type(), primary_key=True),
        sa.Column("source", text_type(), primary_key=True),
        sa.Column("value", text_type(), nullable=False),
        sa.Column("run_id", text_type(), nullable=False),
    )
    inbox = add_inbox(metadata)
    records = {t.name: _record_table(metadata, t) for t in types}
    return Tables(metadata, records, clock, runs, quarantine, applied, watermark, inbox)
