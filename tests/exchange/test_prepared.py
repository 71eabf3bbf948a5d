"""What a department keeps of requests stands exactly as long as it would be decided again: and no ask longer."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit.caller import Caller
from services.kit.client import Client
from services.kit.context import LIFETIME, SKEW, ContextSigner, Origin, request_digest
from services.kit.department import DepartmentNode
from services.kit.errors import HutongError, Reason
from services.kit.host import Host
from services.kit.reader import Asking, Question, Reader
from services.kit.records import migrations
from services.kit.records.pages import PageTokens
from services.kit.records.store import Draft, RecordStore
from services.kit.sessions.asking import AskingSession
from tests.attacks.clocked import Clock
from tests.authorizations.mesh import AML, DECLARATIONS, loaded
from tests.exchange.mesh import ROOMS, Mesh
from tests.exchange.records import EXPORTER, OTHER, RECORDS
from tests.policy import specimen
from tests.policy.support import NOW, SECRET, TAX, TYPE, SetClock, context, engine, forbid, parse, permit
from tests.zone import ZONE, now

FETCH = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
FETCH_SESSION = "/hutong.api.exchange.v1.RecordSourceService/FetchSession"
SECOND = dt.timedelta(seconds=1)
WHY = exchange_pb2.RequestContext(purpose="P-REBATE", legal_basis="CN-VAT-REBATE")
FIELDS = ("declaration_no", "total_value_cny")

# ------------------------------------------------------------------------------------------------ a reader


@pytest.fixture(scope="module")
async def museum(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RecordStore]:
    """Two holders' specimens: of the one two, of the other one."""
    folder: Path = tmp_path_factory.mktemp("museum")
    url = f"sqlite:///{folder / 'store.db'}"
    migrations.revise(url, folder / "migrations", specimen.catalogue())
    migrations.upgrade(url, folder / "migrations")
    async with RecordStore(url, specimen.catalogue(), SetClock(NOW - dt.timedelta(days=1))) as store:
        made = ((EXPORTER, "A", 3, 1), (EXPORTER, "B", 9, 2), (OTHER, "C", 3, 2))
        records = [
            TYPE.message(holder=holder, code=code, count=count, bought_on=common_pb2.Date(year=2026, month=6, day=day))
            for holder, code, count, day in made
        ]
        await store.append([Draft(TYPE, record, "museum") for record in records])
        yield store


class Asked:
    """One question, prepared once."""

    def __init__(self, museum: RecordStore, *policies: str, **question: Any) -> None:
        self.clock = SetClock()
        self.engine = engine(*policies, clock=self.clock)
        self.reader = Reader(museum, self.engine, PageTokens(SECRET), self.clock)
        self._question = question
        self.asking = self._prepared()

    def _prepared(self) -> Asking:
        return self.reader.asking(Origin(TAX, context()), Question(TYPE, **self._question))

    async def codes(self, holder: str = EXPORTER) -> list[str]:
        """Ask as prepared; the answer is that of a question asked for the first time."""
        reading = await self.reader.answer(self.asking, self.clock(), ("cn.uscc", holder))
        afresh = await self.reader.answer(self._prepared(), self.clock(), ("cn.uscc", holder))
        assert reading == afresh
        return [TYPE.message.FromString(record).code for record in reading.records]  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def test_one_preparation_serves_every_subject(museum: RecordStore) -> None:
    asked = Asked(museum, permit("p", ["code", "holder"]))
    for _ in range(2):
        assert await asked.codes() == ["A", "B"]
        assert await asked.codes(OTHER) == ["C"]


async def test_other_policies_decide_the_next_ask(museum: RecordStore) -> None:
    texts = permit("p", ["code", "holder"]), forbid("q", ["code"])
    asked = Asked(museum, texts[0])
    assert await asked.codes() == ["A", "B"]
    asked.engine.replace(parse(*texts))
    assert await asked.codes() == ["", ""]
    asked.engine.replace(parse(permit("r", ["code"], when='context.purpose == "P-RISK"', basis="CN-CUSTOMS-RISK")))
    assert await asked.codes() == []
    asked.engine.replace(parse(texts[0]))
    assert await asked.codes() == ["A", "B"]


async def test_policies_begin_and_end_between_two_asks(museum: RecordStore) -> None:
    start, end = NOW + SECOND, NOW + 2 * SECOND
    ends = permit("p", ["code", "holder"], until=end.isoformat())
    begins = forbid("q", ["code"], from_=start.isoformat(), until=(NOW + dt.timedelta(days=1)).isoformat())
    asked = Asked(museum, ends, begins)
    expected: list[tuple[dt.datetime, list[str]]] = [
        (NOW, ["A", "B"]),
        (start - SECOND / 1000, ["A", "B"]),
        (start, ["", ""]),
        (end, []),
    ]
    # Forwards, and back as a clock that is set.
    for moment, codes in (*expected, *reversed(expected)):
        asked.clock.now = moment
        assert await asked.codes() == codes, moment


async def test_today_is_the_day_of_each_ask(museum: RecordStore) -> None:
    """By the jurisdiction's own clock, whose day begins eight hours before that of UTC."""
    asked = Asked(museum, permit("p", ["code", "holder"], rows="bought_on >= :today"))
    midnight = dt.datetime(2026, 6, 1, 16, tzinfo=dt.UTC)
    expected: list[tuple[dt.datetime, list[str]]] = [
        (midnight - SECOND, ["A", "B"]),
        (midnight, ["B"]),
        (midnight + dt.timedelta(days=1), []),
    ]
    for moment, codes in (*expected, *reversed(expected)):
        asked.clock.now = moment
        assert await asked.codes() == codes, moment


async def test_pages_and_moments_are_each_asks_own(museum: RecordStore) -> None:
    asked = Asked(museum, permit("p", ["code", "holder"]), page_size=1)
    first = await asked.reader.answer(asked.asking, asked.clock(), ("cn.uscc", EXPORTER))
    assert (len(first.records), bool(first.next_page_token)) == (1, True)
    before = NOW - dt.timedelta(days=2)
    assert (await asked.reader.answer(asked.asking, asked.clock(), ("cn.uscc", EXPORTER), None, before)).records == []
    assert await asked.codes() == ["A"]
    further = Asked(museum, permit("p", ["code", "holder"]), page_size=1, page_token=first.next_page_token)
    assert await further.codes() == ["B"]
    # The token is of the question about the one subject, whoever prepared it.
    with pytest.raises(HutongError) as refused:
        await further.codes(OTHER)
    assert refused.value.reason is Reason.PAGE_TOKEN_MISMATCH


# ------------------------------------------------------------------------------------------------ a department


@contextlib.asynccontextmanager
async def customs(folder: Path, clock: Clock, policy: str = "") -> AsyncGenerator[Mesh]:
    """Customs alone, which two gateways may ask, by a clock of the test's."""
    mesh = Mesh(folder)
    mesh.add_policy("customs", policy)
    config = mesh.config("customs", "127.0.0.1:0").model_copy(update={"gateways": ["gateway/main", "gateway/other"]})
    node = DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), Host(config, clock=clock))
    mesh.departments["customs"] = node
    try:
        await node.start()
        await mesh.load("customs", RECORDS["customs"])
        yield mesh
    finally:
        await mesh.stop()


def signed(
    mesh: Mesh,
    caller: str = "taxation/refund",
    why: exchange_pb2.RequestContext = WHY,
    clock: Callable[[], dt.datetime] = now,
) -> record_source_pb2.FetchRequest:
    """What the gateway prepares for a caller: signed now."""
    request = record_source_pb2.FetchRequest()
    request.selections.add(record_type="customs.Declaration", fields=FIELDS)
    agency, _, system = caller.partition("/")
    signer, svid = ContextSigner(mesh.zone.identity("gateway/main"), clock), mesh.zone.files("gateway/main").load()
    origin = Caller(f"spiffe://{ZONE}/{caller}", agency, system)
    request.delegated.CopyFrom(signer.sign(svid, origin, why, [request_digest(request)]))
    return request


class Session:
    """A session with the department, as the gateway."""

    def __init__(self, mesh: Mesh, prepared: record_source_pb2.FetchRequest) -> None:
        channel = mesh.client("gateway/main", "customs").channel()
        self._session = AskingSession(channel, FETCH_SESSION, record_source_pb2.FetchSessionResponse)
        self._prepared = prepared.SerializeToString()

    async def section(self, subject: str = EXPORTER) -> exchange_pb2.Section:
        """Ask; raises the `HutongError` that comes in place of an answer."""
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        about = common_pb2.SubjectId(scheme="cn.uscc", value=subject)
        ask = record_source_pb2.FetchSessionRequest.Ask(subject=about).SerializeToString()
        self._session.ask(self._prepared, ask, 10, found.set_result)
        answer = await found
        if isinstance(answer, HutongError):
            raise answer
        section: exchange_pb2.Section = answer.sections[0]
        return section

    async def refused(self, subject: str = EXPORTER) -> Reason:
        with pytest.raises(HutongError) as refused:
            await self.section(subject)
        return refused.value.reason

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()


def given(section: exchange_pb2.Section) -> set[str]:
    return {decision.field for decision in section.decisions if decision.verdict == exchange_pb2.VERDICT_CLEAR}


async def test_a_word_lasts_no_longer_in_a_session(tmp_path: Path) -> None:
    clock = Clock()
    async with customs(tmp_path, clock) as mesh, Session(mesh, signed(mesh)) as session:
        for subject in (EXPORTER, OTHER):
            assert len((await session.section(subject)).records) == (1 if subject == EXPORTER else 0)
        clock.ahead = LIFETIME + SKEW
        assert await session.refused() is Reason.CONTEXT_EXPIRED
        clock.ahead = -SKEW - 5 * SECOND
        assert await session.refused() is Reason.CONTEXT_INVALID
        clock.ahead = dt.timedelta()
        assert (await session.section()).records


async def test_a_policy_begins_in_a_session(tmp_path: Path) -> None:
    clock, start = Clock(), now() + dt.timedelta(minutes=10)
    stop = (
        f'@id("stop") @from("{start.isoformat()}") @until("2099-01-01T00:00:00Z") forbid (principal, action, '
        'resource == Hutong::Field::"customs.Declaration.total_value_cny");'
    )
    clock.ahead = start - now() - 10 * SECOND
    async with customs(tmp_path, clock, stop) as mesh, Session(mesh, signed(mesh, clock=clock)) as session:
        assert given(await session.section()) == set(FIELDS)
        clock.ahead += 10 * SECOND
        assert given(await session.section()) == {"declaration_no"}


async def test_what_one_gateway_prepared_is_no_others(tmp_path: Path) -> None:
    """Nor its own any more, with another certificate: the word is signed with the key of the one that it had."""
    async with customs(tmp_path, Clock()) as mesh:
        request = signed(mesh)
        request.subject.CopyFrom(common_pb2.SubjectId(scheme="cn.uscc", value=EXPORTER))

        async def fetch(client: Client) -> record_source_pb2.FetchResponse:
            return await client.unary(FETCH, request, record_source_pb2.FetchResponse, timeout=5)

        async def refused(client: Client) -> Reason:
            with pytest.raises(HutongError) as refused:
                await fetch(client)
            return refused.value.reason

        main = mesh.client("gateway/main", "customs")
        assert (await fetch(main)).sections[0].records
        assert await refused(mesh.client("gateway/other", "customs")) is Reason.CONTEXT_INVALID
        assert (await fetch(main)).sections[0].records
        mesh.zone.authority.renew(mesh.zone.identity("gateway/main"), now())
        node = mesh.host("customs")
        renewed = Client(node.address, node.identity, mesh.zone.files("gateway/main"))
        assert await refused(renewed) is Reason.CONTEXT_INVALID
        await renewed.close()


async def test_an_authorization_ends_in_a_session(tmp_path: Path) -> None:
    async with loaded(tmp_path) as mesh:
        leave = await mesh.give(DECLARATIONS)
        async with Session(mesh, signed(mesh, AML, leave.context())) as session:
            for times in (1, 2):
                rows = len((await session.section()).records)
                assert await mesh.used(leave) == times * rows > 0
            assert await session.refused(OTHER) is Reason.AUTHORIZATION_SCOPE
            await mesh.revoke(leave)
            await mesh.heard(leave.authorization_id, pb.AUTHORIZATION_STATE_REVOKED, leave.scope.types)
            assert await session.refused() is Reason.AUTHORIZATION_REVOKED
