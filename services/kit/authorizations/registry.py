"""What a node knows of authorizations: where each stands, as it last heard, and how long ago that was.

A node that cannot hear of revocations knows nothing after a while, and says so: `Registry.require_heard`.
"""

import asyncio
import datetime as dt
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.authorizations.scope import Scope
from services.kit.context import SKEW
from services.kit.errors import HutongError, PermissionDenied, Reason, Unavailable
from services.kit.waiting import within

MOST: Final = 100_000
"""Most authorizations that a node keeps; a service that tells of more is not believed."""

REASONS: Final = frozenset(
    reason for reason in Reason if reason.startswith(("AUTHORIZATION_", "TICKET_")) or reason is Reason.CLOCK_SET_BACK
)
"""Why a question under an authorization is not answered."""

_ENDED: Final = 10_000
"""Most ended authorizations that are kept, so that it can be said why they are none any more."""

_ACTIVE: Final = authorization_pb2.AUTHORIZATION_STATE_ACTIVE
_EXHAUSTED: Final = authorization_pb2.AUTHORIZATION_STATE_EXHAUSTED
_WHY_NOT: Final[Mapping[int, tuple[Reason, str]]] = {
    authorization_pb2.AUTHORIZATION_STATE_REVOKED: (Reason.AUTHORIZATION_REVOKED, "it was revoked"),
    authorization_pb2.AUTHORIZATION_STATE_EXPIRED: (Reason.AUTHORIZATION_EXPIRED, "its time is over"),
    _EXHAUSTED: (Reason.AUTHORIZATION_EXHAUSTED, "its quota is used up"),
}
"""Ends, and there is no way back from any of them."""

Steady = Callable[[], float]
"""Seconds that only ever go forward."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """One authorization as the service last told of it."""

    authorization_id: str
    scope: Scope
    state: int
    """`AuthorizationState`; UNSPECIFIED where it was in force once, and is not among those in force now."""

    def require_active(self, now: dt.datetime, *, or_exhausted: bool = False) -> None:
        """Raise `PermissionDenied` where it is not in force at that moment, for the reason why."""
        if self.state != _ACTIVE and not (or_exhausted and self.state == _EXHAUSTED):
            reason, why = _WHY_NOT.get(self.state, (Reason.AUTHORIZATION_NOT_ACTIVE, "it is not in force"))
            raise PermissionDenied(reason, f"the authorization stands no more: {why}")
        if now < self.scope.not_before:
            raise PermissionDenied(Reason.AUTHORIZATION_NOT_YET, "the authorization has not begun yet")
        if now >= self.scope.not_after:
            raise PermissionDenied(Reason.AUTHORIZATION_EXPIRED, "the authorization's time is over")


class Registry:
    """The authorizations a node has heard of."""

    def __init__(self, silence: dt.timedelta, steady: Steady = time.monotonic) -> None:
        """`silence` is how long it goes on without hearing anything; `steady` tells how long that was."""
        self._silence = silence
        self._steady = steady
        self._known: dict[str, Standing] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._coming: list[authorization_pb2.Authorization] | None = None
        """What there is so far of all that are in force, while that is still being told."""
        self._heard: float | None = None
        self._as_of: dt.datetime | None = None
        self._changed = asyncio.Event()

    @property
    def silent_for(self) -> float:
        """Seconds since the service was heard; infinite where it never was."""
        return float("inf") if self._heard is None else self._steady() - self._heard

    def apply(self, told: authorization_pb2.FollowAuthorizationsResponse) -> None:
        """Take in what the service tells; raises `Unavailable` where that cannot be believed.

        All that are in force may take several messages. They count once the last has come: until then what is known
        stands as it was, for as long as it would have stood in silence.
        """
        try:
            as_of = told.as_of.ToDatetime(dt.UTC)
        except ValueError:
            as_of = None
        if as_of is None or not told.HasField("as_of"):
            raise Unavailable(Reason.AUTHORIZATION_STATE_UNKNOWN, "the service of authorizations tells no moment")
        if told.snapshot:
            # What came of it in a stream that broke off is worth nothing.
            self._coming = []
        whole = self._coming
        if whole is not None:
            whole.extend(told.authorizations)
            self._limit(whole)
            if told.more:
                return
            self._coming = None
            self._begin_anew({each.authorization_id for each in whole})
        for each in told.authorizations if whole is None else whole:
            self._keep(each)
        self._limit(self._known)
        # A moment that lies before one heard earlier sets no clock back.
        self._as_of = max(as_of, self._as_of or as_of)
        self._heard = self._steady()
        if whole is not None or told.authorizations:
            self._changed.set()
            self._changed = asyncio.Event()

    def _limit(self, found: Sized) -> None:
        if len(found) > MOST + _ENDED:
            self._known.clear()
            self._coming = None
            raise Unavailable(Reason.AUTHORIZATION_STATE_UNKNOWN, "there are more authorizations than anyone has")

    def _begin_anew(self, in_force: set[str]) -> None:
        for known in tuple(self._known.values()):
            if known.state == _ACTIVE and known.authorization_id not in in_force:
                self._end(replace(known, state=authorization_pb2.AUTHORIZATION_STATE_UNSPECIFIED))

    def _keep(self, told: authorization_pb2.Authorization) -> None:
        name = told.authorization_id
        try:
            scope = Scope.of(told.scope)
            if scope.digest != told.scope_digest:
                raise ValueError("its scope is not the one that was signed off")
        except (ValueError, HutongError) as error:
            # Of what cannot be read nobody knows what it opens: it opens nothing.
            fields = {"authorization": name, "why": str(error)}
            _log.error("An authorization cannot be read", extra={"fields": fields})
            if not self._over(name):
                self._known.pop(name, None)
            return
        standing = Standing(name, scope, told.state)
        if standing.state == _ACTIVE and self._over(name):
            # As after an older database was put in the place of the service's: what ended there had ended.
            _log.error("An authorization that has ended is told as in force", extra={"fields": {"authorization": name}})
        elif standing.state == _ACTIVE:
            self._ended.pop(name, None)
            self._known[name] = standing
        else:
            self._end(standing)

    def _over(self, name: str) -> bool:
        """Tell whether this node has heard of an authorization's end."""
        known = self._known.get(name)
        return known is not None and known.state in _WHY_NOT

    def _end(self, standing: Standing) -> None:
        self._known[standing.authorization_id] = standing
        self._ended[standing.authorization_id] = None
        self._ended.move_to_end(standing.authorization_id)
        while len(self._ended) > _ENDED:
            self._known.pop(self._ended.popitem(last=False)[0], None)

    def judged(self, now: dt.datetime) -> dt.datetime:
        """Give the moment to judge by: the node's own, or the newest the service has told, whichever is later.

        Raises `Unavailable` CLOCK_SET_BACK where the node's clock is behind that by more than clocks may differ.
        """
        if self._as_of is None:
            return now
        if now + SKEW < self._as_of:
            raise Unavailable(Reason.CLOCK_SET_BACK, "this node's clock is behind; what has ended cannot be told")
        return max(now, self._as_of)

    def require_heard(self, now: dt.datetime) -> None:
        """Raise `Unavailable` AUTHORIZATION_STATE_UNKNOWN where nothing was heard for too long.

        Nor does it count as heard what the service told long ago by its own clock, and arrives only now.
        """
        late = self._as_of is None or now - self._as_of > self._silence + SKEW
        if late or self.silent_for > self._silence.total_seconds():
            raise Unavailable(
                Reason.AUTHORIZATION_STATE_UNKNOWN, "whether the authorization still stands cannot be told now"
            )

    def find(self, authorization_id: str) -> Standing | None:
        """Get where an authorization stands; None where this node has not heard of it."""
        return self._known.get(authorization_id)

    async def change(self, timeout: float) -> None:
        """Wait until something changes, at most so many seconds."""
        await within(self._changed, timeout)
