"""How long nodes take to start, one at a time, and the memory they have."""

import time
from typing import Any

from bench.parts.federated import ours
from bench.process import resident_mb
from bench.setup import Setup
from bench.sides import Spread, console
from services.cli.fleet import Fleet


async def measure(setup: Setup) -> dict[str, Any]:
    """Kill and start every node, twice each."""
    async with ours(setup, "nodes") as fleet:
        found = [await _node(fleet, name, min(setup.rounds, 2)) for name in list(fleet.nodes)]
    return {"nodes": found}


async def _node(fleet: Fleet, name: str, rounds: int) -> dict[str, Any]:
    seconds: list[float] = []
    resident: list[float] = []
    for _ in range(rounds):
        await fleet.kill(name)
        started = time.perf_counter()
        await fleet.restart(name)
        seconds.append(time.perf_counter() - started)
        process = fleet.nodes[name].process
        assert process is not None
        resident.append(resident_mb(process.pid))
    console.log(f"{name} started")
    return {"node": name, "start_s": Spread.of(seconds).__dict__, "resident_mb": Spread.of(resident).__dict__}
