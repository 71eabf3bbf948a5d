"""Federated queries with everything recorded durably before each answer, against the same mesh recording nothing."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import cast

import grpc.aio

from bench import query
from bench.query import Call
from certs.tls import channel_credentials, server_name
from services.cli.fleet import Fleet

SECONDS = 4.0
ROUNDS = 3


@dataclass(frozen=True)
class Logged:
    """Rates of both sides at one number of queries in flight; medians of interleaved rounds."""

    in_flight: int
    logged: float
    """Queries a second, each with its entry in six logs."""
    unlogged: float
    logged_p50_ms: float
    unlogged_p50_ms: float

    @property
    def ratio(self) -> float:
        """How much of the rate is kept."""
        return self.logged / self.unlogged


async def measure(logged: Fleet, unlogged: Fleet) -> list[Logged]:
    """Measure at 1, 16 and 64 queries in flight; both fleets hold the same sample."""
    raws = [query.question(fleet.zone.sample).SerializeToString() for fleet in (logged, unlogged)]
    calls = [_call(fleet) for fleet in (logged, unlogged)]
    for call, raw in zip(calls, raws, strict=True):
        await query.check(call, raw)
    return [await _compare(n, calls, raws) for n in (1, 16, 64)]


def _call(fleet: Fleet) -> Call:
    options = [("grpc.ssl_target_name_override", server_name(fleet.zone.identity("gateway/main")))]
    credentials = channel_credentials(fleet.zone.credentials(query.CALLER))
    channel = grpc.aio.secure_channel(fleet.address("gateway"), credentials, options=options)
    return cast("Call", channel.unary_unary(query.QUERY))


async def _compare(in_flight: int, calls: list[Call], raws: list[bytes]) -> Logged:
    rates: tuple[list[float], list[float]] = ([], [])
    waits: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for side, (call, raw) in enumerate(zip(calls, raws, strict=True)):
            latencies = await _round(call, raw, in_flight)
            rates[side].append(len(latencies) / SECONDS)
            waits[side].append(statistics.median(latencies) * 1e3)
    return Logged(in_flight, *map(statistics.median, rates), *map(statistics.median, waits))


async def _round(call: Call, raw: bytes, in_flight: int) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS

    async def ask() -> None:
        while (started := time.perf_counter()) < end:
            await call(raw, timeout=10)
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(ask() for _ in range(in_flight)))
    return latencies
