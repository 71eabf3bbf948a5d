"""The Merkle tree against the published vectors, and against RFC 6962 written down as it stands there."""

from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import FailedPrecondition, Reason
from services.kit.log.merkle import (
    EMPTY_ROOT,
    Frontier,
    Hashes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    prefix_root,
    root_of,
    verify_consistency,
    verify_inclusion,
)

# Inputs, roots and proofs of Certificate Transparency's reference implementation, as they stand in proof/verify_test.go
# of github.com/transparency-dev/merkle (commit 02194e9). Leaves are counted from 1 there, from 0 here.
INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
INCLUSION: list[tuple[int, int, list[str]]] = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY: list[tuple[int, int, list[str]]] = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        6,
        7,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
]
SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")


def split(count: int) -> int:
    """Find the largest power of two smaller than `count`."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """Compute MTH of RFC 6962 §2.1 over leaf hashes."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def naive_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Compute PATH of RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(old: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """Compute SUBPROOF of RFC 6962 §2.1.2."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = split(len(leaves))
    if old <= k:
        return [*naive_subproof(old, leaves[:k], whole=whole), naive_root(leaves[k:])]
    return [*naive_subproof(old - k, leaves[k:], whole=False), naive_root(leaves[:k])]


class Grown:
    """A tree that was grown leaf by leaf, with all that is stored of it, counting the reads."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.levels: list[list[bytes]] = [[], [], [], []]
        self.frontier = Frontier()
        self.reads = 0
        for leaf in leaves:
            self.append(leaf)

    def append(self, leaf: bytes) -> None:
        self.levels[0].append(leaf)
        for level, index, value in self.frontier.append(leaf):
            assert index == len(self.levels[level])
            self.levels[level].append(value)

    def hashes(self, level: int, start: int, count: int) -> list[bytes]:
        assert start // 256 == (start + count - 1) // 256, "a read stays within its tile"
        assert start + count <= len(self.levels[level])
        self.reads += 1
        return self.levels[level][start : start + count]


LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(66_000)]
SMALL = Grown(LEAVES[:700])
LARGE = Grown(LEAVES)
VECTOR = Grown([leaf_hash(entry) for entry in INPUTS])


def refused(verify: Callable[..., None], *arguments: object) -> bool:
    with pytest.raises(FailedPrecondition) as caught:
        verify(*arguments)
    return caught.value.reason is Reason.LOG_PROOF_INVALID


def decoded(proof: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in proof]


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")


def test_published_hashes() -> None:
    # From rfc6962/rfc6962_test.go of the same repository.
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


@pytest.mark.parametrize("size", range(1, 9))
def test_published_roots(size: int) -> None:
    assert Grown([leaf_hash(entry) for entry in INPUTS[:size]]).frontier.root() == ROOTS[size - 1]
    assert root_of(size, VECTOR.hashes) == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size", "texts"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int, texts: list[str]) -> None:
    proof, leaf, root = decoded(texts), leaf_hash(INPUTS[index]), ROOTS[size - 1]
    assert inclusion_proof(index, size, VECTOR.hashes) == proof
    verify_inclusion(leaf, index, size, proof, root)
    wrong: list[tuple[bytes, int, int, list[bytes], bytes]] = [
        *((leaf, other, size, proof, root) for other in (index - 1, index + 1, index ^ 2)),
        *((leaf, index, other, proof, root) for other in (size * 2, size // 2)),
        *((other, index, size, proof, root) for other in (b"WrongLeaf", b"", SOME_HASH)),
        *((leaf, index, size, proof, other) for other in (b"", EMPTY_ROOT, SOME_HASH)),
        *((leaf, index, size, [*proof, other], root) for other in (b"", root)),
        *((leaf, index, size, [other, *proof], root) for other in (b"", root)),
        *(
            (leaf, index, size, [*proof[:at], flipped(proof[at], 3), *proof[at + 1 :]], root)
            for at in range(len(proof))
        ),
    ]
    if proof:
        wrong.append((leaf, index, size, proof[:-1], root))
        wrong.append((leaf, index, size, [proof[0], SOME_HASH, *proof[1:]], root))
    for one in wrong:
        assert refused(verify_inclusion, *one), one


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 0), (1, 1), (2, 1), (-1, 1)])
def test_no_leaf_beyond_the_tree(index: int, size: int) -> None:
    for leaf, root in ((SOME_HASH, b""), (b"", EMPTY_ROOT), (SOME_HASH, EMPTY_ROOT), (SOME_HASH, SOME_HASH)):
        assert refused(verify_inclusion, leaf, index, size, [], root)
    with pytest.raises(FailedPrecondition):
        inclusion_proof(index, size, VECTOR.hashes)


@pytest.mark.parametrize(("old", "new", "texts"), CONSISTENCY)
def test_published_consistency_proofs(old: int, new: int, texts: list[str]) -> None:
    proof, old_root, new_root = decoded(texts), ROOTS[old - 1], ROOTS[new - 1]
    assert consistency_proof(old, new, VECTOR.hashes) == proof
    verify_consistency(old, old_root, new, new_root, proof)
    wrong: list[tuple[int, bytes, int, bytes, list[bytes]]] = [
        *((other, old_root, new, new_root, proof) for other in (old - 1, old + 1, old ^ 2) if proof),
        *((old, old_root, other, new_root, proof) for other in (new * 2, new // 2) if proof),
        *((old, other, new, new_root, proof) for other in (b"WrongRoot", SOME_HASH)),
        *((old, old_root, new, other, proof) for other in (b"WrongRoot", SOME_HASH)),
        *((old, old_root, new, new_root, [*proof, other]) for other in (b"", old_root, new_root)),
        *((old, old_root, new, new_root, [other, *proof]) for other in (b"", old_root, new_root, SOME_HASH)),
        *(
            (old, old_root, new, new_root, [*proof[:at], flipped(proof[at], 4), *proof[at + 1 :]])
            for at in range(len(proof))
        ),
    ]
    if proof:
        wrong += [(old, new_root, new, old_root, proof), (old, old_root, new, new_root, [])]
        wrong += [(old, old_root, new, new_root, proof[:-1]), (old, old_root, new, new_root, [proof[0], *proof])]
    for one in wrong:
        assert refused(verify_consistency, *one), one


def test_trivial_consistency() -> None:
    verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    verify_consistency(0, EMPTY_ROOT, 5, SOME_HASH, [])
    verify_consistency(5, SOME_HASH, 5, SOME_HASH, [])
    wrong: list[tuple[int, bytes, int, bytes, list[bytes]]] = [
        (0, SOME_HASH, 0, SOME_HASH, []),
        (0, SOME_HASH, 5, SOME_HASH, []),
        (0, EMPTY_ROOT, 5, SOME_HASH, [SOME_HASH]),
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, [EMPTY_ROOT]),
        (5, SOME_HASH, 5, SOME_HASH, [SOME_HASH]),
        (5, SOME_HASH, 5, EMPTY_ROOT, []),
        (1, SOME_HASH, 0, EMPTY_ROOT, []),
        (2, SOME_HASH, 1, SOME_HASH, []),
        (1, SOME_HASH, 2, SOME_HASH, []),
        (-1, SOME_HASH, 2, SOME_HASH, []),
        (1, SOME_HASH, 1 << 63, SOME_HASH, [SOME_HASH] * 63),
        (1, SOME_HASH, 2, SOME_HASH, [SOME_HASH] * 10_000),
    ]
    for one in wrong:
        assert refused(verify_consistency, *one), one
    assert consistency_proof(0, 8, VECTOR.hashes) == consistency_proof(8, 8, VECTOR.hashes) == []
    with pytest.raises(FailedPrecondition):
        consistency_proof(9, 8, VECTOR.hashes)


def test_the_frontier_is_the_naive_root_at_every_size() -> None:
    frontier = Frontier()
    for size in range(520):
        assert frontier.root() == naive_root(LEAVES[:size])
        assert Frontier.from_bytes(frontier.to_bytes()) == frontier == Frontier.read(size, SMALL.hashes)
        frontier.append(LEAVES[size])


def test_a_copy_grows_alone() -> None:
    frontier = Grown(LEAVES[:5]).frontier
    copy = frontier.copy()
    copy.append(LEAVES[5])
    assert (frontier.size, frontier.root()) == (5, naive_root(LEAVES[:5]))
    assert copy.root() == naive_root(LEAVES[:6])


@pytest.mark.parametrize("data", [b"", b"\x00" * 7, b"\x00" * 9, b"\x00" * 7 + b"\x01", b"\xff" * 8 + b"\x00" * 2048])
def test_a_frontier_that_is_none(data: bytes) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Frontier.from_bytes(data)
    assert caught.value.reason is Reason.LOG_TAMPERED


@given(st.data())
def test_proofs_are_those_of_the_rfc(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 700))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    leaves = LEAVES[:size]
    root = naive_root(leaves)
    path = inclusion_proof(index, size, SMALL.hashes)
    proof = consistency_proof(old, size, SMALL.hashes)
    assert path == naive_path(index, leaves)
    assert proof == naive_subproof(old, leaves, whole=True)
    verify_inclusion(leaves[index], index, size, path, root)
    verify_consistency(old, naive_root(leaves[:old]), size, root, proof)


SIZES = st.one_of(
    st.integers(1, 66_000), st.integers(65_530, 65_545), st.integers(255, 258), st.sampled_from([512, 65_792])
)


@given(SIZES, SIZES, st.integers(0, 65_999))
def test_proofs_over_all_levels(one: int, other: int, index: int) -> None:
    old, new = sorted((one, other))
    index %= new
    old_root, new_root = root_of(old, LARGE.hashes), root_of(new, LARGE.hashes)
    verify_inclusion(LEAVES[index], index, new, inclusion_proof(index, new, LARGE.hashes), new_root)
    verify_consistency(old, old_root, new, new_root, consistency_proof(old, new, LARGE.hashes))


def test_levels_hold_the_roots_of_whole_subtrees() -> None:
    assert LARGE.frontier.root() == naive_root(LEAVES)
    assert [len(level) for level in LARGE.levels] == [66_000, 257, 1, 0]
    assert LARGE.levels[1][256] == naive_root(LEAVES[65_536:65_792])
    assert LARGE.levels[2][0] == naive_root(LEAVES[:65_536])


@given(st.data())
def test_no_other_inclusion_proof_is_taken(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 700))
    index = data.draw(st.integers(0, size - 1))
    leaf, root = LEAVES[index], root_of(size, SMALL.hashes)
    proof = inclusion_proof(index, size, SMALL.hashes)
    bit = data.draw(st.integers(0, 255))
    assert refused(verify_inclusion, flipped(leaf, bit), index, size, proof, root)
    assert refused(verify_inclusion, leaf, index, size, proof, flipped(root, bit))
    assert refused(verify_inclusion, leaf, index, size, altered(data, proof), root)
    other = data.draw(st.integers(0, size).filter(lambda other: other != index))
    assert refused(verify_inclusion, leaf, other, size, proof, root)


@given(st.data())
def test_no_other_consistency_proof_is_taken(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 700))
    old = data.draw(st.integers(1, new - 1))
    old_root, new_root = root_of(old, SMALL.hashes), root_of(new, SMALL.hashes)
    proof = consistency_proof(old, new, SMALL.hashes)
    bit = data.draw(st.integers(0, 255))
    assert refused(verify_consistency, old, flipped(old_root, bit), new, new_root, proof)
    assert refused(verify_consistency, old, old_root, new, flipped(new_root, bit), proof)
    assert refused(verify_consistency, old, old_root, new, new_root, altered(data, proof))
    other = data.draw(st.integers(1, 700).filter(lambda other: other != old))
    assert refused(verify_consistency, other, old_root, new, new_root, proof)


@given(st.data())
def test_a_proof_convicts_a_log_of_two_histories(data: st.DataObject) -> None:
    """Of two trees that differ in a leaf among the first, the newer one's own proof gives the other old root."""
    new = data.draw(st.integers(4, 300))
    old = data.draw(st.integers(3, new - 1).filter(lambda old: old & (old - 1)))
    leaves = LEAVES[:new]
    leaves[data.draw(st.integers(0, old - 1))] = leaf_hash(b"another")
    other = Grown(leaves)
    root, proof = other.frontier.root(), consistency_proof(old, new, other.hashes)
    assert prefix_root(old, new, root, proof) == naive_root(leaves[:old]) != naive_root(LEAVES[:old])
    assert prefix_root(old, new, root, altered(data, proof)) is None, "whoever makes up a proof convicts nobody"


def test_a_proof_that_convicts_nobody() -> None:
    proof, root = consistency_proof(6, 8, VECTOR.hashes), ROOTS[7]
    assert prefix_root(6, 8, root, proof) == ROOTS[5]
    assert prefix_root(6, 8, ROOTS[6], proof) is None
    assert prefix_root(4, 8, root, consistency_proof(4, 8, VECTOR.hashes)) is None, "it leaves the old root out"
    for old, new in ((0, 8), (8, 8), (9, 8), (6, 1 << 63)):
        assert prefix_root(old, new, root, proof) is None
    assert prefix_root(6, 8, root, []) is prefix_root(6, 8, root, [b""] * 3) is None


def altered(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    """Draw a proof that is another: cut, longer, with two hashes exchanged, or with an altered bit."""
    ways = ["longer at the end", "longer at the start"] + ["cut", "cut at the start", "bit", "short"] * bool(proof)
    extra = data.draw(st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([*proof, EMPTY_ROOT])))
    match data.draw(st.sampled_from(ways)):
        case "longer at the end":
            return [*proof, extra]
        case "longer at the start":
            return [extra, *proof]
        case "cut":
            return proof[: data.draw(st.integers(0, len(proof) - 1))]
        case "cut at the start":
            return proof[data.draw(st.integers(1, len(proof))) :]
        case "short":
            return [*proof[:-1], proof[-1][:-1]]
        case _:
            at = data.draw(st.integers(0, len(proof) - 1))
            return [*proof[:at], flipped(proof[at], data.draw(st.integers(0, 255))), *proof[at + 1 :]]


def test_a_proof_takes_few_reads() -> None:
    """Of a million leaves, none of which anybody has to hold here: every stored hash is made from its place."""
    size, reads = 1_000_000, 0

    def hashes(level: int, start: int, count: int) -> list[bytes]:
        nonlocal reads
        reads += 1
        assert start // 256 == (start + count - 1) // 256
        assert start + count <= size >> 8 * level
        return [sha256(f"{level}.{at}".encode()).digest() for at in range(start, start + count)]

    assert len(inclusion_proof(123_456, size, hashes)) == 20
    assert reads <= 6
    reads = 0
    consistency_proof(654_321, size, hashes)
    assert reads <= 6


def test_hashes_that_are_missing() -> None:
    short: Hashes = lambda level, start, count: SMALL.hashes(level, start, count)[:-1]  # noqa: E731
    with pytest.raises(FailedPrecondition) as caught:
        root_of(300, short)
    assert caught.value.reason is Reason.LOG_TAMPERED
