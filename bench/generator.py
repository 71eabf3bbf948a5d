"""The load generator, a process of its own: asks, waits, checks, and tells what it saw.

`python -m bench.generator` reads a `Job` and then commands from standard input, one JSON object a line, and answers
each with one line. Every question of a round is about another enterprise than the one before, in an order that is
shuffled once; every answer is looked at, and one of 64 is checked field by field.
"""

import asyncio
import gc
import json
import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from random import Random
from typing import Any, Final

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import uvloop

from bench.asking import calls, graphql, postgres
from bench.asking.job import QUANTILES, Job, Kind, Told, quantiles
from bench.asking.way import Way

CHECKED: Final = 64
"""One of so many answers is checked field by field during a round."""
_MOST_ERRORS = 1000
_AT_ONCE = 32
"""Questions in flight while everything is checked once."""

WAYS: Final[Mapping[Kind, Callable[[Job], Way]]] = {
    "session": calls.BySession,
    "unary": calls.by_unary,
    "plain": calls.by_plain,
    "graphql": graphql.ByGraphql,
    "postgres": postgres.ByPostgres,
}


class Rounds:
    """Runs rounds over one way of asking."""

    def __init__(self, way: Way, numbers: Sequence[int]) -> None:
        self._way = way
        self._every = numbers
        order = list(numbers)
        Random(7).shuffle(order)
        self._numbers: Iterator[int] = cycle(order)

    async def verify(self, most: int) -> int:
        """Ask about every enterprise, `most` at most, and check every field of every answer; gives how many it were.

        Raises `WrongAnswerError`, or what came instead of an answer.
        """
        numbers = iter(self._every[:: max(1, len(self._every) // most)])
        checked = 0

        async def one_by_one() -> None:
            nonlocal checked
            for number in numbers:
                answer = await self._answer(number)
                if isinstance(answer, Exception):
                    raise answer
                self._way.check(number, answer)
                checked += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(one_by_one())
        return checked

    async def _answer(self, number: int) -> Any:
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._way.ask(number, waiting.set_result)
        return await waiting

    async def closed(self, in_flight: int, seconds: float) -> Told:
        """Keep so many questions in flight: as one is answered, the next is asked."""
        round_ = _Round(self._way)
        end = time.perf_counter() + seconds
        begun = 0

        def go_on() -> None:
            nonlocal begun
            begun -= 1
            if time.perf_counter() < end and not round_.failing:
                begun += 1
                round_.ask(next(self._numbers), go_on)
            elif not begun:
                round_.done.set()

        begun = in_flight
        for _ in range(in_flight):
            round_.ask(next(self._numbers), go_on)
        await round_.done.wait()
        return round_.told()

    async def paced(self, rate: float, count: int) -> Told:
        """Ask `count` questions at a steady pace, whether earlier ones are answered or not."""
        round_ = _Round(self._way)
        left = count

        def answered() -> None:
            nonlocal left
            left -= 1
            if not left:
                round_.done.set()

        begin = time.perf_counter()
        for number in range(count):
            due = begin + number / rate
            now = time.perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
            round_.late.append(max(0.0, time.perf_counter() - due))
            round_.ask(next(self._numbers), answered)
        await round_.done.wait()
        return round_.told()


class _Round:
    """What one round sees."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self.done = asyncio.Event()
        self.late = array("d")
        self._waits = array("d")
        self._errors: Counter[str] = Counter()
        self._begun = time.perf_counter()
        self._cpu = time.process_time()

    @property
    def failing(self) -> bool:
        """It makes no sense to go on."""
        return self._errors.total() >= _MOST_ERRORS

    def ask(self, number: int, then: Callable[[], None]) -> None:
        """Ask, take down the wait, look at the answer, go on."""
        started = time.perf_counter()

        def told(answer: Any) -> None:
            waits = self._waits
            waits.append(time.perf_counter() - started)
            if isinstance(answer, Exception):
                self._errors[str(getattr(answer, "reason", "") or type(answer).__name__)] += 1
            elif not len(waits) % CHECKED:
                self._check(number, answer)
            then()

        self._way.ask(number, told)

    def _check(self, number: int, answer: Any) -> None:
        try:
            self._way.check(number, answer)
        except Exception as error:
            self._errors[type(error).__name__] += 1

    def told(self) -> Told:
        """Sum up."""
        seconds, cpu = time.perf_counter() - self._begun, time.process_time() - self._cpu
        answered = len(self._waits)
        waits = [wait * 1e3 for wait in self._waits]
        late = quantiles(self.late)[QUANTILES.index(99.0)] * 1e3 if self.late else 0.0
        every = waits if self.late else ()
        return Told(answered, seconds, cpu / answered * 1e6, quantiles(waits), dict(self._errors), late, every)


async def _obey(rounds: Rounds, command: Mapping[str, Any]) -> object:
    match command["do"]:
        case "verify":
            return await rounds.verify(command["most"])
        case "closed":
            return asdict(await rounds.closed(command["in_flight"], command["seconds"]))
        case "paced":
            return asdict(await rounds.paced(command["rate"], command["count"]))
        case other:
            raise ValueError(f"no command {other!r}")


async def main() -> None:
    """Read commands until there are none."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    job = Job.from_json((await lines.readline()).decode())
    way = WAYS[job.kind](job)
    await way.open()
    rounds = Rounds(way, job.numbers)
    while line := await lines.readline():
        gc.collect()
        try:
            reply: object = {"ok": await _obey(rounds, json.loads(line))}
        except* Exception as errors:
            reply = {"failed": "; ".join(f"{type(e).__name__}: {e}" for e in errors.exceptions)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    await way.close()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main())
