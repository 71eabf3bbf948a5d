"""The scheduler looks after what becomes due, whatever the store does, and stops when it is told to."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.kit.clock import system_clock
from services.kit.errors import Reason, Unavailable
from services.recognition.cases import Cases
from services.recognition.scheduler import Scheduler
from tests.databases import Postgres
from tests.recognition.desk import Bed, Hand, build, desk
from tests.recognition.test_cases import accepted

PATIENCE = 60
"""Seconds after which something that should have happened has not."""

OFTEN = dt.timedelta(milliseconds=5)
SELDOM = dt.timedelta(days=1)


class Heard(Cases):
    """Cases that say when they were looked at; their store can be away."""

    ticks: "asyncio.Queue[int]"
    away = False

    async def tick(self, now: dt.datetime | None = None) -> int:
        try:
            if self.away:
                raise Unavailable(Reason.STORE_UNAVAILABLE, "away")
            return await super().tick(now)
        finally:
            self.ticks.put_nowait(1)


def heard(bed: Bed) -> Heard:
    assert isinstance(bed.cases, Heard)
    if not hasattr(bed.cases, "ticks"):
        bed.cases.ticks = asyncio.Queue()
    return bed.cases


@pytest.fixture
async def any_bed(any_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    async with desk(any_url, tmp_path, kind=Heard) as made:
        heard(made)
        yield made


@pytest.fixture
async def bed(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    async with desk(sqlite_url, tmp_path, kind=Heard) as made:
        heard(made)
        yield made


async def until(bed: Bed, condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what the scheduler brings about, by looking after each of its own looks."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await heard(bed).ticks.get()


def reminded(bed: Bed, case_id: str, times: int) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        try:
            return (await bed.cases.get(case_id)).state.reminded == times
        except Unavailable:
            return False

    return condition


async def test_it_reminds_when_the_time_has_come(any_bed: Bed) -> None:
    case = await accepted(any_bed)
    async with Scheduler(any_bed.cases, any_bed.clock, OFTEN).running():
        await heard(any_bed).ticks.get()
        assert await reminded(any_bed, case.case_id, 0)()
        any_bed.clock.move(days=30)
        await until(any_bed, reminded(any_bed, case.case_id, 8))
    assert await any_bed.cases.next_due() is None


async def test_it_looks_when_it_is_woken(bed: Bed) -> None:
    case = await accepted(bed)
    scheduler = Scheduler(bed.cases, bed.clock, SELDOM)
    async with scheduler.running():
        await heard(bed).ticks.get()
        bed.clock.move(days=30)
        scheduler.wake()
        await until(bed, reminded(bed, case.case_id, 8))


class Shifted(Hand):
    """Real time, somewhere else."""

    shift = dt.timedelta()

    def __call__(self) -> dt.datetime:
        self.now = system_clock() + self.shift
        return self.now


async def test_it_waits_for_what_is_due_next_and_no_longer(sqlite_url: str, tmp_path: Path) -> None:
    """It looks once a day; and in the moment in which something becomes due."""
    clock = Shifted()
    async with desk(sqlite_url, tmp_path, clock, kind=Heard) as bed:
        heard(bed)
        case = await accepted(bed)
        due = (await bed.cases.head(case.case_id)).next_at
        assert due is not None
        clock.shift = due - dt.timedelta(milliseconds=100) - system_clock()
        async with Scheduler(bed.cases, clock, SELDOM).running():
            await until(bed, reminded(bed, case.case_id, 1))


async def test_it_goes_on_after_its_connections_broke(postgres_server: Postgres, tmp_path: Path) -> None:
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    with postgres_server.fresh() as url:
        async with desk(url, tmp_path, kind=Heard) as bed:
            heard(bed)
            case = await accepted(bed)
            async with Scheduler(bed.cases, bed.clock, OFTEN).running():
                for _ in range(10):
                    await heard(bed).ticks.get()
                    postgres_server.execute(f"{others} AND backend_type = 'client backend'")
                    bed.clock.move(days=3)
                await until(bed, reminded(bed, case.case_id, 8))


async def test_failures_are_counted_until_all_is_well(bed: Bed) -> None:
    scheduler = Scheduler(bed.cases, bed.clock, dt.timedelta(milliseconds=1))
    heard(bed).away = True
    async with scheduler.running():
        for number in range(1, 4):
            await heard(bed).ticks.get()
            assert scheduler.failures >= number - 1
        heard(bed).away = False

        async def well() -> bool:
            return scheduler.failures == 0

        await until(bed, well)


async def test_it_stops_at_once(bed: Bed) -> None:
    async with asyncio.timeout(PATIENCE):
        async with Scheduler(bed.cases, bed.clock, SELDOM).running():
            pass
        other = Scheduler(bed.cases, bed.clock, SELDOM)
        other.stop()
        await other.run()


async def test_two_replicas_do_it_once(any_bed: Bed) -> None:
    bed, twin = any_bed, build(any_bed.url, any_bed.folder, any_bed.clock, kind=Heard)
    heard(twin)
    cases = [await accepted(bed, subject=f"91350200M{n:09d}") for n in range(4)]
    async with Scheduler(bed.cases, bed.clock, OFTEN).running(), Scheduler(twin.cases, bed.clock, OFTEN).running():
        for _ in range(10):
            bed.clock.move(days=3)
            await heard(twin).ticks.get()
        for case in cases:
            await until(bed, reminded(bed, case.case_id, 8))
    twin.database.close()
    assert len(await bed.reminded()) == 8 * len(cases)
