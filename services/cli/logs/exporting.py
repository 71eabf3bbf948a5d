"""`hutong log export`: a log as static files, or its decisions as one file."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn

from services.cli import question
from services.cli.logs import decisions
from services.cli.logs.where import Config, Local, Node, Where
from services.cli.output import AsJson, Bar, console, print_json
from services.cli.question import Folder
from services.cli.zone import DEFAULT_FOLDER
from services.kit.log.export import export_tiles

Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Only entries from then on: 2026-03-01.")]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Only entries before then.")]


def export(
    node: Node = "",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Folder for tiles; what is there already is kept.")
    ] = None,
    made: Annotated[
        Path | None, typer.Option("--decisions", metavar="FILE", help="Write decisions with all they rest on instead.")
    ] = None,
    hashes_only: Annotated[
        bool, typer.Option("--hashes-only", help="Leave entries out: for everybody to see.")
    ] = False,
    since: Since = "",
    until: Until = "",
    config: Config = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Export a log from its database: tiles to serve or to keep, or decisions to recompute.

    Tiles (C2SP tlog-tiles) lie in a folder as any web server can serve them; another export into it adds what is new.
    Decisions go into one file, with proofs, openings and texts, for `hutong audit recompute --file` and
    `hutong policy diff --log`. It holds what the log only commits to: keep it as you keep the log itself.

    \b
    Examples:
      hutong log export customs --to ./customs-log
      hutong log export customs --decisions customs.decisions --since 2026-03-01
    """
    local = Where(node=node, config=config, folder=folder).required
    if (to is None) == (made is None):
        raise typer.BadParameter("say where to: --to DIR for tiles, or --decisions FILE")
    if made is not None:
        if hashes_only:
            raise typer.BadParameter("--hashes-only is for tiles")
        _decisions(local, made, since, until, as_json)
    elif to is not None:
        if since or until:
            raise typer.BadParameter("--since and --until are for decisions: tiles are of the whole log")
        _tiles(local, to, not hashes_only, as_json)


def _tiles(local: Local, to: Path, entries: bool, as_json: bool) -> None:
    with local.connect() as connection, Bar(MofNCompleteColumn(), quiet=as_json) as bar:
        task = bar.progress.add_task(local.origin, total=None)
        size = export_tiles(
            connection,
            to,
            entries=entries,
            progress=lambda done, total: bar.progress.update(task, completed=done, total=total),
        )
    if as_json:
        print_json({"log": local.origin, "entries": size, "folder": str(to)})
    else:
        console().print(f"{local.origin}: {size} entries in {to}", markup=False, soft_wrap=True)


def request(since: str, until: str, draw: int = 0, seed: bytes = b"") -> decisions.Request:
    """Ask for decisions of a time; raises `typer.BadParameter`."""
    made = decisions.Request(draw=draw, seed=seed, page_size=decisions.PAGE)
    if since:
        made.since.FromDatetime(question.moment(since))
    if until:
        made.until.FromDatetime(question.moment(until))
    return made


def _decisions(local: Local, to: Path, since: str, until: str, as_json: bool) -> None:
    pages, entries = decisions.to_file(to, decisions.from_database(local, request(since, until)))
    if as_json:
        print_json({"log": local.origin, "entries": entries, "pages": pages, "file": str(to)})
    else:
        console().print(f"{local.origin}: {entries} entries in {to}", markup=False, soft_wrap=True)
