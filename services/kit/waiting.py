"""Waiting for something to happen, but not for ever."""

import asyncio


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, at most so many seconds; tells whether it came.

    Not with `asyncio.wait_for`: of Python 3.11 that swallows that its task was cancelled, where what it waits for comes
    at the same moment, and whoever waits for the task to end then waits for ever.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
