"""`hutong db check` and `upgrade`: what they tell, and that they refuse before they change anything."""

import json
from pathlib import Path

import pytest

from services.kit.records import migrations
from tests.databases import Postgres
from tests.state.bed import CUSTOMS_MIGRATIONS, LOG_MIGRATIONS, Bed, execute, two


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path / "node", f"sqlite:///{tmp_path}/store.db", f"sqlite:///{tmp_path}/log.db")


def standings(bed: Bed) -> list[str]:
    return [one["standing"] for one in bed.told("check")["databases"]]


def test_new_databases_are_made(bed: Bed) -> None:
    assert (standings(bed), bed.run("check").exit_code) == (["NEW", "NEW"], 1)
    dry = bed.run("upgrade", "--dry-run")
    assert dry.exit_code == 0
    assert "0002 The inbox of customs" in dry.stdout
    assert standings(bed) == ["NEW", "NEW"]
    assert bed.told("upgrade")["log"]["upgraded"]
    assert (standings(bed), bed.run("check").exit_code) == (["CURRENT", "CURRENT"], 0)
    assert "nothing to upgrade" in bed.run("upgrade").stdout


def test_what_is_pending_is_told(tmp_path: Path, postgres_server: Postgres) -> None:
    with two(postgres_server) as (store, log):
        bed = Bed(tmp_path / "node", store, log)
        migrations.upgrade(log, LOG_MIGRATIONS, "0003")
        one = bed.told("check")["databases"][1]
        assert (one["standing"], one["revision"], one["wanted"]) == ("BEHIND", "0003", "0005")
        assert [step[:4] for step in one["pending"]] == ["0004", "0005"]
        assert "every replica stopped" in bed.run("upgrade", "--dry-run").stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE alembic_version SET version_num = '0099'", "STORE_NEWER"),
        ("UPDATE alembic_version SET version_num = 'abc'", "STORE_FOREIGN"),
        ("DROP TABLE log_entry", "STORE_FOREIGN"),
        ("DROP TABLE alembic_version", "STORE_FOREIGN"),
    ],
)
def test_one_that_cannot_be_upgraded_stops_all(bed: Bed, tmp_path: Path, statement: str, reason: str) -> None:
    """The log is refused, and the store, which could be, is not touched."""
    log, store = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db"
    migrations.upgrade(log, LOG_MIGRATIONS)
    execute(log, statement)
    assert bed.reason("upgrade") == reason
    assert migrations.look(store, CUSTOMS_MIGRATIONS).standing is migrations.Standing.NEW
    assert standings(bed)[1] in {"NEWER", "FOREIGN"}


@pytest.mark.parametrize("command", ["check", "upgrade", "roles"])
def test_a_config_that_does_not_stand(bed: Bed, command: str) -> None:
    bed.file.write_text(bed.file.read_text().replace("migrate", "migrat"))
    assert bed.reason(command) == "CONFIG_UNKNOWN_KEY"


def test_a_backup_of_another_version_is_refused(bed: Bed, tmp_path: Path) -> None:
    bed.run("upgrade")
    assert bed.run("backup", "--to", tmp_path / "backup").exit_code == 0
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text())["databases"]["log"]["revision"] == "0005"
    execute(f"sqlite:///{tmp_path}/log.db", "UPDATE alembic_version SET version_num = '0006'")
    assert bed.reason("backup", "--to", tmp_path / "another") == "STORE_NEWER"
    assert not (tmp_path / "another").exists()
