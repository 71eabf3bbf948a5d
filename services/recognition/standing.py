"""Whether a result counts at a moment: checked when it is recognised, and again whenever something is decided on it."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from services.kit.credentials import results
from services.kit.credentials.published import PublishedKeys
from services.kit.credentials.results import Statement
from services.kit.errors import HutongError, Reason
from services.recognition import locks
from services.recognition.stage_results import COLUMNS, Result, State, of_row, of_subject
from services.recognition.tables import RESULT, TASK
from services.recognition.tasks import Disposition, TaskKind

ABOUT: Final = "about"
"""The entry of a value that names the one thing a fact is about, where a subject has many of them: a declaration."""

DENIES: Final = "holds"
"""The entry of a value that says, where it is false, that the fact does not hold."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a result counts at a moment."""

    ok: bool
    """It stands; or it does not, and whoever recognised it in the case has upheld what rests on it."""
    reason: Reason | None = None
    """Why it does not stand."""
    upheld: bool = False


def standing(
    connection: sa.Connection, published: PublishedKeys, refs: Iterable[str], now: dt.datetime, *, case_id: str = ""
) -> Mapping[str, Standing]:
    """Tell which results count now: in the register, signed with a key that is still believed, in time, and VALID.

    One that a newer one of the same content took the place of stands with that one. `case_id` says in which case:
    where its recogniser has upheld what rests on a result that does not stand, it counts there.
    """
    locks.building(connection)
    wanted = sorted(set(refs))
    if not wanted:
        return {}
    select = sa.select(*COLUMNS).where(RESULT.c.result_ref.in_(wanted))
    found = {row.result_ref: of_row(row) for row in connection.execute(select)}
    return {ref: _standing(connection, published, found.get(ref), now, case_id) for ref in wanted}


def _standing(
    connection: sa.Connection, published: PublishedKeys, result: Result | None, now: dt.datetime, case_id: str
) -> Standing:
    if result is None:
        return Standing(ok=False, reason=Reason.RESULT_NOT_FOUND)
    reason = trouble(connection, published, result, now)
    if reason is None:
        return Standing(ok=True)
    upheld = bool(case_id) and _upheld(connection, result, reason, case_id)
    return Standing(ok=upheld, reason=reason, upheld=upheld)


TROUBLE: Final = {
    State.SUSPENDED: Reason.RESULT_SUSPENDED,
    State.REVOKED: Reason.RESULT_REVOKED,
    State.SUPERSEDED: Reason.RESULT_SUPERSEDED,
}


def trouble(connection: sa.Connection, published: PublishedKeys, result: Result, now: dt.datetime) -> Reason | None:
    """Say why a result does not stand; None where it does."""
    if result.state in {State.SUSPENDED, State.REVOKED}:
        return TROUBLE[result.state]
    try:
        statement = checked(published, result, now)
    except HutongError as error:
        return error.reason
    if statement.value.get(DENIES) is False:
        return Reason.RESULT_FACT
    if result.state is State.SUPERSEDED and not _succeeded(connection, published, result, statement, now):
        return Reason.RESULT_SUPERSEDED
    return None


def checked(published: PublishedKeys, result: Result, now: dt.datetime) -> Statement:
    """Verify a result once more, with the keys as they are published now; raises as `results.verify` does."""
    subject = f"{result.scheme}:{result.subject}"
    return results.verify(result.credential, published, at=now, issuer=result.issuer, subject=subject, fact=result.fact)


def _succeeded(
    connection: sa.Connection, published: PublishedKeys, result: Result, statement: Statement, now: dt.datetime
) -> bool:
    """Tell whether the one that took a result's place stands, is as thorough and says the same."""
    valid = of_subject(connection, result.scheme, result.subject, fact=result.fact, states=[State.VALID])
    for other in valid:
        if (other.issuer, other.stage) != (result.issuer, result.stage) or other.assurance.rank < result.assurance.rank:
            continue
        try:
            newer = checked(published, other, now)
        except HutongError:
            continue
        if agree(statement.value, newer.value) and newer.value.get(ABOUT) == statement.value.get(ABOUT):
            return True
    return False


def agree(one: Mapping[str, Any], other: Mapping[str, Any], claims: Iterable[str] | None = None) -> bool:
    """Tell whether two values say the same where both say something: in all entries, or in `claims` only."""
    names = one.keys() & other.keys()
    if claims is not None:
        names &= {*claims, DENIES}
    return all(one[name] == other[name] for name in names)


def _upheld(connection: sa.Connection, result: Result, reason: Reason, case_id: str) -> bool:
    """Tell whether a recogniser in this case has looked at what is wrong now, and lets it be."""
    about = sa.and_(TASK.c.reason == str(reason), TASK.c.origin_ref == result.result_ref)
    if reason in TROUBLE.values():
        # Looked at before the state changed once more is not looked at.
        about = TASK.c.raised_at >= result.state_changed_at
    select = sa.select(TASK.c.task_id).where(
        TASK.c.case_id == case_id,
        TASK.c.result_ref == result.result_ref,
        TASK.c.kind == str(TaskKind.RESULT_REVOKED),
        TASK.c.disposition.in_([str(Disposition.UPHELD), str(Disposition.NOT_AFFECTED)]),
        about,
    )
    return connection.execute(select.limit(1)).first() is not None
