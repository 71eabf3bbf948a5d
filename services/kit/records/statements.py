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
from services.kit.records.source import Groups, RecordQuery, State, StoredRecord, Via
from services.kit.records.tables import RecordTable, Tables, UtcDateTime
from services.kit.records.values import Column

_KEPT = 512

Bound = tuple[tuple[str, Column], ...]
"""Parameters that the conditions of a statement use, with the values they were built with."""

_STATES = {int(s): s for s in State}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement and how to read its rows."""

    select: sa.Select[Any]
    record: Callable[[Any], StoredRecord]


@dataclass(frozen=True, slots=True)
class _Shape:
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

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._moment = sa.select(tables.change_clock.c.moment).scalar_subquery()
        self._fetch = lru_cache(_KEPT)(self._build_fetch)
        self._changes = lru_cache(_KEPT)(self._build_changes)

    def fetch(self, query: RecordQuery) -> tuple[Prepared, dict[str, object]]:
        """Get the statement of a query and its parameters; its rows start with the end of the change sequence."""
        self._tables.of(query.record_type)
        shape = _Shape(
            query.record_type.name,
            query.looked_for,
            query.key is not None,
            query.filters,
            query.groups,
            query.as_of is not None,
            query.after is not None,
            query.revoked or query.key is not None,
            _bound(query.filters, (*query.groups, *(c for _, c in query.looked_for)), query.params),
        )
        params: dict[str, object] = {"p_limit": query.limit + 1}
        if query.subject:
            params["p_subject"] = query.subject[1]
        if query.key is not None:
            params["p_key"] = query.key
        if query.as_of is not None:
            params["p_as_of"] = query.as_of
        if query.after is not None:
            params["p_after"] = query.after
        return self._fetch(shape), params

    def changes(
        self, table: RecordTable, filters: tuple[Condition, ...], groups: Groups, params: Mapping[str, Column]
    ) -> Prepared:
        """Get the statement of changes, with parameters `p_after`, `p_until` and `p_limit`; rows start with the seq."""
        return self._changes(table.record_type.name, filters, groups, _bound(filters, groups, params))

    def _build_fetch(self, shape: _Shape) -> Prepared:
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
            where.append(table.state != State.REVOKED)
        where.append(_at(table) if shape.past else table.superseded_at.is_(None))
        select = prepared.select.where(*where).order_by(table.key).limit(sa.bindparam("p_limit", type_=sa.Integer()))
        return Prepared(select, prepared.record)

    def _build_changes(
        self, record_type: str, filters: tuple[Condition, ...], groups: Groups, bound: Bound
    ) -> Prepared:
        table = self._tables.records[record_type]
        prepared = _select(table, table.seq, filters, groups, dict(bound))
        after, until = (sa.bindparam(name, type_=sa.BigInteger()) for name in ("p_after", "p_until"))
        select = prepared.select.where(table.seq > after, table.seq <= until).order_by(table.seq)
        return Prepared(select.limit(sa.bindparam("p_limit", type_=sa.Integer())), prepared.record)


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
    return Prepared(select, _reader(tuple(test is not None for test in tests)))


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


def utc(moment: dt.datetime | None) -> dt.datetime:
    """Read the change clock's moment; a store that never recorded anything stands at the epoch."""
    return moment or dt.datetime.fromtimestamp(0, dt.UTC)
