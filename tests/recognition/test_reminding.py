"""What becomes due, when, and to whom it is told."""

import datetime as dt
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.recognition.agencies import Agencies
from services.recognition.case import CaseState, fold
from services.recognition.events import WHOLE_CASE, Event, Kind, Pause, ResultCode
from services.recognition.procedure import Escalation, Extension, Overdue, Procedure
from services.recognition.reminding import Reminder, deemed_now, due_now, next_at
from tests.recognition import worlds
from tests.recognition.worlds import CALENDARS, DAY, HOUR, SERVICE, T0, Story, days, hours, procedure, stage

AGENCIES: Final = Agencies.load()
ZONE: Final = CALENDARS.get("CN").zone
STEPS: Final = (Escalation(days(1), "superior"), Escalation(days(3), "supervision"))
World = tuple[Procedure, list[Event]]


def local(month: int, day: int, hour: int = 0) -> dt.datetime:
    """A moment of 2026 by the clocks in Beijing; T0 is Monday 2 March, 9:00."""
    return dt.datetime(2026, month, day, hour, tzinfo=ZONE)


def trial(**said: Any) -> Procedure:
    said.setdefault("limit", days(4))
    return procedure(stage("A", agency="taxation", **said), stage("Z"), escalation=STEPS)


def due(story: Story, now: dt.datetime) -> list[Reminder]:
    return due_now(story.state, CALENDARS, AGENCIES, now)


def following(story: Story, now: dt.datetime) -> dt.datetime | None:
    return next_at(story.state, CALENDARS, AGENCIES, now)


def sent(story: Story, now: dt.datetime) -> list[str]:
    """Send what is due now, as the scheduler does; gives the thresholds."""
    found = due(story, now)
    for reminder in found:
        story.say(Kind.REMIND, reminder.stage, now, threshold=reminder.threshold, addressee=reminder.addressee)
    return [reminder.threshold for reminder in found]


def test_thresholds_come_one_after_the_other_each_to_its_office() -> None:
    story = Story(trial())
    expected = [
        Reminder("A", "yellow", "taxation-service-hall", local(3, 5)),
        Reminder("A", "red", "taxation-service-hall", local(3, 7)),
        Reminder("A", "escalation-1", "taxation-refund-division", local(3, 10)),
        Reminder("A", "escalation-2", "zone-supervision", local(3, 12)),
    ]
    for reminder in expected:
        assert due(story, reminder.at - dt.timedelta(microseconds=1)) == []
        assert following(story, T0) == reminder.at
        assert due(story, reminder.at) == [reminder]
        assert sent(story, reminder.at) == [reminder.threshold]
    assert following(story, local(3, 30)) is None


def test_what_was_missed_is_made_up_for_oldest_first_and_once() -> None:
    story = Story(trial())
    assert sent(story, local(3, 20)) == ["yellow", "red", "escalation-1", "escalation-2"]
    assert sent(story, local(3, 20)) == []
    assert sent(story, local(3, 25)) == []


def test_a_reminder_that_was_sent_by_hand_takes_no_threshold_away() -> None:
    story = Story(trial()).say(Kind.REMIND, "A", 1, threshold="manual", addressee="taxation-service-hall")
    assert sent(story, local(3, 7)) == ["yellow", "red"]


def test_a_procedure_or_stage_may_want_an_earlier_warning() -> None:
    assert following(Story(trial(yellow=3)), T0) == local(3, 3)
    assert following(Story(trial(limit=hours(8))), T0) == T0 + 6 * HOUR
    assert following(Story(trial(limit=hours(8), yellow=1)), T0) == T0 + 7 * HOUR


def test_nothing_becomes_due_while_a_clock_stands() -> None:
    story = Story(trial(pauses={Pause.TEST: days(1)})).start("A", 1)
    story.say(Kind.SUSPEND, "A", local(3, 3, 10), pause=Pause.TEST, reason="WHY")
    assert following(story, local(3, 3, 10)) is None
    assert due(story, local(6, 1)) == []
    story.say(Kind.RESUME, "A", local(3, 16, 10))
    assert following(story, local(3, 16, 10)) == local(3, 18)


def test_what_was_due_before_a_clock_stood_stays_due() -> None:
    story = Story(trial(pauses={Pause.TEST: None})).start("A", 1)
    story.say(Kind.SUSPEND, "A", local(3, 8, 10), pause=Pause.TEST, reason="WHY")
    assert sent(story, local(3, 8, 11)) == ["yellow", "red"]


def test_an_extension_moves_what_has_not_been_sent_and_repeats_nothing() -> None:
    story = Story(trial(extension=Extension(4, 1, "superior"))).start("A", 1)
    assert sent(story, local(3, 5)) == ["yellow"]
    story.say(Kind.EXTEND, "A", local(3, 5, 1), extension=4, approval_ref="A-1", reason="WHY")
    assert following(story, local(3, 5, 1)) == local(3, 13)
    assert due(story, local(3, 12, 23)) == []
    assert sent(story, local(3, 13)) == ["red"]


def test_a_stage_that_has_ended_or_is_left_out_reminds_of_nothing() -> None:
    ended = Story(trial()).end("A", 1)
    left_out = Story(trial(optional=True)).say(Kind.WITHDRAW, "A", 1, reason="WHY")
    closed = Story(trial()).say(Kind.WITHDRAW, WHOLE_CASE, 1, reason="WHY")
    for story in (ended, left_out, closed):
        assert following(story, T0) is None
        assert due(story, local(6, 1)) == []


def test_a_stage_in_which_nothing_happens_when_it_is_overdue_reminds_of_nothing() -> None:
    story = Story(trial(overdue=Overdue.NONE))
    assert following(story, T0) is None
    assert due(story, local(6, 1)) == []


def test_a_stage_that_waits_reminds_of_nothing_unless_its_clock_runs_already() -> None:
    waiting = procedure(stage("A"), stage("B", "A"), stage("C", "B", limit=days(4)))
    assert following(Story(waiting).end("A", 1), T0) is None
    running = procedure(stage("A"), stage("B", "A"), stage("C", "B", limit=days(4), clock="started:A"))
    assert sent(Story(running).end("A", 1), local(3, 7)) == ["yellow", "red"]


def test_a_stage_that_was_opened_again_has_thresholds_of_its_own() -> None:
    story = Story(trial(accepts=True))
    assert sent(story, local(3, 7)) == ["yellow", "red"]
    story.recognise("A", local(3, 7)).say(Kind.REFUSE_RECOGNITION, "A", local(3, 9, 9), reason="TOO_OLD")
    assert due(story, local(3, 9, 9)) == []
    assert following(story, local(3, 9, 9)) == local(3, 12)
    assert sent(story, local(3, 14)) == ["yellow.2", "red.2"]
    assert sent(story, local(3, 30)) == ["escalation-1.2", "escalation-2.2"]


# Silence.


def silent(**said: Any) -> Story:
    return Story(trial(overdue=Overdue.DEEMED, **said))


def test_silence_counts_from_the_moment_the_limit_is_used_up() -> None:
    story = silent()
    assert deemed_now(story.state, CALENDARS, local(3, 6, 23)) == []
    assert deemed_now(story.state, CALENDARS, local(3, 7)) == [("A", local(3, 7))]
    assert deemed_now(story.state, CALENDARS, local(6, 1)) == [("A", local(3, 7))]
    story.say(Kind.DEEMED, "A", local(3, 7))
    assert deemed_now(story.state, CALENDARS, local(6, 1)) == []
    assert following(story, local(6, 1)) is None


def test_silence_does_not_count_while_a_clock_stands() -> None:
    story = silent(supplement=True).start("A", 1).say(Kind.SUPPLEMENT_REQUEST, "A", 2, reason="WHY")
    assert deemed_now(story.state, CALENDARS, local(6, 1)) == []
    assert following(story, local(6, 1)) is None
    story.say(Kind.SUPPLEMENT_RECEIVED, "A", local(3, 4, 9))
    # Monday and Tuesday did not count: Wednesday to Friday and the Monday after do.
    assert deemed_now(story.state, CALENDARS, local(6, 1)) == [("A", local(3, 10))]


def test_silence_counts_only_once_the_stage_is_ready() -> None:
    waiting = procedure(
        stage("A"), stage("B", "A"), stage("C", "B", limit=days(1), clock="started:A", overdue=Overdue.DEEMED)
    )
    story = Story(waiting).end("A", 1)
    assert deemed_now(story.state, CALENDARS, local(3, 20)) == []
    story.end("B", local(3, 20, 9))
    assert deemed_now(story.state, CALENDARS, local(3, 20, 10)) == [("C", local(3, 20, 9))]


def test_silence_is_not_dated_before_what_was_said() -> None:
    story = silent().start("A", local(3, 9, 9))
    assert deemed_now(story.state, CALENDARS, local(3, 9, 10)) == [("A", local(3, 9, 9))]


def test_one_silence_may_let_the_next_clock_begin() -> None:
    chain = procedure(
        stage("A", limit=days(1), overdue=Overdue.DEEMED), stage("B", "A", limit=days(1), overdue=Overdue.DEEMED)
    )
    story, now = Story(chain), local(3, 30)
    moments: list[dt.datetime] = []
    while found := deemed_now(story.state, CALENDARS, now):
        ((code, at),) = found
        story.now = now
        story.say(Kind.DEEMED, code, at)
        moments.append(at)
    assert moments == [local(3, 4), local(3, 6)]
    assert story.state.closed_at == local(3, 6)


# At random.


@given(worlds.worlds(), st.integers(0, 300))
def test_the_next_moment_is_the_next_moment(world: World, hours_later: int) -> None:
    found, events = world
    state = fold(found, events)
    now = max(e.at for e in events) + hours_later * HOUR
    moment = next_at(state, CALENDARS, AGENCIES, now)

    def anything(at: dt.datetime) -> bool:
        return bool(due_now(state, CALENDARS, AGENCIES, at) or deemed_now(state, CALENDARS, at))

    if moment is None:
        assert not anything(now + 3000 * DAY)
    else:
        assert anything(max(moment, now))
        assert not anything(moment - dt.timedelta(microseconds=1))


@given(worlds.worlds(steps=8))
@settings(max_examples=60)
def test_whoever_does_all_that_is_due_comes_to_an_end_and_does_nothing_twice(world: World) -> None:
    found, events = world
    state: CaseState = fold(found, events)
    now, done = max(e.at for e in events), 0
    reminded: list[tuple[str, str]] = []
    while (moment := next_at(state, CALENDARS, AGENCIES, now)) is not None:
        now = max(now, moment)
        for code, at in deemed_now(state, CALENDARS, now)[:1]:
            state.apply(Event(f"d{done}", Kind.DEEMED, code, SERVICE, at, now))
        for reminder in due_now(state, CALENDARS, AGENCIES, now):
            reminded.append((reminder.stage, reminder.threshold))
            event = Event(f"r{done}", Kind.REMIND, reminder.stage, SERVICE, now, now, threshold=reminder.threshold)
            state.apply(event)
        done += 1
        assert done < 200
    assert len(reminded) == len(set(reminded))
    for code, of in found.stages.items():
        assert of.overdue is not Overdue.DEEMED or state.stages[code].status not in {"READY", "OPEN"}


@pytest.mark.parametrize("result", ResultCode)
def test_a_late_opinion_makes_nothing_due(result: ResultCode) -> None:
    story = silent().say(Kind.DEEMED, "A", local(3, 7))
    story.say(Kind.RESULT, "A", local(3, 9), result=result, reason="WHY")
    assert following(story, local(3, 9)) is None
