"""What is wrong is refused before anything changes, with the file and the line that say it.

`docs/operations/install.md` has the table of it; the values of a release are in `tests/helm/test_values.py`.
"""

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.cli import configs
from services.cli.zone import Zone
from services.kit.log import nodelog
from services.kit.records import migrations
from tests.cli.conftest import Ran, run
from tests.state.bed import execute

NODES = ("customs", "recognition", "supervision", "gateway")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    """A zone whose databases are of this version."""
    zone = Zone.prepare(tmp_path_factory.mktemp("bad") / "zone")
    for node in (*NODES, "taxation"):
        assert run("db", "upgrade", "--config", zone.config_file(node)).exit_code == 0
    return zone


def content(folder: Path) -> dict[str, bytes]:
    """Read all files; what SQLite keeps beside a database while it is open says nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@contextmanager
def unchanged(zone: Zone) -> Generator[None]:
    """Fail where anything in the zone's folder is another afterwards."""
    before = content(zone.folder)
    yield
    assert content(zone.folder) == before


@contextmanager
def written(file: Path, old: str, new: str) -> Generator[int]:
    """Write something else into a file for a while; gives the line it is on."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{file} says no {old}"
    at = text.index(old)
    file.write_text(text[:at] + new + text[at + len(old) :], encoding="utf-8")
    try:
        yield text.count("\n", 0, at) + 1
    finally:
        file.write_text(text, encoding="utf-8")


def refused(reason: str, *arguments: str | Path) -> str:
    """Run a command that is refused; gives the message."""
    ran: Ran = run(*arguments, "--json")
    assert ran.exit_code == 1, ran.stdout
    error = json.loads(ran.stdout)["error"]
    assert error["reason"] == reason
    return str(error["message"])


# What is written in place of what, and the line (after that one) and the words of the refusal.
_CONFIG = {
    "a typo": ("listen =", "lisen =", 0, "node.lisen: unknown key; did you mean 'listen'?"),
    "a section twice": ("[store]", "[node]", 0, "Cannot declare ('node',) twice"),
    "one peer twice": ("[store]", '[log.witnesses.a]\n[log.witnesses.a]\ntarget = "a:1"\n[store]', 1, "twice"),
    "no TOML": ("[store]", "[store", 0, "Expected ']'"),
    "a value of another kind": ("listen = ", 'zone2 = 1\nlisten = "nowhere" #', 1, "node.listen: Value error"),
    "a list of several lines": ("listen =", "listen = [\n 1,\n] #", 0, "node.listen: Input should be a valid string"),
    "what is missing": ("listen =", "# listen =", None, "node.listen: Field required"),
}


@pytest.mark.parametrize("case", _CONFIG)
@pytest.mark.parametrize("command", [("serve", "customs"), ("db", "check")], ids=["serve", "db"])
def test_a_config(prepared: Zone, case: str, command: tuple[str, ...]) -> None:
    file = prepared.config_file("customs")
    old, new, after, words = _CONFIG[case]
    with written(file, old, new) as line, unchanged(prepared):
        ran = run(*command, "--config", file, "--json")
        message = json.loads(ran.stdout)["error"]["message"]
        table = file.read_text().split("\n").index("[node]") + 1
    assert ran.exit_code == 1
    at = table if after is None else line + after
    told = next(each for each in message.split("\n") if words in each)
    assert re.match(rf"{re.escape(str(file))}:{at}[: ]", told), told


def test_an_unknown_agency(prepared: Zone) -> None:
    """As a room, in a config, and as an owner whom the gateway is to ask."""
    with unchanged(prepared):
        message = refused("ROOM_UNKNOWN", "serve", "custms", "--config", prepared.config_file("customs"))
        assert message == "there is no room 'custms'; did you mean 'customs'?"
    file = prepared.config_file("customs")
    with written(file, 'agency = "customs"', 'agency = "custms"') as line, unchanged(prepared):
        message = refused("CONFIG_INVALID", "serve", "customs", "--config", file)
        table = file.read_text().split("\n").index("[node]") + 1
        assert table < line
        assert f"but the config says spiffe://{prepared.name}/custms/node ({file}:{table})" in message
    gateway = prepared.config_file("gateway")
    with written(gateway, "[departments.customs]", "[departments.custms]") as line, unchanged(prepared):
        message = refused("CONFIG_INVALID", "serve", "gateway", "--config", gateway)
        assert message.startswith(f"{gateway}:{line}: departments.custms: ")
        assert "did you mean 'customs'?" in message


def test_two_departments_of_one_name(prepared: Zone) -> None:
    """In the gateway's config, where they are tables: the second one is told, by line and column."""
    gateway = prepared.config_file("gateway")
    twice = '[departments.customs]\ntarget = "127.0.0.1:1"\n\n[departments.customs]'
    with written(gateway, "[departments.customs]", twice) as line, unchanged(prepared):
        message = refused("CONFIG_INVALID", "serve", "gateway", "--config", gateway)
        # The column is where the name has ended.
        assert f"{gateway}:{line + 3}:{len('[departments.customs]')}: " in message
        assert "Cannot declare ('departments', 'customs') twice" in message


@pytest.mark.parametrize(
    ("node", "database"),
    [
        ("customs", "store"),
        ("recognition", "store"),
        ("supervision", "store"),
        ("supervision", "log"),
        ("gateway", "log"),
    ],
)
@pytest.mark.parametrize("wrong", ["newer", "foreign"])
def test_a_database(prepared: Zone, node: str, database: str, wrong: str) -> None:
    """Of a newer version, or another node's that happens to be at the same revision; the other one is to be upgraded.

    Neither is touched: not the one that is refused, nor the other.
    """
    file = prepared.config_file(node)
    folder = migrations_of(node, database)
    url = url_of(prepared, node, database)
    other = prepared.folder / f"other-{node}-{database}-{wrong}.db"
    other_url = f"sqlite:///{other}"
    if wrong == "newer":
        migrations.upgrade(other_url, folder)
        execute(other_url, "UPDATE alembic_version SET version_num = '0099'")
    else:
        execute(
            other_url,
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
            f"INSERT INTO alembic_version VALUES ('{migrations.head(folder)}')",
            "CREATE TABLE somebody_elses (id TEXT)",
        )
    reason = f"STORE_{wrong.upper()}"
    text = file.read_text()
    assert "migrate = true" in text
    # The other one is not there yet: it would be made.
    new = re.sub(r'url = "(.*?)\.db"', r'url = "\1-new.db"', text)
    new = new.replace(url.replace(".db", "-new.db"), f"sqlite+aiosqlite:///{other}")
    with written(file, text, new), unchanged(prepared):
        header = file.read_text().split("\n").index(f"[{database}]") + 1
        for command in (("serve", node), ("db", "upgrade"))[: 2 if node in {"customs", "gateway"} else 1]:
            message = refused(reason, *command, "--config", file)
            assert message.startswith(f"{file}:{header}: ")
            assert ("0099" if wrong == "newer" else "but has no") in message
        if node != "customs":
            return
        checked = run("db", "check", "--config", file)
        assert checked.exit_code == 1
        assert f"{file}:{header}: " in checked.stdout.replace("\n", "")


def url_of(zone: Zone, node: str, database: str) -> str:
    text = zone.config_file(node).read_text().partition(f"[{database}]")[2]
    found = re.search(r'url = "(.*?)"', text)
    assert found
    return found[1]


def migrations_of(node: str, database: str) -> Path:
    found = nodelog.MIGRATIONS if database == "log" else configs.migrations_of(node)
    assert found
    return found


def identity_of(zone: Zone, node: str) -> str:
    found = re.search(r'certificate = "(.*?)"', zone.config_file(node).read_text())
    assert found
    return found[1]


@pytest.mark.parametrize("node", NODES)
def test_a_certificate_of_another_node(prepared: Zone, node: str) -> None:
    file = prepared.config_file(node)
    mine, others = (identity_of(prepared, each) for each in (node, "taxation"))
    # The key lies in the same file.
    with written(file, mine, others) as line, written(file, mine, others), unchanged(prepared):
        message = refused("CONFIG_INVALID", "serve", node, "--config", file)
    system = "main" if node == "gateway" else "node"
    zone = prepared.name
    assert message.startswith(f"{file}:{line}: the certificate is spiffe://{zone}/taxation/node's, ")
    assert f"but the config says spiffe://{zone}/{node}/{system} ({file}:" in message
    assert message.endswith("taxation/node/credential-bundle.private-key.pem")


@pytest.mark.parametrize("node", NODES)
def test_a_policy(prepared: Zone, node: str, tmp_path: Path) -> None:
    """Nothing is opened for it: databases that are not there yet are not made."""
    file = prepared.config_file(node)
    owner = "recognition" if node == "recognition" else "customs"
    policy = tmp_path / f"{owner}.cedar"
    policy.write_text('// nothing\n@id("p")\npermit (principal action, resource);\n')
    files = re.search(r"files = \[.*?\]", file.read_text(), re.DOTALL)
    assert files
    for database in ("store", "log")[node == "gateway" :]:
        assert url_of(prepared, node, database)
    with written(file, files[0], f'files = ["{policy}"]'):
        new = re.sub(r'url = "(.*?)\.db"', r'url = "\1-new.db"', file.read_text())
        with written(file, file.read_text(), new), unchanged(prepared):
            message = refused("POLICY_INVALID", "serve", node, "--config", file)
    assert message == f"{policy}:3:19: not Cedar: unexpected token `action`"
