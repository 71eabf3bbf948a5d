"""How versions come about: records become rows, rows become the next version where their content is new.

Everything here that takes a connection runs inside a transaction that its caller began. Whoever records anything takes
the change clock first; from there to the commit nobody else does.
"""

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit.errors import InvalidArgument, NotFound, Reason
from services.kit.records import values
from services.kit.records.catalogue import ENVELOPE, RecordType
from services.kit.records.source import State
from services.kit.records.tables import TEXT_LIMIT, RecordTable, Tables
from services.kit.records.values import Column, Kind

T = TypeVar("T")

LOOKUP = 500
"""Keys in one lookup; well below the parameters a statement may have."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A record as it came, to be recorded if it is news."""

    record_type: RecordType
    message: Message
    source_system: str
    run_id: str = ""
    position: str = ""
    """Where in the run's source it stood."""
    fact_time: dt.datetime | None = None
    """When the fact came about; by default the record itself says so."""


class Outcome(StrEnum):
    """What became of a draft."""

    ADDED = "ADDED"
    CORRECTED = "CORRECTED"
    UNCHANGED = "UNCHANGED"


class Unstorable(ValueError):
    """A record that no row can be made of."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record as a row that only lacks what the moment of recording adds."""

    table: RecordTable
    key: str
    digest: bytes
    row: dict[str, Any]


def _checked(name: str, value: Column) -> Column:
    if isinstance(value, str):
        if "\x00" in value:
            raise Unstorable("VALUE_INVALID", f"{name} holds a NUL character")
        if len(value) * 4 > TEXT_LIMIT and len(value.encode()) > TEXT_LIMIT:
            raise Unstorable("VALUE_TOO_LONG", f"{name} is longer than {TEXT_LIMIT} bytes, too long to be indexed")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Unstorable("VALUE_INVALID", f"{name} does not fit 64 bits")
    return value


def canonical(message: Message) -> bytes:
    """Serialize a record as it is stored: deterministic, without its envelope."""
    if message.HasField(ENVELOPE):
        copy = type(message)()
        copy.CopyFrom(message)
        copy.ClearField(ENVELOPE)
        message = copy
    return message.SerializeToString(deterministic=True)


def fact_time_of(record_type: RecordType, message: Message) -> dt.datetime | None:
    """Tell when a record's fact came about; None where the record does not say, or only says the month or year.

    A date counts from its first moment in UTC. Raises `ValueError` for a date that no calendar has.
    """
    *parts, name = record_type.fact_time.split(".")
    for part in parts:
        message = getattr(message, part)
    if not name:
        return None
    field = record_type.fields[record_type.fact_time]
    value = values.column_of(field.descriptor, message)
    if field.kind is Kind.DATE and isinstance(value, str) and len(value) == len("2026-01-31"):
        return dt.datetime.combine(dt.date.fromisoformat(value), dt.time(), dt.UTC)
    return value if isinstance(value, dt.datetime) else None


def encode(table: RecordTable, draft: Draft) -> Encoded:
    """Make a row of a record; raises `Unstorable` where its key is incomplete or a value has no place in a column."""
    kind, message = draft.record_type, draft.message
    try:
        key = kind.key_of(message)
    except ValueError as error:
        raise Unstorable("KEY_MISSING", str(error)) from None
    try:
        row: dict[str, Any] = {f.name: _checked(f.name, values.column_of(f.descriptor, message)) for f in kind.indexed}
        fact_time = draft.fact_time or fact_time_of(kind, message)
    except Unstorable:
        raise
    except (ValueError, OverflowError) as error:
        raise Unstorable("VALUE_INVALID", str(error)) from None
    body = canonical(message)
    digest = hashlib.sha256(body).digest()
    row |= {
        "_key": _checked("the key", key),
        "_fact_time": fact_time,
        "_superseded_at": None,
        "_source_system": draft.source_system,
        "_run_id": draft.run_id,
        "_position": draft.position,
        "_digest": digest,
        "_body": body,
    }
    return Encoded(table, key, digest, row)


def encode_or_refuse(table: RecordTable, draft: Draft) -> Encoded:
    """Make a row of a record; raises `InvalidArgument` with RECORD_INVALID where that cannot be."""
    try:
        return encode(table, draft)
    except Unstorable as error:
        raise InvalidArgument(
            Reason.RECORD_INVALID, f"{draft.record_type.name}: {error}", record_type=draft.record_type.name
        ) from None


def take_clock(connection: sa.Connection, tables: Tables, now: dt.datetime) -> tuple[int, dt.datetime]:
    """Lock the change clock; gives the last change's number and the moment that the next changes will have.

    The moment is later than every earlier one even where the machine's clock was set back.
    """
    clock = tables.change_clock
    seq, last = connection.execute(sa.select(clock.c.seq, clock.c.moment).with_for_update()).one()
    return seq, now if last is None else max(now, last + dt.timedelta(microseconds=1))


def set_clock(connection: sa.Connection, tables: Tables, seq: int, moment: dt.datetime) -> None:
    """Move the change clock, once per transaction, after `take_clock`."""
    connection.execute(sa.update(tables.change_clock).values(seq=seq, moment=moment))


@dataclass(slots=True)
class InForce:
    """The version in force of one record."""

    version: int
    digest: bytes
    pending: dict[str, Any] | None = None
    """Its row, where this very batch adds it."""


def standing_versions(connection: sa.Connection, encoded: Sequence[Encoded]) -> dict[tuple[str, str], InForce]:
    """Look up the versions in force of the records these rows are about, by table name and key."""
    wanted: defaultdict[str, dict[str, Encoded]] = defaultdict(dict)
    for item in encoded:
        wanted[item.table.table.name][item.key] = item
    found: dict[tuple[str, str], InForce] = {}
    for name, items in wanted.items():
        table = next(iter(items.values())).table
        keys = list(items)
        select = sa.select(table.key, table.version, table.digest).where(
            table.key.in_(sa.bindparam("keys", expanding=True)), table.superseded_at.is_(None)
        )
        for start in range(0, len(keys), LOOKUP):
            for key, version, digest in connection.execute(select, {"keys": keys[start : start + LOOKUP]}):
                found[name, key] = InForce(version, digest)
    return found


def append(connection: sa.Connection, tables: Tables, now: dt.datetime, encoded: Sequence[Encoded]) -> list[Outcome]:
    """Record every row whose content differs from the version in force; tells for each what became of it.

    A withdrawn record that comes again with the same content stays withdrawn: its source has said nothing new.
    """
    seq, moment = take_clock(connection, tables, now)
    standing = standing_versions(connection, encoded)
    ended: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    added: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    outcomes: list[Outcome] = []
    for item in encoded:
        name = item.table.table.name
        last = standing.get((name, item.key))
        if last is not None and last.digest == item.digest:
            outcomes.append(Outcome.UNCHANGED)
            continue
        seq += 1
        version = 1 if last is None else last.version + 1
        state = State.ACTIVE if last is None else State.CORRECTED
        row = item.row | {"_version": version, "_seq": seq, "_state": int(state), "_recorded_at": moment}
        if last is not None and last.pending is not None:
            last.pending["_superseded_at"] = moment
        elif last is not None:
            ended[name].append({"b_key": item.key, "b_version": last.version, "b_moment": moment})
        added[name].append(row)
        standing[name, item.key] = InForce(version, item.digest, row)
        outcomes.append(Outcome.ADDED if last is None else Outcome.CORRECTED)
    for name, rows in added.items():
        table = tables.metadata.tables[name]
        _end(connection, table, ended[name])
        connection.execute(sa.insert(table), rows)
    if added:
        set_clock(connection, tables, seq, moment)
    return outcomes


def _end(connection: sa.Connection, table: sa.Table, ended: list[dict[str, Any]]) -> None:
    if ended:
        update = sa.update(table).where(
            table.c["_key"] == sa.bindparam("b_key"), table.c["_version"] == sa.bindparam("b_version")
        )
        connection.execute(update.values(_superseded_at=sa.bindparam("b_moment")), ended)


def revoke(
    connection: sa.Connection, tables: Tables, now: dt.datetime, table: RecordTable, key: str, source_system: str
) -> int:
    """Withdraw a record; see `RecordStore.revoke`."""
    seq, moment = take_clock(connection, tables, now)
    select = sa.select(table.table).where(table.key == key, table.superseded_at.is_(None))
    row = connection.execute(select).mappings().one_or_none()
    if row is None:
        raise NotFound(Reason.RECORD_NOT_FOUND, f"there is no {table.record_type.name} with this key")
    version = int(row["_version"])
    if row["_state"] == State.REVOKED:
        return version
    new = dict(row) | {
        "_version": version + 1,
        "_seq": seq + 1,
        "_state": int(State.REVOKED),
        "_recorded_at": moment,
        "_source_system": source_system,
        "_run_id": "",
        "_position": "",
    }
    _end(connection, table.table, [{"b_key": key, "b_version": version, "b_moment": moment}])
    connection.execute(sa.insert(table.table), [new])
    set_clock(connection, tables, seq + 1, moment)
    return version + 1
