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
from contextvars import copy_context
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from services.kit.errors import Aborted, FailedPrecondition, HutongError, Internal, Reason, Unavailable
from services.kit.records import short, urls
from services.kit.records.short import InPlace, Short, ShortReads, Together

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

_WRITER_BUSY_MS = 30_000
_READER_BUSY_MS = 2_000
"""Only while another process repairs the file after a crash does a reader ever wait, and the whole node with it."""

_IDLE_MS = 10_000
"""How long a transaction may wait for its own process: one that froze with the log's lock held must not hold up its
replicas. Nothing is lost by it: what was not committed was not acknowledged."""

_KEPT_ALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
"""So that a server whose machine is gone, or that a firewall has forgotten, is noticed within half a minute."""

_MISSING = re.compile(r"^Undefined(Table|Column)|no such (table|column)|has no column named")
_CONFLICT = re.compile(r"^(UniqueViolation|SerializationFailure|DeadlockDetected)|UNIQUE constraint failed")
_GIVEN_UP = frozenset({"DeadlockDetected", "SerializationFailure"})
"""Errors of PostgreSQL after which a transaction has changed nothing and may be run again."""
_log = logging.getLogger(__name__)


def sync_url(url: str) -> sa.URL:
    """Read a database URL; raises as `urls.parse` does."""
    return urls.parse(url)[0]


def engine(url: str, *, writer: bool, application: str = "hutong") -> sa.Engine:
    """Make an engine. Readers commit every statement by itself; a writer's transaction holds the write lock at once.

    `application` is what the server is told of who connects.
    """
    parsed, settings = urls.parse(url)
    size = 1 if writer else settings.pool
    if parsed.get_backend_name() == "sqlite":
        made = _engine(parsed, writer, size, {"check_same_thread": False})
        _prepare_sqlite(made, writer)
        return made
    only = "off" if writer else "on"
    options = {
        "timezone": "UTC",
        "statement_timeout": settings.statement_ms,
        "idle_in_transaction_session_timeout": min(_IDLE_MS, settings.statement_ms),
        "default_transaction_read_only": only,
    }
    connect_args: dict[str, object] = {
        "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        "application_name": application,
        "connect_timeout": settings.connect_s,
        **_KEPT_ALIVE,
    }
    return _engine(parsed, writer, size, connect_args)


def _engine(url: sa.URL, writer: bool, size: int, connect_args: dict[str, object]) -> sa.Engine:
    # Parameters are people's data: they stay out of error texts and logs.
    if writer:
        # What was read may be read again where a server was restarted behind an idle connection; what was written may
        # not, so a writer's connection is tried first.
        return sa.create_engine(
            url,
            connect_args=connect_args,
            pool_size=size,
            hide_parameters=True,
            pool_pre_ping=url.get_backend_name() == "postgresql",
        )
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
    _log.error("Record store failed", exc_info=error, extra={"fields": {"error_id": number}})
    return Internal(Reason.INTERNAL, f"the record store failed, error {number}")


def not_migrated(why: str) -> FailedPrecondition:
    """Word the error of a database whose tables are not of this version."""
    return FailedPrecondition(
        Reason.STORE_NOT_MIGRATED,
        f"the store's tables are not of this version ({why}): set `migrate = true` under [store] in the node's config, "
        "or run `hutong db upgrade`",
    )


class Database:
    """One department's database."""

    def __init__(self, url: str) -> None:
        self._reads = engine(url, writer=False)
        self._writes = engine(url, writer=True)
        self._inline = self._reads.dialect.name == "sqlite"
        self._short: ShortReads = InPlace(self._reads) if self._inline else Together(self._reads)
        self._readers = ThreadPoolExecutor(urls.parse(url)[1].pool, thread_name_prefix="store-read")
        # One at a time: writers of one process queue here instead of at the database's lock.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self.running = 0
        """Reads and writes that run in a thread, or wait for one."""

    @property
    def connections(self) -> int:
        """How many connections are in use."""
        pools = (self._reads.pool, self._writes.pool)
        return sum(pool.checkedout() for pool in pools if isinstance(pool, sa.QueuePool))

    async def read(self, work: Work[T], *, short: bool = False) -> T:
        """Run a read; `short` says that an index leads straight to a few rows.

        Raises `Unavailable` where the database cannot be reached, `Internal` where it fails.
        """
        if short and self._inline:
            return self._read(work)
        return await self._in_thread(self._readers, self._read, work)

    async def _in_thread(self, threads: ThreadPoolExecutor, run: Callable[[Work[T]], T], work: Work[T]) -> T:
        self.running += 1
        try:
            # With its context: what is logged in there has the ids of the call's trace.
            context = copy_context()
            return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(run, work))
        finally:
            self.running -= 1

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
        """Run a write as one transaction: all of it is kept, or nothing. Raises as `read` does.

        Where the database gave it up for the sake of another transaction (a deadlock, or one that could not be put in
        an order with others), it is run once more: so it must leave nothing behind but what it wrote.
        """
        return await self._in_thread(self._writer, self._write, work)

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
        with translated():
            try:
                return self._write_once(work)
            except exc.OperationalError as error:
                if type(error.orig).__name__ not in _GIVEN_UP:
                    raise
                _log.warning("A write was given up for another one, and is run again: %s", type(error.orig).__name__)
            return self._write_once(work)

    def _write_once(self, work: Work[T]) -> T:
        with self._writes.begin() as connection:
            return work(connection)
