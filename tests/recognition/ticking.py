"""A scheduler in a process that is killed: says each case that it has attended to, once it has committed."""

import asyncio
import datetime as dt
import sys
from pathlib import Path

from tests.recognition.desk import Hand, build


def say(*words: object) -> None:
    sys.stdout.write(f"{' '.join(map(str, words))}\n")
    sys.stdout.flush()


def tick(url: str, folder: Path, now: dt.datetime) -> None:
    """Tick until there is nothing left to do."""
    asyncio.run(_tick(url, folder, now))


async def _tick(url: str, folder: Path, now: dt.datetime) -> None:
    bed = build(url, folder, Hand(now))
    bed.cases.listeners.append(say)
    say("ready")
    while await bed.cases.tick():
        pass
    bed.database.close()
