"""Paths and contents of tiles, as C2SP tlog-tiles lays them out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.log.merkle import Frontier, inclusion_proof, leaf_hash, root_of, verify_inclusion
from services.kit.log.tiles import (
    Tile,
    decode_entries,
    decode_hashes,
    encode_entries,
    encode_hashes,
    hashes_from,
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999), "tile/0/999"),
        (Tile(0, 1000), "tile/0/x001/000"),
        # The examples of C2SP tlog-tiles: index 1234067, and the partial tiles of a tree of 70,000 leaves.
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(1, 1, 17), "tile/1/001.p/17"),
        (Tile(2, 0, 1), "tile/2/000.p/1"),
        (Tile(None, 1234067, 8), "tile/entries/x001/x234/067.p/8"),
        (Tile(None, 0), "tile/entries/000"),
        (Tile(6, 0, 1), "tile/6/000.p/1"),
    ],
)
def test_paths(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@given(st.one_of(st.none(), st.integers(0, 3)), st.integers(0, (1 << 30) - 1), st.integers(1, 256))
def test_every_path_is_read_back(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/x000/x001/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/X001/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/64/000",
        "tile/63/000",
        "tile/8/000.p/1",
        "tile/+0/000",
        "tile/data/000",
        "tile/entries/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/",
        "tile/0/000.p",
        "/tile/0/000",
        "tile//000",
        "tile/0/000/",
        "tile/0/000\n",
        " tile/0/000",
        "tile/0/../000",
        "tile/0/٠٠٠",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x001/" * 5000 + "000",
        "checkpoint",
    ],
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(HutongError) as caught:
        Tile.parse(path)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@given(st.text(alphabet="tile/entries0123x.p-", max_size=40))
def test_what_is_read_is_written_the_same(text: str) -> None:
    try:
        tile = Tile.parse(text)
    except HutongError:
        return
    assert tile.path == text


@pytest.mark.parametrize(
    ("tile", "least"),
    [
        (Tile(0, 0), 256),
        (Tile(0, 0, 1), 1),
        (Tile(0, 1, 5), 261),
        (Tile(None, 1, 5), 261),
        (Tile(1, 0, 1), 256),
        (Tile(1, 0), 65_536),
        (Tile(2, 0, 1), 65_536),
    ],
)
def test_which_trees_have_a_tile(tile: Tile, least: int) -> None:
    assert tile.within(least)
    assert not tile.within(least - 1)


def test_the_tile_that_holds_a_hash() -> None:
    assert Tile.holding(0, 300, 1000) == Tile(0, 1)
    assert Tile.holding(0, 999, 1000) == Tile(0, 3, 232)
    assert Tile.holding(1, 2, 1000) == Tile(1, 0, 3)
    assert Tile.holding(None, 999, 1000) == Tile(None, 3, 232)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_are_read_back(entries: list[bytes]) -> None:
    data = encode_entries(entries)
    assert decode_entries(data, len(entries)) == entries
    for width in (len(entries) + 1, len(entries) - 1):
        with pytest.raises(FailedPrecondition):
            decode_entries(data, width)


def test_the_layout_of_a_bundle() -> None:
    assert encode_entries([b"", b"ab", b"c" * 258]) == b"\x00\x00" + b"\x00\x02ab" + b"\x01\x02" + b"c" * 258


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_a_bundle_cut_off_or_with_more_is_refused(entries: list[bytes], data: st.DataObject) -> None:
    whole = encode_entries(entries)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + data.draw(st.binary(min_size=1, max_size=4))):
        with pytest.raises(FailedPrecondition) as caught:
            decode_entries(wrong, len(entries))
        assert caught.value.reason is Reason.LOG_TAMPERED


def test_the_largest_entry() -> None:
    largest = b"x" * 65_535
    assert decode_entries(encode_entries([largest, b"y"]), 2) == [largest, b"y"]
    with pytest.raises(HutongError) as caught:
        encode_entries([largest + b"x"])
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE


def test_tiles_of_hashes() -> None:
    hashes = [bytes([number]) * 32 for number in range(5)]
    assert decode_hashes(encode_hashes(hashes), 5) == hashes
    for wrong in (b"", encode_hashes(hashes)[:-1], encode_hashes([*hashes, hashes[0]])):
        with pytest.raises(FailedPrecondition) as caught:
            decode_hashes(wrong, 5)
        assert caught.value.reason is Reason.LOG_TAMPERED


def test_proofs_come_out_of_tiles_alone() -> None:
    """A client with nothing but files proves what the log proves."""
    leaves = [leaf_hash(bytes([number % 256])) for number in range(700)]
    stored: dict[int, list[bytes]] = {0: leaves, 1: []}
    frontier = Frontier()
    for leaf in leaves:
        stored[1] += (value for _, _, value in frontier.append(leaf))
    fetched: list[str] = []

    def read(tile: Tile) -> bytes:
        fetched.append(tile.path)
        assert tile.within(700)
        return encode_hashes(stored[tile.level or 0][tile.start : tile.start + tile.width])

    hashes = hashes_from(lambda tile: decode_hashes(read(tile), tile.width), 700)
    assert root_of(700, hashes) == frontier.root()
    verify_inclusion(leaves[123], 123, 700, inclusion_proof(123, 700, hashes), frontier.root())
    assert sorted(fetched) == ["tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2"], "each once"
