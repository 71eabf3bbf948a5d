"""Alerts: they come when they must and not otherwise, are about metrics that exist, and say what to do."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.kit.log.showing import Standing
from tests.conftest import REPOSITORY

ALERTS = REPOSITORY / "helm" / "hutong" / "files" / "alerts.yaml"
RUNBOOKS = REPOSITORY / "docs" / "operations" / "runbooks.md"
METRICS = REPOSITORY / "docs" / "operator.md"
PLAYED = Path(__file__).parent / "alerts_test.yaml"


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here: Debian's package `prometheus` has it, and `make dev` installs that as root")
    return found


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_every_alert_comes_when_it_must_and_none_on_a_good_day(promtool: str, tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(PLAYED, tmp_path)
    done = run(promtool, "test", "rules", PLAYED.name, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # And it is told where one does not: nothing here passes because nothing is looked at.
    text = (tmp_path / ALERTS.name).read_text(encoding="utf-8")
    (tmp_path / ALERTS.name).write_text(text.replace("hutong_log_failing == 1", "hutong_log_failing == 2"))
    done = run(promtool, "test", "rules", PLAYED.name, folder=tmp_path)
    assert done.returncode != 0
    assert "HutongLogFailing" in done.stdout + done.stderr


def test_every_alert_is_played_through() -> None:
    played = PLAYED.read_text(encoding="utf-8")
    missing = [rule["alert"] for rule in rules() if f'alertname="{rule["alert"]}"' not in played]
    assert not missing


def test_every_alert_says_what_to_do() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = [rule["alert"] for rule in rules()]
    assert headings == names
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/operations/runbooks.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_alerts_are_about_what_nodes_show() -> None:
    """The page for operators lists the metrics."""
    told = METRICS.read_text(encoding="utf-8")
    known = set(re.findall(r"hutong_\w+", told)) | {
        f"hutong_log_witnesses_{standing.value.replace('-', '')}" for standing in Standing
    }
    assert {metric for rule in rules() for metric in re.findall(r"hutong_\w+", rule["expr"])} <= known
