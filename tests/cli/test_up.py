"""`hutong up`: a mesh until Ctrl-C, and nothing after it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import run
from tests.cli.processes import gone, mentioning


class Up:
    """`hutong up --json` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        command = [sys.executable, "-P", "-m", "services.cli.main", "up", "--dir", str(folder), "--json", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, self.process.communicate(timeout=30)
        found: dict[str, Any] = json.loads(text)
        return found

    def end(self, number: signal.Signals) -> list[dict[str, Any]]:
        """Send a signal and read the rest."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(tmp_path / "zone", "--no-sample")
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.communicate(timeout=30)
    assert gone(str(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_mesh(up: Up, number: signal.Signals) -> None:
    serving = up.line()
    assert serving["state"] == "serving"
    assert {node["node"] for node in serving["nodes"]} >= {"gateway", "customs"}
    assert len(mentioning(str(up.folder))) == len(serving["nodes"]) + 1
    assert up.end(number) == [{"state": "stopped"}]
    assert up.process.returncode == 0
    assert not mentioning(str(up.folder))


def test_a_signal_while_it_starts_leaves_nothing(up: Up) -> None:
    # The lock tells that the zone is being brought up.
    lock = up.folder / "lock"
    while not (lock.exists() and len(mentioning(str(up.folder))) > 2):
        assert up.process.poll() is None
    up.end(signal.SIGINT)
    assert up.process.returncode == 0
    assert not mentioning(str(up.folder))


def test_nodes_end_with_their_parent_however_it_ends(up: Up) -> None:
    up.line()
    up.process.kill()
    up.process.communicate(timeout=30)
    assert gone(str(up.folder))


def test_a_zone_that_is_up_is_not_brought_up_again(up: Up) -> None:
    up.line()
    again = run("up", "--dir", up.folder, "--no-sample", "--json")
    assert again.exit_code == 1
    error = json.loads(again.stdout)["error"]
    assert error["reason"] == "ZONE_IN_USE"
    assert str(up.process.pid) in error["message"]


def test_a_node_that_dies_is_told_and_the_others_go_on(up: Up) -> None:
    up.line()
    (pid,) = mentioning(str(up.folder / "quality" / "node.toml"))
    os.kill(pid, signal.SIGKILL)
    assert up.line()["node"] == "quality"
    rest = up.end(signal.SIGINT)
    assert rest[0] == {"state": "stopped"}
    assert rest[1]["error"]["reason"] == "NODE_FAILED"
    assert up.process.returncode == 1


def test_records_are_there_at_the_first_question(tmp_path: Path) -> None:
    folder = tmp_path / "zone"
    started = Up(folder)
    try:
        started.line()
        result = run(
            *("query", "--dir", folder, "--as", "taxation/refund", "--purpose", "P-REBATE"),
            *("--basis", "CN-VAT-REBATE", "--subject", "cn.uscc:91999901MA07HY2E6F"),
            *("--select", "customs.Declaration:declaration_no"),
        )
        assert result.exit_code == 0, result.stderr
        assert "999920250000000001" in result.stdout
    finally:
        started.end(signal.SIGINT)
    assert gone(str(folder))
