"""Fourteen cases that every clock and graph of this kind has to get right, with the shipped procedures where they fit.

What they need of a store, of results or of several agencies at once is tried elsewhere.
"""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo

import holidays
import pytest
import yaml

from services.kit.errors import HutongError, Reason
from services.recognition import rules
from services.recognition.agencies import Agencies
from services.recognition.calendars import Calendars
from services.recognition.case import fold
from services.recognition.events import Kind, Pause, ResultCode
from services.recognition.procedure import Procedure
from services.recognition.procedures import Procedures
from services.recognition.reminding import deemed_now, due_now
from services.recognition.statutory import Limit, Suspension, Unit
from services.recognition.view import CaseReckoning, Light, view
from tests.recognition.worlds import CALENDARS, Story, days, procedure, stage

PROCEDURES: Final = Procedures.load()
AGENCIES: Final = Agencies.load()
BEIJING: Final = ZoneInfo("Asia/Shanghai")
AMSTERDAM: Final = ZoneInfo("Europe/Amsterdam")
ESTABLISHMENT, CERTIFICATION, REFUND = (
    PROCEDURES.get(label) for label in ("FTZ-EST@1.0.0", "AEO-CERT@1.0.0", "VAT-REFUND@1.0.0")
)


def at(text: str, zone: ZoneInfo = BEIJING) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone)


def seen(story: Story, now: dt.datetime, calendars: Calendars = CALENDARS) -> CaseReckoning:
    return view(story.state, calendars, now)


def due(story: Story, code: str, now: dt.datetime, calendars: Calendars = CALENDARS) -> dt.datetime | None:
    clock = seen(story, now, calendars).stages[code].clock
    assert clock is not None
    return clock.due_at


def established(begun: dt.datetime, **said: Any) -> Story:
    """An establishment that was accepted at once: E2 is ready."""
    return Story(ESTABLISHMENT, begun, **said).end("E0", begun).end("E1", begun)


def twenty(**said: Any) -> Procedure:
    """The law's ordinary limit, with what may stop it."""
    return procedure(stage("A", limit=days(20), pauses={Pause.TEST: None}, **said), stage("Z"))


def test_1_a_make_up_saturday_counts() -> None:
    begun = at("2026-09-30T10:00")
    story = Story(ESTABLISHMENT, begun).end("E0", begun)
    # The holiday ends on 7 October; 10 October is a working Saturday.
    assert due(story, "E1", begun) == at("2026-10-14T00:00")


def test_2_a_notice_that_comes_later_moves_the_deadline_for_all_to_see(tmp_path: Path) -> None:
    last = max(year for year in range(2020, 2100) if CALENDARS.get("CN").year(year).official)
    begun = dt.datetime(last, 12, 28, 10, tzinfo=BEIJING)
    trial = procedure(stage("A", limit=days(5)), stage("Z"))
    story = Story(trial, begun)
    before = seen(story, begun)
    assert before.provisional
    first = dt.date(last + 1, 1, 1)
    by_law = holidays.country_holidays("CN", years=last + 1)
    notice = {
        "id": "CN",
        "year": last + 1,
        "source": "invented",
        "published": f"{last}-11-12",
        "holidays": [str(day) for day in {*by_law, *(first + dt.timedelta(days=n) for n in range(10))}],
        "workdays": [],
    }
    (tmp_path / f"CN-{last + 1}.yaml").write_text(yaml.safe_dump(notice))
    published = Calendars.load(tmp_path)
    after = seen(story, begun, published)
    assert not after.provisional
    assert after.calendar != before.calendar
    moved, moved_to = due(story, "A", begun), due(story, "A", begun, published)
    assert moved is not None
    assert moved_to is not None
    assert moved < moved_to
    statuses = story.statuses()
    story.say(Kind.RECOMPUTE, "A", begun, calendar=after.calendar, due_before=moved, due_after=moved_to)
    assert story.statuses() == statuses
    assert due(story, "A", begun) == moved  # the answer hangs on the calendar, not on the event
    assert story.state.calendar == after.calendar


def test_3_a_suspension_over_a_holiday_gives_back_what_was_counted_only() -> None:
    begun = at("2026-09-21T09:00")
    story = Story(twenty(), begun).start("A")
    assert due(story, "A", begun) == at("2026-10-27T00:00")
    story.say(Kind.SUSPEND, "A", at("2026-09-23T10:00"), pause=Pause.TEST, reason="WHY")
    story.say(Kind.RESUME, "A", at("2026-09-28T15:00"))
    # 25 September is a holiday: only 23 and 24 September were lost, and 28 September counts.
    assert due(story, "A", at("2026-09-29T09:00")) == at("2026-10-29T00:00")


def test_4_two_stages_of_one_agency_are_paused_separately() -> None:
    begun = at("2026-03-02T09:00")
    trial = procedure(
        *(stage(code, agency="customs", limit=days(4), pauses={Pause.TEST: None}) for code in ("A", "B")), stage("Z")
    )
    story = Story(trial, begun).start("A").start("B")
    story.say(Kind.SUSPEND, "A", at("2026-03-03T09:00"), pause=Pause.TEST, reason="WHY")
    story.say(Kind.SUSPEND, "B", at("2026-03-04T09:00"), pause=Pause.TEST, reason="WHY")
    story.say(Kind.RESUME, "A", at("2026-03-05T09:00"))
    assert story.statuses() == {"A": "OPEN", "B": "SUSPENDED", "Z": "READY"}
    now = at("2026-03-06T09:00")
    assert due(story, "A", now) == at("2026-03-11T00:00")
    assert due(story, "B", now) is None
    assert story.state.held_by == ("customs", "commerce")


@pytest.mark.parametrize(
    ("received", "end"),
    [
        ("2026-03-06T23:59:59", "2026-03-07T00:00"),  # at the last moment: the day still counts, and is the last
        ("2026-03-07T00:00:00", "2026-03-10T00:00"),  # a Saturday: Friday did not count, Monday does
    ],
)
def test_5_a_supplement_received_on_the_last_day(received: str, end: str) -> None:
    begun = at("2026-03-02T09:00")
    trial = procedure(stage("A", limit=days(4), supplement=True), stage("Z"))
    story = Story(trial, begun).start("A")
    story.say(Kind.SUPPLEMENT_REQUEST, "A", at("2026-03-06T09:00"), reason="WHY")
    story.say(Kind.SUPPLEMENT_RECEIVED, "A", at(received), agency="applicant")
    assert due(story, "A", at(received)) == at(end)


def test_6_a_recognised_result_revoked_before_the_decision_undoes_nothing_and_is_seen() -> None:
    begun = at("2026-03-02T09:00")
    story = established(begun).recognise("E2", at("2026-03-02T10:00")).start("E4", at("2026-03-02T11:00"))
    before = story.statuses()
    story.say(Kind.REVOKE, "E2", at("2026-03-02T12:00"), reason="ISSUED_IN_ERROR")
    assert story.statuses() == before
    assert [code for code, s in story.state.stages.items() if s.doubtful] == ["E2", "E4"]
    # The recogniser examines it itself: until then nothing is decided on it.
    story.say(Kind.REFUSE_RECOGNITION, "E2", at("2026-03-02T13:00"), reason="CONTRADICTED")
    decision = story.event(Kind.RESULT, "E4", at("2026-03-02T14:00"), result=ResultCode.PASS, ref="r-E4")
    with pytest.raises(HutongError) as caught:
        rules.check(story.state, decision, now=decision.at, caller_agency="commerce")
    assert caught.value.reason == Reason.STAGE_NOT_READY
    story.end("E2", at("2026-03-02T15:00")).end("E4", at("2026-03-02T16:00"))
    assert not any(s.doubtful for s in story.state.stages.values())


def test_7_a_second_agency_s_word_does_not_take_the_place_of_the_first_by_itself() -> None:
    begun = at("2026-03-02T09:00")
    story = established(begun).recognise("E2", begun, ref="first")
    second = story.event(Kind.RECOGNISE, "E2", begun, ref="second", source_agency="taxation", arrangement="MRA@1.0.0")
    with pytest.raises(HutongError) as caught:
        rules.check(story.state, second, now=begun, caller_agency=rules.SERVICE)
    assert caught.value.reason == Reason.EVENT_NOT_ALLOWED
    story.say(Kind.REFUSE_RECOGNITION, "E2", begun, reason="CONTRADICTED")
    story.say(Kind.RECOGNISE, "E2", begun, ref="second", source_agency="taxation", arrangement="MRA@1.0.0")
    assert story.state.stages["E2"].ref == "second"


def test_8_a_parallel_branch_is_dropped_and_the_others_go_on() -> None:
    begun = at("2026-03-02T09:00")
    trial = procedure(
        stage("A"),
        stage("B", "A", limit=days(3), agency="taxation", optional=True),
        stage("C", "A", limit=days(3), agency="customs"),
        stage("D", "B C", limit=days(1)),
    )
    story = Story(trial, begun).end("A", begun).start("B").start("C")
    story.say(Kind.WITHDRAW, "B", at("2026-03-03T09:00"), reason="BRANCH_NOT_NEEDED")
    assert story.statuses() == {"A": "PASSED", "B": "WITHDRAWN", "C": "OPEN", "D": "WAITING"}
    story.end("C", at("2026-03-04T09:00"))
    assert story.state.stages["D"].started_at == at("2026-03-04T09:00")
    story.end("D", at("2026-03-05T09:00"))
    assert story.state.status == "DELIVERED"


def test_9_facts_about_a_legal_representative_who_has_changed_are_examined_again() -> None:
    begun = at("2026-03-02T09:00")
    story = established(begun).recognise("E2", begun, ref="the-old-one")
    changed = at("2026-03-04T09:00")
    story.say(Kind.REFUSE_RECOGNITION, "E2", changed, reason="SUBJECT_CHANGED")
    found = story.state.stages["E2"]
    assert (found.status, found.started_at, found.refused_refs) == ("READY", changed, ("the-old-one",))
    assert story.statuses()["E4"] == "WAITING"
    assert due(story, "E2", changed) == at("2026-03-06T00:00")
    with pytest.raises(HutongError) as caught:
        story.recognise("E2", changed, ref="the-old-one")
    assert caught.value.reason == Reason.EVENT_NOT_ALLOWED


def test_10_a_negative_opinion_after_silence_is_kept_and_changes_nothing() -> None:
    begun = at("2026-03-02T09:00")
    story = established(begun).end("E2", begun).end("E4", begun)
    ((code, deemed_at),) = deemed_now(story.state, CALENDARS, at("2026-03-05T09:00"))
    assert (code, deemed_at) == ("E5a", at("2026-03-04T00:00"))
    story.now = at("2026-03-05T09:00")
    story.say(Kind.DEEMED, code, deemed_at)
    assert story.state.stages["E5a"].owes_document
    assert seen(story, story.now).stages["E5a"].late
    story.say(Kind.RESULT, "E5a", at("2026-03-05T10:00"), result=ResultCode.FAIL, reason="CONDITIONS_NOT_MET")
    found = story.state.stages["E5a"]
    assert (found.status, found.late_opinion, found.owes_document) == ("DEEMED", ResultCode.FAIL, False)
    assert story.state.closed_at is None
    assert story.state.status == "ISSUED"


def test_11_an_agency_that_is_away_for_three_days_is_overdue_and_its_superior_is_told() -> None:
    begun = at("2026-03-02T09:00")
    story = established(begun)
    back = at("2026-03-05T12:00")
    assert seen(story, back).stages["E2"].light is Light.RED
    told = [(r.threshold, r.addressee) for r in due_now(story.state, CALENDARS, AGENCIES, back)]
    assert told == [
        ("yellow", "publicsecurity-window"),
        ("red", "publicsecurity-window"),
        ("escalation-1", "publicsecurity-division"),
    ]


def test_12_a_day_ends_when_it_does_there_also_when_clocks_are_changed() -> None:
    trial = procedure(stage("A", limit=days(1)), stage("B", limit=Limit(48, Unit.HOUR)), stage("Z"), calendar="NL")
    begun = at("2026-03-27T10:00", AMSTERDAM)  # a Friday; clocks go forward on Sunday
    story = Story(trial, begun)
    assert due(story, "A", begun) == dt.datetime(2026, 3, 30, 22, tzinfo=dt.UTC)
    later = Story(trial, at("2026-03-28T10:00", AMSTERDAM))
    assert due(later, "B", begun) == at("2026-03-30T11:00", AMSTERDAM)  # 48 hours, not two days by the clock
    autumn = Story(trial, at("2026-10-23T10:00", AMSTERDAM))
    assert due(autumn, "A", begun) == dt.datetime(2026, 10, 26, 23, tzinfo=dt.UTC)


@pytest.mark.parametrize(("roll", "end"), [(True, "2026-10-09T00:00"), (False, "2026-10-04T00:00")])
def test_13_calendar_days_that_end_on_a_rest_day(*, roll: bool, end: str) -> None:
    trial = procedure(stage("A", limit=Limit(30, Unit.CALENDAR_DAY)), stage("Z"), roll=roll)
    story = Story(trial, at("2026-09-03T09:00"))
    assert due(story, "A", at("2026-09-03T09:00")) == at(end)


def test_14_a_law_that_changes_leaves_cases_alone_that_began_before() -> None:
    begun = at("2026-03-02T09:00")
    story = established(begun)
    stages = dict(ESTABLISHMENT.stages)
    stages["E2"] = replace(stages["E2"], limit=days(9))
    stages["E9"] = stage("E9", "E2", limit=days(1))
    amended = replace(ESTABLISHMENT, version="2.0.0", stages=MappingProxyType(stages))
    assert due(story, "E2", begun) == at("2026-03-04T00:00")
    new = Story(amended, begun).end("E0", begun).end("E1", begun)
    assert due(new, "E2", begun) == at("2026-03-14T00:00")
    assert story.state.submission.procedure == "FTZ-EST@1.0.0"
    assert "E9" not in fold(ESTABLISHMENT, story.events).stages


# What the four procedures say of clocks that are not ordinary.


def test_a_decision_may_have_to_come_within_a_time_from_acceptance() -> None:
    begun = at("2026-03-02T09:00")
    story = Story(CERTIFICATION, begun).end("A1", begun)
    assert story.statuses()["A5"] == "WAITING"
    assert due(story, "A5", begun) == at("2026-06-02T00:00")  # the ninetieth day is a Sunday: Monday too
    assert seen(story, begun).stages["A5"].waits_for == ("A4",)


def test_an_inquiry_stops_the_clock_of_the_decision() -> None:
    begun = at("2026-03-02T09:00")
    story = Story(REFUND, begun, answers={"refund_class": "1"})
    for code in ("V0", "V1", "V2", "V3"):
        story.end(code, begun)
    assert due(story, "V6", begun) == at("2026-03-10T00:00")
    story.end("V4a", begun, ResultCode.CONDITIONAL)
    assert (story.statuses()["V4b"], story.statuses()["V5"]) == ("READY", "READY")
    assert due(story, "V6", begun) is None
    story.end("V4b", at("2026-03-12T09:00"))
    assert due(story, "V6", at("2026-03-12T09:00")) == at("2026-03-19T00:00")
    assert story.state.stopped == (Suspension(begun, at("2026-03-12T09:00")),)


def test_without_a_hold_neither_inquiry_nor_evidence_is_wanted() -> None:
    begun = at("2026-03-02T09:00")
    story = Story(REFUND, begun, answers={"refund_class": "4"})
    for code in ("V0", "V1", "V2", "V3", "V4a"):
        story.end(code, begun)
    assert (story.statuses()["V4b"], story.statuses()["V5"]) == ("NOT_APPLICABLE", "NOT_APPLICABLE")
    assert story.statuses()["V6"] == "READY"
    assert due(story, "V6", begun) == at("2026-03-31T00:00")


@pytest.mark.parametrize("label", sorted(p.label for p in PROCEDURES))
@pytest.mark.parametrize("result", [ResultCode.PASS, ResultCode.CONDITIONAL])
def test_every_procedure_comes_to_its_end(label: str, result: ResultCode) -> None:
    found = PROCEDURES.get(label)
    begun = at("2026-03-02T09:00")
    answers = {name: question.default or question.values[-1] for name, question in found.questions.items()}
    story = Story(found, begun, answers=answers)
    for _ in found.stages:
        ready = [code for code, stage in story.statuses().items() if stage == "READY"]
        for code in ready:
            if story.state.closed_at is None and story.state.stages[code].ended_at is None:
                story.end(code, begun, result)
    assert story.state.status == "DELIVERED"
    assert seen(story, begun).expected_by == begun
