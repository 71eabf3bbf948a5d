"""How often one caller may call, and be refused: nobody wears a node out, or fills its log with refusals.

Each caller has two buckets that fill at a steady rate: one that its calls are taken from, and one that its refusals
are. Where either is empty it is told to wait, and that is counted, not logged. Calls are those of the peer; a
refusal is that of the caller whom a gateway spoke for, once its word was found good: what one caller does wrong costs
no other. A gateway can make such names up. So all of one other zone, or that one peer speaks for, have a bucket
together besides, and their own are kept apart from those of whoever calls.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from services.kit.caller import Caller
from services.kit.errors import Code, HutongError, Reason, ResourceExhausted

MOST_KEPT: Final = 10_000
"""Callers whose buckets are kept; of more, those who have not called for a while begin anew.

So many of those that call, and so many more of each zone or peer of those that are spoken for.
"""

REFUSALS_AT_ONCE: Final = 10.0
"""Seconds' worth of refusals that may come at once: whoever learns to call is refused a good deal."""

SPOKEN_FOR: Final = 10
"""Callers of one zone, or that one peer speaks for, that may be refused as often as one may, all at the same time."""

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


class _Spoken:
    """The refusals of callers that others spoke for: the bucket they have together, and each one's own, by its name."""

    __slots__ = ("all", "each")

    def __init__(self, every: _Bucket) -> None:
        self.all = every
        self.each: dict[str, tuple[_Bucket]] = {}


_Buckets = TypeVar("_Buckets", bound=tuple[_Bucket, ...])


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
        self._spoken: dict[str, _Spoken] = {}
        """By zone, or by peer for callers of this zone: no more than those whose words count."""

    def take(self, caller: Caller) -> None:
        """Count a call; raises `ResourceExhausted` RATE_EXCEEDED, with the seconds until the next may come."""
        now = self._clock()
        calls, refusals = self._of(caller, now)
        if refusals.fill(now) < 1:
            raise _exceeded("refusals of this caller", refusals)
        if calls.fill(now) < 1:
            raise _exceeded("calls of this caller", calls)
        calls.left -= 1

    def refused(self, peer: Caller, error: HutongError, spoken_for: Caller | None = None) -> HutongError:
        """Count a refusal, where the caller is to blame for it; gives what to refuse with.

        That is RATE_EXCEEDED where it has had too many: `take` cannot know whom a gateway is going to speak for, which
        is `spoken_for`. Of those whom it spoke for, that are too many together, it costs none anything.
        """
        if error.code not in _FOR_CAUSE:
            return error
        now = self._clock()
        who = spoken_for or peer
        spoken = self._spoken_by(who.zone or peer.spiffe_id, now) if who != peer else None
        if spoken is not None and spoken.all.fill(now) < 1:
            return _exceeded("refusals of those who are spoken for", spoken.all)
        own = self._of(peer, now)[1] if spoken is None else self._one_of(spoken, who, now)
        if own.fill(now) < 1:
            return _exceeded("refusals of this caller", own)
        own.left -= 1
        if spoken is not None:
            spoken.all.left -= 1
        return error

    def _spoken_by(self, whose: str, now: float) -> _Spoken:
        found = self._spoken.get(whose)
        if found is None:
            found = self._spoken[whose] = _Spoken(self._refusals_of(SPOKEN_FOR, now))
        return found

    def _one_of(self, spoken: _Spoken, caller: Caller, now: float) -> _Bucket:
        found = spoken.each.get(caller.spiffe_id)
        if found is None:
            _make_room(spoken.each, now)
            found = spoken.each[caller.spiffe_id] = (self._refusals_of(1, now),)
        return found[0]

    def _refusals_of(self, callers: int, now: float) -> _Bucket:
        """Make a bucket for as many refusals as so many callers may have."""
        most = max(self._refusals * REFUSALS_AT_ONCE, 1.0)
        return _Bucket(callers * self._refusals, callers * most, now)

    def _of(self, caller: Caller, now: float) -> tuple[_Bucket, _Bucket]:
        return self._buckets.get(caller.spiffe_id) or self._begin(caller, now)

    def _begin(self, caller: Caller, now: float) -> tuple[_Bucket, _Bucket]:
        _make_room(self._buckets, now)
        rate = self._others.get(caller.path) or self._others.get(f"{caller.agency}/*") or self._rate
        calls = _Bucket(rate, max(rate, 1.0), now)
        both = self._buckets[caller.spiffe_id] = calls, self._refusals_of(1, now)
        return both


def _make_room(buckets: dict[str, _Buckets], now: float) -> None:
    """Forget those whose buckets are full: they would begin with full ones. The oldest half, where nobody's are."""
    if len(buckets) < MOST_KEPT:
        return
    for who in [who for who, own in buckets.items() if all(each.fill(now) >= each.most for each in own)]:
        del buckets[who]
    if len(buckets) >= MOST_KEPT:
        for who in list(buckets)[: MOST_KEPT // 2]:
            del buckets[who]


def _exceeded(what: str, bucket: _Bucket) -> ResourceExhausted:
    wait = math.ceil((1 - bucket.left) / bucket.rate * 1000)
    message = f"too many {what}: {bucket.rate:g} a second are let through"
    return ResourceExhausted(Reason.RATE_EXCEEDED, message, retry_after=f"{wait / 1000:.3f}s")
