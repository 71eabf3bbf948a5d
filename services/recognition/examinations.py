"""Who examines what: nobody opens an examination of a fact that another one is open for, or stands, without being told.

An open examination that others are told of holds slot 0 of its subject and fact, and a unique index sees to it that
there is one only: of two agencies in the same millisecond, the database turns one away. Functions take a connection
inside their caller's transaction.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from services.kit.credentials.published import PublishedKeys
from services.kit.errors import Aborted, FailedPrecondition, HutongError, InvalidArgument, Reason
from services.kit.records.inserts import insert_or_ignore
from services.recognition.stage_results import State, of_subject
from services.recognition.standing import ABOUT, DENIES, checked
from services.recognition.tables import EXAMINATION

_TRIES: Final = 5
"""How often the next slot is taken by another before this one is told to come again."""


@dataclass(frozen=True, slots=True)
class Examination:
    """An examination to be opened."""

    id: str
    """Id of the START event."""
    scheme: str
    subject: str
    fact: str
    agency: str
    case_id: str
    stage: str
    at: dt.datetime
    despite: str = ""
    """The examination, or result, that the agency was told of."""
    reason: str = ""
    """Why it goes on despite that."""


@dataclass(frozen=True, slots=True)
class Other:
    """What an agency is told of: an examination that is open, or a result that stands."""

    id: str
    """What `despite` has to name: id of the examination, or reference of the result."""
    agency: str
    case_id: str
    stage: str
    slot: int = 0


def open_(
    connection: sa.Connection, published: PublishedKeys, wanted: Examination, refused: Collection[str] = ()
) -> None:
    """Open an examination; results in `refused` are those that the agency has refused for this stage already.

    Raises `FailedPrecondition` with EXAMINATION_OPEN or EXAMINATION_VALID where there is another that `wanted.despite`
    does not name, and `InvalidArgument` with REASON_MISSING where it does so without a reason.
    """
    for _ in range(_TRIES):
        others = opened(connection, wanted.scheme, wanted.subject, wanted.fact)
        _check(wanted, others, standing(connection, published, wanted, refused))
        if _put(connection, wanted, 1 + max((o.slot for o in others), default=-1)):
            # Another may have been closed with a result between the look and the step.
            _check(wanted, [], standing(connection, published, wanted, refused))
            return
    raise Aborted(Reason.VERSION_CONFLICT, "others open examinations of the same at this moment; try again")


def _check(wanted: Examination, others: list[Other], valid: Other | None) -> None:
    """See that the agency knows of the others; whoever names one of them has been told."""
    known = [*others] if valid is None else [valid, *others]
    if not known:
        return
    if wanted.despite not in {o.id for o in known}:
        reason = Reason.EXAMINATION_OPEN if valid is None else Reason.EXAMINATION_VALID
        what = "is open" if valid is None else "has a result that stands"
        raise FailedPrecondition(
            reason,
            f"an examination of {wanted.fact} for this subject {what}, at {known[0].agency}: rely on it, or name it "
            "(despite) with a reason",
            agency=known[0].agency,
            case_id=known[0].case_id,
            stage=known[0].stage,
            fact=wanted.fact,
            result_ref="" if valid is None else valid.id,
            despite=known[0].id,
        )
    if not wanted.reason:
        raise InvalidArgument(Reason.REASON_MISSING, "examining again needs a reason", stage=wanted.stage)


def _put(connection: sa.Connection, wanted: Examination, slot: int) -> bool:
    # On PostgreSQL this waits for whoever is opening the same slot now, and what is read afterwards sees theirs.
    done = connection.execute(
        insert_or_ignore(connection, EXAMINATION).values(
            id=wanted.id,
            scheme=wanted.scheme,
            subject=wanted.subject,
            fact=wanted.fact,
            agency=wanted.agency,
            case_id=wanted.case_id,
            stage=wanted.stage,
            opened_at=wanted.at,
            closed_at=None,
            despite=wanted.despite,
            reason=wanted.reason,
            slot=slot,
        )
    )
    return bool(done.rowcount)


def opened(connection: sa.Connection, scheme: str, subject: str, fact: str) -> list[Other]:
    """List the examinations of a fact about a subject that are open, the one that others are told of first."""
    table = EXAMINATION.c
    select = sa.select(table.id, table.agency, table.case_id, table.stage, table.slot).where(
        table.scheme == scheme, table.subject == subject, table.fact == fact, table.closed_at.is_(None)
    )
    return [Other(*row) for row in connection.execute(select.order_by(table.slot))]


def standing(
    connection: sa.Connection, published: PublishedKeys, wanted: Examination, refused: Collection[str] = ()
) -> Other | None:
    """Find the newest result of the same subject and fact that stands, and is none of `refused`.

    One that is about a single thing among many, as a declaration is, says nothing of the next.
    """
    for result in of_subject(connection, wanted.scheme, wanted.subject, fact=wanted.fact, states=[State.VALID]):
        if result.result_ref in refused:
            continue
        try:
            value = checked(published, result, wanted.at).value
        except HutongError:
            continue  # lapsed, or signed with a key that is no longer believed
        if ABOUT not in value and value.get(DENIES) is not False:
            return Other(result.result_ref, result.issuer, result.case_id, result.stage)
    return None


def close(connection: sa.Connection, case_id: str, stage: str | None, at: dt.datetime) -> None:
    """Close the open examination of a stage, if there is one; of the whole case with None."""
    table = EXAMINATION.c
    update = sa.update(EXAMINATION).where(table.case_id == case_id, table.closed_at.is_(None))
    if stage is not None:
        update = update.where(table.stage == stage)
    connection.execute(update.values(closed_at=at))
