"""The bytes of a log file: plain or gzip, counted while they are read, and never more than was agreed."""

import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapters.logged import refused

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP: Final = b"\x1f\x8b"
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
        self._source = gzip.GzipFile(fileobj=self._file) if self._packed() else self._file
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
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            why = "it was cut" if isinstance(error, EOFError) else "it is damaged"
            raise refused(self.log_name, f"{why}: {error}") from None
        except OSError as error:
            raise refused(self.log_name, f"it cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
