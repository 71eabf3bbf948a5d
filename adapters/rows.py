"""What every adapter yields: rows as they stand in the source, and what became of them.

A source gives `Row`s, and `Unreadable`s where not even a row could be made out; a mapping turns rows into `Mapped`
messages or `Unmapped` leftovers. All four carry the position (where to look in the source) and the original bytes, so
that nothing is lost and everything can be driven again.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, cast

from google.protobuf.message import Message


class Cause(StrEnum):
    """Why a piece of a source became no record. A value, once released, keeps its meaning."""

    # not even a row
    NOT_DECODABLE = "NOT_DECODABLE"
    NUL_BYTE = "NUL_BYTE"
    ROW_TOO_LONG = "ROW_TOO_LONG"
    QUOTE_UNCLOSED = "QUOTE_UNCLOSED"
    COLUMN_COUNT = "COLUMN_COUNT"
    MALFORMED_XML = "MALFORMED_XML"
    FORBIDDEN_XML = "FORBIDDEN_XML"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    # a row, but no record
    NOT_A_DECLARATION = "NOT_A_DECLARATION"
    VALUE_MISSING = "VALUE_MISSING"
    VALUE_INVALID = "VALUE_INVALID"
    KEY_MISSING = "KEY_MISSING"
    KEY_INVALID = "KEY_INVALID"
    IDENTIFIER_INVALID = "IDENTIFIER_INVALID"
    CHECK_DIGIT = "CHECK_DIGIT"


class Values(Protocol):
    """The values of one row, by the source's own names, whatever kind of source it is."""

    def get(self, name: str, /) -> str | None:
        """Get a value as text; None where the source has none, or says so with a null word."""
        ...

    def each(self, name: str, /) -> Iterable["Values"]:
        """Get the parts that repeat inside the row (goods lines of a declaration); none where there are none."""
        ...

    def texts(self, name: str, split: re.Pattern[str] | None = None, /) -> Iterable[str]:
        """Get every value of a name that may stand several times in one row, or several in one text with `split`."""
        ...


@dataclass(frozen=True, slots=True)
class Cells:
    """Values of a flat row. Parts and lists stand in a cell as JSON."""

    cells: Mapping[str, str | None]

    def get(self, name: str, /) -> str | None:
        """Get a cell."""
        return self.cells.get(name)

    def each(self, name: str, /) -> Iterator["Cells"]:
        """Read a cell as a JSON list of objects; raises `ValueError` where it is none."""
        for item in _json_list(self.cells.get(name)):
            if not isinstance(item, dict):
                raise ValueError(f"{name!r} is not a JSON list of objects")
            yield Cells({k: json_text(v) for k, v in cast("dict[str, object]", item).items()})

    def texts(self, name: str, split: re.Pattern[str] | None = None, /) -> Iterator[str]:
        """Read a cell as a JSON list of values, or split it where it does not look like a list."""
        text = self.cells.get(name)
        if text is not None and not text.startswith("["):
            yield from split.split(text) if split else (text,)
            return
        for item in _json_list(text):
            if (value := json_text(item)) is not None:
                yield value


def _json_list(text: str | None) -> list[object]:
    if not text:
        return []
    try:
        found: object = json.loads(text)
    except RecursionError:
        raise ValueError("is JSON nested too deep") from None
    if not isinstance(found, list):
        raise ValueError("is not a JSON list")
    return cast("list[object]", found)


def json_text(value: object) -> str | None:
    """Write a JSON value as the text a flat source would have for it."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, not yet understood."""

    position: str
    """Where it stands: line number, `first-last` for several lines, a file's path, a table's key."""
    original: bytes
    """Exactly what the source held."""
    values: Values


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A piece of a source that is no row."""

    position: str
    original: bytes
    reason: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """A row that became a record."""

    position: str
    original: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A row, or a piece of a source, that did not become a record: quarantine keeps it until it does."""

    position: str
    original: bytes
    reason: Cause
    detail: str


class Source(Protocol):
    """An opened source: iterate it once for its rows, in its own order, the same every time it is opened."""

    @property
    def done(self) -> int:
        """How much was read, in the unit of `total`."""
        ...

    @property
    def total(self) -> int | None:
        """How much there is to read (bytes, or rows for a table); None where that is not known."""
        ...

    @property
    def layout(self) -> tuple[str, ...]:
        """Column names a single row's bytes need to be read again; empty where they carry their own."""
        ...

    def __iter__(self) -> Iterator[Row | Unreadable]:
        """Read on."""
        ...
