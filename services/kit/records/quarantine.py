"""Quarantine: what a source held and no record could be made of, with the reason and the original bytes.

An entry is one row of one source under one mapping. It is known again by its content, and by its count where the same
content stands in the source several times; not by its line, which moves when the source grows. So reading a source
again adds no entries: it only says that they were seen again.
"""

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from services.kit.errors import InvalidArgument, NotFound, Reason
from services.kit.records.store import RecordStore
from services.kit.records.tables import Tables

_LOOKUP = 500
_ID = 20
"""Hexadecimal digits of an id: 80 bits are unique enough, and short enough to be typed."""


class Standing(StrEnum):
    """What has become of an entry."""

    OPEN = "OPEN"
    RESOLVED = "RESOLVED"
    """It was driven again, or its source was read again, and became a record."""
    DISMISSED = "DISMISSED"
    """Somebody decided that it need not become one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row in quarantine."""

    id: str
    run_id: str
    """Run that saw it last."""
    record_type: str
    mapping: str
    source: str
    position: str
    reason: str
    detail: str
    original: bytes
    first_seen: dt.datetime
    last_seen: dt.datetime
    times_seen: int
    state: Standing
    resolved_run_id: str | None
    layout: tuple[str, ...]
    """Column names that the original bytes need to be read again; empty where they carry their own."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row on its way into quarantine."""

    id: str
    position: str
    original: bytes
    reason: str
    detail: str


class Identities:
    """Gives the rows of one run of one source their identity, the same in every run."""

    def __init__(self, mapping: str, source: str, record_type: str) -> None:
        self._start = hashlib.sha256("\x00".join((mapping, source, record_type, "")).encode())
        self._times: Counter[bytes] = Counter()

    def of(self, original: bytes) -> str:
        """Get the identity of the next row with this content; call it once for every row."""
        content = self._start.copy()
        content.update(original)
        digest = content.digest()
        self._times[digest] += 1
        return hashlib.sha256(digest + self._times[digest].to_bytes(8)).hexdigest()[:_ID]


class Quarantine:
    """The quarantine of one department."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._table = store.tables.quarantine

    async def entries(
        self,
        *,
        state: Standing | None = Standing.OPEN,
        mapping: str = "",
        reason: str = "",
        limit: int = 100,
        after: str = "",
    ) -> tuple[Entry, ...]:
        """List entries in the order of their ids, after an id where one is given."""
        t = self._table
        select = self._select().where(t.c.id > after).order_by(t.c.id).limit(limit)
        for column, value in ((t.c.state, state), (t.c.mapping, mapping), (t.c.reason, reason)):
            if value:
                select = select.where(column == value)
        rows = await self._store.read(lambda c: c.execute(select).mappings().all())
        return tuple(map(_entry, rows))

    async def get(self, entry_id: str) -> Entry:
        """Get an entry by its id or the beginning of one; raises `NotFound`, or `InvalidArgument` where several fit."""
        t = self._table
        select = self._select().where(t.c.id >= entry_id, t.c.id < f"{entry_id}g").order_by(t.c.id).limit(2)
        rows = await self._store.read(lambda c: c.execute(select).mappings().all())
        if not entry_id or not rows:
            raise NotFound(Reason.RECORD_NOT_FOUND, f"there is no quarantine entry {entry_id!r}")
        if len(rows) > 1:
            raise InvalidArgument(Reason.NAME_INVALID, f"several quarantine entries begin with {entry_id!r}")
        return _entry(rows[0])

    async def counts(self) -> dict[tuple[Standing, str], int]:
        """Count entries by state and reason."""
        t = self._table
        select = sa.select(t.c.state, t.c.reason, sa.func.count()).group_by(t.c.state, t.c.reason)
        rows = await self._store.read(lambda c: c.execute(select.order_by(t.c.state, t.c.reason)).all())
        return {(Standing(state), reason): number for state, reason, number in rows}

    async def dismiss(self, entry_id: str) -> None:
        """Decide that an open entry need not become a record; it stays, and stays findable."""
        t = self._table
        update = sa.update(t).where(t.c.id == entry_id, t.c.state == Standing.OPEN).values(state=Standing.DISMISSED)
        changed = await self._store.write(lambda c: c.execute(update).rowcount)
        if not changed:
            raise NotFound(Reason.RECORD_NOT_FOUND, f"there is no open quarantine entry {entry_id!r}")

    def _select(self) -> sa.Select[Any]:
        runs = self._store.tables.ingest_run
        return sa.select(self._table, runs.c.layout).join(runs, runs.c.id == self._table.c.run_id)


def _entry(row: sa.RowMapping) -> Entry:
    values: dict[str, Any] = dict(row)
    values["state"], values["layout"] = Standing(row["state"]), tuple(json.loads(row["layout"]))
    return Entry(**values)


def record(
    connection: sa.Connection,
    tables: Tables,
    now: dt.datetime,
    *,
    run_id: str,
    mapping: str,
    source: str,
    record_type: str,
    rejected: Sequence[Rejected],
) -> None:
    """Put rows into quarantine, inside a writer's transaction; those that are there already were seen again.

    An entry that was resolved and fails again is open again; a dismissed one stays dismissed.
    """
    t = tables.quarantine
    there = present(connection, t, [r.id for r in rejected])
    seen = [
        {"b_id": r.id, "b_position": r.position, "b_reason": r.reason, "b_detail": r.detail}
        for r in rejected
        if r.id in there
    ]
    if seen:
        reopened = sa.case((t.c.state == Standing.DISMISSED, t.c.state), else_=Standing.OPEN)
        update = sa.update(t).where(t.c.id == sa.bindparam("b_id"))
        update = update.values(
            run_id=run_id,
            position=sa.bindparam("b_position"),
            reason=sa.bindparam("b_reason"),
            detail=sa.bindparam("b_detail"),
            last_seen=now,
            times_seen=t.c.times_seen + 1,
            state=reopened,
            resolved_run_id=None,
        )
        connection.execute(update, seen)
    new = [
        {
            "id": r.id,
            "run_id": run_id,
            "record_type": record_type,
            "mapping": mapping,
            "source": source,
            "position": r.position,
            "reason": r.reason,
            "detail": r.detail,
            "original": r.original,
            "first_seen": now,
            "last_seen": now,
            "times_seen": 1,
            "state": Standing.OPEN,
        }
        for r in rejected
        if r.id not in there
    ]
    if new:
        connection.execute(sa.insert(t), new)


def resolve(connection: sa.Connection, tables: Tables, run_id: str, ids: Sequence[str]) -> None:
    """Mark entries as having become records, inside a writer's transaction."""
    t = tables.quarantine
    update = sa.update(t).where(t.c.id.in_(sa.bindparam("ids", expanding=True)))
    for start in range(0, len(ids), _LOOKUP):
        connection.execute(
            update.values(state=Standing.RESOLVED, resolved_run_id=run_id), {"ids": ids[start : start + _LOOKUP]}
        )


def refuse(connection: sa.Connection, tables: Tables, rejected: Sequence[Rejected]) -> None:
    """Write down why entries that were driven again still became no records, inside a writer's transaction."""
    t = tables.quarantine
    if rejected:
        update = sa.update(t).where(t.c.id == sa.bindparam("b_id"))
        connection.execute(
            update.values(reason=sa.bindparam("b_reason"), detail=sa.bindparam("b_detail")),
            [{"b_id": r.id, "b_reason": r.reason, "b_detail": r.detail} for r in rejected],
        )


def still_open(connection: sa.Connection, tables: Tables, ids: Sequence[str]) -> set[str]:
    """Tell which of these entries are open."""
    return present(connection, tables.quarantine, ids, tables.quarantine.c.state == Standing.OPEN)


def present(connection: sa.Connection, table: sa.Table, ids: Sequence[str], *where: sa.ColumnElement[bool]) -> set[str]:
    """Tell which of these ids a table has."""
    select = sa.select(table.c.id).where(table.c.id.in_(sa.bindparam("ids", expanding=True)), *where)
    return {
        found
        for start in range(0, len(ids), _LOOKUP)
        for found in connection.execute(select, {"ids": ids[start : start + _LOOKUP]}).scalars()
    }
