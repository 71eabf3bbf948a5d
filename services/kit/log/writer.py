"""Writes a log: each batch is one transaction, with the lock of the head's row held from its first statement on.

So the order of entries is the order of commits, two replicas of a node cannot split its log, and what a crash leaves is
the log as it stood after some batch: entries, hashes, head and signed checkpoint all of one size.
"""

import datetime as dt
import logging
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from hutong.api.log.v1 import log_pb2
from services.kit.clock import Clock
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.log import bulk, receipts, scopes, texts
from services.kit.log.checkpoint import Checkpoint, open_checkpoint
from services.kit.log.merkle import Frontier, leaf_hash
from services.kit.log.notes import Signer
from services.kit.log.openings import Sealed
from services.kit.log.tables import ENTRY, HASH, HEAD, OPENING, SUBJECT
from services.kit.log.texts import Text
from services.kit.records.database import engine

_EPOCH: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_ERASED_AT_ONCE: Final = 500
_SCRUB_EVERY: Final = 1.0
_HEAD: Final = sa.select(HEAD)
_LOCK: Final = _HEAD.with_for_update()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log."""

    frontier: Frontier
    checkpoint: str
    """The signed note; empty before the first entry."""
    time: dt.datetime
    """When the last entry was logged."""

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self.frontier.size


def read_head(connection: sa.Connection) -> Head:
    """Get the head; raises `FailedPrecondition` LOG_TAMPERED where it contradicts itself."""
    return _head(connection.execute(_HEAD).mappings().one_or_none())


def _head(row: sa.RowMapping | None) -> Head:
    if row is None:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log has lost its head")
    frontier = Frontier.from_bytes(row["frontier"])
    if frontier.size != row["size"] or bool(frontier.size) != bool(row["checkpoint"]):
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's head contradicts itself")
    return Head(frontier, row["checkpoint"], row["time"] or _EPOCH)


def check_signed(head: Head, signer: Signer) -> None:
    """Check that a head's checkpoint is of its tree, and signed with our key.

    Raises `FailedPrecondition`: LOG_KEY_UNKNOWN where another key signed it, LOG_TAMPERED where anything else is wrong.
    """
    if not head.size:
        return
    try:
        signed = open_checkpoint(head.checkpoint, [signer.verifier]).checkpoint
    except HutongError as error:
        if error.reason is Reason.LOG_KEY_UNKNOWN:
            message = f"the checkpoints of the log {signer.name} are signed with another key; put that one back"
            raise FailedPrecondition(Reason.LOG_KEY_UNKNOWN, message) from None
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's checkpoint is not what was signed") from None
    if (signed.origin, signed.size, signed.root) != (signer.name, head.size, head.frontier.root()):
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's checkpoint is of another tree")


@dataclass(slots=True)
class _Growth:
    """What a batch adds: rows, and the tree afterwards."""

    frontier: Frontier
    time: dt.datetime
    stamp: Timestamp
    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    hashes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    openings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    subjects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, entry: log_pb2.LogEntry) -> int:
        """Add a leaf; gives its index."""
        data = entry.SerializeToString(deterministic=True)
        leaf, index = leaf_hash(data), self.frontier.size
        self.entries.append({"index": index, "leaf_hash": leaf, "entry": data})
        for level, place, value in self.frontier.append(leaf):
            self.hashes.append({"level": level, "index": place, "hash": value})
        return index

    def add_sealed(self, sealed: Sealed) -> None:
        """Add a leaf with what it commits to."""
        sealed.entry.time.CopyFrom(self.stamp)
        index = self.add(sealed.entry)
        if sealed.opening:
            self.openings.append({"index": index, "opening": sealed.opening})
        self.subjects.extend({"scheme": scheme, "value": value, "index": index} for scheme, value in sealed.subjects)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure has dropped."""

    entries: int = 0
    """Entries that can be opened no more."""
    scopes: int = 0
    """Scopes of authorizations that named the subject."""


_Locked = tuple[sa.Connection, sa.RowMapping | None]


class Writer:
    """Appends to the log of one node. Not for several threads: `batching` gives it one of its own."""

    def __init__(self, url: str, signer: Signer, clock: Clock) -> None:
        """Nothing is opened yet; raises `FailedPrecondition` for a URL that is none."""
        self.engine = engine(url, writer=True)
        _prepare(self.engine)
        self._signer = signer
        self._clock = clock
        self.seen = Frontier()
        """The tree as we last saw it."""
        self._dirty = False
        """Something that was erased still lies about."""
        self._scrubbed = 0.0

    def write(self, sealed: Sequence[Sealed], waiting: Sequence[Text] = ()) -> list[log_pb2.Receipt]:
        """Write a batch durably; gives a receipt for each draft, in order. Raises whatever goes wrong; then nothing of
        it counts as written."""
        with self._begun() as (connection, head):
            growth = self._write(connection, head, sealed, waiting)
        self.seen = growth.frontier
        self._scrub_again()
        return self._receipts(growth, len(sealed))

    def erase(self, scheme: str, value: str, entry: log_pb2.LogEntry) -> Erased:
        """Drop the openings of every entry about a subject and the scopes that name it; log `entry` with how many."""
        of_subject = sa.and_(SUBJECT.c.scheme == scheme, SUBJECT.c.value == value)
        with self._begun() as (connection, head):
            indexes = list(connection.execute(sa.select(SUBJECT.c.index).where(of_subject)).scalars())
            for start in range(0, len(indexes), _ERASED_AT_ONCE):
                some = indexes[start : start + _ERASED_AT_ONCE]
                connection.execute(sa.delete(OPENING).where(OPENING.c.index.in_(some)))
            connection.execute(sa.delete(SUBJECT).where(of_subject))
            erased = Erased(len(indexes), scopes.erase(connection, scheme, value))
            entry.disclosures.add(record_type="log.Opening", rows=erased.entries)
            if erased.scopes:
                entry.disclosures.add(record_type="log.Scope", rows=erased.scopes)
            growth = self._write(connection, head, [Sealed(entry, b"", ())], ())
        self.seen = growth.frontier
        self._dirty = self._dirty or erased != Erased()
        return erased

    def scrub(self) -> bool:
        """Overwrite what was erased where the database still has it lying about; tells whether nothing is left to do.

        Until it is, every write looks again, once a second at most, and so does `close`.
        """
        self._scrubbed = time.monotonic()
        try:
            self._dirty = not (self._vacuum() if self.engine.dialect.name == "postgresql" else self._empty_wal())
        except exc.SQLAlchemyError as error:
            _log.warning("Erased openings could not be overwritten yet", exc_info=error)
        return not self._dirty

    def tidy(self) -> None:
        """Do what an erasure left undone whose process was killed before it could; a server does so by itself."""
        if self.engine.dialect.name == "sqlite":
            self.scrub()

    def _vacuum(self) -> bool:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM log_opening, log_subject, log_text"))
        return True

    def _empty_wal(self) -> bool:
        """Empty SQLite's write-ahead log, where pages are as they were before; a reader may hold it up."""
        raw = self.engine.raw_connection()
        try:
            cursor = raw.cursor()
            # Nobody waits for readers here, as whoever writes would: others wait to append.
            before = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
            cursor.execute("PRAGMA busy_timeout = 0")
            busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            cursor.execute(f"PRAGMA busy_timeout = {before}")
            cursor.close()
            return not busy
        finally:
            raw.close()

    def _scrub_again(self) -> None:
        if self._dirty and time.monotonic() - self._scrubbed >= _SCRUB_EVERY:
            self.scrub()

    def close(self) -> None:
        """Let go of the database."""
        if self._dirty:
            self.scrub()
        self.engine.dispose()

    @contextmanager
    def _begun(self) -> Generator[tuple[sa.Connection, Head]]:
        """Begin a transaction with the head's lock held, on a connection that stands."""
        connection, row = self._begin()
        try:
            yield connection, _head(row)
            connection.commit()
        except BaseException:
            # What state a connection is in that something went wrong on nobody knows: the next one is new.
            connection.invalidate()
            raise
        finally:
            connection.close()

    def _begin(self) -> _Locked:
        try:
            return self._lock()
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # The database was restarted behind an idle connection: nothing was written, and a new one may do.
        return self._lock()

    def _lock(self) -> _Locked:
        connection = self.engine.connect()
        try:
            return connection, connection.execute(_LOCK).mappings().one_or_none()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise

    def _write(
        self, connection: sa.Connection, head: Head, sealed: Sequence[Sealed], waiting: Sequence[Text]
    ) -> _Growth:
        self._check_continued(head)
        moment = max(self._clock(), head.time)
        stamp = Timestamp()
        stamp.FromDatetime(moment)
        growth = _Growth(head.frontier.copy(), moment, stamp)
        new = texts.missing(connection, waiting)
        for leaf in filter(None, map(Text.leaf, new)):
            growth.add(leaf)
        for one in sealed:
            growth.add_sealed(one)
        texts.archive(connection, new)
        self._insert(connection, growth)
        return growth

    def _check_continued(self, head: Head) -> None:
        """Check that a head continues the tree as we last saw it: our own, or one that a replica has grown meanwhile.

        Raises `FailedPrecondition` LOG_TAMPERED where it does not: going on from there would be a fork.
        """
        if head.frontier == self.seen:
            return
        if head.size <= self.seen.size:
            raise FailedPrecondition(Reason.LOG_TAMPERED, "the log is not what this node has written")
        check_signed(head, self._signer)

    def _insert(self, connection: sa.Connection, growth: _Growth) -> None:
        for table, rows in (
            (ENTRY, growth.entries),
            (HASH, growth.hashes),
            (OPENING, growth.openings),
            (SUBJECT, growth.subjects),
        ):
            bulk.insert(connection, table, rows)
        frontier = growth.frontier
        checkpoint = Checkpoint(self._signer.name, frontier.size, frontier.root()).sign(self._signer)
        connection.execute(
            sa.update(HEAD),
            {
                "size": frontier.size,
                "frontier": frontier.to_bytes(),
                "checkpoint": str(checkpoint),
                "time": growth.time,
            },
        )

    def _receipts(self, growth: _Growth, count: int) -> list[log_pb2.Receipt]:
        """Sign receipts for the last `count` entries of a batch."""
        rows = growth.entries[len(growth.entries) - count :]
        return [receipts.sign(self._signer, row["index"], row["leaf_hash"], growth.time) for row in rows]


def _prepare(made: sa.Engine) -> None:
    """Make every connection one whose commits are on disk when they return, and whose deletions leave nothing."""

    @event.listens_for(made, "connect")
    def connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        if made.dialect.name == "sqlite":
            # In WAL mode anything less than FULL syncs at checkpoints only: a power cut would take back entries whose
            # receipts have left. It is the default of our writers; here it is what the log rests on.
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA secure_delete = ON")
        else:
            # A server may be set to acknowledge before the disk has it; stronger settings than ours are left.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
            )
            connection.commit()
        cursor.close()
