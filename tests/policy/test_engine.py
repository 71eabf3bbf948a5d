"""Decisions: reasons, combination, context checks, and when a mask stops standing."""

import datetime as dt
from typing import Any

import pytest

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit.caller import Caller
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.policy.engine import LIMITS, PolicyEngine
from services.kit.policy.mask import ReadMask
from tests.policy.specimen import catalogue
from tests.policy.support import CUS, LAW, NOW, SECRET, TAX, TYPE, SetClock, context, engine, forbid, parse, permit

DAY = dt.timedelta(days=1)


def decision(mask: ReadMask, path: str) -> exchange_pb2.FieldDecision:
    return next(d for d in mask.decisions if d.field == path)


def ask(*texts: str, path: str = "code", caller: Caller = TAX, **asked: str) -> exchange_pb2.FieldDecision:
    return decision(engine(*texts).mask(caller, context(**asked), TYPE), path)


def test_without_a_permit_nothing_is_given_and_every_field_is_named() -> None:
    mask = engine("").mask(TAX, context(), TYPE)
    assert [d.field for d in mask.decisions] == [leaf.path for leaf in TYPE.leaves]
    assert {d.reason for d in mask.decisions} == {Reason.NO_PERMIT}
    assert not mask.grants
    section = mask.section()
    assert (section.status, section.reason) == (exchange_pb2.SECTION_STATUS_DENIED, Reason.NO_PERMIT)


def test_a_permit_tells_its_grounds() -> None:
    found = ask(permit("p", ["phone"], transform="last4", rows="colour='RED'", retain="P180D"), path="phone")
    assert found.verdict == exchange_pb2.VERDICT_TRANSFORMED
    assert (found.transform, found.reason, found.legal_basis) == ("last4", Reason.PERMITTED, "CN-VAT-REBATE")
    assert (list(found.policy_ids), list(found.conditions)) == (["p"], ["colour = 'RED'"])
    assert (found.retention, found.until.ToJsonString()) == ("P180D", "2027-12-31T00:00:00Z")


def test_the_basis_must_be_the_permits() -> None:
    found = ask(permit("p"), basis="CN-CUSTOMS-RISK")
    assert (found.verdict, found.reason) == (exchange_pb2.VERDICT_REFUSED, Reason.BASIS_MISMATCH)
    both = (permit("p", transform="pseudonym"), permit("q", basis="CN-CUSTOMS-RISK"))
    assert ask(*both, basis="CN-CUSTOMS-RISK").verdict == exchange_pb2.VERDICT_CLEAR
    assert list(ask(*both).policy_ids) == ["p"]


def test_forbid_wins_and_is_named() -> None:
    found = ask(permit("p"), forbid("f", ["code"]), permit("q"))
    assert (found.reason, list(found.policy_ids)) == (Reason.FORBIDDEN, ["f"])
    assert ask(permit("p"), forbid("f", ["code"], when='context.purpose == "P-RISK"')).reason == Reason.PERMITTED


def test_several_permits_give_the_least_under_all_conditions_for_the_shortest_time() -> None:
    found = ask(
        permit("c", ["phone"], rows="colour = 'RED'", retain="P10Y", until="2027-06-01T00:00:00Z"),
        permit("b", ["phone"], rows="count > 1", retain="P11M", transform="last4"),
        permit("a", ["phone"], rows="colour = 'RED'", retain="P1Y", transform="pseudonym"),
        path="phone",
    )
    assert found.transform == "pseudonym"
    assert list(found.conditions) == ["colour = 'RED'", "count > 1"]
    assert (found.retention, found.until.ToJsonString()) == ("P11M", "2027-06-01T00:00:00Z")
    assert list(found.policy_ids) == ["a", "b", "c"]


def test_a_decision_that_fails_refuses() -> None:
    # Overflow is the one mistake that the type check at load leaves for the decision.
    broken = forbid("f", ["code"], when="9223372036854775807 + resource.grade > 0")
    found = ask(permit("p", ["code", "colour"]), broken)
    assert (found.verdict, found.reason) == (exchange_pb2.VERDICT_REFUSED, Reason.DECISION_FAILED)
    mask = engine(permit("p", ["code"]), broken).mask(TAX, context(), TYPE)
    assert not mask.grants
    assert mask.reason is Reason.DECISION_FAILED


def test_a_transform_that_does_not_fit_after_all_refuses() -> None:
    text = permit("p", [], when='context.purpose == "P-REBATE" && resource.path like "p*"', transform="last4")
    assert ask(text, path="phone").transform == "last4"
    assert ask(text, path="period").reason == Reason.DECISION_FAILED
    assert ask(text, path="code").reason == Reason.NO_PERMIT
    hidden = permit("p", [], when='context.purpose == "P-REBATE" && resource.path like "id_*"')
    assert ask(hidden, path="id_number").reason == Reason.DECISION_FAILED


def test_who_asks_counts_as_agency_and_as_system() -> None:
    by_agency = permit("p", when='context.purpose == "P-REBATE" && principal in Hutong::Agency::"taxation"')
    assert ask(by_agency).reason == Reason.PERMITTED
    assert ask(by_agency, caller=CUS).reason == Reason.NO_PERMIT
    by_system = permit("p", when='context.purpose == "P-REBATE" && principal == Hutong::System::"taxation/refund"')
    assert ask(by_system).reason == Reason.PERMITTED
    other = Caller("spiffe://zone.test/taxation/web", "taxation", "web")
    assert ask(by_system, caller=other).reason == Reason.NO_PERMIT
    by_name = permit("p", when='context.purpose == "P-REBATE" && principal.agency == "customs"')
    assert ask(by_name).reason == Reason.NO_PERMIT
    assert ask(by_name, caller=CUS).reason == Reason.PERMITTED


def test_the_case_counts_where_a_policy_looks_at_it() -> None:
    text = permit("p", when='context.purpose == "P-REBATE" && context has case_ref && context.case_ref like "A-*"')
    policies = engine(text)
    for case, reason in (("", "NO_PERMIT"), ("A-1", "PERMITTED"), ("B-1", "NO_PERMIT"), ("A-2", "PERMITTED")):
        assert decision(policies.mask(TAX, context(case_ref=case), TYPE), "code").reason == reason


def test_masks_are_kept_for_the_same_question_only() -> None:
    policies = engine(permit("p"))
    mask = policies.mask(TAX, context(), TYPE)
    assert policies.mask(TAX, context(), TYPE) is mask
    # No policy looks at the case, so it cannot change the decision.
    assert policies.mask(TAX, context(case_ref="A-1"), TYPE) is mask
    for caller, asked in (
        (CUS, context()),
        (TAX, context(purpose="P-RISK")),
        (TAX, context(basis="CN-CUSTOMS-RISK")),
        (Caller("spiffe://other.test/taxation/refund", "taxation", "refund"), context()),
    ):
        assert policies.mask(caller, asked, TYPE) is not mask
    with_case = engine(permit("p", when='context.purpose == "P-REBATE" && context has case_ref'))
    first = with_case.mask(TAX, context(case_ref="A-1"), TYPE)
    assert with_case.mask(TAX, context(case_ref="A-2"), TYPE) is not first
    with_whole = engine(permit("p", when='context.purpose == "P-REBATE" && [context].contains(context)'))
    first = with_whole.mask(TAX, context(on_behalf_of="x"), TYPE)
    assert with_whole.mask(TAX, context(on_behalf_of="y"), TYPE) is not first


def test_the_cache_has_an_end() -> None:
    policies = PolicyEngine(parse(permit("p")), catalogue(), LAW, SECRET, SetClock(), cache_size=2)
    callers = [Caller(f"spiffe://zone.test/taxation/s{n}", "taxation", f"s{n}") for n in range(3)]
    first, second, _ = [policies.mask(caller, context(), TYPE) for caller in callers]
    assert policies.mask(callers[1], context(), TYPE) is second
    assert policies.mask(callers[0], context(), TYPE) is not first


def test_permits_begin_and_end_on_time_and_masks_with_them() -> None:
    clock = SetClock()
    begins, ends = NOW + DAY, NOW + 3 * DAY
    policies = engine(
        permit("p", ["code"], until=ends.isoformat()),
        permit("q", ["colour"], from_=begins.isoformat(), until=(ends + DAY).isoformat()),
        forbid("f", ["colour"], from_=(NOW + 2 * DAY).isoformat(), until=ends.isoformat()),
        clock=clock,
    )

    def given() -> set[str]:
        return set(policies.mask(TAX, context(), TYPE).grants)

    mask = policies.mask(TAX, context(), TYPE)
    assert mask.expires_at == begins
    moment = dt.timedelta(microseconds=1)
    for now, expected in (
        (NOW, {"code"}),
        (begins - moment, {"code"}),
        (begins, {"code", "colour"}),
        (NOW + 2 * DAY - moment, {"code", "colour"}),
        (NOW + 2 * DAY, {"code"}),
        (ends - moment, {"code"}),
        (ends, {"colour"}),
        (ends + DAY, set[str]()),
    ):
        clock.now = now
        assert given() == expected, now
    assert policies.mask(TAX, context(), TYPE).expires_at is None
    # A clock that is set back does not leave a later mask standing.
    clock.now = NOW
    assert given() == {"code"}


def test_replacing_policies_drops_every_mask() -> None:
    policies = engine(permit("p"))
    before = policies.version
    assert policies.mask(TAX, context(), TYPE).grants
    policies.replace(parse(permit("p"), forbid("f", ["code"])))
    mask = policies.mask(TAX, context(), TYPE)
    assert not mask.grants
    assert mask.version == policies.version != before


def test_policies_of_one_agency_say_nothing_about_anothers_records() -> None:
    policies = engine(permit("p", [], scope='resource in Hutong::ShareClass::"open"'), forbid("f", []))
    visit = catalogue().get("station.Visit")
    assert {d.reason for d in policies.mask(TAX, context(), visit).decisions} == {Reason.NO_PERMIT}


@pytest.mark.parametrize(
    ("asked", "reason", "says"),
    [
        (RequestContext(legal_basis="CN-VAT-REBATE"), Reason.PURPOSE_MISSING, "purpose"),
        (context(purpose="  "), Reason.PURPOSE_MISSING, "purpose"),
        (context(purpose="P-REBATE,P-RISK"), Reason.PURPOSE_SEVERAL, "exactly one"),
        (context(purpose="P-REBATE P-RISK"), Reason.PURPOSE_SEVERAL, "exactly one"),
        (context(purpose="P-REBATE; P-X"), Reason.PURPOSE_SEVERAL, "exactly one"),
        (context(purpose="P-REBAT"), Reason.PURPOSE_UNKNOWN, "did you mean 'P-REBATE'"),
        (context(purpose=" P-REBATE"), Reason.PURPOSE_UNKNOWN, "P-REBATE"),
        (context(purpose="p-rebate"), Reason.PURPOSE_UNKNOWN, "did you mean 'P-REBATE'"),
        (context(basis=""), Reason.BASIS_MISSING, "legal basis"),
        (context(basis="CN-VAT-REBAT"), Reason.BASIS_UNKNOWN, "did you mean 'CN-VAT-REBATE'"),
        (context(basis="CN-VAT-REBATE, CN-AML"), Reason.BASIS_UNKNOWN, "legal basis"),
        (context(purpose="P-AML", basis="CN-AML"), Reason.CASE_MISSING, "case_ref"),
        (context(case_ref="x\ny"), Reason.MALFORMED_REQUEST, "case_ref"),
        (context(case_ref="x" * (LIMITS["case_ref"] + 1)), Reason.MALFORMED_REQUEST, "128"),
        (context(on_behalf_of="x" * 10_000), Reason.MALFORMED_REQUEST, "256"),
        (context(purpose="P" * 100_000), Reason.MALFORMED_REQUEST, "64"),
    ],
)
def test_contexts_that_are_refused(asked: RequestContext, reason: Reason, says: str) -> None:
    policies = engine(permit("p"))
    for check in (lambda: policies.check_context(asked), lambda: policies.mask(TAX, asked, TYPE)):
        with pytest.raises(InvalidArgument, match=says) as caught:
            check()
        assert caught.value.reason is reason


def test_values_of_row_parameters() -> None:
    # 17:00 UTC is the next day where the law is China's.
    policies = engine("", clock=SetClock(dt.datetime(2026, 5, 31, 17, tzinfo=dt.UTC)))
    assert policies.params(TAX, context()) == {"caller_agency": "taxation", "case_ref": None, "today": "2026-06-01"}
    assert policies.params(TAX, context(case_ref="A-1"))["case_ref"] == "A-1"


def test_a_short_secret_stops_the_start() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        PolicyEngine(parse(""), catalogue(), LAW, b"short", SetClock())
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_names_with_odd_letters_are_names_and_not_syntax() -> None:
    odd = Caller('spiffe://zone.test/tax"x/refund', 'tax"ation\\', 'refund" || true')
    assert ask(
        permit("p", when='context.purpose == "P-REBATE" && principal in Hutong::Agency::"taxation"'), caller=odd
    ).reason == (Reason.NO_PERMIT)
    assert ask(permit("p"), caller=odd, case_ref='" || true //').reason == Reason.PERMITTED


def test_pseudonyms_differ_by_consumer_and_purpose() -> None:
    text = permit("p", ["id_number"], when='["P-REBATE", "P-RISK"].contains(context.purpose)', transform="pseudonym")
    policies = engine(text)
    seen: set[str] = set()
    for caller, purpose in ((TAX, "P-REBATE"), (CUS, "P-REBATE"), (TAX, "P-RISK")):
        record: Any = TYPE.message(id_number="350211199001011234")
        policies.mask(caller, context(purpose=purpose), TYPE).cutter()(record)
        seen.add(record.id_number)
    assert len(seen) == 3
    assert not any("3502" in text for text in seen)
