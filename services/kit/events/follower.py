"""The receiver's side: follows a source for as long as the node runs, whatever becomes of the source meanwhile."""

import asyncio
import datetime as dt
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Final, cast

from hutong.api.exchange.v1 import event_pb2
from services.kit.client import Client
from services.kit.clock import Clock, system_clock
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.events.outbox import KEPT_AFTER
from services.kit.events.seam import Batch, Event, EventSink, EventSource
from services.kit.following import Following
from services.kit.lines import TRACEPARENT

_FOLLOW: Final = "/hutong.api.exchange.v1.EventService/Follow"
_LONGEST_PAUSE: Final = 2.0
"""Seconds between tries. Short, so that a source that comes back is heard at once; a try that fails costs little."""

_GONE_PAUSE: Final = 300.0
"""Seconds until a source that no longer has what comes next is asked for it again: it notes and logs each try."""

_SILENCE: Final = 35.0
"""Seconds without a word after which a stream is taken for dead: three heartbeats, and some."""

_log = logging.getLogger(__name__)


class Remote:
    """Another node's `EventService` as an `EventSource`."""

    def __init__(self, client: Client, node: str) -> None:
        """`node` is `agency/system` of the node that `client` calls, whose certificate proves it."""
        self._client = client
        self._node = node

    async def follow(self, audience: str, after: int) -> AsyncGenerator[Batch]:
        """Give the events for our own agency; the other side goes by our certificate. See `EventSource`."""
        request = event_pb2.FollowRequest(after=after)
        responses = self._client.stream(_FOLLOW, request, event_pb2.FollowResponse, timeout=None)
        async with aclosing(cast("AsyncGenerator[event_pb2.FollowResponse]", responses)) as stream:
            async for response in stream:
                yield Batch(tuple(read_events(response.events, self._node)), response.until)


def read_events(messages: Iterable[event_pb2.Event], source: str) -> Iterator[Event]:
    """Read events of a source, `agency/system`, as it was verified; what no event can be is left out and logged."""
    for message in messages:
        try:
            recorded_at = message.recorded_at.ToDatetime(dt.UTC)
        except ValueError:
            fields = {"source": source, "sequence": message.sequence}
            _log.error("An event was refused: no calendar has its moment", extra={"fields": fields})
            continue
        yield Event(
            event_id=message.event_id,
            sequence=message.sequence,
            audience=message.audience,
            kind=message.kind,
            key=message.key,
            recorded_at=recorded_at,
            payload=message.payload,
            # What was proved, not what the message says.
            source=source,
            traceparent=message.traceparent if TRACEPARENT.fullmatch(message.traceparent) else "",
        )


def _kept_after(error: HutongError) -> int:
    """Read from where on a source has everything; 0 where it does not say, or says no number."""
    said = error.metadata.get(KEPT_AFTER, "")
    return int(said) if re.fullmatch(r"[0-9]{1,18}", said) else 0


class Follower(Following):
    """Carries events from a source into a sink, at least once and in order, for as long as it runs."""

    def __init__(
        self,
        node: str,
        audience: str,
        source: EventSource,
        sink: EventSink,
        on_new: Callable[[tuple[Event, ...]], None] | None = None,
        *,
        silence: float = _SILENCE,
        gone_pause: float = _GONE_PAUSE,
        clock: Clock = system_clock,
    ) -> None:
        """`node` names the source in the sink; `on_new` is told of what was kept, after the commit, at most once.

        `silence` and `gone_pause` are seconds.
        """
        super().__init__("Events", longest_pause=_LONGEST_PAUSE, source=node)
        self._node = node
        self._audience = audience
        self._source = source
        self._sink = sink
        self._on_new = on_new
        self._silence = silence
        self._gone_pause = gone_pause
        self._clock = clock
        self._known = clock()
        """Everything up to this moment is kept, by the source's clock where it said so."""
        self._lost: int = -1
        """After which sequence the source lacked something, once that was said."""
        self._ask_at = 0.0
        """When, by the monotonic clock, it is asked for that again."""

    def behind(self) -> float:
        """Say how many seconds ago everything was known; grows while nothing is heard, and between heartbeats."""
        return max(0.0, (self._clock() - self._known).total_seconds())

    async def _follow(self) -> None:
        after = await self._sink.position(self._node)
        if after == self._lost and time.monotonic() < self._ask_at:
            # Where somebody gives up what is gone, that shows in the position.
            raise FailedPrecondition(Reason.EVENTS_GONE, "the source said so, and is not asked again yet")
        try:
            async with aclosing(self._source.follow(self._audience, after)) as batches:
                while True:
                    async with asyncio.timeout(self._silence):
                        batch = await anext(batches, None)
                    if batch is None:
                        return
                    self._heard()
                    if batch.events or batch.until > after:
                        await self._keep(batch)
                        after = batch.until
                    # There may be more behind these; an empty batch says that there is not.
                    self._known = batch.events[-1].recorded_at if batch.events else self._clock()
        except FailedPrecondition as error:
            kept = _kept_after(error)
            fields = {"source": self._node, "after": after, "kept_after": kept}
            if error.reason is Reason.EVENTS_AHEAD:
                _log.error("A source's log began anew", extra={"fields": fields})
                # What is gone there was here before it went.
                await self._sink.rewind(self._node, min(kept, after))
            elif error.reason is Reason.EVENTS_GONE:
                self._ask_at = time.monotonic() + self._gone_pause
                if self._lost != after:
                    self._lost = after
                    _log.error("A source no longer has what comes next", extra={"fields": fields})
            raise

    async def _keep(self, batch: Batch) -> None:
        fresh = await self._sink.keep(self._node, batch)
        if fresh and self._on_new:
            self._on_new(fresh)
