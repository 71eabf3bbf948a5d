"""Versions, withdrawal, and answers as of an earlier moment; on every store."""

import asyncio
import datetime as dt

import pytest

from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from services.kit.records.source import Page, RecordQuery, State
from services.kit.records.store import Draft, Outcome, RecordStore
from tests.records.bed import COMMERCE, ENTERPRISE, START, Hand, condition, drafts, enterprise, keys, names, put, whole

A, B = "91350211M0000XUF47", "91350212M0000XUF48"
A_FOREIGN_KEY = COMMERCE.get("commerce.Shareholding")


async def the_one(store: RecordStore, as_of: dt.datetime | None = None) -> Page:
    return await store.fetch(RecordQuery(ENTERPRISE, subject=("cn.uscc", A), as_of=as_of))


async def test_a_correction_is_a_new_version(store: RecordStore, clock: Hand) -> None:
    assert await put(store, enterprise(A, "old")) == [Outcome.ADDED]
    later = clock.move()
    assert await put(store, enterprise(A, "new")) == [Outcome.CORRECTED]
    (record,) = (await the_one(store)).records
    assert (names([record]), record.version, record.state, record.recorded_at) == (["new"], 2, State.CORRECTED, later)


async def test_the_same_again_is_no_news(store: RecordStore, clock: Hand) -> None:
    await put(store, enterprise(A))
    seq = await store.last_seq()
    clock.move()
    assert await put(store, enterprise(A)) == [Outcome.UNCHANGED]
    assert await store.last_seq() == seq
    assert (await the_one(store)).records[0].recorded_at == START


async def test_what_was_known_then(store: RecordStore, clock: Hand) -> None:
    moments = [START]
    for n in range(4):
        await put(store, enterprise(A, f"name {n}"))
        moments.append(clock.move())
    assert [names((await the_one(store, m)).records) for m in moments] == [
        ["name 0"],
        ["name 1"],
        ["name 2"],
        ["name 3"],
        ["name 3"],
    ]
    assert (await the_one(store, START - dt.timedelta(microseconds=1))).records == ()


async def test_a_subject_that_changed_is_found_where_it_was(store: RecordStore, clock: Hand) -> None:
    await put(store, enterprise(A, region="1"))
    clock.move()
    await put(store, enterprise(A, region="2"))
    one, two = condition("region_code = '1'"), condition("region_code = '2'")
    assert await whole(store, filters=(one,)) == []
    assert await whole(store, filters=(two,)) == [A]
    assert await whole(store, filters=(one,), as_of=START) == [A]
    assert await whole(store, filters=(two,), as_of=START) == []


async def test_several_versions_in_one_batch(store: RecordStore) -> None:
    outcomes = await put(store, enterprise(A, "1"), enterprise(B), enterprise(A, "2"), enterprise(A, "2"))
    assert outcomes == [Outcome.ADDED, Outcome.ADDED, Outcome.CORRECTED, Outcome.UNCHANGED]
    (record,) = (await the_one(store)).records
    assert (record.version, names([record])) == (2, ["2"])
    assert names((await the_one(store, START)).records) == ["2"]
    assert names((await store.changes(ENTERPRISE, 0)).records) == ["1", f"Company {B}", "2"]


async def test_a_clock_that_goes_back_does_not_reorder_history(store: RecordStore, clock: Hand) -> None:
    await put(store, enterprise(A, "first"))
    clock.move(-3600)
    await put(store, enterprise(A, "second"))
    (record,) = (await the_one(store)).records
    assert names([record]) == ["second"]
    assert record.recorded_at > START
    assert names((await the_one(store, START)).records) == ["first"]


async def test_withdrawal(store: RecordStore, clock: Hand) -> None:
    await put(store, enterprise(A, "last known"), enterprise(B))
    clock.move()
    assert await store.revoke(ENTERPRISE, A, source_system="clerk") == 2
    assert await store.revoke(ENTERPRISE, A, source_system="clerk") == 2
    assert (await the_one(store)).records == ()
    assert await whole(store) == [B]
    assert await whole(store, revoked=True) == [A, B]
    assert await whole(store, as_of=START) == [A, B]
    (record,) = (await store.fetch(RecordQuery(ENTERPRISE, key=A))).records
    assert (record.state, record.version, record.source_system) == (State.REVOKED, 2, "clerk")
    assert names([record]) == ["last known"]


async def test_a_withdrawn_record_comes_back_only_with_news(store: RecordStore) -> None:
    await put(store, enterprise(A, "x"))
    await store.revoke(ENTERPRISE, A, source_system="clerk")
    assert await put(store, enterprise(A, "x")) == [Outcome.UNCHANGED]
    assert await whole(store) == []
    assert await put(store, enterprise(A, "y")) == [Outcome.CORRECTED]
    (record,) = (await the_one(store)).records
    assert (record.version, record.state) == (3, State.CORRECTED)


async def test_withdrawing_what_is_not_there(store: RecordStore) -> None:
    with pytest.raises(NotFound) as caught:
        await store.revoke(ENTERPRISE, A, source_system="clerk")
    assert caught.value.reason is Reason.RECORD_NOT_FOUND


async def test_a_batch_is_kept_whole_or_not_at_all(store: RecordStore) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await store.append(drafts(enterprise(A), enterprise("")))
    assert caught.value.reason is Reason.RECORD_INVALID
    assert await whole(store) == []
    assert await store.last_seq() == 0


@pytest.mark.parametrize("name", ["a\x00b", "厦" * 400])
async def test_a_value_no_index_can_hold(store: RecordStore, name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await put(store, enterprise(A, name))
    assert caught.value.reason is Reason.RECORD_INVALID


async def test_the_longest_value_an_index_can_hold(store: RecordStore) -> None:
    key = "".join(chr(0x4E00 + n * 7 % 20000) for n in range(341))  # 1023 bytes that do not compress
    assert await put(store, enterprise(key, "".join(reversed(key)))) == [Outcome.ADDED]


async def test_fact_time_is_the_drafts_where_it_has_one(store: RecordStore) -> None:
    moment = dt.datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=dt.timezone(dt.timedelta(hours=8)))
    await store.append([Draft(ENTERPRISE, enterprise(A), "registry", fact_time=moment)])
    (record,) = (await the_one(store)).records
    assert record.fact_time == moment
    assert record.fact_time is not None
    assert record.fact_time.utcoffset() == dt.timedelta()


async def test_pages_see_the_moment_of_the_first(store: RecordStore, clock: Hand) -> None:
    everyone = [f"k{n:02}" for n in range(20)]
    await put(store, *(enterprise(k, "before") for k in everyone))
    page = await store.fetch(RecordQuery(ENTERPRISE, limit=3))
    seen, rounds = list(page.records), 0
    while page.next_key is not None:
        rounds += 1
        # The clock stands still: only the order of commits keeps the pages apart from what comes now.
        await put(store, enterprise(f"k{rounds:02}x"), enterprise(everyone[-rounds], f"after {rounds}"))
        await store.revoke(ENTERPRISE, everyone[10 + rounds], source_system="clerk")
        page = await store.fetch(RecordQuery(ENTERPRISE, limit=3, after=page.next_key, as_of=page.as_of))
        seen += page.records
    assert [r.key for r in seen] == everyone
    assert set(names(seen)) == {"before"}


async def test_pages_while_another_writes(store: RecordStore) -> None:
    everyone = [f"k{n:03}" for n in range(100)]
    await put(store, *(enterprise(k, "0") for k in everyone))
    done = asyncio.Event()

    async def write() -> None:
        for n in range(1, 15):
            await put(store, *(enterprise(k, str(n)) for k in everyone))
        done.set()

    writing = asyncio.create_task(write())
    rounds = 0
    while not done.is_set() or not rounds:
        page = await store.fetch(RecordQuery(ENTERPRISE, limit=40))
        seen, moment = list(page.records), page.as_of
        while page.next_key is not None:
            page = await store.fetch(RecordQuery(ENTERPRISE, limit=40, after=page.next_key, as_of=moment))
            seen += page.records
        assert [r.key for r in seen] == everyone
        # Every batch writes all of them, so a moment in time shows one batch.
        assert len(set(names(seen))) == 1
        rounds += 1
    await writing


async def test_a_composite_key(store: RecordStore) -> None:
    holding = A_FOREIGN_KEY.message(uscc=A, holder_seq=7)  # pyright: ignore[reportCallIssue]
    await store.append([Draft(A_FOREIGN_KEY, holding, "registry")])
    page = await store.fetch(RecordQuery(A_FOREIGN_KEY, subject=("cn.uscc", A)))
    assert keys(page) == [f"{A}~7"]


async def test_history_survives_a_restart(migrated_url: str, clock: Hand, store: RecordStore) -> None:
    await put(store, enterprise(A, "old"))
    clock.move()
    await put(store, enterprise(A, "new"))
    await store.close()
    async with RecordStore(migrated_url, COMMERCE, clock) as again:
        await again.check_migrated()
        assert names((await the_one(again)).records) == ["new"]
        assert names((await the_one(again, START)).records) == ["old"]
        assert await again.last_seq() == 2


async def test_a_type_that_is_not_held(migrated_url: str, clock: Hand, store: RecordStore) -> None:
    async with RecordStore(migrated_url, COMMERCE.owned_by("nobody"), clock) as empty:
        with pytest.raises(FailedPrecondition) as caught:
            await empty.append(drafts(enterprise(A)))
    assert caught.value.reason is Reason.RECORD_TYPE_NOT_OWNED
