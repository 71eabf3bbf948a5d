"""What follows from time: stages deemed passed, reminders and escalations, deadlines computed anew."""

import datetime as dt
import json
from collections import Counter
from pathlib import Path

import pytest

from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.recognition.calendars import Calendars
from services.recognition.events import Kind, Pause, ResultCode
from services.recognition.tables import CASE, REMINDER
from tests.recognition.desk import Bed, Hand, desk, execute, fresh
from tests.recognition.test_cases import OTHER, accepted
from tests.recognition.test_follow_ups import open_tasks, stage


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
    assert len(await any_bed.reminded()) == len(expected)
    told = Counter((r["audience"], json.loads(r["payload"])["threshold"]) for r in await any_bed.outbox("reminder"))
    late = {(agency, t): 1 for agency in ("publicsecurity", "taxation") for _, t in expected}
    # What goes to supervision, which is an office of no agency, the lead agency hears of.
    assert told == Counter(late) + Counter({("commerce", "escalation-2"): 2})
    assert {r["key"] for r in await any_bed.outbox("reminder")} == {case.case_id}


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


async def test_what_is_due_and_cannot_be_done_is_left_for_a_while(bed: Bed) -> None:
    """A reminder whose row is there and whose event is not: nobody knows whether it was sent, so it is not."""
    case = await accepted(bed)
    rows = ", ".join(f"('{case.case_id}', '{s}', 'yellow', 'x', '2026-09-21 02:00:00.000000')" for s in "BC")
    execute(bed.url, f"INSERT INTO reminder VALUES {rows}")
    due = await bed.cases.next_due()
    assert due is not None
    bed.clock.now = due
    assert await bed.cases.tick() == 0
    assert await bed.cases.next_due() == due + dt.timedelta(minutes=1)


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
