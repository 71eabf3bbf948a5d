"""Retention: an event leaves the outbox once every node that it is for is known to have had it for long enough.

Whoever asks for what comes after a sequence says that it has everything up to there, and is remembered with it
(`heard`). An agency's events go up to where the last of its nodes is; those of an agency that never asked stay, all of
them. What went is never passed over in silence: who asks for it is refused (`outbox.waiting`).

For long enough: so long that a younger backup of any of these nodes has it, too. So for each agency a mark is kept, up
to where everybody had everything, and when. What lies before it goes once the mark is old; then the next one is set. An
event may thus stay for twice as long as events are kept.

Two things guard against a node that is there and was not heard yet: nothing goes before an agency's first node was
heard for as long as events are kept, and nodes that are known from the config have to be heard, too.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from services.kit.clock import Clock
from services.kit.errors import HutongError
from services.kit.events import outbox
from services.kit.events.outbox import GONE, OUTBOX, READER
from services.kit.events.seam import Store
from services.kit.records import locks

_LOCK: Final = locks.key("outbox", "retention")
"""Held by who is heard and by who removes: between a node's word and what is done on it nothing comes."""
_BATCH: Final = 500
"""Most events that one transaction removes."""
_EVERY: Final = 3600.0
"""Seconds between looks."""

Leaving = Callable[[sa.Connection, str, Sequence[str]], None]
"""Is told, in the same transaction, of an agency's events that go, by their ids: what must be known of them stays."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reader:
    """A node that follows."""

    node: str
    """`agency/system`."""
    audience: str
    sequence: int
    """It has everything up to here."""
    first_at: dt.datetime
    heard_at: dt.datetime
    """When it was heard first, and last."""


def readers(connection: sa.Connection) -> list[Reader]:
    """List the nodes that ever followed, and were not forgotten, by name."""
    return [Reader(**row) for row in connection.execute(sa.select(READER).order_by(READER.c.node)).mappings()]


def forget(connection: sa.Connection, node: str) -> bool:
    """Forget a node that is no more, which would hold up for ever what goes; tells whether it was known."""
    locks.alone(connection, _LOCK)
    return bool(connection.execute(sa.delete(READER).where(READER.c.node == node)).rowcount)


def heard(connection: sa.Connection, node: str, after: int, now: dt.datetime) -> None:
    """Note that a node, `agency/system`, has everything for its agency up to a sequence, be it less than it had.

    What is not true of this log is not noted: whoever says so is refused.
    """
    audience = node.partition("/")[0]
    locks.alone(connection, _LOCK)
    if not outbox.gone(connection, audience) <= after <= outbox.last(connection):
        return
    said = {"sequence": after, "heard_at": now}
    if not connection.execute(sa.update(READER).where(READER.c.node == node).values(**said)).rowcount:
        connection.execute(sa.insert(READER).values(node=node, audience=audience, first_at=now, **said))
    # Who is back where it was before the mark may be backed up there again.
    connection.execute(sa.update(GONE).where(GONE.c.audience == audience, GONE.c.had > after).values(had=after))


def remove(
    connection: sa.Connection,
    before: dt.datetime,
    *,
    required: Collection[str] = (),
    leaving: Leaving | None = None,
    limit: int = _BATCH,
) -> int:
    """Remove some events that everybody had before a moment; tells how many, 0 if none.

    Of an agency with a node among `required` that was never heard nothing goes.
    """
    locks.alone(connection, _LOCK)
    for audience, of in _known(readers(connection), required).items():
        newest = _Mark(min(reader.sequence for reader in of), max(reader.heard_at for reader in of))
        kept = _mark(connection, audience, newest)
        # Where nobody was heard since, the newest is old, too.
        mark = newest if newest.had_at <= before else kept
        if max(mark.had_at, min(reader.first_at for reader in of)) > before:
            continue
        old = _old(connection, audience, mark.had, before, limit)
        if old:
            if leaving is not None:
                leaving(connection, audience, [row.event_id for row in old])
            _remove(connection, audience, old[-1].sequence)
            return len(old)
        connection.execute(sa.update(GONE).where(GONE.c.audience == audience).values(newest._asdict()))
    return 0


class _Mark(NamedTuple):
    """By then everybody had what comes up to here."""

    had: int
    had_at: dt.datetime


def _known(known: Sequence[Reader], required: Collection[str]) -> dict[str, list[Reader]]:
    """List the nodes of each agency, where that is known of all of them."""
    silent = {node.partition("/")[0] for node in set(required) - {reader.node for reader in known}}
    audiences = sorted({reader.audience for reader in known} - silent)
    return {audience: [reader for reader in known if reader.audience == audience] for audience in audiences}


def _mark(connection: sa.Connection, audience: str, newest: _Mark) -> _Mark:
    """Get an agency's mark; its first is the newest."""
    kept = connection.execute(sa.select(GONE.c.had, GONE.c.had_at).where(GONE.c.audience == audience)).one_or_none()
    if kept is None:
        connection.execute(sa.insert(GONE).values(audience=audience, sequence=0, **newest._asdict()))
        return newest
    return _Mark(kept.had, kept.had_at)


def _old(
    connection: sa.Connection, audience: str, until: int, before: dt.datetime, limit: int
) -> list[sa.Row[Any, Any, Any]]:
    """Find what was recorded before a moment; in its order, so that all that is gone lies before all that is there."""
    found = connection.execute(
        sa.select(OUTBOX.c.sequence, OUTBOX.c.event_id, OUTBOX.c.recorded_at)
        .where(OUTBOX.c.audience == audience, OUTBOX.c.sequence <= until)
        .order_by(OUTBOX.c.sequence)
        .limit(limit)
    )
    return list(takewhile(lambda row: row.recorded_at < before, found.all()))


def _remove(connection: sa.Connection, audience: str, until: int) -> None:
    connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.audience == audience, OUTBOX.c.sequence <= until))
    connection.execute(sa.update(GONE).where(GONE.c.audience == audience).values(sequence=until))


class Retention:
    """Looks after a node's outbox, for as long as the node runs; two replicas at once do no more than one."""

    def __init__(
        self,
        store: Store,
        keep: dt.timedelta,
        clock: Clock,
        *,
        required: Collection[str] = (),
        leaving: Leaving | None = None,
        every: float = _EVERY,
    ) -> None:
        """`keep` is how long everybody has had an event before it goes, at least; `every` is in seconds.

        For the others see `remove`.
        """
        self._store = store
        self._keep = keep
        self._clock = clock
        self._required = frozenset(required)
        self._leaving = leaving
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self.removed = 0
        """Events that this process has removed."""
        self._oldest: dt.datetime | None = None

    def oldest(self) -> float | None:
        """Say how many seconds ago the first of the events that are there was recorded, as of the last look."""
        return (self._clock() - self._oldest).total_seconds() if self._oldest else None

    async def heard(self, node: str, after: int) -> None:
        """See `heard`; raises `Unavailable` where the database cannot be reached."""
        await self._store.write(lambda connection: heard(connection, node, after, self._clock()))

    async def sweep(self) -> int:
        """Remove whatever may go, some at a time; gives how many went. Raises as a write does."""
        work = partial(
            remove, before=self._clock() - self._keep, required=self._required, leaving=self._leaving, limit=_BATCH
        )
        count = 0
        while some := await self._store.write(work):
            count += some
            self.removed += some
        self._oldest = await self._store.read(outbox.oldest)
        if count:
            _log.info("Events that everybody has were removed", extra={"fields": {"events": count}})
        return count

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run(), name="retention of events")

    async def stop(self) -> None:
        """Stop, once what is being removed is."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except HutongError as error:
                _log.warning("Events could not be removed", extra={"fields": {"reason": error.reason}})
            except Exception:
                # Whatever it is, the next look is due.
                _log.exception("Events could not be removed")
            await asyncio.sleep(self._every)
