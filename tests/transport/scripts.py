"""What a client writes on one stream, right or wrong, and what comes of it: for tests that compare transports."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeVar

from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]
from hypothesis import strategies as st

from hutong.api.exchange.v1.exchange_pb2 import SignedContext
from services.kit import wire
from services.kit.transport.nghttp2 import headers as encodings
from tests.transport import raw
from tests.transport.echo import BIDI, ERRORS, STREAM, UNARY
from tests.transport.raw import Raw, Stream

T = TypeVar("T")
Header = tuple[bytes, bytes]
Ending = Literal["data", "empty", "trailers", "open", "reset"]
"""END_STREAM with the last data, in an empty frame, in trailers; never; or a reset instead."""

CANCEL: Final = 8
SHORT: Final = b"60m"
"""A deadline that passes while one looks: in milliseconds, as grpc-timeout has it."""


@dataclass(frozen=True)
class Script:
    """One call, byte by byte."""

    headers: tuple[Header, ...]
    chunks: tuple[bytes, ...]
    ending: Ending = "data"

    @property
    def body(self) -> bytes:
        """Everything that is sent as data."""
        return b"".join(self.chunks)

    def all(self, name: bytes) -> list[bytes]:
        """Values of a header, in their order."""
        return [value for found, value in self.headers if found == name]

    def one(self, name: bytes) -> bytes | None:
        """The value of a header; None where it is not there once."""
        values = self.all(name)
        return values[0] if len(values) == 1 else None

    @property
    def frames(self) -> tuple[list[tuple[int, bytes]], bytes]:
        """Messages as they lie in the body, each with its flag, and what is left."""
        found: list[tuple[int, bytes]] = []
        rest = self.body
        while len(rest) >= 5 and len(rest) >= 5 + (length := int.from_bytes(rest[1:5])):
            found.append((rest[0], rest[5 : 5 + length]))
            rest = rest[5 + length :]
        return found, rest

    @property
    def single(self) -> bool:
        """Whether the rpc takes one request."""
        return self.one(b":path") != BIDI.encode()


@dataclass(frozen=True)
class Outcome:
    """What came back."""

    kind: str
    """`grpc CODE REASON`, `http STATUS`, `reset CODE`, `gone` with the connection, `silence`, or `left` to itself."""
    text: str = ""
    """What the status says, where it has a reason: what has none is a transport's own, and words differ."""
    messages: tuple[bytes, ...] = ()


def framed(message: bytes, flag: int = 0) -> bytes:
    """Write a message as gRPC does."""
    return bytes((flag,)) + len(message).to_bytes(4) + message


def request(payload: bytes, signature: bytes = b"") -> bytes:
    """Write a request of the echo's."""
    return SignedContext(payload=payload, signature=signature).SerializeToString()


def usual(path: str, *more: Header) -> tuple[Header, ...]:
    """The headers that any client sends."""
    return (
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path.encode()),
        (b":authority", b"node.customs.zone.example"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    )


HELLO: Final = Script(usual(UNARY), (framed(request(b"hello")),))


async def play(connection: Raw, script: Script) -> Outcome:
    """Write a script, and wait for what comes of it."""
    number = connection.open(script.headers, end=not script.chunks and script.ending == "data")
    for at, chunk in enumerate(script.chunks):
        last = at == len(script.chunks) - 1
        await connection.send(number, chunk, end=last and script.ending == "data")
    if script.ending == "empty":
        await connection.send(number, b"", end=True)
    elif script.ending == "trailers":
        connection.write(raw.header_frames(number, ((b"x-trailer", b"1"),), end=True))
    elif script.ending == "reset":
        connection.cut(number, CANCEL)
        return Outcome("left")
    try:
        return _outcome(connection, await connection.over(number))
    except TimeoutError:
        connection.cut(number, CANCEL)
        return Outcome("silence")


def _outcome(connection: Raw, stream: Stream) -> Outcome:
    if not stream.ended:
        return Outcome("gone" if stream.reset is None or connection.goaway else f"reset {stream.reset}")
    headers = {name: value for block in stream.headers for name, value in block}
    if headers[b":status"] != b"200" and b"grpc-status" not in headers:
        return Outcome(f"http {headers[b':status'].decode()}")
    details = encodings.read_details(headers.get(wire.DETAILS_KEY.encode(), b"")) or b""
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    reason = info.reason if status.details and status.details[0].Unpack(info) else ""
    code = int(headers[b"grpc-status"])
    assert not details or status.code == code
    assert headers[b"content-type"].startswith(b"application/grpc")
    messages, rest = Script((), (bytes(stream.body),)).frames
    assert not rest
    assert not [flag for flag, _ in messages if flag]
    text = encodings.percent_decode(headers.get(b"grpc-message", b"")) if reason else ""
    # An incident has an id of its own.
    text = re.sub("[0-9a-f]{32}", "ID", text)
    kind = f"grpc {code} {reason}".rstrip()
    return Outcome(kind, text, tuple(message for _, message in messages))


# What is drawn.


def _rarely(odd: "st.SearchStrategy[T]", usual: "st.SearchStrategy[T]") -> "st.SearchStrategy[T]":
    """Draw what is odd one time in five."""
    # Hypothesis likes ends best, so the odd one is in the middle.
    return st.sampled_from(range(5)).flatmap(lambda n: odd if n == 2 else usual)


def _joined(verb: bytes, rest: bytes) -> bytes:
    return verb + b" " + rest


_SOUND: Final = st.just(b"")
_PLAIN: Final = st.just(0)
_ENDED: "st.SearchStrategy[Ending]" = st.sampled_from(("data",))
_ENDINGS: Final[tuple[Ending, ...]] = ("empty", "trailers", "open", "reset")


_TEXT: Final = st.binary(max_size=12)
_VERBS: Final = st.sampled_from([*ERRORS, b"hello", b"bug", b"wait"])
_PAYLOADS: Final = st.one_of(_TEXT, st.builds(_joined, _VERBS, _TEXT))
_WHOLE: Final = st.builds(request, _PAYLOADS, _TEXT)
_MESSAGES: Final = _rarely(st.one_of(st.binary(max_size=40), st.just(b"x" * 5000)), _WHOLE)

_NAMES: Final = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=12).map(str.encode)
_VALUES: Final = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode)
_CUSTOM: Final = st.tuples(_NAMES.map(lambda name: b"x-" + name), _VALUES)
_TIMEOUTS: Final = st.one_of(
    st.sampled_from([b"5S", b"10000m", b"99999999H", b"00000005S", b"1H"]),
    st.sampled_from([b"", b"5", b"S", b"-1S", b"1.5S", b"1s", b"1 S", b"0x1S", b"123456789S", b"\xd9\xa1S", b"1SS"]),
    st.text("0123456789HMSmun .-", max_size=10).map(lambda text: text.strip().encode()),
)
_ODD: Final[st.SearchStrategy[Header]] = st.one_of(
    st.tuples(st.just(b"content-type"), st.sampled_from([b"text/plain", b"", b"application/grpc+proto"])),
    st.tuples(st.just(b"content-type"), st.sampled_from([b"application/grpc;a=b", b"application/grpcx", b"APP"])),
    st.tuples(st.just(b":method"), st.sampled_from([b"GET", b"PUT", b"OPTIONS", b"post"])),
    st.tuples(st.just(b":scheme"), st.sampled_from([b"http", b"ftp"])),
    st.tuples(st.just(b":path"), st.sampled_from([b"/", b"/a/b", b"//", UNARY.encode() + b"/", b"/test.Echo/unary"])),
    st.tuples(st.just(b"te"), st.sampled_from([b"gzip", b"trailers, deflate"])),
    st.tuples(st.just(b"grpc-encoding"), st.sampled_from([b"identity", b"gzip", b"deflate", b"snappy"])),
    st.tuples(st.just(b"grpc-timeout"), _TIMEOUTS),
    st.tuples(st.sampled_from([b"user-agent", b"grpc-accept-encoding", b"accept-encoding"]), _VALUES),
    st.tuples(st.sampled_from([b"connection", b"transfer-encoding", b"upgrade", b"keep-alive"]), st.just(b"x")),
    st.tuples(st.sampled_from([b"Upper", b"", b"a b", b":odd", b"x\xff", b"a\n"]), _VALUES),
    st.tuples(st.just(b"x-value"), st.sampled_from([b"a\nb", b"\x00", b"\x7f", b" a", b"a ", b"\xff\xfe"])),
    st.tuples(st.just(b"x-some-bin"), st.sampled_from([b"YWJj", b"YWI=", b"YWI", b"", b"!!", b"a,b"])),
    st.tuples(st.just(b"content-length"), st.sampled_from([b"0", b"1", b"x"])),
    st.tuples(st.just(b"x-long"), st.sampled_from([b"v" * 3000, b"v" * 30_000])),
)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Draw a call: most are right, others nearly so."""
    path = draw(st.sampled_from([UNARY, STREAM, BIDI]))
    headers = [*usual(path), *draw(st.lists(_CUSTOM, max_size=2))]
    for odd in draw(_rarely(st.lists(_ODD, min_size=1, max_size=2), st.just([]))):
        headers = [(name, value) for name, value in headers if name != odd[0]]
        # Pseudo headers come first, or nothing of the rest is looked at.
        headers.insert(0 if odd[0] in (b":method", b":scheme", b":path") else len(headers), odd)
    missing = draw(_rarely(st.sampled_from([name for name, _ in headers]), _SOUND))
    headers = [header for header in headers if header[0] != missing or draw(st.booleans())]
    body = draw(_bodies(path))
    ending = draw(_rarely(st.sampled_from(_ENDINGS), _ENDED))
    return bounded(Script(tuple(headers), draw(_cut(body)), ending))


def bounded(script: Script) -> Script:
    """Give a call that may wait for ever a deadline that is over soon; the drawn one would make either answer right."""
    messages, _ = script.frames
    waits = any(b"wait" in message for _, message in messages)
    # An open stream of requests waits for more of them, and grpcio's unary handler for a message that never comes.
    missing = script.single and not messages
    if not (waits or missing or script.ending == "open"):
        return script
    headers = tuple((name, value) for name, value in script.headers if name != b"grpc-timeout")
    return Script((*headers, (b"grpc-timeout", SHORT)), script.chunks, script.ending)


@st.composite
def _bodies(draw: st.DrawFn, path: str) -> bytes:
    counts = _rarely(st.sampled_from([0, 2, 3]), st.just(1)) if path != BIDI else st.integers(0, 4)
    flags = _rarely(_rarely(st.sampled_from([1, 2, 128, 255]), _PLAIN), _PLAIN)
    body = b"".join(framed(draw(_MESSAGES), draw(flags)) for _ in range(draw(counts)))
    change = draw(_rarely(st.sampled_from(["cut", "more", "length", "huge"]), st.just("")))
    if change == "cut" and body:
        return body[: draw(st.integers(0, len(body) - 1))]
    if change == "more":
        return body + draw(st.binary(min_size=1, max_size=8))
    if change == "length" and len(body) >= 5:
        return body[:1] + draw(st.integers(0, 300)).to_bytes(4) + body[5:]
    if change == "huge":
        return body + b"\0" + draw(st.integers(70_000, 2**32 - 1)).to_bytes(4) + b"x"
    return body


@st.composite
def _cut(draw: st.DrawFn, body: bytes) -> tuple[bytes, ...]:
    points: Sequence[int] = sorted(draw(st.sets(st.integers(0, len(body)), max_size=4)) | {0, len(body)})
    parts = tuple(body[start:end] for start, end in pairwise(points))
    # Frames of nothing are frames, too.
    return draw(_rarely(st.just((*parts[:1], b"", *parts[1:])), st.just(parts)))
