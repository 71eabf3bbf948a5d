"""How a log is laid out as files: tiles of hashes and bundles of entries (C2SP tlog-tiles)."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.log.merkle import HASH_SIZE, MAX_SIZE, TILE_HEIGHT, TILE_WIDTH, Hashes

CHECKPOINT: Final = "checkpoint"
"""Path of the newest checkpoint."""

MAX_ENTRY: Final = 65_535
"""Most bytes of an entry: its length is written in two."""

_KEPT: Final = 64
"""Most tiles that are kept while one proves from them: a proof needs a few of each level."""
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)
_MAX_LEVEL: Final = 63
_LENGTH: Final = 2


@dataclass(frozen=True, slots=True)
class Tile:
    """Names a tile of hashes, or a bundle of entries."""

    level: int | None
    """0 has leaf hashes, L the roots of subtrees of 256**L leaves; none for a bundle of entries."""
    index: int
    """Which one of its level, from 0."""
    width: int = TILE_WIDTH
    """How many it holds: 256 for a full one."""

    @property
    def path(self) -> str:
        """Its path: `tile/LEVEL/INDEX` or `tile/entries/INDEX`, with `.p/WIDTH` for a partial one."""
        groups = [f"{self.index % 1000:03}"]
        left = self.index // 1000
        while left:
            groups.insert(0, f"x{left % 1000:03}")
            left //= 1000
        level = "entries" if self.level is None else self.level
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(groups)}{partial}"

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read a path, in the one way it can be written; raises `InvalidArgument` MALFORMED_REQUEST."""
        found = _PATH.fullmatch(path)
        if not found:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "not the path of a tile")
        level = None if found["level"] == "entries" else int(found["level"])
        width = int(found["width"] or TILE_WIDTH)
        made = cls(level, int(found["index"].replace("x", "").replace("/", "")), width)
        # Leading zeros, `.p/256` and what no tree is large enough for.
        if (level or 0) > _MAX_LEVEL or width > TILE_WIDTH or made.path != path or not made.within(MAX_SIZE):
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "not the path of a tile")
        return made

    @property
    def start(self) -> int:
        """Index of its first hash or entry within its level."""
        return self.index * TILE_WIDTH

    def within(self, size: int) -> bool:
        """Tell whether a tree of that size has everything that this tile holds."""
        return self.start + self.width <= size >> TILE_HEIGHT * (self.level or 0)

    @classmethod
    def holding(cls, level: int | None, start: int, size: int) -> Self:
        """Name the tile with a hash or entry, as wide as it is in a tree of that size, which must have it."""
        index = start // TILE_WIDTH
        return cls(level, index, min(TILE_WIDTH, (size >> TILE_HEIGHT * (level or 0)) - index * TILE_WIDTH))


def encode_hashes(hashes: Iterable[bytes]) -> bytes:
    """Write a tile of hashes."""
    return b"".join(hashes)


def decode_hashes(data: bytes, width: int) -> list[bytes]:
    """Read a tile of that many hashes; raises `FailedPrecondition` LOG_TAMPERED where it has another size."""
    if len(data) != width * HASH_SIZE:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "a tile has another size than it should")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """Write a bundle of entries: each after its length in two bytes; raises `InvalidArgument` REQUEST_TOO_LARGE."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise InvalidArgument(Reason.REQUEST_TOO_LARGE, f"an entry of a log has at most {MAX_ENTRY} bytes")
        parts += (len(entry).to_bytes(_LENGTH, "big"), entry)
    return b"".join(parts)


def decode_entries(data: bytes, width: int) -> list[bytes]:
    """Read a bundle of exactly that many entries; raises `FailedPrecondition` LOG_TAMPERED."""
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        begin = at + _LENGTH
        at = begin + int.from_bytes(data[at:begin], "big")
        # Also where the length itself is cut off: then `begin` lies beyond the end.
        if max(begin, at) > len(data):
            break
        entries.append(data[begin:at])
    if len(entries) != width or at != len(data):
        raise FailedPrecondition(Reason.LOG_TAMPERED, "a bundle of entries is cut off, or holds more than it should")
    return entries


def hashes_from(read: Callable[[Tile], Sequence[bytes]], size: int) -> Hashes:
    """Read hashes out of the tiles of a tree of that size, each given by `read` when it is first needed."""
    kept = lru_cache(maxsize=_KEPT)(read)

    def hashes(level: int, start: int, count: int) -> Sequence[bytes]:
        tile = Tile.holding(level, start, size)
        return kept(tile)[start - tile.start : start - tile.start + count]

    return hashes
