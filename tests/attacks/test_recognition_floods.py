"""One caller against everybody's memory and time: endless streams, reservations, cases, reminders, long texts."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import event_pb2
from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit import reader
from services.kit.errors import HutongError, Reason
from services.kit.events.service import STREAMS
from services.recognition import status_lists, submitting
from services.recognition.events import Kind
from services.recognition.tables import CASE
from services.recognition.watching import WATCHES
from tests.attacks.handing_in import FOLLOW, call, followed, list_results, register, remind, reserve, told, watched, why
from tests.recognition.desk import SUBJECT, Bed, desk, execute
from tests.recognition.mesh import CASES, CUSTOMS, POLICE, REGISTRY, TAX, Mesh, enterprise, firm, fresh

MEGABYTE = 1024 * 1024


# Streams.


async def test_watches_of_one_caller_are_few_and_others_go_on(approvals: Mesh) -> None:
    subject = firm()
    case_id = await approvals.accepted(subject)
    greedy = "bank/greedy"
    async with AsyncExitStack() as stack:
        for _ in range(WATCHES):
            watch = await stack.enter_async_context(aclosing(approvals.watch(greedy, case_id, after=4)))
            await anext(watch)
        for _ in range(3):
            assert await why(watched(approvals, greedy, case_id)) is Reason.STREAMS_TOO_MANY
        assert (await watched(approvals, "bank/core", case_id)).event.sequence == 1
        assert (await watched(approvals, enterprise(subject), case_id)).event.sequence == 1
    # Those that were given up count no more.
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await watched(approvals, greedy, case_id)).event.sequence == 1
                break
            except HutongError as error:
                assert error.reason is Reason.STREAMS_TOO_MANY  # noqa: PT017 - the server has not heard of it yet


async def test_watches_of_nothing_are_not_kept(approvals: Mesh) -> None:
    """Of cases that are not there, by the hundred: each ends at once, and takes no place."""
    asked = [fresh() for _ in range(WATCHES * 4)]
    for case_id in asked:
        assert await why(watched(approvals, enterprise(firm()), case_id)) is Reason.CASE_NOT_FOUND
    assert approvals.node is not None
    watching = approvals.node._watching  # pyright: ignore[reportPrivateUsage]
    assert watching is not None
    # Watches of other tests that were given up may not have ended yet.
    assert watching._bells.keys().isdisjoint(asked)  # pyright: ignore[reportPrivateUsage]


async def test_streams_of_events_are_few_and_others_go_on(approvals: Mesh) -> None:
    client = approvals.client("customs/greedy")
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS):
            stream = client.stream(FOLLOW, event_pb2.FollowRequest(), event_pb2.FollowResponse, timeout=30)
            batches = cast("AsyncGenerator[event_pb2.FollowResponse]", stream)
            await anext(await stack.enter_async_context(aclosing(batches)))
        assert await why(followed(approvals, "customs/greedy")) is Reason.STREAMS_TOO_MANY
        assert (await followed(approvals, "customs/node")).until >= 0


async def test_a_stream_stops_with_what_entitles_to_it(own_approvals: Mesh) -> None:
    """Whose right is taken away while it watches hears no more of the case."""
    case_id = await own_approvals.accepted(firm())
    async with aclosing(own_approvals.watch(TAX, case_id, after=4)) as watch:
        await anext(watch)
        policy = own_approvals.policy.read_text()
        own_approvals.policy.write_text(policy.replace('"taxation", ', ""))
        assert own_approvals.node is not None
        await own_approvals.node.policy_files.poll(own_approvals.node.engine)
        await own_approvals.event(POLICE, case_id, "E2", "START")
        assert await why(anext(watch)) is Reason.NO_PERMIT


# Places that are taken for nothing.


async def test_an_agency_exhausts_its_own_reservations_and_nobody_elses(own_approvals: Mesh) -> None:
    mesh = own_approvals
    for _ in range(status_lists.OPEN):
        await reserve(mesh, "logistics/greedy", fresh())
    assert await why(reserve(mesh, "logistics/greedy", fresh())) is Reason.RESERVATIONS_TOO_MANY
    assert await why(reserve(mesh, "logistics/other", fresh())) is Reason.RESERVATIONS_TOO_MANY
    for who in (POLICE, CUSTOMS, TAX):
        assert (await reserve(mesh, who, fresh())).uri.endswith(":1")


async def test_an_enterprise_applies_and_applies(sqlite_url: str, tmp_path: Path) -> None:
    """It may have very many cases, and not any number. What it has withdrawn counts no more; agencies may go on."""
    who = enterprise(SUBJECT)
    async with desk(sqlite_url, tmp_path) as bed:
        first = await bed.submit(submitter=who)
        multiply(bed, submitting.MOST_OPEN - 2)
        last = await bed.submit(submitter=who)
        assert await why(bed.submit(submitter=who)) is Reason.CASES_TOO_MANY
        assert (await bed.submit(submitter=who, request_id=first.head.request_id)).case_id == first.case_id
        assert (await bed.submit()).case_id
        assert (await bed.submit(submitter=enterprise(firm()))).case_id
        await withdraw(bed, last.case_id)
        assert (await bed.submit(submitter=who)).case_id


def multiply(bed: Bed, times: int) -> None:
    """Put the row of the only case in so many times more, behind the node's back: submitting takes its time."""
    names = [column.name for column in CASE.c]
    own = {"case_id", "request_id"}
    values = ", ".join(f"{name} || '-' || n" if name in own else name for name in names)
    numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {times})"
    execute(bed.url, f"INSERT INTO case_head ({', '.join(names)}) {numbers} SELECT {values} FROM case_head, numbers")


async def withdraw(bed: Bed, case_id: str) -> None:
    await bed.act(case_id, Kind.WITHDRAW, "", "applicant", enterprise=True)


async def test_reminders_once_a_day(approvals: Mesh) -> None:
    """An office that is reminded a thousand times is reminded of nothing."""
    subject = firm()
    case_id = await approvals.accepted(subject)
    who = enterprise(subject)
    assert len((await remind(approvals, who, case_id)).events) == 1
    for _ in range(5):
        for stage in ("", "E2"):
            assert await why(remind(approvals, who, case_id, stage)) is Reason.REMINDED_ALREADY
    view = await approvals.get(REGISTRY, case_id)
    assert len([e for e in view.events if e.threshold == "manual"]) == 1


# Long texts.


async def test_nothing_that_is_kept_grows_with_what_is_asked(approvals: Mesh) -> None:
    """Separators are no part of a code: two hundred thousand of them are none, and are not remembered."""
    subject = firm()
    who = enterprise(subject)
    await approvals.list(who)
    tracemalloc.start()
    try:
        for size in range(40):
            long = subject[:5] + "-" * (200_000 + size) + subject[5:]
            about = common_pb2.SubjectId(scheme="cn.uscc", value=long)
            assert await why(approvals.list(who, subject=about)) is Reason.SUBJECT_INVALID
            assert await why(list_results(approvals, who, long)) is Reason.SUBJECT_INVALID
            assert await why(approvals.submit(who=who, subject=long)) is Reason.SUBJECT_INVALID
            assert await why(approvals.get(who, "x" * (200_000 + size))) is Reason.CASE_NOT_FOUND
            assert await why(watched(approvals, who, "y" * (200_000 + size))) is Reason.CASE_NOT_FOUND
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * MEGABYTE
    assert reader.subject_of("cn.uscc", "-".join(subject)) == ("cn.uscc", subject)


async def test_a_request_of_a_megabyte_is_not_read(approvals: Mesh) -> None:
    request = pb.SubmitCaseRequest(request_id=fresh(), procedure_code="x" * MEGABYTE)
    asking = call(approvals, enterprise(firm()), f"{CASES}SubmitCase", request, pb.SubmitCaseResponse)
    assert await why(asking) is Reason.REQUEST_TOO_LARGE
    assert await why(register(approvals, POLICE, "x" * MEGABYTE)) is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize(
    "said",
    [
        {"purpose": "x" * 65},
        {"case_ref": "x" * 100_000},
        {"on_behalf_of": "x" * 100_000},
        {"authorization_id": "\x00"},
        {"purpose": "P-SELF,P-APPROVAL"},
    ],
)
async def test_contexts_that_say_too_much(approvals: Mesh, said: dict[str, Any]) -> None:
    case_id = await approvals.accepted(firm())
    whole = {"purpose": "P-APPROVAL", "legal_basis": "CN-ADMIN-LICENSING"} | said
    refused = await told(approvals.get(POLICE, case_id, **whole))
    assert refused[1] in {Reason.MALFORMED_REQUEST, Reason.PURPOSE_SEVERAL}
    assert await told(approvals.get(POLICE, fresh(), **whole)) == refused


@pytest.mark.parametrize("size", [-1, -(2**31)])
async def test_pages_of_less_than_nothing(approvals: Mesh, size: int) -> None:
    assert await why(approvals.list(REGISTRY, page_size=size)) is Reason.PAGE_SIZE_INVALID
    assert await why(list_results(approvals, REGISTRY, firm(), page_size=size)) is Reason.PAGE_SIZE_INVALID


async def test_pages_of_everything_are_pages(approvals: Mesh) -> None:
    subject = firm()
    await asyncio.gather(*(approvals.submit(subject=subject) for _ in range(205)))
    page = await approvals.list(enterprise(subject), page_size=2**31 - 1)
    assert len(page.cases) == 200
    assert page.next_page_token
