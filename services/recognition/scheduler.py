"""The scheduler: looks after what becomes due, for as long as the node runs.

It looks at the next due moment, and every `interval` at the latest: other replicas, and whatever else writes to the
database, make things due that this process has not heard of. Any number of replicas may run one each.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.waiting import within
from services.recognition.cases import Cases

_log = logging.getLogger(__name__)

LONGEST_PAUSE: Final = dt.timedelta(seconds=30)
"""The longest between two tries while the store cannot be reached."""

_SHORTEST: Final = dt.timedelta(milliseconds=10)
"""The shortest between two looks: what is due now and could not be done is not tried without a breath."""


class Scheduler:
    """One loop over a database's cases."""

    def __init__(self, cases: Cases, clock: Clock, interval: dt.timedelta = dt.timedelta(seconds=1)) -> None:
        self._cases = cases
        self._clock = clock
        self._interval = interval
        self._wake = asyncio.Event()
        self._stopping = False
        self.failures = 0
        """How often in a row the store could not be looked at; 0 while all is well."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run beside what is inside, and be done with the present case before it ends."""
        task = asyncio.create_task(self.run(), name="scheduler")
        try:
            yield
        finally:
            self.stop()
            await task

    def stop(self) -> None:
        """Let the loop end once the case it is at is done."""
        self._stopping = True
        self._wake.set()

    def wake(self) -> None:
        """Look at once: something may have become due."""
        self._wake.set()

    async def run(self) -> None:
        """Look after what becomes due until `stop` is called."""
        while not self._stopping:
            self._wake.clear()
            pause = await self._look()
            if not self._stopping:
                await within(self._wake, pause.total_seconds())

    async def _look(self) -> dt.timedelta:
        """Do what is due; gives how long to wait before the next look."""
        try:
            while await self._cases.tick() and not self._stopping:
                pass
            pause = await self._until_due()
        except Unavailable:
            return self._failed("The store cannot be reached; what is due waits")
        except Exception:
            # A reminder that comes late is better than none ever again.
            return self._failed("Looking after what is due failed")
        self.failures = 0
        return pause

    def _failed(self, message: str) -> dt.timedelta:
        self.failures += 1
        _log.log(logging.WARNING if self.failures > 1 else logging.ERROR, message, exc_info=self.failures == 1)
        return min(self._interval * (1 << min(self.failures - 1, 10)), max(LONGEST_PAUSE, self._interval))

    async def _until_due(self) -> dt.timedelta:
        due = await self._cases.next_due()
        if due is None:
            return self._interval
        return min(self._interval, max(due - self._clock(), _SHORTEST))
