"""Writes a log: each batch is one transaction, with the lock of the head's row held from its first statement on.

So the order of entries is the order of commits, two replicas of a node cannot split its log, and what a crash leaves is
the log as it stood after some batch: entries, hashes, head and signed checkpoint all of one size.
"""

import datetime as dt
import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from hutong.api.log.v1 import log_pb2
from services.kit.clock import Clock
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.log import driver, openings, receipts, scopes, subjects, texts
from services.kit.log.checkpoint import Checkpoint, open_checkpoint
from services.kit.log.driver import Columns, HeadRow
from services.kit.log.merkle import Frontier, leaf_hash
from services.kit.log.notes import Signer
from services.kit.log.openings import Draft, Sealed
from services.kit.log.tables import HEAD, OPENING, PART
from services.kit.log.texts import Text
from services.kit.records.database import engine

_EPOCH: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_POSIX: Final = dt.datetime.fromtimestamp(0, dt.UTC)
_ERASED_AT_ONCE: Final = 500
_SCRUB_EVERY: Final = 1.0
ERASABLE: Final = ("log_opening", "log_part", "log_recent", "log_text")
"""Tables that rows are erased from."""
_DEAD: Final = sa.text(
    "SELECT sum(pg_stat_get_dead_tuples(name::regclass)) FROM unnest(CAST(:tables AS text[])) AS name"
)
_HEAD: Final = sa.select(HEAD.c.size, HEAD.c.frontier, HEAD.c.checkpoint, HEAD.c.time)
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
    row = connection.execute(_HEAD).one_or_none()
    return _head(None if row is None else HeadRow(*row))


def _head(row: HeadRow | None) -> Head:
    if row is None:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log has lost its head")
    frontier = Frontier.from_bytes(row.frontier)
    if frontier.size != row.size or bool(frontier.size) != bool(row.checkpoint):
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's head contradicts itself")
    return Head(frontier, row.checkpoint, row.time or _EPOCH)


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


class _Batch(NamedTuple):
    """What was written together."""

    frontier: Frontier
    """The tree with it."""
    start: int
    """Index of its first entry; texts that became leaves come before that."""
    leaves: list[bytes]
    """Hashes of its entries."""
    time: Timestamp


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure has dropped."""

    entries: int = 0
    """Entries that can be opened no more."""
    scopes: int = 0
    """Scopes of authorizations that named the subject."""
    freed: bool = field(default=True, compare=False)
    """Whether the database has let go of its bytes as well; where not, it has not done so yet (`Writer.scrub`)."""


class _Lost(Exception):
    """The database was restarted behind an idle connection: nothing was written, and a new one may do."""


class Writer:
    """Appends to the log of one node. Not for several threads: `batching` gives it one of its own."""

    def __init__(self, url: str, signer: Signer, clock: Clock) -> None:
        """Nothing is opened yet; raises `FailedPrecondition` for a URL that is none."""
        self.engine = engine(url, writer=True)
        _prepare(self.engine)
        self._signer = signer
        self._clock = clock
        self._driver = driver.of(self.engine.dialect.name)
        self._kept: PoolProxiedConnection | None = None
        """The connection that batches are written on: to get one for each would cost as much as what is done on it."""
        self.seen = Frontier()
        """The tree as we last saw it."""
        self._dirty = False
        """Something that was erased still lies about."""
        self._scrubbed = 0.0

    def write(self, sealed: Sequence[Sealed], waiting: Sequence[Text] = ()) -> list[bytes]:
        """Write a batch durably; gives a serialized receipt for each entry, in order.

        Raises whatever goes wrong; then nothing of it counts as written.
        """
        batch = self._write_with(sealed, waiting) if waiting else self._write(sealed)
        self.seen = batch.frontier
        self._scrub_again()
        salts = [one.answer_salt for one in sealed]
        return receipts.sign(self._signer, batch.start, batch.leaves, batch.time, salts)

    def _write(self, sealed: Sequence[Sealed]) -> _Batch:
        with self._locked() as (cursor, head):
            return self._append(cursor, head, (), sealed)

    def _write_with(self, sealed: Sequence[Sealed], waiting: Sequence[Text]) -> _Batch:
        """Write a batch and the texts that it needs."""
        with self._begun() as (connection, head):
            new = texts.missing(connection, waiting)
            texts.archive(connection, new)
            leaves = [leaf.SerializeToString(deterministic=True) for leaf in filter(None, map(Text.leaf, new))]
            return self._append(connection.connection.cursor(), head, leaves, sealed)

    def erase(self, scheme: str, value: str, entry: log_pb2.LogEntry) -> Erased:
        """Drop the openings of every entry about a subject and the scopes that name it; log `entry` with how many."""
        with self._begun() as (connection, head):
            indexes = subjects.erase(connection, (scheme, value))
            for start in range(0, len(indexes), _ERASED_AT_ONCE):
                some = indexes[start : start + _ERASED_AT_ONCE]
                connection.execute(sa.delete(OPENING).where(OPENING.c.index.in_(some)))
            erased = Erased(len(indexes), scopes.erase(connection, scheme, value))
            entry.disclosures.add(record_type="log.Opening", rows=erased.entries)
            if erased.scopes:
                entry.disclosures.add(record_type="log.Scope", rows=erased.scopes)
            sealed = openings.seal(Draft(entry))
            batch = self._append(connection.connection.cursor(), head, (), [sealed])
            if self._postgres:
                # Or `_vacuum` would not know yet what there is to be freed.
                connection.execute(sa.text("SELECT pg_stat_force_next_flush()"))
        self.seen = batch.frontier
        self._dirty = self._dirty or erased != Erased()
        return replace(erased, freed=self.scrub()) if self._dirty else erased

    def scrub(self) -> bool:
        """Free what was erased where the database still has it lying about; tells whether nothing is left to do.

        It is where a reader's snapshot still has it, and where PostgreSQL does not take the order from this role. Until
        it is not, every write looks again, once a second at most, and so does `close`.
        """
        self._scrubbed = time.monotonic()
        try:
            self._dirty = not (self._vacuum() if self._postgres else self._empty_wal())
        except exc.SQLAlchemyError as error:
            _log.warning("Erased openings could not be freed yet", exc_info=error)
        return not self._dirty

    def tidy(self) -> None:
        """Do what an erasure left undone whose process was killed before it could; a server does so by itself."""
        if not self._postgres:
            self.scrub()

    @property
    def _postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def _vacuum(self) -> bool:
        """Have PostgreSQL free dead rows: it only warns who may not, and keeps what somebody may still see."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f"VACUUM {', '.join(ERASABLE)}"))
            return not connection.execute(_DEAD, {"tables": list(ERASABLE)}).scalar()

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
        if self._kept is not None:
            self._drop(self._kept)
        self.engine.dispose()

    @contextmanager
    def _begun(self) -> Generator[tuple[sa.Connection, Head]]:
        """Begin a transaction with the head's lock held, on a connection that stands."""
        connection, row = _again(self._begin)
        try:
            yield connection, _head(row)
            connection.commit()
        except BaseException:
            # What state a connection is in that something went wrong on nobody knows: the next one is new.
            connection.invalidate()
            raise
        finally:
            connection.close()

    @contextmanager
    def _locked(self) -> Generator[tuple[DBAPICursor, Head]]:
        """Begin a transaction as `_begun` does, by the driver itself and on a connection that is kept for this."""
        connection, row = _again(self._lock)
        try:
            yield connection.cursor(), _head(row)
            connection.commit()
        except BaseException:
            self._drop(connection)
            raise

    def _begin(self) -> tuple[sa.Connection, HeadRow | None]:
        connection = self.engine.connect()
        try:
            row = connection.execute(_LOCK).one_or_none()
        except BaseException as error:
            connection.invalidate()
            connection.close()
            if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
                raise _Lost from error
            raise
        return connection, None if row is None else HeadRow(*row)

    def _lock(self) -> tuple[PoolProxiedConnection, HeadRow | None]:
        connection = self._kept = self._kept or self.engine.raw_connection()
        dialect = self.engine.dialect
        try:
            return connection, self._driver.lock(connection.cursor())
        except dialect.loaded_dbapi.Error as error:
            lost = dialect.is_disconnect(error, connection, None)
            self._drop(connection)
            if lost:
                raise _Lost from error
            raise
        except BaseException:
            self._drop(connection)
            raise

    def _drop(self, connection: PoolProxiedConnection) -> None:
        self._kept = None
        connection.invalidate()
        connection.close()

    def _append(self, cursor: DBAPICursor, head: Head, leaves: Iterable[bytes], sealed: Sequence[Sealed]) -> _Batch:
        self._check_continued(head)
        moment = max(self._clock(), head.time)
        stamp = _timestamp(moment)
        # The time is an entry's first field, and known only now.
        timed = log_pb2.LogEntry(time=stamp).SerializeToString()
        data = [*leaves, *[timed + one.entry for one in sealed]]
        hashes = [leaf_hash(one) for one in data]
        frontier = head.frontier.copy()
        stored = frontier.extend(hashes)
        start = frontier.size - len(sealed)
        insert = partial(self._driver.insert, cursor)
        insert("log_entry", ("index", "leaf_hash", "entry"), (range(head.size, frontier.size), hashes, data))
        if stored:
            insert("log_hash", ("level", "index", "hash"), tuple(zip(*stored, strict=True)))
        opened, about = _beside(sealed, start)
        insert("log_opening", ("index", "opening"), opened)
        insert("log_recent", ("index", "scheme", "value"), about)
        if head.size // PART != frontier.size // PART:
            subjects.sort(cursor)
        checkpoint = Checkpoint(self._signer.name, frontier.size, frontier.root()).sign(self._signer)
        self._driver.update(cursor, HeadRow(frontier.size, frontier.to_bytes(), str(checkpoint), moment))
        return _Batch(frontier, start, hashes[len(hashes) - len(sealed) :], stamp)

    def _check_continued(self, head: Head) -> None:
        """Check that a head continues the tree as we last saw it: our own, or one that a replica has grown meanwhile.

        Raises `FailedPrecondition` LOG_TAMPERED where it does not: going on from there would be a fork.
        """
        if head.frontier == self.seen:
            return
        if head.size <= self.seen.size:
            raise FailedPrecondition(Reason.LOG_TAMPERED, "the log is not what this node has written")
        check_signed(head, self._signer)


def _beside(sealed: Sequence[Sealed], start: int) -> tuple[Columns, Columns]:
    """Give what is kept beside entries, from index `start` on: what they commit to, and whom they are about."""
    opened: tuple[list[int], list[bytes]] = ([], [])
    about: tuple[list[int], list[str], list[str]] = ([], [], [])
    for index, one in enumerate(sealed, start):
        if one.opening:
            opened[0].append(index)
            opened[1].append(one.opening)
        for scheme, value in one.subjects:
            about[0].append(index)
            about[1].append(scheme)
            about[2].append(value)
    return opened, about


def _timestamp(moment: dt.datetime) -> Timestamp:
    since = moment - _POSIX
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


T = TypeVar("T")


def _again(begin: Callable[[], T]) -> T:
    """Begin, and once more where the connection turns out to be lost."""
    try:
        return begin()
    except _Lost:
        return begin()


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
