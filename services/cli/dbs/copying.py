"""Copies of a database, table by table, into another that is empty: whatever the two are kept in.

A copy is made of rows and not of pages: what was erased is not in it, and what SQLite wrote PostgreSQL can read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from services.cli.dbs.places import Place
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import migrations
from services.kit.records.database import engine, sync_url, translated
from services.kit.records.migrations import Standing

Progress = Callable[[str, int], None]
"""Told of each table how many rows were copied."""

_ROWS: Final = 1000
"""Rows in memory at a time; of the largest there may be, tens of megabytes."""


def copy(source: sa.Connection, place: Place, progress: Progress | None = None) -> dict[str, int]:
    """Fill an empty database from another of the same revision, in one transaction; gives the rows of each table.

    Raises `FailedPrecondition` FOLDER_NOT_EMPTY where there is anything in it.
    """
    state = migrations.look(place.url, place.folder)
    if state.standing is not Standing.NEW:
        message = f"the {place.name}'s database is not empty; nothing is written over"
        raise FailedPrecondition(Reason.FOLDER_NOT_EMPTY, message)
    migrations.upgrade(place.url, place.folder)
    made = engine(place.url, writer=True, application="hutong-migrations")
    try:
        with translated(), made.begin() as target:
            if target.dialect.name == "postgresql":
                target.exec_driver_sql("SET LOCAL statement_timeout = 0")
                target.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            return {table.name: _copy(source, target, table, progress) for table in place.metadata.sorted_tables}
    finally:
        made.dispose()


def _copy(source: sa.Connection, target: sa.Connection, table: sa.Table, progress: Progress | None) -> int:
    # What migrations put in themselves, the one row of a clock say, comes from the source as well.
    target.execute(sa.delete(table))
    count = 0
    found = source.execute(sa.select(table).execution_options(yield_per=_ROWS))
    for rows in found.mappings().partitions():
        target.execute(sa.insert(table), [dict(row) for row in rows])
        count += len(rows)
        if progress:
            progress(table.name, count)
    return count


def close(place: Place) -> None:
    """Make a SQLite database that was written one file: nothing of it lies beside it any more."""
    made = sa.create_engine(sa.URL.create("sqlite", database=str(file_of(place))))
    try:
        with made.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
    finally:
        made.dispose()


def file_of(place: Place) -> Path:
    """Say where a SQLite database lies."""
    return Path(str(sync_url(place.url).database))
