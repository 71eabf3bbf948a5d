"""Output for people and for machines, the same in every command."""

import json
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]

PLAIN_WIDTH = 160
"""Columns when nobody looks: a pipe must not cut names."""


def forgive_streams() -> None:
    """Let output go on where the terminal's encoding has no word for a character: it is escaped, not lost."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def console(*, stderr: bool = False) -> Console:
    """Make the console of a command; made anew each time, because tests change the streams."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def print_json(value: object, *, lines: bool = False) -> None:
    """Print a value as JSON; on one line where several make up the output."""
    typer.echo(as_json_text(value, indent=None if lines else 2))


def as_json_text(value: object, *, indent: int | None = None) -> str:
    """Write a value as JSON: in plain ASCII where standard output is not Unicode, which any JSON reader undoes."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    return json.dumps(value, ensure_ascii=not unicode, indent=indent, default=str)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Make a table; values are text, never markup, since they come from elsewhere."""
    made = Table(title=Text(title) if title else None, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Make a table of names and values, without a header."""
    made = Table(show_header=False)
    for name, value in rows:
        made.add_row(Text(name, style="bold"), Text(value))
    return made


class Bar:
    """Progress on standard error, while somebody looks: what, a bar, and the columns of whoever shows it."""

    def __init__(self, *columns: ProgressColumn, quiet: bool = False) -> None:
        out = console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            console=out,
            transient=True,
            disable=quiet or not out.is_terminal,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()
