"""Results on disk: `.bench/results.json`, part by part, so that one part can be measured anew. Never committed."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
FILE: Final = REPOSITORY / ".bench" / "results.json"
_PACKAGES = ("grpcio", "ngh2", "uvloop", "protobuf", "cedarpy", "psycopg")
_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "node": ("node", "--version"),
    "nginx": ("nginx", "-v"),
    "postgres": ("postgres", "--version"),
}


def read(file: Path = FILE) -> dict[str, Any]:
    """Read what was measured so far, by part."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def keep(part: str, found: Mapping[str, Any], file: Path = FILE) -> None:
    """Put a part's results in place of its former ones, with the machine they were taken on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    everything = read(file) | {part: {**found, "machine": machine()}}
    file.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Describe this machine: what figures depend on, and nothing that names it."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(int(memory) / 2**20),
        "system": platform.system(),
        "versions": {"python": platform.python_version(), **_packages(), **_programs()},
    }


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _programs() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, command in _PROGRAMS.items():
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        words = (said.stdout or said.stderr).replace("/", " ").split()
        found[name] = next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "")
    return found


if __name__ == "__main__":
    json.dump(machine(), sys.stdout, indent=1)
