"""Ingest: the rows of a source become versions of records, or go to quarantine; none is lost, none counts twice.

A batch is one transaction: its records, its quarantine entries, the run's counts and the watermark are all kept, or
none is. So a run may be killed at any moment and started again from the beginning: what was recorded is found
unchanged, and the end is the same as without the kill.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Protocol, TypeGuard, cast

import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.records import quarantine, runs, writer
from services.kit.records.quarantine import Entry, Identities, Rejected
from services.kit.records.runs import Report, RunInfo, RunState
from services.kit.records.store import RecordStore
from services.kit.records.tables import RecordTable, Tables
from services.kit.records.writer import Draft, Encoded, Outcome, Unstorable

__all__ = ["DUPLICATE_KEY", "Duplicates", "Item", "Mapped", "Report", "RunInfo", "Unmapped", "ingest", "retry"]
__all__ += ["watermark"]

BATCH = 500
"""Rows in one transaction: few enough that nobody waits long, enough that commits cost little."""

DUPLICATE_KEY = "DUPLICATE_KEY"
"""Quarantine reason: the source has another row with this key and other content. The other reasons that arise here
are KEY_MISSING, VALUE_INVALID and VALUE_TOO_LONG; mappings have their own."""


class Mapped(Protocol):
    """A row that became a record."""

    @property
    def position(self) -> str:
        """Where it stands in its source."""
        ...

    @property
    def original(self) -> bytes:
        """What the source holds."""
        ...

    @property
    def message(self) -> Message:
        """The record."""
        ...


class Unmapped(Protocol):
    """A row that did not."""

    @property
    def position(self) -> str:
        """Where it stands in its source."""
        ...

    @property
    def original(self) -> bytes:
        """What the source holds."""
        ...

    @property
    def reason(self) -> str:
        """Why, for machines."""
        ...

    @property
    def detail(self) -> str:
        """Why, for people."""
        ...


Item = Mapped | Unmapped


class Duplicates(StrEnum):
    """What to do where one source has several rows with one key and different content."""

    QUARANTINE = "QUARANTINE"
    """The first is recorded, the others go to quarantine: nobody knows which is right."""
    VERSIONS = "VERSIONS"
    """Every row is a version, in the order of the source: for sources that are themselves a history."""


@dataclass(slots=True)
class _Batch:
    """Some rows, sorted by what is to be done with them."""

    encoded: list[Encoded] = field(default_factory=list[Encoded])
    identities: list[str] = field(default_factory=list[str])
    """Of the encoded rows, where they are needed."""
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    resolved: list[str] = field(default_factory=list[str])
    """Open quarantine entries that became records."""


def is_mapped(item: Item) -> TypeGuard[Mapped]:
    """Tell what a row became."""
    return hasattr(item, "message")


class _Ingest:
    """One run over one source."""

    def __init__(
        self, store: RecordStore, info: RunInfo, duplicates: Duplicates, run_id: str, opened: set[str]
    ) -> None:
        self._store = store
        self._info = info
        self._duplicates = duplicates
        self._run_id = run_id
        self._open = opened
        """Quarantine entries of this source that may become records now."""
        self._by_message = {t.record_type.full_name: t for t in store.tables.records.values()}
        self._seen: dict[tuple[str, str], bytes] = {}
        self._identities = Identities(info.mapping, info.source, info.record_type)
        self.report = Report(run_id)

    def sort(self, items: Sequence[Item]) -> _Batch:
        """Sort rows by what is to be done with them, as far as that can be told without the store."""
        batch = _Batch()
        for item in items:
            if is_mapped(item):
                self._place(batch, item)
            else:
                row = cast("Unmapped", item)
                self._reject(batch, row, "", str(row.reason), row.detail)
        return batch

    def _place(self, batch: _Batch, item: Mapped) -> None:
        identity = ""
        if self._open or self._duplicates is Duplicates.VERSIONS:
            identity = self._identities.of(item.original)
        try:
            encoded = self._encode(item)
        except Unstorable as error:
            self._reject(batch, item, identity, error.reason, error.detail)
            return
        if self._duplicates is Duplicates.QUARANTINE:
            before = self._seen.setdefault((encoded.table.table.name, encoded.key), encoded.digest)
            if before != encoded.digest:
                detail = f"a row before it has the key {encoded.key} too, with other content"
                self._reject(batch, item, identity, DUPLICATE_KEY, detail)
                return
        if identity in self._open:
            batch.resolved.append(identity)
        batch.encoded.append(encoded)
        batch.identities.append(identity)

    def _encode(self, item: Mapped) -> Encoded:
        table = table_of(self._by_message, item.message)
        draft = Draft(table.record_type, item.message, self._info.source_system, self._run_id, item.position)
        return writer.encode(table, draft)

    def _reject(self, batch: _Batch, item: Item, identity: str, reason: str, detail: str) -> None:
        identity = identity or self._identities.of(item.original)
        batch.rejected.append(Rejected(identity, item.position, item.original, reason, detail))

    def apply(self, connection: sa.Connection, batch: _Batch, watermark: str | None) -> Report:
        """Do it, in one transaction; gives the report as it stands then."""
        tables, now = self._store.tables, self._store.clock()
        # First of all the lock: what is looked up below must still hold at the commit.
        writer.take_clock(connection, tables, now)
        encoded, unchanged = batch.encoded, 0
        if self._duplicates is Duplicates.VERSIONS:
            fresh = _apply_once(connection, tables, self._run_id, batch.identities)
            encoded = [e for e, i in zip(encoded, batch.identities, strict=True) if i in fresh]
            unchanged = len(batch.encoded) - len(encoded)
        outcomes = Counter(writer.append(connection, tables, now, encoded)) if encoded else Counter[Outcome]()
        self._quarantine(connection, batch)
        report = self.report.plus(
            loaded=outcomes[Outcome.ADDED] + outcomes[Outcome.CORRECTED],
            unchanged=unchanged + outcomes[Outcome.UNCHANGED],
            reasons=Counter(r.reason for r in batch.rejected),
        )
        runs.advance(connection, tables, report)
        if watermark is not None:
            runs.set_watermark(connection, tables, self._info, self._run_id, watermark)
        return report

    def _quarantine(self, connection: sa.Connection, batch: _Batch) -> None:
        tables, info = self._store.tables, self._info
        quarantine.resolve(connection, tables, self._run_id, batch.resolved)
        quarantine.record(
            connection,
            tables,
            self._store.clock(),
            run_id=self._run_id,
            mapping=info.mapping,
            source=info.source,
            record_type=info.record_type,
            rejected=batch.rejected,
        )


def _apply_once(connection: sa.Connection, tables: Tables, run_id: str, identities: Sequence[str]) -> set[str]:
    """Write down that rows are applied; gives those that were not before."""
    fresh = set(identities) - quarantine.present(connection, tables.applied_row, identities)
    if fresh:
        connection.execute(sa.insert(tables.applied_row), [{"id": i, "run_id": run_id} for i in sorted(fresh)])
    return fresh


def table_of(by_message: dict[str, RecordTable], message: Message) -> RecordTable:
    """Find the table of a record; raises `FailedPrecondition` where the store holds no such type."""
    name = message.DESCRIPTOR.full_name
    try:
        return by_message[name]
    except KeyError:
        raise FailedPrecondition(Reason.RECORD_TYPE_NOT_OWNED, f"this store holds no {name}") from None


async def ingest(
    store: RecordStore,
    items: Iterable[Item],
    info: RunInfo,
    *,
    duplicates: Duplicates = Duplicates.QUARANTINE,
    progress: Callable[[Report], None] | None = None,
    watermark: Callable[[], str | None] | None = None,
    batch: int = BATCH,
) -> Report:
    """Read a source to its end; gives what became of its rows, having told `progress` after every batch.

    `watermark` is asked after every batch how far a growing source has been read; its answer is kept with the batch.
    Where `items` raises, what came before it is kept, the run counts as failed, and the error goes on.
    """
    async with _run(store, info) as run_id:
        opened = await store.read(lambda c: _open_entries(c, store, info))
        run = _Ingest(store, info, duplicates, run_id, opened)
        rows = iter(items)
        while chunk := _Chunk(rows, batch):
            sorted_rows, mark = run.sort(chunk.items), watermark() if watermark else None
            run.report = await store.write(lambda c: run.apply(c, sorted_rows, mark))  # noqa: B023 - awaited here
            if progress:
                progress(run.report)
            if chunk.error:
                raise chunk.error
        return run.report


class _Chunk:
    """The next rows of a source, and the error that ended them early."""

    def __init__(self, rows: Iterator[Item], size: int) -> None:
        self.items: list[Item] = []
        self.error: Exception | None = None
        try:
            self.items.extend(islice(rows, size))
        except Exception as error:
            self.error = error

    def __bool__(self) -> bool:
        return bool(self.items or self.error)


@asynccontextmanager
async def _run(store: RecordStore, info: RunInfo) -> AsyncGenerator[str]:
    """Write down that a run begins, and how it ended."""
    run_id = await store.write(lambda c: runs.begin(c, store.tables, store.clock(), info))

    async def finish(state: RunState, detail: str = "") -> None:
        await store.write(lambda c: runs.finish(c, store.tables, store.clock(), run_id, state, detail))

    try:
        yield run_id
    except Exception as error:
        with suppress(HutongError):  # the first error is the one to tell
            await finish(RunState.FAILED, f"{type(error).__name__}: {error}")
        raise
    await finish(RunState.DONE)


def _open_entries(connection: sa.Connection, store: RecordStore, info: RunInfo) -> set[str]:
    t = store.tables.quarantine
    select = sa.select(t.c.id).where(
        t.c.mapping == info.mapping, t.c.source == info.source, t.c.state == quarantine.Standing.OPEN
    )
    return set(connection.execute(select).scalars())


async def retry(
    store: RecordStore,
    entries: Iterable[Entry],
    mapper: Callable[[Entry], Item],
    info: RunInfo,
    *,
    duplicates: Duplicates = Duplicates.QUARANTINE,
    batch: int = BATCH,
) -> Report:
    """Drive quarantined rows through a mapping again; those that become records are resolved.

    `info` describes the retry itself, as a run of its own. Unless rows are versions, a retried row never replaces a
    record that is there with other content: that may be newer, so the row stays, as DUPLICATE_KEY. Entries that are no
    longer open count as unchanged.
    """
    rows = iter(entries)
    async with _run(store, info) as run_id:
        report = Report(run_id)
        while chunk := list(islice(rows, batch)):
            again = _Retry(store, info.source_system, duplicates, [(e, mapper(e)) for e in chunk], report)
            report = await store.write(again.apply)
        return report


class _Retry:
    """One batch of quarantined rows, driven again."""

    def __init__(
        self,
        store: RecordStore,
        source_system: str,
        duplicates: Duplicates,
        items: Sequence[tuple[Entry, Item]],
        report: Report,
    ) -> None:
        self._store = store
        self._source_system = source_system
        self._duplicates = duplicates
        self._items = items
        self._report = report
        self._by_message = {t.record_type.full_name: t for t in store.tables.records.values()}
        self._rejected: list[Rejected] = []

    def apply(self, connection: sa.Connection) -> Report:
        """Do it, in one transaction; gives the report as it stands then."""
        tables, now, run_id = self._store.tables, self._store.clock(), self._report.run_id
        writer.take_clock(connection, tables, now)
        still = quarantine.still_open(connection, tables, [e.id for e, _ in self._items])
        ready = [(e, row) for e, item in self._items if e.id in still and (row := self._encode(e, item))]
        if self._duplicates is Duplicates.QUARANTINE:
            ready = self._without_conflicts(connection, ready)
        outcomes = Counter(writer.append(connection, tables, now, [row for _, row in ready]))
        resolved = [e.id for e, _ in ready]
        if self._duplicates is Duplicates.VERSIONS:
            _apply_once(connection, tables, run_id, resolved)
        quarantine.resolve(connection, tables, run_id, resolved)
        quarantine.refuse(connection, tables, self._rejected)
        report = self._report.plus(
            loaded=outcomes[Outcome.ADDED] + outcomes[Outcome.CORRECTED],
            unchanged=outcomes[Outcome.UNCHANGED] + len(self._items) - len(still),
            reasons=Counter(r.reason for r in self._rejected),
        )
        runs.advance(connection, tables, report)
        return report

    def _encode(self, entry: Entry, item: Item) -> Encoded | None:
        if not is_mapped(item):
            row = cast("Unmapped", item)
            self._reject(entry, str(row.reason), row.detail)
            return None
        table = table_of(self._by_message, item.message)
        draft = Draft(table.record_type, item.message, self._source_system, self._report.run_id, entry.position)
        try:
            return writer.encode(table, draft)
        except Unstorable as error:
            self._reject(entry, error.reason, error.detail)
            return None

    def _without_conflicts(
        self, connection: sa.Connection, ready: list[tuple[Entry, Encoded]]
    ) -> list[tuple[Entry, Encoded]]:
        there = writer.standing_versions(connection, [row for _, row in ready])
        digests = {where: standing.digest for where, standing in there.items()}
        kept: list[tuple[Entry, Encoded]] = []
        for entry, row in ready:
            # Also against each other: the first of two retried rows with one key wins, as in a source.
            if digests.setdefault((row.table.table.name, row.key), row.digest) == row.digest:
                kept.append((entry, row))
            else:
                self._reject(entry, DUPLICATE_KEY, f"there is a record with the key {row.key}, with other content")
        return kept

    def _reject(self, entry: Entry, reason: str, detail: str) -> None:
        self._rejected.append(Rejected(entry.id, entry.position, entry.original, reason, detail))


async def watermark(store: RecordStore, mapping: str, source: str) -> str | None:
    """Get how far a growing source was read; None where it never was."""
    return await store.read(lambda c: runs.get_watermark(c, store.tables, mapping, source))
