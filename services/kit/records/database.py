"""The way to one database: engines, transactions, and errors that say nothing of the engine.

The code that speaks SQL is plain and synchronous; this module decides where it runs. Reads and writes go to threads,
except short reads from SQLite, which run where they are asked: handing one over to a thread and back costs more than
ten times the read itself (and it never waits: in WAL mode no writer holds up a reader). Short reads that are asked over
and over have a way of their own (`services.kit.records.short`).
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from services.kit.errors import Aborted, FailedPrecondition, HutongError, Internal, Reason, Unavailable
from services.kit.records import short
from services.kit.records.short import InPlace, Short, ShortReads, Together

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

READERS = 4
"""Connections, and threads, for reading; more only help where the database has more than this to give."""

_WRITER_BUSY_MS = 30_000
_READER_BUSY_MS = 2_000
"""Only while another process repairs the file after a crash does a reader ever wait, and the whole node with it."""

_STATEMENT_MS = 30_000
_MISSING = re.compile(r"^Undefined(Table|Column)|no such (table|column)|has no column named")
_CONFLICT = re.compile(r"^(UniqueViolation|SerializationFailure|DeadlockDetected)|UNIQUE constraint failed")
_log = logging.getLogger(__name__)


def sync_url(url: str) -> sa.URL:
    """Read a database URL; async drivers are named by habit and mean the same database here.

    Raises `FailedPrecondition` for what is neither a SQLite file nor PostgreSQL.
    """
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        raise FailedPrecondition(Reason.CONFIG_INVALID, "the store's url is no database URL") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        return parsed.set(drivername="sqlite")
    raise FailedPrecondition(Reason.CONFIG_INVALID, "the store is a SQLite file or PostgreSQL, and nothing else")


def engine(url: str, *, writer: bool, size: int = 1) -> sa.Engine:
    """Make an engine. Readers commit every statement by itself; a writer's transaction holds the write lock at once."""
    parsed = sync_url(url)
    if parsed.get_backend_name() == "sqlite":
        made = _engine(parsed, writer, size, {"check_same_thread": False})
        _prepare_sqlite(made, writer)
        return made
    only = "off" if writer else "on"
    options = f"-c timezone=UTC -c statement_timeout={_STATEMENT_MS} -c default_transaction_read_only={only}"
    return _engine(parsed, writer, size, {"options": options, "application_name": "hutong"})


def _engine(url: sa.URL, writer: bool, size: int, connect_args: dict[str, object]) -> sa.Engine:
    # Parameters are people's data: they stay out of error texts and logs.
    if writer:
        return sa.create_engine(url, connect_args=connect_args, pool_size=size, hide_parameters=True)
    return sa.create_engine(
        url,
        connect_args=connect_args,
        pool_size=size,
        max_overflow=2,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,  # nothing to roll back
    )


def _prepare_sqlite(made: sa.Engine, writer: bool) -> None:
    @event.listens_for(made, "connect")
    def connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_WRITER_BUSY_MS if writer else _READER_BUSY_MS}")
        if writer:
            # The driver's own idea of when to begin is switched off: a writer begins by hand, below.
            connection.isolation_level = None
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
        else:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    if writer:

        @event.listens_for(made, "begin")
        def begin(connection: sa.Connection) -> None:  # pyright: ignore[reportUnusedFunction]
            # A transaction that reads first and writes later may find that it cannot; this one can.
            connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def translated() -> Generator[None]:
    """Replace the database's errors by ours: logged in full here, engine-neutral to everyone else."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _translate(error) from None


def _translate(error: exc.SQLAlchemyError) -> HutongError:
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    text = f"{type(original).__name__}: {original}"
    if _MISSING.search(text):
        _log.error("Record store has other tables", exc_info=error)
        return not_migrated("a table or column is missing")
    if _CONFLICT.search(text):
        _log.warning("Write conflict in the record store", exc_info=error)
        return Aborted(Reason.VERSION_CONFLICT, "another writer was faster; read again and retry")
    lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    if lost or isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        _log.warning("Record store not available", exc_info=error)
        return Unavailable(Reason.STORE_UNAVAILABLE, "the record store cannot be reached now")
    number = secrets.token_hex(6)
    _log.error("Record store failed", exc_info=error, extra={"error_id": number})
    return Internal(Reason.INTERNAL, f"the record store failed, error {number}")


def not_migrated(why: str) -> FailedPrecondition:
    """Word the error of a database whose tables are not of this version."""
    return FailedPrecondition(
        Reason.STORE_NOT_MIGRATED,
        f"the store's tables are not of this version ({why}): set `migrate = true` under [store] in the node's config",
    )


class Database:
    """One department's database."""

    def __init__(self, url: str) -> None:
        self._reads = engine(url, writer=False, size=READERS)
        self._writes = engine(url, writer=True)
        self._inline = self._reads.dialect.name == "sqlite"
        self._short: ShortReads = InPlace(self._reads) if self._inline else Together(self._reads)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        # One at a time: writers of one process queue here instead of at the database's lock.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")

    async def read(self, work: Work[T], *, short: bool = False) -> T:
        """Run a read; `short` says that an index leads straight to a few rows.

        Raises `Unavailable` where the database cannot be reached, `Internal` where it fails.
        """
        if short and self._inline:
            return self._read(work)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    @property
    def dialect(self) -> str:
        """Which database it is: `sqlite` or `postgresql`."""
        return self._reads.dialect.name

    def short(self, select: sa.Select[Any], parameters: Sequence[str]) -> Short:
        """Compile a SELECT for `short_reads`, with values for these parameters in their order."""
        return short.compiled(select, self._reads.dialect, parameters)

    @property
    def short_reads(self) -> ShortReads:
        """What runs them; where that fails, `read` says why."""
        return self._short

    async def write(self, work: Work[T]) -> T:
        """Run a write as one transaction: all of it is kept, or nothing. Raises as `read` does."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, work)

    def close(self) -> None:
        """Wait for what is running, then let go of every connection."""
        self._short.close()
        self._readers.shutdown()
        self._writer.shutdown()
        self._reads.dispose()
        self._writes.dispose()

    def _read(self, work: Work[T]) -> T:
        with translated():
            try:
                return self._read_once(work)
            except exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            # The database was restarted behind idle connections: the pool is empty now, and a new one may do.
            return self._read_once(work)

    def _read_once(self, work: Work[T]) -> T:
        with self._reads.connect() as connection:
            return work(connection)

    def _write(self, work: Work[T]) -> T:
        with translated(), self._writes.begin() as connection:
            return work(connection)
