"""Nothing leaves a node before its log holds it: answers with receipts, refusals with reasons."""

import asyncio
import base64
from pathlib import Path

import pytest

from hutong.api.customs.v1 import declaration_pb2, service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from hutong.api.log.v1 import log_pb2
from services.kit import jurisdiction
from services.kit.department import DepartmentNode
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.host import Host
from services.kit.log import masks, receipts
from services.kit.log.openings import check_opening
from services.kit.policy.reload import PolicyFiles
from tests.exchange.mesh import EXPLAIN, QUERY, ROOMS, STREAM, Mesh, question
from tests.exchange.records import CLEARED, EXPORTER, PENDING, declaration
from tests.recording.bed import broken, everything, included, key_of, log_of, newest, raw
from tests.zone import ZONE

SUBJECT = f"cn.uscc:{EXPORTER}"
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE", "case_ref": "CASE-7", "on_behalf_of": "W-12"}
RISK = {"purpose": "P-RISK", "legal_basis": "CN-CUSTOMS-RISK"}
CUSTOMS = "/hutong.api.customs.v1.CustomsService/"
WATCH = "/hutong.api.exchange.v1.RecordSourceService/Watch"
TAX = f"spiffe://{ZONE}/taxation/refund"


def asked(*selections: str, **context: str) -> federation_pb2.QueryRequest:
    return question(SUBJECT, *(selections or ("customs.Declaration",)), **(context or REBATE))


def gateway_of(mesh: Mesh) -> Host:
    assert mesh.gateway is not None
    return mesh.gateway.host


async def test_an_answer_is_the_bytes_that_the_log_has_the_digest_of(mesh: Mesh) -> None:
    host = gateway_of(mesh)
    answered = receipts.split(await raw(mesh.client("taxation/refund"), QUERY, asked()), federation_pb2.QueryResponse)
    receipts.verify(answered.receipt, key_of(host))
    logged = await log_of(host).entry(answered.receipt.index)
    entry = receipts.verify_entry(answered.receipt, logged.data)
    assert entry.answer_digest == answered.digest
    assert (entry.rpc, entry.caller, entry.via) == (QUERY, TAX, "")
    assert (entry.purpose, entry.legal_basis, entry.outcome) == (*list(REBATE.values())[:2], log_pb2.OUTCOME_ANSWERED)
    assert entry.query_id == federation_pb2.QueryResponse.FromString(answered.answer).query_id


async def test_a_receipt_becomes_a_proof_of_inclusion(mesh: Mesh) -> None:
    host, client = gateway_of(mesh), mesh.client("taxation/refund")
    first = receipts.split(await raw(client, QUERY, asked()), federation_pb2.QueryResponse)
    await raw(client, QUERY, asked())
    shown = await included(client, host, first.receipt)
    assert shown.checkpoint.checkpoint.size > first.receipt.index + 1
    first.receipt.leaf_hash = bytes(32)
    with pytest.raises(HutongError) as refused:
        await included(client, host, first.receipt)
    assert refused.value.reason is Reason.RECEIPT_INVALID


async def test_every_concurrent_answer_has_an_entry_of_its_own(mesh: Mesh) -> None:
    host, client = gateway_of(mesh), mesh.client("taxation/refund")
    answers = await asyncio.gather(*(raw(client, QUERY, asked()) for _ in range(40)))
    found = [receipts.split(answer, federation_pb2.QueryResponse) for answer in answers]
    assert len({each.receipt.index for each in found}) == 40
    for each in found:
        logged = await log_of(host).entry(each.receipt.index)
        assert receipts.verify_entry(each.receipt, logged.data).answer_digest == each.digest


async def test_the_department_logs_who_asked_through_which_gateway(mesh: Mesh) -> None:
    host = mesh.departments["customs"].host
    answer = await mesh.client("taxation/refund").unary(QUERY, asked(), federation_pb2.QueryResponse, timeout=5)
    entry = await newest(host)
    assert (entry.caller, entry.via) == (TAX, f"spiffe://{ZONE}/gateway/main")
    assert (entry.query_id, entry.purpose) == (answer.query_id, "P-REBATE")
    # The gateway tells the same story, under the same id.
    assert (await newest(gateway_of(mesh))).query_id == answer.query_id
    (given,) = entry.disclosures
    assert (given.record_type, given.rows) == ("customs.Declaration", 1)
    assert [(named.commitment, named.rows) for named in given.named] == [(0, 1)]


async def test_whom_it_is_about_stands_in_the_opening_only(mesh: Mesh) -> None:
    host = mesh.departments["customs"].host
    await raw(mesh.client("taxation/refund"), QUERY, asked())
    index = max(await log_of(host).find_subject("cn.uscc", EXPORTER))
    logged, opening = await log_of(host).entry(index), await log_of(host).opening(index)
    assert opening is not None
    check_opening(logged.entry, opening)
    assert list(opening.subjects) == [SUBJECT]
    assert (opening.case_ref, opening.on_behalf_of) == ("CASE-7", "W-12")
    for secret in (EXPORTER, "CASE-7", "W-12", CLEARED):
        assert secret.encode() not in logged.data


async def test_what_was_decided_stands_before_the_entry_that_names_it(mesh: Mesh) -> None:
    host = mesh.departments["customs"].host
    await raw(mesh.client("taxation/refund"), QUERY, asked())
    entries = [each.entry for each in await log_of(host).entries(0, 4096)]
    digest = next(entry for entry in reversed(entries) if entry.disclosures).disclosures[0].mask_digest
    first = next(at for at, entry in enumerate(entries) for given in entry.disclosures if given.mask_digest == digest)
    texts = [entry.mask for entry in entries[:first] if entry.mask.digest == digest]
    assert len(texts) == 1
    assert sum(entry.mask.digest == digest for entry in entries) == 1
    assert {d.field for d in masks.decisions_of(texts[0])} >= {"declaration_no", "lines.hs10"}
    assert "overseas_party_name~initials" in masks.paths_given(texts[0])
    archived = await log_of(host).texts([digest.hex(), texts[0].policy_version])
    assert sorted(text.kind for text in archived) == ["mask", "policy"]
    assert masks.read(archived[0].text) == texts[0]


async def test_changed_policies_are_archived_before_they_decide(own: Mesh) -> None:
    host, node = own.departments["customs"].host, own.departments["customs"]
    before = node.policy_files.policies.of("customs").version
    own.add_policy(
        "customs", '@id("F-ALL") forbid (principal, action, resource in Hutong::RecordType::"customs.Penalty");'
    )
    reader = own.client("taxation/refund")
    async with asyncio.timeout(20):
        while node.policy_files.policies.of("customs").version == before:
            await asyncio.to_thread(int)
    await raw(reader, QUERY, asked())
    found = await log_of(host).texts([before, node.policy_files.policies.of("customs").version])
    assert [text.kind for text in found] == ["policy", "policy"]


async def test_a_typed_answer_names_the_enterprise_of_a_record_found_by_its_key(mesh: Mesh) -> None:
    host = mesh.departments["customs"].host
    request = service_pb2.GetDeclarationRequest(
        name=f"declarations/{CLEARED}", context=exchange_pb2.RequestContext(**REBATE), fields=["declaration_no"]
    )
    client = mesh.client("taxation/refund", "customs")
    answered = receipts.split(
        await raw(client, f"{CUSTOMS}GetDeclaration", request), service_pb2.GetDeclarationResponse
    )
    assert not service_pb2.GetDeclarationResponse.FromString(answered.answer).declaration.trader_uscc
    assert answered.receipt.index in await log_of(host).find_subject("cn.uscc", EXPORTER)


async def test_what_a_caller_got_only_as_reasons_is_logged_as_answered_with_no_row(mesh: Mesh) -> None:
    host = gateway_of(mesh)
    await raw(mesh.client("taxation/refund"), QUERY, asked(**RISK))
    denied = await newest(host)
    await raw(mesh.client("taxation/refund"), EXPLAIN, federation_pb2.ExplainRequest(query=asked()))
    explained = await newest(host)
    assert [(entry.rpc, entry.outcome) for entry in (denied, explained)] == [
        (QUERY, log_pb2.OUTCOME_ANSWERED),
        (EXPLAIN, log_pb2.OUTCOME_ANSWERED),
    ]
    assert [given.rows for entry in (denied, explained) for given in entry.disclosures] == [0, 0]


async def test_refusals_are_logged_with_their_reasons(mesh: Mesh) -> None:
    host = gateway_of(mesh)
    person = "11010519491231002X"
    cases: list[tuple[str, federation_pb2.QueryRequest | bytes, Reason, str]] = [
        ("visitor/app", asked(), Reason.CALLER_NOT_LISTED, ""),
        ("taxation/refund", b"\xff\xff", Reason.MALFORMED_REQUEST, ""),
        ("taxation/refund", asked(purpose="P-NONE", legal_basis="CN-VAT-REBATE"), Reason.PURPOSE_UNKNOWN, "P-NONE"),
        ("taxation/refund", asked(purpose=person, legal_basis="张三"), Reason.PURPOSE_UNKNOWN, ""),
        ("taxation/refund", asked("customs.Nothing", **REBATE), Reason.RECORD_TYPE_UNKNOWN, "P-REBATE"),
    ]
    for who, request, reason, purpose in cases:
        with pytest.raises(HutongError) as refused:
            await raw(mesh.client(who), QUERY, request)
        assert refused.value.reason is reason
        entry = await newest(host)
        assert (entry.outcome, entry.reason, entry.rpc) == (log_pb2.OUTCOME_REFUSED, reason, QUERY)
        assert (entry.caller, entry.purpose) == (f"spiffe://{ZONE}/{who}", purpose)
        assert not entry.answer_digest


async def test_a_refusal_of_the_policy_says_what_was_decided_and_gave_nothing(mesh: Mesh) -> None:
    host = mesh.departments["customs"].host
    request = service_pb2.ListDeclarationsRequest(subject=asked().subject, context=exchange_pb2.RequestContext(**RISK))
    with pytest.raises(HutongError):
        await raw(mesh.client("taxation/refund", "customs"), f"{CUSTOMS}ListDeclarations", request)
    entry = await newest(host)
    assert (entry.outcome, entry.reason) == (log_pb2.OUTCOME_REFUSED, Reason.NO_PERMIT)
    assert [(given.record_type, given.rows) for given in entry.disclosures] == [("customs.Declaration", 0)]
    assert len(entry.subject_commitments) == 1


async def test_every_section_of_a_stream_has_a_receipt(mesh: Mesh) -> None:
    host = gateway_of(mesh)
    request = federation_pb2.StreamQueryRequest(query=asked("customs.Declaration", "taxation.VatFiling", **REBATE))
    found = [
        message
        async for message in mesh.client("taxation/refund").stream(
            STREAM, request, federation_pb2.StreamQueryResponse, timeout=10
        )
    ]
    assert len(found) == 2
    for message in found:
        receipts.verify(message.receipt, key_of(host))
        logged = await log_of(host).entry(message.receipt.index)
        (given,) = logged.entry.disclosures
        assert (given.record_type, given.rows) == (message.section.record_type, len(message.section.records))
        assert logged.entry.query_id == message.query_id


async def test_a_watch_logs_its_changes_and_not_that_it_lives_and_its_end(own: Mesh) -> None:
    host = own.departments["customs"].host
    request = record_source_pb2.WatchRequest(
        context=exchange_pb2.RequestContext(**REBATE),
        selection=exchange_pb2.Selection(record_type="customs.Declaration", fields=["declaration_no"]),
    )
    client = own.client("taxation/refund", "customs")
    watch = client.stream(WATCH, request, record_source_pb2.WatchResponse, timeout=30)
    lives = await anext(watch)
    assert not lives.records
    assert not lives.HasField("receipt")
    assert not await everything(host)
    await own.load("customs", [declaration(PENDING, EXPORTER, declaration_pb2.DECLARATION_STATUS_CLEARED)])
    changed = await anext(watch)
    receipts.verify(changed.receipt, key_of(host))
    (entry,) = await everything(host)
    assert [(given.rows, len(given.named)) for given in entry.disclosures] == [(1, 1)]
    forbid = 'forbid (principal, action, resource in Hutong::RecordType::"customs.Declaration");'
    own.add_policy("customs", f'@id("F-ALL") {forbid}')
    with pytest.raises(HutongError) as ended:
        await anext(watch)
    entry = await newest(host)
    assert (entry.rpc, entry.outcome, entry.reason) == (WATCH, log_pb2.OUTCOME_REFUSED, ended.value.reason)


async def test_nothing_is_answered_that_cannot_be_logged(own: Mesh) -> None:
    host, client = gateway_of(own), own.client("taxation/refund")
    await raw(client, QUERY, asked())
    before = log_of(host).size
    async with broken(host):
        for method, request in ((QUERY, asked()), (EXPLAIN, federation_pb2.ExplainRequest(query=asked()))):
            with pytest.raises(HutongError) as refused:
                await raw(client, method, request)
            assert refused.value.reason is Reason.LOG_UNAVAILABLE
        with pytest.raises(HutongError) as refused:
            await raw(client, QUERY, asked("customs.Nothing", **REBATE))
        assert refused.value.reason is Reason.LOG_UNAVAILABLE
        streamed = federation_pb2.StreamQueryRequest(query=asked())
        with pytest.raises(HutongError) as refused:
            await anext(client.stream(STREAM, streamed, federation_pb2.StreamQueryResponse, timeout=10))
        assert refused.value.reason is Reason.LOG_UNAVAILABLE
    assert log_of(host).size == before
    answered = receipts.split(await raw(client, QUERY, asked()), federation_pb2.QueryResponse)
    assert answered.receipt.index == before


async def test_a_department_that_cannot_log_gives_the_gateway_nothing(own: Mesh) -> None:
    async with broken(own.departments["customs"].host):
        answer = await own.client("taxation/refund").unary(QUERY, asked(), federation_pb2.QueryResponse, timeout=5)
    (section,) = answer.sections
    assert section.status == exchange_pb2.SECTION_STATUS_UNAVAILABLE
    assert not section.records


async def test_a_stream_ends_at_the_message_that_cannot_be_logged(own: Mesh) -> None:
    host = own.departments["customs"].host
    request = record_source_pb2.WatchRequest(
        context=exchange_pb2.RequestContext(**REBATE),
        selection=exchange_pb2.Selection(record_type="customs.Declaration", fields=["declaration_no"]),
    )
    watch = own.client("taxation/refund", "customs").stream(WATCH, request, record_source_pb2.WatchResponse, timeout=30)
    await anext(watch)
    async with broken(host):
        await own.load("customs", [declaration(PENDING, EXPORTER, declaration_pb2.DECLARATION_STATUS_CLEARED)])
        with pytest.raises(HutongError) as ended:
            await anext(watch)
    assert ended.value.reason is Reason.LOG_UNAVAILABLE


async def test_a_node_that_gives_data_does_not_start_without_a_log(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    config = mesh.config("customs", "127.0.0.1:0").model_copy(update={"log": None})
    node = DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), mesh.zone.frame(config))
    try:
        with pytest.raises(FailedPrecondition) as refused:
            await node.start()
    finally:
        await node.stop()
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert "[log]" in refused.value.message


def test_policies_do_not_decide_before_the_log_can_keep_them(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    config = mesh.config("customs", "127.0.0.1:0")
    host, owned, pack = mesh.zone.frame(config), ROOMS["customs"].catalogue(), jurisdiction.load("cn")
    with pytest.raises(AssertionError, match="before the log is open"):
        host.policies(PolicyFiles(config.policy.files, owned, pack), config.policy, owned, pack, bytes(32))


async def test_a_receipt_of_another_log_or_index_does_not_verify(mesh: Mesh) -> None:
    host = gateway_of(mesh)
    receipt = receipts.split(
        await raw(mesh.client("taxation/refund"), QUERY, asked()), federation_pb2.QueryResponse
    ).receipt
    for change in ({"index": receipt.index + 1}, {"origin": f"{ZONE}/customs/node"}, {"signature": bytes(64)}):
        forged = log_pb2.Receipt()
        forged.CopyFrom(receipt)
        for name, value in change.items():
            setattr(forged, name, value)
        with pytest.raises(HutongError) as refused:
            receipts.verify(forged, key_of(host))
        assert refused.value.reason is Reason.RECEIPT_INVALID
    with pytest.raises(HutongError) as refused:
        receipts.split(federation_pb2.QueryResponse(query_id="x").SerializeToString(), federation_pb2.QueryResponse)
    assert refused.value.reason is Reason.RECEIPT_INVALID


def test_what_a_receipt_signs_is_written_as_the_contract_says() -> None:
    root = bytes(range(32))
    text = receipts.signed_text("z/a/s", 7, 3, root)
    assert text == b"hutong receipts\nz/a/s\n7\n3\n" + base64.b64encode(root) + b"\n"
