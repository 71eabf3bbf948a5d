"""Policy diff: what would have come out differently for those who really asked."""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit.caller import Caller
from services.kit.policy.diffing import Answers, Asked, Diff, Kind, diff
from services.kit.policy.policies import PolicySet
from services.kit.policy.schema import Authorized
from tests.policy.specimen import catalogue
from tests.policy.support import (
    BASES,
    CUS,
    LAW,
    NOW,
    PURPOSES,
    SOON,
    TAX,
    TYPE,
    Rule,
    callers,
    context,
    engine,
    forbid,
    parse,
    permit,
    rule_sets,
)

LEAVES = tuple(leaf.path for leaf in TYPE.leaves)
ASKED = Asked(TAX, "P-REBATE", "CN-VAT-REBATE", TYPE.name, LEAVES)


def compare(old: str, new: str, *asked: Asked, now: dt.datetime = NOW, counts: int = 1) -> Diff:
    log = [Answers(each, counts) for each in asked or (ASKED,)]
    return diff(parse(old), parse(new), log, catalogue(), LAW, now)


def kinds(found: Diff) -> dict[str, tuple[Kind, ...]]:
    return {change.field: change.kinds for change in found.changes}


def test_the_same_policy_changes_nothing() -> None:
    found = compare(permit("p"), permit("p"), counts=3)
    assert (found.changes, found.answers, found.questions, found.left_out) == ((), 3, 1, {})


@pytest.mark.parametrize(
    ("old", "new", "expected", "before", "after"),
    [
        ("", permit("p"), Kind.OPENED, "refused: NO_PERMIT", "clear"),
        (permit("p"), "", Kind.CLOSED, "clear", "refused: NO_PERMIT"),
        (permit("p"), permit("p") + forbid("f", ["code"]), Kind.CLOSED, "clear", "refused: FORBIDDEN"),
        (permit("p"), permit("p", transform="last4"), Kind.TRANSFORM, "clear", "last4"),
        (permit("p"), permit("p", rows="count > 2"), Kind.CONDITIONS, "clear", "clear where (count > 2)"),
        (permit("p", retain="P1Y"), permit("p", retain="P5Y"), Kind.RETENTION, "clear, kept P1Y", "clear, kept P5Y"),
        (permit("p"), permit("p", basis="CN-CUSTOMS-RISK"), Kind.CLOSED, "clear", "refused: BASIS_MISMATCH"),
    ],
)
def test_each_kind_of_change(old: str, new: str, expected: Kind, before: str, after: str) -> None:
    (change,) = compare(old, new, counts=7).changes
    assert (change.field, change.kinds, change.before, change.after) == ("code", (expected,), before, after)
    assert change.count == 7


def test_several_changes_of_one_field_are_told_together() -> None:
    (change,) = compare(permit("p"), permit("p", transform="last4", rows="count > 2", retain="P1Y")).changes
    assert change.kinds == (Kind.TRANSFORM, Kind.CONDITIONS, Kind.RETENTION)


def test_other_grounds_for_the_same_answer_are_no_change() -> None:
    assert not compare(permit("p"), permit("another-name")).changes
    assert not compare("", forbid("f", ["code"])).changes


def test_only_who_asked_and_what_was_asked_counts() -> None:
    opened = permit("p", ("code", "phone"), 'context.purpose == "P-RISK"', basis="CN-CUSTOMS-RISK")
    asked = replace(ASKED, caller=CUS, purpose="P-RISK", legal_basis="CN-CUSTOMS-RISK", fields=("phone",))
    assert not compare("", opened).changes
    assert kinds(compare("", opened, asked)) == {"phone": (Kind.OPENED,)}
    assert compare("", opened, asked).changes[0].asked.caller is CUS


def test_a_policy_that_begins_later_counts_from_then_on() -> None:
    later = permit("p", from_=SOON.isoformat())
    assert not compare("", later).changes
    assert compare("", later, now=SOON).changes


def test_cases_that_no_policy_looks_at_are_one_question() -> None:
    asked = [replace(ASKED, case_ref=f"C-{number}", on_behalf_of=str(number)) for number in range(5)]
    found = compare("", permit("p"), *asked, replace(ASKED, case_ref=None), counts=2)
    # With a case and without one are two: a purpose may demand that there is one.
    assert (found.questions, found.answers) == (2, 12)
    assert {change.count for change in found.changes} == {10, 2}


def test_cases_that_a_policy_looks_at_are_asked_one_by_one_and_erased_ones_left_out() -> None:
    looks = permit("p", when='context.purpose == "P-REBATE" && context has case_ref && context.case_ref == "C-1"')
    asked = [replace(ASKED, case_ref=case) for case in ("C-1", "C-2", None, "")]
    found = compare("", looks, *asked)
    assert [change.asked.case_ref for change in found.changes] == ["C-1"]
    assert (found.questions, found.left_out) == (3, {"erased": 1})


def test_a_verified_authorization_is_asked_about_as_it_was() -> None:
    needs = permit("p", when='context.purpose == "P-REBATE" && context has authorization')
    stated = replace(ASKED, authorization=Authorized("0f2d", emergency=False, case_ref="STR-7"), case_ref="STR-7")
    assert not compare("", needs).changes
    assert kinds(compare("", needs, stated)) == {"code": (Kind.OPENED,)}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (replace(ASKED, record_type="nobody.Thing"), "record type unknown here"),
        (replace(ASKED, purpose="P-GONE"), "PURPOSE_UNKNOWN"),
        (replace(ASKED, purpose="P-AML", case_ref="STR-7"), "AUTHORIZATION_MISSING"),
        (replace(ASKED, purpose="P-VALUATION"), "CASE_MISSING"),
    ],
)
def test_what_cannot_be_asked_again_is_counted(asked: Asked, why: str) -> None:
    found = compare("", permit("p"), asked, counts=4)
    assert (found.changes, found.left_out) == ((), {why: 4})


def test_records_of_agencies_whose_policies_were_not_given_are_left_out() -> None:
    nothing = PolicySet({})
    found = diff(nothing, nothing, [Answers(ASKED, 2)], catalogue(), LAW, NOW)
    assert found.left_out == {"another agency's record": 2}


def test_fields_that_are_gone_since_are_left_alone() -> None:
    found = compare("", permit("p"), replace(ASKED, fields=("code", "what_was")))
    assert kinds(found) == {"code": (Kind.OPENED,)}
    assert not compare("", permit("p"), replace(ASKED, fields=("what_was",))).changes


def test_changes_are_told_in_order() -> None:
    found = compare("", permit("p", ("phone", "code")), ASKED, replace(ASKED, caller=CUS))
    told = [(change.asked.caller.path, change.field) for change in found.changes]
    assert told == sorted(told)


@settings(max_examples=60)
@given(old=rule_sets, new=rule_sets, caller=callers, purpose=st.sampled_from(PURPOSES), basis=st.sampled_from(BASES))
def test_a_field_changes_just_where_the_engine_gives_another_answer(
    old: list[Rule], new: list[Rule], caller: Caller, purpose: str, basis: str
) -> None:
    before, after = ("\n".join(rule.text for rule in rules) for rules in (old, new))
    asked = replace(ASKED, caller=caller, purpose=purpose, legal_basis=basis)
    changed = set(kinds(compare(before, after, asked)))
    why = context(purpose, basis)
    was, becomes = (answers(rules, caller, why) for rules in (before, after))
    assert changed == {path for path, answer in was.items() if answer != becomes[path]}


def answers(rules: str, caller: Caller, why: RequestContext) -> dict[str, object]:
    return {
        made.field: (made.transform, frozenset(made.conditions), made.retention)
        if made.verdict != exchange_pb2.VERDICT_REFUSED
        else None
        for made in engine(rules).mask(caller, why, TYPE).decisions
    }
