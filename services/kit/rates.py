"""How often one caller may call, and be refused: nobody wears a node out, or fills its log with refusals.

Each caller has two buckets that fill at a steady rate: one that its calls are taken from, and one that its refusals
are. Where either is empty it is told to wait, and that is counted, not logged. Calls are those of the peer; a
refusal is that of the caller whom a gateway spoke for, once its word was found good: what one caller does wrong costs
no other.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from services.kit.caller import Caller
from services.kit.errors import Code, HutongError, Reason, ResourceExhausted

MOST_KEPT: Final = 10_000
"""Callers whose buckets are kept; of more, those who have not called for a while begin anew."""

REFUSALS_AT_ONCE: Final = 10.0
"""Seconds' worth of refusals that may come at once: whoever learns to call is refused a good deal."""

_FOR_CAUSE: Final = frozenset({Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED})
"""Refusals that say something of the caller, and nothing of the node or its records."""


class _Bucket:
    """So many a second, and so many at once."""

    __slots__ = ("at", "left", "most", "rate")

    def __init__(self, rate: float, most: float, now: float) -> None:
        self.rate = rate
        self.most = most
        self.left = most
        self.at = now

    def fill(self, now: float) -> float:
        """Give what there is now."""
        self.left = left = min(self.most, self.left + (now - self.at) * self.rate)
        self.at = now
        return left


class Rates:
    """The buckets of all callers. To be used in one event loop."""

    def __init__(
        self,
        rate: float,
        refusals: float,
        others: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` is calls a second, `refusals` refusals a second, each of one caller.

        `others` has the rates of those who need another one, by `agency/system` or `agency/*`; the more exact counts.
        """
        self._rate = rate
        self._refusals = refusals
        self._others = others or {}
        self._clock = clock
        self._buckets: dict[str, tuple[_Bucket, _Bucket]] = {}

    def take(self, caller: Caller) -> None:
        """Count a call; raises `ResourceExhausted` RATE_EXCEEDED, with the seconds until the next may come."""
        now = self._clock()
        calls, refusals = self._of(caller, now)
        if refusals.fill(now) < 1:
            raise _exceeded("refusals", refusals)
        if calls.fill(now) < 1:
            raise _exceeded("calls", calls)
        calls.left -= 1

    def refused(self, caller: Caller, error: HutongError) -> HutongError:
        """Count a refusal, where the caller is to blame for it; gives what to refuse with.

        That is RATE_EXCEEDED where it has had too many: `take` cannot know whom a gateway is going to speak for.
        """
        if error.code not in _FOR_CAUSE:
            return error
        now = self._clock()
        refusals = self._of(caller, now)[1]
        if refusals.fill(now) < 1:
            return _exceeded("refusals", refusals)
        refusals.left -= 1
        return error

    def _of(self, caller: Caller, now: float) -> tuple[_Bucket, _Bucket]:
        return self._buckets.get(caller.spiffe_id) or self._begin(caller, now)

    def _begin(self, caller: Caller, now: float) -> tuple[_Bucket, _Bucket]:
        if len(self._buckets) >= MOST_KEPT:
            self._drop(now)
        rate = self._others.get(caller.path) or self._others.get(f"{caller.agency}/*") or self._rate
        calls = _Bucket(rate, max(rate, 1.0), now)
        refusals = _Bucket(self._refusals, max(self._refusals * REFUSALS_AT_ONCE, 1.0), now)
        self._buckets[caller.spiffe_id] = calls, refusals
        return calls, refusals

    def _drop(self, now: float) -> None:
        """Forget those whose buckets are full: they would begin with full ones. The oldest half, where nobody's are."""
        kept = {
            who: both for who, both in self._buckets.items() if any(bucket.fill(now) < bucket.most for bucket in both)
        }
        if len(kept) >= MOST_KEPT:
            kept = dict(list(kept.items())[MOST_KEPT // 2 :])
        self._buckets = kept


def _exceeded(what: str, bucket: _Bucket) -> ResourceExhausted:
    wait = math.ceil((1 - bucket.left) / bucket.rate * 1000)
    message = f"too many {what} of this caller: {bucket.rate:g} a second are let through"
    return ResourceExhausted(Reason.RATE_EXCEEDED, message, retry_after=f"{wait / 1000:.3f}s")
