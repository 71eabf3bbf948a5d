"""Recognition: which result takes the place of a stage, or answers what a stage demands.

A recogniser checks: the signature, with the keys as they are published now; subject and fact; the assurance that stage,
procedure and arrangement ask for; age and validity; the arrangement's condition, on what is disclosed; and that the
result stands. Where agencies say different things of the same fact, nothing is recognised, and the lead agency is told.

Functions take a connection inside their caller's transaction. Events are added to `post`, a list which the caller puts
into the outbox last.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from services.kit.credentials.published import PublishedKeys
from services.kit.errors import HutongError, Reason
from services.kit.events.outbox import NewEvent
from services.kit.records.inserts import insert_or_ignore
from services.recognition import cascade, locks, tasks
from services.recognition.arrangements import Arrangement, Arrangements
from services.recognition.cascade import Affected
from services.recognition.events import Assurance
from services.recognition.procedure import Demand, Procedure, Stage
from services.recognition.stage_results import Result, State, get, of_subject
from services.recognition.standing import ABOUT, DENIES, TROUBLE, Standing, agree, checked
from services.recognition.tables import RECOGNITION
from services.recognition.tasks import Desk, NewTask, Task, TaskKind


@dataclass(frozen=True, slots=True)
class Match:
    """A result that is accepted, and on what ground."""

    ref: str
    issuer: str
    arrangement: str
    """`CODE@version` of the arrangement, or of the procedure it is derived from."""
    assurance: Assurance
    valid_until: dt.datetime | None
    since: dt.datetime | None = None
    """Since when it could have been recognised, by all that is known; None where nobody asks."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A result that stands, with what it discloses."""

    result: Result
    value: Mapping[str, Any]


def matching(
    connection: sa.Connection,
    arrangements: Arrangements,
    published: PublishedKeys,
    desk: Desk,
    *,
    scheme: str,
    subject: str,
    stage: Stage,
    procedure: Procedure,
    case_id: str,
    now: dt.datetime,
    excluded: Collection[str] = (),
    post: list[NewEvent],
) -> Match | None:
    """Find the result that takes a stage's place: the most thorough, then the newest.

    `excluded` are those that the stage's agency has refused. Where another agency's standing result disagrees with it
    there is none, and the lead agency gets a task.
    """
    demand = procedure.needs(stage)
    if demand is None:
        return None
    standing = _standing(connection, published, scheme, subject, demand.fact, now)
    others = [f for f in standing if (f.result.case_id, f.result.stage) != (case_id, stage.code)]
    eligible = [f for f in others if f.result.result_ref not in excluded]
    best = _best(arrangements, eligible, demand, stage, procedure, now)
    if best is None:
        return None
    found, arrangement = best
    if against := _contradicted(found, others, arrangement):
        _disagree(connection, desk, procedure.lead, case_id, stage, (found.result, against), now, post)
        return None
    return replace(_match(found, arrangement), since=_since(connection, found.result, arrangement, now))


def _since(connection: sa.Connection, result: Result, arrangement: Arrangement, now: dt.datetime) -> dt.datetime:
    """Say since when a result has stood, under its arrangement, with nobody's word against it.

    Who has said something else of the same since, or says nothing any more, may have been against it until then.
    """
    moments = [result.state_changed_at, arrangement.effective_from]
    words: defaultdict[str, list[Result]] = defaultdict(list)
    for other in of_subject(connection, result.scheme, result.subject, fact=result.fact):
        words[other.issuer].append(other)
    del words[result.issuer]
    for said in words.values():
        ends = [r.valid_until for r in said if r.valid_until is not None and r.valid_until <= now]
        if ends or len(said) > 1 or said[0].state is not State.VALID:
            moments += [*ends, *(r.state_changed_at for r in said)]
    return max(moments)


def demanded(
    connection: sa.Connection,
    arrangements: Arrangements,
    published: PublishedKeys,
    *,
    scheme: str,
    subject: str,
    stage: Stage,
    procedure: Procedure,
    proven: Collection[str],
    now: dt.datetime,
) -> Mapping[Demand, Match | None]:
    """For each fact that a stage requires and the case itself does not prove: the result from outside that does.

    `proven` are the facts that other stages of the case have proven, or that belong to stages that do not apply.
    """
    found: dict[Demand, Match | None] = {}
    for demand in stage.requires:
        if demand.fact in proven:
            continue
        standing = _standing(connection, published, scheme, subject, demand.fact, now)
        best = _best(arrangements, standing, demand, stage, procedure, now)
        agreed = best is not None and not _contradicted(best[0], standing, best[1])
        found[demand] = _match(*best) if best is not None and agreed else None
    return found


def _standing(
    connection: sa.Connection, published: PublishedKeys, scheme: str, subject: str, fact: str, now: dt.datetime
) -> list[_Found]:
    locks.building(connection)
    found: list[_Found] = []
    for result in of_subject(connection, scheme, subject, fact=fact, states=[State.VALID]):
        try:
            value = checked(published, result, now).value
        except HutongError:
            continue  # expired, not yet valid, or signed with a key that is no longer believed
        if ABOUT not in value:
            # What is about one thing among many proves nothing of the subject as a whole.
            found.append(_Found(result, value))
    return found


def _best(
    arrangements: Arrangements,
    standing: Iterable[_Found],
    demand: Demand,
    stage: Stage,
    procedure: Procedure,
    now: dt.datetime,
) -> tuple[_Found, Arrangement] | None:
    accepting = arrangements.accepting(stage.agency, demand.fact, now, procedure=procedure.code, stage=stage.code)
    fitting = [
        (found, arrangement)
        for found in standing
        for arrangement in accepting
        if _accepts(arrangement, stage.agency, found, demand, now)
    ]
    return max(fitting, key=lambda pair: _merit(pair[0].result), default=None)


def _merit(result: Result) -> tuple[int, dt.datetime, str]:
    return (result.assurance.rank, result.issued_at, result.result_ref)


def _accepts(arrangement: Arrangement, recogniser: str, found: _Found, demand: Demand, now: dt.datetime) -> bool:
    result = found.result
    needed = max(arrangement.assurance.rank, demand.assurance.rank)
    return (
        arrangement.takes(recogniser, result.issuer)
        and result.assurance.rank >= needed
        and demand.fresh(result.issued_at, now)
        and arrangement.fresh(result.issued_at, now)
        and found.value.get(DENIES) is not False
        and arrangement.satisfied(found.value)
    )


def _contradicted(found: _Found, standing: Sequence[_Found], arrangement: Arrangement) -> Result | None:
    """Find another agency's newest result of the same fact that says something else."""
    seen = {found.result.issuer}
    for other in standing:  # the newest first
        if other.result.issuer in seen:
            continue
        seen.add(other.result.issuer)
        if not agree(found.value, other.value, arrangement.compare) or other.value.get(DENIES) is False:
            return other.result
    return None


def _disagree(
    connection: sa.Connection,
    desk: Desk,
    lead: str,
    case_id: str,
    stage: Stage,
    pair: tuple[Result, Result],
    now: dt.datetime,
    post: list[NewEvent],
) -> None:
    one, other = pair
    refs = sorted((one.result_ref, other.result_ref))
    task = NewTask(
        TaskKind.FACTS_DISAGREE,
        owner=lead,
        case_id=case_id,
        stage=stage.code,
        result_ref=one.result_ref,
        origin_ref=other.result_ref,
        reason=TaskKind.FACTS_DISAGREE,
        cause=":".join((TaskKind.FACTS_DISAGREE, case_id, stage.code, *refs)),
    )
    tasks.raise_(connection, desk, [task], now, post=post)


def _match(found: _Found, arrangement: Arrangement) -> Match:
    result = found.result
    return Match(result.result_ref, result.issuer, arrangement.label, result.assurance, result.valid_until)


def note(
    connection: sa.Connection, *, case_id: str, stage: str, match: Match, recogniser: str, now: dt.datetime
) -> None:
    """Record a recognition, once: with the event RECOGNISE, or with a decision that demanded the fact."""
    locks.building(connection)
    row = {
        "case_id": case_id,
        "stage": stage,
        "result_ref": match.ref,
        "recogniser": recogniser,
        "arrangement": match.arrangement,
        "recognised_at": now,
        "refused_at": None,
        "refused_reason": "",
    }
    connection.execute(insert_or_ignore(connection, RECOGNITION).values(**row))


def refuse(
    connection: sa.Connection,
    desk: Desk,
    *,
    case_id: str,
    stage: str,
    ref: str,
    recogniser: str,
    reason: str,
    lead: str,
    now: dt.datetime,
    post: list[NewEvent],
) -> list[Task]:
    """Record a refusal; with the event REFUSE_RECOGNITION. The lead agency looks at it."""
    update = sa.update(RECOGNITION).where(
        RECOGNITION.c.case_id == case_id,
        RECOGNITION.c.stage == stage,
        RECOGNITION.c.result_ref == ref,
        RECOGNITION.c.recogniser == recogniser,
        RECOGNITION.c.refused_at.is_(None),
    )
    connection.execute(update.values(refused_at=now, refused_reason=reason))
    task = NewTask(TaskKind.RECOGNITION_REFUSED, lead, case_id, stage, result_ref=ref, origin_ref=ref, reason=reason)
    return tasks.raise_(connection, desk, [task], now, post=post)


def question(
    connection: sa.Connection,
    desk: Desk,
    *,
    case_id: str,
    standings: Mapping[str, Standing],
    now: dt.datetime,
    agency: str = "",
    stage: str = "",
    post: list[NewEvent],
) -> list[Task]:
    """Raise a task for each result that is not `ok`, at whoever recognised it in the case; with a decision refused.

    `agency` wanted to decide in `stage`: it gets the task where the result was issued in the case itself and nobody
    recognised it. Where the revocation has raised the task already, there is no second one.
    """
    wanted: list[NewTask] = []
    for ref, reason in ((ref, s.reason) for ref, s in standings.items() if not s.ok and s.reason is not None):
        if reason is Reason.RESULT_NOT_FOUND:
            continue
        result = get(connection, ref)
        # Of a change of state there is a moment; a lapsed time or a revoked key is one cause, whenever it is noticed.
        changed_at = result.state_changed_at if reason in TROUBLE.values() else None
        why = result.state_reason if reason is Reason.RESULT_REVOKED else str(reason)
        here = [item for item in cascade.recognisers(connection, [ref]) if item.case_id == case_id]
        if not here and agency:
            here = [Affected(agency, case_id, stage, ref)]
        wanted += [cascade.task(item, origin=ref, changed_at=changed_at, reason=why) for item in here]
    return tasks.raise_(connection, desk, wanted, now, post=post)
