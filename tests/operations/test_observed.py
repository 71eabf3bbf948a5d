"""A whole mesh under observation: what a collector, a scraper and standard error have of its calls, and what they must
never have.
"""

import io
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import generate_latest

from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, reads_pb2
from services.kit.config import LimitsSection, QuotaSection, TelemetrySection
from services.kit.errors import HutongError
from tests.exchange.mesh import EXPLAIN, QUERY, STREAM, Mesh, question
from tests.exchange.records import CLEARED, EXPORTER, RECORDS
from tests.kit.test_telemetry import Collector, collecting, logging_to
from tests.sessions.talking import Talk, ask, prepare

SUBJECT = f"cn.uscc:{EXPORTER}"
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
TYPES = (
    "commerce.Enterprise",
    "customs.Operator",
    "publicsecurity.SealRegistration",
    "quality.TraceEvent",
    "taxation.TaxpayerStatus",
)
WHO, FIRM = "quality/lab", f"enterprise/{EXPORTER.lower()}"
GET = "/hutong.api.customs.v1.CustomsService/GetDeclaration"
LIST_READS = "/hutong.api.exchange.v1.FederationService/ListReads"
BY_ITSELF = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
IN_SESSION = "00-0bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
"""The caller's own traces."""
STATED = "某某某"
"""What somebody states who says a person's name where he may."""
PERSONAL = (EXPORTER, EXPORTER.lower(), STATED, "示例", "王某", "SAMPLE-0001", "12345678", "officer-secret", CLEARED)


@dataclass
class Day:
    """What was observed."""

    collector: Collector
    said: io.StringIO = field(default_factory=io.StringIO)
    shown: dict[str, str] = field(default_factory=dict[str, str])
    """What Prometheus was shown, by node."""
    read: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Readings by node; those that have labels by their names, one behind the other."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.getvalue().splitlines()]

    def spans(self, parent: str) -> list[tuple[str, Any]]:
        """List the spans of a caller's trace, each with its node."""
        trace = bytes.fromhex(parent[3:35])
        return [(node.removeprefix("hutong/"), span) for node, span in self.collector.heard if span.trace_id == trace]


@pytest.fixture(scope="module")
async def day(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Day]:
    """Run a mesh with everything it can tell turned on, from its first start to its stop."""
    async with collecting() as (collector, address):
        observed = Day(collector)
        with logging_to(observed.said, level="debug"):
            mesh = Mesh(tmp_path_factory.mktemp("observed"))
            mesh.telemetry = TelemetrySection(otlp=address, sample=1.0, log_level="debug")
            few = {"commerce/*": QuotaSection(calls=1), "enterprise/*": QuotaSection(calls=0)}
            mesh.limits = LimitsSection(quotas=few)
            try:
                await begin(mesh)
                await asked(mesh)
                await refused(mesh)
                note(mesh, observed)
            finally:
                await mesh.stop()
        yield observed


async def begin(mesh: Mesh) -> None:
    for agency, records in RECORDS.items():
        await mesh.start(agency)
        await mesh.load(agency, records)
    gateway = await mesh.start_gateway()
    assert gateway.host.telemetry.log_handler is not None
    # All nodes are in this process, so that one of them sends what is logged.
    logging.getLogger().addHandler(gateway.host.telemetry.log_handler)


async def asked(mesh: Mesh) -> None:
    """Ask all five departments, in every way."""
    request, client = question(SUBJECT, *TYPES, **PUBLIC), mesh.client(WHO)
    answer = await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10, traceparent=BY_ITSELF)
    assert {section.agency for section in answer.sections if section.records} == set(RECORDS)
    async with Talk(client) as talk:
        by_session = ask(1, 0, SUBJECT)
        by_session.asks[0].traceparent = IN_SESSION
        talk.say(prepare(0, request), by_session)
        assert len((await talk.answer(1)).sections) == 5
        for number in range(2, 12):
            talk.say(ask(number, 0, SUBJECT))
        for number in range(2, 12):
            await talk.answer(number)
    stream = federation_pb2.StreamQueryRequest(query=request)
    parts = client.stream(STREAM, stream, federation_pb2.StreamQueryResponse, timeout=10)
    assert len([part async for part in parts]) == 5
    explain = federation_pb2.ExplainRequest(query=request)
    await client.unary(EXPLAIN, explain, federation_pb2.ExplainResponse, timeout=10)


async def refused(mesh: Mesh) -> None:
    """Be refused in many ways, with somebody's name wherever one may say something."""
    client = mesh.client(WHO)
    wrong = [
        question(f"cn.uscc:{STATED}", TYPES[0], **PUBLIC),
        question(f"{STATED}:{EXPORTER}", TYPES[0], **PUBLIC),
        question(SUBJECT, f"{TYPES[0]}:{STATED}", **PUBLIC),
        question(SUBJECT, STATED, **PUBLIC),
        question(SUBJECT, TYPES[0], purpose=STATED, legal_basis=STATED),
        question(SUBJECT, TYPES[0], case_ref=STATED, on_behalf_of=STATED, authorization_id=STATED, **PUBLIC),
    ]
    filtered = question(SUBJECT, TYPES[0], **PUBLIC)
    filtered.selections[0].filter = f"legal_rep_name = '{STATED}'"
    for request in [*wrong, filtered]:
        with pytest.raises(HutongError):
            await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    declaration = service_pb2.GetDeclarationRequest(name=f"declarations/{CLEARED}")
    with pytest.raises(HutongError):
        await mesh.client(WHO, "customs").unary(GET, declaration, service_pb2.GetDeclarationResponse, timeout=10)
    listed = reads_pb2.ListReadsRequest(context=exchange_pb2.RequestContext(**PUBLIC))
    listed.subject.scheme, listed.subject.value = "cn.uscc", EXPORTER
    with pytest.raises(HutongError):
        await mesh.client(FIRM).unary(LIST_READS, listed, reads_pb2.ListReadsResponse, timeout=10)
    for _ in range(2):
        with suppress(HutongError):
            request = question(SUBJECT, TYPES[1], **PUBLIC)
            await mesh.client("commerce/desk").unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    # A department that is away.
    await mesh.departments.pop("quality").stop()
    await client.unary(QUERY, question(SUBJECT, *TYPES, **PUBLIC), federation_pb2.QueryResponse, timeout=10)


def note(mesh: Mesh, observed: Day) -> None:
    for name in ("gateway", *mesh.departments):
        telemetry = mesh.host(name).telemetry
        observed.shown[name] = generate_latest(telemetry.registry).decode()
        readings = {".".join((metric, *labels.values())): value for metric, labels, value in telemetry.readings()}
        observed.read[name] = readings


@pytest.mark.parametrize("parent", [BY_ITSELF, IN_SESSION], ids=["by itself", "in a session"])
def test_one_trace_shows_the_gateway_and_every_department(day: Day, parent: str) -> None:
    spans = day.spans(parent)
    (gateway,) = (span for node, span in spans if node == "gateway/main")
    assert (gateway.name, gateway.parent_span_id.hex()) == (QUERY[1:], parent[36:52])
    fetches = [(node, span) for node, span in spans if node != "gateway/main"]
    assert sorted(node for node, _ in fetches) == sorted(f"{agency}/node" for agency in RECORDS)
    for _, span in fetches:
        assert (span.name.rpartition("/")[2], span.parent_span_id) == ("Fetch", gateway.span_id)
        assert gateway.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= gateway.end_time_unix_nano


def test_lines_of_a_call_have_its_trace(day: Day) -> None:
    """Over both ways; and what stands in the one stands in the other."""
    (line,) = (line for line in day.lines if line["message"] == "Department gave no answer")
    assert line["department"] == "quality"
    (heard,) = (r for r in day.collector.lines.heard if r.body.string_value == "Department gave no answer")
    assert (heard.trace_id.hex(), heard.span_id.hex()) == (line["trace_id"], line["span_id"])
    assert {span.span_id for node, span in day.collector.heard if node == "hutong/gateway/main"} >= {heard.span_id}
    assert len(day.collector.lines.heard) > 1


def test_nothing_that_is_told_is_personal(day: Day) -> None:
    """Neither of whom it is asked, nor what is in the answer, nor what anybody stated."""
    logged = "".join(r.SerializeToString().decode("utf-8", "replace") for r in day.collector.lines.heard)
    measured = str(list(day.collector.metrics.heard))
    spans = "".join(span.SerializeToString().decode("utf-8", "replace") for _, span in day.collector.heard)
    told = {"lines": day.said.getvalue(), "logged": logged, "spans": spans, "measured": measured}
    told |= day.shown
    assert not [(where, what) for where, text in told.items() for what in PERSONAL if what in text]
    # There was something to look at.
    assert "Query" in spans
    assert {"info", "warning"} <= {line["level"] for line in day.lines}
    assert "INVALID_ARGUMENT" in day.shown["gateway"]
    (up,) = (line for line in day.lines if "quota" in line["message"] and line["caller"] != "enterprise")
    assert up["caller"] == "commerce/desk"


def test_what_is_kept_is_counted(day: Day) -> None:
    gateway, customs = day.read["gateway"], day.read["customs"]
    # One question by itself, eleven in a session, one of a stream, one with a department away: all of one kind.
    assert gateway["hutong_cache_hits.questions"] >= 11
    assert gateway["hutong_cache_misses.questions"] < gateway["hutong_cache_hits.questions"]
    assert gateway["hutong_cache_hits.contexts"] >= 11
    assert gateway["hutong_cache_misses.masks"] >= 5
    assert customs["hutong_cache_hits.requests"] >= 11
    assert 1 <= customs["hutong_cache_misses.requests"] <= 4
    assert 'hutong_cache_hits_total{cache="questions"}' in day.shown["gateway"]


def test_queues_are_seen(day: Day) -> None:
    for node, readings in day.read.items():
        assert readings["hutong_session_questions"] == 0, node
        # A witness may just have signed its checkpoint.
        assert readings["hutong_store_running.log"] <= 1
        assert readings["hutong_log_waiting"] == 0
    assert day.read["customs"]["hutong_store_running.store"] == 0
    # Short reads of SQLite keep a connection.
    assert 0 <= day.read["customs"]["hutong_store_connections.store"] <= 2
