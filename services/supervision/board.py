"""What is in force, in memory: looked up in the store whenever something changed, here or in another replica.

One task looks: at once when this process has committed something, and a few times a second for what others have. What
time alone ends is noticed by the same looks. Every change has a number of this process's own; whoever follows is told
what came after the one it has.
"""

import asyncio
import datetime as dt
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import sqlalchemy as sa

from services.kit.records.database import Database
from services.kit.waiting import within
from services.supervision import quota, store
from services.supervision.books import Authorization, Books
from services.supervision.events import HistoryBroken
from services.supervision.moments import Moments
from services.supervision.state import State
from services.supervision.store import Head

TOLD: Final = frozenset({State.ACTIVE, State.REVOKED, State.EXPIRED, State.EXHAUSTED})
"""States that nodes hear of: of what never came into force there is nothing to know."""

_KEPT: Final = 4096
"""Changes that are kept for who follows; who is further behind begins anew."""

_TIDY: Final = 60.0
"""Seconds between two looks for what may be forgotten."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """One authorization, as it stands since a change."""

    number: int
    authorization_id: str
    owners: frozenset[str]
    state: State | None
    """None where it does not verify, and nothing is known of it."""
    found: Authorization | None


class Board:
    """What is in force."""

    def __init__(self, database: Database, books: Books, moments: Moments, *, poll: float) -> None:
        """`poll` is in seconds."""
        self._database = database
        self._books = books
        self._moments = moments
        self._poll = poll
        self._active: dict[str, Change] = {}
        self._changes: deque[Change] = deque(maxlen=_KEPT)
        self._number = 0
        self._change = 0
        self._bell = asyncio.Event()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tidied = 0.0
        self.looked = 0.0
        """When the store was last looked at, on `time.monotonic`."""
        self.as_of = moments.now()
        """The moment of that look."""
        self.listeners: list[Callable[[Change], None]] = []

    @property
    def number(self) -> int:
        """Number of the last change."""
        return self._number

    @property
    def active(self) -> tuple[Change, ...]:
        """What is in force."""
        return tuple(self._active.values())

    def since(self, number: int) -> tuple[Change, ...] | None:
        """Give the changes after a number; None where they are not kept any more."""
        if number == self._number:
            return ()
        if not self._changes or self._changes[0].number > number + 1:
            return None
        return tuple(change for change in self._changes if change.number > number)

    async def open(self) -> None:
        """Load what is in force, and begin to look; raises `Unavailable` where the database is away."""
        now = self._moments.now()

        def work(connection: sa.Connection) -> tuple[int, list[tuple[Head, Authorization | None]]]:
            # The number first: what is committed while the rest is read comes again as a change.
            change, _ = store.last_change(connection)
            return change, [(head, self._read(connection, head)) for head in store.may_be_in_force(connection, now)]

        self._change, found = await self._database.read(work)
        for head, authorization in found:
            self._put(head, authorization, now)
        self._looked(now)
        self._task = asyncio.create_task(self._run(), name="authorizations")

    async def stop(self) -> None:
        """Stop looking."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._news.set()

    def ring(self) -> None:
        """Look at once: something was committed. To be called in the event loop."""
        self._bell.set()

    async def news(self, seconds: float) -> None:
        """Wait until there may be something new, or a look was made, at most so long."""
        await within(self._news, seconds)

    async def _run(self) -> None:
        while True:
            await within(self._bell, self._poll)
            self._bell.clear()
            try:
                await self._look()
                await self._tidy()
            except Exception:
                # Nobody is told anything then, not even that nothing is new: nodes find that out by the silence.
                _log.exception("Authorizations could not be looked at")

    async def _look(self) -> None:
        now = self._moments.now()
        while await self._database.read(self._behind, short=True):
            for head, authorization in await self._database.read(self._changed):
                self._put(head, authorization, now)
                self._change = max(self._change, head.change)
        over = [c for c in self._active.values() if c.found is not None and c.found.state(now) is not c.state]
        for change in over:
            if change.found is not None:
                self._tell(change.authorization_id, change.owners, change.found.state(now), change.found)
        if over:
            # What has expired stays expired, whatever becomes of the clock before the next start.
            await self._database.write(partial(store.remember, now=now))
        self._looked(now)

    def _behind(self, connection: sa.Connection) -> bool:
        change, latest = store.last_change(connection)
        self._moments.observe(latest)
        return change > self._change

    def _changed(self, connection: sa.Connection) -> list[tuple[Head, Authorization | None]]:
        return [(head, self._read(connection, head)) for head in store.changed(connection, self._change)]

    def _read(self, connection: sa.Connection, head: Head) -> Authorization | None:
        try:
            return self._books.read(connection, head)
        except HistoryBroken:
            return None

    def _put(self, head: Head, found: Authorization | None, now: dt.datetime) -> None:
        known = self._active.get(head.authorization_id)
        if found is None:
            if known is not None:
                self._tell(head.authorization_id, known.owners, None, None)
            return
        state = found.state(now)
        if state in TOLD and found.standing.active and (known is None or known.state is not state):
            self._tell(head.authorization_id, found.owners, state, found)

    def _tell(
        self, authorization_id: str, owners: frozenset[str], state: State | None, found: Authorization | None
    ) -> None:
        self._number += 1
        change = Change(self._number, authorization_id, owners, state, found)
        self._changes.append(change)
        if state is State.ACTIVE:
            self._active[authorization_id] = change
        else:
            self._active.pop(authorization_id, None)
        for listener in self.listeners:
            listener(change)

    def _looked(self, now: dt.datetime) -> None:
        self.looked, self.as_of = time.monotonic(), now
        self._news.set()
        self._news = asyncio.Event()

    async def _tidy(self) -> None:
        if time.monotonic() - self._tidied < _TIDY:
            return
        self._tidied = time.monotonic()
        now = self._moments.now()

        def work(connection: sa.Connection) -> None:
            store.forget_tokens(connection, now)
            quota.forget(connection, now)
            store.remember(connection, now)

        await self._database.write(work)
