"""The bad things, one after the other: what each does, and what it may cost."""

import asyncio
import contextlib
import datetime as dt
import itertools
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import grpc.aio

from bench import corpus
from certs.authority import Authority
from certs.files import PRIVATE, write_atomically
from certs.tls import server_credentials
from hutong.api.exchange.v1 import federation_pb2
from services.cli.query import SERVICE
from services.cli.question import request as asked
from services.cli.rooms import GATEWAY, SUPERVISION
from services.cli.zone import GATEWAY_SYSTEM
from services.kit.client import Client
from services.kit.errors import HutongError
from services.kit.records import catalogue
from tests.chaos.asking import DEADLINE, EVERY, SUBJECTS, WHOLE, failed, question, told
from tests.chaos.bed import AWAY, Bed, no_room, own_certificate, restart
from tests.chaos.crowds import SHED, crowd, deaf
from tests.chaos.flows import events
from tests.chaos.running import SLACK, Case, Doing
from tests.chaos.wires import LOSS, Counts, Wire
from tests.cli.authorized import AML, ANALYST, DECLARATION, Desks
from tests.exchange.records import EXPORTER
from tests.exchange.standin import SOURCE, answered

LIFE: Final = dt.timedelta(seconds=3)
"""How long the certificate stands that is not renewed."""
WHY_AML: Final = "STR-2026-7"
LASTING: Final = 2.5
"""Seconds of what is noticed by deadlines only."""
TIMES: Final = 3
"""How often a department is killed that comes and goes."""
GIVEN_UP: Final = 10.0
"""Seconds after which a connection is given up, at the latest, on which nothing comes through."""
BACK: Final = 6.0
"""Seconds after which a department is there again, at the latest, whose wire is as it was."""
FLAP = 0.1
"""Seconds between two cuts of a line that flaps."""


def wired(doing: Doing[Bed]) -> Wire:
    """Get the wire to `AWAY`; only for cases that are not done where there is none."""
    assert isinstance(doing.bed.wire, Wire)
    return doing.bed.wire


def of_wire(do: str) -> Callable[[Bed], str]:
    """Say of a zone whether something can be done to its wire; see `Bed.cannot`."""
    return lambda bed: bed.cannot(do)


def missing(agency: str, *reasons: str) -> frozenset[str]:
    """Say what a caller sees that misses one section, for any of these reasons."""
    return frozenset(f"{agency}: {reason}" for reason in reasons)


def any_missing(reasons: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Say what a caller sees that misses any of the sections of these agencies, each for any of its reasons."""
    found = itertools.product(*(("", *(f"{agency}: {reason}" for reason in of)) for agency, of in reasons.items()))
    return frozenset(", ".join(filter(None, each)) for each in found if any(each))


UNREACHABLE, FAILED, LATE = "DEPARTMENT_UNREACHABLE", "DEPARTMENT_FAILED", "DEPARTMENT_TIMEOUT"
OWNERS: Final = [catalogue.load().get(name).owner for name in corpus.TYPES]
"""The departments, in the order of their sections."""


@contextlib.asynccontextmanager
async def killed(doing: Doing[Bed]) -> AsyncGenerator[None]:
    await doing.bed.fleet.kill("taxation")
    yield
    await doing.bed.fleet.restart("taxation")


@contextlib.asynccontextmanager
async def restarting(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Kill a department as soon as it serves again; the last time it stays."""
    for _ in range(TIMES):
        await doing.bed.fleet.kill("taxation")
        await doing.bed.fleet.restart("taxation")
        if not await doing.asker.until_whole(time.monotonic(), count=1):
            doing.problems.append("it was not asked again between two crashes")
    yield


@contextlib.asynccontextmanager
async def frozen(doing: Doing[Bed]) -> AsyncGenerator[None]:
    doing.bed.signal("commerce", signal.SIGSTOP)
    yield
    doing.bed.signal("commerce", signal.SIGCONT)


def slow(delay: float) -> Callable[[Doing[Bed]], contextlib.AbstractAsyncContextManager[None]]:
    """Make the wire to customs so much longer, in seconds each way."""

    @contextlib.asynccontextmanager
    async def fault(doing: Doing[Bed]) -> AsyncGenerator[None]:
        doing.bed.line.delay = delay
        yield
        doing.bed.line.delay = 0.0

    return fault


@contextlib.asynccontextmanager
async def flapping(doing: Doing[Bed]) -> AsyncGenerator[None]:
    async def flap() -> None:
        while True:
            doing.bed.line.cut()
            await asyncio.sleep(FLAP)

    before = doing.bed.line.opened
    task = asyncio.create_task(flap())
    yield
    task.cancel()
    made = doing.bed.line.opened - before
    doing.notes.append(f"{made} connections were made")
    if made < 5:
        doing.problems.append("the line was hardly cut")


@contextlib.asynccontextmanager
async def garbage(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Put somebody in the place of customs who has its certificate and answers nonsense."""

    async def session(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield answered(request, b"\xff\xfe nonsense")

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(session)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SOURCE.full_name, {"FetchSession": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", server_credentials(doing.bed.zone.credentials("customs/node")))
    await server.start()
    line = doing.bed.line
    rightly, line.target = line.target, f"127.0.0.1:{port}"
    line.cut()
    yield
    line.target = rightly
    await server.stop(0)
    line.cut()


@contextlib.asynccontextmanager
async def gateway_killed(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Kill the gateway while it streams: the wire to customs is long, so that the stream is not at its end."""
    fleet, line = doing.bed.fleet, doing.bed.line
    line.delay = 0.2
    asked = federation_pb2.StreamQueryRequest(
        query=question(0), subjects=[question(number).subject for number in range(1, SUBJECTS)]
    )
    sections: Any = fleet.client("taxation/refund").stream(
        f"{SERVICE}/StreamQuery", asked, federation_pb2.StreamQueryResponse, timeout=20
    )
    count = 0
    try:
        async for _ in sections:
            count += 1
            if count == 1:
                await fleet.kill(GATEWAY)
    except HutongError as error:
        doing.also[f"a stream ends with {error.reason}"] += 1
    else:
        doing.problems.append("a stream that was cut ended as though it were complete")
    line.delay = 0.0
    doing.notes.append(f"the stream gave {count} of {SUBJECTS * len(corpus.TYPES)} sections")
    yield
    await fleet.restart(GATEWAY)


@contextlib.asynccontextmanager
async def database_restarted(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Have PostgreSQL end at once, without a shutdown, and recover when it starts."""
    folder = doing.bed.database
    running = folder / "postmaster.pid"
    os.kill(int(running.read_text().split()[0]), signal.SIGQUIT)
    while running.exists():  # noqa: ASYNC110 - no event tells that a file is gone
        await asyncio.sleep(EVERY)
    yield
    await asyncio.to_thread(restart, folder)


@contextlib.asynccontextmanager
async def disk_full(doing: Doing[Bed]) -> AsyncGenerator[None]:
    disk = doing.bed.disk
    doing.notes.append(f"by {disk.how}")
    with disk.full(doing.bed.pid(GATEWAY)):
        yield


@contextlib.asynccontextmanager
async def own_disk_full(doing: Doing[Bed]) -> AsyncGenerator[None]:
    with no_room(doing.bed.pid("taxation")):
        yield


@contextlib.asynccontextmanager
async def parted(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Let nothing through between gateway and customs, either way; what was said meanwhile comes late, as TCP does."""
    doing.bed.line.joined.clear()
    yield
    doing.bed.line.joined.set()


def expired(node: str, identity: str) -> Callable[[Doing[Bed]], contextlib.AbstractAsyncContextManager[None]]:
    """Let a node's certificate end while it serves, and the connections between gateway and customs."""

    @contextlib.asynccontextmanager
    async def fault(doing: Doing[Bed]) -> AsyncGenerator[None]:
        zone = doing.bed.zone
        authority = Authority.open(zone.certificates.folder)
        own = own_certificate(zone, node)

        def put(life: dt.timedelta) -> None:
            authority.renew(zone.identity(identity), dt.datetime.now(dt.UTC), life)
            write_atomically(own, zone.credentials(identity).certificate.read_bytes(), PRIVATE)

        put(LIFE)
        doing.bed.line.cut()
        await asyncio.sleep(LIFE.total_seconds() + 1)
        doing.bed.line.cut()
        if node == GATEWAY:
            await newcomer(doing)
        yield
        put(dt.timedelta(hours=24))

    return fault


@contextlib.asynccontextmanager
async def cable_pulled(doing: Doing[Bed]) -> AsyncGenerator[None]:
    wire, gateway = wired(doing), doing.bed.pid(GATEWAY)
    stood = wire.connections(gateway)
    with wire.pulled():
        yield
        kept = stood & wire.connections(gateway)
    doing.notes.append(f"the connection {'stands' if kept else 'is given up'}")


@contextlib.asynccontextmanager
async def cable_pulled_for_long(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Pull the cable until the gateway gives its connection up, and longer."""
    wire, gateway = wired(doing), doing.bed.pid(GATEWAY)
    stood, begun = wire.connections(gateway), time.monotonic()
    with wire.pulled():
        while stood & wire.connections(gateway):
            await asyncio.sleep(EVERY)
            if time.monotonic() - begun > GIVEN_UP:
                doing.problems.append("the connection was not given up")
                break
        doing.notes.append(f"the connection is given up after {time.monotonic() - begun:.1f} s")
        yield


@contextlib.asynccontextmanager
async def killed_unheard(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Kill a department and start it again while its cable is pulled: nobody is told that its connections ended."""
    wire, fleet = wired(doing), doing.bed.fleet
    with wire.pulled():
        await fleet.kill(AWAY)
        begun, restarting = time.monotonic(), asyncio.create_task(fleet.restart(AWAY))
        while not wire.listening() and not restarting.done():  # noqa: ASYNC110 - no event tells that somebody listens
            await asyncio.sleep(EVERY)
        doing.notes.append(f"it listens again after {time.monotonic() - begun:.1f} s")
        yield
    await restarting


def worse(
    way: Callable[[Wire], contextlib.AbstractContextManager[Counts]],
) -> Callable[[Doing[Bed]], contextlib.AbstractAsyncContextManager[None]]:
    """Make the wire worse in a way, and see that who asks the others is no slower for it."""

    @contextlib.asynccontextmanager
    async def fault(doing: Doing[Bed]) -> AsyncGenerator[None]:
        with way(wired(doing)) as counts:
            slowest = await others(doing)
            yield
            dropped, held = counts()
        doing.notes.append(
            f"{dropped} packets were lost and {held} had to wait; who asks the others waits at most {slowest:.2f} s"
        )
        if not dropped + held:
            doing.problems.append("the wire was as good as ever")

    return fault


async def others(doing: Doing[Bed]) -> float:
    """Ask all but who is at the end of the wire, one question after the other; gives the seconds of the slowest."""
    slowest = 0.0
    for number in range(SUBJECTS):
        request = question(number)
        selections = [each for each, owner in zip(request.selections, OWNERS, strict=True) if owner != AWAY]
        del request.selections[:]
        request.selections.extend(selections)
        begun = time.monotonic()
        what = await came(doing.asker.client, request)
        slowest = max(slowest, time.monotonic() - begun)
        if what != WHOLE:
            doing.problems.append(f"who asks the others sees {what}")
    if slowest > SLACK:
        doing.problems.append(f"who asks the others waits {slowest:.1f} s")
    return slowest


async def newcomer(doing: Doing[Bed]) -> None:
    """Ask as somebody who has no connection yet."""
    what = await came(doing.bed.fleet.client("taxation/refund"), question(0))
    doing.also[f"who connects anew: {what}"] += 1


async def came(client: Client, request: federation_pb2.QueryRequest) -> str:
    """Ask, and say what came of it."""
    try:
        return told(await client.unary(f"{SERVICE}/Query", request, federation_pb2.QueryResponse, timeout=DEADLINE))
    except HutongError as error:
        return failed(error)


@contextlib.asynccontextmanager
async def policy_corrupted(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Write nonsense into the policy that gateway and customs both have in force."""
    path = doing.bed.zone.policy("customs")
    right = path.read_bytes()
    path.write_bytes(right[: len(right) // 2])
    yield
    for node in ("customs", GATEWAY):
        if "Changed policies do not pass" not in doing.bed.fleet.nodes[node].last_lines():
            doing.problems.append(f"{node} did not notice")
    path.write_bytes(right)


def supervision_away(*, frozen: bool) -> Callable[[Doing[Bed]], contextlib.AbstractAsyncContextManager[None]]:
    """Freeze or kill the supervision service while an officer reads under an authorization."""

    @contextlib.asynccontextmanager
    async def fault(doing: Doing[Bed]) -> AsyncGenerator[None]:
        until = await reader(doing)
        if frozen:
            doing.bed.signal(SUPERVISION, signal.SIGSTOP)
        else:
            await doing.bed.fleet.kill(SUPERVISION)
        doing.notes.append(f"reads under an authorization are refused after {await until(False):.1f} s")
        yield
        begun = time.monotonic()
        if frozen:
            doing.bed.signal(SUPERVISION, signal.SIGCONT)
        else:
            await doing.bed.fleet.restart(SUPERVISION)
        await until(True)
        doing.notes.append(
            f"and answered again {time.monotonic() - begun:.1f} s after its {'thaw' if frozen else 'start'}"
        )

    return fault


async def reader(doing: Doing[Bed]) -> Callable[[bool], Awaitable[float]]:
    """Bring an authorization into force and read under it; gives what waits until that is answered, or refused."""
    fleet = doing.bed.fleet
    desks = Desks(fleet)
    subject = f"{corpus.SCHEME}:{EXPORTER}"

    def authorized() -> tuple[str, str]:
        made = desks.active("--subject", subject, "--rows", "5000")
        return made, desks.told("use", made, who=AML, officer=ANALYST).strip()

    authorization, ticket = await asyncio.to_thread(authorized)
    request = asked(["P-AML"], "CN-AML", subject, [DECLARATION], case=WHY_AML, authorization=authorization)
    request.context.authorization_ticket = ticket
    client = fleet.client(AML)

    async def until(wanted: bool) -> float:
        """Ask until it is answered, or refused; gives how long that took."""
        begun = time.monotonic()
        while ((what := await came(client, request)) == WHOLE) is not wanted:
            await asyncio.sleep(EVERY)
            if time.monotonic() - begun > 20:
                doing.problems.append(f"reads under an authorization: still {what}")
                break
        if not wanted:
            doing.also[f"a read under an authorization: {what}"] += 1
        return time.monotonic() - begun

    await until(True)
    return until


CASES: Final[tuple[Case[Bed], ...]] = (
    Case("killed", "a department killed (SIGKILL), started again", killed, missing("taxation", UNREACHABLE)),
    Case(
        "restarting",
        "a department killed and started again, three times",
        restarting,
        missing("taxation", UNREACHABLE),
        lasts=0.0,
    ),
    Case("frozen", "a department frozen (SIGSTOP, SIGCONT)", frozen, missing("commerce", LATE), lasts=LASTING),
    Case("slow", "a department 0.8 s away", slow(0.4), frozenset()),
    Case("too-slow", "a department 3 s away", slow(1.5), missing("customs", LATE), lasts=LASTING),
    Case(
        "flapping", "the line to a department cut every 100 ms", flapping, missing("customs", UNREACHABLE), must=False
    ),
    Case("garbage", "nonsense in the place of a department", garbage, missing("customs", FAILED, UNREACHABLE)),
    Case(
        "gateway",
        "the gateway killed in the middle of a stream, started again",
        gateway_killed,
        frozenset({"error DEPARTMENT_UNREACHABLE"}),
        also=frozenset({"a stream ends with DEPARTMENT_UNREACHABLE"}),
    ),
    Case(
        "database",
        "a department's PostgreSQL ended at once, started again",
        database_restarted,
        # The last question may still be logged when its records cannot be read any more.
        missing("quality", FAILED, LATE, UNREACHABLE, "STORE_UNAVAILABLE"),
    ),
    Case("disk", "no room for the gateway's log", disk_full, frozenset({"error LOG_UNAVAILABLE"})),
    Case("own-disk", "no room for anything of a department", own_disk_full, missing("taxation", FAILED)),
    Case(
        "parted",
        "nothing comes through between gateway and a department",
        parted,
        missing("customs", LATE),
        lasts=LASTING,
    ),
    Case(
        "expired",
        "a department's certificate not renewed",
        expired("customs", "customs/node"),
        missing("customs", UNREACHABLE),
    ),
    Case(
        "gateway-expired",
        "the gateway's certificate not renewed",
        expired(GATEWAY, GATEWAY_SYSTEM),
        # The word that it gives of a caller is taken by nobody any more, and no connection of it.
        any_missing(dict.fromkeys(OWNERS, (FAILED,)) | {"customs": (FAILED, UNREACHABLE)}),
        also=frozenset({"who connects anew: error DEPARTMENT_UNREACHABLE"}),
        lasts=1.5,
    ),
    Case("policy", "half a policy file", policy_corrupted, frozenset(), lasts=2.0),
    Case(
        "supervision",
        "the supervision service killed, started again",
        supervision_away(frozen=False),
        frozenset(),
        also=frozenset({"a read under an authorization: customs: AUTHORIZATION_STATE_UNKNOWN"}),
    ),
    Case(
        "supervision-frozen",
        "the supervision service frozen (SIGSTOP, SIGCONT)",
        supervision_away(frozen=True),
        frozenset(),
        also=frozenset({"a read under an authorization: customs: DEPARTMENT_TIMEOUT"}),
        lasts=1.0,
    ),
    Case(
        "events",
        "recognition and a department killed while cases begin, started again",
        events,
        missing("customs", UNREACHABLE),
    ),
    Case("deaf", "three callers who ask and never read", deaf, frozenset({SHED}), must=False, lasts=0.0),
    Case("thousand", "1,000 callers at once, of whom ten never read", crowd, frozenset({SHED}), must=False, lasts=0.0),
)

WIRE_CASES: Final[tuple[Case[Bed], ...]] = (
    Case(
        "cable",
        "a department's cable pulled, for longer than questions wait",
        cable_pulled,
        missing(AWAY, LATE),
        lasts=LASTING,
        heals=BACK,
        cannot=of_wire("pulled"),
    ),
    Case(
        "cable-long",
        "a department's cable pulled, until the gateway gives the connection up and longer",
        cable_pulled_for_long,
        missing(AWAY, LATE, UNREACHABLE),
        lasts=1.0,
        heals=BACK,
        cannot=of_wire("pulled"),
    ),
    Case(
        "cable-killed",
        "a department killed and started again while its cable is pulled",
        killed_unheard,
        missing(AWAY, LATE, UNREACHABLE),
        lasts=LASTING,
        heals=BACK,
        cannot=of_wire("pulled"),
    ),
    Case(
        "narrow",
        "64 kbit/s to a department",
        worse(lambda wire: wire.narrow(64)),
        missing(AWAY, LATE),
        must=False,
        lasts=1.0,
        heals=BACK,
        cannot=of_wire("narrow"),
    ),
    Case(
        "too-narrow",
        "16 kbit/s to a department",
        worse(lambda wire: wire.narrow(16)),
        missing(AWAY, LATE, UNREACHABLE),
        lasts=LASTING,
        heals=BACK,
        cannot=of_wire("narrow"),
    ),
    Case(
        "lossy",
        f"every {LOSS}th packet to and from a department lost",
        worse(Wire.lossy),
        missing(AWAY, LATE),
        must=False,
        lasts=1.0,
        heals=BACK,
        cannot=of_wire("lossy"),
    ),
)
"""In a wired zone."""
