"""A bad day from morning to evening, measured: what each thing costs, as a table.

    python -m tests.chaos [--only NAME …] [--write]

`--write` puts what was run into the table of docs/reliability.md, row by row; others stay as they are. Exits with 1
where something came that may not.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
from rich.console import Console

from tests.chaos import bed, clocks, page
from tests.chaos.cases import CASES
from tests.chaos.clocks import CLOCK_CASES
from tests.chaos.running import Found, run

console = Console(soft_wrap=True)


async def day(folder: Path, only: Collection[str]) -> list[Found]:
    """Run cases one after the other, all where none is named: first on processes, then by clocks that are moved."""
    found: list[Found] = []
    if cases := [case for case in CASES if not only or case.name in only]:
        async with bed.running(folder) as made:
            for case in cases:
                if why := case.cannot(made):
                    console.print(f"{case.name}: skipped: {why}", style="yellow")
                    continue
                came = await run(case, made, made.client(), made.logs(), made.given)
                found.append(_shown(came))
    if by_clocks := [case for case in CLOCK_CASES if not only or case.name in only]:
        async with clocks.running(folder / "clocks") as clocked:
            for each in by_clocks:
                came = await run(each, clocked, clocked.client(), clocked.logs(), clocked.given)
                found.append(_shown(came))
    return found


def _shown(found: Found) -> Found:
    console.print(page.line(found), style="red" if found.problems else None)
    return found


def main() -> int:
    """Run, show, and write where that is asked for."""
    names = [*(case.name for case in CASES), *(case.name for case in CLOCK_CASES)]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=names, help="some of it")
    parser.add_argument("--write", action="store_true", help="write their rows into docs/reliability.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hutong-chaos-") as folder:
        Path(folder).chmod(0o755)
        Path(folder, "clocks").mkdir()
        found = asyncio.run(day(Path(folder), given.only or ()))
    if given.write:
        page.write(found, [*(case.title for case in CASES), *(case.title for case in CLOCK_CASES)])
    return int(any(each.problems for each in found))


if __name__ == "__main__":
    sys.exit(main())
