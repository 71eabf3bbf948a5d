"""Processes that crash, freeze or run out of disk: what left them is in their logs, and what is not did not leave."""

import asyncio
import os
import random
import resource
import signal
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from hutong.api.log.v1 import log_pb2
from services.cli.fleet import Fleet
from services.kit.errors import HutongError, Reason
from services.kit.log import reading, receipts
from services.kit.log.verifying import verify_all
from services.kit.records.database import engine
from tests.attacks.asking import CUSTOMS, DECLARATION, TAX, why
from tests.attacks.fleets import CASE, CHIEF, NODES, OWNER, REQUESTER, Office, load, prepared, rebate
from tests.authorizations.mesh import AML, Leave, asked, declarations
from tests.exchange.mesh import QUERY
from tests.exchange.records import EXPORTER, RECORDS

ROUNDS = 3
ASKING = 9
QUOTA = 400


@pytest.fixture(scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Office]:
    zone = prepared(tmp_path_factory.mktemp("crashing") / "zone")
    async with Fleet(zone, nodes=NODES) as fleet:
        await load(zone, [*RECORDS["customs"], *declarations(4)])
        yield Office(fleet)


@dataclass
class Kept:
    """What callers got, and kept."""

    answers: list[receipts.Answered] = field(default_factory=list[receipts.Answered])
    rows: int = 0
    """Rows that were given under the authorization."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, answered: receipts.Answered, rows: int = 0) -> None:
        self.answers.append(answered)
        self.rows += rows
        self.news.set()

    async def more(self, count: int) -> None:
        """Wait until so many more have come."""
        wanted = len(self.answers) + count
        while len(self.answers) < wanted:
            self.news.clear()
            await self.news.wait()


async def ask_on(office: Office, leave: Leave, kept: Kept, up: asyncio.Event, number: int) -> None:
    """Ask one thing after the other, through the gateway and at the department, whoever dies meanwhile."""
    doors: list[tuple[str, str, str, Any, Any]] = [
        (TAX, "gateway", QUERY, rebate(), federation_pb2.QueryResponse),
        (AML, "gateway", QUERY, asked(leave, "customs.Declaration", page_size=1), federation_pb2.QueryResponse),
        (TAX, "customs", f"{CUSTOMS}/GetDeclaration", get(), service_pb2.GetDeclarationResponse),
    ]
    who, node, method, request, response = doors[number % len(doors)]
    while True:
        try:
            answer, answered = await office.answered(who, node, method, request, response)
        except HutongError:
            # Killed in the middle of it, or gone already.
            await up.wait()
            continue
        rows = sum(len(section.records) for section in answer.sections) if who == AML else 0
        kept.keep(answered, rows)


def check(office: Office, kept: Kept) -> dict[str, int]:
    """Every answer that anybody got is in the log it names, word for word, and every log is whole; gives the sizes."""
    sizes: dict[str, int] = {}
    by_origin: dict[str, list[receipts.Answered]] = {}
    for each in kept.answers:
        by_origin.setdefault(each.receipt.origin, []).append(each)
    for node in ("customs", "gateway"):
        opened, key = engine(office.log_url(node), writer=False), office.key(node)
        with opened.connect() as connection:
            sizes[node] = verify_all(connection, key).size
            for each in by_origin.pop(key.name, []):
                receipts.verify(each.receipt, key)
                logged = reading.entry(connection, each.receipt.index)
                entry = receipts.verify_entry(each.receipt, logged.data)
                assert entry.outcome == log_pb2.OUTCOME_ANSWERED
                assert entry.answer_digest == each.digest
        opened.dispose()
    assert not by_origin
    return sizes


async def test_no_answer_leaves_without_its_entry_however_often_a_node_is_killed(office: Office) -> None:
    """Department and gateway, under load, in the middle of it; and no row leaves that was not taken off the quota."""
    leave, kept, chance, up = await office.give(QUOTA), Kept(), random.Random(7), asyncio.Event()
    up.set()
    asking = [asyncio.create_task(ask_on(office, leave, kept, up, number)) for number in range(ASKING)]
    try:
        for number in range(ROUNDS):
            await kept.more(chance.randrange(20, 120))
            victims = [("customs",), ("gateway",), ("customs", "gateway")][number % 3]
            up.clear()
            await asyncio.gather(*(office.fleet.kill(name) for name in victims))
            await asyncio.gather(*(office.fleet.restart(name) for name in victims))
            office.anew()
            up.set()
        await kept.more(30)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    sizes = await asyncio.to_thread(check, office, kept)
    assert sum(sizes.values()) > len(kept.answers) > ROUNDS * 20
    assert {answered.receipt.origin.partition("/")[2] for answered in kept.answers} == {"customs/node", "gateway/main"}
    assert 0 < kept.rows <= await office.used(leave) <= QUOTA


@contextmanager
def frozen(office: Office, node: str) -> Generator[None]:
    """Have a process that is there and does nothing: every connection to it stays open."""
    process = office.fleet.nodes[node].process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


async def outcome(office: Office, leave: Leave) -> str:
    """Ask under an authorization; tells why that gave nothing, or nothing where it gave rows."""
    try:
        request = asked(leave, "customs.Declaration", page_size=1)
        client = office.client(AML)
        answer = await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=30)
    except HutongError as error:
        return error.reason
    (section,) = answer.sections
    assert bool(section.records) == (not section.reason)
    return section.reason


NOT_HEARD = {Reason.AUTHORIZATION_UNKNOWN, Reason.AUTHORIZATION_STATE_UNKNOWN}
"""How it comes out while a node has not heard yet, or hears nothing on a busy machine."""


async def until(office: Office, leave: Leave, wanted: str, before: Collection[str] = NOT_HEARD) -> None:
    """Ask until it comes out as wanted; how else it may come out before is given."""
    async with asyncio.timeout(60):
        while (came := await outcome(office, leave)) != wanted:
            assert came in before


async def test_a_frozen_supervision_stops_authorized_reads_and_they_heal(office: Office) -> None:
    """Nobody can be told of a revocation then: so nobody reads on, and who needs no authorization does."""
    leave = await office.give(100)
    await until(office, leave, "")
    used = await office.used(leave)
    with frozen(office, "supervision"):
        # No row can be taken off the quota, so none leaves, not even before the silence is over.
        await until(office, leave, Reason.AUTHORIZATION_STATE_UNKNOWN, {Reason.DEPARTMENT_TIMEOUT})
        assert await outcome(office, leave) == Reason.AUTHORIZATION_STATE_UNKNOWN
        await office.answered(TAX, "gateway", QUERY, rebate(), federation_pb2.QueryResponse)
    await until(office, leave, "", {Reason.AUTHORIZATION_STATE_UNKNOWN})
    # What was asked of it while it could not answer may have been counted after all; never the other way round.
    assert await office.used(leave) > used
    await office.revoke(leave)
    await until(office, leave, Reason.AUTHORIZATION_REVOKED, {"", *NOT_HEARD})
    assert await outcome(office, leave) == Reason.AUTHORIZATION_REVOKED


@contextmanager
def full(office: Office, node: str) -> Generator[None]:
    """Have a process for which the disk takes not one byte more (RLIMIT_FSIZE)."""
    process = office.fleet.nodes[node].process
    assert process is not None
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)


async def refusal(office: Office, who: str, node: str, method: str, request: Any, response: Any) -> str:
    with pytest.raises(HutongError) as caught:
        await office.answered(who, node, method, request, response)
    return caught.value.reason


def get() -> service_pb2.GetDeclarationRequest:
    stated = why(purpose="P-REBATE", legal_basis="CN-VAT-REBATE", case_ref=CASE)
    return service_pb2.GetDeclarationRequest(name=DECLARATION, context=stated)


async def test_on_a_full_disk_nothing_leaves_unlogged(office: Office) -> None:
    """Nor is a refusal given that cannot be logged; and with room everything goes on by itself."""
    leave, kept = await office.give(100), Kept()
    await until(office, leave, "")
    declared = (TAX, "customs", f"{CUSTOMS}/GetDeclaration", get(), service_pb2.GetDeclarationResponse)
    asked_for = (TAX, "gateway", QUERY, rebate(), federation_pb2.QueryResponse)
    unlisted = ("quality/lab", *declared[1:])
    with full(office, "customs"):
        for call in (declared, unlisted):
            assert await refusal(office, *call) == Reason.LOG_UNAVAILABLE
        answer, answered = await office.answered(*asked_for)
        kept.keep(answered)
        assert [(s.status, len(s.records)) for s in answer.sections] == [(exchange_pb2.SECTION_STATUS_UNAVAILABLE, 0)]
        await until(office, leave, Reason.DEPARTMENT_FAILED)
    kept.keep((await office.answered(*declared))[1])
    with full(office, "gateway"):
        assert await refusal(office, *asked_for) == Reason.LOG_UNAVAILABLE
        await until(office, leave, Reason.LOG_UNAVAILABLE)
        kept.keep((await office.answered(*declared))[1])
    kept.keep((await office.answered(*asked_for))[1])
    await until(office, leave, "")
    # Who can reserve and not log has taken rows off that nobody got: two were given, and one each at either node not.
    assert await office.used(leave) >= 4
    await asyncio.to_thread(check, office, kept)


async def test_without_disk_no_authorization_comes_about(office: Office) -> None:
    """What supervision cannot log it does not say; and what it did not say is not in force."""
    leave = await office.give(100)
    with full(office, "supervision"):
        with pytest.raises(HutongError) as caught:
            await office.use(leave.authorization_id)
        assert caught.value.reason in {Reason.LOG_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.INTERNAL}
        with pytest.raises(HutongError):
            await office.give(100)
    assert await office.use(leave.authorization_id)


async def test_the_logs_hold_no_token_no_ticket_and_nobody(office: Office) -> None:
    """At the most talkative level, after all of the above, crashes and full disks included."""
    secrets = {CASE, REQUESTER, CHIEF, OWNER, EXPORTER, EXPORTER.lower(), "9999202600", "BEHALF-SECRET"}
    parts = {part for spoken in office.spoken for part in spoken.split(".")[1:]}
    assert len(parts) > 30
    for name in NODES:
        text = (office.zone.logs / f"{name}.log").read_text()
        assert "An authorization was" in text or name != "supervision"
        # That it could not be written there was no disk to say; that it can be again there was.
        assert "Log can be written again" in text
        assert {secret for secret in secrets | parts if secret in text} == set(), name
