"""From a question to what is asked of each department: decide first, then ask only for what may be given.

Callers ask the same question of one subject after another, so what does not depend on the subject is prepared once:
the decided parts, and each department's request without its subject. It is kept until a policy changes, begins or ends.
An authorization is checked for every question, before anything that was kept is looked at.
"""

import datetime as dt
import hashlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from certs.svid import Svid
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit import lookup, reader
from services.kit.authorizations.enforcer import Enforcer, Grant
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.context import LIFETIME, ContextSigner
from services.kit.doors import check_selections
from services.kit.errors import PermissionDenied, Reason
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.policy.policies import PolicySet
from services.kit.records.catalogue import Catalogue, RecordType

T = TypeVar("T")

_MOST_KEPT = 1024
_LARGEST_KEPT = 4096
"""Bytes: a question of more holds a page token or a list of its own, and is not asked again."""
_USED_AGAIN = LIFETIME / 3
"""How long a signed context is used again: what was asked just before still has most of its life to arrive in."""


@dataclass(frozen=True, slots=True)
class Part:
    """One selection of the question, decided."""

    index: int
    selection: exchange_pb2.Selection
    mask: ReadMask
    kept_back: bool
    """The subject may not be looked for: to find a record by it would tell what policy keeps back."""

    @property
    def denied(self) -> bool:
        """Nothing may be given; no department is asked."""
        return self.kept_back or not self.mask.grants

    def section(self) -> exchange_pb2.Section:
        """Begin the part's section: what was decided, without any record."""
        section = self.mask.section()
        if self.mask.grants and self.kept_back:
            section.status = exchange_pb2.SECTION_STATUS_DENIED
            section.reason = Reason.LOOKUP_FIELD_NOT_READABLE
        return section


@dataclass(frozen=True, slots=True)
class Ask:
    """What one department is asked: its request, serialized, and the parts its sections answer, in order."""

    agency: str
    request: bytes
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class _Outline:
    """What of an `Ask` does not depend on the subject: fields of the request, serialized.

    They are digested one after the other in the order of their numbers, as canonical serialization has them: the
    department digests what it parsed, written canonically, and must come to the same bytes (`request_digest`).
    """

    agency: str
    selections: bytes
    known_policy_version: bytes
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A question, decided and divided."""

    query_id: str
    svid: Svid
    """The identity that signed, and that the departments must be called with."""
    parts: tuple[Part, ...]
    asks: tuple[Ask, ...]
    grant: Grant | None = None
    """The authorization that is used, found good when the plan was made."""
    subject: "Subject | None" = None
    """Whom the question is about."""

    @property
    def denied(self) -> list[Part]:
        """The parts of which nothing may be given."""
        return [part for part in self.parts if part.denied]

    def still(self) -> None:
        """Check the authorization again, where one is used; raises as `Enforcer.check` does."""
        if self.grant is not None:
            self.grant.still()

    async def wait(self, work: Awaitable[T]) -> T:
        """Wait for something; where an authorization is used and ends meanwhile, raise why at once."""
        return await work if self.grant is None else await self.grant.while_it_stands(work)


@dataclass(frozen=True, slots=True)
class _Delegation:
    """The gateway's signed word, serialized as a request has it, and how long it is used again."""

    svid: Svid
    until: dt.datetime
    field: bytes


Subject = tuple[str, str]
"""Scheme and value, checked."""


@dataclass(slots=True)
class _Prepared:
    """What of a plan does not depend on the subject."""

    parts: tuple[Part, ...]
    outlines: tuple[_Outline, ...]
    policies: PolicySet
    made_at: dt.datetime
    expires_at: dt.datetime | None
    delegation: _Delegation | None = None

    def stands(self, policies: PolicySet, now: dt.datetime) -> bool:
        """A clock that was set back makes it as stale as one that ran past the boundary."""
        return self.policies is policies and self.made_at <= now and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, checked and prepared."""

    subject: Subject | None
    grant: Grant | None
    prepared: _Prepared


class Planner:
    """Decides and divides questions."""

    def __init__(
        self,
        catalogue: Catalogue,
        engine: PolicyEngine,
        signer: ContextSigner,
        clock: Clock,
        enforcer: Enforcer | None = None,
    ) -> None:
        """Without an `enforcer` every question under an authorization is refused."""
        self._catalogue = catalogue
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._enforcer = enforcer or Enforcer.without_service(engine.jurisdiction, clock)
        self._kept: OrderedDict[tuple[str, str, tuple[bytes, ...], bytes], _Prepared] = OrderedDict()

    def decide(self, question: federation_pb2.QueryRequest, caller: Caller) -> tuple[Part, ...]:
        """Check a question and decide every selection.

        Raises `InvalidArgument` for what is wrong with it, and as `Enforcer.check` does.
        """
        return self._prepared(question, caller).prepared.parts

    def check_subjects(self, questions: Sequence[federation_pb2.QueryRequest], caller: Caller) -> None:
        """Check whom questions are about that differ in nothing else; raises as `decide` does."""
        grant = self._grant(questions[0], caller, self._clock())
        for question in questions:
            _subject(question, grant)

    def plan(self, question: federation_pb2.QueryRequest, caller: Caller, svid: Svid, query_id: str = "") -> Plan:
        """Make one request per department, with only the fields that may be given, under one signed context.

        `query_id` is that of the question this is a part of. Raises as `decide` does.
        """
        asked = self._prepared(question, caller)
        subject, prepared = asked.subject, asked.prepared
        query_id = query_id or new_query_id()
        if not prepared.outlines:
            return Plan(query_id, svid, prepared.parts, (), asked.grant, subject)
        delegation = self._delegation(prepared, question, caller, svid)
        front, as_of, back = _fields(subject, question, query_id)
        front = delegation.field + front
        asks = (
            Ask(outline.agency, front + outline.selections + as_of + outline.known_policy_version + back, outline.parts)
            for outline in prepared.outlines
        )
        return Plan(query_id, delegation.svid, prepared.parts, tuple(asks), asked.grant, subject)

    def _delegation(
        self, prepared: _Prepared, question: federation_pb2.QueryRequest, caller: Caller, svid: Svid
    ) -> _Delegation:
        now = self._clock()
        kept = prepared.delegation
        if kept is None or kept.until <= now or kept.svid.version != svid.version:
            digests = [hashlib.sha256(o.selections + o.known_policy_version).digest() for o in prepared.outlines]
            signed = self._signer.sign(svid, caller, question.context, digests)
            field = record_source_pb2.FetchRequest(delegated=signed).SerializeToString()
            kept = prepared.delegation = _Delegation(svid, now + _USED_AGAIN, field)
        return kept

    def _grant(self, question: federation_pb2.QueryRequest, caller: Caller, now: dt.datetime) -> Grant | None:
        context = question.context
        if not self._enforcer.concerns(context):
            return None
        self._engine.check_context(context)
        return self._enforcer.check(caller, context, now)

    def _prepared(self, question: federation_pb2.QueryRequest, caller: Caller) -> _Asked:
        now = self._clock()
        reader.moment_of(question, now)
        grant = self._grant(question, caller, now)
        subject = _subject(question, grant)
        scheme = subject[0] if subject else ""
        key = caller.spiffe_id, scheme, _shape(question), grant.scope_digest if grant else b""
        kept = self._kept.get(key)
        if kept is None or not kept.stands(self._engine.policies, now):
            kept = self._prepare(question, caller, scheme, grant, now)
            if sum(map(len, key[2])) > _LARGEST_KEPT:
                return _Asked(subject, grant, kept)
            self._kept[key] = kept
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return _Asked(subject, grant, kept)

    def _prepare(
        self,
        question: federation_pb2.QueryRequest,
        caller: Caller,
        scheme: str,
        grant: Grant | None,
        now: dt.datetime,
    ) -> _Prepared:
        policies = self._engine.policies
        parts = self._decide(question, caller, scheme, grant)
        boundaries = [part.mask.expires_at for part in parts if part.mask.expires_at is not None]
        return _Prepared(parts, _outline(parts), policies, now, min(boundaries, default=None))

    def _decide(
        self, question: federation_pb2.QueryRequest, caller: Caller, scheme: str, grant: Grant | None
    ) -> tuple[Part, ...]:
        self._engine.check_context(question.context)
        check_selections(question.selections)
        parts: list[Part] = []
        for index, selection in enumerate(question.selections):
            kind = self._catalogue.get(selection.record_type)
            mask = self._whole(question.context, caller, kind, grant).restrict(selection.fields)
            lookup.by_filter(mask, selection.filter)
            parts.append(Part(index, selection, mask, _kept_back(mask, scheme)))
        return tuple(parts)

    def _whole(
        self, context: exchange_pb2.RequestContext, caller: Caller, kind: RecordType, grant: Grant | None
    ) -> ReadMask:
        if grant is None:
            return self._engine.mask(caller, context, kind)
        return grant.narrow(self._engine.mask(caller, context, kind, grant.authorized))


def new_query_id() -> str:
    """Make the id of a query."""
    return f"{random.getrandbits(128):032x}"


def _subject(question: federation_pb2.QueryRequest, grant: Grant | None) -> Subject | None:
    """Check whom a question is about; about nobody in particular only where an authorization opens that."""
    about, named = question.subject, question.HasField("subject") or grant is None
    subject = reader.subject_of(about.scheme, about.value, about.as_written) if named else None
    if grant is not None:
        grant.scope.check_subject(subject, [selection.record_type for selection in question.selections])
    return subject


def _kept_back(mask: ReadMask, scheme: str) -> bool:
    if not scheme:
        return False
    try:
        lookup.by_subject(mask, scheme)
    except PermissionDenied:
        return True
    return False


def _shape(question: federation_pb2.QueryRequest) -> tuple[bytes, ...]:
    """All of a question but its subject and time."""
    return question.context.SerializeToString(), *[s.SerializeToString() for s in question.selections]


def _outline(parts: Sequence[Part]) -> tuple[_Outline, ...]:
    by_agency: dict[str, list[Part]] = {}
    for part in parts:
        if not part.denied:
            by_agency.setdefault(part.mask.record_type.owner, []).append(part)
    return tuple(
        _Outline(
            agency,
            record_source_pb2.FetchRequest(selections=map(_granted, several)).SerializeToString(deterministic=True),
            record_source_pb2.FetchRequest(known_policy_version=several[0].mask.version).SerializeToString(),
            tuple(several),
        )
        for agency, several in by_agency.items()
    )


def _granted(part: Part) -> exchange_pb2.Selection:
    """The selection with only the fields that may be given."""
    selection = exchange_pb2.Selection()
    selection.CopyFrom(part.selection)
    del selection.fields[:]
    selection.fields.extend(part.mask.grants)
    return selection


def _fields(
    subject: Subject | None, question: federation_pb2.QueryRequest, query_id: str
) -> tuple[bytes, bytes, bytes]:
    """Serialize the fields of a request that differ from question to question: subject, as-of time, query id."""
    about = as_of = b""
    if subject is not None:
        named = common_pb2.SubjectId(scheme=subject[0], value=subject[1], as_written=question.subject.as_written)
        about = record_source_pb2.FetchRequest(subject=named).SerializeToString()
    if question.HasField("as_of"):
        as_of = record_source_pb2.FetchRequest(as_of=question.as_of).SerializeToString()
    return (
        about,
        as_of,
        record_source_pb2.FetchRequest(query_id=query_id).SerializeToString(),
    )
