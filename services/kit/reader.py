"""Reads records for a caller: decide, fetch, cut. Both doors of every department go through here, and nowhere else.

The order never changes: an authorization that is used is checked first, and narrows what the policy decides; the policy
decides before the store is asked; the store is asked only for rows that some granted field allows; every record is cut,
and taken off the authorization's quota, before it leaves this module.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

from hutong.api.exchange.v1 import exchange_pb2
from services.kit import identifiers, lookup
from services.kit.authorizations.enforcer import Enforcer, Grant
from services.kit.clock import Clock
from services.kit.context import SKEW, Origin
from services.kit.errors import InvalidArgument, NotFound, PermissionDenied, Reason, Unavailable
from services.kit.log import named as names
from services.kit.log.facts import Named, Subject
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.records.catalogue import ENVELOPE, RecordType
from services.kit.records.pages import PageTokens
from services.kit.records.source import RecordQuery, RecordSource, StoredRecord, subject_fields
from services.kit.records.values import Column

MAX_SUBJECT = 512
"""Most characters of a subject id as it is written, separators and all."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one record type."""

    record_type: RecordType
    subject: tuple[str, str] | None = None
    """Scheme and value, checked."""
    key: str | None = None
    fields: tuple[str, ...] = ()
    filter: str = ""
    page_size: int = 0
    page_token: str = ""
    as_of: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of it."""

    mask: ReadMask
    """The caller's mask over the fields asked for."""
    messages: Sequence[Message]
    """Records, cut, each with its envelope."""
    as_of: dt.datetime
    next_page_token: str = ""
    withheld: bool = False
    """A row condition hid fields of some record."""
    unreadable: bool = False
    """There are rows of which no record could be made (live sources only)."""
    named: Named = field(default_factory=dict[Subject, int])
    """Enterprises that the records name, shown or not: for the log alone."""


@lru_cache(maxsize=4096)
def subject_of(scheme: str, value: str, as_written: bool = False) -> tuple[str, str]:
    """Check a subject id; raises `InvalidArgument` SUBJECT_MISSING, SUBJECT_SCHEME_UNKNOWN or SUBJECT_INVALID.

    A value whose check digit fails is most often mistyped, and is refused as such; but such codes stand in real
    registers, so one is let through that is said to be meant `as_written`.
    """
    if not scheme or not value:
        raise InvalidArgument(Reason.SUBJECT_MISSING, "say whom or what the question is about: scheme and value")
    if len(value) > MAX_SUBJECT:
        # Separators are no part of a value, so that a good one could be written with any number of them, and kept here.
        raise InvalidArgument(Reason.SUBJECT_INVALID, f"an identifier has at most {MAX_SUBJECT} characters")
    checked = identifiers.check(scheme, value)
    if checked.verdict is identifiers.Verdict.INVALID:
        raise InvalidArgument(Reason.SUBJECT_INVALID, f"this is no {scheme}: {checked.reason}", scheme=scheme)
    if checked.verdict is identifiers.Verdict.SUSPECT and not as_written:
        message = f"this {scheme} looks mistyped: {checked.reason}; set as_written where it is meant so"
        raise InvalidArgument(Reason.SUBJECT_INVALID, message, scheme=scheme)
    return scheme, checked.value


def moment_of(request: Any, now: dt.datetime) -> dt.datetime | None:
    """Read a request's `as_of`; None where it asks for the present.

    Raises `InvalidArgument`: AS_OF_IN_FUTURE, or MALFORMED_REQUEST for what is no moment.
    """
    if not request.HasField("as_of"):
        return None
    try:
        moment: dt.datetime = request.as_of.ToDatetime(dt.UTC)
    except ValueError:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "as_of is no moment that any clock shows") from None
    if moment > now + SKEW:
        raise InvalidArgument(Reason.AS_OF_IN_FUTURE, "as_of lies in the future; nobody knows yet")
    return moment


class Reader:
    """Answers questions from one source under one policy."""

    def __init__(
        self,
        source: RecordSource,
        engine: PolicyEngine,
        pages: PageTokens,
        clock: Clock,
        enforcer: Enforcer | None = None,
    ) -> None:
        """Without an `enforcer` every question under an authorization is refused."""
        self._source = source
        self._engine = engine
        self._pages = pages
        self._clock = clock
        self._enforcer = enforcer or Enforcer.without_service(engine.jurisdiction, clock)

    @property
    def clock(self) -> Clock:
        """What time it is."""
        return self._clock

    @property
    def source(self) -> RecordSource:
        """Where the records lie."""
        return self._source

    @property
    def engine(self) -> PolicyEngine:
        """What decides."""
        return self._engine

    def grant(self, origin: Origin) -> Grant | None:
        """Check the authorization of a question; None where it uses none. Raises as `Enforcer.check` does."""
        self._engine.check_context(origin.request)
        return self._enforcer.check(origin.caller, origin.request, self._clock())

    def decide(self, origin: Origin, record_type: RecordType, fields: Sequence[str]) -> ReadMask:
        """Decide without reading.

        Raises `InvalidArgument` for a wrong context or an unknown field, and as `Enforcer.check` does.
        """
        return self.mask(origin, record_type, fields, self.grant(origin))

    def mask(self, origin: Origin, record_type: RecordType, fields: Sequence[str], grant: Grant | None) -> ReadMask:
        """Decide under an authorization that was checked just now, or under none; raises as `decide` does."""
        if grant is None:
            return self._engine.mask(origin.caller, origin.request, record_type).restrict(fields)
        whole = self._engine.mask(origin.caller, origin.request, record_type, grant.authorized)
        return grant.narrow(whole).restrict(fields)

    async def read(self, origin: Origin, question: Question) -> Reading:
        """Answer a question; where nothing is granted the reading has no messages and the mask says why.

        Raises as `Enforcer.check` does, and where rows of an authorization are not left as `Grant.disclose` does.
        """
        kind, grant = question.record_type, self.grant(origin)
        if grant is not None:
            _check_scope(grant, question)
        mask = self.mask(origin, kind, question.fields, grant)
        now = self._clock()
        if question.subject:
            subject_fields(kind, question.subject[0])
        if not mask.grants:
            return Reading(mask, (), question.as_of or now)
        via = lookup.by_subject(mask, question.subject[0]) if question.subject else None
        found_under = lookup.by_key(mask) if question.key is not None else ()
        binding = self._binding(origin, question)
        cursor = self._pages.open(question.page_token, binding) if question.page_token else None
        page = await self._source.fetch(
            RecordQuery(
                record_type=kind,
                subject=question.subject,
                key=question.key,
                filters=(*lookup.by_filter(mask, question.filter), *found_under, *mask.scope),
                as_of=cursor.as_of if cursor else question.as_of,
                limit=self._pages.size(question.page_size),
                after=cursor.key if cursor else None,
                groups=mask.conditions,
                params=self.params(origin),
                via=via,
                authorized=grant is not None and question.subject in grant.scope.subjects,
            )
        )
        token = self._pages.seal(page.next_key, page.as_of, binding) if page.next_key is not None else ""
        records = self.concerned(origin, mask, page.records, grant if question.key is not None else None)
        named: dict[Subject, int] = {}
        messages = tuple(cut(mask, record, named) for record in records)
        withheld = any(not all(r.truth) for r in records)
        # Of a row that cannot be read nobody knows whether conditions hold: who finds or is given rows under conditions
        # only must not learn that it is there.
        under = found_under or mask.scope or any(several for _, several in via or ())
        unreadable = page.unreadable > 0 and () in mask.conditions and not under
        if grant is not None:
            await grant.disclose(kind.name, len(messages))
        return Reading(mask, messages, page.as_of, token, withheld, unreadable, named)

    def concerned(
        self, origin: Origin, mask: ReadMask, records: Sequence[StoredRecord], grant: Grant | None
    ) -> Sequence[StoredRecord]:
        """Leave out records that are about nobody whom the authorization names: for what is not found by subject."""
        if grant is None or not grant.scope.subjects:
            return records
        read, params, scope = mask.record_type.message.FromString, self.params(origin), grant.scope
        return [record for record in records if scope.concerns(mask, read(record.body), params)]

    def params(self, origin: Origin) -> Mapping[str, Column]:
        """Values of the named parameters that row conditions may use."""
        return self._engine.params(origin.caller, origin.request)

    def _binding(self, origin: Origin, question: Question) -> tuple[str, ...]:
        """What a page token is bound to: the same caller asking the same question for the same reason.

        Not to the fields: they are decided anew for every page. Nor to the ticket: the next page may be asked for with
        the next one.
        """
        why = origin.request
        if why.authorization_ticket:
            why = exchange_pb2.RequestContext()
            why.CopyFrom(origin.request)
            why.ClearField("authorization_ticket")
        return (
            origin.caller.spiffe_id,
            why.SerializeToString(deterministic=True).hex(),
            question.record_type.name,
            *(question.subject or ("", "")),
            question.key or "",
            question.filter,
            question.as_of.isoformat() if question.as_of else "",
        )


def _check_scope(grant: Grant, question: Question) -> None:
    if question.key is not None:
        grant.scope.check_key(question.record_type)
    else:
        grant.scope.check_subject(question.subject, (question.record_type.name,))


def cut(mask: ReadMask, record: StoredRecord, named: dict[Subject, int]) -> Message:
    """Make the record a caller gets: body and envelope, cut by the mask for the truths of this row.

    The enterprises that it names, cut or not, are counted in `named`.
    """
    message = mask.record_type.message.FromString(record.body)
    names.count(mask.record_type, message, named)
    envelope: Any = getattr(message, ENVELOPE)
    envelope.key = record.key
    envelope.version = record.version
    envelope.supersedes = record.version - 1
    if record.fact_time is not None:
        envelope.fact_time.FromDatetime(record.fact_time)
    envelope.recorded_at.FromDatetime(record.recorded_at)
    envelope.source_system = record.source_system
    envelope.state = record.state
    mask.cutter(record.truth)(message)
    return message


def type_url(kind: RecordType) -> str:
    """Name a record type as `Any` does."""
    return f"type.googleapis.com/{kind.full_name}"


def section_of(reading: Reading, known_policy: str = "") -> exchange_pb2.Section:
    """Write a reading as a section; one who knows the policy version it rests on needs no decisions again."""
    mask = reading.mask
    section = mask.section()
    if known_policy == mask.version:
        del section.decisions[:]
    section.as_of.FromDatetime(reading.as_of)
    section.next_page_token = reading.next_page_token
    if not mask.grants:
        return section
    if reading.unreadable:
        section.reason = Reason.ROWS_UNREADABLE
    if not reading.messages:
        nothing = exchange_pb2.SECTION_STATUS_NO_RECORD
        section.status = exchange_pb2.SECTION_STATUS_UNAVAILABLE if reading.unreadable else nothing
    elif reading.withheld or reading.unreadable:
        section.status = exchange_pb2.SECTION_STATUS_PARTIAL
    url = type_url(mask.record_type)
    for message in reading.messages:
        section.records.add(type_url=url, value=message.SerializeToString())
    return section


def require_any(mask: ReadMask) -> None:
    """Raise `PermissionDenied` where a mask gives nothing at all, whether or not there are records."""
    if not mask.grants:
        raise PermissionDenied(mask.reason, f"nothing of {mask.record_type.name} is open to you for this")


def the_one(reading: Reading) -> Message:
    """Get the single record of a reading.

    Raises `PermissionDenied` where nothing of the type may be given, whether or not the record exists; `NotFound`
    where there is no such record or its row is not open to the caller, which is the same answer (AIP-211);
    `Unavailable` where there is a row and no record could be made of it.
    """
    require_any(reading.mask)
    if reading.unreadable and not reading.messages:
        raise Unavailable(Reason.ROWS_UNREADABLE, "its row in the source cannot be read as a record")
    if not reading.messages:
        raise NotFound(Reason.RECORD_NOT_FOUND, "there is no such record that you may see")
    return reading.messages[0]
