"""What must hold for every policy, mask and record: nothing gets through that was not granted."""

import hashlib
from typing import Any, cast

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit.caller import Caller
from services.kit.policy.mask import ReadMask
from services.kit.policy.transforms import Transform, least_revealing
from services.kit.records import conditions
from tests.policy.specimen import message_class, records
from tests.policy.support import TYPE, Rule, callers, engine, expect, present, questions, rank, rule_sets, rules

LEAK = "LEAK-FROM-A-NEWER-NODE"


def newer(record: Message) -> Message:
    """The record as a newer node would send it: with fields, at every level, that this one does not know."""
    raw: Any = message_class("NewerSpecimen")()
    raw.secret = LEAK
    raw.place.secret = LEAK
    for number in range(3):
        raw.lines.add(line_no=number, secret=LEAK)
    return TYPE.message.FromString(record.SerializeToString() + raw.SerializeToString())


def enveloped(record: Message) -> Message:
    envelope: Any = cast("Any", record).envelope
    envelope.key = "KEY-OF-THE-RECORD"
    envelope.version = 3
    envelope.fact_time.seconds = 1_700_000_000
    envelope.digest = hashlib.sha256(b"the whole body").digest()
    envelope.MergeFromString(b"\xc2>\x04LEAK")
    return record


def cut(mask: ReadMask, record: Message) -> Message:
    """The record as the caller gets it, once more through the wire."""
    whole = enveloped(newer(record))
    mask.cutter(mask.truth(whole, {"caller_agency": "taxation", "case_ref": None, "today": "2026-06-01"}))(whole)
    return TYPE.message.FromString(whole.SerializeToString())


def rows_hold(rows: set[str], record: Message) -> bool:
    values = {"caller_agency": "taxation", "case_ref": None, "today": "2026-06-01"}
    return all(conditions.parse(text, TYPE, values).evaluate(record, values) is True for text in rows)


@settings(max_examples=150)
@given(found=rule_sets, caller=callers, asked=questions, record=records(TYPE))
def test_nothing_that_was_not_granted_gets_through(
    found: list[Rule], caller: Caller, asked: RequestContext, record: Message
) -> None:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE)
    expected = {leaf.path: expect(found, caller, asked, leaf) for leaf in TYPE.leaves}
    came = cut(mask, record)
    before = {path: [v for p, v in present(TYPE, newer(record)) if p == path] for path in expected}
    for path, value in present(TYPE, came):
        assert expected[path].given, path
        assert rows_hold(expected[path].rows, newer(record)), path
        if not expected[path].transforms:
            assert value in before[path]
    assert LEAK.encode() not in came.SerializeToString()
    assert b"LEAK" not in came.SerializeToString()


@settings(max_examples=100)
@given(found=rule_sets, caller=callers, asked=questions, record=records(TYPE))
def test_everything_that_was_granted_in_clear_gets_through(
    found: list[Rule], caller: Caller, asked: RequestContext, record: Message
) -> None:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE)
    came = list(present(TYPE, cut(mask, record)))
    for path, value in present(TYPE, newer(record)):
        expected = expect(found, caller, asked, TYPE.field(path))
        if expected.given and not expected.transforms and rows_hold(expected.rows, newer(record)):
            assert (path, value) in came


@settings(max_examples=100)
@given(found=rule_sets, caller=callers, asked=questions, record=records(TYPE))
def test_the_envelope_tells_no_more_than_the_fields(
    found: list[Rule], caller: Caller, asked: RequestContext, record: Message
) -> None:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE)
    came: Any = cut(mask, record)
    for path, told in (("code", bool(came.envelope.key)), ("found_at", came.envelope.HasField("fact_time"))):
        expected = expect(found, caller, asked, TYPE.field(path))
        clear = expected.given and not expected.transforms and rows_hold(expected.rows, newer(record))
        assert told == clear
    digest = came.envelope.digest
    assert came.envelope.version == 3
    came.ClearField("envelope")
    assert digest == hashlib.sha256(came.SerializeToString(deterministic=True)).digest()


@settings(max_examples=100)
@given(found=rule_sets, caller=callers, asked=questions, record=records(TYPE))
def test_clearing_again_at_the_gateway_changes_nothing_and_lets_nothing_new_in(
    found: list[Rule], caller: Caller, asked: RequestContext, record: Message
) -> None:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE)
    came = cut(mask, record)
    again = TYPE.message.FromString(came.SerializeToString())
    mask.clearer()(again)
    assert again == came
    assert mask.trimmer()(came.SerializeToString()) == came.SerializeToString()
    whole = enveloped(newer(record))
    trimmed = TYPE.message.FromString(mask.trimmer()(whole.SerializeToString()))
    mask.clearer()(whole)
    assert trimmed == whole
    assert {path for path, _ in present(TYPE, whole)} <= mask.grants.keys()
    assert LEAK.encode() not in whole.SerializeToString()


def _decided(found: list[Rule], caller: Caller, asked: RequestContext) -> dict[str, exchange_pb2.FieldDecision]:
    mask = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE)
    return {decision.field: decision for decision in mask.decisions}


@settings(max_examples=100)
@given(found=rule_sets, more=rules("added", permits=False), caller=callers, asked=questions)
def test_adding_a_forbid_never_reveals_more(
    found: list[Rule], more: Rule, caller: Caller, asked: RequestContext
) -> None:
    before, after = _decided(found, caller, asked), _decided([*found, more], caller, asked)
    for path, decision in after.items():
        if decision.verdict != exchange_pb2.VERDICT_REFUSED:
            assert decision == before[path]


@settings(max_examples=100)
@given(found=rule_sets, more=rules("added", permits=True), caller=callers, asked=questions)
def test_adding_a_permit_opens_nothing_that_is_forbidden_and_never_loosens_what_is_given(
    found: list[Rule], more: Rule, caller: Caller, asked: RequestContext
) -> None:
    before, after = _decided(found, caller, asked), _decided([*found, more], caller, asked)
    for path, decision in before.items():
        then = after[path]
        if decision.reason == "FORBIDDEN":
            assert then == decision
        if decision.verdict != exchange_pb2.VERDICT_REFUSED:
            assert then.verdict != exchange_pb2.VERDICT_REFUSED
            assert rank(then.transform) <= rank(decision.transform)
            assert set(then.conditions) >= set(decision.conditions)


@settings(max_examples=200)
@given(found=rule_sets, caller=callers, asked=questions)
def test_decisions_are_those_of_the_rules_and_several_permits_give_the_least(
    found: list[Rule], caller: Caller, asked: RequestContext
) -> None:
    for path, decision in _decided(found, caller, asked).items():
        expected = expect(found, caller, asked, TYPE.field(path))
        assert (decision.verdict != exchange_pb2.VERDICT_REFUSED) == expected.given
        assert (decision.reason == "FORBIDDEN") == expected.forbidden
        least = least_revealing([Transform.parse(text) for text in expected.transforms])
        assert decision.transform == (least.text if least else "")
        if expected.given:
            assert len(decision.conditions) == len(expected.rows)


@settings(max_examples=60)
@given(
    found=rule_sets, caller=callers, asked=questions, paths=st.lists(st.sampled_from(sorted(TYPE.fields)), max_size=4)
)
def test_a_selection_never_widens_a_mask(
    found: list[Rule], caller: Caller, asked: RequestContext, paths: list[str]
) -> None:
    whole = engine(*(rule.text for rule in found)).mask(caller, asked, TYPE)
    part = whole.restrict(paths)
    assert part.whole is whole
    assert {d.field for d in part.decisions} == set(TYPE.expand(paths))
    assert part.grants == {path: grant for path, grant in whole.grants.items() if path in TYPE.expand(paths)}
