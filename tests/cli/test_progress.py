"""`hutong progress`, against a running mesh; and how a case looks on narrow screens."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from hutong.api.recognition.v1 import case_pb2, case_service_pb2
from services.cli.cases import timeline
from services.cli.fleet import Fleet
from services.recognition.codec import timestamp
from tests.cli.office import POLICE, REGISTRY, Office
from tests.recognition.mesh import firm
from tests.zone import now

_SUSPENDED = case_service_pb2.STAGE_STATUS_SUSPENDED


@pytest.fixture
def office(mesh: Fleet) -> Office:
    return Office(mesh)


def test_an_enterprise_sees_who_holds_its_case_and_for_how_long(office: Office) -> None:
    code = firm()
    who = office.enterprise(code)
    case_id = office.accepted(code)
    shown = office.told("progress", case_id, who=who)
    assert "Identity check of the legal representative 法定代表人身份核验" in shown
    assert "publicsecurity: not begun; ● green; 1 working day left, due 20" in shown
    assert "held by: publicsecurity" in shown
    assert "reminders" not in shown
    read = office.read("progress", case_id, who=who)
    assert read["held_by"] == ["publicsecurity"]
    assert {stage["code"]: stage["status"] for stage in read["view"]["stages"]}["E1"] == "STAGE_STATUS_PASSED"


def test_to_another_enterprise_there_is_no_such_case(office: Office) -> None:
    case_id = office.accepted(firm())
    stranger = office.enterprise()
    theirs, none = (
        office.refused("progress", wanted, who=stranger) for wanted in (case_id, "FTZ-EST-20200101-00000000")
    )
    assert theirs["reason"] == "CASE_NOT_FOUND"
    assert theirs == none


def test_what_is_overdue_is_red_and_says_by_how_much(office: Office) -> None:
    case_id = office.overdue(firm())
    shown = office.told("progress", case_id)
    assert "commerce: taken for passed, its limit went by, 20" in shown
    assert "publicsecurity: not begun; ● red; " in shown
    assert " working days over, was due 20" in shown
    assert "E2" in shown.rpartition("● red")[0].splitlines()[-2]


def test_while_the_clock_stands_there_is_no_due_day(office: Office) -> None:
    code = firm()
    case_id = office.accepted(code)
    office.event(case_id, "E2", "start", who=POLICE)
    office.event(case_id, "E2", "supplement-request", "--reason", "MATERIAL_MISSING", who=POLICE)
    shown = office.told("progress", case_id)
    assert "publicsecurity: the clock stands: supplement" in shown
    assert "held by: applicant" in shown
    (line,) = [line for line in shown.splitlines() if "the clock stands" in line]
    assert "due" not in line


def test_a_doubtful_stage_says_so(office: Office) -> None:
    code = firm()
    case_id = office.accepted(code)
    ref = office.passes(case_id, "E2", who=POLICE)
    office.passes(case_id, "E4")
    office.read("result", "revoke", ref, "--reason", "FACTS_CHANGED", who=POLICE)
    assert "rests on a result that does not stand any more" in office.told("progress", case_id, who=REGISTRY)


def _view() -> case_service_pb2.CaseView:
    """A case with a stage in every state, and titles in wide signs."""
    stages = [
        case_service_pb2.StageView(
            code=f"S{number}",
            title="A stage with a title that is rather long for a narrow screen",
            local_title="环节名称环节名称环节名称环节名称",
            agency="publicsecurity",
            status=number,
            clock=case_service_pb2.ClockView(
                limit=3,
                unit=case_service_pb2.LIMIT_UNIT_WORKING_DAY,
                left=2 - number,
                due_at=timestamp(now()),
                light=case_service_pb2.LIGHT_RED,
                provisional=True,
            ),
            pause=case_pb2.PAUSE_KIND_HEARING if number == _SUSPENDED else case_pb2.PAUSE_KIND_UNSPECIFIED,
            source_agency="customs",
            arrangement="PERSON-VERIFIED@1.0.0",
            waits_for=["S1", "S2"],
            doubtful=True,
        )
        for number in case_service_pb2.StageStatus.values()
        if number
    ]
    event = case_pb2.StageEvent(
        sequence=7,
        stage_code="S1",
        agency="publicsecurity",
        stage_event=case_pb2.STAGE_EVENT_KIND_EXTEND,
        extension=3,
        reason_code="COMPLEX_CASE",
        event_time=timestamp(now()),
        officer_pseud="pn_" + "x" * 32,
    )
    case = case_pb2.Case(case_id="FTZ-EST-20261122-7K3M9Q2X", procedure_code="FTZ-EST", applied_at=timestamp(now()))
    view = case_service_pb2.CaseView(case=case, stages=stages, events=[event], title="Title", local_title="审批")
    view.calendar = "CN@2026"
    return view


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_case_fits_any_screen(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width)
    view = _view()
    timeline.show_head(console, view)
    timeline.show_stages(console, view)
    timeline.show_events(console, view)
    lines = out.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    plain = " ".join(out.getvalue().split())
    for number in range(1, 12):
        assert f" S{number} " in f" {plain}"
    if width == 160:
        assert "2026" in plain
        assert "EXTEND by publicsecurity +3 COMPLEX_CASE officer pn_" in plain
        assert "the clock stands: hearing" in plain
        assert "+08:00" in plain  # the calendar's zone, not this machine's


@pytest.mark.parametrize(
    ("left", "unit", "words"),
    [
        (3, "WORKING_DAY", "3 working days left"),
        (1, "CALENDAR_DAY", "1 day left"),
        (0, "WORKING_DAY", "time is up"),
        (-1, "HOUR", "1 hour over"),
        (-4, "WORKING_DAY", "4 working days over"),
        (5, "UNSPECIFIED", ""),
    ],
)
def test_what_is_left_in_words(left: int, unit: str, words: str) -> None:
    number = case_service_pb2.LimitUnit.Value(f"LIMIT_UNIT_{unit}")
    assert timeline.left(case_service_pb2.ClockView(left=left, unit=number)) == words
