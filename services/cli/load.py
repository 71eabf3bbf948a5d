"""`hutong load`: a source into an agency's store, through a mapping."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from adapters.document import SqlSpec
from adapters.mapping import Mapping, with_source_system
from services.cli.department import Department
from services.cli.loading import Bar, Loaded, load, summary
from services.cli.output import AsJson, console, print_json
from services.cli.question import Folder
from services.cli.zone import DEFAULT_FOLDER

app = typer.Typer(rich_markup_mode="rich")

Config = Annotated[
    Path | None, typer.Option("--config", help="The department's config, instead of a zone folder.", show_default=False)
]


@app.command("load")
def command(
    agency: Annotated[str, typer.Argument(metavar="AGENCY", help="Whose records they become.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, a folder of files, or a database URL.")],
    mapping: Annotated[
        str, typer.Option("--mapping", metavar="M", help="A mapping file, the name of one of the room's, or auto:TYPE.")
    ],
    source_system: Annotated[
        str, typer.Option(metavar="NAME", help="What records say they come from; by default the mapping decides.")
    ] = "",
    folder: Folder = DEFAULT_FOLDER,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Load a source into an agency's store through a mapping.

    Every row ends as loaded, unchanged or quarantined: read = loaded + unchanged + quarantined, always. A row that
    cannot be mapped goes to quarantine with the reason and its original bytes, and is no failure: the exit code is 0.
    Loading the same source again changes nothing. The node may run meanwhile.

    \b
    Examples:
      hutong load commerce --mapping cn_registry_2019 fujian.csv
      hutong load customs --mapping wco_dms declarations/
      hutong load quality --mapping auto:quality.Certificate certificates.csv --config quality.toml
    """
    department = Department.of(agency, folder, config)
    found = department.mapping(mapping)
    if source_system:
        found = with_source_system(found, source_system)
    loaded = asyncio.run(_load(department, found, source, as_json))
    if as_json:
        print_json(loaded.as_dict())
        return
    out = console()
    out.print(summary([loaded]))
    if loaded.report.quarantined:
        where = f" --config {config}" if config else "" if folder == DEFAULT_FOLDER else f" --dir {folder}"
        out.print(Text(f"In quarantine, and not lost: {loaded.report.quarantined}. Look at them:"))
        out.print(Text(f"  hutong quarantine list {agency} --mapping {loaded.mapping}{where}"))


async def _load(department: Department, mapping: Mapping, source: str, quiet: bool) -> Loaded:
    rows = isinstance(mapping.document.source, SqlSpec)
    async with department.store() as store:
        with Bar(rows=rows, quiet=quiet) as progress:
            return await load(department, store, mapping, source, progress)
