"""The gateway's cut does as the plain one does, for whatever comes: only sooner."""

from functools import partial
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cut import Cut
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext, Section
from services.kit.caller import Caller
from services.kit.errors import Reason, Unavailable
from services.kit.policy.mask import FieldGrant, ReadMask
from services.kit.reader import type_url
from services.kit.records import catalogue
from services.kit.records.catalogue import RecordType
from tests.exchange.plain_cut import recut
from tests.policy import specimen
from tests.policy.support import TYPE, Rule, callers, engine, questions, rule_sets
from tests.policy.test_properties import LEAK, enveloped, newer

UNKNOWN = b"\xfa\xff\x03\x06secret"
KINDS = [kind.name for kind in catalogue.load()]


def twice(value: bytes) -> bytes:
    """The same record, not as anybody would write it."""
    return value + value


@st.composite
def sections(draw: Any, mask: ReadMask, other: ReadMask) -> Section:
    """What a department might send, right or wrong."""
    told = Section(
        record_type=draw(st.sampled_from([mask.record_type.name, "x"])),
        agency=mask.record_type.owner,
        status=draw(st.sampled_from([0, 1, 1, 1, 2, 3, 4, 6, 99])),
        reason=draw(st.sampled_from(["", "", "", Reason.ROWS_UNREADABLE, "made up"])),
        next_page_token=draw(st.sampled_from(["", "token"])),
        policy_version=draw(st.sampled_from([mask.version, mask.version, other.version, ""])),
        decisions=draw(st.sampled_from([(), mask.decisions, other.decisions])),
    )
    for record in draw(st.lists(specimen.records(TYPE), max_size=3)):
        told.records.add(
            type_url=draw(st.sampled_from([type_url(TYPE)] * 9 + ["x"])), value=written(draw, mask, record)
        )
    if draw(st.booleans()):
        told.MergeFromString(UNKNOWN)
    if told.records and draw(st.booleans()):
        told.records[0].MergeFromString(UNKNOWN)
    if told.decisions and draw(st.booleans()):
        told.decisions[0].MergeFromString(UNKNOWN)
    return told


def written(draw: Any, mask: ReadMask, record: Message) -> bytes:
    whole = enveloped(record)
    how = draw(st.sampled_from(["cut", "cut", "smuggled", "whole", "newer", "twice", "nonsense"]))
    if how == "whole":
        return whole.SerializeToString()
    if how == "newer":
        return enveloped(newer(record)).SerializeToString()
    if how == "nonsense":
        return bytes(draw(st.binary(max_size=8)))
    mask.clearer()(whole)
    value = whole.SerializeToString()
    if how == "smuggled":
        return value + UNKNOWN
    return twice(value) if how == "twice" else value


def outcome(cut: Any, told: Section) -> tuple[Section, int] | Reason:
    copy = Section()
    copy.CopyFrom(told)
    try:
        made = cut(copy)
    except Unavailable as error:
        return error.reason
    section = Section.FromString(made if isinstance(made, bytes) else made[0])
    return section, len(section.records) if isinstance(made, bytes) else made[1]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), ours=rule_sets, theirs=rule_sets, caller=callers, asked=questions)
def test_the_quick_cut_is_the_plain_one(
    data: st.DataObject, ours: list[Rule], theirs: list[Rule], caller: Caller, asked: RequestContext
) -> None:
    mask, other = (engine(*(rule.text for rule in rules)).mask(caller, asked, TYPE) for rules in (ours, theirs))
    cut = Cut(mask)

    def plainly(told: Section) -> bytes:
        return recut(told, mask)

    for _ in range(3):
        told = data.draw(sections(mask, other))
        found = outcome(cut, told)
        assert found == outcome(plainly, told)
        if not isinstance(found, Reason):
            assert LEAK.encode() not in found[0].SerializeToString()
            assert b"secret" not in found[0].SerializeToString()


def filled(message: Any) -> Any:
    """Set every field of a message, twice where it is repeated."""
    for field in message.DESCRIPTOR.fields:
        for _ in range(2 if field.is_repeated else 1):
            if field.message_type is not None:
                part = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
                filled(part).SetInParent()
            elif field.is_repeated:
                getattr(message, field.name).append(value_of(field))
            else:
                setattr(message, field.name, value_of(field))
    return message


def value_of(field: Any) -> Any:
    return {field.TYPE_STRING: "x", field.TYPE_BYTES: b"x", field.TYPE_BOOL: True}.get(field.type, 1)


def mask_of(kind: RecordType, granted: list[str]) -> ReadMask:
    grants = {path: FieldGrant(path, None, ()) for path in granted}
    decisions = tuple(exchange_pb2.FieldDecision(field=leaf.path) for leaf in kind.leaves)
    return ReadMask(kind, grants, decisions, None, "1")


@pytest.mark.parametrize("name", KINDS)
def test_records_of_every_type_are_cut_as_plainly(name: str) -> None:
    """Everything there is goes in; what is granted comes out, and goes on untouched where it comes in alone."""
    kind = catalogue.load().get(name)
    leaves = [leaf.path for leaf in kind.leaves]
    whole = filled(kind.message()).SerializeToString()
    for granted in (leaves, leaves[::2], leaves[1::2], leaves[:1]):
        mask = mask_of(kind, granted)
        told = Section(status=exchange_pb2.SECTION_STATUS_OK, policy_version=mask.version)
        told.records.add(type_url=type_url(kind), value=whole)
        found = outcome(Cut(mask), told)
        assert found == outcome(partial(recut, mask=mask), told)
        assert not isinstance(found, Reason)
        again = outcome(Cut(mask), found[0])
        assert not isinstance(again, Reason)
        assert again[0].records == found[0].records
        assert {leaf.partition(".")[0] for leaf in granted} | {"envelope"} == {
            field.name for field, _ in kind.message.FromString(found[0].records[0].value).ListFields()
        }
