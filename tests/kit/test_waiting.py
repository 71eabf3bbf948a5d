"""Waiting for an event ends when it comes, when time is up, and when nobody wants to wait any more."""

import asyncio

import pytest

from services.kit.waiting import within


async def test_it_says_whether_the_event_came() -> None:
    event = asyncio.Event()
    assert not await within(event, 0)
    assert not await within(event, 0.001)
    asyncio.get_running_loop().call_soon(event.set)
    assert await within(event, 3600)
    assert await within(event, 0)


@pytest.mark.parametrize("steps", range(5))
async def test_a_wait_that_is_called_off_as_the_event_comes_ends(steps: int) -> None:
    """However many steps lie between the two."""
    event = asyncio.Event()

    async def look_out() -> None:
        while True:
            if await within(event, 3600):
                event.clear()

    looking = asyncio.ensure_future(look_out())
    await asyncio.sleep(0)
    event.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    looking.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert looking.cancelled()
