"""One question across agencies: what comes back, for whom, and why not."""

import datetime as dt
from collections.abc import Callable

import pytest

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.errors import HutongError, InvalidArgument, Reason
from services.kit.records import catalogue
from tests.exchange.mesh import EXPLAIN, QUERY, STREAM, TYPES, Mesh, question, records
from tests.exchange.records import CLEARED, EXPORTER, OTHER, PENDING
from tests.zone import now

OK = exchange_pb2.SECTION_STATUS_OK
PARTIAL = exchange_pb2.SECTION_STATUS_PARTIAL
DENIED = exchange_pb2.SECTION_STATUS_DENIED
NO_RECORD = exchange_pb2.SECTION_STATUS_NO_RECORD

SUBJECT = f"cn.uscc:{EXPORTER}"
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
RISK = {"purpose": "P-RISK", "legal_basis": "CN-CUSTOMS-RISK"}
AEO = {"purpose": "P-AEO", "legal_basis": "CN-CUSTOMS-CREDIT"}


async def ask(mesh: Mesh, who: str, request: federation_pb2.QueryRequest) -> list[exchange_pb2.Section]:
    answer = await mesh.client(who).unary(QUERY, request, federation_pb2.QueryResponse, timeout=5)
    assert answer.query_id
    return list(answer.sections)


async def refused(mesh: Mesh, who: str, request: federation_pb2.QueryRequest) -> HutongError:
    with pytest.raises(HutongError) as refusal:
        await ask(mesh, who, request)
    return refusal.value


def decisions(section: exchange_pb2.Section) -> dict[str, exchange_pb2.FieldDecision]:
    return {decision.field: decision for decision in section.decisions}


async def test_tax_sees_the_cleared_export(mesh: Mesh) -> None:
    (section,) = await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration", **REBATE))
    assert (section.status, section.agency) == (PARTIAL, "customs")
    (found,) = records(section)
    assert found.declaration_no == CLEARED
    assert found.total_value_cny.amount.value == "125000.50"
    assert [line.hs10 for line in found.lines] == ["8471300000", "8471410000"]
    assert found.overseas_party_name not in {"", "Example Trading GmbH"}
    assert not found.gross_wt_kg.value
    assert not found.containers
    assert (found.envelope.key, found.envelope.version) == (CLEARED, 1)


async def test_customs_asks_the_same_and_sees_other_fields(mesh: Mesh) -> None:
    selections = ("taxation.VatFiling", "taxation.TaxpayerStatus", "customs.Operator")
    risk = await ask(mesh, "customs/release", question(SUBJECT, *selections, **RISK))
    aeo = await ask(mesh, "customs/release", question(SUBJECT, *selections, case_ref="AEO-1", **AEO))
    assert [s.status for s in risk][1:] == [DENIED, DENIED]
    assert [s.status for s in aeo] == [DENIED, PARTIAL, DENIED]
    (status,) = records(aeo[1])
    assert status.credit_grade
    assert not status.arrears_amt.amount.value
    assert decisions(aeo[1])["arrears_amt"].reason == Reason.FORBIDDEN


async def test_the_wrong_purpose_gets_nothing_but_the_reasons(mesh: Mesh) -> None:
    (section,) = await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration", **RISK))
    assert section.status == DENIED
    assert section.reason == Reason.NO_PERMIT
    assert not section.records
    assert all(d.verdict == exchange_pb2.VERDICT_REFUSED for d in section.decisions)


async def test_the_wrong_basis_is_named_as_such(mesh: Mesh) -> None:
    context = {"purpose": "P-REBATE", "legal_basis": "CN-PUBLIC-REGISTER"}
    (section,) = await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration", **context))
    assert (section.status, section.reason) == (DENIED, Reason.BASIS_MISMATCH)


async def test_a_doubtful_subject_is_taken_for_mistyped_unless_it_is_meant(mesh: Mesh) -> None:
    """Real registers hold codes whose check digit fails; far more often one is simply mistyped."""
    doubtful = question("cn.uscc:91350211M0000XUF46", "commerce.Enterprise:name", **PUBLIC)
    error = await refused(mesh, "taxation/refund", doubtful)
    assert (error.reason, "check digit" in error.message) == (Reason.SUBJECT_INVALID, True)
    doubtful.subject.as_written = True
    (section,) = await ask(mesh, "taxation/refund", doubtful)
    assert section.status == NO_RECORD


async def test_what_is_refused_is_named(mesh: Mesh) -> None:
    asked = "customs.Declaration:declaration_no,gross_wt_kg,lines.unit_price"
    (section,) = await ask(mesh, "taxation/refund", question(SUBJECT, asked, **REBATE))
    assert {f: d.reason for f, d in decisions(section).items()} == {
        "declaration_no": Reason.PERMITTED,
        "gross_wt_kg": Reason.NO_PERMIT,
        "lines.unit_price": Reason.NO_PERMIT,
    }
    given = decisions(section)["declaration_no"]
    assert given.policy_ids == ["R07"]
    assert given.legal_basis == "CN-VAT-REBATE"
    assert given.retention
    assert given.until.seconds


async def test_five_agencies_answer_one_question(mesh: Mesh) -> None:
    selections = [
        "commerce.Enterprise:name,reg_status",
        "taxation.TaxpayerStatus:uscc,tax_status",
        "customs.Operator:customs_code,credit_level",
        "quality.TraceEvent",
        "publicsecurity.SealRegistration:uscc",
    ]
    sections = await ask(mesh, "quality/lab", question(SUBJECT, *selections, **PUBLIC))
    assert [s.agency for s in sections] == ["commerce", "taxation", "customs", "quality", "publicsecurity"]
    assert records(sections[0])[0].name == "示例进出口有限公司"
    assert [s.status for s in sections][:3] == [OK, OK, OK]
    assert all(s.as_of.seconds and s.policy_version for s in sections)


async def test_a_key_stays_in_where_the_key_field_does(mesh: Mesh) -> None:
    (section,) = await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration:trade_mode", **REBATE))
    (found,) = records(section)
    assert found.trade_mode == "0110"
    assert not found.declaration_no
    assert not found.envelope.key
    assert not found.envelope.HasField("fact_time")
    assert len(found.envelope.digest) == 32


async def test_a_digest_is_of_what_was_disclosed(mesh: Mesh) -> None:
    """Were it of the whole record, it would let a caller test guesses at what it may not see."""
    one = records(
        (await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration:trade_mode", **REBATE)))[0]
    )
    two = records((await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration:ie_flag", **REBATE)))[0])
    assert one[0].envelope.digest != two[0].envelope.digest


async def test_unknown_and_forbidden_records_give_the_same_answer(mesh: Mesh) -> None:
    """AIP-211: a declaration that is not cleared is told of as little as one that does not exist."""
    hidden, absent = f"cn.declaration_no:{PENDING}", "cn.declaration_no:999920260999999999"
    answers = [
        (await ask(mesh, "taxation/refund", question(subject, "customs.Declaration", **REBATE)))[0]
        for subject in (hidden, absent)
    ]
    for answer in answers:
        answer.ClearField("as_of")
    assert answers[0].status == NO_RECORD
    assert answers[0] == answers[1]


async def test_an_officer_is_never_told_of(mesh: Mesh) -> None:
    subject = f"cn.declaration_no:{CLEARED}"
    (section,) = await ask(mesh, "taxation/refund", question(subject, "customs.ClearanceEvent", **REBATE))
    (event,) = records(section)
    assert event.event_code
    assert not event.officer_pseud
    assert b"officer-secret" not in section.SerializeToString()
    assert decisions(section)["officer_pseud"].reason == Reason.FORBIDDEN


async def test_history_answers_as_it_was_known(mesh: Mesh) -> None:
    request = question(SUBJECT, "commerce.Enterprise:name", **PUBLIC)
    request.as_of.FromDatetime(now() - dt.timedelta(days=365))
    (section,) = await ask(mesh, "taxation/refund", request)
    assert section.status == NO_RECORD
    request.as_of.FromDatetime(now() + dt.timedelta(hours=1))
    assert (await refused(mesh, "taxation/refund", request)).reason is Reason.AS_OF_IN_FUTURE


async def test_pages_go_on_where_they_ended(mesh: Mesh) -> None:
    request = question(SUBJECT, "taxation.VatFiling:zero_filing,period", **RISK)
    request.selections[0].page_size = 4
    (first,) = await ask(mesh, "customs/release", request)
    assert len(first.records) == 4
    request.selections[0].page_token = first.next_page_token
    (second,) = await ask(mesh, "customs/release", request)
    assert len(second.records) == 2
    assert not second.next_page_token
    assert not {r.value for r in first.records} & {r.value for r in second.records}


def same(request: federation_pb2.QueryRequest) -> None:
    request.selections[0].ClearField("page_size")


def other_filter(request: federation_pb2.QueryRequest) -> None:
    request.selections[0].filter = "zero_filing = false"


def other_subject(request: federation_pb2.QueryRequest) -> None:
    request.subject.value = OTHER


def other_case(request: federation_pb2.QueryRequest) -> None:
    request.context.case_ref = "X"


def made_up(request: federation_pb2.QueryRequest) -> None:
    request.selections[0].page_token = "A" * 60


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (same, None),
        (other_filter, Reason.PAGE_TOKEN_MISMATCH),
        (other_subject, Reason.PAGE_TOKEN_MISMATCH),
        (other_case, Reason.PAGE_TOKEN_MISMATCH),
        (made_up, Reason.PAGE_TOKEN_INVALID),
    ],
)
async def test_a_page_token_is_good_for_its_own_question(
    mesh: Mesh, change: Callable[[federation_pb2.QueryRequest], None], reason: Reason | None
) -> None:
    request = question(SUBJECT, "taxation.VatFiling", **RISK)
    request.selections[0].page_size = 2
    (first,) = await ask(mesh, "customs/release", request)
    request.selections[0].page_token = first.next_page_token
    change(request)
    if reason is None:
        (section,) = await ask(mesh, "customs/release", request)
        assert len(section.records) == 4
    else:
        assert (await refused(mesh, "customs/release", request)).reason is reason


async def test_a_token_of_another_caller_is_not_ours(mesh: Mesh) -> None:
    request = question(SUBJECT, "taxation.VatFiling", **RISK)
    request.selections[0].page_size = 2
    (first,) = await ask(mesh, "customs/release", request)
    request.selections[0].page_token = first.next_page_token
    assert (await refused(mesh, "customs/other", request)).reason is Reason.PAGE_TOKEN_MISMATCH


BAD = [
    (question(SUBJECT, "customs.Declaration"), Reason.PURPOSE_MISSING, ""),
    (
        question(SUBJECT, "customs.Declaration", purpose="P-REBATE P-RISK", legal_basis="CN-VAT-REBATE"),
        Reason.PURPOSE_SEVERAL,
        "",
    ),
    (
        question(SUBJECT, "customs.Declaration", purpose="P-REBAT", legal_basis="CN-VAT-REBATE"),
        Reason.PURPOSE_UNKNOWN,
        "P-REBATE",
    ),
    (question(SUBJECT, "customs.Declaration", purpose="P-REBATE"), Reason.BASIS_MISSING, ""),
    (question(SUBJECT, "customs.Declaration", purpose="P-REBATE", legal_basis="CN-VAT"), Reason.BASIS_UNKNOWN, ""),
    (question(SUBJECT, **REBATE), Reason.SELECTION_MISSING, ""),
    (question(SUBJECT, *["customs.Declaration"] * 2, **REBATE), Reason.RECORD_TYPE_REPEATED, ""),
    (question(SUBJECT, *[f"customs.T{i}" for i in range(33)], **REBATE), Reason.SELECTIONS_TOO_MANY, "32"),
    (
        question(SUBJECT, "customs.Declaratoin", **REBATE),
        Reason.RECORD_TYPE_UNKNOWN,
        "did you mean 'customs.Declaration'",
    ),
    (question(SUBJECT, "customs.Declaration:line.hs10", **REBATE), Reason.FIELD_UNKNOWN, "did you mean 'lines.hs10'"),
    (question("", "customs.Declaration", **REBATE), Reason.SUBJECT_MISSING, ""),
    (question("cn.usc:9", "customs.Declaration", **REBATE), Reason.SUBJECT_SCHEME_UNKNOWN, "cn.uscc"),
    (question("cn.uscc:123", "customs.Declaration", **REBATE), Reason.SUBJECT_INVALID, ""),
    (
        question("lei:5493001KJTIIGC8Y1R12", "customs.Declaration", **REBATE),
        Reason.SUBJECT_SCHEME_UNSUPPORTED,
        "cn.uscc",
    ),
]


@pytest.mark.parametrize(("request_", "reason", "words"), BAD, ids=[str(b[1]) for b in BAD])
async def test_a_wrong_question_is_told_what_is_wrong(
    mesh: Mesh, request_: federation_pb2.QueryRequest, reason: Reason, words: str
) -> None:
    error = await refused(mesh, "taxation/refund", request_)
    assert isinstance(error, InvalidArgument)
    assert error.reason is reason
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("goods_place = 'x'", Reason.FIELD_UNKNOWN),
        ("overseas_party_name = 'x'", Reason.FILTER_FIELD_NOT_INDEXED),
        ("customs_office = '0001'", Reason.FILTER_FIELD_NOT_READABLE),
        ("ie_flag = 'E' OR", Reason.FILTER_INVALID),
        ("1 = 1", Reason.FILTER_INVALID),
    ],
)
async def test_a_filter_uses_only_what_may_be_read(mesh: Mesh, text: str, reason: Reason) -> None:
    """Otherwise asking which records match would tell what is in the hidden field."""
    request = question(SUBJECT, "customs.Declaration", **REBATE)
    request.selections[0].filter = text
    error = await refused(mesh, "taxation/refund", request)
    assert error.reason is reason


async def test_a_filter_selects(mesh: Mesh) -> None:
    for text, count in (('ie_flag = "E"', 1), ('ie_flag = "I"', 0)):
        request = question(SUBJECT, "customs.Declaration:declaration_no", **REBATE)
        request.selections[0].filter = text
        (section,) = await ask(mesh, "taxation/refund", request)
        assert len(section.records) == count


async def test_explain_tells_the_decisions_without_data(mesh: Mesh) -> None:
    request = question(SUBJECT, "customs.Declaration", "taxation.VatFiling", **REBATE)
    answered = await ask(mesh, "taxation/refund", request)
    explained = await mesh.client("taxation/refund").unary(
        EXPLAIN, federation_pb2.ExplainRequest(query=request), federation_pb2.ExplainResponse, timeout=5
    )
    for section, answer in zip(explained.sections, answered, strict=True):
        assert not section.records
        assert list(section.decisions) == list(answer.decisions)


async def test_a_stream_sends_every_section_once(mesh: Mesh) -> None:
    selections = ("customs.Declaration", "taxation.VatFiling", "commerce.Enterprise")
    request = federation_pb2.StreamQueryRequest(query=question(SUBJECT, *selections, **REBATE))
    stream = mesh.client("taxation/refund").stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=5)
    sections = [message.section async for message in stream]
    assert sorted(s.record_type for s in sections) == sorted(selections)
    assert {s.record_type for s in sections if s.records} == {"customs.Declaration"}


async def test_the_catalogue_is_listed_page_by_page(mesh: Mesh) -> None:
    names: list[str] = []
    token = ""
    while True:
        request = federation_pb2.ListRecordTypesRequest(page_size=7, page_token=token)
        page = await mesh.client("quality/lab").unary(TYPES, request, federation_pb2.ListRecordTypesResponse, timeout=5)
        names += [t.name for t in page.record_types]
        token = page.next_page_token
        if not token:
            break
    assert names == sorted(set(names))
    assert names == sorted(kind.name for kind in catalogue.load())


async def test_one_trace_shows_every_department(mesh: Mesh) -> None:
    mesh.zone.spans.clear()
    await ask(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration", "commerce.Enterprise:name", **REBATE))
    await ask(mesh, "quality/lab", question(SUBJECT, "customs.Operator:uscc", "commerce.Enterprise:name", **PUBLIC))
    spans = mesh.zone.finished()
    traces = {s.trace for s in spans}
    assert len(traces) == 2
    last = [s for s in spans if s.trace == spans[-1].trace]
    gateway = next(s for s in last if s.name.endswith("FederationService/Query"))
    fetches = [s for s in last if s.name.endswith("RecordSourceService/Fetch")]
    assert len(fetches) == 2
    assert all(s.parent == gateway.id for s in fetches)
