"""A department's two doors: the same records, the same policy, one code path."""

import asyncio
import itertools
from typing import Any

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import declaration_pb2, service_pb2
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit.errors import HutongError, NotFound, PermissionDenied, Reason
from tests.exchange.mesh import ROOMS, Mesh, question, records
from tests.exchange.records import CLEARED, EXPORTER, PENDING, declaration
from tests.exchange.test_query import REBATE, SUBJECT, ask

SERVICE = "/hutong.api.customs.v1.CustomsService"
SOURCE = "/hutong.api.exchange.v1.RecordSourceService"
WHY = exchange_pb2.RequestContext(**REBATE)


async def get(mesh: Mesh, who: str, name: str, *fields: str) -> service_pb2.GetDeclarationResponse:
    request = service_pb2.GetDeclarationRequest(name=name, context=WHY, fields=fields)
    client = mesh.client(who, "customs")
    return await client.unary(f"{SERVICE}/GetDeclaration", request, service_pb2.GetDeclarationResponse, timeout=5)


async def refusal(mesh: Mesh, who: str, name: str) -> HutongError:
    with pytest.raises(HutongError) as refused:
        await get(mesh, who, name)
    return refused.value


async def test_both_doors_give_the_same(mesh: Mesh) -> None:
    typed = await get(mesh, "taxation/refund", f"declarations/{CLEARED}")
    (section,) = await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration", **REBATE))
    assert typed.declaration == records(section)[0]
    assert list(typed.decisions) == list(section.decisions)


async def test_unknown_and_hidden_are_the_same_at_the_typed_door(mesh: Mesh) -> None:
    hidden = await refusal(mesh, "taxation/refund", f"declarations/{PENDING}")
    absent = await refusal(mesh, "taxation/refund", "declarations/999920260999999999")
    assert isinstance(hidden, NotFound)
    assert (hidden.reason, hidden.message) == (absent.reason, absent.message)


async def test_who_may_see_nothing_learns_nothing(mesh: Mesh) -> None:
    there = await refusal(mesh, "commerce/registry", f"declarations/{CLEARED}")
    absent = await refusal(mesh, "commerce/registry", "declarations/999920260999999999")
    assert isinstance(there, PermissionDenied)
    assert (there.reason, there.message) == (absent.reason, absent.message)


@pytest.mark.parametrize("name", ["", CLEARED, f"declaration/{CLEARED}", "declarations/", f"/{CLEARED}"])
async def test_a_wrong_name_shows_the_right_form(mesh: Mesh, name: str) -> None:
    error = await refusal(mesh, "taxation/refund", name)
    assert error.reason is Reason.NAME_INVALID
    assert "declarations/{declaration_no}" in error.message


async def test_lists_are_cut_and_paged(mesh: Mesh) -> None:
    request = service_pb2.ListDeclarationsRequest(context=WHY, page_size=1)
    request.subject.scheme, request.subject.value = "cn.uscc", EXPORTER
    client = mesh.client("taxation/refund", "customs")
    page = await client.unary(f"{SERVICE}/ListDeclarations", request, service_pb2.ListDeclarationsResponse, timeout=5)
    assert [d.declaration_no for d in page.declarations] == [CLEARED]
    assert not page.next_page_token
    assert not page.declarations[0].gross_wt_kg.value


async def test_departments_do_not_fetch_from_each_other_uniformly(mesh: Mesh) -> None:
    """`Fetch` is the gateway's; a department system has the typed service."""
    request = record_source_pb2.FetchRequest(context=WHY)
    with pytest.raises(PermissionDenied) as refused:
        await mesh.client("taxation/refund", "customs").unary(
            f"{SOURCE}/Fetch", request, record_source_pb2.FetchResponse, timeout=5
        )
    assert refused.value.reason is Reason.CALLER_NOT_LISTED


async def test_a_gateway_cannot_ask_without_a_word_on_whom_it_asks_for(mesh: Mesh) -> None:
    request = record_source_pb2.FetchRequest(
        context=WHY,
        subject=common_pb2.SubjectId(scheme="cn.uscc", value=EXPORTER),
        selections=[exchange_pb2.Selection(record_type="customs.Declaration")],
    )
    with pytest.raises(HutongError) as refused:
        await mesh.client("gateway/main", "customs").unary(
            f"{SOURCE}/Fetch", request, record_source_pb2.FetchResponse, timeout=5
        )
    assert refused.value.reason is Reason.CONTEXT_MISSING


async def test_a_department_tells_what_it_owns(mesh: Mesh) -> None:
    told = await mesh.client("operator/admin", "customs").unary(
        f"{SOURCE}/Describe", record_source_pb2.DescribeRequest(), record_source_pb2.DescribeResponse, timeout=5
    )
    assert told.agency == "customs"
    assert [t.name for t in told.record_types] == [k.name for k in ROOMS["customs"].catalogue()]
    assert told.policy_version


def watch(mesh: Mesh, **how: Any) -> Any:
    request = record_source_pb2.WatchRequest(
        context=WHY, selection=exchange_pb2.Selection(record_type="customs.Declaration"), **how
    )
    client = mesh.client("taxation/refund", "customs")
    return client.stream(f"{SOURCE}/Watch", request, record_source_pb2.WatchResponse, timeout=20)


async def changes(stream: Any, count: int) -> tuple[list[declaration_pb2.Declaration], str]:
    """Read until `count` records have come."""
    found: list[declaration_pb2.Declaration] = []
    token = ""
    async for response in stream:
        token = response.resume_token
        for record in response.records:
            message = declaration_pb2.Declaration()
            assert record.Unpack(message)
            found.append(message)
        if len(found) >= count:
            break
    return found, token


CLEARED_STATUS = declaration_pb2.DECLARATION_STATUS_CLEARED


async def test_a_watcher_sees_changes_cut_and_in_order_and_resumes(own: Mesh) -> None:
    first, token = await changes(watch(own, from_start=True), 1)
    assert [d.declaration_no for d in first] == [CLEARED]
    assert not first[0].gross_wt_kg.value
    numbers = [f"9999202600000001{n:02d}" for n in range(5)]
    await own.load("customs", [declaration(n, EXPORTER, CLEARED_STATUS) for n in numbers[:3]])
    seen, token = await changes(watch(own, resume_token=token), 3)
    assert [d.declaration_no for d in seen] == numbers[:3]
    # Nothing is missed between two watches, and nothing comes twice.
    await own.load("customs", [declaration(n, EXPORTER, CLEARED_STATUS) for n in numbers[3:]])
    seen, _ = await changes(watch(own, resume_token=token), 2)
    assert [d.declaration_no for d in seen] == numbers[3:]
    # A correction is a new version that says what it supersedes; a watch from now on sees those to come.
    pending = asyncio.ensure_future(changes(watch(own), 1))
    async with asyncio.timeout(10):
        values = itertools.count(1)
        while not pending.done():
            await own.load("customs", [declaration(CLEARED, EXPORTER, CLEARED_STATUS, f"{next(values)}.00")])
    corrected = (await pending)[0][0]
    assert corrected.envelope.version > 1
    assert corrected.envelope.supersedes == corrected.envelope.version - 1
    assert corrected.envelope.state == common_pb2.RECORD_STATE_CORRECTED


@pytest.mark.parametrize("token", ["nonsense", "A" * 60])
async def test_a_resume_token_that_is_none_is_refused(mesh: Mesh, token: str) -> None:
    with pytest.raises(HutongError) as refused:
        await anext(watch(mesh, resume_token=token))
    assert refused.value.reason is Reason.RESUME_TOKEN_INVALID


async def test_a_policy_change_ends_a_running_watch(own: Mesh) -> None:
    stream = watch(own, from_start=True)
    await anext(stream)
    own.add_policy("customs", '@id("stop") forbid (principal, action, resource in Hutong::ShareClass::"conditional");')
    with pytest.raises(PermissionDenied) as refused:
        async with asyncio.timeout(10):
            async for _ in stream:
                pass
    assert refused.value.reason is Reason.FORBIDDEN
