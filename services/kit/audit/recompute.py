"""Recomputing: what follows, for a logged question, from the policy that was in force, compared with what was decided.

The very engine that decides is asked once more, for the caller, the context and the moment that the log names, with the
policies, the scope and the jurisdiction whose text the log has archived. Before that, what says so is checked itself:
leaf, proof, opening and every text against what it is called.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.audit import evidence
from services.kit.audit.archive import Archive, Missing
from services.kit.audit.asking import asked, scope_of
from services.kit.audit.findings import Difference, Finding, Verdict
from services.kit.authorizations.scope import Scope
from services.kit.errors import HutongError, InvalidArgument, PermissionDenied, Reason
from services.kit.jurisdiction import Jurisdiction
from services.kit.log import masks
from services.kit.log.checkpoint import Checkpoint
from services.kit.policy.diffing import Asked, said
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.policies import AgencyPolicies, PolicySet
from services.kit.policy.transforms import MIN_SECRET
from services.kit.records.catalogue import RecordType

WRITING: Final = dt.timedelta(seconds=30)
"""A decision is made at most this long before it is logged: calls end sooner."""

_WORST: Final = (Verdict.BROKEN, Verdict.DIFFERS, Verdict.ERASED, Verdict.NOT_RECOMPUTABLE, Verdict.SAME)
_Decisions = Mapping[str, exchange_pb2.FieldDecision]


@dataclass(frozen=True, slots=True)
class _Compared:
    """How one record type of an entry came out."""

    verdict: Verdict
    why: str = ""
    differences: tuple[Difference, ...] = ()
    fields: int = 0


class Recomputer:
    """Recomputes entries of one log, whose texts are in one archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._engines: dict[tuple[str, str, str], _Engine] = {}

    def recompute(self, decision: log_service_pb2.Decision, checkpoint: Checkpoint) -> Finding:
        """Prove an entry, and recompute what was decided in it."""
        entry = log_pb2.LogEntry()
        try:
            entry = evidence.prove(decision, checkpoint)
            if evidence.is_mask(entry):
                masks.read(entry.mask.SerializeToString())
                return Finding(decision.index, Verdict.SAME, "the text of a mask", entry)
            compared = list(self._compared(decision, entry))
        except Missing as missing:
            return Finding(decision.index, missing.verdict, str(missing), entry)
        except HutongError as error:
            return Finding(decision.index, Verdict.BROKEN, error.message, entry)
        return _finding(decision.index, entry, compared)

    def _compared(self, decision: log_service_pb2.Decision, entry: log_pb2.LogEntry) -> Iterator[_Compared]:
        if not entry.disclosures:
            yield self._refusal(entry)
            return
        scope = scope_of(entry, self._archive)
        opening = decision.opening if decision.HasField("opening") else None
        for each in entry.disclosures:
            if not each.mask_digest:
                # Events, and what an erasure took: what leaves then is for no policy to say.
                why = f"{each.record_type} is given without asking a policy"
                yield _Compared(Verdict.NOT_RECOMPUTABLE, why)
                continue
            try:
                text = self._archive.mask(each.mask_digest)
                logged = {made.field: made for made in masks.decisions_of(text)}
                if text.record_type != each.record_type:
                    yield _Compared(Verdict.BROKEN, "the mask is of another record type")
                    continue
                question = asked(entry, opening, scope, text.record_type, tuple(logged))
                yield self._type(entry, question, scope, text.policy_version, logged)
            except Missing as missing:
                yield _Compared(missing.verdict, str(missing))

    def _type(
        self, entry: log_pb2.LogEntry, question: Asked, scope: Scope | None, version: str, logged: _Decisions
    ) -> _Compared:
        kind = self._kind(question.record_type)
        found: _Compared | None = None
        for pack in self._archive.packs():
            engine = self._engine(kind, version, pack)
            if erased := question.erased(engine.owner.context):
                return _Compared(Verdict.ERASED, f"the policy looks at {' and '.join(erased)}, which was erased")
            for moment in _moments(entry, engine.owner):
                compared = _compare(engine, question, kind, scope, moment, logged)
                if compared.verdict is Verdict.SAME:
                    return compared
                # As logged, and by the first pack: that is what to tell of where nothing fits.
                found = found or compared
        return found or _Compared(Verdict.NOT_RECOMPUTABLE, "no jurisdiction pack fits")

    def _engine(self, kind: RecordType, version: str, pack: Jurisdiction) -> "_Engine":
        key = kind.owner, version, f"{pack.id} {pack.version}"
        if key not in self._engines:
            owner = self._archive.policies(kind.owner, version, pack)
            self._engines[key] = _Engine(owner, self._archive, pack)
        return self._engines[key]

    def _kind(self, name: str) -> RecordType:
        try:
            return self._archive.catalogue.get(name)
        except InvalidArgument:
            raise Missing(f"there is no record type {name} here") from None

    def _refusal(self, entry: log_pb2.LogEntry) -> _Compared:
        """Judge an entry in which no field was decided: whether the refusal follows from what the context says."""
        if entry.outcome != log_pb2.OUTCOME_REFUSED:
            return _Compared(Verdict.NOT_RECOMPUTABLE, "no field was decided")
        follows = _FOLLOWS.get(entry.reason)
        if follows is None:
            return _Compared(Verdict.NOT_RECOMPUTABLE, f"refused as {entry.reason} before a policy was asked")
        if any(follows(entry, pack) for pack in self._archive.packs()):
            return _Compared(Verdict.SAME, f"refused as {entry.reason}")
        return _Compared(Verdict.DIFFERS, f"refused as {entry.reason}, which does not follow from what was stated")


class _Engine:
    """The engine over one agency's policies of one version, at a moment that is set."""

    def __init__(self, owner: AgencyPolicies, archive: Archive, pack: Jurisdiction) -> None:
        self.owner = owner
        self._now = dt.datetime.min.replace(tzinfo=dt.UTC)
        policies = PolicySet({owner.agency: owner})
        self._engine = PolicyEngine(policies, archive.catalogue, pack, bytes(MIN_SECRET), lambda: self._now)

    def decide(self, question: Asked, kind: RecordType, scope: Scope | None, moment: dt.datetime) -> _Decisions:
        """Decide; raises `InvalidArgument` or `PermissionDenied` where the question itself is refused."""
        self._now = moment
        context = question.context
        if scope is not None:
            scope.check_context(context)
        mask = self._engine.mask(question.caller, context, kind, question.authorization)
        if scope is not None:
            mask = scope.narrow(mask)
        return {decision.field: decision for decision in mask.decisions}


def _moments(entry: log_pb2.LogEntry, owner: AgencyPolicies) -> Iterator[dt.datetime]:
    """Give the moment that was logged, and the one before where a policy began or ended while it was being logged."""
    logged = entry.time.ToDatetime(dt.UTC)
    yield logged
    boundary = owner.next_boundary(logged - WRITING)
    if boundary is not None and boundary <= logged:
        yield logged - WRITING


def _compare(
    engine: _Engine,
    question: Asked,
    kind: RecordType,
    scope: Scope | None,
    moment: dt.datetime,
    logged: _Decisions,
) -> _Compared:
    try:
        follows = engine.decide(question, kind, scope, moment)
    except (InvalidArgument, PermissionDenied) as error:
        return _Compared(Verdict.DIFFERS, f"{kind.name}: the question is to be refused as {error.reason}")
    differences = tuple(_differences(kind.name, logged, follows))
    why = f"{kind.name}: {len(differences)} of {len(logged)} fields" if differences else ""
    return _Compared(Verdict.DIFFERS if differences else Verdict.SAME, why, differences, len(logged))


def _differences(kind: str, logged: _Decisions, follows: _Decisions) -> Iterator[Difference]:
    for path, was in logged.items():
        becomes = follows.get(path)
        if becomes is None:
            yield Difference(kind, path, said(was), "no such field")
        elif was != becomes:
            yield Difference(kind, path, *_worded(was, becomes))


def _worded(was: exchange_pb2.FieldDecision, becomes: exchange_pb2.FieldDecision) -> tuple[str, str]:
    before, after = said(was), said(becomes)
    # What is given may be the same, and only its grounds another one's.
    return (before, after) if before != after else (f"{before} {_grounds(was)}", f"{after} {_grounds(becomes)}")


def _grounds(decision: exchange_pb2.FieldDecision) -> str:
    until = f" until {decision.until.ToJsonString()}" if decision.HasField("until") else ""
    return f"by {', '.join(decision.policy_ids) or 'nothing'} on {decision.legal_basis or 'no basis'}{until}"


def _finding(index: int, entry: log_pb2.LogEntry, compared: Iterable[_Compared]) -> Finding:
    """Put what came of all record types together: the worst of them counts."""
    found = tuple(compared)
    verdict = min((each.verdict for each in found), key=_WORST.index)
    why = "; ".join(dict.fromkeys(each.why for each in found if each.verdict is verdict and each.why))
    differences = tuple(difference for each in found for difference in each.differences)
    return Finding(index, verdict, why, entry, differences, sum(each.fields for each in found))


def _purpose_refused(entry: log_pb2.LogEntry, pack: Jurisdiction) -> bool:
    return entry.purpose not in pack.purposes


def _basis_refused(entry: log_pb2.LogEntry, pack: Jurisdiction) -> bool:
    return entry.legal_basis not in pack.bases


def _case_refused(entry: log_pb2.LogEntry, pack: Jurisdiction) -> bool:
    purpose = pack.purposes.get(entry.purpose)
    return purpose is not None and purpose.needs_case and not entry.case_commitment


def _needs_authorization(entry: log_pb2.LogEntry, pack: Jurisdiction) -> bool:
    return entry.purpose in pack.needing_authorization and not entry.authorization_id


# What is no code at all is logged as none: whoever stated it was refused for that, in one word or another.
_FOLLOWS: Final[Mapping[str, Callable[[log_pb2.LogEntry, Jurisdiction], bool]]] = MappingProxyType(
    {
        Reason.PURPOSE_MISSING: _purpose_refused,
        Reason.PURPOSE_SEVERAL: _purpose_refused,
        Reason.PURPOSE_UNKNOWN: _purpose_refused,
        Reason.BASIS_MISSING: _basis_refused,
        Reason.BASIS_UNKNOWN: _basis_refused,
        Reason.CASE_MISSING: _case_refused,
        Reason.AUTHORIZATION_MISSING: _needs_authorization,
    }
)
