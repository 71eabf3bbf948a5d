"""The inbox: what an agency's node has received, kept with how far it has got in each source's log.

Both are written in one transaction, so nothing is lost or doubled whenever a receiver is stopped, or two of its
replicas follow at once. Positions are given under the lock of one row, which is held until the commit: a system that
lists what came after a position never misses anything.
"""

import datetime as dt
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from services.kit.clock import Clock, system_clock
from services.kit.errors import HutongError, InvalidArgument, Reason
from services.kit.events import seam
from services.kit.events.seam import Batch, Event, Store
from services.kit.records import tables
from services.kit.telemetry import ids

_LOOKUP: Final = 500
"""Ids in one lookup; well below the parameters a statement may have."""

_log = logging.getLogger(__name__)

METADATA: Final = sa.MetaData()
"""An inbox by itself; its tables have these names in every database."""
_INBOX = tables.add_inbox(METADATA)
_EVENT, _POSITION, _CLOCK = _INBOX.event, _INBOX.position, _INBOX.clock
_END = sa.select(_CLOCK.c.position)
_MOVED = (
    sa.update(_POSITION).where(_POSITION.c.source == sa.bindparam("p_source")).values(sequence=sa.bindparam("p_after"))
)


@dataclass(frozen=True, slots=True)
class Received:
    """Some received events."""

    events: tuple[Event, ...]
    """In the order they were received."""
    next_after: int
    """Position of the last one, to go on after."""


class Inbox:
    """An agency's inbox: an `EventSink` that can be read."""

    def __init__(self, store: Store, agency: str, clock: Clock = system_clock) -> None:
        """`store` has the tables of `services.kit.records.tables.add_inbox`."""
        self._store = store
        self._agency = agency
        self._clock = clock

    async def position(self, source: str) -> int:
        """Get the sequence up to which everything of a source has been kept; 0 at first."""
        return await self._store.read(lambda c: _position(c, source) or 0)

    async def keep(self, source: str, batch: Batch) -> tuple[Event, ...]:
        """Keep a batch and its position, both or neither; gives the events that had not been kept before.

        What is not for this agency, or could not have been put into an outbox, is left out and logged: a source that
        errs in one event must not hold up the others.
        """
        sound = tuple(event for event in batch.events if self._sound(source, event))
        return await self._store.write(lambda c: _keep(c, source, sound, batch.until, self._clock()))

    async def rewind(self, source: str, after: int = 0) -> None:
        """Go back, to a sequence, in a source whose log began anew; what was kept stays, and is known by its id."""
        await self._store.write(lambda c: c.execute(_MOVED, {"p_source": source, "p_after": after}))

    async def list(self, after: int = 0, limit: int = 20, *, kind: str = "", key: str = "") -> Received:
        """List what was received after a position, the oldest first; empty `kind` and `key` mean all."""
        select = sa.select(_EVENT).where(_EVENT.c.position > after).order_by(_EVENT.c.position).limit(limit)
        if kind:
            select = select.where(_EVENT.c.kind == kind)
        if key:
            select = select.where(_EVENT.c.key == key)
        rows = await self._store.read(lambda c: c.execute(select).mappings().all())
        events = tuple(self._event(dict(row)) for row in rows)
        return Received(events, rows[-1]["position"] if rows else after)

    def _event(self, row: dict[str, Any]) -> Event:
        del row["position"], row["received_at"]
        return Event(audience=self._agency, **row)

    def _sound(self, source: str, event: Event) -> bool:
        try:
            seam.check(event.event_id, event.audience, event.kind, event.key, event.payload)
            if event.audience != self._agency:
                raise InvalidArgument(Reason.EVENT_INVALID, "the event is for another agency")
            if not isinstance(json.loads(event.payload), dict):
                raise InvalidArgument(Reason.EVENT_INVALID, "an event's payload is a JSON object")
        except HutongError as error:
            reason: str = error.reason
        except (ValueError, RecursionError):
            reason = Reason.EVENT_INVALID
        else:
            return True
        fields = {"source": source, "sequence": event.sequence, "reason": reason, **ids(event.traceparent)}
        _log.error("An event was refused", extra={"fields": fields})
        return False


def resume(connection: sa.Connection, source: str, after: int) -> int:
    """Go on in a source's log after a sequence, giving up what comes before it; never back. Gives where it then is."""
    reached = _position(connection, source)
    if reached is None:
        connection.execute(sa.insert(_POSITION).values(source=source, sequence=after))
    elif after > reached:
        connection.execute(_MOVED, {"p_source": source, "p_after": after})
    return max(reached or 0, after)


def _position(connection: sa.Connection, source: str) -> int | None:
    return connection.execute(sa.select(_POSITION.c.sequence).where(_POSITION.c.source == source)).scalar()


def _keep(
    connection: sa.Connection, source: str, events: Sequence[Event], until: int, now: dt.datetime
) -> tuple[Event, ...]:
    # The lock first: of two followers the second sees what the first has kept.
    end = int(connection.execute(_END.with_for_update()).scalar_one())
    fresh = _fresh(connection, source, events)
    if fresh:
        rows = [
            {
                "position": position,
                "source": source,
                "sequence": event.sequence,
                "event_id": event.event_id,
                "kind": event.kind,
                "key": event.key,
                "recorded_at": event.recorded_at,
                "received_at": now,
                "payload": event.payload,
            }
            for position, event in enumerate(fresh, end + 1)
        ]
        connection.execute(sa.insert(_EVENT), rows)
        connection.execute(sa.update(_CLOCK).values(position=end + len(rows)))
    reached = _position(connection, source)
    if reached is None:
        connection.execute(sa.insert(_POSITION).values(source=source, sequence=until))
    elif until > reached:
        connection.execute(sa.update(_POSITION).where(_POSITION.c.source == source).values(sequence=until))
    return fresh


def _fresh(connection: sa.Connection, source: str, events: Sequence[Event]) -> tuple[Event, ...]:
    """Leave out what was kept before, or comes twice in this batch."""
    by_id: dict[str, Event] = {}
    for event in events:
        by_id.setdefault(event.event_id, event)
    ids, known = list(by_id), set[str]()
    for start in range(0, len(ids), _LOOKUP):
        some = _EVENT.c.event_id.in_(ids[start : start + _LOOKUP])
        known |= set(connection.execute(sa.select(_EVENT.c.event_id).where(_EVENT.c.source == source, some)).scalars())
    return tuple(event for event_id, event in by_id.items() if event_id not in known)
