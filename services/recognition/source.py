"""Cases, their events and stage results as records that gateways ask for: read from our own tables, as they are now.

A gateway asks about a subject and names the agency it asks for; of all there is about that subject, only what that
agency reaches is so much as looked at (`services.recognition.reach`), and what is left is cut by policy, as any other
department's records are. There is no past to ask for: events are the past.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.records import values
from services.kit.records.catalogue import RecordType
from services.kit.records.database import Database
from services.kit.records.live import SCAN_LIMIT, LiveSource, Present, Reader
from services.kit.records.source import Page, RecordQuery
from services.recognition import codec, ledger, messages, reach, stage_results
from services.recognition.disclosure import CALLER, CASE, CREDENTIAL, EVENT, RESULT
from services.recognition.events import Submission
from services.recognition.ledger import Head, Selection
from services.recognition.reach import Depth, Reached
from services.recognition.tables import EVENT as EVENTS

SYSTEM: Final = "recognition"
"""Source system of every record here."""

Rows = Callable[[sa.Connection, "_Asked"], Iterator[Message]]
"""Gives the records about a subject that a caller reaches."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks about whom."""

    caller: Caller
    scheme: str
    subject: str
    authorized: bool
    """Under an authorization that names the subject."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A record as a live source takes it."""

    message: Message
    position: str = ""
    original: bytes = b""


class RecognitionSource(Present):
    """This service's records, for the gateways' door."""

    untold = "cases are watched with WatchCase, results with Follow"

    def __init__(self, database: Database, results: reach.Results, clock: Clock) -> None:
        self._database = database
        self._results = results
        self._clock = clock
        self._rows: Mapping[str, Rows] = {CASE: self._cases, EVENT: self._events, RESULT: self._found_results}

    async def fetch(self, query: RecordQuery) -> Page:
        """Get one page of records; see `RecordSource`. A question that names no subject finds nothing."""
        agency = query.params.get(CALLER)
        rows: list[Message] = []
        read, subject = self._rows.get(query.record_type.name), query.subject
        # A question as of a moment is for the live source to refuse; a further page states the first one's.
        present = query.as_of is None or query.after is not None
        if present and query.groups and read is not None and subject is not None and isinstance(agency, str):
            who = _Asked(Caller("", agency, ""), *subject, query.authorized)
            rows = await self._database.read(lambda c: list(_limited(read(c, who))))
        live = LiveSource({query.record_type.name: _reader(query.record_type, rows)}, SYSTEM, self._clock)
        return await live.fetch(query)

    def _cases(self, connection: sa.Connection, asked: _Asked) -> Iterator[Message]:
        for head, _ in _heads(connection, asked):
            yield messages.case(head, _submission(connection, head))

    def _events(self, connection: sa.Connection, asked: _Asked) -> Iterator[Message]:
        for head, part in _heads(connection, asked):
            for number, event in enumerate(ledger.load_events(connection, head.case_id), 1):
                if reach.shows(part, event):
                    yield messages.event(head, number, event, asked.caller.agency)

    def _found_results(self, connection: sa.Connection, asked: _Asked) -> Iterator[Message]:
        found = stage_results.of_subject(connection, asked.scheme, asked.subject, limit=SCAN_LIMIT + 1)
        depths = self._results.depths(connection, asked.caller, found, self._clock())
        for result in found:
            record = messages.result(result)
            if depths[result.result_ref] is Depth.OUTLINE:
                record.ClearField(CREDENTIAL)
            if depths[result.result_ref] is not Depth.NOTHING:
                yield record


def _heads(connection: sa.Connection, asked: _Asked) -> Iterator[tuple[Head, Reached]]:
    about = Selection(scheme=asked.scheme, subject=asked.subject)
    for head in ledger.list_heads(connection, about, limit=SCAN_LIMIT + 1):
        part = reach.case(connection, asked.caller, head, authorized=asked.authorized)
        if part is not None:
            yield head, part


def _submission(connection: sa.Connection, head: Head) -> Submission:
    select = sa.select(EVENTS.c.body).where(EVENTS.c.case_id == head.case_id, EVENTS.c.sequence == 1)
    said = codec.decode(connection.execute(select).scalar_one()).submission
    if said is None:
        raise AssertionError("a case begins with its submission")
    return said


def _limited(rows: Iterable[Message]) -> Iterator[Message]:
    """Give one more than the limit at most: that there are too many is for the live source to say."""
    for number, row in enumerate(rows):
        if number > SCAN_LIMIT:
            return
        yield row


def _reader(kind: RecordType, rows: Iterable[Message]) -> Reader:
    found = tuple(rows)

    def read(limit: int, /, **fields: str) -> list[_Row]:
        wanted = {kind.field(path): value for path, value in fields.items()}
        matching = (
            row
            for row in found
            if all(values.text_of(f.descriptor, getattr(row, f.name)) == value for f, value in wanted.items())
        )
        return [_Row(row) for row in matching][:limit]

    return read
