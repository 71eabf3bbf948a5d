"""`python -m bench`: starts a fleet and reports speed as ratios, measured side by side in one run."""

import argparse
import os
import tempfile
from pathlib import Path

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import uvloop
from rich.console import Console
from rich.table import Table

from bench import loads, logged, proofs, query, replay, revocation
from bench.process import resident_mb
from services.cli.filling import fill
from services.cli.fleet import Fleet
from services.cli.zone import Zone

REPOSITORY = Path(__file__).resolve().parents[1]
TARGETS = {"cpu": 1.3, "load_s": 5.0, "resident_mb": 130.0, "replay_per_s": 20_000, "logged": 0.6, "verify_s": 20.0}
PARTS = ("load", "replay", "proofs", "fleet", "logged", "revocation")
ENTRIES = 1_000_000
console = Console()


def main() -> None:
    """Measure everything and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    data = os.environ.get("HUTONG_SHARED_DATA", str(REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of real data, for loads and replays")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this; repeat for more")
    arguments = parser.parse_args()
    wanted = arguments.only or PARTS
    with tempfile.TemporaryDirectory(prefix="hutong-bench-") as folder:
        if "load" in wanted:
            uvloop.run(_loads(Path(folder) / "loads", arguments.data))
        if "replay" in wanted:
            uvloop.run(_replays(arguments.data))
        if "proofs" in wanted:
            _proofs(Path(folder))
        if "fleet" in wanted:
            uvloop.run(_fleet(_zone(Path(folder) / "fleet")))
        if "logged" in wanted:
            uvloop.run(_logged(*(_zone(Path(folder) / name) for name in ("logged", "unlogged"))))
        if "revocation" in wanted:
            uvloop.run(_revocation(_zone(Path(folder) / "revocation")))


def _zone(folder: Path) -> Zone:
    zone = Zone.prepare(folder)
    fill(zone, None, with_sample=True, quiet=True)
    return zone


def _proofs(folder: Path) -> None:
    found = proofs.measure(folder, ENTRIES)
    columns = (
        "entries",
        "verify, ours / bare hashing",
        "seconds",
        "append µs",
        "inclusion ms",
        "worst",
        "consistency ms",
        "check ms",
    )
    table = Table(*columns, title="A whole log")
    numbers = (found.inclusion_ms, found.inclusion_worst_ms, found.consistency_ms, found.check_ms)
    rest = (f"{number:.2f}" for number in numbers)
    table.add_row(str(found.entries), f"{found.ratio:.1f}", f"{found.verify_s:.1f}", f"{found.append_us:.1f}", *rest)
    console.print(table)
    console.print(f"target: verified in at most {TARGETS['verify_s']} s, an inclusion proof in at most 5 ms")


async def _logged(zone: Zone, other: Zone) -> None:
    async with Fleet(zone) as ours, Fleet(other, program="bench.unlogged") as theirs:
        columns = ("in flight", "rate, logged / unlogged", "logged/s", "unlogged/s", "p50 ms", "p50 ms unlogged")
        table = Table(*columns, title="Everything recorded before it leaves")
        for found in await logged.measure(ours, theirs):
            rates = (f"{found.logged:.0f}", f"{found.unlogged:.0f}")
            waits = (f"{found.logged_p50_ms:.1f}", f"{found.unlogged_p50_ms:.1f}")
            table.add_row(str(found.in_flight), f"{found.ratio:.2f}", *rates, *waits)
        console.print(table)
        console.print(f"target: at least {TARGETS['logged']} of the rate at 64 in flight")


async def _revocation(zone: Zone) -> None:
    async with Fleet(zone) as fleet:
        found = await revocation.measure(fleet)
        table = Table("revocations", "p50 ms", "p99 ms", "worst ms", "load, queries/s", title="Revocation to refusal")
        numbers = (found.p50_ms, found.p99_ms, found.worst_ms, found.queries_per_s)
        table.add_row(str(found.count), *(f"{number:.0f}" for number in numbers))
        console.print(table)
        console.print("target: p99 under 1000 ms")


async def _fleet(zone: Zone) -> None:
    async with Fleet(zone) as fleet:
        await _memory(fleet)
        table = Table(
            "in flight", "gateway CPU, ours / bare", "p50", "p99", "µs ours", "µs bare", title="Federated query"
        )
        for ratio in await query.measure(fleet):
            numbers = (f"{n:.2f}" for n in (ratio.cpu, ratio.p50, ratio.p99))
            table.add_row(str(ratio.in_flight), *numbers, f"{ratio.ours_us:.0f}", f"{ratio.bare_us:.0f}")
        console.print(table)
        console.print(f"target: gateway CPU at most {TARGETS['cpu']} times the bare fan-out")


async def _memory(fleet: Fleet) -> None:
    table = Table("node", "resident MB", "of the target", title="Memory at rest")
    for name, node in fleet.nodes.items():
        assert node.process is not None
        resident = resident_mb(node.process.pid)
        table.add_row(name, f"{resident:.0f}", f"{resident / TARGETS['resident_mb']:.2f}")
    console.print(table)


async def _loads(folder: Path, data: Path) -> None:
    source = data / "commerce" / "cn_enterprise_2019_fujian.csv"
    if not source.exists():
        console.print(f"no {source}: the load of real rows is left out")
        return
    load = await loads.measure(Zone.prepare(folder), "commerce", "cn_registry_2019", source)
    table = Table("source", "rows", "rows/s", "time, ours / bare insert", "seconds", title="Load")
    table.add_row(
        load.name, str(load.rows), f"{load.rows / load.seconds:.0f}", f"{load.ratio:.1f}", f"{load.seconds:.2f}"
    )
    console.print(table)
    console.print(f"target: {load.rows} rows in at most {TARGETS['load_s']} s on the 2-core reference machine")


async def _replays(data: Path) -> None:
    logs = [path for form in ("xes", "csv") if (path := data / "approval" / f"coselog_receipt.{form}.gz").exists()]
    if not logs:
        console.print(f"no event log in {data / 'approval'}: the replay is left out")
        return
    columns = ("log", "events", "events/s", "time, ours / bare insert", "seconds", "of these, parsing")
    table = Table(*columns, title="Replay of an event log")
    for log in logs:
        found = await replay.measure(log, "WABO-RECEIPT")
        speed = (f"{found.per_second:.0f}", f"{found.ratio:.1f}", f"{found.seconds:.2f}", f"{found.parse_seconds:.2f}")
        table.add_row(found.name, str(found.events), *speed)
    console.print(table)
    console.print(f"target: at least {TARGETS['replay_per_s']} events/s on the 2-core reference machine")


if __name__ == "__main__":
    main()
