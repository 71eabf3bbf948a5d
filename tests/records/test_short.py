"""Questions about one subject after another, as a busy department gets them: answered together, each by itself."""

import asyncio
import contextlib
import datetime as dt

import pytest
import sqlalchemy as sa

from services.kit.errors import FailedPrecondition, Reason
from services.kit.records.source import PreparedFetch, RecordQuery
from services.kit.records.store import RecordStore
from tests.databases import Postgres
from tests.records.bed import ENTERPRISE, START, Hand, condition, enterprise, names, open_store, put

MANY = 200


def prepared(store: RecordStore, **asked: object) -> PreparedFetch:
    query = RecordQuery(ENTERPRISE, subject=("cn.uscc", "of any"), **asked)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return store.prepare(query)


async def filled(store: RecordStore) -> None:
    await put(store, *(enterprise(f"E{number}", f"name {number}") for number in range(MANY)))


async def test_each_of_many_at_once_gets_its_own(store: RecordStore) -> None:
    await filled(store)
    asked = prepared(store)
    for _ in range(2):
        pages = await asyncio.gather(*(asked.fetch(f"E{number}") for number in range(MANY + 1)))
        assert [names(page.records) for page in pages[:-1]] == [[f"name {number}"] for number in range(MANY)]
        assert pages[-1].records == ()


async def test_a_prepared_question_gives_what_a_single_one_does(store: RecordStore, clock: Hand) -> None:
    await put(store, enterprise("A", "first"), enterprise("B", "other", region="110000"))
    clock.move()
    await put(store, enterprise("A", "second", status="REVOKED"))
    groups = ((condition("region_code = '350203'"),), (condition("reg_status = ACTIVE"), condition("name = 'first'")))
    for asked in ({}, {"filters": (condition("reg_status = ACTIVE"),)}, {"groups": groups}, {"groups": ()}):
        several = prepared(store, **asked)
        for subject in ("A", "B", "C", "A"):
            for as_of in (None, START, START - dt.timedelta(days=1), None):
                query = RecordQuery(ENTERPRISE, subject=("cn.uscc", subject), as_of=as_of, **asked)  # pyright: ignore[reportArgumentType]
                page = await several.fetch(subject, as_of=as_of)
                assert page == await store.fetch(query)
                assert all(record.recorded_at.tzinfo is dt.UTC for record in page.records)


async def test_who_waits_no_longer_costs_the_others_nothing(store: RecordStore) -> None:
    await filled(store)
    asked = prepared(store)
    await asked.fetch("E0")
    tasks = [asyncio.ensure_future(asked.fetch(f"E{number}")) for number in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, page in enumerate(found):
        if not isinstance(page, BaseException):
            assert names(page.records) == [f"name {number}"]
    assert not any(isinstance(page, BaseException) for page in found[1::2])


async def test_lost_connections_are_opened_again(
    migrated_postgres: str, postgres_server: Postgres, clock: Hand
) -> None:
    store, name = await open_store(migrated_postgres, clock), sa.make_url(migrated_postgres).database
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        await filled(store)
        asked = prepared(store)
        for _ in range(3):
            pages = await asyncio.gather(*(asked.fetch(f"E{number}") for number in range(MANY)))
            assert [names(page.records) for page in pages] == [[f"name {number}"] for number in range(MANY)]
            postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


async def test_a_failure_is_worded_as_ever(store: RecordStore, migrated_url: str) -> None:
    await put(store, enterprise("A"))
    asked = prepared(store)
    assert (await asked.fetch("A")).records

    def drop(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE enterprise RENAME TO elsewhere"))

    def restore(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO enterprise"))

    await store.write(drop)
    with pytest.raises(FailedPrecondition) as refused:
        await asked.fetch("A")
    assert refused.value.reason is Reason.STORE_NOT_MIGRATED
    await store.write(restore)
    assert (await asked.fetch("A")).records
