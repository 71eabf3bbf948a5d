"""Many rows in one statement: handing over its rows is most of what a batch of entries costs the writer."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have every column of the table."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        # The driver sends a statement for each row otherwise, if without waiting for each: three times the work.
        columns = {f"p_{name}": [row[name] for row in rows] for name in table.columns.keys()}  # noqa: SIM118 - no dict
        connection.execute(_unnested(table), columns)
    else:
        connection.execute(sa.insert(table), list(map(dict, rows)))


@cache
def _unnested(table: sa.Table) -> sa.Insert:
    """Make the statement that inserts columns given as arrays."""
    names = list(table.columns.keys())
    arrays = (sa.bindparam(f"p_{name}", type_=ARRAY(_plain(table.columns[name].type))) for name in names)
    return sa.insert(table).from_select(names, sa.select(*map(sa.func.unnest, arrays)), include_defaults=False)


def _plain(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    # A collation is a column's, and no part of an array's type.
    return sa.Text() if isinstance(kind, sa.Text) else kind
