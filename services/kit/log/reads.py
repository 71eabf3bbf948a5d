"""`ReadsService`: tells an enterprise who looked at its records here, by what the log says.

A read is an answer in which a record was given that names the enterprise, whoever the question was about. Reads for a
purpose under embargo are left out until the embargo has ended, and then stand where they belong: nothing of an answer,
a page token included, tells that there are any. Looks at this list itself are logged, and are no reads of records.
"""

import datetime as dt
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import sqlalchemy as sa

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, reads_pb2
from hutong.api.log.v1 import log_pb2
from services.kit import reader
from services.kit.caller import Caller, own_subject
from services.kit.clock import Clock
from services.kit.context import ContextVerifier
from services.kit.errors import PermissionDenied, Reason
from services.kit.log import masks, subjects
from services.kit.log.facts import Subject
from services.kit.log.nodelog import NodeLog
from services.kit.log.openings import read_opening
from services.kit.log.tables import ENTRY, OPENING
from services.kit.policy.engine import PolicyEngine
from services.kit.records.pages import PageTokens
from services.kit.rpc import Call

SELF: Final = "P-SELF"
"""The purpose for which an enterprise asks about itself."""

_BATCH: Final = 200
_MOST_MASKS: Final = 4096
_SPIFFE: Final = "spiffe://"


def subject_of(caller: Caller, asked: common_pb2.SubjectId, context: exchange_pb2.RequestContext) -> Subject:
    """Say whose reads an enterprise asks for: its own.

    Raises `PermissionDenied` READS_NOT_OWN for everybody and everyone else, NO_PERMIT for another purpose than its
    own information; `InvalidArgument` where the subject is none.
    """
    subject = reader.subject_of(asked.scheme, asked.value, asked.as_written)
    if own_subject(caller) != subject:
        raise PermissionDenied(Reason.READS_NOT_OWN, "an enterprise is told of reads of its own records, nobody else")
    if context.purpose != SELF:
        raise PermissionDenied(Reason.NO_PERMIT, f"reads are told for {SELF}")
    return subject


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry about somebody."""

    index: int
    entry: log_pb2.LogEntry
    opening: log_pb2.Opening | None
    """None where another's erasure took it."""


class ReadsService:
    """`ReadsService`."""

    def __init__(
        self,
        agency: str,
        log: NodeLog,
        engine: PolicyEngine,
        contexts: ContextVerifier,
        pages: PageTokens,
        clock: Clock,
    ) -> None:
        """`agency` owns the records that are read at this node."""
        self._agency = agency
        self._log = log
        self._engine = engine
        self._contexts = contexts
        self._pages = pages
        self._clock = clock
        self._paths: dict[str, tuple[str, ...]] = {}
        """Field paths that masks give, by the masks' names in the archive."""

    async def fetch_reads(self, request: reads_pb2.FetchReadsRequest, call: Call) -> reads_pb2.FetchReadsResponse:
        """Give the reads of an enterprise's records, the newest first.

        Raises as `ContextVerifier.origin`, `PolicyEngine.check_context` and `subject_of` do.
        """
        origin = self._contexts.origin(request, call)
        call.facts.asked(origin.caller, origin.request)
        self._engine.check_context(origin.request)
        subject = subject_of(origin.caller, request.subject, origin.request)
        call.facts.about(subject)
        size = self._pages.size(request.page_size)
        binding = ("reads", origin.caller.spiffe_id, *subject)
        before = int(self._pages.open(request.page_token, binding).key) if request.page_token else None
        response = reads_pb2.FetchReadsResponse()
        async for found in self._told(subject, before):
            if len(response.reads) == size:
                # Only now, when it is certain that another one may be told.
                response.next_page_token = self._pages.seal(str(response.reads[-1].index), None, binding)
                break
            response.reads.append(await self._read(found, subject))
        return response

    async def _told(self, subject: Subject, before: int | None) -> AsyncIterator[_Found]:
        """Give the reads that may be told now, the newest first."""
        now = self._clock()
        while batch := await self._log.database.read(partial(_about, subject=subject, before=before)):
            for found in batch:
                if _is_read(found, subject) and self._told_from(found.entry) <= now:
                    yield found
            before = batch[-1].index
            if len(batch) < _BATCH:
                return

    def _told_from(self, entry: log_pb2.LogEntry) -> dt.datetime:
        return self._engine.jurisdiction.told_from(entry.purpose, entry.time.ToDatetime(dt.UTC))

    async def _read(self, found: _Found, subject: Subject) -> reads_pb2.Read:
        entry = found.entry
        read = reads_pb2.Read(
            time=entry.time,
            caller=entry.caller.removeprefix(_SPIFFE).partition("/")[2],
            purpose=entry.purpose,
            legal_basis=entry.legal_basis,
            owner=self._agency,
            outcome=entry.outcome,
            origin=self._log.origin,
            index=found.index,
        )
        for given, rows in _given(found, subject):
            name = given.mask_digest.hex()
            read.fields.add(record_type=given.record_type, paths=await self._given_by(name), rows=rows)
        return read

    async def _given_by(self, name: str) -> tuple[str, ...]:
        """List the fields that a mask gives; none where it was given without one, as events are."""
        if not name:
            return ()
        if name not in self._paths:
            texts = await self._log.texts([name])
            if len(self._paths) >= _MOST_MASKS:
                self._paths.clear()
            self._paths[name] = next((masks.paths_given(masks.read(t.text)) for t in texts if t.kind == "mask"), ())
        return self._paths[name]


def _about(connection: sa.Connection, subject: Subject, before: int | None) -> list[_Found]:
    """Get entries about a subject with their openings, the newest first."""
    wanted = subjects.find(connection, subject, before, _BATCH)
    select = (
        sa.select(ENTRY.c.index, ENTRY.c.entry, OPENING.c.opening)
        .outerjoin(OPENING, OPENING.c.index == ENTRY.c.index)
        .where(ENTRY.c.index.in_(wanted))
        .order_by(ENTRY.c.index.desc())
    )
    return [
        _Found(index, log_pb2.LogEntry.FromString(entry), None if opening is None else read_opening(opening))
        for index, entry, opening in connection.execute(select)
    ]


def _is_read(found: _Found, subject: Subject) -> bool:
    if found.entry.outcome != log_pb2.OUTCOME_ANSWERED:
        return False
    if _commitment(found, subject) is None:
        # By now nobody can tell which of the records named it; that some did is why the entry is found by it.
        return any(given.named for given in found.entry.disclosures)
    return any(True for _ in _given(found, subject))


def _given(found: _Found, subject: Subject) -> Iterable[tuple[log_pb2.Disclosure, int]]:
    """List the disclosures of which records name a subject, with how many do."""
    at = _commitment(found, subject)
    for given in found.entry.disclosures if at is not None else ():
        for named in given.named:
            if named.commitment == at:
                yield given, named.rows


def _commitment(found: _Found, subject: Subject) -> int | None:
    """Say which of the entry's commitments a subject is."""
    subjects = found.opening.subjects if found.opening else ()
    text = ":".join(subject)
    return next((at for at, each in enumerate(subjects) if each == text), None)
