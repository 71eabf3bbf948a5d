"""What a transport of events has to do, whatever carries them: the seam between outbox and inbox."""

import datetime as dt
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.kit.errors import InvalidArgument, Reason
from services.kit.records.database import T, Work

MAX_PAYLOAD: Final = 64 * 1024
"""Most bytes of an event's payload: codes and references, never documents."""

MAX_NAME: Final = 200
"""Most characters of an event's id, audience, kind and key."""

BATCH: Final = 100
"""Most events in one batch: with the largest payloads it still fits the largest answer a node accepts."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at one node and concerns an agency."""

    event_id: str
    sequence: int
    """Number in the source's log; grows, with gaps."""
    audience: str
    """The agency it is for."""
    kind: str
    """What happened, for example "result.revoked"."""
    key: str
    """What keeps its order, for example a case id."""
    recorded_at: dt.datetime
    payload: str
    """What there is to say, as JSON: codes and references only."""
    source: str = ""
    """The node it comes from, `agency/system`, as the receiver verified it; empty at the source itself."""
    traceparent: str = ""
    """W3C trace context of the call that it came of; empty where that was none, or nothing that can be one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events, in order."""

    events: tuple[Event, ...]
    """Empty in a heartbeat."""
    until: int
    """Everything for the audience up to here has been given."""


class EventSource(Protocol):
    """A place that events come from."""

    def follow(self, audience: str, after: int) -> AsyncGenerator[Batch]:
        """Give the events for an agency after a sequence: the waiting ones first, then each as it comes.

        The first batch comes at once, empty where nothing waits; later empty ones are heartbeats. Ends when the source
        stops. Raises `FailedPrecondition` EVENTS_AHEAD where the source's log ends before `after`: it is not the log
        that this number came from; EVENTS_GONE where it no longer has what comes after it. Both tell in `kept_after`
        from where on it has everything. Raises `Unavailable` where the source cannot be reached.
        """
        ...


class EventSink(Protocol):
    """A place that events are kept in."""

    async def position(self, source: str) -> int:
        """Get the sequence up to which everything of a source has been kept; 0 at first."""
        ...

    async def keep(self, source: str, batch: Batch) -> tuple[Event, ...]:
        """Keep a batch and its position, both or neither; gives the events that had not been kept before."""
        ...

    async def rewind(self, source: str, after: int = 0) -> None:
        """Go back, to a sequence, in a source whose log began anew; what was kept stays, and is known by its id."""
        ...


class Store(Protocol):
    """A database that runs work: `services.kit.records.database.Database`, or a store that lends its own."""

    async def read(self, work: Work[T]) -> T:
        """Run a read."""
        ...

    async def write(self, work: Work[T]) -> T:
        """Run a write as one transaction."""
        ...


def check(event_id: str, audience: str, kind: str, key: str, payload: str) -> None:
    """Check what an event is made of; raises `InvalidArgument`: EVENT_INVALID, EVENT_TOO_LARGE."""
    names: Sequence[tuple[str, str]] = (("id", event_id), ("audience", audience), ("kind", kind), ("key", key))
    for name, text in names:
        if len(text) > MAX_NAME or not text.isprintable() or (name != "key" and not text.strip()):
            raise InvalidArgument(
                Reason.EVENT_INVALID, f"an event's {name} is printable text of at most {MAX_NAME} characters"
            )
    if "\x00" in payload:
        raise InvalidArgument(Reason.EVENT_INVALID, "an event's payload is JSON, which has no NUL character")
    # Most payloads are short: they need not be encoded to be measured.
    if len(payload) * 4 > MAX_PAYLOAD and len(payload.encode()) > MAX_PAYLOAD:
        raise InvalidArgument(Reason.EVENT_TOO_LARGE, f"an event's payload has at most {MAX_PAYLOAD} bytes")
