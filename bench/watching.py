"""Processes watched for what they keep: memory and open files, sampled while something goes on."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.process import resident_mb


@dataclass(frozen=True)
class Sample:
    """What a process had at a moment."""

    at: float
    """On `time.monotonic`."""
    mb: float
    files: int


@dataclass
class Watched:
    """One process over time."""

    pid: int
    samples: list[Sample] = field(default_factory=list[Sample])

    def look(self) -> None:
        """Take a sample; of a process that is gone there is none."""
        try:
            files = len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        except OSError:
            return
        self.samples.append(Sample(time.monotonic(), resident_mb(self.pid), files))

    def since(self, start: float) -> list[Sample]:
        """Give the samples from a moment on."""
        return [sample for sample in self.samples if sample.at >= start]

    def slope(self, start: float) -> float:
        """Tell how memory grew from a moment on, in MB a minute: the line that fits best."""
        samples = self.since(start)
        if len(samples) < 2:
            return 0.0
        times = [(sample.at - start) / 60 for sample in samples]
        mean_t = sum(times) / len(times)
        mean_m = sum(sample.mb for sample in samples) / len(samples)
        spread = sum((t - mean_t) ** 2 for t in times)
        return sum((t - mean_t) * (s.mb - mean_m) for t, s in zip(times, samples, strict=True)) / spread


async def watch(watched: Mapping[str, Watched], every: float) -> None:
    """Sample every so many seconds, until cancelled."""
    while True:
        for process in watched.values():
            process.look()
        await asyncio.sleep(every)
