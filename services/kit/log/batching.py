"""Group commit: one thread takes whatever has come while it wrote the last batch, and writes it as the next one.

Nothing waits for a window to close: alone, an entry is written at once, and under load each sync of the disk serves
everybody who came during the one before.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from hutong.api.log.v1 import log_pb2
from services.kit.errors import HutongError, Reason, Unavailable
from services.kit.log.openings import Sealed

MOST_WAITING: Final = 10_000
"""Most entries that wait: where the disk does not keep up, calls are refused before memory runs out."""

Write = Callable[[list[Sealed]], list[log_pb2.Receipt]]
_log = logging.getLogger(__name__)

T = TypeVar("T")


def unavailable() -> Unavailable:
    """Word the error of a log that cannot be written; nothing was acknowledged, and a retry may do."""
    return Unavailable(Reason.LOG_UNAVAILABLE, "the log cannot be written now")


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry to be written, and who waits for it."""

    sealed: Sealed
    future: "asyncio.Future[log_pb2.Receipt]"


@dataclass(frozen=True, slots=True)
class _Work:
    """Something else to be done between batches, and who waits for it."""

    work: Callable[[], Any]
    future: "asyncio.Future[Any]"


_Outcome = tuple["asyncio.Future[Any]", Any, HutongError | None]


class Batcher:
    """The queue in front of a log's writer, and the thread behind it."""

    def __init__(self, write: Write, most: int = MOST_WAITING) -> None:
        """`write` is called in the thread: it gives a receipt for each entry, or raises and has written nothing."""
        self._write = write
        self._most = most
        self._news = threading.Condition()
        self._queue: deque[_Entry | _Work] = deque()
        self._closed = True
        self._failing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write; to be called in the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._closed = False
        # A daemon: a process that ends without closing the log has acknowledged nothing of what still waits.
        self._thread = threading.Thread(target=self._run, name="log-write", daemon=True)
        self._thread.start()

    def submit(self, sealed: Sealed) -> "asyncio.Future[log_pb2.Receipt]":
        """Have an entry written; the future gives its receipt.

        Whoever stops waiting changes nothing: the entry is written all the same. Raises `Unavailable` LOG_UNAVAILABLE
        where too many wait, or the log is closed.
        """
        future: asyncio.Future[log_pb2.Receipt] = asyncio.get_running_loop().create_future()
        self._put(_Entry(sealed, future))
        return future

    def call(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Have something done in the writer's thread, after what waits already; raises as `submit` does."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Work(work, future))
        return future

    def _put(self, job: "_Entry | _Work") -> None:
        with self._news:
            if self._closed or len(self._queue) >= self._most:
                raise unavailable()
            self._queue.append(job)
            self._news.notify()

    async def close(self) -> None:
        """Take nothing more, write what waits, end the thread."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    @property
    def failing(self) -> bool:
        """The last batch could not be written."""
        return self._failing

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._queue or self._closed)
                jobs = list(self._queue)
                self._queue.clear()
            if not jobs:
                return
            entries: list[_Entry] = []
            for job in jobs:
                if isinstance(job, _Entry):
                    entries.append(job)
                    continue
                self._batch(entries)
                entries = []
                self._call(job)
            self._batch(entries)

    def _batch(self, entries: list[_Entry]) -> None:
        if not entries:
            return
        try:
            written = self._write([entry.sealed for entry in entries])
        except Exception as error:
            # Whatever it is: nobody is answered, and the thread goes on.
            self._complain(error)
            self._tell([(entry.future, None, unavailable()) for entry in entries])
            return
        self._recovered()
        self._tell([(entry.future, receipt, None) for entry, receipt in zip(entries, written, strict=True)])

    def _call(self, job: _Work) -> None:
        try:
            self._tell([(job.future, job.work(), None)])
        except Exception as error:
            self._complain(error)
            self._tell([(job.future, None, unavailable())])

    def _complain(self, error: Exception) -> None:
        if not self._failing:
            # Once, not for every call of a flood; the text of a database's error names no parameters.
            _log.error("Log cannot be written; answers are refused", exc_info=error)
        self._failing = True

    def _recovered(self) -> None:
        if self._failing:
            _log.warning("Log can be written again")
        self._failing = False

    def _tell(self, outcomes: list[_Outcome]) -> None:
        # Where the loop is gone, so is everybody who waited.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, outcomes)


def _settle(outcomes: Iterable[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
