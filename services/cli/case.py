"""`hutong case`: approvals that several agencies work on. Each command lies in a module of `services.cli.cases`."""

from typing import Any, Final

import typer
import typer.core

from services.cli import lazy
from services.cli.cases import appending, showing, submitting

_IMPORT: Final = lazy.Entry("import", "services.cli.cases.importing", "Import a log of cases.", "")


class _Commands(typer.core.TyperGroup):
    """The commands, of which one is imported only when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names."""
        return [*super().list_commands(ctx), _IMPORT.name]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give a command by its name."""
        return lazy.command(_IMPORT) if cmd_name == _IMPORT.name else super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Cases: one application, several agencies, one clock that everybody can see.\n\n"
    "A [bold]procedure[/bold] says which agency does what, after what, in how long. A [bold]case[/bold] is the list of "
    "what happened; where it stands, and how much of each limit is left, is computed from that.\n\n"
    "\b\nExamples:\n"
    "  hutong procedure show FTZ-EST\n"
    "  hutong case submit FTZ-EST --as commerce/registry --subject cn.uscc:…\n"
    "  hutong case event CASE E1 start --as commerce/registry\n"
    "  hutong case show CASE --as commerce/registry\n"
    "  hutong case list --as customs/release --light red\n"
    "  hutong case import receipt.xes.gz --procedure WABO-RECEIPT\n",
)

app.command("submit")(submitting.submit)
app.command("event")(appending.event)
app.command("show")(showing.show)
app.command("watch")(showing.watch)
app.command("list")(showing.list_)
