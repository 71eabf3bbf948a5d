"""What the number of departments costs: up to twenty, fifteen of which are made up.

Measured in a process of its own, which finds the made-up agencies: `python -m bench.parts.departments`.
"""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from bench import agencies, corpus, sides, wider, zones
from bench.asking.job import GIVEN
from bench.driver import Generator
from bench.parts.federated import job, pids
from bench.peers import contract
from bench.setup import Setup
from bench.sides import Side, console
from services.cli import fleet as fleets
from services.cli.fleet import Fleet

_COUNTS: Final = (1, 2, 5, 10, 20)
_SUBJECTS: Final = 500
_START_LIMIT: Final = 180.0
"""Seconds: two dozen nodes start at once, on a few cores."""
_FILING: Final = ("filing_no", "uscc", "filed_on")


async def measure(setup: Setup) -> dict[str, Any]:
    """Measure a question to ever more departments."""
    folder = setup.folder / "departments"
    await asyncio.to_thread(agencies.write, folder / "agencies", _counts(setup)[-1] - len(corpus.TYPES))
    told = folder / "found.json"
    made = folder / "agencies"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "bench.parts.departments", str(folder), str(told)),
        *(str(int(setup.quick)), setup.transport),
        env=os.environ | {wider.FOLDER: str(made), "PYTHONPATH": _path(made / "proto")},
    )
    if await process.wait():
        raise RuntimeError("the measurement of departments failed")
    found: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return found


def _path(own: Path) -> str:
    return os.pathsep.join(filter(None, (str(own), os.environ.get("PYTHONPATH", ""))))


def _counts(setup: Setup) -> tuple[int, ...]:
    return (1, 6) if setup.quick else _COUNTS


async def _measure(setup: Setup) -> dict[str, Any]:
    counts = _counts(setup)
    extra = [f"{name}.{agencies.RECORD}" for name in agencies.names(counts[-1] - len(corpus.TYPES))]
    types = [*corpus.TYPES, *extra]
    subjects = min(setup.subjects, _SUBJECTS)
    zone = await zones.made(setup.folder / "zone", subjects, setup.transport, types)
    async with Fleet(zone, program="bench.wider") as fleet:
        return {"counts": [await _asked(setup, fleet, types[:count], subjects) for count in counts]}


async def _asked(setup: Setup, fleet: Fleet, types: list[str], subjects: int) -> dict[str, Any]:
    given = {name: GIVEN.get(name, _FILING) for name in types}
    async with AsyncExitStack() as stack:
        made = job(fleet.zone, "session", fleet.address("gateway"), subjects, given=given)
        generator = await stack.enter_async_context(Generator(made))
        departments = pids(fleet, *map(contract.agency_of, types))
        side = Side(str(len(types)), f"{len(types)} departments", generator, pids(fleet, "gateway"), departments)
        await sides.verify([side], subjects)
        loads = await sides.compare([side], loads=(64,), rounds=setup.rounds, seconds=setup.brief)
    console.log(f"{len(types)} departments")
    return {"departments": len(types), "loads": [load.to_json() for load in loads]}


def _main() -> None:
    wider.widen()
    # Not `fleets.START_LIMIT = …`: it is nobody's to change but a measurement's.
    setattr(fleets, "START_LIMIT", _START_LIMIT)  # noqa: B010
    folder, told, quick, transport = sys.argv[1:]
    setup = Setup(Path(folder), Path(), quick=quick == "1", transport=transport)  # type: ignore[arg-type]
    Path(told).write_text(json.dumps(asyncio.run(_measure(setup))), encoding="utf-8")


if __name__ == "__main__":
    _main()
