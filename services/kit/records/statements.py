"""The SELECTs behind `RecordStore`: built once for each shape of question, then only given new values.

Building an expression tree costs several times what running it does, so a statement is kept for every combination of
what is asked *how* (which scheme, which filters and groups, paged or not); values come in as parameters.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from services.kit.records.conditions import Condition
from services.kit.records.database import Database
from services.kit.records.short import Short
from services.kit.records.source import Groups, RecordQuery, State, StoredRecord, Via
from services.kit.records.tables import RecordTable, Tables, UtcDateTime, moment_of_driver, moment_of_text
from services.kit.records.values import Column

PARAMETERS = ("p_subject", "p_key", "p_as_of", "p_after", "p_limit")
"""What a fetch is given every time."""

_KEPT = 512

Bound = tuple[tuple[str, Column], ...]
"""Parameters that the conditions of a statement use, with the values they were built with."""

_STATES = {int(s): s for s in State}


_MOMENTS: Mapping[str, Callable[[Any], dt.datetime]] = {
    "sqlite": moment_of_text,
    "postgresql": moment_of_driver,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement and how to read its rows."""

    select: sa.Select[Any]
    record: Callable[[Any], StoredRecord]
    tested: tuple[bool, ...]
    """Which groups have a column of their own."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """The statement of a fetch, in the two ways of running it."""

    prepared: Prepared
    short: Short | None
    """The same for the driver itself, without its first column; None where it may walk the table."""
    record: Callable[[Any], StoredRecord]
    """Reads rows of `short`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the text of a fetch."""

    record_type: str
    via: Via
    by_key: bool
    filters: tuple[Condition, ...]
    groups: Groups
    past: bool
    further: bool
    revoked: bool
    bound: Bound


class Statements:
    """The statements of one store."""

    def __init__(self, tables: Tables, database: Database) -> None:
        self._tables = tables
        self._database = database
        self._moment = sa.select(tables.change_clock.c.moment).scalar_subquery()
        self._fetch = lru_cache(_KEPT)(self._build_fetch)
        self._changes = lru_cache(_KEPT)(self._build_changes)

    def shape(self, query: RecordQuery, *, past: bool, further: bool) -> Shape:
        """Say what decides the text of a query's statement; raises as `RecordQuery.looked_for` does.

        Raises `FailedPrecondition` where this store does not hold the type.
        """
        self._tables.of(query.record_type)
        via = query.looked_for
        return Shape(
            query.record_type.name,
            via,
            query.key is not None,
            query.filters,
            query.groups,
            past,
            further,
            query.revoked or query.key is not None,
            _bound(query.filters, (*query.groups, *(c for _, c in via)), query.params),
        )

    def fetch(self, shape: Shape) -> Fetch:
        """Get the statement of a fetch; its rows start with the end of the change sequence, unless it is short.

        Its parameters are of `PARAMETERS` those that the shape has.
        """
        return self._fetch(shape)

    def changes(
        self, table: RecordTable, filters: tuple[Condition, ...], groups: Groups, params: Mapping[str, Column]
    ) -> Prepared:
        """Get the statement of changes, with parameters `p_after`, `p_until` and `p_limit`; rows start with the seq."""
        return self._changes(table.record_type.name, filters, groups, _bound(filters, groups, params))

    def _build_fetch(self, shape: Shape) -> Fetch:
        made = self._select_fetch(shape)
        short = None
        # A subject or a key leads straight to its rows; anything else may walk the table.
        if shape.via or shape.by_key:
            bare = made.select.with_only_columns(*list(made.select.selected_columns)[1:])
            short = self._database.short(bare, PARAMETERS)
        return Fetch(made, short, _driver_reader(made.tested, _MOMENTS[self._database.dialect]))

    def _select_fetch(self, shape: Shape) -> Prepared:
        table = self._tables.records[shape.record_type]
        moment = self._moment.label("moment")
        prepared = _select(table, moment, shape.filters, shape.groups, dict(shape.bound))
        where: list[sa.ColumnElement[bool]] = []
        if shape.via:
            values, subject = dict(shape.bound), sa.bindparam("p_subject", type_=sa.Text())
            fields = (
                sa.and_(table.columns[path] == subject, *(c.to_sql(table.columns, values) for c in several))
                for path, several in shape.via
            )
            where.append(sa.or_(*fields))
        if shape.by_key:
            where.append(table.key == sa.bindparam("p_key", type_=sa.Text()))
        if shape.further:
            where.append(table.key > sa.bindparam("p_after", type_=sa.Text()))
        if not shape.revoked:
            where.append(table.state != State.REVOKED.value)
        where.append(_at(table) if shape.past else table.superseded_at.is_(None))
        select = prepared.select.where(*where).order_by(table.key).limit(sa.bindparam("p_limit", type_=sa.Integer()))
        return Prepared(select, prepared.record, prepared.tested)

    def _build_changes(
        self, record_type: str, filters: tuple[Condition, ...], groups: Groups, bound: Bound
    ) -> Prepared:
        table = self._tables.records[record_type]
        prepared = _select(table, table.seq, filters, groups, dict(bound))
        after, until = (sa.bindparam(name, type_=sa.BigInteger()) for name in ("p_after", "p_until"))
        select = prepared.select.where(table.seq > after, table.seq <= until).order_by(table.seq)
        limited = select.limit(sa.bindparam("p_limit", type_=sa.Integer()))
        return Prepared(limited, prepared.record, prepared.tested)


def _bound(filters: tuple[Condition, ...], groups: Groups, params: Mapping[str, Column]) -> Bound:
    names = {name for c in filters for name in c.params}
    for group in groups:
        for condition in group:
            names |= condition.params
    return tuple((name, params[name]) for name in sorted(names))


def _at(table: RecordTable) -> sa.ColumnElement[bool]:
    moment = sa.bindparam("p_as_of", type_=UtcDateTime())
    return sa.and_(table.recorded_at <= moment, sa.or_(table.superseded_at.is_(None), table.superseded_at > moment))


def _select(
    table: RecordTable,
    first: sa.ColumnElement[Any],
    filters: tuple[Condition, ...],
    groups: Groups,
    values: Mapping[str, Column],
) -> Prepared:
    """Select a record type's versions where every filter and at least one group holds, with each group's truth."""
    tests = [sa.and_(*(c.to_sql(table.columns, values) for c in g)) if g else None for g in groups]
    shown = [(n, test) for n, test in enumerate(tests) if test is not None]
    columns = (
        first,
        table.key,
        table.version,
        table.state,
        table.fact_time,
        table.recorded_at,
        table.source_system,
        table.body,
        *(test.label(f"group_{n}") for n, test in shown),
    )
    select = sa.select(*columns).where(*(f.to_sql(table.columns, values) for f in filters))
    if len(shown) == len(groups):
        # No group holds for every record, so at least one must for this one.
        select = select.where(sa.or_(sa.false(), *(test for _, test in shown)))
    tested = tuple(test is not None for test in tests)
    return Prepared(select, _reader(tested), tested)


def _reader(tested: tuple[bool, ...]) -> Callable[[Any], StoredRecord]:
    """Make the function that reads a row; `tested` says which groups have a column of their own."""
    always = (True,) * len(tested)

    def plain(row: Any) -> StoredRecord:
        _, key, version, state, fact_time, recorded_at, source, body = row
        return StoredRecord(key, version, _STATES[state], fact_time, recorded_at, source, body, always)

    def with_truth(row: Any) -> StoredRecord:
        _, key, version, state, fact_time, recorded_at, source, body, *columns = row
        # NULL is "not known", which opens nothing.
        found = iter(columns)
        truth = tuple(bool(next(found)) if t else True for t in tested)
        return StoredRecord(key, version, _STATES[state], fact_time, recorded_at, source, body, truth)

    return with_truth if any(tested) else plain


def _driver_reader(tested: tuple[bool, ...], moment: Callable[[Any], dt.datetime]) -> Callable[[Any], StoredRecord]:
    """Make the function that reads a row without its first column, as the driver gives it."""
    always = (True,) * len(tested)
    make = StoredRecord._make

    def plain(row: Any) -> StoredRecord:
        key, version, state, fact_time, recorded_at, source, body = row
        fact = None if fact_time is None else moment(fact_time)
        return make((key, version, _STATES[state], fact, moment(recorded_at), source, body, always))

    def with_truth(row: Any) -> StoredRecord:
        found = iter(row[7:])
        # NULL is "not known", which opens nothing.
        return plain(row[:7])._replace(truth=tuple(bool(next(found)) if t else True for t in tested))

    return with_truth if any(tested) else plain


def utc(moment: dt.datetime | None) -> dt.datetime:
    """Read the change clock's moment; a store that never recorded anything stands at the epoch."""
    return moment or dt.datetime.fromtimestamp(0, dt.UTC)
