"""A gateway that asks a gateway: the other zone's policies decide, its word is kept, its proof comes along."""

import json
import secrets
from pathlib import Path

import pytest
from typer.testing import CliRunner

from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from gateway.abroad import Abroad
from gateway.words import Speaker
from gateway.zones import QUERY as ASK
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, zone_pb2
from hutong.api.log.v1 import log_pb2
from services.cli.log import app
from services.cli.logs import receipt_files
from services.cli.question import request as written
from services.kit.caller import Caller
from services.kit.client import Client
from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.kit.log import elsewhere, keys, merkle, reading, receipts
from services.kit.records import catalogue
from services.kit.sessions.queries import QuerySession
from tests.exchange.mesh import EXPLAIN, QUERY, STREAM, Mesh, question, records
from tests.exchange.records import CLEARED
from tests.zone import now
from tests.zones.world import FAR, GIVEN, INLAND, PORT, REFUND, SUBJECT, WHY, World, door, zoned

OK = exchange_pb2.SECTION_STATUS_OK
PARTIAL = exchange_pb2.SECTION_STATUS_PARTIAL
DENIED = exchange_pb2.SECTION_STATUS_DENIED
DECLARATION = f"{INLAND}/customs.Declaration:{GIVEN}"


async def test_one_question_goes_to_this_zone_and_to_another(zones: World) -> None:
    answer = await zones.ask("taxation.TaxpayerStatus", DECLARATION)
    own, other = answer.sections
    assert (own.record_type, own.zone) == ("taxation.TaxpayerStatus", "")
    assert (other.record_type, other.agency, other.zone, other.status) == ("customs.Declaration", "customs", INLAND, OK)
    (record,) = records(other)
    assert record.declaration_no == CLEARED
    assert {name for decision in other.decisions for name in decision.policy_ids} == {"Z-port"}


async def test_a_zone_beyond_is_asked_through_the_one_between(zones: World) -> None:
    answer = await zones.ask(f"{FAR}/customs.Declaration:{GIVEN}", DECLARATION)
    assert [(s.zone, s.status, len(s.records)) for s in answer.sections] == [(FAR, OK, 1), (INLAND, OK, 1)]
    assert [(p.zone, p.answered_by) for p in answer.provenance] == [(INLAND, FAR), (FAR, FAR), (INLAND, INLAND)]


async def test_a_question_to_several_zones_is_one_trace(zones: World) -> None:
    asked = zoned(question(SUBJECT, f"{FAR}/customs.Declaration:{GIVEN}", DECLARATION, **WHY))
    trace = secrets.randbits(128)
    parent = f"00-{trace:032x}-{1:016x}-01"
    client = zones.port.client(REFUND)
    await client.unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5, traceparent=parent)
    port, inland, far = (
        [span for span in mesh.zone.finished() if span.trace == trace] for mesh in (zones.port, zones.inland, zones.far)
    )
    (query,) = port
    assert (query.name.rpartition("/")[2], query.parent) == ("Query", 1)
    # From hop to hop, to the department at its end; the zone between carries one part on and answers the other.
    above = {span.id: span.name.rpartition("/")[2] for span in (query, *inland, *far)}
    hops = [sorted((above[span.parent], above[span.id]) for span in spans) for spans in (inland, far)]
    assert hops == [
        [("Query", "QueryZone"), ("Query", "QueryZone"), ("QueryZone", "Fetch")],
        [("QueryZone", "Fetch"), ("QueryZone", "QueryZone")],
    ]


async def test_what_its_policy_keeps_back_is_refused_field_by_field(zones: World) -> None:
    answer = await zones.ask(f"{INLAND}/customs.Declaration:declaration_no,gross_wt_kg")
    (section,) = answer.sections
    assert section.status == PARTIAL
    assert {d.field: d.reason for d in section.decisions} == {
        "declaration_no": Reason.PERMITTED,
        "gross_wt_kg": Reason.NO_PERMIT,
    }
    assert not any(record.HasField("gross_wt_kg") for record in records(section))


async def test_a_permit_that_names_no_zone_is_for_none(zones: World) -> None:
    """Whoever asks there for a refund gets the weight; but one of another zone is not just whoever."""
    (section,) = (await zones.ask(f"{INLAND}/customs.Declaration:gross_wt_kg")).sections
    assert (section.status, section.reason) == (DENIED, Reason.NO_PERMIT)
    own = question(SUBJECT, "customs.Declaration:gross_wt_kg", **WHY)
    answer = await zones.inland.client("quality/desk").unary(QUERY, own, federation_pb2.QueryResponse, timeout=5)
    (record,) = records(answer.sections[0])
    assert record.HasField("gross_wt_kg")


@pytest.mark.parametrize(
    ("who", "selection", "context", "reason"),
    [
        ("commerce/registry", DECLARATION, {}, Reason.CALLER_NOT_LISTED),  # this zone lets it not ask
        ("customs/release", DECLARATION, {}, Reason.CALLER_NOT_LISTED),  # the other zone lets it not ask
        ("customs/release", f"{FAR}/customs.Declaration", {}, Reason.CALLER_NOT_LISTED),  # nor the one beyond
    ],
    ids=["own-list", "its-list", "beyond"],
)
async def test_who_may_not_ask_is_told_so(
    zones: World, who: str, selection: str, context: dict[str, str], reason: Reason
) -> None:
    (section,) = (await zones.ask(selection, who=who, **context)).sections
    assert (section.status, section.reason, list(section.records)) == (DENIED, reason, [])


async def test_an_authorization_ends_at_the_border(zones: World) -> None:
    """It is not even sent; and were it sent, it would be refused before anything is looked for."""
    inland = zones.port.zones[INLAND]
    context = exchange_pb2.RequestContext(**WHY, authorization_id="0" * 32)
    caller = Caller(f"spiffe://{PORT}/{REFUND}", "taxation", "refund")
    kind = catalogue.load().get("customs.Declaration")
    part = Abroad({INLAND: inland}).part(0, exchange_pb2.Selection(zone=INLAND), kind, caller, context)
    assert (part.denied, part.reason) == (True, Reason.AUTHORIZATION_UNSUPPORTED)
    request = zone_pb2.QueryZoneRequest(
        query_id="0" * 32, selections=[exchange_pb2.Selection(record_type="customs.Declaration")]
    )
    request.subject.CopyFrom(question(SUBJECT).subject)
    files = zones.port.zone.files("gateway/main")
    credentials = SvidFiles(files.certificate, files.key, zones.inland.zone.authority.layout.bundle)
    client = Client(door(zones.inland), SpiffeId.of(INLAND, "gateway", "main"), credentials)
    svid = credentials.load()
    Speaker(now).ask(svid, request, caller, context, (INLAND, INLAND))
    try:
        with pytest.raises(PermissionDenied) as caught:
            await client.unary(ASK, request, zone_pb2.QueryZoneResponse, timeout=5, svid=svid)
        assert caught.value.reason == Reason.AUTHORIZATION_UNSUPPORTED
    finally:
        await client.close()


def test_a_selection_names_its_zone() -> None:
    asked = written(
        ["P-REBATE"], "B", SUBJECT, [DECLARATION, "taxation.TaxpayerStatus"], [f"{INLAND}/customs.Declaration:x = 1"]
    )
    assert [(s.zone, s.record_type, s.filter) for s in asked.selections] == [
        (INLAND, "customs.Declaration", "x = 1"),
        ("", "taxation.TaxpayerStatus", ""),
    ]


async def test_a_zone_nobody_knows_is_a_mistake(zones: World) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await zones.ask("inland.exampel/customs.Declaration")
    assert caught.value.reason == Reason.ZONE_UNKNOWN
    assert INLAND in caught.value.message


async def test_explained_by_the_zone_that_would_decide(zones: World) -> None:
    asked = zoned(question(SUBJECT, "taxation.TaxpayerStatus", f"{INLAND}/customs.Declaration", **WHY))
    request = federation_pb2.ExplainRequest(query=asked)
    answer = await zones.port.client(REFUND).unary(EXPLAIN, request, federation_pb2.ExplainResponse, timeout=5)
    own, other = answer.sections
    assert (own.agency, own.zone, len(own.decisions) > 1) == ("taxation", "", True)
    assert other.zone == INLAND
    given = {d.field for d in other.decisions if d.verdict != exchange_pb2.VERDICT_REFUSED}
    assert given == {"declaration_no", "trader_uscc", "total_value_cny"}
    assert not other.records
    assert [p.zone for p in answer.provenance] == [INLAND]


async def test_streamed_and_by_session_it_is_the_same_answer(zones: World) -> None:
    asked = zoned(question(SUBJECT, "taxation.TaxpayerStatus", DECLARATION, **WHY))
    client = zones.port.client(REFUND)
    whole = (await client.unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5)).sections[1]
    request = federation_pb2.StreamQueryRequest(query=asked, all_pages=True)
    streamed = {
        part.section.zone: part
        async for part in client.stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=5)
    }
    session = QuerySession(client.channel())
    (_, asked_by_session) = (await session.query(asked, 5)).sections
    await session.close()
    for section in (streamed[INLAND].section, asked_by_session):
        section.as_of.CopyFrom(whole.as_of)
        assert section == whole
    assert [p.zone for p in streamed[INLAND].provenance] == [INLAND]
    assert not streamed[""].provenance


async def test_each_zone_can_prove_its_part(zones: World, tmp_path: Path) -> None:
    """What the caller keeps holds each gateway's answer to the byte, under the receipt of that gateway's log."""
    asked = zoned(question(SUBJECT, f"{FAR}/customs.Declaration:{GIVEN}", DECLARATION, **WHY))
    raw = await zones.port.client(REFUND).raw(QUERY, asked, timeout=5)
    found = list(elsewhere.answers(raw))
    assert [(each.provenance.zone, each.provenance.answered_by) for each in found] == [
        (INLAND, FAR),
        (FAR, FAR),
        (INLAND, INLAND),
    ]
    for each in found:
        mesh = zones.inland if each.provenance.zone == INLAND else zones.far
        answered = receipts.split(each.answer, zone_pb2.QueryZoneResponse)
        assert each.provenance.gateway == f"spiffe://{mesh.zone.name}/gateway/main"
        receipts.verify(answered.receipt, keys.find(mesh.zone.folder / "logs" / "keys", answered.receipt.origin))
        entry = await logged(mesh, answered.receipt.index)
        assert merkle.leaf_hash(entry) == answered.receipt.leaf_hash
        assert receipts.verify_entry(answered.receipt, entry).answer_digest == answered.digest


async def test_their_answers_are_taken_out_of_a_saved_one(zones: World, tmp_path: Path) -> None:
    asked = zoned(question(SUBJECT, f"{FAR}/customs.Declaration:{GIVEN}", **WHY))
    saved = tmp_path / "answer"
    saved.write_bytes(await zones.port.client(REFUND).raw(QUERY, asked, timeout=5))
    done = CliRunner().invoke(app, ["zones", str(saved), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    assert [(row["zone"], row["part"]) for row in json.loads(done.output)] == [
        (INLAND, f"carried on to {FAR}"),
        (FAR, "answered"),
    ]
    written = tmp_path / "out" / f"{FAR}-for-{FAR}.answer"
    assert receipt_files.read(written).receipt.origin == f"{FAR}/gateway/main"


async def logged(mesh: Mesh, index: int) -> bytes:
    log = mesh.host("gateway").log
    assert log is not None
    (entry,) = await log.database.read(lambda connection: reading.entries(connection, index, 1))
    return entry.data


async def test_logs_say_who_asked_from_where(zones: World) -> None:
    answer = await zones.ask(f"{FAR}/customs.Declaration:{GIVEN}")
    carried, answered = answer.provenance
    between = log_pb2.LogEntry.FromString(await logged(zones.inland, carried.receipt.index))
    at_end = log_pb2.LogEntry.FromString(await logged(zones.far, answered.receipt.index))
    for entry in (between, at_end):
        assert (entry.caller, entry.abroad, entry.query_id) == (f"spiffe://{PORT}/{REFUND}", True, answer.query_id)
        assert entry.purpose == "P-REBATE"
        assert len(entry.subject_commitments) >= 1
    assert between.via == f"spiffe://{PORT}/gateway/main"
    assert at_end.via == f"spiffe://{INLAND}/gateway/main"
    assert [d.record_type for d in between.disclosures] == [f"{FAR}/customs.Declaration"]
    assert [(d.record_type, d.rows) for d in at_end.disclosures] == [("customs.Declaration", 1)]
