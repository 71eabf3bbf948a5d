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
from typing import Any, Final

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
from rich.console import Console

from tests.chaos import bed, clocks, page
from tests.chaos.cases import CASES, WIRE_CASES
from tests.chaos.clocks import CLOCK_CASES
from tests.chaos.running import Case, Found, run

EVERY: Final[tuple[Case[Any], ...]] = (*CASES, *WIRE_CASES, *CLOCK_CASES)
"""In the order of the table."""

console = Console(soft_wrap=True)


async def day(only: Collection[str]) -> list[Found]:
    """Run cases one after the other, all where none is named: first on processes, then by clocks that are moved."""
    found: list[Found] = []
    for of, wired in ((CASES, False), (WIRE_CASES, True)):
        cases = [case for case in of if not only or case.name in only]
        if not cases:
            continue
        async with bed.alone(wired=wired) as made:
            for case in cases:
                if why := case.cannot(made):
                    console.print(f"{case.name}: skipped: {why}", style="yellow")
                    continue
                came = await run(case, made, made.client(), made.logs(), made.given)
                found.append(_shown(came))
    if by_clocks := [case for case in CLOCK_CASES if not only or case.name in only]:
        with tempfile.TemporaryDirectory(prefix="hutong-chaos-") as folder:
            async with clocks.running(Path(folder)) as clocked:
                for each in by_clocks:
                    came = await run(each, clocked, clocked.client(), clocked.logs(), clocked.given)
                    found.append(_shown(came))
    return found


def _shown(found: Found) -> Found:
    console.print(page.line(found), style="red" if found.problems else None)
    return found


def main() -> int:
    """Run, show, and write where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=[case.name for case in EVERY], help="some of it")
    parser.add_argument("--write", action="store_true", help="write their rows into docs/reliability.md")
    given = parser.parse_args()
    found = asyncio.run(day(given.only or ()))
    if given.write:
        page.write(found, [case.title for case in EVERY])
    return int(any(each.problems for each in found))


if __name__ == "__main__":
    sys.exit(main())
