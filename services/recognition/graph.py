"""Graphs of stages: what comes before what, and which stages wait for each other. Edges are what a stage waits for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from services.recognition.statutory import Limit, Unit

Edges = Mapping[str, Sequence[str]]

_NOMINAL: Final = {Unit.WORKING_DAY: 86_400 * 7 // 5, Unit.CALENDAR_DAY: 86_400, Unit.HOUR: 3_600}


def nominal_seconds(limit: Limit) -> int:
    """Measure a limit without a calendar: a working day is seven fifths of a day."""
    return limit.amount * _NOMINAL[limit.unit]


def ancestors(edges: Edges) -> dict[str, frozenset[str]]:
    """Say what each stage waits for, directly or not: in a cycle also itself. What is no stage does not count."""
    return {code: frozenset(_reach(edges, edges[code])) for code in edges}


def _reach(edges: Edges, start: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        code = waiting.pop()
        if code in edges and code not in found:
            found.add(code)
            waiting += edges[code]
    return found


def cycles(edges: Edges) -> Iterator[tuple[str, ...]]:
    """Find the knots of stages that wait for each other: of each its shortest cycle, what is waited for first."""
    before = ancestors(edges)
    done: set[str] = set()
    for code in edges:
        if code in before[code] and code not in done:
            knot = [other for other in edges if other in before[code] and code in before[other]]
            done.update(knot)
            yield min((_cycle(edges, member) for member in knot), key=len)


def _cycle(edges: Edges, start: str) -> tuple[str, ...]:
    """Find the shortest way from a stage back to itself."""
    came: dict[str, str] = {}
    waiting = [start]
    for code in waiting:
        for other in edges[code]:
            if other == start:
                path = [code]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return (start, *(step for step in path if step != start))
            if other in edges and other not in came:
                came[other] = code
                waiting.append(other)
    raise AssertionError(f"{start} lies in no cycle")


def order(edges: Edges) -> tuple[str, ...]:
    """Order stages, each after those it waits for, and otherwise as they stand; raises `ValueError` for a cycle."""
    done: dict[str, None] = {}
    waiting = list(edges)
    while waiting:
        free = next((code for code in waiting if all(before in done for before in edges[code])), None)
        if free is None:
            raise ValueError("stages wait for each other")
        done[free] = None
        waiting.remove(free)
    return tuple(done)
