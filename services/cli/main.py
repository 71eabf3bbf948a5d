"""`hutong`: the one executable of the mesh.

Every command lives in a module of its own and is imported when it runs; this file only knows their names.
"""

from importlib import metadata
from typing import Annotated

import typer

from services.cli.lazy import Entry, LazyGroup

_TRY = "Try it"
_ASK = "Ask"
_APPROVE = "Approvals"
_WATCH = "Supervision and proof"
_RUN = "Run"
_KEEP = "Keep records and rules"

_HELP = """Government data that gets through: one question, many agencies, field by field under policy.

An [bold]agency[/bold] owns record types and runs a [bold]node[/bold]. A [bold]caller[/bold] is a system with a \
certificate (spiffe://ZONE/AGENCY/SYSTEM). It asks the [bold]gateway[/bold] about a [bold]subject[/bold] \
(scheme:value), for exactly one [bold]purpose[/bold], on a [bold]legal basis[/bold]. Each owner's \
[bold]policy[/bold] decides every field: given, transformed, or refused with a reason.

\b
First commands:
  hutong demo            a story on synthetic data that checks itself
  hutong up              a running mesh in .hutong/, until Ctrl-C
  hutong catalogue       which records there are, and whose
  hutong query --help    ask a question
  hutong policy --help   decide who gets which field

\b
Exit codes:
  0 done    1 refused or failed, and a reason told    2 called wrongly
  3 answered, but nothing was given (query)

Every command has --json, for machines.
"""


class Hutong(LazyGroup):
    """The commands of `hutong`."""

    entries = (
        Entry("demo", "services.cli.demo.command", "Tell a short story on a real mesh and check every step.", _TRY),
        Entry("up", "services.cli.up", "Run a whole mesh on this machine, until Ctrl-C.", _TRY),
        Entry("query", "services.cli.query", "Ask one question across agencies.", _ASK),
        Entry("explain", "services.cli.explain", "Show what a question would be given, field by field.", _ASK),
        Entry("reads", "services.cli.reads", "List who looked at an enterprise's records.", _ASK),
        Entry("catalogue", "services.cli.catalogue", "List record types, or the fields of one.", _ASK),
        Entry("case", "services.cli.case", "Submit, work on, show and follow cases.", _APPROVE),
        Entry("progress", "services.cli.progress", "Show where a case stands, and who holds it.", _APPROVE),
        Entry("remind", "services.cli.remind", "Remind whoever holds a stage.", _APPROVE),
        Entry("result", "services.cli.result", "Sign, verify, present and revoke stage results.", _APPROVE),
        Entry("tasks", "services.cli.tasks", "What an agency has to look at and dispose of.", _APPROVE),
        Entry("procedure", "services.cli.procedure", "Check and draw procedures.", _APPROVE),
        Entry("stats", "services.cli.stats", "How long stages take, and where the bottleneck is.", _APPROVE),
        Entry(
            "authorization", "services.cli.authorization", "Request, approve, use and revoke authorizations.", _WATCH
        ),
        Entry("officer", "services.cli.officer", "Issue tokens of officers, in development.", _WATCH),
        Entry("log", "services.cli.log", "Verify, prove, witness and export a node's log.", _WATCH),
        Entry("audit", "services.cli.audit", "Recompute a node's decisions from the policy in force.", _WATCH),
        Entry("serve", "services.cli.serve", "Run one node: a room, recognition, supervision, gateway.", _RUN),
        Entry("health", "services.cli.health", "Ask a node whether it serves: what probes run.", _RUN),
        Entry("values", "services.cli.values", "Check the values of a release on Kubernetes.", _RUN),
        Entry("provision", "services.cli.provision", "Make and renew what the nodes of a zone hold in private.", _RUN),
        Entry("certs", "certs.commands", "Identity: create a zone; issue, rotate, revoke certificates.", _RUN),
        Entry("nats", "services.cli.nats", "Write the config of a broker that events may go over.", _RUN),
        Entry("status", "services.cli.status", "Show every node of a zone at a glance, by lights.", _RUN),
        Entry("doctor", "services.cli.doctor", "Look at what a node needs, and say what to do.", _RUN),
        Entry("events", "services.cli.events", "Show who follows a node's events; go on where some are gone.", _KEEP),
        Entry("db", "services.cli.db", "Check, upgrade, back up and restore the databases of a node.", _KEEP),
        Entry("load", "services.cli.load", "Load a source into an agency's store through a mapping.", _KEEP),
        Entry("quarantine", "services.cli.quarantine", "Look at rows that could not be loaded; try again.", _KEEP),
        Entry("policy", "services.cli.policies", "Check, test, show and compare policies.", _KEEP),
        Entry("sample", "services.cli.sample.commands", "Write a synthetic zone, clearly marked as such.", _KEEP),
    )


app = typer.Typer(
    name="hutong",
    cls=Hutong,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hutong {metadata.version('hutong')}")
        raise typer.Exit


@app.callback()
def hutong(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Take what holds for every command."""


if __name__ == "__main__":
    app()
