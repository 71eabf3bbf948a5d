"""Decides: who, why and what in, a read mask out.

Cedar is asked once per leaf field of a record type, all in one batch; what it permits is then held to what the permits
themselves demand (basis, transform, rows, retention), always to the stricter side: default deny, forbid wins, several
permits combine to the least revealing transform, all row conditions and the shortest retention, and a decision that
fails refuses. The compiled mask is kept until a policy changes, begins or ends.
"""

import datetime as dt
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cedarpy

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.schema.v1 import options_pb2
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.durations import duration_seconds
from services.kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Reason
from services.kit.jurisdiction import Jurisdiction
from services.kit.policy import schema
from services.kit.policy.mask import FieldGrant, ReadMask
from services.kit.policy.policies import Policy, PolicySet
from services.kit.policy.schema import AUTHORIZATION, Authorized
from services.kit.policy.transforms import MIN_SECRET, least_revealing, pseudonym_key
from services.kit.records.catalogue import Catalogue, Field, RecordType, nearest
from services.kit.records.values import Column
from services.kit.uses import Uses

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "purpose": 64,
        "legal_basis": 64,
        "case_ref": 128,
        "authorization_id": 128,
        "on_behalf_of": 256,
        "authorization_ticket": 4096,
    }
)
"""Longest value of each part of a request's context, in characters."""

_CONTEXT_BYTES = 8192
"""More than all parts at their longest; what is larger holds something else, and contexts are kept."""

_SEVERAL = re.compile(r"[\s,;|]+")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A mask in the cache."""

    mask: ReadMask
    made_at: dt.datetime

    def stands(self, now: dt.datetime) -> bool:
        """A clock that was set back makes the mask as stale as one that ran past the boundary."""
        return self.made_at <= now and (self.mask.expires_at is None or now < self.mask.expires_at)


class PolicyEngine:
    """Compiles read masks from the policies in force."""

    def __init__(
        self,
        policies: PolicySet,
        catalogue: Catalogue,
        jurisdiction: Jurisdiction,
        secret: bytes,
        clock: Clock,
        *,
        cache_size: int = 4096,
    ) -> None:
        """`secret` is the node's: pseudonym keys are derived from it. Raises `FailedPrecondition` for a short one."""
        if len(secret) < MIN_SECRET:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"the secret needs at least {MIN_SECRET} bytes")
        self._policies = policies
        self._catalogue = catalogue
        self._jurisdiction = jurisdiction
        self._needing = jurisdiction.needing_authorization
        self._secret = secret
        self._clock = clock
        self._cache_size = cache_size
        self._kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()
        self.masks = Uses()
        """How masks are kept."""
        self._entities: dict[str, cedarpy.Entities] = {}

    @property
    def policies(self) -> PolicySet:
        """The policies in force."""
        return self._policies

    @property
    def jurisdiction(self) -> Jurisdiction:
        """The pack whose purposes and bases requests may state."""
        return self._jurisdiction

    @property
    def version(self) -> str:
        """Version of the policies in force: of the one agency's, where there is one, so that nodes can compare."""
        if len(self._policies.agencies) == 1:
            return next(iter(self._policies.agencies.values())).version
        return self._policies.version

    def replace(self, policies: PolicySet) -> None:
        """Put other policies in force, at once and altogether."""
        self._policies = policies
        self._kept.clear()

    def check_context(self, context: exchange_pb2.RequestContext) -> None:
        """Check what a request says about itself.

        Raises `InvalidArgument`: PURPOSE_MISSING, PURPOSE_SEVERAL, PURPOSE_UNKNOWN, BASIS_MISSING, BASIS_UNKNOWN,
        CASE_MISSING, or MALFORMED_REQUEST for a value that is too long or no plain text.
        """
        for name, limit in LIMITS.items():
            value: str = getattr(context, name)
            if len(value) > limit or not value.isprintable():
                raise InvalidArgument(
                    Reason.MALFORMED_REQUEST, f"context.{name} is at most {limit} printable characters", field=name
                )
        if context.ByteSize() > _CONTEXT_BYTES:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, f"a context has at most {_CONTEXT_BYTES} bytes")
        _one_of(context.purpose, self._jurisdiction.purposes, _PURPOSE)
        _one_of(context.legal_basis, self._jurisdiction.bases, _BASIS)
        if self._jurisdiction.purposes[context.purpose].needs_case and not context.case_ref:
            raise InvalidArgument(
                Reason.CASE_MISSING, f"purpose {context.purpose} needs a case: state case_ref", purpose=context.purpose
            )

    def params(self, caller: Caller, context: exchange_pb2.RequestContext) -> Mapping[str, Column]:
        """Give the values of the parameters in row conditions; a case that is not stated is unknown."""
        return {
            "caller_agency": caller.agency,
            "case_ref": context.case_ref or None,
            "today": self._jurisdiction.today(self._clock()).isoformat(),
        }

    def settled_until(self, now: dt.datetime, masks_end: dt.datetime | None) -> dt.datetime:
        """Say until when what `mask` and `params` give stands, as far as time alone changes it."""
        tomorrow = self._jurisdiction.tomorrow(now).astimezone(dt.UTC)
        return tomorrow if masks_end is None else min(tomorrow, masks_end)

    def mask(
        self,
        caller: Caller,
        context: exchange_pb2.RequestContext,
        record_type: RecordType,
        authorized: Authorized | None = None,
    ) -> ReadMask:
        """Compile what a caller gets of a record type, or take it from the cache.

        `authorized` is the authorization of the request, once it was verified; what it leaves of the mask is narrowed
        afterwards. Raises `InvalidArgument` as `check_context` does, and `PermissionDenied` AUTHORIZATION_UNSUPPORTED
        or AUTHORIZATION_MISSING where the request states or needs one and nobody has verified it.
        """
        if authorized is None:
            self._need_none(context)
        now = self._clock()
        key = self._key(caller, context, record_type, authorized)
        kept = self._kept.get(key)
        self.masks.wanted += 1
        if kept is None or not kept.stands(now):
            self.masks.made += 1
            self.check_context(context)
            kept = _Kept(self._compile(caller, context, record_type, authorized, now), now)
            self._kept[key] = kept
            if len(self._kept) > self._cache_size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept.mask

    def _need_none(self, context: exchange_pb2.RequestContext) -> None:
        if not context.authorization_id and context.purpose not in self._needing:
            return
        self.check_context(context)
        if context.authorization_id:
            raise PermissionDenied(Reason.AUTHORIZATION_UNSUPPORTED, "authorizations cannot be used here")
        raise PermissionDenied(
            Reason.AUTHORIZATION_MISSING, f"purpose {context.purpose} needs an authorization: state its id"
        )

    def _key(
        self,
        caller: Caller,
        context: exchange_pb2.RequestContext,
        record_type: RecordType,
        authorized: Authorized | None,
    ) -> tuple[str, ...]:
        # What no policy of the owner looks at cannot change its decision, and is left out: case numbers above all.
        read = self._policies.of(record_type.owner).context
        seen = authorized if AUTHORIZATION in read else None
        return (
            caller.spiffe_id,
            caller.path,
            record_type.name,
            context.purpose,
            context.legal_basis,
            context.case_ref if "case_ref" in read else "",
            context.on_behalf_of if "on_behalf_of" in read else "",
            *((seen.id, seen.case_ref, str(seen.emergency)) if seen else ()),
        )

    def _compile(
        self,
        caller: Caller,
        context: exchange_pb2.RequestContext,
        record_type: RecordType,
        authorized: Authorized | None,
        now: dt.datetime,
    ) -> ReadMask:
        owner = self._policies.of(record_type.owner)
        active = owner.active(now, abroad=bool(caller.zone))
        asked = json.dumps(schema.context(context, authorized))
        results = self._ask(caller, asked, record_type, owner.parsed(active))
        decided = [
            _decide(leaf, record_type, result, active, context.legal_basis)
            for leaf, result in zip(record_type.leaves, results, strict=True)
        ]
        return ReadMask(
            record_type=record_type,
            grants={grant.path: grant for _, grant in decided if grant},
            decisions=tuple(decision for decision, _ in decided),
            expires_at=owner.next_boundary(now),
            version=owner.version,
            _key=pseudonym_key(self._secret, caller.agency, context.purpose),
        )

    def _ask(
        self,
        caller: Caller,
        context: str,
        record_type: RecordType,
        policies: cedarpy.PolicySet,
    ) -> list[cedarpy.AuthzResult]:
        base = self._entities.get(record_type.name)
        if base is None:
            base = self._entities[record_type.name] = schema.entities(record_type)
        common = {
            "principal": schema.uid("System", caller.path),
            "action": schema.uid("Action", "read"),
            "context": context,
        }
        requests: list[dict[str, Any]] = [
            {**common, "resource": schema.uid("Field", schema.field_id(record_type, leaf.path))}
            for leaf in record_type.leaves
        ]
        entities = schema.with_caller(base, caller)
        return cedarpy.is_authorized_batch(  # pyright: ignore[reportUnknownMemberType]
            requests, policies, entities, schema.schema()
        )


@dataclass(frozen=True, slots=True)
class _Listed:
    """How a code from a closed list is spoken of."""

    what: str
    field: str
    missing: Reason
    unknown: Reason


_PURPOSE = _Listed("purpose", "purpose", Reason.PURPOSE_MISSING, Reason.PURPOSE_UNKNOWN)
_BASIS = _Listed("legal basis", "legal_basis", Reason.BASIS_MISSING, Reason.BASIS_UNKNOWN)


def _one_of(code: str, known: Iterable[str], listed: _Listed) -> None:
    if not code.strip():
        raise InvalidArgument(listed.missing, f"state the {listed.what} of the request", field=listed.field)
    if code in known:
        return
    if listed is _PURPOSE and len([part for part in _SEVERAL.split(code) if part]) > 1:
        raise InvalidArgument(
            Reason.PURPOSE_SEVERAL, "state exactly one purpose; ask again for each other one", field=listed.field
        )
    raise InvalidArgument(
        listed.unknown, f"there is no {listed.what} {code!r}{nearest(code, known)}", field=listed.field
    )


def _refused(leaf: Field, reason: Reason, policies: Iterable[str] = ()) -> tuple[exchange_pb2.FieldDecision, None]:
    return exchange_pb2.FieldDecision(
        field=leaf.path, verdict=exchange_pb2.VERDICT_REFUSED, reason=reason, policy_ids=sorted(policies)
    ), None


def _decide(
    leaf: Field, record_type: RecordType, result: cedarpy.AuthzResult, active: Mapping[str, Policy], basis: str
) -> tuple[exchange_pb2.FieldDecision, FieldGrant | None]:
    """Turn Cedar's answer on one field into the decision on it."""
    named = result.diagnostics.reasons
    if result.diagnostics.errors:
        return _refused(leaf, Reason.DECISION_FAILED)
    if not result.allowed:
        return _refused(leaf, Reason.FORBIDDEN if named else Reason.NO_PERMIT, named)
    permits = [active[name] for name in sorted(named)]
    applying = [permit for permit in permits if permit.basis == basis]
    if not applying:
        return _refused(leaf, Reason.BASIS_MISMATCH, named)
    try:
        return _given(leaf, record_type, applying)
    except (ValueError, LookupError):
        return _refused(leaf, Reason.DECISION_FAILED, (permit.id for permit in applying))


def _given(
    leaf: Field, record_type: RecordType, permits: list[Policy]
) -> tuple[exchange_pb2.FieldDecision, FieldGrant]:
    """Combine the permits of one field; raises `ValueError` or `LookupError` where one of them cannot be honoured."""
    transform = least_revealing(permit.transform for permit in permits)
    for permit in permits:
        # Also those that another transform displaces: what does not fit shows that the policy means another field.
        if permit.transform is not None:
            permit.transform.check(leaf)
    if leaf.share == options_pb2.SHARE_CLASS_WITHHELD and (transform is None or transform.name != "pseudonym"):
        raise ValueError("a withheld field leaves as a pseudonym only")
    conditions = tuple(dict.fromkeys(permit.rows[record_type.name] for permit in permits if permit.rows))
    retentions = [permit.retain for permit in permits if permit.retain]
    decision = exchange_pb2.FieldDecision(
        field=leaf.path,
        verdict=exchange_pb2.VERDICT_TRANSFORMED if transform else exchange_pb2.VERDICT_CLEAR,
        transform=transform.text if transform else "",
        reason=Reason.PERMITTED,
        policy_ids=[permit.id for permit in permits],
        conditions=[condition.text for condition in conditions],
        legal_basis=permits[0].basis,
        retention=min(retentions, key=lambda text: (duration_seconds(text), text), default=""),
    )
    ends = [permit.until for permit in permits if permit.until is not None]
    if ends:
        decision.until.FromDatetime(min(ends))
    return decision, FieldGrant(leaf.path, transform, conditions)
