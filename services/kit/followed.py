"""A file that is read again whenever it changes."""

from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Generic, TypeVar

T = TypeVar("T")


class Followed(Generic[T]):
    """What a file says at the moment."""

    def __init__(self, path: Path, limit: int, parse: Callable[[bytes], T]) -> None:
        """`limit` is the most bytes the file may have."""
        self._path = path
        self._limit = limit
        self._parse = parse
        self._known: tuple[tuple[int, int, int], T] | None = None

    def read(self) -> T:
        """Read the file, where it changed since the last time; raises `OSError`, `ValueError`, or what `parse` raises.

        After an error nothing is known: what was known before may be what was taken back since.
        """
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._known is None or self._known[0] != version:
                if not S_ISREG(stat.st_mode) or stat.st_size > self._limit:
                    # Looked at before it is read: of what has no end, or is no file, nobody waits for the last byte.
                    raise ValueError("too large, or no file")
                self._known = version, self._parse(self._path.read_bytes())
        except BaseException:
            self._known = None
            raise
        return self._known[1]
