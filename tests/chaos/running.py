"""One bad thing at a time: begun, lived with, ended; what callers saw, and whether it healed and nothing was lost."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from hutong.api.exchange.v1 import federation_pb2
from tests.chaos.asking import DEADLINE, WHOLE, Asker, Outcome, question
from tests.chaos.bed import CALLER, Bed
from tests.chaos.proving import Proof, kept, prove

SLACK: Final = 1.0
"""Seconds over the deadline after which an answer is late: this machine has other things to do."""


@dataclass
class Doing:
    """A bad thing while it happens."""

    bed: Bed
    asker: Asker
    also: Counter[str] = field(default_factory=Counter[str])
    """What others saw than the caller who asks continuously."""
    notes: list[str] = field(default_factory=list[str])
    """What was measured besides."""
    problems: list[str] = field(default_factory=list[str])


Fault = Callable[[Doing], AbstractAsyncContextManager[None]]
"""Begins a bad thing on entry, and ends it on exit."""


@dataclass(frozen=True, slots=True)
class Case:
    """A bad thing, and what it may cost."""

    name: str
    title: str
    """As the table has it."""
    fault: Fault
    seen: frozenset[str]
    """What may come of questions besides whole answers."""
    must: bool = True
    """Whether some of it has to: where not, the fault says itself that it was one."""
    also: frozenset[str] = frozenset()
    """What others see besides: each of it, and nothing else."""
    lasts: float = 3.0
    """Seconds."""
    make: Callable[[int], federation_pb2.QueryRequest] = question


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a case."""

    case: Case
    questions: int
    outcomes: Counter[str]
    """Of the questions asked from the fault until it was healed."""
    also: Counter[str]
    notes: tuple[str, ...]
    first: float | None
    """Seconds from the fault to the first answer that it cost something; None where it cost nothing."""
    healed: float
    """Seconds from the end of the fault to the first answer after which all are whole."""
    longest: float
    """Seconds that any question took."""
    proof: Proof
    problems: tuple[str, ...]


async def run(case: Case, bed: Bed) -> Found:
    """Do a bad thing, and judge what came of it."""
    async with Asker(bed.fleet.client(CALLER), case.make) as asker:
        doing = Doing(bed, asker)
        ready = await asker.until_whole(time.monotonic())
        begun = time.monotonic()
        async with case.fault(doing):
            await asyncio.sleep(case.lasts)
            ended = time.monotonic()
        healed = ready and await asker.until_whole(ended)
    proof = await asyncio.to_thread(prove, kept(bed.zone), asker.outcomes)
    if not healed:
        doing.problems.append("it did not heal")
    return judged(case, doing, begun, ended, proof)


def judged(case: Case, doing: Doing, begun: float, ended: float, proof: Proof) -> Found:
    """Judge what came of a case; `begun` and `ended` are when the fault was."""
    problems = doing.problems
    outcomes = sorted(doing.asker.outcomes, key=lambda outcome: outcome.answered)
    during = [outcome for outcome in outcomes if outcome.answered >= begun]
    bad = [outcome for outcome in during if outcome.what != WHOLE]
    counted = Counter(outcome.what for outcome in during)
    unexpected = {what: count for what, count in counted.items() if what not in case.seen | {WHOLE}}
    if unexpected:
        problems.append(f"seen, and not expected: {unexpected}")
    if case.seen and case.must and not bad:
        problems.append("nobody noticed: the fault was none")
    problems += [f"not seen: {what}" for what in case.also - set(doing.also)]
    problems += [f"others saw: {what}" for what in set(doing.also) - case.also]
    longest = max((outcome.answered - outcome.asked for outcome in during), default=0.0)
    if longest > DEADLINE + SLACK:
        problems.append(f"an answer took {longest:.1f} s")
    return Found(
        case,
        len(during),
        counted,
        doing.also,
        tuple(doing.notes),
        bad[0].answered - begun if bad else None,
        _healed(during, bad, ended),
        longest,
        proof,
        (*problems, *proof.problems),
    )


def _healed(during: list[Outcome], bad: list[Outcome], ended: float) -> float:
    last = max((outcome.asked for outcome in bad), default=0.0)
    whole = [outcome.answered for outcome in during if outcome.what == WHOLE and outcome.asked > max(last, ended)]
    return min(whole, default=ended) - ended if last > ended or bad else 0.0
