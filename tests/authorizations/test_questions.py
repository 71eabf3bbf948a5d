"""Questions under an authorization, over mutual TLS: what they get, and what is withheld and named."""

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.errors import HutongError, Reason
from tests.attacks.asking import ask, refused
from tests.authorizations.mesh import AML, DECLARATIONS, INVOICES, Supervised, asked, under
from tests.exchange.mesh import EXPLAIN, STREAM, question, records
from tests.exchange.records import EXPORTER, OTHER

BOTH = ("customs.Declaration", "taxation.InvoiceSummary")


async def test_it_gives_what_policy_and_scope_both_open(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS, INVOICES)
    customs, taxation = await ask(mesh, AML, asked(leave, *BOTH))
    assert [s.status for s in (customs, taxation)] == [exchange_pb2.SECTION_STATUS_PARTIAL] * 2
    first = records(customs)[0]
    assert first.declaration_no
    assert first.total_value_cny.amount.value
    # The policy opens it, the scope does not; the scope names it, the policy opens it not; neither.
    assert not first.overseas_party_name
    assert not first.gross_wt_kg.value
    assert not first.lines
    reasons = {d.field: d.reason for d in customs.decisions}
    assert reasons["overseas_party_name"] == Reason.AUTHORIZATION_SCOPE
    assert reasons["gross_wt_kg"] == Reason.NO_PERMIT
    assert reasons["lines.goods_name"] == Reason.AUTHORIZATION_SCOPE
    assert reasons["declaration_no"] == Reason.PERMITTED
    assert len(records(taxation)) == 20
    assert not records(taxation)[0].invoice_count


async def test_what_is_taken_off_a_quota_is_part_of_the_trace(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS)
    mesh.zone.spans.clear()
    await ask(mesh, AML, asked(leave, BOTH[0]))
    spans = {span.name.rpartition("/")[2]: span for span in mesh.zone.finished()}
    assert spans["ReserveRows"].parent == spans["Fetch"].id
    assert spans["Fetch"].parent == spans["Query"].id
    assert {spans[name].trace for name in ("Query", "Fetch", "ReserveRows")} == {spans["Query"].trace}


async def test_explain_shows_what_is_left(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS)
    request = federation_pb2.ExplainRequest(query=asked(leave, *BOTH))
    answer = await mesh.client(AML).unary(EXPLAIN, request, federation_pb2.ExplainResponse, timeout=10)
    customs, taxation = answer.sections
    given = {d.field for d in customs.decisions if d.verdict != exchange_pb2.VERDICT_REFUSED}
    assert given == {"declaration_no", "total_value_cny", "trader_uscc"}
    assert (taxation.status, taxation.reason) == (exchange_pb2.SECTION_STATUS_DENIED, Reason.AUTHORIZATION_SCOPE)
    assert not await mesh.used(leave)


async def test_a_purpose_that_needs_one_is_not_answered_without(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS)
    subject = f"cn.uscc:{EXPORTER}"
    for without, reason in (
        (("authorization_id", "authorization_ticket"), Reason.AUTHORIZATION_MISSING),
        (("authorization_ticket",), Reason.TICKET_INVALID),
    ):
        stated = {name: text for name, text in leave.why.items() if name not in without}
        error = await refused(ask(mesh, AML, question(subject, BOTH[0], **stated)))
        assert error.reason is reason


async def test_it_is_for_its_own_purpose_basis_and_case(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS)
    for name, text in (
        ("case_ref", "STR-2026-8"),
        ("legal_basis", "CN-OPERATION-MONITORING"),
        ("purpose", "P-MONITOR"),
    ):
        error = await refused(ask(mesh, AML, question(f"cn.uscc:{EXPORTER}", BOTH[0], **leave.why | {name: text})))
        assert error.reason is Reason.AUTHORIZATION_SCOPE


async def test_it_is_about_whom_it_names(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS)
    for subject in (f"cn.uscc:{OTHER}", "cn.declaration_no:999920260000000001", ""):
        error = await refused(ask(mesh, AML, asked(leave, BOTH[0], subject=subject)))
        assert error.reason is Reason.AUTHORIZATION_SCOPE


async def test_another_system_cannot_use_it(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS)
    for other in ("supervision/other", "publicsecurity/investigation", "taxation/refund"):
        error = await refused(ask(mesh, other, asked(leave, BOTH[0])))
        assert error.reason is Reason.AUTHORIZATION_NOT_YOURS


async def test_without_an_authorization_a_question_names_whom_it_is_about(mesh: Supervised) -> None:
    plain = question("", "customs.Declaration", purpose="P-MONITOR", legal_basis="CN-OPERATION-MONITORING")
    plain.ClearField("subject")
    assert (await refused(ask(mesh, "supervision/monitor", plain))).reason is Reason.SUBJECT_MISSING


async def test_by_condition_page_after_page(mesh: Supervised) -> None:
    by_value = under(DECLARATIONS, f'trader_uscc = "{EXPORTER}" AND declaration_no >= "999920260000000100"')
    leave = await mesh.give(by_value, subjects=())
    request, seen, pages = asked(leave, BOTH[0], subject="", page_size=20), list[str](), 0
    while True:
        (section,) = await ask(mesh, AML, request)
        seen += [record.declaration_no for record in records(section)]
        pages += 1
        if not section.next_page_token:
            break
        request.selections[0].page_token = section.next_page_token
        # The next page may be asked for with the next ticket.
        request.context.authorization_ticket = await mesh.use(leave.authorization_id)
    assert len(seen) == len(set(seen)) == 45
    assert pages == 3
    assert await mesh.used(leave) == 45


async def test_a_condition_bounds_what_is_asked_about_by_name_as_well(mesh: Supervised) -> None:
    bounded = under(DECLARATIONS, 'declaration_no = "999920260000000101"')
    leave = await mesh.give(bounded)
    (section,) = await ask(mesh, AML, asked(leave, BOTH[0]))
    assert [record.declaration_no for record in records(section)] == ["999920260000000101"]


async def test_a_condition_on_what_the_policy_does_not_open_opens_nothing(mesh: Supervised) -> None:
    hidden = under(DECLARATIONS, "decl_status = CLEARED")
    leave = await mesh.give(hidden, subjects=())
    (section,) = await ask(mesh, AML, asked(leave, BOTH[0], subject=""))
    assert (section.status, section.reason) == (
        exchange_pb2.SECTION_STATUS_DENIED,
        Reason.FILTER_FIELD_NOT_READABLE,
    )
    assert not await mesh.used(leave)


async def test_no_bulk_takes_a_subject(mesh: Supervised) -> None:
    bounded = under(DECLARATIONS, f'trader_uscc = "{EXPORTER}"')
    leave = await mesh.give(bounded, subjects=(), no_bulk=True)
    error = await refused(ask(mesh, AML, asked(leave, BOTH[0], subject="")))
    assert error.reason is Reason.AUTHORIZATION_SCOPE
    (section,) = await ask(mesh, AML, asked(leave, BOTH[0]))
    assert records(section)


async def streamed(
    mesh: Supervised, request: federation_pb2.StreamQueryRequest
) -> list[federation_pb2.StreamQueryResponse]:
    stream = mesh.client(AML).stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=30)
    return [response async for response in stream]


def about(*codes: str) -> list[common_pb2.SubjectId]:
    return [common_pb2.SubjectId(scheme="cn.uscc", value=code) for code in codes]


async def test_a_list_of_subjects_all_pages_of_each(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS, INVOICES, subjects=(f"cn.uscc:{EXPORTER}", f"cn.uscc:{OTHER}"))
    request = federation_pb2.StreamQueryRequest(
        query=asked(leave, *BOTH, subject=""), subjects=about(EXPORTER, OTHER), all_pages=True
    )
    answers = await streamed(mesh, request)
    assert len({answer.query_id for answer in answers}) == 1
    found = [(answer.subject.value, answer.section.record_type, len(answer.section.records)) for answer in answers]
    rows = {
        (code, kind): [count for value, type_, count in found if (value, type_) == (code, kind)]
        for code in (EXPORTER, OTHER)
        for kind in BOTH
    }
    assert rows == {
        (EXPORTER, BOTH[0]): [20, 20, 7],
        (EXPORTER, BOTH[1]): [20, 10],
        (OTHER, BOTH[0]): [3],
        (OTHER, BOTH[1]): [2],
    }
    assert [value for value, _, _ in found] == [EXPORTER] * 5 + [OTHER] * 2
    assert await mesh.used(leave) == 82


async def test_the_subject_of_the_question_itself_comes_first(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS, subjects=(f"cn.uscc:{EXPORTER}", f"cn.uscc:{OTHER}"))
    request = federation_pb2.StreamQueryRequest(query=asked(leave, BOTH[0]), subjects=about(OTHER))
    assert [answer.subject.value for answer in await streamed(mesh, request)] == [EXPORTER, OTHER]
    alone = federation_pb2.StreamQueryRequest(query=asked(leave, BOTH[0]))
    assert not (await streamed(mesh, alone))[0].HasField("subject")


async def test_one_wrong_subject_of_a_list_is_told_before_anything_is_given(mesh: Supervised) -> None:
    leave = await mesh.give(DECLARATIONS)
    for wrong, reason in (
        (about(EXPORTER, OTHER), Reason.AUTHORIZATION_SCOPE),
        (about(EXPORTER, "no-code"), Reason.SUBJECT_INVALID),
        ([*about(EXPORTER), common_pb2.SubjectId()], Reason.SUBJECT_MISSING),
        (about(EXPORTER) * 1001, Reason.MALFORMED_REQUEST),
    ):
        request = federation_pb2.StreamQueryRequest(query=asked(leave, BOTH[0], subject=""), subjects=wrong)
        with pytest.raises(HutongError) as caught:
            await streamed(mesh, request)
        assert caught.value.reason is reason
    assert not await mesh.used(leave)


async def test_by_condition_streamed(mesh: Supervised) -> None:
    bounded = under(DECLARATIONS, f'trader_uscc = "{EXPORTER}"')
    leave = await mesh.give(bounded, subjects=())
    request = federation_pb2.StreamQueryRequest(query=asked(leave, BOTH[0], subject="", page_size=7), all_pages=True)
    answers = await streamed(mesh, request)
    assert [len(answer.section.records) for answer in answers] == [7] * 6 + [5]
    assert not any(answer.HasField("subject") for answer in answers)


async def test_many_subjects_need_no_authorization(mesh: Supervised) -> None:
    plain = question("", "customs.Declaration:trade_mode", purpose="P-REBATE", legal_basis="CN-VAT-REBATE")
    plain.ClearField("subject")
    request = federation_pb2.StreamQueryRequest(query=plain, subjects=about(EXPORTER, OTHER), all_pages=True)
    stream = mesh.client("taxation/refund").stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=30)
    found = [(answer.subject.value, len(answer.section.records)) async for answer in stream]
    assert found == [(EXPORTER, 20), (EXPORTER, 20), (EXPORTER, 6), (OTHER, 3)]
