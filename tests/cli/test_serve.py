"""`hutong serve`: configs that do not stand, ports in use, and how a node ends."""

import asyncio
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from services.cli.zone import Zone
from tests.cli.conftest import run
from tests.kit.test_telemetry import collecting

COMMAND = [sys.executable, "-P", "-m", "services.cli.main", "serve"]


def served(node: str, zone: Zone, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, node, "--config", str(zone.config_file(node)), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_it_serves(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["message"] == "Node serves":
            return
    pytest.fail("the node ended before it served")


@pytest.mark.parametrize("node", ["customs", "recognition", "supervision", "gateway"])
def test_a_config_that_stands(zone: Zone, node: str) -> None:
    result = run("serve", node, "--config", zone.config_file(node), "--check-config", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["valid"] is True
    assert "stands" in run("serve", node, "--config", zone.config_file(node), "--check-config").stdout


def test_an_unknown_key_is_named_with_the_nearest(zone: Zone) -> None:
    config = zone.config_file("customs")
    config.write_text(config.read_text().replace("listen =", "lisen ="))
    result = run("serve", "customs", "--config", config, "--check-config")
    assert result.exit_code == 1
    assert "error: CONFIG_UNKNOWN_KEY" in result.stderr
    assert "'listen'" in result.stderr


def test_a_missing_config(tmp_path: Path) -> None:
    result = run("serve", "customs", "--config", tmp_path / "none.toml", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["reason"] == "CONFIG_FILE_MISSING"


def test_somebody_elses_config(zone: Zone) -> None:
    result = run("serve", "customs", "--config", zone.config_file("quality"), "--check-config")
    assert result.exit_code == 1
    assert "error: CONFIG_INVALID" in result.stderr


def test_an_unknown_room(zone: Zone) -> None:
    result = run("serve", "custom", "--config", zone.config_file("customs"))
    assert result.exit_code == 1
    assert "error: ROOM_UNKNOWN" in result.stderr
    assert "'customs'" in result.stderr


def test_no_certificate(zone: Zone) -> None:
    zone.credentials("customs/node").certificate.unlink()
    result = run("serve", "customs", "--config", zone.config_file("customs"))
    assert result.exit_code == 1
    assert "error: SVID_UNREADABLE" in result.stderr


def test_a_port_in_use(zone: Zone) -> None:
    host, _, port = zone.department("customs").node.listen.rpartition(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        process = served("customs", zone)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"error: ADDRESS_IN_USE: cannot listen on {host}:{port}" in err
    assert " next: " in err
    assert "Traceback" not in err


LIVE = """
[live."commerce.Branch"]
mapping = "branches.yaml"
url = "sqlite:///legacy.db"
"""
BRANCHES = """\
mapping: commerce.branches
version: 1
record: commerce.Branch
source_system: legacy
source: {kind: sql, table: branches, key: [code]}
fields: {branch_uscc: code, uscc: firm}
"""


def test_what_is_read_live_is_opened_before_it_serves(zone: Zone) -> None:
    config = zone.config_file("commerce")
    config.write_text(config.read_text() + LIVE)
    config.with_name("branches.yaml").write_text(BRANCHES)
    with closing(sqlite3.connect(config.with_name("legacy.db"))) as legacy:
        legacy.execute("CREATE TABLE elsewhere (code TEXT)")
    refused = run("serve", "commerce", "--config", config)
    assert refused.exit_code == 1
    assert "error: MAPPING_INVALID: the database has no table 'branches'" in refused.stderr
    with closing(sqlite3.connect(config.with_name("legacy.db"))) as legacy:
        legacy.execute("CREATE TABLE branches (code TEXT PRIMARY KEY, firm TEXT)")
    process = served("commerce", zone)
    wait_until_it_serves(process)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_it(zone: Zone, number: signal.Signals) -> None:
    """And a collector hears what it says meanwhile."""
    config = zone.config_file("customs")
    async with collecting() as (collector, address):
        config.write_text(f'{config.read_text()}\n[telemetry]\notlp = "{address}"\n')
        process = served("customs", zone)
        await asyncio.to_thread(wait_until_it_serves, process)
        process.send_signal(number)
        _, err = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 0
    assert "Node drains" in err
    assert {"Node serves", "Node drains"} <= {line.body.string_value for line in collector.lines.heard}


def test_a_supervised_node_ends_with_its_supervisor(zone: Zone) -> None:
    process = served("customs", zone, "--supervised")
    wait_until_it_serves(process)
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Node drains" in err
