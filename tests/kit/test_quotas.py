"""How much a caller gets in a day: up to the edge and not beyond, over a restart, over two replicas."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import pytest
import sqlalchemy as sa

from certs.spiffe import SpiffeId
from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit import quotas
from services.kit.caller import Caller
from services.kit.config import LimitsSection, QuotaSection
from services.kit.errors import Reason, ResourceExhausted, Unavailable
from services.kit.log import nodelog
from services.kit.log.facts import Facts, Given
from services.kit.log.tables import QUOTA
from services.kit.policy.mask import ReadMask
from services.kit.quotas import Quotas
from services.kit.records import migrations
from services.kit.records.database import Database
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import CLEARED, RECORDS
from tests.exchange.test_query import REBATE, SUBJECT
from tests.log.bed import Clock
from tests.sessions.talking import Talk, prepare
from tests.sessions.talking import ask as asking
from tests.zone import ZONE

GET = "/hutong.api.customs.v1.CustomsService/GetDeclaration"
CHINA = dt.timezone(dt.timedelta(hours=8))
EVENING = dt.datetime(2026, 3, 4, 23, 59, 30, tzinfo=CHINA)
MASK = cast("ReadMask", object())
"""It decided; nobody looks into it."""


def caller(path: str) -> Caller:
    agency, _, system = path.partition("/")
    return Caller(f"spiffe://zone.example/{path}", agency, system)


WHO = caller("taxation/refund")


def gives(records: int, whom: Caller | None = None) -> Facts:
    """Facts of a call that gives records of one type."""
    facts = Facts()
    facts.caller = whom
    facts.disclosures.append(Given("customs.Declaration", MASK, records, False, {}))
    return facts


@contextmanager
def database(url: str) -> Generator[Database]:
    migrations.upgrade(url, nodelog.MIGRATIONS)
    made = Database(url)
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def counting(
    store: Database, clock: Clock, others: dict[str, QuotaSection] | None = None, **quota: int
) -> AsyncGenerator[Quotas]:
    made = Quotas(QuotaSection(**quota), others or {}, lambda: store, CHINA, clock, ZONE)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def refused(made: Quotas, facts: Facts | None = None, peer: Caller = WHO) -> ResourceExhausted:
    with pytest.raises(ResourceExhausted) as found:
        made.spend(peer, facts or gives(0))
    assert found.value.reason is Reason.QUOTA_EXCEEDED
    return found.value


async def test_so_many_answers_a_day_and_the_next_day_as_many(sqlite_url: str) -> None:
    clock = Clock(EVENING)
    with database(sqlite_url) as store:
        async with counting(store, clock, calls=3) as made:
            for _ in range(3):
                made.check(WHO)
                made.spend(WHO, gives(100))
            with pytest.raises(ResourceExhausted) as early:
                made.check(WHO)
            assert early.value.metadata == refused(made).metadata
            assert early.value.metadata == {
                "retry_after": "30s",
                "until": "2026-03-05T00:00:00+08:00",
                "left": "0",
            }
            assert made.used_up == 1
            made.spend(caller("taxation/other"), gives(1))
            clock.move(seconds=30)
            made.check(WHO)
            made.spend(WHO, gives(1))
            assert made.used_up == 0


async def test_so_many_records_and_nothing_of_what_is_more(sqlite_url: str) -> None:
    with database(sqlite_url) as store:
        async with counting(store, Clock(EVENING), records=10) as made:
            made.spend(WHO, gives(4))
            assert refused(made, gives(7)).metadata["left"] == "6"
            # What was not given is not counted.
            made.spend(WHO, gives(6))
            # That there is no record is no longer told either: whoever knew could ask for one at a time.
            refused(made, gives(0))


async def test_an_answer_in_many_messages_is_one(sqlite_url: str) -> None:
    with database(sqlite_url) as store:
        async with counting(store, Clock(EVENING), calls=2, records=100) as made:
            facts = gives(10)
            for _ in range(5):
                made.spend(WHO, facts)
            made.spend(WHO, gives(50))
            refused(made)


async def test_whom_a_gateway_speaks_for_is_counted(sqlite_url: str) -> None:
    gateway = caller("gateway/main")
    with database(sqlite_url) as store:
        async with counting(store, Clock(EVENING), calls=1) as made:
            made.spend(gateway, gives(1, WHO))
            made.spend(gateway, gives(1, caller("customs/release")))
            made.check(gateway)
            refused(made, gives(1, WHO), gateway)
            # The same caller without one is the same caller.
            refused(made)


async def test_the_more_exact_quota_counts(sqlite_url: str) -> None:
    others = {"taxation/*": QuotaSection(calls=2), "taxation/free": QuotaSection(records=1000)}
    with database(sqlite_url) as store:
        async with counting(store, Clock(EVENING), others, calls=1) as made:
            for path, most in (("customs/a", 1), ("taxation/a", 2), ("taxation/free", 900)):
                for _ in range(most):
                    made.spend(caller(path), gives(1))
            refused(made, peer=caller("customs/a"))
            refused(made, peer=caller("taxation/a"))
            made.spend(caller("taxation/free"), gives(1))


async def test_after_a_restart_a_caller_from_elsewhere_has_its_own_quota(tmp_path: Path) -> None:
    """Its name at home is that of one of ours, whose quota is another."""
    clock = Clock(EVENING)
    others = {"taxation/*": QuotaSection(calls=100), "taxation.port.example/*": QuotaSection(calls=2)}
    abroad = Caller.abroad(SpiffeId.parse("spiffe://port.example/taxation/refund"))
    with database(f"sqlite+aiosqlite:///{tmp_path}/log.db") as store:
        async with counting(store, clock, others) as made:
            made.spend(abroad, gives(1))
        async with counting(store, clock, others) as made:
            made.spend(abroad, gives(1))
            with pytest.raises(ResourceExhausted):
                made.check(abroad)


async def test_a_restart_brings_nothing_back(any_url: str) -> None:
    clock = Clock(EVENING)
    with database(any_url) as store:
        async with counting(store, clock, calls=3) as made:
            made.spend(WHO, gives(2))
            made.spend(WHO, gives(2))
        async with counting(store, clock, calls=3) as made:
            made.spend(WHO, gives(2))
            refused(made)
        # And the counts are those of that day.
        with pytest.raises(ResourceExhausted):
            async with counting(store, clock, calls=3) as made:
                made.check(WHO)
        clock.move(days=1)
        async with counting(store, clock, calls=3) as made:
            made.spend(WHO, gives(5))
        rows = await store.read(lambda c: c.execute(sa.select(QUOTA).order_by(QUOTA.c.day)).all())
        assert [tuple(row) for row in rows] == [
            (dt.date(2026, 3, 4), WHO.spiffe_id, 3, 6),
            (dt.date(2026, 3, 5), WHO.spiffe_id, 1, 5),
        ]
        clock.move(days=8)
        async with counting(store, clock, calls=3) as made:
            made.spend(WHO, gives(1))
        assert await store.read(lambda c: c.execute(sa.select(QUOTA.c.day)).scalars().all()) == [dt.date(2026, 3, 13)]


async def test_replicas_add_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives half; then neither gives any more, and many callers at once are no trouble."""
    monkeypatch.setattr(quotas, "EVERY", 0.005)
    clock = Clock(EVENING)
    with database(postgres_url) as store, database(postgres_url) as other:
        async with (
            asyncio.timeout(30),
            counting(store, clock, records=100) as first,
            counting(other, clock, records=100) as second,
        ):
            for number in range(600):
                first.spend(caller(f"enterprise/e{number}"), gives(1))
                second.spend(caller(f"enterprise/e{600 - number}"), gives(1))
            for made in (first, second) * 25:
                made.spend(WHO, gives(2))
                await asyncio.sleep(0)
            # A replica learns of the others when it gives something itself.
            made = first
            while not (first.used_up and second.used_up):
                made = second if made is first else first
                if not made.used_up:
                    made.spend(WHO, gives(0))
                await asyncio.sleep(0.001)
            refused(first)
            refused(second)
        total = await store.read(lambda c: c.execute(sa.select(sa.func.sum(QUOTA.c.records))).scalar())
        assert total == 100 + 1200


async def test_a_database_that_is_away_is_added_to_when_it_is_back(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quotas, "EVERY", 0.001)
    away, tried = False, asyncio.Event()
    with database(sqlite_url) as store:

        def found() -> Database:
            if away:
                tried.set()
                raise Unavailable(Reason.LOG_UNAVAILABLE, "away")
            return store

        made = Quotas(QuotaSection(calls=10), {}, found, CHINA, Clock(EVENING), ZONE)
        await made.start()
        away = True
        for _ in range(4):
            made.spend(WHO, gives(1))
        async with asyncio.timeout(20):
            await tried.wait()
        made.spend(WHO, gives(1))
        away = False
        await made.stop()
        assert await store.read(lambda c: c.execute(sa.select(QUOTA.c.calls)).scalar()) == 5
    assert caplog.messages.count("Quotas cannot be added up now") == 1


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    """Customs has quotas; the gateway has none."""
    mesh = Mesh(tmp_path_factory.mktemp("quotas"))
    mesh.limits = LimitsSection(quotas={"taxation/refund": QuotaSection(records=3)})
    try:
        await mesh.start("customs")
        await mesh.load("customs", RECORDS["customs"])
        mesh.limits = LimitsSection(quotas={"quality/lab": QuotaSection(calls=2)})
        await mesh.start_gateway()
        yield mesh
    finally:
        await mesh.stop()


async def sections(mesh: Mesh) -> list[tuple[int, str, int]]:
    asked = question(SUBJECT, "customs.Declaration:declaration_no", **REBATE)
    answer = await mesh.client("taxation/refund").unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5)
    return [(section.status, section.reason, len(section.records)) for section in answer.sections]


async def test_a_department_counts_for_whom_a_gateway_asks(mesh: Mesh) -> None:
    customs = mesh.host("customs")
    assert customs.log is not None
    for _ in range(3):
        assert [count for _, _, count in await sections(mesh)] == [1]
    logged = customs.log.size
    assert await sections(mesh) == [(exchange_pb2.SECTION_STATUS_DENIED, Reason.QUOTA_EXCEEDED, 0)]
    client = mesh.client("taxation/refund", "customs")
    # Before anything is looked for: what is not there is not told of either.
    for number in (CLEARED, "999920260999999999"):
        request = service_pb2.GetDeclarationRequest(name=f"declarations/{number}", context=RequestContext(**REBATE))
        with pytest.raises(ResourceExhausted) as found:
            await client.unary(GET, request, service_pb2.GetDeclarationResponse, timeout=5)
        assert found.value.reason is Reason.QUOTA_EXCEEDED
        assert float(found.value.metadata["retry_after"][:-1]) <= 86_400
    # As with rates: a log must not grow by what is kept out. It is counted.
    assert customs.log.size == logged
    refusals = customs.telemetry.calls.refusals
    assert sum(count for (_, reason), count in refusals.items() if reason == Reason.QUOTA_EXCEEDED) == 3
    assert {name: value for name, _, value in customs.telemetry.readings()}["hutong_quotas_used_up"] == 1


async def test_questions_of_a_session_count_one_by_one(mesh: Mesh) -> None:
    public = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
    async with Talk(mesh.client("quality/lab")) as talk:
        talk.say(prepare(0, question(SUBJECT, "customs.Operator:uscc", **public)))
        for number in range(2):
            talk.say(asking(number, 0, SUBJECT))
            assert (await talk.answer(number)).sections[0].records
        talk.say(asking(2, 0, SUBJECT))
        assert getattr(await talk.raw(2), "reason", None) is Reason.QUOTA_EXCEEDED
