"""Members of the zone that mean harm: what HTTP/2 lets one side make the other do, and keep, for nothing.

Every attack comes over TLS with a certificate that stands. Each must be cut, or held to what any caller may have, and
while it goes on somebody else is served; afterwards the process has hardly more memory than before.
"""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from services.kit.transport.nghttp2.bounds import MOST_UNREAD
from tests.transport.attacked import LARGE, Victim
from tests.transport.echo import BIDI, NODE, STREAM, WHO
from tests.transport.raw import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LIMIT,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    RST_STREAM,
    SETTINGS,
    WIDE,
    WINDOW_UPDATE,
    Raw,
    frame,
    header_block,
)
from tests.transport.served import ask, asking, connected, message, payloads, status
from tests.zone import Zone

OTHER = "taxation/other"
MIB = 1 << 20
ENOUGH = 48 * MIB
"""Bytes by which the process may grow during one attack: less than any of them offers."""

Attack = Callable[[Raw], Awaitable[None]]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    zone = Zone(tmp_path_factory.mktemp("attacked"))
    for who in (NODE, WHO, OTHER):
        zone.tls(who)
    victim = Victim(zone)
    yield victim
    assert victim.alive
    victim.kill()


@pytest.fixture
async def other(victim: Victim) -> AsyncIterator[Raw]:
    """Somebody who has nothing to do with it."""
    async with connected(victim.zone, victim.port, OTHER) as raw:
        assert payloads(await ask(raw, b"warm")) == [b"warm"]
        yield raw


async def told(raw: Raw) -> tuple[int, int]:
    """Ask how many calls were begun so far, and how many run."""
    begun, running = payloads(await ask(raw, b"tell"))[0].split()
    return int(begun), int(running)


async def idle(raw: Raw) -> None:
    """Wait until no call runs."""
    async with asyncio.timeout(LIMIT):
        while (await told(raw))[1]:  # noqa: ASYNC110 - it is another process that changes it
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def attacking(victim: Victim, other: Raw, *, settings: bytes = b"", enough: int = ENOUGH) -> AsyncGenerator[Raw]:
    """Attack on a connection of its own, while another caller is served; checks what it cost."""
    before = victim.memory
    raw = await Raw.connect(victim.port, victim.zone.identity(NODE), victim.zone.files(WHO))
    raw.write(PREFACE + frame(SETTINGS, 0, 0, settings))
    serving = asyncio.ensure_future(_serve_on(other))
    try:
        yield raw
    finally:
        serving.cancel()
        results = await asyncio.gather(serving, return_exceptions=True)
        await raw.close()
    assert isinstance(results[0], asyncio.CancelledError), results
    assert payloads(await ask(other, b"after")) == [b"after"]
    assert await victim.grown(before, enough) < enough, victim.places()


async def _serve_on(other: Raw) -> None:
    while True:
        assert payloads(await ask(other, b"during")) == [b"during"]
        await asyncio.sleep(0.01)


async def flood(raw: Raw, part: bytes, most: int) -> int:
    """Send the same again and again until the peer has enough; gives how often it was sent."""
    count = 0
    while raw.alive and count < most:
        raw.write(part)
        count += 1
        await raw.drain()
    return count


def opened(number: int, headers: list[tuple[bytes, bytes]], body: bytes | None = None) -> bytes:
    """Write a call as frames."""
    end = END_STREAM if body is None else 0
    written = frame(HEADERS, END_HEADERS | end, number, header_block(headers))
    return written + (frame(DATA, END_STREAM, number, body) if body is not None else b"")


@pytest.mark.parametrize("payload", [b"wait", b"large"])
async def test_streams_opened_and_reset_at_once(victim: Victim, other: Raw, payload: bytes) -> None:
    """CVE-2023-44487: whatever was begun for streams that are reset at once goes on unseen."""
    begun, _ = await told(other)
    calls = message(payload)
    async with attacking(victim, other) as raw:
        numbers = iter(range(1, 200_000, 2))
        sent = 0
        while raw.alive and sent < 100_000:
            for _ in range(100):
                number = next(numbers)
                raw.write(opened(number, asking(), calls) + frame(RST_STREAM, 0, number, bytes((0, 0, 0, 8))))
            sent += 100
            await raw.drain()
        await raw.left()
        assert sent < 100_000
    # Resets that came together with their calls let none of them begin.
    assert (await told(other))[0] - begun < 5000
    await idle(other)


@pytest.mark.parametrize("wrong", ["overflow", "no update", "data after the end", "headers after the end", "priority"])
async def test_streams_that_the_server_is_made_to_reset(victim: Victim, other: Raw, wrong: str) -> None:
    """CVE-2025-8671: as above, but the server itself is brought to reset them."""
    begun, _ = await told(other)
    async with attacking(victim, other) as raw:
        numbers = iter(range(1, 400_000, 2))
        sent = 0
        while raw.alive and sent < 100_000:
            for _ in range(50):
                number = next(numbers)
                parts = {
                    "overflow": frame(WINDOW_UPDATE, 0, number, WIDE.to_bytes(4)),
                    "no update": frame(WINDOW_UPDATE, 0, number, bytes(4)),
                    "data after the end": frame(DATA, 0, number, b"x"),
                    "headers after the end": opened(number, asking()),
                    "priority": frame(PRIORITY, 0, number, b"x"),
                }
                raw.write(opened(number, asking(STREAM), message(b"wait")) + parts[wrong])
            sent += 50
            await raw.drain()
        await raw.left()
        assert sent < 100_000
    assert (await told(other))[0] - begun < 5000
    await idle(other)


async def test_headers_without_end(victim: Victim, other: Raw) -> None:
    """CVE-2024-27316 and its like: CONTINUATION after CONTINUATION."""
    async with attacking(victim, other) as raw:
        raw.write(frame(HEADERS, 0, 1, header_block(asking())))
        more = frame(CONTINUATION, 0, 1, header_block([(b"x-%d" % count, b"y" * 100) for count in range(100)]))
        assert await flood(raw, more, 10_000) < 10_000
        await raw.left()
    async with attacking(victim, other) as raw:
        raw.write(frame(HEADERS, 0, 1, header_block(asking())))
        await flood(raw, frame(CONTINUATION, 0, 1), 100_000)
        await raw.left()


async def test_headers_that_unpack_to_much(victim: Victim, other: Raw) -> None:
    """A table entry of some kilobytes, meant again and again by one byte each."""
    async with attacking(victim, other) as raw:
        large = b"\x40\x06x-bomb" + b"\x7f\xe1\x1e" + b"b" * 4000
        block = header_block(asking())
        raw.write(frame(HEADERS, END_HEADERS, 1, block + large))
        raw.write(frame(HEADERS, END_HEADERS, 3, block + b"\xbe" * 16_000))
        await raw.left()


@pytest.mark.parametrize("part", [frame(PING, 0, 0, b"attack!!"), frame(SETTINGS, 0, 0)], ids=["ping", "settings"])
async def test_questions_that_have_to_be_answered(victim: Victim, other: Raw, part: bytes) -> None:
    """CVE-2019-9512, CVE-2019-9515: PING and SETTINGS, whose answers are read, or are not."""
    for deaf in (False, True):
        async with attacking(victim, other) as raw:
            assert payloads(await ask(raw, b"x")) == [b"x"]
            if deaf:
                raw.deafen()
            assert await flood(raw, part * 50, 4000) < 4000 or deaf


async def test_frames_with_nothing_in_them(victim: Victim, other: Raw) -> None:
    """CVE-2019-9518: DATA without data, and what else says nothing."""
    empty = {
        "data": frame(DATA, 0, 1),
        "padding": frame(DATA, 0x8, 1, b"\xff" + bytes(255)),
        "updates": frame(WINDOW_UPDATE, 0, 1, bytes(4)),
    }
    for part in empty.values():
        async with attacking(victim, other) as raw:
            raw.write(frame(HEADERS, END_HEADERS, 1, header_block(asking(BIDI))))
            assert await flood(raw, part * 50, 4000) < 4000


async def test_frames_that_mean_nothing_here(victim: Victim, other: Raw) -> None:
    """PRIORITY, frames of unknown kinds, GOAWAY, window updates by one: harmless, however many."""
    parts = [
        frame(PRIORITY, 0, 3, bytes(5)),
        frame(0xBE, 0, 0, b"unknown"),
        frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4)),
    ]
    for part in parts:
        async with attacking(victim, other) as raw:
            await flood(raw, part * 100, 200)


async def test_answers_that_are_never_let_out(victim: Victim, other: Raw) -> None:
    """CVE-2019-9511, CVE-2019-9517: the window is shut, or the socket is not read, and more and more is asked for."""
    shut = (4).to_bytes(2) + bytes(4)
    async with attacking(victim, other, settings=shut, enough=2 * MOST_UNREAD) as raw:
        for number in range(1, 1200, 2):
            raw.write(opened(number, asking(timeout="1S"), message(b"large")))
        await raw.ping()
    wide = (4).to_bytes(2) + WIDE.to_bytes(4)
    async with attacking(victim, other, settings=wide, enough=2 * MOST_UNREAD) as raw:
        raw.write(frame(WINDOW_UPDATE, 0, 0, (WIDE - 65_535).to_bytes(4)))
        raw.deafen()
        for number in range(1, 1200, 2):
            raw.write(opened(number, asking(timeout="1S"), message(b"large")))
        # Who does not read is cut after a while.
        await idle(other)


async def test_windows_that_overflow(victim: Victim, other: Raw) -> None:
    for stream in (0, 1):
        async with attacking(victim, other) as raw:
            raw.write(frame(HEADERS, END_HEADERS, 1, header_block(asking(BIDI))))
            for _ in range(3):
                raw.write(frame(WINDOW_UPDATE, 0, stream, WIDE.to_bytes(4)))
            await raw.left()


async def test_more_than_the_windows_allow(victim: Victim, other: Raw) -> None:
    async with attacking(victim, other) as raw:
        raw.write(frame(HEADERS, END_HEADERS, 1, header_block(asking(BIDI))))
        await flood(raw, frame(DATA, 0, 1, bytes(16_000)), 10_000)
        await raw.left()


@pytest.mark.parametrize(
    "part",
    [
        b"\xff\xff\xff" + frame(DATA, 0, 1)[3:],
        frame(DATA, 0, 0, b"x"),
        frame(DATA, 0x8, 1, b"\xff"),
        frame(HEADERS, END_HEADERS, 0, header_block(asking())),
        frame(HEADERS, END_HEADERS, 2, header_block(asking())),
        frame(HEADERS, END_HEADERS, 1, b"\xff" * 100),
        frame(HEADERS, END_HEADERS, 1, b"\x80"),
        frame(SETTINGS, 0, 0, b"odd"),
        frame(SETTINGS, 0, 1),
        frame(SETTINGS, 1, 0, bytes(6)),
        frame(SETTINGS, 0, 0, (4).to_bytes(2) + b"\xff" * 4),
        frame(SETTINGS, 0, 0, (5).to_bytes(2) + bytes(4)),
        frame(SETTINGS, 0, 0, ((3).to_bytes(2) + bytes(4)) * 1000),
        frame(PING, 0, 0, b"short"),
        frame(PING, 0, 1, bytes(8)),
        frame(RST_STREAM, 0, 0, bytes(4)),
        frame(RST_STREAM, 0, 1, bytes(3)),
        frame(RST_STREAM, 0, 9, bytes(4)),
        frame(WINDOW_UPDATE, 0, 0, bytes(4)),
        frame(WINDOW_UPDATE, 0, 0, bytes(3)),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(PUSH, END_HEADERS, 1, bytes(4)),
        frame(GOAWAY, 0, 1, bytes(8)),
        frame(GOAWAY, 0, 0, bytes(3)),
        frame(HEADERS, 0, 1, header_block(asking())) + frame(PING, 0, 0, bytes(8)),
    ],
)
async def test_frames_that_are_none(victim: Victim, other: Raw, part: bytes) -> None:
    async with attacking(victim, other) as raw:
        raw.write(part)
        await raw.left()


async def test_noise(victim: Victim, other: Raw) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # noqa: T201 - shown where it fails
    drawn = random.Random(seed)
    for _ in range(20):
        async with attacking(victim, other) as raw:
            for _ in range(200):
                if not raw.alive:
                    break
                kind = drawn.randrange(12)
                raw.write(frame(kind, drawn.randrange(256), drawn.randrange(8), drawn.randbytes(drawn.randrange(200))))
                await raw.drain()
    for _ in range(10):
        raw = await Raw.connect(victim.port, victim.zone.identity(NODE), victim.zone.files(WHO))
        raw.write(drawn.randbytes(1000))
        await raw.left()
        await raw.close()
    assert payloads(await ask(other, b"x")) == [b"x"]


async def test_strangers_that_knock_and_do_not_come_in(victim: Victim, other: Raw) -> None:
    """More half-open handshakes than there may be connections, descriptors even, with members coming meanwhile."""
    before = victim.memory
    writers: list[asyncio.StreamWriter] = []
    for count in range(600):
        _, writer = await asyncio.open_connection("127.0.0.1", victim.port)
        writers.append(writer)
        if count % 100 == 0:
            async with connected(victim.zone, victim.port) as raw:
                assert status(await ask(raw, b"x")) == 0
    assert payloads(await ask(other, b"x")) == [b"x"]
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
    assert await victim.grown(before, ENOUGH) < ENOUGH, victim.places()


def test_a_large_answer_is_large_enough() -> None:
    """The attacks above would otherwise ask for less than they may have."""
    assert 600 * LARGE > 4 * MOST_UNREAD
    assert Path("/proc/self/status").exists()
