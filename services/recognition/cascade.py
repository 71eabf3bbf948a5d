"""How far a revocation reaches: over recognitions, and over results that were decided on the revoked one.

    result -- recognised by --> a stage of a case
    result <-- rests on -- another result, and so on from there

Everybody who is reached gets one task for each stage of each case. Read level by level; what was reached is not
entered again, so that it ends also where results rest on each other in a circle.
"""

import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from services.recognition.tables import RECOGNITION, RESTS_ON, RESULT
from services.recognition.tasks import NewTask, TaskKind

_LOOKUP = 500
"""Results in one look-up; well below the parameters a statement may have."""


@dataclass(frozen=True, slots=True)
class Affected:
    """Somebody a revocation reaches."""

    owner: str
    case_id: str
    stage: str
    result_ref: str
    """The result it reaches them by: the one they recognised, or the one they issued on the ground of another."""

    @property
    def place(self) -> tuple[str, ...]:
        """What has one task only: the agency's stage in a case, or its result where that is in no case."""
        return (self.owner, self.case_id, self.stage) if self.case_id else (self.owner, "", "", self.result_ref)


def affected(connection: sa.Connection, origin: str) -> list[Affected]:
    """Find everybody that the revocation of a result reaches, the nearest first."""
    found: dict[tuple[str, ...], Affected] = {}
    reached = {origin}
    level = [origin]
    while level:
        for item in recognisers(connection, level):
            found.setdefault(item.place, item)
        built = {item.result_ref: (item, state) for item, state in _decided_on(connection, level)}
        level = sorted(built.keys() - reached)
        reached.update(level)
        for item, state in (built[ref] for ref in level):
            # Who has revoked it already has nothing left to look at; those behind it may.
            if state != "REVOKED":
                found.setdefault(item.place, item)
    return list(found.values())


def recognisers(connection: sa.Connection, refs: Collection[str]) -> Iterator[Affected]:
    """Find the stages that stand recognised by these results."""
    table = RECOGNITION.c
    for chunk in _chunks(refs):
        select = sa.select(table.recogniser, table.case_id, table.stage, table.result_ref).where(
            table.result_ref.in_(chunk), table.refused_at.is_(None)
        )
        ordered = select.order_by(table.result_ref, table.case_id, table.stage)
        yield from (Affected(*row) for row in connection.execute(ordered))


def _decided_on(connection: sa.Connection, refs: Collection[str]) -> Iterator[tuple[Affected, str]]:
    """Find the results that rest on these directly, with their state."""
    table = RESULT.c
    for chunk in _chunks(refs):
        select = (
            sa.select(table.issuer, table.case_id, table.stage, table.result_ref, table.state)
            .join(RESTS_ON, RESTS_ON.c.result_ref == table.result_ref)
            .where(RESTS_ON.c.rests_on.in_(chunk))
        )
        for *item, state in connection.execute(select):
            yield Affected(*item), state


def _chunks(refs: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(refs)
    for start in range(0, len(ordered), _LOOKUP):
        yield ordered[start : start + _LOOKUP]


def task(reached: Affected, *, origin: str, changed_at: dt.datetime | None, reason: str) -> NewTask:
    """Word the task of somebody who was reached: one for each place and change of the origin's state."""
    since = changed_at.isoformat() if changed_at else reason
    return NewTask(
        TaskKind.RESULT_REVOKED,
        owner=reached.owner,
        case_id=reached.case_id,
        stage=reached.stage,
        result_ref=reached.result_ref,
        origin_ref=origin,
        reason=reason,
        cause=":".join((TaskKind.RESULT_REVOKED, origin, since, *reached.place)),
    )
