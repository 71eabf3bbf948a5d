"""Every revision keeps to the rule of docs/operations/upgrade.md; and what is true of the one that came before it."""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from services.cli.rooms import rooms
from services.kit.errors import FailedPrecondition, Reason, Unavailable
from services.kit.events import outbox
from services.kit.log.nodelog import NodeLog
from services.kit.records import migrations
from services.kit.records.database import engine
from services.kit.records.store import RecordStore
from services.kit.records.writer import Draft
from services.supervision import node as supervision
from tests.exchange.mesh import ROOMS
from tests.exchange.records import RECORDS
from tests.log.bed import SIGNER, Clock, draft, opened, whole
from tests.state.bed import CUSTOMS_MIGRATIONS, LOG_MIGRATIONS, RECOGNITION_MIGRATIONS, execute, value
from tests.zone import now

FOLDERS = {room.agency: room.migrations for room in rooms().values()} | {
    "log": LOG_MIGRATIONS,
    "recognition": RECOGNITION_MIGRATIONS,
    "supervision": supervision.MIGRATIONS,
}
NUMBERED = [
    (name, path.name[:4])
    for name, folder in sorted(FOLDERS.items())
    for path in sorted((folder / "versions").glob("[0-9]*.py"))
]
LATER = [(name, revision) for name, revision in NUMBERED if revision != "0001"]

DECLARATION = ROOMS["customs"].catalogue().get("customs.Declaration")
DECLARED = [
    Draft(DECLARATION, message, "test") for message in RECORDS["customs"] if isinstance(message, DECLARATION.message)
]

_ADDS = (
    re.compile(r"CREATE TABLE (?P<table>\w+)"),
    re.compile(r"CREATE (UNIQUE )?INDEX \w+ ON (?P<on>\w+)"),
    re.compile(r"INSERT INTO (?P<into>\w+)"),
    re.compile(r"ALTER TABLE \w+ ADD COLUMN (?P<column>.*)"),
    re.compile(r"ALTER TABLE \w+ ALTER COLUMN \w+ DROP NOT NULL"),
)
_DROPS = r"DROP (TABLE|INDEX)|ALTER TABLE \w+ DROP "
_OURS = re.compile(r"alembic_version|pg_catalog|pg_advisory|^SET |^SELECT |^PRAGMA|^BEGIN", re.IGNORECASE)


def broken(statements: Sequence[str]) -> list[str]:
    """List the statements by which a schema no longer does for the version before."""
    made: set[str] = set()
    found: list[str] = []
    for statement in (" ".join(each.replace('"', "").split()) for each in statements):
        if _OURS.search(statement):
            continue
        match = next((m for pattern in _ADDS if (m := pattern.match(statement))), None)
        if match is None:
            found.append(statement)
            continue
        said = match.groupdict()
        if table := said.get("table"):
            made.add(table)
        unique = statement.startswith("CREATE UNIQUE") and said["on"] not in made
        # Rows of tables that the version before knows are for it to write.
        foreign = "into" in said and said["into"] not in made
        column = said.get("column", "")
        required = "NOT NULL" in column and "DEFAULT" not in column
        if unique or foreign or required:
            found.append(statement)
    return found


@contextmanager
def heard() -> Generator[list[str]]:
    """Hear every statement that is executed on a server: beside it, databases are made to see what they would hold."""
    found: list[str] = []

    def hear(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if connection.dialect.name == "postgresql":
            found.append(statement)

    event.listen(sa.Engine, "before_cursor_execute", hear)
    try:
        yield found
    finally:
        event.remove(sa.Engine, "before_cursor_execute", hear)


def before(revision: str) -> str:
    return f"{int(revision) - 1:04d}"


def step(folder: Path, revision: str, url: str) -> migrations.Step:
    return migrations.look(url, folder).steps[0]


@pytest.mark.parametrize(("name", "revision"), LATER)
def test_a_revision_only_adds_or_says_what_else_it_does(name: str, revision: str, postgres_url: str) -> None:
    """On PostgreSQL, where two versions run at once."""
    folder = FOLDERS[name]
    migrations.upgrade(postgres_url, folder, before(revision))
    said = step(folder, revision, postgres_url)
    assert said.revision == revision
    with heard() as statements:
        migrations.upgrade(postgres_url, folder, revision)
    assert statements
    keeps_the_rule(said, statements)


def keeps_the_rule(said: migrations.Step, statements: Sequence[str]) -> None:
    """Check that a revision does what it says of itself, and nothing else."""
    found = broken(statements)
    assert bool(found) == bool(said.fill or said.contract or said.stop), found
    for release, allowed in ((said.fill, r"UPDATE |INSERT INTO "), (said.contract, _DROPS)):
        if release:
            assert re.fullmatch(r"\d+\.\d+\.\d+", release)
            assert all(re.match(allowed, each) for each in found), found


def test_one_revision_needs_the_node_to_be_stopped() -> None:
    """It came before the rule; there is to be no other."""
    said = {
        (name, one.revision)
        for name, folder in FOLDERS.items()
        for one in migrations.look("sqlite:////nowhere/at/all.db", folder).steps
        if one.stop
    }
    assert said == {("log", "0004")}


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE outbox",
        "ALTER TABLE outbox DROP COLUMN kind",
        "ALTER TABLE outbox ADD COLUMN more TEXT NOT NULL",
        "ALTER TABLE outbox RENAME TO other",
        "ALTER TABLE outbox ALTER COLUMN kind TYPE BIGINT",
        "CREATE UNIQUE INDEX outbox_kind_uq ON outbox (kind)",
        "UPDATE outbox SET kind = ''",
        "INSERT INTO outbox VALUES (1)",
    ],
)
def test_what_the_version_before_does_not_bear(statement: str) -> None:
    assert broken(["CREATE TABLE more (id INTEGER)", statement]) == [statement]


def test_what_it_bears() -> None:
    added = ["CREATE TABLE more (id INTEGER)", "INSERT INTO more VALUES (1)", "CREATE UNIQUE INDEX m_uq ON more (id)"]
    columns = [
        "ALTER TABLE outbox ADD COLUMN a TEXT",
        "ALTER TABLE outbox ADD COLUMN b TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outbox ALTER COLUMN kind DROP NOT NULL",
    ]
    assert broken([*added, *columns, "CREATE INDEX outbox_kind_ix ON outbox (kind)"]) == []


# A rolling upgrade.


async def test_old_tables_under_new_code(any_url: str) -> None:
    """It does not start, and says what is pending; nothing was changed."""
    migrations.upgrade(any_url, LOG_MIGRATIONS, "0003")
    log = NodeLog(any_url, SIGNER, Clock())
    with pytest.raises(FailedPrecondition) as caught:
        await log.open()
    assert caught.value.reason is Reason.STORE_NOT_MIGRATED
    assert migrations.revision(any_url) == "0003"


async def test_new_tables_under_old_code(any_url: str, tmp_path: Path) -> None:
    """A program that knows three revisions does not start on the newest: an old replica that restarts stays away."""
    old = tmp_path / "versions"
    old.mkdir()
    for path in (LOG_MIGRATIONS / "versions").glob("000[123]_*.py"):
        (old / path.name).write_text(path.read_text())
    migrations.upgrade(any_url, LOG_MIGRATIONS)
    for refused in (migrations.check, migrations.upgrade):
        with pytest.raises(FailedPrecondition, match="at revision 0005") as caught:
            refused(any_url, tmp_path)
        assert caught.value.reason is Reason.STORE_NEWER
    assert migrations.look(any_url, tmp_path).standing is migrations.Standing.NEWER


async def test_code_that_runs_goes_on_over_a_revision_that_adds(any_url: str) -> None:
    """What every later revision must be like, with one that is: a log is written on while tables are added."""
    async with opened(any_url) as log:
        await log.append(draft(1))
        execute(any_url, "CREATE TABLE log_more (id INTEGER)", "ALTER TABLE log_head ADD COLUMN more TEXT")
        await log.append(draft(2))
        assert (await log.head()).size == 2
    assert whole(any_url).size == 2


async def test_records_of_the_version_before_are_written_over_its_second_revision(any_url: str) -> None:
    """0001 to 0002 of a department only adds: whoever writes with the tables of 0001 goes on, and is read."""
    migrations.upgrade(any_url, CUSTOMS_MIGRATIONS, "0001")
    old = tables_of(any_url)
    async with RecordStore(any_url, ROOMS["customs"].catalogue(), now) as store:
        await store.append(DECLARED[:1])
        migrations.upgrade(any_url, CUSTOMS_MIGRATIONS)
        # A process that has run since before, and then by the very tables that 0001 knew.
        await store.append(DECLARED[1:])
        write_another(any_url, old)
        page = await store.changes(DECLARED[0].record_type, 0)
        assert len(page.records) == len(DECLARED) + 1
        assert page.last_seq == len(DECLARED) + 1
    after = tables_of(any_url).tables
    for name, table in old.tables.items():
        assert [column.name for column in after[name].columns] == [column.name for column in table.columns]


def write_another(url: str, known: sa.MetaData) -> None:
    """Write one more version of a declaration, with tables as a program knew them."""
    declarations, clock = known.tables["declaration"], known.tables["change_clock"]
    made = engine(url, writer=True)
    with made.begin() as connection:
        newest = (
            connection.execute(sa.select(declarations).order_by(declarations.c["_seq"].desc()).limit(1))
            .mappings()
            .one()
        )
        seq = connection.execute(sa.select(clock.c.seq)).scalar_one() + 1
        connection.execute(declarations.insert().values({**newest, "_key": "another", "_seq": seq}))
        connection.execute(clock.update().values(seq=seq))
    made.dispose()


def test_events_of_the_version_before_come_over_the_revision_that_adds_traces(any_url: str) -> None:
    """Recognition's 0001 to 0002: who has run since before puts events on, and is read; they come of no trace."""
    migrations.upgrade(any_url, RECOGNITION_MIGRATIONS, "0001")
    old = tables_of(any_url).tables["outbox"]
    row = {"audience": "customs", "kind": "k", "key": "c", "recorded_at": now(), "payload": "{}"}
    execute(any_url, "UPDATE outbox_clock SET sequence = 2")
    made = engine(any_url, writer=True)
    with made.begin() as connection:
        connection.execute(old.insert().values({**row, "event_id": "a", "sequence": 1}))
    migrations.upgrade(any_url, RECOGNITION_MIGRATIONS)
    with made.begin() as connection:
        connection.execute(old.insert().values({**row, "event_id": "b", "sequence": 2}))
        outbox.put(connection, [outbox.NewEvent("customs", "k", "c", {})], now())
        assert [each.traceparent for each in outbox.waiting(connection, "customs", 0).events] == ["", "", ""]
        assert len(connection.execute(sa.select(old)).all()) == 3
    made.dispose()


def tables_of(url: str) -> sa.MetaData:
    """Read which tables a database has, but the one with its revision."""
    found, made = sa.MetaData(), engine(url, writer=False)
    found.reflect(made)
    made.dispose()
    found.remove(found.tables["alembic_version"])
    return found


def test_the_fourth_revision_waits_for_the_node_to_stop(postgres_url: str) -> None:
    """Its entries would go to an index that is no longer there."""
    migrations.upgrade(postgres_url, LOG_MIGRATIONS, "0003")
    old = engine(postgres_url, writer=True)
    with old.connect() as running:
        running.execute(sa.text("SELECT 1"))
        with pytest.raises(FailedPrecondition, match="needs the node to be stopped") as caught:
            migrations.upgrade(postgres_url, LOG_MIGRATIONS)
        assert caught.value.reason is Reason.STORE_IN_USE
        assert migrations.revision(postgres_url) == "0003"
        running.rollback()
    old.dispose()
    assert migrations.upgrade(postgres_url, LOG_MIGRATIONS)


async def test_subjects_are_found_over_the_fourth_revision(any_url: str) -> None:
    migrations.upgrade(any_url, LOG_MIGRATIONS, "0003")
    execute(any_url, "INSERT INTO log_subject VALUES ('uscc', 'x', 0)")
    migrations.upgrade(any_url, LOG_MIGRATIONS)
    assert value(any_url, "SELECT count(*) FROM log_recent") == 1


# Databases of others.


@pytest.mark.parametrize("name", ["customs", "recognition", "log"])
def test_a_database_of_somebody_else_is_left_alone(name: str, any_url: str) -> None:
    execute(any_url.replace("+aiosqlite", ""), "CREATE TABLE accounts (id INTEGER)")
    with pytest.raises(FailedPrecondition, match="accounts") as caught:
        migrations.upgrade(any_url, FOLDERS[name])
    assert caught.value.reason is Reason.STORE_FOREIGN
    assert migrations.revision(any_url) == ""


def test_a_log_is_not_made_of_a_store(any_url: str) -> None:
    """Two URLs taken one for the other: revision 0002 is known to both."""
    migrations.upgrade(any_url, CUSTOMS_MIGRATIONS)
    with pytest.raises(FailedPrecondition, match="log_cosigned") as caught:
        migrations.upgrade(any_url, LOG_MIGRATIONS)
    assert caught.value.reason is Reason.STORE_FOREIGN
    assert migrations.revision(any_url) == "0002"


def test_a_revision_that_is_none_of_ours(any_url: str) -> None:
    migrations.upgrade(any_url, CUSTOMS_MIGRATIONS)
    execute(any_url, "UPDATE alembic_version SET version_num = 'a1b2c3'")
    for refused in (migrations.check, migrations.upgrade):
        with pytest.raises(FailedPrecondition, match="a1b2c3") as caught:
            refused(any_url, CUSTOMS_MIGRATIONS)
        assert caught.value.reason is Reason.STORE_FOREIGN


def test_a_server_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        migrations.look(f"postgresql://nobody@/none?host={tmp_path}", CUSTOMS_MIGRATIONS)
