"""Tables and views of a legacy database as a source, through SQLAlchemy: by watermark, or read live through a mapping.

Ingest reads in the order (watermark, key), page by page from where the last page ended, so that a table that grows or
is long costs no memory and no offset. A resume starts again *at* the last watermark, not after it: rows with an equal
watermark may have been committed since, and reading a row twice is harmless where losing it is not. Rows without a
watermark are read every time.
"""

import base64
import datetime as dt
import decimal
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from adapters.delimited import check_columns
from adapters.document import SqlSpec
from adapters.rows import Cause, Cells, Row, Unreadable, json_text
from services.kit.errors import InvalidArgument, Reason, Unavailable


def cell_text(value: object) -> str | None:
    """Write a database value as text: ISO dates, plain numbers, `true` and `false`, hexadecimal bytes."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, bytes | bytearray):
        return value.hex()
    return json_text(value)


def _original(names: Sequence[str], values: Sequence[object]) -> bytes:
    # The bytes of a table row are its columns as JSON: enough to read it again without the table.
    cells = {name: cell_text(value) for name, value in zip(names, values, strict=True)}
    return json.dumps(cells, ensure_ascii=False).encode()


def _row(position: str, original: bytes, nulls: frozenset[str]) -> Row:
    cells: dict[str, str | None] = json.loads(original)
    clean = {k: v.strip() if v is not None else None for k, v in cells.items()}
    return Row(position, original, Cells({k: v if v and v not in nulls else None for k, v in clean.items()}))


def again(spec: SqlSpec, position: str, original: bytes) -> Row | Unreadable:
    """Read one row's bytes again, out of quarantine."""
    try:
        return _row(position, original, frozenset(spec.null_words))
    except (ValueError, AttributeError) as error:
        return Unreadable(position, original, Cause.NOT_DECODABLE, str(error))


_BLOCKING = {
    "sqlite+aiosqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+asyncpg": "postgresql+psycopg",
}


def engine_for(location: str) -> sa.Engine:
    """Make an engine for a database URL, or for the path of an SQLite file; raises `InvalidArgument` for neither."""
    if "://" not in location and Path(location).is_file():
        location = f"sqlite:///{location}"
    try:
        url = sa.make_url(location)
        # Async drivers are named by habit, and mean the same database here.
        url = url.set(drivername=_BLOCKING.get(url.drivername, url.drivername))
        return sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError):
        # The URL may hold a password: it is not repeated.
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "the source is no database URL and no SQLite file") from None


def reflected(engine: sa.Engine, spec: SqlSpec) -> sa.Table:
    """Read a table's or view's columns from the database.

    Raises `InvalidArgument` MAPPING_INVALID where there is none of that name, `Unavailable` where there is no database.
    """
    try:
        return sa.Table(spec.table, sa.MetaData(), schema=spec.db_schema, autoload_with=engine)
    except exc.NoSuchTableError:
        raise InvalidArgument(Reason.MAPPING_INVALID, f"the database has no table {spec.table!r}") from None
    except exc.OperationalError as error:
        raise _silent(error) from None


def _silent(error: exc.DBAPIError) -> Unavailable:
    # Not the driver's own words: they may hold the password, or a value that was asked for.
    return Unavailable(Reason.STORE_UNAVAILABLE, f"the source database does not answer: {type(error.orig).__name__}")


class SqlTable:
    """A table opened for ingest."""

    def __init__(self, engine: sa.Engine, spec: SqlSpec, needs: Sequence[str] = (), since: str | None = None) -> None:
        """Check the columns; `since` is the `resume` of an earlier reading.

        Raises `InvalidArgument` MAPPING_COLUMN_MISSING naming the column and the nearest one.
        """
        self._engine = engine
        self._spec = spec
        self._nulls = frozenset(spec.null_words)
        self._table = reflected(engine, spec)
        self._names = tuple(c.name for c in self._table.columns)
        order = [*([spec.watermark] if spec.watermark else []), *spec.key]
        check_columns(spec.table, self._names, [*order, *needs])
        self._order = [self._table.c[name] for name in order]
        self._since = from_text(since) if since and spec.watermark else None
        self.resume: str | None = since
        """Where the next reading may start: the highest watermark read, or None before any."""
        self._done = 0
        with engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(self._table).where(self._wanted())
            self._total = connection.execute(count).scalar_one()

    @property
    def done(self) -> int:
        """Rows read."""
        return self._done

    @property
    def total(self) -> int | None:
        """Rows there were when the table was opened."""
        return self._total

    @property
    def layout(self) -> tuple[str, ...]:
        """Nothing: a row's bytes carry their column names."""
        return ()

    def __iter__(self) -> Iterator[Row | Unreadable]:
        """Read on."""
        yield from self._loose()
        yield from self._pages()

    def _wanted(self) -> sa.ColumnElement[bool]:
        if self._since is None or not self._spec.watermark:
            return sa.true()
        column = self._table.c[self._spec.watermark]
        return sa.or_(column >= self._since, *self._unordered())

    def _unordered(self) -> list[sa.ColumnElement[bool]]:
        return [column.is_(None) for column in self._order]

    def _loose(self) -> Iterator[Row]:
        """Read the rows that have no place in the order, for want of a watermark or a key."""
        query = sa.select(self._table).where(sa.or_(*self._unordered()))
        with self._engine.connect() as connection:
            for values in connection.execution_options(yield_per=self._spec.batch).execute(query):
                yield self._one(tuple(values))

    def _pages(self) -> Iterator[Row]:
        ordered = sa.select(self._table).where(self._wanted(), *(c.is_not(None) for c in self._order))
        last: list[object] | None = None
        while True:
            page = ordered.order_by(*self._order).limit(self._spec.batch)
            if last is not None:
                page = page.where(_after(self._order, last))
            with self._engine.connect() as connection:
                found = [tuple(values) for values in connection.execute(page)]
            for values in found:
                if self._spec.watermark:
                    self.resume = to_text(values[self._names.index(self._spec.watermark)])
                yield self._one(values)
            if len(found) < self._spec.batch:
                return
            last = [found[-1][self._names.index(column.name)] for column in self._order]

    def _one(self, values: Sequence[object]) -> Row:
        self._done += 1
        named = dict(zip(self._names, values, strict=True))
        position = "~".join(cell_text(named[name]) or "" for name in self._spec.key)
        return _row(position, _original(self._names, values), self._nulls)


_WATERMARKS: Mapping[str, Callable[[str], object]] = {
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "int": int,
    "str": str,
    "decimal": decimal.Decimal,
    "bytes": base64.b64decode,
}


def from_text(text: str) -> object:
    """Read a watermark from its text; raises `InvalidArgument` RESUME_TOKEN_INVALID for what is none."""
    kind, _, value = text.partition(":")
    try:
        return _WATERMARKS[kind](value)
    except (KeyError, ValueError, decimal.InvalidOperation):
        raise InvalidArgument(Reason.RESUME_TOKEN_INVALID, f"{text!r} is no watermark to resume from") from None


def to_text(mark: object) -> str:
    """Write a watermark as text."""
    if isinstance(mark, dt.datetime):
        return f"datetime:{mark.isoformat()}"
    if isinstance(mark, dt.date):
        return f"date:{mark.isoformat()}"
    if isinstance(mark, bytes):
        return f"bytes:{base64.b64encode(mark).decode()}"
    if isinstance(mark, decimal.Decimal | float):
        return f"decimal:{mark}"
    return f"{'int' if isinstance(mark, int) else 'str'}:{mark}"


def _after(order: Sequence[sa.Column[object]], last: Sequence[object]) -> sa.ColumnElement[bool]:
    # (a, b) > (x, y) written out: row values are not the same in every database.
    alternatives: list[sa.ColumnElement[bool]] = []
    for at, column in enumerate(order):
        equal = [known == value for known, value in zip(order[:at], last[:at], strict=True)]
        alternatives.append(sa.and_(*equal, column > last[at]))
    return sa.or_(*alternatives)


class LiveRows:
    """A table read where it stands: the rows that answer one question, nothing copied."""

    def __init__(self, engine: sa.Engine, spec: SqlSpec, needs: Sequence[str]) -> None:
        """Check the columns; raises `InvalidArgument` MAPPING_COLUMN_MISSING naming the column and the nearest one."""
        self._engine = engine
        self._spec = spec
        self._nulls = frozenset(spec.null_words)
        self._table = reflected(engine, spec)
        self._names = tuple(c.name for c in self._table.columns)
        check_columns(spec.table, self._names, [*spec.key, *needs])
        self._key = [self._table.c[name] for name in spec.key]

    def where(self, conditions: Mapping[str, str], limit: int) -> Iterator[Row]:
        """Read the rows whose columns have these values, in the order of the key; values are bound, never text.

        Raises `Unavailable` where the database does not answer.
        """
        wanted = [_equal(self._table.c[name], value) for name, value in conditions.items()]
        query = sa.select(self._table).where(*wanted).order_by(*self._key).limit(limit)
        for values in self._found(query):
            named = dict(zip(self._names, values, strict=True))
            position = "~".join(cell_text(named[name]) or "" for name in self._spec.key)
            yield _row(position, _original(self._names, values), self._nulls)

    def _found(self, query: sa.Select[tuple[object, ...]]) -> list[tuple[object, ...]]:
        try:
            with self._engine.connect() as connection:
                return [tuple(row) for row in connection.execute(query)]
        except (exc.OperationalError, exc.InterfaceError) as error:
            raise _silent(error) from None


def _equal(column: sa.Column[object], text: str) -> sa.ColumnElement[bool]:
    # Text columns are compared as they are, so that the table's own index serves.
    if isinstance(column.type, sa.String):
        return column == text
    if isinstance(column.type, sa.Integer):
        return column == int(text) if text.lstrip("-").isdigit() else sa.false()
    return sa.cast(column, sa.String) == text
