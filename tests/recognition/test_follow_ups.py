"""What follows from events: recognition, doubt, stages deemed passed, reminders, deadlines computed anew."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from services.kit.errors import FailedPrecondition, HutongError, InvalidArgument, Reason
from services.recognition import tasks
from services.recognition.calendars import Calendars
from services.recognition.casework import Snapshot
from services.recognition.events import Kind, Pause, ResultCode
from services.recognition.tables import CASE, RECOGNITION, REMINDER, RESULT, TASK
from services.recognition.tasks import Disposition
from tests.recognition.desk import Bed, Hand, desk, execute, fresh
from tests.recognition.test_cases import OTHER, accepted


async def proven(bed: Bed) -> str:
    """Have public security prove an identity in a case; gives the result's reference."""
    case = await accepted(bed)
    await bed.through(case.case_id, ("B", "publicsecurity"))
    return (await bed.cases.get(case.case_id)).state.stages["B"].ref


async def stage(bed: Bed, case_id: str, code: str) -> Any:
    return (await bed.cases.get(case_id)).state.stages[code]


async def open_tasks(bed: Bed, *, kind: str = "") -> list[tuple[str, str, str]]:
    rows = await bed.rows(TASK)
    return sorted((r["owner_agency"], r["case_id"], r["stage"]) for r in rows if kind in {"", r["kind"]})


# Recognition.


async def test_a_stage_that_is_proven_is_satisfied_at_once(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    (_, recognised) = case.events
    assert (recognised.kind, recognised.ref) == (Kind.RECOGNISE, ref)
    assert (recognised.source_agency, recognised.agency) == ("publicsecurity", "recognition")
    assert recognised.arrangement
    assert case.state.stages["P"].status == "RECOGNISED"
    assert await any_bed.ready(case.case_id) == ["Q"]
    (row,) = await any_bed.rows(RECOGNITION)
    assert (row["case_id"], row["stage"], row["result_ref"]) == (case.case_id, "P", ref)


async def test_a_stage_that_waits_is_satisfied_once_it_is_proven(any_bed: Bed) -> None:
    waiting = await any_bed.submit("EXPRESS")
    assert await any_bed.ready(waiting.case_id) == ["P"]
    ref = await proven(any_bed)
    assert (await stage(any_bed, waiting.case_id, "P")).ref == ref


async def test_nobody_is_spared_what_is_proven_of_others(bed: Bed) -> None:
    await proven(bed)
    case = await bed.submit("EXPRESS", subject=OTHER)
    assert await bed.ready(case.case_id) == ["P"]


async def test_a_stage_that_is_begun_is_gone_on_with(bed: Bed) -> None:
    begun = await bed.submit("EXPRESS")
    await bed.act(begun.case_id, Kind.START, "P", "publicsecurity")
    case = await accepted(bed)
    with pytest.raises(FailedPrecondition) as caught:
        await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    assert caught.value.reason is Reason.EXAMINATION_OPEN
    assert caught.value.metadata["case_id"] == begun.case_id
    await bed.act(
        case.case_id, Kind.START, "B", "publicsecurity", despite=caught.value.metadata["despite"], reason="LEGAL_DUTY"
    )
    await bed.result(case.case_id, "B", "publicsecurity")
    assert (await stage(bed, begun.case_id, "P")).status == "OPEN"


async def test_who_is_about_to_examine_is_told_of_what_is_proven(bed: Bed) -> None:
    """The result came, but crashed before it was offered: the stage takes it when somebody asks."""
    waiting = await bed.submit("EXPRESS")
    ref = await proven(bed)
    execute(bed.url, f"DELETE FROM stage_event WHERE case_id = '{waiting.case_id}' AND sequence > 1")
    execute(bed.url, f"UPDATE case_head SET version = 1 WHERE case_id = '{waiting.case_id}'", "DELETE FROM recognition")
    with pytest.raises(FailedPrecondition) as caught:
        await bed.act(waiting.case_id, Kind.START, "P", "publicsecurity")
    assert (caught.value.reason, caught.value.metadata["result_ref"]) == (Reason.EXAMINATION_VALID, ref)
    assert (await stage(bed, waiting.case_id, "P")).ref == ref


async def test_a_recognition_that_is_refused(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    with pytest.raises(InvalidArgument) as caught:
        await any_bed.act(case.case_id, Kind.REFUSE_RECOGNITION, "P", "publicsecurity")
    assert caught.value.reason is Reason.REASON_MISSING
    done = await any_bed.act(case.case_id, Kind.REFUSE_RECOGNITION, "P", "publicsecurity", reason="RISK_SIGNAL")
    assert done.event.ref == ref
    assert (await stage(any_bed, case.case_id, "P")).status == "READY"
    assert await open_tasks(any_bed, kind="RECOGNITION_REFUSED") == [("taxation", case.case_id, "P")]
    # It has been told of the result, and is not told again.
    await any_bed.through(case.case_id, ("P", "publicsecurity"), ("Q", "taxation"))
    assert (await any_bed.cases.get(case.case_id)).head.status == "DELIVERED"


async def test_what_is_refused_is_not_recognised_there_again(bed: Bed) -> None:
    await proven(bed)
    case = await bed.submit("EXPRESS")
    await bed.act(case.case_id, Kind.REFUSE_RECOGNITION, "P", "publicsecurity", reason="RISK_SIGNAL")
    bed.clock.move(hours=1)
    execute(bed.url, "UPDATE case_head SET next_at = '2026-09-21 02:30:00.000000' WHERE closed_at IS NULL")
    await bed.cases.tick()
    assert await bed.ready(case.case_id) == ["P"]


# Revocation, and the moment of decision.


async def test_a_revocation_is_seen_everywhere_and_undoes_nothing(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    await any_bed.through(case.case_id, ("Q", "taxation"))
    (issued,) = [r["case_id"] for r in await any_bed.rows(RESULT) if r["result_ref"] == ref]
    await any_bed.act(issued, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL", ref=ref)
    for case_id, code in ((issued, "B"), (case.case_id, "P")):
        seen = await stage(any_bed, case_id, code)
        assert (seen.revoked, seen.doubtful) == (True, True)
    assert (await stage(any_bed, case.case_id, "P")).status == "RECOGNISED"
    assert (await any_bed.cases.get(case.case_id)).head.status == "DELIVERED"
    assert ("publicsecurity", case.case_id, "P") in await open_tasks(any_bed, kind="RESULT_REVOKED")
    assert kinds_of(await any_bed.cases.get(case.case_id)) == ["SUBMIT", "RECOGNISE", "START", "RESULT", "REVOKE"]


def kinds_of(case: Snapshot) -> list[str]:
    return [str(e.kind) for e in case.events]


async def test_a_result_revoked_between_recognition_and_decision(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    await any_bed.act(case.case_id, Kind.START, "Q", "taxation")
    # Behind the service's back, as if both were at it in the same moment.
    execute(any_bed.url, "UPDATE stage_result SET state = 'REVOKED', state_reason = 'FALSE_MATERIAL'")
    before = (await any_bed.cases.get(case.case_id)).version
    with pytest.raises(FailedPrecondition) as caught:
        await any_bed.result(case.case_id, "Q", "taxation")
    assert (caught.value.reason, caught.value.metadata["result_ref"]) == (Reason.RECOGNISED_RESULT_INVALID, ref)
    assert caught.value.metadata["cause"] == "RESULT_REVOKED"
    after = await any_bed.cases.get(case.case_id)
    assert [str(e.kind) for e in after.events[before:]] == ["REVOKE"]  # seen in the case, but no result
    assert await open_tasks(any_bed, kind="RESULT_REVOKED") == [("publicsecurity", case.case_id, "P")]
    assert [r["audience"] for r in await any_bed.outbox("task.raised")] == ["publicsecurity"]


async def test_a_decision_goes_on_once_its_basis_is_upheld(bed: Bed) -> None:
    ref = await proven(bed)
    case = await bed.submit("EXPRESS")
    await bed.act(case.case_id, Kind.START, "Q", "taxation")
    (issued,) = [r["case_id"] for r in await bed.rows(RESULT)]
    await bed.act(issued, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL", ref=ref)
    with pytest.raises(FailedPrecondition):
        await bed.result(case.case_id, "Q", "taxation")
    (task,) = [t for t in await bed.rows(TASK) if t["case_id"] == case.case_id]

    def uphold(connection: Any) -> None:
        tasks.dispose(
            connection,
            bed.cases.rulebook.desk,
            task["task_id"],
            owner="publicsecurity",
            disposition=Disposition.UPHELD,
            reason="DECISION_STANDS",
            officer="o-1",
            now=bed.clock(),
            reopen=lambda *_: None,
        )

    await bed.database.write(uphold)
    await bed.result(case.case_id, "Q", "taxation")
    assert (await bed.cases.get(case.case_id)).head.status == "DELIVERED"


async def test_a_refusal_needs_no_standing_basis(bed: Bed) -> None:
    await proven(bed)
    case = await bed.submit("EXPRESS")
    await bed.act(case.case_id, Kind.START, "Q", "taxation")
    execute(bed.url, "UPDATE stage_result SET state = 'REVOKED', state_reason = 'FALSE_MATERIAL'")
    await bed.result(case.case_id, "Q", "taxation", ResultCode.FAIL, reason="ARREARS")
    assert (await bed.cases.get(case.case_id)).head.status == "REFUSED"


async def test_a_crash_between_a_revocation_and_its_cases(sqlite_url: str, tmp_path: Path) -> None:
    async with desk(sqlite_url, tmp_path) as bed:
        await proven(bed)
        case = await bed.submit("EXPRESS")
    execute(sqlite_url, "UPDATE stage_result SET state = 'REVOKED', state_reason = 'FALSE_MATERIAL'")
    async with desk(sqlite_url, tmp_path) as bed:
        assert (await stage(bed, case.case_id, "P")).doubtful


# Time.


async def test_silence_counts_as_acceptance(any_bed: Bed) -> None:
    case = await any_bed.submit()
    await any_bed.act(case.case_id, Kind.START, "A", "commerce")
    due = case.reckoning.stages["A"].clock
    assert due is not None
    assert due.due_at is not None
    any_bed.clock.now = due.due_at
    assert await any_bed.cases.tick() > 0
    seen = await stage(any_bed, case.case_id, "A")
    assert (seen.status, seen.ended_at) == ("DEEMED", due.due_at)
    assert await any_bed.ready(case.case_id) == ["B", "C"]
    assert await open_tasks(any_bed, kind="DEEMED_DOCUMENT") == [("commerce", case.case_id, "A")]
    await any_bed.result(case.case_id, "A", "commerce", ResultCode.FAIL, reason="CONDITIONS_NOT_MET")
    seen = await stage(any_bed, case.case_id, "A")
    assert (seen.status, seen.late_opinion) == ("DEEMED", ResultCode.FAIL)
    assert await open_tasks(any_bed, kind="LATE_OPINION") == [("commerce", case.case_id, "A")]


async def test_what_the_law_says_does_not_wait_for_the_scheduler(bed: Bed) -> None:
    case = await bed.submit()
    await bed.act(case.case_id, Kind.START, "A", "commerce")
    bed.clock.move(days=10)
    await bed.result(case.case_id, "A", "commerce")
    assert (await bed.kinds(case.case_id))[1:] == ["START:A", "DEEMED:A", "RESULT:A"]


async def test_what_was_in_time_is_in_time_though_told_late(bed: Bed) -> None:
    case = await bed.submit()
    await bed.act(case.case_id, Kind.START, "A", "commerce")
    clock = case.reckoning.stages["A"].clock
    assert clock is not None
    assert clock.due_at is not None
    bed.clock.now = clock.due_at + dt.timedelta(hours=1)
    await bed.result(case.case_id, "A", "commerce", at=clock.due_at - dt.timedelta(hours=1))
    assert (await stage(bed, case.case_id, "A")).status == "PASSED"


async def test_reminders_and_escalations_come_once(any_bed: Bed) -> None:
    case = await accepted(any_bed)
    for _ in range(12 * 24):
        any_bed.clock.move(hours=1)
        await any_bed.cases.tick()
    sent = [(e.stage, e.threshold) for e in (await any_bed.cases.get(case.case_id)).events if e.kind is Kind.REMIND]
    expected = [(s, t) for s in "BC" for t in ("yellow", "red", "escalation-1", "escalation-2")]
    assert sorted(sent) == sorted(expected)
    assert sorted((r["stage"], r["threshold"]) for r in await any_bed.rows(REMINDER)) == sorted(expected)
    told = await any_bed.outbox("reminder")
    assert {(r["audience"], r["key"]) for r in told} == {("publicsecurity", case.case_id), ("taxation", case.case_id)}
    assert len(told) == len(expected)


async def test_what_was_missed_is_caught_up_with_once(bed: Bed) -> None:
    case = await accepted(bed)
    bed.clock.move(days=30)
    assert await bed.cases.tick() == 8
    assert await bed.cases.tick() == 0
    assert await bed.cases.next_due() is None
    assert (await bed.cases.get(case.case_id)).state.reminded == 8


async def test_a_case_that_cannot_be_attended_to_holds_nobody_up(bed: Bed) -> None:
    broken, case = await accepted(bed), await accepted(bed, subject=OTHER)
    execute(bed.url, f"UPDATE stage_event SET body = x'00' WHERE case_id = '{broken.case_id}' AND sequence = 2")
    bed.clock.move(days=30)
    assert await bed.cases.tick() == 8
    assert (await bed.cases.get(case.case_id)).state.reminded == 8


async def test_somebody_asks_for_a_reminder(any_bed: Bed) -> None:
    case = await accepted(any_bed)
    request = fresh()
    sent = await any_bed.cases.remind(case.case_id, "", request_id=request, caller="commerce/window")
    assert [(n, e.stage, e.threshold) for n, e in sent] == [(4, "B", "manual"), (5, "C", "manual")]
    assert await any_bed.cases.remind(case.case_id, "", request_id=request, caller="commerce/window") == sent
    assert [r["audience"] for r in await any_bed.outbox("reminder")] == ["publicsecurity", "taxation"]
    with pytest.raises(FailedPrecondition) as caught:
        await any_bed.cases.remind(case.case_id, "B", request_id=fresh(), caller="commerce/window")
    assert caught.value.reason is Reason.REMINDED_ALREADY
    await any_bed.cases.remind(case.case_id, "B", request_id=fresh(), caller="enterprise/x")
    any_bed.clock.move(days=1)
    await any_bed.cases.remind(case.case_id, "B", request_id=fresh(), caller="commerce/window")


@pytest.mark.parametrize(("code", "reason"), [("D", Reason.STAGE_NOT_READY), ("Z", Reason.STAGE_UNKNOWN)])
async def test_there_is_nobody_to_remind(bed: Bed, code: str, reason: Reason) -> None:
    case = await accepted(bed)
    with pytest.raises(HutongError) as caught:
        await bed.cases.remind(case.case_id, code, request_id=fresh(), caller="commerce/window")
    assert caught.value.reason is reason


NOTICE = """\
id: CN
year: 2027
source: made up for a test
published: 2026-11-12
holidays:
  - 2027-01-01/2027-01-08
  - 2027-02-05/2027-02-12
  - 2027-04-05
  - 2027-05-01/2027-05-05
  - 2027-06-09
  - 2027-09-15
  - 2027-10-01/2027-10-07
workdays: []
"""


async def test_a_calendar_that_is_published_moves_deadlines_visibly(sqlite_url: str, tmp_path: Path) -> None:
    hand = Hand(dt.datetime(2026, 12, 28, 2, tzinfo=dt.UTC))
    folder = tmp_path / "calendars"
    folder.mkdir()
    async with desk(sqlite_url, tmp_path, hand) as bed:
        case = await bed.submit()
        shown = case.reckoning.stages["A"].clock
        assert shown is not None
        assert shown.reckoning.provisional
        assert await bed.cases.recompute() == 0
        (folder / "CN-2027.yaml").write_text(NOTICE, encoding="utf-8")
        assert await bed.cases.recompute(Calendars.load(folder)) == 1
        assert await bed.cases.recompute() == 0
        after = await bed.cases.get(case.case_id)
        moved = after.events[-1]
        clock = after.reckoning.stages["A"].clock
        assert clock is not None
        assert (moved.kind, moved.stage, moved.due_before, moved.due_after) == (
            Kind.RECOMPUTE,
            "A",
            shown.due_at,
            clock.due_at,
        )
        assert moved.due_before != moved.due_after
        assert moved.calendar == after.reckoning.calendar != case.reckoning.calendar
        (row,) = await bed.rows(CASE)
        assert row["calendar"] == moved.calendar


async def test_a_suspended_clock_is_not_computed_anew(sqlite_url: str, tmp_path: Path) -> None:
    hand = Hand(dt.datetime(2026, 12, 28, 2, tzinfo=dt.UTC))
    async with desk(sqlite_url, tmp_path, hand) as bed:
        case = await accepted(bed)
        await bed.act(case.case_id, Kind.START, "C", "taxation")
        await bed.act(case.case_id, Kind.SUSPEND, "C", "taxation", pause=Pause.INQUIRY, reason="THIRD_PARTY_NEEDED")
        execute(bed.url, "UPDATE case_head SET calendar = 'CN@before'")
        assert await bed.cases.recompute() == 0


async def test_deadlines_are_looked_at_when_a_node_starts(sqlite_url: str, tmp_path: Path) -> None:
    hand = Hand(dt.datetime(2026, 12, 28, 2, tzinfo=dt.UTC))
    async with desk(sqlite_url, tmp_path, hand) as bed:
        case = await bed.submit()
    folder = tmp_path / "calendars"
    folder.mkdir()
    (folder / "CN-2027.yaml").write_text(NOTICE, encoding="utf-8")
    async with desk(sqlite_url, tmp_path, hand, calendars=Calendars.load(folder)) as bed:
        assert (await bed.kinds(case.case_id))[-1] == "RECOMPUTE:A"
