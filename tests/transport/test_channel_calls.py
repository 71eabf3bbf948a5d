"""Calls of a channel: deadlines, cancellation, messages both ways as there is room, requests that are made again."""

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

import pytest

from services.kit.config import Transport
from services.kit.errors import DeadlineExceeded, PermissionDenied, Reason, ResourceExhausted, Unavailable
from services.kit.transport.nghttp2 import calling, channel, headers
from services.kit.transport.nghttp2.connection import MOST_QUEUED
from services.kit.transport.nghttp2.framing import MessageReader
from services.kit.transport.nghttp2.framing import frame as framed
from services.kit.transport.seam import Channel
from tests.transport.peer import HEAD, MOST, OK, Line, echo, listening, nothing
from tests.transport.raw import LIMIT, SETTINGS, WINDOW_UPDATE, frame
from tests.zone import Zone

METHOD: Final = "/test.Echo/Unary"
BOTH: Final[tuple[Transport, ...]] = ("grpcio", "nghttp2")
CANCEL: Final = 8
REFUSED: Final = 7


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    return Zone(tmp_path_factory.mktemp("zone"))


def ask(made: Channel, request: bytes = b"request", timeout: float | None = LIMIT) -> "asyncio.Task[bytes]":
    return asyncio.ensure_future(made.unary(METHOD, request, timeout))


def read(
    made: Channel, requests: bytes | AsyncIterator[bytes] = b"request", timeout: float | None = LIMIT
) -> AsyncGenerator[bytes]:
    return cast("AsyncGenerator[bytes]", made.stream(METHOD, requests, timeout))


async def several(*requests: bytes) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


def messages(body: bytes) -> list[bytes]:
    return MessageReader(MOST).feed(body)


# What is sent.


@pytest.mark.parametrize("transport", BOTH)
async def test_a_call_says_what_grpc_wants_to_hear(zone: Zone, transport: Transport) -> None:
    async with listening(zone) as peer, peer.channel(transport) as made:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert await made.unary(METHOD, b"x", 7.5, (("traceparent", parent),)) == b"x"
        said = peer.lines[0].streams[1].headers
        assert said[b":method"] == b"POST"
        assert said[b":scheme"] == b"https"
        assert said[b":path"] == METHOD.encode()
        assert said[b":authority"] == b"node.customs.zone.example"
        assert said[b"te"] == b"trailers"
        assert said[b"content-type"].startswith(b"application/grpc")
        assert said[b"traceparent"] == parent.encode()
        # Less what it took to connect, by grpcio's account.
        assert 4 <= headers.timeout_of(said[b"grpc-timeout"]) <= 7.5
        await made.unary(METHOD, b"x", None)
        assert b"grpc-timeout" not in peer.lines[0].streams[3].headers
        assert b"traceparent" not in peer.lines[0].streams[3].headers


async def test_metadata_may_be_an_iterator_that_runs_dry(zone: Zone) -> None:
    """A call that is made again says the same again."""

    async def refuse(line: Line, stream: int) -> None:
        peer.script = echo
        line.reset(stream, REFUSED)

    async with listening(zone, refuse) as peer, peer.channel() as made:
        assert await made.unary(METHOD, b"x", LIMIT, iter([("a", "b")])) == b"x"
        assert [asked.headers[b"a"] for asked in peer.lines[0].streams.values()] == [b"b", b"b"]


# Deadlines.


@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("kind", ["unary", "stream", "bidi"])
async def test_a_deadline_that_passes_cuts_the_call(zone: Zone, transport: Transport, kind: str) -> None:
    async def ever() -> AsyncIterator[bytes]:
        yield b"request"
        await asyncio.Event().wait()

    async with listening(zone, nothing) as peer, peer.channel(transport) as made:
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded) as late:
            if kind == "unary":
                await made.unary(METHOD, b"request", 0.2)
            else:
                await anext(read(made, b"request" if kind == "stream" else ever(), 0.2))
        assert asyncio.get_running_loop().time() - began >= 0.19
        assert late.value.reason is Reason.DEPARTMENT_TIMEOUT
        assert late.value.message == "Deadline Exceeded"
        line, asked = await peer.asked()
        await line.until(asked.over.is_set)
        assert asked.reset == CANCEL


@pytest.mark.parametrize(("transport", "timeout"), [("grpcio", -1.0), ("nghttp2", -1.0), ("nghttp2", 0.0)])
async def test_a_deadline_that_has_passed_fails_at_once(zone: Zone, transport: Transport, timeout: float) -> None:
    """For grpcio, no time at all is any time."""
    async with listening(zone) as peer, peer.channel(transport) as made:
        with pytest.raises(DeadlineExceeded):
            await made.unary(METHOD, b"request", timeout)
        with pytest.raises(DeadlineExceeded):
            await anext(read(made, timeout=timeout))
        assert not any(line.streams for line in peer.lines)


async def test_an_answer_in_the_last_moment_is_an_answer_and_later_ones_are_passed_over(zone: Zone) -> None:
    async with listening(zone, nothing) as peer, peer.channel() as made:
        with pytest.raises(DeadlineExceeded):
            await made.unary(METHOD, b"request", 0.1)
        line, asked = await peer.asked()
        await line.until(asked.over.is_set)
        line.answer(1, b"too late")
        peer.script = echo
        assert await made.unary(METHOD, b"x", LIMIT) == b"x"
        assert len(peer.lines) == 1


# Cancellation.


@pytest.mark.parametrize("transport", BOTH)
async def test_a_caller_that_is_cancelled_cuts_its_call(zone: Zone, transport: Transport) -> None:
    async with listening(zone, nothing) as peer, peer.channel(transport) as made:
        asking = ask(made)
        line, asked = await peer.asked()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await line.until(asked.over.is_set)
        assert asked.reset == CANCEL
        peer.script = echo
        assert await made.unary(METHOD, b"x", LIMIT) == b"x"


@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("kind", ["stream", "bidi"])
async def test_leaving_an_iteration_cuts_the_call(zone: Zone, transport: Transport, kind: str) -> None:
    left = asyncio.Event()

    async def ever() -> AsyncIterator[bytes]:
        try:
            yield b"request"
            await asyncio.Event().wait()
        finally:
            left.set()

    async def drip(line: Line, stream: int) -> None:
        line.head(stream)
        line.data(stream, framed(b"1") + framed(b"2") + framed(b"3"))

    async with listening(zone, drip) as peer, peer.channel(transport) as made:
        async with aclosing(read(made, b"request" if kind == "stream" else ever(), None)) as answers:
            assert await anext(answers) == b"1"
        line, asked = await peer.asked()
        await line.until(asked.over.is_set)
        assert asked.reset == CANCEL
        if kind == "bidi":
            async with asyncio.timeout(LIMIT):
                await left.wait()


async def test_a_caller_that_is_cancelled_when_its_answer_is_there_already(zone: Zone) -> None:
    """Both in one turn of the loop: no complaint is left behind of an error that nobody asked for."""
    complaints: list[dict[str, Any]] = []

    async def both(line: Line, stream: int) -> None:
        if stream == 3:
            line.answer(1, b"x")
            line.head(3, (*HEAD, (b"grpc-status", b"5")), end=True)

    async def cancel(made: Channel) -> None:
        await made.unary(METHOD, b"request", LIMIT)
        others[0].cancel()

    async with listening(zone, both) as peer, peer.channel() as made:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        try:
            one = asyncio.ensure_future(cancel(made))
            others = [ask(made)]
            await asyncio.gather(one, *others, return_exceptions=True)
            assert others.pop().cancelled()
            gc.collect()
        finally:
            asyncio.get_running_loop().set_exception_handler(None)
    assert [found for found in complaints if "never retrieved" in found["message"]] == []


# Refused streams.


async def test_a_refused_call_is_made_again_once(zone: Zone) -> None:
    async def refuse(line: Line, stream: int) -> None:
        await line.streams[stream].ended.wait()
        line.reset(stream, REFUSED)

    async def refuse_once(line: Line, stream: int) -> None:
        peer.script = echo
        await refuse(line, stream)

    async with listening(zone, refuse_once) as peer, peer.channel() as made:
        assert await made.unary(METHOD, b"x", LIMIT) == b"x"
        peer.script = refuse
        with pytest.raises(Unavailable, match="REFUSED_STREAM"):
            await made.unary(METHOD, b"x", LIMIT)
        assert list(peer.lines[0].streams) == [1, 3, 5, 7]


async def test_a_call_that_was_answered_in_part_is_not_made_again(zone: Zone) -> None:
    async def refuse(line: Line, stream: int) -> None:
        line.head(stream)
        line.reset(stream, REFUSED)

    async with listening(zone, refuse) as peer, peer.channel() as made:
        with pytest.raises(Unavailable):
            await made.unary(METHOD, b"x", LIMIT)
        with pytest.raises(Unavailable):
            await anext(read(made, several(b"x")))
        assert list(peer.lines[0].streams) == [1, 3]


async def test_the_requests_of_a_refused_stream_are_sent_again(zone: Zone) -> None:
    go_on = asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"
        await go_on.wait()
        yield b"3"

    async def refuse(line: Line, stream: int) -> None:
        peer.script = answer
        await line.until(lambda: messages(bytes(line.streams[stream].body)) == [b"1", b"2"])
        line.reset(stream, REFUSED)

    async def answer(line: Line, stream: int) -> None:
        asked = line.streams[stream]
        await line.until(lambda: messages(bytes(asked.body)) == [b"1", b"2"])
        go_on.set()
        await asked.ended.wait()
        line.answer(stream, *messages(bytes(asked.body)))

    async with listening(zone, refuse) as peer, peer.channel() as made:
        assert [answered async for answered in read(made, requests())] == [b"1", b"2", b"3"]


async def test_more_requests_than_are_kept_are_not_sent_again(zone: Zone) -> None:
    async def refuse(line: Line, stream: int) -> None:
        asked = line.streams[stream]
        await line.until(lambda: len(asked.body) > calling.MOST_KEPT)
        line.reset(stream, REFUSED)

    async with listening(zone, refuse) as peer, peer.channel() as made:
        with pytest.raises(Unavailable):
            await anext(read(made, several(*[b"x" * 10_000] * 40)))
        assert list(peer.lines[0].streams) == [1]


# Limits on streams.


async def test_no_more_calls_run_than_the_peer_lets(zone: Zone) -> None:
    async with listening(zone, nothing) as peer:
        peer.settings[3] = 2
        async with peer.channel() as made:
            asking = [ask(made, b"%d" % number) for number in range(5)]
            line, _ = await peer.asked(3)
            assert not await line.echoed()
            assert list(line.streams) == [1, 3]
            # One expires, and one is cancelled, while they wait: neither is ever sent.
            late = ask(made, b"late", 0.05)
            asking[3].cancel()
            with pytest.raises(DeadlineExceeded):
                await late
            line.answer(3, b"second")
            await peer.asked(5)
            line.answer(1, b"first")
            await peer.asked(7)
            assert [messages(bytes(line.streams[stream].body)) for stream in (5, 7)] == [[b"2"], [b"4"]]
            line.answer(7, b"fifth")
            line.answer(5, b"third")
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert answers[:3] == [b"first", b"second", b"third"]
            assert answers[4] == b"fifth"
            assert list(line.streams) == [1, 3, 5, 7]


async def test_a_peer_may_think_better_of_its_limit(zone: Zone) -> None:
    async with listening(zone, echo) as peer:
        peer.settings[3] = 0
        async with peer.channel() as made:
            asking = ask(made)
            line = await peer.line()
            assert not await line.echoed()
            assert not line.streams
            line.write(frame(SETTINGS, 0, 0, (3).to_bytes(2) + (1).to_bytes(4)))
            assert await asking == b"request"


async def test_not_any_number_of_calls_may_wait(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MOST_WAITING", 3)
    async with listening(zone, nothing) as peer:
        peer.settings[3] = 1
        async with peer.channel() as made:
            asking = [ask(made)]
            await peer.asked()
            asking += [ask(made) for _ in range(3)]
            await peer.lines[0].echoed()
            with pytest.raises(ResourceExhausted) as refused:
                await made.unary(METHOD, b"x", LIMIT)
            assert refused.value.reason is Reason.CALLS_TOO_MANY
            peer.lines[0].answer(1, b"x")
            assert await asking[0] == b"x"
            asking.append(ask(made))
            await peer.asked(3)
            for waiting in asking:
                waiting.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


# Flow control.


@pytest.mark.parametrize("transport", BOTH)
async def test_a_request_larger_than_the_window_goes_as_the_peer_takes_it(zone: Zone, transport: Transport) -> None:
    async def take(line: Line, stream: int) -> None:
        asked = line.streams[stream]
        taken = 0
        while not asked.ended.is_set():
            if len(asked.body) > taken:
                line.write(frame(WINDOW_UPDATE, 0, stream, (len(asked.body) - taken).to_bytes(4)))
                taken = len(asked.body)
            line.news.clear()
            await line.news.wait()
            most.append(len(asked.body) - taken)
        line.answer(stream, b"%d" % len(asked.body))

    most: list[int] = []
    async with listening(zone, take) as peer:
        peer.settings[4] = 1000
        async with peer.channel(transport) as made:
            assert await made.unary(METHOD, b"x" * 50_000, LIMIT) == b"50005"
        assert max(most) <= 1000


@pytest.mark.parametrize("transport", BOTH)
async def test_an_answer_larger_than_the_window_is_let_in(zone: Zone, transport: Transport) -> None:
    large = b"x" * (3 * calling.STREAM_WINDOW)

    async def answer(line: Line, stream: int) -> None:
        line.head(stream)
        assert await line.send(stream, framed(large)) == len(large) + 5
        line.head(stream, OK, end=True)

    async with listening(zone, answer) as peer, peer.channel(transport, len(large)) as made:
        assert await made.unary(METHOD, b"request", LIMIT) == large
        assert [answer async for answer in read(made)] == [large]


async def test_a_stream_that_nobody_reads_is_not_let_in_and_others_are(zone: Zone) -> None:
    piece = framed(b"x" * 60_000)
    pieces = 3 * calling.STREAM_WINDOW // len(piece)
    sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def pour(line: Line, stream: int) -> None:
        peer.script = echo
        line.head(stream)
        first = await line.send(stream, piece * pieces)
        sent.set_result(first)
        while first < len(piece) * pieces:
            await line.until(lambda: line.given.get(stream, 0) + line.stream_window > line.sent[stream])
            first += await line.send(stream, (piece * pieces)[first:])
        line.head(stream, OK, end=True)

    async with listening(zone, pour) as peer, peer.channel() as made:
        answers = read(made)
        seen = len(await anext(answers))
        async with asyncio.timeout(LIMIT):
            held = await asyncio.shield(sent)
        assert held <= calling.STREAM_WINDOW + len(piece)
        # The connection has room for others all the same.
        assert await made.unary(METHOD, b"x" * 1000, LIMIT) == b"x" * 1000
        async for answer in answers:
            seen += len(answer)
        assert seen == 60_000 * pieces
        assert len(peer.lines) == 1


async def test_requests_are_taken_from_their_iterator_as_there_is_room(zone: Zone) -> None:
    given = 0

    async def requests() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(100):
            given += 1
            yield b"x" * 16_000

    async def wait(line: Line, stream: int) -> None:
        line.head(stream)

    async with listening(zone, wait) as peer:
        peer.settings[4] = 0
        async with peer.channel() as made, aclosing(read(made, requests())) as answers:
            reading = asyncio.ensure_future(anext(answers))
            line, asked = await peer.asked()
            for _ in range(10):
                await line.echoed()
            assert given <= MOST_QUEUED // 16_000 + 2
            assert not asked.body
            before = given
            line.write(frame(WINDOW_UPDATE, 0, 1, (160_050).to_bytes(4)))
            await line.until(lambda: len(asked.body) == 160_050)
            await line.echoed()
            assert before + 9 <= given <= before + 12
            line.write(frame(WINDOW_UPDATE, 0, 1, (2**30).to_bytes(4)))
            await line.until(asked.ended.is_set)
            assert len(asked.body) == 100 * 16_005
            line.data(1, framed(b"done"))
            line.head(1, OK, end=True)
            assert await reading == b"done"


# Ends of streams.


async def test_a_peer_may_end_before_the_requests_do(zone: Zone) -> None:
    left = asyncio.Event()

    async def ever() -> AsyncIterator[bytes]:
        try:
            yield b"1"
            await asyncio.Event().wait()
        finally:
            left.set()

    async def enough(line: Line, stream: int) -> None:
        line.answer(stream, b"enough")

    async with listening(zone, enough) as peer, peer.channel() as made:
        assert [answer async for answer in read(made, ever())] == [b"enough"]
        line, asked = await peer.asked()
        await line.until(asked.over.is_set)
        async with asyncio.timeout(LIMIT):
            await left.wait()
        assert asked.reset == CANCEL


async def test_an_error_of_the_requests_is_the_readers(zone: Zone) -> None:
    class OurError(Exception):
        pass

    async def requests() -> AsyncIterator[bytes]:
        yield b"1"
        raise OurError

    async with listening(zone, nothing) as peer, peer.channel() as made:
        with pytest.raises(OurError):
            await anext(read(made, requests()))
        line, asked = await peer.asked()
        await line.until(asked.over.is_set)
        assert asked.reset == CANCEL


@pytest.mark.parametrize("transport", BOTH)
async def test_there_may_be_no_requests_at_all(zone: Zone, transport: Transport) -> None:
    async with listening(zone, echo) as peer, peer.channel(transport) as made:
        assert [answer async for answer in read(made, several())] == [b""]


async def test_an_error_reaches_a_reader_that_still_sends(zone: Zone) -> None:
    """Where grpcio says "Internal error from Core"."""

    async def ever() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0)

    async def refuse(line: Line, stream: int) -> None:
        line.head(stream, (*HEAD, (b"grpc-status", b"7"), (b"grpc-message", b"no")), end=True)

    async with listening(zone, refuse) as peer, peer.channel() as made:
        with pytest.raises(PermissionDenied, match="no"):
            await anext(read(made, ever()))
