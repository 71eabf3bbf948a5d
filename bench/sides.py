"""What is measured side by side: someone who answers, how to ask them, and whose CPU counts."""

import statistics
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from rich.console import Console

from bench.asking.job import Told, quantiles
from bench.driver import Generator
from bench.process import cpu_seconds

LOADS: Final = (1, 16, 64)
"""Questions in flight."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Spread:
    """A figure of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Sum rounds up."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))


@dataclass(frozen=True)
class Side:
    """One of those who answer."""

    name: str
    """Short, as results have it."""
    label: str
    """For people."""
    generator: Generator
    gateway: Sequence[int]
    """Processes whose CPU is the gateway's."""
    departments: Sequence[int] = ()
    lacks: Sequence[str] = ()
    """What this one does not do."""


@dataclass(frozen=True)
class Round:
    """One round on one side."""

    told: Told
    gateway_us: float
    departments_us: float

    @property
    def figures(self) -> dict[str, float]:
        """All that is summed up."""
        return {
            "gateway_us": self.gateway_us,
            "departments_us": self.departments_us,
            "client_us": self.told.client_us,
            "per_second": self.told.per_second,
            "p50_ms": self.told.wait_ms(50.0),
            "p99_ms": self.told.wait_ms(99.0),
        }


@dataclass(frozen=True)
class Load:
    """All rounds of one side at one load."""

    side: str
    label: str
    in_flight: int
    figures: Mapping[str, Spread]
    queries: int
    errors: Mapping[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(cls, side: Side, in_flight: int, rounds: Sequence[Round]) -> Self:
        """Sum rounds up."""
        names = rounds[0].figures
        figures = {name: Spread.of(r.figures[name] for r in rounds) for name in names}
        errors: dict[str, int] = {}
        for each in rounds:
            for reason, count in each.told.errors.items():
                errors[reason] = errors.get(reason, 0) + count
        return cls(side.name, side.label, in_flight, figures, sum(r.told.queries for r in rounds), errors)

    def to_json(self) -> dict[str, Any]:
        """Write it for results."""
        return asdict(self)


async def closed(side: Side, in_flight: int, seconds: float) -> Round:
    """Run one round on one side."""
    return await _measured(side, side.generator.closed(in_flight, seconds))


async def _measured(side: Side, work: Awaitable[Told]) -> Round:
    gateway, departments = cpu_seconds(*side.gateway), cpu_seconds(*side.departments)
    told = await work
    gateway, departments = cpu_seconds(*side.gateway) - gateway, cpu_seconds(*side.departments) - departments
    return Round(told, gateway / told.queries * 1e6, departments / told.queries * 1e6)


async def verify(sides: Sequence[Side], most: int) -> dict[str, int]:
    """Have each side answer about every enterprise, and every field checked; gives how many answers were right."""
    return {side.name: await side.generator.verify(most) for side in sides}


async def compare(
    sides: Sequence[Side], *, loads: Sequence[int] = LOADS, rounds: int = 3, seconds: float = 3.0
) -> list[Load]:
    """Measure sides in interleaved rounds at each load, after a short round that does not count."""
    found: list[Load] = []
    for in_flight in loads:
        taken: dict[str, list[Round]] = {side.name: [] for side in sides}
        for side in sides:
            await closed(side, in_flight, min(1.0, seconds / 2))
        for number in range(rounds):
            for side in sides:
                taken[side.name].append(await closed(side, in_flight, seconds))
            console.log(f"{in_flight} in flight, round {number + 1} of {rounds}")
        found += [Load.of(side, in_flight, taken[side.name]) for side in sides]
    return found


@dataclass(frozen=True)
class Pace:
    """One side at a steady pace."""

    side: str
    label: str
    per_second: float
    count: int
    gateway_us: float
    departments_us: float
    client_us: float
    quantiles_ms: Sequence[float]
    """At `QUANTILES`, of all waits of all rounds together."""
    late_ms: float
    """How late the generator itself was in the worst of its rounds, in 99 of 100 questions."""
    errors: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Write it for results."""
        return asdict(self)


async def paced(sides: Sequence[Side], *, rate: float, count: int, rounds: int) -> list[Pace]:
    """Ask each side `count` questions at a steady pace, in interleaved rounds."""
    waits: dict[str, list[float]] = {side.name: [] for side in sides}
    taken: dict[str, list[Round]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            round_ = await _measured(side, side.generator.paced(rate, count // rounds))
            taken[side.name].append(round_)
            waits[side.name] += round_.told.waits_ms
        console.log(f"paced, round {number + 1} of {rounds}")
    return [_pace(side, rate, taken[side.name], waits[side.name]) for side in sides]


def _pace(side: Side, rate: float, rounds: Sequence[Round], waits: Sequence[float]) -> Pace:
    load = Load.of(side, 0, rounds)
    us = {name: load.figures[name].median for name in ("gateway_us", "departments_us", "client_us")}
    late = max(each.told.late_ms for each in rounds)
    return Pace(
        side.name, side.label, rate, len(waits), **us, quantiles_ms=quantiles(waits), late_ms=late, errors=load.errors
    )
