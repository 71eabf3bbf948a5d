"""The bytes of a log file: plain or gzip, counted while they are read, and never more than was agreed."""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from adapters.logged import refused

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31
"""Has zlib expect the head and the sums of gzip."""
_STEP: Final = 1 << 18
_MEBI: Final = 1 << 20

Show = Callable[[int, int], None]
"""Told how many bytes of the file were read, and how many there are."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a log may be. All of it is read before anything of it is kept."""

    file: int = 256 * _MEBI
    """Bytes of the file as it lies there."""
    unpacked: int = 1024 * _MEBI
    """Bytes once unpacked."""
    case: int = 32 * _MEBI
    """Bytes of one case of an XES log, and of one line of a table."""
    events: int = 1_000_000


class _Unpacked:
    """What a gzip file holds: one member or several, checked against their sums."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._packed = b""

    def read(self, size: int) -> bytes:
        """Read on; nothing at the end. Raises `EOFError` where the file was cut, `zlib.error` where it is no gzip."""
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            self._packed = self._packed or self._file.read(_STEP)
            at_end = not self._packed
            data = self._inflate.decompress(self._packed, size)
            self._packed = self._inflate.unconsumed_tail
            if data:
                return data
            if at_end and not self._inflate.eof:
                raise EOFError

    def _next_member(self) -> bool:
        self._packed = self._inflate.unused_data or self._file.read(_STEP)
        if not self._packed.strip(b"\x00"):  # archives are padded with zeros
            return False
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        return True


class LogStream(io.RawIOBase):
    """A log file, open. Reading raises `InvalidArgument` LOG_INVALID where it is too large, or was cut."""

    def __init__(self, path: Path, limits: Limits, show: Show | None = None) -> None:
        """Open a file; raises `InvalidArgument` where it cannot be read."""
        super().__init__()
        self.log_name = path.name
        self._limits = limits
        self._show = show
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise refused(path.name, f"it cannot be read: {error.strerror}") from None
        self._total = self._file.seek(0, io.SEEK_END)
        if self._total > limits.file:
            self._file.close()
            raise refused(path.name, f"it has {self._total} bytes; at most {limits.file} are read")
        self._source: BinaryIO | _Unpacked = _Unpacked(self._file) if self._packed() else self._file
        self._read = 0
        self._mark = 0

    def _packed(self) -> bool:
        self._file.seek(0)
        packed = self._file.read(len(_GZIP)) == _GZIP
        self._file.seek(0)
        return packed

    def readable(self) -> bool:
        """Say that it is for reading."""
        return True

    def mark(self) -> None:
        """Note that a case, or a line, has ended here."""
        self._mark = self._read

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read on."""
        with memoryview(buffer).cast("B") as view:
            data = self._next(len(view))
            view[: len(data)] = data
        self._read += len(data)
        if self._read > self._limits.unpacked:
            raise refused(self.log_name, f"it unpacks to more than {self._limits.unpacked} bytes")
        if self._read - self._mark > self._limits.case:
            raise refused(self.log_name, f"there are more than {self._limits.case} bytes in it without a case's end")
        if self._show is not None:
            self._show(self._file.tell(), self._total)
        return len(data)

    def _next(self, size: int) -> bytes:
        try:
            return self._source.read(size)
        except EOFError:
            raise refused(self.log_name, "it was cut: its end is missing") from None
        except zlib.error as error:
            raise refused(self.log_name, f"it is damaged: {error}") from None
        except OSError as error:
            raise refused(self.log_name, f"it cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
