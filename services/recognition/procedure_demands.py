"""Whether what stages demand can be met.

A demand for a fact that a stage of the same procedure proves must be met by that stage: it comes before, is as
thorough, lets the demanding agency recognise it, cannot be dropped, and the fact is recent enough when the case takes
all the time it has. A demand for any other fact must be met by somebody else's result: by a stage of another procedure
or by an arrangement, which `unmet` looks for.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from services.kit.durations import duration_seconds
from services.kit.records.catalogue import nearest
from services.recognition import graph
from services.recognition.agencies import ALL
from services.recognition.events import Assurance
from services.recognition.procedure import Demand, Procedure, Stage
from services.recognition.statutory import Limit

Found = tuple[str, str]
"""Stage code and what is wrong."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A fact that somebody proves, and lets others recognise."""

    fact: str
    issuer: str
    assurance: Assurance
    recognisers: frozenset[str]
    """Codes, or "all"."""
    source: str
    """Where it says so: `CODE@version` of a procedure or an arrangement."""


class Arranged(Protocol):
    """An arrangement, as far as it offers a fact."""

    @property
    def label(self) -> str:
        """`CODE@version`."""
        ...

    @property
    def fact(self) -> str:
        """What it is about."""
        ...

    @property
    def issuers(self) -> tuple[str, ...]:
        """Who proves it."""
        ...

    @property
    def recognisers(self) -> tuple[str, ...]:
        """Who accepts it, or "all"."""
        ...

    @property
    def assurance(self) -> Assurance:
        """How thoroughly it is examined at least."""
        ...


def demands(stages: Mapping[str, Stage], ancestors: Mapping[str, frozenset[str]], *, whole: bool) -> Iterator[Found]:
    """Find demands that the procedure itself would have to meet and does not.

    `whole` says that every stage of the file could be read: only then is "nobody proves it" certain.
    """
    provers: dict[str, Stage] = {}
    for stage in stages.values():
        if stage.proves:
            provers.setdefault(stage.proves.code, stage)
    for stage in stages.values():
        for demand in stage.requires:
            prover = provers.get(demand.fact)
            if prover is None:
                continue
            for message in _unmet(stage, demand, prover, ancestors, stages, whole):
                yield stage.code, f"requires: {message}"


def _unmet(
    stage: Stage,
    demand: Demand,
    prover: Stage,
    ancestors: Mapping[str, frozenset[str]],
    stages: Mapping[str, Stage],
    whole: bool,
) -> Iterator[str]:
    fact = prover.proves
    assert fact is not None  # noqa: S101 - only stages that prove something get here
    if prover is stage:
        yield f"{demand.fact} is what the stage proves itself"
        return
    if prover.code not in ancestors[stage.code]:
        if whole:
            yield f"{demand.fact} is proven by {prover.code}, which does not come before it"
        return
    if fact.assurance.rank < demand.assurance.rank:
        yield f"{demand.fact} is wanted at {demand.assurance}, and {prover.code} proves it at {fact.assurance}"
    if prover.agency != stage.agency and not prover.recognisable_by(stage.agency):
        yield f"{demand.fact} of {prover.code} is not there for {stage.agency} to recognise"
    if prover.optional:
        yield f"{demand.fact} is proven by {prover.code}, which may be dropped"
    takes = _longest(prover, stage, ancestors, stages)
    for word, duration in (("wanted no older than", demand.max_age), ("valid for", fact.valid_for)):
        if duration and duration_seconds(duration) < takes:
            days = -(-takes // 86_400)
            yield f"{demand.fact} is {word} {duration}, and may be some {days} days old though every stage is in time"


def _longest(prover: Stage, stage: Stage, ancestors: Mapping[str, frozenset[str]], stages: Mapping[str, Stage]) -> int:
    """Measure how long it may take from the end of one stage to the end of another, in seconds, all limits used up."""
    between = {c for c in ancestors[stage.code] if prover.code in ancestors[c]} | {stage.code}
    ends = {prover.code: 0}
    for code in graph.order({c: [b for b in stages[c].after if b in between] for c in stages if c in between}):
        its = stages[code]
        ready = max((ends[before] for before in its.after if before in ends), default=0)
        start = ends.get(its.clock_from, 0) if its.clock_from else ready
        ends[code] = max(ready, start + max((graph.nominal_seconds(limit) for limit in _limits(its)), default=0))
    return ends[stage.code]


def _limits(stage: Stage) -> Iterator[Limit]:
    if stage.limit:
        yield stage.limit
    if stage.limits_by:
        yield from stage.limits_by.limits.values()


def offers(procedures: Iterable[Procedure]) -> Iterator[Offer]:
    """List every fact that stages of procedures prove for others."""
    for procedure in procedures:
        for stage in procedure.stages.values():
            if stage.proves:
                recognisers = frozenset({*stage.recognised_by, stage.agency})
                yield Offer(stage.proves.code, stage.agency, stage.proves.assurance, recognisers, procedure.label)


def offers_arranged(arrangements: Iterable[Arranged]) -> Iterator[Offer]:
    """List what arrangements offer: at the assurance that they ask for, since more is not promised."""
    for arranged in arrangements:
        for issuer in arranged.issuers:
            yield Offer(arranged.fact, issuer, arranged.assurance, frozenset(arranged.recognisers), arranged.label)


def unmet(procedure: Procedure, offered: Iterable[Offer]) -> Iterator[Found]:
    """Find demands for facts that come from outside the procedure and that nobody offers as demanded."""
    everything = tuple(offered)
    for stage in procedure.stages.values():
        for demand in stage.requires:
            if demand.fact in procedure.provers:
                continue
            about = [offer for offer in everything if offer.fact == demand.fact]
            enough = [offer for offer in about if offer.assurance.rank >= demand.assurance.rank]
            if not about:
                hint = nearest(demand.fact, {offer.fact for offer in everything})
                yield stage.code, f"requires: nobody proves {demand.fact!r}{hint}"
            elif not enough:
                yield stage.code, f"requires: nobody proves {demand.fact} at {demand.assurance}"
            elif not any(stage.agency in o.recognisers or ALL in o.recognisers for o in enough):
                yield stage.code, f"requires: {demand.fact} is not there for {stage.agency} to recognise"
