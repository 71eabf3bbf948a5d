"""A thousand connections at once, some of people who ask and never read what they are told."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Final

from bench.process import resident_mb
from certs.spiffe import server_name
from hutong.api.exchange.v1 import federation_pb2
from services.cli.query import SERVICE
from services.cli.rooms import GATEWAY
from services.kit.client import Client
from services.kit.errors import HutongError
from tests.chaos.asking import EVERY, WHOLE, failed, question, told
from tests.chaos.bed import STALLED, Bed
from tests.chaos.running import Doing
from tests.transport.raw import DATA, END_STREAM, Raw, frame, header_frames

WHO: Final = ("quality/lab", "taxation/refund", "customs/release", "commerce/registry", "publicsecurity/permits")
"""Who comes: systems that may ask what is asked."""
MANY: Final = 1000
DEAF: Final = 10
"""Of these, those who never read."""
AT_ONCE: Final = 40
"""Of those who come, how many at the same time: what a handshake takes is not what is measured."""
ROUNDS: Final = 2
_ASKED: Final = 200
"""Questions of each of these; what they are told fits into what sockets hold."""
STUBBORN: Final = 3
"""How many ask on and never read: more than sockets hold."""
_EACH_TIME: Final = 20
"""Questions of each of these at a time, so that nobody else is turned away for it."""
GROWTH_MB: Final = 150.0
"""Most that the gateway's memory may grow by."""
SHED: Final = "error CALLS_TOO_MANY"
"""What a node says that has as many calls as it takes (`concurrent_calls`), as where others want this machine too."""
MOST_SHED: Final = 150
"""Questions of 2,970."""
_PATIENCE: Final = 20.0
_GRACE: Final = 15.0
"""Seconds over the limit in which who is deaf has to be gone: first the sockets fill."""


@contextlib.asynccontextmanager
async def crowd(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Connect a thousand callers, let all of them ask at the same time, twice; then have them go."""
    fleet = doing.bed.fleet
    before = resident_mb(doing.bed.pid(GATEWAY))
    deaf = [await _deaf(doing, number) for number in range(DEAF)]
    identity = doing.bed.zone.identity(fleet.nodes[GATEWAY].identity)
    files = [doing.bed.zone.credentials(WHO[number % len(WHO)]) for number in range(MANY - DEAF)]
    clients = [Client(fleet.address(GATEWAY), identity, each) for each in files]
    gate = asyncio.Semaphore(AT_ONCE)
    answers: dict[str, int] = {}
    slowest = 0.0

    async def ask(number: int, client: Client) -> None:
        nonlocal slowest
        begun = time.monotonic()
        try:
            answer = await client.unary(
                f"{SERVICE}/Query", question(number), federation_pb2.QueryResponse, timeout=_PATIENCE
            )
            what = told(answer)
        except HutongError as error:
            what = failed(error)
        slowest = max(slowest, time.monotonic() - begun)
        answers[what] = answers.get(what, 0) + 1

    async def come(number: int, client: Client) -> None:
        async with gate:
            await ask(number, client)

    try:
        await asyncio.gather(*(come(number, client) for number, client in enumerate(clients)))
        slowest = 0.0
        for _ in range(ROUNDS):
            await asyncio.gather(*(ask(number, client) for number, client in enumerate(clients)))
        grown = resident_mb(doing.bed.pid(GATEWAY)) - before
        doing.notes.append(
            f"{MANY - DEAF} connections asked {sum(answers.values())} questions, the slowest took {slowest:.1f} s; "
            f"the gateway grew by {grown:.0f} MB"
        )
        if grown > GROWTH_MB:
            doing.problems.append(f"the gateway grew by {grown:.0f} MB")
        if shed := answers.pop(SHED, 0):
            doing.notes.append(f"{shed} were told to come again")
        if shed > MOST_SHED:
            doing.problems.append(f"{shed} questions were turned away")
        for what, count in answers.items():
            if what != WHOLE:
                doing.also[what] += count
        yield
    finally:
        await asyncio.gather(*(client.close() for client in clients))
        for each in deaf:
            await each.close()


@contextlib.asynccontextmanager
async def deaf(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Ask on and on and never read, and see when the gateway has had enough of that; nobody else is to notice."""
    before = resident_mb(doing.bed.pid(GATEWAY))
    begun = time.monotonic()
    left = [await _deaf(doing, number, 0) for number in range(STUBBORN)]
    asked, first = 0, 0.0
    try:
        async with asyncio.timeout(STALLED + _GRACE):
            while left:
                for each in [each for each in left if each.cut_off]:
                    first = first or time.monotonic() - begun
                    left.remove(each)
                    await each.close()
                for each in left:
                    each.write(_questions(doing, range(asked, asked + _EACH_TIME)))
                asked += _EACH_TIME
                await asyncio.sleep(EVERY)
    except TimeoutError:
        doing.problems.append(f"{len(left)} of {STUBBORN} were not cut")
        for each in left:
            await each.close()
    took, grown = time.monotonic() - begun, resident_mb(doing.bed.pid(GATEWAY)) - before
    doing.notes.append(
        f"all were cut after {first:.1f} to {took:.1f} s (`limits.stalled` is {STALLED:.0f} s here), "
        f"and the gateway grew by {max(0.0, grown):.0f} MB"
    )
    if first < STALLED:
        doing.problems.append("one was cut before the limit, by something else")
    if grown > GROWTH_MB:
        doing.problems.append(f"the gateway grew by {grown:.0f} MB")
    yield


async def _deaf(doing: Doing[Bed], number: int, count: int = _ASKED) -> Raw:
    """Connect, ask so many questions, and read nothing any more."""
    zone, fleet = doing.bed.zone, doing.bed.fleet
    identity = zone.identity(fleet.nodes[GATEWAY].identity)
    port = int(fleet.address(GATEWAY).rpartition(":")[2])
    raw = await Raw.greeted(port, identity, zone.credentials(WHO[number % len(WHO)]))
    raw.deafen()
    raw.write(_questions(doing, range(count)))
    return raw


def _questions(doing: Doing[Bed], numbers: range) -> bytes:
    """Write questions as frames, each on a stream of its own."""
    identity = doing.bed.zone.identity(doing.bed.fleet.nodes[GATEWAY].identity)
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", f"{SERVICE}/Query".encode()),
        (b":authority", server_name(identity).encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    written = b""
    for number in numbers:
        message = question(number).SerializeToString()
        body = b"\0" + len(message).to_bytes(4) + message
        written += header_frames(2 * number + 1, headers) + frame(DATA, END_STREAM, 2 * number + 1, body)
    return written
