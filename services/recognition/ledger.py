"""Cases in the store: their events, which are the truth, and one row each to find them by.

Every function takes a connection inside a transaction that its caller began, and leaves the transaction to it.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any, Final

import sqlalchemy as sa

from services.kit.records.inserts import insert_or_ignore
from services.kit.records.tables import UtcDateTime
from services.recognition import codec
from services.recognition.events import Event
from services.recognition.tables import CASE, CASE_AGENCY, EVENT

_CHUNK: Final = 500
"""Cases in one statement of an import, and in one lookup; well below the parameters a statement may have."""


@dataclass(frozen=True, slots=True)
class Head:
    """The row of a case: what it is found by, computed from its events whenever one is added."""

    case_id: str
    version: int
    """Number of the last event."""
    request_id: str
    submitter: str
    """Agency or enterprise that submitted it, as `agency/system` or `enterprise/code`."""
    procedure_code: str
    procedure_version: str
    scheme: str
    subject: str
    lead_agency: str
    status: str
    applied_at: dt.datetime
    closed_at: dt.datetime | None
    next_at: dt.datetime | None
    """When the scheduler looks at it next; None where nothing can become due."""
    calendar: str
    """`ID@version` of the calendar that `next_at` was computed with."""
    dues: str = "{}"
    """Due moments of the clocks that run, by stage, as `services.recognition.dossier` writes them."""

    @property
    def procedure(self) -> str:
        """`CODE@version` of the procedure."""
        return f"{self.procedure_code}@{self.procedure_version}"


@dataclass(frozen=True, slots=True)
class Stored:
    """A case as the store has it."""

    head: Head
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class NewCase:
    """A case to be stored, with the agencies that take part in it."""

    head: Head
    agencies: Collection[str]
    events: Sequence[Event]


_HEAD: Final = tuple(f.name for f in fields(Head))
_COLUMNS: Final = tuple(CASE.c[name] for name in _HEAD)
_TABLE_ORDER: Final = attrgetter(*CASE.columns.keys())


def create(connection: sa.Connection, case: NewCase) -> Stored | None:
    """Store a new case; gives None where its submitter has used its request id already, also at this very moment."""
    done = connection.execute(insert_or_ignore(connection, CASE).values(**_row(case.head)))
    if done.rowcount == 0:
        return None
    connection.execute(sa.insert(CASE_AGENCY), _agency_rows(case))
    connection.execute(sa.insert(EVENT), list(_event_rows(case.head.case_id, 0, case.events)))
    return Stored(case.head, tuple(case.events))


def bulk_create(connection: sa.Connection, cases: Iterable[NewCase]) -> int:
    """Store many new cases that are known not to be there; gives how many events that were.

    Raises the database's own error where one of them is there after all: nothing of the transaction stays.
    """
    batch = list(cases)
    if not batch:
        return 0
    _put_plain(connection, CASE, [_TABLE_ORDER(case.head) for case in batch])
    _put_plain(connection, CASE_AGENCY, [tuple(row.values()) for case in batch for row in _agency_rows(case)])
    events = [
        (case.head.case_id, sequence, event.id, codec.encode(event))
        for case in batch
        for sequence, event in enumerate(case.events, 1)
    ]
    _put_plain(connection, EVENT, events)
    return len(events)


def _put_plain(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, their values in the order of the table's columns, past what is worked out anew for every row.

    That takes as long as the insert itself, and a log has ten thousands of rows.
    """
    dialect = connection.dialect
    statement = sa.insert(table).compile(dialect=dialect)
    turns = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.columns]
    # Text, numbers and bytes go to the driver as they are.
    moments = [place for place, column in enumerate(table.columns) if isinstance(column.type, UtcDateTime)]
    for place in moments:
        turn = turns[place]
        if turn is not None:
            rows = [(*row[:place], turn(row[place]), *row[place + 1 :]) for row in rows]
    if statement.positional:
        connection.exec_driver_sql(str(statement), list(rows))
    else:
        names = table.columns.keys()
        connection.exec_driver_sql(str(statement), [dict(zip(names, row, strict=True)) for row in rows])


def _row(head: Head) -> dict[str, Any]:
    return {name: getattr(head, name) for name in _HEAD}


def _agency_rows(case: NewCase) -> list[dict[str, Any]]:
    agencies = sorted({case.head.lead_agency, *case.agencies})
    return [{"agency": agency, "case_id": case.head.case_id} for agency in agencies]


def _event_rows(case_id: str, after: int, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
    for sequence, event in enumerate(events, after + 1):
        yield {"case_id": case_id, "sequence": sequence, "event_id": event.id, "body": codec.encode(event)}


def load(connection: sa.Connection, case_id: str, *, lock: bool = False) -> Stored | None:
    """Load a case. With `lock`, nobody else changes it before this transaction ends; for writers."""
    head = load_head(connection, case_id, lock=lock)
    return None if head is None else Stored(head, load_events(connection, case_id))


def load_head(connection: sa.Connection, case_id: str, *, lock: bool = False) -> Head | None:
    """Load the row of a case; see `load`."""
    select = sa.select(*_COLUMNS).where(CASE.c.case_id == case_id)
    # SQLite's writers hold the only write lock already, and the words are left out there.
    row = connection.execute(select.with_for_update() if lock else select).one_or_none()
    return None if row is None else Head(*row)


def load_events(connection: sa.Connection, case_id: str, after: int = 0) -> tuple[Event, ...]:
    """Load the events of a case that follow number `after`, in order."""
    select = sa.select(EVENT.c.body).where(EVENT.c.case_id == case_id, EVENT.c.sequence > after)
    return tuple(codec.decode(body) for (body,) in connection.execute(select.order_by(EVENT.c.sequence)))


def load_many(connection: sa.Connection, heads: Sequence[Head]) -> list[Stored]:
    """Load the events of cases whose rows are at hand."""
    found: dict[str, list[Event]] = {head.case_id: [] for head in heads}
    ids = list(found)
    for start in range(0, len(ids), _CHUNK):
        select = sa.select(EVENT.c.case_id, EVENT.c.body).where(EVENT.c.case_id.in_(ids[start : start + _CHUNK]))
        for case_id, body in connection.execute(select.order_by(EVENT.c.case_id, EVENT.c.sequence)):
            found[case_id].append(codec.decode(body))
    return [Stored(head, tuple(found[head.case_id])) for head in heads]


def find_request(connection: sa.Connection, submitter: str, request_id: str) -> str | None:
    """Find the case that a request of this submitter began."""
    select = sa.select(CASE.c.case_id).where(CASE.c.submitter == submitter, CASE.c.request_id == request_id)
    found: str | None = connection.execute(select).scalar_one_or_none()
    return found


def append(connection: sa.Connection, stored: Stored, events: Sequence[Event], head: Head) -> Stored:
    """Add events to a case that was loaded with `lock`; `head` is its row after them."""
    if events:
        rows = list(_event_rows(head.case_id, stored.head.version, events))
        connection.execute(sa.insert(EVENT), rows)
    changed = {name: value for name, value in _row(head).items() if value != getattr(stored.head, name)}
    if changed:
        connection.execute(sa.update(CASE).where(CASE.c.case_id == head.case_id).values(**changed))
    return Stored(head, (*stored.events, *events))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cases to list; what is empty does not matter. The newest application comes first."""

    agency: str = ""
    """That takes part in it."""
    scheme: str = ""
    subject: str = ""
    procedure_code: str = ""
    status: str = ""
    submitter: str = ""
    open_only: bool = False
    case_ids: tuple[str, ...] | None = None
    """Only these, besides what `agency` gives: cases that concern it for other reasons."""


def list_heads(
    connection: sa.Connection, wanted: Selection, *, limit: int, after: tuple[dt.datetime, str] | None = None
) -> list[Head]:
    """List cases, the newest application first, going on after `after` (`applied_at` and `case_id` of the last)."""
    select = sa.select(*_COLUMNS)
    equal = {k: v for k, v in asdict(wanted).items() if v and k in CASE.c}
    for name, value in equal.items():
        select = select.where(CASE.c[name] == value)
    if wanted.open_only:
        select = select.where(CASE.c.closed_at.is_(None))
    select = _of_agency(select, wanted)
    if after is not None:
        applied_at, case_id = after
        select = select.where(
            sa.or_(CASE.c.applied_at < applied_at, sa.and_(CASE.c.applied_at == applied_at, CASE.c.case_id < case_id))
        )
    ordered = select.order_by(CASE.c.applied_at.desc(), CASE.c.case_id.desc()).limit(limit)
    return [Head(*row) for row in connection.execute(ordered)]


def _of_agency(select: "sa.Select[Any]", wanted: Selection) -> "sa.Select[Any]":
    either: list[sa.ColumnElement[bool]] = []
    if wanted.agency:
        part = sa.select(CASE_AGENCY.c.case_id).where(CASE_AGENCY.c.agency == wanted.agency)
        either.append(CASE.c.case_id.in_(part))
    if wanted.case_ids is not None:
        either.append(CASE.c.case_id.in_(wanted.case_ids))
    return select.where(sa.or_(*either)) if either else select


def takes_part(connection: sa.Connection, agency: str, case_id: str) -> bool:
    """Tell whether an agency takes part in a case."""
    select = sa.select(CASE_AGENCY.c.case_id).where(CASE_AGENCY.c.agency == agency, CASE_AGENCY.c.case_id == case_id)
    return connection.execute(select).first() is not None


def still_open(connection: sa.Connection, submitter: str, limit: int) -> int:
    """Count the open cases that somebody has submitted, up to a limit."""
    some = sa.select(CASE.c.case_id).where(CASE.c.submitter == submitter, CASE.c.closed_at.is_(None)).limit(limit)
    return int(connection.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one())


def concerns(connection: sa.Connection, case_id: str, scheme: str, subject: str) -> bool:
    """Tell whether there is a case of this id about this subject."""
    select = sa.select(CASE.c.case_id).where(
        CASE.c.case_id == case_id, CASE.c.scheme == scheme, CASE.c.subject == subject
    )
    return connection.execute(select).first() is not None


def subjects(connection: sa.Connection, case_ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Say whom cases are about, by id; ids of no case are left out."""
    select = sa.select(CASE.c.case_id, CASE.c.scheme, CASE.c.subject).where(CASE.c.case_id.in_(case_ids))
    return {case_id: (scheme, subject) for case_id, scheme, subject in connection.execute(select)}


def due(connection: sa.Connection, now: dt.datetime, limit: int) -> list[str]:
    """List cases that the scheduler has to look at, the longest waiting first."""
    select = sa.select(CASE.c.case_id).where(CASE.c.next_at <= now).order_by(CASE.c.next_at, CASE.c.case_id)
    return list(connection.execute(select.limit(limit)).scalars())


def next_due(connection: sa.Connection) -> dt.datetime | None:
    """Tell when the next case is due; None where none will ever be."""
    found: dt.datetime | None = connection.execute(sa.select(sa.func.min(CASE.c.next_at))).scalar()
    return found


def calendars(connection: sa.Connection) -> set[str]:
    """Tell which calendars open cases were computed with, as `ID@version`."""
    select = sa.select(CASE.c.calendar).where(CASE.c.closed_at.is_(None)).distinct()
    return set(connection.execute(select).scalars())


def on_other_calendars(connection: sa.Connection, current: Collection[str], limit: int, after: str = "") -> list[str]:
    """List open cases computed with calendars that are none of `current` (`ID@version`), in order of their ids."""
    select = sa.select(CASE.c.case_id).where(
        CASE.c.closed_at.is_(None), CASE.c.calendar.not_in(current), CASE.c.case_id > after
    )
    return list(connection.execute(select.order_by(CASE.c.case_id).limit(limit)).scalars())


def known(connection: sa.Connection, case_ids: Sequence[str]) -> set[str]:
    """Tell which of these cases are in the store."""
    found: set[str] = set()
    for start in range(0, len(case_ids), _CHUNK):
        select = sa.select(CASE.c.case_id).where(CASE.c.case_id.in_(case_ids[start : start + _CHUNK]))
        found.update(connection.execute(select).scalars())
    return found
