"""What README and docs show is run: every `sh` and `python` block, in order, against a mesh that really runs.

A block of another language whose first line is a comment `file: NAME` is written to that file first. `console` blocks
show commands that go on for long; they must at least be commands there are.
"""

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.cli.filling import fill
from services.cli.fleet import Fleet
from services.cli.zone import Zone

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^(?:#|//) file: (\S+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    return [Block(*found.groups()) for found in _BLOCK.finditer(document.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Generator[Zone]:
    """A running mesh with the synthetic zone in it."""
    zone = Zone.prepare(tmp_path_factory.mktemp("docs") / ".hutong")
    fill(zone, None, with_sample=True, quiet=True)
    started, stop = threading.Event(), threading.Event()

    async def run() -> None:
        async with Fleet(zone):
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(60)
    yield zone
    stop.set()
    thread.join(60)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_what_a_document_shows_works(document: Path, zone: Zone, tmp_path: Path) -> None:
    environment = os.environ | {
        "HUTONG_DIR": str(zone.folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONWARNINGS": "error",
    }
    ran = 0
    for block in blocks(document):
        named = _FILE.match(block.text)
        if named:
            (tmp_path / named[1]).write_text(block.text, encoding="utf-8")
            continue
        command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}.get(block.language)
        if command:
            done = subprocess.run(
                [*command, block.text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran or document.name == "design.md"


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, REPOSITORY / "bench" / "README.md"], ids=lambda d: f"{d.parent.name}/{d.name}"
)
def test_long_commands_are_commands(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for block in blocks(document):
        if block.language == "console":
            program, name, *_ = block.text.split()
            if program == "make":
                assert name in targets
            else:
                done = subprocess.run(
                    [sys.executable, "-m", "services.cli.main", name, "--help"], capture_output=True, check=False
                )
                assert done.returncode == 0, block.text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target
