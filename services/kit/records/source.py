"""The seam between a department's doors and where its records lie: what can be asked, and what comes back.

`RecordStore` (records/store.py) keeps copies with their history; `LiveSource` (records/live.py) reads a legacy system
at the moment of the question. Both satisfy `RecordSource` and say in two attributes what they cannot do.
"""

import dataclasses
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from services.kit.errors import InvalidArgument, Reason
from services.kit.records.catalogue import Field, RecordType
from services.kit.records.conditions import Condition
from services.kit.records.values import Column

__all__ = ["ALWAYS", "Changes", "Groups", "Page", "PreparedFetch", "RecordQuery", "RecordSource", "State"]
__all__ += ["StoredRecord", "Unprepared", "Via", "subject_fields"]

Groups = tuple[tuple[Condition, ...], ...]
"""Row conditions of a read mask: groups of conditions that must all hold; a record shows where any group does."""

Via = tuple[tuple[str, tuple[Condition, ...]], ...]
"""Paths of fields that may hold a subject, each with the conditions under which one may look there."""

ALWAYS: Groups = ((),)
"""The one group that holds for every record. No groups at all hold for none."""

_NO_PARAMS: Mapping[str, Column] = MappingProxyType({})


class State(IntEnum):
    """Whether a version stands; the numbers are those of `hutong.api.common.v1.RecordState`."""

    ACTIVE = 1
    CORRECTED = 2
    REVOKED = 3


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """One question about records of one type.

    Withdrawn records are left out, as in any register's listing, unless `revoked` is set or the question names one
    `key`: whoever holds a record's number must learn that it was withdrawn.
    """

    record_type: RecordType
    subject: tuple[str, str] | None = None
    """Scheme and value; any of the type's fields of that scheme may hold it, or any in `via`."""
    key: str | None = None
    filters: tuple[Condition, ...] = ()
    """Every one must hold."""
    as_of: dt.datetime | None = None
    """Answer as of then; None for the present. Pages after the first give the first one's `Page.as_of`."""
    limit: int = 20
    after: str | None = None
    """Key that the last page ended with."""
    groups: Groups = ALWAYS
    params: Mapping[str, Column] = field(default_factory=dict[str, Column])
    """Values of the parameters in `filters` and `groups`."""
    revoked: bool = False
    via: Via | None = None
    """Where alone the subject may be looked for; None leaves that to the record type."""
    authorized: bool = False
    """Whether it is asked under an authorization that names the subject."""

    @property
    def looked_for(self) -> Via:
        """Where the subject is looked for; raises `InvalidArgument` where the type has no field of its scheme."""
        if self.subject is None:
            return ()
        return self.via if self.via is not None else _everywhere(self.record_type, self.subject[0])


class StoredRecord(NamedTuple):
    """One version of a record, as it lies in its source. A tuple: there is one for every row that is read."""

    key: str
    version: int
    state: State
    fact_time: dt.datetime | None
    recorded_at: dt.datetime
    source_system: str
    body: bytes
    """Canonical serialization, without the envelope."""
    truth: tuple[bool, ...]
    """For each group asked, whether it holds for this record."""


class Page(NamedTuple):
    """Records in the order of their keys, and where to go on."""

    records: tuple[StoredRecord, ...]
    as_of: dt.datetime
    """Asked again as of this moment, the source gives the same answer, whatever was recorded meanwhile."""
    next_key: str | None = None
    """Give it as `after` to go on; None where there is no more."""
    unreadable: int = 0
    """Rows that are there but could not be made into records (live sources only; a store quarantines them)."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Versions in the order they were recorded; withdrawals are versions too."""

    records: tuple[StoredRecord, ...]
    last_seq: int
    """Everything up to here was looked at: where to go on."""
    as_of: dt.datetime
    """Everything recorded until then has been given."""


class PreparedFetch(Protocol):
    """A query that is asked of one subject after another: what does not depend on the subject is settled."""

    async def fetch(
        self,
        subject: str | None = None,
        key: str | None = None,
        as_of: dt.datetime | None = None,
        after: str | None = None,
        authorized: bool = False,
    ) -> Page:
        """Get one page as `RecordSource.fetch` does, and raise as it does.

        `subject` is a value of the scheme that was prepared, None where none was; so is `key`. The rest is as in
        `RecordQuery`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Unprepared:
    """A prepared query to a source that has nothing to settle beforehand."""

    ask: Callable[[RecordQuery], Awaitable[Page]]
    query: RecordQuery

    async def fetch(
        self,
        subject: str | None = None,
        key: str | None = None,
        as_of: dt.datetime | None = None,
        after: str | None = None,
        authorized: bool = False,
    ) -> Page:
        """Put the query together, and ask."""
        prepared = self.query.subject
        about = None if prepared is None or subject is None else (prepared[0], subject)
        query = dataclasses.replace(self.query, subject=about, key=key, as_of=as_of, after=after, authorized=authorized)
        return await self.ask(query)


class RecordSource(Protocol):
    """Where a department's records lie."""

    @property
    def history(self) -> bool:
        """Whether it can answer `as_of`."""
        ...

    @property
    def watch(self) -> bool:
        """Whether it can tell changes."""
        ...

    async def fetch(self, query: RecordQuery) -> Page:
        """Get one page of records.

        Raises `InvalidArgument` where the type has no field of the subject's scheme, `FailedPrecondition` with
        HISTORY_UNAVAILABLE for an `as_of` it cannot answer, and `Unavailable` where the records cannot be reached.
        """
        ...

    def prepare(self, query: RecordQuery) -> PreparedFetch:
        """Prepare a query that will be asked of many subjects of one scheme, or of many keys.

        Of `query.subject` only the scheme counts, and of `query.key` only that there is one; `as_of`, `after` and
        `authorized` are said anew every time. Raises `InvalidArgument` where the type has no field of that scheme.
        """
        ...

    async def changes(
        self,
        record_type: RecordType,
        after: int,
        limit: int = 200,
        filters: tuple[Condition, ...] = (),
        groups: Groups = ALWAYS,
        params: Mapping[str, Column] = _NO_PARAMS,
    ) -> Changes:
        """Get what changed after a point of the change sequence.

        Raises `FailedPrecondition` with HISTORY_UNAVAILABLE where it cannot tell.
        """
        ...

    async def last_seq(self) -> int:
        """Get the present end of the change sequence; raises as `changes` does."""
        ...


def _everywhere(record_type: RecordType, scheme: str) -> Via:
    return tuple((field.path, ()) for field in subject_fields(record_type, scheme))


def subject_fields(record_type: RecordType, scheme: str) -> tuple[Field, ...]:
    """Get the fields that may name a subject of a scheme; raises `InvalidArgument` where there are none."""
    try:
        return record_type.subjects[scheme]
    except KeyError:
        known = ", ".join(record_type.subjects) or "none"
        raise InvalidArgument(
            Reason.SUBJECT_SCHEME_UNSUPPORTED,
            f"{record_type.name} cannot be asked for by {scheme}; it knows: {known}",
            record_type=record_type.name,
        ) from None
