"""The migrations give exactly the tables that the code asks for, on both engines."""

from typing import Any

import sqlalchemy as sa
from alembic import autogenerate
from alembic.migration import MigrationContext

from services.kit.events.outbox import add_tables
from services.kit.records import migrations
from services.kit.records.database import engine
from services.recognition.tables import METADATA
from tests.recognition.desk import MIGRATIONS


def whole() -> sa.MetaData:
    """The recognition service's tables, and those of its outbox."""
    metadata = sa.MetaData()
    for table in METADATA.tables.values():
        table.to_metadata(metadata)
    if "outbox" not in metadata.tables:
        add_tables(metadata)
    return metadata


def differences(url: str) -> list[Any]:
    reader = engine(url, writer=False)
    try:
        with reader.connect() as connection:
            return list(autogenerate.compare_metadata(MigrationContext.configure(connection), whole()))
    finally:
        reader.dispose()


def partial_indexes(url: str) -> dict[str, str]:
    """What the comparison does not look at: which rows an index has."""
    reader = engine(url, writer=False)
    try:
        with reader.connect() as connection:
            inspector = sa.inspect(connection)
            found = [i for t in inspector.get_table_names() for i in inspector.get_indexes(t)]
            return {
                str(i["name"]): str(where)
                for i in found
                for option, where in i.get("dialect_options", {}).items()
                if option.endswith("_where")
            }
    finally:
        reader.dispose()


def test_the_tables_are_the_codes(any_url: str) -> None:
    assert migrations.upgrade(any_url, MIGRATIONS)
    migrations.check(any_url, MIGRATIONS)
    assert differences(any_url) == []
    assert "closed_at IS NULL" in partial_indexes(any_url)["examination_open_uq"]


def test_down_and_up_again(any_url: str) -> None:
    migrations.upgrade(any_url, MIGRATIONS)
    migrations.downgrade(any_url, MIGRATIONS)
    assert migrations.revision(any_url) == ""
    assert migrations.upgrade(any_url, MIGRATIONS)
    assert differences(any_url) == []


def test_the_outbox_begins_at_its_first_event(any_url: str) -> None:
    migrations.upgrade(any_url, MIGRATIONS)
    reader = engine(any_url, writer=False)
    with reader.connect() as connection:
        assert connection.execute(sa.text("SELECT id, sequence FROM outbox_clock")).one() == (1, 0)
    reader.dispose()
