"""The main job on real sources, and where it cannot go on; tests/packaging runs it as users get it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cli.processes import gone

COMMAND = [sys.executable, "-P", "-m", "services.cli.main", "demo"]


def told(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo with its temporary folder inside ours."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_demo_on_real_sources(tmp_path: Path, shared_data: Path) -> None:
    done = told(tmp_path, "--data", str(shared_data), "--json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["passed"] is True
    checks = [check for step in report["steps"] for check in step["checks"]]
    assert len(checks) == report["checks"]
    assert not list(tmp_path.iterdir())
    assert gone(str(tmp_path), within=0)
    assert "cn_enterprise_2019_fujian.csv: 6,099 rows read, 1 in quarantine" in checks
    assert "377 cases ended after their deadline" in checks
    assert "and customs decides" in checks
    assert "exactly 7 are answered; the others are told that the quota is used up" in checks
    assert "the supervision's are not among them: they show when 365 days are over" in checks


def test_a_demo_that_cannot_go_on_says_why_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = told(tmp_path, "--data", str(tmp_path / "empty"), "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert "SAMPLE_MISSING" in report["failure"]
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
