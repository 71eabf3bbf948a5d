"""Many deadlines on one timer: each thing is told of once, in its time, unless it was done before."""

import asyncio
import time
from itertools import pairwise

from services.kit.sessions.deadlines import TICK, Deadlines


async def test_what_is_not_done_in_time_is_told_of_once() -> None:
    told: list[tuple[str, float]] = []
    both = asyncio.Event()

    def expired(key: str) -> None:
        told.append((key, time.monotonic()))
        if len(told) == 2:
            both.set()

    deadlines = Deadlines(expired)
    start = time.monotonic()
    deadlines.add("late", start + 50 * TICK)
    done = deadlines.add("done", start + TICK)
    deadlines.add("soon", start + TICK)
    deadlines.discard("done", done)
    async with asyncio.timeout(5):
        await both.wait()
    assert [key for key, _ in told] == ["soon", "late"]
    for (_, at), due in zip(told, (TICK, 50 * TICK), strict=True):
        assert at >= start + due
    deadlines.close()


async def test_what_expires_may_set_the_next_deadline() -> None:
    times: list[float] = []
    ended = asyncio.Event()

    def expired(key: int) -> None:
        times.append(time.monotonic())
        if key:
            deadlines.add(key - 1, time.monotonic() + TICK)
        else:
            ended.set()

    deadlines = Deadlines(expired)
    deadlines.add(3, time.monotonic())
    async with asyncio.timeout(5):
        await ended.wait()
    assert len(times) == 4
    assert all(later - earlier >= TICK for earlier, later in pairwise(times))


async def test_what_is_closed_tells_nothing() -> None:
    told: list[str] = []
    deadlines, other = Deadlines(told.append), asyncio.Event()
    deadlines.add("never", time.monotonic())
    deadlines.close()
    later: Deadlines[str] = Deadlines(lambda _: other.set())
    later.add("later", time.monotonic() + TICK)
    async with asyncio.timeout(5):
        await other.wait()
    assert told == []
