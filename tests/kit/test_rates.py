"""How often a caller may call and be refused; and what a node does that has too much to do."""

import asyncio
import contextlib
import datetime as dt
import time
import urllib.request
from pathlib import Path
from random import Random

import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.exchange.v1 import record_source_pb2
from hutong.api.node.v1 import node_pb2
from services.kit import rates, shedding
from services.kit.caller import Caller
from services.kit.config import LimitsSection, QuotaSection
from services.kit.errors import (
    HutongError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from services.kit.host import Host
from services.kit.log.nodelog import NodeLog
from services.kit.rates import Rates
from services.kit.revocations import WATCH
from services.kit.rpc import Call, bind, bind_method
from services.kit.shedding import Lateness, Shedding
from tests.exchange.standin import ACCESS, SOURCE, Standin
from tests.kit.test_revocations import listen
from tests.sessions.talking import Talk
from tests.zone import Zone

FETCH = f"/{SOURCE.full_name}/Fetch"
SESSION = f"/{SOURCE.full_name}/FetchSession"
CHECK = "/grpc.health.v1.Health/Check"
STATUS = "/hutong.api.node.v1.NodeService/GetStatus"
AUTHORIZATIONS = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"]
REVOKE = AUTHORIZATIONS.methods_by_name["RevokeAuthorization"]
Fetched = record_source_pb2.FetchResponse


def caller(path: str) -> Caller:
    agency, _, system = path.partition("/")
    return Caller(f"spiffe://ftz.example/{path}", agency, system)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    clock = Hand()
    made, who, other = Rates(8, 1, clock=clock), caller("customs/a"), caller("customs/b")
    for _ in range(8):
        made.take(who)
    with pytest.raises(ResourceExhausted) as refused:
        made.take(who)
    assert refused.value.reason is Reason.RATE_EXCEEDED
    assert refused.value.metadata["retry_after"] == "0.125s"
    made.take(other)
    clock.now += 0.125
    made.take(who)
    with pytest.raises(ResourceExhausted):
        made.take(who)
    # However long it waits, no more than a second's worth.
    clock.now += 1000
    for _ in range(8):
        made.take(who)
    with pytest.raises(ResourceExhausted):
        made.take(who)


def test_refusals_count_where_the_caller_is_to_blame() -> None:
    clock = Hand()
    made, who = Rates(1e6, 1, clock=clock), caller("customs/a")
    made.take(who)
    for _ in range(1000):
        made.refused(who, NotFound(Reason.RECORD_NOT_FOUND, "none"))
        made.refused(who, Unavailable(Reason.STORE_UNAVAILABLE, "away"))
    for _ in range(5):
        made.refused(who, PermissionDenied(Reason.CALLER_NOT_LISTED, "no"))
        made.refused(who, InvalidArgument(Reason.MALFORMED_REQUEST, "what"))
    with pytest.raises(ResourceExhausted, match="too many refusals"):
        made.take(who)
    clock.now += 1
    made.take(who)


def test_a_refusal_too_many_is_told_to_wait_and_counts_no_further() -> None:
    """Also of callers that never called themselves: a gateway did, and they have buckets of their own."""
    clock = Hand()
    made, who, other = Rates(1e6, 1, clock=clock), caller("customs/a"), caller("customs/b")
    no, none = PermissionDenied(Reason.CALLER_NOT_LISTED, "no"), NotFound(Reason.RECORD_NOT_FOUND, "none")
    assert [made.refused(who, no) for _ in range(10)] == [no] * 10
    for _ in range(100):
        told = made.refused(who, no)
        assert told.reason is Reason.RATE_EXCEEDED
        assert told.metadata["retry_after"] == "1.000s"
    assert made.refused(who, none) is none
    assert made.refused(other, no) is no
    clock.now += 1
    assert made.refused(who, no) is no


def test_the_more_exact_rate_counts() -> None:
    clock = Hand()
    made = Rates(3, 1, {"customs/*": 5, "customs/a": 7}, clock)
    for path, most in (("customs/a", 7), ("customs/b", 5), ("taxation/a", 3)):
        for _ in range(most):
            made.take(caller(path))
        with pytest.raises(ResourceExhausted):
            made.take(caller(path))


def told(made: Rates, who: Caller) -> float:
    """Call; gives for how many seconds not to, 0 where it was let in."""
    try:
        made.take(who)
    except ResourceExhausted as error:
        return float(error.metadata["retry_after"][:-1])
    return 0.0


@given(st.integers(0, 2**32))
def test_never_more_than_the_rate_over_any_time(seed: int) -> None:
    rng, clock = Random(seed), Hand()
    rate = rng.choice((0.5, 3, 50))
    made, who, let_in = Rates(rate, 1, clock=clock), caller("customs/a"), list[float]()
    for _ in range(300):
        clock.now += rng.expovariate(rate * rng.choice((0.5, 2, 20)))
        wait = told(made, who)
        # What it says is when one more is let in.
        assert wait <= 1 / rate + 0.001
        if not wait:
            let_in.append(clock.now)
    for first in range(0, len(let_in), 7):
        for last in range(first, len(let_in), 5):
            most = max(rate, 1) + rate * (let_in[last] - let_in[first])
            assert last - first + 1 <= most + 1e-6, f"seed {seed}"


def test_what_is_kept_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_KEPT", 10)
    clock = Hand()
    made, who = Rates(1, 1, clock=clock), caller("customs/busy")
    for number in range(9):
        made.take(caller(f"customs/{number}"))
    clock.now += 10
    made.take(who)
    # Those that were full are forgotten, and whoever is not is not.
    made.take(caller("customs/new"))
    with pytest.raises(ResourceExhausted):
        made.take(who)


NO = PermissionDenied(Reason.CALLER_NOT_LISTED, "no")


def refuse(made: Rates, peer: Caller, spoken_for: Caller | None = None) -> HutongError:
    """Refuse a call; gives what it is refused with."""
    call = Call(FETCH, peer, b"", None)
    call.facts.caller = spoken_for
    return Shedding(made, made, Lateness(60)).refused(call, NO)


def test_names_that_a_gateway_makes_up_end_and_cost_nobody_else() -> None:
    """At the door, at a department, and of this zone: each name may be refused once here, and ten together."""
    made, home = Rates(1e6, 0.01, clock=Hand()), caller("gateway/main")
    away = Caller("spiffe://port.example/gateway/main", "gateway.port.example", "main")
    refund = caller("taxation/refund")
    for who in (home, away, refund):
        assert refuse(made, who) is NO, "they called themselves"
    assert refuse(made, home, refund) is NO, "and this one is also spoken for"
    for speaker, zone, most in ((away, ".port.example", 10), (home, ".port.example", 0), (home, "", 9)):
        for number in range(100):
            name = Caller(f"spiffe://zone/{zone}/{number}", f"agency{zone}", str(number))
            found = refuse(made, speaker, name)
            assert found.reason is (Reason.CALLER_NOT_LISTED if number < most else Reason.RATE_EXCEEDED)
    # Nobody's bucket was thrown away, and so filled, and nobody else was charged.
    for who in (home, away, refund):
        assert refuse(made, who).reason is Reason.RATE_EXCEEDED
    other = caller("gateway/other")
    assert refuse(made, other, refund) is NO
    assert refuse(made, other, refund).reason is Reason.RATE_EXCEEDED


def test_one_who_is_refused_for_ever_costs_no_other_whom_the_gateway_asks_for() -> None:
    clock = Hand()
    made, gateway, who = Rates(1e6, 1, clock=clock), caller("gateway/main"), caller("taxation/refund")
    for number in range(200):
        for _ in range(20):
            refuse(made, gateway, who)
        assert refuse(made, gateway, caller(f"taxation/{number % 5}")) is NO
        clock.now += 0.25


def test_names_that_are_made_up_throw_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_KEPT", 10)
    made, gateway, who = Rates(1, 1, clock=Hand()), caller("gateway/main"), caller("taxation/refund")
    made.take(who)
    for number in range(40):
        refuse(made, gateway, caller(f"customs/{number}"))
    with pytest.raises(ResourceExhausted):
        made.take(who)


def test_twice_late_is_overload_until_it_was_half_as_late() -> None:
    lateness = Lateness(1.0)
    for late, overloaded in ((3.0, False), (0.0, False), (1.0, False), (1.0, True), (0.6, True), (0.4, False)):
        lateness.note(late)
        assert lateness.overloaded is overloaded, late
    assert lateness.seconds == 0.4


class Revoking:
    """Revokes whatever it is told to."""

    async def revoke_authorization(
        self, _: authorization_pb2.RevokeAuthorizationRequest, __: Call
    ) -> authorization_pb2.RevokeAuthorizationResponse:
        return authorization_pb2.RevokeAuthorizationResponse()


async def answer(_: record_source_pb2.FetchRequest, __: Call) -> Fetched:
    return Fetched()


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(tmp_path)


async def refusal(host: Host, zone: Zone, who: str, method: str = FETCH) -> Reason | None:
    request = health_pb2.HealthCheckRequest() if method == CHECK else record_source_pb2.FetchRequest()
    async with zone.client(host, who) as client:
        try:
            await client.raw(method, request, timeout=5)
        except (ResourceExhausted, PermissionDenied, Unavailable) as error:
            return error.reason
    return None


def size(log: NodeLog | None) -> int:
    assert log is not None
    return log.size


async def test_a_stranger_to_the_list_fills_no_log(zone: Zone) -> None:
    limits = LimitsSection(refusals=0.001)
    async with zone.serving(bind(SOURCE, Standin(answer)), ACCESS, limits) as host:
        found = [await refusal(host, zone, "taxation/refund") for _ in range(5)]
        assert found == [Reason.CALLER_NOT_LISTED] + [Reason.RATE_EXCEEDED] * 4
        assert size(host.log) == 1
        # Nobody else is concerned.
        assert await refusal(host, zone, "gateway/main") is None
        assert size(host.log) == 2


async def test_questions_of_a_session_count_one_by_one(zone: Zone) -> None:
    limits = LimitsSection(rates={"gateway/*": 0.001})
    async with (
        zone.serving(bind(SOURCE, Standin(answer)), ACCESS, limits) as host,
        zone.client(host, "gateway/main") as client,
    ):
        assert await refusal(host, zone, "gateway/other") is None
        async with Talk(client, SESSION) as talk:
            asked = record_source_pb2.FetchSessionRequest()
            asked.prepare.add(id=0)
            for number in range(3):
                asked.asks.add(id=number)
            talk.say(asked)
            reasons = [getattr(await talk.raw(number), "reason", None) for number in range(3)]
        # The session was the one call there was.
        assert reasons == [Reason.RATE_EXCEEDED] * 3
        assert size(host.log) == 1


async def test_whoever_has_used_up_everything_else_still_gets_in_with_what_is_vital(zone: Zone) -> None:
    limits = LimitsSection(rate=0.001, refusals=0.001, quota=QuotaSection(calls=1))
    access = f"{ACCESS}\n{AUTHORIZATIONS.full_name}: {{RevokeAuthorization: ['gateway/*']}}"
    rpcs = (*bind(SOURCE, Standin(answer)), bind_method(REVOKE, Revoking()))
    async with zone.serving(rpcs, access, limits) as host:
        assert await refusal(host, zone, "gateway/main") is None
        assert await refusal(host, zone, "gateway/main") is Reason.RATE_EXCEEDED
        revoke = f"/{AUTHORIZATIONS.full_name}/RevokeAuthorization"
        assert await refusal(host, zone, "gateway/main", revoke) is None
        # It has an end as well, but of its own.
        assert await refusal(host, zone, "gateway/main", CHECK) is Reason.RATE_EXCEEDED
        # Nor does anybody fill the log with revocations that are not for it to make.
        found = [await refusal(host, zone, "taxation/refund", revoke) for _ in range(3)]
        assert found == [Reason.CALLER_NOT_LISTED] + [Reason.RATE_EXCEEDED] * 2
        assert size(host.log) == 3


def test_what_is_vital() -> None:
    """Whatever is added here gets into a node that has no room: it has to be a little thing, and others' safety."""
    assert {
        CHECK,
        "/grpc.health.v1.Health/Watch",
        "/hutong.api.authorization.v1.AuthorizationService/FollowAuthorizations",
        "/hutong.api.authorization.v1.AuthorizationService/RevokeAuthorization",
        "/hutong.api.exchange.v1.ZoneService/GetTrust",
        STATUS,
        WATCH,
    } == shedding.VITAL


async def test_who_is_late_turns_away_all_but_what_is_vital(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "LOOK", 0.01)
    limits, busy = LimitsSection(late=dt.timedelta(milliseconds=20)), asyncio.Event()

    def work() -> None:
        """Keep the loop busy, as very many calls do."""
        if not busy.is_set():
            time.sleep(0.05)
            loop.call_later(0.001, work)

    loop = asyncio.get_running_loop()
    async with zone.serving(bind(SOURCE, Standin(answer)), ACCESS, limits) as host:
        assert await refusal(host, zone, "gateway/main") is None
        before = size(host.log)
        work()
        async with asyncio.timeout(20):
            while await refusal(host, zone, "gateway/main") is not Reason.OVERLOADED:
                pass
            assert await refusal(host, zone, "gateway/main", CHECK) is None
            # Who was revoked is told, and operators are told that the node has too much to do.
            async with zone.client(host, "operator/admin") as client, contextlib.aclosing(listen(client)) as lists:
                assert (await anext(lists)).lists
                status = node_pb2.GetStatusResponse.FromString(await client.raw(STATUS, b"", timeout=5))
            assert {each.name: each.value for each in status.readings}["hutong_overloaded"] == 1
            logged = size(host.log)
            for _ in range(5):
                assert await refusal(host, zone, "gateway/main") is Reason.OVERLOADED
            assert size(host.log) == logged >= before
            busy.set()
            while await refusal(host, zone, "gateway/main") is not None:
                pass


async def test_what_never_became_a_call_is_counted(zone: Zone) -> None:
    slow, free = asyncio.Event(), asyncio.Event()

    async def wait(_: record_source_pb2.FetchRequest, __: Call) -> Fetched:
        slow.set()
        await free.wait()
        return Fetched()

    limits = LimitsSection(concurrent_calls=2)
    async with zone.serving(bind(SOURCE, Standin(wait)), ACCESS, limits) as host:
        port = host.telemetry.serve("127.0.0.1:0")
        waiting = asyncio.ensure_future(refusal(host, zone, "gateway/main"))
        await slow.wait()
        # One caller has half of the places, on whatever connection.
        assert await refusal(host, zone, "gateway/main") is Reason.CALLS_TOO_MANY
        free.set()
        assert await waiting is None
        url = f"http://127.0.0.1:{port}/metrics"
        lines = (await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())).decode().splitlines()
        assert f'hutong_refusals_total{{reason="CALLS_TOO_MANY",rpc="{FETCH}"}} 1.0' in lines
        shown = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("hutong_")}
        assert abs(shown["hutong_clock_seconds"] - time.time()) < 60
        assert shown["hutong_overloaded"] == 0


async def test_health_is_told_though_every_place_is_taken(zone: Zone) -> None:
    slow, free = asyncio.Event(), asyncio.Event()
    begun = 0

    async def wait(_: record_source_pb2.FetchRequest, __: Call) -> Fetched:
        nonlocal begun
        begun += 1
        if begun == 2:
            slow.set()
        await free.wait()
        return Fetched()

    limits = LimitsSection(concurrent_calls=2)
    async with zone.serving(bind(SOURCE, Standin(wait)), ACCESS, limits) as host:
        if host.config.node.transport == "grpcio":
            pytest.skip("grpcio counts calls itself, all alike")
        waiting = [asyncio.ensure_future(refusal(host, zone, f"gateway/{name}")) for name in ("main", "two")]
        await slow.wait()
        assert await refusal(host, zone, "gateway/three") is Reason.CALLS_TOO_MANY
        assert await refusal(host, zone, "customs/node", CHECK) is None
        free.set()
        assert await asyncio.gather(*waiting) == [None, None]
