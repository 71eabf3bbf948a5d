"""Records read from a legacy system at the moment of the question: no copy, no history, no change stream.

How the legacy system is asked is not known here: a reader takes field values that must match and gives the rows that
do, each mapped or not. What a reader cannot narrow down further is decided here, in Python, with the same answer
a store would give. A row that cannot be mapped has no quarantine to go to; the page says how many there were.
"""

import asyncio
import datetime as dt
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import ClassVar, Protocol, cast

from google.protobuf.message import Message

from services.kit.clock import Clock, system_clock
from services.kit.errors import FailedPrecondition, HutongError, Internal, Reason, ResourceExhausted
from services.kit.records import writer
from services.kit.records.catalogue import KEY_SEPARATOR, RecordType
from services.kit.records.conditions import Condition
from services.kit.records.ingest import Item, Unmapped, is_mapped
from services.kit.records.source import (
    ALWAYS,
    Changes,
    Groups,
    Page,
    PreparedFetch,
    RecordQuery,
    State,
    StoredRecord,
    Unprepared,
)
from services.kit.records.values import Column

SCAN_LIMIT = 10_000
"""Most rows one question may read from a live source: it is asked in the middle of somebody else's work."""


class Reader(Protocol):
    """Asks the legacy system for one record type."""

    def __call__(self, limit: int, /, **fields: str) -> Iterable[Item]:
        """Give at most `limit` rows where every named field has this value, in its text form. May block."""
        ...


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    key: str
    message: Message


class Present(ABC):
    """A source that has only the present: no history, and no changes that it could tell of."""

    history = False
    watch = False
    untold: ClassVar[str] = "this source is read live and tells no changes"
    """Why it tells none."""

    @abstractmethod
    async def fetch(self, query: RecordQuery) -> Page:
        """Get one page of records; see `RecordSource`."""

    def prepare(self, query: RecordQuery) -> PreparedFetch:
        """Prepare a query; see `RecordSource`."""
        return Unprepared(self.fetch, query)

    async def changes(
        self,
        record_type: RecordType,
        after: int,
        limit: int = 200,
        filters: tuple[Condition, ...] = (),
        groups: Groups = ALWAYS,
        params: Mapping[str, Column] = MappingProxyType({}),
    ) -> Changes:
        """Raise `FailedPrecondition` HISTORY_UNAVAILABLE."""
        raise FailedPrecondition(Reason.HISTORY_UNAVAILABLE, self.untold, record_type=record_type.name)

    async def last_seq(self) -> int:
        """Raise `FailedPrecondition`, as `changes` does."""
        raise FailedPrecondition(Reason.HISTORY_UNAVAILABLE, self.untold)


class LiveSource(Present):
    """Record types read through from a legacy system."""

    def __init__(
        self,
        readers: Mapping[str, Reader],
        source_system: str,
        clock: Clock = system_clock,
        *,
        scan_limit: int = SCAN_LIMIT,
    ) -> None:
        """`readers` by record type; they are called in threads, several at once."""
        self._readers = readers
        self._source_system = source_system
        self._clock = clock
        self._scan_limit = scan_limit

    async def fetch(self, query: RecordQuery) -> Page:
        """Get one page of records, as they are now; see `RecordSource`.

        Further pages see what has happened meanwhile: a live source has only the present. Raises `ResourceExhausted`
        where a question would have to read more rows than the limit.
        """
        if query.as_of is not None and query.after is None:
            raise _no_history(query.record_type)
        now = self._clock()
        if not query.groups:
            return Page((), now)
        found, unreadable = await asyncio.to_thread(self._read, query)
        shown = sorted((f for f in found.values() if query.after is None or f.key > query.after), key=lambda f: f.key)
        records: list[StoredRecord] = []
        for item in shown:
            record = self._record(query, item, now)
            if record is not None:
                records.append(record)
            if len(records) > query.limit:
                return Page(tuple(records[:-1]), now, records[-2].key, unreadable)
        return Page(tuple(records), now, None, unreadable)

    def _read(self, query: RecordQuery) -> tuple[dict[str, _Found], int]:
        """Read the candidates, by key (asking by two fields may find a record twice), and count the unreadable."""
        try:
            reader = self._readers[query.record_type.name]
        except KeyError:
            raise FailedPrecondition(
                Reason.RECORD_TYPE_NOT_OWNED, f"this source holds no {query.record_type.name}"
            ) from None
        found: dict[str, _Found] = {}
        unreadable = 0
        for wanted, several in _wanted(query):
            for item in self._limited(reader, wanted):
                if not is_mapped(item):
                    unreadable += 1
                    # Not where it stands: that is the row's key, which may be a person's.
                    why = {"record_type": query.record_type.name, "reason": str(cast("Unmapped", item).reason)}
                    _log.warning("Live row not readable", extra={"fields": why})
                    continue
                message = item.message
                if not all(c.evaluate(message, query.params) is True for c in several):
                    continue
                key = query.record_type.key_of(message)
                if query.key is None or query.key == key:
                    found[key] = _Found(key, message)
        return found, unreadable

    def _limited(self, reader: Reader, wanted: Mapping[str, str]) -> Iterator[Item]:
        try:
            rows = list(islice(reader(self._scan_limit + 1, **wanted), self._scan_limit + 1))
        except HutongError:
            raise
        except Exception as error:
            _log.exception("Live source failed")
            raise Internal(Reason.INTERNAL, "the live source failed") from error
        if len(rows) > self._scan_limit:
            raise ResourceExhausted(
                Reason.SCAN_TOO_LARGE, f"this question reads more than {self._scan_limit} rows of a live source"
            )
        return iter(rows)

    def _record(self, query: RecordQuery, found: _Found, now: dt.datetime) -> StoredRecord | None:
        message, params = found.message, query.params
        if not all(f.evaluate(message, params) is True for f in query.filters):
            return None
        truth = tuple(all(c.evaluate(message, params) is True for c in group) for group in query.groups)
        if not any(truth):
            return None
        fact_time = writer.fact_time_of(query.record_type, message)
        body = writer.canonical(message)
        return StoredRecord(found.key, 1, State.ACTIVE, fact_time, now, self._source_system, body, truth)


def _wanted(query: RecordQuery) -> Iterator[tuple[dict[str, str], tuple[Condition, ...]]]:
    """Say what to ask of the legacy system: one question for each field that may name the subject.

    Beside each stand the conditions under which one may look there.
    """
    kind = query.record_type
    exact: dict[str, str] = {}
    if query.key is not None:
        parts = query.key.split(KEY_SEPARATOR)
        if len(parts) != len(kind.key_fields):
            return  # no record has such a key
        exact = {f.path: part for f, part in zip(kind.key_fields, parts, strict=True)}
    if query.subject is None:
        yield exact, ()
        return
    for path, several in query.looked_for:
        if exact.get(path, query.subject[1]) == query.subject[1]:
            yield exact | {path: query.subject[1]}, several


def _no_history(record_type: RecordType) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.HISTORY_UNAVAILABLE,
        f"{record_type.name} is read live from its source, which knows the present only",
        record_type=record_type.name,
    )
