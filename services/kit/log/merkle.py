"""The Merkle tree of a log: hashing, appending, proofs and their verification (RFC 6962 §2.1, RFC 9162 §2.1).

Nothing here reads or stores. Whoever keeps a log stores the leaf hashes, and of every complete subtree of 256, 65,536,
… leaves its root: from these any root and any proof is made with a few reads (C2SP tlog-tiles keeps the same hashes).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from services.kit.errors import FailedPrecondition, Reason

HASH_SIZE: Final = 32
"""Bytes of a hash (SHA-256)."""

TILE_HEIGHT: Final = 8
"""Levels of the tree between two stored levels."""

TILE_WIDTH: Final = 1 << TILE_HEIGHT
"""Hashes of one level in a full tile."""

MAX_SIZE: Final = (1 << 63) - 1
"""Most leaves of a tree."""

MAX_PROOF: Final = 63
"""Most hashes of a proof."""

EMPTY_ROOT: Final = sha256().digest()
"""Root of the tree without leaves (RFC 6962 §2.1)."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"

Hashes = Callable[[int, int, int], Sequence[bytes]]
"""Reads stored hashes: level, start, count. Level 0 are the leaf hashes, level L the roots of the complete subtrees
of 256**L leaves. A read never reaches over the border of a tile, nor beyond the tree that it was asked for."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry into its leaf (RFC 6962 §2.1)."""
    return sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two nodes into their parent (RFC 6962 §2.1)."""
    return sha256(_NODE + left + right).digest()


Stored = tuple[int, int, bytes]
"""Root of a complete subtree, to be stored: its level, at least 1, for 256**level leaves; its index in the level; its
hash."""


@dataclass(slots=True)
class Frontier:
    """The right edge of a growing tree: all that appending takes, and its root."""

    size: int = 0
    """Leaves of the tree."""
    hashes: list[bytes] = field(default_factory=list[bytes])
    """Roots of the perfect subtrees the tree falls into, the largest first: one for each bit of `size`."""

    def append(self, leaf: bytes) -> list[Stored]:
        """Append a leaf's hash; gives the subtrees of 256, 65,536, … leaves that it completes, the smallest first."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> list[Stored]:
        """Append leaves' hashes; gives the subtrees that they complete, as `append` does."""
        done: list[Stored] = []
        hashes, size = self.hashes, self.size
        for leaf in leaves:
            height, index, node = 0, size, leaf
            while index & 1:
                node = sha256(_NODE + hashes.pop() + node).digest()
                height, index = height + 1, index >> 1
                if height % TILE_HEIGHT == 0:
                    done.append((height // TILE_HEIGHT, index, node))
            hashes.append(node)
            size += 1
        self.size = size
        return done

    def root(self) -> bytes:
        """Compute the root."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def copy(self) -> Self:
        """Copy it, to append to the copy only."""
        return type(self)(self.size, self.hashes.copy())

    def to_bytes(self) -> bytes:
        """Write it: the size in eight bytes, big-endian, and the hashes."""
        return self.size.to_bytes(8, "big") + b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; raises `FailedPrecondition` LOG_TAMPERED where it is nothing of that kind."""
        size = int.from_bytes(data[:8], "big")
        if size > MAX_SIZE or len(data) != 8 + HASH_SIZE * size.bit_count():
            raise FailedPrecondition(Reason.LOG_TAMPERED, "the kept edge of the log's tree is none")
        return cls(size, [data[at : at + HASH_SIZE] for at in range(8, len(data), HASH_SIZE)])

    @classmethod
    def read(cls, size: int, hashes: Hashes) -> Self:
        """Make it anew from the stored hashes; raises what `hashes` raises."""
        tree = _Tree(size, hashes)
        return cls(size, [tree.node(height, index) for height, index in _perfect(0, size)])


def root_of(size: int, hashes: Hashes) -> bytes:
    """Compute the root of the tree of that size."""
    return Frontier.read(size, hashes).root()


def inclusion_proof(index: int, size: int, hashes: Hashes) -> list[bytes]:
    """Prove that a leaf is in the tree of that size: the path from the leaf up (RFC 6962 §2.1.1).

    Raises `FailedPrecondition` LOG_PROOF_INVALID where the tree has no such leaf.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise _invalid("the tree has no such leaf")
    tree = _Tree(size, hashes)
    start, end = 0, size
    path: list[bytes] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(tree.root(middle, end))
            end = middle
        else:
            path.append(tree.root(start, middle))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, hashes: Hashes) -> list[bytes]:
    """Prove that the tree of size `old` is the beginning of that of size `new` (RFC 6962 §2.1.2).

    The proof is empty from the empty tree, and from a tree to itself.
    Raises `FailedPrecondition` LOG_PROOF_INVALID where `new` is smaller.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise _invalid("the newer tree is the smaller one")
    if old == 0:
        return []
    tree = _Tree(new, hashes)
    start, end = 0, new
    proof: list[bytes] = []
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(tree.root(middle, end))
            end = middle
        else:
            proof.append(tree.root(start, middle))
            start = middle
    if start:
        # Whoever verifies knows the old root itself, but no part of it.
        proof.append(tree.root(start, end))
    return proof[::-1]


def paths(leaves: Sequence[bytes], mark: bytes = b"") -> tuple[bytes, list[bytes]]:
    """Compute the root of the tree that leaves make by themselves, and the path of each of them to it, lowest first.

    That is the inclusion proof of every leaf at once (RFC 6962 §2.1.1). A path is written as its hashes, one after the
    other, with `mark` before each. There is at least one leaf.
    """
    levels = [leaves]
    while len(row := levels[-1]) > 1:
        above = [sha256(_NODE + row[at] + row[at + 1]).digest() for at in range(0, len(row) - 1, 2)]
        # Without a sibling a node goes up as it is: the largest power of two is to its left (RFC 6962 §2.1).
        levels.append([*above, row[-1]] if len(row) & 1 else above)
    found = [b""]
    for row in reversed(levels[:-1]):
        siblings = [mark + node for node in row]
        found = [siblings[at ^ 1] + found[at >> 1] if at ^ 1 < len(row) else found[at >> 1] for at in range(len(row))]
    return levels[-1][0], found


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify an inclusion proof (RFC 9162 §2.1.3.2); raises `FailedPrecondition` LOG_PROOF_INVALID."""
    _check_hashes((root,), 1)
    if path_root(leaf, index, size, proof) != root:
        raise _invalid("the leaf is not in the tree")


def path_root(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Compute the root of the one tree of that size that a proof can be of.

    Raises `FailedPrecondition` LOG_PROOF_INVALID where it is of no such tree: too long, too short, or not of hashes.
    """
    _check_hashes((leaf, *proof), MAX_PROOF + 1)
    if not 0 <= index < size <= MAX_SIZE:
        raise _invalid("the tree has no such leaf")
    at, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _invalid("the proof is too long")
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            at, last = _climb(at, last)
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise _invalid("the proof is too short")
    return node


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify a consistency proof (RFC 9162 §2.1.4.2); raises `FailedPrecondition` LOG_PROOF_INVALID.

    From the empty tree, and from a tree to itself, the proof must be empty.
    """
    _check_hashes((old_root, new_root, *proof), MAX_PROOF + 2)
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise _invalid("the newer tree is the smaller one")
    if (old_size == 0 and old_root != EMPTY_ROOT) or (new_size == 0 and new_root != EMPTY_ROOT):
        raise _invalid("the empty tree has another root")
    if old_size in (0, new_size):
        if proof:
            raise _invalid("the proof is too long")
        if old_size == new_size and old_root != new_root:
            raise _invalid("two roots of trees of one size")
        return
    if _roots(old_size, old_root, new_size, proof) != (old_root, new_root):
        raise _invalid("the newer tree does not continue the older one")


def prefix_root(old_size: int, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bytes | None:
    """Give the root that the first `old_size` leaves of a tree have, as a consistency proof shows it.

    Where that is not the root that the same log signed at that size, it has signed two histories, and the proof proves
    it, whoever shows it. None where the proof is not of this tree, or cannot tell: from a perfect tree, of 2**n leaves,
    it leaves the old root out.
    """
    fits = 0 < old_size < new_size <= MAX_SIZE and old_size & (old_size - 1)
    if not fits or not proof or len(proof) > MAX_PROOF or any(len(one) != HASH_SIZE for one in proof):
        return None
    try:
        old, new = _roots(old_size, EMPTY_ROOT, new_size, proof)
    except FailedPrecondition:
        return None
    return old if new == new_root else None


def _roots(old_size: int, old_root: bytes, new_size: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Compute both roots from a consistency proof between trees with leaves, the older one smaller."""
    if not proof:
        raise _invalid("the proof is too short")
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    # A perfect old tree is a node of the new one itself: the proof leaves out what is known.
    first, rest = (old_root, proof) if at == 0 else (proof[0], proof[1:])
    old = new = first
    for sibling in rest:
        if last == 0:
            raise _invalid("the proof is too long")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            at, last = _climb(at, last)
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise _invalid("the proof is too short")
    return old, new


def _climb(at: int, last: int) -> tuple[int, int]:
    """Go up from a node without a right sibling to the first that is a right child itself."""
    while at and not at & 1:
        at, last = at >> 1, last >> 1
    return at, last


def _check_hashes(hashes: Sequence[bytes], most: int) -> None:
    if len(hashes) > most:
        raise _invalid("the proof is too long")
    if any(len(one) != HASH_SIZE for one in hashes):
        raise _invalid("a hash has 32 bytes")


def _invalid(what: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.LOG_PROOF_INVALID, f"not proven: {what}")


def _split(count: int) -> int:
    """Give the largest power of two that is smaller (RFC 6962 §2.1)."""
    return 1 << (count - 1).bit_length() - 1


def _perfect(start: int, end: int) -> list[tuple[int, int]]:
    """Take a range that is a subtree of some tree apart into perfect subtrees: their heights and indices."""
    found: list[tuple[int, int]] = []
    while start < end:
        height = (end - start).bit_length() - 1
        found.append((height, start >> height))
        start += 1 << height
    return found


class _Tree:
    """The tree of one size over stored hashes; every tile is read once."""

    def __init__(self, size: int, hashes: Hashes) -> None:
        self._size = size
        self._hashes = hashes
        self._tiles: dict[tuple[int, int], list[list[bytes]]] = {}

    def root(self, start: int, end: int) -> bytes:
        """Compute the root of a subtree: MTH(D[start:end])."""
        *rest, last = (self.node(height, index) for height, index in _perfect(start, end))
        for left in reversed(rest):
            last = node_hash(left, last)
        return last

    def node(self, height: int, index: int) -> bytes:
        """Give the root of a perfect subtree of 2**height leaves."""
        level, rise = divmod(height, TILE_HEIGHT)
        tile, within = divmod(index << rise, TILE_WIDTH)
        rows = self._tiles.get((level, tile))
        if rows is None:
            rows = self._tiles[level, tile] = self._read(level, tile)
        return rows[rise][within >> rise]

    def _read(self, level: int, tile: int) -> list[list[bytes]]:
        """Read a tile, as wide as it is at this size, and compute its rows: all perfect subtrees in it."""
        start = tile * TILE_WIDTH
        width = min(TILE_WIDTH, (self._size >> TILE_HEIGHT * level) - start)
        row = list(self._hashes(level, start, width))
        if len(row) != width:
            raise FailedPrecondition(Reason.LOG_TAMPERED, "hashes of the log are missing")
        rows = [row]
        while len(row) > 1:
            row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
            rows.append(row)
        return rows
