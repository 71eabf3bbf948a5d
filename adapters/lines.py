"""Lines and records of delimited text, as bytes and as cells, in constant memory.

Physical lines end in LF, CR LF or CR, mixed as they come. A record is one line, or several where a quoted cell holds
line ends. Bytes are kept exactly; whatever does not decode, never closes its quote or is too long becomes a `Record`
with a problem, and reading goes on with the next line.
"""

import codecs
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from adapters.rows import Cause

MAX_RECORD_BYTES = 1 << 20
"""A record of more bytes is not read as one: a line beyond it comes in pieces, a quote open beyond it is unclosed."""

_CHUNK = 1 << 18
_WIDE_LINE = re.compile("[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SHIFTING = re.compile(r"iso2022|utf[-_]?7|hz", re.IGNORECASE)
_DOS_EOF = b"\x1a"


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoding in which each line decodes by itself."""

    name: str
    """As Python knows it; `utf-16` is resolved to one of its byte orders, byte order marks are dealt with here."""
    bom: bytes = b""
    """The byte order mark the source starts with."""

    @property
    def wide(self) -> bool:
        """Line ends and quotes take two bytes."""
        return self.name.startswith("utf-16")

    @classmethod
    def of(cls, name: str, head: bytes) -> "Codec":
        """Choose the codec for a source that starts with `head`.

        Raises `LookupError` for an encoding that is unknown, or shifts its meaning from line to line.
        """
        known = codecs.lookup(name).name
        if _SHIFTING.match(known) or known.startswith("utf-32"):
            raise LookupError(f"encoding {name!r} is not supported: its lines do not decode one by one")
        if known == "utf-16":
            known = "utf-16-be" if head.startswith(codecs.BOM_UTF16_BE) else "utf-16-le"
        if known == "utf-8-sig":
            known = "utf-8"
        marks = {
            "utf-8": codecs.BOM_UTF8,
            "utf-16-le": codecs.BOM_UTF16_LE,
            "utf-16-be": codecs.BOM_UTF16_BE,
            "gb18030": b"\x84\x31\x95\x33",
        }
        mark = marks.get(known, b"")
        return cls(known, mark if mark and head.startswith(mark) else b"")


@dataclass(frozen=True, slots=True)
class Line:
    """One physical line with its line end, or a piece of an over-long one."""

    number: int
    raw: bytes
    piece: int = 0
    """0 for a whole line; 1, 2 … for the pieces of one that is too long."""


def lines(stream: BinaryIO, codec: Codec, limit: int = MAX_RECORD_BYTES) -> Iterator[Line]:
    """Split a stream into physical lines, byte for byte, without the byte order mark and a final DOS end mark."""
    stream.seek(len(codec.bom))
    number, piece, rest = 1, 0, b""
    while chunk := stream.read(_CHUNK):
        found, rest = _split(rest + chunk, codec)
        for raw in found:
            yield Line(number, raw, piece + 1 if piece else 0)
            number, piece = number + 1, 0
        while len(rest) > limit:
            piece += 1
            yield Line(number, rest[:limit], piece)
            rest = rest[limit:]
    if rest and (rest != _DOS_EOF or piece or codec.wide):
        # The last line may be two after all: a CR was held back in case a LF followed.
        yield Line(number, rest, piece + 1 if piece else 0)


def _split(data: bytes, codec: Codec) -> tuple[list[bytes], bytes]:
    """Split into whole lines and what may go on in the next chunk: a CR at the end may be half a line end."""
    if codec.wide:
        even = len(data) & ~1
        text = data[:even].decode(codec.name, "surrogatepass")
        found = [line.encode(codec.name, "surrogatepass") for line in _WIDE_LINE.findall(text)]
        whole = text.endswith("\n")
        odd = data[even:]
    else:
        found, whole, odd = data.splitlines(keepends=True), data.endswith(b"\n"), b""
    return (found, odd) if whole or not found else (found[:-1], found[-1] + odd)


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its cells, or the problem that there is with it."""

    first: int
    last: int
    raw: bytes
    cells: list[str]
    problem: Cause | None = None
    detail: str = ""
    piece: int = 0

    @property
    def position(self) -> str:
        """Where it stands: `7`, `7-9` over several lines, `7/2` for the second piece of an over-long line."""
        if self.piece:
            return f"{self.first}/{self.piece}"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Splitter:
    """Splits one record into cells, line by line, the way `csv` does: a quote opens only at the start of a cell."""

    __slots__ = ("_delimiter", "_part", "_quote", "_quoted", "cells")

    def __init__(self, delimiter: str, quote: str) -> None:
        self._delimiter = delimiter
        self._quote = quote
        self._part: list[str] = []
        self._quoted = False
        self.cells: list[str] = []

    def feed(self, text: str) -> bool:
        """Take one more physical line; True where the record is complete with it."""
        at, fresh = 0, not self._quoted
        while True:
            if self._quoted:
                at = self._quoted_part(text, at)
                if self._quoted:
                    return False
            elif fresh and self._quote and text.startswith(self._quote, at):
                self._quoted, at = True, at + 1
                continue
            end = text.find(self._delimiter, at)
            self._part.append(text[at:].rstrip("\r\n") if end < 0 else text[at:end])
            self.cells.append("".join(self._part))
            self._part.clear()
            if end < 0:
                return True
            at, fresh = end + len(self._delimiter), True

    def _quoted_part(self, text: str, at: int) -> int:
        while (end := text.find(self._quote, at)) >= 0:
            self._part.append(text[at:end])
            if not text.startswith(self._quote, end + 1):
                self._quoted = False
                return end + 1
            self._part.append(self._quote)
            at = end + 2
        self._part.append(text[at:])
        return len(text)


class Records:
    """The records of a stream, in order, blank lines left out."""

    def __init__(
        self, stream: BinaryIO, codec: Codec, delimiter: str, quote: str, limit: int = MAX_RECORD_BYTES
    ) -> None:
        self._codec = codec
        self._delimiter = delimiter
        self._quote = quote
        self._limit = limit
        self._lines = lines(stream, codec, limit)
        self._again: deque[Line] = deque()
        self.done = len(codec.bom)
        """Bytes read into records, blank and skipped lines included."""

    def skip(self, count: int) -> None:
        """Pass over physical lines: titles before the header."""
        for _ in range(count):
            if (line := self._next()) is not None:
                self.done += len(line.raw)

    def __iter__(self) -> Iterator[Record]:
        """Read on."""
        while (line := self._next()) is not None:
            record = self._record(line)
            self.done += len(line.raw) if record is None else len(record.raw)
            if record is not None:
                yield record

    def _next(self) -> Line | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _decode(self, raw: bytes) -> tuple[str, str]:
        try:
            return raw.decode(self._codec.name), ""
        except UnicodeDecodeError as error:
            detail = f"byte {error.start} of the line does not decode as {self._codec.name}"
            # Replaced, the text still shows where quotes and line ends are.
            return raw.decode(self._codec.name, "replace"), detail

    def _record(self, line: Line) -> Record | None:
        if line.piece:
            detail = f"the line has more than {self._limit} bytes; this is piece {line.piece}"
            return Record(line.number, line.number, line.raw, [], Cause.ROW_TOO_LONG, detail, line.piece)
        text, broken = self._decode(line.raw)
        if not text.strip("\r\n"):
            return None
        if self._quote and self._quote in text:
            return self._quoted_record(line, text, broken)
        cells = text.rstrip("\r\n").split(self._delimiter)
        return _judged(line.number, line.number, line.raw, cells, broken)

    def _quoted_record(self, line: Line, text: str, broken: str) -> Record:
        splitter = Splitter(self._delimiter, self._quote)
        taken, size = [line], len(line.raw)
        while not splitter.feed(text):
            more = self._next()
            if more is not None:
                taken.append(more)
                size += len(more.raw)
            if more is None or more.piece or size > self._limit:
                # Only the first line is given up: what follows may well be rows.
                self._again.extendleft(reversed(taken[1:]))
                detail = "a quoted cell starts in this line and never ends"
                return Record(line.number, line.number, line.raw, [], Cause.QUOTE_UNCLOSED, detail)
            text, detail = self._decode(more.raw)
            broken = broken or detail
        raw = b"".join(part.raw for part in taken)
        return _judged(line.number, taken[-1].number, raw, splitter.cells, broken)


def _judged(first: int, last: int, raw: bytes, cells: list[str], broken: str) -> Record:
    if broken:
        return Record(first, last, raw, [], Cause.NOT_DECODABLE, broken)
    if any("\0" in cell for cell in cells):
        return Record(first, last, raw, [], Cause.NUL_BYTE, "holds a NUL byte")
    return Record(first, last, raw, cells)
