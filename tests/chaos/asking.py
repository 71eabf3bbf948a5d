"""A caller that asks continuously, whatever happens, and keeps in mind what came of every question."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bench import corpus
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli.query import SERVICE
from services.kit.client import Client, parse
from services.kit.errors import HutongError

WHOLE: Final = "whole"
"""What came of a question that all departments answered, with the records they have."""

EVERY: Final = 0.05
"""Seconds between two questions: an answer that takes longer holds up none."""
DEADLINE: Final = 2.0
"""Seconds that a caller waits."""
SUBJECTS: Final = 20
"""Enterprises that are asked about."""
WHY: Final = exchange_pb2.RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER")


Given = dict[tuple[str, str], tuple[bytes, ...]]
"""The records that were given first, by subject and type."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question."""

    asked: float
    """When, in seconds of the monotonic clock."""
    answered: float
    what: str
    """`WHOLE`; the sections that are missing, with their reasons; or the reason of the error."""
    raw: bytes = b""
    """The answer as it came; empty where there was none."""


def question(number: int) -> federation_pb2.QueryRequest:
    """Ask all five departments about an enterprise that all of them know."""
    return federation_pb2.QueryRequest(
        subject=common_pb2.SubjectId(scheme=corpus.SCHEME, value=corpus.code(number % SUBJECTS)),
        selections=[exchange_pb2.Selection(record_type=name) for name in corpus.TYPES],
        context=WHY,
    )


def told(answer: federation_pb2.QueryResponse) -> str:
    """Say which departments did not answer, and why."""
    status = exchange_pb2.SectionStatus.Name
    missing = [
        f"{s.agency}: {s.reason or status(s.status).removeprefix('SECTION_STATUS_')}"
        for s in answer.sections
        if not s.records
    ]
    return ", ".join(missing) or WHOLE


def failed(error: HutongError) -> str:
    """Say what a caller is told where there is no answer."""
    return f"error {error.reason}"


@dataclass
class Asker:
    """Asks one question after the other at a fixed pace; each waits for its own answer only."""

    client: Client
    given: Given = field(default_factory=dict[tuple[str, str], tuple[bytes, ...]])
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    _running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Asker":
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ask nothing more, and wait for what is still to be answered."""
        running, self._running = self._running, None
        if running:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def _run(self) -> None:
        asked: set[asyncio.Task[None]] = set()
        begun, number = time.monotonic(), 0
        try:
            while True:
                task = asyncio.create_task(self._ask(number))
                asked.add(task)
                task.add_done_callback(asked.discard)
                number += 1
                await asyncio.sleep(max(0.0, begun + number * EVERY - time.monotonic()))
        finally:
            await asyncio.gather(*asked)

    async def _ask(self, number: int) -> None:
        request = question(number)
        asked, raw = time.monotonic(), b""
        try:
            raw = await self.client.raw(f"{SERVICE}/Query", request, timeout=DEADLINE)
            answer = parse(raw, federation_pb2.QueryResponse)
            what = self._changed(request.subject.value, answer) or told(answer)
        except HutongError as error:
            what = failed(error)
        self.outcomes.append(Outcome(asked, time.monotonic(), what, raw))

    def _changed(self, subject: str, answer: federation_pb2.QueryResponse) -> str:
        """Compare what is given with what was given before: half a record would be found by it."""
        for section in answer.sections:
            records = tuple(record.value for record in section.records)
            if records and self.given.setdefault((subject, section.record_type), records) != records:
                return f"WRONG {section.record_type}"
        return ""

    async def until_whole(self, since: float, count: int = 20, limit: float = 30.0) -> bool:
        """Wait until so many questions in turn, asked since a moment, are answered in whole; false where never."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while True:
                    last = sorted((o for o in self.outcomes if o.asked >= since), key=lambda o: o.asked)[-count:]
                    if len(last) == count and all(o.what == WHOLE for o in last):
                        return True
                    await asyncio.sleep(EVERY)
        return False
