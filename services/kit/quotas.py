"""How much one caller gets in a day: nobody empties a register by asking for one record at a time.

Answers and records are counted for whom they are for: where a gateway speaks for a caller, for that caller. What is
given is counted where it is given, before it leaves, so one process never gives more than the quota. All replicas of a
node add up what they gave in the database of the node's log, once a second: together they may exceed a quota by what
they give within one, and a process that is killed may forget as much.
"""

import asyncio
import datetime as dt
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import sqlalchemy as sa

from certs.spiffe import SpiffeId
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.config import QuotaSection
from services.kit.errors import HutongError, Reason, ResourceExhausted
from services.kit.log.facts import Facts
from services.kit.log.tables import QUOTA
from services.kit.records.inserts import insert_or_add
from services.kit.waiting import within

EVERY: Final = 1.0
"""Seconds between two times that replicas add up."""

KEPT: Final = dt.timedelta(days=7)
"""How long the counts of a day are kept."""

_AT_ONCE: Final = 500
"""Callers in one statement."""
_NONE: Final = QuotaSection()
_log = logging.getLogger(__name__)

T = TypeVar("T")


class Store(Protocol):
    """A database for all replicas of the node (`services.kit.records.database.Database`)."""

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a read."""
        ...

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a write as one transaction."""
        ...


@dataclass(slots=True)
class _Used:
    """What a caller was given today."""

    most_calls: float
    most_records: float
    calls: int = 0
    """Of all replicas, as far as this one knows."""
    records: int = 0
    new_calls: int = 0
    """Of these, those that the others do not know of yet."""
    new_records: int = 0
    told: bool = False
    """That it was all is in the program's log."""

    @property
    def up(self) -> bool:
        """There is nothing left."""
        return self.calls >= self.most_calls or self.records >= self.most_records

    @property
    def new(self) -> bool:
        """There is something that the others do not know of yet."""
        return bool(self.new_calls or self.new_records)


class Quotas:
    """The quotas of all callers. To be used in one event loop."""

    def __init__(
        self,
        usual: QuotaSection | None,
        others: Mapping[str, QuotaSection],
        store: Callable[[], Store],
        zone: dt.tzinfo,
        clock: Clock,
        home: str,
    ) -> None:
        """`usual` is of callers that are not among the `others`, which are by `agency/system` or `agency/*`.

        `store` gives the database, or raises `Unavailable`; days are those of `zone`. `home` is the node's own zone.
        """
        self._usual = usual or _NONE
        self._others = others
        self._store = store
        self._zone = zone
        self._clock = clock
        self._home = home
        self._used: dict[str, _Used] = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._begin(clock())

    async def start(self) -> None:
        """Take over what was given today, and begin to add up; raises `Unavailable` where the database is away."""
        day = self._day
        for who, calls, records in await self._store().read(lambda connection: _today(connection, day)):
            used = self._of(Caller.seen_from(self._home, SpiffeId.parse(who)))
            used.calls, used.records = calls, records
        self._task = asyncio.create_task(self._run(), name="quotas")

    async def stop(self) -> None:
        """Add up for the last time."""
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None

    @property
    def used_up(self) -> int:
        """How many callers have nothing left today."""
        return sum(used.up for used in list(self._used.values()))

    def check(self, caller: Caller) -> None:
        """Raise `ResourceExhausted` QUOTA_EXCEEDED where a caller has nothing left today, and say until when."""
        if self._clock() >= self._ends:
            self._begin(self._clock())
        used = self._used.get(caller.spiffe_id)
        if used is not None and (used.calls >= used.most_calls or used.records >= used.most_records):
            raise self._exceeded(caller, used)

    def spend(self, caller: Caller, facts: Facts) -> None:
        """Count what is about to be given; `caller` is the peer.

        Raises as `check` does where that is more than there is left: it is not given, then, and not counted.
        """
        who = facts.caller or caller
        self.check(who)
        used = self._used.get(who.spiffe_id) or self._of(who)
        records = 0
        for given in facts.disclosures:
            if given.mask is not None:
                records += given.rows
        if used.records + records > used.most_records:
            raise self._exceeded(who, used)
        used.records += records
        used.new_records += records
        # Once for a call, however many messages its answer has.
        if not facts.counted:
            facts.counted = True
            used.calls += 1
            used.new_calls += 1

    def _of(self, caller: Caller) -> _Used:
        quota = self._others.get(caller.path) or self._others.get(f"{caller.agency}/*") or self._usual
        calls = math.inf if quota.calls is None else quota.calls
        records = math.inf if quota.records is None else quota.records
        used = self._used[caller.spiffe_id] = _Used(calls, records)
        return used

    def _begin(self, now: dt.datetime) -> None:
        """Begin the day that a moment lies in. What of the last one is not added up yet matters to nobody any more."""
        local = now.astimezone(self._zone)
        self._day = local.date()
        self._ends = dt.datetime.combine(self._day + dt.timedelta(days=1), dt.time(), self._zone)
        self._used.clear()

    def _exceeded(self, caller: Caller, used: _Used) -> ResourceExhausted:
        calls = used.calls >= used.most_calls
        most, what = (used.most_calls, "answers") if calls else (used.most_records, "records")
        if not used.told:
            used.told = True
            fields = {"caller": caller.told, "quota": most, "of": what}
            _log.warning("A caller has used up its quota of the day", extra={"fields": fields})
        left = 0 if used.up else int(used.most_records) - used.records
        message = f"this caller gets {most:.0f} {what} a day, and has {left} left until {self._ends.isoformat()}"
        wait = math.ceil((self._ends - self._clock()).total_seconds())
        return ResourceExhausted(
            Reason.QUOTA_EXCEEDED, message, retry_after=f"{wait}s", until=self._ends.isoformat(), left=str(left)
        )

    async def _run(self) -> None:
        while not await within(self._stopping, EVERY):
            await self._add_up()
        await self._add_up()

    async def _add_up(self) -> None:
        """Tell the others what was given here, and learn what was given in all."""
        if self._clock() >= self._ends:
            self._begin(self._clock())
        fresh = [(who, used, used.new_calls, used.new_records) for who, used in self._used.items() if used.new]
        if not fresh:
            return
        day = self._day
        # In one order, so that no two replicas wait for each other.
        rows = sorted((who, calls, records) for who, _, calls, records in fresh)
        try:
            totals = await self._store().write(lambda connection: _add(connection, day, rows))
        except HutongError as error:
            # What is not added up is counted here all the same, and added the next time.
            if not self._failing:
                _log.warning("Quotas cannot be added up now", extra={"fields": {"reason": error.reason}})
            self._failing = True
            return
        self._failing = False
        for who, used, calls, records in fresh:
            used.new_calls -= calls
            used.new_records -= records
            used.calls = totals[who][0] + used.new_calls
            used.records = totals[who][1] + used.new_records


def _today(connection: sa.Connection, day: dt.date) -> Sequence[tuple[str, int, int]]:
    found = connection.execute(sa.select(QUOTA.c.caller, QUOTA.c.calls, QUOTA.c.records).where(QUOTA.c.day == day))
    return [(row.caller, row.calls, row.records) for row in found]


def _add(connection: sa.Connection, day: dt.date, rows: Sequence[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    """Add to the counts of a day; gives what they are then. Those of long ago are dropped."""
    connection.execute(sa.delete(QUOTA).where(QUOTA.c.day < day - KEPT))
    totals: dict[str, tuple[int, int]] = {}
    for some in (rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE)):
        values = [{"day": day, "caller": who, "calls": calls, "records": records} for who, calls, records in some]
        insert = insert_or_add(connection, QUOTA, values, ("calls", "records"))
        found = connection.execute(insert.returning(QUOTA.c.caller, QUOTA.c.calls, QUOTA.c.records))
        totals |= {row.caller: (row.calls, row.records) for row in found}
    return totals
