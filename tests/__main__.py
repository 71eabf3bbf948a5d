"""All tests; a few that fail are run once more, alone.

Tests here start processes, cut wires and wait for real clocks: on a busy machine one in some thousand comes too late.
Nothing is drawn anew (see the profiles in `tests/conftest.py`), so what fails for a reason fails again; what passes
only alone is named, since it wants more room or is a race that somebody should look at.

    python -m tests [ARGUMENTS OF PYTEST …]
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

FEW: Final = 5
"""Failures that a busy machine may explain."""

_ABREAST: Final = ("--numprocesses=auto", "--dist=loadfile")
"""A file's tests stay together: its meshes and databases are made once."""
_FAILED: Final = 1
"""How pytest ends when tests ran, and some failed."""


def main(arguments: list[str], folder: Path) -> int:
    """Run the tests, as pytest does with these arguments in that folder; gives the exit code."""
    code = _run(folder, *_ABREAST, *arguments)
    if code != _FAILED:
        return code
    failed = _last_failed(folder)
    if not failed or len(failed) > FEW:
        return code
    if code := _run(folder, *arguments, "--numprocesses=0", "--last-failed", "--last-failed-no-failures=none"):
        return code
    print("\nPassed only when run once more, alone:", *failed, sep="\n  ", flush=True)  # noqa: T201
    return 0


def _run(folder: Path, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=folder, check=False).returncode


def _last_failed(folder: Path) -> list[str]:
    cache = folder / ".pytest_cache" / "v" / "cache" / "lastfailed"
    return sorted(json.loads(cache.read_text(encoding="utf-8"))) if cache.exists() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
