"""From a question to what is asked of each department: decide first, then ask only for what may be given.

Callers ask the same question of one subject after another. What does not depend on the subject is an `Inquiry`, and is
prepared once: the decided parts, how they are cut, and what each department is asked, under one signed context. It is
kept until a policy changes, begins or ends. An authorization is checked for every question, before anything that was
kept is looked at.
"""

import datetime as dt
import hashlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

from certs.svid import Svid
from gateway.abroad import Abroad, Errand, ForeignPart, errands
from gateway.cut import Cut
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit import lookup, reader, wire
from services.kit.authorizations.enforcer import Enforcer, Grant
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.context import LIFETIME, ContextSigner
from services.kit.doors import check_selections
from services.kit.errors import PermissionDenied, Reason
from services.kit.log.facts import Facts
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.policy.policies import Standing
from services.kit.records.catalogue import Catalogue, RecordType
from services.kit.uses import Uses

T = TypeVar("T")

Asked = federation_pb2.QueryRequest | federation_pb2.SessionRequest.Ask
"""What says whom a question is about, and as of when."""

Subject = tuple[str, str]
"""Scheme and value, checked."""

_MOST_KEPT: Final = 1024
_MOST_PREPARED: Final = 64
"""Most schemes and scopes that one inquiry is prepared for at a time."""
_MOST_SUBJECTS: Final = 8192
_LARGEST_KEPT: Final = 4096
"""Bytes: a question of more holds a page token or a list of its own, and is not asked again."""
_USED_AGAIN: Final = LIFETIME / 3
"""How long a signed context is used again: what was asked just before still has most of its life to arrive in."""
_NEVER: Final = dt.datetime.max.replace(tzinfo=dt.UTC)

_QUERY_ID: Final = record_source_pb2.FetchSessionRequest.Ask.QUERY_ID_FIELD_NUMBER


@dataclass(slots=True, eq=False)
class Part:
    """One selection of the question, decided."""

    index: int
    selection: exchange_pb2.Selection
    mask: ReadMask
    kept_back: bool
    """The subject may not be looked for: to find a record by it would tell what policy keeps back."""
    denied: bool = field(init=False)
    """Nothing may be given; no department is asked."""
    refused: bytes = field(init=False, repr=False)
    """The section of a part that is denied, serialized."""
    cut: Cut = field(init=False, repr=False)
    """Cuts what a department sends for it."""

    def __post_init__(self) -> None:
        self.denied = self.kept_back or not self.mask.grants
        self.refused = self.section().SerializeToString() if self.denied else b""
        self.cut = Cut(self.mask)

    @property
    def agency(self) -> str:
        """Who answers for it."""
        return self.mask.record_type.owner

    def note(self, facts: Facts, rows: int) -> None:
        """Note for the log what is given."""
        facts.disclosed(self.mask, rows)

    def section(self) -> exchange_pb2.Section:
        """Begin the part's section: what was decided, without any record."""
        section = self.mask.section()
        if self.mask.grants and self.kept_back:
            section.status = exchange_pb2.SECTION_STATUS_DENIED
            section.reason = Reason.LOOKUP_FIELD_NOT_READABLE
        return section


AnyPart = Part | ForeignPart


@dataclass(frozen=True, slots=True)
class Ask:
    """What one department is asked."""

    agency: str
    question: bytes
    """A `FetchRequest` with all but what `Plan.rest` says, serialized: the same bytes for many questions."""
    parts: tuple[Part, ...]
    """The parts its sections answer, in order."""


@dataclass(frozen=True, slots=True)
class _Outline:
    """What of an `Ask` depends on no signature: fields of the request, serialized.

    They are digested one after the other in the order of their numbers, as canonical serialization has them: the
    department digests what it parsed, written canonically, and must come to the same bytes (`request_digest`).
    """

    agency: str
    asked: bytes
    """Selections and known policy version."""
    parts: tuple[Part, ...]


@dataclass(slots=True, eq=False)
class Plan:
    """A question, decided and divided."""

    query_id: str
    svid: Svid
    """The identity that signed, and that the departments must be called with."""
    parts: tuple[AnyPart, ...]
    refused: list[bytes]
    """Of each part its section where it is denied, serialized, and nothing where a department is asked."""
    asks: tuple[Ask, ...]
    errands: tuple[Errand, ...]
    """What other zones are asked."""
    rest: bytes
    """Fields of a `FetchSessionRequest.Ask` that are the same for every department: subject, as-of time, query id."""
    context: exchange_pb2.RequestContext
    """Why it is asked."""
    caller: Caller
    """Who asks."""
    grant: Grant | None = None
    """The authorization that is used, found good when the plan was made."""
    subject: Subject | None = None
    """Whom the question is about."""

    def still(self) -> None:
        """Check the authorization again, where one is used; raises as `Enforcer.check` does."""
        if self.grant is not None:
            self.grant.still()

    async def wait(self, work: Awaitable[T]) -> T:
        """Wait for something; where an authorization is used and ends meanwhile, raise why at once."""
        return await work if self.grant is None else await self.grant.while_it_stands(work)


@dataclass(frozen=True, slots=True)
class _Delegated:
    """What departments are asked under one signed context, and how long it is used again."""

    svid: Svid
    since: dt.datetime
    until: dt.datetime
    asks: tuple[Ask, ...]

    def stands(self, svid: Svid, now: dt.datetime) -> bool:
        """A clock that was set back would send what is signed in the future."""
        same = self.svid is svid or self.svid.version == svid.version
        return same and self.since <= now < self.until


@dataclass(slots=True, eq=False)
class _Prepared:
    """What of a plan does not depend on the subject."""

    parts: tuple[AnyPart, ...]
    outlines: tuple[_Outline, ...]
    errands: tuple[Errand, ...]
    refused: list[bytes]
    standing: Standing
    delegated: _Delegated | None = None


@dataclass(slots=True, eq=False)
class Inquiry:
    """Who asks what and why: all of a question but whom it is about, and as of when. Nothing of it is checked yet."""

    caller: Caller
    question: federation_pb2.QueryRequest
    context: exchange_pb2.RequestContext
    under_authorization: bool
    """It states an authorization, or needs one."""
    key: tuple[str, bytes] | None
    """What it is kept under once it was found good; None where it is not kept."""
    prepared: dict[tuple[str, bytes] | str, _Prepared] = field(default_factory=dict, repr=False)
    """By the subject's scheme, with the scope's digest where there is one."""


class Planner:
    """Decides and divides questions."""

    def __init__(
        self,
        catalogue: Catalogue,
        engine: PolicyEngine,
        signer: ContextSigner,
        clock: Clock,
        enforcer: Enforcer | None = None,
        abroad: Abroad | None = None,
    ) -> None:
        """Without an `enforcer` every question under an authorization is refused; without `abroad`, other zones are."""
        self._catalogue = catalogue
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._enforcer = enforcer or Enforcer.without_service(engine.jurisdiction, clock)
        self._abroad = abroad or Abroad({})
        self._kept: OrderedDict[tuple[str, bytes], Inquiry] = OrderedDict()
        """The one used least lately first: whoever asks many once puts out no question that is asked again."""
        self.questions = Uses()
        """How what is decided and divided is kept, of questions that differ in their subjects only."""
        self.contexts = Uses()
        """How signed contexts are kept."""

    def inquiry(self, question: federation_pb2.QueryRequest, caller: Caller) -> Inquiry:
        """Get the inquiry that a question is part of; the one that was kept, where there is one."""
        common = federation_pb2.QueryRequest()
        common.CopyFrom(question)
        common.ClearField("subject")
        common.ClearField("as_of")
        written = common.SerializeToString()
        key = (caller.spiffe_id, written)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        context = common.context
        concerned = self._enforcer.concerns(context)
        return Inquiry(caller, common, context, concerned, key if len(written) <= _LARGEST_KEPT else None)

    def decide(self, question: federation_pb2.QueryRequest, caller: Caller) -> tuple[AnyPart, ...]:
        """Check a question and decide every selection.

        Raises `InvalidArgument` for what is wrong with it, and as `Enforcer.check` does.
        """
        inquiry, now = self.inquiry(question, caller), self._clock()
        reader.moment_of(question, now)
        grant = self._grant(inquiry, now)
        subject, _ = _subject(question, inquiry, grant)
        return self._prepared(inquiry, subject, grant, now).parts

    def record_type(self, name: str) -> RecordType:
        """Find a record type; raises `InvalidArgument` RECORD_TYPE_UNKNOWN."""
        return self._catalogue.get(name)

    def check_subjects(self, questions: Sequence[federation_pb2.QueryRequest], caller: Caller) -> None:
        """Check whom questions are about that differ in nothing else; raises as `decide` does."""
        inquiry = self.inquiry(questions[0], caller)
        grant = self._grant(inquiry, self._clock())
        for question in questions:
            _subject(question, inquiry, grant)

    def plan(self, question: federation_pb2.QueryRequest, caller: Caller, svid: Svid, query_id: str = "") -> Plan:
        """Plan a question that stands by itself; see `plan_for`."""
        return self.plan_for(self.inquiry(question, caller), question, svid, query_id)

    def plan_for(self, inquiry: Inquiry, asked: Asked, svid: Svid, query_id: str = "") -> Plan:
        """Make one request per department, with only the fields that may be given, under one signed context.

        `asked` says whom it is about and as of when; `query_id` is that of the question this is a part of. Raises as
        `decide` does.
        """
        now = self._clock()
        rest = b""
        if asked.HasField("as_of"):
            reader.moment_of(asked, now)
            rest = record_source_pb2.FetchSessionRequest.Ask(as_of=asked.as_of).SerializeToString()
        grant = self._grant(inquiry, now) if inquiry.under_authorization else None
        subject, about = _subject(asked, inquiry, grant)
        prepared = self._prepared(inquiry, subject, grant, now)
        query_id = query_id or new_query_id()
        asks: tuple[Ask, ...] = ()
        if prepared.outlines:
            delegated = prepared.delegated
            self.contexts.wanted += 1
            if delegated is None or not delegated.stands(svid, now):
                delegated = prepared.delegated = self._delegate(prepared, inquiry, svid, now)
            svid, asks = delegated.svid, delegated.asks
        rest = about + rest + wire.embedded(_QUERY_ID, query_id.encode())
        return Plan(
            query_id,
            svid,
            prepared.parts,
            prepared.refused,
            asks,
            prepared.errands,
            rest,
            inquiry.context,
            inquiry.caller,
            grant,
            subject,
        )

    def _delegate(self, prepared: _Prepared, inquiry: Inquiry, svid: Svid, now: dt.datetime) -> _Delegated:
        self.contexts.made += 1
        digests = [hashlib.sha256(outline.asked).digest() for outline in prepared.outlines]
        signed = self._signer.sign(svid, inquiry.caller, inquiry.context, digests)
        word = record_source_pb2.FetchRequest(delegated=signed).SerializeToString()
        asks = tuple(Ask(outline.agency, word + outline.asked, outline.parts) for outline in prepared.outlines)
        return _Delegated(svid, now, now + _USED_AGAIN, asks)

    def _grant(self, inquiry: Inquiry, now: dt.datetime) -> Grant | None:
        if not inquiry.under_authorization:
            return None
        self._engine.check_context(inquiry.context)
        return self._enforcer.check(inquiry.caller, inquiry.context, now)

    def _prepared(self, inquiry: Inquiry, subject: Subject | None, grant: Grant | None, now: dt.datetime) -> _Prepared:
        """Get what is prepared for questions about such a subject; prepares it where it is not, or stands no more."""
        scheme = subject[0] if subject else ""
        key = scheme if grant is None else (scheme, grant.scope_digest)
        found = inquiry.prepared.get(key)
        self.questions.wanted += 1
        if found is None or not found.standing.holds(self._engine.policies, now):
            found = self._prepare(inquiry, scheme, grant, now)
            if len(inquiry.prepared) >= _MOST_PREPARED:
                inquiry.prepared.clear()
            inquiry.prepared[key] = found
            self._keep(inquiry)
        return found

    def _keep(self, inquiry: Inquiry) -> None:
        if inquiry.key is not None:
            self._kept[inquiry.key] = inquiry
            self._kept.move_to_end(inquiry.key)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)

    def _prepare(self, inquiry: Inquiry, scheme: str, grant: Grant | None, now: dt.datetime) -> _Prepared:
        self.questions.made += 1
        policies = self._engine.policies
        parts = self._decide(inquiry, scheme, grant)
        own = [part for part in parts if isinstance(part, Part)]
        boundaries = [part.mask.expires_at for part in own if part.mask.expires_at is not None]
        standing = Standing(policies, now, min(boundaries, default=_NEVER))
        abroad = errands(parts, inquiry.caller, inquiry.context)
        return _Prepared(parts, _outlines(own), abroad, [part.refused for part in parts], standing)

    def _decide(self, inquiry: Inquiry, scheme: str, grant: Grant | None) -> tuple[AnyPart, ...]:
        selections = inquiry.question.selections
        self._engine.check_context(inquiry.context)
        check_selections(selections)
        parts: list[AnyPart] = []
        for index, selection in enumerate(selections):
            kind = self._catalogue.get(selection.record_type)
            if selection.zone:
                parts.append(self._abroad.part(index, selection, kind, inquiry.caller, inquiry.context))
                continue
            mask = self._whole(inquiry, kind, grant).restrict(selection.fields)
            lookup.by_filter(mask, selection.filter)
            parts.append(Part(index, selection, mask, _kept_back(mask, scheme)))
        return tuple(parts)

    def _whole(self, inquiry: Inquiry, kind: RecordType, grant: Grant | None) -> ReadMask:
        if grant is None:
            return self._engine.mask(inquiry.caller, inquiry.context, kind)
        return grant.narrow(self._engine.mask(inquiry.caller, inquiry.context, kind, grant.authorized))


def new_query_id() -> str:
    """Make the id of a query."""
    return f"{random.getrandbits(128):032x}"


def _subject(asked: Asked, inquiry: Inquiry, grant: Grant | None) -> tuple[Subject | None, bytes]:
    """Check whom a question is about; about nobody in particular only where an authorization opens that.

    Gives the subject, and the field that says it to a department, serialized.
    """
    subject: Subject | None = None
    field = b""
    if grant is None or asked.HasField("subject"):
        about = asked.subject
        subject, field = _checked(about.scheme, about.value, about.as_written)
    if grant is not None:
        own = [selection.record_type for selection in inquiry.question.selections if not selection.zone]
        grant.scope.check_subject(subject, own)
    return subject, field


@lru_cache(maxsize=_MOST_SUBJECTS)
def _checked(scheme: str, value: str, as_written: bool) -> tuple[Subject, bytes]:
    subject = reader.subject_of(scheme, value, as_written)
    about = common_pb2.SubjectId(scheme=subject[0], value=subject[1], as_written=as_written)
    return subject, record_source_pb2.FetchSessionRequest.Ask(subject=about).SerializeToString()


def _kept_back(mask: ReadMask, scheme: str) -> bool:
    if not scheme:
        return False
    try:
        lookup.by_subject(mask, scheme)
    except PermissionDenied:
        return True
    return False


def _outlines(parts: Iterable[Part]) -> tuple[_Outline, ...]:
    by_agency: dict[str, list[Part]] = {}
    for part in parts:
        if not part.denied:
            by_agency.setdefault(part.mask.record_type.owner, []).append(part)
    return tuple(_Outline(agency, _asked_of(several), tuple(several)) for agency, several in by_agency.items())


def _asked_of(parts: Sequence[Part]) -> bytes:
    asked = record_source_pb2.FetchRequest(selections=map(_granted, parts), known_policy_version=parts[0].mask.version)
    return asked.SerializeToString(deterministic=True)


def _granted(part: Part) -> exchange_pb2.Selection:
    """The selection with only the fields that may be given."""
    selection = exchange_pb2.Selection()
    selection.CopyFrom(part.selection)
    del selection.fields[:]
    selection.fields.extend(part.mask.grants)
    return selection
