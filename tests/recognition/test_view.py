"""What a case looks like at a moment: clocks, lights, what is expected, what that hangs on."""

import datetime as dt
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.recognition.calendars import Calendars
from services.recognition.case import CaseState, StageStatus, fold
from services.recognition.events import Event, Kind, Pause, ResultCode
from services.recognition.procedure import Extension, OnFail, Overdue, Procedure, Question
from services.recognition.statutory import Limit, Unit, add
from services.recognition.view import CaseReckoning, Light, view
from tests.recognition import worlds
from tests.recognition.worlds import CALENDARS, DAY, HOUR, T0, Story, days, hours, procedure, stage, submit

CN: Final = CALENDARS.get("CN")
ZONE: Final = CN.zone
AGAIN: Final = Calendars.load()
"""The same calendars, read anew."""
World = tuple[Procedure, list[Event]]


def local(month: int, day: int, hour: int = 0) -> dt.datetime:
    """A moment of 2026 by the clocks in Beijing."""
    return dt.datetime(2026, month, day, hour, tzinfo=ZONE)


def look(story: Story, now: dt.datetime | float) -> CaseReckoning:
    return view(story.state, CALENDARS, now if isinstance(now, dt.datetime) else T0 + now * HOUR)


# One clock. T0 is Monday 2 March, 9:00 in Beijing; there is no holiday near.

FOUR: Final = procedure(stage("A", limit=days(4), pauses={Pause.TEST: days(7), Pause.EXPERT: None}), stage("B"))


@pytest.mark.parametrize(
    ("now", "light", "used", "left"),
    [
        (local(3, 2, 9), Light.GREEN, 0, 4),
        (local(3, 4, 23), Light.GREEN, 1, 3),
        (local(3, 5), Light.YELLOW, 2, 2),  # the third day begins: a quarter of the limit is left after it
        (local(3, 6, 23), Light.YELLOW, 3, 1),
        (local(3, 7), Light.RED, 4, 0),
        (local(3, 10), Light.RED, 5, -1),
    ],
)
def test_lights_of_a_clock_that_runs(now: dt.datetime, light: Light, used: int, left: int) -> None:
    found = look(Story(FOUR), now).stages["A"]
    assert found.clock is not None
    assert (found.light, found.clock.reckoning.used, found.clock.reckoning.left) == (light, used, left)
    assert found.clock.due_at == local(3, 7)
    assert (found.runs, found.late) == (True, False)


def test_a_clock_that_stands_has_no_due_moment_but_one_of_its_own() -> None:
    story = Story(FOUR).start("A", 1).say(Kind.SUSPEND, "A", local(3, 3, 10), pause=Pause.TEST, reason="WHY")
    found = look(story, local(3, 9)).stages["A"]
    assert found.clock is not None
    assert found.clock.due_at is None
    assert (found.light, found.runs, found.pause) == (Light.GREEN, True, Pause.TEST)
    assert found.pause_clock is not None
    assert found.pause_clock.started_at == local(3, 3, 10)
    assert found.pause_clock.due_at == local(3, 13)
    assert found.pause_clock.light is Light.GREEN
    story.say(Kind.RESUME, "A", local(3, 9, 10))
    resumed = look(story, local(3, 10)).stages["A"]
    assert resumed.clock is not None
    assert resumed.clock.due_at == local(3, 13)
    assert resumed.pause_clock is None


def test_a_pause_without_a_limit_has_no_clock() -> None:
    story = Story(FOUR).start("A", 1).say(Kind.SUSPEND, "A", 2, pause=Pause.EXPERT, reason="WHY")
    found = look(story, 3).stages["A"]
    assert (found.pause, found.pause_clock) == (Pause.EXPERT, None)


def test_an_extension_moves_the_due_moment() -> None:
    trial = procedure(stage("A", limit=days(4), extension=Extension(3, 1, "superior")))
    story = Story(trial).start("A").say(Kind.EXTEND, "A", 1, extension=3, approval_ref="A-1", reason="WHY")
    found = look(story, 2).stages["A"]
    assert found.clock is not None
    assert (found.clock.limit, found.clock.due_at) == (days(7), local(3, 12))


@pytest.mark.parametrize(("at", "late", "light"), [(local(3, 6, 23), False, "GREEN"), (local(3, 7), True, "RED")])
def test_how_a_stage_ended_stays_as_it_was(at: dt.datetime, *, late: bool, light: str) -> None:
    story = Story(FOUR).end("A", at)
    for now in (at, at + 100 * DAY):
        found = look(story, now).stages["A"]
        assert (found.late, found.light, found.runs) == (late, light, False)
        assert found.clock is not None
        assert found.clock.reckoning.due_at == local(3, 7)


def test_a_stage_that_is_left_out_has_no_clock() -> None:
    trial = procedure(stage("A", limit=days(1), optional=True), stage("B", "A"))
    story = Story(trial).say(Kind.WITHDRAW, "A", 1, reason="WHY")
    found = look(story, 2).stages["A"]
    assert (found.status, found.clock, found.light, found.expected_by) == (StageStatus.WITHDRAWN, None, None, None)


def test_a_stage_says_what_it_waits_for() -> None:
    story = Story(procedure(stage("A"), stage("B"), stage("C", "A B"))).end("A", 1)
    stages = look(story, 2).stages
    assert [stages[code].waits_for for code in "ABC"] == [(), (), ("B",)]


def test_a_stage_waits_for_nothing_that_cannot_happen() -> None:
    """Of a branch that is left out, for what that one would have waited for; and for nothing twice over."""
    trial = procedure(
        stage("A"),
        stage("B", "A"),
        stage("X", "A", when={"foreign": "true"}),
        stage("Y", "X", optional=True),
        stage("D", "B X"),
        stage("E", "Y"),
        stage("F", "D", clock="started:A"),
        questions={"foreign": Question("?", "?", ("false", "true"), "false")},
    )
    story = Story(trial).say(Kind.WITHDRAW, "Y", 1, reason="WHY")
    stages = look(story, 2).stages
    assert {code: stages[code].waits_for for code in "BDEF"} == {"B": ("A",), "D": ("B",), "E": ("A",), "F": ("D",)}
    assert look(Story(trial, answers={"foreign": "true"}), 2).stages["D"].waits_for == ("B", "X")
    assert look(story.end("A", 3), 4).stages["D"].waits_for == ("B",)


def test_a_stage_that_may_still_apply_is_waited_for() -> None:
    failed = frozenset({ResultCode.FAIL})
    trial = procedure(
        stage("A", on_fail=OnFail.CONTINUE),
        stage("X", "A", when_result={"A": failed}),
        stage("B", "X"),
        stage("C", "A"),
    )
    story = Story(trial)
    assert look(story, 1).stages["B"].waits_for == ("X",)
    assert look(story.end("A", 2), 3).stages["B"].waits_for == ()


# Clocks of others.


def test_a_stage_may_stop_the_clocks_that_began_before_it() -> None:
    trial = procedure(
        stage("A", reaches="ACCEPTED"),
        stage("B", "A", limit=days(5), stops_clocks=True),
        stage("C", "B", limit=days(4), clock="started:A"),
        stage("D", "B", limit=days(4)),
        case_limit=days(10),
    )
    story = Story(trial).end("A", local(3, 2, 10))
    stands = look(story, local(3, 4))
    for clock in (stands.stages["C"].clock, stands.clock):
        assert clock is not None
        assert (clock.due_at, clock.reckoning.used) == (None, 0)
    assert stands.stages["B"].clock is not None
    assert stands.stages["B"].clock.due_at == local(3, 10)
    assert stands.stages["C"].expected_by == local(3, 14)
    story.end("B", local(3, 5, 10))
    runs = look(story, local(3, 6))
    assert runs.stages["C"].clock is not None
    assert runs.stages["C"].clock.due_at == local(3, 11)
    assert runs.clock is not None
    assert runs.clock.due_at == local(3, 19)
    assert runs.stages["D"].clock is not None
    assert runs.stages["D"].clock.due_at == local(3, 12)


def test_the_case_has_a_clock_of_its_own_from_acceptance_that_stands_while_everything_does() -> None:
    trial = procedure(stage("A", reaches="ACCEPTED"), stage("B", "A", pauses={Pause.TEST: None}), case_limit=days(5))
    story = Story(trial)
    assert look(story, 1).clock is None
    story.end("A", local(3, 2, 10)).start("B", local(3, 2, 11))
    clock = look(story, local(3, 3)).clock
    assert clock is not None
    assert (clock.started_at, clock.due_at) == (local(3, 2, 10), local(3, 10))
    story.say(Kind.SUSPEND, "B", local(3, 3, 10), pause=Pause.TEST, reason="WHY")
    stands = look(story, local(3, 5)).clock
    assert stands is not None
    assert stands.due_at is None
    story.say(Kind.RESUME, "B", local(3, 5, 10)).end("B", local(3, 6))
    ended = look(story, local(3, 30))
    assert ended.clock is not None
    assert (ended.clock.due_at, ended.clock.light) == (local(3, 12), Light.GREEN)


# The case.


def test_the_light_of_a_case_is_the_worst_of_its_clocks() -> None:
    story = Story(procedure(stage("A", limit=days(1)), stage("B", limit=days(9)), stage("C")))
    assert look(story, local(3, 2, 10)).light is Light.GREEN
    assert look(story, local(3, 3)).light is Light.YELLOW
    assert look(story, local(3, 4)).light is Light.RED
    story.end("A", local(3, 4))
    assert look(story, local(3, 4, 1)).light is Light.GREEN
    assert look(Story(procedure(stage("A"))), 1).light is None


def test_a_deadline_from_outside_counts_too() -> None:
    story = Story(procedure(stage("A")), deadline=T0 + DAY)
    assert look(story, 23).light is Light.GREEN
    assert look(story, 24).light is Light.RED


def test_a_closed_case_has_no_light_and_ended_when_it_did() -> None:
    story = Story(procedure(stage("A", limit=days(1)))).end("A", local(3, 20))
    found = look(story, local(3, 30))
    assert (found.light, found.expected_by, found.provisional) == (None, local(3, 20), False)
    refused = Story(procedure(stage("A"), stage("B"))).end("A", 3, ResultCode.FAIL)
    assert look(refused, 9).expected_by == T0 + 3 * HOUR
    assert not any(stage.critical for stage in look(refused, 9).stages.values())


def test_what_rests_on_days_that_nobody_has_published_is_provisional() -> None:
    trial = procedure(stage("A", limit=days(5)), stage("B", "A", limit=days(5)))
    last = max(year for year in range(2020, 2100) if CN.year(year).official)
    begun = dt.datetime(last, 12, 28, 9, tzinfo=ZONE)
    found = look(Story(trial, begun), begun)
    assert found.stages["A"].clock is not None
    assert found.stages["A"].clock.reckoning.provisional
    assert found.provisional
    earlier = look(Story(trial, begun - 90 * DAY), begun - 90 * DAY)
    assert not earlier.provisional
    assert earlier.calendar == CN.label
    # The first stage's limit ends in the old year; what is expected of the second does not.
    crossing = look(Story(trial, begun - 10 * DAY), begun - 10 * DAY)
    assert crossing.stages["A"].clock is not None
    assert not crossing.stages["A"].clock.reckoning.provisional
    assert crossing.provisional


# What is expected.


def critical(found: CaseReckoning) -> str:
    return "".join(code for code, stage in found.stages.items() if stage.critical)


DIAMOND: Final = procedure(
    stage("A", limit=days(1)),
    stage("B", "A", limit=days(3)),
    stage("C", "A", limit=days(1)),
    stage("D", "B C", limit=days(1)),
)


def test_the_critical_path_is_the_longest_not_the_sum() -> None:
    story = Story(DIAMOND)
    found = look(story, 0)
    assert [found.stages[code].expected_by for code in "ABCD"] == [
        local(3, 4), local(3, 7), local(3, 5), local(3, 10)
    ]  # fmt: skip
    assert (found.expected_by, critical(found)) == (local(3, 10), "ABD")


def test_the_critical_path_goes_where_the_delay_is() -> None:
    story = Story(DIAMOND).end("A", 1).end("B", 2)
    found = look(story, local(3, 9))
    assert found.stages["C"].light is Light.RED
    assert found.stages["C"].expected_by == local(3, 9)
    assert (found.expected_by, critical(found)) == (local(3, 11), "ACD")


def test_a_pause_is_expected_to_take_its_own_limit() -> None:
    story = Story(FOUR).start("A").say(Kind.SUSPEND, "A", local(3, 2, 10), pause=Pause.TEST, reason="WHY")
    # Seven days from Monday, to Wednesday of the next week; then all four of the stage itself.
    assert look(story, local(3, 3)).stages["A"].expected_by == local(3, 18)


def test_a_clock_from_an_earlier_stage_may_be_what_the_end_hangs_on() -> None:
    trial = procedure(
        stage("A", limit=days(1)), stage("B", "A", limit=days(1)), stage("C", "B", limit=days(9), clock="started:A")
    )
    found = look(Story(trial), 0)
    assert (found.expected_by, critical(found)) == (local(3, 17), "AC")


def test_what_may_not_apply_is_left_out_until_it_is_settled() -> None:
    trial = procedure(
        stage("A", limit=days(1)),
        stage("B", "A", limit=days(20), when_result={"A": frozenset({ResultCode.CONDITIONAL})}),
        stage("C", "A B", limit=days(1)),
    )
    story = Story(trial)
    found = look(story, 0)
    assert (found.expected_by, found.stages["B"].expected_by, critical(found)) == (local(3, 5), None, "AC")
    story.end("A", 1, ResultCode.CONDITIONAL)
    assert critical(look(story, 2)) == "ABC"


def test_nobody_can_say_when_a_stage_without_a_limit_ends() -> None:
    found = look(Story(procedure(stage("A"), stage("B", "A", instant=True), stage("C", "B", limit=hours(2)))), 0)
    assert found.stages["A"].expected_by is None
    assert found.stages["B"].expected_by == T0
    assert found.expected_by == T0 + 2 * HOUR


# At random.


def _plain(procedure: Procedure) -> Procedure:
    """The same graph, with nothing but limits."""
    stages = {
        code: replace(s, when={}, when_result={}, clock="prerequisites", stops_clocks=False, limit=s.limit or days(2))
        for code, s in procedure.stages.items()
    }
    return replace(procedure, stages=MappingProxyType(stages))


def _end(procedure: Procedure, code: str, limits: dict[str, Limit]) -> dt.datetime:
    """When a stage of a new case ends, from the definition."""
    begin = max([T0, *(_end(procedure, other, limits) for other in procedure.stages[code].after)])
    if begin > T0 and limits[code].unit is not Unit.HOUR:
        begin -= dt.timedelta(microseconds=1)  # still the last day in time
    return add(CN, begin, limits[code], roll=procedure.roll)[0]


@given(worlds.procedures())
def test_a_new_case_is_expected_to_end_when_the_longest_way_through_does(drawn: Procedure) -> None:
    found = _plain(drawn)
    limits = {code: limit for code, s in found.stages.items() if (limit := found.limit_of(s, {}))}
    state = fold(found, [submit(found)])
    seen = view(state, CALENDARS, T0)
    ends = {code: _end(found, code, limits) for code in found.stages}
    assert {code: stage.expected_by for code, stage in seen.stages.items()} == ends
    assert seen.expected_by == max((ends[code] for code in state.layout.closing), default=None)


@given(worlds.procedures(), st.data())
def test_the_end_hangs_on_the_critical_path_and_on_nothing_else(drawn: Procedure, data: st.DataObject) -> None:
    found = _plain(drawn)
    before = view(fold(found, [submit(found)]), CALENDARS, T0)
    code = data.draw(st.sampled_from(sorted(found.stages)))
    shorter = dict(found.stages) | {code: replace(found.stages[code], limit=Limit(1, Unit.HOUR))}
    longer = dict(found.stages) | {code: replace(found.stages[code], limit=Limit(400, Unit.CALENDAR_DAY))}
    after = [
        view(fold(p, [submit(p)]), CALENDARS, T0).expected_by
        for p in (replace(found, stages=MappingProxyType(stages)) for stages in (shorter, longer))
    ]
    if not before.stages[code].critical:
        assert after[0] == before.expected_by
    elif before.expected_by is not None:
        assert after[1] is not None
        assert after[1] > before.expected_by


@given(worlds.worlds(), st.integers(0, 400), st.integers(0, 400))
def test_time_alone_brings_no_end_nearer_and_turns_no_light_back(world: World, one: int, two: int) -> None:
    found, events = world
    state = fold(found, events)
    last = max(e.at for e in events)
    earlier, later = (view(state, CALENDARS, last + n * HOUR) for n in sorted((one, two)))
    order = list(Light)
    for code, now in earlier.stages.items():
        then = later.stages[code]
        assert (now.light is None) == (then.light is None)
        if now.light is not None and then.light is not None:
            assert order.index(now.light) <= order.index(then.light)
        if now.expected_by is not None and then.expected_by is not None:
            assert now.expected_by <= then.expected_by
    if earlier.expected_by is not None and later.expected_by is not None:
        assert earlier.expected_by <= later.expected_by


@given(worlds.worlds(), st.integers(0, 400))
def test_looking_changes_nothing_and_gives_the_same_again(world: World, hours_later: int) -> None:
    found, events = world
    state = fold(found, events)
    now = max(e.at for e in events) + hours_later * HOUR
    before = repr(state)
    first = view(state, CALENDARS, now)
    assert view(fold(found, events), AGAIN, now) == first
    assert repr(state) == before
    assert first.stages.keys() == found.stages.keys()


@given(worlds.worlds(), st.integers(0, 400))
def test_a_clock_runs_only_where_a_stage_is_to_be_done(world: World, hours_later: int) -> None:
    found, events = world
    state: CaseState = fold(found, events)
    seen = view(state, CALENDARS, max(e.at for e in events) + hours_later * HOUR)
    for code, one in seen.stages.items():
        if one.runs:
            assert state.closed_at is None
            assert one.status in {"WAITING", "READY", "OPEN", "SUSPENDED"}
            assert one.clock is not None
        if one.late:
            assert one.light is Light.RED
        assert (one.pause is None) == (one.status != "SUSPENDED")
        if found.stages[code].overdue is Overdue.NONE:
            assert one.clock is None
