"""What a peer may answer with, right and wrong, and what a caller is told: the same, whichever channel carried it."""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from services.kit import errors, wire
from services.kit.config import Transport
from services.kit.errors import HutongError, Reason
from services.kit.transport.nghttp2 import headers
from services.kit.transport.nghttp2.framing import frame as framed
from tests.transport.peer import HEAD, MOST, OK, Line, Script, echo, listening, nothing
from tests.transport.raw import DATA, Headers, frame
from tests.zone import Zone

METHOD: Final = "/test.Echo/Unary"
BOTH: Final[tuple[Transport, ...]] = ("grpcio", "nghttp2")
Said = tuple[type[HutongError], Reason, str | None]
"""Class and reason of an error; its message, where it is the peer's."""

INTERNAL: Final[Said] = (errors.Internal, Reason.INTERNAL, None)
UNREACHABLE: Final[Said] = (errors.Unavailable, Reason.DEPARTMENT_UNREACHABLE, None)
TOO_LARGE: Final[Said] = (errors.ResourceExhausted, Reason.REQUEST_TOO_LARGE, None)


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    return Zone(tmp_path_factory.mktemp("zone"))


def say(words: Callable[[Line, int], object]) -> Script:
    """Say something once the request is whole."""

    async def script(line: Line, stream: int) -> None:
        await line.streams[stream].ended.wait()
        words(line, stream)

    return script


def only(*trailers: tuple[bytes, bytes], head: Headers = HEAD) -> Script:
    return say(lambda line, stream: line.head(stream, (*head, *trailers), end=True))


def after(*trailers: tuple[bytes, bytes]) -> Script:
    """Answer, and then say that it is no answer."""
    return say(lambda line, stream: line.answer(stream, b"x", trailers=trailers))


def http(status: int) -> Headers:
    return ((b":status", b"%d" % status), (b"content-type", b"text/html"))


def body(data: bytes, head: Headers = HEAD) -> Script:
    def words(line: Line, stream: int) -> None:
        line.head(stream, head)
        line.data(stream, data)
        line.head(stream, OK, end=True)

    return say(words)


def body_alone(data: bytes, head: Headers = HEAD) -> Script:
    """End without trailers."""

    def words(line: Line, stream: int) -> None:
        line.head(stream, head)
        line.data(stream, data, end=True)

    return say(words)


def reset(code: int, *, late: bool = False) -> Script:
    def words(line: Line, stream: int) -> None:
        if late:
            line.head(stream)
            line.data(stream, framed(b"x"))
        line.reset(stream, code)

    return say(words)


def hang_up(line: Line, stream: int) -> None:
    line.head(stream)
    line.hang_up()


def apart(line: Line, stream: int) -> None:
    line.head(stream)
    line.data(stream, framed(b"1"))
    line.data(stream, framed(b"2"))


def status(code: int, message: bytes = b"m") -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    return (b"grpc-status", b"%d" % code), (b"grpc-message", message)


DETAILS: Final = wire.to_status(errors.NotFound(Reason.CASE_NOT_FOUND, "none", key="k")).SerializeToString()
RICH: Final = (*status(5, b"hutong: other"), (b"grpc-status-details-bin", headers.details(DETAILS)))

SAME: Final[dict[str, tuple[Script, Said]]] = {
    "rich": (after(*RICH), (errors.NotFound, Reason.CASE_NOT_FOUND, "none")),
    "rich, only trailers": (only(*RICH), (errors.NotFound, Reason.CASE_NOT_FOUND, "none")),
    "escaped": (only(*status(5, b"no%20such%E4%BD%A0%")), (errors.NotFound, Reason.INTERNAL, "no such你%")),
    "prefixed": (after(*status(12, b"hutong: x")), (errors.Internal, Reason.INTERNAL, "x")),
    "code 1": (after(*status(1)), (errors.Internal, Reason.INTERNAL, "m")),
    "code 2": (after(*status(2)), (errors.Internal, Reason.INTERNAL, "m")),
    "code 3": (after(*status(3)), (errors.InvalidArgument, Reason.INTERNAL, "m")),
    "code 4": (after(*status(4)), (errors.DeadlineExceeded, Reason.DEPARTMENT_TIMEOUT, "m")),
    "code 6": (after(*status(6)), (errors.Internal, Reason.INTERNAL, "m")),
    "code 7": (after(*status(7)), (errors.PermissionDenied, Reason.INTERNAL, "m")),
    "code 8": (after(*status(8)), (errors.ResourceExhausted, Reason.REQUEST_TOO_LARGE, "m")),
    "code 9": (after(*status(9)), (errors.FailedPrecondition, Reason.INTERNAL, "m")),
    "code 10": (after(*status(10)), (errors.Aborted, Reason.INTERNAL, "m")),
    "code 14": (after(*status(14)), (errors.Unavailable, Reason.DEPARTMENT_UNREACHABLE, "m")),
    "code 16": (after(*status(16)), (errors.Unauthenticated, Reason.IDENTITY_INVALID, "m")),
    "code 99": (after(*status(99)), (errors.Internal, Reason.INTERNAL, "m")),
    "code abc": (after((b"grpc-status", b"abc")), INTERNAL),
    "code of many digits": (after((b"grpc-status", b"9" * 400)), INTERNAL),
    "no code": (after((b"x", b"y")), INTERNAL),
    "no trailers": (body_alone(framed(b"x")), INTERNAL),
    "no trailers, no data": (only(), INTERNAL),
    "http 400": (only(head=http(400)), INTERNAL),
    "http 401": (only(head=http(401)), (errors.Unauthenticated, Reason.IDENTITY_INVALID, None)),
    "http 403": (only(head=http(403)), (errors.PermissionDenied, Reason.INTERNAL, None)),
    "http 404": (only(head=http(404)), INTERNAL),
    "http 429": (only(head=http(429)), UNREACHABLE),
    "http 500": (only(head=http(500)), INTERNAL),
    "http 502": (only(head=http(502)), UNREACHABLE),
    "http 503": (only(head=http(503)), UNREACHABLE),
    "http 504": (only(head=http(504)), UNREACHABLE),
    "http 503 with a page": (body_alone(b"<html>busy</html>", head=http(503)), UNREACHABLE),
    "http 503 with a code": (only(*status(5), head=http(503)), (errors.NotFound, Reason.INTERNAL, "m")),
    "http 204": (only(head=((b":status", b"204"),)), INTERNAL),
    "another content with a code": (only(*status(7), head=http(200)), (errors.PermissionDenied, Reason.INTERNAL, "m")),
    "compressed": (body(b"\1" + framed(b"xyz")[1:]), INTERNAL),
    "too large": (say(lambda line, stream: line.answer(stream, b"x" * (MOST + 1))), TOO_LARGE),
    "header in capitals": (only((b"Bad", b"x"), *status(5)), INTERNAL),
    "hung up": (say(lambda line, _: line.hang_up()), UNREACHABLE),
    "hung up after the head": (say(hang_up), UNREACHABLE),
    "no answer": (nothing, (errors.DeadlineExceeded, Reason.DEPARTMENT_TIMEOUT, "Deadline Exceeded")),
    **{f"reset {code}": (reset(code), INTERNAL) for code in (0, 1, 2, 8, 13, 14)},
    "reset 7": (reset(7), UNREACHABLE),
    "reset 11": (reset(11), TOO_LARGE),
    "reset 12": (reset(12), (errors.PermissionDenied, Reason.INTERNAL, None)),
    "reset 0 after an answer": (reset(0, late=True), INTERNAL),
    "reset 7 after an answer": (reset(7, late=True), UNREACHABLE),
    "reset 8 after an answer": (reset(8, late=True), INTERNAL),
}
"""What both channels make the same of."""

OURS: Final[dict[str, tuple[Script, Said]]] = {
    # grpcio's channels raise TypeError, wait for the deadline, or take it for an answer.
    "nothing and well": (say(lambda line, stream: line.answer(stream)), INTERNAL),
    "nothing and well, only trailers": (only(*OK), INTERNAL),
    "two answers": (say(lambda line, stream: line.answer(stream, b"1", b"2")), INTERNAL),
    "two answers, apart": (say(apart), INTERNAL),
    "half an answer": (body(framed(b"xyz")[:-1]), INTERNAL),
    "half a prefix": (body(b"\0\0\0"), INTERNAL),
    "another content": (body(framed(b"x"), head=http(200)), INTERNAL),
    "no content": (body(framed(b"x"), head=((b":status", b"200"),)), INTERNAL),
    "details that are none": (
        after(*status(9), (b"grpc-status-details-bin", b"!!!")),
        (errors.FailedPrecondition, Reason.INTERNAL, "m"),
    ),
    # What is no HTTP/2 is told as what it is to the caller: the node cannot be talked to.
    "too large a frame": (say(lambda line, stream: line.write(frame(DATA, 0, stream, b"x" * 20_000))), UNREACHABLE),
    "data on no stream": (say(lambda line, _: line.write(frame(DATA, 0, 99, b"x"))), UNREACHABLE),
    "headers that are none": (say(lambda line, stream: line.write(frame(1, 4, stream, b"\xff" * 8))), UNREACHABLE),
    "a promise": (say(lambda line, stream: line.write(frame(5, 4, stream, (2).to_bytes(4)))), UNREACHABLE),
    "no http/2": (say(lambda line, _: line.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)), UNREACHABLE),
    "too many headers": (only(*((b"x-%d" % n, b"x" * 1000) for n in range(200))), UNREACHABLE),
}
"""What ours says of what grpcio's has no good word for."""

CASES: Final = [
    *((transport, name, *case) for transport in BOTH for name, case in SAME.items()),
    *(("nghttp2", name, *case) for name, case in OURS.items()),
]


@pytest.mark.parametrize(
    ("transport", "name", "script", "said"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES]
)
async def test_a_caller_is_told(zone: Zone, transport: Transport, name: str, script: Script, said: Said) -> None:
    timeout = 0.2 if name == "no answer" else 20
    async with listening(zone, script) as peer, peer.channel(transport) as channel:
        with pytest.raises(HutongError) as told:
            await channel.unary(METHOD, b"request", timeout)
        if name != "no answer":
            # One call's misfortune is no other's.
            peer.script = echo
            assert await channel.unary(METHOD, b"again", 20) == b"again"
    assert type(told.value) is said[0]
    assert told.value.reason is said[1]
    if said[2] is not None:
        assert told.value.message == said[2]
    assert told.value.metadata == ({"key": "k"} if name.startswith("rich") else {})


@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize(
    "name", ["rich", "escaped", "code abc", "no trailers", "http 503", "hung up", "reset 7", "reset 11"]
)
async def test_whoever_reads_a_stream_is_told_the_same(zone: Zone, transport: Transport, name: str) -> None:
    script, said = SAME[name]
    async with listening(zone, script) as peer, peer.channel(transport) as channel:
        with pytest.raises(HutongError) as told:
            async for answer in channel.stream(METHOD, b"request", 20):
                assert answer == b"x"
    assert (type(told.value), told.value.reason) == said[:2]


@pytest.mark.parametrize("transport", BOTH)
async def test_a_call_that_is_cut_at_its_deadline_is_late(zone: Zone, transport: Transport) -> None:
    """A server that has not even time to say so resets the stream; the caller may not yet have looked at its watch."""

    async def script(line: Line, stream: int) -> None:
        asked = line.streams[stream]
        await asked.ended.wait()
        timeout = asked.headers.get(b"grpc-timeout")
        if timeout is None:
            line.answer(stream, b"connected")
        else:
            asyncio.get_running_loop().call_later(headers.timeout_of(timeout), line.reset, stream, 8)

    async with listening(zone, script) as peer, peer.channel(transport) as channel:
        assert await channel.unary(METHOD, b"request", None) == b"connected"
        calls = [channel.unary(METHOD, b"request", 0.02 + n / 1000) for n in range(20)]
        told = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in told] == [errors.DeadlineExceeded] * 20


@pytest.mark.parametrize("transport", BOTH)
async def test_what_came_before_an_error_is_given(zone: Zone, transport: Transport) -> None:
    script = say(lambda line, stream: line.answer(stream, b"1", b"2", b"3", trailers=RICH))
    seen: list[bytes] = []
    async with listening(zone, script) as peer, peer.channel(transport) as channel:
        with pytest.raises(errors.NotFound):
            async for answer in channel.stream(METHOD, b"request", 20):
                seen += [answer]
    assert seen == [b"1", b"2", b"3"]


@pytest.mark.parametrize("transport", BOTH)
async def test_the_largest_answer_there_may_be_is_taken(zone: Zone, transport: Transport) -> None:
    script = say(lambda line, stream: line.answer(stream, b"x" * MOST))
    async with listening(zone, script) as peer, peer.channel(transport) as channel:
        assert len(await channel.unary(METHOD, b"request", 20)) == MOST


async def test_words_that_are_not_the_last_are_passed_over(zone: Zone) -> None:
    def words(line: Line, stream: int) -> None:
        line.head(stream, ((b":status", b"103"),))
        line.answer(stream, b"x")

    async with listening(zone, say(words)) as peer, peer.channel() as channel:
        assert await channel.unary(METHOD, b"request", 20) == b"x"


async def test_a_peer_that_speaks_no_http2_is_refused(zone: Zone) -> None:
    async with listening(zone) as peer:
        await peer.stop()
        await peer.start(alpn="http/1.1")
        async with peer.channel() as channel:
            with pytest.raises(errors.Unavailable, match="does not speak HTTP/2"):
                await channel.unary(METHOD, b"request", 20)
