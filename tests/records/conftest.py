"""Stores to test: every one that there is runs the same suite."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit.records import migrations
from services.kit.records.source import RecordSource
from services.kit.records.store import RecordStore
from services.kit.records.tables import derive
from tests.databases import Postgres
from tests.records.bed import COMMERCE, MIGRATIONS, Hand, Legacy, open_store, put


@dataclass(frozen=True, slots=True)
class Bed:
    """A source and the way to fill it."""

    source: RecordSource
    put: Callable[..., Awaitable[object]]


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with commerce's tables, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "store.db"
    migrations.upgrade(f"sqlite:///{path}", MIGRATIONS)
    return path


@pytest.fixture(scope="session")
def migrated_database(postgres_server: Postgres) -> Iterator[str]:
    """A PostgreSQL database with commerce's tables, used by one test after the other."""
    with postgres_server.fresh() as url:
        migrations.upgrade(url, MIGRATIONS)
        yield url


@pytest.fixture
def migrated_sqlite(sqlite_url: str, migrated_file: Path) -> str:
    shutil.copy(migrated_file, sqlite_url.partition(":///")[2])
    return sqlite_url


@pytest.fixture
def migrated_postgres(postgres_server: Postgres, migrated_database: str) -> str:
    tables = ", ".join(derive(COMMERCE).metadata.tables)
    postgres_server.execute(
        f"TRUNCATE {tables}",
        "INSERT INTO change_clock VALUES (1, 0, NULL)",
        "INSERT INTO inbox_clock VALUES (1, 0)",
        database=sa.make_url(migrated_database).database,
    )
    return migrated_database


@pytest.fixture(params=["sqlite", "postgres"])
def migrated_url(request: pytest.FixtureRequest) -> str:
    """URL of a database with commerce's tables, in each of the engines in turn."""
    url: str = request.getfixturevalue(f"migrated_{request.param}")
    return url


@pytest.fixture
async def store(migrated_url: str, clock: Hand) -> AsyncIterator[RecordStore]:
    """An empty store of commerce, in SQLite and in PostgreSQL."""
    opened = await open_store(migrated_url, clock)
    yield opened
    await opened.close()


@pytest.fixture(params=["sqlite", "postgres", "live"])
async def bed(request: pytest.FixtureRequest, clock: Hand) -> AsyncIterator[Bed]:
    """Everything that satisfies `RecordSource`."""
    if request.param == "live":
        legacy = Legacy()

        async def fill(*messages: Message) -> None:
            legacy.put(*messages)

        yield Bed(legacy.source(clock), fill)
        return
    opened = await open_store(request.getfixturevalue(f"migrated_{request.param}"), clock)
    yield Bed(opened, lambda *messages: put(opened, *messages))
    await opened.close()
