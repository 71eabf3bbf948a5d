"""A department's own copy of its records, with their whole history, in SQLite or PostgreSQL.

Reading is one SELECT per question. Writing goes through one row, the change clock: its lock puts all writers of all
processes in order, so a change's number and moment are greater than those of everything that could be read before it.
That is what makes a page's snapshot exact and lets a watcher go on from a number without ever missing one.
"""

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import sqlalchemy as sa

from services.kit.clock import Clock, system_clock
from services.kit.records import migrations, writer
from services.kit.records.catalogue import Catalogue, RecordType
from services.kit.records.conditions import Condition
from services.kit.records.database import Database, Work, not_migrated
from services.kit.records.fetching import StoreFetch
from services.kit.records.source import ALWAYS, Changes, Groups, Page, PreparedFetch, RecordQuery, State, StoredRecord
from services.kit.records.statements import Statements, utc
from services.kit.records.tables import derive
from services.kit.records.values import Column
from services.kit.records.writer import Draft, Outcome

__all__ = ["Changes", "Draft", "Outcome", "Page", "RecordQuery", "RecordStore", "State", "StoredRecord"]


class RecordStore:
    """The records of one department."""

    history = True
    watch = True

    def __init__(self, url: str, catalogue: Catalogue, clock: Clock = system_clock) -> None:
        """`catalogue` holds the record types that lie here; `url` is a SQLAlchemy URL.

        Raises `FailedPrecondition`: CONFIG_INVALID for a URL it cannot use, SCHEMA_INVALID for types that clash.
        """
        self.catalogue = catalogue
        self.tables = derive(catalogue)
        self.clock = clock
        self._url = url
        self._database = Database(url)
        self._statements = Statements(self.tables, self._database)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def database(self) -> Database:
        """Where the records lie."""
        return self._database

    async def open(self) -> None:
        """See that the database answers; raises `Unavailable` where it does not."""
        if not migrations.exists(self._url):
            raise not_migrated("there is no database yet")
        await self._database.read(lambda c: c.execute(sa.text("SELECT 1")).scalar())

    async def close(self) -> None:
        """Wait for what is running and let go of the database."""
        await asyncio.to_thread(self._database.close)

    async def check_migrated(self, folder: Path | None = None) -> None:
        """Check that the tables are those of this version; with a room's migrations, also that the last one ran.

        Raises `FailedPrecondition` with STORE_NOT_MIGRATED saying what to do.
        """
        if folder is not None:
            await asyncio.to_thread(migrations.check, self._url, folder)
        missing = await self._database.read(self._missing)
        if missing:
            raise not_migrated(f"there is no {', '.join(missing[:5])}")

    def _missing(self, connection: sa.Connection) -> list[str]:
        inspector = sa.inspect(connection)
        there = set(inspector.get_table_names())
        missing = sorted(self.tables.metadata.tables.keys() - there)
        for name in self.tables.metadata.tables.keys() & there:
            columns = {c["name"] for c in inspector.get_columns(name)}
            missing += sorted(f"{name}.{c.name}" for c in self.tables.metadata.tables[name].c if c.name not in columns)
        return missing

    async def fetch(self, query: RecordQuery) -> Page:
        """Get one page of records; see `RecordSource`."""
        subject = None if query.subject is None else query.subject[1]
        return await self.prepare(query).fetch(subject, query.key, query.as_of, query.after)

    def prepare(self, query: RecordQuery) -> PreparedFetch:
        """Prepare a query; see `RecordSource`."""
        return StoreFetch(self._statements, self._database, self.clock, query)

    async def changes(
        self,
        record_type: RecordType,
        after: int,
        limit: int = 200,
        filters: tuple[Condition, ...] = (),
        groups: Groups = ALWAYS,
        params: Mapping[str, Column] = MappingProxyType({}),
    ) -> Changes:
        """Get what changed after a point of the change sequence, in order; see `RecordSource`."""
        prepared = self._statements.changes(self.tables.of(record_type), filters, groups, params)
        clock = sa.select(self.tables.change_clock.c.seq, self.tables.change_clock.c.moment)

        def work(connection: sa.Connection) -> tuple[int, dt.datetime | None, Sequence[sa.Row[tuple[object, ...]]]]:
            # The clock first: everything up to it is committed, whatever comes while the rows are read.
            seq, moment = connection.execute(clock).one()
            if seq <= after:
                return seq, moment, ()
            found = connection.execute(prepared.select, {"p_after": after, "p_until": seq, "p_limit": limit + 1})
            return seq, moment, found.all()

        seq, moment, rows = await self._database.read(work)
        records = tuple(map(prepared.record, rows[:limit]))
        if len(rows) <= limit:
            return Changes(records, max(seq, after), utc(moment))
        # One batch has one moment, and the page may end inside it.
        return Changes(records, int(str(rows[limit - 1][0])), records[-1].recorded_at - dt.timedelta(microseconds=1))

    async def last_seq(self) -> int:
        """Get the present end of the change sequence."""
        statement = sa.select(self.tables.change_clock.c.seq)
        return int(await self._database.read(lambda c: c.execute(statement).scalar_one(), short=True))

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Record new versions where the content changed: all of them in one transaction, or none.

        Raises `InvalidArgument` with RECORD_INVALID for a record without a complete key, or with a value that has no
        place in a column.
        """
        encoded = [writer.encode_or_refuse(self.tables.of(d.record_type), d) for d in drafts]
        return await self.write(lambda c: writer.append(c, self.tables, self.clock(), encoded))

    async def revoke(self, record_type: RecordType, key: str, *, source_system: str) -> int:
        """Withdraw a record: a new version with the last known content that says so; gives its version number.

        A record that is withdrawn already stays as it is. Raises `NotFound` where there is no such record.
        """
        table = self.tables.of(record_type)
        return await self.write(lambda c: writer.revoke(c, self.tables, self.clock(), table, key, source_system))

    async def read(self, work: Work[writer.T]) -> writer.T:
        """Run a read of the store's own tables, for the modules that keep something beside the records."""
        return await self._database.read(work)

    async def write(self, work: Work[writer.T]) -> writer.T:
        """Run a write as one transaction, for the modules that keep something beside the records."""
        return await self._database.write(work)
