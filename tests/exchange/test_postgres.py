"""A department on PostgreSQL, as in production: the same answers through both doors; and when it is away."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import Reason, Unavailable
from tests.databases import Postgres
from tests.exchange.mesh import Mesh, question, records, running
from tests.exchange.records import CLEARED, EXPORTER, RECORDS, declaration
from tests.exchange.test_doors import CLEARED_STATUS, changes, get, watch
from tests.exchange.test_query import REBATE, SUBJECT, ask
from tests.zone import now

LIST = "/hutong.api.customs.v1.CustomsService/ListDeclarations"
ASKED = question(SUBJECT, "customs.Declaration", **REBATE)
NUMBERS = [f"9999202600000002{n:02d}" for n in range(5)]


@pytest.fixture
async def department(tmp_path: Path, postgres_url: str) -> AsyncGenerator[Mesh]:
    """Customs on PostgreSQL, and a gateway."""
    mesh = Mesh(tmp_path)
    mesh.urls["customs"] = postgres_url
    try:
        await mesh.start("customs")
        await mesh.start_gateway()
        await mesh.load("customs", RECORDS["customs"])
        yield mesh
    finally:
        await mesh.stop()


async def test_both_doors_answer_as_they_do_on_sqlite(department: Mesh, tmp_path: Path) -> None:
    (section,) = await ask(department, "taxation/refund", ASKED)
    typed = await get(department, "taxation/refund", f"declarations/{CLEARED}")
    assert typed.declaration == records(section)[0]
    async with running(tmp_path / "lite", "customs") as other:
        await other.load("customs", RECORDS["customs"])
        (expected,) = await ask(other, "taxation/refund", ASKED)
    for each in (section, expected):
        each.ClearField("as_of")
    answers = [records(each)[0] for each in (section, expected)]
    for answer in answers:
        answer.envelope.ClearField("recorded_at")
    assert answers[0] == answers[1]
    assert list(section.decisions) == list(expected.decisions)


async def test_pages_filters_and_history(department: Mesh) -> None:
    before = now()
    await department.load("customs", [declaration(n, EXPORTER, CLEARED_STATUS) for n in NUMBERS])
    request = service_pb2.ListDeclarationsRequest(
        context=exchange_pb2.RequestContext(**REBATE), page_size=2, filter="trade_mode = '0110'"
    )
    request.subject.scheme, request.subject.value = "cn.uscc", EXPORTER
    client = department.client("taxation/refund", "customs")
    seen: list[str] = []
    while True:
        page = await client.unary(LIST, request, service_pb2.ListDeclarationsResponse, timeout=5)
        seen += [d.declaration_no for d in page.declarations]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == sorted([CLEARED, *NUMBERS])
    request.page_token = ""
    request.as_of.FromDatetime(before - dt.timedelta(microseconds=1))
    earlier = await client.unary(LIST, request, service_pb2.ListDeclarationsResponse, timeout=5)
    assert [d.declaration_no for d in earlier.declarations] == [CLEARED]


async def test_changes_are_followed(department: Mesh) -> None:
    first, token = await changes(watch(department, from_start=True), 1)
    assert [d.declaration_no for d in first] == [CLEARED]
    await department.load("customs", [declaration(n, EXPORTER, CLEARED_STATUS) for n in NUMBERS])
    seen, _ = await changes(watch(department, resume_token=token), len(NUMBERS))
    assert [d.declaration_no for d in seen] == NUMBERS


async def test_a_database_that_is_away_is_told_and_waited_for(department: Mesh, postgres_server: Postgres) -> None:
    name = sa.make_url(department.urls["customs"]).database
    sever = (
        f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    assert (await ask(department, "taxation/refund", ASKED))[0].records
    postgres_server.execute(*sever)
    (section,) = await ask(department, "taxation/refund", ASKED)
    assert (section.status, section.reason) == (
        exchange_pb2.SECTION_STATUS_UNAVAILABLE,
        Reason.STORE_UNAVAILABLE,
    )
    with pytest.raises(Unavailable) as refused:
        await get(department, "taxation/refund", f"declarations/{CLEARED}")
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    postgres_server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    async with asyncio.timeout(10):
        while not (await ask(department, "taxation/refund", ASKED))[0].records:
            pass
