"""What leaves a department as bytes is what it would be put together message by message, whatever record and mask."""

import datetime as dt
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit.caller import Caller
from services.kit.log.facts import Subject
from services.kit.policy import projection
from services.kit.policy.mask import FieldGrant, ReadMask
from services.kit.reader import Cutting, Reading, section_of
from services.kit.records import catalogue, envelopes, writer
from services.kit.records.catalogue import RecordType
from services.kit.records.source import State, StoredRecord
from tests.exchange import straight
from tests.exchange.test_properties import generous
from tests.policy import specimen
from tests.policy.support import TYPE, Rule, callers, context, engine, permit, questions, rule_sets

MOMENTS = st.datetimes(timezones=st.just(dt.UTC)) | st.sampled_from(
    [
        dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
        dt.datetime.fromtimestamp((1 << 28) - 1, dt.UTC),
        dt.datetime.fromtimestamp(1 << 28, dt.UTC),
        dt.datetime(2026, 3, 1, 9, 0, 0, 268_436, tzinfo=dt.UTC),
        dt.datetime(2026, 3, 1, 9, 0, 0, 1, tzinfo=dt.UTC),
    ]
)
TEXTS = st.text(max_size=200)
UNKNOWN = b"\xa2\x38" + bytes((6,)) + b"secret"
"""Field 900, as a newer version of the type has it."""
TAX = Caller("spiffe://zone.test/taxation/refund", "taxation", "refund")
KINDS = tuple(catalogue.load())


@st.composite
def stored(draw: st.DrawFn, bodies: st.SearchStrategy[bytes], conditions: int) -> StoredRecord:
    return StoredRecord(
        draw(TEXTS),
        draw(st.integers(1, 2**63 - 1) | st.integers(1, 300)),
        draw(st.sampled_from(State)),
        draw(st.none() | MOMENTS),
        draw(MOMENTS),
        draw(TEXTS),
        draw(bodies),
        tuple(draw(st.lists(st.booleans(), min_size=conditions, max_size=conditions))),
    )


@settings(max_examples=200)
@given(MOMENTS)
def test_a_moment_is_written_as_a_timestamp(moment: dt.datetime) -> None:
    stamp = common_pb2.Envelope().recorded_at
    stamp.FromDatetime(moment)
    assert envelopes.timestamp(moment) == stamp.SerializeToString()


def compared(mask: ReadMask, found: list[StoredRecord], as_of: dt.datetime, token: str, known: str) -> None:
    """Compare the section of these records, put together in both ways; with what is counted beside it."""
    named: dict[Subject, int] = {}
    expected_named: dict[Subject, int] = {}
    records = Cutting(mask)(found, named)
    assert records == field_by_field(mask, found)
    expected = [straight.cut(mask, record, expected_named) for record in found]
    assert [mask.record_type.message.FromString(record) for record in records] == expected
    assert named == expected_named
    assert list(named) == list(expected_named)
    for record in records:
        check_digest(mask.record_type, record)
    withheld = any(False in record.truth for record in found)
    for unreadable in (False, True):
        reading = Reading(mask, records, as_of, token, withheld, unreadable)
        section = exchange_pb2.Section.FromString(section_of(reading, known))
        assert section == straight.section(reading, expected, known)


def field_by_field(mask: ReadMask, found: list[StoredRecord]) -> list[bytes]:
    """Cut them as a node does that has too many types to read with already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "_MOST", 0)
        return Cutting(replace(mask))(found, {})


def check_digest(kind: RecordType, record: bytes) -> None:
    """The digest is of the body's bytes as they came, which are canonical."""
    message: Any = kind.message.FromString(record)
    body = writer.canonical(message)
    assert record.endswith(body)
    assert message.envelope.digest == sha256(body).digest()


@settings(max_examples=200)
@given(
    data=st.data(), rules=rule_sets, caller=callers, asked=questions, as_of=MOMENTS, token=st.sampled_from(["", "next"])
)
def test_sections_are_what_they_would_be_message_by_message(
    data: st.DataObject, rules: list[Rule], caller: Caller, asked: RequestContext, as_of: dt.datetime, token: str
) -> None:
    wide = data.draw(st.sampled_from([None, "", "colour = 'RED'"]))
    rules = rules if wide is None else generous(rules, asked, wide)
    whole = engine(*(rule.text for rule in rules)).mask(caller, asked, TYPE)
    mask = whole.restrict(data.draw(st.lists(st.sampled_from([leaf.path for leaf in TYPE.leaves]), max_size=4)))
    bodies = specimen.records(TYPE).map(writer.canonical) | specimen.records(TYPE).map(newer)
    found = data.draw(st.lists(stored(bodies, len(mask.conditions)), max_size=3)) if mask.grants else []
    compared(mask, found, as_of, token, data.draw(st.sampled_from(["", mask.version])))


def newer(record: Message) -> bytes:
    """Write a record as a newer version of its type might: with fields unknown here, in it and in its parts."""
    made: Any = record
    for each in (made, *made.lines, made.place):
        each.MergeFromString(UNKNOWN)
    body = writer.canonical(made)
    assert body.count(b"secret") == 2 + len(made.lines)
    return body


@settings(max_examples=150)
@given(data=st.data(), kind=st.sampled_from(KINDS), as_of=MOMENTS)
def test_so_is_every_record_type_of_the_mesh(data: st.DataObject, kind: RecordType, as_of: dt.datetime) -> None:
    paths = data.draw(st.sets(st.sampled_from([leaf.path for leaf in kind.leaves]), min_size=1))
    verdicts = {True: exchange_pb2.VERDICT_CLEAR, False: exchange_pb2.VERDICT_REFUSED}
    decided = tuple(exchange_pb2.FieldDecision(field=f.path, verdict=verdicts[f.path in paths]) for f in kind.leaves)
    mask = ReadMask(kind, {path: FieldGrant(path, None, ()) for path in paths}, decided, None, "1")
    found = data.draw(st.lists(stored(specimen.records(kind).map(writer.canonical), 1), min_size=1, max_size=3))
    compared(mask, found, as_of, "", data.draw(st.sampled_from(["", "1"])))


@settings(max_examples=150)
@given(data=st.data(), kind=st.sampled_from((TYPE, *KINDS)))
def test_the_gateway_trims_as_it_would_clear_field_by_field(data: st.DataObject, kind: RecordType) -> None:
    """A record that holds nothing else comes back as the very bytes that it came as."""
    paths = data.draw(st.sets(st.sampled_from([leaf.path for leaf in kind.leaves]), min_size=1))
    mask = ReadMask(kind, {path: FieldGrant(path, None, ()) for path in paths}, (), None, "1")
    allowed = data.draw(st.none() | st.frozensets(st.sampled_from(sorted(paths))))
    message: Any = data.draw(specimen.records(kind))
    if data.draw(st.booleans()):
        message.envelope.key, message.envelope.digest = "key", b"digest"
        message.envelope.fact_time.seconds = 1
    if data.draw(st.booleans()):
        message.MergeFromString(UNKNOWN)
    value = message.SerializeToString()
    trimmed = mask.trimmer(allowed)(value)
    before = kind.message.FromString(value)
    mask.clearer(allowed)(before)
    cleared: Any = kind.message.FromString(trimmed)
    if trimmed != value:
        assert cleared == before
        assert mask.trimmer(allowed)(trimmed) == trimmed
    else:
        # Only the digest is not made anew where there was nothing to clear.
        cleared.ClearField("envelope")
        before.ClearField("envelope")
        assert cleared == before
        assert b"secret" not in value


def test_a_body_with_an_envelope_leaves_with_its_own_alone() -> None:
    """None is stored with one; were one, nothing of it would get out."""
    mask = engine(permit("p", ["code"])).mask(TAX, context(), TYPE)
    body = TYPE.message(envelope=common_pb2.Envelope(key="forged", source_system="forged", supersedes=7), code="A")
    moment = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    record = StoredRecord("A", 1, State.ACTIVE, None, moment, "", body.SerializeToString(), (True,))
    (cut,) = Cutting(mask)([record], {})
    assert [cut] == field_by_field(mask, [record])
    assert b"forged" not in cut
    message: Any = TYPE.message.FromString(cut)
    assert (message.code, message.envelope.key, message.envelope.supersedes) == ("A", "A", 0)
