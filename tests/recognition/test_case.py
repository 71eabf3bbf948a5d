"""Cases from their events: compared with a second interpreter, replayed, and step by step."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.recognition.case import CaseState, Status, fold
from services.recognition.events import WHOLE_CASE, Event, Kind, Pause, ResultCode
from services.recognition.procedure import Extension, OnFail, Overdue, Procedure, Question
from services.recognition.statutory import Suspension
from tests.recognition import worlds
from tests.recognition.brute import LEFT_OUT, Brute
from tests.recognition.worlds import HOUR, T0, Story, days, procedure, stage, submit

SILENT: Final = {Kind.REMIND, Kind.RECOMPUTE}

Said = dict[str, Any]
World = tuple[Procedure, list[Event]]


def picture(state: CaseState) -> dict[str, Any]:
    """What the brute-force interpreter says too."""
    return {
        "version": state.version,
        "status": state.status,
        "closed_at": state.closed_at,
        "reached": dict(state.reached),
        "held_by": list(state.held_by),
        "standing": [(s.start, s.end) for s in state.suspensions],
        "stopped": sorted((s.start, s.end) for s in state.stopped),
        "stages": {code: _stage(state, code) for code in state.stages},
    }


def _stage(state: CaseState, code: str) -> dict[str, Any]:
    found = state.stages[code]
    said: dict[str, Any] = {
        "status": found.status,
        "doubtful": found.doubtful,
        "revoked": found.revoked,
        "refused": list(found.refused_refs),
        "supplements": found.supplements,
        "late_opinion": found.late_opinion,
    }
    if found.status not in LEFT_OUT:
        said |= {
            "ready_at": found.ready_at,
            "started_at": found.started_at,
            "passed_at": found.passed_at,
            "suspensions": [((s.start, s.end), pause) for s, pause in found.suspensions],
            "extended": found.extended,
            "ended_at": found.ended_at,
            "ref": found.ref,
            "source": found.source_agency,
        }
    return said


def differences(one: Mapping[str, Any], two: Mapping[str, Any], path: str = "") -> list[str]:
    """What the two say differently, each with its place: the one's word first, by brute force second."""
    found: list[str] = []
    for name in sorted(one.keys() | two.keys()):
        mine, other = one.get(name), two.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            found += differences(cast("Said", mine), cast("Said", other), f"{path}{name}/")
        elif mine != other:
            found.append(f"{path}{name}: {mine}, by brute force {other}")
    return found


def told(procedure: Procedure, events: list[Event]) -> str:
    """A world in few words."""
    stages = [
        {f: v for f in s.__slots__ if (v := getattr(s, f)) and not f.endswith("title")}
        for s in procedure.stages.values()
    ]
    happened = [f"{e.kind} {e.stage} {e.at:%d %H:%M} {e.result or ''} {e.ref}" for e in events]
    return "\n".join((*map(str, stages), *happened))


@given(worlds.worlds())
@settings(max_examples=250)
def test_the_brute_force_interpreter_agrees_after_every_event(world: World) -> None:
    found, events = world
    brute = Brute(found, events)
    state = CaseState.begin(found, events[0])
    for number, event in enumerate(events, 1):
        if number > 1:
            state.apply(event)
        different = differences(picture(state), brute.picture(number))
        assert not different, told(found, events[:number])


SMALL = {
    "chain": procedure(stage("A"), stage("B", "A", instant=True, repeatable=True), stage("C", "B")),
    "fork": procedure(
        stage("A", instant=True),
        stage("B", "A", optional=True),
        stage("C", "A", on_fail=OnFail.CONTINUE, overdue=Overdue.DEEMED),
    ),
    "join": procedure(
        stage("A", instant=True, accepts=True),
        stage("B"),
        stage("C", "A B", clock="started:A", pauses={Pause.INQUIRY: None}),
    ),
    "either": procedure(
        stage("A", instant=True, on_fail=OnFail.CONTINUE),
        stage("B", "A", accepts=True, when_result={"A": frozenset({ResultCode.CONDITIONAL})}, stops_clocks=True),
        stage("C", "A B", instant=True, limit=days(1)),
    ),
}
DEPTH: Final = 5
"""How many events after the application are tried."""


@pytest.mark.parametrize("name", SMALL)
def test_every_history_of_a_small_graph_agrees_with_the_brute_force_interpreter(name: str) -> None:
    found = SMALL[name]
    compared = 0
    waiting: list[list[Event]] = [[submit(found)]]
    while waiting:
        events = waiting.pop()
        state = fold(found, events)
        different = differences(picture(state), Brute(found, events).picture(len(events)))
        assert not different, told(found, events)
        compared += 1
        if len(events) <= DEPTH:
            waiting += [[*events, event] for event in _nexts(state, len(events) + 1)]
    assert compared > 200


def _nexts(state: CaseState, number: int) -> list[Event]:
    """What may happen next, an hour later; of results each there may be."""
    now = T0 + number * HOUR
    found = [e for e in worlds.allowed(state, now, number, 1) if e.kind not in {*SILENT, Kind.RESULT}]
    for pick in (3, 1, 5):
        found += [e for e in worlds.allowed(state, now, number, pick) if e.kind is Kind.RESULT]
    return found


# Replaying.


@given(worlds.worlds())
def test_replaying_gives_what_was_there_when_it_happened(world: World) -> None:
    found, events = world
    state = CaseState.begin(found, events[0])
    for number, event in enumerate(events, 1):
        if number > 1:
            state.apply(event)
        assert state == fold(found, events[:number])


@given(worlds.worlds(), st.randoms(use_true_random=False))
def test_the_order_of_stages_in_the_file_changes_no_more_than_the_order_of_who_holds_it(
    world: World, chance: Any
) -> None:
    found, events = world
    codes = list(found.stages)
    chance.shuffle(codes)
    other = replace(found, stages=MappingProxyType({code: found.stages[code] for code in codes}))
    one, two = picture(fold(found, events)), picture(fold(other, events))
    assert sorted(one.pop("held_by")) == sorted(two.pop("held_by"))
    assert one == two


@given(worlds.worlds())
def test_reminders_and_moved_deadlines_change_no_status(world: World) -> None:
    found, events = world
    with_all = fold(found, events)
    without = fold(found, [e for e in events if e.kind not in SILENT])
    one, two = picture(with_all), picture(without)
    assert one.pop("version") - two.pop("version") == sum(e.kind in SILENT for e in events)
    assert one == two
    assert with_all.reminded == sum(e.kind is Kind.REMIND for e in events)
    assert with_all.reminders == {(e.stage, e.threshold) for e in events if e.kind is Kind.REMIND}


_PRINT: Final = """
from tests.recognition.test_case import SMALL, picture
from tests.recognition.worlds import Story, T0, DAY
from services.recognition.events import Kind
story = Story(SMALL["join"]).recognise("A").say(Kind.REFUSE_RECOGNITION, "A", reason="WHY").end("A", 4).end("B", 5)
story.start("C", 6).say(Kind.REVOKE, "A", 7, reason="WHY")
print(picture(story.state), story.state)
"""


def test_what_is_said_does_not_hang_on_how_sets_are_ordered() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", _PRINT],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(said) == 1
    assert "doubtful=True" in said.pop()


# Clocks.


def test_a_clock_starts_when_the_last_prerequisite_is_satisfied() -> None:
    story = Story(procedure(stage("A"), stage("B"), stage("C", "A B"))).end("B", 3).end("A", 7)
    found = story.state.stages
    assert (found["A"].started_at, found["B"].started_at) == (T0, T0)
    assert (found["C"].ready_at, found["C"].started_at) == (T0 + 7 * HOUR, T0 + 7 * HOUR)
    assert story.statuses()["C"] == "READY"


def test_the_last_prerequisite_is_the_latest_by_its_moment_not_by_when_it_was_sent_in() -> None:
    story = Story(procedure(stage("A"), stage("B"), stage("C", "A B"))).end("B", 7).end("A", 3)
    assert story.state.stages["C"].started_at == T0 + 7 * HOUR


def test_a_clock_may_run_from_the_end_of_an_earlier_stage() -> None:
    story = Story(procedure(stage("A"), stage("B", "A"), stage("C", "B", clock="started:A"))).end("A", 2)
    assert story.state.stages["C"].started_at == T0 + 2 * HOUR
    assert story.statuses()["C"] == "WAITING"
    story.end("B", 5)
    assert story.state.stages["C"].started_at == T0 + 2 * HOUR
    assert story.state.stages["C"].ready_at == T0 + 5 * HOUR


def test_starting_opens_the_examination_and_leaves_the_clock_alone() -> None:
    story = Story(procedure(stage("A"))).start("A", 5)
    found = story.state.stages["A"]
    assert (found.status, found.started_at, found.opened_at) == ("OPEN", T0, T0 + 5 * HOUR)


def test_a_suspension_stops_the_clock_and_says_why() -> None:
    trial = procedure(stage("A", supplement=True, pauses={Pause.TEST: days(7)}))
    story = Story(trial).start("A", 1).say(Kind.SUSPEND, "A", 2, pause=Pause.TEST, reason="WHY")
    assert story.state.stages["A"].pause is Pause.TEST
    assert story.state.status == "SUSPENDED"
    story.say(Kind.RESUME, "A", 4).say(Kind.SUPPLEMENT_REQUEST, "A", 5, reason="WHY")
    assert list(story.state.held_by) == ["applicant"]
    story.say(Kind.SUPPLEMENT_RECEIVED, "A", 9, agency="applicant")
    assert story.state.stages["A"].suspensions == (
        (Suspension(T0 + 2 * HOUR, T0 + 4 * HOUR), Pause.TEST),
        (Suspension(T0 + 5 * HOUR, T0 + 9 * HOUR), Pause.SUPPLEMENT),
    )
    assert story.statuses() == {"A": "OPEN"}
    assert story.state.suspensions == (
        Suspension(T0 + 2 * HOUR, T0 + 4 * HOUR),
        Suspension(T0 + 5 * HOUR, T0 + 9 * HOUR),
    )


def test_extensions_add_up() -> None:
    trial = procedure(stage("A", limit=days(3), extension=Extension(3, 2, "superior")))
    story = Story(trial).start("A")
    for amount in (3, 2):
        story.say(Kind.EXTEND, "A", extension=amount, approval_ref="A-1", reason="WHY")
    assert (story.state.stages["A"].extensions, story.state.stages["A"].extended) == (2, 5)


# Recognition.


RECOGNISING: Final = procedure(stage("A", accepts=True, fact="person"), stage("B", "A"), stage("C", "B"), stage("D"))


def test_a_recognised_result_satisfies_a_stage_at_once_and_says_from_where() -> None:
    story = Story(RECOGNISING).recognise("A", 2)
    found = story.state.stages["A"]
    assert (found.status, found.ref, found.source_agency, found.arrangement) == (
        "RECOGNISED", "foreign-1", "customs", "MRA@1.0.0"
    )  # fmt: skip
    assert found.satisfied
    assert (story.state.stages["B"].status, story.state.stages["B"].started_at) == ("READY", T0 + 2 * HOUR)
    assert story.state.status == "APPLIED"  # nobody has examined anything


def test_a_refused_recognition_opens_the_stage_again_with_a_new_clock() -> None:
    story = Story(RECOGNISING).recognise("A", 2).say(Kind.REFUSE_RECOGNITION, "A", 30, reason="TOO_OLD")
    found = story.state.stages["A"]
    assert (found.status, found.ready_at, found.started_at, found.ref) == (
        "READY", T0 + 30 * HOUR, T0 + 30 * HOUR, ""
    )  # fmt: skip
    assert found.refused_refs == ("foreign-1",)
    assert story.statuses()["B"] == "WAITING"
    assert story.state.stages["B"].started_at is None
    story.end("A", 40)
    assert story.state.stages["B"].started_at == T0 + 40 * HOUR


def test_what_was_opened_behind_a_refused_recognition_stays_open_and_is_doubtful_until_the_stage_ends_anew() -> None:
    story = Story(RECOGNISING).recognise("A").start("B", 3)
    story.say(Kind.REFUSE_RECOGNITION, "A", 30, reason="TOO_OLD")
    assert story.statuses() == {"A": "READY", "B": "OPEN", "C": "WAITING", "D": "READY"}
    assert [c for c, s in story.state.stages.items() if s.doubtful] == ["B"]
    story.end("A", 31)
    assert not any(s.doubtful for s in story.state.stages.values())
    assert story.state.stages["B"].started_at == T0


def test_a_stage_that_was_under_way_when_a_result_was_recognised_asks_the_applicant_once_all_the_same() -> None:
    trial = procedure(stage("A", accepts=True, supplement=True))
    story = Story(trial).start("A").say(Kind.SUPPLEMENT_REQUEST, "A", 1, reason="WHY")
    story.recognise("A", 2)
    assert story.state.stages["A"].suspensions == ((Suspension(T0 + HOUR, T0 + 2 * HOUR), Pause.SUPPLEMENT),)
    assert story.state.status == "DELIVERED"
    again = Story(procedure(stage("A", accepts=True, supplement=True), stage("B")))
    again.start("A").say(Kind.SUPPLEMENT_REQUEST, "A", 1, reason="WHY").recognise("A", 2)
    again.say(Kind.REFUSE_RECOGNITION, "A", 3, reason="WHY")
    assert (again.state.stages["A"].supplements, again.state.stages["A"].suspensions) == (1, ())


# Endings.


def test_a_deemed_stage_counts_as_passed_and_its_agency_owes_the_document_until_it_speaks() -> None:
    story = Story(procedure(stage("A", limit=days(1), overdue=Overdue.DEEMED), stage("B", "A")))
    story.say(Kind.DEEMED, "A", 39)
    found = story.state.stages["A"]
    assert (found.status, found.satisfied, found.owes_document) == ("DEEMED", True, True)
    assert story.state.stages["B"].started_at == T0 + 39 * HOUR
    story.say(Kind.RESULT, "A", 60, result=ResultCode.FAIL, reason="WHY")
    assert story.statuses()["A"] == "DEEMED"
    assert not found.owes_document
    assert (found.late_opinion, found.late_opinion_at) == (ResultCode.FAIL, T0 + 60 * HOUR)
    assert story.state.closed_at is None
    assert story.statuses()["B"] == "READY"


def test_the_document_that_was_owed_is_the_stage_s_result_once_it_is_there() -> None:
    story = Story(procedure(stage("A", fact="seal", limit=days(1), overdue=Overdue.DEEMED), stage("B", "A")))
    story.say(Kind.DEEMED, "A", 39).say(Kind.RESULT, "A", 40, result=ResultCode.PASS, ref="seal-1")
    assert (story.state.stages["A"].status, story.state.stages["A"].ref) == ("DEEMED", "seal-1")


def test_a_failed_stage_refuses_the_case_and_drops_what_was_under_way() -> None:
    story = Story(procedure(stage("A"), stage("B", pauses={Pause.TEST: None}), stage("C", "A")))
    story.start("B").say(Kind.SUSPEND, "B", 1, pause=Pause.TEST, reason="WHY")
    story.end("A", 5, ResultCode.FAIL)
    assert (story.state.status, story.state.closed_at) == ("REFUSED", T0 + 5 * HOUR)
    assert story.statuses() == {"A": "FAILED", "B": "WITHDRAWN", "C": "WITHDRAWN"}
    assert story.state.stages["B"].suspensions == ((Suspension(T0 + HOUR, T0 + 5 * HOUR), Pause.TEST),)
    assert story.state.held_by == ()


def test_a_failed_stage_may_let_the_case_go_on() -> None:
    story = Story(procedure(stage("A", on_fail=OnFail.CONTINUE), stage("B", "A"))).end("A", 5, ResultCode.FAIL)
    assert story.statuses() == {"A": "FAILED", "B": "READY"}
    assert not story.state.stages["A"].satisfied
    assert story.state.closed_at is None


def test_a_withdrawn_case_has_ended() -> None:
    story = Story(procedure(stage("A"), stage("B"))).end("A", 1)
    story.say(Kind.WITHDRAW, WHOLE_CASE, 4, agency="applicant")
    assert (story.state.status, story.state.closed_at) == ("WITHDRAWN", T0 + 4 * HOUR)
    assert story.statuses() == {"A": "PASSED", "B": "WITHDRAWN"}


def test_a_dropped_branch_is_in_nobody_s_way_and_overtakes_nobody() -> None:
    trial = procedure(stage("A"), stage("B", "A", optional=True), stage("C", "B"))
    story = Story(trial).say(Kind.WITHDRAW, "B", 1, reason="WHY")
    assert story.statuses() == {"A": "READY", "B": "WITHDRAWN", "C": "WAITING"}
    story.end("A", 5)
    assert story.state.stages["C"].started_at == T0 + 5 * HOUR
    late = Story(trial).end("A", 5).say(Kind.WITHDRAW, "B", 9, reason="WHY")
    assert late.state.stages["C"].started_at == T0 + 9 * HOUR


def test_a_stage_that_does_not_apply_is_in_nobody_s_way_and_overtakes_nobody() -> None:
    foreign = Question("?", "?", ("false", "true"), "false")
    trial = procedure(
        stage("A"), stage("B", "A", when={"foreign": "true"}), stage("C", "B"), questions={"foreign": foreign}
    )
    story = Story(trial)
    assert story.statuses() == {"A": "READY", "B": "NOT_APPLICABLE", "C": "WAITING"}
    story.end("A", 5)
    assert story.state.stages["C"].started_at == T0 + 5 * HOUR
    assert Story(trial, answers={"foreign": "true"}).statuses()["B"] == "WAITING"


@pytest.mark.parametrize(
    ("result", "statuses"),
    [(ResultCode.PASS, ("NOT_APPLICABLE", "READY")), (ResultCode.CONDITIONAL, ("READY", "WAITING"))],
)
def test_a_stage_may_apply_by_how_another_ended(result: ResultCode, statuses: tuple[str, str]) -> None:
    trial = procedure(
        stage("A"), stage("B", "A", when_result={"A": frozenset({ResultCode.CONDITIONAL})}), stage("C", "A B")
    )
    story = Story(trial)
    assert story.statuses() == {"A": "READY", "B": "WAITING", "C": "WAITING"}
    story.end("A", 1, result)
    assert (story.statuses()["B"], story.statuses()["C"]) == statuses


def test_a_repeatable_stage_ends_again_and_lets_others_begin_once() -> None:
    story = Story(procedure(stage("A", repeatable=True), stage("B", "A"), stage("C")))
    story.say(Kind.RESULT, "A", 1, result=ResultCode.PASS, ref="one")
    story.say(Kind.RESULT, "A", 5, result=ResultCode.CONDITIONAL, ref="two", reason="WHY")
    found = story.state.stages["A"]
    assert (found.status, found.ref, found.ended_at, found.passed_at) == (
        "CONDITIONAL", "two", T0 + 5 * HOUR, T0 + HOUR
    )  # fmt: skip
    assert story.state.stages["B"].started_at == T0 + HOUR


# Revocation.


def test_revoking_marks_what_rests_on_it_and_undoes_nothing() -> None:
    trial = procedure(stage("A"), stage("B", "A"), stage("C", "B"), stage("D", "C"), stage("E"))
    story = Story(trial).end("A", 1).end("B", 2).start("C", 3)
    before = story.statuses()
    story.say(Kind.REVOKE, "A", 9, reason="ISSUED_IN_ERROR")
    assert story.statuses() == before
    assert {c: s.doubtful for c, s in story.state.stages.items()} == {
        "A": True, "B": True, "C": True, "D": False, "E": False
    }  # fmt: skip
    assert story.state.stages["A"].revoked
    assert not story.state.stages["B"].revoked
    story.say(Kind.RESULT, "A", 12, result=ResultCode.PASS, ref="another")
    assert not any(s.doubtful or s.revoked for s in story.state.stages.values())


def test_a_result_may_be_revoked_after_the_case_was_closed() -> None:
    story = Story(procedure(stage("A"), stage("B", "A"))).end("A", 1).end("B", 2)
    assert story.state.status == "DELIVERED"
    story.say(Kind.REVOKE, "A", 50, reason="ISSUED_IN_ERROR")
    assert (story.state.status, story.state.closed_at) == ("DELIVERED", T0 + 2 * HOUR)
    assert story.state.stages["B"].doubtful


# The case.


def test_a_case_goes_from_applied_to_delivered() -> None:
    trial = procedure(
        stage("A", reaches="ACCEPTED"),
        stage("B", "A"),
        stage("C", "B", reaches="DECIDED"),
        stage("D", "C", reaches="ISSUED"),
        stage("E", "D", reaches="DELIVERED"),
        stage("F", "C", optional=True),
    )
    story = Story(trial)
    said = [story.state.status.value]
    for number, code in enumerate("ABCDE", 1):
        story.start(code, number)
        said.append(story.state.status.value)
        story.end(code, number)
        said.append(story.state.status.value)
    assert said == [
        "APPLIED", "APPLIED", "ACCEPTED", "IN_REVIEW", "IN_REVIEW", "IN_REVIEW", "DECIDED", "DECIDED", "ISSUED",
        "ISSUED", "DELIVERED",
    ]  # fmt: skip
    assert story.state.closed_at == T0 + 5 * HOUR
    assert story.statuses()["F"] == "WITHDRAWN"
    assert story.state.reached[Status.ACCEPTED] == T0 + HOUR


def test_delivering_waits_for_what_may_not_be_left_out() -> None:
    story = Story(procedure(stage("A", reaches="DELIVERED"), stage("B"))).end("A", 1)
    assert (story.state.status, story.state.closed_at) == ("ISSUED", None)
    story.end("B", 2)
    assert (story.state.status, story.state.closed_at) == ("DELIVERED", T0 + 2 * HOUR)


def test_a_case_is_suspended_only_while_nothing_of_it_runs() -> None:
    trial = procedure(stage("A", pauses={Pause.TEST: None}), stage("B"))
    story = Story(trial).start("A").say(Kind.SUSPEND, "A", 1, pause=Pause.TEST, reason="WHY")
    assert story.state.status == "IN_REVIEW"
    story.end("B", 2)
    assert story.state.status == "SUSPENDED"
    story.say(Kind.RESUME, "A", 3)
    assert story.state.status == "IN_REVIEW"
    assert story.state.suspensions == (Suspension(T0 + 2 * HOUR, T0 + 3 * HOUR),)


def test_who_holds_a_case() -> None:
    trial = procedure(
        stage("A", agency="taxation", supplement=True), stage("B", agency="customs"), stage("C", "A"), lead="commerce"
    )
    story = Story(trial)
    assert list(story.state.held_by) == ["taxation", "customs"]
    story.start("A").say(Kind.SUPPLEMENT_REQUEST, "A", 1, reason="WHY").end("B", 2)
    assert list(story.state.held_by) == ["applicant"]


def test_a_calendar_that_moved_a_deadline_is_kept_by_name() -> None:
    story = Story(procedure(stage("A", limit=days(3))))
    moved: dict[str, dt.datetime] = {"due_before": T0, "due_after": T0 + HOUR}
    story.say(Kind.RECOMPUTE, "A", 1, calendar="CN@2027-1", **moved)
    assert (story.state.calendar, story.state.version) == ("CN@2027-1", 2)
