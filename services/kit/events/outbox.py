"""The outbox: events that wait at their source, written in the transaction that makes them true.

Sequence numbers are taken under the lock of one row, which is held until the commit: whatever gets a greater number is
committed later. So a reader that has seen everything up to a number never misses one below it. Rows are never changed;
those that everybody has go in time (`services.kit.events.retention`), and who asks for one of these is refused.
"""

import asyncio
import datetime as dt
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.event import listens_for

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.events import seam
from services.kit.events.seam import BATCH, Batch, Event, Store
from services.kit.lines import traceparent
from services.kit.records.tables import UtcDateTime, text_type
from services.kit.waiting import within

_LOOKUP: Final = 500
"""Ids in one lookup; well below the parameters a statement may have."""

KEPT_AFTER: Final = "kept_after"
"""In what an error tells beside its reason: after which sequence everything for the audience is there."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be put into the outbox."""

    audience: str
    """The agency it is for; an event for several is several events."""
    kind: str
    key: str
    """What keeps its order, for example a case id."""
    payload: Mapping[str, Any]
    """Codes and references only: never a secret or personal data. As JSON at most `seam.MAX_PAYLOAD` bytes."""
    event_id: str = ""
    """By default a new one. One of the caller's own makes the event happen once, however often it is put, for as long
    as the outbox has it."""


def add_tables(metadata: sa.MetaData) -> tuple[sa.Table, sa.Table, sa.Table, sa.Table]:
    """Add the tables of an outbox to a database's: the outbox, its clock, who reads it, and what is gone from it."""
    outbox = sa.Table(
        "outbox",
        metadata,
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("event_id", text_type(), nullable=False),
        sa.Column("audience", text_type(), nullable=False),
        sa.Column("kind", text_type(), nullable=False),
        sa.Column("key", text_type(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.Column("payload", text_type(), nullable=False),
        # Empty by default: the version before, which may still run, knows nothing of it.
        sa.Column("traceparent", text_type(), nullable=False, server_default=""),
        sa.Index("outbox_event_uq", "event_id", unique=True),
        sa.Index("outbox_audience_ix", "audience", "sequence"),
    )
    clock = sa.Table(
        "outbox_clock",
        metadata,
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="outbox_clock_one_row"),
    )

    reader = sa.Table(
        "outbox_reader",
        metadata,
        sa.Column("node", text_type(), primary_key=True),
        sa.Column("audience", text_type(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("heard_at", UtcDateTime(), nullable=False),
    )
    gone = sa.Table(
        "outbox_gone",
        metadata,
        sa.Column("audience", text_type(), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        # Everybody had what comes up to here by then.
        sa.Column("had", sa.BigInteger(), nullable=False),
        sa.Column("had_at", UtcDateTime(), nullable=False),
    )

    # For tables that no migration creates; migrations insert the row themselves.
    @listens_for(clock, "after_create")
    def begin(_table: sa.Table, connection: sa.Connection, **_: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.execute(sa.insert(clock).values(id=1, sequence=0))

    return outbox, clock, reader, gone


METADATA: Final = sa.MetaData()
"""An outbox by itself; its tables have these names in every database."""
OUTBOX, _CLOCK, READER, GONE = add_tables(METADATA)
_SEQUENCE = sa.select(_CLOCK.c.sequence)
_WAITING = (
    sa.select(OUTBOX)
    .where(
        OUTBOX.c.audience == sa.bindparam("p_audience"),
        OUTBOX.c.sequence > sa.bindparam("p_after"),
        OUTBOX.c.sequence <= sa.bindparam("p_until"),
    )
    .order_by(OUTBOX.c.sequence)
    .limit(sa.bindparam("p_limit"))
)


def put(connection: sa.Connection, events: Sequence[NewEvent], now: dt.datetime) -> None:
    """Put events into the outbox, in the caller's transaction and in this order.

    Call it last: from here to the commit nobody else can put any, and whoever waited for another lock now could wait
    for somebody who waits for this one. After the commit, ring (`Outbox.ring`), and they are on their way at once.

    An event whose id is there already, with the same content, is left out; the trace of the call that is served goes
    with it, and is no part of its content. Raises `InvalidArgument`: EVENT_INVALID for
    what is not printable or no JSON, EVENT_TOO_LARGE, EVENT_ID_REUSED for an id that stands for something else.
    """
    if not events:
        return
    parent = traceparent()
    rows = [_row(event, now, parent) for event in events]
    sequence = int(connection.execute(_SEQUENCE.with_for_update()).scalar_one())
    # Only ids of the callers' own can be there already; under the lock nobody adds one in between.
    fresh = _fresh(connection, rows, [event.event_id for event in events if event.event_id])
    if fresh:
        numbered = [row | {"sequence": number} for number, row in enumerate(fresh, sequence + 1)]
        connection.execute(sa.insert(OUTBOX), numbered)
        connection.execute(sa.update(_CLOCK).values(sequence=sequence + len(fresh)))


def _row(event: NewEvent, now: dt.datetime, parent: str) -> dict[str, Any]:
    try:
        payload = json.dumps(dict(event.payload), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        payload.encode()
    except (TypeError, ValueError):
        # The cause stays unnamed: it may quote the payload.
        raise InvalidArgument(Reason.EVENT_INVALID, f"the payload of a {event.kind!r} event is no JSON") from None
    event_id = event.event_id or secrets.token_hex(16)
    seam.check(event_id, event.audience, event.kind, event.key, payload)
    return {
        "event_id": event_id,
        "audience": event.audience,
        "kind": event.kind,
        "key": event.key,
        "recorded_at": now,
        "payload": payload,
        "traceparent": parent,
    }


def _content(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return (row["audience"], row["kind"], row["key"], row["payload"])


def _fresh(connection: sa.Connection, rows: Sequence[dict[str, Any]], given: Sequence[str]) -> list[dict[str, Any]]:
    """Leave out what is there already, or comes twice here; `given` are the ids that may be known."""
    known: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(given), _LOOKUP):
        select = sa.select(OUTBOX).where(OUTBOX.c.event_id.in_(given[start : start + _LOOKUP]))
        known |= {row["event_id"]: _content(row) for row in connection.execute(select).mappings()}
    fresh: list[dict[str, Any]] = []
    for row in rows:
        content = known.get(row["event_id"])
        if content is None:
            fresh.append(row)
            known[row["event_id"]] = _content(row)
        elif content != _content(row):
            raise InvalidArgument(Reason.EVENT_ID_REUSED, "this event id stands for another event already")
    return fresh


def audiences(connection: sa.Connection, prefix: str) -> set[str]:
    """Name the agencies that there are events for whose ids, of their source's own, begin with `prefix` and a colon."""
    # By the index on ids; ";" comes right behind ":".
    begun = sa.and_(OUTBOX.c.event_id > f"{prefix}:", OUTBOX.c.event_id < f"{prefix};")
    return set(connection.execute(sa.select(OUTBOX.c.audience).where(begun)).scalars())


def last(connection: sa.Connection) -> int:
    """Get the sequence of the last event; everything up to it is committed."""
    return int(connection.execute(_SEQUENCE).scalar_one())


def oldest(connection: sa.Connection) -> dt.datetime | None:
    """Get when the first of the events that are there was recorded; None where there are none."""
    return connection.execute(sa.select(OUTBOX.c.recorded_at).order_by(OUTBOX.c.sequence).limit(1)).scalar()


def gone(connection: sa.Connection, audience: str) -> int:
    """Get the sequence up to which events for an agency are no longer there; 0 where all are."""
    return connection.execute(sa.select(GONE.c.sequence).where(GONE.c.audience == audience)).scalar() or 0


def waiting(connection: sa.Connection, audience: str, after: int, limit: int = BATCH) -> Batch:
    """Get the events for an agency after a sequence, at most `limit`, and how far that is.

    Raises `FailedPrecondition` EVENTS_GONE where some of them are no longer there.
    """
    # The end first: whatever comes while the rows are read lies behind it.
    until = last(connection)
    if until <= after:
        return Batch((), after)
    found = {"p_audience": audience, "p_after": after, "p_until": until, "p_limit": limit + 1}
    events = tuple(Event(source="", **row) for row in connection.execute(_WAITING, found).mappings())
    # Looked at last: what went before the rows were read shows here.
    if after < (lost := gone(connection, audience)):
        message = f"events up to {lost} are no longer kept here"
        raise FailedPrecondition(Reason.EVENTS_GONE, message, **{KEPT_AFTER: str(lost)})
    return Batch(events, until) if len(events) <= limit else Batch(events[:limit], events[limit - 1].sequence)


class Outbox:
    """A node's outbox as an `EventSource`, in the node's own process.

    What this process commits is on its way as soon as somebody rings; what another replica of the node commits is
    noticed by looking, once for all who follow.
    """

    def __init__(self, store: Store, *, poll: float = 0.2, heartbeat: float = 10.0) -> None:
        """`poll` and `heartbeat` are seconds."""
        self._store = store
        self._poll = poll
        self._heartbeat = heartbeat
        self._bell = asyncio.Event()
        self._stopping = False
        self._looking = asyncio.Lock()
        self._looked = 0.0
        self._end = 0

    def ring(self) -> None:
        """Wake who follows: something was committed. To be called in the event loop; calling it for nothing is fine."""
        self._bell.set()
        self._bell = asyncio.Event()

    def stop(self) -> None:
        """End what is being followed, so that a drain need not wait for it."""
        self._stopping = True
        self.ring()

    async def end(self) -> int:
        """Get the sequence of the last event there is; 0 where there is none yet."""
        return await self._store.read(last)

    async def gone(self, audience: str) -> int:
        """Get the sequence up to which events for an agency are no longer there; 0 where all are."""
        return await self._store.read(lambda connection: gone(connection, audience))

    async def follow(self, audience: str, after: int) -> AsyncGenerator[Batch]:
        """Give the events for an agency after a sequence; see `EventSource`."""
        if after > await self._store.read(last):
            message, kept = "this log ends before the sequence to go on after", str(await self.gone(audience))
            raise FailedPrecondition(Reason.EVENTS_AHEAD, message, **{KEPT_AFTER: kept})
        due = time.monotonic()
        while not self._stopping:
            # Taken before the look: what is committed after it rings this one.
            bell = self._bell
            batch = await self._store.read(partial(waiting, audience=audience, after=after))
            after = batch.until
            if batch.events or time.monotonic() >= due:
                due = time.monotonic() + self._heartbeat
                # What is for others must not show, not even as an empty batch at that moment.
                yield batch
            else:
                await self._news(bell, after, due)

    async def _news(self, bell: asyncio.Event, after: int, due: float) -> None:
        """Wait until there is something after a sequence, or a heartbeat is due."""
        while (left := due - time.monotonic()) > 0:
            if await within(bell, min(self._poll, left)) or await self._look() > after:
                return

    async def _look(self) -> int:
        """Look how far the log reaches, unless somebody just did."""
        async with self._looking:
            if time.monotonic() - self._looked >= self._poll / 2:
                end = await self._store.read(last)
                self._looked = time.monotonic()
                if end > self._end:
                    self._end = end
                    self.ring()
            return self._end
