"""What callers may rely on, whatever carries calls on either side: every pair of transports, with real nodes."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast, get_args

import pytest
from google.protobuf.message import Message

from certs.authority import Authority
from certs.register import RevocationReason
from certs.svid import SvidFiles
from hutong.api.exchange.v1 import exchange_pb2
from services.kit import identity
from services.kit.client import Client
from services.kit.config import LimitsSection, NodeConfig, Transport
from services.kit.errors import (
    DeadlineExceeded,
    HutongError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from services.kit.host import Host
from services.kit.rpc import Call
from tests.certs import bogus
from tests.transport import echo
from tests.transport.echo import ACCESS, BIDI, ERRORS, NODE, STREAM, UNARY, WHO, Echo, rpcs
from tests.zone import ZONE, Zone, now

SECONDS: Final = 20.0
"""The most that any call here may take; none needs a tenth of it."""

PAIRS: Final[list[tuple[Transport, Transport]]] = list(itertools.product(get_args(Transport), repeat=2))
LIMITS: Final = LimitsSection(request_bytes=1 << 20, response_bytes=1 << 20, drain=dt.timedelta(seconds=SECONDS))
Signed = exchange_pb2.SignedContext


class Wide(Echo):
    """An echo whose streams are as long as is asked for."""

    async def stream(self, request: Signed, call: Call) -> AsyncIterator[Message]:
        verb, _, count = request.payload.partition(b" ")
        if verb != b"pieces":
            async for answer in super().stream(request, call):
                yield answer
            return
        for _ in range(int(count)):
            yield Signed(payload=b"x" * 50_000)


@dataclasses.dataclass
class Pair:
    """A node and what calls it."""

    zone: Zone
    host: Host
    echo: Echo
    channels: Transport

    @contextlib.asynccontextmanager
    async def client(self, who: str | SvidFiles = WHO, response_bytes: int = 1 << 20) -> AsyncGenerator[Client]:
        files = who if isinstance(who, SvidFiles) else self.zone.files(who)
        client = Client(
            self.host.address, self.host.identity, files, response_bytes=response_bytes, transport=self.channels
        )
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture(scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[dict[Transport, Pair]]:
    zone = Zone(tmp_path_factory.mktemp("zone"))
    async with contextlib.AsyncExitStack() as stack:
        made: dict[Transport, Pair] = {}
        for transport in get_args(Transport):
            room = Wide()
            host = await stack.enter_async_context(echo.serving(zone, transport, room, LIMITS))
            made[transport] = Pair(zone, host, room, transport)
        yield made


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[1]} to {pair[0]}")
def ends(request: pytest.FixtureRequest) -> tuple[Transport, Transport]:
    """The transport of the node, and that of its callers."""
    pair: tuple[Transport, Transport] = request.param
    return pair


@pytest.fixture
def pair(nodes: dict[Transport, Pair], ends: tuple[Transport, Transport]) -> Pair:
    """A node that is shared with other tests, and forgets what they asked."""
    node = nodes[ends[0]]
    node.echo.calls.clear()
    return dataclasses.replace(node, channels=ends[1])


@contextlib.asynccontextmanager
async def own(folder: Path, ends: tuple[Transport, Transport], limits: LimitsSection = LIMITS) -> AsyncGenerator[Pair]:
    """A node of one's own, to break."""
    zone, room = Zone(folder), Wide()
    async with echo.serving(zone, ends[0], room, limits) as host:
        yield Pair(zone, host, room, ends[1])


def bidi(client: Client, requests: AsyncIterator[Message], timeout: float | None = SECONDS) -> AsyncGenerator[Signed]:
    return cast("AsyncGenerator[Signed]", client.bidi(BIDI, requests, Signed, timeout=timeout))


def stream(client: Client, request: Message, timeout: float | None = SECONDS) -> AsyncGenerator[Signed]:
    return cast("AsyncGenerator[Signed]", client.stream(STREAM, request, Signed, timeout=timeout))


async def several(*payloads: bytes) -> AsyncIterator[Message]:
    for payload in payloads:
        yield Signed(payload=payload)


async def ever(payload: bytes) -> AsyncIterator[Message]:
    yield Signed(payload=payload)
    await asyncio.Event().wait()


async def reached(room: Echo, running: int) -> None:
    """Wait until so many handlers wait."""
    until = asyncio.get_running_loop().time() + SECONDS
    while room.running != running:
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.005)


# What is right.


async def test_a_call_is_answered_and_its_caller_known(pair: Pair) -> None:
    async with pair.client() as client:
        answers = await asyncio.gather(
            *(client.unary(UNARY, Signed(payload=b"%d" % number), Signed, timeout=SECONDS) for number in range(50))
        )
    assert [answer.payload for answer in answers] == [b"%d" % number for number in range(50)]
    assert {call.caller.spiffe_id for call in pair.echo.calls} == {f"spiffe://{ZONE}/{WHO}"}
    assert {call.method for call in pair.echo.calls} == {UNARY}


async def test_a_stream_is_read_in_order_to_its_end(pair: Pair) -> None:
    async with pair.client() as client:
        answers = [answer async for answer in stream(client, Signed(payload=b"x", signature=b"12345"))]
        assert [answer.signature for answer in answers] == [bytes((number,)) for number in range(5)]
        assert [answer async for answer in stream(client, Signed(payload=b"x"))] == []


async def test_questions_and_answers_take_turns(pair: Pair) -> None:
    turns: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[Message]:
        while (payload := await turns.get()) is not None:
            yield Signed(payload=payload)

    async with pair.client() as client, aclosing(bidi(client, requests(), None)) as answers:
        for number in range(5):
            turns.put_nowait(b"%d" % number)
            assert (await anext(answers)).payload == b"%d" % number
        turns.put_nowait(None)
        assert [answer.signature async for answer in answers] == [b"done"]


async def test_messages_may_be_large(pair: Pair) -> None:
    large = b"x" * 1_000_000
    async with pair.client() as client:
        answers = await asyncio.gather(
            *(client.unary(UNARY, Signed(payload=large), Signed, timeout=SECONDS) for _ in range(3))
        )
        assert all(answer.payload == large for answer in answers)
        echoed = [answer.payload async for answer in bidi(client, several(large, large))]
        assert echoed == [large, large, b""]
        pieces = [len(piece.payload) async for piece in stream(client, Signed(payload=b"pieces 60"))]
        assert pieces == [50_000] * 60


async def test_a_trace_goes_on(pair: Pair) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with pair.client() as client:
        parent = f"00-{trace}-b7ad6b7169203331-01"
        await client.unary(UNARY, Signed(), Signed, timeout=SECONDS, traceparent=parent)
        await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        answers = client.stream(STREAM, Signed(), Signed, timeout=SECONDS, traceparent=parent)
        assert [answer async for answer in answers] == []
    assert [trace in call.traceparent for call in pair.echo.calls] == [True, False, True]


# What is refused.


async def test_every_error_arrives_as_it_was_raised(pair: Pair) -> None:
    text = 'no – 没有, 100 % "of" it\n'
    async with pair.client() as client:
        for name, kind in ERRORS.items():
            payload = name + b" " + text.encode()
            with pytest.raises(HutongError) as told:
                await client.unary(UNARY, Signed(payload=payload), Signed, timeout=SECONDS)
            assert type(told.value) is kind
            assert told.value.reason is Reason.RECORD_INVALID
            assert told.value.message == text
            assert told.value.metadata == {"said": text.encode().hex()}


async def test_an_error_comes_after_what_was_answered_before_it(pair: Pair) -> None:
    async def said() -> AsyncIterator[Message]:
        async for request in several(b"1", b"2", b"NotFound why"):
            yield request
        # A client of grpcio's that is still writing when the end comes may miss what it says.
        await over.wait()

    over = asyncio.Event()
    async with pair.client() as client:
        seen = 0
        with pytest.raises(Unavailable) as told:
            async for _ in stream(client, Signed(payload=b"Unavailable why", signature=b"123")):
                seen += 1
        assert (seen, told.value.reason, told.value.message) == (3, Reason.RECORD_INVALID, "why")
        answers = bidi(client, said())
        echoed: list[bytes] = []
        with pytest.raises(HutongError, match="why"):
            async for answer in answers:
                echoed += [answer.payload]
        assert echoed == [b"1", b"2"]
        over.set()


async def test_a_bug_tells_a_stranger_nothing_but_an_id(pair: Pair) -> None:
    async with pair.client() as client:
        with pytest.raises(Internal) as failed:
            await client.unary(UNARY, Signed(payload=b"bug"), Signed, timeout=SECONDS)
    assert "secret" not in failed.value.message
    assert failed.value.metadata["incident"] in failed.value.message


async def test_whoever_is_not_listed_is_refused(pair: Pair) -> None:
    async with pair.client("quality/lab") as client:
        for asked in (
            client.unary(UNARY, Signed(), Signed, timeout=SECONDS),
            anext(stream(client, Signed())),
            anext(bidi(client, ever(b"x"))),
        ):
            with pytest.raises(PermissionDenied) as refused:
                await cast("Any", asked)
            assert refused.value.reason is Reason.CALLER_NOT_LISTED
    assert not pair.echo.calls


async def test_what_is_no_request_and_no_rpc_is_refused(pair: Pair) -> None:
    async with pair.client() as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.raw(UNARY, b"\xff\xff", timeout=SECONDS)
        assert refused.value.reason is Reason.MALFORMED_REQUEST
        with pytest.raises(Internal):
            await client.raw("/test.Echo/None", b"", timeout=SECONDS)


async def test_what_is_too_large_is_refused_either_way(pair: Pair) -> None:
    async with pair.client(response_bytes=100_000) as client:
        for size in (LIMITS.request_bytes + 1, LIMITS.request_bytes + 200_000):
            with pytest.raises(ResourceExhausted) as refused:
                await client.unary(UNARY, Signed(payload=b"x" * size), Signed, timeout=SECONDS)
            assert refused.value.reason is Reason.REQUEST_TOO_LARGE
        with pytest.raises(ResourceExhausted) as refused:
            await client.unary(UNARY, Signed(payload=b"x" * 200_000), Signed, timeout=SECONDS)
        assert refused.value.reason is Reason.REQUEST_TOO_LARGE
        with pytest.raises(ResourceExhausted):
            assert [answer async for answer in bidi(client, several(b"x" * 200_000))] == []
        # None of them has harmed the connection.
        await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)


async def test_nobody_has_more_than_a_share_of_the_calls(tmp_path: Path, ends: tuple[Transport, Transport]) -> None:
    limits = LIMITS.model_copy(update={"concurrent_calls": 4})
    async with own(tmp_path, ends, limits) as pair, pair.client() as client:
        waiting = [
            asyncio.ensure_future(client.unary(UNARY, Signed(payload=b"wait"), Signed, timeout=SECONDS))
            for _ in range(2)
        ]
        await reached(pair.echo, 2)
        with pytest.raises(ResourceExhausted) as refused:
            await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        assert refused.value.reason is Reason.CALLS_TOO_MANY
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await reached(pair.echo, 0)
        await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)


# When.


async def test_a_deadline_reaches_the_handler_and_cancels_it(pair: Pair) -> None:
    wait = Signed(payload=b"wait")
    async with pair.client() as client:
        # Connected before: what the deadline is for is the call.
        await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        for asked in (
            client.unary(UNARY, wait, Signed, timeout=0.3),
            anext(stream(client, wait, 0.3)),
            anext(bidi(client, ever(b"wait"), 0.3)),
        ):
            with pytest.raises(DeadlineExceeded):
                await cast("Any", asked)
            await reached(pair.echo, 0)
            remaining = pair.echo.calls[-1].deadline
            assert remaining is not None
    assert len(pair.echo.calls) == 4


async def test_a_call_without_a_deadline_has_the_nodes(pair: Pair) -> None:
    async with pair.client() as client:
        await client.unary(UNARY, Signed(), Signed, timeout=None)
        assert [answer async for answer in stream(client, Signed(), None)] == []
    remaining = pair.echo.calls[0].remaining()
    assert remaining is not None
    assert remaining <= LIMITS.deadline.total_seconds()
    assert pair.echo.calls[1].deadline is None


async def test_a_caller_that_goes_cancels_the_handler(pair: Pair) -> None:
    wait = Signed(payload=b"wait")
    async with pair.client() as client:
        asking = asyncio.ensure_future(client.unary(UNARY, wait, Signed, timeout=SECONDS))
        await reached(pair.echo, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await reached(pair.echo, 0)
        async with aclosing(stream(client, Signed(payload=b"wait", signature=b"1"), None)) as answers:
            await anext(answers)
            await reached(pair.echo, 1)
        await reached(pair.echo, 0)
        reading = asyncio.ensure_future(anext(bidi(client, ever(b"wait"), None)))
        await reached(pair.echo, 1)
    # Closed, which ends what it has running.
    await reached(pair.echo, 0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


# Who.


@pytest.mark.parametrize("wrong", ["expired", "extended-usage-server-only", "another authority", "another name"])
async def test_whoever_has_no_good_certificate_does_not_get_in(pair: Pair, wrong: str, tmp_path: Path) -> None:
    authority, host = pair.zone.authority, pair.host
    if wrong == "another authority":
        other = Authority.create(tmp_path / "other", ZONE, now())
        other.issue(pair.zone.identity(WHO), now())
        theirs = other.layout.svid(pair.zone.identity(WHO))
        files = SvidFiles(theirs.certificate, theirs.key, authority.layout.bundle)
    elif wrong == "another name":
        files = pair.zone.files(WHO)
        elsewhere = Client(host.address, pair.zone.identity("customs/other"), files, transport=pair.channels)
        with pytest.raises(Unavailable) as refused:
            await elsewhere.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        assert refused.value.reason is Reason.DEPARTMENT_UNREACHABLE
        await elsewhere.close()
        return
    else:
        leaf = dataclasses.replace(bogus.BOGUS[wrong].leaf, uris=(f"spiffe://{ZONE}/{WHO}",))
        files = bogus.sign(leaf, authority, tmp_path / "bogus")
    async with pair.client(files) as client:
        with pytest.raises(Unavailable) as refused:
            await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        assert refused.value.reason is Reason.DEPARTMENT_UNREACHABLE
    assert not pair.echo.calls


@pytest.mark.parametrize("why", ["revoked", "expired"])
async def test_a_certificate_that_no_longer_stands_ends_what_it_began(
    tmp_path: Path, ends: tuple[Transport, Transport], why: str
) -> None:
    """On a connection that was made when it stood: the next call, and the next message of a stream."""
    zone, room, moved = Zone(tmp_path), Wide(), dt.timedelta()
    files = zone.files(WHO)
    node = zone.node(NODE).model_copy(update={"transport": ends[0]})
    host = Host(NodeConfig(node=node, tls=zone.tls(NODE), limits=LIMITS), clock=lambda: now() + moved)
    listed = tmp_path / "echo.yaml"
    listed.write_text(ACCESS)
    await host.start(rpcs(room), [listed])
    turns: asyncio.Queue[bytes] = asyncio.Queue()

    async def requests() -> AsyncIterator[Message]:
        while True:
            yield Signed(payload=await turns.get())

    async with Pair(zone, host, room, ends[1]).client() as client, aclosing(bidi(client, requests(), None)) as answers:
        turns.put_nowait(b"1")
        await anext(answers)
        await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        if why == "revoked":
            serial = files.load().leaf.serial_number
            zone.authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, now())
            moved = dt.timedelta(seconds=1.5)
        else:
            moved = dt.timedelta(hours=25)
        turns.put_nowait(b"2")
        reason = Reason.CERTIFICATE_REVOKED if why == "revoked" else Reason.IDENTITY_INVALID
        for asked in (anext(answers), client.unary(UNARY, Signed(), Signed, timeout=SECONDS)):
            with pytest.raises(Unauthenticated) as refused:
                await cast("Any", asked)
            assert refused.value.reason is reason
    await host.stop()


async def test_certificates_are_renewed_at_either_end_while_calls_go_on(
    tmp_path: Path, ends: tuple[Transport, Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_LOOK_EVERY", 0.0)
    async with own(tmp_path, ends) as pair, pair.client() as client:
        for _ in range(3):
            for who in (WHO, NODE):
                pair.zone.authority.renew(pair.zone.identity(who), now())
                for _ in range(3):
                    await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        used = {call.certificate for call in pair.echo.calls}
        assert len(used) == 3


# Ends.


async def test_a_node_that_stops_finishes_what_it_has_and_is_found_again(
    tmp_path: Path, ends: tuple[Transport, Transport]
) -> None:
    async with own(tmp_path, ends) as pair, pair.client() as client:
        turns: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def requests() -> AsyncIterator[Message]:
            while (payload := await turns.get()) is not None:
                yield Signed(payload=payload)

        answers = bidi(client, requests(), None)
        turns.put_nowait(b"1")
        await anext(answers)
        stopping = asyncio.ensure_future(pair.host.stop())
        # It takes a moment until this end has heard of it.
        async with asyncio.timeout(SECONDS):
            with pytest.raises((Unavailable, Internal)) as gone:
                while True:
                    await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
        # grpcio's servers sometimes take a call that they then say was cancelled.
        assert gone.value.reason is Reason.DEPARTMENT_UNREACHABLE or ends[0] == "grpcio"
        turns.put_nowait(b"2")
        assert (await anext(answers)).payload == b"2"
        turns.put_nowait(None)
        assert [answer.signature async for answer in answers] == [b"done"]
        await stopping
        again = echo.serving(pair.zone, ends[0], pair.echo, LIMITS, pair.host.address)
        async with again, asyncio.timeout(SECONDS):
            while True:
                with contextlib.suppress(Unavailable):
                    await client.unary(UNARY, Signed(), Signed, timeout=SECONDS)
                    break
                await asyncio.sleep(0.01)
