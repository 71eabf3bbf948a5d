"""Revocation lists from node to node: what one hears of, all know within seconds.

Every node tells the lists that count at it to whoever listens, and listens to those that its config names. A list is
signed and numbered, so it does not matter who brings it: it is verified as if a stranger had (`RevocationList.take`).
Where nodes listen to each other in a circle, it goes no further than to where it is known. The newest lists that a node
knows, heard or not, it keeps in a file of its own: an older one that is put back counts after no restart either. The
zone's file is never written to: that is the authority's, and it alone says which there are.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final, cast

from certs.errors import CertificateError
from certs.files import write_atomically
from certs.revocation import LOOK_EVERY, Brought, RevocationList, ShortLives
from hutong.api.node.v1 import node_pb2
from services.kit.client import Client
from services.kit.clock import Clock
from services.kit.errors import Reason, Unavailable
from services.kit.following import Following
from services.kit.rpc import Call
from services.kit.streams import Streams
from services.kit.telemetry import Telemetry
from services.kit.waiting import within

WATCH: Final = "/hutong.api.node.v1.NodeService/WatchRevocations"

HEARTBEAT: Final = 2.0
"""Seconds after which a listener is told that there is nothing new."""
SILENCE: Final = 3 * HEARTBEAT
"""Seconds without a word after which a stream is taken for dead."""
AGAIN: Final = 60.0
"""Seconds after which a listener is told everything again: meanwhile it may have come to trust another authority."""
LISTENERS: Final = 8
"""Most streams of one caller at a time: one for each of its replicas, and some that have just been cut off."""
ALL_LISTENERS: Final = 256
"""Most streams at a time."""
_LONGEST_PAUSE: Final = 2.0
"""Seconds between tries to reach a node."""
_LONGEST_UNKEPT: Final = 60.0
"""Seconds between tries to write what could not be written, while nothing is new."""

_log = logging.getLogger(__name__)

Request = node_pb2.WatchRevocationsRequest
Response = node_pb2.WatchRevocationsResponse


class Telling:
    """Tells whoever listens the lists that count here."""

    def __init__(self, lists: RevocationList | ShortLives, clock: Clock) -> None:
        """Where the zone has no lists, listeners hear only that the node is there."""
        self._lists = lists
        self._clock = clock
        self._each = Streams(LISTENERS)
        self._all = Streams(ALL_LISTENERS)
        self._news = asyncio.Event()
        self._stopping = False

    def tell(self) -> None:
        """Let listeners hear now, and not at the next look."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def stop(self) -> None:
        """End every stream, so that a drain need not wait for it."""
        self._stopping = True
        self.tell()

    async def watch(self, request: Request, call: Call) -> AsyncIterator[Response]:
        """Tell at once and whenever they change; raises `ResourceExhausted` STREAMS_TOO_MANY."""
        with self._all.counted(""), self._each.counted(call.caller.spiffe_id):
            known, whole, last = b"", 0.0, 0.0
            while not self._stopping:
                news, now = self._news, time.monotonic()
                lists = self._published()
                if lists != known or now - whole >= AGAIN:
                    known, whole, last = lists, now, now
                    yield Response(lists=lists)
                elif now - last >= HEARTBEAT:
                    last = now
                    yield Response()
                await within(news, LOOK_EVERY.total_seconds())

    def _published(self) -> bytes:
        return self._lists.published(self._clock()) if isinstance(self._lists, RevocationList) else b""


class Hearing:
    """Hears of lists from other nodes, if there are any to listen to, and keeps the newest that are known."""

    def __init__(self, lists: RevocationList, telling: Telling, kept: Path, clock: Clock) -> None:
        """`kept` is where lists are written to; where that cannot be, they are held in memory."""
        self._lists = lists
        self._telling = telling
        self._kept = kept
        self._clock = clock
        self._written = self._tried = b""
        self._pause, self._again = LOOK_EVERY.total_seconds(), 0.0
        self._complained = False
        self._news = asyncio.Event()
        self._stopping = False
        self._keeping: asyncio.Task[None] | None = None
        self._sources: list[_Source] = []
        self.heard: Counter[Brought] = Counter()
        """What became of the lists that came, but for those that were known."""

    def follow(self, name: str, client: Client) -> None:
        """Listen to a node, `agency/system`, from the start on."""
        self._sources.append(_Source(name, client, self))

    def observe(self, telemetry: Telemetry) -> None:
        """Show what is heard."""
        name, text = "hutong_revocations_followed", "Whether a node is heard that tells revocation lists"
        for source in self._sources:
            telemetry.gauge(name, text, partial(getattr, source, "connected"), node=source.name)
        name, text = "hutong_revocations_heard", "Revocation lists from other nodes, by what became of them"
        for outcome in (Brought.TAKEN, Brought.OLDER, Brought.STRANGE, Brought.FORGED):
            telemetry.counter(name, text, partial(self.heard.__getitem__, outcome), outcome=outcome.value)

    def start(self) -> None:
        """Recall what was known before, and listen."""
        recall(self._lists, self._kept, self._clock)
        self._keeping = asyncio.create_task(self._keep(), name="revocations-kept")
        for source in self._sources:
            source.start()

    async def stop(self) -> None:
        """Listen no more."""
        for source in self._sources:
            await source.stop()
        self._stopping = True
        self._news.set()
        if self._keeping is not None:
            await self._keeping

    async def take(self, name: str, lists: bytes) -> None:
        """Take in lists that a node told; raises `Unavailable` REVOCATION_LIST_FORGED where one is."""
        found = self._lists.take(lists, self._clock())
        del found[Brought.KNOWN]
        self.heard.update(found)
        if found[Brought.TAKEN]:
            self._telling.tell()
            self._news.set()
            _log.info("A newer revocation list came", extra={"fields": {"node": name}})
        if found[Brought.FORGED]:
            raise Unavailable(Reason.REVOCATION_LIST_FORGED, f"{name} told a revocation list that nobody signed")

    async def _keep(self) -> None:
        """Write what is known whenever that has changed, and once more at the stop."""
        while not self._stopping:
            await self._look()
            await within(self._news, LOOK_EVERY.total_seconds())
            self._news.clear()
        self._again = 0.0
        await self._look()

    async def _look(self) -> None:
        try:
            newest = self._lists.newest(self._clock())
            if newest == self._written or (newest == self._tried and time.monotonic() < self._again):
                return
            self._tried = newest
            self._written = await asyncio.to_thread(self._write)
            self._pause = LOOK_EVERY.total_seconds()
        except Exception as error:
            # Whatever it is: what is known counts all the same, and the next try may do better.
            self._complain(error)
            self._again = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_UNKEPT)

    def _write(self) -> bytes:
        """Write what is known, in a thread of its own; gives that. Raises `OSError`."""
        now = self._clock()
        before = self._kept.read_bytes() if self._kept.exists() else b""
        # Of what could not be verified at the start, as the roots were not there yet, nothing must get lost; nor of
        # what still cannot.
        strange = self._lists.strange(before, now)
        self._lists.take(before, now, bounded=False)
        newest = self._lists.newest(now)
        write_atomically(self._kept, newest + strange)
        return newest

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            problem, mistake = (error.strerror, None) if isinstance(error, OSError) else (type(error).__name__, error)
            fields = {"file": str(self._kept), "problem": str(problem)}
            message = "Revocation lists are held in memory only, until a restart"
            _log.warning(message, extra={"fields": fields}, exc_info=mistake)


class _Source(Following):
    """A node that is listened to."""

    found = "are heard"
    lost = "cannot be heard now"

    def __init__(self, name: str, client: Client, hearing: Hearing) -> None:
        super().__init__("Revocations", longest_pause=_LONGEST_PAUSE, node=name)
        self.name = name
        self._client = client
        self._hearing = hearing

    async def _follow(self) -> None:
        messages = self._client.stream(WATCH, Request(), Response, timeout=None)
        async with aclosing(cast("AsyncGenerator[Response]", messages)) as stream:
            while True:
                async with asyncio.timeout(SILENCE):
                    told = await anext(stream, None)
                if told is None:
                    return
                if told.lists:
                    await self._hearing.take(self.name, told.lists)
                self._heard()


def recall(lists: RevocationList, kept: Path, clock: Clock) -> None:
    """Take in what a node kept of what it knew; whatever else the file holds counts for nothing."""
    with contextlib.suppress(OSError, CertificateError):
        lists.take(kept.read_bytes(), clock(), bounded=False)
