"""Loads a synthetic source and says how far it is, in a process that tests kill (`tests.killable`)."""

import asyncio
from collections.abc import Iterator

from services.kit.records.ingest import Duplicates, Item, Report, ingest
from services.kit.records.runs import RunInfo
from services.kit.records.store import RecordStore
from tests.records.bed import COMMERCE, Bad, Good, enterprise

ROWS = 1500
INFO = RunInfo("registry", "commerce.Enterprise", "big.csv", "registry")


def rows() -> Iterator[Item]:
    """Every 50th row is no row, every 70th has the key of the one before it."""
    for n in range(ROWS):
        original = f"row {n % 100 if n % 50 == 0 else n}".encode()
        if n % 50 == 0:
            yield Bad(str(n), original, "COLUMN_COUNT", "too few")
        else:
            yield Good(str(n), original, enterprise(f"k{n - 1 if n % 70 == 0 else n:05}", f"name {n}"))


def load(url: str, duplicates: Duplicates) -> None:
    """Load all of it."""
    asyncio.run(_load(url, duplicates))


async def _load(url: str, duplicates: Duplicates) -> None:
    def tell(report: Report) -> None:
        print(report.read, flush=True)  # noqa: T201 - the parent reads it

    async with RecordStore(url, COMMERCE) as store:
        await ingest(store, rows(), INFO, duplicates=duplicates, progress=tell, batch=20)
