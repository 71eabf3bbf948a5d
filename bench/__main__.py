"""`python -m bench`: measures speed, everything side by side in one run, and writes it down.

Results lie in .bench/results.json, part by part; a part that is measured anew takes the place of the former one.
`--write` puts tables and charts made of them into docs/performance.md and docs/operations/sizing.md.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import uvloop

from bench import page, results, sizing
from bench.parts import (
    adapting,
    departments,
    federated,
    logged,
    nodes,
    policy,
    records,
    sessions,
    storage,
    sweeps,
    trust,
)
from bench.setup import Setup
from bench.sides import console

Part = Callable[[Setup], Awaitable[Mapping[str, Any]]]

PARTS: Final[Mapping[str, Part]] = {
    "federated": partial(federated.measure, peers=False),
    "logged": logged.measure,
    "policy": policy.measure,
    "records": records.measure,
    "sessions": sessions.measure,
    "departments": departments.measure,
    "fields": sweeps.fields,
    "policies": sweeps.policies,
    "nodes": nodes.measure,
    "load": adapting.load,
    "replay": adapting.replay,
    "proofs": trust.proofs,
    "revocation": trust.revocation,
    "storage": storage.measure,
    "peers": partial(federated.measure, peers=True),
}
"""What can be measured, in this order."""

PEERS: Final = ("peers",)
"""What needs others' programs, and is left out unless it is asked for."""


def main() -> int:
    """Measure, keep, print, write."""
    arguments = _arguments()
    # What runs is stopped on the way out, also where somebody else ends us.
    signal.signal(signal.SIGTERM, _ended)
    names = [name for name in PARTS if name in arguments.only]
    failed = [name for name in names if not _measured(name, arguments)]
    found = results.read(arguments.results)
    measured = {name: found[name] for name in names if name in found and name not in failed}
    sys.stdout.write(page.tables(measured) + sizing.tables(measured))
    if arguments.write:
        page.write(found)
        sizing.write(found)
    if failed:
        console.log(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _ended(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    data = os.environ.get("HUTONG_SHARED_DATA", str(results.REPOSITORY.parent / "shared" / "data"))
    usual = [name for name in PARTS if name not in PEERS]
    names = [*PARTS, "nothing"]
    parser.add_argument("--only", choices=names, nargs="+", metavar="PART", help=f"measure these: {', '.join(names)}")
    parser.add_argument("--peers", action="store_true", help="measure what others would build, beside ours, too")
    parser.add_argument("--quick", action="store_true", help="just see that it runs; keeps nothing")
    parser.add_argument("--big", action="store_true", help="also ten million records, and a stream of a million")
    parser.add_argument("--transport", choices=("grpcio", "nghttp2"), default="", help="what nodes' configs say")
    parser.add_argument("--write", action="store_true", help="write both pages of all results there are")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of real data, for loads and replays")
    parser.add_argument("--results", type=Path, default=results.FILE, help="where results are kept")
    arguments = parser.parse_args()
    arguments.only = arguments.only or [*usual, *(PEERS if arguments.peers else ())]
    if arguments.quick and arguments.results == results.FILE:
        arguments.results = results.FILE.with_name("quick.json")
    return arguments


def _measured(name: str, arguments: argparse.Namespace) -> bool:
    """Measure one part and keep what came of it; false where it failed, which costs no other part."""
    console.rule(name)
    folder = Path(tempfile.mkdtemp(prefix="hutong-bench-"))
    setup = Setup(folder, arguments.data, arguments.quick, arguments.big, arguments.transport)
    started = time.perf_counter()
    try:
        found = uvloop.run(_run(PARTS[name], setup))
    except Exception:
        console.print_exception()
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results.keep(name, found, arguments.results)
    console.log(f"{name} took {time.perf_counter() - started:.0f} s")
    return True


async def _run(part: Part, setup: Setup) -> Mapping[str, Any]:
    return await part(setup)


if __name__ == "__main__":
    sys.exit(main())
