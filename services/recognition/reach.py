"""Who reaches what, before any policy is asked: an enterprise its own, an agency what it takes part in or was given.

An agency takes part in a case as its lead or with a stage of its own. Of other cases it reaches the stages in which it
recognised a result, and those of its tasks. It reaches a result in full where it issued it, recognised it, or has an
open case about the same subject and an arrangement that lets it recognise the result. Where there is only the
arrangement, or the result stands in a case of its own or in a task, it reaches that there is one, and not what is in
it. Whoever reaches nothing of a thing is told that there is none.

Auditors take part in nothing and have no case by themselves. Under an authorization they reach the cases of those whom
it names, and none of anybody else; which is why they ask through a gateway, by subject, and not for cases by id.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import sqlalchemy as sa

from services.kit.caller import Caller, own_subject
from services.recognition import ledger
from services.recognition.arrangements import Arrangements
from services.recognition.events import Event, Kind
from services.recognition.ledger import Head, Selection
from services.recognition.stage_results import Result
from services.recognition.tables import RECOGNITION, TASK

AUDIT: Final = "audit"
"""The agency of auditors."""

_MOST_GIVEN: Final = 1000
"""Most cases that an agency takes no part in and that are listed for it."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What of a case somebody reaches."""

    stages: frozenset[str] | None = None
    """Codes of the stages; None for all of the case."""

    def __contains__(self, stage: object) -> bool:
        return self.stages is None or stage in self.stages


ALL: Final = Reached()


class Depth(IntEnum):
    """How much of a result somebody reaches."""

    NOTHING = 0
    OUTLINE = 1
    """Everything but the credential."""
    FULL = 2


def shows(part: Reached, event: Event) -> bool:
    """Tell whether an event belongs to what is reached of its case: its stage's events, and how the case began."""
    return event.stage in part or event.kind is Kind.SUBMIT


def find(connection: sa.Connection, caller: Caller, case_id: str) -> tuple[Head, Reached] | None:
    """Find a case that a caller reaches, and what of it; none where it is not there, or not this caller's.

    The two look at the same things in the same order: how long it takes must not tell which it was.
    """
    if (subject := own_subject(caller)) is not None:
        part = ALL if ledger.concerns(connection, case_id, *subject) else None
    else:
        part = of_agency(connection, caller.agency, case_id)
    head = None if part is None else ledger.load_head(connection, case_id)
    return None if head is None or part is None else (head, part)


def case(connection: sa.Connection, caller: Caller, head: Head, *, authorized: bool = False) -> Reached | None:
    """Say what of a case a caller reaches; None where nothing.

    `authorized` says that the caller asks under an authorization that names whom the case is about: to those who take
    part in cases it opens no others.
    """
    if authorized and caller.agency == AUDIT:
        return ALL
    if (subject := own_subject(caller)) is not None:
        return ALL if (head.scheme, head.subject) == subject else None
    return of_agency(connection, caller.agency, head.case_id)


def of_agency(connection: sa.Connection, agency: str, case_id: str) -> Reached | None:
    """Say what of a case an agency reaches; None where nothing."""
    if ledger.takes_part(connection, agency, case_id):
        return ALL
    given = {stage for _, stage in connection.execute(_given(agency, case_id))}
    return Reached(frozenset(given)) if given else None


def _given(agency: str, case_id: str = "") -> "sa.CompoundSelect[str, str]":
    """Select case and stage of what an agency was given by a recognition or a task, of one case or of all."""
    recognised = sa.select(RECOGNITION.c.case_id, RECOGNITION.c.stage).where(RECOGNITION.c.recogniser == agency)
    tasks = sa.select(TASK.c.case_id, TASK.c.stage).where(TASK.c.owner_agency == agency)
    if case_id:
        return sa.union(recognised.where(RECOGNITION.c.case_id == case_id), tasks.where(TASK.c.case_id == case_id))
    # Tasks about results that were issued outside any case name none.
    return sa.union(recognised, tasks.where(TASK.c.case_id != ""))


def selection(connection: sa.Connection, caller: Caller) -> Selection:
    """Select the cases a caller reaches."""
    if (subject := own_subject(caller)) is not None:
        return Selection(scheme=subject[0], subject=subject[1])
    given = connection.execute(_given(caller.agency).limit(_MOST_GIVEN))
    return Selection(agency=caller.agency, case_ids=tuple(sorted({case_id for case_id, _ in given})))


@dataclass(frozen=True, slots=True)
class Results:
    """Which results somebody reaches."""

    arrangements: Arrangements

    def depths(
        self, connection: sa.Connection, caller: Caller, results: Collection[Result], now: dt.datetime
    ) -> Mapping[str, Depth]:
        """Say how much of each result a caller reaches."""
        if (subject := own_subject(caller)) is not None:
            return {r.result_ref: Depth.FULL if (r.scheme, r.subject) == subject else Depth.NOTHING for r in results}
        refs = [r.result_ref for r in results]
        recognised = _refs(connection, RECOGNITION.c.result_ref, RECOGNITION.c.recogniser == caller.agency, refs)
        tasks = _refs(connection, TASK.c.result_ref, TASK.c.owner_agency == caller.agency, refs)
        tasks |= _refs(connection, TASK.c.origin_ref, TASK.c.owner_agency == caller.agency, refs)
        return {
            r.result_ref: Depth.FULL
            if r.issuer == caller.agency or r.result_ref in recognised
            else max(
                self._by_arrangement(connection, caller, r, now),
                Depth.OUTLINE if r.result_ref in tasks or _in_own_case(connection, caller, r) else Depth.NOTHING,
            )
            for r in results
        }

    def _by_arrangement(self, connection: sa.Connection, caller: Caller, result: Result, now: dt.datetime) -> Depth:
        agency = caller.agency
        if agency not in self.arrangements.recognisers(result.issuer, result.fact, now, (agency,)):
            return Depth.NOTHING
        # An open one: that it has dealt with somebody once is no reason to read all that is found out ever after.
        about = Selection(agency=agency, scheme=result.scheme, subject=result.subject, open_only=True)
        return Depth.FULL if ledger.list_heads(connection, about, limit=1) else Depth.OUTLINE


def _in_own_case(connection: sa.Connection, caller: Caller, result: Result) -> bool:
    # Asked also where it is in none: what is not there must take as long as what is.
    return ledger.takes_part(connection, caller.agency, result.case_id)


def _refs(
    connection: sa.Connection, column: "sa.Column[str]", condition: sa.ColumnElement[bool], refs: Collection[str]
) -> set[str]:
    return set(connection.execute(sa.select(column).where(column.in_(refs), condition)).scalars())
