"""A process that appends to a log and says what was acknowledged, until it is killed: `URL SEED`."""

import asyncio
import random
import sys

from services.kit.clock import system_clock
from tests.log.bed import draft, mask, node_log

TASKS = 16


async def main(url: str, seed: int) -> None:
    log = node_log(url, system_clock)
    await log.open()
    chance = random.Random(seed)

    async def append() -> None:
        while True:
            number = chance.randrange(1 << 32)
            if number % 5 == 0:
                log.text("mask", f"{number}", mask(number))
            receipt = await log.append(draft(number))
            # As an answer leaves a node: only now, and at once.
            sys.stdout.write(f"{receipt.index} {receipt.leaf_hash.hex()}\n")
            sys.stdout.flush()

    await asyncio.gather(*(append() for _ in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
