"""An authorization only ever takes away: of any policy, by any scope."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit import lookup
from services.kit.authorizations.scope import Scope
from services.kit.caller import Caller
from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.policy.schema import Authorized
from services.kit.records import conditions
from services.kit.records.catalogue import RecordType
from tests.authorizations.bed import scope
from tests.policy.specimen import records
from tests.policy.support import (
    CUS,
    TAX,
    TYPE,
    Rule,
    callers,
    context,
    engine,
    forbid,
    permit,
    present,
    questions,
    rule_sets,
)

REFUSED = exchange_pb2.VERDICT_REFUSED
PATHS = st.lists(st.sampled_from(tuple(TYPE.fields)), min_size=1, max_size=6, unique=True)
CONDITIONS = st.sampled_from(["", "", "colour = RED", "count > 2", "dangerous = true AND count > 0", "weight < 100"])
UNDER = Authorized("a-1", emergency=False, case_ref="C-1")


def opened(fields: Sequence[str], condition: str = "", name: str = TYPE.name) -> Scope:
    return Scope.of(scope(types=[pb.ScopedType(record_type=name, fields=fields, condition=condition)]))


def clear(mask: ReadMask, path: str) -> bool:
    grant = mask.grants.get(path)
    return grant is not None and grant.transform is None


def values(record: Message, kind: RecordType = TYPE) -> Counter[tuple[str, str]]:
    return Counter((path, repr(value)) for path, value in present(kind, record))


@given(rule_sets, callers, questions, PATHS, CONDITIONS)
def test_a_narrowed_mask_lies_in_the_policy_and_in_the_scope(
    found: list[Rule], caller: Caller, asked: RequestContext, fields: list[str], condition: str
) -> None:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE, UNDER)
    narrowed = opened(fields, condition).narrow(mask)
    inside = set(TYPE.expand(fields))
    for path, grant in narrowed.grants.items():
        assert path in inside
        assert grant == mask.grants[path]
    if all(clear(mask, path) for path in (conditions.parse(condition, TYPE).fields if condition else ())):
        assert narrowed.grants.keys() == mask.grants.keys() & inside
        assert bool(narrowed.scope) == bool(condition)
    else:
        assert not narrowed.grants
    assert narrowed.version == mask.version
    assert narrowed.expires_at == mask.expires_at


@given(rule_sets, callers, questions, PATHS, CONDITIONS)
def test_every_field_is_decided_and_named(
    found: list[Rule], caller: Caller, asked: RequestContext, fields: list[str], condition: str
) -> None:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE, UNDER)
    narrowed = opened(fields, condition).narrow(mask)
    inside = set(TYPE.expand(fields))
    assert [d.field for d in narrowed.decisions] == [d.field for d in mask.decisions]
    for policy, decision in zip(mask.decisions, narrowed.decisions, strict=True):
        given_ = decision.verdict != REFUSED
        assert given_ == (decision.field in narrowed.grants)
        if decision.field not in inside:
            assert decision.reason == Reason.AUTHORIZATION_SCOPE
        elif given_ or policy.verdict == REFUSED:
            assert decision == policy
        else:
            assert decision.reason == Reason.FILTER_FIELD_NOT_READABLE
    if not narrowed.grants:
        assert narrowed.status == exchange_pb2.SECTION_STATUS_DENIED
        assert narrowed.reason is not Reason.PERMITTED


@given(rule_sets, callers, questions, PATHS, PATHS, records(TYPE))
def test_what_is_cut_by_it_holds_no_more(
    found: list[Rule], caller: Caller, asked: RequestContext, fields: list[str], selected: list[str], record: Message
) -> None:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE, UNDER)
    narrowed = opened(fields).narrow(mask).restrict(selected)
    params = {"caller_agency": caller.agency, "case_ref": None, "today": "2026-06-01"}
    by_policy, by_both = type(record)(), type(record)()
    by_policy.CopyFrom(record)
    by_both.CopyFrom(record)
    mask.cutter(mask.truth(record, params))(by_policy)
    narrowed.cutter(narrowed.truth(record, params))(by_both)
    left, given_ = values(by_both), values(by_policy)
    assert left <= given_
    assert {path for path, _ in left} <= set(TYPE.expand(fields)) & set(TYPE.expand(selected))


@given(rule_sets, callers, questions, PATHS)
def test_whom_one_may_ask_about_is_still_the_policys(
    found: list[Rule], caller: Caller, asked: RequestContext, fields: list[str]
) -> None:
    """A field that the scope leaves out is no field that the policy does not keep back."""
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE, UNDER)
    narrowed = opened(fields).narrow(mask)
    assert narrowed.kept_back == mask.kept_back

    def by(looked: ReadMask) -> object:
        try:
            return lookup.by_subject(looked, "cn.uscc"), lookup.by_key(looked)
        except PermissionDenied as error:
            return error.reason

    assert by(narrowed) == by(mask) == by(narrowed.restrict(["code"]))


def whole(policies: PolicyEngine, caller: Caller = TAX) -> ReadMask:
    return policies.mask(caller, context(case_ref="C-1"), TYPE, UNDER)


def test_a_mask_is_made_once_for_each_scope() -> None:
    mask = whole(engine(permit("p", ["code", "colour", "count"])))
    small, large = opened(["code"]), opened(["code", "colour"])
    assert small.narrow(mask) is small.narrow(mask)
    assert set(small.narrow(mask).grants) == {"code"}
    # The one made for a smaller scope is never taken for the larger one, nor the other way round.
    assert set(large.narrow(mask).grants) == {"code", "colour"}
    assert set(opened(["code"]).narrow(mask).grants) == {"code"}
    assert mask.grants.keys() == {"code", "colour", "count"}


def test_narrowing_twice_is_narrowing_by_the_last_from_the_policy() -> None:
    mask = whole(engine(permit("p", ["code", "colour"])))
    first = opened(["code"]).narrow(mask)
    assert set(opened(["colour"]).narrow(first).grants) == {"colour"}
    assert opened(["colour"]).narrow(first).policy is mask


def test_a_type_outside_the_scope_gives_nothing() -> None:
    narrowed = opened(["code"], name="museum.Visit").narrow(whole(engine(permit("p"))))
    assert not narrowed.grants
    assert narrowed.reason is Reason.AUTHORIZATION_SCOPE
    assert {d.reason for d in narrowed.decisions} == {Reason.AUTHORIZATION_SCOPE}


def test_the_callers_filters_use_what_is_left_only() -> None:
    mask = opened(["code"], "count > 2").narrow(whole(engine(permit("p", ["code", "colour", "count"]))))
    with pytest.raises(InvalidArgument) as refused:
        lookup.by_filter(mask.restrict([]), "colour = RED")
    assert refused.value.reason is Reason.FILTER_FIELD_NOT_READABLE
    assert [str(condition) for condition in mask.restrict(["code"]).scope] == ["count > 2"]


def test_a_condition_on_a_field_given_under_rows_keeps_to_those_rows() -> None:
    policies = engine(permit("p", ["code"]), permit("q", ["count"], rows="dangerous = true"))
    mask = opened(["code"], "count > 2").narrow(whole(policies))
    assert {str(condition) for condition in mask.scope} == {"count > 2", "dangerous = true"}


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("count > 2", Reason.FILTER_FIELD_NOT_READABLE),
        ("phone = 'x'", Reason.SCOPE_INVALID),
        ("nothing = 1", Reason.SCOPE_INVALID),
        ("count >", Reason.SCOPE_INVALID),
        ("holder = :caller_agency", Reason.SCOPE_INVALID),
    ],
)
def test_a_condition_that_the_caller_may_not_use_opens_nothing(condition: str, reason: Reason) -> None:
    narrowed = opened(["code"], condition).narrow(whole(engine(permit("p", ["code"]))))
    assert not narrowed.grants
    assert narrowed.reason is reason
    section = narrowed.section()
    assert (section.status, section.reason) == (exchange_pb2.SECTION_STATUS_DENIED, reason)


def test_fields_that_this_version_does_not_know_open_nothing() -> None:
    mask = whole(engine(permit("p", ["code", "colour"])))
    assert set(opened(["code", "added_later"]).narrow(mask).grants) == {"code"}
    assert not opened(["added_later"]).narrow(mask).grants
    assert not opened([]).narrow(mask).grants


def test_policies_see_an_authorization_that_was_verified_and_no_other() -> None:
    under = 'context.purpose == "P-REBATE" && context has authorization'
    policies = engine(
        permit("p", ["code"], when=under),
        permit("q", ["colour"], when=f"{under} && !context.authorization.emergency"),
        permit("r", ["count"], when=f'{under} && context.authorization.case_ref == "C-1"'),
        forbid("f", ["dangerous"], when="context has authorization"),
    )
    assert not policies.mask(TAX, context(case_ref="C-1"), TYPE).grants
    assert set(whole(policies).grants) == {"code", "colour", "count"}
    loud = Authorized("a-1", emergency=True, case_ref="C-2")
    assert set(policies.mask(TAX, context(case_ref="C-1"), TYPE, loud).grants) == {"code"}
    # And what was decided for one is never the answer to another.
    assert not policies.mask(TAX, context(case_ref="C-1"), TYPE).grants
    assert set(whole(policies).grants) == {"code", "colour", "count"}
    assert not whole(policies, CUS).grants.keys() - {"code", "colour", "count"}


def test_an_authorization_that_nobody_verified_is_refused_before_anything_is_decided() -> None:
    policies = engine(permit("p"))
    for asked, reason in (
        (context(authorization_id="a-1"), Reason.AUTHORIZATION_UNSUPPORTED),
        (context(purpose="P-AML", case_ref="C-1"), Reason.AUTHORIZATION_MISSING),
    ):
        with pytest.raises(PermissionDenied) as refused:
            policies.mask(TAX, asked, TYPE)
        assert refused.value.reason is reason
    with pytest.raises(InvalidArgument) as wrong:
        policies.mask(TAX, context(authorization_id="a" * 129), TYPE)
    assert wrong.value.reason is Reason.MALFORMED_REQUEST


def test_times_of_a_scope() -> None:
    made = opened(["code"])
    assert made.not_after - made.not_before == dt.timedelta(hours=1)
    assert made.not_before.tzinfo is dt.UTC
