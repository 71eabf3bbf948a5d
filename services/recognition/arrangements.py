"""Arrangements: who accepts which fact of whom, how thoroughly examined, how old, and on what further condition.

Explicit arrangements are data, one in each file (`arrangement_files` reads and checks them). Beside them, what a
procedure's stage proves is accepted by those whom its `recognised_by` names: an arrangement derived from the procedure.
An explicit arrangement between the same two agencies on the same fact takes its place, also when it has ended: what
was ended does not go on by another way.

An agency accepts results of its own from other cases only where an arrangement names it on both sides.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.kit.durations import add_duration
from services.kit.jurisdiction.pack import Jurisdiction
from services.recognition.agencies import ALL, Agencies
from services.recognition.claims import ClaimCondition
from services.recognition.events import Assurance
from services.recognition.procedure import Procedure, Stage
from services.recognition.procedures import Procedures


@dataclass(frozen=True)
class Arrangement:
    """One version of one arrangement."""

    code: str
    version: str
    title: str
    local_title: str
    recognisers: tuple[str, ...]
    """Who accepts it; "all" for everyone but the issuer."""
    fact: str
    issuers: tuple[str, ...]
    assurance: Assurance
    """How thoroughly it must have been examined at least."""
    effective_from: dt.datetime
    max_age: str | None = None
    """How old it may be, ISO 8601; None: any age, while it is valid."""
    condition: ClaimCondition | None = None
    """What the disclosed value must fulfil."""
    compare: tuple[str, ...] | None = None
    """Claims in which results of several issuers must agree; None: in all that they share."""
    stages: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Only in these stages, by code of the procedure; empty: wherever the recogniser needs the fact."""
    valid_until: dt.datetime | None = None
    basis: str = ""
    derived: bool = False
    """It is said by a procedure, not by an arrangement of its own."""

    @property
    def label(self) -> str:
        """`CODE@version`."""
        return f"{self.code}@{self.version}"

    def names(self, recogniser: str) -> bool:
        """Tell whether a recogniser is party to it."""
        return recogniser in self.recognisers or ALL in self.recognisers

    def fits(self, procedure: str, stage: str) -> bool:
        """Tell whether it counts in a stage of a procedure (by code)."""
        return not self.stages or stage in self.stages.get(procedure, frozenset())

    def takes(self, recogniser: str, issuer: str) -> bool:
        """Tell whether a recogniser accepts an issuer's results under it; "all" never means the issuer itself."""
        if issuer not in self.issuers:
            return False
        return self.names(recogniser) if issuer != recogniser else recogniser in self.recognisers

    def fresh(self, issued_at: dt.datetime, now: dt.datetime) -> bool:
        """Tell whether a result issued at `issued_at` is recent enough."""
        return self.max_age is None or now <= add_duration(issued_at, self.max_age)

    def satisfied(self, value: Mapping[str, Any]) -> bool:
        """Tell whether a disclosed value fulfils the condition."""
        return self.condition is None or self.condition.holds(value)


class Arrangements:
    """Every arrangement there is, explicit and derived."""

    def __init__(self, explicit: Iterable[Arrangement], procedures: Procedures, agencies: Agencies) -> None:
        """See `load`."""
        self._procedures = procedures
        self._agencies = agencies
        self._explicit: dict[str, dict[str, list[Arrangement]]] = {}
        for arrangement in explicit:
            versions = self._explicit.setdefault(arrangement.fact, {}).setdefault(arrangement.code, [])
            versions.append(arrangement)
        for versions in (v for codes in self._explicit.values() for v in codes.values()):
            versions.sort(key=lambda a: a.effective_from)

    @staticmethod
    def load(
        folder: Path | None = None,
        *,
        agencies: Agencies,
        procedures: Procedures,
        jurisdiction: Jurisdiction | None = None,
    ) -> "Arrangements":
        """Load the arrangements that come with the product, and those of a folder beside them.

        Raises `FailedPrecondition` with ARRANGEMENT_INVALID, naming every mistake.
        """
        from services.recognition import arrangement_files  # noqa: PLC0415 - it makes what this module says

        found = arrangement_files.read_all(folder, agencies=agencies, procedures=procedures, jurisdiction=jurisdiction)
        return Arrangements(found, procedures, agencies)

    def __iter__(self) -> Iterator[Arrangement]:
        return (a for codes in self._explicit.values() for versions in codes.values() for a in versions)

    def accepting(
        self, recogniser: str, fact: str, at: dt.datetime, *, procedure: str = "", stage: str = ""
    ) -> tuple[Arrangement, ...]:
        """Give the arrangements under which an agency accepts a fact at a moment, explicit ones first.

        `procedure` (its code) and `stage` say where it needs it.
        """
        explicit, settled = self._in_force(recogniser, fact, at, procedure, stage)
        derived = [a for a in self._derived(fact, at) if a.names(recogniser) and not settled.issuperset(a.issuers)]
        return (*explicit, *derived)

    def _in_force(
        self, recogniser: str, fact: str, at: dt.datetime, procedure: str, stage: str
    ) -> tuple[list[Arrangement], set[str]]:
        """Explicit arrangements in force, and the issuers whose results they, or ended ones, settle."""
        found: list[Arrangement] = []
        settled: set[str] = set()
        for versions in self._explicit.get(fact, {}).values():
            begun = [v for v in versions if v.effective_from <= at]
            if not begun or not begun[-1].names(recogniser) or not begun[-1].fits(procedure, stage):
                continue
            settled.update(begun[-1].issuers)
            if begun[-1].valid_until is None or at < begun[-1].valid_until:
                found.append(begun[-1])
        return found, settled

    def _derived(self, fact: str, at: dt.datetime) -> list[Arrangement]:
        stages = ((p, p.provers.get(fact)) for p in self._current(at))
        return [_derive(p, stage) for p, stage in stages if stage is not None and stage.recognised_by]

    def _current(self, at: dt.datetime) -> list[Procedure]:
        newest: dict[str, Procedure] = {}
        for procedure in self._procedures:
            known = newest.get(procedure.code)
            if procedure.effective_from <= at and (known is None or known.effective_from <= procedure.effective_from):
                newest[procedure.code] = procedure
        return list(newest.values())

    def proves(self, issuer: str, fact: str) -> bool:
        """Tell whether a fact is an agency's to prove: by any arrangement, or in a stage of any procedure."""
        explicit = (version for versions in self._explicit.get(fact, {}).values() for version in versions)
        stages = (procedure.provers.get(fact) for procedure in self._procedures)
        return any(issuer in a.issuers for a in explicit) or any(s is not None and s.agency == issuer for s in stages)

    def recognisers(
        self, issuer: str, fact: str, at: dt.datetime, taking_part: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Say which agencies are told of a new result: whom an arrangement names, and of "all" those taking part."""
        parties = [a for a in self._derived(fact, at) if issuer in a.issuers]
        parties += [
            version
            for versions in self._explicit.get(fact, {}).values()
            for version in versions[-1:]
            if issuer in version.issuers
        ]
        named = {r for a in parties for r in a.recognisers}
        if ALL in named:
            named |= set(taking_part)
        return tuple(sorted(code for code in named if code in self._agencies.agencies and code != issuer))


def _derive(procedure: Procedure, stage: Stage) -> Arrangement:
    fact = stage.proves
    if fact is None:
        raise ValueError(f"{procedure.label} {stage.code} proves nothing")
    return Arrangement(
        code=procedure.code,
        version=procedure.version,
        title=f"{procedure.title}: {stage.title}",
        local_title=f"{procedure.local_title}：{stage.local_title}",
        recognisers=stage.recognised_by,
        fact=fact.code,
        issuers=(stage.agency,),
        assurance=fact.assurance,
        effective_from=procedure.effective_from,
        stages=MappingProxyType({}),
        derived=True,
    )
