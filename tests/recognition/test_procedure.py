"""Procedures: read, asked, and refused with every mistake they have."""

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.recognition import graph, matters
from services.recognition.agencies import Agencies
from services.recognition.events import Assurance, Event, Kind, Pause, ResultCode
from services.recognition.procedure import DeemedRule, Demand, Overdue
from services.recognition.procedure_demands import Offer, offers, unmet
from services.recognition.procedure_draft import MAX_TEXT, parse_limit
from services.recognition.procedure_file import ProcedureRefused, parse, read
from services.recognition.procedures import Procedures
from services.recognition.reasons import Ground, Reasons, ground_of
from services.recognition.statutory import Limit, Unit
from tests.recognition.files import Words, changed, read_words, small

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)


def refused(words: Words) -> list[tuple[str, str]]:
    """Stage and message of every mistake."""
    with pytest.raises(ProcedureRefused) as caught:
        read_words(words)
    assert caught.value.reason is Reason.PROCEDURE_INVALID
    assert all(problem.reason is Reason.PROCEDURE_INVALID for problem in caught.value.problems)
    return [(problem.stage, problem.message) for problem in caught.value.problems]


# Reading


def test_what_a_file_says_is_what_the_procedure_is() -> None:
    procedure = read_words(small())
    assert procedure.label == "SMALL@1.2.3"
    assert procedure.file == "small@1.2.3.yaml"
    assert procedure.effective_from == dt.datetime(2025, 12, 31, 16, tzinfo=dt.UTC)
    assert procedure.deemed is DeemedRule.ALLOWED
    assert list(procedure.stages) == ["A", "B", "C", "D"]
    a, b = procedure.stage("A"), procedure.stage("B")
    assert a.limit == Limit(5, Unit.WORKING_DAY)
    assert a.overdue is Overdue.DEEMED
    assert a.pauses == {Pause.SUPPLEMENT: Limit(10, Unit.WORKING_DAY)}
    assert not a.accepts
    assert b.accepts
    assert b.overdue is Overdue.ESCALATE
    assert b.proves is not None
    assert b.proves.until(NOW) == NOW + dt.timedelta(days=180)
    assert b.recognisable_by("customs")
    assert not b.recognisable_by("taxation")
    assert procedure.stage("D").requires == (Demand("tax_ok", Assurance.FORM_REVIEW, "P90D"),)
    assert procedure.takes_part == {"commerce", "taxation", "foreign-investment", "customs"}


def test_text_and_digest_are_those_of_the_file(tmp_path: Path) -> None:
    content = yaml.safe_dump(small(), allow_unicode=True).replace("\n", "\r\n").encode()
    file = tmp_path / "small@1.2.3.yaml"
    file.write_bytes(content)
    procedure = read(file)
    assert procedure.text.encode() == content
    assert procedure.digest == hashlib.sha256(content).hexdigest()
    assert parse(procedure.text).digest == procedure.digest


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("1 working day", Limit(1, Unit.WORKING_DAY)),
        ("30 calendar days", Limit(30, Unit.CALENDAR_DAY)),
        ("24 hours", Limit(24, Unit.HOUR)),
    ],
)
def test_limits_are_written_as_people_say_them(words: str, limit: Limit) -> None:
    assert parse_limit(words) == limit


@pytest.mark.parametrize(
    "words", ["", "0 hours", "five days", "5 days", "5working days", "-1 hour", 5, None, "10000 hours"]
)
def test_other_limits_are_refused(words: object) -> None:
    with pytest.raises(ValueError, match="write a limit as"):
        parse_limit(words)


# Asking


def test_answers_are_filled_up_and_decide_which_stages_apply() -> None:
    procedure = read_words(small())
    answers = procedure.complete({"grade": "2"})
    assert dict(answers) == {"foreign": "false", "grade": "2"}
    assert [stage.code for stage in procedure.applicable(answers)] == ["A", "B", "D"]
    foreign = procedure.complete({"foreign": "true", "grade": "1"})
    assert [stage.code for stage in procedure.applicable(foreign)] == ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, Reason.ANSWER_MISSING),
        ({"grade": "3"}, Reason.ANSWER_UNKNOWN),
        ({"grade": "1", "forein": "true"}, Reason.ANSWER_UNKNOWN),
    ],
)
def test_answers_that_do_not_fit_are_refused(answers: dict[str, str], reason: Reason) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_words(small()).complete(answers)
    assert caught.value.reason is reason


def test_limits_follow_answers() -> None:
    procedure = read_words(small())
    stage = procedure.stage("D")
    assert procedure.limit_of(stage, {"grade": "1"}) == Limit(5, Unit.WORKING_DAY)
    assert procedure.limit_of(stage, {"grade": "2"}) == Limit(10, Unit.WORKING_DAY)
    assert procedure.limit_of(procedure.stage("A"), {}) == Limit(5, Unit.WORKING_DAY)


def test_lights_turn_yellow_by_share_or_by_what_the_stage_says() -> None:
    procedure = read_words(changed("A", yellow=2))
    assert procedure.lead_of(procedure.stage("A"), Limit(5, Unit.WORKING_DAY)) == 2
    assert procedure.lead_of(procedure.stage("B"), Limit(20, Unit.WORKING_DAY)) == 5
    assert procedure.lead_of(procedure.stage("B"), Limit(3, Unit.WORKING_DAY)) == 0
    assert procedure.lead_of(procedure.stage("B"), Limit(8, Unit.HOUR)) is None


def test_an_unknown_stage_names_the_nearest() -> None:
    procedure = read_words(changed("E5a", after=["A"], optional=True))
    with pytest.raises(InvalidArgument, match="did you mean 'E5a'") as caught:
        procedure.stage("E5b")
    assert caught.value.reason is Reason.STAGE_UNKNOWN


def test_what_comes_before_and_after() -> None:
    procedure = read_words(small())
    assert procedure.order == ("A", "B", "C", "D")
    assert procedure.ancestors("D") == {"A", "B", "C"}
    assert procedure.ancestors("A") == frozenset()
    assert procedure.followers["A"] == ("B", "C")


def test_what_takes_a_stages_place_must_be_as_good_as_the_stage_and_as_all_who_rely_on_it_demand() -> None:
    procedure = read_words(small())
    assert procedure.needs(procedure.stage("B")) == Demand("tax_ok", Assurance.FORM_REVIEW, "P90D")
    assert procedure.needs(procedure.stage("A")) is None
    assert procedure.needs(read_words(changed("B", accepts=False)).stage("B")) is None


def test_a_demand_tells_what_is_recent_enough() -> None:
    demand = Demand("tax_ok", max_age="P1M")
    issued = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
    assert demand.fresh(issued, dt.datetime(2026, 2, 28, tzinfo=dt.UTC))
    assert not demand.fresh(issued, dt.datetime(2026, 2, 28, 1, tzinfo=dt.UTC))
    assert Demand("tax_ok").fresh(issued, dt.datetime(2036, 1, 1, tzinfo=dt.UTC))


# Refused: one kind of mistake at a time. Stage, what is changed in it, stage that is blamed, and words of the message.

WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "an unknown agency": ("B", {"agency": "taxaton"}, "B", "agency 'taxaton' is unknown; did you mean 'taxation'"),
    "an unknown recogniser": ("B", {"recognised_by": ["customs", "banc"]}, "B", "'banc' is neither agency nor party"),
    "a recogniser of nothing": ("C", {"recognised_by": ["customs"]}, "C", "proves nothing that could be recognised"),
    "an unknown approver": ("D", {"extension": {"amount": 1, "approver": "the boss"}}, "D", "no office 'the boss'"),
    "an unknown stage in after": ("D", {"after": ["B", "C", "X"]}, "D", "after: there is no stage 'X'"),
    "a stage twice in after": ("D", {"after": ["B", "B", "C"]}, "D", "after: B stands twice"),
    "an unknown question": ("C", {"when": {"foriegn": True}}, "C", "no question 'foriegn'; did you mean 'foreign'"),
    "an unknown answer": ("C", {"when": {"foreign": "maybe"}}, "C", "'maybe' is no answer to 'foreign'"),
    "results of an unknown stage": ("C", {"when_result": {"X": ["PASS"]}}, "C", "when_result: there is no stage 'X'"),
    "results of a later stage": ("C", {"when_result": {"D": ["PASS"]}}, "C", "when_result: D does not come before it"),
    "no result at all": ("C", {"when_result": {"A": []}}, "C", "no result of A is named"),
    "a question of limits that nobody asks": (
        "D",
        {"limits_by": {"question": "size", "limits": {}}, "extension": None, "overdue": "none"},
        "D",
        "limits_by: there is no question 'size'",
    ),
    "an answer without a limit": (
        "D",
        {"limits_by": {"question": "grade", "limits": {1: "5 working days"}}},
        "D",
        "no limit for the answer '2'",
    ),
    "a limit for no answer": (
        "D",
        {"limits_by": {"question": "grade", "limits": {1: "5 hours", 2: "6 hours", 3: "7 hours"}}},
        "D",
        "'3' is no answer to 'grade'",
    ),
    "limits in several units": (
        "D",
        {"limits_by": {"question": "grade", "limits": {1: "5 working days", 2: "6 hours"}}},
        "D",
        "counted in the same unit",
    ),
    "a clock from an unknown stage": ("D", {"clock": "started:X"}, "D", "clock: there is no stage 'X'"),
    "a clock from a later stage": ("B", {"clock": "started:D"}, "B", "clock: D does not come before it"),
    "a clock from a stage that may not apply": ("D", {"clock": "started:C"}, "D", "C does not apply to every case"),
    "a clock of nothing": ("C", {"limit": None, "clock": "started:A"}, "C", "clock: it has no limit"),
    "overdue without a limit": ("C", {"limit": None, "overdue": "escalate"}, "C", "overdue: it has no limit"),
    "yellow without a limit": ("C", {"limit": None, "yellow": 1}, "C", "yellow: it has no limit"),
    "an extension of nothing": (
        "C",
        {"limit": None, "extension": {"amount": 1, "approver": "superior"}},
        "C",
        "extension: it has no limit",
    ),
    "never green": ("C", {"yellow": 3}, "C", "never be green"),
    "on the spot, with a limit": ("C", {"instant": True}, "C", "on the spot has no limit"),
    "on the spot, with a pause": (
        "C",
        {"instant": True, "limit": None, "pauses": {"TEST": None}},
        "C",
        "does not pause",
    ),
    "a pause for a supplement that is not asked for": ("B", {"pauses": {"SUPPLEMENT": None}}, "B", "supplement: true"),
    "a fact proven twice": ("C", {"proves": {"fact": "tax_ok", "assurance": "AUTO"}}, "C", "proven by B already"),
    "a result in place of no fact": ("C", {"accepts": True}, "C", "accepts: it proves no fact"),
    "a fact that is proven again and again": ("B", {"repeatable": True}, "B", "ends once"),
    "a demand twice": ("D", {"requires": [{"fact": "tax_ok"}, {"fact": "tax_ok"}]}, "D", "tax_ok stands twice"),
    "a demand that comes too early": ("C", {"requires": [{"fact": "tax_ok"}]}, "C", "B, which does not come before"),
    "a demand of itself": ("B", {"requires": [{"fact": "tax_ok"}]}, "B", "what the stage proves itself"),
    "a demand for more than is proven": (
        "D",
        {"requires": [{"fact": "tax_ok", "assurance": "ON_SITE"}]},
        "D",
        "wanted at ON_SITE, and B proves it at FORM_REVIEW",
    ),
    "a demand of somebody who may not recognise it": (
        "B",
        {"recognised_by": ["applicant"]},
        "D",
        "not there for customs to recognise",
    ),
    "a demand for what may be dropped": ("B", {"optional": True}, "D", "proven by B, which may be dropped"),
    "a demand that is too old in time": (
        "D",
        {"requires": [{"fact": "tax_ok", "max_age": "P7D"}]},
        "D",
        "wanted no older than P7D, and may be some 14 days old",
    ),
    "a fact that ends before it is needed": (
        "B",
        {"proves": {"fact": "tax_ok", "assurance": "FORM_REVIEW", "valid_for": "P5D"}},
        "D",
        "valid for P5D",
    ),
    "an end that may be dropped": ("D", {"optional": True}, "D", "closes the case cannot be dropped"),
    "a way past the end": ("E", {"after": ["D"]}, "D", "the case may still wait for E"),
    "no end": ("D", {"reaches": "ISSUED"}, "", "a case would never end"),
    "an end that not every case has": ("D", {"when": {"foreign": True}}, "", "a case would never end"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_mistake_in_a_stage_is_refused_by_its_name(kind: str) -> None:
    stage, words, blamed, message = WRONG[kind]
    found = refused(changed(stage, **words))
    assert [(code, said) for code, said in found if code == blamed and message in said], found
    assert len(found) == 1, found


HEADS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown lead": ({"lead": "comerce"}, "lead: the agency 'comerce' is unknown; did you mean 'commerce'"),
    "an unknown calendar": ({"calendar": "XX"}, "calendar: 'XX' is unknown"),
    "an unknown office": ({"escalation": [{"after": "1 hour", "to": "the boss"}]}, "no office 'the boss'"),
    "escalation backwards": (
        {"escalation": [{"after": "2 working days", "to": "superior"}, {"after": "24 hours", "to": "supervision"}]},
        "comes no later than the one before it",
    ),
    "an unknown matter": ({"matters": ["fod"]}, "matters: 'fod' is unknown; did you mean 'food'"),
    "a default that is no answer": (
        {"questions": small()["questions"] | {"foreign": {"title": "?", "local_title": "?", "default": "maybe"}}},
        "default 'maybe' is none of its values",
    ),
    "a value twice": (
        {
            "questions": small()["questions"]
            | {"foreign": {"title": "?", "local_title": "?", "values": [True, "true", False]}}
        },
        "a value stands twice",
    ),
    "a question for nothing": (
        {"questions": small()["questions"] | {"colour": {"title": "?", "local_title": "?"}}},
        "colour is asked, and decides nothing",
    ),
    "a known agency declared anew": ({"agencies": {"customs": {"title": "X", "local_title": "X"}}}, "known already"),
    "no stages": ({"stages": {}}, "stages: there must be between 1 and 200"),
    "a version that is none": ({"version": "1.0"}, "version: "),
    "a code in small letters": ({"code": "small"}, "code: "),
    "a moment without a zone": ({"effective_from": "2026-01-01T00:00:00"}, "effective_from: "),
    "an unknown scheme": ({"subjects": ["cn.id"]}, "subjects.0: "),
    "an unknown word": ({"colour": "red"}, "colour: "),
    "a word that is missing": ({"title": None}, "title: "),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_mistake_in_the_head_is_refused(kind: str) -> None:
    words, message = HEADS[kind]
    found = refused(changed(**words))
    assert [said for code, said in found if not code and message in said], found
    assert len(found) == 1 or kind == "an unknown scheme", found


def test_the_status_of_a_case_does_not_go_back() -> None:
    words = changed("B", reaches="DECIDED")
    words["stages"]["C"]["reaches"] = "ISSUED"
    words["stages"]["C"]["after"] = ["B"]
    read_words(words)
    words["stages"]["C"]["reaches"] = "ACCEPTED"
    assert refused(words) == [("C", "reaches: ACCEPTED, though B before it has reached DECIDED")]


@pytest.mark.parametrize(
    ("after", "cycle"),
    [
        ({"A": ["D"]}, ("A -> B -> D -> A",)),
        ({"B": ["B"]}, ("B -> B",)),
        ({"A": ["A"], "C": ["D"]}, ("A -> A", "C -> D -> C")),
    ],
)
def test_stages_that_wait_for_each_other_are_refused_by_the_cycle(
    after: dict[str, list[str]], cycle: tuple[str, ...]
) -> None:
    words = small()
    for stage, before in after.items():
        words["stages"][stage]["after"] = before
    with pytest.raises(ProcedureRefused) as caught:
        read_words(words)
    assert caught.value.reason is Reason.PROCEDURE_CYCLE
    found = [p.message for p in caught.value.problems if p.reason is Reason.PROCEDURE_CYCLE]
    assert found == [f"after: the stages wait for each other: {path}" for path in cycle]


@pytest.mark.parametrize(
    ("matter", "deemed", "message"),
    [
        ("food", "allowed", "laxer than the law on food allows: forbidden"),
        ("food", "acceptance", "laxer than the law on food allows: forbidden"),
        ("dangerous-goods", "acceptance", "laxer than the law on dangerous-goods allows"),
        ("aeo", "allowed", "laxer than the law on aeo allows: acceptance"),
        ("tax-refund", "allowed", "laxer than the law on tax-refund allows: acceptance"),
    ],
)
def test_silence_may_not_mean_more_than_the_law_on_the_matter_allows(matter: str, deemed: str, message: str) -> None:
    found = refused(changed(matters=["permit", matter], deemed=deemed))
    assert [said for _, said in found if message in said]


def test_silence_is_no_pass_where_the_procedure_forbids_it() -> None:
    assert refused(changed(deemed="forbidden")) == [("A", "overdue: deemed is forbidden in this procedure")]


def test_silence_is_a_pass_in_the_acceptance_only_where_the_procedure_says_so() -> None:
    read_words(changed(deemed="acceptance"))
    words = changed("B", overdue="deemed")
    words["deemed"] = "acceptance"
    assert [stage for stage, _ in refused(words)] == ["B"]


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    words = small()
    words["lead"] = "nobody"
    words["version"] = "one"
    words["stages"]["A"]["limit"] = "some days"
    words["stages"]["B"]["agency"] = "nobody"
    words["stages"]["C"]["after"] = ["Z"]
    words["stages"]["D"]["colour"] = "red"
    words["stages"]["d"] = words["stages"]["C"]
    found = refused(words)
    assert sum(1 for stage, _ in found if not stage) == 2  # lead and version
    assert {stage for stage, _ in found} == {"", "A", "B", "C", "D", "d"}
    # What follows only from what could not be read is not told.
    assert not [said for _, said in found if "never end" in said or "no stage 'A'" in said]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "a: [",
        "a: 1\na: 2\n",
        "effective_from: 2026-02-30",
        "[" * 20_000,
        "? [a]\n: 1",
        "stages: 3\n1: 2\n",
    ],
)
def test_what_is_no_procedure_at_all_is_refused(text: str) -> None:
    with pytest.raises(ProcedureRefused) as caught:
        parse(text)
    assert caught.value.reason is Reason.PROCEDURE_INVALID


def test_a_file_too_large_is_not_read() -> None:
    with pytest.raises(ProcedureRefused, match="larger than"):
        parse("#" * (MAX_TEXT + 1))


def test_a_file_must_bear_its_name_and_be_text(tmp_path: Path) -> None:
    file = tmp_path / "small@1.0.0.yaml"
    file.write_text(yaml.safe_dump(small()))
    with pytest.raises(ProcedureRefused, match=r"must be named small@1\.2\.3\.yaml"):
        read(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ProcedureRefused, match="it is not UTF-8"):
        read(file)
    with pytest.raises(ProcedureRefused, match="cannot be read"):
        read(tmp_path / "absent@1.0.0.yaml")


def test_a_procedure_may_bring_agencies_of_its_own() -> None:
    words = changed("B", agency="zone-park", recognised_by=["customs", "auditor"])
    words["agencies"] = {"zone-park": {"title": "Park", "local_title": "园区"}}
    words["parties"] = {"auditor": {"title": "Auditor", "local_title": "审计"}}
    procedure = read_words(words)
    assert procedure.agencies["zone-park"].line[0].code == "zone-park"
    assert Agencies.load().plus(procedure.agencies.values()).addressee("zone-park", "superior") == "zone-park"


# Demands from outside


def test_a_fact_from_outside_must_be_offered_at_that_assurance_to_that_agency() -> None:
    wants = read_words(changed("D", requires=[{"fact": "site_ok", "assurance": "SUBSTANTIVE"}]))

    def offer(fact: str = "site_ok", assurance: Assurance = Assurance.ON_SITE, to: str = "customs") -> Offer:
        return Offer(fact, "quality", assurance, frozenset({to}), "OTHER@1.0.0")

    assert [*unmet(wants, [offer()])] == []
    assert [*unmet(wants, [offer(to="all")])] == []
    ((stage, message),) = unmet(wants, [offer("site_okay")])
    assert (stage, message) == ("D", "requires: nobody proves 'site_ok'; did you mean 'site_okay'?")
    assert [*unmet(wants, [offer(assurance=Assurance.AUTO)])] == [
        ("D", "requires: nobody proves site_ok at SUBSTANTIVE")
    ]
    assert [*unmet(wants, [offer(to="bank")])] == [("D", "requires: site_ok is not there for customs to recognise")]


def test_what_procedures_prove_is_offered_to_those_they_name() -> None:
    (offer,) = offers([read_words(small())])
    assert offer == Offer(
        "tax_ok", "taxation", Assurance.FORM_REVIEW, frozenset({"customs", "applicant", "taxation"}), "SMALL@1.2.3"
    )


# All versions


def write(folder: Path, **words: Any) -> Path:
    made = changed(**words)
    file = folder / f"{made['code'].lower()}@{made['version']}.yaml"
    file.write_text(yaml.safe_dump(made, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return file


def test_the_newest_version_in_force_is_taken_by_number_not_by_letter(tmp_path: Path) -> None:
    files = [write(tmp_path, version=version) for version in ("1.9.0", "1.10.0", "1.2.0")]
    files.append(write(tmp_path, version="2.0.0", effective_from="2026-10-01T00:00:00+08:00"))
    known = Procedures.of(files)
    assert known.in_force("SMALL", NOW).version == "1.10.0"
    assert known.in_force("SMALL", dt.datetime(2026, 9, 30, 15, 59, 59, tzinfo=dt.UTC)).version == "1.10.0"
    assert known.in_force("SMALL", dt.datetime(2026, 9, 30, 16, tzinfo=dt.UTC)).version == "2.0.0"
    assert [p.version for p in known] == ["1.2.0", "1.9.0", "1.10.0", "2.0.0"]
    assert known.get("SMALL@1.9.0").version == "1.9.0"
    assert "SMALL@1.9.0" in known
    assert len(known) == 4


@pytest.mark.parametrize("code", ["SMAL", "X"])
def test_an_unknown_procedure_is_refused(tmp_path: Path, code: str) -> None:
    known = Procedures.of([write(tmp_path)])
    with pytest.raises(InvalidArgument) as caught:
        known.in_force(code, NOW)
    assert caught.value.reason is Reason.PROCEDURE_UNKNOWN
    with pytest.raises(InvalidArgument) as caught:
        known.get(f"{code}@1.2.3")
    assert caught.value.reason is Reason.PROCEDURE_UNKNOWN


def test_a_procedure_is_not_in_force_before_its_day(tmp_path: Path) -> None:
    known = Procedures.of([write(tmp_path)])
    with pytest.raises(InvalidArgument, match="in force from 2026-01-01") as caught:
        known.in_force("SMALL", dt.datetime(2025, 6, 1, tzinfo=dt.UTC))
    assert caught.value.reason is Reason.PROCEDURE_UNKNOWN


def test_a_version_has_one_text_only(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [write(tmp_path), write(tmp_path / "other", title="Another")]
    with pytest.raises(FailedPrecondition) as caught:
        Procedures.of(files)
    assert caught.value.reason is Reason.PROCEDURE_CHANGED
    assert len(Procedures.of([files[0], files[0]])) == 1


def test_every_mistake_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    files = [
        write(tmp_path, version="1.0.0", lead="x"),
        write(tmp_path, version="1.0.1", calendar="XX"),
        write(tmp_path),
    ]
    with pytest.raises(ProcedureRefused) as caught:
        Procedures.of(files)
    assert [Path(problem.file).name for problem in caught.value.problems] == ["small@1.0.0.yaml", "small@1.0.1.yaml"]


def test_demands_are_checked_across_procedures_once_arrangements_are_known(tmp_path: Path) -> None:
    made = changed("D", requires=[{"fact": "site_ok"}])
    file = tmp_path / "small@1.2.3.yaml"
    file.write_text(yaml.safe_dump(made, allow_unicode=True))
    with pytest.raises(ProcedureRefused, match="nobody proves 'site_ok'"):
        Procedures.load(tmp_path)
    known = Procedures.load(tmp_path, demands=False)

    class Arranged:
        label = "SITE-OK@1.0.0"
        fact = "site_ok"
        issuers = ("quality",)
        recognisers = ("customs",)
        assurance = Assurance.AUTO

    known.check_demands([Arranged()])


# Agencies and reasons


def test_reminders_go_up_the_agencys_line() -> None:
    agencies = Agencies.load()
    assert agencies.addressee("customs") == "customs-zone-office"
    assert agencies.addressee("customs", "superior") == "customs-district"
    assert agencies.addressee("customs", "supervision") == "zone-supervision"
    assert agencies.addressee("customs", "customs-headquarters") == "customs-headquarters"
    assert agencies.addressee("bank", "superior") == "bank"
    with pytest.raises(InvalidArgument, match="did you mean 'customs'") as caught:
        agencies.addressee("custms")
    assert caught.value.reason is Reason.AGENCY_UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        "agencies: {}",
        "supervision: {code: s, title: S, local_title: S}\nagencies: {s1: {title: S}}\nparties: {}",
        "supervision: {code: s, title: S, local_title: S}\nagencies: {a: {title: A, local_title: A, "
        "line: [{code: s, title: X, local_title: X}]}}\nparties: {}",
        "supervision: {code: s, title: S, local_title: S}\nagencies: {a: {title: A, local_title: A}}\n"
        "parties: {a: {title: A, local_title: A}}",
        "a: 1\na: 2",
    ],
)
def test_agencies_that_do_not_hold_together_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "agencies.yaml"
    file.write_text(text)
    with pytest.raises(FailedPrecondition) as caught:
        Agencies.load(file)
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_every_kind_of_event_that_needs_a_reason_has_a_closed_list() -> None:
    reasons = Reasons.load()
    for ground in Ground:
        assert reasons.of(ground)
    reasons.check(Ground.REVOKE, "LEGAL_REPRESENTATIVE_CHANGED")
    with pytest.raises(InvalidArgument, match="did you mean 'FALSE_MATERIAL'") as caught:
        reasons.check(Ground.FAIL, "FALSE_MATERIALS")
    assert caught.value.reason is Reason.REASON_UNKNOWN
    with pytest.raises(InvalidArgument) as caught:
        reasons.check(Ground.SUSPEND, "")
    assert caught.value.reason is Reason.REASON_MISSING


@pytest.mark.parametrize(
    ("kind", "result", "ground"),
    [
        (Kind.RESULT, ResultCode.PASS, None),
        (Kind.RESULT, ResultCode.FAIL, Ground.FAIL),
        (Kind.RESULT, ResultCode.CONDITIONAL, Ground.CONDITIONAL),
        (Kind.REVOKE, None, Ground.REVOKE),
        (Kind.START, None, None),
        (Kind.WITHDRAW, None, Ground.WITHDRAW),
    ],
)
def test_an_events_kind_says_which_list_its_reason_is_of(
    kind: Kind, result: ResultCode | None, ground: Ground | None
) -> None:
    event = Event("1", kind, "A", "commerce", NOW, NOW, result=result)
    assert ground_of(event) is ground
    if ground is None:
        Reasons.load().check_event(event)
    else:
        with pytest.raises(InvalidArgument):
            Reasons.load().check_event(event)


def test_matters_are_as_strict_as_the_law() -> None:
    rules = {name: matter.deemed for name, matter in matters.load().items()}
    assert rules["food"] is rules["dangerous-goods"] is DeemedRule.FORBIDDEN
    assert rules["aeo"] is rules["tax-refund"] is DeemedRule.ACCEPTANCE


# Graphs


@st.composite
def edges(draw: st.DrawFn) -> dict[str, list[str]]:
    codes = [f"S{number}" for number in range(draw(st.integers(1, 7)))]
    return {code: draw(st.lists(st.sampled_from(codes), unique=True, max_size=3)) for code in codes}


def _closure(after: dict[str, list[str]]) -> dict[str, set[str]]:
    """What comes before, by Warshall: another way than the one under test."""
    before = {code: set(codes) for code, codes in after.items()}
    for middle in after:
        for code in after:
            if middle in before[code]:
                before[code] |= before[middle]
    return before


@given(edges())
def test_ancestors_cycles_and_order_agree_with_the_closure(after: dict[str, list[str]]) -> None:
    before = _closure(after)
    assert graph.ancestors(after) == before
    knots = {
        frozenset(o for o in after if o == c or (o in before[c] and c in before[o])) for c in after if c in before[c]
    }
    found = [*graph.cycles(after)]
    assert len(found) == len(knots)
    for cycle in found:
        assert len(set(cycle)) == len(cycle)
        for first, then in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            assert first in after[then]
    if knots:
        with pytest.raises(ValueError, match="wait for each other"):
            graph.order(after)
    else:
        place = {code: index for index, code in enumerate(graph.order(after))}
        assert all(place[b] < place[code] for code in after for b in after[code])
