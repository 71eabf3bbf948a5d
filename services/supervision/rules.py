"""Who may do what to an authorization, and when: every refusal there is, apart from the scope's own.

An officer is the same person whatever role a token gives, and whatever system it came through.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from services.kit.errors import FailedPrecondition, HutongError, NotFound, PermissionDenied, Reason
from services.supervision.books import Authorization
from services.supervision.events import Person
from services.supervision.state import OPEN, State

MOST_USES: Final = 10_000
"""Most tickets of one authorization: every one is an event in its history."""

_REASONS: Final = {
    State.REVOKED: Reason.AUTHORIZATION_REVOKED,
    State.EXPIRED: Reason.AUTHORIZATION_EXPIRED,
    State.LAPSED: Reason.AUTHORIZATION_EXPIRED,
    State.EXHAUSTED: Reason.AUTHORIZATION_EXHAUSTED,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """How authorizations come about here: what a zone settles for itself."""

    owner_approval: bool
    break_glass: bool
    approval_within: dt.timedelta
    review_within: dt.timedelta


def unknown() -> NotFound:
    """Word that there is none, or none that this caller may see: nobody can tell the one from the other."""
    return NotFound(Reason.AUTHORIZATION_UNKNOWN, "there is no such authorization that you may see")


def stands(state: State, otherwise: Reason = Reason.AUTHORIZATION_NOT_ACTIVE) -> FailedPrecondition:
    """Word that where it stands does not allow it; `otherwise` is the reason where the state is none by itself."""
    return FailedPrecondition(_REASONS.get(state, otherwise), f"the authorization stands at {state}", state=state)


def check_open(found: Authorization, now: dt.datetime) -> None:
    """Check that it waits for approval; raises `FailedPrecondition`, AUTHORIZATION_CHANGED where it was settled."""
    if (state := found.state(now)) not in OPEN:
        raise stands(state, Reason.AUTHORIZATION_CHANGED)


def check_approval(found: Authorization, by: Person, digest: bytes, terms: Terms, now: dt.datetime) -> None:
    """Check that somebody may approve it.

    Raises `FailedPrecondition` AUTHORIZATION_CHANGED where another scope was seen, or what `check_open` raises;
    `PermissionDenied` APPROVER_NOT_ALLOWED or OWNER_APPROVAL_MISSING.
    """
    check_open(found, now)
    if digest != found.digest:
        raise FailedPrecondition(Reason.AUTHORIZATION_CHANGED, "this is not the scope that was requested: look again")
    standing = found.standing
    if by == standing.requester:
        raise _not_allowed("nobody approves what they have asked for")
    if by in standing.approvers:
        raise _not_allowed("nobody approves twice")
    approvers = (*standing.approvers, by)
    owned = any(person.agency in found.owners for person in approvers)
    if terms.owner_approval and len(approvers) >= standing.needed and not owned:
        message = "an officer of an agency that owns records in the scope has to be among those who approve"
        raise PermissionDenied(Reason.OWNER_APPROVAL_MISSING, message)


def check_rejection(found: Authorization, by: Person, now: dt.datetime) -> None:
    """Check that somebody may reject it; raises as `check_open` does, and APPROVER_NOT_ALLOWED."""
    check_open(found, now)
    if by == found.standing.requester:
        raise _not_allowed("who has asked for it revokes it instead")


def check_revocation(found: Authorization, by: Person, *, approver: bool, now: dt.datetime) -> None:
    """Check that somebody may revoke it: any approver who may see it, or the officer who asked for it.

    Raises `PermissionDenied` APPROVER_NOT_ALLOWED, or `FailedPrecondition` where it is over.
    """
    if not approver and by != found.standing.requester:
        raise _not_allowed("it is revoked by an approver, or by who asked for it")
    if (state := found.state(now)) not in OPEN | {State.ACTIVE}:
        raise stands(state, Reason.AUTHORIZATION_CHANGED)


def check_use(found: Authorization, system: str, now: dt.datetime) -> None:
    """Check that a system may use it now; raises `PermissionDenied` AUTHORIZATION_NOT_YOURS, `FailedPrecondition`."""
    if found.scope.caller != system:
        raise PermissionDenied(Reason.AUTHORIZATION_NOT_YOURS, "the authorization is for another system")
    if refusal := in_force(found, now):
        raise refusal
    if found.standing.not_after.replace(microsecond=0) <= now:
        # Tickets count whole seconds, and this one would end before it began.
        raise stands(State.EXPIRED)
    if len(found.events) >= MOST_USES:
        message = f"it was used {MOST_USES} times; request another one"
        raise FailedPrecondition(Reason.AUTHORIZATION_EXHAUSTED, message)


def in_force(found: Authorization, now: dt.datetime) -> HutongError | None:
    """Say why it is not in force; None where it is."""
    if (state := found.state(now)) is not State.ACTIVE:
        return stands(state)
    if now < found.standing.not_before:
        begin = found.standing.not_before.isoformat()
        return FailedPrecondition(Reason.AUTHORIZATION_NOT_YET, f"the authorization begins at {begin}")
    return None


def check_review(found: Authorization, by: Person) -> None:
    """Check that somebody may review it; raises `FailedPrecondition` AUTHORIZATION_NOT_ACTIVE, `PermissionDenied`."""
    if found.standing.review_due is None:
        raise FailedPrecondition(Reason.AUTHORIZATION_NOT_ACTIVE, "only an emergency that was approved is reviewed")
    if found.standing.reviewed:
        raise FailedPrecondition(Reason.AUTHORIZATION_CHANGED, "it was reviewed already")
    if found.standing.took_part(by):
        raise _not_allowed("nobody reviews what they took part in")


def check_emergency(terms: Terms) -> None:
    """Check that emergencies are provided for; raises `PermissionDenied` EMERGENCY_NOT_ALLOWED."""
    if not terms.break_glass:
        raise PermissionDenied(Reason.EMERGENCY_NOT_ALLOWED, "this zone knows no emergency authorizations")


def review_due() -> FailedPrecondition:
    """Word that an emergency of the same officer ought to have been reviewed first."""
    return FailedPrecondition(Reason.REVIEW_DUE, "an earlier emergency of this officer has yet to be reviewed")


def _not_allowed(why: str) -> PermissionDenied:
    return PermissionDenied(Reason.APPROVER_NOT_ALLOWED, why)
