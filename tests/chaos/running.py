"""One bad thing at a time: begun, lived with, ended; what callers saw, and whether it healed and nothing was lost."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from services.kit.client import Client
from tests.chaos.asking import DEADLINE, SUBJECTS, WHOLE, Asker, Given, Outcome
from tests.chaos.proving import Kept, Proof, prove

SLACK: Final = 1.0
"""Seconds over the deadline after which an answer is late: this machine has other things to do."""

B = TypeVar("B")
"""What a bad thing is done to."""


@dataclass
class Doing(Generic[B]):
    """A bad thing while it happens."""

    bed: B
    asker: Asker
    also: Counter[str] = field(default_factory=Counter[str])
    """What others saw than the caller who asks continuously."""
    notes: list[str] = field(default_factory=list[str])
    """What was measured besides."""
    problems: list[str] = field(default_factory=list[str])


Fault = Callable[[Doing[B]], AbstractAsyncContextManager[None]]
"""Begins a bad thing on entry, and ends it on exit."""


def _can(_: object) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Case(Generic[B]):
    """A bad thing, and what it may cost."""

    name: str
    title: str
    """As the table has it."""
    fault: Fault[B]
    seen: frozenset[str]
    """What may come of questions besides whole answers."""
    must: bool = True
    """Whether some of it has to: where not, the fault says itself that it was one."""
    also: frozenset[str] = frozenset()
    """What others see besides: each of it, and nothing else."""
    lasts: float = 1.5
    """Seconds."""
    heals: float = 30.0
    """Seconds that it may take to heal."""
    cannot: Callable[[B], str] = _can
    """Says why it cannot be done here; empty where it can."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a case."""

    name: str
    title: str
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


async def run(case: Case[B], bed: B, client: Client, logs: Mapping[str, Kept], given: Given) -> Found:
    """Do a bad thing, and judge what came of it; `client` is of who asks, `logs` has the gateway's and everybody's.

    `given` is what was given before the first bad thing, empty before that: every answer is compared with it.
    """
    async with Asker(client, given) as asker:
        doing = Doing(bed, asker)
        # Where one came before, that has healed: then a glance is enough.
        if not await asker.until_whole(time.monotonic(), count=5 if given else SUBJECTS, limit=10.0):
            came = Counter(outcome.what for outcome in asker.outcomes[-20:])
            raise AssertionError(f"before {case.name}: the zone does not answer in whole: {came}")
        begun = time.monotonic()
        async with case.fault(doing):
            await asyncio.sleep(case.lasts)
            ended = time.monotonic()
        if not await asker.until_whole(ended):
            doing.problems.append("it did not heal")
    return _judged(case, doing, begun, ended, await asyncio.to_thread(prove, logs, asker.outcomes))


def _judged(case: Case[B], doing: Doing[B], begun: float, ended: float, proof: Proof) -> Found:
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
    healed = _healed(during, bad, ended)
    if healed > case.heals:
        problems.append(f"it took {healed:.1f} s to heal")
    longest = max((outcome.answered - outcome.asked for outcome in during), default=0.0)
    if longest > DEADLINE + SLACK:
        problems.append(f"an answer took {longest:.1f} s")
    return Found(
        case.name,
        case.title,
        len(during),
        counted,
        doing.also,
        tuple(doing.notes),
        bad[0].answered - begun if bad else None,
        healed,
        longest,
        proof,
        (*problems, *proof.problems),
    )


def _healed(during: list[Outcome], bad: list[Outcome], ended: float) -> float:
    last = max((outcome.asked for outcome in bad), default=0.0)
    whole = [outcome.answered for outcome in during if outcome.what == WHOLE and outcome.asked > max(last, ended)]
    return min(whole, default=ended) - ended if last > ended or bad else 0.0
