"""Roles as `hutong db roles` prints them: enough for the node, and what it must not do the database itself refuses."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from services.cli.dbs.places import recognition_metadata
from services.cli.dbs.roles import grants
from services.kit import config
from services.kit.config import DepartmentConfig
from services.kit.log.nodelog import NodeLog
from services.kit.log.writer import ERASABLE, Erased
from services.kit.records import migrations, urls
from services.supervision import node as supervision
from services.supervision import tables as supervision_tables
from tests.databases import Postgres
from tests.exchange.records import EXPORTER
from tests.log.bed import company, draft
from tests.recognition.desk import desk
from tests.recognition.test_cases import accepted
from tests.state.bed import RECOGNITION_MIGRATIONS, Bed, ask, execute, two, user, value
from tests.supervision import test_feed
from tests.zone import now

STORE, LOG = "hutong_customs_store", "hutong_customs_log"


@dataclass
class Guarded:
    """A node whose databases it may only use as its runtime roles."""

    bed: Bed
    store: str
    log: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres) -> Iterator[Guarded]:
    tmp_path = tmp_path_factory.mktemp("guarded")
    with two(postgres_server) as (store, log):
        bed = Bed(tmp_path / "node", store, log)
        for name, url in (("store", store), ("log", log)):
            # Before there are tables, as for a new database.
            for statement in bed.told("roles", "--only", name)[name]:
                execute(url, statement)
            (tmp_path / f"{name}-owner").write_text(user(url, f"hutong_customs_{name}_owner"))
        own = user(store, STORE), user(log, LOG)
        bed.put(*own, migrate=False)
        owners = ("--store-url", tmp_path / "store-owner", "--log-url", tmp_path / "log-owner")
        ran = bed.run("upgrade", *owners, "--for", f"store={STORE}", "--for", f"log={LOG}")
        assert ran.exit_code == 0, ran.stderr
        yield Guarded(bed, *own)


async def test_a_node_runs_under_them(guarded: Guarded) -> None:
    checked = guarded.bed.told("check")
    assert checked["usable"]
    assert [(one["role"], one["lacking"]) for one in checked["databases"]] == [("runtime", []), ("runtime", [])]
    async with guarded.bed.serving(load=True) as mesh:
        assert await ask(mesh) == 1
        log = mesh.host("customs").log
        assert log is not None
        assert (await log.erase("cn.uscc", EXPORTER)).freed
        size = log.size
    assert value(guarded.log, "SELECT size FROM log_head") == size > 1
    assert guarded.bed.told("verify")["ok"]


def test_an_erasure_whose_bytes_are_still_there_says_so(guarded: Guarded, postgres_server: Postgres) -> None:
    """As on a server before 17, where only the owner may order a VACUUM; the owner may, and so may autovacuum."""
    settings = config.read(guarded.bed.file, DepartmentConfig)
    assert settings.log is not None
    tables = ", ".join(ERASABLE)
    database = urls.parse(guarded.log)[0].database
    postgres_server.execute(f"REVOKE MAINTAIN ON {tables} FROM {LOG}", database=database)
    log = NodeLog.of(settings.log, settings.node, guarded.log, now)

    async def erased() -> Erased:
        await log.open()
        await log.append(draft(1))
        try:
            return await log.erase(*company(1))
        finally:
            await log.close()

    assert (found := asyncio.run(erased())) == Erased(1)
    assert not found.freed
    dead = f"SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname IN ({', '.join(map(repr, ERASABLE))})"
    assert value(guarded.log, dead) > 0
    postgres_server.execute(f"VACUUM {tables}", database=database)
    assert value(guarded.log, dead) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM log_entry",
        "UPDATE log_entry SET entry = ''",
        "DELETE FROM log_hash",
        "UPDATE log_hash SET hash = ''",
        "TRUNCATE log_entry",
        "DROP TABLE log_entry",
        "DELETE FROM log_head",
        "INSERT INTO log_head VALUES (2, 0, '', '', NULL)",
        "ALTER TABLE log_entry DISABLE TRIGGER ALL",
        "CREATE TABLE mine (id int)",
        "DELETE FROM log_text",
        "UPDATE log_text SET name = 'x'",
        "UPDATE alembic_version SET version_num = '0001'",
    ],
)
def test_a_log_cannot_be_changed(guarded: Guarded, statement: str) -> None:
    with pytest.raises(exc.ProgrammingError, match=r"permission denied|must be owner"):
        execute(guarded.log, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM declaration",
        "UPDATE declaration SET _body = ''",
        "TRUNCATE declaration",
        "DROP TABLE declaration",
        "DELETE FROM quarantine",
        "CREATE INDEX mine ON declaration (_key)",
        "CREATE SCHEMA mine",
    ],
)
def test_records_cannot_be_changed(guarded: Guarded, statement: str) -> None:
    with pytest.raises(exc.ProgrammingError, match=r"permission denied|must be owner"):
        execute(guarded.store, statement)


def test_who_may_write_records_cannot_reach_the_log(guarded: Guarded) -> None:
    log = urls.parse(guarded.log)[0].database
    away = urls.parse(guarded.store)[0].set(database=log).render_as_string(hide_password=False)
    with pytest.raises(exc.OperationalError, match="permission denied for database"):
        value(away, "SELECT 1")


def test_a_right_that_is_lacking_is_told(guarded: Guarded, postgres_server: Postgres) -> None:
    database = urls.parse(guarded.log)[0].database
    postgres_server.execute(f"REVOKE INSERT ON log_entry FROM {LOG}", database=database)
    checked = guarded.bed.told("check")
    assert not checked["usable"]
    assert checked["databases"][1]["lacking"] == ["INSERT on log_entry"]


async def test_a_role_may_not_migrate(guarded: Guarded) -> None:
    """With `migrate = true` by mistake, a current database is left alone, and another one cannot be touched."""
    guarded.bed.put(guarded.store, guarded.log, migrate=True)
    async with guarded.bed.serving():
        pass


def test_statements_may_be_run_again(guarded: Guarded, postgres_server: Postgres) -> None:
    database = str(urls.parse(guarded.log)[0].database)
    for statement in guarded.bed.told("roles", "--only", "log")["log"]:
        postgres_server.execute(statement, database=database)
    assert guarded.bed.told("check")["usable"]


def test_a_database_that_is_away(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "node", f"postgresql://nobody@/none?host={tmp_path}", f"sqlite:///{tmp_path}/log.db")
    ran = bed.run("check", "--json")
    assert ran.exit_code == 1
    assert '"AWAY"' in ran.stdout


def granted(server: Postgres, url: str, folder: Path, metadata: sa.MetaData, role: str) -> str:
    """Migrate a database, and connect as a role that may do what the running node needs."""
    migrations.upgrade(url, folder)
    server.execute(f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN")
    execute(url, *grants(metadata, role))
    return user(url, role)


async def test_the_supervision_service_runs_under_its_role(tmp_path: Path, postgres_server: Postgres) -> None:
    """Two replicas of it: what they do otherwise, they do as this role."""
    with postgres_server.fresh() as url:
        own = granted(postgres_server, url, supervision.MIGRATIONS, supervision_tables.METADATA, "state_supervision")
        await test_feed.test_two_replicas_hear_each_other(tmp_path, own)
        with pytest.raises(exc.ProgrammingError, match="permission denied"):
            execute(own, "DELETE FROM authorization_event")


async def test_the_recognition_service_runs_under_its_role(tmp_path: Path, postgres_server: Postgres) -> None:
    with postgres_server.fresh() as url:
        own = granted(postgres_server, url, RECOGNITION_MIGRATIONS, recognition_metadata(), "state_recognition")
        async with desk(own, tmp_path) as bed:
            case = await accepted(bed)
            await bed.through(case.case_id, ("B", "publicsecurity"))
            bed.clock.move(days=30)
            while await bed.cases.tick():
                pass
            assert await bed.reminded()
        with pytest.raises(exc.ProgrammingError, match="permission denied"):
            execute(own, "UPDATE stage_event SET case_id = ''")
