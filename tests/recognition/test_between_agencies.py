"""What happens between agencies on a running mesh: they race, they build on each other, and they are away."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hutong.api.exchange.v1 import event_pb2
from hutong.api.recognition.v1 import case_pb2, case_service_pb2, result_service_pb2
from services.kit.client import Client
from services.kit.errors import HutongError, Reason
from services.kit.events import outbox
from services.kit.events.outbox import NewEvent
from services.recognition.node import RecognitionNode
from tests.recognition.desk import EXPRESS
from tests.recognition.mesh import (
    CASES,
    CUSTOMS,
    POLICE,
    REGISTRY,
    RESULTS,
    TASKS,
    TAX,
    Mesh,
    coming,
    enterprise,
    firm,
    fresh,
    running,
)
from tests.recognition.test_fourteen import RIVAL
from tests.recognition.test_node import INBOX
from tests.zone import now

ROUNDS = 12


@pytest.fixture
async def rivals(tmp_path: Path, any_url: str) -> AsyncIterator[tuple[Mesh, list[Client]]]:
    """Two nodes on one database, and two agencies whose stages prove the same fact; each calls a node of its own."""
    mesh, folder = Mesh(tmp_path), tmp_path / "procedures"
    folder.mkdir()
    (folder / "express@1.0.0.yaml").write_text(EXPRESS, encoding="utf-8")
    (folder / "rival@1.0.0.yaml").write_text(RIVAL, encoding="utf-8")
    mesh.changes, mesh.url = {"procedures": folder}, any_url
    await mesh.start()
    config = mesh.config()
    other = RecognitionNode(config, mesh.url, mesh.zone.frame(config))
    await other.start()
    client = Client(other.host.address, other.host.identity, mesh.zone.files(CUSTOMS))
    yield mesh, [mesh.client(POLICE), client]
    await client.close()
    await other.stop()
    await mesh.stop()


async def start(client: Client, case_id: str, stage: str, **more: Any) -> case_service_pb2.AppendStageEventResponse:
    request = case_service_pb2.AppendStageEventRequest(
        case_id=case_id,
        stage_event_id=fresh(),
        stage_code=stage,
        stage_event=case_pb2.STAGE_EVENT_KIND_START,
        **more,
    )
    return await client.unary(
        f"{CASES}AppendStageEvent", request, case_service_pb2.AppendStageEventResponse, timeout=30
    )


async def test_two_agencies_open_the_same_examination_in_the_same_moment(rivals: tuple[Mesh, list[Client]]) -> None:
    """Over the wire, at two nodes: one opens it, the other is told of that one, and may go on knowing it."""
    mesh, clients = rivals
    won: Counter[int] = Counter()
    for _ in range(ROUNDS):
        subject = firm()
        cases = [
            (await mesh.submit(TAX, subject, "EXPRESS")).case.case_id,
            (await mesh.submit(CUSTOMS, subject, "RIVAL")).case.case_id,
        ]
        stages, agencies = ("P", "R"), ("publicsecurity", "customs")
        calls = (start(client, case_id, stage) for client, case_id, stage in zip(clients, cases, stages, strict=True))
        done = await asyncio.gather(*calls, return_exceptions=True)
        (winner,) = [n for n, one in enumerate(done) if not isinstance(one, BaseException)]
        loser = 1 - winner
        error = done[loser]
        assert isinstance(error, HutongError)
        assert error.reason is Reason.EXAMINATION_OPEN
        told = (error.metadata["agency"], error.metadata["case_id"], error.metadata["stage"], error.metadata["fact"])
        assert told == (agencies[winner], cases[winner], stages[winner], "person_verified")
        named = {"despite": error.metadata["despite"], "reason_code": "DIFFERENT_SCOPE"}
        assert (await start(clients[loser], cases[loser], stages[loser], **named)).version
        won[winner] += 1
    assert won.total() == ROUNDS


async def inbox(mesh: Mesh, agency: str, who: str, kind: str = "", key: str = "") -> list[event_pb2.Event]:
    """Everything that an agency's node has received."""
    found: list[event_pb2.Event] = []
    after = 0
    while True:
        request = event_pb2.ListInboxEventsRequest(kind=kind, key=key, page_size=200, after=after)
        answer = await mesh.client(who, agency).unary(INBOX, request, event_pb2.ListInboxEventsResponse, timeout=30)
        found += answer.events
        if not answer.events:
            return found
        after = answer.next_after


async def revoke(mesh: Mesh, who: str, ref: str) -> int:
    request = result_service_pb2.RevokeResultRequest(request_id=fresh(), result_ref=ref, reason_code="ISSUED_IN_ERROR")
    method = f"{RESULTS}RevokeResult"
    return (await mesh.client(who).unary(method, request, result_service_pb2.RevokeResultResponse, timeout=30)).tasks


async def open_tasks(mesh: Mesh, who: str) -> list[tuple[str, str]]:
    request = result_service_pb2.ListTasksRequest(page_size=200)
    answer = await mesh.client(who).unary(
        f"{TASKS}ListTasks", request, result_service_pb2.ListTasksResponse, timeout=30
    )
    return sorted((task.case_id, task.stage_code) for task in answer.tasks)


async def ref_of(mesh: Mesh, who: str, case_id: str, stage: str) -> str:
    (found,) = [s for s in (await mesh.get(who, case_id)).stages if s.code == stage]
    return found.result_ref


async def refund(mesh: Mesh, subject: str) -> str:
    """A refund that builds on what an establishment has proven, as far as its acceptance."""
    view = await mesh.submit(TAX, subject, "VAT-REFUND", answers={"refund_class": "1"})
    case_id = view.case.case_id
    await mesh.passed(TAX, case_id, "V0", "refund_recorded", subject=subject)
    await mesh.passed(CUSTOMS, case_id, "V1", "decl_cleared", subject=subject)
    await mesh.passed(TAX, case_id, "V2", "claim_accepted", subject=subject)
    return case_id


async def test_a_revocation_runs_through_everything_that_was_built_on_it(tmp_path: Path) -> None:
    """From an identity to a registration, a customs code and a refund: every agency on the way is told at once."""
    subject = firm()
    async with running(tmp_path) as mesh:
        for agency in ("publicsecurity", "commerce", "customs", "taxation"):
            await mesh.start_department(agency)
        person = (await mesh.register(POLICE, "person_verified", subject=subject)).result_ref
        case_id = await mesh.accepted(subject)
        await mesh.passed(REGISTRY, case_id, "E4", "registered", subject=subject)
        await mesh.passed(CUSTOMS, case_id, "E5c", "customs_code", subject=subject)
        claim = await refund(mesh, subject)
        expected = {
            POLICE: [(case_id, "E2")],
            REGISTRY: [(case_id, "E4")],
            CUSTOMS: [(case_id, "E5c")],
            TAX: [(claim, "V0"), (claim, "V2")],
        }
        watched = mesh.watch(enterprise(subject), case_id, after=(await mesh.get(REGISTRY, case_id)).version)
        await anext(watched)  # that it lives
        seen = asyncio.ensure_future(coming(watched))
        assert await revoke(mesh, POLICE, person) == 5
        async with asyncio.timeout(10):
            for who, tasks in expected.items():
                while True:
                    raised = await inbox(mesh, who.partition("/")[0], who, "task.raised")
                    if len(raised) == len(tasks):
                        break
                found = [json.loads(event.payload) for event in raised]
                assert sorted((said["case_id"], said["stage_code"]) for said in found) == tasks
                assert {said["origin_ref"] for said in found} == {person}
            event = (await seen).event
        assert (event.stage_code, event.stage_event) == ("E2", case_pb2.STAGE_EVENT_KIND_REVOKE)
        assert {who: await open_tasks(mesh, who) for who in expected} == expected
        # Nothing is undone by itself, and all of it is seen to be doubtful.
        view = await mesh.get(REGISTRY, case_id)
        doubtful = {stage.code for stage in view.stages if stage.doubtful}
        assert doubtful >= {"E2", "E4", "E5c"}
        assert view.case.case_status == case_pb2.CASE_STATUS_ISSUED
        # A decision behind it waits until somebody has looked.
        with pytest.raises(HutongError) as caught:
            await mesh.passed(POLICE, case_id, "E5a", "seal_registered", subject=subject)
        assert caught.value.reason is Reason.RECOGNISED_RESULT_INVALID


async def test_nothing_is_lost_while_an_agency_is_away_for_an_hour(tmp_path: Path) -> None:
    """Thousands of events wait for it, those of a revocation among them; all come, once, and in order in every case."""
    subjects = [firm() for _ in range(6)]
    async with running(tmp_path) as mesh:
        await mesh.start_department("commerce")
        cases: dict[str, str] = {}
        for subject in subjects:
            result = await mesh.register(POLICE, "person_verified", subject=subject)
            case_id = await mesh.accepted(subject)
            await mesh.passed(REGISTRY, case_id, "E4", "registered", subject=subject)
            cases[case_id] = result.result_ref
        before = len(await inbox(mesh, "commerce", REGISTRY))
        await mesh.stop_department("commerce")
        assert mesh.node is not None
        for n, ref in enumerate(cases.values()):
            await mesh.node.database.write(_filler(f"K-{n}", 500))
            await revoke(mesh, POLICE, ref)
            # The source is restarted, too, while nobody listens.
            if n == len(cases) // 2:
                await mesh.restart()
        await mesh.start_department("commerce")
        async with asyncio.timeout(60):
            while len(received := await inbox(mesh, "commerce", REGISTRY)) < before + 500 * len(cases) + 2 * len(cases):
                pass
        assert len({event.event_id for event in received}) == len(received)
        orders: dict[str, list[int]] = defaultdict(list)
        for event in received:
            orders[event.key].append(event.sequence)
        assert all(order == sorted(order) for order in orders.values())
        filled = {k: len(order) for k, order in orders.items() if k.startswith("K-")}
        assert filled == {f"K-{n}": 500 for n in range(len(cases))}
        tasks = [json.loads(event.payload) for event in received if event.kind == "task.raised"]
        assert {(t["case_id"], t["origin_ref"]) for t in tasks} == set(cases.items())
        revoked = [json.loads(event.payload) for event in received if event.kind == "result.revoked"]
        assert sorted(said["result_ref"] for said in revoked) == sorted(cases.values())


def _filler(key: str, count: int) -> Callable[[sa.Connection], None]:
    moment = now()
    events = [NewEvent("commerce", "filler", key, {"number": n}) for n in range(count)]

    def put(connection: sa.Connection) -> None:
        outbox.put(connection, events, moment)

    return put


async def test_any_agencies_at_once_lose_nothing(tmp_path: Path) -> None:
    """Four agencies work side by side in one case at the same time, each without knowing of the others."""
    subject = firm()
    async with running(tmp_path) as mesh:
        case_id = await mesh.accepted(subject)
        await mesh.passed(POLICE, case_id, "E2", "person_verified", subject=subject)
        await mesh.passed(REGISTRY, case_id, "E4", "registered", subject=subject)
        work: list[Awaitable[Any]] = [
            mesh.passed(POLICE, case_id, "E5a", "seal_registered", subject=subject),
            mesh.passed(TAX, case_id, "E5b", "tax_registered", subject=subject),
            mesh.passed(CUSTOMS, case_id, "E5c", "customs_code", subject=subject),
            mesh.passed("social-insurance/desk", case_id, "E5d"),
            mesh.event("bank/core", case_id, "E5e", "WITHDRAW", reason_code="BRANCH_NOT_NEEDED"),
        ]
        await asyncio.gather(*work)
        view = await mesh.get(REGISTRY, case_id)
        ended = {stage.code for stage in view.stages if stage.HasField("ended_at")}
        assert ended >= {"E5a", "E5b", "E5c", "E5d", "E5e"}
        assert [event.sequence for event in view.events] == list(range(1, view.version + 1))
        await mesh.passed(REGISTRY, case_id, "E6", "pack_delivered", subject=subject)
        assert (await mesh.get(REGISTRY, case_id)).case.case_status == case_pb2.CASE_STATUS_DELIVERED
