"""Where the boxes of a drawn graph go: in layers from top to bottom, none over another, and no edge through a box.

An edge that leads over several layers takes a narrow place of its own in each layer between, so that it runs beside the
boxes there. Within a layer, places are ordered by what they are joined to above, then moved as near to it as fits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from services.recognition import graph

_SWEEPS: Final = 8


@dataclass(slots=True)
class Place:
    """One place in a layer: a box, or where an edge runs through."""

    code: str
    """Of the stage; empty where an edge runs through."""
    layer: int
    width: float
    x: float = 0
    """Its middle."""
    above: list["Place"] = field(default_factory=list["Place"], repr=False)
    below: list["Place"] = field(default_factory=list["Place"], repr=False)


@dataclass(frozen=True, slots=True)
class Layered:
    """The places, layer by layer from left to right, and for each edge the places it runs over, ends included."""

    layers: tuple[tuple[Place, ...], ...]
    edges: tuple[tuple[Place, ...], ...]

    def spread(self) -> tuple[float, float]:
        """Give the outermost coordinates, left and right."""
        places = [place for layer in self.layers for place in layer]
        return min(p.x - p.width / 2 for p in places), max(p.x + p.width / 2 for p in places)


def layered(after: graph.Edges, width: float, lane: float, gap: float) -> Layered:
    """Lay a graph out: boxes `width` wide, edges that run through `lane` wide, `gap` between neighbours."""
    depth: dict[str, int] = {}
    for code in graph.order(after):
        depth[code] = max((depth[before] + 1 for before in after[code]), default=0)
    boxes = {code: Place(code, depth[code], width) for code in after}
    layers: list[list[Place]] = [[] for _ in range(max(depth.values()) + 1)]
    for code in after:
        layers[depth[code]].append(boxes[code])
    edges = [_run(boxes[before], boxes[code], layers, lane) for code in after for before in after[code]]
    _order(layers)
    _settle(layers, gap)
    return Layered(tuple(tuple(layer) for layer in layers), tuple(edges))


def _run(start: Place, end: Place, layers: Sequence[list[Place]], lane: float) -> tuple[Place, ...]:
    run = [start]
    for layer in range(start.layer + 1, end.layer):
        run.append(Place("", layer, lane))
        layers[layer].append(run[-1])
    run.append(end)
    for upper, lower in pairwise(run):
        upper.below.append(lower)
        lower.above.append(upper)
    return tuple(run)


def _order(layers: Sequence[list[Place]]) -> None:
    """Order each layer by what its places are joined to, downwards and upwards in turn, to have few crossings."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        rank = {id(place): index for layer in layers for index, place in enumerate(layer)}
        for layer in layers if down else reversed(layers):
            layer.sort(key=_mean_of(rank, down))
            rank |= {id(place): index for index, place in enumerate(layer)}


def _mean_of(rank: Mapping[int, int], down: bool) -> Callable[[Place], float]:
    def mean(place: Place) -> float:
        joined = place.above if down else place.below
        return sum(rank[id(other)] for other in joined) / len(joined) if joined else rank[id(place)]

    return mean


def _settle(layers: Sequence[list[Place]], gap: float) -> None:
    """Move each place as near to what it is joined to as its neighbours let it."""
    for layer in layers:
        _put(layer, [0.0 for _ in layer], gap)
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _put(layer, [_middle((*p.above, *p.below), p.x) for p in layer], gap)


def _middle(joined: Iterable[Place], otherwise: float) -> float:
    xs = [place.x for place in joined]
    return sum(xs) / len(xs) if xs else otherwise


def _put(layer: Sequence[Place], wanted: Sequence[float], gap: float) -> None:
    """Give places the coordinates wanted, moved apart as far as needed.

    Pushing everything to the right and pushing everything to the left each keeps neighbours apart; so does their mean.
    """
    right, left = list(wanted), list(wanted)
    apart = [(a.width + b.width) / 2 + gap for a, b in pairwise(layer)]
    for index, distance in enumerate(apart):
        right[index + 1] = max(right[index + 1], right[index] + distance)
    for index, distance in reversed(list(enumerate(apart))):
        left[index] = min(left[index], left[index + 1] - distance)
    for place, one, other in zip(layer, right, left, strict=True):
        place.x = (one + other) / 2
