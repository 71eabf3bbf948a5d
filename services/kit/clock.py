"""The time, as something that is passed in: nothing in the mesh asks the machine behind a test's back."""

import datetime as dt
import logging
from collections.abc import Callable
from typing import Final

_SET_BACK: Final = dt.timedelta(seconds=60)
"""By more than this clocks do not differ: smaller corrections are nothing to tell of."""
_log = logging.getLogger(__name__)

Clock = Callable[[], dt.datetime]
"""Gives the present moment, aware, in UTC."""


def system_clock() -> dt.datetime:
    """Give the machine's time."""
    return dt.datetime.now(dt.UTC)


class Forward:
    """A clock that never goes back: after the machine's was set back, it stays at the latest moment it has seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest = clock()
        self._behind = False

    def __call__(self) -> dt.datetime:
        """Give the present moment, or the latest one seen."""
        now = self._clock()
        self._latest = max(self._latest, now)
        behind = self._latest - now > _SET_BACK
        if behind and not self._behind:
            _log.warning("The clock was set back; what has expired stays so")
        self._behind = behind
        return self._latest
