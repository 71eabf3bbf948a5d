"""The change stream; on every store."""

import asyncio
import datetime as dt

from services.kit.records.source import State
from services.kit.records.store import RecordStore
from tests.records.bed import COMMERCE, ENTERPRISE, START, Hand, condition, enterprise, names, open_store, put

A, B = "91350211M0000XUF47", "91350212M0000XUF48"


async def test_changes_come_in_the_order_they_were_recorded(store: RecordStore) -> None:
    await put(store, enterprise(B, "1"), enterprise(A, "2"))
    await put(store, enterprise(B, "3"))
    await store.revoke(ENTERPRISE, A, source_system="clerk")
    found = await store.changes(ENTERPRISE, 0)
    assert names(found.records) == ["1", "2", "3", "2"]
    assert [r.version for r in found.records] == [1, 1, 2, 2]
    assert found.records[-1].state is State.REVOKED
    assert found.last_seq == await store.last_seq() == 4


async def test_going_on_from_anywhere_gives_the_rest(store: RecordStore) -> None:
    await put(store, *(enterprise(f"k{n}", str(n)) for n in range(7)))
    for limit in (1, 2, 3, 7, 100):
        seen: list[str] = []
        after = 0
        while (found := await store.changes(ENTERPRISE, after, limit)).last_seq > after:
            after = found.last_seq
            seen += names(found.records)
        assert seen == [str(n) for n in range(7)]


async def test_nothing_new(store: RecordStore) -> None:
    found = await store.changes(ENTERPRISE, 0)
    assert (found.records, found.last_seq, found.as_of) == ((), 0, dt.datetime.fromtimestamp(0, dt.UTC))
    await put(store, enterprise(A))
    found = await store.changes(ENTERPRISE, 1)
    assert (found.records, found.last_seq, found.as_of) == ((), 1, START)


async def test_other_types_move_the_sequence_on(store: RecordStore) -> None:
    await put(store, enterprise(A))
    found = await store.changes(COMMERCE.get("commerce.Branch"), 0)
    assert (found.records, found.last_seq) == ((), 1)


async def test_filters_and_groups(store: RecordStore) -> None:
    await put(store, enterprise("k1", region="1"), enterprise("k2", region="2"), enterprise("k3", region="1"))
    one, first = condition("region_code = '1'"), condition("uscc = 'k1'")
    found = await store.changes(ENTERPRISE, 0, 10, (one,), ((first,), ()))
    assert [(r.key, r.truth) for r in found.records] == [("k1", (True, True)), ("k3", (False, True))]
    found = await store.changes(ENTERPRISE, 0, 1, (), ((condition("uscc = 'k3'"),),))
    assert [r.key for r in found.records] == ["k3"]
    found = await store.changes(ENTERPRISE, 0, 10, (), ())
    assert (found.records, found.last_seq) == ((), 3)


async def test_as_of_promises_only_what_was_given(store: RecordStore, clock: Hand) -> None:
    await put(store, *(enterprise(f"k{n}") for n in range(5)))
    moment = clock.move()
    await put(store, enterprise("k9"))
    found = await store.changes(ENTERPRISE, 0, 3)
    assert found.as_of < START  # the rest of that batch has the same moment
    assert (await store.changes(ENTERPRISE, 0, 10)).as_of == moment


async def test_two_writers_and_a_watcher_that_misses_nothing(
    migrated_url: str, store: RecordStore, clock: Hand
) -> None:
    other = await open_store(migrated_url, clock)
    rounds, size = 30, 4

    async def write(into: RecordStore, name: str) -> None:
        for n in range(rounds):
            # Half of the keys are each writer's own, half are fought over.
            own = [enterprise(f"{name}{k}", str(n)) for k in range(size)]
            shared = [enterprise(f"shared{k}", f"{name} {n}") for k in range(size)]
            await put(into, *own, *shared)

    async def watch() -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        after = 0
        while len(seen) < 2 * rounds * size * 2:
            found = await other.changes(ENTERPRISE, after, 7)
            assert found.last_seq >= after + len(found.records)
            seen += [(r.key, r.version) for r in found.records]
            after = found.last_seq
        assert after == await store.last_seq() == len(seen)
        return seen

    async with asyncio.timeout(30):
        _, _, seen = await asyncio.gather(write(store, "a"), write(other, "b"), watch())
    await other.close()
    versions: dict[str, list[int]] = {}
    for key, version in seen:
        versions.setdefault(key, []).append(version)
    # Each change once, each record's versions in order and without gaps, whoever wrote them.
    assert all(v == list(range(1, len(v) + 1)) for v in versions.values())
    assert {len(v) for k, v in versions.items() if k.startswith("shared")} == {2 * rounds}
