"""Appends to a log and says what was acknowledged, until the process is killed (`tests.killable`)."""

import asyncio
import random
import sys

from services.kit.clock import system_clock
from tests.log.bed import draft, mask, node_log

TASKS = 16


def append(url: str, seed: int) -> None:
    """Append without end."""
    asyncio.run(_append(url, seed))


async def _append(url: str, seed: int) -> None:
    log = node_log(url, system_clock)
    await log.open()
    chance = random.Random(seed)

    async def one() -> None:
        while True:
            number = chance.randrange(1 << 32)
            if number % 5 == 0:
                log.text("mask", f"{number}", mask(number))
            receipt = await log.append(draft(number))
            # As an answer leaves a node: only now, and at once.
            sys.stdout.write(f"{receipt.SerializeToString().hex()}\n")
            sys.stdout.flush()

    await asyncio.gather(*(one() for _ in range(TASKS)))
