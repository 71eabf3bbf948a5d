"""The measuring itself: real load generators against a bare mesh that runs, and what they do about wrong answers."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from bench import process, sides, zones
from bench.asking.job import QUANTILES
from bench.driver import Generator, GeneratorFailedError
from bench.parts.federated import job
from bench.peers import bare
from bench.sides import Side

SUBJECTS = 12


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[bare.Departments, str, int]]:
    zone = await zones.made(tmp_path_factory.mktemp("bench") / "zone", SUBJECTS)
    async with bare.departments(zone) as departments, bare.gateway(departments) as (target, pid):
        yield departments, target, pid


async def test_a_side_is_verified_and_measured(mesh: tuple[bare.Departments, str, int]) -> None:
    departments, target, pid = mesh
    async with Generator(job(departments.zone, "plain", target, SUBJECTS)) as generator:
        side = Side("bare", "bare", generator, [pid], departments.pids)
        assert await sides.verify([side], SUBJECTS) == {"bare": SUBJECTS}
        (load,) = await sides.compare([side], loads=(4,), rounds=2, seconds=0.2)
        assert load.queries > SUBJECTS
        assert not load.errors
        waits = load.figures["p50_ms"]
        assert 0 < waits.low <= waits.median <= waits.high
        (pace,) = await sides.paced([side], rate=100, count=20, rounds=2)
        assert pace.count == 20
        assert len(pace.quantiles_ms) == len(QUANTILES)
        assert list(pace.quantiles_ms) == sorted(pace.quantiles_ms)


async def test_a_wrong_answer_is_noticed(mesh: tuple[bare.Departments, str, int]) -> None:
    departments, target, _ = mesh
    with contextlib.closing(sqlite3.connect(departments.folder / "customs.db")) as database, database:
        changed = "UPDATE operator SET _body = replace(_body, 'AEOCN', 'AEOXX') WHERE rowid = 3"
        before = database.execute("SELECT _body FROM operator WHERE rowid = 3").fetchone()
        assert database.execute(changed).rowcount == 1
    async with Generator(job(departments.zone, "plain", target, SUBJECTS)) as generator:
        with pytest.raises(GeneratorFailedError, match="AEOXX"):
            await generator.verify(SUBJECTS)
    with contextlib.closing(sqlite3.connect(departments.folder / "customs.db")) as database, database:
        database.execute("UPDATE operator SET _body = ? WHERE rowid = 3", before)


async def test_a_side_that_is_not_there_is_told(mesh: tuple[bare.Departments, str, int]) -> None:
    departments, _, _ = mesh
    async with Generator(job(departments.zone, "plain", "127.0.0.1:1", SUBJECTS)) as generator:
        with pytest.raises(GeneratorFailedError, match="Unavailable"):
            await generator.verify(1)


def test_cpu_is_that_of_children_too(tmp_path: Path) -> None:
    """Of those that run and of those that have ended."""
    burn = "import time\nwhile time.process_time() < 0.15: pass"
    file = tmp_path / "burn.py"
    file.write_text(burn)
    text = f"import subprocess, sys\nsubprocess.run([sys.executable, {str(file)!r}])\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdout.readline()
        assert process.cpu_seconds(parent.pid) >= 0.14
        assert process.tree(parent.pid) == [parent.pid]
        assert process.resident_mb(parent.pid) >= process.proportional_mb(parent.pid) > 1
        parent.stdin.write("\n")
