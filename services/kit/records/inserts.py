"""Inserts that leave out what is there already, or add to it, in either database."""

from collections.abc import Iterable, Mapping, Sequence
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


def insert_or_add(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], numbers: Iterable[str]
) -> Any:
    """Make an INSERT that adds to the `numbers` of rows that are there already, by the table's primary key."""
    insert = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
    made = insert(table).values(list(rows))
    sums = {name: table.c[name] + made.excluded[name] for name in numbers}
    return made.on_conflict_do_update(index_elements=list(table.primary_key), set_=sums)
