"""Reads records for a caller: decide, fetch, cut. Both doors of every department go through here, and nowhere else.

The order never changes: an authorization that is used is checked first, and narrows what the policy decides; the policy
decides before the store is asked; the store is asked only for rows that some granted field allows; every record is cut,
and taken off the authorization's quota, before it leaves this module.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from hutong.api.exchange.v1 import exchange_pb2
from services.kit import identifiers, lookup
from services.kit.authorizations.enforcer import Enforcer, Grant
from services.kit.authorizations.scope import Scope
from services.kit.clock import Clock
from services.kit.context import SKEW, Origin
from services.kit.errors import InvalidArgument, NotFound, PermissionDenied, Reason, Unavailable
from services.kit.log import named as names
from services.kit.log.facts import Named, Subject
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.policy.policies import PolicySet, Standing
from services.kit.records import envelopes
from services.kit.records.catalogue import RecordType
from services.kit.records.pages import PageTokens
from services.kit.records.source import PreparedFetch, RecordQuery, RecordSource, StoredRecord, subject_fields
from services.kit.records.values import Column

_PARTIAL: Final = exchange_pb2.SECTION_STATUS_PARTIAL
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


@dataclass(slots=True)
class Reading:
    """What came of it."""

    mask: ReadMask
    """The caller's mask over the fields asked for."""
    records: Sequence[bytes]
    """Records, cut, each with its envelope; serialized."""
    as_of: dt.datetime
    next_page_token: str = ""
    withheld: bool = False
    """A row condition hid fields of some record."""
    unreadable: bool = False
    """There are rows of which no record could be made (live sources only)."""
    named: Named = field(default_factory=dict[Subject, int])
    """Enterprises that the records name, shown or not: for the log alone."""


@dataclass(frozen=True, slots=True)
class _Lookup:
    """How records are looked for by one scheme, by key, or by neither."""

    source: PreparedFetch
    conditional: bool
    """Rows are found or given under conditions only."""


@dataclass(slots=True)
class _Decided:
    """What was decided of an asking, and for how long that stands."""

    standing: Standing
    scope: Scope | None
    """Of the authorization that it was decided under."""
    mask: ReadMask
    params: Mapping[str, Column]
    cut: "Cutting"
    always: bool
    """No row condition hides a field of any record."""
    lookups: dict[str, _Lookup] = field(default_factory=dict[str, _Lookup])
    """By scheme."""

    def stands(self, policies: PolicySet, now: dt.datetime, scope: Scope | None) -> bool:
        """An authorization that was changed has another scope."""
        return self.standing.holds(policies, now) and self.scope is scope


@dataclass(slots=True)
class Asking:
    """A question that is asked about one subject after another: all of it that does not depend on the subject.

    What is decided of it is kept for as long as it stands; it holds nothing that was read.
    """

    origin: Origin
    record_type: RecordType
    fields: tuple[str, ...]
    filter: str
    page_size: int
    page_token: str
    by_key: bool
    authorized: bool
    """It states an authorization, or needs one: that is checked every time."""
    decided: _Decided | None = None


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

    def asking(self, origin: Origin, question: Question) -> Asking:
        """Prepare a question that will be asked of one subject, or key, after another.

        Raises `InvalidArgument` where its context does not stand.
        """
        self._engine.check_context(origin.request)
        return Asking(
            origin,
            question.record_type,
            question.fields,
            question.filter,
            question.page_size,
            question.page_token,
            question.key is not None,
            self._enforcer.concerns(origin.request),
        )

    async def read(self, origin: Origin, question: Question) -> Reading:
        """Answer a single question; raises as `asking` and `answer` do."""
        asking = self.asking(origin, question)
        return await self.answer(asking, self._clock(), question.subject, question.key, question.as_of)

    async def answer(
        self,
        asking: Asking,
        now: dt.datetime,
        subject: Subject | None = None,
        key: str | None = None,
        as_of: dt.datetime | None = None,
    ) -> Reading:
        """Answer a question; where nothing is granted the reading has no records and the mask says why.

        `now` is what the clock shows: it is decided by that time. Raises as `Enforcer.check` does, and where rows of an
        authorization are not left as `Grant.disclose` does; as `lookup`, `PageTokens` and the source do.
        """
        grant = self._checked(asking, subject, now) if asking.authorized else None
        decided, scope = asking.decided, None if grant is None else grant.scope
        if decided is None or not decided.stands(self._engine.policies, now, scope):
            decided = asking.decided = self._decided(asking, grant, now)
        mask = decided.mask
        scheme = "" if subject is None else subject[0]
        looked = decided.lookups.get(scheme)
        if looked is None:
            if subject is not None:
                subject_fields(asking.record_type, scheme)
            if not mask.grants:
                return Reading(mask, (), as_of or now)
            looked = decided.lookups[scheme] = self._lookup(asking, decided, subject)
        value = None if subject is None else subject[1]
        authorized = scope is not None and subject in scope.subjects
        if asking.page_token:
            cursor = self._pages.open(asking.page_token, _binding(asking, subject, key, as_of))
            page = await looked.source.fetch(value, key, cursor.as_of, cursor.key, authorized)
        else:
            page = await looked.source.fetch(value, key, as_of, None, authorized)
        token = ""
        if page.next_key is not None:
            token = self._pages.seal(page.next_key, page.as_of, _binding(asking, subject, key, as_of))
        found = page.records if key is None else self.concerned(asking.origin, mask, page.records, grant)
        named: dict[Subject, int] = {}
        records = decided.cut(found, named)
        withheld = not decided.always and any(False in record.truth for record in found)
        # Of a row that cannot be read nobody knows whether conditions hold: who finds or is given rows under conditions
        # only must not learn that it is there.
        unreadable = page.unreadable > 0 and () in mask.conditions and not looked.conditional
        if grant is not None:
            await grant.disclose(asking.record_type.name, len(records))
        return Reading(mask, records, page.as_of, token, withheld, unreadable, named)

    def _checked(self, asking: Asking, subject: Subject | None, now: dt.datetime) -> Grant | None:
        """Check the authorization, and that it opens this question."""
        grant = self._enforcer.check(asking.origin.caller, asking.origin.request, now)
        if grant is None:
            return None
        if asking.by_key:
            grant.scope.check_key(asking.record_type)
        else:
            grant.scope.check_subject(subject, (asking.record_type.name,))
        return grant

    def _decided(self, asking: Asking, grant: Grant | None, now: dt.datetime) -> _Decided:
        origin, engine = asking.origin, self._engine
        mask = self.mask(origin, asking.record_type, asking.fields, grant)
        standing = Standing(engine.policies, now, engine.settled_until(now, mask.expires_at))
        scope = None if grant is None else grant.scope
        always = mask.conditions == ((),)
        return _Decided(standing, scope, mask, self.params(origin), Cutting(mask), always)

    def _lookup(self, asking: Asking, decided: _Decided, subject: Subject | None) -> _Lookup:
        mask = decided.mask
        via = lookup.by_subject(mask, subject[0]) if subject else None
        under = lookup.by_key(mask) if asking.by_key else ()
        query = RecordQuery(
            record_type=asking.record_type,
            subject=subject,
            key="" if asking.by_key else None,
            filters=(*lookup.by_filter(mask, asking.filter), *under, *mask.scope),
            limit=self._pages.size(asking.page_size),
            groups=mask.conditions,
            params=decided.params,
            via=via,
        )
        conditional = bool(under or mask.scope or any(several for _, several in via or ()))
        return _Lookup(self._source.prepare(query), conditional)

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


def _binding(asking: Asking, subject: Subject | None, key: str | None, as_of: dt.datetime | None) -> tuple[str, ...]:
    """What a page token is bound to: the same caller asking the same question for the same reason.

    Not to the fields: they are decided anew for every page. Nor to the ticket: the next page may be asked for with the
    next one.
    """
    origin = asking.origin
    why = origin.request
    if why.authorization_ticket:
        why = exchange_pb2.RequestContext()
        why.CopyFrom(origin.request)
        why.ClearField("authorization_ticket")
    return (
        origin.caller.spiffe_id,
        why.SerializeToString(deterministic=True).hex(),
        asking.record_type.name,
        *(subject or ("", "")),
        key or "",
        asking.filter,
        as_of.isoformat() if as_of else "",
    )


class Cutting:
    """Cuts records by one mask."""

    def __init__(self, mask: ReadMask) -> None:
        self.mask = mask
        self._count = names.counter(mask.record_type)
        self._disclosing = mask.disclosing

    def __call__(self, found: Iterable[StoredRecord], named: dict[Subject, int]) -> list[bytes]:
        """Make the records a caller gets, serialized: body and envelope, cut for the truths of each row.

        The enterprises that they name, cut or not, are counted in `named`.
        """
        records: list[bytes] = []
        for record in found:
            read, body, key, fact_time = self._disclosing(record.truth)
            message = read(record.body)
            self._count(message, named)
            records.append(envelopes.enclosed(record, body(message), key=key, fact_time=fact_time))
        return records


def type_url(kind: RecordType) -> str:
    """Name a record type as `Any` does."""
    return envelopes.type_url(kind.full_name)


def section_of(reading: Reading, known_policy: str = "") -> bytes:
    """Write a reading as a `Section`, serialized; one who knows its policy version needs no decisions again."""
    mask = reading.mask
    status, reason = mask.status, ""
    if not mask.grants:
        reason = mask.reason
    elif reading.unreadable:
        reason = Reason.ROWS_UNREADABLE
        status = _PARTIAL if reading.records else exchange_pb2.SECTION_STATUS_UNAVAILABLE
    elif not reading.records:
        status = exchange_pb2.SECTION_STATUS_NO_RECORD
    elif reading.withheld:
        status = _PARTIAL
    head = mask.head(status, reason, decisions=known_policy != mask.version)
    full_name = mask.record_type.full_name
    return envelopes.section(head, full_name, reading.records, reading.as_of, reading.next_page_token)


def require_any(mask: ReadMask) -> None:
    """Raise `PermissionDenied` where a mask gives nothing at all, whether or not there are records."""
    if not mask.grants:
        raise PermissionDenied(mask.reason, f"nothing of {mask.record_type.name} is open to you for this")


def the_one(reading: Reading) -> bytes:
    """Get the single record of a reading, serialized.

    Raises `PermissionDenied` where nothing of the type may be given, whether or not the record exists; `NotFound`
    where there is no such record or its row is not open to the caller, which is the same answer (AIP-211);
    `Unavailable` where there is a row and no record could be made of it.
    """
    require_any(reading.mask)
    if reading.unreadable and not reading.records:
        raise Unavailable(Reason.ROWS_UNREADABLE, "its row in the source cannot be read as a record")
    if not reading.records:
        raise NotFound(Reason.RECORD_NOT_FOUND, "there is no such record that you may see")
    return reading.records[0]
