"""Tokens that were used: what was taken once is not taken again."""

import datetime as dt
import heapq
from typing import Final, Protocol

from services.kit.clock import Clock, Forward
from services.kit.errors import Reason, ResourceExhausted

LIMIT: Final = 10_000
"""Most tokens of one agency that are remembered in memory at once."""


class SeenTokens(Protocol):
    """Remembers tokens for as long as somebody might take them again."""

    async def take(self, agency: str, jti: str, until: dt.datetime) -> bool:
        """Take a token; tells whether it was the first time. It is remembered until then at least.

        Two calls at once for the same token: exactly one of them is the first.
        """
        ...


class MemorySeen:
    """Remembers in memory: for one process, from its start on. When it is full it refuses rather than forgets."""

    def __init__(self, clock: Clock, limit: int = LIMIT) -> None:
        """`limit` counts for each agency, so that none can fill it for another."""
        self._clock = Forward(clock)
        self._limit = limit
        self._until: dict[str, dict[str, dt.datetime]] = {}
        self._ending: list[tuple[dt.datetime, str, str]] = []

    async def take(self, agency: str, jti: str, until: dt.datetime) -> bool:
        """Take a token; raises `ResourceExhausted` CALLS_TOO_MANY where no more can be remembered."""
        self._forget(self._clock())
        taken = self._until.setdefault(agency, {})
        if jti in taken:
            return False
        if len(taken) >= self._limit:
            message = "too many officer tokens of this agency were used of late; try again in some minutes"
            raise ResourceExhausted(Reason.CALLS_TOO_MANY, message, limit=str(self._limit))
        taken[jti] = until
        heapq.heappush(self._ending, (until, agency, jti))
        return True

    def _forget(self, now: dt.datetime) -> None:
        while self._ending and self._ending[0][0] < now:
            _, agency, jti = heapq.heappop(self._ending)
            del self._until[agency][jti]
