"""What every batch asks of the database, asked of its driver.

SQLAlchemy connects, and does whatever is rare: for each batch and each row it would cost more than all the rest. And a
driver lets go of Python's lock at every step of a statement, and under load it takes long to get it back; so rows are
inserted many at a time.
"""

import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy.engine.interfaces import DBAPICursor

Columns = Sequence[Sequence[Any]]
"""Rows, column by column; all columns are of one length."""

_HEAD: Final = "SELECT size, frontier, checkpoint, time FROM log_head"
_ROWS: Final = 32
"""Most rows of a statement for SQLite. Each number of rows is a statement of its own: of all tables together these are
fewer than the 128 that the driver keeps prepared."""


class HeadRow(NamedTuple):
    """The row of a log's head."""

    size: int
    frontier: bytes
    checkpoint: str
    time: dt.datetime | None


class Driver(Protocol):
    """How one kind of database is spoken to. Cursors are of a connection with nothing begun on it."""

    def lock(self, cursor: DBAPICursor) -> HeadRow | None:
        """Begin a transaction, lock the head, and read it; None where there is none."""
        ...

    def insert(self, cursor: DBAPICursor, table: str, names: tuple[str, ...], columns: Columns) -> None:
        """Insert rows."""
        ...

    def update(self, cursor: DBAPICursor, head: HeadRow) -> None:
        """Replace the head."""
        ...


class Sqlite:
    """SQLite, by Python's own driver."""

    def lock(self, cursor: DBAPICursor) -> HeadRow | None:
        """See `Driver`."""
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute(_HEAD)
        row = cursor.fetchone()
        if row is None:
            return None
        size, frontier, checkpoint, time = row
        return HeadRow(
            size, frontier, checkpoint, dt.datetime.fromisoformat(time).replace(tzinfo=dt.UTC) if time else None
        )

    def insert(self, cursor: DBAPICursor, table: str, names: tuple[str, ...], columns: Columns) -> None:
        """See `Driver`."""
        width, count = len(columns), len(columns[0])
        for start in range(0, count, _ROWS):
            rows = min(count - start, _ROWS)
            flat: list[Any] = [None] * (width * rows)
            for at, column in enumerate(columns):
                flat[at::width] = column[start : start + rows]
            cursor.execute(_values(table, names, rows), flat)

    def update(self, cursor: DBAPICursor, head: HeadRow) -> None:
        """See `Driver`."""
        # As SQLAlchemy writes it, which reads it elsewhere.
        time = head.time.astimezone(dt.UTC).replace(tzinfo=None).isoformat(" ", "microseconds") if head.time else None
        cursor.execute("UPDATE log_head SET size = ?, frontier = ?, checkpoint = ?, time = ?", (*head[:3], time))


class Postgres:
    """PostgreSQL, by psycopg."""

    def lock(self, cursor: DBAPICursor) -> HeadRow | None:
        """See `Driver`."""
        cursor.execute(f"{_HEAD} FOR UPDATE")
        row = cursor.fetchone()
        return None if row is None else HeadRow(*row)

    def insert(self, cursor: DBAPICursor, table: str, names: tuple[str, ...], columns: Columns) -> None:
        """See `Driver`."""
        if columns[0]:
            cursor.execute(_unnest(table, names), [list(column) for column in columns])

    def update(self, cursor: DBAPICursor, head: HeadRow) -> None:
        """See `Driver`."""
        cursor.execute("UPDATE log_head SET size = %s, frontier = %s, checkpoint = %s, time = %s", head)


@cache
def _values(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({_quoted(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - names of ours


_ARRAYS: Final = {
    "leaf_hash": "bytea",
    "entry": "bytea",
    "hash": "bytea",
    "opening": "bytea",
    "index": "bigint",
    "level": "smallint",
}


@cache
def _unnest(table: str, columns: tuple[str, ...]) -> str:
    arrays = ", ".join(f"%b::{_ARRAYS.get(name, 'text')}[]" for name in columns)
    return f"INSERT INTO {table} ({_quoted(columns)}) SELECT * FROM unnest({arrays})"  # noqa: S608 - names of ours


def _quoted(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def of(dialect: str) -> Driver:
    """Get what speaks to databases of a dialect."""
    return Postgres() if dialect == "postgresql" else Sqlite()
