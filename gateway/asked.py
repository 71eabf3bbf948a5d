"""Questions that are asked one by one, each in a task of its own, whose outcome somebody is told of once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from services.kit.errors import HutongError, Reason, Unavailable

_log: Final = logging.getLogger(__name__)

T = TypeVar("T")


class Asked(Generic[T]):
    """Questions that wait for an answer. To be used in one event loop."""

    def __init__(self, of: str, failed: Unavailable) -> None:
        """`of` is who is asked, for the log; `failed` is told where something fails in a way that nobody expected."""
        self._of = of
        self._failed = failed
        self._waiting: dict[asyncio.Task[None], Callable[[T | HutongError], None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, work: Callable[[], Awaitable[T]], told: Callable[[T | HutongError], None]) -> Callable[[], object]:
        """Have `told` called once: with what `work` gives, or with the error in its place.

        Gives what is to be called where nobody waits any more: then `told` is not.
        """

        async def run() -> None:
            try:
                outcome: T | HutongError = await work()
            except HutongError as error:
                outcome = error
            except Exception:
                # Whatever it is, somebody waits: files that cannot be read just now, above all.
                _log.warning("Question cannot be asked", extra={"fields": {"of": self._of}}, exc_info=True)
                outcome = self._failed
            if self._waiting.pop(task, None) is not None:
                told(outcome)

        task = asyncio.ensure_future(run())
        self._waiting[task] = told

        def forget() -> None:
            self._waiting.pop(task, None)
            task.cancel()

        return forget

    async def close(self) -> None:
        """End everything that is asked: whoever waits is told that there is no answer."""
        waiting, self._waiting = self._waiting, {}
        for task, told in waiting.items():
            task.cancel()
            told(Unavailable(Reason.SHUTTING_DOWN, "this node asks no more"))
        await asyncio.gather(*waiting, return_exceptions=True)
