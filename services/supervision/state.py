"""Where an authorization stands: a pure function of its scope, its events, and the moment.

    REQUESTED ──approved──▶ APPROVED_ONCE ──approved──▶ ACTIVE ──▶ EXHAUSTED | EXPIRED | REVOKED
        │                        │        (in an emergency one approval does)
        └── rejected, revoked, or nobody approved in time ──▶ REJECTED | REVOKED | LAPSED

EXPIRED and LAPSED come with time alone; everything else is an event.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.supervision.events import Event, HistoryBroken, Kind, Person

APPROVERS: Final = 2
"""How many approve."""

EMERGENCY_APPROVERS: Final = 1
"""How many approve in an emergency."""


class State(StrEnum):
    """Where an authorization stands, named as the contract does."""

    REQUESTED = "REQUESTED"
    APPROVED_ONCE = "APPROVED_ONCE"
    ACTIVE = "ACTIVE"
    REJECTED = "REJECTED"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    EXHAUSTED = "EXHAUSTED"
    LAPSED = "LAPSED"


OPEN: Final = frozenset({State.REQUESTED, State.APPROVED_ONCE})
"""States in which it waits for approval."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the events say; ask `state` for where that leaves it at a moment."""

    requester: Person
    not_before: dt.datetime
    not_after: dt.datetime
    lapses_at: dt.datetime
    needed: int
    """How many have to approve."""
    approvers: tuple[Person, ...] = ()
    users: frozenset[Person] = frozenset()
    ended: State | None = None
    """How an event ended it."""
    review_due: dt.datetime | None = None
    """By when it has to be reviewed; None where it need not be."""
    reviewed: bool = False

    @property
    def active(self) -> bool:
        """It was approved as often as it has to be."""
        return len(self.approvers) >= self.needed

    def state(self, now: dt.datetime) -> State:
        """Say where it stands."""
        if self.ended is not None:
            return self.ended
        if self.active:
            return State.ACTIVE if now < self.not_after else State.EXPIRED
        if now >= self.lapses_at:
            return State.LAPSED
        return State.APPROVED_ONCE if self.approvers else State.REQUESTED

    def took_part(self, person: Person) -> bool:
        """Tell whether somebody asked for it, approved it or used it."""
        return person == self.requester or person in self.approvers or person in self.users

    def overdue(self, now: dt.datetime) -> bool:
        """Tell whether it ought to have been reviewed by now."""
        return self.review_due is not None and not self.reviewed and now >= self.review_due


def standing(scope: pb.Scope, digest: bytes, events: Iterable[Event]) -> Standing:
    """Fold events into what they say; `digest` is the scope's.

    Raises `HistoryBroken` where no acts that the rules allow could have led there, whoever signed it.
    """
    found: Standing | None = None
    for event in events:
        if event.kind in {Kind.REQUESTED, Kind.APPROVED} and event.scope_digest != digest:
            raise HistoryBroken("an event is about another scope")
        found = _begun(scope, event) if found is None else _after(found, scope, event)
    if found is None:
        raise HistoryBroken("there are no events")
    return found


def _begun(scope: pb.Scope, event: Event) -> Standing:
    if event.kind is not Kind.REQUESTED or event.until is None:
        raise HistoryBroken("it does not begin with a request")
    return Standing(
        requester=event.by,
        not_before=scope.not_before.ToDatetime(dt.UTC),
        not_after=scope.not_after.ToDatetime(dt.UTC),
        lapses_at=event.until,
        needed=EMERGENCY_APPROVERS if scope.emergency else APPROVERS,
    )


def _after(before: Standing, scope: pb.Scope, event: Event) -> Standing:
    state = before.state(event.at)
    match event.kind:
        case Kind.APPROVED if state in OPEN and event.by != before.requester and event.by not in before.approvers:
            due = event.until if scope.emergency else None
            return replace(before, approvers=(*before.approvers, event.by), review_due=due)
        case Kind.REJECTED if state in OPEN:
            return replace(before, ended=State.REJECTED)
        case Kind.REVOKED if state in OPEN or state is State.ACTIVE:
            return replace(before, ended=State.REVOKED)
        case Kind.EXHAUSTED if state is State.ACTIVE:
            return replace(before, ended=State.EXHAUSTED)
        case Kind.USED if state is State.ACTIVE:
            return replace(before, users=before.users | {event.by})
        case Kind.REVIEWED if before.review_due is not None and not before.reviewed:
            return replace(before, reviewed=True)
        case _:
            raise HistoryBroken(f"{event.kind} cannot follow where it stood at {state}")
