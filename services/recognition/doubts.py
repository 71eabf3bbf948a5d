"""Which stages are doubtful: what they rest on does not stand any more, and nobody has disposed of that yet.

What rests on results that do not stand follows from the events alone (`services.recognition.case`). What agencies have
said of that is in their tasks, which are no events: here the two are put together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from services.recognition.case import CaseState
from services.recognition.events import Event, Kind
from services.recognition.stage_results import State
from services.recognition.stages import ENDED
from services.recognition.tables import RESULT, TASK
from services.recognition.tasks import Disposition, TaskKind

_FELL: Final = frozenset({Kind.REVOKE, Kind.REFUSE_RECOGNITION})
_STANDS: Final = frozenset({Disposition.UPHELD, Disposition.NOT_AFFECTED})


@dataclass(frozen=True, slots=True)
class Question:
    """A task that asks an agency what to do about a stage, now that a result is revoked."""

    stage: str
    result_ref: str
    """The result that the agency relies on, or has issued on the ground of the other."""
    origin_ref: str
    """The one that was revoked."""
    disposition: Disposition | None


def questions(connection: sa.Connection, case_id: str) -> tuple[Question, ...]:
    """List what was asked in a case of results that are revoked, since they are."""
    select = (
        sa.select(TASK.c.stage, TASK.c.result_ref, TASK.c.origin_ref, TASK.c.disposition)
        .join(RESULT, RESULT.c.result_ref == TASK.c.origin_ref)
        .where(
            TASK.c.case_id == case_id,
            TASK.c.kind == str(TaskKind.RESULT_REVOKED),
            RESULT.c.state == str(State.REVOKED),
            # What was looked at while it was suspended only is asked once more.
            TASK.c.raised_at >= RESULT.c.state_changed_at,
        )
    )
    return tuple(
        Question(stage, ref, origin, Disposition(said) if said else None)
        for stage, ref, origin, said in connection.execute(select)
    )


def doubtful(state: CaseState, events: Sequence[Event], asked: Sequence[Question], code: str) -> bool:
    """Tell whether a stage is doubtful: whether anything that has fallen under it is still to be looked at."""
    return state.stages[code].doubtful and not all(
        _settled(state, events, asked, code, cause) for cause in _causes(state, code)
    )


def _causes(state: CaseState, code: str) -> Iterator[str]:
    """Name the stages whose result does not stand, among a stage and those before it."""
    if state.stages[code].revoked:
        yield code
    yield from (before for before in state.broken if before in state.procedure.ancestors(code))


def _settled(state: CaseState, events: Sequence[Event], asked: Sequence[Question], code: str, cause: str) -> bool:
    """Tell whether a stage goes on although the result of another, or its own, does not stand."""
    ref = next((e.ref for e in reversed(events) if e.stage == cause and e.kind in _FELL), "")
    about = [question for question in asked if question.origin_ref == ref]
    if own := [question for question in about if question.stage == code]:
        return all(_disposed(state, question) for question in own)
    if cause == code or not state.stages[cause].revoked:
        return False  # its own is for itself to look at, and what is examined anew to wait for
    # Whoever relies on it has said that it counts here: then it counts for every stage.
    return any(question.result_ref == ref and _disposed(state, question) for question in about)


def _disposed(state: CaseState, question: Question) -> bool:
    """Tell whether a task was disposed of so that its stage stands: what was taken back, or is open again, does not."""
    if question.disposition is Disposition.REEXAMINED:
        return state.stages[question.stage].status in ENDED
    return question.disposition in _STANDS
