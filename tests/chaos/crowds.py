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
from tests.chaos.asking import WHOLE, failed, question, told
from tests.chaos.bed import Bed
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
"""Questions of each who never reads: their answers are more than any buffer takes."""
GROWTH_MB: Final = 150.0
"""Most that the gateway's memory may grow by."""
SHED: Final = "error CALLS_TOO_MANY"
"""What a node says that runs late, as it does where others want this machine too."""
MOST_SHED: Final = 150
"""Questions of 2,970."""
_PATIENCE: Final = 20.0


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


async def _deaf(doing: Doing[Bed], number: int) -> Raw:
    """Connect, ask many questions, and read nothing any more."""
    zone, fleet = doing.bed.zone, doing.bed.fleet
    identity = zone.identity(fleet.nodes[GATEWAY].identity)
    port = int(fleet.address(GATEWAY).rpartition(":")[2])
    raw = await Raw.greeted(port, identity, zone.credentials(WHO[number % len(WHO)]))
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", f"{SERVICE}/Query".encode()),
        (b":authority", server_name(identity).encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    raw.deafen()
    message = question(number).SerializeToString()
    body = b"\0" + len(message).to_bytes(4) + message
    for stream in range(1, 2 * _ASKED, 2):
        raw.write(header_frames(stream, headers) + frame(DATA, END_STREAM, stream, body))
    return raw
