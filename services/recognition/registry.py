"""The register of stage results: entered once they are signed, standing until they are revoked.

The credential is what counts; a row holds what it is found by, and its state. An entry of a status list is reserved
before a credential is signed, because the credential names it.

Functions take a connection inside their caller's transaction. Events are added to `post`, a list which the caller puts
into the outbox last. `revoke` takes a stronger lock than the others: a transaction that revokes does it first.
"""

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from services.kit.credentials import results, sdjwt
from services.kit.credentials.results import Statement
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from services.kit.events import outbox
from services.kit.events.outbox import NewEvent
from services.kit.records.inserts import insert_or_ignore
from services.recognition import cascade, locks, status_lists, tasks
from services.recognition.events import Assurance
from services.recognition.reasons import Ground
from services.recognition.stage_results import COLUMNS, Result, State, get, of_row, of_subject
from services.recognition.standing import ABOUT, TROUBLE, Standing, standing
from services.recognition.status_lists import Reserved, reserve
from services.recognition.tables import RESTS_ON, RESULT, TOLD
from services.recognition.tasks import Desk, Task

__all__ = [
    "Change",
    "Changed",
    "Entered",
    "Reserved",
    "Result",
    "Standing",
    "State",
    "enter",
    "get",
    "of_subject",
    "reserve",
    "revoke",
    "standing",
]

ISSUED, SUPERSEDED = "result.issued", "result.superseded"
"""Kinds of events."""


class Change(StrEnum):
    """What its issuer does to a result."""

    REVOKE = "REVOKE"
    SUSPEND = "SUSPEND"
    REINSTATE = "REINSTATE"


_EVENT: Final = {
    Change.REVOKE: "result.revoked",
    Change.SUSPEND: "result.suspended",
    Change.REINSTATE: "result.reinstated",
}


@dataclass(frozen=True, slots=True)
class Entered:
    """A result that was entered."""

    result: Result
    fresh: bool
    """It was not there before."""
    superseded: tuple[str, ...] = ()
    """References of those whose place it took."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of a revocation, a suspension or a reinstatement."""

    result: Result
    tasks: tuple[Task, ...] = ()
    changed: bool = True


def enter(
    connection: sa.Connection,
    statement: Statement,
    credential: str,
    *,
    case_id: str,
    stage: str,
    rests_on: Iterable[str] = (),
    now: dt.datetime,
    recognisers: Collection[str] = (),
    post: list[NewEvent],
) -> Entered:
    """Enter a result that was verified; entered again, it changes nothing.

    `rests_on` are the results it was decided on, `recognisers` the agencies to be told. It takes the place of an older
    one of the same issuer, subject, fact and stage. Raises `InvalidArgument`: RESULT_ID_REUSED for a reference that
    stands for something else, or is another case's; RESULT_DISCLOSURE for a credential that withholds something;
    RESULT_SUBJECT for one that names another case or stage; STATUS_LIST_INVALID for one that does not name the entry
    that was reserved for it; RESULT_MALFORMED. Raises `FailedPrecondition` RESULT_REVOKED or RESULT_SUSPENDED for one
    that was entered before, and taken back since.
    """
    locks.building(connection)
    locks.fact(connection, statement.issuer, statement.scheme, statement.subject, statement.fact)
    new = _result(statement, credential, case_id, stage, now)
    if known := connection.execute(sa.select(*COLUMNS).where(RESULT.c.result_ref == new.result_ref)).one_or_none():
        return Entered(_standing(_same(of_row(known), new)), fresh=False)
    _check(statement, case_id, stage)
    status_lists.check(connection, statement)
    older, newer = _rivals(connection, statement, new)
    if newer:
        new = replace(new, state=State.SUPERSEDED)
    # The connection's own lock is on the fact, not on the reference, which may be used for two facts at once.
    if not status_lists.inserted(connection, RESULT, _row(new)):
        return Entered(_same(get(connection, new.result_ref), new), fresh=False)
    status_lists.fill(connection, new.result_ref, now)
    for ref in (r.result_ref for r in older):
        _set_state(connection, ref, State.SUPERSEDED, "", now)
    if newer:
        status_lists.mark(connection, new.result_ref, State.SUPERSEDED)
    edges = [{"result_ref": new.result_ref, "rests_on": ref} for ref in sorted(set(rests_on) - {new.result_ref})]
    if edges:
        connection.execute(sa.insert(RESTS_ON), edges)
    post.extend(_told(new, agency) for agency in sorted(set(recognisers) - {new.issuer}))
    for result in older:
        post.extend(_news(connection, SUPERSEDED, result, ""))
    return Entered(new, fresh=True, superseded=tuple(r.result_ref for r in older))


def _check(statement: Statement, case_id: str, stage: str) -> None:
    if statement.withheld:
        raise InvalidArgument(Reason.RESULT_DISCLOSURE, "a result is entered with everything that it can disclose")
    if statement.case_id not in {"", case_id} or statement.stage not in {"", stage}:
        raise InvalidArgument(Reason.RESULT_SUBJECT, "the result was signed for another case or stage")


def _result(statement: Statement, credential: str, case_id: str, stage: str, now: dt.datetime) -> Result:
    if statement.assurance not in set(Assurance):
        raise InvalidArgument(Reason.RESULT_MALFORMED, f"assurance is one of {', '.join(Assurance)}")
    return Result(
        result_ref=statement.ref,
        case_id=case_id,
        stage=stage,
        issuer=statement.issuer,
        scheme=statement.scheme,
        subject=statement.subject,
        fact=statement.fact,
        assurance=Assurance(statement.assurance),
        issued_at=statement.issued_at,
        valid_from=statement.valid_from,
        valid_until=statement.valid_until,
        state=State.VALID,
        state_reason="",
        state_changed_at=now,
        credential=credential,
        key_id=statement.key_id,
    )


def _row(result: Result) -> dict[str, Any]:
    row = {f.name: getattr(result, f.name) for f in fields(result)}
    return row | {"assurance": str(result.assurance), "state": str(result.state)}


def _same(known: Result, new: Result) -> Result:
    """See that a reference that is known stands for the same; the disclosures sent along may differ."""

    def signed(result: Result) -> tuple[str, ...]:
        return (result.credential.partition("~")[0], result.case_id, result.stage)

    if signed(known) != signed(new):
        message = "this reference stands for another result, or for one of another case, already"
        raise InvalidArgument(Reason.RESULT_ID_REUSED, message, result_ref=known.result_ref)
    return known


def _standing(known: Result) -> Result:
    """See that a result that is handed in again has not been taken back meanwhile."""
    if known.state in {State.REVOKED, State.SUSPENDED}:
        message = f"this result is {known.state}: it cannot be handed in again"
        raise FailedPrecondition(TROUBLE[known.state], message, result_ref=known.result_ref)
    return known


def _rivals(connection: sa.Connection, statement: Statement, new: Result) -> tuple[list[Result], list[Result]]:
    """Find what stands of the same issuer on the same: what is not newer, and what is."""
    standing_now = of_subject(connection, new.scheme, new.subject, fact=new.fact, states=[State.VALID])
    rivals = [
        r
        for r in standing_now
        if (r.issuer, r.stage) == (new.issuer, new.stage) and _about(r.credential) == statement.value.get(ABOUT)
    ]
    older = [r for r in rivals if r.issued_at <= new.issued_at]
    return older, [r for r in rivals if r.issued_at > new.issued_at]


def _about(credential: str) -> Any:
    claims = sdjwt.unpack(sdjwt.read(credential, typ=results.TYPE)).claims
    return claims.get("value", {}).get(ABOUT)


def _set_state(connection: sa.Connection, ref: str, state: State, reason: str, now: dt.datetime) -> None:
    changed = {"state": str(state), "state_reason": reason, "state_changed_at": now}
    connection.execute(sa.update(RESULT).where(RESULT.c.result_ref == ref).values(**changed))
    status_lists.mark(connection, ref, state)


def _payload(result: Result, reason: str = "") -> dict[str, str]:
    # No subject: an event says that there is something to look up, and the look-up is decided on.
    return {
        "result_ref": result.result_ref,
        "issuer_agency": result.issuer,
        "fact_code": result.fact,
        "assurance": str(result.assurance),
        "case_id": result.case_id,
        "stage_code": result.stage,
        "reason_code": reason,
    }


def _told(result: Result, agency: str) -> NewEvent:
    # Its id says who was told of which result: they are told, too, what becomes of it.
    event_id = f"{_issued(result.result_ref)}:{agency}"
    return NewEvent(agency, ISSUED, result.case_id or result.result_ref, _payload(result), event_id)


def _issued(ref: str) -> str:
    return f"issued:{ref}"


def leaving(connection: sa.Connection, agency: str, event_ids: Iterable[str]) -> None:
    """Keep who was told of which result, when the events that say so leave the outbox (`retention.Leaving`)."""
    begin, end = _issued(""), f":{agency}"
    refs = [each[len(begin) : -len(end)] for each in event_ids if each.startswith(begin) and each.endswith(end)]
    if refs:
        rows = [{"result_ref": ref, "agency": agency} for ref in refs]
        connection.execute(insert_or_ignore(connection, TOLD).values(rows))


def _news(
    connection: sa.Connection, kind: str, result: Result, reason: str, more: Iterable[str] = ()
) -> list[NewEvent]:
    """Tell everyone who recognised a result or was told that it is there, and `more`, what became of it."""
    told = {a.owner for a in cascade.recognisers(connection, [result.result_ref])} | set(more)
    # In this order: who leaves the outbox meanwhile is found in the other.
    told |= outbox.audiences(connection, _issued(result.result_ref))
    told |= set(connection.execute(sa.select(TOLD.c.agency).where(TOLD.c.result_ref == result.result_ref)).scalars())
    key, payload = result.case_id or result.result_ref, _payload(result, reason)
    return [NewEvent(agency, kind, key, payload) for agency in sorted(told - {result.issuer})]


def revoke(
    connection: sa.Connection,
    desk: Desk,
    ref: str,
    reason: str,
    now: dt.datetime,
    *,
    issuer: str,
    change: Change = Change.REVOKE,
    post: list[NewEvent],
) -> Changed:
    """Revoke a result, suspend it, or let a suspended one stand again; done again, it changes nothing.

    A revocation raises a task at every recogniser, and at every issuer and recogniser of what was decided on it,
    however far; it undoes nothing. Raises `NotFound` where the issuer has no such result, `InvalidArgument` with
    REASON_MISSING or REASON_UNKNOWN, and `FailedPrecondition` where its state does not allow it.
    """
    locks.revoking(connection)
    result = get(connection, ref, lock=True)
    if result.issuer != issuer:
        raise NotFound(Reason.RESULT_NOT_FOUND, "there is no such result")
    if change is not Change.REINSTATE:
        desk.reasons.check(Ground.REVOKE, reason)
    else:
        reason = ""  # what stands again needs none, and free text ends up as whatever people write
    state = _next_state(connection, result, change)
    if state is result.state:
        return Changed(result, changed=False)
    _set_state(connection, ref, state, reason, now)
    changed = replace(result, state=state, state_reason=reason, state_changed_at=now)
    if change is not Change.REVOKE:
        post.extend(_news(connection, _EVENT[change], changed, reason))
        return Changed(changed)
    affected = cascade.affected(connection, ref)
    post.extend(_news(connection, _EVENT[change], changed, reason, {a.owner for a in affected}))
    wanted = [cascade.task(a, origin=ref, changed_at=now, reason=reason) for a in affected]
    return Changed(changed, tuple(tasks.raise_(connection, desk, wanted, now, post=post)))


def _next_state(connection: sa.Connection, result: Result, change: Change) -> State:
    match change, result.state:
        case Change.REVOKE, _:
            return State.REVOKED
        case Change.SUSPEND, State.VALID | State.SUSPENDED:
            return State.SUSPENDED
        case Change.REINSTATE, State.VALID | State.SUPERSEDED:
            return result.state
        case Change.REINSTATE, State.SUSPENDED:
            return _reinstated(connection, result)
        case _:
            message = f"it is {result.state}, and that does not change any more but by revoking"
            raise FailedPrecondition(TROUBLE[result.state], message, result_ref=result.result_ref)


def _reinstated(connection: sa.Connection, result: Result) -> State:
    """A suspended result stands again, unless a newer one has taken its place meanwhile."""
    valid = of_subject(connection, result.scheme, result.subject, fact=result.fact, states=[State.VALID])
    newer = any(
        (r.issuer, r.stage) == (result.issuer, result.stage)
        and r.issued_at >= result.issued_at
        and _about(r.credential) == _about(result.credential)
        for r in valid
    )
    return State.SUPERSEDED if newer else State.VALID
