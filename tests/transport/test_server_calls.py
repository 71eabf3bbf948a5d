"""Calls as gRPC's document on HTTP/2 has them, right and wrong, frame by frame, and what the server makes of them.

(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.)
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certs.register import RevocationReason
from services.kit.config import LimitsSection
from services.kit.rpc import MESSAGE_BYTES
from services.kit.transport.nghttp2.server import NgServer
from services.kit.transport.seam import METADATA_BYTES, SLACK
from tests.transport.echo import BIDI, ERRORS, LIMITS, NODE, STREAM, UNARY, WHO
from tests.transport.raw import DATA, END_STREAM, Raw, frame, header_frames
from tests.transport.served import (
    Room,
    ask,
    asking,
    connected,
    message,
    payloads,
    reason,
    serving,
    status,
    until,
)
from tests.zone import Zone, now

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 3, 4, 8, 12, 13
NO_ERROR, CANCEL = 0, 8


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(tmp_path)


@pytest.fixture
async def room() -> Room:
    return Room()


@pytest.fixture
async def server(zone: Zone, room: Room) -> AsyncIterator[NgServer]:
    async with serving(zone, room) as server:
        yield server


@pytest.fixture
async def raw(zone: Zone, server: NgServer) -> AsyncIterator[Raw]:
    async with connected(zone, server.port) as raw:
        yield raw


async def test_a_unary_call_has_headers_a_message_and_trailers(raw: Raw, room: Room) -> None:
    answered = await ask(raw, b"hello")
    assert payloads(answered) == [b"hello"]
    assert answered.headers == [
        [(b":status", b"200"), (b"content-type", b"application/grpc")],
        [(b"grpc-status", b"0")],
    ]
    assert answered.ended
    assert answered.reset is None
    assert room.calls[0].caller.path == WHO
    assert room.calls[0].method == UNARY


async def test_an_empty_message_is_a_message(raw: Raw) -> None:
    answered = await ask(raw, b"")
    assert bytes(answered.body) == bytes(5)
    assert status(answered) == OK


async def test_a_stream_gives_its_messages_in_order(raw: Raw) -> None:
    answered = await ask(raw, b"x", STREAM, signature=bytes(5))
    assert payloads(answered) == [b"x"] * 5
    assert status(answered) == OK
    assert len(answered.headers) == 2


async def test_a_stream_without_messages_is_trailers_only(raw: Raw) -> None:
    answered = await ask(raw, b"x", STREAM)
    assert len(answered.headers) == 1
    assert status(answered) == OK


async def test_each_message_of_a_bidi_call_is_answered_before_the_next_is_sent(raw: Raw) -> None:
    number = raw.open(asking(BIDI))
    stream = raw.streams[number]
    for count in range(1, 4):
        await raw.send(number, message(b"%d" % count))
        await until(lambda: bool(stream.body) and len(payloads(stream)) == count)  # noqa: B023
    await raw.send(number, b"", end=True)
    answered = await raw.over(number)
    assert payloads(answered) == [b"1", b"2", b"3", b""]
    assert status(answered) == OK


async def test_messages_may_come_in_any_number_of_frames(raw: Raw) -> None:
    number = raw.open(asking())
    whole = message(b"in parts")
    for at in range(len(whole)):
        await raw.send(number, whole[at : at + 1])
    await raw.send(number, b"", end=True)
    assert payloads(await raw.over(number)) == [b"in parts"]
    number = raw.open(asking(BIDI))
    await raw.send(number, b"".join(message(b"%d" % count) for count in range(100)), end=True)
    assert payloads(await raw.over(number))[:-1] == [b"%d" % count for count in range(100)]


async def test_a_bidi_call_without_requests_ends_well(raw: Raw) -> None:
    answered = await raw.over(raw.open(asking(BIDI), end=True))
    assert payloads(answered) == [b""]
    assert status(answered) == OK


async def test_trailers_may_end_a_request(raw: Raw) -> None:
    number = raw.open(asking())
    await raw.send(number, message(b"x"))
    raw.write(header_frames(number, [(b"x-checksum", b"1")], end=True))
    assert payloads(await raw.over(number)) == [b"x"]


async def test_a_refusal_before_the_first_message_is_trailers_only(raw: Raw) -> None:
    for method in (UNARY, STREAM):
        refused = await ask(raw, b"NotFound none", method)
        assert len(refused.headers) == 1
        assert refused.headers[0][0] == (b":status", b"200")
        assert refused.ended
        assert reason(refused) == "RECORD_INVALID"


async def test_a_refusal_after_messages_is_in_trailers(raw: Raw) -> None:
    refused = await ask(raw, b"ResourceExhausted enough", STREAM, signature=bytes(3))
    assert len(payloads(refused)) == 3
    assert len(refused.headers) == 2
    assert status(refused) == RESOURCE_EXHAUSTED


async def test_a_refusal_stops_a_peer_that_would_send_on(raw: Raw) -> None:
    number = raw.open(asking(BIDI))
    await raw.send(number, message(b"Aborted"))
    refused = await raw.over(number)
    assert reason(refused) == "RECORD_INVALID"
    await until(lambda: refused.reset is not None)
    assert refused.reset == NO_ERROR


@pytest.mark.parametrize("name", sorted(ERRORS))
async def test_messages_of_any_characters_arrive(raw: Raw, name: bytes) -> None:
    refused = await ask(raw, name + " 100 % Zoll\n税\x7f".encode())
    # `reason` compares the percent-encoded message with the one in the details.
    assert reason(refused) == "RECORD_INVALID"


async def test_a_message_too_long_for_trailers_is_cut(raw: Raw) -> None:
    refused = await ask(raw, b"NotFound " + "税".encode() * 1000)
    assert status(refused) == 5
    assert sum(len(name) + len(value) for name, value in refused.headers[0]) < 8192


async def test_what_is_not_served_is_unimplemented(raw: Raw) -> None:
    for path in ("/test.Echo/Other", "/other/Unary", "/"):
        refused = await ask(raw, b"x", path)
        assert status(refused) == UNIMPLEMENTED


async def test_an_unlisted_caller_is_refused_though_what_it_says_is_no_message(zone: Zone, server: NgServer) -> None:
    async with connected(zone, server.port, "quality/lab") as raw:
        number = raw.open(asking())
        await raw.send(number, b"\0\0\0\0\2\xff\xff", end=True)
        assert reason(await raw.over(number)) == "CALLER_NOT_LISTED"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ((b":method", b"GET"), b"405"),
        ((b":method", b"PUT"), b"405"),
        ((b"content-type", b"text/html"), b"415"),
        ((b"content-type", b"application/grpc-web"), b"415"),
        ((b"content-type", b"application/grpc+json"), b"415"),
        ((b"content-type", b""), b"415"),
    ],
)
async def test_what_is_no_grpc_is_told_so_in_http(raw: Raw, header: tuple[bytes, bytes], expected: bytes) -> None:
    sent = [header if name == header[0] else (name, value) for name, value in asking()]
    number = raw.open(sent)
    answered = await raw.over(number)
    assert answered.headers[0][0] == (b":status", expected)
    await raw.ping()


@pytest.mark.parametrize(
    "content", [b"application/grpc+proto", b"application/grpc; charset=utf-8", b"Application/GRPC"]
)
async def test_content_types_of_grpc_are_taken(raw: Raw, content: bytes) -> None:
    sent = [(name, content if name == b"content-type" else value) for name, value in asking()]
    number = raw.open(sent)
    await raw.send(number, message(b"x"), end=True)
    assert payloads(await raw.over(number)) == [b"x"]


async def test_a_call_that_a_proxy_took_te_from_is_refused(raw: Raw) -> None:
    answered = await raw.over(raw.open([pair for pair in asking() if pair[0] != b"te"], end=True))
    assert answered.headers[0][0] == (b":status", b"400")
    assert status(answered) == INVALID_ARGUMENT


async def test_compression_is_refused_and_what_is_taken_is_named(raw: Raw) -> None:
    refused = await raw.over(raw.open(asking(UNARY, (b"grpc-encoding", b"gzip"))))
    assert status(refused) == UNIMPLEMENTED
    assert dict(refused.headers[0])[b"grpc-accept-encoding"] == b"identity"
    for method in (UNARY, BIDI):
        number = raw.open(asking(method))
        await raw.send(number, b"\1" + message(b"x")[1:])
        assert reason(await raw.over(number)) == "MALFORMED_REQUEST"


@pytest.mark.parametrize("method", [UNARY, STREAM])
async def test_one_request_is_one(raw: Raw, method: str) -> None:
    one = message(b"x")
    for body in (b"", one[:3], one[:-1], one + one, one + one[:4]):
        number = raw.open(asking(method))
        await raw.send(number, body, end=True)
        assert reason(await raw.over(number)) == "MALFORMED_REQUEST"
    assert reason(await raw.over(raw.open(asking(method), end=True))) == "MALFORMED_REQUEST"
    assert payloads(await ask(raw, b"fine")) == [b"fine"]


async def test_a_stream_of_requests_cut_in_the_middle_is_malformed(raw: Raw) -> None:
    number = raw.open(asking(BIDI))
    await raw.send(number, message(b"x") + message(b"y")[:-1], end=True)
    assert reason(await raw.over(number)) == "MALFORMED_REQUEST"


@pytest.mark.parametrize("method", [UNARY, STREAM, BIDI])
async def test_a_request_too_large_is_refused_by_its_length_alone(raw: Raw, room: Room, method: str) -> None:
    number = raw.open(asking(method))
    await raw.send(number, b"\0" + (LIMITS.request_bytes + SLACK + 1).to_bytes(4))
    refused = await raw.over(number)
    assert reason(refused) == "REQUEST_TOO_LARGE"
    await until(lambda: refused.reset == NO_ERROR)
    number = raw.open(asking(method))
    # A stream's messages may be larger than the requests of this node.
    most = MESSAGE_BYTES if method == BIDI else LIMITS.request_bytes
    await raw.send(number, message(bytes(most)), end=True)
    assert reason(await raw.over(number)) == "REQUEST_TOO_LARGE"
    assert status(await ask(raw, b"x")) == OK


async def test_an_answer_too_large_is_not_sent(zone: Zone, room: Room) -> None:
    limits = LimitsSection(response_bytes=1024)
    async with serving(zone, room, limits) as server, connected(zone, server.port) as raw:
        for method in (UNARY, STREAM):
            refused = await ask(raw, bytes(1100), method, signature=b"1")
            assert reason(refused) == "ANSWER_TOO_LARGE"
            assert not refused.body


@pytest.mark.parametrize("method", [UNARY, STREAM, BIDI])
async def test_a_deadline_ends_the_call_and_its_handler(raw: Raw, room: Room, method: str) -> None:
    late = await ask(raw, b"wait", method, timeout="50m")
    assert status(late) == DEADLINE_EXCEEDED
    await until(lambda: not room.running)
    deadline = room.calls[0].deadline
    assert deadline is not None
    assert deadline <= asyncio.get_running_loop().time()


async def test_a_deadline_after_some_messages_ends_in_trailers(raw: Raw, room: Room) -> None:
    late = await ask(raw, b"wait", STREAM, signature=bytes(2), timeout="50m")
    assert len(payloads(late)) == 2
    assert status(late) == DEADLINE_EXCEEDED


async def test_a_deadline_that_has_passed_and_one_that_is_none(raw: Raw) -> None:
    assert status(await ask(raw, b"x", timeout="0n")) == DEADLINE_EXCEEDED
    for text in ("5", "S", "-1S", "123456789S", "1.5S"):
        assert reason(await ask(raw, b"x", timeout=text)) == "MALFORMED_REQUEST"


async def test_a_call_without_a_deadline_has_the_nodes(zone: Zone, room: Room) -> None:
    limits = LimitsSection(deadline=dt.timedelta(milliseconds=100))
    async with serving(zone, room, limits) as server, connected(zone, server.port) as raw:
        # Nor may a request take longer than that to come.
        number = raw.open(asking(STREAM))
        await raw.send(number, message(b"x")[:3])
        late = await asyncio.gather(ask(raw, b"wait"), ask(raw, b"wait", timeout="1H"), raw.over(number))
        assert [status(stream) for stream in late] == [DEADLINE_EXCEEDED] * 3
        await until(lambda: not room.running)


@pytest.mark.parametrize("method", [UNARY, STREAM, BIDI])
async def test_a_cancelled_call_ends_its_handler(raw: Raw, room: Room, method: str) -> None:
    number = raw.open(asking(method))
    await raw.send(number, message(b"wait"), end=method != BIDI)
    await until(lambda: room.running > 0)
    raw.cut(number, CANCEL)
    await until(lambda: not room.running)
    assert status(await ask(raw, b"x")) == OK


@pytest.mark.parametrize("method", [UNARY, STREAM, BIDI])
async def test_a_peer_that_goes_ends_its_handlers(zone: Zone, server: NgServer, room: Room, method: str) -> None:
    async with connected(zone, server.port) as raw:
        number = raw.open(asking(method))
        await raw.send(number, message(b"wait"))
        await raw.send(number, b"", end=method != BIDI)
        await until(lambda: room.running > 0)
    await until(lambda: not room.running)


async def test_metadata_is_the_callers_own(raw: Raw, room: Room) -> None:
    more = (
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"x-key-bin", b"AAAA"),
        (b"x-none", "ß".encode()),
        (b"grpc-previous-rpc-attempts", b"1"),
        (b"user-agent", b"by hand"),
    )
    number = raw.open(asking(UNARY, *more, timeout="5S"))
    await raw.send(number, message(b"x"), end=True)
    assert status(await raw.over(number)) == OK
    assert room.calls[0].metadata == {"traceparent": more[0][1].decode(), "x-twice": "2"}


async def test_too_much_metadata_is_refused_and_far_too_much_ends_the_connection(raw: Raw, room: Room) -> None:
    refused = await raw.over(raw.open(asking(UNARY, (b"x-long", bytes(65 for _ in range(METADATA_BYTES))))))
    assert reason(refused) == "REQUEST_TOO_LARGE"
    assert status(await ask(raw, b"x")) == OK
    raw.open(asking(UNARY, *((b"x-%d" % count, b"a" * 8000) for count in range(10))))
    await raw.left()
    assert len(room.calls) == 1


async def test_what_nobody_foresaw_tells_a_stranger_nothing(raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
    for method in (UNARY, STREAM, BIDI):
        failed = await ask(raw, b"bug", method)
        assert status(failed) == INTERNAL
        assert reason(failed) == "INTERNAL"
        assert b"secret" not in b"".join(value for _, value in failed.headers[-1])
    assert status(await ask(raw, b"cancelled")) == INTERNAL
    assert "CancelledError" in caplog.text


async def test_a_revoked_certificate_is_refused_on_a_connection_that_stood(zone: Zone, server: NgServer) -> None:
    async with connected(zone, server.port) as raw:
        assert status(await ask(raw, b"x")) == OK
        serial = zone.files(WHO).load().leaf.serial_number
        zone.authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, now())
        refused = await ask(raw, b"x")
        async with asyncio.timeout(10):
            while status(refused) == OK:
                refused = await ask(raw, b"x")
        assert reason(refused) == "CERTIFICATE_REVOKED"


async def test_a_renewed_certificate_serves_the_next_connection(zone: Zone, server: NgServer) -> None:
    async with connected(zone, server.port) as before:
        zone.authority.renew(zone.identity(NODE), now())
        async with connected(zone, server.port) as after:
            assert before.certificate != after.certificate
            assert status(await ask(after, b"x")) == OK
        assert status(await ask(before, b"x")) == OK


async def test_data_on_streams_that_are_over_harms_nobody(raw: Raw) -> None:
    number = raw.open(asking("/test.Echo/Other"))
    refused = await raw.over(number)
    assert status(refused) == UNIMPLEMENTED
    for _ in range(20):
        raw.write(frame(DATA, 0, number, bytes(1000)))
    raw.write(frame(DATA, END_STREAM, number))
    assert status(await ask(raw, b"x")) == OK
