"""Tasks: what an agency has to look at and dispose of.

A task is raised once for its cause, has an owner, a due time and, in the end, one disposition. Nothing is undone by a
task itself; its disposition says what its owner has done. Limits and permitted dispositions are data (`tasks.yaml`).

Functions take a connection inside their caller's transaction. Events are added to `post`, a list which the caller puts
into the outbox last.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from services.kit.events.outbox import NewEvent
from services.kit.jurisdiction import pack
from services.kit.records.inserts import insert_or_ignore
from services.recognition.calendars import Calendars
from services.recognition.procedure_draft import LimitText
from services.recognition.reasons import Ground, Reasons
from services.recognition.statutory import Limit, add
from services.recognition.tables import CASE, RECOGNITION, RESULT, TASK

RAISED: Final = "task.raised"
"""Kind of the event that its owner gets."""

_SHIPPED: Final = Path(__file__).with_name("tasks.yaml")


class TaskKind(StrEnum):
    """What a task is for."""

    RESULT_REVOKED = "RESULT_REVOKED"
    RECOGNITION_REFUSED = "RECOGNITION_REFUSED"
    DEEMED_DOCUMENT = "DEEMED_DOCUMENT"
    LATE_OPINION = "LATE_OPINION"
    FACTS_DISAGREE = "FACTS_DISAGREE"


class Disposition(StrEnum):
    """What was done about a task."""

    UPHELD = "UPHELD"
    REEXAMINED = "REEXAMINED"
    TAKEN_BACK = "TAKEN_BACK"
    NOT_AFFECTED = "NOT_AFFECTED"
    DONE = "DONE"


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be raised."""

    kind: TaskKind
    owner: str
    case_id: str
    stage: str
    result_ref: str = ""
    origin_ref: str = ""
    reason: str = ""
    """Machine code."""
    cause: str = ""
    """What may raise it once only; by default its kind, owner, case, stage and result."""

    @property
    def once(self) -> str:
        """The cause."""
        return self.cause or ":".join((self.kind, self.owner, self.case_id, self.stage, self.result_ref))


@dataclass(frozen=True, slots=True)
class Task:
    """A task, as it was raised and perhaps disposed of."""

    task_id: str
    cause: str
    owner_agency: str
    kind: TaskKind
    case_id: str
    stage: str
    result_ref: str
    origin_ref: str
    reason: str
    raised_at: dt.datetime
    due_at: dt.datetime
    disposed_at: dt.datetime | None
    disposition: Disposition | None
    disposition_reason: str
    officer: str = field(repr=False)
    """The agency's own reference; never printed."""

    @property
    def key(self) -> str:
        """Where it stands in a list; what the next page goes on after."""
        return f"{self.due_at.isoformat()}|{self.task_id}"


_NAMES: Final = tuple(f.name for f in fields(Task))
_COLUMNS: Final = tuple(TASK.c[name] for name in _NAMES)

Reopen = Callable[[sa.Connection, Task], None]
"""Opens the stage of a task, as it is disposed of, again for its agency, in the same transaction."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Kind(_Entry):
    title: str = Field(min_length=1)
    local_title: str = Field(min_length=1)
    limit: LimitText
    dispositions: frozenset[Disposition] = Field(min_length=1)


class _File(_Entry):
    calendar: str
    kinds: Mapping[TaskKind, _Kind]


@dataclass(frozen=True, slots=True)
class Desk:
    """What tasks are subject to: when they are due, and how they may be disposed of."""

    calendars: Calendars
    calendar: str
    """Id of the calendar of tasks outside cases."""
    limits: Mapping[TaskKind, Limit]
    dispositions: Mapping[TaskKind, frozenset[Disposition]]
    titles: Mapping[TaskKind, str]
    reasons: Reasons

    @staticmethod
    def load(calendars: Calendars, path: Path | None = None, reasons: Reasons | None = None) -> "Desk":
        """Load the rules of a file, or those that come with the product; raises `FailedPrecondition`."""
        path = path or _SHIPPED
        try:
            file = _File.model_validate(pack.load_yaml(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}:\n  {pack.describe(error)}") from None
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: {error}") from None
        if missing := [kind for kind in TaskKind if kind not in file.kinds]:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: nothing is said of {', '.join(missing)}")
        calendars.get(file.calendar)
        return Desk(
            calendars,
            file.calendar,
            MappingProxyType({k: e.limit for k, e in file.kinds.items()}),
            MappingProxyType({k: e.dispositions for k, e in file.kinds.items()}),
            MappingProxyType({k: e.title for k, e in file.kinds.items()}),
            reasons or Reasons.load(),
        )

    def due(self, kind: TaskKind, now: dt.datetime, calendar: str = "") -> dt.datetime:
        """Say by when a task raised now has to be disposed of; `calendar` is an id, or a label `ID@version`."""
        name = calendar.partition("@")[0]
        known = self.calendars.get(name if name in self.calendars else self.calendar)
        return add(known, now, self.limits[kind])[0]


def raise_(
    connection: sa.Connection, desk: Desk, wanted: Iterable[NewTask], now: dt.datetime, *, post: list[NewEvent]
) -> list[Task]:
    """Raise tasks; gives those whose cause had not raised one before. Each owner gets an event."""
    by_cause = {task.once: task for task in wanted}
    if not by_cause:
        return []
    calendars = _calendars(connection, {task.case_id for task in by_cause.values() if task.case_id})
    made = [_task(desk, task, cause, now, calendars.get(task.case_id, "")) for cause, task in by_cause.items()]
    insert = insert_or_ignore(connection, TASK).returning(TASK.c.cause)
    raised = set(connection.execute(insert, [_row(task) for task in made]).scalars())
    new = [task for task in made if task.cause in raised]
    post.extend(_event(task) for task in new)
    return new


def _calendars(connection: sa.Connection, case_ids: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    ids = sorted(case_ids)
    for start in range(0, len(ids), 500):
        select = sa.select(CASE.c.case_id, CASE.c.calendar).where(CASE.c.case_id.in_(ids[start : start + 500]))
        found |= {row[0]: row[1] for row in connection.execute(select)}
    return found


def _task(desk: Desk, new: NewTask, cause: str, now: dt.datetime, calendar: str) -> Task:
    return Task(
        task_id=str(uuid.uuid4()),
        cause=cause,
        owner_agency=new.owner,
        kind=new.kind,
        case_id=new.case_id,
        stage=new.stage,
        result_ref=new.result_ref,
        origin_ref=new.origin_ref,
        reason=new.reason,
        raised_at=now,
        due_at=desk.due(new.kind, now, calendar),
        disposed_at=None,
        disposition=None,
        disposition_reason="",
        officer="",
    )


def _row(task: Task) -> dict[str, Any]:
    row = {f.name: getattr(task, f.name) for f in fields(task)}
    return row | {"kind": str(task.kind), "disposition": str(task.disposition or "")}


def _of(row: "sa.Row[Any]") -> Task:
    said: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    said["kind"] = TaskKind(said["kind"])
    said["disposition"] = Disposition(said["disposition"]) if said["disposition"] else None
    return Task(**said)


def _event(task: Task) -> NewEvent:
    payload = {
        "task_id": task.task_id,
        "task_kind": str(task.kind),
        "case_id": task.case_id,
        "stage_code": task.stage,
        "result_ref": task.result_ref,
        "origin_ref": task.origin_ref,
        "reason_code": task.reason,
        "due_at": task.due_at.isoformat(),
    }
    return NewEvent(task.owner_agency, RAISED, task.case_id or task.result_ref, payload, f"{RAISED}:{task.task_id}")


def list_(
    connection: sa.Connection,
    owner: str,
    *,
    disposed: bool = False,
    case_id: str = "",
    after: str = "",
    limit: int = 20,
) -> list[Task]:
    """List an agency's tasks, the soonest due first, going on after the `key` of a task; `disposed` ones too."""
    select = sa.select(*_COLUMNS).where(TASK.c.owner_agency == owner)
    if not disposed:
        select = select.where(TASK.c.disposed_at.is_(None))
    if case_id:
        select = select.where(TASK.c.case_id == case_id)
    if after:
        moment, _, task_id = after.partition("|")
        due = dt.datetime.fromisoformat(moment)
        later = sa.and_(TASK.c.due_at == due, TASK.c.task_id > task_id)
        select = select.where(sa.or_(TASK.c.due_at > due, later))
    ordered = select.order_by(TASK.c.due_at, TASK.c.task_id).limit(limit)
    return [_of(row) for row in connection.execute(ordered)]


def of_revocation(connection: sa.Connection, ref: str) -> list[Task]:
    """List the tasks that what became of a result has raised, whoever owns them."""
    start = f"{TaskKind.RESULT_REVOKED}:{ref}"
    # Everything that begins with it and a colon, by the index on causes; ";" comes right behind ":".
    select = sa.select(*_COLUMNS).where(TASK.c.cause > f"{start}:", TASK.c.cause < f"{start};")
    return [_of(row) for row in connection.execute(select.order_by(TASK.c.raised_at, TASK.c.task_id))]


def get(connection: sa.Connection, task_id: str, *, owner: str, lock: bool = False) -> Task:
    """Get a task; raises `NotFound` with TASK_NOT_FOUND, also where it is another agency's."""
    select = sa.select(*_COLUMNS).where(TASK.c.task_id == task_id, TASK.c.owner_agency == owner)
    row = connection.execute(select.with_for_update() if lock else select).one_or_none()
    if row is None:
        raise NotFound(Reason.TASK_NOT_FOUND, "there is no such task of this agency")
    return _of(row)


def dispose(
    connection: sa.Connection,
    desk: Desk,
    task_id: str,
    *,
    owner: str,
    disposition: Disposition,
    reason: str,
    officer: str,
    now: dt.datetime,
    reopen: Reopen,
) -> Task:
    """Dispose of a task, once; the same disposition sent again changes nothing.

    REEXAMINED opens the stage again, where there is something to open, through `reopen`. Raises `NotFound`,
    `InvalidArgument` with DISPOSITION_INVALID, REASON_MISSING or REASON_UNKNOWN, and `FailedPrecondition` with
    TASK_DISPOSED, or with DISPOSITION_INVALID for TAKEN_BACK of a result that still stands.
    """
    task = get(connection, task_id, owner=owner, lock=True)
    if task.disposed_at is not None:
        if (task.disposition, task.disposition_reason) == (disposition, reason):
            return task
        raise FailedPrecondition(Reason.TASK_DISPOSED, "the task was disposed of already", task_id=task_id)
    allowed = desk.dispositions[task.kind]
    if disposition not in allowed:
        known = ", ".join(d for d in Disposition if d in allowed)
        message = f"a task {task.kind} is disposed of as one of {known}, not as {disposition}"
        raise InvalidArgument(Reason.DISPOSITION_INVALID, message, kind=task.kind)
    desk.reasons.check(Ground.DISPOSE, reason)
    done = replace(task, disposed_at=now, disposition=disposition, disposition_reason=reason, officer=officer)
    connection.execute(sa.update(TASK).where(TASK.c.task_id == task_id).values(**_row(done)))
    if task.kind is TaskKind.RESULT_REVOKED:
        _act(connection, done, reopen)
    return done


def _act(connection: sa.Connection, task: Task, reopen: Reopen) -> None:
    """Do what a disposition says, or see that it was done."""
    again = task.disposition is Disposition.REEXAMINED
    if again and task.case_id:
        reopen(connection, task)
    if task.disposition is Disposition.TAKEN_BACK and _stands(connection, task):
        message = "the result that was decided on it still stands: revoke it first"
        raise FailedPrecondition(Reason.DISPOSITION_INVALID, message, result_ref=task.result_ref)


def recognised(connection: sa.Connection, case_id: str, stage: str, ref: str) -> bool:
    """Tell whether a stage stands recognised by a result, not refused since."""
    select = sa.select(RECOGNITION.c.result_ref).where(
        RECOGNITION.c.case_id == case_id,
        RECOGNITION.c.stage == stage,
        RECOGNITION.c.result_ref == ref,
        RECOGNITION.c.refused_at.is_(None),
    )
    return connection.execute(select).first() is not None


def _stands(connection: sa.Connection, task: Task) -> bool:
    """Tell whether the result of a task is the owner's own and stands."""
    select = sa.select(RESULT.c.state).where(
        RESULT.c.result_ref == task.result_ref, RESULT.c.issuer == task.owner_agency
    )
    return connection.execute(select).scalar_one_or_none() == "VALID"
