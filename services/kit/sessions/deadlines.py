"""Many deadlines, looked at together: a timer for each would cost more than most questions do."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

K = TypeVar("K")

TICK: Final = 0.02
"""Seconds between looks: by so much may a deadline be overrun."""


class Deadlines(Generic[K]):
    """Tells of each thing whose deadline has passed, unless it was done before. To be used in one event loop."""

    def __init__(self, expired: Callable[[K], None]) -> None:
        """`expired` is called in the loop, once for each."""
        self._expired = expired
        self._ticks: dict[int, set[K]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, key: K, at: float) -> int:
        """Begin to watch; `at` is on `time.monotonic`. Gives what `discard` wants."""
        tick = math.ceil(at / TICK)
        found = self._ticks.get(tick)
        if found is None:
            self._ticks[tick] = {key}
        else:
            found.add(key)
        if self._timer is None:
            self._wait()
        return tick

    def discard(self, key: K, tick: int) -> None:
        """Stop watching what is done, or has expired."""
        found = self._ticks.get(tick)
        if found is not None:
            found.discard(key)

    def close(self) -> None:
        """Watch nothing more."""
        self._ticks.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._look)

    def _look(self) -> None:
        self._timer = None
        now = math.floor(time.monotonic() / TICK)
        for tick in [tick for tick in self._ticks if tick <= now]:
            for key in self._ticks.pop(tick):
                self._expired(key)
        if self._ticks and self._timer is None:
            self._wait()
