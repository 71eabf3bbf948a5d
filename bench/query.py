"""A federated query over five agencies, policy on, against a bare fan-out of the same five calls to the same nodes."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc.aio

from bench import bare
from bench.process import cpu_seconds
from certs.tls import channel_credentials, server_name
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli import sample
from services.cli.fleet import Fleet

CALLER = "quality/lab"
QUERY = "/hutong.api.exchange.v1.FederationService/Query"
TYPES = (
    "commerce.Enterprise",
    "taxation.TaxpayerStatus",
    "customs.Operator",
    "quality.TraceEvent",
    "publicsecurity.SealRegistration",
)
SECONDS = 4.0
"""Length of one round."""
ROUNDS = 3


Call = Callable[..., Awaitable[bytes]]
Side = tuple[int, Call]
"""A gateway's process, and how it is called."""


@dataclass(frozen=True)
class Round:
    """What one round cost."""

    queries: int
    gateway_us: float
    """CPU of the gateway's process per query."""
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Ratio:
    """Ours over the yardstick, at one number of queries in flight; medians of interleaved rounds."""

    in_flight: int
    cpu: float
    p50: float
    p99: float
    ours_us: float
    bare_us: float


def question(folder: Path) -> federation_pb2.QueryRequest:
    """Ask five agencies about the sample's exporter, for the public-register purpose."""
    exporter = sample.story(folder).exporter
    return federation_pb2.QueryRequest(
        subject=common_pb2.SubjectId(scheme="cn.uscc", value=exporter.uscc),
        selections=[exchange_pb2.Selection(record_type=name) for name in TYPES],
        context=exchange_pb2.RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER"),
    )


async def measure(fleet: Fleet) -> list[Ratio]:
    """Measure at 1, 16 and 64 queries in flight."""
    asked = question(fleet.zone.sample)
    process, port = await _start_bare(fleet, asked)
    try:
        ours = cast("Call", _channel(fleet, fleet.address("gateway")).unary_unary(QUERY))
        theirs = cast("Call", _channel(fleet, f"127.0.0.1:{port}").unary_unary("/" + "/".join(bare.METHOD)))
        raw = asked.SerializeToString()
        await check(ours, raw)
        await theirs(raw, timeout=10, wait_for_ready=True)
        gateway = fleet.nodes["gateway"].process
        assert gateway is not None
        return [await _compare(n, (gateway.pid, ours), (process.pid, theirs), raw) for n in (1, 16, 64)]
    finally:
        process.kill()
        await process.wait()


async def check(call: Call, raw: bytes) -> None:
    """The question must be answered by all five, or there is nothing to compare."""
    answer = federation_pb2.QueryResponse.FromString(await call(raw, timeout=10))
    given = [section for section in answer.sections if section.records]
    if len(given) != len(TYPES):
        raise RuntimeError(f"only {[s.record_type for s in given]} answered")


async def _start_bare(fleet: Fleet, asked: federation_pb2.QueryRequest) -> tuple[asyncio.subprocess.Process, int]:
    prepared = fleet.zone.folder / "bench-question"
    prepared.write_bytes(asked.SerializeToString())
    listener = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port: int = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    arguments = ["-m", "bench.bare", str(fleet.zone.config_file("gateway")), str(prepared), CALLER, str(port)]
    return await asyncio.create_subprocess_exec(sys.executable, *arguments), port


def _channel(fleet: Fleet, target: str) -> grpc.aio.Channel:
    options = [("grpc.ssl_target_name_override", server_name(fleet.zone.identity("gateway/main")))]
    return grpc.aio.secure_channel(target, channel_credentials(fleet.zone.credentials(CALLER)), options=options)


async def _compare(in_flight: int, ours: Side, theirs: Side, raw: bytes) -> Ratio:
    rounds: tuple[list[Round], list[Round]] = ([], [])
    for _ in range(ROUNDS):
        for found, (pid, call) in zip(rounds, (ours, theirs), strict=True):
            found.append(await _round(pid, call, raw, in_flight))

    def median(side: int, name: str) -> float:
        return statistics.median(float(getattr(r, name)) for r in rounds[side])

    return Ratio(
        in_flight,
        median(0, "gateway_us") / median(1, "gateway_us"),
        median(0, "p50_ms") / median(1, "p50_ms"),
        median(0, "p99_ms") / median(1, "p99_ms"),
        median(0, "gateway_us"),
        median(1, "gateway_us"),
    )


async def _round(pid: int, call: Call, raw: bytes, in_flight: int) -> Round:
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS
    before = cpu_seconds(pid)

    async def ask() -> None:
        while (started := time.perf_counter()) < end:
            await call(raw, timeout=10)
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(ask() for _ in range(in_flight)))
    spent = cpu_seconds(pid) - before
    cuts = statistics.quantiles(latencies, n=100)
    return Round(len(latencies), spent / len(latencies) * 1e6, cuts[49] * 1e3, cuts[98] * 1e3)


def as_json(ratios: list[Ratio]) -> str:
    """Write the ratios for machines."""
    return json.dumps([r.__dict__ for r in ratios])
