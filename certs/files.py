"""Files that are never half there: a new file, synced, and renamed over the old one; or a line more, synced."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Generator
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644
FOLDER = 0o700


def write_atomically(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Put `data` at `path` with `mode`: a reader, or a crash at any moment, sees all of the old or all of the new.

    The mode is set before the first byte is written, so a key is at no moment readable by others.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_at(path: Path, at: int, data: bytes) -> None:
    """Put `data` at byte `at` of the file, in the place of what a writer that was stopped has left there, and sync it.

    For one process at a time. A crash leaves any beginning of `data`, which is for the reader to tell; an error, none.
    """
    with path.open("r+b", buffering=0) as file:
        file.truncate(at)
        file.seek(at)
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(at)
            raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, mode: int = FOLDER) -> None:
    """Create `folder`, and missing parents, with `mode`; the process's umask has no say. One that exists is left."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    folder.mkdir(mode)
    folder.chmod(mode)


class HeldElsewhere(Exception):
    """Another process holds what one process may hold at a time; `holder` is its id, as text."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"process {holder} holds it")
        self.holder = holder


@contextlib.contextmanager
def held_alone(path: Path) -> Generator[None]:
    """Hold the lock file at `path`, and have it say who does; raises `HeldElsewhere`. It ends with the process."""
    with path.open("a+b") as file:
        # Nobody else may hold it, and so keep others out.
        os.fchmod(file.fileno(), PRIVATE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise HeldElsewhere(file.read(20).decode(errors="replace").strip()) from None
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the advisory lock file at `path`, so that two authorities on one folder take turns."""
    with path.open("ab") as file:
        os.fchmod(file.fileno(), PRIVATE)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
