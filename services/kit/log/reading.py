"""Reads of a log: entries, what they commit to, and the hashes that proofs are made of."""

import datetime as dt
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import sqlalchemy as sa
from google.protobuf.message import DecodeError

from hutong.api.log.v1 import log_pb2
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from services.kit.log import merkle
from services.kit.log.checkpoint import Checkpoint
from services.kit.log.merkle import Hashes
from services.kit.log.notes import Signer
from services.kit.log.openings import read_opening
from services.kit.log.tables import ENTRY, HASH, OPENING
from services.kit.log.tiles import Tile, encode_entries, encode_hashes
from services.kit.log.writer import Head, read_head

MAX_ENTRIES: Final = 4096
"""Most entries of one read."""

_ENTRIES: Final = (
    sa.select(ENTRY.c.leaf_hash, ENTRY.c.entry)
    .where(ENTRY.c.index >= sa.bindparam("p_start"), ENTRY.c.index < sa.bindparam("p_end"))
    .order_by(ENTRY.c.index)
)
_LEAVES: Final = (
    sa.select(ENTRY.c.leaf_hash)
    .where(ENTRY.c.index >= sa.bindparam("p_start"), ENTRY.c.index < sa.bindparam("p_end"))
    .order_by(ENTRY.c.index)
)
_HASHES: Final = (
    sa.select(HASH.c.hash)
    .where(
        HASH.c.level == sa.bindparam("p_level"),
        HASH.c.index >= sa.bindparam("p_start"),
        HASH.c.index < sa.bindparam("p_end"),
    )
    .order_by(HASH.c.index)
)


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry as it stands in the log."""

    index: int
    leaf_hash: bytes
    data: bytes
    """The entry, serialized: what the leaf is the hash of."""

    @property
    def entry(self) -> log_pb2.LogEntry:
        """Read it; raises `FailedPrecondition` LOG_TAMPERED where it is none."""
        try:
            return log_pb2.LogEntry.FromString(self.data)
        except DecodeError:
            raise FailedPrecondition(Reason.LOG_TAMPERED, "an entry of the log is none") from None


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof, and the checkpoint of its tree."""

    hashes: tuple[bytes, ...]
    size: int
    """Of the tree; of a consistency proof that of the newer one."""
    checkpoint: str
    """The signed note of that very tree."""


@contextmanager
def snapshot(connection: sa.Connection) -> Generator[None]:
    """See the log as it is at one moment, for as long as this lasts, whoever appends meanwhile.

    Only what compares one part with another needs it: entries and hashes below a head that was read stay as they are.
    """
    postgres = connection.dialect.name == "postgresql"
    connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if postgres else "BEGIN")
    try:
        yield
    finally:
        connection.exec_driver_sql("ROLLBACK")


def entries(connection: sa.Connection, start: int, count: int) -> list[Logged]:
    """Get entries in order, at most 4,096 of them; fewer where the log ends."""
    end = start + min(count, MAX_ENTRIES)
    rows = connection.execute(_ENTRIES, {"p_start": start, "p_end": end})
    return [Logged(index, leaf, data) for index, (leaf, data) in enumerate(rows, start)]


def entry(connection: sa.Connection, index: int) -> Logged:
    """Get an entry; raises `NotFound` LOG_ENTRY_UNKNOWN."""
    found = entries(connection, index, 1) if 0 <= index <= merkle.MAX_SIZE else []
    if not found:
        raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "the log has no such entry")
    return found[0]


def opening(connection: sa.Connection, index: int) -> log_pb2.Opening | None:
    """Get what an entry commits to; none where that is nothing, or was erased."""
    found = connection.execute(sa.select(OPENING.c.opening).where(OPENING.c.index == index)).scalar()
    return None if found is None else read_opening(found)


def first_since(connection: sa.Connection, moment: dt.datetime) -> int:
    """Get the index of the first entry logged at that moment or later; the size of the log where there is none."""
    low, high = 0, read_head(connection).size
    while low < high:
        middle = (low + high) // 2
        # Masks have no time; they stand right before an entry that has one.
        timed = next((one for one in _from(connection, middle, high) if one.entry.HasField("time")), None)
        if timed is not None and timed.entry.time.ToDatetime(dt.UTC) < moment:
            low = timed.index + 1
        else:
            high = middle
    return low


def _from(connection: sa.Connection, start: int, end: int) -> Iterator[Logged]:
    while start < end:
        found = entries(connection, start, min(16, end - start))
        yield from found
        start += len(found) or end


def stored_hashes(connection: sa.Connection) -> Hashes:
    """Read hashes where they are stored."""
    return partial(_stored, connection)


def _stored(connection: sa.Connection, level: int, start: int, count: int) -> Sequence[bytes]:
    span = {"p_start": start, "p_end": start + count}
    if level == 0:
        return connection.execute(_LEAVES, span).scalars().all()
    return connection.execute(_HASHES, {"p_level": level, **span}).scalars().all()


def tile(connection: sa.Connection, wanted: Tile) -> bytes:
    """Get a tile of hashes or a bundle of entries; raises `NotFound` LOG_ENTRY_UNKNOWN where the log ends before."""
    if not wanted.within(read_head(connection).size):
        raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "the log has no such tile")
    if wanted.level is None:
        return encode_entries(one.data for one in entries(connection, wanted.start, wanted.width))
    return encode_hashes(_stored(connection, wanted.level, wanted.start, wanted.width))


def _head_with(connection: sa.Connection, size: int) -> Head:
    head = read_head(connection)
    if not 0 < size <= head.size:
        raise InvalidArgument(Reason.LOG_ENTRY_UNKNOWN, "the log has no tree of that size")
    return head


def inclusion(connection: sa.Connection, signer: Signer, index: int, size: int = 0) -> Proof:
    """Prove that a leaf is in the tree of that size, or in the newest (RFC 6962 §2.1.1).

    Raises `NotFound` or `InvalidArgument` LOG_ENTRY_UNKNOWN where there is no such leaf or tree.
    """
    head = _head_with(connection, size) if size else read_head(connection)
    size = size or head.size
    if not 0 <= index < size:
        raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "the tree has no such leaf")
    hashes = stored_hashes(connection)
    note = _checkpoint_at(head, signer, size, hashes)
    return Proof(tuple(merkle.inclusion_proof(index, size, hashes)), size, note)


def consistency(connection: sa.Connection, signer: Signer, old: int, size: int = 0) -> Proof:
    """Prove that the tree of size `old` is the beginning of another, or of the newest (RFC 6962 §2.1.2).

    Raises `InvalidArgument` LOG_ENTRY_UNKNOWN where there are no such trees.
    """
    head = _head_with(connection, size) if size else read_head(connection)
    size = size or head.size
    if not 0 <= old <= size or not size:
        raise InvalidArgument(Reason.LOG_ENTRY_UNKNOWN, "the log has no tree of that size")
    hashes = stored_hashes(connection)
    note = _checkpoint_at(head, signer, size, hashes)
    return Proof(tuple(merkle.consistency_proof(old, size, hashes)), size, note)


def _checkpoint_at(head: Head, signer: Signer, size: int, hashes: Hashes) -> str:
    """Give the checkpoint of a tree that was: signed anew, once it is proven to be the beginning of the present one."""
    if size == head.size:
        return head.checkpoint
    root = merkle.root_of(size, hashes)
    proof = merkle.consistency_proof(size, head.size, hashes)
    try:
        merkle.verify_consistency(size, root, head.size, head.frontier.root(), proof)
    except FailedPrecondition:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's hashes do not give its root") from None
    return str(Checkpoint(signer.name, size, root).sign(signer))
