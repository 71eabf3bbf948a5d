"""Who gets in when there is too much to do: always what others' safety hangs on, everybody else while there is room.

A node is overloaded while its event loop runs late: then every answer would be late, and most for nobody. So new calls
are turned away at once, which costs next to nothing, and those that run are finished.
"""

import asyncio
from typing import Final

from services.kit.errors import HutongError, Reason, Unavailable
from services.kit.quotas import Quotas
from services.kit.rates import Rates
from services.kit.rpc import Call, Rpc

VITAL: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/hutong.api.authorization.v1.AuthorizationService/FollowAuthorizations",
        "/hutong.api.authorization.v1.AuthorizationService/RevokeAuthorization",
        "/hutong.api.node.v1.NodeService/GetStatus",
        "/hutong.api.node.v1.NodeService/WatchRevocations",
        "/hutong.api.exchange.v1.ZoneService/GetTrust",
    }
)
"""Let in however much there is to do: whether a node lives and how it does, and that something must end.

They have rates of their own: whoever has used up what it may call, or be refused, can still revoke.
"""

LOOK: Final = 0.1
"""Seconds between looks at the event loop."""


class Lateness:
    """How late the event loop runs."""

    def __init__(self, most: float) -> None:
        """`most` is in seconds: twice in a row as late as that is overload, until it was half as late once."""
        self._most = most
        self._twice = False
        self._timer: asyncio.TimerHandle | None = None
        self.seconds = 0.0
        """How late it was when it was last looked."""
        self.overloaded = False

    def start(self) -> None:
        """Begin to look; to be called in the loop."""
        self._loop = asyncio.get_running_loop()
        self._wait()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._due = self._loop.time() + LOOK
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self.note(max(0.0, self._loop.time() - self._due))
        self._wait()

    def note(self, late: float) -> None:
        """Take in how late it was. A single stop, of a machine or a debugger, is no overload."""
        self.seconds = late
        if late >= self._most:
            self.overloaded, self._twice = self.overloaded or self._twice, True
        elif late < self._most / 2:
            self.overloaded = self._twice = False


class Shedding:
    """Stands before everything else of a call (`rpc.Dispatcher`)."""

    def __init__(self, rates: Rates, vital: Rates, lateness: Lateness, quotas: Quotas | None = None) -> None:
        """`vital` are the rates of what is vital, `quotas` are None where the config gives none."""
        self._rates = rates
        self._vital = vital
        self._lateness = lateness
        self._quotas = quotas

    def __call__(self, call: Call, rpc: Rpc, /) -> None:
        """Let a call in; raises `Unavailable` OVERLOADED, or `ResourceExhausted` RATE_EXCEEDED or QUOTA_EXCEEDED."""
        vital = rpc.method in VITAL
        if self._lateness.overloaded and not vital:
            raise Unavailable(Reason.OVERLOADED, "this node has too much to do: try again in a moment")
        (self._vital if vital else self._rates).take(call.caller)
        if self._quotas is not None and rpc.receipt and not vital:
            self._quotas.check(call.caller)

    def giving(self, call: Call) -> None:
        """Count what is about to be given; raises `ResourceExhausted` QUOTA_EXCEEDED."""
        if self._quotas is not None and call.method not in VITAL:
            self._quotas.spend(call.caller, call.facts)

    def refused(self, call: Call, error: HutongError) -> HutongError:
        """Count a refusal, for whom the call was; gives what to refuse with, as `Rates.refused` does."""
        rates = self._vital if call.method in VITAL else self._rates
        return rates.refused(call.caller, error, call.facts.caller)
