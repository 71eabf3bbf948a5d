"""More rows than were granted: by asking everywhere at once, by what is reserved, by dying in between."""

import asyncio
import contextlib
import datetime as dt
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import DepartmentSection, GatewayConfig
from gateway.node import GatewayNode
from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.exchange.v1 import federation_pb2
from services.kit.client import Client
from services.kit.config import LimitsSection
from services.kit.department import DepartmentNode
from services.kit.errors import HutongError, Reason
from services.kit.host import Host
from services.kit.log.verifying import verify_all
from services.kit.records.database import engine
from tests.attacks.asking import refused
from tests.authorizations.mesh import (
    AML,
    BROKER,
    DECLARATIONS,
    INVOICES,
    LISTINGS,
    POLICE,
    SERVICE,
    Leave,
    Supervised,
    asked,
    declarations,
    invoices,
    running,
)
from tests.exchange.mesh import QUERY, ROOMS
from tests.recording.bed import key_of

KIND = DECLARATIONS.record_type
MERCHANT = f"cn.customs_code:{BROKER}"
CALLS = 320
QUOTA = 500


class Doubled:
    """A mesh with two replicas of customs and two gateways; each gateway asks another replica."""

    def __init__(self, mesh: Supervised, stack: contextlib.AsyncExitStack) -> None:
        self.mesh = mesh
        self._stack = stack
        self.clients: list[Client] = []

    async def start(self) -> None:
        mesh = self.mesh
        config = mesh.config("customs", "127.0.0.1:0")
        other = DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), mesh.zone.frame(config))
        self._stack.push_async_callback(other.stop)
        await other.start()
        assert mesh.gateway is not None
        first = mesh.gateway.host.config
        assert isinstance(first, GatewayConfig)
        section = DepartmentSection(target=other.host.address, timeout=mesh.limits.deadline / 2)
        doubled = first.model_copy(update={"departments": {**first.departments, "customs": section}})
        second = GatewayNode(doubled, mesh.zone.frame(doubled))
        self._stack.push_async_callback(second.stop)
        await second.start()
        self.hosts: list[Host] = [mesh.gateway.host, second.host]
        for host in self.hosts:
            client = Client(host.address, host.identity, mesh.zone.files(AML))
            self._stack.push_async_callback(client.close)
            self.clients.append(client)

    async def ask(self, number: int, request: federation_pb2.QueryRequest) -> federation_pb2.QueryResponse:
        client = self.clients[number % 2]
        return await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=120)


@pytest.fixture(scope="module")
async def doubled(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Doubled]:
    """Nothing takes too long here, however busy the machine: rows that come too late count as disclosed."""
    # All nodes share one loop: hundreds at once make it late, and nobody is to be turned away for that.
    limits = LimitsSection(deadline=dt.timedelta(minutes=2), late=dt.timedelta(minutes=1))
    silence = dt.timedelta(minutes=1)
    folder = tmp_path_factory.mktemp("doubled")
    async with running(folder, limits=limits, silence=silence) as mesh, contextlib.AsyncExitStack() as stack:
        await mesh.load("customs", declarations(7))
        await mesh.load("taxation", invoices(7))
        made = Doubled(mesh, stack)
        await made.start()
        yield made


async def test_hundreds_at_once_over_two_gateways_get_what_was_granted(doubled: Doubled) -> None:
    mesh = doubled.mesh
    leave = await mesh.give(DECLARATIONS, INVOICES, row_quota=QUOTA)
    orders = ([KIND, INVOICES.record_type], [INVOICES.record_type, KIND], [KIND])
    requests = [asked(leave, *orders[n % 3], page_size=1 + n % 7) for n in range(CALLS)]
    given, reasons = 0, Counter[str]()
    answers = await asyncio.gather(
        *(doubled.ask(number, request) for number, request in enumerate(requests)), return_exceptions=True
    )
    for answer in answers:
        if isinstance(answer, HutongError):
            reasons[answer.reason] += 1
        elif isinstance(answer, BaseException):
            raise answer
        else:
            given += sum(len(section.records) for section in answer.sections)
            reasons.update(section.reason for section in answer.sections if section.reason)
    assert given == await mesh.used(leave) == QUOTA
    assert set(reasons) == {Reason.AUTHORIZATION_EXHAUSTED}
    for host in doubled.hosts:
        # Two writers of one log: it is one log still.
        assert host.config.log is not None
        opened = engine(host.config.log.read_url(Path()), writer=False)
        with opened.connect() as connection:
            assert verify_all(connection, key_of(host)).size >= CALLS
        opened.dispose()


async def reserve(mesh: Supervised, leave: Leave, rows: int, name: str = "", **how: str) -> int:
    request = pb.ReserveRowsRequest(
        reservation_id=name or str(uuid.uuid4()),
        ticket=how.get("ticket", leave.ticket),
        rows=rows,
        record_type=how.get("kind", KIND),
    )
    client = mesh.client(how.get("who", "customs/node"), "supervision")
    answer = await client.unary(f"{SERVICE}/ReserveRows", request, pb.ReserveRowsResponse, timeout=30)
    return int(answer.left)


def altered(ticket: str) -> str:
    """Change a character of a ticket's signature."""
    return f"{ticket[:-9]}{'B' if ticket[-9] == 'A' else 'A'}{ticket[-8:]}"


async def test_what_a_department_that_lies_can_reserve(supervised: Supervised) -> None:
    """Never less than it says, never what is another's, and no number that gives rows back."""
    mesh = supervised
    leave, other = (
        await mesh.give(DECLARATIONS, INVOICES, row_quota=10),
        await mesh.give(LISTINGS, who=POLICE, subjects=(MERCHANT,)),
    )
    assert await reserve(mesh, leave, 4, "mine") == 6
    for rows in (-1, -(10**6), -(2**63), 2**63 - 1, 10**12 + 1):
        assert (await refused(reserve(mesh, leave, rows))).reason is Reason.MALFORMED_REQUEST
    error = await refused(reserve(mesh, leave, 7))
    assert (error.reason, error.metadata["left"]) == (Reason.AUTHORIZATION_EXHAUSTED, "6")
    error = await refused(reserve(mesh, leave, 10**12))
    assert (error.reason, error.metadata["left"]) == (Reason.AUTHORIZATION_EXHAUSTED, "6")
    # An id stands for one reservation: not for fewer rows, not for another type, not for another authorization.
    assert await reserve(mesh, leave, 4, "mine") == 6
    for rows in (1, 3, 5):
        assert (await refused(reserve(mesh, leave, rows, "mine"))).reason is Reason.MALFORMED_REQUEST
    kind = INVOICES.record_type
    taken: list[tuple[Any, str]] = [
        (reserve(mesh, leave, 4, "mine", kind=kind), Reason.RECORD_TYPE_NOT_OWNED),
        (reserve(mesh, leave, 1, kind=kind), Reason.RECORD_TYPE_NOT_OWNED),
        (reserve(mesh, leave, 1, kind="customs.Operator"), Reason.AUTHORIZATION_SCOPE),
        (reserve(mesh, leave, 1, kind=""), Reason.AUTHORIZATION_SCOPE),
        (reserve(mesh, leave, 4, "mine", ticket=other.ticket), Reason.AUTHORIZATION_SCOPE),
        (reserve(mesh, leave, 1, "x" * 65), Reason.MALFORMED_REQUEST),
        (reserve(mesh, leave, 1, " "), Reason.MALFORMED_REQUEST),
        (reserve(mesh, leave, 1, ticket=altered(leave.ticket)), Reason.TICKET_INVALID),
        (reserve(mesh, leave, 1, ticket=""), Reason.TICKET_INVALID),
        (reserve(mesh, leave, 1, ticket="x" * 100_000), Reason.TICKET_INVALID),
        *((reserve(mesh, leave, 1, who=who), Reason.CALLER_NOT_LISTED) for who in (AML, "gateway/main", "customs/x")),
    ]
    for asking, reason in taken:
        assert (await refused(asking)).reason is reason
    # Another node's id is another one, and counts for itself.
    assert await reserve(mesh, leave, 1, "mine", kind=kind, who="taxation/node") == 5
    assert await mesh.used(leave) == 5
    assert await mesh.used(other) == 0


async def test_one_reservation_sent_a_hundred_times_at_once_counts_once(supervised: Supervised) -> None:
    leave = await supervised.give(DECLARATIONS, row_quota=100)
    left = await asyncio.gather(*(reserve(supervised, leave, 3, "again") for _ in range(100)))
    assert set(left) == {97}
    assert await supervised.used(leave) == 3


async def test_of_a_hundred_that_want_the_last_row_one_gets_it(supervised: Supervised) -> None:
    leave = await supervised.give(DECLARATIONS, row_quota=1)
    done = await asyncio.gather(*(reserve(supervised, leave, 1) for _ in range(100)), return_exceptions=True)
    refusals = Counter(each.reason for each in done if isinstance(each, HutongError))
    assert (done.count(0), refusals) == (1, {Reason.AUTHORIZATION_EXHAUSTED: 99})
    assert await supervised.used(leave) == 1


async def test_rows_that_were_taken_off_are_gone_whatever_becomes_of_the_answer(own_supervised: Supervised) -> None:
    """A department that falls over between the reservation and the answer: the rows count, and nobody has them."""
    mesh = own_supervised
    leave = await mesh.give(DECLARATIONS, row_quota=4)
    assert await reserve(mesh, leave, 3) == 1
    await mesh.departments["customs"].stop()
    await mesh.start("customs")
    await mesh.replace_gateway()
    await mesh.heard(leave.authorization_id, pb.AUTHORIZATION_STATE_ACTIVE, leave.scope.types)
    request = asked(leave, KIND, page_size=2)
    answer = await mesh.client(AML).unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    assert (answer.sections[0].reason, len(answer.sections[0].records)) == (Reason.AUTHORIZATION_EXHAUSTED, 0)
    request.selections[0].page_size = 1
    answer = await mesh.client(AML).unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    assert len(answer.sections[0].records) == 1
    assert await mesh.used(leave) == 4


async def test_no_page_is_a_way_round_the_rate(supervised: Supervised) -> None:
    """Small pages, streams, other types, other tickets: it is one rate."""
    mesh = supervised
    leave = await mesh.give(DECLARATIONS, INVOICES, rows_per_minute=3)
    given, told = 0, Counter[str]()
    for number in range(8):
        request = asked(leave, (KIND, INVOICES.record_type)[number % 2], page_size=1)
        request.context.authorization_ticket = await mesh.use(leave.authorization_id)
        answer = await mesh.client(AML).unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
        given += len(answer.sections[0].records)
        told[answer.sections[0].reason] += 1
    assert given == await mesh.used(leave) == 3
    assert told == {"": 3, Reason.AUTHORIZATION_RATE: 5}
