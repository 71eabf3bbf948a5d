"""Locks that keep revocations apart from everything that builds on results.

Who recognises a result, decides on it or enters one holds the shared lock; who revokes holds it alone: so a revocation
sees every recognition there is, and nobody recognises what is being revoked. On SQLite a writer is alone anyway.
All are released at the end of the transaction. Take them after the case's own lock and before the outbox.
"""

import hashlib
from typing import Final

import sqlalchemy as sa

_RESULTS: Final = 0x48_75_74_52
"""Key of the lock on what results stand on (PostgreSQL advisory lock)."""


def building(connection: sa.Connection) -> None:
    """Keep revocations away while this transaction builds on results."""
    _take(connection, "pg_advisory_xact_lock_shared", _RESULTS)


def revoking(connection: sa.Connection) -> None:
    """Wait for everybody who builds on results, and keep them away."""
    _take(connection, "pg_advisory_xact_lock", _RESULTS)


def fact(connection: sa.Connection, issuer: str, scheme: str, subject: str, code: str) -> None:
    """Keep others from entering a result of the same issuer about the same fact and subject."""
    digest = hashlib.sha256("\x00".join((issuer, scheme, subject, code)).encode()).digest()
    _take(connection, "pg_advisory_xact_lock", int.from_bytes(digest[:8], "big", signed=True))


def _take(connection: sa.Connection, function: str, key: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(getattr(sa.func, function)(sa.literal(key, sa.BigInteger()))))
