"""Load generators, from outside: start one, tell it what to do, hear what came of it."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bench.asking.job import Job, Told

_LONGEST_LINE = 1 << 20


class GeneratorFailedError(Exception):
    """A generator could not do what it was told."""


@dataclass
class Generator:
    """A load generator's process, as a context: it lives as long as the context."""

    job: Job
    process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "bench.generator",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        await self._write(self.job.to_json())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def verify(self, most: int) -> int:
        """Have every answer checked field by field; gives how many. Raises `GeneratorFailedError` for a wrong one."""
        return int(await self._do({"do": "verify", "most": most}))

    async def closed(self, in_flight: int, seconds: float) -> Told:
        """Have so many questions kept in flight; raises `GeneratorFailedError`."""
        return Told.of(await self._do({"do": "closed", "in_flight": in_flight, "seconds": seconds}))

    async def paced(self, rate: float, count: int) -> Told:
        """Have questions asked at a pace; raises `GeneratorFailedError`."""
        return Told.of(await self._do({"do": "paced", "rate": rate, "count": count}))

    async def _do(self, command: Mapping[str, object]) -> Any:
        await self._write(json.dumps(command))
        assert self.process is not None
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        reply = json.loads(line) if line else {"failed": "it ended"}
        if "failed" in reply:
            raise GeneratorFailedError(f"{self.job.kind} at {self.job.target}: {reply['failed']}")
        return reply["ok"]

    async def _write(self, line: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()
