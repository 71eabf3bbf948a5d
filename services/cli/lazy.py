"""The command group that imports a command only when it is run, and the one door through which its errors leave.

A node's process is started through the same executable as everything else, and must not carry what it does not use.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import typer
import typer.core
import typer.main

from services.cli import door
from services.cli.output import forgive_streams

_Command = typer.core.TyperCommand | typer.core.TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of `hutong`, known without importing it."""

    name: str
    module: str
    """Module that holds a `typer.Typer` called `app`."""
    summary: str
    panel: str


class LazyGroup(typer.core.TyperGroup):
    """A group whose commands come from a table of `Entry`; a subclass fills the table."""

    entries: tuple[Entry, ...] = ()

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self._by_name = {entry.name: entry for entry in self.entries}
        # Only the names matter here: typer suggests the nearest of them for one that is mistyped.
        self.commands = dict(self._stubs())
        self._listing = False
        _reflow(self)

    def _stubs(self) -> Iterator[tuple[str, typer.core.TyperCommand]]:
        for entry in self.entries:
            yield (
                entry.name,
                typer.core.TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel, callback=None),
            )

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names, in the order of the table."""
        return list(self._by_name)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command; while help is written, its summary does."""
        entry = self._by_name.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return self.commands[cmd_name]
        return command(entry)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without importing any command."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether a machine asks: errors then are JSON too, whatever command they come from."""
        forgive_streams()
        ctx.meta[door.AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what goes wrong is told by `door.tell` and ends with its exit code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            door.tell(error, as_json=bool(ctx.meta.get(door.AS_JSON)))
            raise typer.Exit(door.FAILED) from None


def command(entry: Entry) -> _Command:
    """Import the command of an entry."""
    app: typer.Typer = importlib.import_module(entry.module).app
    single = len(app.registered_commands) == 1 and not app.registered_groups and not app.registered_callback
    # Not `typer.main.get_command`, which would offer shell completion once more on every command.
    made = (
        typer.main.get_command_from_info(
            app.registered_commands[0], pretty_exceptions_short=False, rich_markup_mode="rich"
        )
        if single
        else typer.main.get_group(app)
    )
    _reflow(made)
    return cast("_Command", made)


def _reflow(made: Any) -> None:
    """Let paragraphs of help flow to the terminal's width; those marked with a backspace keep their lines."""
    paragraphs = (made.help or "").split("\n\n")
    made.help = "\n\n".join(
        text.removeprefix("\b\n") if text.startswith("\b") else " ".join(text.splitlines()) for text in paragraphs
    )
    for child in getattr(made, "commands", {}).values():
        _reflow(child)
