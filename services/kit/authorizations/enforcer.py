"""Decides whether a question may be asked under an authorization: for every question, before anything is looked up.

Gateway and department each ask their own, for the original caller: the ticket names the one system that may use it, so
that a gateway's word on somebody else opens nothing. That one was found good is not remembered, only that a ticket's
signature fits its key: every question asks anew, and open streams ask again before every message.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.authorizations.registry import Registry
from services.kit.authorizations.reservations import Reservations
from services.kit.authorizations.scope import Scope
from services.kit.authorizations.tickets import Tickets
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.errors import PermissionDenied, Reason
from services.kit.jurisdiction import Jurisdiction
from services.kit.policy.mask import ReadMask
from services.kit.policy.schema import Authorized

T = TypeVar("T")

_LOOK_EVERY: Final = 0.25
"""Seconds between looks of an open stream at what ends without anybody saying so: its time, or the silence."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An authorization that a question may use, found good at the moment it was checked."""

    authorization_id: str
    scope: Scope = field(repr=False)
    """What it opens, at most."""
    scope_digest: bytes
    officer: str
    """Pseudonym of the officer whose ticket it is."""
    case_ref: str
    emergency: bool
    ticket: str = field(repr=False)
    _again: Callable[[], object] = field(repr=False, compare=False)
    _enforcer: "Enforcer" = field(repr=False, compare=False)

    @property
    def authorized(self) -> Authorized:
        """What policies see of it."""
        return self.scope.authorized(self.authorization_id)

    def narrow(self, mask: ReadMask) -> ReadMask:
        """Give what is left of a whole mask."""
        return self.scope.narrow(mask)

    def still(self) -> None:
        """Check it again, ticket and all; raises as `Enforcer.check` does.

        That its quota is used up by now is no reason: the rows at hand were taken off it, and the next question ends.
        """
        self._again()

    async def disclose(self, record_type: str, rows: int) -> None:
        """Take rows off its quota that are about to leave; raises as `Reservations.reserve` and `still` do."""
        await self._enforcer.reserve(self, record_type, rows)
        self.still()

    async def while_it_stands(self, work: Awaitable[T]) -> T:
        """Wait for something as long as the authorization stands; where it ends first, raise why and give up."""
        asked, ended = asyncio.ensure_future(work), asyncio.ensure_future(self._ended())
        try:
            await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                await ended
            self.still()
            return await asked
        finally:
            for task in (asked, ended):
                task.cancel()
            await asyncio.gather(asked, ended, return_exceptions=True)

    async def _ended(self) -> None:
        """Wait until it stands no more, and raise why."""
        while True:
            await self._enforcer.change(_LOOK_EVERY)
            self.still()


@dataclass(frozen=True, slots=True)
class Service:
    """What a node has of the service that keeps authorizations."""

    registry: Registry
    reservations: Reservations | None
    """None on a node that discloses no records of its own."""
    tickets: Tickets


class Enforcer:
    """Checks the authorizations of questions."""

    def __init__(self, needing: frozenset[str], service: Service | None, clock: Clock) -> None:
        """`needing` are the purposes that need one; without a service every authorization is refused."""
        self._needing = needing
        self._service = service
        self._clock = clock

    @classmethod
    def without_service(cls, jurisdiction: Jurisdiction, clock: Clock) -> Self:
        """Make the enforcer of a node that knows no service of authorizations: it refuses them all."""
        return cls(jurisdiction.needing_authorization, None, clock)

    @property
    def service(self) -> Service | None:
        """What the node has of the service; None where it knows of none."""
        return self._service

    def concerns(self, context: exchange_pb2.RequestContext) -> bool:
        """Tell whether a question states an authorization, or needs one."""
        return bool(context.authorization_id) or context.purpose in self._needing

    def check(self, caller: Caller, context: exchange_pb2.RequestContext, now: dt.datetime) -> Grant | None:
        """Check the authorization of a question; None where it neither states nor needs one.

        Raises `PermissionDenied` AUTHORIZATION_MISSING, AUTHORIZATION_UNSUPPORTED, TICKET_INVALID, TICKET_EXPIRED,
        AUTHORIZATION_NOT_YOURS, AUTHORIZATION_UNKNOWN, AUTHORIZATION_CHANGED, AUTHORIZATION_NOT_ACTIVE (or why it is
        not), AUTHORIZATION_NOT_YET or AUTHORIZATION_SCOPE, and `Unavailable` AUTHORIZATION_STATE_UNKNOWN or
        CLOCK_SET_BACK. Nobody learns of an authorization who has no good ticket for it.
        """
        if not context.authorization_id and context.purpose not in self._needing:
            return None
        if not context.authorization_id:
            message = f"purpose {context.purpose} needs an authorization: state its id"
            raise PermissionDenied(Reason.AUTHORIZATION_MISSING, message, purpose=context.purpose)
        if self._service is None:
            raise PermissionDenied(Reason.AUTHORIZATION_UNSUPPORTED, "authorizations cannot be used here")
        return self._granted(self._service, caller, context, now)

    def _granted(
        self,
        service: Service,
        caller: Caller,
        context: exchange_pb2.RequestContext,
        now: dt.datetime,
        *,
        or_exhausted: bool = False,
    ) -> Grant:
        if not context.authorization_ticket:
            raise PermissionDenied(Reason.TICKET_INVALID, "state the ticket to use the authorization as well")
        registry = service.registry
        judged = registry.judged(now)
        ticket = service.tickets.read(context.authorization_ticket, judged)
        if ticket.authorization_id != context.authorization_id:
            raise PermissionDenied(Reason.TICKET_INVALID, "the ticket is for another authorization")
        if ticket.caller != caller.spiffe_id:
            raise _not_yours()
        registry.require_heard(now)
        standing = registry.find(ticket.authorization_id)
        if standing is None:
            raise PermissionDenied(Reason.AUTHORIZATION_UNKNOWN, "this node knows of no such authorization")
        scope = standing.scope
        if scope.caller != caller.path:
            raise _not_yours()
        standing.require_active(judged, or_exhausted=or_exhausted)
        if scope.digest != ticket.scope_digest:
            raise PermissionDenied(Reason.AUTHORIZATION_CHANGED, "the ticket is for another scope than was approved")
        scope.check_context(context)
        return Grant(
            authorization_id=ticket.authorization_id,
            scope=scope,
            scope_digest=scope.digest,
            officer=ticket.officer,
            case_ref=scope.case_ref,
            emergency=scope.emergency,
            ticket=context.authorization_ticket,
            _again=lambda: self._granted(service, caller, context, self._clock(), or_exhausted=True),
            _enforcer=self,
        )

    async def reserve(self, grant: Grant, record_type: str, rows: int) -> None:
        """Take rows off a grant's quota; raises as `Reservations.reserve` does."""
        if self._service is None or self._service.reservations is None:
            raise PermissionDenied(Reason.AUTHORIZATION_UNSUPPORTED, "this node discloses nothing of its own")
        await self._service.reservations.reserve(grant.ticket, record_type, rows)

    async def change(self, timeout: float) -> None:
        """Wait until something about authorizations changes, at most so many seconds."""
        if self._service is not None:
            await self._service.registry.change(timeout)


def _not_yours() -> PermissionDenied:
    return PermissionDenied(Reason.AUTHORIZATION_NOT_YOURS, "the authorization is another system's")
