"""Inserts that leave out what is there already, in either database."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert


def insert_or_ignore(connection: sa.Connection, table: sa.Table) -> Any:
    """Make an INSERT that leaves out what a unique index has already; the result's `rowcount` tells.

    On PostgreSQL it first waits for a transaction that is putting the same in, so that what comes after it sees the
    other's row.
    """
    insert = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
    # Without the option, some drivers' rowcount is that nobody counted.
    return insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
