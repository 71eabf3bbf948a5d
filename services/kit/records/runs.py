"""Ingest runs: what was read from where, by which mapping, and what became of it."""

import datetime as dt
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import sqlalchemy as sa

from services.kit.records.tables import Tables


class RunState(StrEnum):
    """How a run stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"
    """Its process ended without a word; a later run of the same source found it so."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is read, and how."""

    mapping: str
    record_type: str
    """Short name of what the mapping makes, also for rows that became nothing."""
    source: str
    """A name that stays the same when the same source is read again: rows are known again by it."""
    source_system: str
    """What records say they come from."""
    mapping_version: str = ""
    source_digest: str = ""
    layout: tuple[str, ...] = ()
    """Column names that a single row's bytes need to be read again."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the rows read so far: `loaded + unchanged + quarantined == read`, always."""

    run_id: str
    read: int = 0
    loaded: int = 0
    unchanged: int = 0
    quarantined: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many rows went to quarantine, by reason."""

    def plus(self, *, loaded: int, unchanged: int, reasons: Mapping[str, int]) -> "Report":
        """Add what became of some more rows."""
        quarantined = sum(reasons.values())
        return Report(
            self.run_id,
            self.read + loaded + unchanged + quarantined,
            self.loaded + loaded,
            self.unchanged + unchanged,
            self.quarantined + quarantined,
            {r: self.reasons.get(r, 0) + reasons.get(r, 0) for r in sorted({*self.reasons, *reasons})},
        )


def begin(connection: sa.Connection, tables: Tables, now: dt.datetime, info: RunInfo) -> str:
    """Write down that a run begins; gives its id. Unfinished runs of the same source count as abandoned."""
    runs = tables.ingest_run
    unfinished = (runs.c.mapping == info.mapping, runs.c.source == info.source, runs.c.state == RunState.RUNNING)
    connection.execute(sa.update(runs).where(*unfinished).values(state=RunState.ABANDONED))
    run_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    row = {
        "id": run_id,
        "mapping": info.mapping,
        "mapping_version": info.mapping_version,
        "record_type": info.record_type,
        "source": info.source,
        "source_digest": info.source_digest,
        "source_system": info.source_system,
        "layout": json.dumps(info.layout, ensure_ascii=False),
        "state": RunState.RUNNING,
        "started_at": now,
        "read": 0,
        "loaded": 0,
        "unchanged": 0,
        "quarantined": 0,
        "detail": "",
    }
    connection.execute(sa.insert(runs), [row])
    return run_id


def advance(connection: sa.Connection, tables: Tables, report: Report) -> None:
    """Write down what became of the rows read so far."""
    runs = tables.ingest_run
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == report.run_id)
        .values(read=report.read, loaded=report.loaded, unchanged=report.unchanged, quarantined=report.quarantined)
    )


def finish(
    connection: sa.Connection, tables: Tables, now: dt.datetime, run_id: str, state: RunState, detail: str
) -> None:
    """Write down how a run ended."""
    runs = tables.ingest_run
    connection.execute(sa.update(runs).where(runs.c.id == run_id).values(state=state, finished_at=now, detail=detail))


def set_watermark(connection: sa.Connection, tables: Tables, info: RunInfo, run_id: str, value: str) -> None:
    """Write down how far a growing source was read."""
    marks = tables.watermark
    mine = (marks.c.mapping == info.mapping, marks.c.source == info.source)
    if not connection.execute(sa.update(marks).where(*mine).values(value=value, run_id=run_id)).rowcount:
        row = {"mapping": info.mapping, "source": info.source, "value": value, "run_id": run_id}
        connection.execute(sa.insert(marks), [row])


def get_watermark(connection: sa.Connection, tables: Tables, mapping: str, source: str) -> str | None:
    """Get how far a growing source was read; None where it never was."""
    marks = tables.watermark
    select = sa.select(marks.c.value).where(marks.c.mapping == mapping, marks.c.source == source)
    return connection.execute(select).scalar()
