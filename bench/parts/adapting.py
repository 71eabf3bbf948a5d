"""Loading sources and replaying event logs, each beside a bare insert."""

from pathlib import Path
from typing import Any

from bench import loads
from bench import replay as replays
from bench.setup import Setup
from services.cli.zone import Zone

_REGISTER = Path("commerce", "cn_enterprise_2019_fujian.csv")


async def load(setup: Setup) -> dict[str, Any]:
    """Load real rows of a register; nothing is measured where they are not there."""
    source = setup.data / _REGISTER
    if not source.exists():
        return {"missing": f"no {_REGISTER.name}"}
    found = await loads.measure(Zone.prepare(setup.folder / "loads"), "commerce", "cn_registry_2019", source)
    return {"name": found.name, "rows": found.rows, "seconds": found.seconds, "ratio": found.ratio}


async def replay_of(log: Path) -> dict[str, Any]:
    """Replay one event log."""
    found = await replays.measure(log, "WABO-RECEIPT")
    return {
        "name": found.name,
        "events": found.events,
        "per_second": found.per_second,
        "ratio": found.ratio,
        "seconds": found.seconds,
        "parse_seconds": found.parse_seconds,
    }


async def replay(setup: Setup) -> dict[str, Any]:
    """Replay the real permit log in both its forms; nothing is measured where it is not there."""
    paths = [setup.data / "approval" / f"coselog_receipt.{form}.gz" for form in ("xes", "csv")]
    return {"logs": [await replay_of(path) for path in paths if path.exists()]}
