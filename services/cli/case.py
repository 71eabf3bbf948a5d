"""`hutong case`: approvals that several agencies work on. Each command lies in a module of `services.cli.cases`."""

import typer

from services.cli.cases import appending, showing, submitting

app = typer.Typer(
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
    "  hutong case list --as customs/release --light red\n",
)

app.command("submit")(submitting.submit)
app.command("event")(appending.event)
app.command("show")(showing.show)
app.command("watch")(showing.watch)
app.command("list")(showing.list_)
