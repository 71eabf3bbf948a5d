"""What the first migration of every room does, so that thirty tables need not say it thirty times.

Frozen: databases exist that were made by it. Whatever changes in `services.kit.records.tables` later is a later
revision, with `op.create_table` and `op.add_column` of its own.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

TEXT: sa.types.TypeEngine[str] = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text, ordered by code point."""

MOMENT = sa.DateTime(timezone=True)
"""A moment, in UTC."""

_CURRENT = sa.text("_superseded_at IS NULL")
_OWN = ("quarantine", "ingest_run", "watermark", "applied_row", "change_clock")


def create_own_tables() -> None:
    """Create the tables that every department's database has."""
    op.create_table(
        "change_clock",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("moment", MOMENT),
        sa.CheckConstraint("id = 1", name="change_clock_one_row"),
    )
    op.execute("INSERT INTO change_clock (id, seq, moment) VALUES (1, 0, NULL)")
    _create_run_and_quarantine()
    op.create_table("applied_row", sa.Column("id", TEXT, primary_key=True), sa.Column("run_id", TEXT, nullable=False))
    op.create_table(
        "watermark",
        sa.Column("mapping", TEXT, primary_key=True),
        sa.Column("source", TEXT, primary_key=True),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
    )


def _create_run_and_quarantine() -> None:
    op.create_table(
        "ingest_run",
        sa.Column("id", TEXT, primary_key=True),
        *_required(TEXT, "mapping", "mapping_version", "record_type", "source", "source_digest", "source_system"),
        *_required(TEXT, "layout", "state"),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        *_required(sa.BigInteger(), "read", "loaded", "unchanged", "quarantined"),
        *_required(TEXT, "detail"),
        sa.CheckConstraint("loaded + unchanged + quarantined = read", name="ingest_run_balanced"),
    )
    op.create_index("ingest_run_source_ix", "ingest_run", ["mapping", "source"])
    op.create_table(
        "quarantine",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("run_id", TEXT, sa.ForeignKey("ingest_run.id", name="quarantine_run_fk"), nullable=False),
        *_required(TEXT, "record_type", "mapping", "source", "position", "reason", "detail"),
        *_required(sa.LargeBinary(), "original"),
        *_required(MOMENT, "first_seen", "last_seen"),
        *_required(sa.Integer(), "times_seen"),
        *_required(TEXT, "state"),
        sa.Column("resolved_run_id", TEXT, sa.ForeignKey("ingest_run.id", name="quarantine_resolved_fk")),
    )
    op.create_index("quarantine_source_ix", "quarantine", ["mapping", "source", "state"])
    op.create_index("quarantine_state_ix", "quarantine", ["state", "first_seen"])


def create_record_table(
    name: str, *columns: sa.Column[Any], whole: Iterable[str] = (), current: Iterable[str] = ()
) -> None:
    """Create a record type's table: the versions' own columns, then `columns`.

    `whole` names columns indexed over all versions, `current` those indexed over the versions in force.
    """
    op.create_table(
        name,
        sa.Column("_key", TEXT, primary_key=True),
        sa.Column("_version", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("_seq", sa.BigInteger(), nullable=False),
        sa.Column("_state", sa.SmallInteger(), nullable=False),
        sa.Column("_fact_time", MOMENT),
        sa.Column("_recorded_at", MOMENT, nullable=False),
        sa.Column("_superseded_at", MOMENT),
        *_required(TEXT, "_source_system", "_run_id", "_position"),
        *_required(sa.LargeBinary(), "_digest", "_body"),
        *columns,
    )
    op.create_index(f"{name}_seq_uq", name, ["_seq"], unique=True)
    op.create_index(f"{name}_current_uq", name, ["_key"], unique=True, sqlite_where=_CURRENT, postgresql_where=_CURRENT)
    for column in whole:
        op.create_index(f"{name}_{column}_ix", name, [column, "_key"])
    for column in current:
        op.create_index(f"{name}_{column}_ix", name, [column, "_key"], sqlite_where=_CURRENT, postgresql_where=_CURRENT)


def drop_tables(*names: str) -> None:
    """Drop record tables and the tables that every department's database has."""
    for name in (*names, *_OWN):
        op.drop_table(name)


def _required(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]
