"""Long streams: they must end with what they were let in by, show nothing that is hidden, and crowd nobody out."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from certs.register import RevocationReason
from hutong.api.customs.v1 import declaration_pb2, operator_pb2
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit import jurisdiction
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.context import ContextVerifier
from services.kit.doors import WATCHES, RecordSourceService
from services.kit.errors import HutongError, Reason, ResourceExhausted, Unauthenticated
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.reload import PolicyFiles
from services.kit.reader import Reader
from services.kit.records.pages import PageTokens, ResumeTokens
from services.kit.records.source import Changes
from services.kit.records.store import RecordStore
from services.kit.rpc import Call
from tests.attacks.asking import DECLARATION, REBATE, TAX, declared, get, refused, watch, why
from tests.attacks.clocked import Clock, department
from tests.exchange.mesh import ROOMS, Mesh
from tests.exchange.records import EXPORTER
from tests.zone import ZONE, Zone, now

CLEAR = declaration_pb2.DECLARATION_STATUS_CLEARED
PENDING = declaration_pb2.DECLARATION_STATUS_ACCEPTED
Responses = AsyncIterator[record_source_pb2.WatchResponse]
HEALTH_WATCH, HEALTH_CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"


def new(number: int, status: declaration_pb2.DeclarationStatus.ValueType = CLEAR) -> declaration_pb2.Declaration:
    return declared(f"9999202600000040{number:02d}", status)


async def record(stream: Responses) -> record_source_pb2.WatchResponse:
    """Read on until records come."""
    async with asyncio.timeout(10):
        async for response in stream:
            if response.records:
                return response
    raise AssertionError("the stream ended")


async def test_a_watch_does_not_outlive_its_certificate(tmp_path: Path) -> None:
    clock = Clock()
    async with department(tmp_path, clock) as mesh:
        stream = watch(mesh, TAX, "customs.Declaration", context=why(**REBATE), from_start=True)
        assert await record(stream)
        clock.ahead = dt.timedelta(hours=25)
        assert isinstance(await refused(get(mesh, TAX, DECLARATION, context=why(**REBATE))), Unauthenticated)
        await mesh.load("customs", [new(1)])
        assert (await refused(record(stream))).reason is Reason.IDENTITY_INVALID


async def test_a_watch_ends_when_its_certificate_is_revoked(tmp_path: Path) -> None:
    clock = Clock()
    async with department(tmp_path, clock) as mesh:
        stream = watch(mesh, TAX, "customs.Declaration", context=why(**REBATE), from_start=True)
        assert await record(stream)
        serial = mesh.zone.files(TAX).load().leaf.serial_number
        mesh.zone.authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, now())
        clock.ahead = dt.timedelta(seconds=2)
        await mesh.load("customs", [new(1)])
        assert (await refused(record(stream))).reason is Reason.CERTIFICATE_REVOKED


async def test_a_policy_change_counts_for_the_very_next_record(own: Mesh) -> None:
    stream = watch(own, TAX, "customs.Declaration", context=why(**REBATE), from_start=True)
    assert await record(stream)
    own.add_policy(
        "customs",
        '@id("stop") forbid (principal, action, resource == Hutong::Field::"customs.Declaration.total_value_cny");',
    )
    async with asyncio.timeout(10):
        while (await get(own, TAX, DECLARATION, context=why(**REBATE))).HasField("total_value_cny"):
            pass
    await own.load("customs", [new(1)])
    seen = declaration_pb2.Declaration()
    assert (await record(stream)).records[0].Unpack(seen)
    assert seen.declaration_no
    assert not seen.HasField("total_value_cny")


class Node:
    """The uniform door of customs without a transport, so that its waits can be made short."""

    def __init__(self, mesh: Mesh, store: RecordStore, heartbeat: float) -> None:
        room = ROOMS["customs"]
        pack = jurisdiction.load("cn")
        files = PolicyFiles([mesh.policy("customs")], room.catalogue(), pack)
        engine = PolicyEngine(files.policies, room.catalogue(), pack, b"0" * 32, now)
        reader = Reader(store, engine, PageTokens(b"0" * 32), now)
        contexts = ContextVerifier([], ZONE, now)
        self.door = RecordSourceService(
            "customs", room.catalogue(), reader, contexts, ResumeTokens(b"0" * 32), poll=0.001, heartbeat=heartbeat
        )

    def watch(self, kind: str) -> Responses:
        request = record_source_pb2.WatchRequest(
            context=why(**REBATE), selection=exchange_pb2.Selection(record_type=kind)
        )
        caller = Caller(f"spiffe://{ZONE}/{TAX}", *TAX.split("/"))
        return self.door.watch(request, Call("", caller, b"", None))


class Store(RecordStore):
    """A store that tells how often it was asked for changes."""

    asked = 0

    async def changes(self, *args: Any, **how: Any) -> Changes:
        found = await super().changes(*args, **how)
        self.asked += 1
        return found

    async def looked_at(self) -> None:
        """Wait until whoever watches has seen all that there is now."""
        seen = self.asked
        async with asyncio.timeout(10):
            while self.asked < seen + 2:
                await self.last_seq()
                await asyncio.to_thread(int)


@pytest.fixture
async def store(own: Mesh) -> AsyncGenerator[Store]:
    async with Store(own.url("customs"), ROOMS["customs"].catalogue(), now) as store:
        yield store


async def test_a_change_out_of_sight_makes_no_sound(own: Mesh, store: Store) -> None:
    """Not even an empty message: when a hidden record changes is itself something to know."""
    stream = Node(own, store, heartbeat=1e9).watch("customs.Declaration")
    assert not (await anext(stream)).records  # the first tells where to go on from
    pending = asyncio.ensure_future(anext(stream))
    await own.load("customs", [new(1, PENDING), operator_pb2.Operator(customs_code="9999999998", uscc=EXPORTER)])
    await store.looked_at()
    assert not pending.done()
    await own.load("customs", [new(2)])
    seen = declaration_pb2.Declaration()
    async with asyncio.timeout(10):
        (only,) = (await pending).records
    assert only.Unpack(seen)
    assert seen.declaration_no == new(2).declaration_no


async def test_changes_out_of_sight_do_not_put_off_the_heartbeat(own: Mesh, store: Store) -> None:
    stream = Node(own, store, heartbeat=0.01).watch("customs.Declaration")
    await anext(stream)
    async with asyncio.timeout(10):
        for number in range(3):
            await own.load("customs", [new(number, PENDING)])
            assert not (await anext(stream)).records


async def test_one_caller_cannot_watch_without_end(own: Mesh) -> None:
    """Every watch asks the store several times a second; a caller has so many and no more, and others have theirs."""
    async with contextlib.AsyncExitStack() as open_streams:
        streams: list[Responses] = []
        for _ in range(WATCHES):
            stream = watch(own, TAX, "customs.Declaration", context=why(**REBATE), from_start=True)
            open_streams.push_async_callback(stream.aclose)  # type: ignore[attr-defined]  # pyright: ignore
            await anext(stream)
            streams.append(stream)
        error = await refused(anext(watch(own, TAX, "customs.Declaration", context=why(**REBATE))))
        assert isinstance(error, ResourceExhausted)
        assert error.reason is Reason.STREAMS_TOO_MANY
        other = watch(own, "taxation/other", "customs.Declaration", context=why(**REBATE), from_start=True)
        assert (await anext(other)).records
        await other.aclose()  # type: ignore[attr-defined]  # pyright: ignore
    # Those that ended count no more.
    async with asyncio.timeout(10):
        while True:
            again = watch(own, TAX, "customs.Declaration", context=why(**REBATE), from_start=True)
            with contextlib.suppress(ResourceExhausted):
                assert (await anext(again)).records
                break


async def test_one_member_cannot_take_every_call_there_is(tmp_path: Path) -> None:
    """Health may be watched by every member of the zone, for ever."""
    zone = Zone(tmp_path)
    limits = LimitsSection(concurrent_calls=16)
    async with zone.serving((), "{}", limits) as host, contextlib.AsyncExitStack() as stack:
        greedy = await stack.enter_async_context(zone.client(host, "visitor/app"))
        other = await stack.enter_async_context(zone.client(host, "quality/lab"))
        for _ in range(limits.concurrent_calls):
            stream = greedy.stream(
                HEALTH_WATCH, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse, timeout=20
            )
            stack.push_async_callback(stream.aclose)  # type: ignore[attr-defined]  # pyright: ignore
            try:
                await anext(stream)
            except HutongError:
                break
        answer = await other.unary(
            HEALTH_CHECK, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse, timeout=5
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
