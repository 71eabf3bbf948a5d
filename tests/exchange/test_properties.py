"""For random policies at department and gateway, and random records: no answer holds what either does not give.

From the store through the department's one read path, and through the gateway's cut: everything but the sockets.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.cut import Cut
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit.caller import Caller
from services.kit.context import Origin
from services.kit.errors import PermissionDenied, Reason
from services.kit.policy.mask import ReadMask
from services.kit.reader import Question, Reader, section_of, the_one
from services.kit.records import migrations, writer
from services.kit.records.pages import PageTokens
from services.kit.records.store import Draft, RecordStore
from tests.policy import specimen
from tests.policy.support import (
    LATER,
    NOW,
    SECRET,
    TYPE,
    Rule,
    SetClock,
    callers,
    engine,
    expect,
    present,
    questions,
    rule_sets,
)
from tests.policy.test_properties import rows_hold

REFUSED = exchange_pb2.VERDICT_REFUSED
CODE = "THE-ONE"
ROWS = st.sampled_from(["", "", "colour = 'RED'", "code IS NOT NULL"])


@pytest.fixture(scope="module")
async def museum(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RecordStore]:
    """A store of the specimen types."""
    folder: Path = tmp_path_factory.mktemp("museum")
    url = f"sqlite:///{folder / 'store.db'}"
    migrations.revise(url, folder / "migrations", specimen.catalogue())
    migrations.upgrade(url, folder / "migrations")
    async with RecordStore(url, specimen.catalogue(), SetClock()) as store:
        yield store


def generous(found: list[Rule], asked: RequestContext, rows: str) -> list[Rule]:
    """The same policies and one more that gives nearly everything for this purpose: or little would come to be cut."""
    wide = Rule(
        "wide", True, "", ("RecordType", TYPE.name), (), asked.purpose, asked.legal_basis, "", rows, None, LATER
    )
    return [*found, wide]


async def keep(store: RecordStore, record: Message) -> Message:
    """Make it the one record of the store, as it stands there; skips what no store could hold."""
    made: Any = record
    made.code = CODE
    draft = Draft(TYPE, made, "museum")
    try:
        writer.encode(store.tables.of(TYPE), draft)
    except writer.Unstorable:
        assume(False)
    await store.append([draft])
    return TYPE.message.FromString(writer.canonical(made))


async def answered(
    store: RecordStore, theirs: list[Rule], mask: ReadMask, origin: Origin
) -> tuple[exchange_pb2.Section, list[Message]]:
    """Ask a department with its own policy for what the gateway's mask gives; gives what leaves the gateway."""
    reader = Reader(store, engine(*(rule.text for rule in theirs)), PageTokens(SECRET), SetClock(NOW))
    section = mask.section()
    if mask.grants:
        reading = await reader.read(origin, Question(TYPE, key=CODE, fields=tuple(mask.grants)))
        answer = exchange_pb2.Section.FromString(section_of(reading, mask.version))
        section.ParseFromString(Cut(mask)(answer)[0])
    found: list[Message] = []
    for record in section.records:
        message = TYPE.message()
        assert record.Unpack(message)
        found.append(message)
    return section, found


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    ours=rule_sets,
    rows=ROWS,
    same=st.booleans(),
    theirs=rule_sets,
    caller=callers,
    asked=questions,
    record=specimen.records(TYPE),
)
async def test_no_field_outside_either_mask_is_in_any_answer(
    museum: RecordStore,
    ours: list[Rule],
    rows: str,
    same: bool,
    theirs: list[Rule],
    caller: Caller,
    asked: RequestContext,
    record: Message,
) -> None:
    ours = generous(ours, asked, rows)
    theirs = ours if same else generous(theirs, asked, rows)
    kept = await keep(museum, record)
    mask = engine(*(rule.text for rule in ours)).mask(caller, asked, TYPE)
    try:
        section, found = await answered(museum, theirs, mask, Origin(caller, asked))
    except PermissionDenied as refused:
        if refused.reason is not Reason.LOOKUP_FIELD_NOT_READABLE:
            raise
        return
    decided = {decision.field: decision for decision in section.decisions}
    assert decided.keys() == {leaf.path for leaf in TYPE.leaves}
    before = list(present(TYPE, kept))
    for came in found:
        for path, value in present(TYPE, came):
            assert decided[path].verdict != REFUSED, path
            for side in (ours, theirs):
                expected = expect(side, caller, asked, TYPE.field(path))
                assert expected.given, path
                assert rows_hold(expected.rows, kept), path
                if not expected.transforms:
                    assert (path, value) in before
    # What comes out of a store has one version and one key: there is nothing else to tell.
    assert len(found) <= 1
    if section.status == exchange_pb2.SECTION_STATUS_DENIED:
        assert not found
        assert {decision.verdict for decision in decided.values()} == {REFUSED}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ours=rule_sets, caller=callers, asked=questions, record=specimen.records(TYPE))
async def test_both_doors_give_the_same_whatever_the_policy(
    museum: RecordStore, ours: list[Rule], caller: Caller, asked: RequestContext, record: Message
) -> None:
    await keep(museum, record)
    ours = generous(ours, asked, "")
    policies = engine(*(rule.text for rule in ours))
    reader = Reader(museum, policies, PageTokens(SECRET), SetClock(NOW))
    try:
        reading = await reader.read(Origin(caller, asked), Question(TYPE, key=CODE))
        _, found = await answered(museum, ours, policies.mask(caller, asked, TYPE), Origin(caller, asked))
    except PermissionDenied as refused:
        if refused.reason is not Reason.LOOKUP_FIELD_NOT_READABLE:
            raise
        return
    if found:
        assert TYPE.message.FromString(the_one(reading)) == found[0]
    else:
        assert not reading.records
