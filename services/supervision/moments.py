"""The present as authorizations know it: it never goes back, whatever is done to the machine's clock.

What has expired stays expired, and no event is older than the one before it. A clock that was set back is noticed, by
what was recorded before, also by another process or before a restart; while it lies further back than clocks differ,
nothing new is opened: what is in force would otherwise last as much longer.
"""

import datetime as dt
from threading import Lock
from typing import Final

from services.kit.clock import Clock
from services.kit.errors import Reason, Unavailable

SKEW: Final = dt.timedelta(seconds=60)
"""How far a clock may be set right, or two replicas' clocks differ, without further notice."""


class Moments:
    """A clock that never goes back; for any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._latest = clock()

    def now(self) -> dt.datetime:
        """Give the present, or the latest moment known where the clock was set back behind it."""
        return self.observe(self._clock())

    def observe(self, at: dt.datetime) -> dt.datetime:
        """Learn that a moment has been; gives the latest one known."""
        with self._lock:
            self._latest = max(self._latest, at)
            return self._latest

    def behind(self) -> float:
        """Tell how far the clock lies behind the latest moment known, in seconds."""
        return (self.observe(now := self._clock()) - now).total_seconds()

    def require(self) -> dt.datetime:
        """Give the present; raises `Unavailable` CLOCK_SET_BACK where the clock was set back for more than `SKEW`."""
        if self.behind() > SKEW.total_seconds():
            raise Unavailable(
                Reason.CLOCK_SET_BACK, "the service's clock was set back; nothing is opened until it is right"
            )
        return self.now()
