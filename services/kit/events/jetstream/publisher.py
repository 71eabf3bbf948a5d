"""The source's side: publishes what is in the outbox, for each agency that the broker carries for.

How far it has got is read from the stream itself: the last statement there says so, and it is the publisher's own,
signed. A statement is taken by the broker only where it follows the one the publisher saw last, so of two replicas
that publish at once one is told that it was second; it then leaves the work to the other, until something waits for
longer than it should.

What is published is logged before, as the answer to the agency that it is for (`PUBLISH`): a broker does not say when
somebody reads, and from here on nobody but the broker decides. Each statement brings the receipt with it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final

from certs.spiffe import SpiffeId
from hutong.api.exchange.v1 import event_pb2
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.errors import HutongError, Unavailable
from services.kit.events.jetstream.broker import Broker, Connection, Limits, unavailable
from services.kit.events.jetstream.statement import seal, unseal
from services.kit.events.jetstream.way import Way
from services.kit.events.outbox import Outbox
from services.kit.events.seam import Batch, Event
from services.kit.events.service import EVENT, About, Why, to_proto
from services.kit.following import Following
from services.kit.log import receipts
from services.kit.log.facts import NOBODY
from services.kit.log.notes import Signer
from services.kit.rpc import Call, Recorder, Rpc, Shape
from services.kit.waiting import within

PUBLISH: Final = "/hutong.api.exchange.v1.EventService/Publish"
"""What stands as `rpc` in the log for what was given to a broker, which is no rpc."""

Record = Callable[[Caller, Sequence[Event], bytes], Awaitable[bytes]]
"""Logs an answer, serialized, with these events, to this one; gives its receipt, as the answer's last field."""

_MOST_BYTES: Final = 256 * 1024
"""Most bytes of events in one statement, but for a single event: well below what brokers take (1 MiB by default)."""
_LONGEST_PAUSE: Final = 2.0
"""Seconds between tries."""
_PATIENCE: Final = 2.0
"""Seconds that something waits before a replica that stands by publishes it."""
_LOOK: Final = 1.0
"""Seconds between looks whether the certificate changed."""
_BREATH: Final = 0.05
"""Seconds between beats that were asked for: whoever asks for more gets no more."""

_log = logging.getLogger(__name__)


def recorded(recorder: Recorder, about: About | None = None, why: Why | None = None) -> Record:
    """Make what logs what is published; `about` and `why` are those of `EventService`."""
    response = event_pb2.FollowResponse.DESCRIPTOR
    rpc = Rpc(PUBLISH, "", "", Shape.UNARY, event_pb2.FollowRequest, recorder.answered, receipts.number_of(response))

    async def record(reader: Caller, events: Sequence[Event], answer: bytes) -> bytes:
        call = Call(PUBLISH, reader, b"", None)
        if why is not None:
            call.facts.stated(why(reader))
        call.facts.told(EVENT, len(events), await about(events) if about else NOBODY)
        return await recorder.answered(call, rpc, answer)

    return record


class Publisher(Following):
    """Publishes for one agency, for as long as the node runs."""

    found, lost = "are published", "cannot be published now"

    def __init__(
        self,
        broker: Broker,
        identity: SpiffeId,
        reader: SpiffeId,
        outbox: Outbox,
        signer: Signer,
        record: Record,
        limits: Limits,
        clock: Clock,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """`identity` is this node's; `reader` is the node that reads for its agency, and that the log is told of.

        `signer` is of this node's log.
        """
        way = Way.of(identity, reader.agency)
        super().__init__("Events", longest_pause=_LONGEST_PAUSE, audience=way.audience)
        self._broker = broker
        self._way = way
        self._reader = Caller.of(reader)
        self._outbox = outbox
        self._signer = signer
        self._record = record
        self._limits = limits
        self._clock = clock
        self._patience = patience
        self._standing_by = False
        self._reached = 0
        self._until = 0
        self._known = clock()
        self.published = 0
        """Events that this process has published."""

    def behind(self) -> float:
        """Say how many seconds ago the broker had everything; grows while it is away, and between looks."""
        return max(0.0, (self._clock() - self._known).total_seconds())

    @property
    def audience(self) -> str:
        """The agency it publishes for."""
        return self._way.audience

    async def _follow(self) -> None:
        while await self._connected():
            _log.info("A broker is shown a new certificate", extra={"fields": {"audience": self.audience}})

    async def _connected(self) -> bool:
        """Publish over one connection until the outbox stops; tells whether to go on with another one."""
        async with self._broker.connect() as connection:
            place = await self._begin(connection)
            asked = asyncio.Event()

            async def ask(_data: bytes, _headers: Mapping[str, str] | None) -> None:
                asked.set()

            await connection.listen(self._way.asks, ask)
            tasks = [
                asyncio.create_task(work)
                for work in (self._publish(connection, place), self._answer(connection, asked), self._watch(connection))
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
                return not tasks[0].done()
            except asyncio.CancelledError:
                await self._farewell(connection)
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, connection: Connection) -> None:
        """Wait until the certificate was replaced; raises `Unavailable` where the connection is gone before."""
        while not self._broker.stale(connection):
            if await within(connection.closed, _LOOK):
                raise unavailable()

    async def _answer(self, connection: Connection, asked: asyncio.Event) -> None:
        """Tell whoever asks how far the stream reaches; and look whether there is more."""
        while True:
            await asked.wait()
            asked.clear()
            self._outbox.ring()
            await self._beat(connection)
            await asyncio.sleep(_BREATH)

    async def _publish(self, connection: Connection, place: int) -> None:
        async with aclosing(self._outbox.follow(self._way.audience, self._reached)) as batches:
            async for batch in batches:
                for part in _parts(batch, self._limit(connection)):
                    place = await self._carry(connection, place, part)
                await self._beat(connection)
                self._known = batch.events[-1].recorded_at if batch.events else self._clock()
                self._heard()
        await self._farewell(connection)

    async def _carry(self, connection: Connection, place: int, part: Batch) -> int:
        """Publish some events, unless somebody did already; gives the last place of the stream."""
        if part.events and self._standing_by:
            await asyncio.sleep(self._patience)
            place = await self._look(connection, place)
        fresh = tuple(event for event in part.events if event.sequence > self._reached)
        if fresh:
            answer = event_pb2.FollowResponse(
                events=[to_proto(event, self._way.source) for event in fresh], until=part.until
            ).SerializeToString()
            answer += await self._record(self._reader, fresh, answer)
            taken = await self._put(connection, place, self._reached, answer)
            self._standing_by = taken is None
            if taken is None:
                raise unavailable("somebody else published meanwhile")
            place, self._reached = taken, part.until
            self.published += len(fresh)
        self._until = max(self._until, self._reached, part.until)
        return place

    async def _put(self, connection: Connection, place: int, after: int, answer: bytes) -> int | None:
        """Have a statement kept next after a place; gives its own, or None where that is taken."""
        sealed = seal(self._way, after, answer, self._clock(), self._signer)
        return await connection.publish(self._way.events, sealed.data, sealed.headers, place)

    async def _beat(self, connection: Connection) -> None:
        """Say that the stream has everything up to what is in it, and that there was nothing since."""
        answer = event_pb2.FollowResponse(until=self._until).SerializeToString()
        sealed = seal(self._way, self._reached, answer, self._clock(), self._signer)
        await connection.say(self._way.beats, sealed.data, sealed.headers)

    async def _farewell(self, connection: Connection) -> None:
        """Say that nothing more comes: whoever listens need not wait for a silence to know."""
        with suppress(Unavailable):
            await connection.say(self._way.beats)

    async def _begin(self, connection: Connection) -> int:
        """Have the stream, and find where to go on; gives its last place."""
        await connection.make(self._way.stream, self._way.events, self._limits)
        self._reached = self._until = -1
        place = await self._look(connection, 0)
        end = await self._outbox.end()
        if self._reached > end:
            # What is in there is of a log that is no more: who has read it is told so by the source itself.
            _log.error("A stream is ahead of the log", extra={"fields": {"audience": self.audience}})
            await connection.purge(self._way.stream)
            self._reached = -1
        # A new stream, or one that lost everything, begins now: what came before is fetched from the source.
        begin = end
        if 0 <= self._reached < (gone := await self._outbox.gone(self._way.audience)):
            # It was away for so long that everybody has by now what is gone; what is left may be lacked by all.
            _log.error("A stream ends before what the log still has", extra={"fields": {"audience": self.audience}})
            self._reached, begin = -1, gone
        if self._reached < 0:
            answer = event_pb2.FollowResponse(until=begin).SerializeToString()
            taken = await self._put(connection, place, begin, answer)
            if taken is None:
                raise unavailable("somebody else published meanwhile")
            place, self._reached = taken, begin
        self._until = self._reached
        return place

    async def _look(self, connection: Connection, place: int) -> int:
        """Look how far the stream reaches, where it goes on after a place; gives its last one."""
        extent = await connection.extent(self._way.stream)
        if extent is None:
            raise unavailable("the stream is gone")
        _, last = extent
        kept = await connection.message(self._way.stream, self._way.events, last) if last > place else None
        if kept is not None:
            try:
                self._reached = unseal(self._way, kept.headers, kept.data, self._signer.verifier).until
            except HutongError as error:
                fields = {"audience": self.audience, "reason": error.reason}
                _log.error("What the broker holds was refused", extra={"fields": fields})
        return last

    def _limit(self, connection: Connection) -> int:
        return min(_MOST_BYTES, connection.max_payload // 2)


def _parts(batch: Batch, limit: int) -> Iterator[Batch]:
    """Cut a batch into what fits into one message each."""
    part: list[Event] = []
    size = 0
    for event in batch.events:
        more = to_proto(event).ByteSize()
        if part and size + more > limit:
            yield Batch(tuple(part), part[-1].sequence)
            part, size = [], 0
        part.append(event)
        size += more
    yield Batch(tuple(part), batch.until)
