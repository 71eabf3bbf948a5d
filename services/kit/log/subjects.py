"""Which entries are about whom: the index of a log by subjects.

It lies in parts of 4,096 entries, each sorted by itself once it is complete; what came since the last complete part
lies beside them in the order in which it came.
"""

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPICursor

from services.kit.log import merkle
from services.kit.log.openings import Subject
from services.kit.log.tables import PART, RECENT, SUBJECT

_MOST_PARTS: Final = 256
"""Most parts that one statement looks into."""

_RECENT: Final = (
    sa.select(RECENT.c.index)
    .where(
        RECENT.c.scheme == sa.bindparam("p_scheme"),
        RECENT.c.value == sa.bindparam("p_value"),
        RECENT.c.index < sa.bindparam("p_before"),
    )
    .order_by(RECENT.c.index.desc())
    .limit(sa.bindparam("p_limit"))
)
_NEWEST: Final = sa.select(sa.func.max(SUBJECT.c.part))
_ERASE_RECENT: Final = sa.delete(RECENT).where(
    RECENT.c.scheme == sa.bindparam("p_scheme"), RECENT.c.value == sa.bindparam("p_value")
)
_ERASE: Final = sa.delete(SUBJECT).where(
    SUBJECT.c.part == sa.bindparam("p_part"),
    SUBJECT.c.scheme == sa.bindparam("p_scheme"),
    SUBJECT.c.value == sa.bindparam("p_value"),
)
_SORT: Final = (
    'INSERT INTO log_part (part, scheme, value, "index")'  # noqa: S608 - a number of ours
    f' SELECT DISTINCT "index" / {PART}, scheme, value, "index" FROM log_recent ORDER BY 1, 2, 3, 4'
)


def _in_parts() -> sa.Select[int]:
    """Look a subject up in a range of parts, one after the other, the newest first."""
    newest, oldest = sa.bindparam("p_newest", type_=sa.BigInteger()), sa.bindparam("p_oldest", type_=sa.BigInteger())
    parts = sa.select(sa.cast(newest, sa.BigInteger()).label("part")).cte("parts", recursive=True)
    parts = parts.union_all(sa.select(parts.c.part - 1).where(parts.c.part > oldest))
    return (
        sa.select(SUBJECT.c.index)
        .join_from(parts, SUBJECT, SUBJECT.c.part == parts.c.part)
        .where(
            SUBJECT.c.scheme == sa.bindparam("p_scheme"),
            SUBJECT.c.value == sa.bindparam("p_value"),
            SUBJECT.c.index < sa.bindparam("p_before"),
        )
        .order_by(SUBJECT.c.index.desc())
        .limit(sa.bindparam("p_limit"))
    )


_PARTS: Final = _in_parts()


def find(connection: sa.Connection, subject: Subject, before: int | None, limit: int) -> list[int]:
    """Get the indexes of entries about a subject, the newest first, those below `before`."""
    scheme, value = subject
    end = merkle.MAX_SIZE if before is None else before
    wanted = {"p_scheme": scheme, "p_value": value}
    found = list(connection.execute(_RECENT, wanted | {"p_before": end, "p_limit": limit}).scalars())
    # Whatever was sorted in between is in both, and is taken from here.
    end = min(found, default=end)
    for newest, oldest in _ranges(connection, end):
        if len(found) >= limit:
            break
        more = {"p_newest": newest, "p_oldest": oldest, "p_before": end, "p_limit": limit - len(found)}
        found += connection.execute(_PARTS, wanted | more).scalars()
    return found


def _ranges(connection: sa.Connection, end: int) -> Iterator[tuple[int, int]]:
    """Give ranges of parts, the newest first: few at first, for who is in every one of them, and more and more."""
    newest = connection.execute(_NEWEST).scalar()
    part = -1 if newest is None else min(newest, (end - 1) // PART)
    count = 1
    while part >= 0:
        oldest = max(0, part - count + 1)
        yield part, oldest
        part, count = oldest - 1, min(2 * count, _MOST_PARTS)


def erase(connection: sa.Connection, subject: Subject) -> list[int]:
    """Forget which entries are about a subject; gives their indexes."""
    scheme, value = subject
    found = find(connection, subject, None, merkle.MAX_SIZE)
    wanted = {"p_scheme": scheme, "p_value": value}
    connection.execute(_ERASE_RECENT, wanted)
    if parts := {index // PART for index in found}:
        connection.execute(_ERASE, [wanted | {"p_part": part} for part in parts])
    return found


def sort(cursor: DBAPICursor) -> None:
    """Sort what came since the last time; to be done where a log has completed a part."""
    cursor.execute(_SORT)
    cursor.execute("DELETE FROM log_recent")
