"""One department with ever more records, and memory while very many of them are streamed."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import bulk, corpus, sides, zones
from bench.asking.calls import SERVICE
from bench.asking.job import GIVEN
from bench.driver import Generator
from bench.parts.federated import job, ours, pids
from bench.process import resident_mb
from bench.setup import Setup
from bench.sides import Side, console
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli.fleet import Fleet

_ASKED: Final = 20_000
"""How many enterprises are asked about, evenly spread over all there are."""
_PAGE: Final = 200
_LOOK: Final = 0.2
"""Seconds between looks at memory."""


async def measure(setup: Setup) -> dict[str, Any]:
    """Measure a question to one department with 10^4 records and more, then a stream of very many."""
    async with ours(setup, "records", subjects=1) as fleet:
        sizes = [await _at(setup, fleet, before, size) for before, size in _sizes(setup)]
        count = 2_000 if setup.quick else 1_000_000 if setup.big else 200_000
        streamed = await _streamed(fleet, count)
    return {"sizes": sizes, "streamed": streamed}


def _sizes(setup: Setup) -> list[tuple[int, int]]:
    sizes = [10**4] if setup.quick else [10**4, 10**5, 10**6, *([10**7] if setup.big else [])]
    return list(zip([1, *sizes], sizes, strict=False))


async def _at(setup: Setup, fleet: Fleet, before: int, size: int) -> dict[str, Any]:
    await _changed(fleet, partial(bulk.grow, begin=before, end=size))
    asked = min(_ASKED, size)
    given = {bulk.TYPE: GIVEN[bulk.TYPE]}
    made = job(fleet.zone, "session", fleet.address("gateway"), asked, given=given, stride=size // asked)
    async with AsyncExitStack() as stack:
        generator = await stack.enter_async_context(Generator(made))
        department = pids(fleet, bulk.AGENCY)
        side = Side(str(size), f"{size:,} records", generator, pids(fleet, "gateway"), department)
        await sides.verify([side], 500)
        loads = await sides.compare([side], loads=(1, 64), rounds=setup.rounds, seconds=setup.brief)
    console.log(f"{size:,} records")
    found = {"records": size, "loads": [load.to_json() for load in loads]}
    return found | {"file_mb": _database(fleet).stat().st_size / 1e6, "resident_mb": resident_mb(*department)}


def _database(fleet: Fleet) -> Path:
    return fleet.zone.config_file(bulk.AGENCY).with_name("records.db")


async def _changed(fleet: Fleet, change: Callable[[Path], None]) -> None:
    """Change a department's store while it does not run."""
    await fleet.kill(bulk.AGENCY)
    started = time.perf_counter()
    await asyncio.to_thread(change, _database(fleet))
    console.log(f"rows inserted in {time.perf_counter() - started:.0f} s")
    await fleet.restart(bulk.AGENCY)
    # Also the gateway, so that nothing of before is in the way of what is measured.
    await fleet.restart("gateway")


async def _streamed(fleet: Fleet, count: int) -> dict[str, Any]:
    await _changed(fleet, partial(bulk.add_many, number=0, count=count))
    nodes = {name: pids(fleet, name) for name in ("gateway", bulk.AGENCY)}
    before = {name: resident_mb(*found) for name, found in nodes.items()}
    seen: list[dict[str, float]] = []
    watching = asyncio.create_task(_watch(nodes, seen))
    started = time.perf_counter()
    try:
        records = await _stream(fleet)
    finally:
        watching.cancel()
    seconds = time.perf_counter() - started
    if records != count + 1:
        raise RuntimeError(f"{records} records came, not {count + 1}")
    most = {name: max(each[name] for each in seen) for name in nodes}
    # From the second quarter on, so that what is opened and kept once does not count as growth.
    begun = {name: max(each[name] for each in seen[: len(seen) // 4 + 1]) for name in nodes}
    return {"records": records, "seconds": seconds, "before_mb": before, "first_quarter_mb": begun, "most_mb": most}


async def _watch(nodes: dict[str, list[int]], seen: list[dict[str, float]]) -> None:
    while True:
        seen.append({name: resident_mb(*found) for name, found in nodes.items()})
        await asyncio.sleep(_LOOK)


async def _stream(fleet: Fleet) -> int:
    asked = federation_pb2.StreamQueryRequest(
        query=federation_pb2.QueryRequest(
            subject=common_pb2.SubjectId(scheme=corpus.SCHEME, value=corpus.code(0)),
            selections=[exchange_pb2.Selection(record_type=bulk.TYPE, page_size=_PAGE)],
            context=exchange_pb2.RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER"),
        ),
        all_pages=True,
    )
    records = 0
    client = fleet.client(zones.CALLER)
    answers: Any = client.stream(f"{SERVICE}/StreamQuery", asked, federation_pb2.StreamQueryResponse, timeout=None)
    async with aclosing(answers) as sections:
        async for answer in sections:
            if not answer.section.records:
                raise RuntimeError(f"after {records} records: {answer.section.reason or answer.section.status}")
            records += len(answer.section.records)
    return records
