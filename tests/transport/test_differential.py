"""The same bytes to both transports: the same answers out, but for what the table below accepts, each with a reason.

A client writes frames by hand, right and wrong, to a grpcio server and to an nghttp2 server that serve the same rpcs.
What comes back is compared: HTTP status, gRPC status, the reason in the details, the text, the messages. Whatever the
two answer differently must stand in `ACCEPTED`, and every entry there says what either answers: nothing is merely
ignored.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.config import Transport
from services.kit.errors import Reason
from services.kit.host import Host
from tests.transport import echo, raw
from tests.transport.echo import BIDI, STREAM, UNARY, WHO, Echo
from tests.transport.raw import Raw
from tests.transport.scripts import HELLO, SHORT, Outcome, Script, bounded, framed, play, request, scripts, usual
from tests.zone import Zone

TRANSPORTS: Final[tuple[Transport, ...]] = ("grpcio", "nghttp2")
MALFORMED: Final = f"grpc 3 {Reason.MALFORMED_REQUEST}"
TOO_LARGE: Final = f"grpc 8 {Reason.REQUEST_TOO_LARGE}"
LATE: Final = f"grpc 4 {Reason.DEADLINE_TOO_SHORT}"
ANY: Final = ".*"
MORE: Final = 10 if settings.get_current_profile_name() == "fuzz" else 1
HEADER_BYTES: Final = 16 * 1024
CONNECTION_HEADERS: Final = {b"connection", b"transfer-encoding", b"upgrade", b"keep-alive"}
NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
PSEUDO: Final = (b":method", b":scheme", b":path", b":authority")


@dataclass(frozen=True)
class Accepted:
    """A difference that stands."""

    what: str
    why: str
    applies: Callable[[Script], bool]
    grpcio: str
    """What it answers, as a regular expression over `Outcome.kind`."""
    nghttp2: str
    example: Script
    """A call of which both of these are true."""


def odd(*headers: tuple[bytes, bytes], without: bytes = b"") -> Script:
    """A call that is right but for some headers."""
    changed = {name for name, _ in headers} | {without}
    kept = [header for header in usual(UNARY) if header[0] not in changed]
    pseudo = [header for header in headers if header[0] in PSEUDO]
    return Script((*pseudo, *kept, *(header for header in headers if header[0] not in PSEUDO)), HELLO.chunks)


def bodied(*chunks: bytes, path: str = UNARY) -> Script:
    """A call that is right but for its body."""
    return bounded(Script(usual(path), chunks))


def flags(script: Script) -> set[int]:
    """Flags of the messages of a body, the last one's too, if it is not whole."""
    messages, rest = script.frames
    return {flag for flag, _ in messages} | set(rest[:1])


def named_badly(script: Script) -> bool:
    return any(not NAME.fullmatch(name) and name not in PSEUDO for name, _ in script.headers)


def valued_badly(script: Script) -> bool:
    return any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]$", value) for _, value in script.headers)


def about_connection(script: Script) -> bool:
    return any(name in CONNECTION_HEADERS for name, _ in script.headers)


def miscounted(script: Script) -> bool:
    length = script.all(b"content-length")
    return bool(length) and length != [b"%d" % len(script.body)]


def pseudo_missing(script: Script) -> bool:
    return any(script.one(name) is None for name in PSEUDO) or not (script.one(b":path") or b"").startswith(b"/")


def timed_badly(script: Script) -> bool:
    return any(not re.fullmatch(rb"[0-9]{1,8}[HMSmun]", value) for value in script.all(b"grpc-timeout"))


def typed_otherwise(script: Script) -> bool:
    kind = (script.one(b"content-type") or b"").partition(b";")[0].strip().lower()
    return kind not in (b"application/grpc", b"application/grpc+proto")


def long(script: Script) -> bool:
    return sum(len(name) + len(value) + 32 for name, value in script.headers) > HEADER_BYTES


def encoded(script: Script) -> bool:
    return bool(script.all(b"grpc-encoding")) and script.one(b"grpc-encoding") != b"identity"


def binary_badly(script: Script) -> bool:
    return any(name.endswith(b"-bin") for name, _ in script.headers)


def one_and_more(script: Script) -> bool:
    messages, rest = script.frames
    return bool(messages) and (len(messages) > 1 or bool(rest)) and script.single


def cut_short(script: Script) -> bool:
    return bool(script.frames[1])


def none_whole(script: Script) -> bool:
    return script.single and not script.frames[0]


def timed(script: Script) -> bool:
    return script.one(b"grpc-timeout") == SHORT


def huge(script: Script) -> bool:
    """A message is announced that is larger than the transport takes at all."""
    rest = script.frames[1]
    return len(rest) >= 5 and int.from_bytes(rest[1:5]) > echo.LIMITS.request_bytes


NO_ANSWER: Final = "grpc 4.*|silence"
ODD_FLAG: Final = b"\2" + framed(request(b"hello"))[1:]
SET_FLAG: Final = b"\1" + framed(request(b"hello"))[1:]

ACCEPTED: Final = (
    Accepted(
        "a header's name is none",
        "RFC 9113, 8.2.1: the request is malformed, the stream is reset; grpcio answers INTERNAL, which is our fault",
        named_badly,
        "grpc 13",
        "reset 1",
        odd((b"Upper", b"1")),
    ),
    Accepted(
        "a header's value holds control characters, or begins or ends with blanks",
        "RFC 9113, 8.2.1, as above; grpcio lets control characters into metadata, and so into logs",
        valued_badly,
        ANY,
        "reset 1",
        odd((b"x-value", b"a\nb")),
    ),
    Accepted(
        "headers of the connection",
        "RFC 9113, 8.2.2: malformed",
        about_connection,
        ANY,
        "reset 1",
        odd((b"connection", b"x")),
    ),
    Accepted(
        "te is something else",
        "RFC 9113, 8.2.2: malformed",
        lambda s: any(value != b"trailers" for value in s.all(b"te")),
        "grpc 13|reset 2",
        "reset 1",
        odd((b"te", b"gzip")),
    ),
    Accepted(
        "te is not there",
        "gRPC wants it, to find proxies that take trailers away, and says not what a server answers",
        lambda s: not s.all(b"te"),
        "reset 2",
        MALFORMED,
        odd(without=b"te"),
    ),
    Accepted(
        "content-length is not that of the body",
        "RFC 9113, 8.1.1: malformed; grpcio does not look",
        miscounted,
        ANY,
        "reset 1",
        odd((b"content-length", b"1")),
    ),
    Accepted(
        "a pseudo header is missing or there twice, or the path is none",
        "RFC 9113, 8.3.1: malformed; grpcio resets with INTERNAL_ERROR, or finds no such rpc",
        pseudo_missing,
        "reset 2|grpc 12|grpc 13",
        "reset 1",
        odd(without=b":scheme"),
    ),
    Accepted(
        "another method than POST",
        "HTTP has a status for it; grpcio resets with INTERNAL_ERROR",
        lambda s: s.one(b":method") != b"POST",
        "reset 2|grpc 13",
        "http 405",
        odd((b":method", b"GET")),
    ),
    Accepted(
        "another scheme than http or https",
        "nothing here depends on it; grpcio knows no others",
        lambda s: s.one(b":scheme") not in (b"http", b"https"),
        "grpc 13|reset 2",
        ANY,
        odd((b":scheme", b"ftp")),
    ),
    Accepted(
        "the content is not gRPC's",
        "PROTOCOL-HTTP2: a server should answer 415; grpcio does not look",
        typed_otherwise,
        ANY,
        "http 415",
        odd((b"content-type", b"text/plain")),
    ),
    Accepted(
        "grpc-timeout is none",
        "it is the caller's mistake, and not INTERNAL; grpcio takes more digits, and blanks, than the grammar has",
        timed_badly,
        "grpc 13|grpc 0|grpc [0-9]+ .*",
        # Of an rpc that is not there, nothing more is looked at.
        f"{MALFORMED}|grpc 12",
        odd((b"grpc-timeout", b"soon")),
    ),
    Accepted(
        "more headers than a node takes",
        "grpcio's limit is a soft one, drawn anew for each call, and has no reason",
        long,
        ANY,
        TOO_LARGE,
        odd((b"x-long", b"v" * 30_000)),
    ),
    Accepted(
        "an encoding other than identity is announced",
        "nghttp2 takes no compressed message, as nothing small may grow large, and says so (compression.md)",
        encoded,
        ANY,
        "grpc 12",
        odd((b"grpc-encoding", b"gzip")),
    ),
    Accepted(
        "binary metadata that is no base64",
        "nothing here reads binary metadata; grpcio reads it all the same",
        binary_badly,
        "grpc 13",
        ANY,
        odd((b"x-some-bin", b"!!")),
    ),
    Accepted(
        "a message is flagged as compressed, and no encoding was named",
        "it is the caller's mistake, and not INTERNAL",
        lambda s: 1 in flags(s),
        ANY,
        MALFORMED,
        bodied(SET_FLAG),
    ),
    Accepted(
        "a flag that is neither 0 nor 1",
        "gRPC knows no others; grpcio takes such messages for empty ones, or for others",
        lambda s: bool(flags(s) - {0, 1}),
        ANY,
        MALFORMED,
        bodied(ODD_FLAG),
    ),
    Accepted(
        "a request too many, or a part of one, where there is to be one",
        "gRPC leaves it open; grpcio takes the first and forgets the rest, which may be what was meant",
        one_and_more,
        ANY,
        MALFORMED,
        bodied(framed(request(b"one")), framed(request(b"two"))),
    ),
    Accepted(
        "no request where there is to be one",
        "gRPC leaves it open; grpcio's handler waits for it for ever, or until the deadline",
        none_whole,
        NO_ANSWER,
        MALFORMED,
        bodied(),
    ),
    Accepted(
        "a stream of requests ends inside one",
        "gRPC leaves it open; grpcio takes the end for a clean one, and what was cut off for nothing",
        lambda s: cut_short(s) and not s.single,
        ANY,
        MALFORMED,
        bodied(framed(request(b"one")), framed(request(b"two"))[:-1], path=BIDI),
    ),
    Accepted(
        "a message is announced that is far too large",
        "grpcio words the refusal without a reason, and knows more than nghttp2 by the transport's own limit alone",
        huge,
        "grpc 8|" + NO_ANSWER,
        TOO_LARGE,
        bodied(b"\0" + (1 << 30).to_bytes(4), b"x"),
    ),
    Accepted(
        "the request is whole, but the client does not say so",
        "every client says so with a single request; waiting for it is what finds the requests that are too many",
        lambda s: s.single and s.ending == "open",
        ANY,
        LATE,
        bounded(Script(usual(UNARY), HELLO.chunks, "open")),
    ),
    Accepted(
        "the deadline passes",
        "grpcio words it without a reason; who reads it takes the code for one (wire.from_status)",
        timed,
        "grpc 4",
        LATE,
        bodied(framed(request(b"wait"))),
    ),
)


def judge(script: Script, reference: Outcome, other: Outcome) -> None:
    """Both must answer the same, or as a difference that is accepted says."""
    if reference == other:
        return
    rows = [row for row in ACCEPTED if row.applies(script)]
    problem = f"{[row.what for row in rows]}\n{script}\ngrpcio:  {reference}\nnghttp2: {other}"
    assert rows, problem
    kinds = (reference.kind, other.kind)
    assert any(re.fullmatch(row.nghttp2, other.kind) for row in rows) or kinds[0] == kinds[1], problem
    assert any(re.fullmatch(row.grpcio, reference.kind) for row in rows) or kinds[0] == kinds[1], problem


class Pair:
    """A server of each transport, and a connection to each that is made again when it has gone."""

    def __init__(self, zone: Zone, hosts: dict[Transport, Host], echoes: dict[Transport, Echo]) -> None:
        self.hosts = hosts
        self.echoes = echoes
        self._zone = zone
        self._connections: dict[Transport, Raw] = {}

    async def connection(self, transport: Transport) -> Raw:
        found = self._connections.get(transport)
        if found is None or not found.alive or len(found.streams) > 400:
            if found is not None:
                await found.close()
            host = self.hosts[transport]
            found = await Raw.greeted(host.port, host.identity, self._zone.files(WHO))
            self._connections[transport] = found
        return found

    async def play(self, script: Script) -> tuple[Outcome, Outcome]:
        async def one(transport: Transport) -> Outcome:
            connection = await self.connection(transport)
            outcome = await play(connection, script)
            # Whatever became of that call, others on its connection are served.
            after = await play(connection, HELLO) if connection.alive else HEALTHY
            assert after == HEALTHY, (transport, script, outcome, after)
            return outcome

        reference, other = await asyncio.gather(*(one(transport) for transport in TRANSPORTS))
        return reference, other

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()


HEALTHY: Final = Outcome("grpc 0", "", (request(b"hello"),))


@pytest.fixture(scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Pair]:
    zone = Zone(tmp_path_factory.mktemp("pair"))
    echoes: dict[Transport, Echo] = {transport: Echo() for transport in TRANSPORTS}
    async with (
        echo.serving(zone, "grpcio", echoes["grpcio"]) as one,
        echo.serving(zone, "nghttp2", echoes["nghttp2"]) as other,
    ):
        made = Pair(zone, {"grpcio": one, "nghttp2": other}, echoes)
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is an answer here, and deadlines are short."""
    monkeypatch.setattr(raw, "LIMIT", 3.0)


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.what)
async def test_an_accepted_difference_is_one(pair: Pair, row: Accepted) -> None:
    """Each entry of the table is still needed, and says what either does."""
    assert row.applies(row.example)
    reference, other = await pair.play(row.example)
    assert reference != other
    assert re.fullmatch(row.grpcio, reference.kind), reference
    assert re.fullmatch(row.nghttp2, other.kind), other


@settings(max_examples=40 * MORE)
@given(some=st.lists(scripts(), min_size=1, max_size=6))
async def test_the_same_bytes_get_the_same_answer(pair: Pair, some: list[Script]) -> None:
    """Calls of one example run at the same time, on the same connections."""
    outcomes = await asyncio.gather(*(pair.play(script) for script in some))
    for script, (reference, other) in zip(some, outcomes, strict=True):
        judge(script, reference, other)


METADATA = st.lists(
    st.tuples(
        st.sampled_from([b"traceparent", b"x-one", b"x-two", b"x_three"]),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60).map(lambda t: t.strip().encode()),
    ),
    max_size=6,
)


@settings(max_examples=40 * MORE)
@given(metadata=METADATA)
async def test_handlers_are_told_the_same_of_a_call(pair: Pair, metadata: list[tuple[bytes, bytes]]) -> None:
    reference, other = await pair.play(Script(usual(UNARY, *metadata), HELLO.chunks))
    assert reference == other == HEALTHY
    # The last call is the one that sees whether the connection is well.
    calls = [pair.echoes[transport].calls[-2] for transport in TRANSPORTS]
    told = [{n: v for n, v in call.metadata.items() if n.startswith(("x", "trace"))} for call in calls]
    assert told[0] == told[1]
    assert calls[0].caller == calls[1].caller
    assert calls[0].certificate == calls[1].certificate


@pytest.mark.parametrize("timeout", [b"1H", b"3S", b"2500m", b"2000000u", b"99999999n", b"5M"])
@pytest.mark.parametrize("path", [UNARY, STREAM, BIDI])
async def test_deadlines_are_the_same(pair: Pair, timeout: bytes, path: str) -> None:
    before = time.monotonic()
    reference, other = await pair.play(Script(usual(path, (b"grpc-timeout", timeout)), HELLO.chunks))
    assert reference == other
    ends = [pair.echoes[transport].calls[-2].deadline for transport in TRANSPORTS]
    assert ends[0] is not None
    assert ends[1] is not None
    # To what a call takes from one end to the other.
    assert abs(ends[0] - ends[1]) < 2 * (time.monotonic() - before) + 0.01
