"""The gateway's door: cases, events and results by subject, for whom they concern, under the policy."""

import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from hutong.api.recognition.v1 import case_pb2, stage_result_pb2
from services.kit.errors import FailedPrecondition, HutongError, PermissionDenied, Reason
from services.kit.records import catalogue
from services.kit.records.conditions import parse
from services.kit.records.source import RecordQuery
from services.recognition import reach
from services.recognition.source import RecognitionSource
from tests.exchange.mesh import QUERY, question, records
from tests.recognition.mesh import CUSTOMS, POLICE, QUALITY, REGISTRY, TAX, Mesh, enterprise, firm, running
from tests.zone import now

OK = exchange_pb2.SECTION_STATUS_OK
PARTIAL = exchange_pb2.SECTION_STATUS_PARTIAL
NOTHING = exchange_pb2.SECTION_STATUS_NO_RECORD
DENIED = exchange_pb2.SECTION_STATUS_DENIED
TERMS = {"purpose": "P-APPROVAL", "legal_basis": "CN-ADMIN-LICENSING"}


@pytest.fixture(scope="module")
async def zone(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with running(tmp_path_factory.mktemp("gateway")) as made:
        await made.start_gateway()
        yield made


async def ask(zone: Mesh, who: str, subject: str, *selections: str, **context: str) -> tuple[exchange_pb2.Section, ...]:
    request = question(f"cn.uscc:{subject}", *selections, **(context or TERMS))
    answer = await zone.client(who, "gateway").unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    return tuple(answer.sections)


async def test_a_case_its_events_and_its_results_are_found_by_their_subject(zone: Mesh) -> None:
    subject = firm()
    case_id = await zone.accepted(subject)
    case, events, results = await ask(
        zone, REGISTRY, subject, "recognition.Case", "recognition.StageEvent", "recognition.StageResult"
    )
    assert (case.agency, case.status) == ("recognition", OK)
    (found,) = records(case)
    assert (found.case_id, found.case_status) == (case_id, case_pb2.CASE_STATUS_ACCEPTED)
    assert found.envelope.key == case_id
    assert [(e.sequence, e.stage_code) for e in records(events)] == [(1, ""), (2, "E0"), (3, "E1"), (4, "E1")]
    assert {r.fact_code for r in records(results)} == {"name_reserved", "case_accepted"}
    assert all(r.credential and r.result_state == stage_result_pb2.RESULT_STATE_VALID for r in records(results))


async def test_officers_are_pseudonyms_here_too(zone: Mesh) -> None:
    subject = firm()
    await zone.accepted(subject)

    async def officers(who: str) -> tuple[set[str], set[str]]:
        (section,) = await ask(zone, who, subject, "recognition.StageEvent:officer,officer_pseud,agency")
        found = records(section)
        return {e.officer for e in found} - {""}, {e.officer_pseud for e in found} - {""}

    assert (await officers(REGISTRY))[0] == {"W-7"}
    plain, stand_ins = await officers(TAX)
    assert not plain
    assert len(stand_ins) == 1
    assert "W-7" not in stand_ins
    assert stand_ins != (await officers(POLICE))[1]


async def test_who_takes_no_part_finds_nothing(zone: Mesh) -> None:
    subject = firm()
    await zone.accepted(subject)
    for section in await ask(zone, QUALITY, subject, "recognition.Case", "recognition.StageEvent"):
        assert (section.status, len(section.records)) == (NOTHING, 0)
    unknown = await ask(zone, QUALITY, firm(), "recognition.Case", "recognition.StageEvent")
    assert [section.status for section in unknown] == [NOTHING, NOTHING]


async def test_a_result_that_may_be_recognised_is_told_of_and_not_what_is_in_it(zone: Mesh) -> None:
    subject = firm()
    await zone.register(POLICE, "person_verified", subject=subject)
    (outline,) = await ask(zone, CUSTOMS, subject, "recognition.StageResult:fact_code,credential")
    (found,) = records(outline)
    assert (found.fact_code, found.credential) == ("person_verified", "")
    (none,) = await ask(zone, QUALITY, subject, "recognition.StageResult:fact_code,credential")
    assert none.status == NOTHING


async def test_an_enterprise_has_no_way_through_the_gateway(zone: Mesh) -> None:
    subject = firm()
    await zone.accepted(subject)
    for terms in (TERMS, {"purpose": "P-SELF", "legal_basis": "CN-RIGHT-TO-KNOW"}):
        with pytest.raises(PermissionDenied) as caught:
            await ask(zone, enterprise(subject), subject, "recognition.Case", **terms)
        assert caught.value.reason is Reason.CALLER_NOT_LISTED


@pytest.mark.parametrize(
    ("who", "terms"),
    [
        (REGISTRY, {"purpose": "P-RISK", "legal_basis": "CN-ADMIN-LICENSING"}),
        (REGISTRY, {"purpose": "P-SELF", "legal_basis": "CN-RIGHT-TO-KNOW"}),
        ("supervision/monitor", TERMS),
        ("logistics/gate", {"purpose": "P-GATE", "legal_basis": "CN-RELEASE-INSTRUCTION"}),
    ],
)
async def test_the_policy_denies(zone: Mesh, who: str, terms: dict[str, str]) -> None:
    subject = firm()
    await zone.accepted(subject)
    for section in await ask(zone, who, subject, "recognition.Case", "recognition.StageEvent", **terms):
        assert (section.status, section.reason) == (DENIED, Reason.NO_PERMIT)
        assert not section.records


async def test_tasks_are_not_asked_for_by_subject(zone: Mesh) -> None:
    with pytest.raises(HutongError) as caught:
        await ask(zone, REGISTRY, firm(), "recognition.Task")
    assert caught.value.reason is Reason.SUBJECT_SCHEME_UNSUPPORTED


async def test_filters_and_pages(zone: Mesh) -> None:
    subject = firm()
    await zone.accepted(subject)
    request = question(f"cn.uscc:{subject}", "recognition.StageEvent", **TERMS)
    request.selections[0].filter = "stage_code = 'E1'"
    request.selections[0].page_size = 1
    client = zone.client(REGISTRY, "gateway")
    (first,) = (await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)).sections
    request.selections[0].page_token = first.next_page_token
    (second,) = (await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)).sections
    assert [e.sequence for e in (*records(first), *records(second))] == [3, 4]
    assert not second.next_page_token
    request.selections[0].page_token = ""
    request.selections[0].filter = "officer = 'W-7'"
    with pytest.raises(HutongError) as caught:
        await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    assert caught.value.reason in {Reason.FILTER_FIELD_NOT_INDEXED, Reason.FILTER_FIELD_NOT_READABLE}


async def test_there_is_no_past_to_ask_for(zone: Mesh) -> None:
    request = question(f"cn.uscc:{firm()}", "recognition.Case", **TERMS)
    request.as_of.FromDatetime(now() - dt.timedelta(days=1))
    client = zone.client(REGISTRY, "gateway")
    (section,) = (await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)).sections
    assert (section.status, section.reason) == (
        exchange_pb2.SECTION_STATUS_UNAVAILABLE,
        Reason.HISTORY_UNAVAILABLE,
    )


async def test_one_question_reaches_departments_and_cases(tmp_path: Path) -> None:
    subject = firm()
    async with running(tmp_path) as made:
        await made.start_department("commerce")
        await made.start_gateway()
        await made.accepted(subject)
        case, firm_ = await ask(made, TAX, subject, "recognition.Case:case_status", "commerce.Enterprise:name")
        assert (case.agency, case.status) == ("recognition", OK)
        assert (firm_.agency, firm_.status) == ("commerce", DENIED)


def source(zone: Mesh) -> RecognitionSource:
    assert zone.node is not None
    return RecognitionSource(zone.node.database, reach.Results(zone.node.cases.rulebook.arrangements), now)


def query(subject: str, **more: Any) -> RecordQuery:
    whole: dict[str, Any] = {
        "record_type": catalogue.load().get("recognition.Case"),
        "subject": ("cn.uscc", subject),
        "params": {"caller_agency": "commerce"},
    }
    return RecordQuery(**(whole | more))


async def test_the_source_gives_nothing_to_nobody(zone: Mesh) -> None:
    subject = firm()
    await zone.accepted(subject)
    assert len((await source(zone).fetch(query(subject))).records) == 1
    nobody: list[dict[str, str | None]] = [{}, {"caller_agency": None}, {"caller_agency": "enterprise"}]
    for params in nobody:
        assert not (await source(zone).fetch(query(subject, params=params))).records
    assert not (await source(zone).fetch(query(subject, groups=()))).records
    assert not (await source(zone).fetch(dataclasses.replace(query(subject), subject=None))).records
    kind = catalogue.load().get("recognition.Case")
    accepted = parse("case_status = 'ACCEPTED'", kind)
    assert len((await source(zone).fetch(query(subject, filters=(accepted,)))).records) == 1


async def test_the_source_tells_no_changes(zone: Mesh) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await source(zone).last_seq()
    assert caught.value.reason is Reason.HISTORY_UNAVAILABLE
    with pytest.raises(FailedPrecondition):
        await source(zone).changes(catalogue.load().get("recognition.Case"), 0)
