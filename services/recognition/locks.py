"""Locks that keep revocations apart from everything that builds on results.

Who recognises a result, decides on it or enters one holds the shared lock; who revokes holds it alone: so a revocation
sees every recognition there is, and nobody recognises what is being revoked. On SQLite a writer is alone anyway.
All are released at the end of the transaction. Take them after the case's own lock and before the outbox.
"""

from typing import Final

import sqlalchemy as sa

from services.kit.records import locks

_RESULTS: Final = 0x48_75_74_52
"""Key of the lock on what results stand on."""


def building(connection: sa.Connection) -> None:
    """Keep revocations away while this transaction builds on results."""
    locks.together(connection, _RESULTS)


def revoking(connection: sa.Connection) -> None:
    """Wait for everybody who builds on results, and keep them away."""
    locks.alone(connection, _RESULTS)


def fact(connection: sa.Connection, issuer: str, scheme: str, subject: str, code: str) -> None:
    """Keep others from entering a result of the same issuer about the same fact and subject."""
    locks.alone(connection, locks.key(issuer, scheme, subject, code))
