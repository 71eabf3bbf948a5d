"""`hutong sample`: write a synthetic zone."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from services.cli.output import AsJson, console, print_json, table
from services.cli.sample import setting as defaults
from services.cli.sample.cast import MIN_ENTERPRISES
from services.cli.sample.setting import Setting
from services.cli.sample.writing import write

app = typer.Typer(name="sample", rich_markup_mode="rich")

_EARLIEST, _LATEST = dt.date(2000, 1, 1), dt.date(2089, 12, 31)


def _day(value: str | dt.date) -> dt.date:
    try:
        day = value if isinstance(value, dt.date) else dt.date.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a date of the form 2026-06-30") from None
    if not _EARLIEST <= day <= _LATEST:
        raise typer.BadParameter("the reference date must be in the years 2000 to 2089")
    return day


@app.command("sample")
def sample(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write: new, empty, or an earlier sample to replace.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Which zone: the same seed gives the same bytes.")] = (
        defaults.DEFAULT_SEED
    ),
    enterprises: Annotated[
        int, typer.Option(min=MIN_ENTERPRISES, max=defaults.MAX_ENTERPRISES, help="How many firms the zone has.")
    ] = defaults.DEFAULT_ENTERPRISES,
    today: Annotated[
        dt.date,
        typer.Option(
            parser=_day,
            metavar="DATE",
            help="The day the zone is looked at; nothing in it happens later. The machine's date plays no part.",
        ),
    ] = defaults.DEFAULT_TODAY,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic zone: invented firms, the same in all five agencies, with oddities planted among them.

    Everything in it is marked: names say 示例 or SAMPLE, numbers of persons start with SAMPLE, the region does not
    exist. One CSV file for each record type, read by [bold]hutong load[/bold] without a mapping of its own, and some
    of it once more under OUT/legacy in older shapes, for the mappings of real sources.

    What is odd was planted: one invoice behind two declarations, a barred firm that trades, a refund on goods never
    cleared, a code whose check digit is wrong and that must land in quarantine. OUT/README.txt and OUT/manifest.json
    list every oddity with the keys of its records.

    \b
    Examples:
      hutong sample zone
      hutong sample zone --seed 11 --enterprises 1000
      hutong sample zone --today 2026-03-31 --json
      hutong load customs --mapping auto:customs.Penalty zone/customs/penalty.csv
    """
    written = write(out, Setting(seed, enterprises, today))
    if as_json:
        print_json(written)
        return
    _tell(out, written)


def _tell(out: Path, written: Mapping[str, Any]) -> None:
    tables: Mapping[str, Mapping[str, Any]] = written["tables"]
    rows = [(name, f"{entry['rows']:,}", entry["path"]) for name, entry in tables.items()]
    screen = console()
    screen.print(table(f"Synthetic zone in {out}", ("Record type", "Rows", "File"), rows))
    oddities = [(o["indicator"], o["name"], o["title"]) for o in written["oddities"]]
    screen.print(table("Planted", ("Indicator", "Name", "What is odd"), oddities))
    exporter = written["story"]["exporter"]
    screen.print(Text(f"Ask about {exporter['name']}: cn.uscc:{exporter['uscc']}"))
    screen.print(Text(f"Keys of everything planted: {out / 'README.txt'}, {out / 'manifest.json'}"))
