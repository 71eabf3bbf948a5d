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

from bench import loads, query, replay
from bench.process import resident_mb
from services.cli.filling import fill
from services.cli.fleet import Fleet
from services.cli.zone import Zone

REPOSITORY = Path(__file__).resolve().parents[1]
TARGETS = {"cpu": 1.3, "load_s": 5.0, "resident_mb": 130.0, "replay_per_s": 20_000}
PARTS = ("load", "replay", "fleet")
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
        if "fleet" in wanted:
            zone = Zone.prepare(Path(folder) / "fleet")
            fill(zone, None, with_sample=True, quiet=True)
            uvloop.run(_fleet(zone))


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
