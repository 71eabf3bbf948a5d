"""What is said in a session: numbers, ids, deadlines, the order of answers, and how much may wait."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.config import LimitsSection
from services.kit.errors import HutongError, InvalidArgument, Reason
from services.kit.rpc import MESSAGE_BYTES, Call, bind
from services.kit.sessions import serving
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER, OTHER
from tests.exchange.standin import ACCESS, SOURCE, Standin
from tests.sessions.talking import Request, Talk, ask, prepare

WHO = "quality/lab"
SUBJECT, OTHERS = f"cn.uscc:{EXPORTER}", f"cn.uscc:{OTHER}"
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
NAMES = question(SUBJECT, "commerce.Enterprise:name", **PUBLIC)
STATUS = question(SUBJECT, "taxation.TaxpayerStatus:tax_status", **PUBLIC)
TIMEOUT = exchange_pb2.SECTION_STATUS_TIMEOUT
Fetched = record_source_pb2.FetchResponse
FETCH_SESSION = f"/{SOURCE.full_name}/FetchSession"


class Slow(Standin):
    """A department that answers when it is told to, with a large answer."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.free = asyncio.Event()
        self.running = self.most = self.begun = 0
        self.reached = asyncio.Event()
        """Set whenever another question has come."""
        self.answer = Fetched(sections=[exchange_pb2.Section(reason="x" * 1000)])

    async def _wait(self, _: record_source_pb2.FetchRequest, call: Call) -> Fetched:
        self.running += 1
        self.begun += 1
        self.most = max(self.most, self.running)
        self.reached.set()
        await self.free.wait()
        self.running -= 1
        return self.answer

    async def until(self, begun: int) -> None:
        """Wait until so many questions were begun."""
        async with asyncio.timeout(20):
            while self.begun < begun:
                self.reached.clear()
                await self.reached.wait()


async def reason(talk: Talk, number: int) -> Reason:
    found = await talk.raw(number)
    assert isinstance(found, HutongError)
    return found.reason


async def test_a_question_relies_on_what_is_prepared_under_its_number_then(mesh: Mesh) -> None:
    async with Talk(mesh.client(WHO)) as talk:
        talk.say(prepare(7, NAMES), ask(1, 7, SUBJECT))
        talk.say(prepare(7, STATUS), ask(2, 7, SUBJECT))
        talk.say(ask(3, 7, SUBJECT), prepare(8, NAMES), ask(4, 8, SUBJECT))
        types = [(await talk.answer(number)).sections[0].record_type for number in (1, 2, 3, 4)]
        names, status = "commerce.Enterprise", "taxation.TaxpayerStatus"
        assert types == [names, status, status, names]
        assert len({(await talk.answer(number)).query_id for number in (1, 2, 3, 4)}) == 4
        talk.end()
        assert await talk.ended() is None


async def test_what_was_never_prepared_costs_the_question_and_no_other(mesh: Mesh) -> None:
    async with Talk(mesh.client(WHO)) as talk:
        talk.say(prepare(0, NAMES), ask(1, 0, SUBJECT), ask(2, 255, SUBJECT), ask(3, 0, OTHERS))
        assert await reason(talk, 2) is Reason.MALFORMED_REQUEST
        assert (await talk.answer(1)).sections[0].records
        assert (await talk.answer(3)).sections[0].records


@pytest.mark.parametrize("what", ["subject", "as_of"])
async def test_what_is_prepared_is_about_nobody_and_no_moment(mesh: Mesh, what: str) -> None:
    """Taken for what every question means unless it says otherwise, it would answer about somebody else."""
    prepared = prepare(0, NAMES)
    if what == "subject":
        prepared.prepare[0].query.subject.CopyFrom(NAMES.subject)
    else:
        prepared.prepare[0].query.as_of.GetCurrentTime()
    async with Talk(mesh.client(WHO)) as talk:
        talk.say(prepared, ask(1, 0, SUBJECT))
        assert await reason(talk, 1) is Reason.MALFORMED_REQUEST


async def test_as_of_is_each_questions_own(mesh: Mesh) -> None:
    async with Talk(mesh.client(WHO)) as talk:
        past, future = ask(1, 0, SUBJECT), ask(2, 0, SUBJECT)
        past.asks[0].as_of.FromSeconds(1_500_000_000)
        future.asks[0].as_of.FromSeconds(9_000_000_000)
        talk.say(prepare(0, NAMES), past, future, ask(3, 0, SUBJECT))
        assert (await talk.answer(1)).sections[0].status == exchange_pb2.SECTION_STATUS_NO_RECORD
        assert await reason(talk, 2) is Reason.AS_OF_IN_FUTURE
        assert (await talk.answer(3)).sections[0].records


async def test_a_wrong_question_that_is_prepared_is_refused_for_every_subject(mesh: Mesh) -> None:
    wrong = question(SUBJECT, "commerce.Enterprise:no_such_field", **PUBLIC)
    async with Talk(mesh.client(WHO)) as talk:
        talk.say(prepare(0, wrong), ask(1, 0, SUBJECT), ask(2, 0, OTHERS))
        assert [await reason(talk, 1), await reason(talk, 2)] == [Reason.FIELD_UNKNOWN] * 2
        talk.say(prepare(0, NAMES), ask(3, 0, SUBJECT))
        assert (await talk.answer(3)).sections[0].records


async def test_there_are_256_numbers(mesh: Mesh) -> None:
    fields = ["name", "reg_status", "uscc"]
    async with Talk(mesh.client(WHO)) as talk:
        parts: list[Request] = []
        for number in range(256):
            asked = question(SUBJECT, f"commerce.Enterprise:{fields[number % 3]}", **PUBLIC)
            parts += [prepare(number, asked), ask(number + 1, number, SUBJECT)]
        talk.say(*parts)
        for number in range(256):
            (section,) = (await talk.answer(number + 1)).sections
            assert [decision.field for decision in section.decisions] == [fields[number % 3]]
        talk.say(prepare(256, NAMES))
        error = await talk.ended()
    assert isinstance(error, InvalidArgument)


async def test_an_id_is_used_again_once_it_was_answered_and_not_before(mesh: Mesh) -> None:
    slow = Slow()
    async with mesh.zone.serving(bind(SOURCE, slow), ACCESS) as host, mesh.zone.client(host, "gateway/main") as client:
        async with Talk(client, FETCH_SESSION) as talk:
            prepared = record_source_pb2.FetchSessionRequest()
            prepared.prepare.add(id=0)
            prepared.asks.add(id=5)
            talk.say(prepared)
            slow.free.set()
            await talk.raw(5)
            del talk.answered[5]
            slow.free.clear()
            talk.say(prepared)
            await slow.until(2)
            talk.say(prepared)
            error = await talk.ended()
        assert isinstance(error, InvalidArgument)
        assert "not yet answered" in error.message


async def test_a_slow_department_delays_only_the_questions_that_ask_it(own: Mesh) -> None:
    slow, limits = Slow(), LimitsSection(drain=dt.timedelta())
    await own.departments.pop("customs").stop()
    async with own.zone.serving(bind(SOURCE, slow), ACCESS, limits) as host:
        await own.replace_gateway(customs=host.address)
        both = question(SUBJECT, "customs.Operator:uscc", "taxation.TaxpayerStatus:tax_status", **PUBLIC)
        async with Talk(own.client(WHO)) as talk:
            talk.say(prepare(0, both), prepare(1, STATUS), ask(1, 0, SUBJECT), ask(2, 0, SUBJECT, 1.0))
            talk.say(*(ask(number, 1, SUBJECT) for number in range(3, 103)), ask(103, 0, SUBJECT, 0.001))
            for number in range(3, 103):
                assert (await talk.answer(number)).sections[0].records
            assert await reason(talk, 103) is Reason.DEADLINE_TOO_SHORT
            # Its own deadline, though the first one that waits for the same department waits longer.
            first, second = (await talk.answer(2)).sections
            assert (first.status, first.reason) == (TIMEOUT, Reason.DEPARTMENT_TIMEOUT)
            assert second.records
            assert 1 not in talk.answered
            slow.free.set()
            assert (await talk.answer(1)).sections[1].records


async def test_more_questions_than_may_wait_are_read_later_and_none_is_lost(mesh: Mesh) -> None:
    slow, many = Slow(), serving.MOST_UNANSWERED + 576
    async with mesh.zone.serving(bind(SOURCE, slow), ACCESS) as host, mesh.zone.client(host, "gateway/main") as client:
        async with Talk(client, FETCH_SESSION) as talk:
            for start in range(0, many, 100):
                request = record_source_pb2.FetchSessionRequest()
                request.prepare.add(id=0)
                for number in range(start, start + 100):
                    request.asks.add(id=number)
                talk.say(request)
            await slow.until(serving.MOST_UNANSWERED)
            slow.free.set()
            for number in range(many):
                assert isinstance(await talk.raw(number), bytes)
        assert slow.most == serving.MOST_UNANSWERED
        assert slow.begun == many


async def test_who_never_reads_is_answered_no_further_than_what_may_wait(mesh: Mesh) -> None:
    """And costs nobody else anything; once it reads, everything is there."""
    slow, many = Slow(), 600
    slow.free.set()
    slow.answer = Fetched(sections=[exchange_pb2.Section(reason="x" * 100_000)])
    async with mesh.zone.serving(bind(SOURCE, slow), ACCESS) as host, mesh.zone.client(host, "gateway/main") as client:
        talk = Talk(client, FETCH_SESSION)
        raws: Any = client.channel().stream(FETCH_SESSION, talk.messages(), None)
        for start in range(0, many, 20):
            request = record_source_pb2.FetchSessionRequest()
            request.prepare.add(id=0)
            for number in range(start, start + 20):
                request.asks.add(id=number)
            talk.say(request)
        got = [await anext(raws)]
        # Others ask, and are answered, until this one is begun no more.
        before = -1
        while before != slow.begun:
            before = slow.begun
            for _ in range(20):
                await client.unary(f"/{SOURCE.full_name}/Fetch", b"", Fetched, timeout=10)
            before += 20
        assert slow.begun < many
        talk.end()
        got += [raw async for raw in raws]
        answers = [each for raw in got for each in record_source_pb2.FetchSessionResponse.FromString(raw).answers]
        assert sorted(answer.id for answer in answers) == list(range(many))


async def test_a_session_answers_as_single_questions_are_answered(mesh: Mesh) -> None:
    client = mesh.client(WHO)
    async with Talk(client) as talk:
        for number, asked in enumerate((NAMES, STATUS, question(SUBJECT, "customs.Declaration", **PUBLIC))):
            single = await client.unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5)
            talk.say(prepare(number, asked), ask(number, number, SUBJECT))
            found = await talk.answer(number)
            for answer in (single, found):
                answer.ClearField("query_id")
                answer.ClearField("receipt")
                for section in answer.sections:
                    section.ClearField("as_of")
            assert found == single


async def test_about_nobody_is_refused_as_it_is_alone(mesh: Mesh) -> None:
    async with Talk(mesh.client(WHO)) as talk:
        nobody = Request()
        nobody.asks.add(id=1, prepared=0)
        talk.say(prepare(0, NAMES), nobody)
        assert await reason(talk, 1) is Reason.SUBJECT_MISSING
        empty = Request()
        empty.asks.add(id=2, prepared=0, subject=common_pb2.SubjectId())
        talk.say(empty)
        assert await reason(talk, 2) is Reason.SUBJECT_MISSING


def fetching(*asks: int, cancels: tuple[int, ...] = (), largest: int = 0) -> record_source_pb2.FetchSessionRequest:
    """Ask a stand-in: what is prepared says nothing."""
    request = record_source_pb2.FetchSessionRequest(cancels=cancels, max_message_bytes=largest)
    request.prepare.add(id=0)
    for number in asks:
        request.asks.add(id=number)
    return request


@contextlib.asynccontextmanager
async def fetched(mesh: Mesh, standin: Standin, limits: LimitsSection | None = None) -> AsyncGenerator[Talk]:
    """Talk to a stand-in for a department, as the gateway does."""
    async with (
        mesh.zone.serving(bind(SOURCE, standin), ACCESS, limits) as host,
        mesh.zone.client(host, "gateway/main") as client,
        Talk(client, FETCH_SESSION) as talk,
    ):
        yield talk


@pytest.mark.parametrize(("said", "fits"), [(50_000, 40_000), (0, 4_000_000), (2**32 - 1, 900_000)])
async def test_an_answer_the_asker_could_not_take_is_refused_by_itself(mesh: Mesh, said: int, fits: int) -> None:
    """Sent, it would end the session, and with it everybody else's questions."""
    sizes = {1: fits, 2: fits + 300_000, 3: fits}
    most = LimitsSection(response_bytes=1_000_000 if fits == 900_000 else 16_000_000, drain=dt.timedelta())

    async def sized(request: record_source_pb2.FetchRequest, _: Call) -> Fetched:
        return Fetched(sections=[exchange_pb2.Section(reason="x" * sizes[int(request.query_id)])])

    asked = fetching(largest=said)
    for number in sizes:
        asked.asks.add(id=number, query_id=str(number))
    async with fetched(mesh, Standin(sized), most) as talk:
        talk.say(asked)
        assert await reason(talk, 2) is Reason.ANSWER_TOO_LARGE
        for number in (1, 3):
            got = await talk.raw(number)
            assert isinstance(got, bytes)
            assert len(got) > fits
        talk.end()
        assert await talk.ended() is None


async def test_what_nobody_waits_for_any_more_is_cut(mesh: Mesh) -> None:
    slow = Slow()
    async with fetched(mesh, slow) as talk:
        talk.say(fetching(1, 2, 3))
        await slow.until(3)
        # One that runs, one that was never asked, and one that comes with its own end.
        talk.say(fetching(4, cancels=(1, 4, 99)))
        await slow.until(4)
        talk.say(fetching(1))
        await slow.until(5)
        slow.free.set()
        for number in (1, 2, 3):
            assert isinstance(await talk.raw(number), bytes)
        talk.end()
        assert await talk.ended() is None
        assert 4 not in talk.answered


async def test_a_message_of_a_session_may_be_larger_than_a_request(mesh: Mesh) -> None:
    slow, limits = Slow(), LimitsSection(request_bytes=1024)
    slow.free.set()
    async with fetched(mesh, slow, limits) as talk:
        asked = fetching(*range(900))
        for each in asked.asks:
            each.query_id = "x" * 60
        assert 50_000 < asked.ByteSize() < MESSAGE_BYTES
        talk.say(asked)
        for number in range(900):
            assert isinstance(await talk.raw(number), bytes)
        for each in asked.asks:
            each.id += 900
            each.query_id = "x" * 150
        talk.say(asked)
        error = await talk.ended()
    assert error is not None
    assert error.reason is Reason.REQUEST_TOO_LARGE


def preparing(number: int, size: int) -> record_source_pb2.FetchSessionRequest:
    """Prepare about so many bytes."""
    request = record_source_pb2.FetchSessionRequest()
    request.prepare.add(id=number).fetch.known_policy_version = "x" * size
    return request


async def test_what_is_prepared_is_bounded(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_KEPT", 30_000)
    slow = Slow()
    slow.free.set()
    async with mesh.zone.serving(bind(SOURCE, slow), ACCESS) as host:

        async def session(*sizes: int, number: int = 0) -> Reason | None:
            async with Talk(client, FETCH_SESSION) as talk:
                for size in sizes:
                    talk.say(preparing(number, size))
                talk.end()
                error = await talk.ended()
                return None if error is None else error.reason

        async with mesh.zone.client(host, "gateway/main") as client, mesh.zone.client(host, "gateway/two") as other:
            assert await session(serving.LARGEST_PREPARED + 1) is Reason.REQUEST_TOO_LARGE
            # What takes another's place, and what a session had that has ended, counts no more.
            for _ in range(3):
                assert await session(16_000, 16_000, 16_000) is None
            async with Talk(client, FETCH_SESSION) as one, Talk(other, FETCH_SESSION) as two:
                for talk in (one, two):
                    talk.say(preparing(1, 16_000), fetching(1))
                    assert isinstance(await talk.raw(1), bytes)
                assert await session(15_000) is Reason.REQUEST_TOO_LARGE
                # It cost nobody else anything.
                for talk in (one, two):
                    talk.say(fetching(2))
                    assert isinstance(await talk.raw(2), bytes)
            assert await session(15_000) is None
