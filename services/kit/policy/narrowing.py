"""Narrows a mask to what an authorization leaves of it: fewer fields, fewer rows, never more of either.

The policy has decided before; what it refuses stays refused, for its reason. What it gives and the scope does not name
is refused as AUTHORIZATION_SCOPE.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from hutong.api.exchange.v1 import exchange_pb2
from services.kit import lookup
from services.kit.errors import InvalidArgument, Reason
from services.kit.policy.mask import Conditions, ReadMask
from services.kit.records.catalogue import RecordType

_REFUSED = exchange_pb2.VERDICT_REFUSED


def narrow(mask: ReadMask, digest: bytes, paths: Iterable[str], condition: str) -> ReadMask:
    """Give what is left of a whole mask: fields at or below `paths`, of rows for which `condition` (AIP-160) holds.

    `digest` names the scope that says so: what was made for one scope is never used for another. The caller must get
    the fields of the condition in clear, as those of every filter: otherwise each row would tell what is in them, and
    nothing is left, for the reason why.
    """
    return mask.narrowed(digest, lambda policy: _narrowed(policy, paths, condition))


def _narrowed(policy: ReadMask, paths: Iterable[str], condition: str) -> ReadMask:
    inside = frozenset(_leaves(policy.record_type, paths))
    rows, why = _rows(policy, condition)
    decisions = tuple(_scoped(decision, decision.field in inside, why) for decision in policy.decisions)
    left = {decision.field for decision in decisions if decision.verdict != _REFUSED}
    grants = {path: grant for path, grant in policy.grants.items() if path in left}
    return dataclasses.replace(policy, grants=grants, decisions=decisions, scope=rows, _policy=policy)


def _rows(policy: ReadMask, condition: str) -> tuple[Conditions, Reason]:
    try:
        return lookup.by_filter(policy, condition), Reason.PERMITTED
    except InvalidArgument as error:
        unreadable = error.reason is Reason.FILTER_FIELD_NOT_READABLE
        return (), error.reason if unreadable else Reason.SCOPE_INVALID


def _leaves(record_type: RecordType, paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if path in record_type.fields:
            # A scope may name a field that this version does not know: there is nothing to give of it.
            yield from record_type.expand((path,))


def _scoped(decision: exchange_pb2.FieldDecision, inside: bool, why: Reason) -> exchange_pb2.FieldDecision:
    """Turn the policy's decision into the one that holds under the authorization."""
    if not inside:
        return exchange_pb2.FieldDecision(field=decision.field, verdict=_REFUSED, reason=Reason.AUTHORIZATION_SCOPE)
    if why is Reason.PERMITTED or decision.verdict == _REFUSED:
        return decision
    return exchange_pb2.FieldDecision(field=decision.field, verdict=_REFUSED, reason=why)
