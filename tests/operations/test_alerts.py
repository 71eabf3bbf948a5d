"""Alerts come when they must and not otherwise, and say what to do; the dashboard shows all there is."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.kit.log.showing import Standing
from tests.conftest import REPOSITORY

ALERTS = REPOSITORY / "helm" / "hutong" / "files" / "alerts.yaml"
RUNBOOKS = REPOSITORY / "docs" / "operations" / "runbooks.md"
METRICS = REPOSITORY / "docs" / "operator.md"
DASHBOARD = ALERTS.with_name("dashboard.json")
UNKNOWN = "hutong_log_witnesses_unknown"

NOT_SHOWN = {
    # Each agency's has a name of its own; `hutong_events_behind_seconds` grows while they are not followed.
    "hutong_events_<agency>_followed",
    # What witnesses may be beside co-signing and away is not for every day: there are alerts, and `hutong status`.
    "hutong_log_witnesses_refuses",
    "hutong_log_witnesses_ahead",
    "hutong_log_witnesses_forked",
}
PLAYED = Path(__file__).parent / "alerts_test.yaml"


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("no promtool here: Debian's package `prometheus` has it, and `make dev` takes it from there")
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


def exported() -> set[str]:
    """Name the metrics that nodes show to Prometheus, as their code does."""
    found: set[str] = set()
    for folder in ("services", "gateway"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if "cli" not in path.parts:
                found.update(named(ast.parse(path.read_text(encoding="utf-8"))))
    # Sent to collectors only: Prometheus has `hutong_call_seconds_count`.
    found -= {"hutong_calls", "hutong_events_", "hutong_log_witnesses_"}
    told = METRICS.read_text(encoding="utf-8")
    found = {f"{name}_total" if f"{name}_total" in told else name for name in found}
    of_agency = {name for name in found if name.startswith("hutong_events_<")}
    of_standing = {name for name in found if name.startswith("hutong_log_witnesses_<")}
    assert (len(of_agency), len(of_standing)) == (1, 1)
    standings = {f"hutong_log_witnesses_{standing.name.lower()}" for standing in Standing} - {UNKNOWN}
    return (found - of_agency - of_standing) | {"hutong_events_<agency>_followed"} | standings


def named(tree: ast.AST) -> set[str]:
    """Find the names in a module; `<>` stands where they differ."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "<>" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if re.fullmatch(r"hutong_[a-z_<>]+", text):
            found.add(text)
    return found


def metrics(query: str) -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"hutong_\w+", query)}


def asked() -> set[str]:
    """Name the metrics that the dashboard asks for."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return {name for panel in panels for target in panel["targets"] for name in metrics(target["expr"])}


def test_alerts_are_about_what_nodes_show() -> None:
    assert len(exported()) > 30
    assert {name for rule in rules() for name in metrics(rule["expr"])} <= exported()


def test_the_dashboard_shows_all_there_is_but_for_a_closed_list() -> None:
    assert asked() <= exported()
    assert exported() - asked() == NOT_SHOWN


def test_the_page_for_operators_tells_of_all_there_is() -> None:
    told = METRICS.read_text(encoding="utf-8")
    assert not [name for name in exported() if name not in told and not name.startswith("hutong_log_witnesses_")]


def test_the_dashboard_is_laid_out() -> None:
    """No panel lies on another, and none has another's number."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
