"""Which events a case takes, and with what reason each other one is refused."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from hypothesis import given

from services.kit.errors import FailedPrecondition, HutongError, InvalidArgument, PermissionDenied, Reason
from services.recognition import rules
from services.recognition.case import CaseState, StageStatus
from services.recognition.events import OWN, WHOLE_CASE, Event, Kind, Pause, ResultCode, Submission
from services.recognition.procedure import Extension, OnFail, Overdue, Procedure, Question
from services.recognition.reasons import Reasons
from tests.recognition import worlds
from tests.recognition.worlds import APPLICANT, DAY, HOUR, SERVICE, T0, Story, days, procedure, stage, submit

FOREIGN: Final = Question("?", "?", ("false", "true"), "false")
TRIAL: Final = procedure(
    stage("A", instant=True),
    stage("B", "A", agency="taxation", supplement=True, pauses={Pause.TEST: days(7)}, accepts=True, fact="person"),
    stage("C", "B", agency="customs", limit=days(3), extension=Extension(3, 1, "superior")),
    stage("D", "A", agency="customs", optional=True, overdue=Overdue.DEEMED, limit=days(1)),
    stage("E", "A", when={"foreign": "true"}),
    stage("F", "C", reaches="DELIVERED"),
    questions={"foreign": FOREIGN},
)
NOW: Final = T0 + DAY
"""When everything below is sent in, unless it says otherwise."""


def refusal(story: Story, kind: Kind, stage: str = WHOLE_CASE, at: Any = NOW, **said: Any) -> HutongError | None:
    """Say how an event is refused; None: it is not."""
    names = ("now", "caller_agency", "enterprise", "reasons", "stand_ins")
    given: dict[str, Any] = {name: said.pop(name) for name in names if name in said}
    event = story.event(kind, stage, at, **({"reason": "WHY"} | said))
    given.setdefault("now", NOW)
    given.setdefault("caller_agency", event.agency)
    try:
        rules.check(story.state, event, **given)
    except HutongError as error:
        return error
    return None


def reason(story: Story, kind: Kind, stage: str = WHOLE_CASE, at: Any = NOW, **said: Any) -> Reason | None:
    error = refusal(story, kind, stage, at, **said)
    return None if error is None else error.reason


def begun(**said: Any) -> Story:
    """A case whose B is ready."""
    return Story(TRIAL, **said).end("A", 1)


def opened() -> Story:
    return begun().start("B", 2)


# Where and when.


def test_an_event_of_a_stage_that_there_is_not() -> None:
    error = refusal(begun(), Kind.START, "Z", agency="commerce")
    assert isinstance(error, InvalidArgument)
    assert error.reason == Reason.STAGE_UNKNOWN


def test_an_event_of_no_stage() -> None:
    assert reason(begun(), Kind.START, agency="taxation") == Reason.STAGE_UNKNOWN


def test_an_event_of_a_stage_that_does_not_apply() -> None:
    assert reason(begun(), Kind.START, "E") == Reason.STAGE_NOT_APPLICABLE
    assert reason(begun(answers={"foreign": "true"}), Kind.START, "E") is None


def test_an_event_before_its_stage_is_ready() -> None:
    error = refusal(begun(), Kind.START, "C")
    assert isinstance(error, FailedPrecondition)
    assert error.reason == Reason.STAGE_NOT_READY
    assert "waits for B" in error.message


def test_an_event_that_has_not_happened_yet() -> None:
    story = begun()
    assert reason(story, Kind.START, "B", NOW + dt.timedelta(seconds=60)) is None
    assert reason(story, Kind.START, "B", NOW + dt.timedelta(seconds=61)) == Reason.EVENT_IN_FUTURE


def test_an_event_that_is_too_old_to_be_sent_in_now() -> None:
    story, now = begun(), T0 + 10 * DAY
    assert reason(story, Kind.START, "B", now - 3 * DAY, now=now) is None
    error = refusal(story, Kind.START, "B", now - 3 * DAY - dt.timedelta(seconds=1), now=now)
    assert error is not None
    assert error.reason == Reason.EVENT_TOO_OLD
    assert "at most 3 days" in error.message


def test_an_import_takes_events_of_any_age() -> None:
    story = begun()
    event = story.event(Kind.START, "B", T0 + 2 * HOUR)
    rules.check(story.state, event, now=T0 + 4000 * DAY, caller_agency="taxation", backdating=None)


def test_the_service_says_late_what_happened_while_it_was_away() -> None:
    story = begun()
    assert reason(story, Kind.DEEMED, "D", T0 + 2 * DAY, now=T0 + 30 * DAY) is None


@pytest.mark.parametrize(
    ("kind", "stage", "before"),
    [
        (Kind.START, "B", T0 + 59 * dt.timedelta(minutes=1)),  # B is ready at T0 + 1 h
        (Kind.WITHDRAW, "D", T0),
        (Kind.WITHDRAW, WHOLE_CASE, T0),
    ],
)
def test_an_event_before_what_it_follows_on(kind: Kind, stage: str, before: dt.datetime) -> None:
    assert reason(begun(), kind, stage, before) == Reason.EVENT_OUT_OF_ORDER


def test_an_event_before_the_last_one_of_its_stage() -> None:
    story = begun().start("B", 5)
    said: dict[str, Any] = {"result": ResultCode.PASS, "ref": "r"}
    assert reason(story, Kind.RESULT, "B", T0 + 4 * HOUR, **said) == Reason.EVENT_OUT_OF_ORDER
    assert reason(story, Kind.RESULT, "B", T0 + 5 * HOUR, **said) is None


def test_the_whole_case_is_withdrawn_after_everything_that_happened_in_it() -> None:
    story = begun().start("B", 5)
    assert reason(story, Kind.WITHDRAW, at=T0 + 4 * HOUR) == Reason.EVENT_OUT_OF_ORDER
    assert rules.not_before(story.state, Kind.WITHDRAW, WHOLE_CASE) == T0 + 5 * HOUR


def test_an_event_of_one_branch_may_be_earlier_than_one_of_another() -> None:
    story = begun().start("B", 9)
    assert reason(story, Kind.START, "D", T0 + 2 * HOUR) is None


# Before the case and after it.


def test_nothing_but_an_application_begins_a_case() -> None:
    story = begun()
    with pytest.raises(FailedPrecondition) as caught:
        rules.check_first(TRIAL, story.event(Kind.START, "B"), now=NOW)
    assert caught.value.reason == Reason.EVENT_OUT_OF_ORDER


def test_a_case_begins_once() -> None:
    assert reason(begun(), Kind.SUBMIT, agency=SERVICE) == Reason.EVENT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"answers": {"colour": "red"}}, Reason.ANSWER_UNKNOWN),
        ({"answers": {"foreign": "perhaps"}}, Reason.ANSWER_UNKNOWN),
        ({"scheme": "hutong.token"}, Reason.SUBJECT_SCHEME_UNSUPPORTED),
        ({"at": NOW + DAY}, Reason.EVENT_IN_FUTURE),
        ({"at": NOW - 4 * DAY}, Reason.EVENT_TOO_OLD),
    ],
)
def test_an_application_that_begins_no_case(said: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(InvalidArgument) as caught:
        rules.check_first(TRIAL, submit(TRIAL, **said), now=NOW)
    assert caught.value.reason == reason


def test_an_application_for_another_procedure() -> None:
    said = Submission("OTHER@1.0.0", "cn.uscc", "91310115MA1K4XYZ1A")
    event = Event("e1", Kind.SUBMIT, WHOLE_CASE, SERVICE, T0, T0, submission=said)
    with pytest.raises(InvalidArgument) as caught:
        rules.check_first(TRIAL, event, now=NOW)
    assert caught.value.reason == Reason.PROCEDURE_UNKNOWN
    rules.check_first(TRIAL, submit(TRIAL), now=NOW)


@pytest.mark.parametrize("kind", [k for k in Kind if k not in {Kind.SUBMIT, Kind.REVOKE}])
def test_after_a_case_was_closed_only_its_results_may_be_revoked(kind: Kind) -> None:
    story = opened().end("B", 3).say(Kind.WITHDRAW, at=4, reason="WHY")
    event = worlds.wild(story.state, "B", kind, NOW, 99)
    with pytest.raises(FailedPrecondition) as caught:
        rules.check(story.state, event, now=NOW, caller_agency=event.agency)
    assert caught.value.reason == Reason.CASE_CLOSED
    assert caught.value.metadata == {"status": "WITHDRAWN"}
    assert reason(story, Kind.REVOKE, "B") is None


def test_the_document_owed_may_come_after_the_case_was_delivered_but_not_after_it_was_refused() -> None:
    trial = procedure(stage("A", limit=days(1), overdue=Overdue.DEEMED), stage("B", "A", on_fail=OnFail.REFUSE))
    said: dict[str, Any] = {"result": ResultCode.PASS}
    delivered = Story(trial).say(Kind.DEEMED, "A", 1).end("B", 2)
    assert reason(delivered, Kind.RESULT, "A", **said) is None
    refused = Story(trial).say(Kind.DEEMED, "A", 1).end("B", 2, ResultCode.FAIL)
    assert reason(refused, Kind.RESULT, "A", **said) == Reason.CASE_CLOSED


# Who.


@pytest.mark.parametrize(
    ("kind", "stage", "agency"),
    [
        (Kind.START, "B", "customs"),  # another's stage
        (Kind.START, "B", "commerce"),  # the lead agency's neither
        (Kind.RESULT, "B", SERVICE),  # nor the service's
        (Kind.WITHDRAW, "D", "taxation"),
        (Kind.WITHDRAW, WHOLE_CASE, "taxation"),
        (Kind.DEEMED, "D", "customs"),  # the service's own
        (Kind.RECOGNISE, "B", "taxation"),
        (Kind.REMIND, "B", "commerce"),
        (Kind.RECOMPUTE, WHOLE_CASE, "commerce"),
    ],
)
def test_an_event_from_the_wrong_agency(kind: Kind, stage: str, agency: str) -> None:
    error = refusal(begun(), kind, stage, agency=agency, result=ResultCode.PASS, ref="r")
    assert isinstance(error, PermissionDenied)
    assert error.reason == Reason.EVENT_WRONG_AGENCY


def test_units_of_one_body_may_stand_in_for_each_other_in_an_import() -> None:
    story = begun()
    assert reason(story, Kind.START, "B", agency="customs", stand_ins={"customs"}) is None
    assert reason(story, Kind.DEEMED, "D", agency="customs", stand_ins={"customs"}) == Reason.EVENT_WRONG_AGENCY


def test_an_applicant_dates_nothing_back() -> None:
    said: dict[str, Any] = {"agency": APPLICANT, "enterprise": True}
    asked = opened().say(Kind.SUPPLEMENT_REQUEST, "B", 3, reason="WHY")
    assert reason(asked, Kind.SUPPLEMENT_RECEIVED, "B", NOW - dt.timedelta(seconds=60), **said) is None
    assert reason(asked, Kind.SUPPLEMENT_RECEIVED, "B", NOW - HOUR, **said) == Reason.EVENT_TOO_OLD
    assert reason(asked, Kind.SUPPLEMENT_RECEIVED, "B", NOW - HOUR) is None


def test_an_event_in_another_s_name() -> None:
    assert reason(begun(), Kind.START, "B", caller_agency="customs") == Reason.EVENT_WRONG_AGENCY


def test_the_lead_agency_and_a_stage_s_own_may_drop_a_branch_and_the_lead_the_case() -> None:
    assert reason(begun(), Kind.WITHDRAW, "D", agency="commerce") is None
    assert reason(begun(), Kind.WITHDRAW, "D", agency="customs") is None
    assert reason(begun(), Kind.WITHDRAW, agency="commerce") is None


def test_a_recognised_result_is_revoked_by_who_issued_it_or_by_the_service() -> None:
    story = begun().recognise("B", 2)
    assert reason(story, Kind.REVOKE, "B", agency="customs") is None
    assert reason(story, Kind.REVOKE, "B", agency=SERVICE) is None
    assert reason(story, Kind.REVOKE, "B", agency="taxation") == Reason.EVENT_WRONG_AGENCY


@pytest.mark.parametrize("kind", [k for k in Kind if k not in {Kind.SUBMIT, Kind.SUPPLEMENT_RECEIVED}])
def test_an_applicant_does_no_agency_s_work(kind: Kind) -> None:
    said: dict[str, Any] = {"agency": APPLICANT, "enterprise": True}
    assert reason(opened(), kind, "D", **said) == Reason.EVENT_WRONG_AGENCY


def test_an_applicant_hands_in_what_was_asked_for_and_withdraws_without_saying_why() -> None:
    said: dict[str, Any] = {"agency": APPLICANT, "enterprise": True, "reason": ""}
    asked = opened().say(Kind.SUPPLEMENT_REQUEST, "B", 3, reason="WHY")
    assert reason(asked, Kind.SUPPLEMENT_RECEIVED, "B", **said) is None
    assert reason(opened(), Kind.SUPPLEMENT_RECEIVED, "B", **said) == Reason.EVENT_NOT_ALLOWED
    assert reason(opened(), Kind.WITHDRAW, **said) is None
    assert reason(opened(), Kind.WITHDRAW, "D", **said) == Reason.EVENT_WRONG_AGENCY


def test_an_agency_may_record_what_the_applicant_handed_in_over_the_counter() -> None:
    story = opened().say(Kind.SUPPLEMENT_REQUEST, "B", 3, reason="WHY")
    assert reason(story, Kind.SUPPLEMENT_RECEIVED, "B") is None


# What a stage takes, wherever it stands.

Way = Callable[[], Story]

STANDS: Final[Mapping[StageStatus, Way]] = {
    StageStatus.NOT_APPLICABLE: lambda: Story(_every(when={"foreign": "true"})),
    StageStatus.WAITING: lambda: Story(_every("Z")),
    StageStatus.READY: lambda: Story(_every()),
    StageStatus.OPEN: lambda: Story(_every()).start("A"),
    StageStatus.SUSPENDED: lambda: Story(_every()).start("A").say(Kind.SUSPEND, "A", pause=Pause.EXPERT, reason="WHY"),
    StageStatus.PASSED: lambda: Story(_every()).end("A"),
    StageStatus.CONDITIONAL: lambda: Story(_every()).end("A", result=ResultCode.CONDITIONAL),
    StageStatus.FAILED: lambda: Story(_every()).end("A", result=ResultCode.FAIL),
    StageStatus.RECOGNISED: lambda: Story(_every()).recognise("A", ref="foreign-9"),
    StageStatus.DEEMED: lambda: Story(_every()).say(Kind.DEEMED, "A"),
    StageStatus.WITHDRAWN: lambda: Story(_every()).say(Kind.WITHDRAW, "A", reason="WHY"),
}
TAKES: Final[Mapping[StageStatus, frozenset[Kind]]] = {
    StageStatus.NOT_APPLICABLE: frozenset(),
    StageStatus.WAITING: frozenset({Kind.WITHDRAW}),
    StageStatus.READY: frozenset({Kind.START, Kind.EXTEND, Kind.RECOGNISE, Kind.DEEMED, Kind.WITHDRAW}),
    StageStatus.OPEN: frozenset(
        {
            Kind.SUPPLEMENT_REQUEST,
            Kind.SUSPEND,
            Kind.EXTEND,
            Kind.RESULT,
            Kind.RECOGNISE,
            Kind.DEEMED,
            Kind.WITHDRAW,
        }
    ),
    StageStatus.SUSPENDED: frozenset({Kind.RESUME, Kind.EXTEND, Kind.RECOGNISE, Kind.DEEMED, Kind.WITHDRAW}),
    StageStatus.PASSED: frozenset({Kind.REVOKE}),
    StageStatus.CONDITIONAL: frozenset({Kind.REVOKE}),
    StageStatus.FAILED: frozenset(),
    StageStatus.RECOGNISED: frozenset({Kind.REFUSE_RECOGNITION, Kind.REVOKE}),
    StageStatus.DEEMED: frozenset({Kind.RESULT}),
    StageStatus.WITHDRAWN: frozenset(),
}
"""What is allowed, beside what the service notes on the side (REMIND, RECOMPUTE)."""


def _every(after: str = "", **said: Any) -> Procedure:
    """A stage A that takes everything, in a case that goes on whatever becomes of it."""
    everything: dict[str, Any] = {
        "limit": days(3),
        "extension": Extension(3, 3, "superior"),
        "supplement": True,
        "pauses": {Pause.EXPERT: None},
        "optional": True,
        "accepts": True,
        "overdue": Overdue.DEEMED,
        "on_fail": OnFail.CONTINUE,
    }
    return procedure(stage("A", after, **(everything | said)), stage("Z"), questions={"foreign": FOREIGN})


@pytest.mark.parametrize("status", StageStatus)
@pytest.mark.parametrize("kind", [k for k in Kind if k not in {Kind.SUBMIT, Kind.REMIND, Kind.RECOMPUTE}])
def test_what_a_stage_takes(status: StageStatus, kind: Kind) -> None:
    story = STANDS[status]()
    assert story.statuses()["A"] == status
    event = worlds.wild(story.state, "A", kind, NOW, 99)
    if kind in TAKES[status]:
        rules.check(story.state, event, now=NOW, caller_agency=event.agency)
        return
    with pytest.raises(FailedPrecondition) as caught:
        rules.check(story.state, event, now=NOW, caller_agency=event.agency)
    expected = {
        StageStatus.NOT_APPLICABLE: Reason.STAGE_NOT_APPLICABLE,
        StageStatus.WAITING: Reason.STAGE_NOT_READY,
    }.get(status, Reason.EVENT_NOT_ALLOWED)
    assert caught.value.reason == expected


@pytest.mark.parametrize("kind", [Kind.REMIND, Kind.RECOMPUTE])
def test_what_the_service_notes_on_the_side_is_complete(kind: Kind) -> None:
    said = {"threshold": "yellow"} if kind is Kind.REMIND else {"calendar": "CN@2027"}
    assert reason(begun(), kind, "B") == Reason.MALFORMED_REQUEST
    assert reason(begun(), kind, "B", T0, **said) is None
    assert reason(begun(), kind, at=T0, **said) is None


def test_a_stage_that_need_not_be_opened_ends_at_once() -> None:
    trial = procedure(stage("A", instant=True), stage("B", repeatable=True), stage("C"))
    for code, expected in (("A", None), ("B", None), ("C", Reason.EVENT_NOT_ALLOWED)):
        assert reason(Story(trial), Kind.RESULT, code, result=ResultCode.PASS) == expected


def test_a_repeatable_stage_ends_again() -> None:
    story = Story(procedure(stage("A", repeatable=True), stage("B"))).say(Kind.RESULT, "A", 1, result=ResultCode.PASS)
    assert reason(story, Kind.RESULT, "A", result=ResultCode.PASS) is None
    assert reason(story, Kind.START, "A") == Reason.EVENT_NOT_ALLOWED


# Supplements, pauses, extensions.


def test_an_applicant_is_asked_for_more_once() -> None:
    story = opened().say(Kind.SUPPLEMENT_REQUEST, "B", 3, reason="WHY").say(Kind.SUPPLEMENT_RECEIVED, "B", 5)
    assert reason(story, Kind.SUPPLEMENT_REQUEST, "B") == Reason.SUPPLEMENT_REPEATED


def test_asking_again_before_the_answer_is_asking_again() -> None:
    story = opened().say(Kind.SUPPLEMENT_REQUEST, "B", 3, reason="WHY")
    assert reason(story, Kind.SUPPLEMENT_REQUEST, "B") == Reason.SUPPLEMENT_REPEATED


@pytest.mark.parametrize(
    ("stage", "kind", "pause"),
    [
        ("D", Kind.SUPPLEMENT_REQUEST, None),  # it asks for nothing
        ("B", Kind.SUPPLEMENT_REQUEST, Pause.TEST),  # that is no supplement
        ("B", Kind.SUSPEND, Pause.HEARING),  # not for this
        ("B", Kind.SUSPEND, Pause.SUPPLEMENT),  # that is asked for, not suspended for
        ("B", Kind.SUSPEND, None),
        ("D", Kind.SUSPEND, Pause.TEST),
    ],
)
def test_a_pause_that_the_procedure_does_not_know(stage: str, kind: Kind, pause: Pause | None) -> None:
    assert reason(opened(), kind, stage, pause=pause) == Reason.PAUSE_NOT_ALLOWED


def test_what_the_applicant_was_asked_for_is_received_and_what_was_suspended_is_resumed() -> None:
    asked = opened().say(Kind.SUPPLEMENT_REQUEST, "B", 3, reason="WHY")
    assert reason(asked, Kind.RESUME, "B") == Reason.EVENT_NOT_ALLOWED
    suspended = opened().say(Kind.SUSPEND, "B", 3, pause=Pause.TEST, reason="WHY")
    assert reason(suspended, Kind.SUPPLEMENT_RECEIVED, "B") == Reason.EVENT_NOT_ALLOWED
    assert reason(suspended, Kind.RESUME, "B") is None


def test_a_clock_that_runs_from_an_earlier_stage_may_be_stopped_before_the_stage_is_ready() -> None:
    trial = procedure(
        stage("A"), stage("B", "A"), stage("C", "B", clock="started:A", pauses={Pause.INQUIRY: None}, accepts=True)
    )
    assert reason(Story(trial), Kind.SUSPEND, "C", pause=Pause.INQUIRY) == Reason.STAGE_NOT_READY
    story = Story(trial).end("A", 1).say(Kind.SUSPEND, "C", 2, pause=Pause.INQUIRY, reason="WHY")
    assert story.statuses()["C"] == "SUSPENDED"
    for kind in (Kind.START, Kind.RECOGNISE):
        event = worlds.wild(story.state, "C", kind, NOW, 99)
        with pytest.raises(FailedPrecondition) as caught:
            rules.check(story.state, event, now=NOW, caller_agency=event.agency)
        assert caught.value.reason == Reason.STAGE_NOT_READY
    story.say(Kind.RESUME, "C", 3)
    assert story.statuses()["C"] == "WAITING"


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("B", {"extension": 1, "approval_ref": "A-1"}),  # its limit cannot be extended
        ("C", {"extension": 4, "approval_ref": "A-1"}),  # too much
        ("C", {"extension": 0, "approval_ref": "A-1"}),
        ("C", {"extension": -3, "approval_ref": "A-1"}),
        ("C", {"extension": 3}),  # no approval
    ],
)
def test_an_extension_that_the_procedure_does_not_know(stage: str, said: dict[str, Any]) -> None:
    story = opened().end("B", 3)
    assert reason(story, Kind.EXTEND, stage, **said) == Reason.EXTENSION_NOT_ALLOWED


def test_an_extension_too_many() -> None:
    said: dict[str, Any] = {"extension": 3, "approval_ref": "A-1", "reason": "WHY"}
    story = opened().end("B", 3).say(Kind.EXTEND, "C", 4, **said)
    assert reason(story, Kind.EXTEND, "C", **said) == Reason.EXTENSION_NOT_ALLOWED


# Results.


def test_a_result_that_says_nothing() -> None:
    assert reason(opened(), Kind.RESULT, "B", ref="r") == Reason.RESULT_MISSING


def test_a_stage_that_proves_a_fact_ends_with_a_signed_result_unless_it_fails() -> None:
    for result, expected in (
        (ResultCode.PASS, Reason.RESULT_MISSING),
        (ResultCode.CONDITIONAL, Reason.RESULT_MISSING),
        (ResultCode.FAIL, None),
    ):
        assert reason(opened(), Kind.RESULT, "B", result=result) == expected


def test_a_late_opinion_is_given_once() -> None:
    story = begun().say(Kind.DEEMED, "D", 5).say(Kind.RESULT, "D", 6, result=ResultCode.FAIL, reason="WHY")
    assert reason(story, Kind.RESULT, "D", result=ResultCode.PASS) == Reason.EVENT_NOT_ALLOWED


def test_silence_is_no_pass_where_the_procedure_does_not_say_so() -> None:
    assert reason(begun(), Kind.DEEMED, "B") == Reason.EVENT_NOT_ALLOWED


def test_nothing_is_passed_on_a_stage_that_is_open_again() -> None:
    story = begun().recognise("B", 2).start("C", 3).say(Kind.REFUSE_RECOGNITION, "B", 4, reason="WHY")
    assert reason(story, Kind.RESULT, "C", result=ResultCode.PASS) == Reason.STAGE_NOT_READY
    assert reason(story, Kind.RESULT, "C", result=ResultCode.FAIL) is None
    story.end("B", 5)
    assert reason(story, Kind.RESULT, "C", result=ResultCode.PASS) is None


def test_a_refused_result_is_never_recognised_for_the_stage_again() -> None:
    story = begun().recognise("B", 2).say(Kind.REFUSE_RECOGNITION, "B", 3, reason="TOO_OLD")
    said = {"source_agency": "customs", "arrangement": "MRA@1.0.0"}
    assert reason(story, Kind.RECOGNISE, "B", ref="foreign-1", **said) == Reason.EVENT_NOT_ALLOWED
    assert reason(story, Kind.RECOGNISE, "B", ref="foreign-2", **said) is None


def test_only_the_result_that_a_stage_rests_on_is_refused_or_revoked() -> None:
    story = begun().recognise("B", 2, ref="foreign-1")
    for kind in (Kind.REFUSE_RECOGNITION, Kind.REVOKE):
        assert reason(story, kind, "B", ref="foreign-2") == Reason.EVENT_NOT_ALLOWED
        assert reason(story, kind, "B", ref="foreign-1") is None
        assert reason(story, kind, "B") is None


@pytest.mark.parametrize("missing", ["ref", "source_agency", "arrangement"])
def test_a_recognition_says_which_result_whose_and_by_what(missing: str) -> None:
    said = {"ref": "foreign-1", "source_agency": "customs", "arrangement": "MRA@1.0.0"} | {missing: ""}
    assert reason(begun(), Kind.RECOGNISE, "B", **said) == Reason.RESULT_MISSING


def test_a_stage_that_accepts_nothing_recognises_nothing() -> None:
    said = {"ref": "foreign-1", "source_agency": "customs", "arrangement": "MRA@1.0.0"}
    assert reason(begun(), Kind.RECOGNISE, "D", **said) == Reason.EVENT_NOT_ALLOWED


def test_a_result_is_revoked_once_and_may_then_be_replaced() -> None:
    story = opened().end("B", 3)
    assert reason(story, Kind.RESULT, "B", result=ResultCode.PASS, ref="r2") == Reason.EVENT_NOT_ALLOWED
    story.say(Kind.REVOKE, "B", 4, reason="ISSUED_IN_ERROR")
    assert reason(story, Kind.REVOKE, "B") == Reason.EVENT_NOT_ALLOWED
    assert reason(story, Kind.RESULT, "B", result=ResultCode.PASS, ref="r2") is None


def test_what_may_not_be_left_out_is_not_dropped() -> None:
    assert reason(begun(), Kind.WITHDRAW, "B") == Reason.EVENT_NOT_ALLOWED


# Why.

NEEDS_REASON: Final[list[tuple[Way, Kind, str, dict[str, Any]]]] = [
    (opened, Kind.SUPPLEMENT_REQUEST, "B", {}),
    (opened, Kind.SUSPEND, "B", {"pause": Pause.TEST}),
    (lambda: opened().end("B", 3), Kind.EXTEND, "C", {"extension": 1, "approval_ref": "A-1"}),
    (opened, Kind.RESULT, "B", {"result": ResultCode.FAIL}),
    (opened, Kind.RESULT, "B", {"result": ResultCode.CONDITIONAL, "ref": "r"}),
    (lambda: begun().recognise("B", 2), Kind.REFUSE_RECOGNITION, "B", {}),
    (begun, Kind.WITHDRAW, "D", {}),
    (begun, Kind.WITHDRAW, WHOLE_CASE, {}),
    (lambda: opened().end("B", 3), Kind.REVOKE, "B", {}),
]


@pytest.mark.parametrize(("way", "kind", "stage", "said"), NEEDS_REASON)
def test_what_needs_a_reason(way: Way, kind: Kind, stage: str, said: dict[str, Any]) -> None:
    reasons = Reasons.load()
    assert reason(way(), kind, stage, reason="", **said) == Reason.REASON_MISSING
    assert reason(way(), kind, stage, reason="", reasons=reasons, **said) == Reason.REASON_MISSING
    assert reason(way(), kind, stage, reason="BECAUSE", reasons=reasons, **said) == Reason.REASON_UNKNOWN
    assert reason(way(), kind, stage, reason="BECAUSE", **said) is None


def test_what_needs_no_reason() -> None:
    assert reason(begun(), Kind.START, "B", reason="") is None
    assert reason(opened(), Kind.RESULT, "B", reason="", result=ResultCode.PASS, ref="r") is None


# At random.


@given(worlds.worlds())
def test_checking_changes_nothing(world: tuple[Procedure, list[Event]]) -> None:
    found, events = world
    state = CaseState.begin(found, events[0])
    for event in events[1:]:
        state.apply(event)
    before = repr(state)
    for number in range(6):
        list(worlds.allowed(state, events[-1].at + DAY, 99, number))
    assert repr(state) == before


@given(worlds.worlds())
def test_agencies_never_say_what_is_the_service_s_own(world: tuple[Procedure, list[Event]]) -> None:
    found, events = world
    state = CaseState.begin(found, events[0])
    for event in events[1:]:
        if event.kind in OWN:
            agency = found.stages[event.stage].agency
            with pytest.raises(PermissionDenied):
                rules.check(state, event, now=worlds.LATER, caller_agency=agency, backdating=None)
        state.apply(event)
