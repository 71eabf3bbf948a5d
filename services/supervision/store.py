"""Authorizations in the store: their events, which are the truth, and one row each to find and to lock them by.

Every function takes a connection inside a transaction that its caller began, and leaves the transaction to it.
Whoever changes an authorization locks its row first (`load` with `lock`) and numbers the change last (`number`).
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Final

import sqlalchemy as sa

from services.kit.records.inserts import insert_or_ignore
from services.supervision.events import Event
from services.supervision.tables import CLOCK, EVENT, HEAD, REACH, TOKEN

_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Head:
    """The row of an authorization."""

    authorization_id: str
    system: str
    """Who asked for it and may use it, as `agency/system`."""
    request_id: str
    requester: str
    """The officer who asked, as `agency:pseudonym`."""
    emergency: bool
    scope: bytes
    requested_at: dt.datetime
    not_after: dt.datetime
    touched_at: dt.datetime
    """When anything last happened to it, rows that were used included."""
    sequence: int
    """Number of its last event."""
    tip: bytes
    """Digest of its last event."""
    rows_used: int
    seal: bytes
    over: bool
    """An event has ended it."""
    change: int
    """Number of the last change that nodes have to hear of."""


@dataclass(frozen=True, slots=True)
class Row:
    """An event as it lies in the store."""

    sequence: int
    kind: str
    at: dt.datetime
    agency: str
    officer: str
    reason_code: str
    signature: str


_HEAD: Final = tuple(HEAD.c[f.name] for f in fields(Head))
_ROW: Final = tuple(EVENT.c[f.name] for f in fields(Row))


def create(connection: sa.Connection, head: Head, agencies: Collection[str]) -> bool:
    """Store the row of a new one; tells whether its system had not used that request id yet, also at this moment."""
    values = {f.name: getattr(head, f.name) for f in fields(head)}
    if connection.execute(insert_or_ignore(connection, HEAD).values(**values)).rowcount == 0:
        return False
    rows = [{"agency": agency, "authorization_id": head.authorization_id} for agency in sorted(set(agencies))]
    connection.execute(sa.insert(REACH), rows)
    return True


def load(connection: sa.Connection, authorization_id: str, *, lock: bool = False) -> Head | None:
    """Load a row. With `lock`, nobody else changes it before this transaction ends."""
    select = sa.select(*_HEAD).where(HEAD.c.authorization_id == authorization_id)
    # SQLite's writers hold the only write lock already, and the words are left out there.
    row = connection.execute(select.with_for_update() if lock else select).one_or_none()
    return None if row is None else Head(*row)


def by_request(connection: sa.Connection, system: str, request_id: str) -> Head | None:
    """Load the row that a system's request made."""
    select = sa.select(*_HEAD).where(HEAD.c.system == system, HEAD.c.request_id == request_id)
    row = connection.execute(select).one_or_none()
    return None if row is None else Head(*row)


def change(connection: sa.Connection, authorization_id: str, **values: Any) -> None:
    """Change what stands in a row."""
    connection.execute(sa.update(HEAD).where(HEAD.c.authorization_id == authorization_id).values(**values))


def events(connection: sa.Connection, authorization_id: str) -> list[Row]:
    """Load the events of one, in order."""
    select = sa.select(*_ROW).where(EVENT.c.authorization_id == authorization_id).order_by(EVENT.c.sequence)
    return [Row(*row) for row in connection.execute(select)]


def append(connection: sa.Connection, event: Event, signature: str) -> None:
    """Add an event."""
    connection.execute(
        sa.insert(EVENT).values(
            authorization_id=event.authorization_id,
            sequence=event.sequence,
            kind=event.kind.value,
            at=event.at,
            agency=event.by.agency,
            officer=event.by.pseudonym,
            reason_code=event.reason,
            signature=signature,
        )
    )


def emergencies(connection: sa.Connection, requester: str) -> list[Head]:
    """Load the rows of what somebody has asked for in emergencies."""
    select = sa.select(*_HEAD).where(HEAD.c.requester == requester, HEAD.c.emergency)
    return [Head(*row) for row in connection.execute(select)]


def page(
    connection: sa.Connection, agency: str | None, after: tuple[dt.datetime, str] | None, limit: int
) -> list[Head]:
    """Load rows that an agency may see, the newest request first; every row where no agency is named."""
    select = sa.select(*_HEAD)
    if agency is not None:
        reached = REACH.c.authorization_id == HEAD.c.authorization_id
        select = select.join(REACH, reached).where(REACH.c.agency == agency)
    if after is not None:
        older = sa.tuple_(HEAD.c.requested_at, HEAD.c.authorization_id) < sa.tuple_(
            sa.literal(after[0], HEAD.c.requested_at.type), sa.literal(after[1], HEAD.c.authorization_id.type)
        )
        select = select.where(older)
    ordered = select.order_by(HEAD.c.requested_at.desc(), HEAD.c.authorization_id.desc()).limit(limit)
    return [Head(*row) for row in connection.execute(ordered)]


def may_be_in_force(connection: sa.Connection, now: dt.datetime) -> list[Head]:
    """Load the rows of all that no event and no time has ended."""
    select = sa.select(*_HEAD).where(sa.not_(HEAD.c.over), HEAD.c.not_after > now)
    return [Head(*row) for row in connection.execute(select)]


def changed(connection: sa.Connection, after: int) -> list[Head]:
    """Load rows that changed after a number, in order of their changes, some at a time."""
    select = sa.select(*_HEAD).where(HEAD.c.change > after).order_by(HEAD.c.change).limit(_BATCH)
    return [Head(*row) for row in connection.execute(select)]


def last_change(connection: sa.Connection) -> tuple[int, dt.datetime]:
    """Get the number of the last change, and the latest moment known; every change up to it is committed."""
    number, latest = connection.execute(sa.select(CLOCK.c.change, CLOCK.c.latest)).one()
    return int(number), latest


def number(connection: sa.Connection, now: dt.datetime) -> int:
    """Take the number of a change. Call it last: from here to the commit nobody else can take one."""
    row = connection.execute(sa.select(CLOCK.c.change, CLOCK.c.latest).with_for_update()).one()
    connection.execute(sa.update(CLOCK).values(change=row.change + 1, latest=max(row.latest, now)))
    return int(row.change) + 1


def remember(connection: sa.Connection, now: dt.datetime) -> None:
    """Keep that it has been that late."""
    connection.execute(sa.update(CLOCK).where(CLOCK.c.latest < now).values(latest=now))


def take_token(connection: sa.Connection, issuer: str, jti: str, expires_at: dt.datetime) -> bool:
    """Take an officer token, for ever; tells whether nobody had taken it before."""
    row = {"issuer": issuer, "jti": jti, "expires_at": expires_at}
    return bool(connection.execute(insert_or_ignore(connection, TOKEN).values(**row)).rowcount)


def forget_tokens(connection: sa.Connection, before: dt.datetime) -> None:
    """Forget tokens that had ended by then: nobody takes them any more, used or not."""
    connection.execute(sa.delete(TOKEN).where(TOKEN.c.expires_at < before))
