"""The index of subjects: sorted part by part, and it finds what one that is sorted whole would."""

import random

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.log import subjects
from services.kit.log.nodelog import MIGRATIONS, Erased
from services.kit.log.openings import Subject, seal
from services.kit.log.tables import PART, RECENT, SUBJECT
from services.kit.log.writer import Writer
from services.kit.records import migrations
from tests.databases import Postgres
from tests.log.bed import SIGNER, Clock, company, connected, draft, fill, opened, whole


def put(connection: sa.Connection, about: dict[Subject, set[int]], size: int) -> None:
    """Put an index as a log of that size has it."""
    rows = [(subject, index) for subject, indexes in about.items() for index in indexes]
    connection.execute(sa.delete(SUBJECT))
    connection.execute(sa.delete(RECENT))
    for table, complete in ((SUBJECT, True), (RECENT, False)):
        values = [
            {"scheme": scheme, "value": value, "index": index} | ({"part": index // PART} if complete else {})
            for (scheme, value), index in rows
            if (index // PART < size // PART) is complete
        ]
        if values:
            connection.execute(sa.insert(table), values)


INDEXES = st.one_of(st.integers(0, 3 * PART), st.integers(0, 3_000_000))


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_it_finds_what_one_that_is_sorted_whole_would(engine: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(f"{engine}_url")
    migrations.upgrade(url, MIGRATIONS)

    @settings(max_examples=30)
    @given(
        st.dictionaries(st.sampled_from([company(number) for number in range(4)]), st.sets(INDEXES, max_size=30)),
        st.integers(0, PART),
        st.one_of(st.none(), INDEXES),
        st.integers(1, 40),
    )
    def finds(about: dict[Subject, set[int]], more: int, before: int | None, limit: int) -> None:
        size = max((index for indexes in about.values() for index in indexes), default=0) + 1 + more
        with connected(url, writer=True) as connection:
            put(connection, about, size)
            for subject in (company(0), company(1), ("lei", company(0)[1])):
                end = size if before is None else before
                wanted = sorted((index for index in about.get(subject, ()) if index < end), reverse=True)
                assert subjects.find(connection, subject, before, limit) == wanted[:limit]
            assert sorted(subjects.erase(connection, company(0))) == sorted(about.get(company(0), ()))
            assert subjects.find(connection, company(0), None, 10) == []
            kept = about.get(company(1), set())
            assert subjects.find(connection, company(1), None, 100) == sorted(kept, reverse=True)

    finds()


@pytest.mark.parametrize("size", [PART - 1, PART, 2 * PART + 17])
async def test_complete_parts_are_sorted(any_url: str, size: int) -> None:
    """In batches of any size, across the end of a part and right before it."""
    migrations.upgrade(any_url, MIGRATIONS)
    writer, chance = Writer(any_url, SIGNER, Clock()), random.Random(size)
    about: dict[Subject, list[int]] = {}
    at = 0
    while at < size:
        count = min(chance.choice([1, 33, 700, 1500]), size - at)
        named = [[company(chance.randrange(50)), company(99)] for _ in range(count)]
        writer.write([seal(draft(at + number, each)) for number, each in enumerate(named)])
        for number, each in enumerate(named):
            for subject in each:
                about.setdefault(subject, []).insert(0, at + number)
        at += count
    writer.close()
    with connected(any_url) as connection:
        sorted_, recent = (connection.execute(sa.select(table.c.index)).scalars().all() for table in (SUBJECT, RECENT))
        # The batch that completes a part may bring entries of the next one along.
        assert len(sorted_) + len(recent) == 2 * size
        assert all(index >= size - size % PART for index in recent)
        for subject, indexes in about.items():
            assert subjects.find(connection, subject, None, size) == indexes
    async with opened(any_url) as log:
        assert await log.erase(*company(99)) == Erased(size)
        assert await log.find_subject(*company(99)) == []
        assert await log.find_subject(*company(7)) == about[company(7)][:200]


def _rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with connected(url) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


@pytest.mark.parametrize("size", [5, PART + 5])
async def test_an_index_that_was_sorted_whole_is_parted(any_url: str, size: int) -> None:
    """A log that was written before there were parts goes on."""
    async with opened(any_url) as log:
        await fill(log, size)
    migrations.downgrade(any_url, MIGRATIONS, "0003")
    before = _rows(any_url, "SELECT scheme, value FROM log_subject")
    assert sorted(before) == sorted(map(company, range(size)))
    async with opened(any_url) as log:
        for number in (0, 3, size - 1):
            assert await log.find_subject(*company(number)) == [number]
        await fill(log, 3)
        assert await log.find_subject(*company(2)) == [size + 2, 2]
    assert len(_rows(any_url, "SELECT part FROM log_part")) == size // PART * PART
    assert whole(any_url).size == size + 3


def test_what_a_node_left_unsorted_is_sorted_by_another(postgres_server: Postgres) -> None:
    """Two replicas: whichever completes a part sorts it, with what the other has written."""
    with postgres_server.fresh() as url:
        migrations.upgrade(url, MIGRATIONS)
        writers = [Writer(url, SIGNER, Clock()) for _ in range(2)]
        for number in range(3):
            writers[number % 2].write([seal(draft(at)) for at in range(1500)])
        for writer in writers:
            writer.close()
        with connected(url) as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(RECENT)).scalar() == 0
            assert subjects.find(connection, company(3), None, 10) == [3003, 1503, 3]
