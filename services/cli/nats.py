"""`hutong nats`: the broker that events may go over. It is a server of others; what it must be told is ours to say."""

import typer

from services.cli.brokers import writing

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The broker that events between nodes may go over, [bold]NATS JetStream[/bold].\n\n"
    "Who may connect to it, and what each may say and hear, follows from the config of the node that publishes.\n\n"
    "\b\nExamples:\n"
    "  hutong nats config --config recognition.toml --certificate nats.pem --store /var/lib/nats > nats.conf\n",
)


@app.callback()
def nats() -> None:
    """Make a group of it, for as long as it has one command."""


app.command("config")(writing.write)
