"""A department that reads a record type from a legacy table, at the moment of the question, through a mapping."""

import datetime as dt
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hutong.api.commerce.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit.config import LiveSection
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tests.exchange.mesh import Mesh, question, records
from tests.exchange.records import DOUBTED
from tests.exchange.test_query import PUBLIC, ask
from tests.zone import now

EXPORTER, OTHER, THIRD, ABSENT = (
    "91999901MA07HYX927", "91999901MA07HY2E6F", "91999901MA07HY2F4A", "91999901MA07HY308W"
)  # fmt: skip
SUBJECT = f"cn.uscc:{EXPORTER}"
REGISTRATION = {"purpose": "P-TAX-REG", "legal_basis": "CN-TAX-REGISTRATION"}
MAPPING = """\
mapping: commerce.legacy_register
version: 1
record: commerce.Enterprise
title: The register as it stands in the old system
source_system: old-register
source: {kind: sql, table: t_entprs, key: [id], null_words: ["-"]}
fields:
  uscc: {column: XYDM, required: true}
  name: {column: MC, required: true}
  reg_status: {column: ZT, words: {"1": ACTIVE, "3": REVOKED}}
  establish_date: CLRQ
  approved_date: HZRQ
  contact_phone: DH
"""


class Legacy:
    """The old system's table."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = sa.create_engine(url.replace("sqlite+aiosqlite", "sqlite"))
        metadata = sa.MetaData()
        self.table = sa.Table(
            "t_entprs",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            *(sa.Column(name, sa.String(100)) for name in ("XYDM", "MC", "ZT", "DH")),
            *(sa.Column(name, sa.Date) for name in ("CLRQ", "HZRQ")),
        )
        metadata.create_all(self.engine)

    def put(self, uscc: str, name: str, **more: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.table.insert().values(XYDM=uscc, MC=name, **more))

    def rename(self, uscc: str, name: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.table.update().where(self.table.c.XYDM.in_([uscc])).values(MC=name))

    def drop(self) -> None:
        self.table.drop(self.engine)


@pytest.fixture
def legacy(any_url: str) -> Iterator[Legacy]:
    made = Legacy(any_url)
    made.put(
        EXPORTER, "示例进出口有限公司", ZT="1", CLRQ=dt.date(2019, 4, 1), HZRQ=dt.date(2024, 1, 2), DH="000-12345678"
    )
    made.put(OTHER, "示例二号有限公司", ZT="3", DH="-")
    yield made
    made.engine.dispose()


def section(folder: Path, url: str, mapping: str = MAPPING) -> LiveSection:
    file = folder / "legacy.yaml"
    file.write_text(mapping, encoding="utf-8")
    secret = folder / "legacy-url"
    secret.write_text(url)
    return LiveSection(mapping=file, url_file=secret)


@pytest.fixture
async def live(tmp_path: Path, legacy: Legacy) -> AsyncGenerator[Mesh]:
    """Commerce, whose register stands in the old system, and a gateway."""
    mesh = Mesh(tmp_path)
    mesh.live["commerce.Enterprise"] = section(tmp_path, legacy.url)
    try:
        await mesh.start("commerce")
        await mesh.start_gateway()
        yield mesh
    finally:
        await mesh.stop()


async def get(mesh: Mesh, name: str, **context: str) -> service_pb2.GetEnterpriseResponse:
    request = service_pb2.GetEnterpriseRequest(
        name=f"enterprises/{name}", context=exchange_pb2.RequestContext(**(context or PUBLIC))
    )
    client = mesh.client("taxation/refund", "commerce")
    method = "/hutong.api.commerce.v1.CommerceService/GetEnterprise"
    return await client.unary(method, request, service_pb2.GetEnterpriseResponse, timeout=5)


async def test_both_doors_answer_from_the_table_as_it_stands(live: Mesh, legacy: Legacy) -> None:
    (found,) = await ask(live, "taxation/refund", question(SUBJECT, "commerce.Enterprise", **PUBLIC))
    (enterprise,) = records(found)
    assert enterprise.name == "示例进出口有限公司"
    assert (enterprise.establish_date.year, enterprise.establish_date.month) == (2019, 4)
    assert enterprise.envelope.source_system == "old-register"
    assert not enterprise.contact_phone
    assert (await get(live, EXPORTER)).enterprise.name == "示例进出口有限公司"
    legacy.rename(EXPORTER, "改名有限公司")
    (found,) = await ask(live, "taxation/refund", question(SUBJECT, "commerce.Enterprise:name", **PUBLIC))
    assert records(found)[0].name == "改名有限公司"
    with pytest.raises(NotFound):
        await get(live, ABSENT)


async def test_the_policy_holds_for_it_like_for_any_other(live: Mesh) -> None:
    asked = "commerce.Enterprise:uscc,name,contact_phone"
    shown, hidden = [
        (await ask(live, "taxation/registration", question(f"cn.uscc:{uscc}", asked, **REGISTRATION)))[0]
        for uscc in (EXPORTER, OTHER)
    ]
    (enterprise,) = records(shown)
    assert enterprise.contact_phone == "****5678"
    assert not enterprise.name
    # R02 shows approved registrations only; the condition is decided here, the old system knows nothing of it.
    assert hidden.status == exchange_pb2.SECTION_STATUS_NO_RECORD


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)
async def test_a_changed_mapping_counts_for_the_next_question_and_a_bad_one_never(
    live: Mesh, legacy: Legacy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing restarts. What does not pass is logged once for each mistake, and the former mapping stays."""
    asked = question(SUBJECT, "commerce.Enterprise:name", **PUBLIC)

    async def answered(mapping: str | None) -> tuple[str, str]:
        file = tmp_path / "legacy.yaml"
        if mapping is None:
            file.unlink()
        else:
            # As the kubelet does it: another file takes the place of the former.
            fresh = tmp_path / "fresh.yaml"
            fresh.write_text(mapping, encoding="utf-8")
            fresh.replace(file)
        (found,) = await ask(live, "taxation/refund", asked)
        (enterprise,) = records(found)
        return enterprise.name, enterprise.envelope.source_system

    changed = MAPPING.replace("{column: MC,", "{column: DH,").replace("old-register", "older-register")
    assert await answered(changed) == ("000-12345678", "older-register")
    bad = [
        (changed.replace("fields:", "feilds:"), "feilds"),
        (changed.replace("DH,", "DHH,"), "'DHH'"),
        (changed.replace("t_entprs", "t_firms"), "no table 't_firms'"),
        (changed.replace("commerce.Enterprise", "commerce.Branch"), ""),
        ("\0", "mapping"),
        ("#" * (1 << 20) + changed, "too large"),
        (None, "legacy.yaml"),
    ]
    for mapping, words in bad:
        caplog.clear()
        assert await answered(mapping) == ("000-12345678", "older-register")
        await ask(live, "taxation/refund", asked)
        (told,) = [record for record in caplog.records if record.message.startswith("A changed mapping does not pass")]
        assert words in vars(told)["fields"]["mistake"]
    assert await answered(MAPPING) == ("示例进出口有限公司", "old-register")


async def test_filters_and_pages(live: Mesh, legacy: Legacy) -> None:
    legacy.put(THIRD, "示例三号有限公司", ZT="1")
    request = service_pb2.ListEnterprisesRequest(
        context=exchange_pb2.RequestContext(**PUBLIC), filter="reg_status = ACTIVE", page_size=1
    )
    method = "/hutong.api.commerce.v1.CommerceService/ListEnterprises"
    client = live.client("taxation/refund", "commerce")
    seen: list[str] = []
    while True:
        page = await client.unary(method, request, service_pb2.ListEnterprisesResponse, timeout=5)
        seen += [e.uscc for e in page.enterprises]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == sorted([EXPORTER, THIRD])


async def test_what_it_cannot_do_costs_its_own_section_and_says_so(live: Mesh, legacy: Legacy) -> None:
    """It knows no past, and its database may be away; the records in the department's own store are not concerned."""
    request = question(SUBJECT, "commerce.Enterprise:name", "commerce.Branch:branch_name", **PUBLIC)
    request.as_of.FromDatetime(now() - dt.timedelta(days=1))
    past = await ask(live, "taxation/refund", request)
    request.ClearField("as_of")
    legacy.drop()
    gone = await ask(live, "taxation/refund", request)
    for sections in (past, gone):
        assert [s.status for s in sections] == [
            exchange_pb2.SECTION_STATUS_UNAVAILABLE,
            exchange_pb2.SECTION_STATUS_NO_RECORD,
        ]
    assert past[0].reason == Reason.HISTORY_UNAVAILABLE
    assert gone[0].reason in {Reason.STORE_UNAVAILABLE, Reason.INTERNAL}


async def test_a_row_that_cannot_be_read_is_told_and_not_taken_for_none(live: Mesh, legacy: Legacy) -> None:
    """There is no quarantine for it. Who is given rows under conditions only does not even learn that it is there."""
    legacy.put(DOUBTED, "代码可疑有限公司", HZRQ=dt.date(2024, 1, 2))
    subject = f"cn.uscc:{DOUBTED}"
    asked = question(subject, "commerce.Enterprise:name", **PUBLIC)
    asked.subject.as_written = True
    (told,) = await ask(live, "taxation/refund", asked)
    assert (told.status, told.reason) == (exchange_pb2.SECTION_STATUS_UNAVAILABLE, Reason.ROWS_UNREADABLE)
    with pytest.raises(Unavailable) as refused:
        await get(live, DOUBTED)
    assert refused.value.reason is Reason.ROWS_UNREADABLE
    asked = question(subject, "commerce.Enterprise:contact_phone", **REGISTRATION)
    asked.subject.as_written = True
    (hidden,) = await ask(live, "taxation/registration", asked)
    assert (hidden.status, hidden.reason) == (exchange_pb2.SECTION_STATUS_NO_RECORD, "")


async def test_nobody_can_watch_it(live: Mesh) -> None:
    request = record_source_pb2.WatchRequest(
        context=exchange_pb2.RequestContext(**PUBLIC),
        selection=exchange_pb2.Selection(record_type="commerce.Enterprise"),
    )
    method = "/hutong.api.exchange.v1.RecordSourceService/Watch"
    client = live.client("taxation/refund", "commerce")
    with pytest.raises(FailedPrecondition) as refused:
        await anext(client.stream(method, request, record_source_pb2.WatchResponse, timeout=5))
    assert refused.value.reason is Reason.HISTORY_UNAVAILABLE


COMPUTED = MAPPING.replace("uscc: {column: XYDM, required: true}", "uscc: {column: XYDM, parse: upper}")
WRONG = [
    ("commerce.Enterprize", MAPPING, Reason.RECORD_TYPE_UNKNOWN, "'commerce.Enterprise'"),
    ("commerce.Branch", MAPPING, Reason.CONFIG_INVALID, "makes commerce.Enterprise"),
    ("commerce.Enterprise", MAPPING.replace("MC,", "MCC,"), Reason.MAPPING_COLUMN_MISSING, "'MC'"),
    ("commerce.Enterprise", MAPPING.replace("t_entprs", "t_firms"), Reason.MAPPING_INVALID, "no table 't_firms'"),
    ("commerce.Enterprise", COMPUTED, Reason.MAPPING_INVALID, "uscc is no plain column"),
]


def databases(folder: Path) -> list[Path]:
    """Find what a node has made: its store and its log."""
    return [*folder.rglob("commerce*.db")]


@pytest.mark.parametrize(("name", "mapping", "reason", "words"), WRONG, ids=[str(w[2]) for w in WRONG])
async def test_what_does_not_fit_stops_the_start(
    tmp_path: Path, sqlite_url: str, name: str, mapping: str, reason: Reason, words: str
) -> None:
    Legacy(sqlite_url).engine.dispose()
    mesh = Mesh(tmp_path)
    mesh.live[name] = section(tmp_path, sqlite_url, mapping)
    with pytest.raises((InvalidArgument, FailedPrecondition), match=words) as refused:
        await mesh.start("commerce")
    assert refused.value.reason is reason
    assert databases(tmp_path) == [], "nothing was migrated for it"
    await mesh.stop()


async def test_a_database_that_is_away_stops_the_start_and_no_password_is_told(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    mesh.live["commerce.Enterprise"] = section(tmp_path, "postgresql://u:hidden@127.0.0.1:1/d")
    with pytest.raises(Unavailable) as refused:
        await mesh.start("commerce")
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert "hidden" not in refused.value.message
    await mesh.stop()
