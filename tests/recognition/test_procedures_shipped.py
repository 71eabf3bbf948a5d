"""The procedures that come with the product: who does what, after what, in how long, and what silence means."""

import re

import pytest

from services.recognition import drawing
from services.recognition.agencies import ALL, Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.events import Assurance, Pause, ResultCode
from services.recognition.procedure import DeemedRule, Overdue, Procedure
from services.recognition.procedures import Procedures

KNOWN = Procedures.load(demands=False)

# For each stage: agency, what it comes after, time as the drawing words it, what it proves.
EXPECTED = {
    "FTZ-EST": """
        E0  commerce            -                    on the spot                         name_reserved
        E1  commerce            E0                   5 working days, then deemed passed  case_accepted
        E2  publicsecurity      E1                   1 working day                       person_verified
        E3  foreign-investment  E1                   3 working days                      not_on_negative_list
        E4  commerce            E2 E3                3 working days                      registered
        E5a publicsecurity      E4                   1 working day, then deemed passed   seal_registered
        E5b taxation            E4                   1 working day                       tax_registered
        E5c customs             E4                   3 working days                      customs_code
        E5d social-insurance    E4                   1 working day                       -
        E5e bank                E4                   1 working day                       -
        E6  commerce            E5a E5b E5c E5d E5e  1 working day                       pack_delivered
    """,
    "FOOD-IMP": """
        F0  quality             -                    no limit                            mfr_registered
        F1  quality             -                    5 working days                      importer_filed
        F2  foreign-authority   -                    24 hours                            cert_valid
        F3  customs             F0 F1                14 calendar days                    decl_accepted
        F4  quality             F2 F3                2 working days                      docs_ok
        F5  quality             F4                   4 hours                             -
        F6  laboratory          F5                   7 working days                      lab_verdict
        F7  quality             F4 F5 F6             1 working day                       lot_conforming
        F8  customs             F3                   15 calendar days                    duty_paid
        F9  customs             F7 F8                2 hours                             released
        F10 commerce            F9                   1 working day                       trace_opened
    """,
    "AEO-CERT": """
        A1  customs             -                    5 working days, then deemed passed  -
        A2a taxation            A1                   3 working days                      tax_ok
        A2b commerce            A1                   1 working day                       mr_ok
        A2c publicsecurity      A1                   5 working days                      officers_not_disqualified
        A2d forex               A1                   5 working days                      -
        A2e environment         A1                   5 working days                      -
        A2f courts              A1                   5 working days                      -
        A3  customs             A2a A2b A2c A2d A2e A2f  30 calendar days                doc_pass
        A4  customs             A3                   30 calendar days                    site_pass
        A5  customs             A4                   90 calendar days, from A1 on        aeo_certified
        A6  customs             A5                   1 working day                       -
        A7  customs             A5 A6                1 working day                       -
    """,
    "VAT-REFUND": """
        V0  taxation            -                    1 working day                       refund_recorded
        V1  customs             -                    1 hour                              decl_cleared
        V2  taxation            V0 V1                1 working day, then deemed passed   claim_accepted
        V3  taxation            V2                   1 hour                              match_report
        V4a taxation            V3                   1 working day                       risk_assessed
        V4b taxation            V4a                  20 working days                     supplier_confirmed
        V5  forex               V4a                  5 working days                      fx_received
        V6  taxation            V3 V4a V4b V5        5 to 20 working days, by refund_class, from V2 on  refund_approved
        V7  treasury            V6                   3 working days                      refund_paid
    """,
}


def told(procedure: Procedure) -> list[list[str]]:
    """What a procedure says of its stages, word by word."""
    return [
        f"{s.code} {s.agency} {' '.join(s.after) or '-'} {drawing.time_words(s)} "
        f"{s.proves.code if s.proves else '-'}".split()
        for s in procedure.stages.values()
    ]


@pytest.mark.parametrize("code", EXPECTED)
def test_stages_are_those_of_the_study(code: str) -> None:
    (procedure,) = KNOWN.versions(code)
    assert told(procedure) == [line.split() for line in EXPECTED[code].strip().splitlines()]


def test_every_demand_is_met_by_a_procedure_or_an_arrangement() -> None:
    KNOWN.check_demands()
    KNOWN.check_demands(Arrangements.load(agencies=Agencies.load(), procedures=KNOWN))


@pytest.mark.parametrize("procedure", KNOWN, ids=lambda p: p.label)
def test_all_that_a_procedure_names_is_there_in_two_languages(procedure: Procedure) -> None:
    agencies = Agencies.load()
    assert procedure.calendar in Calendars.load()
    assert {procedure.lead} | procedure.takes_part <= agencies.agencies.keys() | procedure.agencies.keys()
    named = [(procedure.title, procedure.local_title)]
    named += ((stage.title, stage.local_title) for stage in procedure.stages.values())
    named += ((question.title, question.local_title) for question in procedure.questions.values())
    assert all(title.isascii() and local_title for title, local_title in named)


@pytest.mark.parametrize("code", EXPECTED)
def test_every_time_is_marked_with_what_stands_behind_it(code: str) -> None:
    (procedure,) = KNOWN.versions(code)
    block = ""
    for line in procedure.text.splitlines():
        block = line if not line.startswith(" ") else block
        if re.search(r"\d+ (working day|calendar day|hour)", line):
            marked = line if line.startswith("    ") else f"{line}{block}"
            assert re.search(r"#.*\b(sourced|memory|design)\b", marked), line


def test_silence_is_a_pass_nowhere_in_food_and_elsewhere_in_the_acceptance_only() -> None:
    deemed = {
        procedure.code: [s.code for s in procedure.stages.values() if s.overdue is Overdue.DEEMED]
        for procedure in KNOWN
    }
    assert KNOWN.versions("FOOD-IMP")[0].deemed is DeemedRule.FORBIDDEN
    assert {code: deemed[code] for code in EXPECTED} == {
        "FTZ-EST": ["E1", "E5a"],
        "FOOD-IMP": [],
        "AEO-CERT": ["A1"],
        "VAT-REFUND": ["V2"],
    }


def test_late_declarations_and_late_duty_cost_money_and_escalate_nothing() -> None:
    food = KNOWN.versions("FOOD-IMP")[0]
    assert {s.code for s in food.stages.values() if s.overdue is Overdue.NONE} == {"F0", "F3", "F8"}


def test_some_stages_apply_only_as_answers_or_results_say() -> None:
    ftz, food, aeo, vat = (KNOWN.versions(code)[0] for code in EXPECTED)
    assert "E3" not in {s.code for s in ftz.applicable(ftz.complete({}))}
    assert "E3" in {s.code for s in ftz.applicable(ftz.complete({"foreign": "true"}))}
    assert food.stage("F6").when_result == {"F5": {ResultCode.CONDITIONAL}}
    assert aeo.stage("A6").when == {"partner_consent": "true"}
    assert vat.stage("V4b").when_result == vat.stage("V5").when_result == {"V4a": {ResultCode.CONDITIONAL}}
    assert {s.code for p in (ftz, food, aeo, vat) for s in p.stages.values() if s.stops_clocks} == {"F6", "V4b"}


def test_facts_are_recognised_by_those_the_study_names() -> None:
    by = {
        stage.proves.code: set(stage.recognised_by)
        for procedure in KNOWN
        for stage in procedure.stages.values()
        if stage.proves
    }
    assert by["registered"] == by["case_accepted"] == {ALL}
    assert by["person_verified"] == {"commerce", "taxation", "customs", "bank"}
    assert by["customs_code"] == {"taxation", "forex", "quality"}
    assert by["mfr_registered"] == {"quality", "customs", "commerce"}
    assert by["docs_ok"] == {"customs"}
    assert by["released"] == {"logistics", "commerce", "importer"}
    assert by["aeo_certified"] == {"taxation", "quality", "bank", "partner-customs"}
    assert by["decl_cleared"] == {"taxation", "forex"}
    assert by["refund_approved"] == {"treasury", "customs"}


def test_what_is_about_one_application_only_is_never_taken_from_another() -> None:
    taken = {stage.code for procedure in KNOWN for stage in procedure.stages.values() if stage.accepts}
    assert taken == {"E0", "E2", "E3", "E5b", "E5c", "F0", "F1", "A2a", "A2b", "V0"}


def test_an_identity_that_takes_the_place_of_a_check_is_as_thorough_and_recent_as_the_registrar_demands() -> None:
    ftz = KNOWN.versions("FTZ-EST")[0]
    needs = ftz.needs(ftz.stage("E2"))
    assert needs is not None
    assert (needs.fact, needs.assurance, needs.max_age) == ("person_verified", Assurance.SUBSTANTIVE, "P180D")


def test_the_site_may_be_put_in_order_and_the_decision_extended_once() -> None:
    aeo = KNOWN.versions("AEO-CERT")[0]
    assert Pause.IMPROVEMENT in aeo.stage("A4").pauses
    extension = aeo.stage("A5").extension
    assert extension is not None
    assert (extension.amount, extension.times, extension.approver) == (30, 1, "customs-district")
