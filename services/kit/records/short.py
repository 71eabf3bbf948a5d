"""Short reads: SELECTs that an index leads straight to a few rows of, asked of the driver itself.

What SQLAlchemy does for every execution costs several times what such a read does. So it compiles the statement, once;
from there on the driver gets the text and the values. A short read that fails for any reason gives nothing and raises
nothing: `Database.read` asks again in the ordinary way, which retries lost connections and words the errors.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, Protocol

import psycopg
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.sql.compiler import SQLCompiler

Rows = Sequence[tuple[Any, ...]]

_FEWEST: Final = 2
_MOST_TOGETHER: Final = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Short:
    """A SELECT as the driver takes it."""

    text: str
    names: tuple[str, ...]
    """Names of the values, in the order of their places; those the driver takes by name have one place each."""
    fixed: tuple[object, ...]
    """Values that stay, as the driver takes them."""
    pick: Callable[[tuple[object, ...]], tuple[object, ...]]
    """Puts the values to be filled in, followed by those that stay, in their places."""
    processes: Mapping[int, Callable[[Any], Any]]
    """How the driver takes values to be filled in, by their number."""

    def filled(self, values: tuple[object, ...]) -> tuple[object, ...]:
        """Give all values by place; `values` are those to be filled in, in the order of `compiled`."""
        if self.processes:
            values = tuple(
                self.processes[number](value) if number in self.processes else value
                for number, value in enumerate(values)
            )
        return self.pick(values + self.fixed)


def compiled(select: sa.Select[Any], dialect: sa.Dialect, parameters: Sequence[str]) -> Short:
    """Compile a SELECT; `parameters` are those to be filled in, whether or not it has them all."""
    made: SQLCompiler = select.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    names = tuple(made.positiontup or made.params)
    fixed: list[object] = []
    order: list[int] = []
    processes: dict[int, Callable[[Any], Any]] = {}
    for name in names:
        process = made.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
        if name in parameters:
            order.append(parameters.index(name))
            if process is not None:
                processes[order[-1]] = process
        else:
            value = made.params[name]
            order.append(len(parameters) + len(fixed))
            fixed.append(value if process is None or value is None else process(value))
    if len(order) < _FEWEST:
        raise ValueError("a short read has a limit and something it is found by")
    return Short(str(made), names, tuple(fixed), itemgetter(*order), processes)


class ShortReads(Protocol):
    """Runs short reads."""

    async def rows(self, short: Short, values: tuple[object, ...]) -> Rows | None:
        """Get the rows; None where that fails."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class InPlace:
    """Short reads of SQLite, where they are asked: in WAL mode no writer holds up a reader."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._error = engine.dialect.loaded_dbapi.Error
        self._connection: sa.PoolProxiedConnection | None = None
        self._execute: Callable[..., Any] | None = None

    async def rows(self, short: Short, values: tuple[object, ...]) -> Rows | None:
        """Get the rows; None where that fails."""
        try:
            execute = self._execute or self._open()
            found: Rows = execute(short.text, short.filled(values)).fetchall()
        except (self._error, exc.SQLAlchemyError) as error:
            _failed(error)
            self.close()
            return None
        return found

    def _open(self) -> Callable[..., Any]:
        self._connection = self._engine.raw_connection()
        self._execute = self._connection.cursor().execute
        return self._execute

    def close(self) -> None:
        """Let go of the connection."""
        self._execute = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()


@dataclass(frozen=True, slots=True)
class _Asked:
    short: Short
    values: dict[str, object]
    rows: "asyncio.Future[Rows | None]"


class Together:
    """Short reads of PostgreSQL: what is asked while others are read is read next, all of it in one round trip.

    One thread and one connection do for a busy department: reads go over in a pipeline of prepared statements, and
    there is one change of threads for all of them instead of two for each.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.PoolProxiedConnection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-short")
        self._waiting: list[_Asked] = []
        self._running = False

    async def rows(self, short: Short, values: tuple[object, ...]) -> Rows | None:
        """Get the rows; None where that fails."""
        loop = asyncio.get_running_loop()
        named = dict(zip(short.names, short.filled(values), strict=True))
        asked = _Asked(short, named, loop.create_future())
        self._waiting.append(asked)
        if not self._running:
            self._running = True
            # What is asked in the same turn of the loop is read together, from the first on.
            loop.call_soon(self._begin, loop)
        return await asked.rows

    def close(self) -> None:
        """Let what runs end, and let go of the connection."""
        self._thread.shutdown()
        self._drop()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        taken, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]

        def ended(reading: "Future[list[Rows] | None]") -> None:
            loop.call_soon_threadsafe(self._end, loop, taken, reading.result())

        try:
            self._thread.submit(self._read, taken).add_done_callback(ended)
        except RuntimeError:
            # It is closed.
            self._end(loop, taken, None)

    def _end(self, loop: asyncio.AbstractEventLoop, taken: list[_Asked], found: list[Rows] | None) -> None:
        for number, asked in enumerate(taken):
            if not asked.rows.done():
                asked.rows.set_result(None if found is None else found[number])
        self._running = bool(self._waiting)
        if self._running:
            self._begin(loop)

    def _read(self, taken: list[_Asked]) -> list[Rows] | None:
        try:
            if self._connection is None:
                self._connection = self._engine.raw_connection()
            connection: psycopg.Connection[tuple[Any, ...]] = self._connection.driver_connection  # type: ignore[assignment]
            with connection.pipeline():
                cursors = [connection.execute(a.short.text.encode(), a.values, prepare=True) for a in taken]
                return [cursor.fetchall() for cursor in cursors]
        except Exception as error:
            _failed(error)
            self._drop()
            return None

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()


def _failed(error: Exception) -> None:
    # Its text may hold values, which are people's data; the ordinary way says what is to be said.
    _log.warning("Short read failed, asking in the ordinary way: %s", type(error).__name__)
