"""The node as a whole: what stops its start, what a restart keeps, what reaches the departments, and how it ends."""

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from hutong.api.exchange.v1 import event_pb2, record_source_pb2
from hutong.api.recognition.v1 import case_pb2, case_service_pb2, result_service_pb2
from services.kit import config
from services.kit.client import Client
from services.kit.config import LimitsSection, StoreSection
from services.kit.errors import FailedPrecondition, HutongError, Reason, Unavailable
from services.recognition.config import RecognitionConfig
from services.recognition.node import RecognitionNode
from tests.recognition.mesh import (
    CASES,
    CUSTOMS,
    POLICE,
    REGISTRY,
    RESULTS,
    TAX,
    Mesh,
    coming,
    enterprise,
    firm,
    fresh,
    running,
)
from tests.zone import now

INBOX = "/hutong.api.exchange.v1.InboxService/ListInboxEvents"
SOURCE = "/hutong.api.exchange.v1.RecordSourceService/"


def refused(mesh: Mesh, **changes: Any) -> Reason:
    mesh.changes = changes

    async def start() -> None:
        try:
            await mesh.start()
        finally:
            await mesh.stop()
            mesh.node = None

    with pytest.raises(HutongError) as caught:
        asyncio.run(start())
    return Reason(caught.value.reason)


def test_what_stops_the_start(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(mesh, keys=tmp_path / "none") is Reason.CONFIG_FILE_MISSING
    assert refused(mesh, signing=empty) is Reason.CONFIG_FILE_MISSING
    assert refused(mesh, secret=tmp_path / "none") is Reason.CONFIG_INVALID
    assert refused(mesh, store=StoreSection(url=mesh.url)) is Reason.STORE_NOT_MIGRATED
    broken = empty / "broken@1.0.0.yaml"
    broken.write_text("code: BROKEN\n", encoding="utf-8")
    assert refused(mesh, procedures=empty) is Reason.PROCEDURE_INVALID
    broken.write_text("code: BROKEN\n", encoding="utf-8")
    assert refused(mesh, arrangements=empty) is Reason.ARRANGEMENT_INVALID
    mesh.policy.write_text("permit(principal, action, resource);", encoding="utf-8")
    assert refused(mesh) is Reason.POLICY_INVALID


def test_somebody_elses_config_is_refused(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    path = "customs/node"
    own = mesh.config()
    other = own.model_copy(update={"node": mesh.zone.node(path), "tls": mesh.zone.tls(path)})
    with pytest.raises(FailedPrecondition, match="customs's, not recognition's"):
        RecognitionNode(other, mesh.url, mesh.zone.frame(other))


def test_a_config_file(tmp_path: Path) -> None:
    text = """
secret = "secret"
keys = "../keys"
signing = "signing"
tick = "250ms"
[node]
zone = "zone.example"
agency = "recognition"
listen = "127.0.0.1:1"
[tls]
certificate = "c"
key = "k"
bundle = "b"
revoked = "r"
[store]
url = "sqlite+aiosqlite:///cases.db"
[policy]
files = ["../policy/recognition.cedar"]
[agency]
purpose = "P-OTHER"
legal_basis = "XX-OTHER"
"""
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    read = config.read(path, RecognitionConfig)
    assert read.keys == tmp_path / "../keys"
    assert read.tick == dt.timedelta(milliseconds=250)
    assert (read.agency.purpose, read.enterprise.purpose) == ("P-OTHER", "P-SELF")
    assert read.backdating == dt.timedelta(days=3)
    for wrong in ('tick = "0s"', 'tikc = "1s"'):
        path.write_text(text.replace('tick = "250ms"', wrong), encoding="utf-8")
        with pytest.raises(FailedPrecondition):
            config.read(path, RecognitionConfig)


async def test_a_restart_keeps_everything_and_a_follower_goes_on(tmp_path: Path) -> None:
    subject = firm()
    async with running(tmp_path) as mesh:
        case_id = await mesh.accepted(subject)
        before = await mesh.get(REGISTRY, case_id)
        await mesh.restart()
        after = await mesh.get(REGISTRY, case_id)
        assert [e.SerializeToString() for e in after.events] == [e.SerializeToString() for e in before.events]
        assert [s.SerializeToString() for s in after.stages] == [s.SerializeToString() for s in before.stages]
        assert (await anext(mesh.watch(TAX, case_id, after=3))).event.sequence == 4


async def test_what_another_replica_records_is_seen_here(own: Mesh) -> None:
    """Two nodes over one store: a watch at one tells what is sent to the other, and neither loses anything."""
    config_ = own.config()
    other = RecognitionNode(config_, own.url, own.zone.frame(config_))
    await other.start()
    client = Client(other.host.address, other.host.identity, own.zone.files(POLICE))
    try:
        case_id = await own.accepted(firm())
        watch = own.watch(TAX, case_id, after=4)
        await anext(watch)
        request = case_service_pb2.AppendStageEventRequest(
            case_id=case_id,
            stage_event_id=fresh(),
            stage_code="E2",
            stage_event=case_pb2.STAGE_EVENT_KIND_START,
            expected_version=4,
        )
        method = f"{CASES}AppendStageEvent"
        await client.unary(method, request, case_service_pb2.AppendStageEventResponse, timeout=10)
        assert (await coming(watch)).event.sequence == 5
    finally:
        await client.close()
        await other.stop()


async def test_the_node_runs_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    mesh = Mesh(tmp_path)
    mesh.url = postgres_url
    try:
        await mesh.start()
        subject = firm()
        result = await mesh.register(POLICE, "person_verified", subject=subject)
        case_id = await mesh.accepted(subject)
        await mesh.closed(case_id, subject, recognised=("E2",))
        view = await mesh.get(enterprise(subject), case_id)
        assert view.case.case_status == case_pb2.CASE_STATUS_DELIVERED
        assert result.result_ref in {stage.result_ref for stage in view.stages}
        assert [v.case.case_id for v in (await mesh.list(CUSTOMS)).cases] == [case_id]
    finally:
        await mesh.stop()


async def test_watches_and_streams_end_with_the_node(own: Mesh) -> None:
    # A drain would wait for calls that do not end, longer than this test does.
    own.changes = {"limits": LimitsSection(drain=dt.timedelta(hours=1))}
    await own.restart()
    case_id = await own.accepted(firm())
    watch = own.watch(TAX, case_id, after=4)
    await anext(watch)
    client = own.client("customs/node")
    follow = "/hutong.api.exchange.v1.EventService/Follow"
    stream = client.stream(follow, event_pb2.FollowRequest(after=0), event_pb2.FollowResponse, timeout=30)
    await anext(stream)
    assert own.node is not None
    async with asyncio.timeout(60):
        await own.node.stop()
    with pytest.raises((StopAsyncIteration, HutongError)):
        while True:
            await anext(stream)
    # It did not end well: the case goes on, and so may its watcher.
    with pytest.raises(Unavailable) as caught:
        while True:
            await anext(watch)
    assert caught.value.reason is Reason.SHUTTING_DOWN


async def test_a_revocation_reaches_every_recogniser_at_once(tmp_path: Path) -> None:
    """From the issuer's call to the inbox of another agency's node, over two mutual TLS connections."""
    subject = firm()
    async with running(tmp_path) as mesh:
        await mesh.start_department("publicsecurity")
        await mesh.start_department("commerce")
        result = await mesh.register(POLICE, "person_verified", subject=subject)
        case_id = await mesh.accepted(subject)
        await mesh.passed(REGISTRY, case_id, "E4", "registered", subject=subject)
        request = result_service_pb2.RevokeResultRequest(
            request_id=fresh(), result_ref=result.result_ref, reason_code="ISSUED_IN_ERROR"
        )
        method = f"{RESULTS}RevokeResult"
        revoked = await mesh.client(POLICE).unary(method, request, result_service_pb2.RevokeResultResponse, timeout=10)
        # At the stage that stands on it, and at the decision that was built on that.
        assert revoked.tasks == 2
        async with asyncio.timeout(5):
            for agency, who in (("publicsecurity", POLICE), ("commerce", REGISTRY)):
                task = await received(mesh, agency, who, "task.raised", case_id)
                assert task["origin_ref"] == result.result_ref
                assert task["task_kind"] == "RESULT_REVOKED"
                assert subject not in str(task)
        view = await mesh.get(TAX, case_id)
        stages = {stage.code: stage for stage in view.stages}
        # Nothing is undone by itself.
        assert stages["E2"].source_agency == "publicsecurity"
        assert view.case.case_status == case_pb2.CASE_STATUS_ISSUED


async def received(mesh: Mesh, agency: str, who: str, kind: str, key: str) -> dict[str, Any]:
    """Wait for an event in a department's inbox; gives what it says."""
    request = event_pb2.ListInboxEventsRequest(kind=kind, key=key)
    while True:
        client = mesh.client(who, agency)
        answer = await client.unary(INBOX, request, event_pb2.ListInboxEventsResponse, timeout=10)
        if answer.events:
            found: dict[str, Any] = json.loads(answer.events[-1].payload)
            return found


async def test_what_is_for_one_agency_is_sent_to_no_other(own: Mesh) -> None:
    subject = firm()
    await own.register(POLICE, "person_verified", subject=subject)
    follow = "/hutong.api.exchange.v1.EventService/Follow"
    audiences: dict[str, set[str]] = {}
    for who in ("customs/node", "bank/core", "quality/node"):
        stream = own.client(who).stream(follow, event_pb2.FollowRequest(), event_pb2.FollowResponse, timeout=10)
        audiences[who] = {event.audience for event in (await anext(stream)).events}
    assert audiences == {"customs/node": {"customs"}, "bank/core": {"bank"}, "quality/node": set()}


async def test_the_gateways_door_describes_and_watches_nothing(own: Mesh) -> None:
    client = own.client("operator/admin")
    described = await client.unary(
        f"{SOURCE}Describe", record_source_pb2.DescribeRequest(), record_source_pb2.DescribeResponse, timeout=10
    )
    assert [kind.name for kind in described.record_types] == [
        "recognition.Case",
        "recognition.StageEvent",
        "recognition.StageResult",
        "recognition.Task",
    ]
    with pytest.raises(HutongError) as caught:
        await anext(
            own.client(REGISTRY).stream(
                f"{SOURCE}Watch", record_source_pb2.WatchRequest(), record_source_pb2.WatchResponse, timeout=10
            )
        )
    assert caught.value.reason is Reason.CALLER_NOT_LISTED


async def test_a_zones_own_access_list_counts_instead(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    narrow = tmp_path / "access.yaml"
    narrow.write_text("hutong.api.recognition.v1.CaseService: {GetCase: [municipality/*]}\n", encoding="utf-8")
    mesh.changes = {"access": narrow}
    try:
        await mesh.start()
        for who, expected in ((REGISTRY, Reason.CALLER_NOT_LISTED), ("municipality/desk", Reason.NO_PERMIT)):
            with pytest.raises(HutongError) as caught:
                await mesh.get(who, "any")
            assert caught.value.reason is expected
    finally:
        await mesh.stop()


async def test_a_calendar_published_while_it_runs_moves_deadlines_visibly(tmp_path: Path) -> None:
    """A year is published in which everything between here and a deadline is a holiday: who watches is told at once."""
    mesh = Mesh(tmp_path)
    folder = tmp_path / "calendars"
    folder.mkdir()
    mesh.changes = {"calendars": folder}
    try:
        node = await mesh.start()
        subject = firm()
        case_id = await mesh.accepted(subject)
        calendar = node.cases.rulebook.calendars.get("CN")
        before = {s.code: s.clock.due_at.ToDatetime(dt.UTC) for s in (await mesh.get(POLICE, case_id)).stages}
        year = before["E2"].astimezone(calendar.zone).year
        watch = mesh.watch(enterprise(subject), case_id, after=4)
        await anext(watch)
        (folder / "notes.yaml").write_text("no: calendar", encoding="utf-8")
        with pytest.raises(FailedPrecondition):
            raise await broken(node)
        assert node.cases.rulebook.calendars.get("CN") is calendar
        (folder / "notes.yaml").unlink()
        last = dt.date(year, 12, 31)
        every = [(last - dt.timedelta(days=n)).isoformat() for n in range(last.timetuple().tm_yday)]
        published = {"id": "CN", "year": year, "source": "a test", "published": "2020-01-01", "holidays": every}
        (folder / f"CN-{year}.yaml").write_text(json.dumps(published), encoding="utf-8")
        async with asyncio.timeout(10):
            response = await anext(watch)
            while response.event.stage_event != case_pb2.STAGE_EVENT_KIND_RECOMPUTE:
                response = await anext(watch)
        assert response.event.stage_code == "E2"
        assert response.event.due_before.ToDatetime(dt.UTC) == before["E2"]
        (stage,) = [s for s in (await mesh.get(POLICE, case_id)).stages if s.code == "E2"]
        assert stage.clock.due_at == response.event.due_after
        assert stage.clock.due_at.ToDatetime(dt.UTC) > before["E2"]
        assert stage.clock.calendar == response.event.calendar_id != calendar.label
    finally:
        await mesh.stop()


async def broken(node: RecognitionNode) -> HutongError:
    """Wait until the node has looked at calendars that do not pass."""
    async with asyncio.timeout(10):
        while node.calendar_files.last_error is None:
            await node.calendar_files.poll(node.cases)
    return node.calendar_files.last_error


async def test_what_is_due_is_done_while_nobody_asks(tmp_path: Path) -> None:
    """The scheduler runs in the node: an acceptance that was due weeks ago is taken for given, and so on from there."""
    mesh = Mesh(tmp_path)
    mesh.changes = {"backdating": dt.timedelta(days=60), "tick": dt.timedelta(milliseconds=100)}
    try:
        await mesh.start()
        long_ago = now() - dt.timedelta(days=50)
        view = await mesh.submit(who=CUSTOMS, subject=firm(), procedure="AEO-CERT", applied_at=long_ago)
        seen: list[tuple[str, int]] = []
        async with asyncio.timeout(10):
            async for response in mesh.watch(TAX, view.case.case_id):
                seen.append((response.event.stage_code, response.event.stage_event))
                if seen[-1][1] == case_pb2.STAGE_EVENT_KIND_REMIND and seen[-1][0] == "A2a":
                    break
        assert ("A1", case_pb2.STAGE_EVENT_KIND_DEEMED) in seen
    finally:
        await mesh.stop()
