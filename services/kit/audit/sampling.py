"""Drawing entries at random, so that both sides get the same ones and neither could choose them.

Whoever audits chooses a seed that the log cannot know beforehand; a log that has given its checkpoint cannot answer for
other entries than the seed draws, for whoever audits draws them too. The draw is the beginning of a permutation of
all indexes (Fisher and Yates), its numbers HMAC-SHA256 of the seed.
"""

import hmac
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final

MIN_SEED: Final = 16
"""Least bytes of a seed."""

MAX_SEED: Final = 64
"""Most bytes of a seed."""

MAX_DRAW: Final = 10_000
"""Most entries drawn at a time."""

_LABEL: Final = b"hutong draw\n"


def draw(seed: bytes, start: int, end: int) -> Iterator[int]:
    """Give every index from `start` to before `end`, each once, in the order that the seed draws them."""
    moved: dict[int, int] = {}
    for at in range(start, end):
        other = at + _number(seed, start, end, at) % (end - at)
        yield moved.get(other, other)
        moved[other] = moved.pop(at, at)


def sample(seed: bytes, start: int, end: int, count: int, is_decision: Callable[[int], bool]) -> Iterator[int]:
    """Draw until `count` of the indexes are of decisions, or all are drawn; gives every one drawn.

    Entries that hold but the text of a mask are drawn like others, and given, so that the draw can be followed; they
    count as nothing.
    """
    found = 0
    for index in draw(seed, start, end):
        if found == count:
            return
        yield index
        found += is_decision(index)


def _number(seed: bytes, start: int, end: int, at: int) -> int:
    numbers = b"".join(number.to_bytes(8, "big") for number in (start, end, at))
    return int.from_bytes(hmac.digest(seed, _LABEL + numbers, sha256), "big")
