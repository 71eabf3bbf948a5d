"""Small sources and mappings for the adapters' tests, all values invented."""

import io
from collections.abc import Iterable
from pathlib import Path

from adapters import mapping, reading
from adapters.document import DelimitedSpec
from adapters.mapping import Mapping
from adapters.rows import Cells, Mapped, Row, Unmapped, Unreadable
from services.kit import check_digits

SECRETS = {"plate": b"a key for tests, thirty-two long"}


def uscc(number: int) -> str:
    """Make the code of an invented enterprise."""
    subject = f"MA{number:06d}"
    first = f"91350200{subject}{check_digits.org_code(subject)}"
    return first + check_digits.uscc(first)


def delimited(**changed: object) -> DelimitedSpec:
    """Make a specification of a delimited file."""
    return DelimitedSpec.model_validate({"kind": "delimited"} | changed)


def cells(row: Row | Unreadable) -> dict[str, str | None]:
    """Take a flat row's cells, and make sure that it is one."""
    assert isinstance(row, Row)
    assert isinstance(row.values, Cells)
    return dict(row.values.cells)


def split(rows: Iterable[Row | Unreadable]) -> tuple[list[Row], list[Unreadable]]:
    """Part what is a row from what is none."""
    found = list(rows)
    return [r for r in found if isinstance(r, Row)], [r for r in found if isinstance(r, Unreadable)]


def outcomes(found: Iterable[Mapped | Unmapped]) -> tuple[list[Mapped], list[Unmapped]]:
    """Part what became a record from what did not."""
    known = list(found)
    return [o for o in known if isinstance(o, Mapped)], [o for o in known if isinstance(o, Unmapped)]


def text_mapping(fields: str, record: str = "commerce.Enterprise", more: str = "", source: str = "") -> Mapping:
    """Make a mapping of a delimited file from the YAML of its fields."""
    text = f"""
mapping: commerce.specimen
version: 1
record: {record}
source_system: specimen
source: {{kind: delimited{source}}}
{more}
fields:
{fields}
"""
    return mapping.loads(text, "specimen")


def read_text(made: Mapping, folder: Path, text: str, encoding: str = "utf-8") -> tuple[list[Mapped], list[Unmapped]]:
    """Write a file and read it through a mapping."""
    path = folder / "source.csv"
    path.write_bytes(text.encode(encoding))
    return outcomes(reading.read(made, path, SECRETS))


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, so that every boundary falls everywhere."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__()
        self._data = data
        self._step = step
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert whence == 0
        self._at = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        step = self._step if size < 0 else min(size, self._step)
        found = self._data[self._at : self._at + step]
        self._at += len(found)
        return found
