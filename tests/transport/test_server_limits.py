"""What a server keeps, runs and waits for, at most: calls, connections, bytes in both directions, seconds."""

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import uvloop

from certs.svid import SvidFiles
from services.kit.config import LimitsSection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.transport.nghttp2.bounds import MOST_KEPT, STREAM_WINDOW, Timing
from tests.transport.echo import BIDI, LIMITS, NODE, STREAM, UNARY, WHO
from tests.transport.raw import (
    DATA,
    END_STREAM,
    HEADERS,
    LIMIT,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Raw,
    Stream,
    frame,
    header_block,
    header_frames,
)
from tests.transport.served import (
    PIECE,
    Room,
    ask,
    asking,
    connected,
    made,
    message,
    payloads,
    reason,
    serving,
    status,
    until,
)
from tests.zone import Zone

OK, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 4, 14
PROTOCOL_ERROR, CANCEL, ENHANCE_YOUR_CALM = 1, 8, 11
OTHER = "taxation/other"
SOON = Timing(look=0.02)


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(tmp_path)


@pytest.fixture
async def room() -> Room:
    return Room()


def narrow(**window: int) -> bytes:
    """Write a client's first words, with settings of its own: no wider a window than it says."""
    return PREFACE + frame(SETTINGS, 0, 0, (4).to_bytes(2) + window["stream"].to_bytes(4))


# Calls.


async def test_nobody_runs_more_than_half_of_all_calls_and_all_no_more_than_there_are(zone: Zone, room: Room) -> None:
    limits = LimitsSection(concurrent_calls=4)
    async with (
        serving(zone, room, limits) as server,
        connected(zone, server.port) as one,
        connected(zone, server.port, OTHER) as another,
    ):
        for raw, running in ((one, 2), (another, 4)):
            for _ in range(2):
                await raw.send(raw.open(asking()), message(b"wait"), end=True)
            await until(lambda: room.running == running)  # noqa: B023
            refused = await ask(raw, b"x")
            assert reason(refused) == "CALLS_TOO_MANY"
        number = one.open(asking(BIDI))
        await one.send(number, message(b"x"))
        assert reason(await one.over(number)) == "CALLS_TOO_MANY"
        for number in (1, 3):
            one.cut(number, CANCEL)
        await until(lambda: room.running == 2)
        assert status(await ask(one, b"x")) == OK


async def test_who_asks_very_much_in_one_go_takes_nobody_elses_place(zone: Zone, room: Room) -> None:
    """Not even until the first of its calls has run a step."""
    limits = LimitsSection(concurrent_calls=4)
    async with serving(zone, room, limits) as server, connected(zone, server.port) as raw:
        words = b"".join(
            header_frames(number, asking()) + frame(DATA, END_STREAM, number, message(b"x")) for number in (1, 3, 5, 7)
        )
        raw.streams = {number: Stream() for number in (1, 3, 5, 7)}
        raw.following(9)
        raw.write(words)
        answers = [await raw.over(number) for number in raw.streams]
        assert [status(answer) for answer in answers] == [OK, OK, 8, 8]
        assert [reason(answer) for answer in answers[2:]] == ["CALLS_TOO_MANY"] * 2
        assert status(await ask(raw, b"x")) == OK


async def test_a_peer_is_told_how_many_streams_it_may_open_and_held_to_it(zone: Zone, room: Room) -> None:
    async with serving(zone, room, LimitsSection(concurrent_calls=6)) as server, connected(zone, server.port) as raw:
        await raw.ping()
        assert raw.settings[3] == 6
        held = [raw.open(asking()) for _ in range(6)]
        await raw.send(held[0], message(b"x"), end=True)
        assert status(await raw.over(held[0])) == OK
        for _ in range(2):
            raw.open(asking())
        await raw.left()
        assert raw.goaway == PROTOCOL_ERROR


# Connections.


async def test_one_caller_has_half_of_all_connections_and_all_have_no_more_than_there_are(
    zone: Zone, room: Room
) -> None:
    async with serving(zone, room, LimitsSection(connections=4)) as server, contextlib.AsyncExitStack() as stack:

        async def connect(who: str) -> Raw:
            return await stack.enter_async_context(connected(zone, server.port, who))

        for who in (WHO, OTHER):
            for _ in range(2):
                assert status(await ask(await connect(who), b"x")) == OK
            await (await connect(who)).left()
        await (await connect("taxation/third")).left()
        await stack.aclose()
        await until(lambda: not server.connections)
        assert status(await ask(await connect(WHO), b"x")) == OK


def context(files: SvidFiles | None, zone: Zone, alpn: str = "h2") -> ssl.SSLContext:
    """Make a client's TLS; without a certificate where there are no files."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(zone.files(NODE).bundle)
    made.set_alpn_protocols([alpn])
    if files:
        made.load_cert_chain(files.certificate, files.key)
    return made


async def refused(port: int, context: ssl.SSLContext) -> bool:
    """Connect and say the first words; tells whether there was no answer to them."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return True
    try:
        writer.write(narrow(stream=65_535))
        return not await reader.read(1)
    except (ssl.SSLError, ConnectionError):
        return True
    finally:
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()


async def test_only_members_of_the_zone_that_speak_http2_over_tls13_are_talked_to(zone: Zone, room: Room) -> None:
    (zone.folder / "foreign").mkdir()
    foreign = Zone(zone.folder / "foreign")
    old = context(zone.files(WHO), zone)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(zone, room) as server:
        assert not await refused(server.port, context(zone.files(WHO), zone))
        assert await refused(server.port, context(None, zone))
        assert await refused(server.port, context(foreign.files(WHO), zone))
        assert await refused(server.port, context(zone.files(WHO), zone, "http/1.1"))
        assert await refused(server.port, old)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(narrow(stream=0))
        with contextlib.suppress(ConnectionError):
            # A TLS alert, at most.
            assert len(await reader.read()) < 10
        writer.close()


async def test_a_handshake_that_takes_long_is_broken_off(zone: Zone, room: Room) -> None:
    async with serving(zone, room, LIMITS, Timing(handshake=0.1)) as server:
        for first in (b"", b"\x16\x03\x01"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(first)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(LIMIT):
                    assert not await reader.read()
            writer.close()


async def test_one_handshake_too_many_breaks_off_the_oldest(zone: Zone, room: Room) -> None:
    async with serving(zone, room) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        async with connected(zone, server.port) as raw:
            assert status(await ask(raw, b"x")) == OK
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(LIMIT):
                assert not await idle[0][0].read()
        for _, writer in idle:
            writer.close()


async def test_a_peer_that_says_nothing_after_the_handshake_is_cut(zone: Zone, room: Room) -> None:
    timing = Timing(preface=0.1, look=0.02)
    async with serving(zone, room, LIMITS, timing) as server, connected(zone, server.port) as raw:
        silent = await Raw.connect(server.port, zone.identity(NODE), zone.files(WHO))
        await silent.left()
        await silent.close()
        # The other one has been there for longer.
        assert status(await ask(raw, b"x")) == OK


async def test_a_peer_without_calls_is_sent_away_and_one_with_a_call_is_not(zone: Zone, room: Room) -> None:
    timing = Timing(idle=0.1, look=0.02)
    async with (
        serving(zone, room, LIMITS, timing) as server,
        connected(zone, server.port) as idle,
        connected(zone, server.port) as busy,
    ):
        number = busy.open(asking(BIDI))
        await idle.left()
        assert idle.goaway == 0
        assert busy.goaway is None
        await busy.send(number, message(b"x"), end=True)
        assert status(await busy.over(number)) == OK
        await busy.left()


async def test_a_peer_that_answers_pings_stays_and_one_that_does_not_is_cut(zone: Zone, room: Room) -> None:
    timing = Timing(keepalive=0.05, patience=0.1, look=0.02)
    async with serving(zone, room, LIMITS, timing) as server, connected(zone, server.port) as there:
        gone = await Raw.greeted(server.port, zone.identity(NODE), zone.files(WHO))
        assert status(await ask(gone, b"x")) == OK
        assert status(await ask(there, b"x")) == OK
        gone.deafen()
        await until(lambda: len(server.connections) == 1)
        # The other one has been silent for as long.
        assert status(await ask(there, b"x")) == OK
        await gone.close()


async def test_an_old_connection_is_ended_when_its_calls_are(zone: Zone, room: Room) -> None:
    limits = LimitsSection(connection_age=dt.timedelta(milliseconds=50))
    async with serving(zone, room, limits, SOON) as server, connected(zone, server.port) as raw:
        number = raw.open(asking(BIDI))
        await raw.send(number, message(b"x"))
        await until(lambda: raw.goaway == 0)
        await raw.ping()
        await raw.send(number, message(b"y"), end=True)
        assert payloads(await raw.over(number)) == [b"x", b"y", b""]
        await raw.left()


async def test_calls_on_an_old_connection_do_not_go_on_for_ever(zone: Zone, room: Room) -> None:
    limits = LimitsSection(connection_age=dt.timedelta(milliseconds=50), drain=dt.timedelta(milliseconds=100))
    async with serving(zone, room, limits, SOON) as server, connected(zone, server.port) as raw:
        cut = await ask(raw, b"wait", STREAM)
        assert status(cut) == UNAVAILABLE
        assert reason(cut) == "SHUTTING_DOWN"
        await until(lambda: not room.running)
        await raw.left()


# Stopping.


async def test_a_stop_lets_calls_end_takes_no_more_and_then_cuts(zone: Zone, room: Room) -> None:
    server = made(zone, room)
    await server.start()
    async with connected(zone, server.port) as raw:
        ending, staying = raw.open(asking(BIDI)), raw.open(asking(BIDI))
        for number in (ending, staying):
            await raw.send(number, message(b"x"))
        await until(lambda: room.taken == 2)
        stop = asyncio.ensure_future(server.stop(0.3))
        await until(lambda: raw.goaway == 0)
        await raw.ping()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", server.port)
        await raw.send(ending, b"", end=True)
        assert status(await raw.over(ending)) == OK
        # What is opened after the last word is not looked at.
        raw.open(asking(), end=True)
        assert not stop.done()
        cut = await raw.over(staying)
        assert reason(cut) == "SHUTTING_DOWN"
        await stop
        assert not room.running
        await raw.left()


async def test_a_stop_waits_for_nobody_who_has_no_call(zone: Zone, room: Room) -> None:
    server = made(zone, room)
    await server.start()
    async with connected(zone, server.port) as raw:
        assert status(await ask(raw, b"x")) == OK
        async with asyncio.timeout(5):
            await server.stop(60)
        await raw.left()


async def test_an_address_is_had_once(zone: Zone, room: Room) -> None:
    async with serving(zone, room) as server:
        other = made(zone, room)
        other.address = f"127.0.0.1:{server.port}"
        with pytest.raises(FailedPrecondition) as error:
            await other.start()
        assert error.value.reason is Reason.ADDRESS_IN_USE
    for address in ("192.0.2.1:0", "no.such.host.invalid:0"):
        other.address = address
        with pytest.raises(FailedPrecondition):
            await other.start()


async def test_a_name_with_several_addresses_has_one_port(zone: Zone, room: Room) -> None:
    server = made(zone, room)
    server.address = "localhost:0"
    await server.start()
    hosts = {info[4][0] for info in socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM)}
    for host in hosts:
        _, writer = await asyncio.open_connection(str(host), server.port)
        writer.close()
    await server.stop(0)


# Bytes out.


async def test_a_peer_that_does_not_read_holds_its_stream_back_and_nobody_else(zone: Zone, room: Room) -> None:
    async with (
        serving(zone, room) as server,
        connected(zone, server.port) as reader,
        connected(zone, server.port, OTHER) as other,
    ):
        deaf = await Raw.greeted(server.port, zone.identity(NODE), zone.files(WHO))
        number = deaf.open(asking(STREAM))
        await deaf.send(number, message(b"spring"), end=True)
        await until(lambda: len(deaf.streams[number].body) > 4 * PIECE)
        deaf.deafen()
        given = -1
        while given != room.given:
            given = room.given
            for _ in range(100):
                assert status(await ask(other, b"x")) == OK
        # What it would be told, and asks for besides, is not looked at either.
        calls = len(room.calls)
        deaf.write(frame(HEADERS, END_STREAM | 4, 3, header_block(asking())))
        assert status(await ask(reader, b"x")) == OK
        assert len(room.calls) == calls + 1
        assert given * PIECE < 24 << 20, "more than sockets of this machine and a few buffers hold"
        await deaf.close()
        await until(lambda: not room.running)


async def test_a_peer_that_never_reads_again_is_cut(zone: Zone, room: Room) -> None:
    async with serving(zone, room, LIMITS, Timing(stalled=0.2, look=0.02)) as server:
        deaf = await Raw.greeted(server.port, zone.identity(NODE), zone.files(WHO))
        await deaf.send(deaf.open(asking(STREAM)), message(b"spring"), end=True)
        await until(lambda: room.given > 0)
        deaf.deafen()
        await until(lambda: not server.connections)
        await until(lambda: not room.running)
        await deaf.close()


async def test_a_stream_whose_window_stays_shut_is_cut(zone: Zone, room: Room) -> None:
    async with serving(zone, room, LIMITS, Timing(stalled=0.2, look=0.02)) as server:
        raw = await Raw.connect(server.port, zone.identity(NODE), zone.files(WHO))
        raw.write(narrow(stream=100))
        late = await ask(raw, b"large", timeout="50m")
        assert len(late.body) == 100
        assert late.reset == CANCEL
        stuck = await ask(raw, b"spring", STREAM)
        assert len(stuck.body) == 100
        assert stuck.reset == ENHANCE_YOUR_CALM
        assert room.given <= 2
        await until(lambda: not room.running)
        number = raw.open(asking(STREAM))
        await raw.send(number, message(b"spring"), end=True)
        await until(lambda: len(raw.streams[number].body) == 100)
        for opened in (0, number):
            raw.write(frame(WINDOW_UPDATE, 0, opened, (2 * PIECE).to_bytes(4)))
        await until(lambda: len(raw.streams[number].body) > PIECE)
        await raw.close()


async def test_a_deadline_ends_a_stream_that_is_not_let_out(zone: Zone, room: Room) -> None:
    async with serving(zone, room) as server:
        raw = await Raw.connect(server.port, zone.identity(NODE), zone.files(WHO))
        raw.write(narrow(stream=0))
        late = await ask(raw, b"spring", STREAM, timeout="100m")
        assert late.reset == CANCEL
        assert not late.body
        # Without a message, there is nothing that a window could hold back.
        assert status(await ask(raw, b"wait", STREAM, timeout="50m")) == DEADLINE_EXCEEDED
        await until(lambda: not room.running)
        await raw.close()


# Bytes in.


async def test_requests_that_are_not_taken_are_not_let_in(zone: Zone, room: Room) -> None:
    pieces = 64
    sent = message(bytes(LIMITS.request_bytes - 100)) * 8
    async with serving(zone, room) as server, connected(zone, server.port) as raw:
        await raw.ping()
        room.gate.clear()
        number = raw.open(asking(BIDI))
        sending = asyncio.ensure_future(_send_all(raw, number, [sent] * pieces))
        while raw.streams[number].window:
            await raw.ping()
        await raw.ping()
        # No more than a window of them is in, of which none was taken.
        assert raw.streams[number].window == 0
        assert not room.taken
        assert len(sent) * pieces > 4 * STREAM_WINDOW
        # All others go on meanwhile, on the same connection.
        assert status(await ask(raw, b"x")) == OK
        room.gate.set()
        await sending
        assert status(await raw.over(number)) == OK
        assert room.taken == 8 * pieces
        assert all(connection.kept == 0 for connection in server.connections)


async def _send_all(raw: Raw, number: int, parts: list[bytes]) -> None:
    for part in parts:
        await raw.send(number, part)
    await raw.send(number, b"", end=True)


async def test_what_is_kept_of_requests_that_are_not_whole_is_bounded(zone: Zone, room: Room) -> None:
    size = 1 << 20
    async with serving(zone, room, LimitsSection(request_bytes=size)) as server, connected(zone, server.port) as raw:
        await raw.ping()
        held = MOST_KEPT // size + 1
        numbers = [raw.open(asking(UNARY if count % 2 else BIDI)) for count in range(held)]
        part = message(bytes(size))[:-4000]
        await asyncio.gather(*(raw.send(number, part) for number in numbers))
        await until(lambda: any(raw.streams[number].over.is_set() for number in numbers))
        over = [raw.streams[number] for number in numbers if raw.streams[number].over.is_set()]
        assert [reason(stream) for stream in over] == ["CALLS_TOO_MANY"] * len(over)
        assert len(over) < held
        for number in numbers:
            raw.cut(number, CANCEL)
        await until(lambda: all(connection.kept == 0 for connection in server.connections))
        assert status(await ask(raw, b"x")) == OK


async def test_the_window_of_a_connection_survives_streams_that_are_cut(zone: Zone, room: Room) -> None:
    async with serving(zone, room) as server, connected(zone, server.port) as raw:
        await raw.ping()
        room.gate.clear()
        part = message(bytes(4000)) * 50
        for _ in range(MOST_KEPT // len(part) + 10):
            number = raw.open(asking(BIDI))
            await raw.send(number, part)
            raw.cut(number, CANCEL)
            await raw.ping()
        assert status(await ask(raw, b"x")) == OK
        await until(lambda: not room.running)


@pytest.mark.parametrize(
    "test",
    [
        test_one_caller_has_half_of_all_connections_and_all_have_no_more_than_there_are,
        test_a_handshake_that_takes_long_is_broken_off,
        test_an_old_connection_is_ended_when_its_calls_are,
        test_a_stop_lets_calls_end_takes_no_more_and_then_cuts,
        test_an_address_is_had_once,
        test_a_peer_that_does_not_read_holds_its_stream_back_and_nobody_else,
        test_a_peer_that_never_reads_again_is_cut,
        test_requests_that_are_not_taken_are_not_let_in,
    ],
)
def test_it_is_the_same_on_the_loop_that_nodes_run_on(
    tmp_path: Path, test: Callable[[Zone, Room], Coroutine[None, None, None]]
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test(Zone(tmp_path), Room()))
