"""`hutong progress`: where one's case stands."""

import typer

from services.cli.cases import showing

app = typer.Typer(rich_markup_mode="rich")

app.command()(showing.progress)
