"""Going back in time, page by page, or to what was withdrawn: the policy of now decides, row by row."""

import asyncio
import datetime as dt

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import declaration_pb2
from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import HutongError, InvalidArgument, NotFound, Reason
from services.kit.records.store import RecordStore
from tests.attacks.asking import (
    DECLARATION,
    REBATE,
    SUBJECT,
    TAX,
    ask,
    declared,
    get,
    listed,
    refused,
    watch,
    why,
)
from tests.exchange.mesh import ROOMS, Mesh, question, records
from tests.exchange.records import CLEARED, PENDING
from tests.zone import now

ACCEPTED = declaration_pb2.DECLARATION_STATUS_ACCEPTED
FORBID = '@id("stop") forbid (principal, action, resource == Hutong::Field::"customs.Declaration.total_value_cny");'
NARROWER = """
@id("narrower") @basis("CN-VAT-REBATE") @until("2099-01-01T00:00:00Z") @rows("trade_mode = '9999'")
permit (
    principal in Hutong::Agency::"taxation", action, resource in Hutong::RecordType::"customs.Declaration"
) when { context.purpose == "P-REBATE" && resource.share != "withheld" };
"""


def stamp(moment: dt.datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


async def revoke(mesh: Mesh, key: str) -> None:
    store = RecordStore(mesh.url("customs"), ROOMS["customs"].catalogue(), now)
    async with store:
        await store.revoke(store.catalogue.get("customs.Declaration"), key, source_system="test")


async def test_an_old_version_that_a_condition_hides_stays_hidden(own: Mesh) -> None:
    """What is cleared today was pending yesterday: asking as of yesterday does not show it."""
    while_pending = stamp(now())
    await own.load("customs", [declared(PENDING)])
    assert (await get(own, TAX, f"declarations/{PENDING}", context=why(**REBATE))).declaration_no == PENDING
    error = await refused(get(own, TAX, f"declarations/{PENDING}", context=why(**REBATE), as_of=while_pending))
    assert isinstance(error, NotFound)
    before = await listed(own, TAX, context=why(**REBATE), as_of=while_pending)
    assert [d.declaration_no for d in before] == [CLEARED]


async def test_the_present_shows_no_value_of_the_past(own: Mesh) -> None:
    """What was cleared and is pending again is hidden now; nothing of the old version leaks into the present."""
    await own.load("customs", [declared(CLEARED, ACCEPTED, "1.00")])
    assert not await listed(own, TAX, context=why(**REBATE))
    assert isinstance(await refused(get(own, TAX, DECLARATION, context=why(**REBATE))), NotFound)
    request = question(SUBJECT, "customs.Declaration", **REBATE)
    (section,) = await ask(own, TAX, request)
    assert section.status == exchange_pb2.SECTION_STATUS_NO_RECORD


async def test_a_forbid_of_today_holds_for_the_past(own: Mesh) -> None:
    yesterday = stamp(now())
    assert (await get(own, TAX, DECLARATION, context=why(**REBATE), as_of=yesterday)).HasField("total_value_cny")
    own.add_policy("customs", FORBID)
    async with asyncio.timeout(10):
        while (await get(own, TAX, DECLARATION, context=why(**REBATE))).HasField("total_value_cny"):
            pass
    assert not (await get(own, TAX, DECLARATION, context=why(**REBATE), as_of=yesterday)).HasField("total_value_cny")


@pytest.mark.parametrize("text", [FORBID, NARROWER])
async def test_the_second_page_is_decided_by_the_policy_of_then(own: Mesh, text: str) -> None:
    """A page token carries a place, not a permit."""
    await own.load("customs", [declared(f"99992026000000030{n}") for n in range(4)])
    request = question(SUBJECT, "customs.Declaration:declaration_no,total_value_cny", **REBATE)
    request.selections[0].page_size = 2
    (first,) = await ask(own, TAX, request)
    assert all(d.HasField("total_value_cny") for d in records(first))
    own.add_policy("customs", text)
    request.selections[0].page_token = first.next_page_token
    async with asyncio.timeout(10):
        shown = records(first)
        while any(d.HasField("total_value_cny") for d in shown):
            shown = records((await ask(own, TAX, request))[0])
    assert [d.declaration_no for d in shown] == ([] if text is NARROWER else [f"99992026000000030{n}" for n in (1, 2)])


async def test_a_page_token_does_not_carry_over_to_another_moment_or_caller(own: Mesh) -> None:
    await own.load("customs", [declared(f"99992026000000030{n}") for n in range(4)])
    request = question(SUBJECT, "customs.Declaration:declaration_no", **REBATE)
    request.selections[0].page_size = 2
    (first,) = await ask(own, TAX, request)
    request.selections[0].page_token = first.next_page_token
    assert (await refused(ask(own, "taxation/other", request))).reason is Reason.PAGE_TOKEN_MISMATCH
    request.as_of.FromDatetime(now())
    assert (await refused(ask(own, TAX, request))).reason is Reason.PAGE_TOKEN_MISMATCH


async def test_a_page_token_tells_nothing(own: Mesh) -> None:
    """It holds the key that the page ended with, of a record whose key the caller may not see."""
    await own.load("customs", [declared(f"99992026000000030{n}") for n in range(4)])
    request = question(SUBJECT, "customs.Declaration:trade_mode", **REBATE)
    request.selections[0].page_size = 2
    (first,) = await ask(own, TAX, request)
    assert b"99992026" not in first.SerializeToString()
    flipped = first.next_page_token[:-2] + ("A" if first.next_page_token[-2] != "A" else "B") + "A"
    request.selections[0].page_token = flipped
    assert (await refused(ask(own, TAX, request))).reason is Reason.PAGE_TOKEN_INVALID


async def test_what_was_withdrawn_shows_to_who_may_see_it_and_to_nobody_else(own: Mesh) -> None:
    """Who holds its number learns that it was withdrawn; a hidden one stays hidden, withdrawn or not."""
    await revoke(own, CLEARED)
    await revoke(own, PENDING)
    assert not await listed(own, TAX, context=why(**REBATE))
    withdrawn = await get(own, TAX, DECLARATION, context=why(**REBATE))
    assert withdrawn.envelope.state == common_pb2.RECORD_STATE_REVOKED
    assert not withdrawn.gross_wt_kg.value
    assert isinstance(await refused(get(own, TAX, f"declarations/{PENDING}", context=why(**REBATE))), NotFound)
    first = await anext(watch(own, TAX, "customs.Declaration", context=why(**REBATE), from_start=True))
    assert PENDING.encode() not in first.SerializeToString()
    assert len(first.records) == 2


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(10**17, 0), (-(10**17), 0), (0, -5), (0, 2**31 - 1), (253402300800, 0)]
)
async def test_a_moment_that_is_none_is_a_mistake_and_no_failure(own: Mesh, seconds: int, nanos: int) -> None:
    """Were it a failure of ours, everybody could fill the log with stack traces."""
    moment = Timestamp(seconds=seconds, nanos=nanos)
    request = question(SUBJECT, "customs.Declaration", **REBATE)
    request.as_of.CopyFrom(moment)
    errors: list[HutongError] = [
        await refused(ask(own, TAX, request)),
        await refused(get(own, TAX, DECLARATION, context=why(**REBATE), as_of=moment)),
        await refused(listed(own, TAX, context=why(**REBATE), as_of=moment)),
    ]
    assert {(type(e), e.reason) for e in errors} == {(InvalidArgument, Reason.MALFORMED_REQUEST)}
