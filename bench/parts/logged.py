"""Everything recorded durably before each answer, against the same mesh whose nodes record nothing."""

from contextlib import AsyncExitStack
from typing import Any

from bench import sides, zones
from bench.driver import Generator
from bench.parts.federated import AGENCIES, job, pids
from bench.setup import Setup
from bench.sides import Side
from services.cli.fleet import Fleet

_PROGRAMS = {"logged": "services.cli.main", "unlogged": "bench.unlogged"}


async def measure(setup: Setup) -> dict[str, Any]:
    """Measure both by session; both meshes hold the same records."""
    async with AsyncExitStack() as stack:
        both = [await _side(setup, stack, name, program) for name, program in _PROGRAMS.items()]
        checked = await sides.verify(both, setup.subjects)
        loads = await sides.compare(both, loads=(1, 64), rounds=setup.rounds, seconds=setup.seconds)
        return {"checked": checked, "loads": [load.to_json() for load in loads]}


async def _side(setup: Setup, stack: AsyncExitStack, name: str, program: str) -> Side:
    zone = await zones.made(setup.folder / name, setup.subjects, setup.transport)
    fleet = await stack.enter_async_context(Fleet(zone, program=program))
    made = job(zone, "session", fleet.address("gateway"), setup.subjects)
    generator = await stack.enter_async_context(Generator(made))
    return Side(name, name, generator, pids(fleet, "gateway"), pids(fleet, *AGENCIES))
