"""A load that is killed at any moment and started again ends as if nothing had happened."""

from collections import Counter

import pytest

from services.kit.records import migrations
from services.kit.records.ingest import Duplicates, ingest
from services.kit.records.quarantine import Quarantine
from services.kit.records.source import RecordQuery
from services.kit.records.store import RecordStore
from tests.killable import KILLED, Killable
from tests.records.bed import COMMERCE, ENTERPRISE, MIGRATIONS, Hand, everything
from tests.records.loading import INFO, ROWS, load, rows

Held = tuple[list[tuple[str, int, bytes]], Counter[tuple[str, bytes, str]], int]


def killed(url: str, duplicates: Duplicates, until: int | None) -> None:
    """Load in a process of its own; kill it, without any warning to it, once it has read `until` rows."""
    process = Killable(load, url, duplicates)
    for line in process.said():
        if until is not None and int(line) >= until:
            process.kill()
    process.ended()
    assert process.code == (KILLED if until else 0)


async def held(store: RecordStore) -> Held:
    records = await everything(store, RecordQuery(ENTERPRISE, limit=200))
    entries = await Quarantine(store).entries(state=None, limit=1000)
    return (
        [(r.key, r.version, r.body) for r in records],
        Counter((e.position, e.original, e.reason) for e in entries),
        await store.last_seq(),
    )


@pytest.mark.parametrize("duplicates", list(Duplicates))
async def test_nothing_is_lost_or_doubled(
    migrated_url: str, sqlite_url: str, duplicates: Duplicates, clock: Hand
) -> None:
    other = sqlite_url.replace("store.db", "never-killed.db")
    for url in (migrated_url, other):
        migrations.upgrade(url, MIGRATIONS)
    async with RecordStore(other, COMMERCE, clock) as store:
        report = await ingest(store, rows(), INFO, duplicates=duplicates)
        expected = await held(store)
    assert report.read == ROWS
    assert len(expected[1]) == report.quarantined
    for until in (20, 500, 900):
        killed(migrated_url, duplicates, until)
    killed(migrated_url, duplicates, None)
    async with RecordStore(migrated_url, COMMERCE, clock) as store:
        assert await held(store) == expected
        again = await ingest(store, rows(), INFO, duplicates=duplicates)
        assert (again.read, again.loaded, again.quarantined) == (ROWS, 0, report.quarantined)
