"""Output in other people's terminals: wide characters stand in line, narrow encodings lose nothing."""

import json
import os
import subprocess
import sys

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from services.cli.lazy import command
from services.cli.main import Hutong, app
from services.kit.records import catalogue

HUTONG = [sys.executable, "-P", "-m", "services.cli.main"]


def told(encoding: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "error"}
    return subprocess.run([*HUTONG, *arguments], env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("width", [100, 160])
def test_columns_of_chinese_text_stand_in_line(width: int) -> None:
    shown = CliRunner().invoke(app, ["catalogue"], env={"COLUMNS": str(width)}).stdout
    rows = [line for line in shown.splitlines() if line.startswith(("│", "┃", "┏", "└"))]
    assert any("进出口货物报关单" in row for row in rows)
    assert len({cell_len(row) for row in rows}) == 1
    # Every column begins at the same cell in every row.
    bars = {tuple(cell_len(row[:at]) for at, sign in enumerate(row) if sign == "│") for row in rows if row[0] == "│"}
    assert len(bars) == 1


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "gb18030", "latin-1"])
def test_a_terminal_of_another_encoding(encoding: str) -> None:
    shown = told(encoding, "catalogue", "customs.Declaration")
    assert shown.returncode == 0, shown.stderr
    text = shown.stdout.decode(encoding)
    assert ("进出口货物报关单" in text) == encoding.startswith("gb")
    assert told(encoding, "--help").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "utf-8"])
def test_machines_read_the_same_whatever_the_encoding(encoding: str) -> None:
    listed = json.loads(told(encoding, "catalogue", "--json").stdout.decode(encoding))["record_types"]
    assert [kind["local_title"] for kind in listed] == [kind.local_title for kind in catalogue.load()]
    refused = json.loads(told(encoding, "catalogue", "报关单", "--json").stdout.decode(encoding))
    assert "报关单" in refused["error"]["message"]


def commands() -> list[str]:
    """Every command that does something, as it is written."""
    return [written for entry in Hutong.entries for written in _below(entry.name, command(entry))]


def _below(name: str, made: object) -> list[str]:
    groups = getattr(made, "commands", {})
    return [written for one, its in groups.items() for written in _below(f"{name} {one}", its)] if groups else [name]


@pytest.mark.parametrize("written", commands())
def test_every_command_speaks_to_machines_and_explains_itself(written: str) -> None:
    shown = CliRunner().invoke(app, [*written.split(), "--help"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0
    assert "--json" in shown.stdout
    assert f"Usage: hutong {written}" in shown.stdout
