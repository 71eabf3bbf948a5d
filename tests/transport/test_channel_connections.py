"""When a channel connects, and again, what it does with connections that end, and how it closes."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast

import pytest
import uvloop

from services.kit.config import Transport
from services.kit.errors import DeadlineExceeded, Reason, Unavailable
from services.kit.transport.nghttp2 import calling, channel
from services.kit.transport.nghttp2.channel import NgChannel
from services.kit.transport.nghttp2.framing import frame as framed
from services.kit.transport.seam import Channel
from tests.transport.peer import MOST, NODE, OK, WHO, Line, Peer, echo, listening, nothing
from tests.transport.raw import DATA, GOAWAY, LIMIT, frame
from tests.zone import Zone

METHOD: Final = "/test.Echo/Unary"
BOTH: Final[tuple[Transport, ...]] = ("grpcio", "nghttp2")


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    return Zone(tmp_path_factory.mktemp("zone"))


def ask(made: Channel, request: bytes = b"request", timeout: float | None = LIMIT) -> "asyncio.Task[bytes]":
    return asyncio.ensure_future(made.unary(METHOD, request, timeout))


def read(made: Channel, requests: bytes | AsyncIterator[bytes] = b"request") -> AsyncGenerator[bytes]:
    return cast("AsyncGenerator[bytes]", made.stream(METHOD, requests, LIMIT))


@contextlib.asynccontextmanager
async def to(zone: Zone, port: int, who: str = NODE) -> AsyncGenerator[NgChannel]:
    made = NgChannel(f"127.0.0.1:{port}", zone.identity(who), zone.files(WHO).load(), MOST)
    try:
        yield made
    finally:
        await made.close()


async def until_there(made: Channel) -> bytes:
    """Ask until there is somebody to answer."""
    while True:
        with contextlib.suppress(Unavailable):
            return await made.unary(METHOD, b"x", None)
        await asyncio.sleep(0.01)


# Connecting.


async def test_it_connects_when_there_is_something_to_ask_and_once_for_many(zone: Zone) -> None:
    async with listening(zone) as peer, peer.channel() as idle, peer.channel() as made:
        answers = await asyncio.gather(*(ask(made, b"%d" % number) for number in range(100)))
        assert answers == [b"%d" % number for number in range(100)]
        assert len(peer.accepted) == 1
        assert len(peer.lines[0].streams) == 100
        assert idle is not made


@pytest.mark.parametrize("transport", BOTH)
async def test_an_absent_node_is_told_of_at_once_and_noticed_when_it_comes(zone: Zone, transport: Transport) -> None:
    async with listening(zone) as peer:
        await peer.stop()
        async with peer.channel(transport) as made:
            with pytest.raises(Unavailable) as refused:
                await made.unary(METHOD, b"x", LIMIT)
            assert refused.value.reason is Reason.DEPARTMENT_UNREACHABLE
            await peer.start()
            async with asyncio.timeout(3):
                assert await until_there(made) == b"x"


async def test_attempts_are_ever_further_apart_and_calls_wait_for_none_of_them(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "LONGEST_PAUSE", 0.4)
    async with listening(zone) as peer, peer.channel() as made:
        peer.refusing = True
        while len(peer.accepted) < 6:
            before = len(peer.accepted)
            with pytest.raises(Unavailable):
                await made.unary(METHOD, b"x", LIMIT)
            # But for the first, which made it be tried.
            assert len(peer.accepted) <= max(before, 1)
            await asyncio.sleep(0.01)
        gaps = [later - sooner for sooner, later in itertools.pairwise(peer.accepted)]
        wanted = [0.1, 0.2, 0.4, 0.4, 0.4]
        for gap, pause in zip(gaps, wanted, strict=True):
            # A fifth less by chance; that of two accepted connections the first was late, makes for a little more.
            assert gap >= 0.8 * pause - 0.05
        assert sum(gaps) < 5
        peer.refusing = False
        await peer.line()
        assert await until_there(made) == b"x"


async def test_it_stops_trying_when_nobody_asks(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "GIVE_UP", 0.0)
    async with listening(zone) as peer, peer.channel() as made:
        peer.refusing = True
        for attempts in (1, 2, 3):
            # Each call has it tried anew: as the first one, it waits.
            with pytest.raises(Unavailable):
                await made.unary(METHOD, b"x", LIMIT)
            assert len(peer.accepted) == attempts
        peer.refusing = False
        assert await made.unary(METHOD, b"x", LIMIT) == b"x"


@pytest.mark.parametrize("silence", ["tcp", "tls"])
async def test_a_node_that_says_nothing_is_waited_for_no_longer_than_so(
    zone: Zone, silence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "CONNECT", 0.3)
    async with listening(zone) as peer:
        peer.mute = True
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            async with to(zone, listener.getsockname()[1] if silence == "tcp" else peer.port) as made:
                hurried = ask(made, timeout=0.1)
                with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
                    await made.unary(METHOD, b"x", LIMIT)
                with pytest.raises(DeadlineExceeded):
                    await hurried


async def test_a_call_that_is_cancelled_while_it_waits_is_never_sent(zone: Zone) -> None:
    async with listening(zone) as peer, peer.channel() as made:
        asking = [ask(made, b"1"), ask(made, b"2")]
        await asyncio.sleep(0)
        asking[0].cancel()
        assert await asking[1] == b"2"
        assert asking[0].cancelled()
        assert len(peer.lines[0].streams) == 1


@pytest.mark.parametrize("parting", ["goodbye", "hung up"])
async def test_a_peer_that_greets_and_is_gone_is_absent(zone: Zone, parting: str) -> None:
    async with listening(zone) as peer, peer.channel() as made, asyncio.timeout(LIMIT):
        peer.parting = frame(GOAWAY, 0, 0, bytes(8)) if parting == "goodbye" else b""
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"cannot connect|was lost"):
                await made.unary(METHOD, b"x", None)
        peer.parting = None
        assert await until_there(made) == b"x"


async def test_a_server_of_another_name_is_not_talked_to(zone: Zone) -> None:
    async with listening(zone) as peer, to(zone, peer.port, "quality/node") as made:
        with pytest.raises(Unavailable, match="Hostname mismatch"):
            await made.unary(METHOD, b"x", LIMIT)
        assert not any(line.streams for line in peer.lines)


async def test_a_target_that_is_nowhere_is_said(zone: Zone) -> None:
    made = NgChannel("..:1", zone.identity(NODE), zone.files(WHO).load(), MOST)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"cannot connect to \.\.:1"):
            await made.unary(METHOD, b"x", LIMIT)
    await made.close()


# Connections that end.


async def test_a_connection_that_is_lost_fails_its_calls_and_the_next_one_has_another(zone: Zone) -> None:
    async with listening(zone, nothing) as peer:
        peer.settings[3] = 2
        async with peer.channel() as made:
            asking = [ask(made) for _ in range(3)]
            line, _ = await peer.asked(3)
            peer.script = echo
            line.hang_up()
            failed = await asyncio.gather(*asking, return_exceptions=True)
            assert [type(found) for found in failed[:2]] == [Unavailable] * 2
            # The third had not been sent.
            assert failed[2] == b"request"
            assert len(peer.lines) == 2


@pytest.mark.parametrize("transport", BOTH)
async def test_a_peer_that_leaves_finishes_what_it_took_and_the_rest_goes_elsewhere(
    zone: Zone, transport: Transport
) -> None:
    async with listening(zone, nothing) as peer, peer.channel(transport) as made:
        taken = ask(made, b"taken")
        line, _ = await peer.asked(1)
        left = ask(made, b"left")
        await peer.asked(3)
        peer.script = echo
        line.leave(1)
        assert await left == b"left"
        assert await made.unary(METHOD, b"new", LIMIT) == b"new"
        assert len(peer.lines) == 2
        assert list(line.streams) == [1, 3]
        line.answer(1, b"taken")
        assert await taken == b"taken"
        await line.left()


async def test_a_peer_may_announce_that_it_leaves(zone: Zone) -> None:
    """As servers do that drain: the first GOAWAY names no last stream, the second one does."""
    async with listening(zone, nothing) as peer, peer.channel() as made:
        taken = ask(made, b"taken")
        line, _ = await peer.asked(1)
        line.leave(2**31 - 1)
        await line.echoed()
        peer.script = echo
        assert await made.unary(METHOD, b"new", LIMIT) == b"new"
        line.leave(1)
        line.answer(1, b"taken")
        assert await taken == b"taken"
        await line.left()
        assert len(peer.lines) == 2


async def test_a_peer_may_leave_when_nothing_runs(zone: Zone) -> None:
    async with listening(zone) as peer, peer.channel() as made:
        for number in range(3):
            assert await made.unary(METHOD, b"x", LIMIT) == b"x"
            line = await peer.line(number)
            line.leave(1)
            await line.left()


async def test_a_drain_fails_no_call(zone: Zone) -> None:
    """Callers that never stop asking, and a peer that leaves again and again."""
    async with listening(zone) as peer, peer.channel() as made:

        async def keep_asking() -> None:
            for number in range(300):
                assert await made.unary(METHOD, b"%d" % number, LIMIT) == b"%d" % number

        async def keep_leaving() -> None:
            for number in itertools.count():
                line = await peer.line(number)
                await line.until(lambda line=line: len(line.streams) >= 50)  # type: ignore[misc]
                line.leave(2**31 - 1)
                await line.echoed()
                line.leave(max(line.streams))
                await line.left()

        leaving = asyncio.ensure_future(keep_leaving())
        await asyncio.gather(*(keep_asking() for _ in range(8)))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert len(peer.lines) > 10


async def test_a_connection_is_not_used_for_ever(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of streams run out."""
    monkeypatch.setattr(calling, "MOST_STREAMS", 10)
    async with listening(zone) as peer, peer.channel() as made:
        for _ in range(30):
            assert await made.unary(METHOD, b"x", LIMIT) == b"x"
        await peer.lines[0].left()
        assert [len(line.streams) for line in peer.lines] == [11, 11, 8]


async def test_calls_that_are_cut_amid_a_frame_do_not_wear_the_connection_out(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came of a frame that is not whole is lost to the window of the connection; before none is left, it goes."""
    monkeypatch.setattr(calling, "WINDOW", 100_000)
    monkeypatch.setattr(calling, "LOOK", 0.01)
    half = frame(DATA, 0, 1, b"x" * 16_000)

    async def dribble(line: Line, stream: int) -> None:
        # In one piece, so that whoever has the first answer has half of the next frame, too.
        line.head(stream)
        line.write(frame(DATA, 0, stream, framed(b"1")) + half[:5] + stream.to_bytes(4) + half[9:8_000])
        await line.streams[stream].over.wait()
        line.write(half[8_000:])

    async with listening(zone, dribble) as peer, peer.channel() as made:
        while len(peer.lines) < 2:
            async with aclosing(read(made)) as answers:
                assert await anext(answers) == b"1"
            line = peer.lines[0]
            await line.until(lambda: all(asked.over.is_set() for asked in peer.lines[0].streams.values()))
            assert len(line.streams) < 100


# Whether the peer is there.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask after a moment."""
    monkeypatch.setattr(calling, "LOOK", 0.02)
    monkeypatch.setattr(calling.ClientConnection, "keepalive", 0.1)
    monkeypatch.setattr(calling.ClientConnection, "patience", 0.1)


@pytest.mark.usefixtures("quick")
async def test_a_silent_peer_is_asked_whether_it_is_there_while_a_call_runs(zone: Zone) -> None:
    async with (
        listening(zone) as idle,
        listening(zone, nothing) as busy,
        idle.channel() as resting,
        busy.channel() as made,
    ):
        assert await resting.unary(METHOD, b"x", LIMIT) == b"x"
        asking = ask(made)
        line, _ = await busy.asked()
        await line.until(lambda: line.pings >= 3)
        line.answer(1, b"at last")
        assert await asking == b"at last"
        assert idle.lines[0].pings == 0


@pytest.mark.usefixtures("quick")
async def test_a_peer_that_is_not_there_any_more_is_noticed(zone: Zone) -> None:
    async with listening(zone, nothing) as peer, peer.channel() as made:
        asking = [ask(made, timeout=None), asyncio.ensure_future(anext(read(made)))]
        await peer.asked(3)
        peer.deaf = True
        for waiting in asking:
            with pytest.raises(Unavailable) as lost:
                await waiting
            assert lost.value.reason is Reason.DEPARTMENT_UNREACHABLE
        peer.deaf, peer.script = False, echo
        assert await made.unary(METHOD, b"x", LIMIT) == b"x"
        assert len(peer.lines) == 2


async def test_the_kernel_waits_for_a_peer_no_longer_than_we_do(zone: Zone) -> None:
    """Else a connection hangs on for as long as the network was away. `tests.chaos` pulls a cable, where it may."""
    async with listening(zone) as peer, peer.channel() as made:
        assert await made.unary(METHOD, b"x", LIMIT) == b"x"
        hidden: Any = made
        plug = hidden._connection.transport.get_extra_info("socket")
        assert plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * calling.ClientConnection.patience


# Closing.


async def test_what_runs_may_go_on_for_a_while_after_the_close(zone: Zone) -> None:
    async with listening(zone, nothing) as peer, peer.channel() as made:
        asking = ask(made)
        line, _ = await peer.asked()
        closing = asyncio.ensure_future(made.close(LIMIT))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="closed"):
            await made.unary(METHOD, b"x", LIMIT)
        line.answer(1, b"x")
        assert await asking == b"x"
        await closing
        await line.left()
        assert line.goaway == 0


async def test_what_runs_for_too_long_after_the_close_is_cut(zone: Zone) -> None:
    async def ever() -> AsyncIterator[bytes]:
        yield b"1"
        await asyncio.Event().wait()

    async with listening(zone, nothing) as peer, peer.channel() as made:
        running: list[Awaitable[Any]] = [ask(made), anext(read(made)), anext(read(made, ever()))]
        asking = [asyncio.ensure_future(cast("Any", each)) for each in running]
        line, _ = await peer.asked(5)
        await made.close(0.1)
        for each in asking:
            with pytest.raises(Unavailable, match="closed"):
                await each
        await line.left()
        assert [asked.reset for asked in line.streams.values()] == [8, 8, 8]


@pytest.mark.parametrize("when", ["never used", "connecting", "waiting", "twice"])
async def test_it_may_be_closed_at_any_time(zone: Zone, when: str) -> None:
    async with listening(zone) as peer, peer.channel() as made:
        asking: list[asyncio.Task[bytes]] = []
        if when == "twice":
            await made.unary(METHOD, b"x", LIMIT)
            await made.close()
        elif when == "connecting":
            asking.append(ask(made))
            await asyncio.sleep(0)
        elif when == "waiting":
            peer.refusing = True
            with pytest.raises(Unavailable):
                await made.unary(METHOD, b"x", LIMIT)
        await made.close()
        for each in asking:
            with pytest.raises(Unavailable):
                await each


async def test_a_peer_that_does_not_let_go_is_let_go_of(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SHUTDOWN", 0.1)
    async with listening(zone, nothing) as peer, peer.channel() as made:
        asking = ask(made)
        line, _ = await peer.asked()
        peer.deaf = True
        cast("asyncio.Transport", line.writer.transport).pause_reading()
        async with asyncio.timeout(LIMIT):
            await made.close()
        with pytest.raises(Unavailable):
            await asking


# The loop that nodes run in.


def test_all_of_it_in_the_loop_of_nodes(tmp_path: Path) -> None:
    """The other tests have asyncio's own loop, whose TLS is another."""

    async def drip(line: Line, stream: int) -> None:
        line.head(stream)
        for number in range(3):
            line.data(stream, framed(b"%d" % number))
        await line.streams[stream].ended.wait()
        line.head(stream, OK, end=True)

    async def several() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 100_000

    async def main() -> None:
        async with listening(Zone(tmp_path), echo) as peer, peer.channel() as made:
            assert await asyncio.gather(*(ask(made, b"x" * 50_000) for _ in range(20))) == [b"x" * 50_000] * 20
            peer.script = drip
            assert [answer async for answer in read(made, several())] == [b"0", b"1", b"2"]
            peer.script = nothing
            with pytest.raises(DeadlineExceeded):
                await made.unary(METHOD, b"x", 0.1)
            asking = ask(made)
            line = peer.lines[0]
            await line.until(lambda: len(line.streams) == 23)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await line.until(line.streams[45].over.is_set)
            await _gone(peer, made)
        async with listening(Zone(tmp_path / "other")) as peer, peer.channel() as made:
            asking = ask(made)
            await asyncio.sleep(0)
            await made.close()
            with pytest.raises(Unavailable):
                await asking

    async def _gone(peer: Peer, made: Channel) -> None:
        asking = ask(made)
        await peer.lines[0].until(lambda: len(peer.lines[0].streams) == 24)
        peer.lines[0].hang_up()
        with pytest.raises(Unavailable):
            await asking
        peer.refusing = True
        with pytest.raises(Unavailable):
            await made.unary(METHOD, b"x", LIMIT)

    uvloop.run(main())
