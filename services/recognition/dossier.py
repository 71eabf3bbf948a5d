"""One case inside one transaction: what is known of it, what is added to it, and what that leads to.

Everything that follows from an event is written with it, or nothing is: the events it causes, the row of the case,
results, tasks, and what other agencies are told. Locks are taken in one order everywhere: the case, then what results
stand on (`services.recognition.locks`), then the outbox.
"""

import datetime as dt
import json
import uuid
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from services.kit.errors import NotFound, Reason
from services.kit.events import outbox
from services.kit.events.outbox import NewEvent
from services.recognition import codec, examinations, ledger, locks, recognising, reminding, tasks
from services.recognition.case import CaseState, fold
from services.recognition.casework import SERVICE
from services.recognition.events import Event, Kind
from services.recognition.ledger import Head, Stored
from services.recognition.procedure import Stage
from services.recognition.rulebook import Rulebook
from services.recognition.rules import not_before
from services.recognition.stage_results import State
from services.recognition.stages import StageState, StageStatus
from services.recognition.tables import RESULT
from services.recognition.tasks import NewTask, TaskKind
from services.recognition.view import view

_LATER: Final = dt.timedelta(minutes=1)


class Dossier:
    """A case that is being added to; `save` writes it."""

    def __init__(self, connection: sa.Connection, rules: Rulebook, stored: Stored, now: dt.datetime) -> None:
        self.connection = connection
        self.rules = rules
        self.stored = stored
        self.now = now
        self.procedure = rules.procedure(connection, stored.head.procedure)
        self.state: CaseState = fold(self.procedure, stored.events)
        self.added: list[Event] = []
        self.post: list[NewEvent] = []
        """What other agencies are told once this is committed."""

    @staticmethod
    def load(connection: sa.Connection, rules: Rulebook, case_id: str, now: dt.datetime) -> "Dossier":
        """Load a case, and keep everybody else from changing it; raises `NotFound` with CASE_NOT_FOUND."""
        stored = ledger.load(connection, case_id, lock=True)
        if stored is None:
            raise no_such_case()
        return Dossier(connection, rules, stored, now)

    @property
    def case_id(self) -> str:
        """Id of the case."""
        return self.stored.head.case_id

    @property
    def version(self) -> int:
        """Number of the last event, with what was added."""
        return self.stored.head.version + len(self.added)

    def add(self, event: Event) -> int:
        """Add an event that was checked; gives its number."""
        self.state.apply(event)
        self.added.append(event)
        return self.version

    def own(self, kind: Kind, stage: str, at: dt.datetime, event_id: str = "", **said: Any) -> Event:
        """Add an event of the service's own."""
        event = Event(event_id or str(uuid.uuid4()), kind, stage, SERVICE, at, self.now, **said)
        self.add(event)
        return event

    def raise_tasks(self, *wanted: NewTask) -> None:
        """Raise tasks, each once for its cause."""
        tasks.raise_(self.connection, self.rules.desk, wanted, self.now, post=self.post)

    # What follows by itself.

    def settle(self, *, spare: tuple[str, dt.datetime] | None = None) -> None:
        """Add what follows by itself: stages deemed passed, stages that results take the place of, results revoked.

        `spare` is a stage, and the moment of what its agency has to say of it: it is not deemed passed after that.
        """
        self._doubt()
        while self.state.closed_at is None:
            # What happened first comes first: silence counts as a pass only where no result stood in time.
            silent, taken = self._silent(spare), self._taken()
            if silent is not None and (taken is None or silent.at <= taken.at):
                self._deem(silent)
            elif taken is not None:
                self._take(taken)
            else:
                return

    def _doubt(self) -> None:
        """Say in the case that results it recognised were revoked, where nobody has yet: nothing is undone by it."""
        resting = {
            stage.ref: code
            for code, stage in self.state.stages.items()
            if stage.status is StageStatus.RECOGNISED and not stage.revoked
        }
        if not resting:
            return
        select = sa.select(RESULT.c.result_ref, RESULT.c.state_reason).where(
            RESULT.c.result_ref.in_(resting), RESULT.c.state == str(State.REVOKED)
        )
        for ref, reason in self.connection.execute(select.order_by(RESULT.c.result_ref)).all():
            at = max(self.now, self.state.stages[resting[ref]].last_at or self.now)
            self.own(Kind.REVOKE, resting[ref], at, ref=ref, reason=reason)

    def _silent(self, spare: tuple[str, dt.datetime] | None) -> "_Silent | None":
        """Find the stage that counts as passed first, because its agency has said nothing."""
        for code, at in reminding.deemed_now(self.state, self.rules.calendars, self.now):
            if spare is None or code != spare[0] or spare[1] >= at:
                return _Silent(code, at)
        return None

    def _deem(self, silent: "_Silent") -> None:
        self.own(Kind.DEEMED, silent.stage, silent.at)
        examinations.close(self.connection, self.case_id, silent.stage, self.now)
        agency = self.procedure.stages[silent.stage].agency
        self.raise_tasks(NewTask(TaskKind.DEEMED_DOCUMENT, agency, self.case_id, silent.stage))

    def _taken(self) -> "_Taken | None":
        """Find the result that takes a stage's place first."""
        said, found = self.state.submission, list[_Taken]()
        for code, stage in self.state.stages.items():
            of = self.procedure.stages[code]
            if not _takes(of, stage):
                continue
            locks.building(self.connection)
            match = recognising.matching(
                self.connection,
                self.rules.arrangements,
                self.rules.published,
                self.rules.desk,
                scheme=said.scheme,
                subject=said.subject,
                stage=of,
                procedure=self.procedure,
                case_id=self.case_id,
                now=self.now,
                excluded=stage.refused_refs,
                post=self.post,
            )
            if match is not None:
                # Since both were there, the stage and the result: that somebody comes to it later makes nobody late.
                ready = not_before(self.state, Kind.RECOGNISE, code)
                found.append(_Taken(of, max(ready, match.since or self.now), match))
        return min(found, key=lambda taken: taken.at, default=None)

    def _take(self, taken: "_Taken") -> None:
        of, match = taken.of, taken.match
        said = {"ref": match.ref, "source_agency": match.issuer, "arrangement": match.arrangement}
        self.own(Kind.RECOGNISE, of.code, taken.at, **said)
        recognising.note(
            self.connection, case_id=self.case_id, stage=of.code, match=match, recogniser=of.agency, now=self.now
        )

    # Writing it.

    def save(self, *, attended: bool = False) -> int:
        """Write what was added, and tell the others; gives the case's version. The last thing in a transaction.

        `attended` says that all that was due is done.
        """
        head = head_of(self.rules, self.state, replace(self.stored.head, version=self.version), self.now)
        if attended and head.next_at is not None and head.next_at <= self.now:
            # Something is due and cannot be done: it must not hold up the others, over and over.
            head = replace(head, next_at=self.now + _LATER)
        if self.state.closed_at is not None and self.stored.head.closed_at is None:
            # However it ended: nobody is to be told of an examination that goes on no more.
            examinations.close(self.connection, self.case_id, None, self.now)
        ledger.append(self.connection, self.stored, self.added, head)
        outbox.put(self.connection, self.post, self.now)
        return self.version


@dataclass(frozen=True, slots=True)
class _Silent:
    """A stage that counts as passed, and since when."""

    stage: str
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class _Taken:
    """A stage whose place a result takes, and since when."""

    of: Stage
    at: dt.datetime
    match: recognising.Match


def _takes(of: Stage, stage: StageState) -> bool:
    """Tell whether a result may take a stage's place now: it is ready, and its agency has not begun."""
    return of.accepts and stage.status is StageStatus.READY and stage.opened_at is None


def head_of(rules: Rulebook, state: CaseState, head: Head, now: dt.datetime) -> Head:
    """Bring the row of a case up to what its events say."""
    if state.closed_at is not None:
        return replace(head, status=state.status.value, closed_at=state.closed_at, next_at=None, dues="{}")
    agencies = rules.agencies_of(state.procedure)
    next_at = reminding.next_at(state, rules.calendars, agencies, now) if state.procedure.timed else None
    return replace(
        head,
        status=state.status.value,
        closed_at=None,
        next_at=next_at,
        calendar=rules.calendars.get(state.procedure.calendar).label,
        dues=dues_text(dues(rules, state, now)),
    )


def dues(rules: Rulebook, state: CaseState, now: dt.datetime) -> dict[str, dt.datetime]:
    """Tell when the clocks that run are due, by stage."""
    if state.closed_at is not None or not state.procedure.timed:
        return {}
    stages = view(state, rules.calendars, now).stages
    running = {code: stage.clock.due_at for code, stage in stages.items() if stage.clock is not None and stage.runs}
    return {code: due for code, due in running.items() if due is not None}


def dues_text(found: dict[str, dt.datetime]) -> str:
    """Write due moments for the row of a case."""
    return json.dumps({code: codec.micros(due) for code, due in sorted(found.items())}, separators=(",", ":"))


def dues_of(text: str) -> dict[str, dt.datetime]:
    """Read what `dues_text` wrote."""
    return {code: codec.moment(due) for code, due in json.loads(text).items()}


def no_such_case() -> NotFound:
    """Word the error for a case that does not exist, or is nothing to the caller."""
    return NotFound(Reason.CASE_NOT_FOUND, "there is no such case")
