"""`hutong case import`, apart from the other commands: it carries what reading logs and writing stores takes."""

import typer

from services.cli.importing import import_

app = typer.Typer(rich_markup_mode="rich")

app.command("import")(import_)
