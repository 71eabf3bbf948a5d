"""Fourteen things that happen to real cases, through the store and over the wire: what is kept and who is told.

`test_edge_cases` has what follows from the events alone.
"""

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from hutong.api.exchange.v1 import event_pb2
from hutong.api.recognition.v1 import case_pb2
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.recognition.calendars import Calendars
from services.recognition.casework import Snapshot
from services.recognition.events import Kind, Pause, ResultCode
from services.recognition.tables import RESULT, TASK
from services.recognition.view import ClockReading, Light
from tests.recognition.desk import DEMO, EXPRESS, START, SUBJECT, Bed, Hand, desk
from tests.recognition.mesh import CUSTOMS, TAX, Mesh, firm
from tests.recognition.test_due import NOTICE
from tests.recognition.test_node import INBOX
from tests.recognition.test_versions import NEWER
from tests.zone import now

BEIJING = dt.timezone(dt.timedelta(hours=8))

LONG = """\
code: LONG
version: 1.0.0
title: Long
local_title: 长
lead: commerce
calendar: CN
subjects: [cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [establishment]
deemed: forbidden
escalation:
  - {after: 1 working day, to: superior}
  - {after: 3 working days, to: supervision}

stages:
  S:
    title: Papers
    local_title: 材料
    agency: quality
    limit: 5 working days
    supplement: true
  T:
    title: Site
    local_title: 现场
    agency: quality
    limit: 20 working days
    pauses: {INSPECTION: 10 working days}
  U:
    title: Laboratory
    local_title: 实验室
    agency: quality
    limit: 20 working days
    pauses: {TEST: null}
  V:
    title: Calendar days
    local_title: 自然日
    agency: customs
    limit: 10 calendar days
  W:
    title: Hours
    local_title: 小时
    agency: customs
    limit: 24 hours
  Z:
    title: Delivery
    local_title: 送达
    agency: commerce
    after: [S, T, U, V, W]
    instant: true
    reaches: DELIVERED
"""

RIVAL = """\
# Another agency says who the legal representative is, and what it says counts for taxation as well.
code: RIVAL
version: 1.0.0
title: Rival
local_title: 另案
lead: customs
calendar: CN
subjects: [cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [establishment]
deemed: forbidden

stages:
  R:
    title: Identity
    local_title: 身份
    agency: customs
    limit: 3 working days
    proves: {fact: person_verified, assurance: SUBSTANTIVE, valid_for: P180D}
    recognised_by: [publicsecurity, taxation]
  Z:
    title: Delivery
    local_title: 送达
    agency: customs
    after: [R]
    limit: 3 working days
    reaches: DELIVERED
"""


def beijing(year: int, month: int, day: int, hour: int = 0) -> dt.datetime:
    """A moment by the clocks of Beijing."""
    return dt.datetime(year, month, day, hour, tzinfo=BEIJING)


async def clock(bed: Bed, case_id: str, stage: str) -> ClockReading:
    reading = (await bed.cases.get(case_id)).reckoning.stages[stage].clock
    assert reading is not None
    return reading


async def last_day(bed: Bed, case_id: str, stage: str) -> str:
    """The day with whose end a limit is full, by the clocks of Beijing."""
    due = (await clock(bed, case_id, stage)).due_at
    assert due is not None
    shown = due.astimezone(BEIJING)
    assert (shown.hour, shown.minute, shown.second) == (0, 0, 0)
    return (shown - dt.timedelta(days=1)).date().isoformat()


async def submitted(bed: Bed, at: dt.datetime, procedure: str = "LONG", **said: Any) -> str:
    bed.clock.now = at
    return (await bed.submit(procedure, **said)).case_id


def long_bed(url: str, folder: Path, **more: Any) -> Any:
    return desk(url, folder, procedures=(LONG, DEMO, EXPRESS, RIVAL), **more)


# 1 Make-up Saturdays, and 3 suspensions over a holiday: the published test vectors, in a case.


@pytest.mark.parametrize(
    ("started", "stage", "expected"),
    [
        (beijing(2026, 9, 30, 9), "S", "2026-10-13"),
        (beijing(2026, 9, 21, 9), "T", "2026-10-26"),
        (beijing(2026, 2, 13, 9), "S", "2026-02-27"),
    ],
)
async def test_1_a_make_up_saturday_is_a_working_day(
    sqlite_url: str, tmp_path: Path, started: dt.datetime, stage: str, expected: str
) -> None:
    async with long_bed(sqlite_url, tmp_path) as bed:
        assert await last_day(bed, await submitted(bed, started), stage) == expected


async def test_1_what_begins_on_a_make_up_saturday_counts_from_the_next_working_day(
    sqlite_url: str, tmp_path: Path
) -> None:
    one_day = LONG.replace("limit: 5 working days", "limit: 1 working day")
    async with desk(sqlite_url, tmp_path, procedures=(one_day,)) as bed:
        assert await last_day(bed, await submitted(bed, beijing(2026, 2, 14, 9)), "S") == "2026-02-24"


async def test_2_a_notice_is_published_after_the_deadline_was_computed(sqlite_url: str, tmp_path: Path) -> None:
    """It was provisional and said so; now it is official, elsewhere, and an event says since when and by what."""
    folder = tmp_path / "calendars"
    folder.mkdir()
    async with long_bed(sqlite_url, tmp_path) as bed:
        case_id = await submitted(bed, beijing(2026, 12, 28, 9))
        before = await clock(bed, case_id, "S")
        assert before.reckoning.provisional
        (folder / "CN-2027.yaml").write_text(NOTICE, encoding="utf-8")
        bed.clock.move(days=2)
        assert await bed.cases.recompute(Calendars.load(folder)) > 0
        after = await clock(bed, case_id, "S")
        assert not after.reckoning.provisional
        (said,) = [e for e in await bed.cases.events(case_id) if e.kind is Kind.RECOMPUTE and e.stage == "S"]
        assert (said.due_before, said.due_after) == (before.due_at, after.due_at)
        assert said.due_before != said.due_after


async def test_3_a_suspension_over_a_holiday_costs_its_working_days_only(sqlite_url: str, tmp_path: Path) -> None:
    async with long_bed(sqlite_url, tmp_path) as bed:
        case_id = await submitted(bed, beijing(2026, 9, 21, 9))
        await bed.act(case_id, Kind.START, "T", "quality")
        bed.clock.now = beijing(2026, 9, 23, 10)
        await bed.act(case_id, Kind.SUSPEND, "T", "quality", pause=Pause.INSPECTION, reason="RISK_SELECTED")
        seen = (await bed.cases.get(case_id)).reckoning.stages["T"]
        assert (seen.pause, seen.clock and seen.clock.due_at) == (Pause.INSPECTION, None)
        assert seen.pause_clock is not None  # shown with a clock of its own
        assert (seen.pause_clock.started_at, seen.pause_clock.limit.amount) == (bed.clock.now, 10)
        bed.clock.now = beijing(2026, 9, 28, 15)
        await bed.act(case_id, Kind.RESUME, "T", "quality")
        assert await last_day(bed, case_id, "T") == "2026-10-28"
        assert await last_day(bed, case_id, "U") == "2026-10-26"


async def test_4_two_stages_of_one_agency_are_paused_separately(sqlite_url: str, tmp_path: Path) -> None:
    async with long_bed(sqlite_url, tmp_path) as bed:
        case_id = await submitted(bed, beijing(2026, 11, 2, 9))
        for stage in "TU":
            await bed.act(case_id, Kind.START, stage, "quality")
        bed.clock.now = beijing(2026, 11, 3, 9)
        await bed.act(case_id, Kind.SUSPEND, "T", "quality", pause=Pause.INSPECTION, reason="RISK_SELECTED")
        assert (await clock(bed, case_id, "U")).due_at is not None
        bed.clock.now = beijing(2026, 11, 5, 9)
        await bed.act(case_id, Kind.SUSPEND, "U", "quality", pause=Pause.TEST, reason="STATUTORY_PROCEDURE")
        await bed.act(case_id, Kind.RESUME, "T", "quality")
        assert (await clock(bed, case_id, "U")).due_at is None
        bed.clock.now = beijing(2026, 11, 6, 9)
        await bed.act(case_id, Kind.RESUME, "U", "quality")
        # Two working days stood still for one, one for the other.
        assert (await last_day(bed, case_id, "T"), await last_day(bed, case_id, "U")) == ("2026-12-02", "2026-12-01")


async def test_5_a_supplement_comes_on_the_last_day(sqlite_url: str, tmp_path: Path) -> None:
    """That day is counted once, at its close: who gets it in the morning has until midnight, and not a day less."""
    async with long_bed(sqlite_url, tmp_path) as bed:
        case_id = await submitted(bed, beijing(2026, 11, 2, 9))
        await bed.act(case_id, Kind.START, "S", "quality")
        assert await last_day(bed, case_id, "S") == "2026-11-09"
        bed.clock.now = beijing(2026, 11, 9, 8)
        await bed.act(case_id, Kind.SUPPLEMENT_REQUEST, "S", "quality", reason="MATERIAL_MISSING")
        bed.clock.now = beijing(2026, 11, 9, 17)
        await bed.act(case_id, Kind.SUPPLEMENT_RECEIVED, "S", "applicant", enterprise=True)
        reading = await clock(bed, case_id, "S")
        assert (await last_day(bed, case_id, "S"), reading.light) == ("2026-11-09", Light.YELLOW)
        with pytest.raises(HutongError) as caught:
            await bed.act(case_id, Kind.SUPPLEMENT_REQUEST, "S", "quality", reason="MATERIAL_MISSING")
        assert caught.value.reason is Reason.SUPPLEMENT_REPEATED
        bed.clock.now = beijing(2026, 11, 10)
        assert (await clock(bed, case_id, "S")).light is Light.RED


async def proven(bed: Bed) -> tuple[str, str]:
    """A case in which public security verifies the person; gives its id and the result's."""
    case = await bed.submit()
    await bed.through(case.case_id, ("A", "commerce"), ("B", "publicsecurity"))
    return case.case_id, (await bed.cases.get(case.case_id)).state.stages["B"].ref


async def test_6_a_recognised_result_is_revoked_between_recognition_and_decision(any_url: str, tmp_path: Path) -> None:
    async with long_bed(any_url, tmp_path) as bed:
        issued, ref = await proven(bed)
        case = await bed.submit("EXPRESS")
        assert case.state.stages["P"].ref == ref
        await bed.act(case.case_id, Kind.START, "Q", "taxation")
        await bed.act(issued, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL")
        with pytest.raises(FailedPrecondition) as caught:
            await bed.result(case.case_id, "Q", "taxation")
        assert caught.value.reason is Reason.RECOGNISED_RESULT_INVALID
        seen = (await bed.cases.get(case.case_id)).state
        assert seen.stages["P"].status == "RECOGNISED"  # nothing is undone by itself
        assert (seen.stages["P"].doubtful, seen.stages["Q"].doubtful) == (True, True)
        raised = [(t["owner_agency"], t["stage"]) for t in await bed.rows(TASK) if t["case_id"] == case.case_id]
        assert raised == [("publicsecurity", "P")]


async def test_7_two_agencies_say_different_things_of_the_same_fact(any_url: str, tmp_path: Path) -> None:
    """Neither counts; the lead agency has it settled, and the stage is examined by whose it is."""
    async with long_bed(any_url, tmp_path) as bed:
        one = await bed.submit("EXPRESS")
        await bed.act(one.case_id, Kind.START, "P", "publicsecurity")
        await bed.result(one.case_id, "P", "publicsecurity", credential=await named(bed, one, "P", "Wu"))
        # Customs knows better, says so, and examines for itself.
        other = await bed.submit("RIVAL")
        await bed.act(other.case_id, Kind.REFUSE_RECOGNITION, "R", "customs", reason="CONTRADICTED")
        await bed.act(other.case_id, Kind.START, "R", "customs")
        await bed.result(other.case_id, "R", "customs", credential=await named(bed, other, "R", "Xu"))
        third = await bed.submit("EXPRESS")
        assert third.state.stages["P"].status == "READY"
        raised = [t for t in await bed.rows(TASK) if t["kind"] == "FACTS_DISAGREE"]
        assert [(t["owner_agency"], t["case_id"], t["stage"]) for t in raised] == [("taxation", third.case_id, "P")]
        assert {raised[0]["result_ref"], raised[0]["origin_ref"]} == {
            r["result_ref"] for r in await bed.rows(RESULT) if r["fact"] == "person_verified"
        }


async def named(bed: Bed, case: Snapshot, stage: str, name: str) -> str:
    """Sign a result that says who it is."""
    return await bed.sign(case, case.procedure.stage(stage), value={"legal_representative": name})


async def test_8_a_parallel_branch_is_withdrawn(sqlite_url: str, tmp_path: Path) -> None:
    async with long_bed(sqlite_url, tmp_path) as bed:
        case = await bed.submit(answers={"foreign": "true"})
        await bed.through(case.case_id, ("A", "commerce"), ("B", "publicsecurity"), ("C", "taxation"))
        await bed.act(case.case_id, Kind.START, "X", "foreign-investment")
        assert await bed.ready(case.case_id) == []
        bed.clock.move(hours=1)
        await bed.act(case.case_id, Kind.WITHDRAW, "X", "commerce", reason="BRANCH_NOT_NEEDED")
        seen = (await bed.cases.get(case.case_id)).state
        assert (seen.stages["X"].status, seen.stages["D"].ready_at) == ("WITHDRAWN", bed.clock.now)
        # It is out of the race, and reminds nobody any more.
        bed.clock.move(days=40)
        await bed.cases.tick()
        assert "X" not in {e.stage for e in await bed.cases.events(case.case_id) if e.kind is Kind.REMIND}
        await bed.through(case.case_id, ("D", "commerce"), ("E", "commerce"))
        assert (await bed.cases.get(case.case_id)).head.status == "DELIVERED"


async def test_10_a_late_negative_opinion_after_silence_was_a_pass(any_url: str, tmp_path: Path) -> None:
    async with long_bed(any_url, tmp_path) as bed:
        case = await bed.submit()
        bed.clock.move(days=10)
        await bed.cases.tick()
        assert (await bed.cases.get(case.case_id)).state.stages["A"].status == "DEEMED"
        await bed.act(case.case_id, Kind.START, "C", "taxation")
        await bed.result(case.case_id, "A", "commerce", ResultCode.FAIL, reason="CONDITIONS_NOT_MET")
        seen = (await bed.cases.get(case.case_id)).state
        assert (seen.stages["A"].status, seen.stages["A"].late_opinion) == ("DEEMED", ResultCode.FAIL)
        assert (seen.status, seen.stages["C"].status) == ("IN_REVIEW", "OPEN")
        kinds = {(t["kind"], t["owner_agency"]) for t in await bed.rows(TASK)}
        assert kinds == {("DEEMED_DOCUMENT", "commerce"), ("LATE_OPINION", "commerce")}
        with pytest.raises(HutongError) as caught:  # once
            await bed.result(case.case_id, "A", "commerce")
        assert caught.value.reason is Reason.EVENT_NOT_ALLOWED


async def test_11_an_agency_is_away_for_three_days(tmp_path: Path) -> None:
    """Its clock runs on, the reminders go up its line, and it finds all of them when it is back."""
    mesh = Mesh(tmp_path)
    mesh.changes = {"backdating": dt.timedelta(days=60), "tick": dt.timedelta(milliseconds=100)}
    try:
        node = await mesh.start()
        long_ago = now() - dt.timedelta(days=50)
        case_id = (await mesh.submit(CUSTOMS, firm(), "AEO-CERT", applied_at=long_ago)).case.case_id
        seen: list[tuple[str, str]] = []
        async with asyncio.timeout(20):
            async for response in mesh.watch(TAX, case_id):
                event = response.event
                if event.stage_event == case_pb2.STAGE_EVENT_KIND_REMIND and event.stage_code == "A2a":
                    seen.append((event.threshold, event.addressee))
                if len(seen) == 4:
                    break
        assert [threshold for threshold, _ in seen] == ["yellow", "red", "escalation-1", "escalation-2"]
        line = node.cases.rulebook.agencies.get("taxation").line
        assert [office for _, office in seen[:3]] == [line[0].code, line[0].code, line[1].code]
        await mesh.start_department("taxation")
        async with asyncio.timeout(10):
            while len(found := await received(mesh, "taxation", TAX, "reminder", case_id)) < len(seen):
                pass
        assert [(said["threshold"], said["addressee"]) for said in found if said["stage_code"] == "A2a"] == seen
    finally:
        await mesh.stop()


async def received(mesh: Mesh, agency: str, who: str, kind: str, key: str) -> list[dict[str, Any]]:
    """What an agency's node has received of a kind."""
    request = event_pb2.ListInboxEventsRequest(kind=kind, key=key, page_size=200)
    answer = await mesh.client(who, agency).unary(INBOX, request, event_pb2.ListInboxEventsResponse, timeout=10)
    return [json.loads(event.payload) for event in answer.events]


# 12 Other zones: days end at local midnight, hours are hours.


@pytest.mark.parametrize(
    ("calendar", "applied_at", "days", "hours"),
    [
        # Clocks go back in the night to 25 October: a day of that week has twenty-five hours.
        ("NL", "2026-10-19T10:00+02:00", "2026-10-27T00:00+01:00", "2026-10-20T10:00+02:00"),
        ("NL", "2026-10-24T10:00+02:00", "2026-10-31T00:00+01:00", "2026-10-25T09:00+01:00"),
        # They go forward in March; the Friday before Easter and the Monday after it are off.
        ("NL", "2026-03-28T10:00+01:00", "2026-04-08T00:00+02:00", "2026-03-29T11:00+02:00"),
        # Five days in a week that begins on a Sunday.
        ("SA", "2026-11-05T10:00+03:00", "2026-11-13T00:00+03:00", "2026-11-06T10:00+03:00"),
        # It is Friday there still, while it is Saturday in Beijing.
        ("US", "2026-11-14T03:00+00:00", "2026-11-21T00:00-05:00", "2026-11-15T03:00+00:00"),
    ],
)
async def test_12_days_end_where_the_case_is(
    sqlite_url: str, tmp_path: Path, calendar: str, applied_at: str, days: str, hours: str
) -> None:
    text = LONG.replace("calendar: CN", f"calendar: {calendar}")
    async with desk(sqlite_url, tmp_path, procedures=(text,)) as bed:
        case_id = await submitted(bed, dt.datetime.fromisoformat(applied_at))
        assert (await clock(bed, case_id, "S")).due_at == dt.datetime.fromisoformat(days)
        assert (await clock(bed, case_id, "W")).due_at == dt.datetime.fromisoformat(hours)


async def test_13_calendar_days_that_end_on_a_rest_day(sqlite_url: str, tmp_path: Path) -> None:
    """Ten days from 23 September end in the holidays of October, and go on to the first working day behind them."""
    strict = LONG.replace("code: LONG", "code: STRICT").replace("matters:", "roll: false\nmatters:")
    async with desk(sqlite_url, tmp_path, procedures=(LONG, strict)) as bed:
        at = beijing(2026, 9, 23, 9)
        assert await last_day(bed, await submitted(bed, at), "V") == "2026-10-08"
        assert await last_day(bed, await submitted(bed, at, "STRICT", subject=SUBJECT), "V") == "2026-10-03"


async def test_14_the_law_changes_while_a_case_runs(sqlite_url: str, tmp_path: Path) -> None:
    changes = START + dt.timedelta(days=2)
    newer = NEWER.replace("2024-01-01T00:00:00+08:00", changes.isoformat())
    async with desk(sqlite_url, tmp_path, Hand(), procedures=(DEMO, newer)) as bed:
        case = await bed.submit()
        bed.clock.now = changes + dt.timedelta(hours=1)
        await bed.through(case.case_id, ("A", "commerce"))
        assert (await clock(bed, case.case_id, "B")).limit.amount == 3
        other = await bed.submit(subject="91350200M0000XUF50")
        await bed.through(other.case_id, ("A", "commerce"))
        assert (await clock(bed, other.case_id, "B")).limit.amount == 1
