"""Fetching pages from a department's own store, one subject after another."""

import datetime as dt
from typing import Any

from services.kit.clock import Clock
from services.kit.records.database import Database
from services.kit.records.source import Page, RecordQuery
from services.kit.records.statements import PARAMETERS, Fetch, Statements, utc


class StoreFetch:
    """A query whose statements are compiled once (`PreparedFetch`)."""

    def __init__(self, statements: Statements, database: Database, clock: Clock, query: RecordQuery) -> None:
        """Raises as `Statements.shape` does."""
        self._statements = statements
        self._database = database
        self._rows = database.short_reads.rows
        self._clock = clock
        self._query = query
        self._limit = query.limit
        self._made: dict[tuple[bool, bool], Fetch] = {}
        """Statements of the present and of the past, of first pages and of further ones."""
        if query.groups:
            self._statement(query.as_of is not None, query.after is not None)

    async def fetch(
        self,
        subject: str | None = None,
        key: str | None = None,
        as_of: dt.datetime | None = None,
        after: str | None = None,
        authorized: bool = False,
    ) -> Page:
        """Get one page; see `PreparedFetch`."""
        if not self._query.groups:
            return Page((), as_of or self._clock())
        which = as_of is not None, after is not None
        statement = self._made.get(which) or self._statement(*which)
        limit = self._limit
        values = subject, key, as_of, after, limit + 1
        if statement.short is not None:
            rows = await self._rows(statement.short, values)
            if rows is not None and len(rows) <= limit:
                return Page(tuple(map(statement.record, rows)), as_of or self._clock())
        given = {name: value for name, value in zip(PARAMETERS, values, strict=True) if value is not None}
        return await self._whole(statement, given, as_of)

    async def _whole(self, statement: Fetch, given: dict[str, Any], as_of: dt.datetime | None) -> Page:
        """Get one page with the end of the change sequence: where there is a further page, it freezes there."""
        prepared, limit = statement.prepared, self._limit
        short = statement.short is not None
        rows = await self._database.read(lambda c: c.execute(prepared.select, given).all(), short=short)
        records = tuple(map(prepared.record, rows[:limit]))
        if len(rows) <= limit:
            return Page(records, as_of or self._clock())
        # Nothing that is recorded from now on can be as old as the change clock's moment.
        moment = utc(rows[0][0])
        return Page(records, min(moment, as_of or moment), records[-1].key)

    def _statement(self, past: bool, further: bool) -> Fetch:
        found = self._statements.fetch(self._statements.shape(self._query, past=past, further=further))
        self._made[past, further] = found
        return found
