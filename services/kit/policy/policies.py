"""Policies after loading: checked, immutable, and known by their ids.

A `PolicySet` holds the policies of one or more agencies, each apart from the others: what an agency's file says can
only ever decide over that agency's records. `services.kit.policy.loader` makes them.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import cedarpy

from services.kit.policy import reach
from services.kit.policy.transforms import Transform
from services.kit.records.conditions import Condition

_MOST_PARSED: Final = 4
"""Combinations of policies kept: those for callers of this zone and of others, and the ones before."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One checked policy."""

    id: str
    agency: str
    """Whose it is: the owner of the records it decides over."""
    permit: bool
    """It permits; otherwise it forbids."""
    file: str
    since: dt.datetime | None
    until: dt.datetime | None
    basis: str
    """Legal basis of a permit; empty for a forbid."""
    transform: Transform | None
    retain: str
    rows: Mapping[str, Condition]
    """The row condition, for each record type the policy may reach."""
    title: str
    ast: Mapping[str, Any] = field(repr=False)

    @property
    def zones(self) -> bool:
        """Tell whether the policy's scope names callers of another zone.

        Such callers get nothing by a permit whose scope does not: one that leaves open who asks means those of this
        zone, whatever its conditions say.
        """
        return reach.principal_zone(self.ast) != ""

    def active(self, now: dt.datetime) -> bool:
        """Tell whether the policy is in force."""
        return (self.since is None or self.since <= now) and (self.until is None or now < self.until)


def version_of(text: bytes) -> str:
    """Name the policies of an agency by what they say: the beginning of its SHA-256."""
    return hashlib.sha256(text).hexdigest()[:32]


@dataclass(frozen=True)
class AgencyPolicies:
    """Every policy of one agency."""

    agency: str
    policies: Mapping[str, Policy]
    _parsed: dict[frozenset[str], cedarpy.PolicySet] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def text(self) -> bytes:
        """Everything the policies say, in one way of writing it: what `loader.restore` makes them of again."""
        text = json.dumps({p.id: p.ast for p in self.policies.values()}, sort_keys=True, ensure_ascii=False)
        return text.encode()

    @cached_property
    def version(self) -> str:
        """Digest of everything the policies say: equal wherever the same policies are loaded."""
        return version_of(self.text)

    @cached_property
    def context(self) -> frozenset[str]:
        """Every part of the request's context that any of the policies looks at."""
        return frozenset(name for p in self.policies.values() for name in reach.context_read(p.ast))

    def active(self, now: dt.datetime, *, abroad: bool = False) -> Mapping[str, Policy]:
        """List the policies in force; `abroad`, those of them that count for callers of other zones."""
        return {p.id: p for p in self.policies.values() if p.active(now) and (p.zones or not (p.permit and abroad))}

    def next_boundary(self, now: dt.datetime) -> dt.datetime | None:
        """Find the next moment at which a policy begins or ends."""
        moments = (m for p in self.policies.values() for m in (p.since, p.until) if m is not None and m > now)
        return min(moments, default=None)

    def parsed(self, active: Mapping[str, Policy]) -> cedarpy.PolicySet:
        """Give the given policies as Cedar wants them, named by their ids; parsed once for each combination."""
        key = frozenset(active)
        if key not in self._parsed:
            text = json.dumps(
                {"staticPolicies": {p.id: p.ast for p in active.values()}, "templates": {}, "templateLinks": []}
            )
            if len(self._parsed) >= _MOST_PARSED:
                # Combinations change as time passes; former ones do not come back.
                self._parsed.clear()
            self._parsed[key] = cedarpy.PolicySet.from_json_str(text)
        return self._parsed[key]


@dataclass(frozen=True)
class PolicySet:
    """The policies of all agencies a node decides for."""

    agencies: Mapping[str, AgencyPolicies]

    @cached_property
    def version(self) -> str:
        """Digest of all policies of all agencies."""
        text = "\n".join(f"{name} {self.agencies[name].version}" for name in sorted(self.agencies))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def of(self, agency: str) -> AgencyPolicies:
        """Give an agency's policies; one that has none loaded permits nothing."""
        return self.agencies.get(agency) or AgencyPolicies(agency, {})

    def __iter__(self) -> Iterator[Policy]:
        for agency in self.agencies.values():
            yield from agency.policies.values()


@dataclass(frozen=True, slots=True)
class Standing:
    """For how long what was decided stands: while these policies are in force, and between these moments.

    It is all that a prepared question looks up, each time it is asked: whatever changes makes one of the three differ.
    """

    policies: PolicySet
    made_at: dt.datetime
    until: dt.datetime

    def holds(self, policies: PolicySet, now: dt.datetime) -> bool:
        """A clock that was set back makes it as stale as one that ran past the boundary."""
        return self.policies is policies and self.made_at <= now < self.until
