"""Group commit: a thread writes what has come as one batch, and what comes while it does is the next one.

Nothing waits for a window to close: alone, an entry is handed over as soon as the event loop has done what it is at,
and under load each sync of the disk serves everybody who came during the one before. The loop hands over, and one batch
at a time: the thread is woken once for a batch, and takes Python's lock as seldom as it can.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from services.kit.errors import HutongError, Reason, Unavailable
from services.kit.log.openings import Sealed
from services.kit.log.receipts import MAX_BATCH

MOST_WAITING: Final = 10_000
"""Most entries that wait: where the disk does not keep up, calls are refused before memory runs out."""

Write = Callable[[list[Sealed]], list[bytes]]
_log = logging.getLogger(__name__)

T = TypeVar("T")


def unavailable() -> Unavailable:
    """Word the error of a log that cannot be written; nothing was acknowledged, and a retry may do."""
    return Unavailable(Reason.LOG_UNAVAILABLE, "the log cannot be written now")


class _Entry(NamedTuple):
    """An entry to be written, and who waits for it."""

    sealed: Sealed
    future: "asyncio.Future[bytes]"


class _Work(NamedTuple):
    """Something else to be done between batches, and who waits for it."""

    work: Callable[[], Any]
    future: "asyncio.Future[Any]"


_Outcome = tuple["asyncio.Future[Any]", Any, HutongError | None]


class Batcher:
    """What waits for a log's writer, and the thread that writes. To be used in one event loop."""

    def __init__(self, write: Write, most: int = MOST_WAITING) -> None:
        """`write` is called in the thread: it gives a receipt for each entry, or raises and has written nothing."""
        self._write = write
        self._most = most
        self._waiting: list[_Entry | _Work] = []
        self._busy = False
        """The thread has something to do, or is about to get it: what comes now waits until it is done."""
        self._handed: SimpleQueue[list[_Entry | _Work] | None] = SimpleQueue()
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

    def submit(self, sealed: Sealed) -> "asyncio.Future[bytes]":
        """Have an entry written; the future gives its receipt, serialized.

        Whoever stops waiting changes nothing: the entry is written all the same. Raises `Unavailable` LOG_UNAVAILABLE
        where too many wait, or the log is closed.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._put(_Entry(sealed, future))
        return future

    def call(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Have something done in the writer's thread, after what waits already; raises as `submit` does."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Work(work, future))
        return future

    def _put(self, job: _Entry | _Work) -> None:
        if self._closed or len(self._waiting) >= self._most:
            raise unavailable()
        self._waiting.append(job)
        if not self._busy:
            self._busy = True
            # Not at once: whoever else has come by now is in the same batch.
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._busy = bool(self._waiting)
        if self._waiting:
            self._handed.put(self._waiting)
            self._waiting = []

    async def close(self) -> None:
        """Take nothing more, write what waits, end the thread."""
        self._closed = True
        self._hand_over()
        if self._thread:
            self._handed.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    @property
    def waiting(self) -> int:
        """How many wait while others are written."""
        return len(self._waiting)

    @property
    def failing(self) -> bool:
        """The last batch could not be written."""
        return self._failing

    def _run(self) -> None:
        for jobs in iter(self._handed.get, None):
            *before, last = _steps(jobs)
            for step in before:
                self._tell(self._settle, self._do(step))
            self._tell(self._done, self._do(last))

    def _do(self, step: "list[_Entry] | _Work") -> list[_Outcome]:
        return [self._call(step)] if isinstance(step, _Work) else self._batch(step)

    def _batch(self, entries: list[_Entry]) -> list[_Outcome]:
        try:
            written = self._write([entry.sealed for entry in entries])
        except Exception as error:
            # Whatever it is: nobody is answered, and the thread goes on.
            self._complain(error)
            return [(entry.future, None, unavailable()) for entry in entries]
        self._recovered()
        return [(entry.future, receipt, None) for entry, receipt in zip(entries, written, strict=True)]

    def _call(self, job: _Work) -> _Outcome:
        try:
            return job.future, job.work(), None
        except Exception as error:
            self._complain(error)
            return job.future, None, unavailable()

    def _complain(self, error: Exception) -> None:
        if not self._failing:
            # Once, not for every call of a flood; the text of a database's error names no parameters.
            _log.error("Log cannot be written; answers are refused", exc_info=error)
        self._failing = True

    def _recovered(self) -> None:
        if self._failing:
            _log.warning("Log can be written again")
        self._failing = False

    def _tell(self, tell: Callable[[list[_Outcome]], None], outcomes: list[_Outcome]) -> None:
        # Where the loop is gone, so is everybody who waited.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(tell, outcomes)

    def _settle(self, outcomes: list[_Outcome]) -> None:
        for future, result, error in outcomes:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _done(self, outcomes: list[_Outcome]) -> None:
        self._settle(outcomes)
        self._hand_over()


def _steps(jobs: list[_Entry | _Work]) -> list[list[_Entry] | _Work]:
    """Part what is to be done into batches and what is done between them, in its order."""
    steps: list[list[_Entry] | _Work] = []
    batch: list[_Entry] = []
    for job in jobs:
        if isinstance(job, _Work):
            steps.append(job)
            batch = []
            continue
        if not batch or len(batch) >= MAX_BATCH:
            batch = []
            steps.append(batch)
        batch.append(job)
    return steps
