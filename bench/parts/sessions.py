"""Very many sessions: a thousand that each ask once a second, and what open ones cost that do not ask."""

from contextlib import AsyncExitStack
from typing import Any, Final

from bench import sides, zones
from bench.driver import Generator
from bench.parts.federated import AGENCIES, job, pids
from bench.process import resident_mb
from bench.setup import Setup
from bench.sides import Side, console
from services.cli.fleet import Fleet

_OPEN: Final = (1, 100, 1_000)
_ROOM: Final = 4_096
"""Calls and connections that the gateway has room for: a session is one of each, and no caller may have over half."""
_PER_SECOND: Final = 1_000
_SECONDS: Final = 10


async def measure(setup: Setup) -> dict[str, Any]:
    """Measure 64 questions in flight, spread over ever more sessions, then a thousand a second, one of each session."""
    zone = await zones.made(setup.folder / "sessions", setup.subjects, setup.transport)
    zones.configure(zone, "gateway", "limits", {"concurrent_calls": _ROOM, "connections": _ROOM})
    async with Fleet(zone) as fleet:
        counts = (1, 20) if setup.quick else _OPEN
        found = [await _with(setup, fleet, count) for count in counts]
    return {"open": found}


async def _with(setup: Setup, fleet: Fleet, count: int) -> dict[str, Any]:
    await fleet.restart("gateway")
    gateway = pids(fleet, "gateway")
    async with Generator(job(fleet.zone, "session", fleet.address("gateway"), setup.subjects)) as generator:
        # What is made once, whoever asks, is no session's.
        await generator.verify(setup.subjects)
    before = resident_mb(*gateway)
    async with AsyncExitStack() as stack:
        made = job(fleet.zone, "session", fleet.address("gateway"), setup.subjects, connections=count)
        generator = await stack.enter_async_context(Generator(made))
        side = Side(str(count), f"{count:,} sessions", generator, gateway, pids(fleet, *AGENCIES))
        # Each session is opened by its first question.
        await sides.verify([side], max(count, setup.subjects))
        resident = resident_mb(*gateway)
        loads = await sides.compare([side], loads=(64,), rounds=setup.rounds, seconds=setup.brief)
        # Each next question is another session's: of a thousand sessions, each asks once a second.
        rate = 50 if setup.quick else _PER_SECOND
        paced = await sides.paced([side], rate=rate, count=rate * (2 if setup.quick else _SECONDS), rounds=1)
    console.log(f"{count:,} sessions")
    return {
        "sessions": count,
        "resident_before_mb": before,
        "resident_mb": resident,
        "loads": [load.to_json() for load in loads],
        "paced": [each.to_json() for each in paced],
    }
