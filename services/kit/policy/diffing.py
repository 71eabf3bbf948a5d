"""Policy diff: what would become of questions that were really asked, were another policy in force.

Questions are replayed against both policies at one moment, through the very engine that decides; what comes out
differently is listed field by field. That a policy also opens something to somebody who has never asked, a log cannot
tell: `hutong policy show` does.
"""

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.caller import Caller
from services.kit.errors import HutongError
from services.kit.jurisdiction import Jurisdiction
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.policies import PolicySet
from services.kit.policy.schema import Authorized
from services.kit.policy.transforms import MIN_SECRET
from services.kit.records.catalogue import Catalogue

ERASABLE: Final = ("case_ref", "on_behalf_of")
"""Parts of a context that a log commits to with a salt, and that are unknown once it is gone."""


_ANY: Final = "(any)"
"""Stands for what was stated and no policy looks at: that there was something is all that a purpose may demand."""


class Kind(StrEnum):
    """In what an answer would be another one."""

    OPENED = "opened"
    CLOSED = "closed"
    TRANSFORM = "other transform"
    CONDITIONS = "other conditions"
    RETENTION = "other retention"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was asked of one record type, as far as policies may look at it."""

    caller: Caller
    purpose: str
    legal_basis: str
    record_type: str
    fields: tuple[str, ...]
    """Paths of the leaf fields that were decided."""
    case_ref: str | None = ""
    """None where it is not known any more."""
    on_behalf_of: str | None = ""
    """None where it is not known any more."""
    authorization: Authorized | None = None
    """The authorization that was relied on, where one was, and was found good."""

    @property
    def context(self) -> exchange_pb2.RequestContext:
        """Why it was asked; what is not known any more is a text that says so."""
        return exchange_pb2.RequestContext(
            purpose=self.purpose,
            legal_basis=self.legal_basis,
            case_ref=_or_any(self.case_ref),
            on_behalf_of=_or_any(self.on_behalf_of),
            authorization_id=self.authorization.id if self.authorization else "",
        )

    def erased(self, read: Iterable[str]) -> tuple[str, ...]:
        """Name what is not known any more of the parts of a context that policies read."""
        return tuple(name for name in ERASABLE if name in read and getattr(self, name) is None)


@dataclass(frozen=True, slots=True)
class Answers:
    """How often one question was asked."""

    asked: Asked
    count: int


@dataclass(frozen=True, slots=True)
class Change:
    """One field that one caller would be answered differently about."""

    asked: Asked
    field: str
    kinds: tuple[Kind, ...]
    before: str
    """What it is given as; `refused: REASON` where it is not."""
    after: str
    count: int
    """Answers in the log that this would have changed."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What came of replaying a log."""

    changes: tuple[Change, ...]
    answers: int
    """Answers replayed, each record type counted."""
    questions: int
    """Distinct ones among them."""
    left_out: Mapping[str, int]
    """Answers that could not be replayed, by why."""


def diff(
    old: PolicySet,
    new: PolicySet,
    log: Iterable[Answers],
    catalogue: Catalogue,
    jurisdiction: Jurisdiction,
    now: dt.datetime,
) -> Diff:
    """Replay questions against two policies, as though asked at `now`."""
    before, after = (
        PolicyEngine(policies, catalogue, jurisdiction, bytes(MIN_SECRET), lambda: now) for policies in (old, new)
    )
    left_out: Counter[str] = Counter()
    changes: list[Change] = []
    answers = questions = 0
    for asked, count in _distinct(log, old, new, catalogue).items():
        why = _obstacle(asked, old, new, catalogue)
        if not why:
            try:
                changes += _changes(asked, count, before, after, catalogue)
            except HutongError as error:
                why = error.reason
        if why:
            left_out[why] += count
        else:
            answers, questions = answers + count, questions + 1
    changes.sort(key=_order)
    return Diff(tuple(changes), answers, questions, dict(left_out))


def _distinct(log: Iterable[Answers], old: PolicySet, new: PolicySet, catalogue: Catalogue) -> Mapping[Asked, int]:
    """Count questions, those as one that differ in nothing that either policy looks at: case numbers above all."""
    found: Counter[Asked] = Counter()
    for each in log:
        read = _read(each.asked, old, new, catalogue)
        case = _looked_at(each.asked.case_ref, "case_ref" in read)
        behalf = _looked_at(each.asked.on_behalf_of, "on_behalf_of" in read)
        found[dataclasses.replace(each.asked, case_ref=case, on_behalf_of=behalf)] += each.count
    return found


def _looked_at(text: str | None, looked_at: bool) -> str | None:
    return text if looked_at or text == "" else _ANY


def _read(asked: Asked, old: PolicySet, new: PolicySet, catalogue: Catalogue) -> frozenset[str]:
    if asked.record_type not in {kind.name for kind in catalogue}:
        return frozenset()
    owner = catalogue.get(asked.record_type).owner
    return old.of(owner).context | new.of(owner).context


def _obstacle(asked: Asked, old: PolicySet, new: PolicySet, catalogue: Catalogue) -> str:
    """Say why a question cannot be replayed; empty where it can."""
    if asked.record_type not in {kind.name for kind in catalogue}:
        return "record type unknown here"
    owner = catalogue.get(asked.record_type).owner
    if owner not in old.agencies and owner not in new.agencies:
        return "another agency's record"
    return "erased" if asked.erased(_read(asked, old, new, catalogue)) else ""


def _changes(
    asked: Asked, count: int, before: PolicyEngine, after: PolicyEngine, catalogue: Catalogue
) -> Iterator[Change]:
    was, becomes = (_decisions(engine, asked, catalogue) for engine in (before, after))
    for path, decision in was.items():
        kinds = tuple(_kinds(decision, becomes[path]))
        if kinds:
            yield Change(asked, path, kinds, said(decision), said(becomes[path]), count)


def _decisions(engine: PolicyEngine, asked: Asked, catalogue: Catalogue) -> dict[str, exchange_pb2.FieldDecision]:
    kind = catalogue.get(asked.record_type)
    known = [path for path in asked.fields if path in kind.fields]
    mask = engine.mask(asked.caller, asked.context, kind, asked.authorization)
    kept = frozenset(kind.expand(known)) if known else frozenset[str]()
    return {decision.field: decision for decision in mask.decisions if decision.field in kept}


def _kinds(was: exchange_pb2.FieldDecision, becomes: exchange_pb2.FieldDecision) -> Iterator[Kind]:
    given, still = (d.verdict != exchange_pb2.VERDICT_REFUSED for d in (was, becomes))
    if given != still:
        yield Kind.OPENED if still else Kind.CLOSED
        return
    if not given:
        return
    if was.transform != becomes.transform:
        yield Kind.TRANSFORM
    if set(was.conditions) != set(becomes.conditions):
        yield Kind.CONDITIONS
    if was.retention != becomes.retention:
        yield Kind.RETENTION


def said(decision: exchange_pb2.FieldDecision) -> str:
    """Word a decision: `clear`, `last4 where reg_status = 'A', kept P1Y`, `refused: NO_PERMIT`."""
    if decision.verdict == exchange_pb2.VERDICT_REFUSED:
        return f"refused: {decision.reason}"
    parts = [decision.transform or "clear"]
    if decision.conditions:
        parts.append(f"where {' AND '.join(f'({text})' for text in sorted(decision.conditions))}")
    return " ".join(parts) + (f", kept {decision.retention}" if decision.retention else "")


def _or_any(text: str | None) -> str:
    # Policies that look at it are not asked where it was erased.
    return _ANY if text is None else text


def _order(change: Change) -> tuple[str, ...]:
    asked = change.asked
    return asked.record_type, asked.caller.path, asked.purpose, asked.legal_basis, change.field
