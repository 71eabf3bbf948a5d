"""From a question to what is asked of each department: decide first, then ask only for what may be given.

Callers ask the same question of one subject after another, so what does not depend on the subject is prepared once:
the decided parts, and each department's request without its subject. It is kept until a policy changes, begins or ends.
"""

import datetime as dt
import hashlib
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from certs.svid import Svid
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit import lookup, reader
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.context import LIFETIME, ContextSigner
from services.kit.doors import check_selections
from services.kit.errors import PermissionDenied, Reason
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.policy.policies import PolicySet
from services.kit.records.catalogue import Catalogue

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

    @property
    def denied(self) -> list[Part]:
        """The parts of which nothing may be given."""
        return [part for part in self.parts if part.denied]


@dataclass(frozen=True, slots=True)
class _Delegation:
    """The gateway's signed word, serialized as a request has it, and how long it is used again."""

    svid: Svid
    until: dt.datetime
    field: bytes


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


class Planner:
    """Decides and divides questions."""

    def __init__(self, catalogue: Catalogue, engine: PolicyEngine, signer: ContextSigner, clock: Clock) -> None:
        self._catalogue = catalogue
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str, tuple[bytes, ...]], _Prepared] = OrderedDict()

    def decide(self, question: federation_pb2.QueryRequest, caller: Caller) -> tuple[Part, ...]:
        """Check a question and decide every selection; raises `InvalidArgument` for what is wrong with it."""
        return self._prepared(question, caller)[1].parts

    def plan(self, question: federation_pb2.QueryRequest, caller: Caller, svid: Svid) -> Plan:
        """Make one request per department, with only the fields that may be given, under one signed context."""
        subject, prepared = self._prepared(question, caller)
        query_id = f"{random.getrandbits(128):032x}"
        if not prepared.outlines:
            return Plan(query_id, svid, prepared.parts, ())
        delegation = self._delegation(prepared, question, caller, svid)
        front, as_of, back = _fields(subject, question, query_id)
        front = delegation.field + front
        asks = (
            Ask(outline.agency, front + outline.selections + as_of + outline.known_policy_version + back, outline.parts)
            for outline in prepared.outlines
        )
        return Plan(query_id, delegation.svid, prepared.parts, tuple(asks))

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

    def _prepared(self, question: federation_pb2.QueryRequest, caller: Caller) -> tuple[tuple[str, str], _Prepared]:
        now = self._clock()
        reader.moment_of(question, now)
        about = question.subject
        subject = reader.subject_of(about.scheme, about.value, about.as_written)
        key = caller.spiffe_id, subject[0], _shape(question)
        kept = self._kept.get(key)
        if kept is None or not kept.stands(self._engine.policies, now):
            kept = self._prepare(question, caller, subject[0], now)
            if sum(map(len, key[2])) > _LARGEST_KEPT:
                return subject, kept
            self._kept[key] = kept
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return subject, kept

    def _prepare(
        self, question: federation_pb2.QueryRequest, caller: Caller, scheme: str, now: dt.datetime
    ) -> _Prepared:
        policies = self._engine.policies
        parts = self._decide(question, caller, scheme)
        boundaries = [part.mask.expires_at for part in parts if part.mask.expires_at is not None]
        return _Prepared(parts, _outline(parts), policies, now, min(boundaries, default=None))

    def _decide(self, question: federation_pb2.QueryRequest, caller: Caller, scheme: str) -> tuple[Part, ...]:
        self._engine.check_context(question.context)
        check_selections(question.selections)
        parts: list[Part] = []
        for index, selection in enumerate(question.selections):
            kind = self._catalogue.get(selection.record_type)
            mask = self._engine.mask(caller, question.context, kind).restrict(selection.fields)
            reader.readable(mask, selection.filter)
            parts.append(Part(index, selection, mask, _kept_back(mask, scheme)))
        return tuple(parts)


def _kept_back(mask: ReadMask, scheme: str) -> bool:
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
    subject: tuple[str, str], question: federation_pb2.QueryRequest, query_id: str
) -> tuple[bytes, bytes, bytes]:
    """Serialize the fields of a request that differ from question to question: subject, as-of time, query id."""
    about = common_pb2.SubjectId(scheme=subject[0], value=subject[1], as_written=question.subject.as_written)
    as_of = b""
    if question.HasField("as_of"):
        as_of = record_source_pb2.FetchRequest(as_of=question.as_of).SerializeToString()
    return (
        record_source_pb2.FetchRequest(subject=about).SerializeToString(),
        as_of,
        record_source_pb2.FetchRequest(query_id=query_id).SerializeToString(),
    )
