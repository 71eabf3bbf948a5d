"""Backup and restore, in both engines and across them; and what the proof finds where something is not what it was."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.kit.log.nodelog import NodeLog
from tests.databases import Postgres
from tests.exchange.records import RECORDS
from tests.state.bed import Bed, ask, execute, two, value

ENGINES = ("sqlite", "postgres")


@dataclass
class Kept:
    """A node that has answered, its backup, and a checkpoint of it that somebody else has kept."""

    bed: Bed
    store: str
    log: str
    backup: Path
    checkpoint: Path


@pytest.fixture(params=ENGINES)
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two databases of an engine, empty."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db", f"sqlite:///{tmp_path}/log.db"
    else:
        with two(request.getfixturevalue("postgres_server")) as found:
            yield found


async def keep(urls: tuple[str, str], tmp_path: Path) -> Kept:
    """Run a node on two databases, ask it, and back it up while it runs."""
    bed = Bed(tmp_path / "node", *urls)
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "backup"
    async with bed.serving(load=True) as mesh:
        for _ in range(3):
            assert await ask(mesh) == 1
        log = mesh.host("customs").log
        assert log is not None
        checkpoint.write_text(await log.checkpoint())
        # While the node runs.
        ran = bed.run("backup", "--to", folder)
        assert ran.exit_code == 0, ran.stderr
    return Kept(bed, *urls, folder, checkpoint)


@pytest.fixture
async def kept(urls: tuple[str, str], tmp_path: Path) -> Kept:
    return await keep(urls, tmp_path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """One for all who only look at a copy of its backup."""
    folder = tmp_path_factory.mktemp("sample")
    return asyncio.run(keep((f"sqlite:///{folder}/store.db", f"sqlite:///{folder}/log.db"), folder))


@pytest.fixture
def copied(sample: Kept, tmp_path: Path) -> Kept:
    """A backup to be spoiled."""
    shutil.copytree(sample.backup, tmp_path / "copy")
    return replace(sample, backup=tmp_path / "copy")


async def test_a_backup_is_whole(kept: Kept) -> None:
    found = kept.bed.told("verify", "--from", kept.backup, "--checkpoint", kept.checkpoint)
    assert found["ok"], found
    assert found["entries"] == value(kept.log, "SELECT size FROM log_head")
    assert found["records"] == len(RECORDS["customs"])
    assert found["openings"] == found["compared"] == 3
    assert found["checkpoints"] == [found["entries"]] * 2
    assert (found["later"], found["lost"]) == (0, 0)
    assert {path.stat().st_mode & 0o777 for path in kept.backup.iterdir()} == {0o600}
    assert kept.backup.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in kept.backup.iterdir()) == ["log.db", "manifest.json", "store.db"]


@pytest.mark.parametrize("into", ENGINES)
async def test_a_node_goes_on_from_what_was_restored(
    kept: Kept, into: str, tmp_path: Path, postgres_server: Postgres
) -> None:
    """Into either engine, whatever the backup came from."""
    with two(postgres_server) as servers:
        lite = f"sqlite:///{tmp_path}/new-store.db", f"sqlite:///{tmp_path}/new-log.db"
        kept.bed.put(*(lite if into == "sqlite" else servers))
        found = kept.bed.told("restore", "--from", kept.backup, "--checkpoint", kept.checkpoint)
        assert found["ok"], found
        async with kept.bed.serving() as mesh:
            assert await ask(mesh) == 1
        after = kept.bed.told("verify", "--checkpoint", kept.checkpoint)
        assert after["ok"]
        assert (after["entries"], after["compared"]) == (found["entries"] + 1, found["compared"] + 1)
        assert kept.bed.reason("restore", "--from", kept.backup) == "FOLDER_NOT_EMPTY"


async def test_entries_that_were_lost_are_told(kept: Kept, tmp_path: Path) -> None:
    """The log went on after the backup, and somebody has kept a checkpoint of that."""
    async with kept.bed.serving() as mesh:
        await ask(mesh)
        log = mesh.host("customs").log
        assert log is not None
        kept.checkpoint.write_text(await log.checkpoint())
    ran = kept.bed.run("verify", "--from", kept.backup, "--checkpoint", kept.checkpoint, "--json")
    assert (ran.exit_code, json.loads(ran.stdout)["lost"]) == (1, 1)
    kept.bed.put(f"sqlite:///{tmp_path}/new-store.db", f"sqlite:///{tmp_path}/new-log.db")
    # Two that were kept of what is lost are no more of a reason than one.
    again = tmp_path / "again"
    again.write_text(kept.checkpoint.read_text())
    both = ("--checkpoint", kept.checkpoint, "--checkpoint", again)
    ran = kept.bed.run("restore", "--from", kept.backup, *both)
    assert ran.exit_code == 1
    assert "was signed, and the log has" in ran.stdout
    assert (tmp_path / "new-log.db").exists()


async def test_a_log_of_another_history_is_refused(kept: Kept, tmp_path: Path) -> None:
    other = Bed(tmp_path / "other", f"sqlite:///{tmp_path}/o-store.db", f"sqlite:///{tmp_path}/o-log.db")
    # The same node with the same key, whose log began anew.
    other.mesh.zone, other.mesh.folder = kept.bed.mesh.zone, kept.bed.mesh.folder
    other.put(f"sqlite:///{tmp_path}/o-store.db", f"sqlite:///{tmp_path}/o-log.db")
    async with other.serving(load=True) as mesh:
        for _ in range(5):
            await ask(mesh)
    assert other.reason("verify", "--checkpoint", kept.checkpoint) == "LOG_TAMPERED"


def damage(kept: Kept, name: str, *statements: str) -> None:
    """Change a file of a backup, and let its manifest agree with that."""
    file = kept.backup / f"{name}.db"
    execute(f"sqlite:///{file}", *statements)
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
    engine.dispose()
    manifest = json.loads((kept.backup / "manifest.json").read_text())
    manifest["databases"][name]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (kept.backup / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE declaration SET _body = x'00'", "is not what was recorded"),
        ("UPDATE declaration SET _version = 2", "a version is missing"),
        ("UPDATE declaration SET _superseded_at = _recorded_at", "no version in force"),
        ("UPDATE change_clock SET seq = 0", "lies after the last one"),
        ("DELETE FROM declaration", "were given, and 0 had been recorded"),
    ],
)
def test_records_that_are_not_what_they_were(copied: Kept, statement: str, words: str) -> None:
    # Something recorded later: what was given before it must be there.
    later = "UPDATE change_clock SET moment = '2999-01-01 00:00:00.000000'"
    damage(copied, "store", statement, later)
    ran = copied.bed.run("verify", "--from", copied.backup)
    assert ran.exit_code == 1
    assert words in ran.stdout


def test_records_older_than_the_log_are_told(copied: Kept) -> None:
    """A store from before the answers were given, with a log that has them."""
    damage(copied, "store", "DELETE FROM declaration", "UPDATE change_clock SET moment = '2000-01-01 00:00:00.000000'")
    found = copied.bed.told("verify", "--from", copied.backup)
    assert (found["later"], found["compared"]) == (3, 0)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE log_entry SET entry = x'00' WHERE \"index\" = 1", "LOG_TAMPERED"),
        ("UPDATE log_entry SET leaf_hash = x'00' WHERE \"index\" = 1", "LOG_TAMPERED"),
        ("UPDATE log_head SET checkpoint = ''", "LOG_TAMPERED"),
        ('DELETE FROM log_entry WHERE "index" = 2', "LOG_TAMPERED"),
    ],
)
def test_a_log_that_is_not_what_it_was(copied: Kept, statement: str, words: str) -> None:
    damage(copied, "log", statement)
    assert copied.bed.reason("verify", "--from", copied.backup) == words


def test_an_opening_that_is_not_its_entrys(copied: Kept) -> None:
    damage(copied, "log", "UPDATE log_opening SET opening = (SELECT min(opening) FROM log_opening)")
    ran = copied.bed.run("verify", "--from", copied.backup)
    assert (ran.exit_code, "not what it commits to" in ran.stdout) == (1, True)


def test_what_is_no_backup_of_this_node(copied: Kept, tmp_path: Path) -> None:
    assert copied.bed.reason("verify", "--from", tmp_path / "nowhere") == "BACKUP_INVALID"
    assert copied.bed.reason("backup", "--to", copied.backup) == "FOLDER_NOT_EMPTY"
    broken = tmp_path / "broken"
    shutil.copytree(copied.backup, broken)
    with (broken / "store.db").open("r+b") as file:
        file.seek(5000)
        file.write(b"\0\1\2")
    assert copied.bed.reason("verify", "--from", broken) == "BACKUP_INVALID"
    (broken / "manifest.json").unlink()
    assert copied.bed.reason("restore", "--from", broken) == "BACKUP_INVALID"


async def test_what_was_erased_is_in_no_later_backup(kept: Kept, tmp_path: Path) -> None:
    async with kept.bed.serving() as mesh:
        log: NodeLog | None = mesh.host("customs").log
        assert log is not None
        opening = await log.opening(value(kept.log, 'SELECT max("index") FROM log_opening'))
        assert opening is not None
        scheme, _, who = opening.subjects[0].partition(":")
        await log.erase(scheme, who)
    assert kept.bed.run("backup", "--to", tmp_path / "later").exit_code == 0
    assert opening.salt in (kept.backup / "log.db").read_bytes()
    assert opening.salt not in (tmp_path / "later" / "log.db").read_bytes()
    assert kept.bed.told("verify", "--from", tmp_path / "later")["openings"] == 0
