"""Verifies a whole log: every leaf from its entry, every stored hash, the root, and the signature on it.

Where the log is read from does not matter: its database, a folder of tiles, or tiles over HTTPS. It is read once, from
left to right, a bundle of 256 entries at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

import sqlalchemy as sa

from services.kit.errors import FailedPrecondition, HutongError, NotFound, Reason
from services.kit.log import reading
from services.kit.log.checkpoint import SignedCheckpoint, open_checkpoint
from services.kit.log.merkle import TILE_HEIGHT, TILE_WIDTH, Frontier
from services.kit.log.notes import VerifierKey
from services.kit.log.tiles import CHECKPOINT, MAX_ENTRY, Tile, decode_entries, decode_hashes
from services.kit.log.writer import read_head

Progress = Callable[[int, int], None]
"""Told how many entries have been verified, and of how many."""

Fetch = Callable[[str], bytes]
"""Gets a file of a log by its path, for example `checkpoint` or `tile/0/000`."""

MAX_FILE: Final = TILE_WIDTH * (MAX_ENTRY + 2)
"""Most bytes of a file of a log."""


class Source(Protocol):
    """Where a log is read from. Reads never reach over the border of a tile."""

    def checkpoint(self) -> str:
        """Get the newest checkpoint."""
        ...

    def entries(self, tile: Tile) -> Sequence[bytes]:
        """Get a bundle of entries."""
        ...

    def hashes(self, tile: Tile) -> Sequence[bytes]:
        """Get a tile of hashes."""
        ...


class Stored:
    """A log in its node's database."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._hashes = reading.stored_hashes(connection)

    def checkpoint(self) -> str:
        """Get the newest checkpoint; raises `NotFound` where the log is empty."""
        head = read_head(self._connection)
        if not head.size:
            raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "the log has no entry yet")
        return head.checkpoint

    def entries(self, tile: Tile) -> Sequence[bytes]:
        """Get a bundle of entries."""
        return [one.data for one in reading.entries(self._connection, tile.start, tile.width)]

    def hashes(self, tile: Tile) -> Sequence[bytes]:
        """Get a tile of hashes."""
        return self._hashes(tile.level or 0, tile.start, tile.width)


class Files:
    """A log as tiles (C2SP tlog-tiles)."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def checkpoint(self) -> str:
        """Get the newest checkpoint."""
        try:
            return self._fetch(CHECKPOINT).decode()
        except UnicodeDecodeError:
            raise FailedPrecondition(Reason.LOG_TAMPERED, "the checkpoint is no text") from None

    def entries(self, tile: Tile) -> Sequence[bytes]:
        """Get a bundle of entries."""
        return decode_entries(self._fetch(tile.path), tile.width)

    def hashes(self, tile: Tile) -> Sequence[bytes]:
        """Get a tile of hashes."""
        return decode_hashes(self._fetch(tile.path), tile.width)


def folder(path: Path) -> Fetch:
    """Get the files of a log from a folder."""

    def fetch(name: str) -> bytes:
        try:
            with (path / name).open("rb") as file:
                return file.read(MAX_FILE + 1)
        except OSError:
            raise NotFound(Reason.LOG_ENTRY_UNKNOWN, f"there is no {name} in {path}") from None

    return fetch


@dataclass(frozen=True, slots=True)
class Whole:
    """A log that was verified from its first entry to its last."""

    size: int
    root: bytes
    signed: SignedCheckpoint


def verify_all(connection: sa.Connection, key: VerifierKey, progress: Progress | None = None) -> Whole:
    """Verify a log in its node's database; raises as `verify` does."""
    return verify(Stored(connection), key, progress)


def verify_tiles(fetch: Fetch, key: VerifierKey, progress: Progress | None = None) -> Whole:
    """Verify a log as tiles; raises as `verify` does, and what `fetch` raises."""
    return verify(Files(fetch), key, progress)


def verify(source: Source, key: VerifierKey, progress: Progress | None = None) -> Whole:
    """Verify a whole log; `key` is the log's.

    Raises `FailedPrecondition` LOG_TAMPERED with what is wrong and, where it is one entry, its index; for a checkpoint
    that the log has not signed `PermissionDenied` LOG_KEY_UNKNOWN or RESULT_SIGNATURE, or `InvalidArgument`; `NotFound`
    LOG_ENTRY_UNKNOWN for an empty log.
    """
    signed = open_checkpoint(source.checkpoint(), [key])
    size = signed.checkpoint.size
    tree = _Tree(source, size)
    for start in range(0, size, TILE_WIDTH):
        tree.add(Tile(None, start // TILE_WIDTH, min(TILE_WIDTH, size - start)))
        if progress:
            progress(min(start + TILE_WIDTH, size), size)
    root = tree.finish()
    if root != signed.checkpoint.root:
        raise _tampered("the entries do not give the root that was signed")
    return Whole(size, root, signed)


class _Tree:
    """The tree as computed from the entries, compared with what is stored on the way."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._size = size
        self._rows: list[list[bytes]] = [[]]
        """Of each level the hashes of the tile that is not whole yet."""

    def add(self, bundle: Tile) -> None:
        """Add a bundle of entries."""
        entries = self._source.entries(bundle)
        if len(entries) != bundle.width:
            raise _tampered(f"entries from {bundle.start} on are missing")
        # The tight loop: a million entries go through it.
        leaves = [sha256(b"\x00" + entry).digest() for entry in entries]
        self._rows[0] = leaves
        self._compare(0, bundle.index)
        if bundle.width == TILE_WIDTH:
            self._whole(0, bundle.index)

    def finish(self) -> bytes:
        """Compare the tiles that stayed partial, above the leaves; gives the root."""
        for level, row in enumerate(self._rows):
            if level and row:
                self._compare(level, (self._size >> TILE_HEIGHT * level) // TILE_WIDTH)
        # What is asked for here are the partial tiles at the right edge, and these are what is left.
        return Frontier.read(self._size, lambda level, _start, count: self._rows[level][:count]).root()

    def _whole(self, level: int, index: int) -> None:
        """Go one level up from a whole tile."""
        row = self._rows[level]
        while len(row) > 1:
            row = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=True)]
        self._rows[level] = []
        if level + 1 == len(self._rows):
            self._rows.append([])
        above = self._rows[level + 1]
        above.append(row[0])
        if len(above) == TILE_WIDTH:
            self._compare(level + 1, index // TILE_WIDTH)
            self._whole(level + 1, index // TILE_WIDTH)

    def _compare(self, level: int, index: int) -> None:
        row = self._rows[level]
        stored = self._source.hashes(Tile(level, index, len(row)))
        if list(stored) == row:
            return
        if len(stored) != len(row):
            raise _tampered(f"hashes of tile {index} of level {level} are missing")
        at = index * TILE_WIDTH + next(at for at, one in enumerate(row) if one != stored[at])
        what = f"hash {at} of level {level} is not that of what is below it" if level else f"entry {at} was changed"
        raise _tampered(what, index=str(at))


def _tampered(what: str, **metadata: str) -> HutongError:
    return FailedPrecondition(Reason.LOG_TAMPERED, f"the log was changed: {what}", **metadata)
