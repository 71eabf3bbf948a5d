"""`hutong load` and `hutong quarantine`, on files that are as bad as real ones."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from services.cli.zone import Zone
from tests.cli.conftest import Ran, run

GOOD, LATE, BAD = "91999901MA07HYX927", "91999901MA07HY2E6F", "91999901MA07HYX92X"

MAPPING = """\
mapping: commerce.small
version: 1
record: commerce.Enterprise
title: A small register
source_system: small
source: {{kind: delimited, columns: [code, name, founded]}}
duplicates: quarantine
fields:
  uscc: {{column: code, required: true}}
  name: {{column: name, required: true}}
  establish_date: {{column: founded, parse: {{date: "{form}"}}}}
"""


class Register:
    """A register in a file, its mapping, and a zone it may be loaded into."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.source = zone.folder / "register.csv"
        self.mapping = zone.folder / "small.yaml"
        self.mapping.write_text(MAPPING.format(form="%Y-%m-%d"))
        self.source.write_text(
            f"code,name,founded\n{GOOD},一家,2020-01-02\n{LATE},二家,03/04/2021\n{BAD},三家,2020-05-06\n"
        )

    def load(self, *more: str | Path) -> Ran:
        return run("load", "commerce", "--mapping", self.mapping, self.source, "--dir", self.zone.folder, *more)

    def quarantine(self, *arguments: str | Path) -> Ran:
        return run("quarantine", *arguments, "--dir", self.zone.folder)

    def entries(self) -> dict[str, str]:
        """Ids of open entries by reason."""
        listed = json.loads(self.quarantine("list", "commerce", "--json").stdout)["entries"]
        return {entry["reason"]: entry["id"] for entry in listed}


@pytest.fixture
def register(zone: Zone) -> Register:
    return Register(zone)


def test_every_row_is_accounted_for(register: Register) -> None:
    result = register.load("--json")
    assert result.exit_code == 0
    counts = json.loads(result.stdout)
    assert (counts["read"], counts["loaded"], counts["unchanged"], counts["quarantined"]) == (3, 1, 0, 2)
    assert counts["reasons"] == {"CHECK_DIGIT": 1, "VALUE_INVALID": 1}
    again = json.loads(register.load("--json").stdout)
    assert (again["loaded"], again["unchanged"], again["quarantined"]) == (0, 1, 2)


def test_people_are_told_where_the_rest_went(register: Register) -> None:
    result = register.load()
    assert result.exit_code == 0
    assert "hutong quarantine list commerce --mapping commerce.small" in result.stdout


def test_an_entry_shows_its_bytes(register: Register) -> None:
    register.load()
    entry_id = register.entries()["VALUE_INVALID"]
    shown = register.quarantine("show", "commerce", entry_id[:8])
    assert shown.exit_code == 0
    assert f"{LATE},二家,03/04/2021" in shown.stdout
    entry = json.loads(register.quarantine("show", "commerce", entry_id, "--json").stdout)
    assert bytes.fromhex(entry["original_hex"]).decode() == f"{LATE},二家,03/04/2021\n"
    assert (entry["position"], entry["encoding"], entry["state"]) == ("3", "utf-8", "OPEN")


def test_bytes_of_other_encodings_are_shown_too(register: Register) -> None:
    register.source.write_bytes(b"code,name,founded\n" + f"{GOOD},名称,昨天\n".encode("gb18030"))
    register.mapping.write_text(register.mapping.read_text().replace("delimited,", "delimited, encoding: [gb18030],"))
    register.load()
    assert "名称,昨天" in register.quarantine("show", "commerce", register.entries()["VALUE_INVALID"]).stdout


def test_a_corrected_mapping_brings_rows_back(register: Register) -> None:
    register.load()
    entry_id = register.entries()["VALUE_INVALID"]
    register.mapping.write_text(MAPPING.format(form="%d/%m/%Y"))
    result = register.quarantine("retry", "commerce", entry_id, "--mapping", register.mapping, "--json")
    assert result.exit_code == 0
    (retried,) = json.loads(result.stdout)["retries"]
    assert (retried["read"], retried["loaded"]) == (1, 1)
    assert list(register.entries()) == ["CHECK_DIGIT"]
    listed = json.loads(register.quarantine("list", "commerce", "--all", "--json").stdout)
    assert {entry["state"] for entry in listed["entries"]} == {"OPEN", "RESOLVED"}


def test_all_open_entries_can_be_driven_at_once(register: Register) -> None:
    register.load()
    result = register.quarantine("retry", "commerce", "--all", "--mapping", register.mapping, "--json")
    (retried,) = json.loads(result.stdout)["retries"]
    assert (retried["read"], retried["quarantined"]) == (2, 2)


def test_a_mapping_that_is_none_of_the_rooms_must_be_named(register: Register) -> None:
    register.load()
    result = register.quarantine("retry", "commerce", "--all")
    assert result.exit_code == 1
    assert "--mapping" in result.stderr


def test_retry_wants_ids_or_all(register: Register) -> None:
    assert register.quarantine("retry", "commerce").exit_code == 2


def test_an_entry_can_be_set_aside(register: Register) -> None:
    register.load()
    entry_id = register.entries()["CHECK_DIGIT"]
    assert register.quarantine("dismiss", "commerce", entry_id).exit_code == 0
    assert "CHECK_DIGIT" not in register.entries()


def test_an_empty_quarantine_says_so(register: Register) -> None:
    assert "empty" in register.quarantine("list", "commerce").stdout
    missing = register.quarantine("show", "commerce", "ffff")
    assert missing.exit_code == 1
    assert "error: RECORD_NOT_FOUND" in missing.stderr


def test_our_own_files_need_no_mapping(zone: Zone, tmp_path: Path) -> None:
    source = tmp_path / "branch.csv"
    source.write_text(f"uscc,name\n{GOOD},一家\n")
    result = run(
        *("load", "commerce", "--mapping", "auto:commerce.Enterprise", source, "--source-system", "hand", "--json"),
        *("--config", zone.config_file("commerce")),
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["loaded"] == 1


@pytest.mark.parametrize(
    ("mapping", "reason", "said"),
    [
        ("cn_registry_2091", "MAPPING_INVALID", "'cn_registry_2019'"),
        ("auto:customs.Declaration", "RECORD_TYPE_NOT_OWNED", "customs.Declaration"),
        ("auto:commerce.Enterprize", "RECORD_TYPE_UNKNOWN", "'commerce.Enterprise'"),
        ("cn_registry_2019", "MAPPING_COLUMN_MISSING", ""),
    ],
)
def test_mappings_that_do_not_fit(register: Register, mapping: str, reason: str, said: str) -> None:
    result = run("load", "commerce", "--mapping", mapping, register.source, "--dir", register.zone.folder, "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["reason"] == reason
    assert said in error["message"]


def test_a_source_that_is_not_there(register: Register) -> None:
    register.source.unlink()
    result = register.load()
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "register.csv" in result.stderr


def test_an_unknown_agency(register: Register) -> None:
    result = run("load", "comerce", "--mapping", "x", register.source, "--dir", register.zone.folder)
    assert result.exit_code == 1
    assert "'commerce'" in result.stderr


def test_a_table_that_grows_is_read_from_where_it_was(zone: Zone, tmp_path: Path) -> None:
    mapping = tmp_path / "table.yaml"
    mapping.write_text(
        "mapping: commerce.table\nversion: 1\nrecord: commerce.Enterprise\ntitle: A register in a table\n"
        "source_system: table\nsource: {kind: sql, table: firms, key: [code], watermark: changed}\n"
        "duplicates: keep_last_version\nfields: {uscc: {column: code, required: true}, name: name}\n"
    )
    database = tmp_path / "legacy.db"

    def load() -> tuple[int, int]:
        url = f"sqlite:///{database}"
        result = run("load", "commerce", "--mapping", mapping, url, "--dir", zone.folder, "--json")
        assert result.exit_code == 0, result.stdout
        counts = json.loads(result.stdout)
        return counts["read"], counts["loaded"]

    def insert(*row: str | int) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS firms (code TEXT, name TEXT, changed INTEGER)")
            connection.execute("INSERT INTO firms VALUES (?, ?, ?)", row)

    insert(GOOD, "一家", 1)
    assert load() == (1, 1)
    insert(LATE, "二家", 2)
    # The row at the watermark is read once more: another one with the same value may have come since.
    assert load() == (2, 1)


def test_what_is_read_live_cannot_be_loaded(register: Register) -> None:
    config = register.zone.config_file("commerce")
    live = f'\n[live."commerce.Enterprise"]\nmapping = "{register.mapping}"\nurl = "sqlite:///legacy.db"\n'
    config.write_text(config.read_text() + live)
    result = register.load("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["reason"] == "SOURCE_READ_ONLY"


def test_a_file_that_changes_encoding_half_way(register: Register) -> None:
    """What can be read is loaded; what cannot keeps its bytes and is read when the mapping names its encoding."""
    tail = f"{LATE},二家,2021-04-03\n".encode("gb18030")
    register.source.write_bytes(f"code,name,founded\n{GOOD},一家,2020-01-02\n".encode() + tail)
    counts = json.loads(register.load("--json").stdout)
    assert (counts["read"], counts["loaded"], counts["reasons"]) == (2, 1, {"NOT_DECODABLE": 1})
    entry = json.loads(register.quarantine("show", "commerce", register.entries()["NOT_DECODABLE"], "--json").stdout)
    assert bytes.fromhex(entry["original_hex"]) == tail
    register.mapping.write_text(
        register.mapping.read_text().replace("delimited,", "delimited, encoding: [utf-8, gb18030],")
    )
    result = register.quarantine("retry", "commerce", "--all", "--mapping", register.mapping, "--json")
    (retried,) = json.loads(result.stdout)["retries"]
    assert (retried["read"], retried["loaded"]) == (1, 1)
    assert not register.entries()


def test_a_column_that_is_not_there_is_named_and_nothing_is_loaded(register: Register) -> None:
    register.source.write_text(register.source.read_text().replace("code,name,founded", "code,nmae,founded"))
    error = json.loads(register.load("--json").stdout)["error"]
    assert error["reason"] == "MAPPING_COLUMN_MISSING"
    assert "'name'" in error["message"]
    assert "'nmae'" in error["message"]
    assert error["metadata"]["column"] == "name"
    assert "empty" in register.quarantine("list", "commerce").stdout


def test_a_number_beyond_all_measure_goes_to_quarantine(register: Register) -> None:
    """Written out it would fill the memory; it is judged by its exponent."""
    register.mapping.write_text(
        register.mapping.read_text()
        .replace("establish_date", "reg_capital_amt")
        .replace('{column: founded, parse: {date: "%Y-%m-%d"}}', "founded")
    )
    register.source.write_text(f"code,name,founded\n{GOOD},一家,1E900000000\n{LATE},二家,1E-900000000\n")
    counts = json.loads(register.load("--json").stdout)
    assert (counts["read"], counts["loaded"], counts["quarantined"]) == (2, 0, 2)


def test_progress_is_shown_to_who_looks_and_to_nobody_else(register: Register) -> None:
    rows = "".join(f"{GOOD},第{n}家,2020-01-02\n" for n in range(2000))
    register.source.write_text(f"code,name,founded\n{rows}")
    command = [sys.executable, "-P", "-m", "services.cli.main", "load", "commerce", "--mapping", str(register.mapping)]
    command += [str(register.source), "--dir", str(register.zone.folder)]
    look, terminal = os.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}
    ) as watched:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the other end of a terminal is closed with an error
            while piece := os.read(look, 4096):
                shown += piece
        assert watched.stdout is not None
        assert b"2000" in watched.stdout.read()
    os.close(look)
    assert watched.returncode == 0
    assert b"register.csv" in shown
    assert b"2000 rows" in shown
    unwatched = subprocess.run(command, capture_output=True, check=True)
    assert unwatched.stderr == b""
