"""`hutong load` from a legacy database that lives on: by watermark, as often as one likes."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.cli.zone import Zone
from tests.cli.conftest import run

FIRST, SECOND, THIRD, DOUBTED = "91999901MA07HYX927", "91999901MA07HY2E6F", "91999901MA07HY2F4A", "91999901MA07HYX92X"
MAPPING = """\
mapping: commerce.legacy_register
version: 1
record: commerce.Enterprise
title: The old register
source_system: old-register
source: {kind: sql, table: firms, key: [id], watermark: changed_at, batch: 2, null_words: ["-"]}
duplicates: keep_last_version
suspect: quarantine
fields:
  uscc: {column: code, required: true}
  name: {column: title, required: true}
  establish_date: founded
  reg_capital_amt: {column: capital, parse: {decimal: {group: ","}}}
"""


class Legacy:
    """A table that somebody else writes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = sa.create_engine(url.replace("sqlite+aiosqlite", "sqlite"))
        metadata = sa.MetaData()
        self.firms = sa.Table(
            "firms",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            *(sa.Column(name, sa.String(40)) for name in ("code", "title", "capital")),
            sa.Column("founded", sa.Date),
            sa.Column("changed_at", sa.DateTime(timezone=True)),
        )
        metadata.create_all(self.engine)

    def write(self, number: int, code: str, title: str, minute: int | None, **more: Any) -> None:
        """Insert a row, or change the one that is there."""
        changed = None if minute is None else dt.datetime(2026, 3, 1, 12, minute, tzinfo=dt.UTC)
        values = {"code": code, "title": title, "changed_at": changed} | more
        with self.engine.begin() as connection:
            if not connection.execute(self.firms.update().where(self.firms.c.id.in_([number])).values(values)).rowcount:
                connection.execute(self.firms.insert().values(id=number, **values))


@pytest.fixture
def legacy(any_url: str) -> Iterator[Legacy]:
    made = Legacy(any_url)
    yield made
    made.engine.dispose()


class Loading:
    """The table, its mapping, and the zone it is loaded into."""

    def __init__(self, legacy: Legacy, zone: Zone) -> None:
        self.legacy, self.zone = legacy, zone
        self.mapping = zone.folder / "old_register.yaml"
        self.mapping.write_text(MAPPING)

    def __call__(self) -> tuple[int, int, int, int]:
        result = run(
            *("load", "commerce", "--mapping", self.mapping, self.legacy.url, "--dir", self.zone.folder, "--json")
        )
        assert result.exit_code == 0, result.stdout
        counts = json.loads(result.stdout)
        assert counts["read"] == counts["loaded"] + counts["unchanged"] + counts["quarantined"]
        return counts["read"], counts["loaded"], counts["unchanged"], counts["quarantined"]

    def quarantine(self, *arguments: str | Path) -> Any:
        result = run("quarantine", *arguments, "--dir", self.zone.folder, "--json")
        assert result.exit_code == 0, result.stdout
        return json.loads(result.stdout)


@pytest.fixture
def load(legacy: Legacy, zone: Zone) -> Loading:
    return Loading(legacy, zone)


def test_only_what_is_new_or_changed_is_read_and_nothing_comes_twice(load: Loading, legacy: Legacy) -> None:
    for number, (code, minute) in enumerate(((FIRST, 1), (SECOND, 2), (THIRD, 3))):
        legacy.write(number, code, f"企业{number}", minute, founded=dt.date(2020, 2, 29), capital="1,250.50")
    assert load() == (3, 3, 0, 0)
    # The row at the watermark is read once more, since another with the same one may have been committed since.
    assert load() == (1, 0, 1, 0)
    legacy.write(0, FIRST, "改名", 4)
    assert load() == (2, 1, 1, 0)
    assert load() == (1, 0, 1, 0)


def test_a_row_without_a_watermark_is_read_every_time_and_loaded_once(load: Loading, legacy: Legacy) -> None:
    legacy.write(1, FIRST, "无时间", None)
    legacy.write(2, SECOND, "有时间", 1)
    assert load() == (2, 2, 0, 0)
    assert load() == (2, 0, 2, 0)


def test_a_row_that_is_no_record_is_kept_with_all_its_columns_and_driven_again(load: Loading, legacy: Legacy) -> None:
    legacy.write(1, FIRST, "一家", 1, capital="1250,50")
    legacy.write(2, DOUBTED, "代码可疑", 2)
    legacy.write(3, SECOND, "-", 3)
    assert load() == (3, 0, 0, 3)
    entries = {entry["position"]: entry for entry in load.quarantine("list", "commerce")["entries"]}
    assert {p: e["reason"] for p, e in entries.items()} == {
        "1": "VALUE_INVALID",
        "2": "CHECK_DIGIT",
        "3": "VALUE_MISSING",
    }
    original = json.loads(bytes.fromhex(entries["1"]["original_hex"]))
    assert (original["code"], original["capital"], original["id"]) == (FIRST, "1250,50", "1")
    load.mapping.write_text(
        MAPPING.replace("suspect: quarantine", "suspect: accept").replace(
            '{decimal: {group: ","}}', '{decimal: {group: ".", point: ","}}'
        )
    )
    (retried,) = load.quarantine("retry", "commerce", "--all", "--mapping", load.mapping)["retries"]
    assert (retried["read"], retried["loaded"], retried["quarantined"]) == (3, 2, 1)


def test_a_column_that_is_not_there_is_named_before_any_row(load: Loading, legacy: Legacy) -> None:
    legacy.write(1, FIRST, "一家", 1)
    load.mapping.write_text(MAPPING.replace("column: title", "column: titel"))
    result = run("load", "commerce", "--mapping", load.mapping, legacy.url, "--dir", load.zone.folder, "--json")
    error = json.loads(result.stdout)["error"]
    assert error["reason"] == "MAPPING_COLUMN_MISSING"
    assert "'title'" in error["message"]


def test_no_password_is_told_or_kept(zone: Zone, tmp_path: Path) -> None:
    mapping = tmp_path / "old_register.yaml"
    mapping.write_text(MAPPING)
    url = "postgresql://reader:hidden-word@127.0.0.1:1/old"
    result = run("load", "commerce", "--mapping", mapping, url, "--dir", zone.folder)
    assert result.exit_code == 1
    assert "error: STORE_UNAVAILABLE" in result.stderr
    assert "hidden-word" not in result.stdout + result.stderr
    assert b"hidden-word" not in b"".join(file.read_bytes() for file in zone.folder.rglob("records.db*"))
