"""A scheduler in a process of its own, to be killed: says each case that it has attended to, once it has committed."""

import asyncio
import datetime as dt
import sys
from pathlib import Path

from tests.recognition.desk import Hand, build


def say(*words: object) -> None:
    sys.stdout.write(f"{' '.join(map(str, words))}\n")
    sys.stdout.flush()


async def main(url: str, folder: str, now: str) -> None:
    bed = build(url, Path(folder), Hand(dt.datetime.fromisoformat(now)))
    bed.cases.listeners.append(say)
    say("ready")
    while await bed.cases.tick():
        pass
    bed.database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
