"""The migrations give exactly the tables that the code asks for, on both engines."""

from typing import Any

import sqlalchemy as sa
from alembic import autogenerate
from alembic.migration import MigrationContext

from services.kit.records import migrations
from services.kit.records.database import engine
from services.supervision import store
from services.supervision.node import MIGRATIONS
from services.supervision.tables import METADATA


def differences(url: str) -> list[Any]:
    reader = engine(url, writer=False)
    try:
        with reader.connect() as connection:
            assert store.last_change(connection)[0] == 0
            return list(autogenerate.compare_metadata(MigrationContext.configure(connection), METADATA))
    finally:
        reader.dispose()


def tables(url: str) -> set[str]:
    reader = engine(url, writer=False)
    try:
        with reader.connect() as connection:
            return set(sa.inspect(connection).get_table_names())
    finally:
        reader.dispose()


def test_the_tables_are_the_codes(any_url: str) -> None:
    assert migrations.upgrade(any_url, MIGRATIONS)
    migrations.check(any_url, MIGRATIONS)
    assert differences(any_url) == []


def test_down_and_up_again(any_url: str) -> None:
    migrations.upgrade(any_url, MIGRATIONS)
    migrations.downgrade(any_url, MIGRATIONS)
    assert tables(any_url) == {"alembic_version"}
    assert migrations.upgrade(any_url, MIGRATIONS)
    assert differences(any_url) == []
