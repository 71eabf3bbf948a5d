"""The receiver's side: what a broker brings from a source, made whole by the source itself.

Every statement says after which sequence it begins. Where that is later than what the receiver has, something is
missing, whatever became of it: expired, lost with the broker's disk, altered, or never published. Then the source is
followed directly up to there, and after that the broker again. So it is where the broker cannot be reached or is
silent; and where it says that the source knows less than we do, which only the source itself can explain.
"""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Final

from services.kit.clock import Clock
from services.kit.errors import FailedPrecondition, HutongError, Reason, Unavailable
from services.kit.events.follower import read_events
from services.kit.events.jetstream.broker import Broker, Connection, unavailable
from services.kit.events.jetstream.statement import Statement, unseal
from services.kit.events.jetstream.way import Way
from services.kit.events.seam import BATCH, Batch, EventSource
from services.kit.log.notes import VerifierKey
from services.kit.waiting import within

_QUIET: Final = 25.0
"""Seconds without a beat after which the source is asked directly: two beats, and some; less than a follower waits."""
_OLDEST_BEAT: Final = dt.timedelta(minutes=2)
"""A beat that is older says nothing of the source's health: clocks differ, but not by more."""
_FIRST_HOLD: Final = 1.0
_LONGEST_HOLD: Final = 30.0
"""Seconds that the source is followed directly before the broker is tried again, where it cannot be reached."""
_SURE: Final = 5.0
"""Seconds after a word of the source itself within which it is not asked whether its log began anew."""
_TELL: Final = 6 * 3600.0
"""Seconds after which the source is asked directly, though nothing is missing: it removes only what it was told that we
have (`retention`)."""
_FIRST_TELL: Final = 60.0
_ALL: Final = 1 << 63
_LOOK: Final = 1.0
"""Seconds between looks at the connection and the certificate."""

_log = logging.getLogger(__name__)


class _Stale(Exception):
    """The connection should be opened anew, with the certificate there is now."""


class _Ended(Exception):
    """The source says that it stops."""


class _Reading:
    """How far one receiver is, and what it has heard."""

    def __init__(self, after: int) -> None:
        self.after = after
        """What it has, up to here."""
        self.place = 1
        """Where in the stream it reads on."""
        self.news = asyncio.Event()
        self.ended = False
        """The source says that it stops."""
        self._beat: Statement | None = None
        self._asked = -_SURE

    def hear(self, beat: Statement) -> None:
        """Keep a beat in place of the one before it."""
        self._beat = beat
        self.news.set()

    def take(self) -> Statement | None:
        """Take the newest beat, once."""
        self.news.clear()
        beat, self._beat = self._beat, None
        return beat

    @property
    def sure(self) -> bool:
        """The source itself was heard just now: a beat that knows less is of a publisher that is not so far yet."""
        return time.monotonic() < self._asked + _SURE

    def asked(self, batch: Batch) -> Batch:
        """Note what the source itself gave."""
        self._asked = time.monotonic()
        return self.got(batch)

    def got(self, batch: Batch) -> Batch:
        """Note what is given on."""
        self.after = max(self.after, batch.until)
        return batch


class Carried:
    """What a source has for our agency, over a broker: an `EventSource`."""

    def __init__(
        self,
        broker: Broker,
        way: Way,
        key: Callable[[], VerifierKey],
        direct: EventSource,
        clock: Clock,
        *,
        quiet: float = _QUIET,
        hold: float = _FIRST_HOLD,
        tell: float = _TELL,
    ) -> None:
        """`key` finds the published key of the source's log; `direct` is the source itself; others are seconds."""
        self._broker = broker
        self._way = way
        self._key = key
        self._source = direct
        self._clock = clock
        self._quiet = quiet
        self._hold = hold
        self._tell_every = tell
        self._tell_at = time.monotonic() + min(tell, _FIRST_TELL)
        self.reached = False
        """Whether the broker is used now."""
        self.carried = 0
        """Events that came over the broker."""
        self.fetched = 0
        """Events that came from the source itself."""
        self.refused = 0
        """What the broker had that the source did not say."""

    async def follow(self, audience: str, after: int) -> AsyncGenerator[Batch]:
        """Give the events for our own agency; see `EventSource`. The way says which one that is."""
        del audience
        hold = self._hold
        reading = _Reading(after)
        while True:
            try:
                async with self._broker.connect() as connection, aclosing(self._over(connection, reading)) as batches:
                    async for batch in batches:
                        hold = self._hold
                        self._tell(reached=True)
                        yield batch
            except _Stale:
                continue
            except _Ended:
                return
            except Unavailable as error:
                if error.reason is not Reason.BROKER_UNAVAILABLE:
                    raise
            self._tell(reached=False)
            async with aclosing(self._directly(reading, seconds=hold)) as batches:
                async for batch in batches:
                    yield batch
            hold = min(hold * 2, _LONGEST_HOLD)

    def _tell(self, *, reached: bool) -> None:
        if reached != self.reached:
            self.reached = reached
            fields = {"source": self._way.source}
            if reached:
                _log.info("Events come over the broker", extra={"fields": fields})
            else:
                _log.warning("The broker cannot be used; events come from the source itself", extra={"fields": fields})

    async def _over(self, connection: Connection, reading: _Reading) -> AsyncGenerator[Batch]:
        """Follow over the broker, until that fails."""

        async def hear(data: bytes, headers: Mapping[str, str] | None) -> None:
            if not headers:
                reading.ended = True
                reading.news.set()
                return
            beat = self._verified(headers, data)
            if beat is not None and abs(self._clock() - beat.at) <= _OLDEST_BEAT:
                reading.hear(beat)

        # Heard before anything is read: what is published meanwhile is told of by a beat.
        await connection.listen(self._way.beats, hear)
        reading.place = await self._locate(connection, reading.after)
        await connection.say(self._way.asks)
        async with aclosing(self._kept(connection, reading, _ALL)) as batches:
            async for batch in batches:
                yield batch
        while True:
            async with aclosing(self._heed(connection, reading, await self._listened(connection, reading))) as batches:
                async for batch in batches:
                    yield batch

    async def _listened(self, connection: Connection, reading: _Reading) -> Statement | None:
        """Wait for the next beat; None where there is none for too long."""
        due = time.monotonic() + self._quiet
        while (left := due - time.monotonic()) > 0:
            if connection.closed.is_set():
                raise unavailable()
            if self._broker.stale(connection):
                raise _Stale
            if await within(reading.news, min(_LOOK, left)):
                if reading.ended:
                    raise _Ended
                return reading.take()
        return None

    async def _heed(self, connection: Connection, reading: _Reading, beat: Statement | None) -> AsyncGenerator[Batch]:
        """Give what a beat tells of; without one, what the source has."""
        if beat is not None and beat.after > reading.after:
            async with aclosing(self._kept(connection, reading, beat.after)) as batches:
                async for batch in batches:
                    yield batch
        if beat is None or beat.after > reading.after or (beat.until < reading.after and not reading.sure):
            # It is silent, or has lost what it was given, or knows less than we do.
            async with aclosing(self._directly(reading, beat.after if beat else 0)) as batches:
                async for batch in batches:
                    yield batch
        else:
            yield reading.got(Batch((), max(beat.until, reading.after)))
            if time.monotonic() >= self._tell_at:
                self._tell_at = time.monotonic() + self._tell_every
                async with aclosing(self._told(reading)) as batches:
                    async for batch in batches:
                        yield batch

    async def _told(self, reading: _Reading) -> AsyncGenerator[Batch]:
        """Tell the source how far we are, by asking it for more; where it is away there is time for that later."""
        try:
            async with aclosing(self._directly(reading)) as batches:
                async for batch in batches:
                    yield batch
        except FailedPrecondition:
            # What it no longer has, or began anew, only the source can say.
            raise
        except HutongError as error:
            _log.info("The source was not told what is here", extra={"fields": {"reason": error.reason}})

    async def _kept(self, connection: Connection, reading: _Reading, until: int) -> AsyncGenerator[Batch]:
        """Give what the stream has, up to a sequence at least; less where it ends before that."""
        while until > reading.after:
            kept = await connection.message(self._way.stream, self._way.events, reading.place)
            if kept is None:
                return
            reading.place = kept.place + 1
            said = self._verified(kept.headers, kept.data)
            if said is None:
                continue
            if said.after > reading.after:
                _log.info("The broker lacks events", extra={"fields": {"source": self._way.source}})
                async with aclosing(self._directly(reading, said.after)) as batches:
                    async for batch in batches:
                        yield batch
            if said.until > reading.after:
                events = tuple(e for e in read_events(said.events, self._way.source) if e.sequence > reading.after)
                self.carried += len(events)
                yield reading.got(Batch(events, said.until))

    async def _directly(self, reading: _Reading, until: int = 0, seconds: float = 0.0) -> AsyncGenerator[Batch]:
        """Follow the source itself up to a sequence, until it has nothing more, and so many seconds at least."""
        end = time.monotonic() + seconds
        done = False
        async with aclosing(self._source.follow(self._way.audience, reading.after)) as batches:
            while not done or time.monotonic() < end:
                try:
                    async with asyncio.timeout(end - time.monotonic() if done else None):
                        batch = await anext(batches, None)
                except TimeoutError:
                    return
                if batch is None:
                    return
                self.fetched += len(batch.events)
                done = batch.until >= until and len(batch.events) < BATCH
                yield reading.asked(batch)

    async def _locate(self, connection: Connection, after: int) -> int:
        """Find the place of the first statement that says more than we know."""
        way = self._way
        extent = await connection.extent(way.stream)
        if extent is None:
            return 1
        low, high = extent
        if low > high or await self._until(connection, high) <= after:
            return high + 1
        while low < high:
            middle = (low + high) // 2
            if await self._until(connection, middle) > after:
                high = middle
            else:
                low = middle + 1
        return low

    async def _until(self, connection: Connection, place: int) -> int:
        """Look how far the statement at a place of the stream, or the next one there is, reaches; -1 for a false one.

        A false one is passed by: what it hides is missed, and fetched.
        """
        kept = await connection.message(self._way.stream, self._way.events, place)
        said = self._verified(kept.headers, kept.data) if kept else None
        return said.until if said else -1

    def _verified(self, headers: Mapping[str, str] | None, data: bytes) -> Statement | None:
        try:
            return unseal(self._way, headers, data, self._key())
        except HutongError as error:
            self.refused += 1
            fields = {"source": self._way.source, "reason": error.reason}
            _log.error("What the broker brought was refused", extra={"fields": fields})
            return None
