"""Through the gateway: filters that are more than filters, and words for agencies by whoever is none."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.client import Client
from services.kit.errors import HutongError, Reason
from tests.attacks.handing_in import why
from tests.exchange.mesh import QUERY, question, records
from tests.recognition.mesh import CUSTOMS, POLICE, QUALITY, REGISTRY, TAX, Mesh, enterprise, firm, running

TERMS = {"purpose": "P-APPROVAL", "legal_basis": "CN-ADMIN-LICENSING"}
FETCH = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
KINDS = ("recognition.Case", "recognition.StageEvent", "recognition.StageResult")


@pytest.fixture(scope="module")
async def zone(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with running(tmp_path_factory.mktemp("gateway")) as made:
        await made.start_gateway()
        yield made


async def ask(
    zone: Mesh, who: str, subject: str, *selections: str, filter_: str = "", token: str = ""
) -> list[exchange_pb2.Section]:
    request = question(f"cn.uscc:{subject}", *selections, **TERMS)
    for selection in request.selections:
        selection.filter, selection.page_token = filter_, token
    answer = await zone.client(who, "gateway").unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    return list(answer.sections)


FILTERS = [
    "1 = 1",
    "case_id = 'x' OR 1 = 1",
    "case_id = '' OR '' = ''",
    "case_id = 'x'; DROP TABLE case_head",
    "case_id = 'x' --",
    "case_id = 'x' /* */",
    "case_id IN (SELECT case_id FROM case_head)",
    "case_id = (SELECT 'x')",
    "case_id LIKE '%'",
    "case_id = load_extension('x')",
    "case_id = pg_sleep(10)",
    "lower(case_id) = 'x'",
    "case_id = 'x' UNION SELECT 1",
    "case_id = 'x\x00'",
    "case_id = :caller_agency",
    "owner_agency = 'customs'",
    "officer = 'W-7'",
    "body = 'x'",
    "case_id",
    "(" * 500 + "case_id = 'x'" + ")" * 500,
    " OR ".join(["case_id = 'x'"] * 2000),
    "case_id = '" + "x" * 30_000 + "'",
]


@pytest.mark.parametrize("text", FILTERS, ids=lambda text: text[:24])
async def test_filters_that_are_more_than_filters(zone: Mesh, text: str) -> None:
    """Refused for what they are; and everything is there afterwards."""
    subject = firm()
    case_id = await zone.accepted(subject)
    for kind in KINDS:
        refused = await why(ask(zone, TAX, subject, kind, filter_=text))
        assert refused in {
            Reason.FILTER_INVALID,
            Reason.FIELD_UNKNOWN,
            Reason.FILTER_FIELD_NOT_READABLE,
            Reason.FILTER_FIELD_NOT_INDEXED,
            Reason.MALFORMED_REQUEST,
        }
    (section,) = await ask(zone, TAX, subject, "recognition.Case")
    assert [case.case_id for case in records(section)] == [case_id]


@pytest.mark.parametrize("text", ["x' OR '1'='1", "%", "_", "\\", "''", "x'; DROP TABLE stage_event; --", "\u2019"])
async def test_values_are_compared_and_nothing_else(zone: Mesh, text: str) -> None:
    subject = firm()
    await zone.accepted(subject)
    quoted = text.replace("'", "''")
    for value in (f"'{quoted}'", '"x"'):
        (section,) = await ask(zone, TAX, subject, "recognition.Case", filter_=f"case_id = {value}")
        assert not section.records
    (section,) = await ask(zone, TAX, subject, "recognition.StageEvent", filter_=f"stage_code != '{quoted}'")
    # All but the first, which is of no stage.
    assert len(section.records) == 3


async def test_nobody_finds_out_an_officer_by_asking_for_one(zone: Mesh) -> None:
    """A filter on a field given under conditions, or as a pseudonym only, tells nothing of others' rows."""
    subject = firm()
    await zone.accepted(subject)
    for field in ("officer", "officer_pseud"):
        for text in (f"{field} = 'W-7'", f"agency = 'commerce' AND {field} > 'A'", f"{field} IS NULL"):
            asking = ask(zone, TAX, subject, "recognition.StageEvent", filter_=text)
            assert await why(asking) in {Reason.FILTER_FIELD_NOT_READABLE, Reason.FILTER_FIELD_NOT_INDEXED}


async def test_tasks_have_no_subject_to_be_found_by(zone: Mesh) -> None:
    subject = firm()
    await zone.accepted(subject)
    for who in (POLICE, REGISTRY, QUALITY):
        try:
            (section,) = await ask(zone, who, subject, "recognition.Task")
        except HutongError as error:
            assert error.reason is not Reason.INTERNAL  # noqa: PT017
        else:
            assert not section.records


async def test_pages_are_theirs_who_asked_for_them(zone: Mesh) -> None:
    subject = firm()
    for _ in range(3):
        await zone.submit(subject=subject)
    request = question(f"cn.uscc:{subject}", "recognition.Case", **TERMS)
    request.selections[0].page_size = 1
    client = zone.client(TAX, "gateway")
    answer = await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    token = answer.sections[0].next_page_token
    assert token
    assert await why(ask(zone, CUSTOMS, subject, "recognition.Case", token=token)) is Reason.PAGE_TOKEN_MISMATCH
    assert await why(ask(zone, TAX, firm(), "recognition.Case", token=token)) is Reason.PAGE_TOKEN_MISMATCH


async def test_the_door_for_gateways_is_for_gateways(zone: Mesh) -> None:
    """Not for agencies, not for enterprises, and not for a second gateway that nobody has named."""
    subject = firm()
    await zone.accepted(subject)
    request = record_source_pb2.FetchRequest()
    request.subject.scheme, request.subject.value = "cn.uscc", subject
    request.selections.add(record_type="recognition.Case")
    for who in (TAX, CUSTOMS, enterprise(subject), "operator/admin"):
        assert await why(fetch(zone.client(who), request)) is Reason.CALLER_NOT_LISTED
    for who in ("gateway/main", "gateway/other"):
        assert await why(fetch(zone.client(who), request)) not in {Reason.INTERNAL, Reason.CASE_NOT_FOUND}


async def fetch(client: Client, request: record_source_pb2.FetchRequest) -> Any:
    return await client.unary(FETCH, request, record_source_pb2.FetchResponse, timeout=10)
