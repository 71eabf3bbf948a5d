"""Stage results, as the register has them: rows, and what they are found by.

Functions take a connection inside their caller's transaction.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any, Final

import sqlalchemy as sa

from services.kit.errors import NotFound, Reason
from services.recognition.events import Assurance
from services.recognition.status_lists import State
from services.recognition.tables import RESULT

__all__ = ["COLUMNS", "Result", "State", "find", "get", "of_row", "of_subject", "subjects"]


@dataclass(frozen=True, slots=True)
class Result:
    """A result as the register has it."""

    result_ref: str
    case_id: str
    """The case it was issued in; empty where it was issued outside one."""
    stage: str
    issuer: str
    scheme: str
    subject: str = field(repr=False)
    fact: str
    assurance: Assurance
    issued_at: dt.datetime
    valid_from: dt.datetime
    valid_until: dt.datetime | None
    state: State
    state_reason: str
    state_changed_at: dt.datetime
    credential: str = field(repr=False)
    key_id: str


_NAMES: Final = tuple(f.name for f in fields(Result))
COLUMNS: Final = tuple(RESULT.c[name] for name in _NAMES)


def of_row(row: "sa.Row[Any]") -> Result:
    """Make a result of a row with the columns of the table, in order."""
    said: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    said["assurance"] = Assurance(said["assurance"])
    said["state"] = State(said["state"])
    return Result(**said)


def find(connection: sa.Connection, ref: str, *, lock: bool = False) -> Result | None:
    """Find a result; none where there is none."""
    select = sa.select(*COLUMNS).where(RESULT.c.result_ref == ref)
    row = connection.execute(select.with_for_update() if lock else select).one_or_none()
    return None if row is None else of_row(row)


def get(connection: sa.Connection, ref: str, *, lock: bool = False) -> Result:
    """Get a result; raises `NotFound` with RESULT_NOT_FOUND."""
    found = find(connection, ref, lock=lock)
    if found is None:
        raise NotFound(Reason.RESULT_NOT_FOUND, "there is no such result")
    return found


def subjects(connection: sa.Connection, refs: Collection[str]) -> dict[str, tuple[str, str]]:
    """Say whom results are about, by reference; references of no result are left out."""
    select = sa.select(RESULT.c.result_ref, RESULT.c.scheme, RESULT.c.subject).where(RESULT.c.result_ref.in_(refs))
    return {ref: (scheme, subject) for ref, scheme, subject in connection.execute(select)}


def of_subject(
    connection: sa.Connection,
    scheme: str,
    subject: str,
    *,
    fact: str = "",
    states: Collection[State] = (),
    after: tuple[dt.datetime, str] | None = None,
    limit: int | None = None,
) -> list[Result]:
    """List results about a subject, the newest first, going on after `issued_at` and reference of one."""
    select = sa.select(*COLUMNS).where(RESULT.c.scheme == scheme, RESULT.c.subject == subject)
    if fact:
        select = select.where(RESULT.c.fact == fact)
    if states:
        select = select.where(RESULT.c.state.in_([str(s) for s in states]))
    if after is not None:
        moment, ref = after
        older = sa.and_(RESULT.c.issued_at == moment, RESULT.c.result_ref < ref)
        select = select.where(sa.or_(RESULT.c.issued_at < moment, older))
    ordered = select.order_by(RESULT.c.issued_at.desc(), RESULT.c.result_ref.desc()).limit(limit)
    return [of_row(row) for row in connection.execute(ordered)]
