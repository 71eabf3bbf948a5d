"""Tasks: raised once, due by the calendar of their case, disposed of once and as their kind allows."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.recognition import recognising, tasks
from services.recognition.calendars import Calendars
from services.recognition.registry import Change
from services.recognition.tables import TASK
from services.recognition.tasks import Desk, Disposition, NewTask, Task, TaskKind
from tests.recognition.register import Register, register

SHIPPED = Path(tasks.__file__).with_name("tasks.yaml")


@pytest.fixture
def held(any_url: str, tmp_path: Path) -> Iterator[Register]:
    with register(any_url, tmp_path) as made:
        yield made


@pytest.fixture
def lite(sqlite_url: str, tmp_path: Path) -> Iterator[Register]:
    with register(sqlite_url, tmp_path) as made:
        yield made


def refused(reason: Reason) -> "pytest.RaisesExc[HutongError]":
    return pytest.raises(HutongError, check=lambda error: error.reason is reason)


def raised(held: Register, *wanted: NewTask) -> list[Task]:
    with held.write() as (connection, post):
        return tasks.raise_(connection, held.desk, wanted, held.now, post=post)


def listed(held: Register, owner: str, *, disposed: bool = False, case_id: str = "") -> list[Task]:
    with held.write() as (connection, _):
        return tasks.list_(connection, owner, disposed=disposed, case_id=case_id)


class Reopened:
    """Remembers what was given back."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def __call__(self, _connection: sa.Connection, task: Task) -> None:
        self.tasks.append(task)


def disposed(
    held: Register,
    task: Task,
    disposition: Disposition,
    *,
    owner: str = "",
    reason: str = "DECISION_STANDS",
    reopen: Reopened | None = None,
) -> Task:
    with held.write() as (connection, _):
        return tasks.dispose(
            connection,
            held.desk,
            task.task_id,
            owner=owner or task.owner_agency,
            disposition=disposition,
            reason=reason,
            officer="officer-7",
            now=held.now,
            reopen=reopen or Reopened(),
        )


def late(owner: str = "commerce", case_id: str = "CASE-1", stage: str = "A") -> NewTask:
    return NewTask(TaskKind.LATE_OPINION, owner, case_id, stage)


# Raising.


def test_a_task_is_raised_once_and_its_owner_is_told(held: Register) -> None:
    held.add_case("CASE-1")
    (task,) = raised(held, late(), late())
    assert raised(held, late()) == []
    assert listed(held, "commerce") == [task]
    (event,) = held.post
    assert (event.audience, event.kind, event.key) == ("commerce", "task.raised", "CASE-1")
    assert event.payload["task_id"] == task.task_id
    json.dumps(event.payload)


def test_many_are_raised_at_once(held: Register) -> None:
    first = raised(held, *(late(case_id=f"CASE-{n}") for n in range(700)))
    more = raised(held, *(late(case_id=f"CASE-{n}") for n in range(690, 1500)))
    assert (len(first), len(more)) == (700, 800)
    assert {t.case_id for t in more} == {f"CASE-{n}" for n in range(700, 1500)}


def test_whoever_raises_the_same_at_once_raises_one(held: Register) -> None:
    together = threading.Barrier(6)

    def work(_: int) -> int:
        together.wait()
        with held.made.begin() as connection:
            return len(tasks.raise_(connection, held.desk, [late(), late(stage="B")], held.now, post=[]))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 2


@pytest.mark.parametrize(
    ("kind", "calendar", "due"),
    [
        # A Monday; the 25th is the Mid-Autumn Festival in China, so that the fifth working day is the 29th.
        (TaskKind.LATE_OPINION, "CN@1", dt.datetime(2026, 9, 29, 16, tzinfo=dt.UTC)),
        (TaskKind.DEEMED_DOCUMENT, "CN@1", dt.datetime(2026, 9, 22, 16, tzinfo=dt.UTC)),
        (TaskKind.LATE_OPINION, "NL@1", dt.datetime(2026, 9, 28, 22, tzinfo=dt.UTC)),
        (TaskKind.LATE_OPINION, "", dt.datetime(2026, 9, 29, 16, tzinfo=dt.UTC)),
    ],
)
def test_due_by_the_calendar_of_the_case(lite: Register, kind: TaskKind, calendar: str, due: dt.datetime) -> None:
    lite.add_case("CASE-1", calendar)
    (task,) = raised(lite, NewTask(kind, "commerce", "CASE-1", "A"))
    assert task.due_at == due


def test_due_by_the_rules_own_calendar_outside_cases(lite: Register) -> None:
    (task,) = raised(lite, NewTask(TaskKind.RESULT_REVOKED, "commerce", "", "", result_ref="r-1"))
    assert task.due_at == dt.datetime(2026, 9, 29, 16, tzinfo=dt.UTC)


# Listing.


def test_an_agency_sees_its_own_soonest_first_page_by_page(held: Register) -> None:
    held.add_case("CASE-2")
    raised(held, late("customs"), *(late(stage=f"S{n}") for n in range(3)))
    raised(held, NewTask(TaskKind.DEEMED_DOCUMENT, "commerce", "CASE-2", "A"))
    held.move(days=1)
    raised(held, late(stage="Z"))
    every = listed(held, "commerce")
    assert every[0].kind is TaskKind.DEEMED_DOCUMENT
    assert [t.due_at for t in every] == sorted(t.due_at for t in every)
    assert every[-1].stage == "Z"
    paged: list[Task] = []
    with held.write() as (connection, _):
        while page := tasks.list_(connection, "commerce", after=paged[-1].key if paged else "", limit=2):
            paged += page
        assert paged == every
    assert [t.stage for t in listed(held, "commerce", case_id="CASE-2")] == ["A"]
    disposed(held, every[0], Disposition.DONE, reason="DOCUMENT_ISSUED")
    assert every[0].task_id not in {t.task_id for t in listed(held, "commerce")}
    assert every[0].task_id in {t.task_id for t in listed(held, "commerce", disposed=True)}


# Disposing.


def test_disposed_of_once(held: Register) -> None:
    (task,) = raised(held, late())
    held.move(hours=2)
    done = disposed(held, task, Disposition.UPHELD, reason="OPINION_NOTED")
    assert (done.disposed_at, done.disposition, done.officer) == (held.now, Disposition.UPHELD, "officer-7")
    held.move(hours=2)
    assert disposed(held, task, Disposition.UPHELD, reason="OPINION_NOTED") == done
    with refused(Reason.TASK_DISPOSED):
        disposed(held, task, Disposition.TAKEN_BACK, reason="OPINION_HEEDED")


def test_two_who_dispose_at_once_do_not_both(held: Register) -> None:
    (task,) = raised(held, late())
    together = threading.Barrier(2)

    def work(disposition: Disposition) -> str:
        together.wait()
        try:
            return disposed(held, task, disposition).disposition or ""
        except FailedPrecondition as error:
            return error.reason

    with ThreadPoolExecutor(2) as pool:
        found = sorted(pool.map(work, [Disposition.UPHELD, Disposition.DONE]))
    (kept,) = listed(held, "commerce", disposed=True)
    assert found == sorted([str(kept.disposition), Reason.TASK_DISPOSED])


def test_only_its_owner_may(lite: Register) -> None:
    (task,) = raised(lite, late())
    with refused(Reason.TASK_NOT_FOUND):
        disposed(lite, task, Disposition.UPHELD, owner="customs")
    with lite.write() as (connection, _), refused(Reason.TASK_NOT_FOUND):
        tasks.get(connection, task.task_id, owner="customs")


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("disposition", list(Disposition))
def test_each_kind_allows_what_fits_it(lite: Register, kind: TaskKind, disposition: Disposition) -> None:
    (task,) = raised(lite, NewTask(kind, "commerce", "CASE-1", "A"))
    if disposition in lite.desk.dispositions[kind]:
        assert disposed(lite, task, disposition).disposition is disposition
        return
    with refused(Reason.DISPOSITION_INVALID):
        disposed(lite, task, disposition)
    assert listed(lite, "commerce") == [task]


def test_a_reason_of_the_list_is_needed(lite: Register) -> None:
    (task,) = raised(lite, late())
    with refused(Reason.REASON_MISSING):
        disposed(lite, task, Disposition.UPHELD, reason="")
    with refused(Reason.REASON_UNKNOWN):
        disposed(lite, task, Disposition.UPHELD, reason="BECAUSE")


def test_reexamined_gives_the_stage_back(held: Register) -> None:
    ref = held.enter()
    held.recognise(ref, "CASE-1", "Q", "customs")
    (task,) = held.change(ref).tasks
    reopened = Reopened()
    done = disposed(held, task, Disposition.REEXAMINED, reason="EXAMINED_ANEW", reopen=reopened)
    assert reopened.tasks == [done]
    assert disposed(held, task, Disposition.REEXAMINED, reason="EXAMINED_ANEW", reopen=reopened) == done
    assert len(reopened.tasks) == 1


def test_what_cannot_be_given_back_is_not_disposed_of(held: Register) -> None:
    ref = held.enter()
    held.recognise(ref, "CASE-1", "Q", "customs")
    (task,) = held.change(ref).tasks

    class Closed(Reopened):
        def __call__(self, _connection: sa.Connection, task: Task) -> None:
            raise FailedPrecondition(Reason.CASE_CLOSED, "closed", case_id=task.case_id)

    with refused(Reason.CASE_CLOSED):
        disposed(held, task, Disposition.REEXAMINED, reason="EXAMINED_ANEW", reopen=Closed())
    assert listed(held, "customs") == [task]


def test_taken_back_is_said_of_what_was_taken_back(held: Register) -> None:
    base = held.enter()
    built = held.enter("commerce", "registered", case_id="CASE-1", stage="E4", rests_on=[base])
    (task,) = held.change(base).tasks
    assert (task.owner_agency, task.result_ref, task.origin_ref) == ("commerce", built, base)
    with refused(Reason.DISPOSITION_INVALID):
        disposed(held, task, Disposition.TAKEN_BACK, reason="DECISION_TAKEN_BACK")
    held.change(built, issuer="commerce", reason="RESTS_ON_REVOKED")
    assert disposed(held, task, Disposition.TAKEN_BACK, reason="DECISION_TAKEN_BACK").disposed_at


def test_upheld_lets_the_case_go_on_until_the_result_changes_again(held: Register) -> None:
    ref = held.enter()
    held.recognise(ref, "CASE-1", "Q", "customs")
    held.recognise(ref, "CASE-2", "Q", "customs")
    held.move(hours=1)
    first, second = sorted(held.change(ref).tasks, key=lambda t: t.case_id)
    assert not held.standing(ref, "CASE-1").ok
    disposed(held, first, Disposition.UPHELD)
    disposed(held, second, Disposition.REEXAMINED, reason="EXAMINED_ANEW")
    found = held.standing(ref, "CASE-1")
    assert (found.ok, found.upheld, found.reason) == (True, True, Reason.RESULT_REVOKED)
    assert not held.standing(ref, "CASE-2").ok
    assert not held.standing(ref).ok


def test_what_was_upheld_while_suspended_is_looked_at_again_once_revoked(held: Register) -> None:
    ref = held.enter()
    held.recognise(ref, "CASE-1", "Q", "customs")
    held.move(hours=1)
    held.change(ref, Change.SUSPEND)
    (task,) = questioned(held, ref)
    assert questioned(held, ref) == []
    disposed(held, task, Disposition.UPHELD)
    assert held.standing(ref, "CASE-1").ok
    held.move(hours=1)
    (other,) = held.change(ref).tasks
    assert not held.standing(ref, "CASE-1").ok
    disposed(held, other, Disposition.NOT_AFFECTED, reason="NOT_CONCERNED")
    assert held.standing(ref, "CASE-1").ok


# At the moment of decision.


def questioned(held: Register, ref: str, case_id: str = "CASE-1", agency: str = "", stage: str = "") -> list[Task]:
    standings = held.standings([ref], case_id)
    with held.write() as (connection, post):
        return recognising.question(
            connection,
            held.desk,
            case_id=case_id,
            standings=standings,
            now=held.now,
            agency=agency,
            stage=stage,
            post=post,
        )


def test_a_result_that_has_ended_since_raises_one_task(held: Register) -> None:
    ref = held.enter(valid_until=held.now + dt.timedelta(days=1))
    held.recognise(ref, "CASE-1", "Q", "customs")
    assert questioned(held, ref) == []
    held.move(days=2)
    (task,) = questioned(held, ref)
    assert (task.owner_agency, task.reason, task.origin_ref) == ("customs", Reason.RESULT_EXPIRED, ref)
    held.move(days=1)
    assert questioned(held, ref) == []
    disposed(held, task, Disposition.UPHELD)
    assert held.standing(ref, "CASE-1").ok


def test_a_revoked_one_has_raised_it_already(held: Register) -> None:
    ref = held.enter()
    held.recognise(ref, "CASE-1", "Q", "customs")
    assert len(held.change(ref).tasks) == 1
    assert questioned(held, ref) == []


def test_a_result_of_the_case_itself_is_for_whoever_decides(held: Register) -> None:
    ref = held.enter(case_id="CASE-1", stage="E2")
    held.change(ref)
    assert questioned(held, ref) == []
    (task,) = questioned(held, ref, agency="commerce", stage="E4")
    assert (task.owner_agency, task.stage, task.reason) == ("commerce", "E4", "ISSUED_IN_ERROR")
    disposed(held, task, Disposition.UPHELD)
    assert held.standing(ref, "CASE-1").ok


def test_what_nobody_knows_raises_nothing(lite: Register) -> None:
    assert questioned(lite, "00000000-0000-0000-0000-000000000000") == []


# Rules as data.


def test_a_refused_recognition_is_looked_at_by_the_lead(held: Register) -> None:
    ref = held.enter()
    held.recognise(ref, "CASE-1", "Q", "customs")
    with held.write() as (connection, post):
        (task,) = recognising.refuse(
            connection,
            held.desk,
            case_id="CASE-1",
            stage="Q",
            ref=ref,
            recogniser="customs",
            reason="TOO_OLD",
            lead="commerce",
            now=held.now,
            post=post,
        )
        assert not tasks.recognised(connection, "CASE-1", "Q", ref)
    assert (task.kind, task.owner_agency, task.reason) == (TaskKind.RECOGNITION_REFUSED, "commerce", "TOO_OLD")
    assert held.change(ref).tasks == ()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("calendar: CN", "calendar: XX", "XX"),
        ("limit: 1 working day", "limit: 1 fortnight", "5 working days"),
        ("dispositions: [DONE]", "dispositions: [FORGOTTEN]", "DEEMED_DOCUMENT"),
        ("dispositions: [DONE]", "dispositions: []", "DEEMED_DOCUMENT"),
        ("  LATE_OPINION:", "  OPINION:", "OPINION"),
        ("calendar: CN", "calendar: CN\ncalendar: CN", "stands twice"),
        ("calendar: CN", "calendar: CN\nzone: here", "zone"),
    ],
)
def test_rules_are_checked(tmp_path: Path, before: str, after: str, told: str) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert before in text
    path = tmp_path / "tasks.yaml"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(FailedPrecondition, match=told):
        Desk.load(Calendars.load(), path)


def test_a_kind_that_is_missing_is_told(tmp_path: Path) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    path = tmp_path / "tasks.yaml"
    path.write_text(text[: text.index("  # Two agencies")], encoding="utf-8")
    with pytest.raises(FailedPrecondition, match="FACTS_DISAGREE"):
        Desk.load(Calendars.load(), path)


def test_officers_are_not_printed(lite: Register) -> None:
    (task,) = raised(lite, late())
    assert "officer-7" not in repr(disposed(lite, task, Disposition.DONE))
    with lite.write() as (connection, _):
        assert connection.execute(sa.select(TASK.c.officer)).scalar_one() == "officer-7"
