"""Rows off a quota, counted exactly: taken before they are disclosed, by the node that is about to disclose them.

The row of the authorization is locked while its rest is looked at and changed, so that however many nodes ask at once,
together they never get more than there is. A reservation that is sent again counts once.
"""

import datetime as dt
from dataclasses import dataclass, replace
from typing import Final

import sqlalchemy as sa

from services.kit.authorizations.tickets import Ticket
from services.kit.caller import Caller
from services.kit.errors import InvalidArgument, PermissionDenied, Reason, ResourceExhausted
from services.supervision import rules, store
from services.supervision.authorizations import Authorizations
from services.supervision.books import Authorization
from services.supervision.events import Event, HistoryBroken, Kind, Person
from services.supervision.state import State
from services.supervision.tables import RESERVATION

MINUTE: Final = dt.timedelta(minutes=1)
"""Over which `rows_per_minute` counts: the last one, whenever it begins."""

KEPT: Final = dt.timedelta(days=1)
"""How long a reservation is remembered."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows about to be disclosed."""

    reservation_id: str
    rows: int
    record_type: str


@dataclass(frozen=True, slots=True)
class Reserved:
    """How that came out."""

    left: int
    found: Authorization
    """The authorization, as it is since."""
    exhausted: bool = False
    """These were the last."""


class Quota:
    """Counts rows."""

    def __init__(self, authorizations: Authorizations, agency: str) -> None:
        """`agency` is the service's own: it is who notes that a quota is used up."""
        self._authorizations = authorizations
        self._books = authorizations.books
        self._moments = authorizations.moments
        self._agency = agency

    async def reserve(self, ticket: Ticket, wanted: Wanted, node: Caller) -> int:
        """Take rows off the quota of the authorization that a ticket is for; gives how many are left.

        Raises `ResourceExhausted` AUTHORIZATION_EXHAUSTED or AUTHORIZATION_RATE with `left`, how many rows there are
        now; `PermissionDenied` AUTHORIZATION_SCOPE, TICKET_INVALID or RECORD_TYPE_NOT_OWNED; `NotFound`
        AUTHORIZATION_UNKNOWN; `FailedPrecondition` where it is not in force; `InvalidArgument` where the reservation's
        id stands for another one.
        """

        def work(connection: sa.Connection) -> Reserved:
            return self._reserve(connection, ticket, wanted, node)

        done = await self._authorizations.database.write(work)
        if done.exhausted:
            # Its history has become longer: whoever looks next reads and verifies it.
            self._authorizations.ring()
        else:
            self._books.note(done.found)
        return done.left

    def _reserve(self, connection: sa.Connection, ticket: Ticket, wanted: Wanted, node: Caller) -> Reserved:
        head = store.load(connection, ticket.authorization_id, lock=True)
        if head is None:
            raise rules.unknown()
        try:
            found = self._books.glance(connection, head)
        except HistoryBroken:
            raise rules.unknown() from None
        self._moments.observe(head.touched_at)
        now = self._moments.require()
        self._check(found, ticket, wanted, node)
        left = found.scope.row_quota - head.rows_used
        if self._repeated(connection, ticket, wanted, node):
            self._check_in_force(found, now, or_exhausted=True)
            return Reserved(left, found)
        self._check_in_force(found, now)
        if wanted.rows > left:
            message = f"its quota has {left} rows left, and these are {wanted.rows}"
            raise ResourceExhausted(Reason.AUTHORIZATION_EXHAUSTED, message, left=str(left))
        self._check_rate(connection, found, wanted, now)
        if not wanted.rows:
            return Reserved(left, found)
        after = self._take(connection, found, wanted, node, now)
        if wanted.rows < left:
            return Reserved(left - wanted.rows, after)
        event = Event(after.id, after.head.sequence + 1, Kind.EXHAUSTED, now, Person(self._agency, ""))
        self._authorizations.append(connection, after, event)
        return Reserved(0, after, exhausted=True)

    def _check(self, found: Authorization, ticket: Ticket, wanted: Wanted, node: Caller) -> None:
        if ticket.scope_digest != found.digest:
            raise PermissionDenied(Reason.TICKET_INVALID, "the ticket does not stand")
        if wanted.record_type not in {part.record_type for part in found.scope.types}:
            raise PermissionDenied(Reason.AUTHORIZATION_SCOPE, "the record type is not in the authorization's scope")
        if self._books.owner(wanted.record_type) != node.agency:
            raise PermissionDenied(Reason.RECORD_TYPE_NOT_OWNED, "rows are reserved by the node that owns them")

    def _check_in_force(self, found: Authorization, now: dt.datetime, *, or_exhausted: bool = False) -> None:
        if or_exhausted and found.state(now) is State.EXHAUSTED and now < found.standing.not_after:
            return
        if refusal := rules.in_force(found, now):
            raise refusal

    def _repeated(self, connection: sa.Connection, ticket: Ticket, wanted: Wanted, node: Caller) -> bool:
        known = connection.execute(
            sa.select(RESERVATION.c.authorization_id, RESERVATION.c.record_type, RESERVATION.c.rows).where(
                RESERVATION.c.node == node.path, RESERVATION.c.reservation_id == wanted.reservation_id
            )
        ).one_or_none()
        if known is not None and tuple(known) != (ticket.authorization_id, wanted.record_type, wanted.rows):
            message = "this reservation id stands for another reservation already"
            raise InvalidArgument(Reason.MALFORMED_REQUEST, message, field="reservation_id")
        return known is not None

    def _check_rate(self, connection: sa.Connection, found: Authorization, wanted: Wanted, now: dt.datetime) -> None:
        rate = found.scope.rows_per_minute
        if not rate:
            return
        total = sa.select(sa.func.coalesce(sa.func.sum(RESERVATION.c.rows), 0)).where(
            RESERVATION.c.authorization_id == found.id, RESERVATION.c.at > now - MINUTE
        )
        lately = int(connection.execute(total).scalar_one())
        if lately + wanted.rows > rate:
            left = max(0, rate - lately)
            message = f"{rate} rows a minute at most: there are {left} left, and these are {wanted.rows}"
            raise ResourceExhausted(Reason.AUTHORIZATION_RATE, message, left=str(left))

    def _take(
        self, connection: sa.Connection, found: Authorization, wanted: Wanted, node: Caller, now: dt.datetime
    ) -> Authorization:
        connection.execute(
            sa.insert(RESERVATION).values(
                node=node.path,
                reservation_id=wanted.reservation_id,
                authorization_id=found.id,
                record_type=wanted.record_type,
                rows=wanted.rows,
                at=now,
            )
        )
        head = found.head
        used = head.rows_used + wanted.rows
        seal = self._books.seal(found.id, head.sequence, head.tip, used)
        store.change(connection, found.id, rows_used=used, seal=seal, touched_at=now)
        return replace(found, head=replace(head, rows_used=used, seal=seal, touched_at=now))


def forget(connection: sa.Connection, now: dt.datetime) -> None:
    """Forget reservations that nobody sends again."""
    connection.execute(sa.delete(RESERVATION).where(RESERVATION.c.at < now - KEPT))
