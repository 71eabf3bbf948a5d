"""What a call began goes on, in its trace, where the event that came of it is kept, whatever brought it there."""

import asyncio
import datetime as dt
import io
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hutong.api.exchange.v1 import event_pb2
from services.kit.config import NatsPublishSection, NatsSection, TelemetrySection
from services.kit.events.follower import read_events
from services.kit.events.inbox import Inbox
from services.kit.events.seam import Batch, Event
from services.kit.events.service import to_proto
from services.kit.events.traced import KEEP, Traced
from services.kit.records.database import Database
from services.kit.telemetry import Telemetry
from tests.events.bed import SOURCE, create_inbox
from tests.events.natsd import Natsd
from tests.kit.test_telemetry import Collector, collecting, logging_to
from tests.recognition.mesh import POLICE, REGISTRY, Mesh, firm

INBOX = "/hutong.api.exchange.v1.InboxService/ListInboxEvents"
APPEND = "hutong.api.recognition.v1.CaseService/AppendStageEvent"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-00"
CONSUMER = 5
"""`SPAN_KIND_CONSUMER` of OTLP."""


def of(trace: str, collector: Collector) -> list[tuple[str, Any]]:
    """List the spans of a trace, each with its node."""
    return [(node, span) for node, span in collector.heard if span.trace_id.hex() == trace[3:35]]


@asynccontextmanager
async def mesh_with(carrier: str, folder: Path, collector: str) -> AsyncGenerator[Mesh]:
    """Run the recognition service, and a department that follows it."""
    mesh = Mesh(folder)
    mesh.telemetry = TelemetrySection(otlp=collector)
    server = Natsd(mesh.zone, folder / "nats", SOURCE, ["publicsecurity/node"])
    if carrier == "nats":
        server.start()
        mesh.nats = NatsSection(servers=[server.address])
        mesh.changes = {"nats": NatsPublishSection(servers=[server.address], readers=["publicsecurity/node"])}
    try:
        await mesh.start()
        await mesh.start_department("publicsecurity")
        yield mesh
    finally:
        await mesh.stop()
        server.stop()


async def told(mesh: Mesh, trace: str) -> set[int]:
    """Bring a case to where the police is told of it; gives the numbers of the events that it then has."""
    subject = firm()
    case_id = (await mesh.submit(subject=subject)).case.case_id
    await mesh.passed(REGISTRY, case_id, "E0", "name_reserved", start=False, subject=subject)
    await mesh.passed(REGISTRY, case_id, "E1", "case_accepted", subject=subject, officer="W-7", traceparent=trace)
    request, answer = event_pb2.ListInboxEventsRequest(key=case_id), event_pb2.ListInboxEventsResponse()
    # Those of the call that came last, all in one transaction.
    async with asyncio.timeout(30):
        while not any(each.kind == "result.issued" for each in answer.events):
            client = mesh.client(POLICE, "publicsecurity")
            answer = await client.unary(INBOX, request, event_pb2.ListInboxEventsResponse, timeout=10)
    assert not any(each.traceparent for each in answer.events)
    return {each.sequence for each in answer.events}


@pytest.mark.parametrize("carrier", ["grpc", "nats"])
async def test_an_event_goes_on_in_the_trace_of_its_call(carrier: str, tmp_path: Path) -> None:
    said = io.StringIO()
    async with collecting() as (collector, address):
        with logging_to(said, level="debug"):
            async with mesh_with(carrier, tmp_path, address) as mesh:
                sampled, unsampled = await told(mesh, SAMPLED), await told(mesh, UNSAMPLED)
                department = mesh.departments["publicsecurity"].host.telemetry
                readings = {name: value for name, _, value in department.readings()}
    if carrier == "nats":
        assert readings["hutong_events_carried"] >= len(sampled | unsampled)
    calls = {span.span_id: span for node, span in of(SAMPLED, collector) if node == "hutong/recognition/node"}
    kept = [span for node, span in of(SAMPLED, collector) if node == "hutong/publicsecurity/node"]
    assert {span.name for span in calls.values()} == {APPEND}
    assert {span.name for span in kept} == {KEEP}
    assert {span.kind for span in kept} == {CONSUMER}
    assert {span.parent_span_id for span in kept} <= calls.keys()
    numbers = [each.value.int_value for span in kept for each in span.attributes if each.key.endswith("sequence")]
    assert sorted(numbers) == sorted(sampled)
    for span in kept:
        # It was kept in that time, after it was put.
        assert calls[span.parent_span_id].start_time_unix_nano < span.start_time_unix_nano < span.end_time_unix_nano
    assert of(UNSAMPLED, collector) == []
    lines = [line for line in map(json.loads, said.getvalue().splitlines()) if line["message"] == "An event was kept"]
    for trace, told_of in ((SAMPLED, sampled), (UNSAMPLED, unsampled)):
        assert {line["sequence"] for line in lines if line["trace_id"] == trace[3:35]} == told_of
    assert {line["span_id"] for line in lines if line["sequence"] in sampled} == {span.span_id.hex() for span in kept}


@contextmanager
def tracing(sample: float) -> Generator[tuple[Telemetry, InMemorySpanExporter]]:
    spans = InMemorySpanExporter()
    telemetry = Telemetry("customs/node", TelemetrySection(), processor=SimpleSpanProcessor(spans), sample=sample)
    yield telemetry, spans
    telemetry.close()


def an_event(sequence: int, traceparent: str, audience: str = "customs") -> Event:
    moment = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
    return Event(f"e{sequence}", sequence, audience, "k", "c", moment, "{}", SOURCE, traceparent)


async def test_what_comes_again_leaves_one_span_and_what_is_refused_none(sqlite_url: str) -> None:
    create_inbox(sqlite_url)
    database, said = Database(sqlite_url), io.StringIO()
    batch = Batch((an_event(1, SAMPLED), an_event(2, UNSAMPLED), an_event(3, SAMPLED, "taxation"), an_event(4, "")), 4)
    with tracing(0.0) as (telemetry, spans), logging_to(said):
        sink = Traced(Inbox(database, "customs"), telemetry)
        assert [event.sequence for event in await sink.keep(SOURCE, batch)] == [1, 2, 4]
        # As it comes from a replica of the source that knows nothing of traces yet, and from one that says otherwise.
        again = Batch((an_event(1, ""), an_event(2, SAMPLED)), 4)
        assert await sink.keep(SOURCE, again) == ()
        assert await sink.position(SOURCE) == 4
    database.close()
    (span,) = spans.get_finished_spans()
    assert span.attributes == {"hutong.event.source": SOURCE, "hutong.event.sequence": 1, "hutong.event.kind": "k"}
    (line,) = map(json.loads, said.getvalue().splitlines())
    assert (line["message"], line["trace_id"]) == ("An event was refused", SAMPLED[3:35])


class Broken(SpanProcessor):
    """Takes no span."""

    def on_start(self, *_: object, **__: object) -> None:
        raise ValueError


async def test_a_span_that_cannot_be_made_undoes_nothing(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    create_inbox(sqlite_url)
    database = Database(sqlite_url)
    telemetry = Telemetry("customs/node", TelemetrySection(), processor=Broken(), sample=1.0)
    sink = Traced(Inbox(database, "customs"), telemetry)
    fresh = await sink.keep(SOURCE, Batch((an_event(1, SAMPLED), an_event(2, "")), 2))
    assert [event.sequence for event in fresh] == [1, 2]
    assert [record.message for record in caplog.records] == ["Events were kept that no trace tells of"]
    telemetry.close()
    database.close()


async def test_an_event_of_no_trace_begins_one(sqlite_url: str) -> None:
    create_inbox(sqlite_url)
    database = Database(sqlite_url)
    with tracing(1.0) as (telemetry, spans):
        await Traced(Inbox(database, "customs"), telemetry).keep(SOURCE, Batch((an_event(1, ""), an_event(2, "")), 2))
    database.close()
    first, second = (span.context for span in spans.get_finished_spans())
    assert first is not None
    assert second is not None
    assert first.trace_id != second.trace_id
    assert all(span.parent is None for span in spans.get_finished_spans())


@pytest.mark.parametrize(
    "given",
    ["", "00", SAMPLED.upper(), SAMPLED + "-00", SAMPLED + "\n", "01" + SAMPLED[2:], f"00-{'0' * 32}-{'a' * 16}-01"],
    ids=["none", "short", "capitals", "long", "line", "version", "zero"],
)
def test_what_is_no_trace_is_not_read_as_one(given: str) -> None:
    sent = [to_proto(an_event(1, given)), to_proto(an_event(2, SAMPLED))]
    assert [event.traceparent for event in read_events(sent, SOURCE)] == ["", SAMPLED]
