"""Steps about failure: a department that is dead, and one that is slow."""

import asyncio
import signal
import time

from services.cli.demo.questions import FIVE
from services.cli.demo.stage import REGISTER, Stage, status, until

_DEADLINE = 2.0
_SELECTS = (*FIVE[:2], "customs.Operator:customs_code", *FIVE[3:])


async def departments_fail(stage: Stage) -> None:
    """Kill one department, freeze another, and ask all five; then bring them back."""
    narrator, fleet = stage.narrator, stage.fleet
    narrator.step("A department is killed, another one hangs")
    asked = asyncio.create_task(stage.ask(REGISTER, _SELECTS, deadline=_DEADLINE))
    await fleet.kill("quality")
    # Whether quality was quick enough to answer this one is chance; that the answer comes is not.
    during = await asked
    narrator.check(len(during) == 5, "killed in the middle of a question: the answer comes all the same", during.keys())
    started = time.monotonic()
    dead = await stage.ask(REGISTER, _SELECTS, deadline=_DEADLINE)
    took = time.monotonic() - started
    narrator.show(("Record type", "Came out as", "Reason"), ((name, status(s), s.reason) for name, s in dead.items()))
    narrator.check(status(dead["quality.FoodFiling"]) == "UNAVAILABLE", "the dead one costs its own section")
    alive = {name: status(s) for name, s in dead.items() if name != "quality.FoodFiling"}
    narrator.check(set(alive.values()) <= {"OK", "PARTIAL"}, "the others answer as ever", alive)
    narrator.check(took < _DEADLINE, f"nobody waited for it: {took:.2f} s of {_DEADLINE:.0f} s allowed", took)
    await _freeze(stage)
    narrator.say("Both come back: one is started again, the other goes on.")
    await fleet.restart("quality")

    async def all_back() -> bool:
        return all(section.records for section in (await stage.ask(REGISTER, _SELECTS)).values())

    took_back = await until(all_back)
    narrator.check(took_back is not None, f"all five answer again, {took_back or 0:.1f} s after it is healthy")


async def _freeze(stage: Stage) -> None:
    """Stop a node's process without ending it: it holds its connections and says nothing."""
    narrator = stage.narrator
    process = stage.fleet.nodes["commerce"].process
    if process is None:
        return
    process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        slow = await stage.ask(REGISTER, _SELECTS, deadline=_DEADLINE)
        took = time.monotonic() - started
    finally:
        process.send_signal(signal.SIGCONT)
    narrator.check(
        status(slow["commerce.Enterprise"]) == "TIMEOUT",
        "one that hangs is told as late",
        status(slow["commerce.Enterprise"]),
    )
    narrator.check(took < _DEADLINE, f"and the answer comes before the deadline all the same: {took:.2f} s", took)
