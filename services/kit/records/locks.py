"""Locks between transactions that no row stands for: PostgreSQL's advisory locks, held until the transaction ends.

They are for work that replicas must not do at once and that has no row of its own to lock. On SQLite whoever writes is
alone anyway. Keys are of one database: each has the locks of one node.
"""

import hashlib

import sqlalchemy as sa


def key(*names: str) -> int:
    """Make the key of a lock from its names: the same ones give the same key everywhere."""
    return int.from_bytes(hashlib.sha256("\x00".join(names).encode()).digest()[:8], "big", signed=True)


def alone(connection: sa.Connection, lock: int) -> None:
    """Wait until nobody else holds this lock, and hold it until this transaction ends."""
    _take(connection, "pg_advisory_xact_lock", lock)


def together(connection: sa.Connection, lock: int) -> None:
    """Hold this lock beside others who hold it so too, until this transaction ends; waits for who holds it alone."""
    _take(connection, "pg_advisory_xact_lock_shared", lock)


def _take(connection: sa.Connection, function: str, lock: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(getattr(sa.func, function)(sa.literal(lock, sa.BigInteger()))))
