"""Very many records, fast: rows by raw SQL into a department's store, each like one that was recorded in the usual way.

What differs from row to row is the key, the enterprise, and what follows from them.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench import corpus

TYPE: Final = "publicsecurity.SealRegistration"
"""The record type that there can be very many of: the one with the fewest indexes."""
AGENCY: Final = TYPE.partition(".")[0]
_TABLE = "seal_registration"
_AT_ONCE = 50_000
_MANY_KEYS_FROM = 90_000_000_000
"""Seal numbers of one enterprise's many begin here."""


def grow(database: Path, begin: int, end: int) -> None:
    """Add the records about the enterprises from number `begin` up to `end`."""
    _insert(database, ((f"99{number:011d}", corpus.code(number)) for number in range(begin, end)))


def add_many(database: Path, number: int, count: int) -> None:
    """Add `count` records about one enterprise."""
    code = corpus.code(number)
    _insert(database, ((f"99{_MANY_KEYS_FROM + n:011d}", code) for n in range(count)))


def _insert(database: Path, wanted: Iterator[tuple[str, str]]) -> None:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        # Nothing of this need outlive the measurement.
        connection.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; PRAGMA temp_store = MEMORY")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (_TABLE,)
        ).fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        _insert_rows(connection, wanted)
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert_rows(connection: sqlite3.Connection, wanted: Iterator[tuple[str, str]]) -> None:
    connection.row_factory = sqlite3.Row
    found = connection.execute(f"SELECT * FROM {_TABLE} ORDER BY _key LIMIT 1").fetchone()
    connection.row_factory = None
    columns, seq = tuple(found.keys()), int(connection.execute(f"SELECT max(_seq) FROM {_TABLE}").fetchone()[0])
    places = ", ".join(f":{column}" for column in columns)
    statement = f"INSERT INTO {_TABLE} ({', '.join(columns)}) VALUES ({places})"
    rows = _rows(dict(found), seq, wanted)
    while some := list(islice(rows, _AT_ONCE)):
        connection.executemany(statement, some)
        seq += len(some)
    connection.execute("UPDATE change_clock SET seq = ?", (seq,))


def _rows(template: dict[str, Any], seq: int, wanted: Iterator[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    key, code = template["seal_no"].encode(), template["uscc"].encode()
    body: bytes = template["_body"]
    for number, (seal_no, uscc) in enumerate(wanted, seq + 1):
        made = body.replace(key, seal_no.encode()).replace(code, uscc.encode())
        own = {"_key": seal_no, "seal_no": seal_no, "uscc": uscc, "_seq": number, "_body": made}
        yield template | own | {"_digest": hashlib.sha256(made).digest()}
